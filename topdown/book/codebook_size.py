"""A rule for the size of the codebook that needs no labels. Frames in, numbers and frames out."""

from __future__ import annotations

import pandas as pd

SHARE = 0.5


def share_in_use(rows: pd.DataFrame) -> pd.DataFrame:
    """Mean perplexity over seeds, and its share of the codebook, for every size tried.

    Args:
        rows: one per run, with codebook_size (E) and perplexity (over the validation set); runs without are left out.

    Returns:
        Index codebook_size, ascending; columns perplexity, share (perplexity / E), runs and, where rows have it,
        revived: the share of codes replaced at a step, which changes with E and is a cause of its own.

    Raises:
        ValueError: if a column or every value is missing.
    """
    missing = {'codebook_size', 'perplexity'} - set(rows)
    if missing:
        raise ValueError(f'rows lack the column {", ".join(sorted(missing))}: pass rows of the experiment codebook')
    known = rows.dropna(subset=['codebook_size', 'perplexity']).astype({'codebook_size': int})
    if not len(known):
        raise ValueError('no row has both codebook_size and perplexity: pass rows of models with a codebook')
    groups = known.groupby('codebook_size').perplexity
    table = pd.DataFrame({'perplexity': groups.mean(), 'runs': groups.size()})
    table.insert(1, 'share', table.perplexity / table.index)
    if 'revived' in known:
        table['revived'] = known.groupby('codebook_size').revived.mean()
    return table


def choose_codebook_size(rows: pd.DataFrame, share: float = SHARE) -> int:
    """The largest size tried whose perplexity is at least half of it, else the smallest tried.

    The reason: perplexity counts the codes that slots need, each weighted by its use, so as long as most codes are in
    use a larger codebook can still tell more apart, and once most are idle further codes add nothing that slots ask
    for. Perplexity is that over the validation set: that of a batch is bounded by the number of its slots. No label is
    needed, and sizes that are powers of two are enough.

    Args:
        rows: see ``share_in_use``; seeds of one size are averaged.
        share: least perplexity / E, in (0, 1].

    Raises:
        ValueError: as ``share_in_use``; if ``share`` is out of range.
    """
    if not 0 < share <= 1:
        raise ValueError(f'share must lie in (0, 1], got {share}')
    table = share_in_use(rows)
    enough = table.index[table.share >= share]
    return int(enough.max() if len(enough) else table.index.min())
