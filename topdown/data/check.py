"""Is a data set whole? Every problem is found and named at once."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from tqdm.auto import tqdm

from topdown.data.base import PictureSet, one_thread
from topdown.data.clevr import Clevr6
from topdown.data.coco import CocoInstances
from topdown.data.movi import FRAMES, Movi

OFFICIAL = {
    ('coco', 'train'): 118_287, ('coco', 'val'): 5_000, ('voc', 'train'): 10_582, ('voc', 'val'): 1_449,
    ('ade20k', 'train'): 20_210, ('ade20k', 'val'): 2_000, ('cityscapes', 'train'): 2_975, ('cityscapes', 'val'): 500,
    **{(name, 'val'): 250 * FRAMES for name in ('movi_c', 'movi_d', 'movi_e')},
}  # fmt: skip
"""Pictures of each split, as its makers count them; of MOVi all frames."""
WITHOUT_MASKS = {('voc', 'train')}
"""Splits whose masks are not used, and not asked for."""


@dataclass
class Report:
    """What ``check`` found."""

    dataset: str
    split: str
    pictures: int = 0
    objects: int = 0
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        verdict = f'{len(self.problems)} problem(s)' if self.problems else 'no problems'
        lines = [f'{self.dataset} {self.split}: {self.pictures} pictures, {self.objects} objects, {verdict}']
        lines += [f'  problem: {p}' for p in self.problems] + [f'  note: {n}' for n in self.notes]
        return '\n'.join(lines)


@one_thread()
def check(data: PictureSet, dataset: str, split: str, progress: bool = True) -> Report:
    """Read every picture and annotation of a split.

    Problems: a picture count other than the official one; pictures that are missing or cannot be read; annotations that
    are missing, damaged, of another size than the picture, without area, or of unknown categories; for COCO also
    annotations of pictures that are not listed; for MOVi and CLEVR also records that do not fit their checksums. Notes:
    pictures without objects, which are no fault.

    Args:
        data: the split.
        dataset: its name, for the official count.
        split: 'train' or 'val'.
        progress: show a bar.
    """
    report = Report(dataset, split, len(data))
    official = OFFICIAL.get((dataset, split))
    if official and len(data) != official:
        report.problems.append(f'{len(data)} pictures, the official split has {official}')
    if isinstance(data, CocoInstances):
        orphans = sorted({a['image_id'] for a in data.coco.anns.values()} - set(data.coco.imgs))
        report.problems += [
            f'{data.annotation_file.name} annotates picture {i}, which it does not list' for i in orphans
        ]
    if isinstance(data, (Movi, Clevr6)):
        report.problems += _damaged_records(data, f'checksums of {dataset} {split}', progress)
    empty = 0
    for i in tqdm(range(len(data)), desc=f'checking {dataset} {split}', disable=not progress):
        shape = None
        try:
            shape = tuple(data.read_image(i).shape[1:])
        except (OSError, ValueError) as error:
            report.problems.append(str(error))
        if (dataset, split) in WITHOUT_MASKS:
            continue
        try:
            truth = data.annotation(i)
        except Exception as error:  # whatever a damaged annotation makes a decoder raise
            report.problems.append(f'annotation of {data.file_name(i)}: {type(error).__name__}: {error}')
            continue
        report.objects += len(truth.masks)
        empty += not len(truth.masks)
        if shape and shape != truth.masks.shape[1:]:
            size, given = (f'{s[0]} x {s[1]}' for s in (shape, truth.masks.shape[1:]))
            report.problems.append(f'{data.path(i)} is {size} pixels, its annotation is for {given}')
        report.problems += [
            f'{data.file_name(i)}: object {o} has no area' for o in np.flatnonzero(~truth.masks.any((1, 2)))
        ]
        strange = sorted(set(truth.categories.tolist()) - set(data.category_names))
        report.problems += [f'{data.file_name(i)}: unknown category {c}' for c in strange]
    if empty:
        report.notes.append(f'{empty} picture(s) without objects')
    return report


def _damaged_records(data: Movi | Clevr6, title: str, progress: bool) -> list[str]:
    with tqdm(total=sum(map(len, data.files)), desc=title, unit='record', disable=not progress) as bar:
        found = []
        for file in data.files:
            for record in range(len(file)):
                if not file.verify(record):
                    found.append(f'{file.path}: record {record} does not fit its checksum: {data.REMEDY}')
                bar.update()
    return found
