"""Stand-ins: Toybox with wide images and unknown borders, and in clips."""

import numpy as np
import pytest
import torch

import topdown
from topdown.data.movi import DRAWN, FRAMES
from topdown.data.standins import make_clips
from topdown.evaluate import metrics
from topdown.presets import preset
from topdown.toybox.scenes import ToyboxConfig, motion_at, scene_at
from topdown.train.loop import train_model


@pytest.fixture
def wide(toybox_root):
    return preset(
        'voc_smoke', data_root=str(toybox_root), toybox={'num_train': 24, 'num_val': 8}, steps=3, batch_size=4,
        eval_every=0, eval_images=6,
    )  # fmt: skip


@pytest.fixture
def clips(tmp_path):
    return preset('movi_smoke', data_root=str(tmp_path), steps=3, batch_size=4, eval_every=0, eval_images=6)


def test_wide_images_are_the_middle_of_toybox_and_leave_room_for_crops(wide):
    whole = topdown.open_dataset(wide.with_(dataset='toybox'), 'val', progress=False)
    data = topdown.open_dataset(wide, 'val', progress=False)
    image = data.read_image(0)
    assert image.shape == (3, 144, 192)
    assert torch.equal(image, whole.read_image(0)[:, 24:168])
    left, right = (data.view(0, at=(0.0, share)) for share in (0.0, 1.0))
    assert left.shape == right.shape == (3, 96, 96)
    assert not torch.equal(left, right)
    batches = [list(topdown.TrainData(data, topdown.make_encoder(wide), wide).batches(0, 2)) for _ in range(2)]
    assert all(torch.equal(a, b) for a, b in zip(*batches, strict=True))


def test_borders_of_wide_images_are_unknown_and_of_no_object(wide):
    whole = topdown.open_dataset(wide.with_(dataset='toybox'), 'val', progress=False)
    data = topdown.open_dataset(wide, 'val', progress=False)
    for i in range(len(data)):
        truth, full = data.annotation(i), whole.annotation(i)
        assert truth.void.shape == truth.masks.shape[1:] == (144, 192)
        assert not (truth.masks & truth.void).any()
        assert truth.masks.any((1, 2)).all()
        covered = full.masks.any(0)[24:168]
        inside = covered & ~truth.void
        np.testing.assert_array_equal(truth.masks.any(0), inside)
        edges = np.zeros_like(truth.void)  # pixels of which a neighbour is of an object and another is not
        for mask in full.masks[:, 24:168]:
            seen = np.pad(mask, 1, mode='edge')
            around = np.stack([seen[1:-1, 1:-1], seen[:-2, 1:-1], seen[2:, 1:-1], seen[1:-1, :-2], seen[1:-1, 2:]])
            edges |= around.any(0) & ~around.all(0)
        np.testing.assert_array_equal(truth.void, edges)


def test_void_can_be_left_out(wide):
    encoder = topdown.make_encoder(wide)
    background = topdown.make_eval_set(wide, encoder)
    ignored = topdown.make_eval_set(wide.with_(void='ignore'), encoder)
    void = ignored.instances[:] == metrics.IGNORE
    assert void.any()
    np.testing.assert_array_equal(background.instances[:], np.where(void, 0, ignored.instances[:]))
    truth = background.instances[:].astype(np.int64)
    wrong = np.where(void, truth.max() + 1, truth)  # a segment of its own, where the truth is unknown
    for labels, data, perfect in ((truth, ignored, True), (wrong, ignored, True), (wrong, background, False)):
        found = topdown.summarize(topdown.score(labels, data))
        assert (found['ari'] == 100) == perfect
        assert (found['fg_ari'], found['mbo_i'], found['miou']) == (100, 100, 100)


def test_motion_passes_through_the_image_of_its_index():
    config = ToyboxConfig(size=48, min_objects=3, max_objects=5)
    clip = motion_at(config, 'val', 3, 7)
    scene = scene_at(config, 'val', 3)
    assert clip.frames.shape == (7, 48, 48, 3)
    np.testing.assert_array_equal(clip.frames[3], scene.image)
    np.testing.assert_array_equal(clip.labels[3] == np.arange(1, 1 + len(scene.masks))[:, None, None], scene.masks)
    assert clip.categories.tolist() == scene.categories.tolist()
    assert (clip.frames[0] != clip.frames[6]).any()
    again = motion_at(config, 'val', 3, 7)
    np.testing.assert_array_equal(clip.frames, again.frames)
    np.testing.assert_array_equal(clip.labels, again.labels)


def test_clips_are_read_by_the_reader_of_movi(clips):
    train, val = (topdown.open_dataset(clips, split, progress=False) for split in ('train', 'val'))
    assert (len(train), train.epoch_length, len(val)) == (2 * FRAMES, 2 * DRAWN, 6)
    config = ToyboxConfig(**clips.data.toybox)
    clip = motion_at(config, 'val', 0, FRAMES)
    image = (255 * val.read_image(4)).round().byte().permute(1, 2, 0).numpy()
    np.testing.assert_array_equal(image, clip.frames[4])
    truth = val.annotation(4)
    seen = [o for o in range(1, 1 + len(clip.categories)) if (clip.labels[4] == o).any()]
    np.testing.assert_array_equal(truth.masks, clip.labels[4] == np.array(seen)[:, None, None])
    assert truth.categories.tolist() == clip.categories[np.array(seen) - 1].tolist()
    folder = make_clips(config, clips.data.data_root, progress=False)
    assert folder == make_clips(config, clips.data.data_root, progress=False)
    assert [p.name for p in folder.parent.iterdir()] == [folder.name]


@pytest.mark.parametrize('name', ['wide', 'clips'])
def test_stand_ins_train(name, request, tmp_path, encoder):
    config = request.getfixturevalue(name)
    run = train_model(config, tmp_path / 'run', encoder, progress=False)
    assert np.isfinite(run.evaluations[['fg_ari', 'mbo_i', 'mbo_c', 'miou']].to_numpy()).all()
