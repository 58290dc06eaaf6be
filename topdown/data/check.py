"""Is a data set whole? Every problem is found and named at once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from tqdm.auto import tqdm

from topdown.data import open_whole
from topdown.data.base import ImageSet, one_thread
from topdown.data.clevr import Clevr6
from topdown.data.movi import Movi
from topdown.data.report import DOUBTFUL, NOTE, REFUSED, Report
from topdown.datasets import DATASETS


def overview() -> pd.DataFrame:
    """The data sets that can be read: name, data set, official counts of training and validation, how to get it."""
    rows = []
    for name, known in DATASETS.items():
        how = f'topdown data fetch {name} FOLDER' if known.source.elsewhere else '-'
        how = 'by hand, after a login' if known.source.login else 'made on first use' if known.make else how
        how += f', then topdown data prepare {name} FOLDER' if known.prepare else ''
        rows.append([name, known.source.title, *(known.official.get(split, '-') for split in ('train', 'val')), how])
    return pd.DataFrame(rows, columns=['name', 'data set', 'train', 'val', 'get it'])


@one_thread()
def check(data: ImageSet, dataset: str, split: str, progress: bool = True) -> Report:
    """Read every image and annotation of a split.

    Problems: an image count other than the official one; images that are missing or cannot be read; annotations that
    are missing, damaged, of another size than the image, without area, or of unknown categories; for COCO also
    annotations of images that are not listed; for MOVi and CLEVR also records that do not fit their checksums. Notes:
    images without objects, which are not a fault.

    Args:
        data: the split.
        dataset: its name in ``DATASETS``, for what is known of it.
        split: 'train' or 'val'.
        progress: show a bar.
    """
    report = data.report
    report.title, report.images = f'{dataset} {split}', len(data)
    official = DATASETS[dataset].official.get(split) if data.official else None
    if official and len(data) != official:
        report.add(DOUBTFUL, f'{len(data)} images, the official split has {official}')
    if isinstance(data, (Movi, Clevr6)):
        for problem in _damaged_records(data, f'checksums of {dataset} {split}', progress):
            report.add(REFUSED, problem)
    objects = empty = crowds = 0
    for i in tqdm(range(len(data)), desc=f'checking {dataset} {split}', disable=not progress):
        try:
            data.read_image(i)
        except (OSError, ValueError) as error:
            report.add(REFUSED, str(error))
        if split in DATASETS[dataset].unused_masks:
            continue
        try:
            truth = data.annotation(i)
        except (OSError, ValueError) as error:
            report.add(REFUSED, str(error))
            continue
        objects += len(truth.masks)
        empty += not len(truth.masks)
        crowds += int(truth.crowd.sum())
    report.objects = objects
    if empty:
        report.add(NOTE, f'{empty} image(s) without objects')
    if crowds:
        fate = 'keeps' if data.keeps_crowd('auto') else 'drops under protocol oclf'
        report.add(NOTE, f'{crowds} of {objects} objects are marked as crowd, which keep_crowd=auto {fate}')
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


def check_splits(name: str, root: Path | None, splits: Sequence[str], changes: dict[str, object]) -> int:
    """Print a report a split, and return how many problems there are: ``topdown data check``.

    Raises:
        OSError, ValueError: of the first split that cannot be opened, if no other split has problems.
    """
    problems, errors = 0, {}
    for split in splits:
        try:
            data = open_whole(name, root, split, strict=False, **changes)
        except (OSError, ValueError) as error:
            errors[split] = error
            continue
        report = check(data, name, split)
        print(report)
        problems += len(report.problems)
    if errors and not problems:
        raise next(iter(errors.values()))
    for split, error in errors.items():
        print(f'{name} {split}: {error}')
    return problems
