"""A data set's card: a row of numbers, and a figure of its first images with their objects."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from topdown.book.plots import show_masks, style
from topdown.book.summaries import append_rows
from topdown.data.base import ImageSet
from topdown.data.card import first_images, statistics

LARGEST = 150_000
"""Bytes of a figure of the book."""


def write_card(data: ImageSet, name: str, split: str, out: Path) -> None:
    """Add or replace the row in ``out/tables/data_cards.csv``, and draw ``out/data_NAME.png``."""
    row = {'dataset': name, 'split': split, **statistics(data)}
    table = out / 'tables' / 'data_cards.csv'
    append_rows(table, [row], same=('dataset', 'split'))
    style()
    images, labels = first_images(data)
    path = out / f'data_{name}.png'
    figure = show_masks(images, {'objects': labels}, truth=('objects',))
    for dpi in (110, 90, 75):
        figure.savefig(path, dpi=dpi)
        Image.open(path).convert('RGB').quantize(128).save(path, optimize=True)
        if path.stat().st_size < LARGEST:
            break
    print('\n'.join([data.report.line(), *(f'{key}: {value}' for key, value in row.items())]))
    print(f'written to {table} and {path}')
