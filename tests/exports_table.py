"""What labelling tools make of one drawn truth: ``python -m tests.exports_table`` writes figures/tables/exports.csv.

``data/exports`` holds what each tool wrote of three images of 96 x 128 (``drawn.npz``, one mask per object). As they
are read here, objects are compared with the drawn ones, and the drawn truth is scored as if it were a prediction.
"""

from __future__ import annotations

import json
import tempfile
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import ndimage

from tests.test_exports import EXPORTS, export, scores_of
from topdown.data import open_dataset
from topdown.presets import preset

TABLE = Path(__file__).parent.parent / 'figures' / 'tables' / 'exports.csv'
TOOLS = {
    # file: tool and version, what was exported
    'exact': ('(by hand)', 'lossless run-length codes, iscrowd 0'),
    'darwin_painted': ('darwin-py 3.6.3', 'painted masks, COCO'),
    'darwin_drawn': ('darwin-py 3.6.3', 'drawn polygons, COCO'),
    'datumaro': ('datumaro 1.13.12', 'coco_instances, as it comes'),
    'datumaro_polygons': ('datumaro 1.13.12', 'coco_instances, is_crowd=False'),
    'labelformat_0.1.17': ('labelformat 0.1.17', 'binary masks, COCO instances'),
    'supervision': ('supervision 0.31.2', 'as_coco'),
    'supervision_0.25.1': ('supervision 0.25.1', 'as_coco, lines and dots left out'),
    'sahi': ('sahi 0.12.8', 'masks, COCO'),
    'imantics_0.1.12': ('imantics 0.1.12', 'masks, COCO'),
    'kwcoco_0.9.1': ('kwcoco 0.9.1', 'multipolygons, new style'),
    'kwcoco_masks_0.9.1': ('kwcoco 0.9.1', 'run-length codes'),
    'labelme2coco': ('labelme2coco 0.2.6', 'another drawing: polygons, rectangles, points, a line'),
}
SAME = 0.2
"""IoU from which a read object is taken for the drawn one: a dot of 2 x 2 may come back as one pixel."""


def drawn_objects() -> list[tuple[str, np.ndarray]]:
    """Image and mask of everything that was drawn."""
    return [(name, mask.astype(bool)) for name, masks in np.load(EXPORTS / 'drawn.npz').items() for mask in masks]


def is_thin(mask: np.ndarray) -> bool:
    """Whether an object is nowhere three pixels wide."""
    return not ndimage.binary_erosion(mask, np.ones((3, 3))).any()


def hole(mask: np.ndarray) -> np.ndarray:
    """The pixels of an object's holes."""
    return ndimage.binary_fill_holes(mask) & ~mask


def read_objects(place: dict[str, str]) -> list[tuple[str, np.ndarray]]:
    """Image and mask of everything that is read of an export."""
    data = open_dataset(preset('coco', **place), 'val', progress=False)
    return [(Path(data.file_name(i)).stem, mask) for i in range(len(data)) for mask in data.annotation(i).masks]


def overlap(mask: np.ndarray, other: np.ndarray) -> float:
    """IoU."""
    return (mask & other).sum() / (mask | other).sum()


def row(name: str, root: Path) -> dict[str, object]:
    """One row of the table."""
    place = export(root, name)
    content = json.loads((EXPORTS / f'{name}.json').read_text())
    numbers = sorted(category['id'] for category in content['categories'])
    marked = sum(bool(a.get('iscrowd')) for a in content['annotations'])
    found = {
        'tool': TOOLS[name][0], 'export': TOOLS[name][1], 'categories': f'{numbers[0]} to {numbers[-1]}',
        'written': len(content['annotations']), 'as crowd': marked, 'read': 'refused',
        **dict.fromkeys(('exact', 'hole', 'two parts', 'thin', 'FG-ARI', 'mBO_i'), '–'),
    }  # fmt: skip
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # what they say is in the report, too
            (fg_ari, mbo, *_), report = scores_of(root, **place)
            objects = read_objects(place)
    except ValueError:
        return found
    found['read'] = report.objects
    if name == 'labelme2coco':  # not of the drawn truth
        return found
    return found | compare(objects) | {'FG-ARI': f'{fg_ari:.1f}', 'mBO_i': f'{mbo:.1f}'}


def compare(objects: list[tuple[str, np.ndarray]]) -> dict[str, str]:
    """What became of the drawn objects, of the hole, of the two parts, and of the thin ones."""
    found, exact, thin = {}, 0, []
    for image, mask in drawn_objects():
        here = [other for where, other in objects if where == image] or [np.zeros_like(mask)]
        best = max(here, key=lambda other: overlap(mask, other))
        same = overlap(mask, best) > SAME
        exact += (mask == best).all()
        if is_thin(mask):
            thin.append(same)
        if hole(mask).any():
            found['hole'] = 'lost' if not same else 'kept' if hole(best).any() else 'filled'
        if ndimage.label(mask)[1] == 2:
            found['two parts'] = 'lost' if not same else 'one object' if ndimage.label(best)[1] == 2 else 'apart'
    return found | {'exact': f'{exact} of {len(drawn_objects())}', 'thin': f'{sum(thin)} of {len(thin)}'}


def table() -> pd.DataFrame:
    """One row per export."""
    rows = []
    for name in TOOLS:
        with tempfile.TemporaryDirectory() as folder:
            rows.append(row(name, Path(folder)))
    return pd.DataFrame(rows)


if __name__ == '__main__':
    result = table()
    result.to_csv(TABLE, index=False)
    print(result.to_string(index=False))
