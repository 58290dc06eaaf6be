"""The topdown command: scoring checkpoints and foreign predictions, segmenting images, and its errors."""

import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import topdown
from topdown.cli import main
from topdown.config import OWNERS
from topdown.data.coco import CocoInstances
from topdown.data.predictions import read_predictions
from topdown.evaluate.segment import NOT_SEEN, segment_image
from topdown.evaluate.truth import make_truth_set


@pytest.fixture(scope='module')
def checkpoint(toybox_root, tmp_path_factory):
    """A model of two steps."""
    config = topdown.preset(
        'smoke', data_root=str(toybox_root), toybox={'num_train': 24, 'num_val': 8}, steps=2, batch_size=4,
        eval_images=6, codebook_size=8, eval_every=0,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp('run')
    topdown.train_model(config, folder, progress=False)
    return folder / 'checkpoint.safetensors'


def test_evaluates_a_checkpoint_under_both_protocols(checkpoint, tmp_path, capsys):
    table = tmp_path / 'tables' / 'images.csv'
    main(['evaluate', str(checkpoint), '--protocols', 'oclf', 'spot', '--table', str(table), '--eval-images', '4'])
    printed = capsys.readouterr().out
    assert 'toybox, 4 images' in printed
    rows = pd.read_csv(table)
    assert len(rows) == 8
    assert set(rows.protocol) == {'oclf', 'spot'}
    mean = 100 * rows[rows.protocol == 'oclf'].mbo_i.mean()
    assert f'{mean:.1f} [' in printed


def write_predictions(dataset, folder, make):
    folder.mkdir(exist_ok=True)
    for i in range(len(dataset)):
        labels = make(i, *dataset.true_size(i))
        name = dataset.file_name(i).replace('.jpg', '.png')
        Image.fromarray(labels.astype(np.uint8)).save(folder / name)


def test_scores_label_maps_of_other_programs(coco_root, tmp_path, capsys):
    dataset = CocoInstances(coco_root, 'val', 32, 320)
    folder = tmp_path / 'maps'

    def whole(i, height, width):
        truth = dataset.annotation(i)
        labels = np.zeros((height, width), int)
        for o in np.flatnonzero(~truth.crowd):
            labels[truth.masks[o]] = 40 + o  # labels may be any numbers
        return labels

    write_predictions(dataset, folder, whole)
    places = ['--predictions', str(folder), '--data-root', str(coco_root), '--keep-crowd', 'drop']
    main(['evaluate', *places, '--protocols', 'oclf', 'spot'])
    printed = capsys.readouterr().out
    assert 'coco, 4 images' in printed
    config = topdown.preset('coco', data_root=str(coco_root), keep_crowd='drop')
    truth = make_truth_set(config, protocols=('spot',))
    table = topdown.per_image_table(read_predictions(folder, dataset), truth)
    mine = table[table.protocol == 'oclf'].dropna()
    assert (mine.mbo_i > 0.97).all()  # the truth itself, but for overlapping pixels
    crowded = table[(table.image_id == 9)].set_index('protocol')
    assert crowded.mbo_i['spot'] < 0.9 < crowded.mbo_i['oclf']  # spot counts the crowd that was not predicted
    assert table.image_id.iloc[0] == 9  # where the protocols disagree most comes first
    write_predictions(dataset, folder, lambda i, h, w: np.zeros((320, 320)))
    assert (read_predictions(folder, dataset) == 0).all()


def test_wrong_predictions_are_named(coco_root, tmp_path, capsys):
    dataset = CocoInstances(coco_root, 'val', 32, 320)
    folder = tmp_path / 'maps'
    write_predictions(dataset, folder, lambda i, h, w: np.zeros((h, w)))
    arguments = ['evaluate', '--predictions', str(folder), '--data-root', str(coco_root)]
    (folder / '000000000012.png').unlink()
    for change, message in (
        (lambda path: None, '000000000012.png is missing'),
        (lambda path: path.write_bytes(b'no image'), '000000000012.png cannot be read'),
        (lambda path: Image.new('L', (5, 5)).save(path), 'has shape (5, 5)'),
        (lambda path: Image.new('RGB', (320, 320)).save(path), 'holds colours'),
    ):
        change(folder / '000000000012.png')
        with pytest.raises(SystemExit) as stop:
            main(arguments)
        assert stop.value.code == 1
        assert message in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(['evaluate', '--data-root', str(coco_root)])
    assert 'either a checkpoint or --predictions' in capsys.readouterr().err


def test_segments_images(checkpoint, tmp_path, capsys):
    image = np.random.default_rng(0).integers(0, 256, (60, 90, 3), np.uint8)
    Image.fromarray(image).save(tmp_path / 'cat.png')
    main(['segment', str(tmp_path / 'cat.png'), '--checkpoint', str(checkpoint), '--out', str(tmp_path / 'out')])
    labels = np.asarray(Image.open(tmp_path / 'out' / 'cat.png'))
    assert labels.shape == (60, 90)
    assert (labels[:, :15] == NOT_SEEN).all()
    assert (labels[:, 75:] == NOT_SEEN).all()
    assert labels[:, 15:75].max() < 7
    overlay = np.asarray(Image.open(tmp_path / 'out' / 'cat_overlay.png'))
    np.testing.assert_array_equal(overlay[:, :15], image[:, :15])  # nothing is painted there
    assert f'{len(np.unique(labels)) - 1} segments, 33% of pixels not seen' in capsys.readouterr().out
    model, encoder, _ = topdown.load_run(checkpoint)
    whole, same = segment_image(image, model, encoder)
    assert whole.shape == (3, 60, 90)
    np.testing.assert_array_equal(same, labels)
    square, gray = segment_image(image[..., 0] / 255.0, model, encoder, size=96)
    assert (square.shape, gray.shape) == ((3, 96, 96), (96, 96))
    _, patches = segment_image(image, model, encoder, 'grid')
    assert patches.shape == encoder.grid
    rows = ((np.arange(12) + 0.5) * 60 / 12).astype(int)  # middles of patches, as seen in the image itself
    assert (labels[:, 15:75][rows][:, rows] == patches).mean() > 0.8
    main(['segment', str(tmp_path / 'cat.png'), '--checkpoint', str(checkpoint), '--out', str(tmp_path / 'o'),
          '--size', 'grid'])  # fmt: skip
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / 'o' / 'cat.png')), patches)
    with pytest.raises(ValueError, match="size must be 'image', 'grid' or"):
        segment_image(image, model, encoder, 'patches')
    for wrong, message in ((np.zeros((4, 4, 2)), 'shape'), (np.full((9, 9, 3), 200.0), r'\[0, 1\]')):
        with pytest.raises(ValueError, match=message):
            segment_image(wrong, model, encoder)
    with pytest.raises(SystemExit):
        main(['segment', str(tmp_path / 'dog.png'), '--checkpoint', str(checkpoint)])
    assert 'dog.png is missing' in capsys.readouterr().err


def test_segments_are_predictions_that_can_be_scored(checkpoint, coco_root, tmp_path):
    """Labels of an image's own size, cut again as truth is, are the square's labels."""
    images = sorted((coco_root / 'val2017').glob('*.jpg'))
    main(['segment', *map(str, images), '--checkpoint', str(checkpoint), '--out', str(tmp_path)])
    found = read_predictions(tmp_path, CocoInstances(coco_root, 'val', 32, 320))
    model, encoder, _ = topdown.load_run(checkpoint)
    for path, labels in zip(images, found, strict=True):
        _, direct = segment_image(path, model, encoder, 320)
        assert len(np.unique(labels)) == len(np.unique(direct))  # nothing that was not seen is in the cut
        assert (np.unique(direct)[labels] == direct).mean() > 0.97


def test_interventions_of_all_runs_of_a_folder(checkpoint, tmp_path, capsys):
    place = tmp_path / 'runs' / 'top-down-seed0-abc'
    place.mkdir(parents=True)
    (place / 'checkpoint.safetensors').write_bytes(checkpoint.read_bytes())
    main(['interventions', str(tmp_path / 'runs'), '--table', str(tmp_path / 'parts.csv')])
    assert 'mean channel' in capsys.readouterr().out
    assert len(pd.read_csv(tmp_path / 'parts.csv')) == 7
    assert (tmp_path / 'parts_summary.csv').exists()
    assert pd.read_csv(tmp_path / 'parts_by_seed.csv').shape == (1, 7)
    with pytest.raises(SystemExit):
        main(['interventions', str(tmp_path)])
    assert 'train first' in capsys.readouterr().err


def test_train_is_a_command_too(toybox_root, tmp_path, capsys):
    toybox = json.dumps({'num_train': 24, 'num_val': 8})
    changes = ['--steps', '1', '--eval_images=2', '--data-root', str(toybox_root), '--toybox', toybox]
    main(['train', '--preset', 'smoke', '--folder', str(tmp_path), *changes])
    assert 'fg_ari' in capsys.readouterr().out
    assert torch.is_tensor(topdown.load_run(tmp_path / 'checkpoint.safetensors')[0].slot_init.mean)


def printed_by(capsys, *arguments, status):
    """What a command that ends at once prints, without boxes and line breaks."""
    with pytest.raises(SystemExit) as stop:
        main(list(arguments))
    assert (stop.value.code or 0) == status
    printed = capsys.readouterr()
    return ' '.join((printed.err if status else printed.out).replace('│', ' ').split())


def test_help_lists_every_parameter_with_the_presets_value(capsys):
    for name in ('toybox', 'coco'):  # in one process: nothing of the first is left in the second
        shown = printed_by(capsys, 'train', '--preset', name, '--help', status=0)
        config = topdown.preset(name)
        for parameter, (part, field) in OWNERS.items():
            value = getattr(getattr(config, part), field)
            value = json.dumps(value) if isinstance(value, dict) else value
            value = ' '.join(map(str, value)) if isinstance(value, tuple) else value
            option, _, rest = shown.partition(f' --{parameter.replace("_", "-")} ')
            assert option, parameter
            help_text, _, default = rest.partition(' (default: ')
            assert len(help_text.split()) > 1, f'{parameter} has no help'
            assert default.split(')')[0].strip("'") == str(value), parameter
    assert '--eval-images' in printed_by(capsys, 'evaluate', '--help', status=0)


def test_help_loads_nothing_heavy():
    code = (
        'import sys\nfrom topdown.cli import main\ntry:\n    main(["train", "--help"])\nexcept SystemExit:\n'
        '    sys.exit(bool({"torch", "timm", "pandas", "scipy"} & set(sys.modules)))'
    )
    assert subprocess.run([sys.executable, '-c', code], check=False, capture_output=True).returncode == 0


DEEP = '[' * 100_000


@pytest.mark.parametrize(
    ('arguments', 'status', 'message'),
    [
        (['--num-slots', '0'], 1, 'error: num_slots must be at least 1, got 0'),
        (['--num-slots', '9' * 40], 1, 'error: num_slots must be finite and fit into 64 bits'),
        (['--num-slots', '9' * 5000], 2, 'num-slots'),
        (['--num-slots', 'None'], 2, 'num-slots'),
        (['--lr', 'inf'], 1, 'error: lr must be finite'),
        (['--lr', 'nan'], 1, 'error: lr must be finite'),
        (['--top-down', 'true'], 2, 'True'),
        (['--rounds', '2'], 2, "error: parameter 'rounds' is called 'feedback_rounds' now"),
        (['steps=5'], 2, 'error: write --steps 5 for steps=5'),
        (['steps='], 2, 'error: write --steps '),
        (['--num-slotz', '5'], 2, '--num-slots INT'),
        (['--toybox', '{"size": 96'], 2, 'JSON object'),
        (['--toybox', '3'], 2, 'JSON object'),
        (['--toybox', DEEP], 2, 'JSON object'),
        (['--toybox', '{"size": ' + '9' * 5000 + '}'], 2, 'JSON object'),
        (['--toybox', '{"size": ' + '9' * 4000 + '}'], 1, 'error: toybox: size must be finite and fit into 64 bits'),
        (['--toybox', '{"size": null}'], 1, 'error: toybox must give names numbers'),
        (['--toybox', '{"size": {"a": 1}}'], 1, 'error: toybox must give names numbers'),
        (['--toybox', '{"size": "big"}'], 1, 'error: toybox: size must be of type int'),
        (['--toybox', '{"colour": 1}'], 1, "error: toybox has no setting 'colour'; it has size, "),
        (['--preset', 'nope'], 2, 'nope'),
    ],
)  # fmt: skip
def test_impossible_parameters_get_one_message(arguments, status, message, tmp_path, capsys):
    said = printed_by(capsys, 'train', '--preset', 'smoke', '--folder', str(tmp_path), *arguments, status=status)
    assert message in said
    assert 'Traceback' not in said
    assert not list(tmp_path.iterdir())


def test_results_are_shown_and_published(tmp_path, monkeypatch, capsys):
    rows = [{'model': 'baseline', 'masks': 'decoder', 'seed': s, 'dataset': 'toybox', 'fg_ari': 1.0} for s in (0, 1)]
    run = tmp_path / 'runs' / 'smoke'
    run.mkdir(parents=True)
    pd.DataFrame(rows).assign(mbo_i=2.0, mbo_c=3.0, miou=4.0).to_csv(run / 'results.csv', index=False)
    monkeypatch.chdir(tmp_path)
    main(['show', str(run), '--publish', '--no-figures'])
    assert 'Results on toybox' in capsys.readouterr().out
    assert len(pd.read_csv(tmp_path / 'figures' / 'tables' / 'smoke.csv')) == 2
