"""Watching a run while it lasts, from its logs alone: in a notebook or in a terminal."""

from __future__ import annotations

import contextlib
import sys
import time
from pathlib import Path

import pandas as pd

from topdown.train.journal import read_log

BLOCKS = ' ▁▂▃▄▅▆▇█'


def sketch(values: pd.Series, width: int = 60) -> str:
    """A curve as a line of blocks, its lowest value the lowest block; at most ``width`` means of neighbours."""
    values = values.dropna().reset_index(drop=True)
    if not len(values):
        return ''
    means = values.groupby(values.index * min(width, len(values)) // len(values)).mean()
    span = means.max() - means.min()
    return ''.join(BLOCKS[1 + round(7 * (value - means.min()) / span) if span else 1] for value in means)


def show(folder: str | Path) -> str:
    """What there is to see of a run now: curves of its logs, with the last value of each."""
    lines = []
    for name in ('log', 'evaluations'):
        frame = read_log(Path(folder) / f'{name}.csv')
        if len(frame):
            lines.append(f'{name}, step {int(frame.step.iloc[-1])}')
            lines += [f'  {column:14} {sketch(frame[column]):60} {frame[column].iloc[-1]:.4g}' for column in frame
                      if column != 'step']  # fmt: skip
    return '\n'.join(lines) or f'{folder} holds no log.csv yet'


def watch(folder: str | Path, seconds: float = 5.0, rounds: int | None = None) -> None:
    """Show a run again and again, ``rounds`` times or until interrupted."""
    notebook = 'ipykernel' in sys.modules
    with contextlib.suppress(KeyboardInterrupt):
        while rounds is None or rounds > 0:
            if notebook:
                from IPython.display import clear_output

                clear_output(wait=True)
            print(('' if notebook or not sys.stdout.isatty() else '\033[2J\033[H') + show(folder), flush=True)
            rounds = rounds and rounds - 1
            if rounds != 0:
                time.sleep(seconds)
