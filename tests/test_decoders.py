"""Decoders: against torch's own transformer, and what autoregression must not see."""

import pytest
import torch
from torch import nn

from tests.masking import run
from topdown.model.decoders import AutoregressiveDecoder, MLPDecoder, SlotwiseDecoder, scan_orders


def torch_layer(ours, width, heads):
    """torch's decoder layer with our weights."""
    theirs = nn.TransformerDecoderLayer(width, heads, 4 * width, dropout=0.0, batch_first=True, norm_first=True)
    pairs = (theirs.self_attn, ours.self_attention), (theirs.multihead_attn, ours.cross_attention)
    for attention, mine in pairs:
        attention.in_proj_weight.data = torch.cat([p.weight for p in (mine.project_q, mine.project_k, mine.project_v)])
        attention.in_proj_bias.data = torch.cat([p.bias for p in (mine.project_q, mine.project_k, mine.project_v)])
        attention.out_proj.load_state_dict(mine.project_out.state_dict())
    theirs.norm1.load_state_dict(ours.norm_self.state_dict())
    theirs.norm2.load_state_dict(ours.norm_cross.state_dict())
    theirs.norm3.load_state_dict(ours.norm_mlp.state_dict())
    theirs.linear1.load_state_dict(ours.mlp[0].state_dict())
    theirs.linear2.load_state_dict(ours.mlp[2].state_dict())
    return theirs


def test_equals_torch_transformer():
    torch.manual_seed(0)
    decoder = AutoregressiveDecoder(16, 8, num_layers=3, num_heads=4).eval()
    slots, target = torch.randn(2, 5, 8), torch.randn(2, 9, 16)
    x = torch.cat([decoder.begin_token.expand(2, -1, -1), target[:, :-1]], 1)
    x, memory = decoder.project_input(x), decoder.project_slots(slots)
    for layer in decoder.layers[:-1]:
        x = torch_layer(layer, 16, 4)(x, memory, tgt_mask=nn.Transformer.generate_square_subsequent_mask(9))
    last = torch_layer(decoder.layers[-1], 16, 4)
    expected = last(x, memory, tgt_mask=nn.Transformer.generate_square_subsequent_mask(9))
    normed = last.norm1(x)
    causal = nn.Transformer.generate_square_subsequent_mask(9)
    x = x + last.self_attn(normed, normed, normed, attn_mask=causal, need_weights=False)[0]
    weights = last.multihead_attn(last.norm2(x), memory, memory)[1]
    out = decoder(slots, target)
    torch.testing.assert_close(out.reconstruction, expected, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(out.masks, weights.transpose(1, 2), atol=1e-6, rtol=1e-4)
    torch.testing.assert_close(out.masks.sum(1), torch.ones(2, 9))


def test_sees_only_earlier_tokens():
    torch.manual_seed(0)
    decoder = AutoregressiveDecoder(16, 8, num_layers=2, num_heads=2).eval()
    slots, target = torch.randn(1, 3, 8), torch.randn(1, 10, 16)
    changed = target.clone()
    changed[:, 6] += 1
    first, second = (decoder(slots, t).reconstruction for t in (target, changed))
    torch.testing.assert_close(first[:, :7], second[:, :7])
    assert not torch.allclose(first[:, 7:], second[:, 7:])


def test_input_masking_follows_the_given_pattern():
    torch.manual_seed(0)
    decoder = AutoregressiveDecoder(16, 8, num_layers=1, num_heads=2).eval()
    slots, target = torch.randn(1, 3, 8), torch.randn(1, 6, 16)
    hidden = torch.zeros(1, 6, dtype=torch.bool)
    hidden[0, 2] = True
    changed = target.clone()
    changed[:, 1] += 1  # token 1 is the input of position 2
    first, second = (decoder(slots, t, hidden_BN=hidden).reconstruction for t in (target, changed))
    torch.testing.assert_close(first, second)
    assert not torch.allclose(decoder(slots, target).reconstruction, first)


def test_the_mask_token_is_neither_projected_nor_normalised():
    """Position 0 is the begin token's; what the layers get there and elsewhere is exact."""
    torch.manual_seed(0)
    decoder = AutoregressiveDecoder(16, 8, num_layers=2, num_heads=2)
    seen = []
    decoder.layers[0].register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    target, hidden = torch.randn(2, 6, 16), torch.rand(2, 6) < 0.4
    hidden[0, 0], hidden[1, 0] = True, False
    decoder.train()(torch.randn(2, 3, 8), target, hidden_BN=hidden)
    assert torch.equal(seen[0][hidden], decoder.mask_token[0].expand(int(hidden.sum()), -1))
    plain = decoder.project_input(torch.cat([decoder.begin_token.expand(2, -1, -1), target[:, :-1]], 1))
    torch.testing.assert_close(seen[0][~hidden], plain[~hidden])


def test_the_other_place_of_the_mask_token_is_what_it_is_called():
    """What the table of the two places compares with: the token put in before the projection."""
    torch.manual_seed(0)
    decoder = AutoregressiveDecoder(16, 8, num_layers=2, num_heads=2).eval()
    slots, target = torch.randn(2, 3, 8), torch.randn(2, 6, 16)
    hidden = torch.rand(2, 6) < 0.5
    hidden[:, 0] = False
    replaced = torch.where(hidden.roll(-1, 1)[..., None], decoder.mask_token, target)  # the input of n is token n - 1
    before, behind = (run(decoder, slots, target, hidden, which)[0] for which in (True, False))
    torch.testing.assert_close(before, decoder(slots, replaced).reconstruction)
    assert not torch.allclose(before, behind, atol=0.1)
    nothing = [run(decoder, slots, target, torch.zeros_like(hidden), which)[0] for which in (True, False)]
    assert torch.equal(*nothing)


def test_input_masking_is_random_in_training_only():
    torch.manual_seed(0)
    decoder = AutoregressiveDecoder(16, 8, num_layers=1, num_heads=2, input_masking=0.5)
    slots, target = torch.randn(1, 3, 8), torch.randn(1, 20, 16)
    first, second = (decoder.train()(slots, target).reconstruction for _ in range(2))
    assert not torch.allclose(first, second)
    first, second = (decoder.eval()(slots, target).reconstruction for _ in range(2))
    torch.testing.assert_close(first, second)


def test_mlp_decoder_mixes_by_opacity():
    torch.manual_seed(0)
    decoder = MLPDecoder(6, 4, num_patches=9, hidden_size=8)
    slots, target = torch.randn(2, 3, 4), torch.randn(2, 9, 6)
    out = decoder(slots, target)
    parts = decoder.mlp(decoder.project_slots(slots)[:, :, None] + decoder.position)
    alpha = parts[..., 6].softmax(1)
    torch.testing.assert_close(out.masks, alpha)
    torch.testing.assert_close(out.reconstruction, torch.einsum('bkn,bknd->bnd', alpha, parts[..., :6]))
    with pytest.raises(ValueError, match='9 patches'):
        decoder(slots, target[:, :4])


def test_slotwise_decoder_gives_every_slot_one_token():
    torch.manual_seed(0)
    decoder = SlotwiseDecoder(6, 4, num_patches=9, hidden_size=8)
    decoder.place.data.normal_()
    slots, target = torch.randn(2, 3, 4), torch.randn(2, 9, 6)
    attention = torch.rand(2, 3, 9)
    out = decoder(slots, target, attention)
    torch.testing.assert_close(out.masks, attention / attention.sum(1, keepdim=True))
    tokens = decoder.token_mlp(slots)
    expected = decoder.place + torch.einsum('bkn,bkd->bnd', out.masks, tokens)
    torch.testing.assert_close(out.reconstruction, expected)
    with pytest.raises(ValueError, match='9 patches'):
        decoder(slots, target[:, :4], attention)


def test_scan_orders_are_the_symmetries_of_the_square():
    orders = scan_orders(16)
    assert orders[0].tolist() == list(range(16))
    assert len({tuple(o.tolist()) for o in orders}) == 8
    for order in orders:
        assert sorted(order.tolist()) == list(range(16))
        steps = torch.stack([order // 4, order % 4], 1).diff(dim=0).abs().sum(1)
        assert (steps == 1).sum() >= 12  # lines are followed
    with pytest.raises(ValueError, match='square'):
        scan_orders(12)


def test_patch_orders_permute_what_is_seen_and_put_it_back():
    torch.manual_seed(0)
    decoder = AutoregressiveDecoder(16, 8, num_layers=2, num_heads=2, num_orders=8).eval()
    slots, target = torch.randn(1, 3, 8), torch.randn(1, 9, 16)
    for number, order in enumerate(scan_orders(9)):
        changed = target.clone()
        changed[:, order[5]] += 1
        first, second = (decoder(slots, t, order=number) for t in (target, changed))
        torch.testing.assert_close(first.reconstruction[:, order[:6]], second.reconstruction[:, order[:6]])
        assert not torch.allclose(first.reconstruction[:, order[6:]], second.reconstruction[:, order[6:]])
        torch.testing.assert_close(first.masks[:, :, order[:6]], second.masks[:, :, order[:6]])
        # the order is a renaming of patches: decoding the permuted image in raster order gives the same
        begin = decoder.begin_token.data.clone()
        decoder.begin_token.data[0] = begin[number]
        renamed = decoder(slots, target[:, order], order=0).reconstruction
        decoder.begin_token.data.copy_(begin)
        torch.testing.assert_close(first.reconstruction[:, order], renamed)
    torch.testing.assert_close(decoder(slots, target).reconstruction, decoder(slots, target, order=0).reconstruction)


def test_impossible_parameters_are_refused():
    with pytest.raises(ValueError, match='num_heads'):
        AutoregressiveDecoder(16, 8, num_heads=3)
    with pytest.raises(ValueError, match='input_masking'):
        AutoregressiveDecoder(16, 8, num_heads=2, input_masking=1.0)
    with pytest.raises(ValueError, match='num_orders'):
        AutoregressiveDecoder(16, 8, num_heads=2, num_orders=9)
