"""Codes of models of different data sets, held against each other on the same images: ``python -m tests.across ROOT``.

ROOT holds the photographs in COCO's layout. From finished runs of three presets, in a few minutes, without training:

- figures/tables/codes_across.csv: ``code_agreement`` of every two models over slots that overlap on the same images.
  Toybox's first images are shown to all three kinds of models, each through its own encoder, photographs to two (tokens
  of the dial are made from true categories, which photographs have none of);
- figures/tables/codes_similar.csv: how alike the categories of objects are that share a code, see ``shared``, beside
  codes that are shuffled among objects in the same ninth of the image whose slots are in the same third by size.
"""

from __future__ import annotations

import itertools
import json
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd

from topdown.book.codes import CELLS, code_agreement, object_tokens, slot_cells, slot_codes
from topdown.book.plan import BEST_LEVEL, Job
from topdown.book.runs import job_folder
from topdown.config import Config
from topdown.evaluate.predict import object_categories
from topdown.evaluate.truth import EvalSet, make_eval_set
from topdown.model.encoder import make_encoder
from topdown.origin import provenance
from topdown.toybox.catalogue import CATEGORIES
from topdown.train.loop import load_run

TABLES = Path(__file__).parent.parent / 'figures' / 'tables'
SEEDS, DRAWS = range(3), 200
PRESETS = {
    'toybox': ('ablation', {}), 'dial': ('dial', {'evidence': BEST_LEVEL}), 'photos_slotwise': ('main', {}),
}  # fmt: skip
"""Preset -> experiment that its top-down runs are of, and its changes."""


def config_of(name: str, seed: int, root: str) -> Config:
    """The configuration of a top-down run; the encoder's file of weights, relative to the project, as it is there."""
    experiment, changes = PRESETS[name]
    return Job(experiment, 'top-down', seed, changes).config(name, root if name.startswith('photos') else '')


def shown(config: Config, images: str, root: str) -> EvalSet | None:
    """The images through a model's own encoder; None if its tokens cannot be made of them."""
    own, toys = config.data.dataset, config_of('dial', 0, root).data
    if images == 'toybox':
        if own != 'toybox_dial':
            looks = {'dataset': 'toybox', 'data_root': '', 'toybox': toys.toybox, 'mask_size': toys.mask_size}
            config = config.with_(**looks)
    elif own == 'toybox_dial':
        return None
    elif own == 'toybox':
        photos = config_of('photos_slotwise', 0, root).data
        config = config.with_(dataset=photos.dataset, data_root=photos.data_root, mask_size=photos.mask_size)
    return make_eval_set(config, make_encoder(config), progress=False)


def likeness(data: EvalSet) -> dict[str, np.ndarray]:
    """How alike categories are, (C + 1, C + 1) each, row and column 0 unused.

    'tokens': cosine of the categories' mean tokens under true masks, the mean over categories taken off. 'meaning': on
    Toybox the cosine of counts of the shapes, textures and colours that parts may have, on photographs 1 for the same
    of COCO's twelve supercategories, else 0.
    """
    kinds = object_categories(data)
    tokens, ids = object_tokens(data).numpy(), data.main_truth.ids.tolist()
    means = np.stack([tokens[(kinds == c + 1).numpy()].mean(axis=0) for c in range(len(ids))])
    if len(ids) == len(CATEGORIES):
        counts = [
            Counter(word for part in parts for word in (part.shape, part.texture, *part.colours.split()))
            for parts in CATEGORIES.values()
        ]
        words = sorted(set().union(*counts))
        profile = np.array([[counts[i - 1][word] for word in words] for i in ids], float)
    else:
        known = json.loads((data.dataset.root / 'annotations' / 'instances_val2017.json').read_text())['categories']
        group = {item['id']: item['supercategory'] for item in known}
        names = sorted(set(group.values()))
        profile = np.array([[group[i] == name for name in names] for i in ids], float)
    return {
        name: np.pad(_cosine(x), ((1, 0), (1, 0)))
        for name, x in (('tokens', means - means.mean(0)), ('meaning', profile))
    }


def _cosine(x: np.ndarray) -> np.ndarray:
    x = x / np.linalg.norm(x, axis=1, keepdims=True)
    return x @ x.T


def shared(codes: np.ndarray, kinds: np.ndarray, alike: np.ndarray) -> float:
    """Mean likeness of two objects of unlike categories, over all pairs that share a code; NaN if there is none."""
    table = np.zeros((codes.max() + 1, len(alike)))
    np.add.at(table, (codes, kinds), 1)
    unlike = 1 - np.eye(len(alike))
    pairs = np.einsum('ei,ij,ej->', table, unlike, table)
    return float(np.einsum('ei,ij,ej->', table, unlike * alike, table) / pairs) if pairs else float('nan')


def similar(codes: np.ndarray, kinds: np.ndarray, cells: np.ndarray, alike: np.ndarray) -> dict[str, float]:
    """``shared`` of codes, and its mean and 2.5 % and 97.5 % points with codes shuffled among objects of one cell."""
    rng, order, draws = np.random.default_rng(0), np.argsort(cells, kind='stable'), []
    for _ in range(DRAWS):
        mixed = codes.copy()
        mixed[order] = codes[np.lexsort((rng.random(len(codes)), cells))]
        draws.append(shared(mixed, kinds, alike))
    low, high = np.percentile(draws, [2.5, 97.5])
    return {'shared': shared(codes, kinds, alike), 'chance': np.mean(draws), 'low': low, 'high': high}


def main(root: str) -> None:
    """Write both tables."""
    pairs, rows = [], []
    for images in ('toybox', 'photographs'):
        found, ids = {}, None
        for name in PRESETS:
            config = config_of(name, 0, root)
            data = shown(config, images, root)
            if data is None:
                continue
            if ids not in (None, data.image_ids):
                raise ValueError(f'{name} was shown other images of {images} than the preset before it')
            ids = data.image_ids
            own = images == ('photographs' if name.startswith('photos') else 'toybox')
            alike = likeness(data) if own else {}
            for seed in SEEDS:
                began, config = time.perf_counter(), config_of(name, seed, root)
                path = job_folder('runs', config) / 'checkpoint.safetensors'
                model = load_run(path, make_encoder(config))[0]
                found[name, seed] = codes = slot_codes(model, data)
                there = (codes.categories > 0).numpy()
                labels, slots = codes.labels.numpy(), codes.codes.shape[1]
                cells = slot_cells(labels, slots, CELLS)[there]
                areas = np.stack([np.bincount(x.ravel(), minlength=slots)[:slots] for x in labels])[there]
                thirds = np.searchsorted(np.percentile(areas, [100 / 3, 200 / 3]), areas)
                mine = codes.codes.numpy()[there], codes.categories.numpy()[there], 3 * cells + thirds
                origin = provenance(config, time.perf_counter() - began, model.precision)
                for kind, matrix in alike.items():
                    rows.append({'alike': kind, 'objects': int(there.sum()), **similar(*mine, matrix), **origin})
        for (one, seed), (other, second) in itertools.combinations(found, 2):
            print(images, one, seed, other, second, flush=True)
            agreed = code_agreement(found[one, seed], found[other, second])
            origin = {
                'one': one,
                'seed': seed,
                'other': other,
                'other_seed': second,
                'images': images,
                'shown': len(ids),
            }
            pairs.append(origin | agreed)
    pd.DataFrame(pairs).to_csv(TABLES / 'codes_across.csv', index=False)
    pd.DataFrame(rows).to_csv(TABLES / 'codes_similar.csv', index=False)


if __name__ == '__main__':
    main(sys.argv[1])
