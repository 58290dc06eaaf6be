"""Reading by OpenCV: the same square as Pillow's and torch's, or nothing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

import topdown
from topdown.data.base import crop_image, read_image_file

cv2 = pytest.importorskip('cv2', reason='image_reader=opencv needs topdown[fast]')
fast = pytest.importorskip('topdown.data.fast')

FORMS = {
    'rgb': ((640, 480), 'RGB'),
    'tall': ((300, 417), 'RGB'),
    'gray': ((333, 250), 'L'),
    'small': ((100, 90), 'RGB'),
}


def write(path, size, mode, **options):
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (9, 12) if mode == 'L' else (9, 12, 3), np.uint8)
    Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).save(path, **options)
    return path


@pytest.mark.parametrize('form', FORMS)
@pytest.mark.parametrize('at', [None, (0.3, 0.9)])
@pytest.mark.parametrize('options', [{'quality': 90}, {'quality': 75, 'progressive': True, 'subsampling': 0}], ids=str)
def test_plain_jpegs_are_cut_as_by_pillow_and_torch(tmp_path, form, at, options):
    path = write(tmp_path / 'a.jpg', *FORMS[form], **options)
    found = fast.read_square(path, None, 224, at)
    usual = crop_image(read_image_file(path), 224, at)
    assert found.shape == (3, 224, 224)
    assert found.is_contiguous()
    torch.testing.assert_close(found, usual, atol=5e-5, rtol=0)  # torch's own error, see the next test


def test_of_the_two_opencv_is_the_exact_one(tmp_path):
    path = write(tmp_path / 'a.jpg', (640, 480), 'RGB', quality=95)
    exact = F.interpolate(read_image_file(path).double()[None], (224, 298), mode='bicubic').clamp(0, 1)[0, :, :, 37:261]
    ours = (fast.read_square(path, None, 224, None) - exact).abs().max()
    torchs = (crop_image(read_image_file(path), 224) - exact).abs().max()
    assert ours < 1e-6 < torchs < 5e-5


def test_whatever_is_not_a_plain_jpeg_is_left_to_pillow(tmp_path):
    turned = Image.Exif()
    turned[274] = 6
    others = [
        write(tmp_path / 'a.png', (30, 20), 'RGB'),
        write(tmp_path / 'turned.jpg', (30, 20), 'RGB', exif=turned),
        tmp_path / 'missing.jpg',
    ]
    Image.new('CMYK', (30, 20)).save(tmp_path / 'cmyk.jpg')
    whole = write(tmp_path / 'whole.jpg', (300, 200), 'RGB').read_bytes()
    (tmp_path / 'cut.jpg').write_bytes(whole[: len(whole) // 2])
    (tmp_path / 'png.jpg').write_bytes(others[0].read_bytes())
    (tmp_path / 'empty.jpg').touch()
    others += [tmp_path / f'{name}.jpg' for name in ('cmyk', 'cut', 'png', 'empty')]
    for path in others:
        assert fast.read_square(path, None, 16, None) is None, path
    assert fast.read_square(tmp_path / 'whole.jpg', (200, 300), 16, None) is not None
    assert fast.read_square(tmp_path / 'whole.jpg', (300, 200), 16, None) is None  # its annotation is another's


def test_a_data_set_reads_by_it_where_it_can(coco_root, monkeypatch):
    config = topdown.preset('coco', data_root=str(coco_root), image_size=48, image_reader='opencv')
    data, usual = topdown.open_dataset(config, 'val'), topdown.open_dataset(config.with_(image_reader='pillow'), 'val')
    asked = []
    monkeypatch.setattr(fast, 'read_square', lambda *a, read=fast.read_square: asked.append(a) or read(*a))
    for i in range(len(data)):
        torch.testing.assert_close(data.view(i, flip=True), usual.view(i, flip=True), atol=5e-5, rtol=0)
    assert len(asked) == len(data)
    assert not torch.equal(data.view(0), usual.view(0))
    spot = topdown.open_dataset(config.with_(protocol='spot'), 'val')
    assert torch.equal(
        spot.view(0), topdown.open_dataset(config.with_(protocol='spot', image_reader='pillow'), 'val').view(0)
    )


def test_without_opencv_the_remedy_is_named(coco_root, monkeypatch):
    monkeypatch.setattr('importlib.util.find_spec', lambda name: None)
    with pytest.raises(ValueError, match='opencv-python-headless'):
        topdown.open_dataset(topdown.preset('coco', data_root=str(coco_root), image_reader='opencv'), 'val')
