"""Scores of clips: hand-made clips with known answers, and scikit-learn's adjusted Rand index."""

import dataclasses

import numpy as np
import pytest
import torch
from sklearn.metrics import adjusted_rand_score

import topdown
from topdown.data.movi import FRAMES
from topdown.data.standins import make_clips
from topdown.evaluate.clips import returns, score_clip, score_clips
from topdown.presets import preset
from topdown.toybox.scenes import ToyboxConfig, motion_at


def clip(*frames):
    """Frames of one row of pixels, (T, 1, W)."""
    return torch.tensor([[[int(pixel) for pixel in frame]] for frame in frames])


def test_a_segmentation_that_keeps_its_numbers_is_perfect_and_one_that_swaps_them_is_not():
    truth = clip('0011220', '0112200', '1122000')
    slots = torch.tensor([2, 0, 1])[truth]
    found, _ = score_clip(slots, truth)
    assert found['clip_fg_ari'] == found['clip_mbo_i'] == found['clip_fg_ari_later'] == 1
    assert found['flicker'] == found['flicker_objects'] == 0
    swapped = slots.clone()
    swapped[0] = torch.tensor([2, 1, 0])[truth[0]]
    found, _ = score_clip(swapped, truth)
    # each object has 4 pixels under its slot of two frames, and 2 under the other's: IoU 4 / (6 + 6 - 4)
    assert found['clip_mbo_i'] == pytest.approx(0.5)
    assert found['clip_fg_ari'] < 0.2
    assert found['clip_fg_ari_later'] == found['clip_mbo_i_later'] == 1
    # same truth in both frames: pixels 0, 2 (object 1), 4 (object 2), 6; the second pair is perfect: 0 of its 5
    assert truth[0].eq(truth[1]).sum() + truth[1].eq(truth[2]).sum() == 8
    assert found['flicker'] == pytest.approx(2 / 8)
    assert found['flicker_objects'] == pytest.approx(2 / 4)


def test_moving_objects_do_not_flicker():
    truth = clip('1100', '0011')
    assert np.isnan(score_clip(truth, truth)[0]['flicker'])  # no pixel has the same truth in both
    truth = clip('1100', '0110')
    assert score_clip(truth, truth)[0]['flicker'] == 0
    assert score_clip(clip('1100', '0100'), truth)[0]['flicker'] == 0  # wrong where it moved
    assert score_clip(clip('1100', '0010'), truth)[0]['flicker'] == 0.5


def test_fg_ari_over_a_clip_is_that_of_an_independent_program():
    rng = np.random.default_rng(0)
    truth, labels = torch.from_numpy(rng.integers(0, 4, (5, 6, 7))), torch.from_numpy(rng.integers(0, 5, (5, 6, 7)))
    labels = torch.where(torch.from_numpy(rng.random((5, 6, 7)) < 0.5), truth, labels)
    found, _ = score_clip(labels, truth)
    for suffix, first in (('', 0), ('_later', 1)):
        true, predicted = truth[first:].flatten(), labels[first:].flatten()
        expected = adjusted_rand_score(true[true > 0], predicted[true > 0])
        assert found[f'clip_fg_ari{suffix}'] == pytest.approx(expected)


def test_returns_need_to_be_seen_hidden_and_seen_again():
    areas = {
        (10, 10, 0, 10): [(1, 3)], (10, 6, 1, 0, 4, 5): [(1, 5)], (10, 2, 10): [], (0, 10, 10): [], (10, 0, 0): [],
        (10, 0, 8, 0, 9): [(0, 2), (2, 4)], (0, 0, 0): [], (10, 4, 1, 4, 10): [(0, 4)],
    }  # fmt: skip
    for area, expected in areas.items():
        assert returns(torch.tensor(area)[:, None]) == [(0, *pair) for pair in expected], area
    both = torch.tensor([(5, 10), (0, 10), (5, 0), (5, 10)])
    assert returns(both) == [(0, 0, 2), (1, 1, 3)]


def test_toys_keep_slot_and_code_through_an_occlusion_or_not():
    truth = clip('110022', '100222', '002222', '110022')  # object 1 is behind the border in the third frame
    assert returns(torch.stack([(truth == o).sum((1, 2)) for o in (1, 2)], 1)) == [(0, 1, 3)]
    codes = torch.tensor([[7, 3, 4], [7, 5, 4], [7, 7, 4], [7, 5, 4]])
    assert score_clip(truth, truth, codes)[1] == {'kept_slot': [1], 'kept_code': [1], 'kept_code_chance': [1 / 3]}
    codes[3, 1] = 6
    assert score_clip(truth, truth, codes)[1] == {'kept_slot': [1], 'kept_code': [0], 'kept_code_chance': [0]}
    other = truth.clone()
    other[3] = torch.tensor([1, 0, 2])[truth[3]]  # it comes back in slot 0, whose code is 7
    assert score_clip(other, truth, codes)[1] == {'kept_slot': [0], 'kept_code': [0], 'kept_code_chance': [0]}
    codes[1, 1] = codes[3, 2] = 7
    assert score_clip(other, truth, codes)[1] == {'kept_slot': [0], 'kept_code': [1], 'kept_code_chance': [2 / 3]}
    assert score_clip(truth[:2], truth[:2])[1] == {'kept_slot': []}


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp('clips')
    toys = {
        'size': 32, 'num_train': 1, 'num_val': 2, 'min_objects': 4, 'max_objects': 5, 'speed': 6.0, 'swing': 24.0,
    }  # fmt: skip
    make_clips(ToyboxConfig(**toys), root, progress=False)
    config = preset('movi_smoke', data_root=str(root), toybox=toys, mask_size=32, eval_images=0, clip_length=4)
    return topdown.make_truth_set(config, progress=False), ToyboxConfig(**toys)


def test_scores_of_a_set_are_means_over_clips_and_over_returns(data):
    known, config = data
    truth = torch.from_numpy(np.stack([motion_at(config, 'val', c, FRAMES).labels for c in range(2)])).long()
    rng = np.random.default_rng(0)
    labels = truth.flatten(0, 1).clone()
    noisy = torch.from_numpy(rng.random(labels.shape) < 0.3)
    labels[noisy] = torch.from_numpy(rng.integers(0, 9, int(noisy.sum()))).to(labels.dtype)
    codes = torch.from_numpy(rng.integers(0, 3, (2 * FRAMES, 9)))
    rows = [
        score_clip(labels[:FRAMES], truth[0], codes[:FRAMES]),
        score_clip(labels[FRAMES:], truth[1], codes[FRAMES:]),
    ]
    found = score_clips(labels, known, codes)
    kept = {name: rows[0][1][name] + rows[1][1][name] for name in rows[0][1]}
    assert set(found) == {*rows[0][0], *kept, 'returns'}
    for name in rows[0][0]:
        assert found[name] == pytest.approx(50 * (rows[0][0][name] + rows[1][0][name]))
    assert found['returns'] == len(kept['kept_slot']) > 1
    for name in ('kept_slot', 'kept_code', 'kept_code_chance'):
        assert found[name] == pytest.approx(100 * np.mean(kept[name]))
    assert set(score_clips(truth.flatten(0, 1), known)) == {*found} - {'kept_code', 'kept_code_chance'}
    with pytest.raises(ValueError, match='no images'):
        score_clips(labels, dataclasses.replace(known, image_ids=known.image_ids[:9]))


def test_swinging_toys_leave_and_come_back_and_pass_through_the_image_of_their_index(data):
    _, config = data
    steady = ToyboxConfig(**{**vars(config), 'swing': 0.0, 'speed': 1.0})
    assert len({config.key, steady.key, ToyboxConfig(**{**vars(steady), 'speed': 2.0}).key}) == 3
    middle = motion_at(steady, 'val', 0, FRAMES)
    swinging = motion_at(config, 'val', 0, FRAMES)
    np.testing.assert_array_equal(swinging.frames[FRAMES // 2], middle.frames[FRAMES // 2])
    assert (swinging.frames[0] != middle.frames[0]).any()
    again = motion_at(config, 'val', 0, FRAMES)
    np.testing.assert_array_equal(swinging.frames, again.frames)
