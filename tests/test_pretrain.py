"""Pretraining: block matching, the common-fate loss against loops, and that it trains."""

import math

import numpy as np
import torch

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
    config = pretrain.PretrainConfig(clips=24, minutes=0.03, batch_size=4, calibration_views=48)
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
