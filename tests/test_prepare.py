"""topdown data prepare, card and speed."""

import functools
import types

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import topdown
from topdown.cli import main
from topdown.data import clevr
from topdown.data import token_store as features
from topdown.data.card import first_images, reading_speed, statistics
from topdown.data.coco import CocoInstances
from topdown.data.labels import LabelFolder
from topdown.toybox.make import make_toybox
from topdown.toybox.scenes import ToyboxConfig

from .conftest import TINY
from .test_clevr import SMALL, official, root  # noqa: F401  (fixtures)
from .test_movi import movi_root  # noqa: F401


def fails(capsys, *arguments):
    """The message of a command that must fail."""
    with pytest.raises(SystemExit) as stop:
        main([str(a) for a in arguments])
    assert stop.value.code == 1
    return capsys.readouterr().err


@pytest.fixture
def small_toybox(monkeypatch):
    """The default Toybox in small."""
    monkeypatch.setattr('topdown.toybox.scenes.toybox_config', lambda changes: ToyboxConfig(**{**TINY, **changes}))


def test_clevr_is_converted_and_then_there(root, monkeypatch, capsys):  # noqa: F811
    options = {k: v for k, v in SMALL.items() if k != 'workers'}
    monkeypatch.setattr(clevr, 'prepare_clevr', functools.partial(clevr.prepare_clevr, **options))
    assert 'not prepared' in fails(capsys, 'data', 'check', 'clevr6', root)
    for _ in range(2):
        main(['data', 'prepare', 'clevr6', str(root)])
        assert f'{root / "clevr6"} is there' in capsys.readouterr().out
    assert 'works on pixels, which have no tokens' in fails(
        capsys, 'data', 'prepare', 'clevr6', root, '--tokens', root / 'tokens'
    )
    main(['data', 'prepare', 'clevr6', str(root), '--tokens', str(root / 'tokens'), '--preset', 'smoke'])
    files = sorted((root / 'tokens').glob('*/*/*.bin'))
    assert [(p.name, p.stat().st_size) for p in files] == [
        (name, 4 * 144 * 128 * 2) for name in ('tokens-mirrored.bin', 'tokens.bin')
    ]


def test_toybox_is_made_and_its_tokens_stored_and_used(tmp_path, monkeypatch, capsys, encoder):
    main(['data', 'prepare', 'toybox', str(tmp_path), '--preset', 'smoke'])
    made = tmp_path / ToyboxConfig(**topdown.preset('smoke').data.toybox).key
    assert f'{made} is there' in capsys.readouterr().out
    real, calls = features._verify, []

    def stops(*arguments):
        calls.append(arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(features, '_verify', stops)
    command = ['data', 'prepare', 'toybox', str(tmp_path), '--tokens', str(tmp_path / 'tokens'), '--workers', '0']
    with pytest.raises(KeyboardInterrupt):
        main([*command, '--preset', 'smoke'])
    monkeypatch.setattr(features, '_verify', real)
    main([*command, '--preset', 'smoke'])
    printed = capsys.readouterr().out
    assert 'GB of tokens, 48 of 48 images to encode, 0 to encode anew' in printed
    assert '--token-dir' in printed
    stamps = {p: p.stat().st_mtime_ns for p in tmp_path.glob('tokens/*/*/*')}
    assert len(stamps) == 4
    config = topdown.preset('smoke', data_root=str(tmp_path), token_dir=str(tmp_path / 'tokens'), steps=2)
    topdown.train_model(config, tmp_path / 'run', encoder, progress=False)
    assert {p: p.stat().st_mtime_ns for p in tmp_path.glob('tokens/*/*/*')} == stamps  # found, not made again


def test_random_crops_and_missing_data_are_refused(coco_root, tmp_path, capsys):
    main(['data', 'prepare', 'coco', str(coco_root)])
    assert 'coco is read as it is: nothing to convert' in capsys.readouterr().out
    message = fails(capsys, 'data', 'prepare', 'voc', tmp_path, '--tokens', tmp_path / 'tokens')
    assert "preset 'voc' trains with random crops" in message
    message = fails(capsys, 'data', 'prepare', 'coco', tmp_path / 'no', '--tokens', tmp_path / 'tokens')
    assert 'cocodataset.org' in message
    assert 'fetch clevr6' in fails(capsys, 'data', 'prepare', 'clevr6', tmp_path)
    assert not (tmp_path / 'tokens').exists()


def label_folder(path):
    """Two images of 10 x 20: a quarter and a tenth covered; then one without an object."""
    for kind in ('images', 'labels'):
        (path / 'val' / kind).mkdir(parents=True)
    labels = np.zeros((3, 10, 20), np.uint8)
    labels[0, :5, :10] = 1
    labels[1, :1, :10], labels[1, 1:2, :10], labels[1, 9] = 1, 7, 9
    for number, found in enumerate(labels):
        Image.fromarray(np.full((10, 20, 3), 50 * number, np.uint8)).save(path / 'val' / 'images' / f'{number}.png')
        Image.fromarray(found).save(path / 'val' / 'labels' / f'{number}.png')


def test_statistics_are_right(tmp_path, coco_root):
    label_folder(tmp_path / 'set')
    found = statistics(LabelFolder(tmp_path / 'set', 'val', 8, 8, void=9), progress=False)
    assert found == {
        'images': 3, 'objects': 3, 'objects_mean': 1.0, 'objects_min': 0, 'objects_max': 2, 'size_q25': 5.0,
        'size_median': 5.0, 'size_q75': 15.0, 'overlapping': 0.0, 'covered': round(35 / 3, 1), 'unknown': 3.3,
        'crowds': 0, 'categories': 1,
    }  # fmt: skip
    coco = statistics(CocoInstances(coco_root, 'val', 32, 32), progress=False)
    assert (coco['images'], coco['objects'], coco['crowds'], coco['overlapping']) == (4, 4, 1, 25.0)
    assert coco['categories'] == 3
    images, labels = first_images(CocoInstances(coco_root, 'val', 32, 48), 2)
    assert images.shape == (2, 32, 32, 3)
    assert labels.shape == (2, 48, 48)
    assert set(np.unique(labels[1])) <= {0, 2}  # the crowd region is not an object
    empty = CocoInstances(coco_root, 'val', 32, 32)
    empty.ids = []
    with pytest.raises(ValueError, match='no images'):
        statistics(empty)


def test_card_writes_a_row_and_a_small_image(small_toybox, toybox_root, tmp_path, capsys):
    make_toybox(ToyboxConfig(**TINY), toybox_root, progress=False)
    label_folder(tmp_path / 'set')
    out = tmp_path / 'figures'
    main(['data', 'card', 'folder', str(tmp_path / 'set'), '--out', str(out)])
    for limit in ('3', '0'):
        main(['data', 'card', 'toybox', str(toybox_root), '--out', str(out), '--limit', limit])
    assert f'images: {TINY["num_val"]}' in capsys.readouterr().out
    table = pd.read_csv(out / 'tables' / 'data_cards.csv')
    assert table.dataset.tolist() == ['folder', 'toybox']  # replaced, not repeated
    assert table.images.tolist() == [3, TINY['num_val']]
    assert table.overlapping.tolist() == [0, 0]
    for name in ('folder', 'toybox'):
        assert 3_000 < (out / f'data_{name}.png').stat().st_size < 150_000
    assert 'coco needs ROOT' in fails(capsys, 'data', 'card', 'coco')
    assert 'train is missing' not in fails(capsys, 'data', 'card', 'folder', tmp_path, '--out', out)


def test_card_of_clips(movi_root, tmp_path, capsys):  # noqa: F811
    main(['data', 'card', 'movi_c', str(movi_root), '--out', str(tmp_path), '--limit', '10'])
    row = pd.read_csv(tmp_path / 'tables' / 'data_cards.csv').iloc[0]
    assert (row.images, row.objects, row.objects_min, row.objects_max) == (10, 15, 1, 2)


def test_speed_is_said_by_reader_and_workers(small_toybox, toybox_root, tmp_path, capsys):
    table = tmp_path / 'speed.csv'
    words = ['--count', '20', '--workers', '0', '2', '--table', str(table)]
    main(['data', 'speed', 'toybox', str(toybox_root), *words])
    assert 'toybox, oclf, 20 images to 96 x 96' in capsys.readouterr().out
    rows = pd.read_csv(table)
    assert {(reader, workers) for reader in ('pillow', 'torchvision') for workers in (0, 2)} <= set(
        zip(rows.reader, rows.workers, strict=True)
    )
    assert (rows.images_per_s > 0).all()


def test_speed_is_images_by_seconds_on_one_thread(monkeypatch):
    seen, clock = [], iter((10.0, 12.0))

    class Three:
        __len__ = lambda self: 3  # noqa: E731
        view = lambda self, i: seen.append((i, torch.get_num_threads()))  # noqa: E731

    monkeypatch.setattr('topdown.data.card.time', types.SimpleNamespace(perf_counter=lambda: next(clock)))
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        assert reading_speed(Three()) == 1.5
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(threads)
    assert seen == [(0, 1), (0, 1), (1, 1), (2, 1)]  # the first image twice: what is done once is not counted
