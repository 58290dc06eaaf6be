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


LATER = {'movi_video': 2}
"""Seeds that were added when those stated were known, which the page says."""


def test_statements_of_the_book_are_of_runs_that_the_plan_has():
    for row in stated.read_stated(FIGURES).itertuples():
        name = next(name for name in (row.table, row.table.rsplit('_', 1)[0]) if name in PRESETS)
        experiment = row.table.removeprefix(f'{name}_') if row.table != name else 'dial' if name == 'dial' else 'main'
        jobs = plan(name, [experiment])
        assert {row.variant, row.against} <= set(VARIANTS)
        for name in (row.variant, row.against):
            mine = [job for job in jobs if job.variant == name]
            assert len({job.setting for job in mine}) == row.settings
            assert len({job.seed for job in mine}) == row.seeds + LATER.get(row.table, 0)


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
        for name in ('toybox_ablation', 'toybox_category', 'photos_slotwise')
    ]
    metrics = ('fg_ari', 'mbo_i')
    unclear = [sign(*found.loc[m, ['low', 'high']]) == 0 for found in pairs for m in metrics]
    photos = read_runs(tables, 'photos_slotwise')
    over, beside = (effects(photos, rival).set_index(['variant', 'metric']) for rival in ('baseline', 'six-iterations'))
    shown = [
        smallest_difference((found.high - found.low)[m] / 2 * 5**0.5 / 2.776, 5)
        for found in (*pairs, over.loc['top-down']) for m in metrics
    ]  # fmt: skip
    runs = {name: read_runs(tables, name) for name in ('toybox_ablation', 'toybox_category')}
    told = {name: part[part.variant == 'top-down'].code_category_ami.dropna().mean() for name, part in runs.items()}
    hinted = effects(read_runs(tables, 'dial_hints'), 'baseline').set_index(['variant', 'metric'])
    check_quotes('intro.md', {
        'Five seeds do not tell the pathway from the baseline in either metric: neither on': (
            all(unclear) and all(found.seeds.min() == 5 for found in pairs)
        ),
        'from one point to twenty': 0.5 < min(shown) < 1.5 and 15 < max(shown) < 25,
        'on the photographs the pathway is above six plain iterations': all(
            beside.low['top-down', m] > 0 for m in metrics
        ),
        'find objects worse than three': all(over.high['six-iterations', m] < 0 for m in metrics),
        'Codes say next to nothing of what kind of thing a slot stands for': told['toybox_ablation'] < 0.05,
        'and somewhat more where they were.': told['toybox_category'] > 2 * told['toybox_ablation'],
        'the model finds objects no better, and far worse if these codes are long': (
            not any(hinted.low['short true categories'] > 0) and all(hinted.high['true categories'] < 0)
        ),
    })  # fmt: skip


def test_the_chapter_on_photographs_says_what_its_rows_say():
    tables, metrics = FIGURES / 'tables', ('fg_ari', 'mbo_i')
    runs, without = read_runs(tables, 'photos_slotwise'), pd.read_csv(tables / 'photos_baselines.csv')
    over, beside = (effects(runs, rival).set_index(['variant', 'metric']) for rival in ('baseline', 'six-iterations'))
    means, rows = runs.groupby('variant').fg_ari.mean(), without.set_index('model')
    told = runs[runs.variant == 'top-down'][[f'code_{name}_ami' for name in ('category', 'position')]].mean()
    toys = read_runs(tables, 'toybox_ablation')
    toys = toys[toys.variant == 'top-down'][told.index].mean()
    gaps = runs.pivot_table(index='seed', columns='variant', values=list(metrics))
    scatter = [(gaps[m]['top-down'] - gaps[m]['baseline']).std() for m in metrics]
    slow, tried = read_runs(tables, 'photos'), pd.read_csv(tables / 'photos_search.csv')
    early = tried[(tried.decoder == 'slotwise') & (tried.step <= 1000)].groupby('tokens').mbo_i.max()
    mlp = tried[tried.decoder == 'mlp']
    probes = pd.read_csv(tables / 'photos_slotwise_probe.csv')
    probes = probes[probes.target == 'category'].groupby('features').accuracy.mean()
    check_quotes('14_photographs.py', {
        'With the slotwise decoder it is not told from the baseline': all(
            sign(*over.loc[('top-down', m), ['low', 'high']]) == 0 for m in metrics
        ),
        'a difference of two points would have been seen in both metrics': all(
            smallest_difference(one, 5) < 2 for one in scatter
        ),
        'It is above six plain iterations in both, because these fall below the baseline': all(
            beside.low['top-down', m] > 0 and over.high['six-iterations', m] < 0 for m in metrics
        ),
        'No model comes up to k-means on the same tokens in FG-ARI': means.max() < rows.fg_ari['k-means on tokens'],
        '*Codes* tell about as much of the category as of the place': abs(told.iloc[0] - told.iloc[1]) < 0.03,
        'place was nearly all they told; it is little of either': toys.iloc[1] > 10 * toys.iloc[0] and told.max() < 0.2,
        'a linear probe reads no more of the category off them than off position and': (
            probes['codes'] < probes['position and size'] + 0.02
        ),
        'Slots hold some of it, and tokens more.': (
            probes['position and size'] + 0.02 < probes['first-pass slots'] < probes['mean tokens']
        ),
        'is near k-means within a thousand steps': early.min() > rows.mbo_i['k-means on tokens'] - 1.5,
        'does no better in the steps that it was given': mlp.mbo_i.max() < slow.mbo_i.max(),
        'stays near where it begins, below *block grid*': all(slow[m].max() < rows[m]['block grid'] for m in metrics),
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


def test_what_is_said_of_the_first_runs_in_clips_is_in_their_rows():
    first, search = (pd.read_csv(FIGURES / 'tables' / f'movi_video_{n}.csv') for n in ('unstable_shown', 'search'))
    below = first['FG-ARI'] < first['FG-ARI, best on the way'] - 0.1
    rate, seeds = PRESETS['movi_video'].train.lr, [job.seed for job in plan('movi_video')]
    check_quotes('stated.md', {
        'three of the nine ended below the FG-ARI that they had had on the way': (len(first), below.sum()) == (9, 3),
        'settled for a quarter of that rate': rate == 0.002 / 4 == search.lr.min(),
        'with seeds that the comparison does not use': not set(search.seed) & set(seeds),
        'and then two more seeds of all models': len(seeds) and len(set(seeds)) == 3 + LATER['movi_video'],
        'trials of the baseline alone': set(search.model) == {'baseline'},
    })  # fmt: skip
