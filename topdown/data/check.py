"""Is a data set whole? Every problem is found and named at once."""

from __future__ import annotations

from tqdm.auto import tqdm

from topdown.data.base import PictureSet, one_thread
from topdown.data.clevr import Clevr6
from topdown.data.movi import Movi
from topdown.data.report import DOUBTFUL, NOTE, REFUSED, Report
from topdown.datasets import DATASETS


@one_thread()
def check(data: PictureSet, dataset: str, split: str, progress: bool = True) -> Report:
    """Read every picture and annotation of a split.

    Problems: a picture count other than the official one; pictures that are missing or cannot be read; annotations that
    are missing, damaged, of another size than the picture, without area, or of unknown categories; for COCO also
    annotations of pictures that are not listed; for MOVi and CLEVR also records that do not fit their checksums. Notes:
    pictures without objects, which are no fault.

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
