"""A rehearsal of the paper's run at the full size of COCO, on made-up data: python -m tests.rehearsal.

Makes a data set in COCO's layout (5,000 validation images of 640 x 480 with 1 to 60 objects, crowds, polygons and
run-length codes; 118,287 training images, most of them links to a few files), runs notebook 03 on it as a user would,
with the paper's configuration and an encoder of random weights, interrupts and resumes it, evaluates from the command
line, and writes the largest memory of every stage. No process of it may have more data (RLIMIT_DATA: memory that it may
write and shares with nobody) than ``--limit``; address space would not be a measure: torch alone maps 7 GB.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
from PIL import Image, ImageDraw
from pycocotools import mask as mask_tools

from topdown.files import write_text
from topdown.origin import provenance
from topdown.precision import processor
from topdown.presets import preset

SIZE = (640, 480)  # width and height
CATEGORIES = [{'id': i, 'name': f'kind {i}', 'supercategory': 'thing'} for i in range(1, 81)]
FILES = 1000
"""Image files that training has at most; the others are links to them."""


def make_coco(root: Path, val: int = 5000, train: int = 118_287, seed: int = 0) -> Path:
    """A data set in COCO's layout; one that is there whole is kept."""
    done = root / f'whole-{val}-{train}'
    if done.exists():
        return root
    for split, count in (('val', val), ('train', train)):
        rng = np.random.default_rng([seed, split == 'val'])
        folder = root / f'{split}2017'
        folder.mkdir(parents=True, exist_ok=True)
        names, parts = [], []
        for i in range(count):
            names.append(f'{i + 1:012d}.jpg')
            if split == 'train' and i >= FILES:
                (folder / names[-1]).unlink(missing_ok=True)
                os.link(folder / names[i % FILES], folder / names[-1])
                parts.append(parts[i % FILES])
                continue
            image, objects = _scene(rng)
            image.save(folder / names[-1], quality=90)
            parts.append(objects)
        width, height = SIZE
        write = root / 'annotations' / f'instances_{split}2017.json'
        write.parent.mkdir(exist_ok=True)
        with write.open('w') as file:  # text, piece by piece: COCO's own training file has 450 MB
            images = [
                {'license': 4, 'file_name': name, 'coco_url': f'http://images.cocodataset.org/{split}2017/{name}',
                 'height': height, 'width': width, 'date_captured': '2013-11-14 17:02:52',
                 'flickr_url': f'http://farm7.staticflickr.com/6116/{name}', 'id': i + 1}
                for i, name in enumerate(names)
            ]  # fmt: skip
            file.write(f'{{"info": {{}}, "licenses": [], "images": {json.dumps(images)}, "annotations": [')
            number = 0
            for i, objects in enumerate(parts):
                for one in objects:
                    number += 1
                    file.write(f'{", " if number > 1 else ""}{{"id": {number}, "image_id": {i + 1}, {one}}}')
            file.write(f'], "categories": {json.dumps(CATEGORIES)}}}')
    done.touch()
    return root


def _scene(rng: np.random.Generator) -> tuple[Image.Image, list[str]]:
    """An image and its objects, as text in JSON that lacks the ids only."""
    width, height = SIZE
    coarse = rng.integers(0, 255, (6, 8, 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize(SIZE, Image.Resampling.BICUBIC)
    draw, objects = ImageDraw.Draw(image), []
    for _ in range(1 + min(59, int(rng.exponential(6.5)))):
        angles = np.linspace(0, 2 * np.pi, int(rng.integers(8, 40)), endpoint=False)
        radius = rng.uniform(10, 120) * (1 + 0.3 * rng.random(len(angles)))
        x = (rng.uniform(0, width) + radius * np.cos(angles)).clip(0, width).round(2)
        y = (rng.uniform(0, height) + radius * np.sin(angles)).clip(0, height).round(2)
        points = np.stack([x, y], 1).ravel().tolist()
        if np.ptp(x) < 2 or np.ptp(y) < 2:
            continue
        draw.polygon(points, fill=tuple(rng.integers(0, 255, 3).tolist()))
        crowd = rng.random() < 0.012
        code = mask_tools.frPyObjects([points], height, width)[0]
        if not mask_tools.area(code):
            continue
        segmentation: object = [points]
        if crowd:
            flat = mask_tools.decode(code).ravel(order='F')
            edges = np.flatnonzero(np.diff(flat)) + 1
            runs = np.diff([0, *edges, len(flat)]).tolist()
            segmentation = {'size': [height, width], 'counts': ([0] if flat[0] else []) + runs}
        record = {
            'category_id': int(rng.integers(1, 81)), 'iscrowd': int(crowd), 'area': float(mask_tools.area(code)),
            'bbox': mask_tools.toBbox(code).tolist(), 'segmentation': segmentation,
        }  # fmt: skip
        objects.append(json.dumps(record)[1:-1])
    return image, objects


class Watched:
    """A command whose processes may have so many GB of data each, and what it and its children took while it ran."""

    def __init__(self, command: list[str], limit: float) -> None:
        self.samples: list[tuple[float, float, float]] = []  # time, resident and mapped GB of the largest process
        began = time.time()
        rlimit = (int(limit * 1e9), int(limit * 1e9))
        process = subprocess.Popen(command, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_DATA, rlimit))
        thread = threading.Thread(target=self._look, args=(process.pid,), daemon=True)
        thread.start()
        self.status = process.wait()
        thread.join()
        self.seconds = time.time() - began

    def _look(self, pid: int) -> None:
        try:
            parent = psutil.Process(pid)
            while parent.is_running() and parent.status() != psutil.STATUS_ZOMBIE:
                found = [self._memory(process) for process in (parent, *parent.children(recursive=True))]
                self.samples.append((time.time(), max(own for own, _ in found), max(mapped for _, mapped in found)))
                time.sleep(0.1)
        except psutil.NoSuchProcess:
            pass

    @staticmethod
    def _memory(process: psutil.Process) -> tuple[float, float]:
        """Resident memory without the files that are mapped, which the system may take back, and address space."""
        try:
            found = process.memory_info()
        except psutil.NoSuchProcess:
            return 0.0, 0.0
        return (found.rss - found.shared) / 1e9, found.vms / 1e9

    def peak(self, first: float = 0.0, last: float = float('inf')) -> tuple[float, float]:
        """Largest of both between two times."""
        part = [sample[1:] for sample in self.samples if first <= sample[0] <= last + 0.1]
        return tuple(np.max(part, axis=0).round(2).tolist()) if part else (float('nan'), float('nan'))


STAGES = {
    'topdown.open_dataset': 'open both splits',
    'topdown.make_eval_set': 'truth and tokens of validation',
    'topdown.baselines': 'baselines',
    'train_variants': 'training and evaluation',
    'side_by_side': 'protocols',
    'show_masks': 'figures of masks',
    'show_codes': 'codes',
    'checks =': 'checks',
}
"""What a cell holds, and what the stage is called; the longest of several cells counts."""


def stages(notebook: Path, watched: Watched) -> list[dict[str, object]]:
    """A row for every stage of an executed notebook."""
    rows: dict[str, dict[str, object]] = {}
    for cell in json.loads(notebook.read_text())['cells']:
        ran = cell['metadata'].get('papermill', {})
        name = next((name for text, name in STAGES.items() if text in ''.join(cell['source'])), None)
        if cell['cell_type'] != 'code' or name is None or not ran.get('end_time'):
            continue
        first, last = (datetime.fromisoformat(ran[f'{edge}_time']).timestamp() for edge in ('start', 'end'))
        own, mapped = watched.peak(first, last)
        if name not in rows or last - first > rows[name]['seconds']:
            rows[name] = {'stage': name, 'seconds': round(last - first, 1), 'own_gb': own,
                          'address_space_gb': mapped}  # fmt: skip
    return list(rows.values())


def rehearse(options: argparse.Namespace) -> Iterator[dict[str, object]]:
    """All stages, each a row; raises RuntimeError at the first that fails."""
    work = options.work
    root = make_coco(work / 'coco', options.val, options.train)
    changes = {'pretrained': False, 'eval_images': 0, 'eval_every': 0, 'checkpoint_every': 10, **options.changes}
    out, runs = work / 'out.ipynb', work / 'runs'

    def run(title: str, command: list[str], statuses: tuple[int, ...] = (0,)) -> Watched:
        print(f'{title} ...', flush=True)
        found = Watched(command, options.limit)
        if found.status not in statuses:
            raise RuntimeError(f'{title} ended with status {found.status}: {" ".join(command)}')
        own, mapped = found.peak()
        print(f'{title}: {found.seconds:.0f} s, {own:.2f} GB of its own, address space {mapped:.2f} GB', flush=True)
        return found

    def row(title: str, found: Watched) -> dict[str, object]:
        own, mapped = found.peak()
        return {'stage': title, 'seconds': round(found.seconds, 1), 'own_gb': own, 'address_space_gb': mapped}

    found = run('notebook 03', [
        sys.executable, '-m', 'papermill', 'book/03_train_coco.ipynb', str(out), '--cwd', '.', '-k', 'python3',
        '--no-progress-bar', '-p', 'preset', 'coco', '-p', 'data_root', str(root), '-p', 'run_dir', str(runs),
        '-p', 'seeds', '1', '-p', 'steps', str(options.steps), '-p', 'models', options.models,
        '-y', json.dumps({'changes': changes}),
    ])  # fmt: skip
    yield from (*stages(out, found), row('notebook 03, whole', found))
    (folder,) = (runs / 'coco').glob(f'{options.models.split(",")[-1]}-seed0-*')
    flags = [f'--{name.replace("_", "-")}={value}' for name, value in changes.items()]
    found = run('topdown train, resumed', [
        sys.executable, '-m', 'topdown', 'train', '--preset', 'coco', '--folder', str(folder), '--data-root', str(root),
        '--steps', str(options.steps + 10), *flags,
    ])  # fmt: skip
    yield row('topdown train, resumed', found)
    command = ['evaluate', str(folder / 'checkpoint.safetensors'), '--table', str(work / 'rows.csv')]
    found = run('topdown evaluate', [sys.executable, '-m', 'topdown', *command])
    if len(pd.read_csv(work / 'rows.csv')) != options.val:
        raise RuntimeError('topdown evaluate left images out')
    yield row('topdown evaluate', found)


def main() -> None:
    """Read the options, rehearse, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--work', type=Path, required=True, help='folder for the data set and the runs')
    parser.add_argument('--val', type=int, default=5000)
    parser.add_argument('--train', type=int, default=118_287)
    parser.add_argument('--steps', type=int, default=20)
    parser.add_argument('--models', default='baseline,top-down')
    parser.add_argument('--limit', type=float, default=10.0, help='data of a process, GB')
    parser.add_argument('--changes', type=json.loads, default={}, help='to the preset, as JSON')
    parser.add_argument('--table', type=Path, default=None, help='CSV file for the rows')
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    options.work = options.work.resolve()
    origin, found = provenance(preset('coco'), 0.0, ''), []
    for row in rehearse(options):
        found.append(row)
        write(found, options, origin)


def write(found: list[dict[str, object]], options: argparse.Namespace, origin: dict[str, object]) -> None:
    """The rows so far."""
    rows = pd.DataFrame(found).assign(
        changes=json.dumps(options.changes), val=options.val, train=options.train, steps=options.steps,
        processor=processor(), commit=origin['commit'], date=origin['date'],
    )  # fmt: skip
    names = {'stage': 'stage', 'seconds': 'seconds', 'own_gb': 'own GB', 'address_space_gb': 'address space GB'}
    shown = rows[list(names)].rename(columns=names)
    print(shown.to_string(index=False), flush=True)
    if options.table:
        write_text(options.table, rows.to_csv(index=False))
        write_text(options.table.with_name(f'{options.table.stem}_summary.csv'), shown.to_csv(index=False))


if __name__ == '__main__':
    main()
