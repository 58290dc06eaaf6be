"""Logs that grow as a run goes: CSV files that can be read at any time, and TensorBoard if asked for."""

from __future__ import annotations

import csv
import os
import re
from pathlib import Path
from typing import TextIO

import pandas as pd

from topdown import distributed
from topdown.files import brief, fresh

NUMBER = re.compile(r'|[-+]?(nan|inf|(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?)', re.ASCII)
"""A cell that is a number, or empty."""


class Journal:
    """Rows of a log, appended to a CSV file one by one; each is with the system when ``add`` returns.

    What an interrupted run wrote after its last checkpoint is cut off, and so is half a row. Of several processes, the
    main one writes.

    Args:
        path: the file; it is made with the first row.
        step: the run goes on after this step.
        known: rows to begin with if there is no file.
        board: a TensorBoard writer that gets every number, too.
    """

    def __init__(self, path: Path, step: int, known: list[dict] | None = None, board: object = None) -> None:
        self.path, self.board, self.file = path, board, None
        if not distributed.is_main():
            return
        text = path.read_bytes().decode(errors='replace') if path.is_file() else ''
        lines = list(csv.reader(text.splitlines()))
        names = lines[0] if lines else ['step']
        if 'step' not in names or len(set(names)) < len(names) or not all(map(str.isidentifier, names)):  # damaged
            lines = path.unlink() or []
        self.columns = lines[0] if lines else list(known[0]) if known else []
        rows = [dict(zip(self.columns, line)) for line in lines[1:] if len(line) == len(self.columns)]
        rows = [row for row in rows if all(map(NUMBER.fullmatch, row.values()))]
        rows = [row for row in rows if row.get('step', '').isdigit() and int(row['step']) <= step]
        if lines and (len(rows) + 1 < len(lines) or not text.endswith('\n')):
            self._write(rows)
        elif known and not lines:
            self._write(known)

    def add(self, row: dict) -> None:
        """Append a row, which has its step; a new column is added to the whole file."""
        if not distributed.is_main():
            return
        if not set(row) <= set(self.columns):
            before = self.read().to_dict('records')
            self.__exit__()
            self.columns += [name for name in row if name not in self.columns]
            self._write(before)
        if self.file is None:
            self.file = self.path.open('a', newline='')
        self._writer(self.file).writerow(row)
        self.file.flush()
        for name in set(row) - {'step'} if self.board else ():
            self.board.add_scalar(f'{self.path.stem}/{name}', row[name], row['step'])

    def _write(self, rows: list[dict]) -> None:
        with fresh(self.path) as place, place.open('w', newline='') as file:
            self._writer(file).writeheader()
            self._writer(file).writerows(rows)

    def _writer(self, file: TextIO) -> csv.DictWriter:
        return csv.DictWriter(file, self.columns, restval='', lineterminator='\n')

    def sync(self) -> None:
        """Wait until the rows are on the disk."""
        if self.file is not None:
            os.fsync(self.file.fileno())

    def read(self) -> pd.DataFrame:
        """All rows so far."""
        return read_log(self.path)

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *error: object) -> None:
        if self.file is not None:
            self.file.close()
            self.file = None
        if self.board:
            self.board.flush()


def read_log(path: Path) -> pd.DataFrame:
    """A log as it is now, numbers exact; empty if there is none yet."""
    found = read_table(path, float_precision='round_trip')
    numbers = all(kind.kind in 'iuf' for kind in found.dtypes)
    if len(found) and not (numbers and pd.api.types.is_integer_dtype(found.get('step'))):
        raise ValueError(f'{path} is damaged, it holds more than numbers by step: delete it')
    return found


def read_table(path: str | Path, **options: object) -> pd.DataFrame:
    """A CSV table, ``options`` being pandas'; empty if the file is missing or empty; else a ``ValueError``."""
    path = Path(path)
    try:
        return pd.read_csv(path, **options) if path.is_file() and path.stat().st_size else pd.DataFrame()
    except (ValueError, OverflowError) as error:  # pandas has errors of its own, which are of these
        raise ValueError(f'{path} is not a CSV table ({brief(error)}): delete it and make it again') from error


def open_board(folder: Path, step: int) -> object:
    """A TensorBoard writer into ``folder``, for a run that goes on after ``step``.

    Raises:
        ImportError: if TensorBoard is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ImportError('tensorboard=true needs TensorBoard: pip install tensorboard') from error
    return SummaryWriter(folder, purge_step=step + 1)
