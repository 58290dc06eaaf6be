"""Decoders: against torch's own transformer, and what autoregression must not see."""

import runpy
import warnings
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import pandas as pd
import pytest
import torch
from torch import nn

import topdown
from tests.masking import run
from tests.reference import diffusion as reference
from topdown import distributed, precision
from topdown.book.plan import DECODERS, MAIN, plan
from topdown.config import ModelConfig
from topdown.model.decoders import AutoregressiveDecoder, MLPDecoder, SlotwiseDecoder, scan_orders
from topdown.model.diffusion import EVALUATED_AT, DiffusionDecoder, signal_and_noise, time_features
from topdown.model.slot_model import SlotModel


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
    with pytest.raises(ValueError, match='num_heads'):
        DiffusionDecoder(16, 8, num_patches=9, num_heads=3)


# ------------------------------------------------------------------------------------------------------ diffusion


@pytest.fixture
def denoiser():
    """A decoder whose every parameter is off its start, slots, and tokens of no unit scale."""
    torch.manual_seed(0)
    decoder = DiffusionDecoder(16, 8, num_patches=9, num_layers=2, num_heads=4)
    for parameter in decoder.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return decoder, torch.randn(3, 5, 8), 2 + 3 * torch.randn(3, 9, 16)


@pytest.mark.parametrize('mode', ['given', 'evaluation'])
def test_diffusion_decoder_equals_the_naive_one(denoiser, mode):
    decoder, slots, target = denoiser
    given = {'time_B': torch.tensor([0.1, 0.6, 1.0]), 'noise_BND': torch.randn(3, 9, 16)}
    time, noise = given['time_B'], given['noise_BND']
    if mode == 'evaluation':
        given, time, noise = {}, [EVALUATED_AT] * 3, decoder.noise.expand(3, -1, -1)
    out = decoder.eval()(slots, target, **given)
    state = {name: x.double().numpy() for name, x in decoder.state_dict().items()}
    arrays = (x.double().numpy() for x in (slots, target, torch.as_tensor(time), noise))
    found, masks = reference.decode(state, *arrays, layers=2, heads=4)
    torch.testing.assert_close(out.reconstruction.double(), torch.from_numpy(found), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(out.masks.double(), torch.from_numpy(masks), atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(out.masks.sum(1), torch.ones(3, 9))


def test_the_schedule_goes_from_signal_to_noise_and_keeps_the_variance():
    time = torch.linspace(0, 1, 101, dtype=torch.float64)
    alpha, sigma = signal_and_noise(time)
    assert (alpha.diff() < 0).all()
    assert (sigma.diff() > 0).all()
    torch.testing.assert_close(alpha**2 + sigma**2, torch.ones_like(time))
    ends = torch.tensor([alpha[0], sigma[0], alpha[-1], sigma[-1]])
    torch.testing.assert_close(ends, torch.tensor([1.0, 0.0, 0.0, 1.0]).double())
    assert EVALUATED_AT == 0.5
    torch.testing.assert_close(alpha[50], sigma[50])
    features = time_features(time)
    assert features.abs().max() <= 1
    assert torch.pdist(features).min() > 0.1  # no two times look alike


def seen_by(decoder, *given, **more):
    """What the first linear map gets, which is alpha times the noisy tokens, and what it makes the decoder return."""
    seen = []
    handle = decoder.project_input.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    out = decoder(*given, **more)
    handle.remove()
    return seen[0], out


def test_noisy_tokens_have_variance_one_and_the_network_sees_the_best_linear_guess(denoiser):
    decoder, slots, _ = denoiser
    decoder = DiffusionDecoder(64, 8, num_patches=2000, num_layers=1, num_heads=1)
    target, noise = 5 + 3 * torch.randn(1, 2000, 64), torch.randn(1, 2000, 64)
    clean = (target - target.mean(-1, keepdim=True)) / target.std(-1, unbiased=False, keepdim=True)
    for time in (0.2, 0.5, 0.9):
        guess, _ = seen_by(decoder, slots[:1], target, None, False, torch.tensor([time]), noise)
        noisy = guess / signal_and_noise(torch.tensor(time))[0]
        assert noisy.var() == pytest.approx(1, abs=0.02)
        slope = (clean * noisy).mean() / noisy.square().mean()  # of the regression of tokens on noisy ones
        torch.testing.assert_close(guess, slope * noisy, atol=0.03, rtol=0)
    assert not seen_by(decoder, slots[:1], target, None, False, torch.tensor([1.0]), noise)[0].abs().max() > 1e-6


def test_evaluation_draws_nothing_and_gives_an_image_the_same_masks_wherever_it_stands(denoiser):
    decoder, slots, target = denoiser
    before = torch.get_rng_state()
    first = decoder.eval()(slots, target)
    assert torch.equal(before, torch.get_rng_state())
    again = decoder(slots, target)
    assert torch.equal(first.reconstruction, again.reconstruction)
    assert torch.equal(first.masks, again.masks)
    alone = decoder(slots[2:], target[2:])
    torch.testing.assert_close(alone.masks, first.masks[2:])
    another = DiffusionDecoder(16, 8, num_patches=9, num_layers=2, num_heads=4).eval()  # after other draws
    another.load_state_dict(decoder.state_dict())  # the noise of evaluation is in no checkpoint
    assert torch.equal(another(slots, target).masks, first.masks)
    assert 'noise' not in decoder.state_dict()
    assert decoder.noise.std() == pytest.approx(1, abs=0.2)


def test_training_draws_times_and_noise_anew_by_the_seed(denoiser):
    decoder, slots, target = denoiser
    runs = {}
    for name, seed in (('one', 1), ('one again', 1), ('two', 2)):
        torch.manual_seed(seed)
        runs[name] = [seen_by(decoder.train(), slots, target)[0] for _ in range(2)]
    for step in range(2):
        assert torch.equal(runs['one'][step], runs['one again'][step])
        assert not torch.allclose(runs['one'][step], runs['two'][step])
    assert not torch.allclose(*runs['one'])
    given = {'time_B': torch.full((3,), 0.3), 'noise_BND': torch.zeros(3, 9, 16)}
    assert torch.equal(*(decoder(slots, target, **given).reconstruction for _ in range(2)))


def test_times_are_uniform_and_every_image_has_its_own(denoiser, monkeypatch):
    decoder, slots, target = denoiser
    drawn = []
    decoder.time_mlp.register_forward_pre_hook(lambda _, inputs: drawn.append(inputs[0][:, 0]))  # sin t
    for _ in range(200):
        decoder.train()(slots, target, need_masks=False)
    times = torch.stack(drawn).asin()
    assert (times[:, 0] != times[:, 1]).all()
    ranks = torch.histc(times.flatten(), 4, 0, 1) / times.numel()
    assert (ranks - 0.25).abs().max() < 0.06
    monkeypatch.setattr(distributed, 'world', lambda: 3)  # one image a process: the same draws, cut
    parts = []
    for rank in range(3):
        monkeypatch.setattr(distributed, 'rank', lambda rank=rank: rank)
        torch.manual_seed(0)
        parts.append(seen_by(decoder, slots[:1], target[:1])[0])
    assert len({part.sum().item() for part in parts}) == 3
    monkeypatch.setattr(distributed, 'world', lambda: 1)
    monkeypatch.setattr(distributed, 'rank', lambda: 0)
    torch.manual_seed(0)
    whole = seen_by(decoder, slots[:1].expand(3, -1, -1), target[:1].expand(3, -1, -1))[0]
    torch.testing.assert_close(torch.cat(parts), whole)


def test_every_patch_sees_every_other_and_at_the_end_none(denoiser):
    decoder, slots, target = denoiser
    changed = target.clone()
    changed[:, 6] = torch.randn(3, 16)
    for time, sees in ((0.5, True), (1.0, False)):
        given = {'time_B': torch.full((3,), time), 'noise_BND': torch.zeros(3, 9, 16)}
        first, second = (decoder(slots, t, **given).reconstruction for t in (target, changed))
        apart = (first - second).abs().amax((0, 2))
        assert (apart > 1e-3).all() if sees else (apart < 1e-5).all()


def test_diffusion_decoder_needs_its_number_of_patches(denoiser):
    decoder, slots, target = denoiser
    with pytest.raises(ValueError, match='9 patches and got 4'):
        decoder(slots, target[:, :4])


@pytest.mark.parametrize('name', ['bf16', 'fp32'])
def test_diffusion_decoder_trains_slots_in_both_precisions(name):
    """Gradients of all, at every time; what bfloat16 rounds, float32 confirms."""
    torch.manual_seed(0)
    sizes = {'num_slots': 4, 'slot_size': 8, 'codebook_size': 6, 'decoder_layers': 2, 'decoder_heads': 2}
    model = SlotModel(ModelConfig(decoder='diffusion', **sizes), 16, 9).train()
    tokens, noise = torch.randn(3, 9, 16), torch.randn(3, 4, 8)
    model(tokens, noise)  # the codebook starts
    model.precision = name
    seen = []
    model.decoder.layers[0].self_attention.register_forward_hook(lambda _, __, out: seen.append(out.dtype))
    out = model(tokens, noise)
    assert seen == [torch.bfloat16 if name == 'bf16' else torch.float32]
    assert out.loss.dtype == out.masks.dtype == torch.float32
    torch.testing.assert_close(out.masks.sum(1), torch.ones(3, 9))
    out.loss.backward()
    for part, parameter in model.named_parameters():
        assert torch.isfinite(parameter.grad).all(), part
        assert parameter.grad.abs().max() > 0 or part.endswith('project_k.bias'), part  # which softmax does not see
    decoder, slots = model.decoder, out.slots.detach().requires_grad_()
    for time in (0.0, 0.5, 1.0):
        slots.grad, given = None, (torch.full((3,), time), torch.randn(3, 9, 16))
        with precision.autocast(name, 'cpu'):
            found = decoder(slots, tokens, None, True, *given)
        plain = decoder(slots.detach(), tokens, None, True, *given)
        torch.testing.assert_close(found.reconstruction.float(), plain.reconstruction, atol=0.05, rtol=0.05)
        torch.testing.assert_close(found.masks, plain.masks, atol=0.02, rtol=0.05)
        (found.reconstruction.float() - tokens).square().mean().backward()
        assert (slots.grad.abs().amax(-1) > 0).all()
        assert torch.isfinite(slots.grad).all()


# ---------------------------------------------------------------------------------------------------- the chapter

CHAPTER = Path(__file__).parent.parent / 'book' / '16_decoders.py'
SCORES = ['fg_ari', 'mbo_i', 'slots_fg_ari', 'slots_mbo_i']


def made_up(gains):
    """Rows as tables hold them: with a decoder, top-down gains so much over others, which are alike but for noise."""
    rows = []
    for job in plan('toybox', ['decoders']):
        gain = gains.get(job.setting, 0.0) if job.variant == 'top-down' else 0.0
        row = {'experiment': 'decoders', 'variant': job.variant, 'setting': job.setting, 'seed': job.seed}
        noise = 0.1 * (job.seed - 1) * MAIN.index(job.variant)  # adds up to nothing
        own = 10.0 if job.setting == 'diffusion' else 0.0
        row |= {name: 50 + own + gain + noise for name in SCORES}
        if job.setting == 'slotwise':  # whose masks are one kind
            row = {key: value for key, value in row.items() if not key.startswith('slots_')}
        rows.append({**row, 'steps': 3000, 'seconds': 300.0 if job.setting == 'diffusion' else 150.0})
    return pd.DataFrame(rows)


@pytest.fixture
def read_chapter(tmp_path, monkeypatch, capsys):
    """What the chapter prints, and its names, with this table."""

    def read(table):
        (tmp_path / 'tables').mkdir(exist_ok=True)
        if table is not None:
            table.to_csv(tmp_path / 'tables' / 'toybox_decoders.csv', index=False)
        monkeypatch.setattr(topdown, 'figures_dir', lambda: tmp_path)
        mpl.use('Agg')
        with mpl.rc_context(), warnings.catch_warnings():
            warnings.simplefilter('error', RuntimeWarning)
            names = runpy.run_path(str(CHAPTER))
        plt.close('all')
        return capsys.readouterr().out, names

    return read


def test_the_chapter_says_with_which_decoder_the_pathway_helps_and_what_it_takes(read_chapter):
    said, names = read_chapter(made_up({'mlp': 5.0}))
    assert 'toybox: 54 of 54 runs, 6 of 6 decoders, 3 seeds' in said
    for masks in ('decoder', 'slot'):
        assert f'{masks} masks: of 6 decoders, the pathway is better than baseline and' in said
        assert f'{masks} masks, mBO_i, top-down: highest with diffusion (60.0)' in said
    assert said.count('at least in part, with mlp.') == 2
    judged = names['judged'].set_index(['masks', 'decoder', 'minus'])
    assert (judged.verdict == 'reproduced here').sum() == 4
    assert judged.evidence['slot', 'slotwise', 'baseline'].startswith('FG-ARI +0.0')
    assert names['scores'].loc[('slotwise', 'top-down'), 'mBO_i, slots'] == '50.0 ± 0.1'
    assert names['beside'].loc[('diffusion', 'baseline'), ('decoder', 'FG-ARI')] == '+10.0 [+10.0, +10.0]'
    assert names['times'].loc['mlp', 'ms a step'].tolist() == [50.0] * 3
    assert names['times'].loc['diffusion', 'times'].tolist() == [2.0] * 3
    assert names['what']['diffusion']['kept for the backward pass, MB'] > 1


def test_the_chapter_works_on_what_there_is(read_chapter):
    said, names = read_chapter(None)
    assert 'toybox: 0 of 54 runs' in said
    assert said.endswith('not run\n')
    assert (names['judged'].verdict == 'not run').all()
    assert list(names['what']) == list(DECODERS)
    whole = made_up({'mlp': 5.0})
    said, names = read_chapter(whole[(whole.seed == 0) & (whole.variant != 'six-iterations')])
    assert set(names['judged'].verdict) == {'not run', 'too few seeds to say'}
    assert 'better than' not in said
