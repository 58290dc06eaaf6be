"""Toybox and the COCO reader."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools.coco import COCO

from topdown.data import open_dataset
from topdown.data.base import crop_image, crop_masks
from topdown.data.coco import CocoInstances
from topdown.presets import preset
from topdown.toybox.catalogue import CATEGORIES
from topdown.toybox.make import make_toybox
from topdown.toybox.scenes import ToyboxConfig, _compose, clip_at, render_clip, render_scene, scene_at
from topdown.train.batches import _Plan

from .conftest import TINY


def test_toybox_is_deterministic_and_splits_differ():
    config = ToyboxConfig(size=64)
    first, again = scene_at(config, 'train', 3), scene_at(config, 'train', 3)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first.image, scene_at(config, 'val', 3).image)
    assert not np.array_equal(first.image, scene_at(ToyboxConfig(size=64, seed=1), 'train', 3).image)


def test_toybox_scenes_keep_their_promises():
    config = ToyboxConfig(size=64)
    counts, seen = [], set()
    for i in range(60):
        scene = scene_at(config, 'train', i)
        assert scene.masks.sum(0).max() <= 1  # visible masks are disjoint
        assert (scene.masks.sum((1, 2)) > 20).all()
        counts.append(len(scene.categories))
        seen |= set(scene.categories.tolist())
    assert min(counts) >= 2
    assert max(counts) == 6
    assert seen == set(range(1, len(CATEGORIES) + 1))


def test_toybox_knobs_do_what_they_say():
    def spread(dissimilarity):
        """Mean over objects of the colour spread inside the object."""
        values = []
        for i in range(12):
            scene = scene_at(ToyboxConfig(size=64, dissimilarity=dissimilarity), 'val', i)
            values += [scene.image[m].std(0).mean() for m in scene.masks]
        return np.mean(values)

    assert spread(0.0) < 0.75 * spread(1.0)
    few, many = (ToyboxConfig(size=64, clutter=c, background_contrast=0.0) for c in (0.0, 4.0))
    edges = [
        np.mean([np.abs(np.diff(s.image.astype(float), axis=0))[~s.masks.any(0)[1:]].mean() for s in scenes])
        for scenes in ([scene_at(c, 'val', i) for i in range(8)] for c in (few, many))
    ]
    assert edges[1] > 1.2 * edges[0]
    assert len(scene_at(ToyboxConfig(size=64, min_objects=4, max_objects=4), 'val', 0).categories) == 4


def test_toybox_grounds_can_be_grey_and_toys_apart():
    grey = ToyboxConfig(size=64, clutter=0, background_contrast=0, grey_ground=True, most_hidden=0.0, max_objects=4)
    scenes = [scene_at(grey, 'val', i) for i in range(8)]
    corners = np.concatenate([s.image[:2, :2].reshape(-1, 3)[~s.masks.any(0)[:2, :2].reshape(-1)] for s in scenes])
    assert len(np.unique(corners, axis=0)) == 1
    assert len({tuple(scene_at(ToyboxConfig(size=64), 'val', i).image[0, 0]) for i in range(8)}) > 4

    for most in (0.0, 0.5):
        config = ToyboxConfig(size=64, most_hidden=most, min_objects=6, max_objects=6)
        scenes = [_compose(config, np.random.default_rng(i), None) for i in range(12)]
        hidden = [1 - mask.sum() / toy.area for _, toys, visible in scenes for toy, mask in zip(toys, visible)]
        assert max(hidden) <= most
        assert (max(hidden) > 0.2) == (most > 0)


@pytest.mark.parametrize(
    'bad', [{'size': 8}, {'dissimilarity': 1.5}, {'most_hidden': -1}, {'min_objects': 5, 'max_objects': 3}], ids=str
)
def test_toybox_refuses_impossible_parameters(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        ToyboxConfig(**bad)


def test_toybox_clip_moves_toys_over_still_ground():
    clip = clip_at(ToyboxConfig(size=64, clutter=0), 5)
    assert clip.shape == (3, 64, 64, 3)
    still = (clip[0] == clip[1]).all(-1), (clip[1] == clip[2]).all(-1)
    assert all(0.1 < s.mean() < 0.95 for s in still)
    scene = render_scene(ToyboxConfig(size=64, clutter=0), np.random.default_rng(3))
    clip = render_clip(ToyboxConfig(size=64, clutter=0), np.random.default_rng(3))
    np.testing.assert_array_equal(clip[1], scene.image)  # the middle frame is the scene
    ground = ~scene.masks.any(0)
    assert ((clip[0] == clip[1]) | (clip[1] == clip[2])).all(-1)[ground].mean() > 0.8


def test_toybox_on_disk_is_coco(toybox_root, capsys):
    root = make_toybox(ToyboxConfig(**TINY), toybox_root, progress=False)
    coco = COCO(str(root / 'annotations' / 'instances_val2017.json'))
    assert len(coco.imgs) == TINY['num_val']
    assert [c['name'] for c in coco.loadCats(coco.getCatIds())] == list(CATEGORIES)
    scene = scene_at(ToyboxConfig(**TINY), 'val', 2)
    found = np.stack([coco.annToMask(a) for a in coco.imgToAnns[3]]).astype(bool)
    np.testing.assert_array_equal(found, scene.masks)
    for annotation in coco.anns.values():
        assert annotation['area'] == coco.annToMask(annotation).sum()
        assert annotation['iscrowd'] == 0
    image = np.asarray(Image.open(root / 'val2017' / coco.imgs[3]['file_name'])).astype(int)
    assert np.abs(image - scene.image).mean() < 3  # JPEG
    capsys.readouterr()


def test_toybox_is_made_once_and_never_half(tmp_path, monkeypatch):
    config = ToyboxConfig(size=32, num_train=2, num_val=1)

    def stop(config, folder, *_):
        (folder / 'train2017').mkdir()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr('topdown.toybox.make._write', stop)
        with pytest.raises(KeyboardInterrupt):
            make_toybox(ToyboxConfig(size=32, num_train=2, num_val=1, seed=3), tmp_path, progress=False)
    assert list(tmp_path.iterdir()) == []
    root = make_toybox(config, tmp_path, progress=False)
    stamp = (root / 'toybox.json').stat().st_mtime_ns
    assert make_toybox(config, tmp_path, progress=False) == root
    assert (root / 'toybox.json').stat().st_mtime_ns == stamp
    (root / 'toybox.json').unlink()  # what an interrupted copy would look like
    make_toybox(config, tmp_path, progress=False)
    assert (root / 'toybox.json').exists()


def test_reader_decodes_every_annotation_format(coco_root):
    data = CocoInstances(coco_root, 'val', 32, 32)
    assert len(data) == 4
    truth = data.annotation(0)
    masks, categories = truth.masks, truth.categories
    assert masks.shape == (2, 60, 80)
    assert masks[0, 25, 30]
    assert not masks[0, 10, 30]
    assert categories.tolist() == [3, 1]
    truth = data.annotation(1)
    masks, crowd = truth.masks, truth.crowd
    assert crowd.tolist() == [True, False]
    expected = np.zeros((90, 64), bool)
    expected[5:30, 10:40] = True
    np.testing.assert_array_equal(masks[0], expected)
    assert masks[1].sum() == pytest.approx(200, abs=45)
    masks = data.annotation(2).masks
    np.testing.assert_array_equal(masks[0], np.fromfunction(lambda y, x: (y - 30) ** 2 + (x - 30) ** 2 < 300, (64, 64)))
    assert data.annotation(3).cut(32).masks.shape == (0, 32, 32)
    assert data.view(3).shape == (3, 32, 32)
    gray = data.view(2)
    assert torch.equal(gray[0], gray[1])


def test_crop_keeps_image_and_masks_aligned():
    """A mask painted white into a black image stays on top of it through resizing and cropping."""
    for height, width in ((60, 80), (90, 64), (64, 64), (33, 97)):
        mask = np.zeros((1, height, width), bool)
        mask[0, height // 3 : 2 * height // 3, width // 4 : 3 * width // 4] = True
        image = torch.from_numpy(mask).float().expand(3, -1, -1)
        cut, cut_masks = crop_image(image, 48), crop_masks(mask, 48)
        overlap = ((cut[0] > 0.5).numpy() == cut_masks[0]).mean()
        assert overlap > 0.96
        assert cut.min() >= 0
        assert cut.max() <= 1


def test_an_epoch_shows_every_image_once_in_the_published_order(tiny):
    data = open_dataset(tiny, 'train', progress=False)
    assert data.epoch_length == len(data) == TINY['num_train']
    order = data.order(torch.Generator().manual_seed(3))
    assert torch.equal(order, torch.randperm(TINY['num_train'], generator=torch.Generator().manual_seed(3)))
    plan = list(_Plan(data, tiny.with_(seed=5), 0, 12))  # batches of 4: two epochs
    for epoch in (0, 1):
        shuffled = torch.randperm(24, generator=torch.Generator().manual_seed((5 * 4 + 1) * 1_000_003 + epoch))
        assert [row[0] for rows in plan[6 * epoch : 6 * epoch + 6] for row in rows] == shuffled.tolist()


def test_crop_position():
    image = torch.arange(12.0).view(1, 1, 12).expand(3, 4, 12) / 12
    assert crop_image(image, 4)[0, 0].tolist() == image[0, 0, 4:8].tolist()
    assert crop_image(image, 4, (0.0, 0.0))[0, 0].tolist() == image[0, 0, :4].tolist()
    assert crop_image(image, 4, (0.0, 1.0))[0, 0].tolist() == image[0, 0, 8:].tolist()


def test_missing_and_wrong_files_are_named(coco_root, tmp_path):
    with pytest.raises(FileNotFoundError, match=r'nowhere.*cocodataset'):
        CocoInstances(tmp_path / 'nowhere', 'val', 32, 32)
    annotations = coco_root / 'annotations' / 'instances_val2017.json'
    content = annotations.read_text()
    annotations.write_text(content[: len(content) // 2])
    with pytest.raises(ValueError, match=r'instances_val2017.json is not JSON'):
        CocoInstances(coco_root, 'val', 32, 32)
    captions = json.loads(content)
    captions['annotations'] = [{'id': 1, 'image_id': 7, 'caption': 'a toy'}]
    annotations.write_text(json.dumps(captions))
    with pytest.raises(ValueError, match=r'annotation 1: category_id .* not a COCO instances file'):
        CocoInstances(coco_root, 'val', 32, 32)
    annotations.unlink()
    with pytest.raises(FileNotFoundError, match=r'instances_val2017.json is missing'):
        CocoInstances(coco_root, 'val', 32, 32)


def test_corrupt_training_images_can_be_skipped_but_never_validation(coco_root):
    config = preset('smoke', dataset='coco', data_root=str(coco_root), skip_corrupt=True)
    for split in ('train', 'val'):
        path = coco_root / f'{split}2017' / '000000000009.jpg'
        path.write_bytes(path.read_bytes()[:200])
    train, val = (open_dataset(config, split) for split in ('train', 'val'))
    with pytest.warns(UserWarning, match=r'000000000009.jpg cannot be read.*skipped'):
        replaced = train.view(1)
    assert torch.equal(replaced, train.view(2))
    with pytest.raises(ValueError, match=r'000000000009.jpg cannot be read'):
        val.view(1)
    for path in (coco_root / 'train2017').iterdir():
        path.write_bytes(b'nothing')
    with pytest.raises(ValueError, match='not one of 4 images'), pytest.warns(UserWarning, match='skipped'):
        train.view(0)


def test_missing_and_corrupt_images_are_named(coco_root):
    data = CocoInstances(coco_root, 'train', 32, 32)
    path = coco_root / 'train2017' / '000000000007.jpg'
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ValueError, match=r'000000000007.jpg cannot be read'):
        data.view(0)
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r'000000000007.jpg is missing'):
        data.view(0)
