"""The page on images of one's own: its table is what the exports give, and it speaks of every tool of the table."""

import re
from pathlib import Path

import pandas as pd
from scipy import ndimage

from tests.exports_table import TABLE, compare, drawn_objects, table

PAGE = (Path(__file__).parent.parent / 'book' / 'own_images.md').read_text()


def test_the_table_is_what_the_exports_give():
    pd.testing.assert_frame_equal(table().astype(str), pd.read_csv(TABLE, dtype=str))


def test_every_tool_of_the_table_is_spoken_of_and_no_other_is_in_bold():
    tools = set(pd.read_csv(TABLE).tool) - {'(by hand)'}
    assert set(re.findall(r'^\| \*\*(.+?)\*\*', PAGE, flags=re.M)) == tools


def test_what_is_lost_is_seen():
    drawn = drawn_objects()
    assert compare(drawn) == {'exact': '16 of 16', 'hole': 'kept', 'two parts': 'one object', 'thin': '4 of 4'}
    (image, ring), (_, pair) = drawn[1:3]
    rest = [drawn[0], *drawn[3:]]
    filled = ndimage.binary_fill_holes(ring)
    parts = [(image, ndimage.label(pair)[0] == number) for number in (1, 2)]
    changed = {'exact': '14 of 16', 'hole': 'filled', 'two parts': 'apart', 'thin': '4 of 4'}
    assert compare([*rest, (image, filled), *parts]) == changed
    assert compare(drawn[3:10]) == {'exact': '7 of 16', 'hole': 'lost', 'two parts': 'lost', 'thin': '1 of 4'}
