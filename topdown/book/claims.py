"""The verdict on every claim of the paper, from the rows that there are."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from topdown.book.codebook_size import choose_codebook_size
from topdown.book.stated import SEARCHED, show_standing, standing
from topdown.book.tables import (
    NAMES,
    NOT_RUN,
    NOTHING,
    effect_text,
    effects,
    means_table,
    read,
    read_runs,
    sign,
    with_codebook_size,
)
from topdown.evaluate.statistics import seed_interval, smallest_difference

REPRODUCED, PARTLY, NOT_REPRODUCED = 'reproduced here', 'reproduced here in part', 'not reproduced here'


NEEDS_GPU = 'needs a GPU and the real data'


TOO_FEW = 'too few seeds to say'


# -------------------------------------------------------------------------------------------------------- claims


def claim_verdict(found: pd.DataFrame, direction: int = 1) -> tuple[str, str]:
    """Verdict on 'A beats B' and its evidence, from the effects of A against B.

    Reproduced means that for every metric the 95 % interval over seeds lies on the claimed side of zero; in part, that
    it does for one of them and lies on the other side for none. A single seed has no interval and decides nothing.

    Args:
        found: rows of ``effects`` of one variant.
        direction: 1 if the claim is that the difference is positive, -1 if negative.
    """
    if not len(found):
        return NOT_RUN, NOTHING
    sides = {direction * sign(r.low, r.high) for r in found.itertuples()}
    evidence = '; '.join(
        f'{NAMES[r.metric]} {effect_text(r.difference, r.low, r.high)}{_could_show(r.low, r.high, r.seeds)}'
        for r in found.itertuples()
    )
    seeds = int(found.seeds.min())
    verdict = REPRODUCED if sides == {1} else PARTLY if sides == {0, 1} else NOT_REPRODUCED
    if found.low.isna().any():
        verdict = TOO_FEW
    return verdict, f'{evidence}; {seeds} seed{"s" if seeds > 1 else ""}'


def _could_show(low: float, high: float, seeds: int) -> str:
    """The smallest true difference that so many seeds would tell from zero, by the scatter behind an interval."""
    if seeds < 2:
        return ''
    spread = (high - low) / 2 * seeds**0.5 / stats.t.ppf(0.975, seeds - 1)
    return f' (could show {smallest_difference(spread, seeds):.1f})'


def verdicts(claims: pd.DataFrame, runs: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """What became of every claim of the paper: on Toybox and, if it was run, on the paper's data.

    Args:
        claims: ``figures/paper/claims.csv``.
        runs: table name ('toybox_category', 'toybox_ablation', 'coco', ...) -> its runs, as ``read_runs`` gives them.

    Returns:
        claim, on Toybox, evidence (differences in points with their 95 % interval over seeds, and the smallest true one
        that four of five repetitions would tell from zero), elsewhere (the same on other embedded data, of claims about
        the whole pathway), on the paper's data, page (a link).
    """
    nothing = read_runs('', 'nothing')

    def get(name: str) -> pd.DataFrame:
        return runs.get(name, nothing)

    rows = []
    for claim in claims.itertuples():
        small, small_evidence = _CHECKS[claim.key](get, True) if claim.key in _CHECKS else (NOTHING, NOTHING)
        large, large_evidence = _CHECKS[claim.key](get, False) if claim.key in _CHECKS else (NOT_RUN, NOTHING)
        if large == NOT_RUN:
            large, large_evidence = NEEDS_GPU, NOTHING
        evidence = '; '.join(e for e in (small_evidence, large_evidence) if e != NOTHING) or NOTHING
        others = [
            f'{title}: {verdict}, {said}'
            for title, name in _ELSEWHERE.items()
            if claim.key in _RIVALS
            for verdict, said in [_compare(name, '', 'top-down', _RIVALS[claim.key])(get, True)]
            if verdict != NOT_RUN
        ]
        stem = claim.page.split('.')[0]
        link = f'[{re.sub(r"^[0-9]+_", "", stem).replace("_", " ")}]({claim.page})'
        rows.append([claim.claim, small, evidence, '; '.join(others) or NOTHING, large, link])
    columns = ['claim', 'on Toybox', 'evidence', 'elsewhere', "on the paper's data", 'page']
    return pd.DataFrame(rows, columns=columns)


Get = Callable[[str], pd.DataFrame]


def _compare(small: str, large: str, variant: str, against: str, metrics=('fg_ari', 'mbo_i'), direction: int = 1):
    """Check of a claim in the tables ``small`` (Toybox, or its images cut like another data set's) and ``large``."""

    def check(get: Get, embedded: bool) -> tuple[str, str]:
        name = small if embedded else large
        if not name:
            return NOTHING, NOTHING
        found = effects(get(name), against, metrics)
        return claim_verdict(found[found.variant == variant], direction)

    return check


def _easier(check: Callable[[Get, bool], tuple[str, str]], table: str) -> Callable[[Get, bool], tuple[str, str]]:
    """The check, on rows of the easier decoder where ``toybox_<table>`` has none, which the evidence then says."""

    def either(get: Get, embedded: bool) -> tuple[str, str]:
        if not embedded or len(get(f'toybox_{table}')) or not len(get(f'slotwise_{table}')):
            return check(get, embedded)
        verdict, evidence = check(lambda name: get(name.replace('toybox_', 'slotwise_')), True)
        return verdict, f'{evidence}; slotwise decoder'

    return either


def _codebook(get: Get, embedded: bool) -> tuple[str, str]:
    """A size between the extremes is best, and by more than the seeds scatter."""
    runs = with_codebook_size(get('toybox_codebook' if embedded else 'coco_codebook'))
    if runs.codebook_size.nunique() < 3:
        return NOT_RUN, NOTHING
    means = runs.groupby('codebook_size').mbo_i.mean()
    sizes, best = list(means.index), means.idxmax()
    named = runs.assign(variant=runs.codebook_size.astype(str))
    parts = []
    for end in (sizes[0], sizes[-1]):
        found = effects(named, str(end), ['mbo_i'])
        found = found[found.variant == str(best)]
        if found.low.isna().any():
            return TOO_FEW, f'best E = {best}'
        parts += [f'mBO_i against E = {end}: {effect_text(r.difference, r.low, r.high)}' for r in found.itertuples()]
        if end == best or not all(sign(r.low, r.high) == 1 for r in found.itertuples()):
            break
    else:
        return REPRODUCED, f'best E = {best}; {"; ".join(parts)}'
    return NOT_REPRODUCED, '; '.join([f'best E = {best}', *parts])


def _rule(get: Get, embedded: bool) -> tuple[str, str]:
    """The size that perplexity chooses is not told apart from the best one, while some other size is."""
    runs = with_codebook_size(get('toybox_codebook' if embedded else 'coco_codebook'))
    if runs.codebook_size.nunique() < 3 or 'perplexity' not in runs:
        return NOT_RUN, NOTHING
    chosen, best = choose_codebook_size(runs), int(runs.groupby('codebook_size').mbo_i.mean().idxmax())
    found = effects(runs.assign(variant=runs.codebook_size.astype(str)), str(best), ['mbo_i'])
    if found.low.isna().any():
        return TOO_FEW, f'chosen E = {chosen}, best E = {best}'
    worse = {int(row.variant) for row in found.itertuples() if sign(row.low, row.high) == -1}
    verdict = REPRODUCED if worse and chosen not in worse else NOT_REPRODUCED
    others = f'{len(worse)} of {len(found)} other sizes below the best in mBO_i'
    return verdict, f'chosen E = {chosen}, best E = {best}; {others}'


def _unlike_parts(get: Get, embedded: bool) -> tuple[str, str]:
    """The pathway's gain over the baseline is larger with unlike parts than with parts of one kind, seed by seed."""
    runs = get('toybox_difficulty') if embedded else get('')
    if not {'setting', 'mbo_i'} <= set(runs):
        return NOT_RUN, NOTHING
    values = runs.pivot_table(index='seed', columns=['setting', 'variant'], values='mbo_i')
    pairs = [(setting, variant) for setting in ('as it is', 'easy parts') for variant in ('top-down', 'baseline')]
    if not set(pairs) <= set(values):
        return NOT_RUN, NOTHING
    unlike, alike = (values[s, 'top-down'] - values[s, 'baseline'] for s in ('as it is', 'easy parts'))
    found = seed_interval((unlike - alike).dropna().to_numpy())
    verdict = REPRODUCED if sign(found.low, found.high) == 1 else NOT_REPRODUCED
    if np.isnan(found.low):
        verdict = TOO_FEW
    return verdict, f'gain in mBO_i, unlike minus alike parts: {effect_text(*found)}; {len(values)} seeds'


def _semantics(get: Get, embedded: bool) -> tuple[str, str]:
    """First-pass slots, and their codes, tell more of the category than position and size do: probes, held-out images.

    Differences in points of percent of objects whose category is right, judged as all claims are: both above zero, or
    one of them and the other not below.
    """
    rows = get('toybox_probe' if embedded else 'coco_probe')
    if not {'split', 'features', 'target', 'accuracy'} <= set(rows):
        return NOT_RUN, NOTHING
    rows = rows[rows.split.eq('val') & rows.target.eq('category')]
    right = 100 * rows.pivot(index='seed', columns='features', values='accuracy')
    sides, parts = [], []
    for name in ('first-pass slots', 'codes'):
        found = seed_interval((right[name] - right['position and size']).to_numpy())
        sides.append(sign(found.low, found.high))
        parts.append(f'{name} {right[name].mean():.1f} %, minus position and size {effect_text(*found)}')
    evidence = f'category, linear probe: {"; ".join(parts)}; {len(right)} seed{"s" if len(right) > 1 else ""}'
    if np.isnan(found.low):
        return TOO_FEW, evidence
    return {frozenset({1}): REPRODUCED, frozenset({0, 1}): PARTLY}.get(frozenset(sides), NOT_REPRODUCED), evidence


_CHECKS: dict[str, Callable[[Get, bool], tuple[str, str]]] = {
    'coco': _compare('toybox_ablation', 'coco', 'top-down', 'baseline'),
    'voc': _compare('voc_toybox', 'voc', 'top-down', 'baseline'),
    'movi_c': _compare('movi_toybox', 'movi_c', 'top-down', 'baseline', ('fg_ari',)),
    'movi_e': _compare('', 'movi_e', 'top-down', 'baseline', ('fg_ari',)),
    'six': _compare('toybox_ablation', 'coco', 'top-down', 'six-iterations'),
    'codebook': _easier(_codebook, 'codebook'),
    'rule': _easier(_rule, 'codebook'),
    'channel': _compare('toybox_ablation', 'coco_ablation', 'top-down', 'spatial only'),
    'spatial': _compare('toybox_ablation', 'coco_ablation', 'top-down', 'channel only'),
    'quantization': _compare('toybox_ablation', 'coco_ablation', 'top-down', 'without quantization'),
    'shifting': _compare('toybox_ablation', 'coco_ablation', 'top-down', 'without shifting'),
    'semantics': _easier(_semantics, 'probe'),
    'unlike_parts': _easier(_unlike_parts, 'difficulty'),
    'pixels_ari': _compare('clevr6_toybox', 'clevr6', 'top-down', 'baseline', ('fg_ari',), -1),
    'pixels_mbo': _compare('clevr6_toybox', 'clevr6', 'top-down', 'baseline', ('mbo_i',)),
}


_RIVALS = {'coco': 'baseline', 'six': 'six-iterations'}
_ELSEWHERE = {'tokens with categories': 'toybox_category', 'photographs, easier decoder': 'photos_slotwise'}


def read_all(folder: str | Path) -> dict[str, pd.DataFrame]:
    """Runs of every table in ``figures/tables`` that holds runs, by name."""
    found = {path.stem: read_runs(folder, path.stem) for path in sorted(Path(folder).glob('*.csv'))}
    return {name: runs for name, runs in found.items() if len(runs)}


def write_claims(figures: str | Path) -> pd.DataFrame:
    """Write ``figures/tables/claims.csv`` from the other tables, and return it.

    Beside it: what became of the statements, ``stated.csv``, and the means of the search, ``search_summary.csv``.
    """
    figures = Path(figures)
    if (figures / 'stated.csv').is_file():
        show_standing(standing(figures)).to_csv(figures / 'tables' / 'stated.csv', index=False)
    searched = read_runs(figures / 'tables', SEARCHED)
    if len(searched):
        columns = ('fg_ari', 'mbo_i', 'slots_fg_ari', 'slots_mbo_i')
        shown = {'slots_fg_ari': 'FG-ARI, slots', 'slots_mbo_i': 'mBO_i, slots'}
        table = means_table(searched, columns, 'setting').rename(columns=shown)
        table.to_csv(figures / 'tables' / 'search_summary.csv')
    table = verdicts(read(figures / 'paper' / 'claims.csv'), read_all(figures / 'tables'))
    table.to_csv(figures / 'tables' / 'claims.csv', index=False)
    return table
