"""Pretraining: block matching, the losses against loops, views, and that it trains and can be repeated."""

import hashlib
import math

import numpy as np
import pytest
import torch

from topdown.config import PretrainConfig
from topdown.toybox import pretrain
from topdown.toybox.pretrain import SHIFTS, STILL, UNKNOWN


def test_block_matching_finds_the_motion_of_textured_patches():
    rng = np.random.default_rng(0)
    ground = rng.integers(0, 256, (48, 48, 3), np.uint8)
    thing = rng.integers(0, 256, (16, 16, 3), np.uint8)
    clip = np.stack([ground] * 3)
    for time in range(3):  # moves down by 4 and left by 6 a frame
        top, left = 16 + 4 * (time - 1), 16 - 6 * (time - 1)
        clip[time, top : top + 16, left : left + 16] = thing
    shifts = pretrain.block_shifts(clip)
    assert shifts.shape == (6, 6)
    expected = np.full((6, 6), STILL)
    expected[2:4, 2:4] = SHIFTS.index((4, -6))
    np.testing.assert_array_equal(shifts, expected)  # ground that was or will be covered is known to be still


def test_flat_patches_are_still_and_noise_is_unknown():
    assert (pretrain.block_shifts(np.full((3, 16, 16, 3), 100, np.uint8)) == STILL).all()
    noise = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), np.uint8)
    assert (pretrain.block_shifts(noise) == UNKNOWN).all()


def test_common_fate_loss_equals_loops():
    torch.manual_seed(0)
    tokens = torch.randn(2, 7, 5)
    shifts = torch.tensor([[0, 0, 1, 1, 1, -1, 2], [3, -1, 3, 3, 4, 4, -1]])
    found = pretrain.common_fate_loss(tokens, shifts, 0.3)
    groups = []
    for b in range(2):
        z = tokens[b] / tokens[b].norm(dim=-1, keepdim=True)
        known = [i for i in range(7) if shifts[b, i] != UNKNOWN]
        for g in {int(shifts[b, i]) for i in known}:
            members = [i for i in known if shifts[b, i] == g]
            if len(members) < 2:
                continue
            values = []
            for i in members:
                total = sum(math.exp(z[i] @ z[j] / 0.3) for j in known if j != i)
                pairs = [-math.log(math.exp(z[i] @ z[j] / 0.3) / total) for j in members if j != i]
                values.append(np.mean(pairs))
            groups.append(np.mean(values))
    assert abs(found.item() - np.mean(groups)) < 1e-5


def test_common_fate_loss_without_known_shifts_is_zero():
    tokens = torch.randn(2, 4, 3, requires_grad=True)
    loss = pretrain.common_fate_loss(tokens, torch.full((2, 4), UNKNOWN), 0.2)
    loss.backward()
    assert loss.item() == 0
    assert torch.isfinite(tokens.grad).all()


def test_pretraining_runs_and_calibrates(tmp_path):
    config = PretrainConfig(clips=24, steps=4, batch_size=4, calibration_views=48)
    vit = pretrain.pretrain(config, tmp_path)
    frames, shifts = pretrain.render_clips(config, tmp_path)
    torch.manual_seed(config.seed)
    images, _ = pretrain.draw_views(frames, shifts, config.calibration_views)
    with torch.no_grad():
        tokens = vit.forward_features(images).flatten(0, 1)
    torch.testing.assert_close(tokens.mean(0), torch.zeros(128), atol=1e-3, rtol=0)
    torch.testing.assert_close(tokens.std(0), torch.ones(128), atol=1e-3, rtol=0)
    assert (tmp_path / 'vit_toybox_patch8_96.safetensors').exists()
    assert len((tmp_path / 'log.jsonl').read_text().splitlines()) > 1


def test_views_keep_images_and_shifts_together():
    frames = torch.zeros(1, 112, 112, 3, dtype=torch.uint8)
    shifts = torch.full((1, 14, 14), STILL, dtype=torch.int16)
    frames[0, 40:48, 64:72] = 255
    shifts[0, 5, 8] = 7
    for seed in range(6):
        torch.manual_seed(seed)
        images, moves = pretrain.draw_views(frames, shifts, 3)
        white = torch.nn.functional.avg_pool2d(images, 8).mean(1).flatten(1).argmax(1)
        assert torch.equal(white, (moves == 7).int().argmax(1))


def test_loss_across_views_equals_loops():
    torch.manual_seed(0)
    tokens = torch.randn(4, 12, 3)  # two frames, first both first views
    shifts = torch.full((4, 12), STILL)
    shifts[0, :5], shifts[0, 5:10] = 3, 7
    shifts[1, :4], shifts[1, 4:7] = 3, 9
    shifts[2, 2:6], shifts[2, 6:9], shifts[2, 9:] = 3, 7, UNKNOWN  # 7 has three patches only
    shifts[3, 5:12] = 3
    first = [tokens[0, :5].mean(0), tokens[1, :4].mean(0)]
    second = [tokens[2, 2:6].mean(0), tokens[3, 5:].mean(0)]
    first, second = ([v / v.norm() for v in view] for view in (first, second))
    total = 0.0
    for i in range(2):
        for one, others in ((first[i], second), (second[i], first)):
            shares = [math.exp(one @ other / 0.3) for other in others]
            total -= math.log(shares[i] / sum(shares)) / 4
    assert abs(pretrain.across_views_loss(tokens, shifts, 0.3).item() - total) < 1e-5
    assert pretrain.across_views_loss(tokens, torch.full((4, 12), STILL), 0.3).item() == 0


def test_second_views_see_only_what_moves_alike():
    shifts = torch.tensor([[1, 1, 2], [1, STILL, 2], [1, 1, 2], [STILL, 2, STILL]])
    seen = pretrain.alone(shifts)[:, 0] == 0
    assert seen[:2].all()
    assert torch.equal(seen[2], torch.tensor([[1, 1, 0], [1, 1, 0], [0, 0, 1]]).bool())
    assert torch.equal(seen[3], torch.tensor([[1, 0, 1], [0, 1, 0], [1, 0, 1]]).bool())


def test_views_of_a_pair_know_what_they_show(monkeypatch):
    """White patches that move, in a black frame: wherever a view says that they are, the view is white."""
    monkeypatch.setattr(pretrain, 'recoloured', lambda images: images)
    frames = torch.zeros(1, 112, 112, 3, dtype=torch.uint8)
    shifts = torch.full((1, 14, 14), STILL, dtype=torch.int16)
    frames[0, 40:64, 48:72] = 255
    shifts[0, 5:8, 6:9] = 7
    shown = set()
    for seed in range(6):
        torch.manual_seed(seed)
        images, moves = pretrain.draw_pairs(frames, shifts, 6, PretrainConfig('category'))
        assert images.shape == (6, 3, 96, 96)
        assert set(moves.unique().tolist()) <= {UNKNOWN, STILL, 7}
        bright = torch.nn.functional.avg_pool2d(images * 0.25 + 0.65, 8).mean(1).flatten(1)
        assert bright[moves == 7].mean() > 0.75
        assert bright[moves == STILL].mean() < 0.05
        shown |= {tuple(view.tolist()) for view in moves}
    assert len(shown) > 30  # no view is like another


def test_colours_change_and_places_do_not():
    torch.manual_seed(0)
    images = torch.rand(8, 3, 1, 1).expand(8, 3, 4, 4).clone()
    images[..., 2:] = 0.1
    found = pretrain.recoloured(images)
    assert (found - images).abs().mean() > 0.05
    torch.testing.assert_close(found[..., :2], found[..., :1, :1].expand(8, 3, 4, 2))  # one colour goes to one colour
    assert found.min() >= 0
    assert found.max() <= 1


@pytest.mark.parametrize('objective', ['fate', 'category'])
def test_pretraining_gives_the_same_bits_again(objective, tmp_path):
    config = PretrainConfig(objective, clips=24, steps=4, batch_size=4, calibration_views=48)
    digests = set()
    for name in ('first', 'second'):
        pretrain.pretrain(config, tmp_path / name)
        content = next((tmp_path / name).glob('vit_*.safetensors')).read_bytes()
        digests.add(hashlib.sha256(content).hexdigest())
    assert len(digests) == 1


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'objective': 'toys'}, "must be 'fate' or 'category'"), ({'steps': 0}, 'steps must be at least 1'),
        ({'precision': 'auto'}, "must be 'bf16' or 'fp32'"), ({'image_size': 100}, 'multiple of 8'),
        ({'masked': 1.0}, r'masked must lie in \[0, 1\)'), ({'zoom': 0.0}, 'zoom must lie in'),
        ({'objective': 'category', 'batch_size': 5}, 'batch_size must be even'),
    ],
    ids=str,
)  # fmt: skip
def test_settings_that_cannot_be(changes, message):
    with pytest.raises(ValueError, match=message):
        PretrainConfig(**changes)
