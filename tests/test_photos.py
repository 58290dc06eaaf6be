"""The preset for photographs, and its chapter with some of its runs, and on a folder of somebody's own."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import topdown
from tests import photos
from topdown.book.bench import token_shape
from topdown.book.plan import plan
from topdown.cli import main
from topdown.data.coco import CocoInstances
from topdown.evaluate.truth import EvalSet

ROOT = Path(__file__).parent.parent


def test_preset_asks_for_nine_runs_on_tokens_of_twelve_by_twelve():
    config = topdown.preset('photos')
    assert token_shape(config) == (144, 384, (12, 12))  # without its file of weights
    jobs = plan('photos')
    assert [(job.experiment, job.variant, job.seed) for job in jobs] == [
        ('main', variant, seed) for variant in ('baseline', 'top-down', 'six-iterations') for seed in range(3)
    ]
    assert len({job.config('photos').key for job in jobs}) == 3
    hits = config.train.batch_size * config.model.num_slots / config.model.codebook_size
    assert 0 < config.model.dead_code_threshold < hits / 2  # a code of average use is never revived


def test_preset_trains_on_images_without_masks_and_is_scored_on_others(coco_root, tmp_path, monkeypatch):
    """As the real subset is: a training file that lists images alone, and an encoder from a file."""
    root = tmp_path / 'photos'
    shutil.copytree(coco_root, root)
    path = root / 'annotations' / 'instances_train2017.json'
    path.write_text(json.dumps({**json.loads(path.read_text()), 'annotations': []}))
    torch.manual_seed(0)
    name = 'vit_tiny_patch16_224'
    save_file(topdown.model.encoder.timm.create_model(name).state_dict(), tmp_path / 'tiny.safetensors')
    changes = {
        'data_root': str(root), 'encoder': name, 'weights': str(tmp_path / 'tiny.safetensors'), 'image_size': 64,
        'layer': 2, 'mask_size': 32, 'batch_size': 2, 'steps': 3, 'warmup_steps': 1, 'lr_half_life': 3, 'log_every': 1,
        'slot_size': 32, 'decoder_heads': 3, 'codebook_size': 8, 'token_dir': str(tmp_path / 'tokens'),
    }  # fmt: skip
    words = [word for key, value in changes.items() for word in (f'--{key.replace("_", "-")}', str(value))]
    main(['train', '--preset', 'photos', '--folder', str(tmp_path / 'run'), *words])
    scores = pd.read_csv(tmp_path / 'run' / 'evaluations.csv')
    assert scores.fg_ari.between(-100, 100).all()
    assert len(list((tmp_path / 'tokens').rglob('tokens*.bin'))) == 2  # plain and mirrored


def test_nearest_neighbours_are_of_other_images(coco_root):
    data = CocoInstances(coco_root, 'val', 32, 32)
    config = topdown.preset('toybox', dataset='coco', data_root=str(coco_root), mask_size=32)
    truth = topdown.make_truth_set(config, dataset=data, progress=False)
    known = EvalSet(**vars(truth), tokens=torch.randn(len(truth), 16, 5), grid=(4, 4))
    tokens, categories, images = photos.pooled(known)
    assert len(tokens) == len(categories) == len(images) > 1
    assert (categories > 0).all()
    categories = torch.tensor([0, 0, 1, 1, 2, 2])
    same = torch.eye(3)[categories]  # tokens that are the category
    assert photos.neighbours(same, categories, torch.arange(6)) == 100
    assert photos.neighbours(same, categories, categories) == 0  # whatever is of one category is in one image


def fake_runs(path, cases):
    """Rows as runs leave them, with numbers that only the layout of a table can tell apart."""
    rng, rows = np.random.default_rng(0), []
    for variant, seed in cases:
        row = {'experiment': 'main', 'variant': variant, 'setting': '', 'changes': '{}', 'seed': seed, 'steps': 10}
        for prefix in ('', 'slots_'):
            row |= {f'{prefix}{name}': 30 + rng.normal() for name in ('fg_ari', 'ari', 'mbo_i', 'mbo_c', 'miou')}
        if variant == 'top-down':
            row |= {
                f'{p}_{t}_ami': rng.uniform() for p in ('code', 'kmeans') for t in ('category', 'position', 'colour')
            }
        rows.append(row)
    pd.DataFrame(rows).to_csv(path, index=False)


SOME = [('baseline', 0), ('top-down', 0), ('baseline', 1), ('top-down', 1), ('six-iterations', 0)]


@pytest.mark.parametrize('cases', [SOME[:1], SOME], ids=['one run', 'two seeds'])
def test_chapter_shows_what_is_there_and_runs_on_a_folder_of_ones_own(tmp_path, cases):
    """In a project of its own, so that no table of this one is touched."""
    for name in ('paper', 'photos_ids.csv', 'topdown.mplstyle'):
        source, target = ROOT / 'figures' / name, tmp_path / 'figures' / name
        target.parent.mkdir(exist_ok=True)
        shutil.copytree(source, target) if source.is_dir() else shutil.copy(source, target)
    (tmp_path / 'figures' / 'tables').mkdir()
    fake_runs(tmp_path / 'figures' / 'tables' / 'photos.csv', cases)
    (tmp_path / 'mine').mkdir()
    rng = np.random.default_rng(0)
    for i in range(24):
        Image.fromarray(rng.integers(0, 255, (60, 80, 3), np.uint8)).save(tmp_path / 'mine' / f'{i}.png')
    out = tmp_path / 'out.ipynb'
    command = [sys.executable, '-m', 'papermill', '-k', 'python3', '--no-progress-bar', '-p', 'images', 'mine']
    found = subprocess.run(
        [*command, '-p', 'steps', '4', str(ROOT / 'book' / '14_photographs.ipynb'), str(out)], cwd=tmp_path,
        capture_output=True, text=True, check=False, env={**os.environ, 'TOPDOWN_PRESET': 'smoke'},
    )  # fmt: skip
    assert found.returncode == 0, found.stderr[-2000:]
    outputs = [o for cell in nbformat.read(out, 4).cells if cell.cell_type == 'code' for o in cell.outputs]
    text = '\n'.join(str(o.get('text') or o.get('data', {}).get('text/plain')) for o in outputs)
    assert f'autoregressive decoder: {len(cases)} runs' in text
    assert 'slotwise decoder: 0 runs' in text
    assert '4 steps; loss' in text
    assert 'not run' in text  # the tables of probes and of rows without training are not there
    assert ('2 seeds' in text) == (len(cases) > 1)
    assert ('autoregressive, top-down above baseline: not run' in text) == (len(cases) == 1)
