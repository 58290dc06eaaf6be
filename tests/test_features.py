"""The token store: exact, resumable, never stale, and training from it equals training with the encoder."""

import numpy as np
import pytest
import torch

import topdown
from topdown.data import token_store as features
from topdown.data.token_store import store_key, stored_tokens
from topdown.evaluate.predict import encode_all


@pytest.fixture
def pictures(tiny):
    return topdown.open_dataset(tiny, 'train', progress=False)


def stored(pictures, encoder, folder, encode=None, **options):
    encode = encode or (lambda images: encode_all(encoder, images))
    options = {'flip': True, 'progress': False, **options}
    return stored_tokens(pictures, encode, encoder.fingerprint(), (144, 128), folder, **options)


def test_tokens_come_back_in_both_views(pictures, encoder, tmp_path):
    plain, mirrored = stored(pictures, encoder, tmp_path)
    assert plain.shape == (24, 144, 128)
    for view, flip in ((plain, False), (mirrored, True)):
        now = encode_all(encoder, torch.stack([pictures.view(i, flip) for i in range(24)])).bfloat16()
        torch.testing.assert_close(view, now, atol=0.05, rtol=0.02)

    def never(images):
        assert len(images) <= 2, 'only the spot check may encode'
        return encode_all(encoder, images)

    again = stored(pictures, encoder, tmp_path, never)
    assert torch.equal(again[0], plain)
    assert sorted(p.name for p in next(tmp_path.iterdir()).iterdir()) == ['tokens-mirrored.bin', 'tokens.bin']


def test_an_interrupted_store_goes_on(pictures, encoder, tmp_path, monkeypatch):
    monkeypatch.setattr(features, 'CHUNK', 5)
    seen = []

    def stops(images):
        seen.append(len(images))
        if len(seen) == 4:
            raise KeyboardInterrupt
        return encode_all(encoder, images)

    with pytest.raises(KeyboardInterrupt):
        stored(pictures, encoder, tmp_path, stops, flip=False)
    (place,) = tmp_path.iterdir()
    assert not (place / 'tokens.bin').exists()
    assert (place / 'tokens.done').read_text() == '15'
    counted = []

    def goes_on(images):
        counted.append(len(images))
        return encode_all(encoder, images)

    (tokens,) = stored(pictures, encoder, tmp_path, goes_on, flip=False)
    assert counted == [5, 4, 2]  # what was missing, and the spot check
    whole = encode_all(encoder, torch.stack([pictures.view(i) for i in range(24)])).bfloat16()
    torch.testing.assert_close(tokens, whole, atol=0.05, rtol=0.02)


def test_other_encoders_pictures_and_cuts_have_other_stores(tiny, pictures, encoder):
    keys = {store_key(pictures, 'a'), store_key(pictures, 'b')}
    keys.add(store_key(topdown.open_dataset(tiny, 'val', progress=False), 'a'))
    keys.add(store_key(topdown.open_dataset(tiny.with_(protocol='spot'), 'train', progress=False), 'a'))
    assert len(keys) == 4
    assert store_key(topdown.open_dataset(tiny, 'train', progress=False), 'a') in keys


def test_damaged_stores_and_small_disks_are_noticed(pictures, encoder, tmp_path, monkeypatch):
    stored(pictures, encoder, tmp_path, flip=False)
    (path,) = tmp_path.glob('*/tokens.bin')
    array = np.memmap(path, np.int16, 'r+')
    array[: 144 * 128] = np.roll(array[: 144 * 128], 999)
    array.flush()
    with pytest.raises(ValueError, match=r'tokens.bin does not hold the tokens .* delete it'):
        stored(pictures, encoder, tmp_path, flip=False)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(ValueError, match='bytes instead of'):
        stored(pictures, encoder, tmp_path, flip=False)
    path.unlink()
    monkeypatch.setattr(features.shutil, 'disk_usage', lambda _: type('Usage', (), {'free': 10})())
    with pytest.raises(OSError, match='the tokens need'):
        stored(pictures, encoder, tmp_path, flip=False)


def test_training_from_the_store_equals_training_with_the_encoder(tiny, encoder, tmp_path):
    in_loop = topdown.train_model(tiny.with_(cache_tokens=False), tmp_path / 'a', encoder, progress=False)
    config = tiny.with_(cache_tokens=True, token_dir=str(tmp_path / 'tokens'))
    from_store = topdown.train_model(config, tmp_path / 'b', encoder, progress=False)
    np.testing.assert_allclose(from_store.log.loss, in_loop.log.loss, rtol=5e-3)  # bfloat16 tokens
    assert len(list((tmp_path / 'tokens').glob('*/tokens*.bin'))) == 2
    assert config.key == tiny.with_(cache_tokens=True).key  # where tokens lie decides nothing


def test_random_crops_cannot_be_stored(tiny, encoder, tmp_path):
    with pytest.raises(ValueError, match='random_crop'):
        topdown.train_model(tiny.with_(random_crop=True), tmp_path, encoder, progress=False)
