"""The rule for the codebook's size, on made-up rows."""

import pandas as pd
import pytest

from topdown.book.codebook_size import choose_codebook_size, share_in_use


def rows(perplexity, **more):
    return pd.DataFrame([{'codebook_size': e, 'perplexity': p, **more} for e, p in perplexity.items()])


LEVELS_OFF = {8: 7.5, 16: 14.0, 32: 20.0, 64: 24.0, 128: 25.0}


def test_the_largest_size_that_is_mostly_in_use():
    assert choose_codebook_size(rows(LEVELS_OFF)) == 32
    assert choose_codebook_size(rows(LEVELS_OFF), share=0.8) == 16
    assert choose_codebook_size(rows({8: 8.0, 16: 16.0})) == 16
    assert choose_codebook_size(rows({8: 4.0, 16: 4.0})) == 8  # half is enough


def test_the_smallest_if_all_are_mostly_idle():
    assert choose_codebook_size(rows({8: 1.2, 64: 1.5, 16: 1.1})) == 8


def test_seeds_are_averaged_and_runs_without_codes_left_out():
    both = pd.concat([rows({8: 8, 16: 9}), rows({8: 6, 16: 5}), rows({None: 3.0}), rows({4: None})])
    table = share_in_use(both)
    assert table.index.tolist() == [8, 16]
    assert table.perplexity.tolist() == [7.0, 7.0]
    assert table.runs.tolist() == [2, 2]
    assert choose_codebook_size(both) == 8


def test_missing_rows_are_named():
    with pytest.raises(ValueError, match='perplexity'):
        choose_codebook_size(pd.DataFrame({'codebook_size': [8]}))
    with pytest.raises(ValueError, match='no row'):
        choose_codebook_size(rows({8: None}))
    with pytest.raises(ValueError, match='share'):
        choose_codebook_size(rows(LEVELS_OFF), share=0)
