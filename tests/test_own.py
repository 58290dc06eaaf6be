"""One's own images without labels, and tokens that any encoder made: trained on, shown, and scored only where there is
truth."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from topdown.book import chapters, publish
from topdown.cli import main
from topdown.data import open_dataset
from topdown.data.own import HELD_OUT, TokenFolder, UnlabelledImages
from topdown.evaluate import metrics
from topdown.evaluate.predict import predict, score
from topdown.evaluate.truth import make_eval_set
from topdown.model.encoder import make_encoder
from topdown.presets import preset
from topdown.train.batches import TrainData
from topdown.train.loop import train_model


@pytest.fixture
def photos(tmp_path):
    """Twelve images of several kinds and sizes at several depths, and what is none."""
    folder, rng = tmp_path / 'photos', np.random.default_rng(0)
    for number in range(12):
        path = folder / ('', 'trip', 'trip/day 2')[number % 3] / f'{number}.{("jpg", "PNG", "webp")[number % 3]}'
        path.parent.mkdir(parents=True, exist_ok=True)
        size = (100 + number, 120, 3)
        Image.fromarray(rng.integers(0, 256, size, np.uint8)).save(path)
    (folder / 'notes.txt').write_text('no image')
    (folder / '._0.jpg').write_text('what macOS leaves')
    return folder


@pytest.fixture
def unlabelled(photos):
    """A configuration that trains on them in a second."""
    return preset(
        'smoke', dataset='images', data_root=str(photos), steps=4, batch_size=4, eval_every=2, checkpoint_every=2,
        codebook_size=8, dead_code_threshold=0.2,
    )  # fmt: skip


# ------------------------------------------------------------------------------------------------------ without labels


def test_images_are_found_at_any_depth_and_parted_by_a_hash_of_their_paths(photos):
    train, val = (UnlabelledImages(photos, split, 96, 96) for split in ('train', 'val'))
    assert not set(train.ids) & set(val.ids)
    assert len(train) + len(val) == 12
    assert len(val) >= 1
    before = set(val.ids)
    for number in range(200):
        shutil.copy(photos / '0.jpg', photos / f'more{number}.jpg')
    train, val = (UnlabelledImages(photos, split, 96, 96) for split in ('train', 'val'))
    assert len(val) == pytest.approx(HELD_OUT * 212, abs=12)
    stayed = before & set(val.ids)
    assert len(before - stayed) <= 1  # the one that was held out because there must be one may go
    assert val.view(0).shape == (3, 96, 96)
    assert not val.annotation(0).masks.size


def test_a_folder_with_both_splits_is_parted_by_them_and_two_images_are_enough(photos, tmp_path):
    for split in ('train', 'val'):
        shutil.copytree(photos / 'trip', photos / split)
    assert len(UnlabelledImages(photos, 'train', 96, 96)) == len(UnlabelledImages(photos, 'val', 96, 96)) == 8
    two = tmp_path / 'two'
    for number in range(100):  # whatever their hashes are
        shutil.rmtree(two, ignore_errors=True)
        two.mkdir()
        for name in ('a', 'b'):
            (two / f'{name}{number}.jpg').touch()
        assert [len(UnlabelledImages(two, split, 96, 96)) for split in ('train', 'val')] == [1, 1]


def test_folders_that_hold_too_little_are_named(photos, tmp_path):
    with pytest.raises(FileNotFoundError, match=r'gone is missing\. data_root must hold two images or more'):
        UnlabelledImages(tmp_path / 'gone', 'train', 96, 96)
    (tmp_path / 'one').mkdir()
    shutil.copy(photos / '0.jpg', tmp_path / 'one')
    with pytest.raises(FileNotFoundError, match=r'one holds 1 image\(s\)\. data_root must hold two'):
        UnlabelledImages(tmp_path / 'one', 'train', 96, 96)
    for split in ('train', 'val'):
        (photos / split).mkdir()
    with pytest.raises(FileNotFoundError, match=r'val holds 0 image\(s\)'):
        UnlabelledImages(photos, 'val', 96, 96)


def test_training_goes_on_without_evaluations_and_says_so(unlabelled, tmp_path, capsys):
    folder = tmp_path / 'run'
    train_model(unlabelled, folder, stop_at=2)
    assert 'no true masks: nothing is evaluated' in capsys.readouterr().out
    run = train_model(unlabelled, folder)
    assert len(run.log) == 4
    assert run.evaluations.empty
    assert not {'best.safetensors', 'evaluations.csv'} & {path.name for path in folder.iterdir()}
    capsys.readouterr()
    again = train_model(unlabelled, folder)
    assert capsys.readouterr().out == ''  # a finished run is only read
    assert all(torch.equal(a, b) for a, b in zip(again.model.state_dict().values(), run.model.state_dict().values()))


def test_commands_train_segment_and_refuse_to_score(photos, tmp_path, capsys):
    folder = tmp_path / 'run'
    main(['train', '--preset', 'smoke', '--dataset', 'images', '--data-root', str(photos), '--folder', str(folder),
          '--steps', '4'])  # fmt: skip
    assert f'{folder}: no evaluations' in capsys.readouterr().out
    checkpoint = str(folder / 'checkpoint.safetensors')
    main(['segment', str(photos / '0.jpg'), str(photos / 'trip' / '1.PNG'), '--checkpoint', checkpoint,
          '--out', str(tmp_path / 'masks')])  # fmt: skip
    assert np.array(Image.open(tmp_path / 'masks' / '0.png')).shape == (100, 120)
    for what in ([checkpoint], ['--predictions', str(tmp_path / 'masks'), '--dataset', 'images',
                                '--data-root', str(photos)]):  # fmt: skip
        with pytest.raises(SystemExit) as stop:
            main(['evaluate', *what])
        assert stop.value.code == 1
        assert 'nothing to score: the images have no true masks; topdown segment' in capsys.readouterr().err
    main(['data', 'check', 'images', str(photos)])
    assert 'no problems' in capsys.readouterr().out


def test_a_chapter_keeps_masks_and_leaves_metrics_out(unlabelled, tmp_path, monkeypatch):
    monkeypatch.setenv('TOPDOWN_PRESET', 'smoke')
    base, chosen, folder = chapters.begin(
        'toybox', ('smoke', 'toybox'), 'baseline,top-down', str(tmp_path), more={'dataset': 'images'},
        data_root=unlabelled.data.data_root, steps=4, seeds=1,
    )  # fmt: skip
    assert folder == tmp_path / 'smoke-images'
    assert chapters.begin('toybox', ('smoke',), 'baseline', str(tmp_path))[2] == tmp_path / 'smoke'
    encoder = make_encoder(base)
    data = TrainData(open_dataset(base, 'train'), encoder, base)
    eval_set = make_eval_set(base, encoder, progress=False)
    trained = chapters.train_variants(base, folder, chosen, encoder, data, eval_set, progress=False)
    trained.save(folder)
    maps = predict(trained.runs['top-down', 0].model, eval_set)
    assert maps.shape == (len(eval_set), base.data.mask_size, base.data.mask_size)
    assert len(maps.unique()) > 1
    assert all(np.isnan(value) for row in score(maps, eval_set) for value in row.values())
    results = chapters.write_results(trained.rows, base, folder)
    assert results[list(metrics.METRICS)].isna().all(axis=None)
    shown = publish.show(folder)
    assert 'No scores: the images have no true masks.' in shown
    assert not re.search(r'nan|fg_ari', shown)
    from topdown.book.summaries import paired_table, uncertainty_table

    assert list(uncertainty_table(trained.scores['decoder'])) == ['seeds']
    assert paired_table(trained.scores['decoder'], 'baseline').empty


# -------------------------------------------------------------------------------------------------------------- tokens


@pytest.fixture(scope='module')
def token_root(toybox_root, encoder, tmp_path_factory):
    """Tokens and label maps of the tiny Toybox: in training (N, D), in validation (R, R, D)."""
    from tests.conftest import TINY

    root = tmp_path_factory.mktemp('tokens')
    config = preset('smoke', data_root=str(toybox_root), toybox=TINY, eval_images=0)
    for split in ('train', 'val'):
        images = open_dataset(config, split, progress=False)
        for kind in ('tokens', 'labels') if split == 'val' else ('tokens',):
            (root / split / kind).mkdir(parents=True)
        for i in range(len(images)):
            tokens = encoder(images.view(i)[None])[0].numpy()
            tokens = tokens if split == 'train' else tokens.reshape(*encoder.grid, -1)
            np.save(root / split / 'tokens' / f'{images.ids[i]:04d}.npy', tokens)
            if split == 'val':
                labels = metrics.instance_labels(images.annotation(i).masks).astype(np.uint8)
                Image.fromarray(labels).save(root / split / 'labels' / f'{images.ids[i]:04d}.png')
    return root


def _on_tokens(config, root, **changes):
    return config.with_(**{
        'dataset': 'tokens', 'encoder': 'tokens', 'image_size': 12, 'feature_size': 128, 'flip': False,
        'data_root': str(root), **changes,
    })  # fmt: skip


def test_training_on_tokens_in_files_is_training_on_the_images(tiny, token_root, encoder, tmp_path):
    """The same losses, bit for bit, and the same scores."""
    usual = train_model(tiny.with_(flip=False), tmp_path / 'images', encoder, progress=False)
    config = _on_tokens(tiny, token_root)
    ours = train_model(config, tmp_path / 'tokens', progress=False)
    assert usual.log['loss'].tolist() == ours.log['loss'].tolist()
    for name in ('fg_ari', 'mbo_i'):
        assert ours.evaluations[name].tolist() == pytest.approx(usual.evaluations[name].tolist(), abs=1e-9)
    in_loop = train_model(config.with_(cache_tokens=False), tmp_path / 'loop', progress=False)
    assert in_loop.log['loss'].to_numpy() == pytest.approx(ours.log['loss'].to_numpy(), rel=1e-2)


def test_a_model_of_tokens_is_scored_from_its_checkpoint_and_shown_in_false_colours(tiny, token_root, tmp_path, capsys):
    config = _on_tokens(tiny, token_root, eval_images=0)
    train_model(config, tmp_path, progress=False)
    main(['evaluate', str(tmp_path / 'checkpoint.safetensors')])
    assert 'tokens, 8 images' in capsys.readouterr().out
    eval_set = make_eval_set(config, make_encoder(config), progress=False)
    colours = eval_set.images[:2]
    assert colours.shape == (2, 3, 12, 12)
    assert (colours.amin((2, 3)) == 0).all()
    assert torch.allclose(colours.amax((2, 3)), torch.ones(2, 3))
    photo = tmp_path / 'photo.png'
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(photo)
    with pytest.raises(SystemExit):
        main(['segment', str(photo), '--checkpoint', str(tmp_path / 'checkpoint.safetensors')])
    assert 'encoder tokens takes 128 channels of 12 x 12, got 3 of 12 x 12' in capsys.readouterr().err


def test_tokens_without_label_maps_train_unscored(tiny, token_root, tmp_path):
    shutil.copytree(token_root, tmp_path / 'bare')
    shutil.rmtree(tmp_path / 'bare' / 'val' / 'labels')
    run = train_model(_on_tokens(tiny, tmp_path / 'bare'), tmp_path / 'run', progress=False)
    assert run.evaluations.empty
    assert len(run.log) == 6


def test_a_set_of_tokens_is_checked_and_keeps_files_on_the_disk(token_root, capsys):
    main(['data', 'check', 'tokens', str(token_root)])
    printed = capsys.readouterr().out
    assert 'tokens train: 24 images, 0 objects, no problems' in printed
    assert re.search(r'tokens val: 8 images, \d\d objects, no problems', printed)
    data = TokenFolder(token_root, 'train', 12, 96, feature_size=128)
    assert isinstance(data._tokens(0), np.memmap)
    assert data.view(3).shape == (128, 12, 12)
    first = np.load(token_root / 'train' / 'tokens' / data.file_name(3))
    assert np.array_equal(data.view(3).flatten(1).T.numpy(), first)


def _pickled(path: Path) -> None:
    np.save(path, np.array([{'a': 1}], object), allow_pickle=True)


@pytest.mark.parametrize(
    ('write', 'message'),
    [
        (lambda p: np.save(p, np.zeros((144, 127), np.float32)), r'\(12, 12, 127\) instead of \(12, 12, 128\)'),
        (lambda p: np.save(p, np.zeros((143, 128), np.float32)), r'float32 of shape \(143, 128\).*square grid'),
        (lambda p: np.save(p, np.zeros((9, 16, 128), np.float32)), r'shape \(9, 16, 128\).*square grid'),
        (lambda p: np.save(p, np.zeros(128, np.float32)), r'shape \(128,\)'),
        (lambda p: np.save(p, np.float32(1)), r'shape \(\)'),
        (lambda p: np.save(p, np.zeros((144, 128), np.int64)), 'holds int64'),
        (lambda p: np.save(p, np.zeros((0, 128), np.float32)), r'shape \(0, 128\)'),
        (_pickled, 'not a NumPy file of numbers'), (lambda p: p.write_bytes(b'\x93NUMPY'), 'not a NumPy file'),
        (lambda p: np.save(p, np.full((144, 128), np.nan, np.float16)), 'not finite'),
        (lambda p: np.save(p, np.full((144, 128), 1e300)), 'not finite in float32'),
    ],
)  # fmt: skip
def test_files_that_hold_no_tokens_are_named(token_root, tmp_path, write, message):
    shutil.copytree(token_root / 'train', tmp_path / 'train')
    path = sorted((tmp_path / 'train' / 'tokens').iterdir())[5]
    write(path)
    with pytest.raises(ValueError, match=rf'{path.name} .*{message}'):  # numbers are looked at when they are read
        TokenFolder(tmp_path, 'train', 12, 96, feature_size=128).view(5)


def test_settings_that_do_not_fit_tokens_are_refused_with_those_that_do(tiny, token_root, tmp_path):
    with pytest.raises(ValueError, match=r'set image_size=12 and feature_size=128'):
        train_model(_on_tokens(tiny, token_root, image_size=16), tmp_path, progress=False)
    with pytest.raises(ValueError, match=r"dataset='tokens' and encoder='tokens' belong together"):
        train_model(tiny.with_(dataset='tokens', data_root=str(token_root)), tmp_path / 'a', progress=False)
    with pytest.raises(ValueError, match='set flip=False and random_crop=False'):
        train_model(_on_tokens(tiny, token_root, flip=True), tmp_path / 'b', progress=False)
    with pytest.raises(FileNotFoundError, match=r'tokens is missing\. data_root must hold train/ and val/'):
        TokenFolder(tmp_path, 'train', 12, 96)


def test_labels_of_tokens_are_cut_like_images(token_root, tmp_path):
    """A label map of a whole wide image: its square in the middle is what the encoder saw."""
    shutil.copytree(token_root / 'val', tmp_path / 'val')
    data = TokenFolder(tmp_path, 'val', 12, 96, feature_size=128)
    square = np.array(Image.open(data.label_path(0)))
    before = data.annotation(0).cut(96).masks
    Image.fromarray(np.pad(square, ((0, 0), (40, 40)))).save(data.label_path(0))
    assert data.true_size(0) == (len(square), len(square) + 80)
    assert np.array_equal(data.annotation(0).cut(96).masks, before)
