"""What was stated before runs, against the runs: what is missing is said, and smallest effects follow the scatter."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.pages import check_quotes
from topdown.book import stated
from topdown.book.plan import plan
from topdown.book.tables import effects, read_runs, sign
from topdown.evaluate.statistics import smallest_difference
from topdown.presets import PRESETS, VARIANTS

FIGURES = Path(__file__).parent.parent / 'figures'

ONE = {
    'date': '2026-01-02', 'table': 'some', 'variant': 'top-down', 'against': 'baseline', 'settings': 2, 'seeds': 3,
    'metrics': 'fg_ari mbo_i', 'masks': 'decoder',
}  # fmt: skip


def rows(settings=('a', 'b'), seeds=3, date='2026-01-02', variants=('baseline', 'top-down')):
    draw = np.random.default_rng(0)
    return pd.DataFrame([
        {'experiment': 'x', 'setting': setting, 'variant': variant, 'seed': seed, 'date': date,
         'fg_ari': draw.normal(), 'mbo_i': draw.normal()}
        for setting in settings for variant in variants for seed in range(seeds)
    ])  # fmt: skip


@pytest.fixture
def judged(tmp_path):
    def judge(table=None, searched=None, statement=ONE):
        (tmp_path / 'tables').mkdir(exist_ok=True)
        pd.DataFrame([statement]).to_csv(tmp_path / 'stated.csv', index=False)
        for name, frame in (('some', table), (stated.SEARCHED, searched)):
            if frame is not None:
                frame.to_csv(tmp_path / 'tables' / f'{name}.csv', index=False)
        return stated.standing(tmp_path).iloc[0]

    return judge


def test_what_is_missing_is_said(judged):
    assert judged().became == 'not run'
    assert judged(rows(variants=['top-down'])).became == 'not run'
    assert judged(rows()).became == 'as stated'
    assert judged(rows(settings=['a'])).became == '1 of 2 settings have all seeds'
    assert judged(rows(seeds=2)).became == '0 of 2 settings have all seeds'
    assert judged(rows(date='2026-01-01')).became == 'runs are older than the statement'
    assert judged(rows().drop(columns='setting'), statement={**ONE, 'settings': 1}).became == 'as stated'


def test_the_smallest_effects_follow_the_scatter(judged):
    table = rows()
    searched = rows(settings=['p', 'q'], variants=['baseline'], seeds=2)
    found = judged(table, searched)
    pairs = table.pivot(index=['setting', 'seed'], columns='variant', values='mbo_i')
    scatter = (pairs['top-down'] - pairs['baseline']).groupby('setting').var().mean() ** 0.5
    assert found['can_show mbo_i'] == pytest.approx(smallest_difference(scatter, 3))
    expected = (2 * searched.groupby('setting').fg_ari.var().mean()) ** 0.5
    assert found['could_show fg_ari'] == pytest.approx(smallest_difference(expected, 3))


def test_nothing_to_know_it_from_is_not_a_number(judged):
    found = judged()
    assert math.isnan(found['could_show fg_ari'])
    assert math.isnan(found['can_show mbo_i'])


def test_a_statement_has_all_its_columns(judged):
    with pytest.raises(ValueError, match='lacks the columns masks'):
        judged(statement={key: value for key, value in ONE.items() if key != 'masks'})


def test_statements_of_the_book_are_of_runs_that_the_plan_has():
    for row in stated.read_stated(FIGURES).itertuples():
        name = next(name for name in (row.table, row.table.rsplit('_', 1)[0]) if name in PRESETS)
        experiment = row.table.removeprefix(f'{name}_') if row.table != name else 'dial' if name == 'dial' else 'main'
        jobs = plan(name, [experiment])
        assert {row.variant, row.against} <= set(VARIANTS)
        for name in (row.variant, row.against):
            mine = [job for job in jobs if job.variant == name]
            assert len({job.setting for job in mine}) == row.settings
            assert len({job.seed for job in mine}) == row.seeds


def test_the_table_that_readers_see_is_that_of_the_runs():
    shown = pd.read_csv(FIGURES / 'tables' / 'stated.csv')
    made = stated.show_standing(stated.standing(FIGURES))
    pd.testing.assert_frame_equal(made, shown, check_dtype=False)


def test_the_chapter_on_the_dial_says_what_the_rows_with_true_categories_say():
    runs = read_runs(FIGURES / 'tables', 'dial_hints')
    over, beside = (
        effects(runs, rival, ('fg_ari', 'mbo_i', 'ari')).set_index(['variant', 'metric'])
        for rival in ('baseline', 'shuffled categories')
    )

    def below(found, variant, metric):
        return sign(*found.loc[(variant, metric), ['low', 'high']]) == -1

    objects = ('fg_ari', 'mbo_i')
    check_quotes('13_the_dial.py', {
        'finds objects far worse than the baseline does': all(below(over, 'true categories', m) for m in objects),
        'in FG-ARI, worse than with the categories of other slots': below(beside, 'true categories', 'fg_ari'),
        'Those harm, too, but less.': all(
            below(over, 'shuffled categories', m)
            and over.difference['shuffled categories', m] > over.difference['true categories', m]
            for m in objects
        ),
        'true categories are not told from the baseline in either metric': all(
            sign(*over.loc[('short true categories', m), ['low', 'high']]) == 0 for m in objects
        ),
    })  # fmt: skip


def test_the_introduction_says_what_the_rows_say():
    tables = FIGURES / 'tables'
    pairs = [
        effects(read_runs(tables, name), 'baseline').set_index(['variant', 'metric']).loc['top-down']
        for name in ('toybox_ablation', 'toybox_category')
    ]
    unclear = [sign(*found.loc[m, ['low', 'high']]) == 0 for found in pairs for m in ('fg_ari', 'mbo_i')]
    runs = {name: read_runs(tables, name) for name in ('toybox_ablation', 'toybox_category')}
    told = {name: part[part.variant == 'top-down'].code_category_ami.dropna().mean() for name, part in runs.items()}
    hinted = effects(read_runs(tables, 'dial_hints'), 'baseline').set_index(['variant', 'metric'])
    check_quotes('intro.md', {
        'five seeds do not tell the pathway from the baseline in either metric, neither on': (
            all(unclear) and all(found.seeds.min() == 5 for found in pairs)
        ),
        'effects of several points': all(
            smallest_difference((found.high - found.low)[m] / 2 * 5**0.5 / 2.776, 5) > 2
            for found in pairs for m in ('fg_ari', 'mbo_i')
        ),
        'Codes say next to nothing of what kind of thing a slot stands for': told['toybox_ablation'] < 0.05,
        'and somewhat more where they were.': told['toybox_category'] > 2 * told['toybox_ablation'],
        'the model finds objects no better, and far worse if these codes are long': (
            not any(hinted.low['short true categories'] > 0) and all(hinted.high['true categories'] < 0)
        ),
    })  # fmt: skip


def test_the_chapter_on_the_ablation_says_what_its_rows_say():
    runs = read_runs(FIGURES / 'tables', 'toybox_ablation')
    stuck = (runs.mbo_i < 30).groupby(runs.variant).sum()
    where = runs[runs.mbo_i < 30].groupby('variant').seed.agg(set)
    over = effects(runs, 'baseline', ('fg_ari', 'mbo_i', 'ari'))
    width = (over.high - over.low).groupby(over.variant).mean()
    told = [sign(row.low, row.high) for row in over.itertuples()]
    shuffled = effects(runs[runs.variant.isin(['top-down', 'shuffled codes'])], 'top-down').set_index('metric')
    check_quotes('08_ablation.py', {
        '*Spatial only* and *without shifting* stayed there most often, *without quantization* never': (
            set(stuck.index[stuck == stuck.max()]) == {'spatial only', 'without shifting'}
            and stuck['without quantization'] == 0
        ),
        'none of this is told from chance': not any(told),
        'The whole pathway and the baseline stayed with the same seed': where['top-down'] == where['baseline'],
        'sharper than most': width['top-down'] < width.median(),
        '*shuffled codes* do as well as its own': all(
            sign(*shuffled.loc[m, ['low', 'high']]) == 0 and abs(shuffled.difference[m]) < 1 for m in shuffled.index
        ),
        'helps or harms objects': not any(told),
    })  # fmt: skip
