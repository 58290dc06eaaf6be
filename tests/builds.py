"""Steps of two builds, alternating: ``python -m tests.builds COMMIT ROUNDS`` writes figures/tables/builds.csv.

Each build trains in a process of its own, on random tokens; the two take turns, a few steps each, so that a machine
whose speed drifts favours neither. CPU seconds are counted, medians and ranges over the rounds are kept, and the ratio
is the median of the rounds' own ratios. A working tree of the older commit is made in a temporary folder and removed.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from topdown.book.bench import token_shape
from topdown.book.summaries import append_rows
from topdown.model.flops import step_flops
from topdown.origin import provenance
from topdown.precision import ceiling
from topdown.presets import preset

ROOT = Path(__file__).parent.parent

AUTOREGRESSIVE = {'decoder': 'autoregressive', 'decoder_layers': 2, 'batch_size': 16}

CASES: dict[str, tuple[str, dict[str, object], int, int]] = {
    'embedded size, float32, baseline': ('toybox', {**AUTOREGRESSIVE, 'precision': 'fp32', 'top_down': False}, 1, 10),
    'embedded size, float32, top-down': ('toybox', {**AUTOREGRESSIVE, 'precision': 'fp32'}, 1, 10),
    'embedded size, bfloat16, baseline': ('toybox', {**AUTOREGRESSIVE, 'precision': 'bf16', 'top_down': False}, 1, 20),
    'embedded size, bfloat16, top-down': ('toybox', {**AUTOREGRESSIVE, 'precision': 'bf16'}, 1, 20),
    "the paper's size, float32, baseline": (
        'coco', {'batch_size': 4, 'precision': 'fp32', 'top_down': False}, 2, 1
    ),
    "the paper's size, float32, top-down": ('coco', {'batch_size': 4, 'precision': 'fp32'}, 2, 1),
}  # fmt: skip
"""Preset, changes, threads, and steps of a turn."""

WORKER = """
import json, sys, time
import torch
import topdown
from topdown.book.bench import Stepper, token_shape
name, changes, threads = json.loads(sys.argv[1])
torch.set_num_threads(threads)
config = topdown.preset(name, **changes)
stepper = Stepper(config, *token_shape(config)[:2])
for _ in range(3):
    stepper.step()
print('ready', flush=True)
for line in sys.stdin:
    began = time.process_time()
    for _ in range(int(line)):
        stepper.step()
    print((time.process_time() - began) / int(line), flush=True)
"""


def start(folder: Path, job: str, threads: int) -> subprocess.Popen[str]:
    """A build's process, ready to step."""
    process = subprocess.Popen(
        [sys.executable, '-c', WORKER, job], cwd=folder, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        env={**os.environ, 'PYTHONPATH': str(folder), 'OMP_NUM_THREADS': str(threads)},
    )  # fmt: skip
    if process.stdout.readline() != 'ready\n':
        raise RuntimeError(f'the build in {folder} cannot step')
    return process


def compare(older: Path, case: str, rounds: int) -> dict[str, object]:
    """Seconds a step of both builds, their ratio, and what the products alone would take of them."""
    name, changes, threads, steps = CASES[case]
    builds = {
        key: start(folder, json.dumps([name, changes, threads]), threads)
        for key, folder in (('before', older), ('now', ROOT))
    }
    spent: dict[str, list[float]] = {key: [] for key in builds}
    for _ in range(rounds):
        for key, process in builds.items():
            process.stdin.write(f'{steps}\n')
            process.stdin.flush()
            spent[key].append(float(process.stdout.readline()))
    for process in builds.values():
        process.stdin.close()
        process.wait()
    ratios = [a / b for a, b in zip(*spent.values(), strict=True)]
    config = preset(name, **changes)
    patches, features, _ = token_shape(config)
    torch.set_num_threads(threads)
    flops = step_flops(config.model, features, patches) * config.train.batch_size
    least = threads * flops / 1e12 / ceiling(config.train.precision)
    row: dict[str, object] = {'case': case, 'preset': name, 'changes': json.dumps(changes), 'threads': threads}
    for key, values in spent.items():
        row |= {key: statistics.median(values), f'{key}_least': min(values), f'{key}_most': max(values)}
    row |= {'ratio': statistics.median(ratios), 'ratio_least': min(ratios), 'ratio_most': max(ratios)}
    return {**row, 'products': least, 'share': least / statistics.median(spent['now']), 'rounds': rounds}


def main(older: str, rounds: int) -> None:
    """All cases, into the table."""
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / 'older'
        git = ['git', '-C', str(ROOT), 'worktree']
        subprocess.run([*git, 'add', '--quiet', '--detach', str(tree), older], check=True)
        try:
            for case in CASES:
                row = compare(tree, case, rounds)
                origin = provenance(preset(str(row['preset'])), 0, '')
                row |= {'older': older, **{key: origin[key] for key in ('commit', 'date', 'device', 'torch')}}
                append_rows(ROOT / 'figures/tables/builds.csv', [row], same=('case', 'older'))
                print(f'{case}: {row["before"]:.4f} -> {row["now"]:.4f} s, {row["ratio"]:.3f} times', flush=True)
        finally:
            subprocess.run([*git, 'remove', '--force', str(tree)], check=True)


if __name__ == '__main__':
    main(sys.argv[1], int(sys.argv[2]))
