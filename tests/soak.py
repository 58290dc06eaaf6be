"""The long form of the fault tests: runs killed at random times, damaged checkpoints; prints how many were survived.

``python tests/soak.py --kills 100 --flips 2000`` (``make soak``). A killed run is called again, and again, until it
ends; it must end with the uninterrupted run's weights, bit for bit, with whole tables and with nothing left behind.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd
import torch
from safetensors.torch import load_file

from topdown.train.checkpoint import load_checkpoint
from topdown.train.health import VARYING
from topdown.train.journal import read_log

STATUS = {0: 'ended', -9: 'killed', 143: 'stopped'}


def command(folder: Path, data: Path) -> list[str]:
    """Train for a few seconds, saving all the time; float32 sums are the same on every processor of one kind."""
    toybox = json.dumps({'num_train': 24, 'num_val': 8})
    settings = [
        f'data_root={data}', f'toybox={toybox}', 'steps=150', 'batch_size=4', 'eval_every=50', 'checkpoint_every=3',
        'log_every=2', 'eval_images=4', 'codebook_size=8', 'precision=fp32',
    ]  # fmt: skip
    words = [sys.executable, '-m', 'topdown.train', '--preset', 'smoke', '--folder', str(folder)]
    return words + [f'--{setting}' for setting in settings]


def same(a: Path, b: Path) -> bool:
    """Whether two finished runs are the same: weights, optimiser, random state, logs."""
    first, second = load_file(a / 'checkpoint.safetensors'), load_file(b / 'checkpoint.safetensors')
    logs = [[read_log(place / f'{name}.csv') for name in ('log', 'evaluations')] for place in (a, b)]
    tables = all(
        pd.DataFrame.equals(*(frame.drop(columns=VARYING, errors='ignore') for frame in pair))
        for pair in zip(*logs, strict=True)
    )
    return tables and first.keys() == second.keys() and all(torch.equal(first[n], second[n]) for n in first)


def size(folder: Path) -> int:
    """Bytes of a run's log."""
    path = folder / 'log.csv'
    return path.stat().st_size if path.is_file() else 0


def kills(root: Path, count: int) -> dict[str, int]:
    """Kill runs until ``count`` kills hit a process that ran, by SIGKILL or, one in four, by SIGTERM."""
    whole = root / 'whole'
    subprocess.run(command(whole, root / 'data'), check=True, capture_output=True)
    length = read_log(whole / 'log.csv').step_s.sum() * 2  # seconds of all steps
    found = dict.fromkeys(('killed', 'stopped', 'runs ended', 'runs that differ', 'tables missing', 'files left'), 0)
    while found['killed'] + found['stopped'] < count:
        folder = root / f'run{found["runs ended"]}'
        while True:
            job = subprocess.Popen(command(folder, root / 'data'), stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
            if found['killed'] + found['stopped'] < count:
                before = size(folder)
                while size(folder) == before and job.poll() is None:
                    time.sleep(0.01)  # until it trains
                time.sleep(random.uniform(0, 1) * length)
                (job.terminate if random.random() < 0.25 else job.kill)()
            _, words = job.communicate()
            status = STATUS.get(job.returncode)
            if status is None and job.returncode != -15:  # SIGTERM before training began
                raise SystemExit(f'status {job.returncode}: {words.decode()[-2000:]}')
            found['killed'] += status == 'killed'
            found['stopped'] += status == 'stopped'
            if status == 'ended':
                break
        found['runs ended'] += 1
        found['runs that differ'] += not same(folder, whole)
        found['files left'] += len(list(folder.glob('.*.part')))
        for name in ('log.csv', 'evaluations.csv', 'provenance.json', 'config.json'):
            found['tables missing'] += not (folder / name).is_file() or not (folder / name).stat().st_size
    return found


def flips(path: Path, count: int) -> dict[str, int]:
    """Flip single bits of a checkpoint."""
    content, passed = bytearray(path.read_bytes()), 0
    damaged = path.with_name('damaged.safetensors')
    for _ in range(count):
        place, bit = random.randrange(len(content)), 1 << random.randrange(8)
        content[place] ^= bit
        damaged.write_bytes(content)
        content[place] ^= bit
        try:
            load_checkpoint(damaged)
            passed += 1
        except ValueError:
            pass
    return {'flipped bits': count, 'loaded without a word': passed}


def main() -> None:
    """Run it and print what was counted; the exit status is 1 if anything was not survived."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--kills', type=int, default=100)
    parser.add_argument('--flips', type=int, default=2000)
    parser.add_argument('--seed', type=int, default=0)
    options = parser.parse_args()
    random.seed(options.seed)
    with tempfile.TemporaryDirectory() as folder:
        found = kills(Path(folder), options.kills)
        found |= flips(Path(folder) / 'whole' / 'checkpoint.safetensors', options.flips)
    print('\n'.join(f'{name}: {number}' for name, number in found.items()))
    bad = ('runs that differ', 'tables missing', 'files left', 'loaded without a word')
    raise SystemExit(int(any(found[name] for name in bad)))


if __name__ == '__main__':
    main()
