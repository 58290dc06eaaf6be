"""How far the protocols move the same masks: ``python -m tests.protocols_table DATA_ROOT`` writes two tables.

figures/tables/protocols.csv says what each protocol does, from ``PROTOCOLS`` itself; protocols_moved.csv what two kinds
of masks that need no model score under each, on COCO's validation images below DATA_ROOT. Masks are made on the patches
of images cut as oclf has it, and upsampled to the mask size of every protocol. Where there are no panoptic maps, bench
is scored against the instance masks, as on other data sets.
"""

from __future__ import annotations

import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from topdown.data.coco import CocoInstances
from topdown.evaluate.baselines import block_grid, kmeans, patch_colours
from topdown.evaluate.metrics import summarize
from topdown.evaluate.predict import score
from topdown.evaluate.truth import EvalSet, make_truth_set
from topdown.presets import preset
from topdown.protocols import PROTOCOLS

TABLES = Path(__file__).parent.parent / 'figures' / 'tables'
GRID, SEGMENTS = (14, 14), 7
SHOWN = {'fg_ari': 'FG-ARI', 'mbo_i': 'mBO_i', 'mbo_c': 'mBO_c', 'miou': 'mIoU'}
CROWDS = {'option': 'kept or dropped: `keep_crowd`', 'keep': 'kept', 'drop': 'dropped, and `ignore`'}


def choices() -> pd.DataFrame:
    """What each protocol does, a row per point."""
    points = {
        'imitates': lambda p: p.imitates,
        'masks scored': lambda p: {'decoder': "the decoder's", 'slots': "slot attention's, last pass"}[p.masks],
        'images cut': lambda p: p.image_resize,
        'true masks cut': lambda p: p.mask_resize,
        'mask size': lambda p: '`mask_size`' if p.mask_scale is None else f'{p.mask_side(224, 0)} for images of 224',
        "COCO's truth": lambda p: 'things of panoptic maps' if p.panoptic else 'instances',
        'crowd regions': lambda p: '(panoptic things)' if p.panoptic else CROWDS[p.crowd],
        'pixels of several instances': lambda p: p.aside,
        'pixels of several classes': lambda p: p.class_overlap if p.class_metrics else '–',
        'unknown pixels': lambda p: 'as those of several instances' if p.void == 'aside' else 'background, or `void`',
        'background is an object of': lambda p: ', '.join(p.background) or 'nothing',
        'scores over classes': lambda p: ', '.join(p.class_metrics) or 'none',
        'FG-ARI without objects': lambda p: '1' if p.empty_counts else 'left out',
        'no background in the cut': lambda p: {'colour': 'first colour, in VOC'}.get(p.no_background, p.no_background),
        'an object erased by overlap': lambda p: '0 if a higher label is left' if p.erased else 'is none',
        'mean over': lambda p: f'batches of {p.batch_size}, or images' if p.batch_size else 'images',
    }  # fmt: skip
    known = set(asdict(PROTOCOLS['oclf'])) - {'name', 'heads', 'mask_scale'}
    assert len(points) == len(known) + 1, 'a field of Protocol is not shown'  # the size of masks, instead of its scale
    return pd.DataFrame({
        'point': list(points), **{name: [show(p) for show in points.values()] for name, p in PROTOCOLS.items()}
    })  # fmt: skip


def moved(root: str | Path) -> pd.DataFrame:
    """Scores of the same masks under every protocol, percent, and how far single images move from oclf."""
    dataset = CocoInstances(root, 'val', 224, 320)
    dataset.official &= dataset.panoptic_file.is_file()
    config = preset('coco', data_root=str(root), keep_crowd='drop')
    known = make_truth_set(config, protocols=tuple(PROTOCOLS), dataset=dataset, progress=False)
    data = EvalSet(**vars(known), tokens=torch.empty(0), grid=GRID)
    colours = patch_colours(data)
    rows = []
    for title, make in (('block grid', block_grid), ('k-means on colours', lambda view, k: kmeans(view, colours, k))):
        usual = None
        for name, truth in data.truth.items():
            for rules in (truth.protocol, replace(truth.protocol, background=())) if name == 'bench' else (None,):
                view = replace(data, truth={name: replace(truth, protocol=rules or truth.protocol)})
                table = pd.DataFrame(score(make(view, SEGMENTS), view))[list(SHOWN)]
                usual = table if usual is None else usual
                found = summarize(table.to_dict('records'))
                most = {f'{SHOWN[m]}, most': 100 * (table[m] - usual[m]).abs().max() for m in ('fg_ari', 'mbo_i')}
                title_of = f'{name}, background left out' if rules and not rules.background else name
                rows.append({'masks': title, 'protocol': title_of, **{SHOWN[m]: found[m] for m in SHOWN}, **most})
            if truth.protocol.batch_size:
                for size in (64, 4):
                    found = summarize(table.to_dict('records'), size)
                    rows.append({
                        'masks': title, 'protocol': f'{name}, batches of {size}', **{SHOWN[m]: found[m] for m in SHOWN}
                    })  # fmt: skip
    return pd.DataFrame(rows).assign(images=len(data))


def shown(table: pd.DataFrame) -> pd.DataFrame:
    """Numbers with one decimal, and a dash for none."""
    numbers = table.select_dtypes('float').columns
    return table.assign(**{c: [f'{v:.1f}' if np.isfinite(v) else '–' for v in table[c]] for c in numbers})


if __name__ == '__main__':
    choices().to_csv(TABLES / 'protocols.csv', index=False)
    result = shown(moved(sys.argv[1]))
    result.to_csv(TABLES / 'protocols_moved.csv', index=False)
    print(choices().to_string(index=False))
    print(result.to_string(index=False))
