"""The token store: exact, resumable, never stale, and training from it equals training with the encoder."""

import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

import topdown
from topdown.data import token_store as features
from topdown.data.token_store import store_key, stored_tokens
from topdown.model.encoder import encode_all


@pytest.fixture
def images(tiny):
    return topdown.open_dataset(tiny, 'train', progress=False)


def stored(images, encoder, folder, encode=None, **options):
    encode = encode or (lambda images: encode_all(encoder, images))
    options = {'flip': True, 'progress': False, **options}
    return stored_tokens(images, encode, encoder.fingerprint(), (144, 128), folder, **options)


def test_tokens_come_back_in_both_views(images, encoder, tmp_path):
    plain, mirrored = stored(images, encoder, tmp_path)
    assert plain.shape == (24, 144, 128)
    for view, flip in ((plain, False), (mirrored, True)):
        now = encode_all(encoder, torch.stack([images.view(i, flip) for i in range(24)])).bfloat16()
        torch.testing.assert_close(view, now, atol=0.05, rtol=0.02)

    def never(images):
        assert len(images) <= 2, 'only the spot check may encode'
        return encode_all(encoder, images)

    again = stored(images, encoder, tmp_path, never)
    assert torch.equal(again[0], plain)
    assert sorted(p.name for p in tmp_path.glob('*/0/*')) == [
        'tokens-mirrored.bin', 'tokens-mirrored.rows', 'tokens.bin', 'tokens.rows',
    ]  # fmt: skip


def test_an_interrupted_store_goes_on(images, encoder, tmp_path, monkeypatch):
    monkeypatch.setattr(features, 'CHUNK', 5)
    seen = []

    def stops(images):
        seen.append(len(images))
        if len(seen) == 4:
            raise KeyboardInterrupt
        return encode_all(encoder, images)

    with pytest.raises(KeyboardInterrupt):
        stored(images, encoder, tmp_path, stops, flip=False)
    (rows,) = tmp_path.glob('*/*/tokens.rows')
    assert (np.fromfile(rows, features.ROW)['tokens'] > 0).tolist() == [True] * 15 + [False] * 9
    counted = []

    def goes_on(images):
        counted.append(len(images))
        return encode_all(encoder, images)

    (tokens,) = stored(images, encoder, tmp_path, goes_on, flip=False)
    assert counted == [5, 4, 2]  # what was missing, and the spot check
    whole = encode_all(encoder, torch.stack([images.view(i) for i in range(24)])).bfloat16()
    torch.testing.assert_close(tokens, whole, atol=0.05, rtol=0.02)


def test_other_encoders_images_and_cuts_have_other_stores(tiny, images, encoder):
    keys = {store_key(images, 'a'), store_key(images, 'b')}
    keys.add(store_key(topdown.open_dataset(tiny, 'val', progress=False), 'a'))
    keys.add(store_key(topdown.open_dataset(tiny.with_(protocol='spot'), 'train', progress=False), 'a'))
    assert len(keys) == 4
    assert store_key(topdown.open_dataset(tiny, 'train', progress=False), 'a') in keys


def counting(encoder, seen):
    """An encoder's function that notes how many images it gets."""

    def encode(images):
        seen.append(len(images))
        return encode_all(encoder, images)

    return encode


def test_damaged_tokens_are_encoded_anew(images, encoder, tmp_path):
    (first,) = stored(images, encoder, tmp_path, flip=False)
    whole = first.clone()
    (path,) = tmp_path.glob('*/*/tokens.bin')
    content = bytearray(path.read_bytes())
    middle, row = len(content) // 2, 144 * 128 * 2
    content[middle : middle + 20_000] = bytes(20_000)  # within one image
    content[row * 3] ^= 1  # one bit of another
    path.write_bytes(content)
    seen = []
    with pytest.warns(UserWarning, match=r'tokens.bin: tokens of 2 images are damaged: encoded anew'):
        (again,) = stored(images, encoder, tmp_path, counting(encoder, seen), flip=False)
    assert seen == [2, 2]  # the damaged ones, and the spot check
    torch.testing.assert_close(again, whole, atol=0.05, rtol=0.02)
    path.write_bytes(path.read_bytes()[:-10])
    seen.clear()
    (again,) = stored(images, encoder, tmp_path, counting(encoder, seen), flip=False)
    assert seen == [24, 2]  # cut short: nothing of it is trusted
    assert torch.equal(again, whole)


@pytest.fixture
def copied(tiny, toybox_root, tmp_path):
    """Opens the Toybox below a folder that is a copy of it."""

    def copy(name, times=True):
        shutil.copytree(toybox_root, tmp_path / name, copy_function=shutil.copy2 if times else shutil.copy)
        return reopen(name)

    def reopen(name):
        return topdown.open_dataset(tiny.with_(data_root=str(tmp_path / name)), 'train', progress=False)

    copy.reopen = reopen
    return copy


def test_replaced_images_and_only_those_are_encoded_anew(copied, encoder, tmp_path):
    images, folder, seen = copied('a'), tmp_path / 'tokens', []
    stored(images, encoder, folder)
    Image.open(images.path(7)).rotate(90).save(images.path(3))
    os.utime(images.path(5))  # touched, not changed
    images = copied.reopen('a')
    views = stored(images, encoder, folder, counting(encoder, seen))
    assert seen == [1, 2, 1, 2]  # plain and mirrored, each with its spot check
    for view, flip in zip(views, (False, True)):
        now = encode_all(encoder, torch.stack([images.view(i, flip) for i in range(24)])).bfloat16()
        torch.testing.assert_close(view, now, atol=0.05, rtol=0.02)
    seen.clear()
    stored(copied.reopen('a'), encoder, folder, counting(encoder, seen))
    assert seen == [2, 2]


def test_moved_data_are_found_and_others_of_the_same_names_kept_apart(copied, encoder, tmp_path):
    folder, seen = tmp_path / 'tokens', []
    (mine,) = stored(copied('a'), encoder, folder, flip=False)
    stored(copied('b', times=False), encoder, folder, counting(encoder, seen), flip=False)
    assert seen == [2]  # elsewhere, and of another time
    other = copied('c')
    for i in range(20):
        Image.open(other.path(i)).rotate(180).save(other.path(i))
    (theirs,) = stored(copied.reopen('c'), encoder, folder, flip=False)
    assert len(list(folder.glob('*/*/tokens.bin'))) == 2
    assert not torch.equal(mine, theirs)
    torch.testing.assert_close(mine, stored(copied.reopen('a'), encoder, folder, flip=False)[0])


WRITER = """
import sys, time, torch, topdown
from topdown.data.token_store import stored_tokens
data = topdown.open_dataset(topdown.preset('smoke', data_root=sys.argv[1], toybox={'num_train': 24, 'num_val': 8}),
                            'train', progress=False)
count = 0
def encode(images):
    global count
    count += len(images)
    time.sleep(0.5)
    return images.mean((1, 2, 3))[:, None, None].expand(-1, 3, 2)
view, = stored_tokens(data, encode, 'mean', (3, 2), sys.argv[2], False, progress=False)
print(count, float(view.float().sum()))
"""


def test_two_writers_take_turns(toybox_root, tmp_path):
    command = [sys.executable, '-c', WRITER, str(toybox_root), str(tmp_path)]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    found = sorted(tuple(map(float, process.communicate()[0].split())) for process in both)
    assert [count for count, _ in found] == [2, 26]  # one writes, the other only checks
    assert found[0][1] == found[1][1] > 0


def test_other_tokens_of_the_encoder_and_small_disks_are_noticed(images, encoder, tmp_path, monkeypatch):
    stored(images, encoder, tmp_path, flip=False)
    with pytest.raises(ValueError, match=r'tokens.bin does not hold the tokens that the encoder makes .* delete its'):
        stored(images, encoder, tmp_path, lambda images: 2 * encode_all(encoder, images), flip=False)
    monkeypatch.setattr(features.shutil, 'disk_usage', lambda _: type('Usage', (), {'free': 10})())
    with pytest.raises(OSError, match='the tokens need'):
        stored(images, encoder, tmp_path, flip=True)


def test_training_from_the_store_equals_training_with_the_encoder(tiny, encoder, tmp_path):
    in_loop = topdown.train_model(tiny.with_(cache_tokens=False), tmp_path / 'a', encoder, progress=False)
    config = tiny.with_(cache_tokens=True, token_dir=str(tmp_path / 'tokens'))
    from_store = topdown.train_model(config, tmp_path / 'b', encoder, progress=False)
    np.testing.assert_allclose(from_store.log.loss, in_loop.log.loss, rtol=5e-3)  # bfloat16 tokens
    assert len(list((tmp_path / 'tokens').glob('*/*/tokens*.bin'))) == 2
    assert config.key == tiny.with_(cache_tokens=True).key  # where tokens lie decides nothing


def test_random_crops_cannot_be_stored(tiny, encoder, tmp_path):
    with pytest.raises(ValueError, match='random_crop'):
        topdown.train_model(tiny.with_(random_crop=True), tmp_path, encoder, progress=False)
