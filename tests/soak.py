"""The long form of the fault tests: ``python -m tests.soak`` (``make soak``) prints what was survived and writes it.

Runs are killed at random times, and called again and again until they end: with the uninterrupted run's weights, bit
for bit, with whole tables and with nothing left behind. Bits of files are flipped, disks are full at a random byte,
connections are cut, and numbers are not finite. Rows go to figures/tables/reliability.csv.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
import unittest.mock
import warnings
from collections.abc import Callable
from http.server import ThreadingHTTPServer
from pathlib import Path

import pandas as pd
import torch
from safetensors.torch import load_file

from tests.fuzz import Few, tiny_run
from tests.reliability import FAULTS, KILLS, write_rows
from tests.test_download import CONTENT, MD5, Handler
from topdown import preset
from topdown.config import Config
from topdown.data.fetch import download
from topdown.data.token_store import stored_tokens
from topdown.datasets import RemoteFile
from topdown.model import encoder as encoders
from topdown.train.batches import TrainData
from topdown.train.checkpoint import load_checkpoint
from topdown.train.health import VARYING
from topdown.train.journal import read_log
from topdown.train.loop import train_model

GENTLE = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
STOPPED = {128 + number for number in GENTLE} | {-number for number in GENTLE}  # the latter after the last step
SETTINGS = {
    'toybox': {'num_train': 24, 'num_val': 8}, 'steps': 150, 'batch_size': 4, 'eval_every': 50, 'checkpoint_every': 3,
    'log_every': 2, 'eval_images': 4, 'codebook_size': 8, 'precision': 'fp32',
}  # fmt: skip
"""A run of a few seconds that saves all the time; float32 sums are the same on every processor of one kind."""


def command(folder: Path, data: Path) -> list[str]:
    """Train as ``SETTINGS`` say."""
    words = [sys.executable, '-m', 'topdown.train', '--preset', 'smoke', '--folder', str(folder)]
    texts = {name: json.dumps(value) if isinstance(value, dict) else str(value) for name, value in SETTINGS.items()}
    return words + [f'--{name}={text}' for name, text in {**texts, 'data_root': str(data)}.items()]


def same(a: Path, b: Path) -> bool:
    """Whether two finished runs are the same: weights, optimiser, random state, logs."""
    first, second = load_file(a / 'checkpoint.safetensors'), load_file(b / 'checkpoint.safetensors')
    logs = [[read_log(place / f'{name}.csv') for name in ('log', 'evaluations')] for place in (a, b)]
    tables = all(
        pd.DataFrame.equals(*(frame.drop(columns=VARYING, errors='ignore') for frame in pair))
        for pair in zip(*logs, strict=True)
    )
    return tables and first.keys() == second.keys() and all(torch.equal(first[n], second[n]) for n in first)


def whole_folder(folder: Path) -> bool:
    """Whether a finished run left all of its tables and nothing else."""
    names = ('log.csv', 'evaluations.csv', 'provenance.json', 'config.json')
    there = all((folder / name).is_file() and (folder / name).stat().st_size for name in names)
    return there and not list(folder.glob('.*.part'))


def size(folder: Path) -> int:
    """Bytes of a run's log."""
    path = folder / 'log.csv'
    return path.stat().st_size if path.is_file() else 0


def kills(root: Path, count: int) -> list[dict[str, object]]:
    """Kill runs until ``count`` signals hit a process that trained: SIGKILL, or, one in four, one that asks to stop."""
    whole = root / 'whole'
    subprocess.run(command(whole, root / 'data'), check=True, capture_output=True)
    length = read_log(whole / 'log.csv').step_s.sum() * 2  # seconds of all steps
    tried, survived, runs, well = {'kill': 0, 'stop': 0}, {'kill': 0, 'stop': 0}, 0, 0
    while sum(tried.values()) < count:
        folder, here = root / f'run{runs}', {'kill': 0, 'stop': 0}
        while True:
            job = subprocess.Popen(command(folder, root / 'data'), stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
            if sum(tried.values()) + sum(here.values()) < count:
                before = size(folder)
                while size(folder) == before and job.poll() is None:
                    time.sleep(0.01)  # until it trains
                time.sleep(random.uniform(0, 1) * length)
                job.send_signal(random.choice(GENTLE) if random.random() < 0.25 else signal.SIGKILL)
            _, words = job.communicate()
            if job.returncode == 0:
                break
            if job.returncode not in STOPPED | {-signal.SIGKILL}:
                raise SystemExit(f'status {job.returncode}: {words.decode()[-2000:]}')
            here['stop' if job.returncode in STOPPED else 'kill'] += 1
        good = same(folder, whole) and whole_folder(folder)
        runs, well = runs + 1, well + good
        for kind, number in here.items():
            tried[kind] += number
            survived[kind] += number * good
    how = f'{well} of {runs} runs ended with the weights and tables of the uninterrupted one, and nothing else left'
    names = {'kill': 'SIGKILL at a random time', 'stop': 'SIGTERM, SIGINT or SIGHUP at a random time'}
    return [{'what': names[kind], 'tried': tried[kind], 'survived': survived[kind], 'how': how} for kind in tried]


# ------------------------------------------------------------------------------------------------------------- faults


def flipped(content: bytes) -> bytes:
    """With one bit another."""
    found = bytearray(content)
    found[random.randrange(len(found))] ^= 1 << random.randrange(8)
    return bytes(found)


def refused(read: Callable[[], object], kind: type[Exception]) -> bool:
    """Whether reading ends by an error of a kind."""
    try:
        read()
    except kind:
        return True
    return False


def checkpoint_bits(root: Path) -> Callable[[], bool]:
    """One bit of a checkpoint of a real run: refused."""
    content, path = (root / 'whole' / 'checkpoint.safetensors').read_bytes(), root / 'damaged.safetensors'

    def attempt() -> bool:
        path.write_bytes(flipped(content))
        return refused(lambda: load_checkpoint(path), ValueError)

    return attempt


def weight_bits(root: Path) -> Callable[[], bool]:
    """One bit of the shipped encoder: refused."""
    name = 'vit_toybox_patch8_96.safetensors'
    content, path = (encoders.WEIGHTS / name).read_bytes(), root / name

    def attempt() -> bool:
        path.write_bytes(flipped(content))
        with unittest.mock.patch.object(encoders, 'WEIGHTS', root):
            return refused(lambda: encoders.vit_toybox_patch8_96(pretrained=True), ValueError)

    return attempt


def token_bits(root: Path) -> Callable[[], bool]:
    """One bit of stored tokens: encoded anew."""
    (root / 'images').mkdir()
    data = Few(root / 'images')

    def stored() -> torch.Tensor:
        options = {'flip': False, 'progress': False}
        return stored_tokens(data, lambda i: i.reshape(len(i), 6, 8), 'f', (6, 8), root / 'store', **options)[0].clone()

    truth = stored()
    (path,) = (root / 'store').glob('*/*/tokens.bin')

    def attempt() -> bool:
        path.write_bytes(flipped(path.read_bytes()))
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            return torch.equal(stored(), truth)

    return attempt


def full_disk(root: Path) -> Callable[[], bool]:
    """A disk that is full at a random byte of a checkpoint: an error, the file of before, and nothing else."""
    (root / 'disk').mkdir()
    path = tiny_run(root / 'disk')
    before, soft = path.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)

    def attempt() -> bool:
        resource.setrlimit(resource.RLIMIT_FSIZE, (random.randrange(len(before)), soft[1]))
        try:
            failed = refused(lambda: tiny_run(root / 'disk'), OSError)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, soft)
        return failed and path.read_bytes() == before and list(path.parent.iterdir()) == [path]

    return attempt


def connections(root: Path) -> Callable[[], bool]:
    """Up to twelve faults of a server in a row: the file comes whole, or not at all until the next call."""
    server = ThreadingHTTPServer(('127.0.0.1', 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    target = root / 'downloads' / 'a.bin'
    file = RemoteFile(f'http://127.0.0.1:{server.server_port}/a.bin', target, len(CONTENT), MD5)

    def attempt() -> bool:
        target.unlink(missing_ok=True)
        Handler.files = {'/a.bin': CONTENT}
        Handler.faults = {'/a.bin': random.choices(('cut', 'error', 'flip', 'no ranges'), k=random.randrange(1, 13))}
        for _ in range(13):
            with contextlib.suppress(OSError):
                download(file, root / 'downloads', pause=0)
            if target.exists():
                return target.read_bytes() == CONTENT and not list(root.glob('downloads/*.part'))
        return False

    return attempt


def not_finite(root: Path) -> Callable[[], bool]:
    """A NaN or infinite token at a random step: it stops, saves none of it, and goes on as if it had not been."""
    config: Config = preset('smoke', data_root=str(root / 'data'), **SETTINGS)
    encoder, batches = encoders.make_encoder(config), TrainData.batches

    def attempt() -> bool:
        folder = Path(tempfile.mkdtemp(dir=root))
        bad, value = random.randrange(SETTINGS['steps']), random.choice((float('nan'), float('inf')))

        def spoilt(self, first, last, options):
            for step, tokens in enumerate(batches(self, first, last, options), first):
                if step == bad:
                    tokens.view(-1)[random.randrange(tokens.numel())] = value
                yield tokens

        with unittest.mock.patch.object(TrainData, 'batches', spoilt):
            stopped = refused(lambda: train_model(config, folder, encoder, progress=False), FloatingPointError)
        path = folder / 'checkpoint.safetensors'
        kept = not path.exists() or load_checkpoint(path).step <= bad
        train_model(config, folder, encoder, progress=False)
        return stopped and kept and same(folder, root / 'whole') and whole_folder(folder)

    return attempt


def main() -> None:
    """Run it and print what was counted; the exit status is 1 if anything was not survived."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--kills', type=int, default=100)
    parser.add_argument('--flips', type=int, default=2000, help='of bits of a checkpoint; of other faults fewer')
    parser.add_argument('--seed', type=int, default=0)
    options = parser.parse_args()
    random.seed(options.seed)
    torch.set_num_threads(1)
    shares = {
        checkpoint_bits: 1, token_bits: 4, full_disk: 4, connections: 20, weight_bits: 20, not_finite: 200,
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        tables = {KILLS: kills(root, options.kills), FAULTS: []}
        for fault, share in shares.items():
            attempt, count = fault(root), max(1, options.flips // share)
            what, how = fault.__doc__.rstrip('.').split(': ', 1)
            survived = sum(attempt() for _ in range(count))
            tables[FAULTS].append({'what': what, 'tried': count, 'survived': survived, 'how': how})
    for kind, rows in tables.items():
        write_rows(kind, rows)
        for row in rows:
            print(f'{row["what"]}: {row["tried"]} tried, {row["survived"]} survived: {row["how"]}')
    raise SystemExit(int(any(row['tried'] > row['survived'] for rows in tables.values() for row in rows)))


if __name__ == '__main__':
    main()
