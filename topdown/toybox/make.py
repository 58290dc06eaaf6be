"""Toybox on disk: images and annotations in genuine COCO format, made on first use."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from topdown.toybox.catalogue import CATEGORIES
from topdown.toybox.scenes import VERSION, ToyboxConfig, scene_at

# ------------------------------------------------------------------------------------------------ writing COCO


def default_root() -> Path:
    """Where Toybox is kept if no folder is given: ``$TOPDOWN_CACHE`` or the user's cache folder."""
    base = os.environ.get('TOPDOWN_CACHE') or Path(os.environ.get('XDG_CACHE_HOME') or '~/.cache') / 'topdown'
    return Path(base).expanduser() / 'toybox'


def make_toybox(
    config: ToyboxConfig | None = None,
    root: str | Path | None = None,
    processes: int | None = None,
    progress: bool = True,
) -> Path:
    """Write the data set if it is not there yet.

    The files are made in a temporary folder and moved into place at the end, so an interrupted run leaves nothing
    that looks whole.

    Args:
        config: look and size; the default set if None.
        root: parent folder; the set lies in ``root/<config.key>``. ``default_root()`` if None or empty.
        processes: worker processes; all processors if None.
        progress: show a bar.

    Returns:
        The folder, in the layout of COCO 2017.

    Raises:
        PermissionError: if the folder cannot be written.
    """
    config = config or ToyboxConfig()
    parent = Path(root).expanduser() if root else default_root()
    target = parent / config.key
    if (target / 'toybox.json').is_file():
        return target
    try:
        parent.mkdir(parents=True, exist_ok=True)
        workplace = Path(tempfile.mkdtemp(prefix=f'.{config.key}-', dir=parent))
    except OSError as error:
        raise PermissionError(
            f'cannot write to {parent} ({error}); pass another data_root or set TOPDOWN_CACHE'
        ) from error
    try:
        _write(config, workplace, processes or os.cpu_count() or 1, progress)
        if target.exists():  # another process was faster, or an earlier folder is not whole
            if (target / 'toybox.json').is_file():
                return target
            shutil.rmtree(target)
        workplace.rename(target)
    finally:
        shutil.rmtree(workplace, ignore_errors=True)
    return target


def _write(config: ToyboxConfig, folder: Path, processes: int, progress: bool) -> None:
    from tqdm.auto import tqdm

    (folder / 'annotations').mkdir()
    for split in ('train', 'val'):
        (folder / f'{split}2017').mkdir()
    # Workers are plain subprocesses: multiprocessing would run a caller's script again in every worker.
    paths = [str(Path(__file__).parents[2]), *filter(None, [os.environ.get('PYTHONPATH')])]
    environment = {**os.environ, 'PYTHONPATH': os.pathsep.join(paths)}
    command = [sys.executable, '-m', 'topdown.toybox.make', json.dumps(dataclasses.asdict(config)), str(folder)]
    workers = [
        subprocess.Popen([*command, str(i), str(processes)], stdout=subprocess.PIPE, text=True, env=environment)
        for i in range(processes)
    ]
    found: list[tuple[str, dict, list[dict]]] = []
    total = config.num_train + config.num_val
    with tqdm(total=total, desc='making Toybox', unit='image', disable=not progress) as bar:

        def collect(worker: subprocess.Popen) -> int:
            for line in worker.stdout:
                found.append(json.loads(line))
                bar.update()
            return worker.wait()

        try:
            with ThreadPoolExecutor(processes) as pool:
                codes = list(pool.map(collect, workers))
        finally:
            for worker in workers:
                worker.kill()
                worker.stdout.close()
    if any(codes) or len(found) != total:
        raise RuntimeError(f'making Toybox failed after {len(found)} of {total} images; see the message above')
    found.sort(key=lambda row: row[1]['id'])
    records = {split: [row[1:] for row in found if row[0] == split] for split in ('train', 'val')}
    categories = [
        {'id': i, 'name': name, 'supercategory': 'toy'}
        for i, name in enumerate(list(CATEGORIES)[: config.categories], 1)
    ]
    for split, rows in records.items():
        annotations = [annotation for _, found in rows for annotation in found]
        for number, annotation in enumerate(annotations, 1):
            annotation['id'] = number
        content = {
            'info': {'description': f'Toybox {split}', 'version': str(VERSION), 'config': dataclasses.asdict(config)},
            'licenses': [{'id': 1, 'name': 'Apache-2.0', 'url': 'https://www.apache.org/licenses/LICENSE-2.0'}],
            'images': [image for image, _ in rows],
            'annotations': annotations,
            'categories': categories,
        }
        (folder / 'annotations' / f'instances_{split}2017.json').write_text(json.dumps(content))
    (folder / 'toybox.json').write_text(json.dumps({'version': VERSION, **dataclasses.asdict(config)}, indent=1))


def _write_one(config: ToyboxConfig, split: str, index: int, folder: Path) -> tuple[str, dict, list[dict]]:
    """Render and save one image; return its COCO records."""
    from pycocotools import mask as mask_tools

    scene = scene_at(config, split, index)
    name = f'{index + 1:012d}.jpg'
    Image.fromarray(scene.image).save(folder / f'{split}2017' / name, quality=93, subsampling=0)
    image = {'id': index + 1, 'file_name': name, 'width': config.size, 'height': config.size, 'license': 1}
    annotations = []
    for mask, category in zip(scene.masks, scene.categories, strict=True):
        rle = mask_tools.encode(np.asfortranarray(mask, np.uint8))
        annotations.append({
            'id': 0, 'image_id': index + 1, 'category_id': int(category), 'iscrowd': 0,
            'area': int(mask.sum()), 'bbox': [float(v) for v in mask_tools.toBbox(rle)],
            'segmentation': {'size': [config.size] * 2, 'counts': rle['counts'].decode()},
        })  # fmt: skip
    return split, image, annotations


def _work(arguments: list[str]) -> None:
    """One worker of ``_write``: every so-manieth image; a line of JSON records for each."""
    config, folder = ToyboxConfig(**json.loads(arguments[0])), Path(arguments[1])
    jobs = [(split, i) for split, n in (('train', config.num_train), ('val', config.num_val)) for i in range(n)]
    for split, index in jobs[int(arguments[2]) :: int(arguments[3])]:
        print(json.dumps(_write_one(config, split, index, folder)), flush=True)


if __name__ == '__main__':
    _work(sys.argv[1:])
