"""The page on evaluation: its table of protocols is what ``PROTOCOLS`` say, and the other one can be made again."""

import pandas as pd

from tests.protocols_table import TABLES, choices, moved, shown
from topdown.protocols import PROTOCOLS


def test_the_table_of_protocols_is_what_they_say():
    pd.testing.assert_frame_equal(choices(), pd.read_csv(TABLES / 'protocols.csv', dtype=str, keep_default_na=False))


def test_the_same_masks_under_every_protocol(coco_root):
    found = moved(coco_root)
    written = pd.read_csv(TABLES / 'protocols_moved.csv')
    assert list(found.columns) == list(written.columns)
    assert found[['masks', 'protocol']].equals(written[['masks', 'protocol']])
    assert set(PROTOCOLS) <= set(found.protocol)
    rows = found.set_index(['masks', 'protocol'])
    usual = rows.loc[('block grid', 'oclf')]
    assert (usual['FG-ARI, most'], usual['mBO_i, most'], usual['images']) == (0, 0, 4)
    assert (rows.loc[('block grid', 'slotdiffusion'), ['FG-ARI, most', 'mBO_i, most']] > 0).all()
    assert (
        rows.loc[('block grid', 'slotdiffusion, batches of 4'), 'mBO_i']
        == rows.loc[('block grid', 'slotdiffusion'), 'mBO_i']
    )  # one batch
    assert shown(found)['FG-ARI, most'].iloc[0] == '0.0'
