"""Tables: provenance, replacement, summaries, and that README and book show what the tables hold."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.pages import WORDS, check_quotes
from topdown import VARIANTS, preset, provenance
from topdown.book import places, publish, summaries
from topdown.cli import main

ROOT = Path(__file__).parent.parent


def test_provenance_names_the_run():
    row = provenance(preset('toybox', seed=3), 12.34, 'fp32')
    assert row['preset'] == 'toybox'
    assert row['seed'] == 3
    assert row['seconds'] == 12.3
    assert row['config'] == preset('toybox').key
    assert not [name for name, value in row.items() if value is None or value == '']


def test_rows_are_appended_and_replaced(tmp_path):
    path = tmp_path / 'tables' / 'table.csv'
    summaries.append_rows(path, [{'model': 'a', 'seed': 0, 'x': 1.0}, {'model': 'a', 'seed': 1, 'x': 2.0}])
    table = summaries.append_rows(path, [{'model': 'a', 'seed': 1, 'x': 5.0}], same=('model', 'seed'))
    assert table.x.tolist() == [1.0, 5.0]
    pd.testing.assert_frame_equal(pd.read_csv(path), table)
    assert [p.name for p in path.parent.iterdir()] == ['table.csv']


def test_mean_and_spread():
    table = pd.DataFrame({'model': ['b', 'b', 'a'], 'fg_ari': [10.0, 20.0, 3.0]})
    shown = summaries.mean_and_spread(table)
    assert shown.index.tolist() == ['b', 'a']
    assert shown.fg_ari.tolist() == ['15.0 ± 7.1', '3.0']
    assert shown.runs.tolist() == [2, 1]


def test_publish_replaces_the_readme_table(tmp_path):
    run, figures, readme = tmp_path / 'runs' / 'toybox', tmp_path / 'figures', tmp_path / 'README.md'
    run.mkdir(parents=True)
    pd.DataFrame({'model': ['a'], 'masks': ['-'], 'dataset': ['b'], 'fg_ari': [1.0]}).to_csv(
        run / 'results.csv', index=False
    )
    (run / 'masks.png').write_bytes(b'png')
    (run / 'paired.csv').write_text('model\nb - a\n')
    readme.write_text(f'before\n{publish.BEGIN}\nold\n{publish.END}\nafter\n')
    publish.publish(run, figures, readme)
    assert readme.read_text() == (
        f'before\n{publish.BEGIN}\n| model | masks | FG-ARI | runs |\n| --- | --- | --- | --- |\n'
        f'| a | – | 1.0 | 1 |\n{publish.END}\nafter\n'
    )
    assert (figures / 'masks.png').read_bytes() == b'png'
    assert (figures / 'tables' / 'toybox.csv').exists()
    assert (figures / 'tables' / 'toybox_paired.csv').exists()
    other = run.rename(tmp_path / 'runs' / 'slotwise_long')
    publish.publish(other, figures)
    assert (figures / 'slotwise_long' / 'masks.png').exists()
    publish.publish(other.rename(tmp_path / 'runs' / 'voc_toybox'), figures, images=False)
    assert (figures / 'tables' / 'voc_toybox.csv').exists()
    assert not (figures / 'voc_toybox').exists()


def test_figures_are_the_projects_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert places.figures_dir() == ROOT / 'figures'
    (tmp_path / 'figures' / 'paper').mkdir(parents=True)
    assert places.figures_dir() == tmp_path / 'figures'  # the current project's come first
    monkeypatch.chdir(ROOT / 'book')
    assert places.figures_dir() == ROOT / 'figures'
    monkeypatch.setattr(places, '__file__', str(tmp_path / 'nowhere' / 'topdown' / 'book' / 'places.py'))
    (tmp_path / 'figures' / 'paper').rmdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match='pip install -e'):
        places.figures_dir()


def one_run(**changes):
    return pd.DataFrame([{'config': 'abc', 'seed': 3, 'steps': 9, 'fg_ari': 80.0, 'mbo_i': 60.0, **changes}])


@pytest.mark.parametrize(
    'other',
    [
        {}, {'fg_ari': 80 + 1e-9}, {'mbo_i': np.nan}, {'seed': 4, 'fg_ari': 1.0}, {'config': 'abd', 'fg_ari': 1.0},
        {'config': np.nan, 'fg_ari': 1.0}, {'threads': 2, 'fg_ari': 1.0}, {'precision': 'bf16', 'fg_ari': 1.0},
        {'device': 'B', 'fg_ari': 1.0}, {'masks': 'slots', 'fg_ari': 1.0}, {'intervention': 'none', 'fg_ari': 1.0},
        {'step': 3, 'fg_ari': 1.0}, {'by': 'size', 'fg_ari': 1.0}, {'images': 'crowded', 'by': 'all', 'fg_ari': 1.0},
    ],
)  # fmt: skip
def test_rows_of_one_run_may_stand_in_several_tables(other):
    known = one_run(threads=1, precision='fp32', device='A', masks='decoder')
    summaries.check_same_runs({'a': known, 'b': one_run(**other), 'c': pd.DataFrame({'category': [1]})})
    summaries.check_same_runs({})


@pytest.mark.parametrize(
    'other',
    [
        {'fg_ari': 80.001}, {'threads': 1, 'mbo_i': 61.0}, {'masks': 'decoder', 'mbo_i': 61.0},
        {'intervention': 'both', 'mbo_i': 61.0}, {'step': 9, 'mbo_i': 61.0}, {'commit': 'later', 'mbo_i': 61.0},
        {'by': 'all', 'images': 'own', 'mbo_i': 61.0},
    ],
)  # fmt: skip
def test_two_numbers_of_one_run_are_refused(other):
    known = one_run(threads=1, precision='fp32', device='A', commit='earlier')
    with pytest.raises(ValueError, match='a and b, abc, seed 3: '):
        summaries.check_same_runs({'a': known, 'b': one_run(**other)})
    with pytest.raises(ValueError, match='a and a, abc, seed 3: '):
        summaries.check_same_runs({'a': pd.concat([known, one_run(**other)])})


def test_the_committed_tables_have_one_number_a_run():
    found = {path.stem: pd.read_csv(path) for path in (ROOT / 'figures' / 'tables').glob('*.csv')}
    for table in found.values():
        if 'device' in table:  # older rows count cores and name no processor, which is to say nothing
            table['device'] = table.device.where(~table.device.str.match('CPU, .* cores', na=False))
    summaries.check_same_runs(found)


def test_publishing_says_which_table_is_old(tmp_path):
    run, figures = tmp_path / 'toybox', tmp_path / 'figures'
    run.mkdir()
    one_run(model='top-down', masks='decoder', dataset='toybox').to_csv(run / 'results.csv', index=False)
    publish.publish(run, figures)
    one_run(fg_ari=70.0).to_csv(figures / 'tables' / 'toybox_ablation.csv', index=False)
    with pytest.raises(ValueError, match=r'toybox and toybox_ablation, abc, seed 3: fg_ari 80\.000 and 70\.000'):
        publish.publish(run, figures)


def rows(values):
    return [dict.fromkeys(('fg_ari', 'mbo_i', 'mbo_c', 'miou'), value) for value in values]


def test_uncertainty_and_pairs_are_those_of_the_images_and_seeds():
    rng = np.random.default_rng(0)
    images = rng.uniform(0.2, 0.8, 100)
    scores = {}
    for seed in range(5):
        scores['a', seed] = rows(images + 0.01 * seed)
        scores['b', seed] = rows(images + 0.01 * seed + 0.02 + 0.001 * rng.normal(size=100))
    table = summaries.uncertainty_table(scores)
    assert table.seeds.tolist() == [5, 5]
    assert table.loc['a', 'mbo_i'] == f'{100 * (images.mean() + 0.02):.1f}'
    low, high = (float(v) for v in table.loc['a', 'mbo_i, seeds'].strip('[]').split(','))
    assert high - low == pytest.approx(2 * 2.776 * 1.5811 / 5**0.5, abs=0.11)  # Student's t with 4 degrees of freedom
    paired = summaries.paired_table(scores, 'a').set_index('metric').loc['mbo_i']
    assert paired.model == 'b - a'
    assert float(paired.difference) == pytest.approx(2, abs=0.05)
    assert float(paired['p, images']) < 0.01
    assert float(paired['p, seeds']) == pytest.approx(2 / 32, abs=0.001)  # five seeds cannot say more
    with pytest.raises(ValueError, match='no model'):
        summaries.paired_table(scores, 'c')


def test_effects_are_paired_by_seed():
    base, gains = [60.0, 62.0, 64.0], [1.0, 2.0, 3.0]
    table = pd.DataFrame(
        [{'variant': 'baseline', 'seed': s, 'fg_ari': v} for s, v in enumerate(base)]
        + [{'variant': 'better', 'seed': s, 'fg_ari': v + g} for s, (v, g) in enumerate(zip(base, gains))][::-1]
        + [{'variant': 'once', 'seed': 1, 'fg_ari': 61.0}, {'variant': 'elsewhere', 'seed': 9, 'fg_ari': 1.0}]
    )
    found = summaries.effect_table(table).set_index('variant')
    assert found.index.tolist() == ['baseline', 'better', 'once', 'elsewhere']
    better = found.loc['better']
    assert (better['mean'], better.sd, better.runs, better.pairs) == (64.0, pytest.approx(3), 3, 3)
    assert better.difference == pytest.approx(2)
    assert better.high - better.low == pytest.approx(2 * 4.303 / 3**0.5, rel=1e-3)  # t with 2 degrees of freedom, sd 1
    assert better.p == pytest.approx(2 / 8)
    assert found.loc['once', ['difference', 'pairs']].tolist() == [-1.0, 1]
    assert found.loc['once', ['sd', 'low', 'high', 'p']].isna().all()
    assert found.loc[['baseline', 'elsewhere'], ['difference', 'low', 'p']].isna().all(axis=None)
    assert found.pairs.tolist() == [0, 3, 1, 0]
    with pytest.raises(ValueError, match="no variant 'top-down'"):
        summaries.effect_table(table, 'top-down')
    with pytest.raises(ValueError, match='several rows of seed 0'):
        summaries.effect_table(pd.concat([table, table.head(1)]))


def test_images_without_objects_do_not_spoil_intervals():
    scores = {('a', 0): rows([0.5, float('nan'), 0.7]), ('b', 0): rows([0.6, float('nan'), 0.8])}
    assert summaries.uncertainty_table(scores).loc['a', 'mbo_i'] == '60.0'
    paired = summaries.paired_table(scores, 'a')
    assert paired.difference.tolist() == ['+10.00'] * 4
    assert 'p, seeds' not in paired


def test_command_line_without_results(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(['show', str(tmp_path)])
    assert 'results.csv is missing' in capsys.readouterr().err


TITLES = {'fg_ari': 'FG-ARI', 'mbo_i': 'mBO', 'miou': 'mIoU'}


def test_the_page_on_the_long_runs_quotes_its_tables():
    tables = ROOT / 'figures' / 'tables'
    runs = pd.read_csv(tables / 'slotwise_long.csv')
    runs = runs[runs.model.isin(VARIANTS)]
    seeds = runs.seed.nunique()
    effects = summaries.effect_table(runs, metrics=tuple(TITLES), by='model').set_index(['model', 'metric'])
    gains = {name: [TITLES[m] for m in TITLES if effects.low[name, m] > 0] for name in ('top-down', 'six-iterations')}
    losses = [key for key, row in effects.iterrows() if row.high < 0]
    by_metric = {m: runs.pivot(index='seed', columns='model', values=m) for m in (*TITLES, 'ari')}
    gain = {m: table['top-down'] - table['baseline'] for m, table in by_metric.items()}
    parts = pd.read_csv(tables / 'slotwise_long_interventions.csv').pivot(
        index='seed', columns='intervention', values='mbo_i'
    )
    assert set(parts.index) == set(runs.seed)
    assert parts.notna().all(axis=None)
    lost = parts.sub(parts['both'], axis=0)
    where = lost[['channel only', 'spatial of another slot']].abs().max(axis=None)
    unused = (lost[['mean channel', 'shuffled codes']].abs() < 0.5).all(axis=1)
    used = unused.index[~unused]
    rest = [title for title in TITLES.values() if title not in gains['six-iterations']]
    check_quotes('slotwise.md', {
        f'{WORDS[seeds].capitalize()} seeds of three models': (runs.groupby('model').size() == seeds).all(),
        'In no metric of objects (FG-ARI, mBO, mIoU) do the seeds tell the top-down model from the baseline': (
            not gains['top-down'] and not losses
        ),
        'in each of them the sign changes with the seed': all(len(set(np.sign(gain[m]))) == 2 for m in TITLES),
        f'with {WORDS[seeds]} seeds it cannot be smaller than {2 / 2**seeds:g}': True,
        f'gain more in {" and ".join(gains["six-iterations"])} and nothing in {" and ".join(rest)}': not losses,
        f'is ahead of the baseline in all {WORDS[seeds]} seeds': (gain['ari'] > 0).all(),
        'every seed loses less than a point': where < 1,
        f'In {WORDS[unused.sum()]} of the {WORDS[seeds]} seeds neither costs anything to speak of': True,
        f'In the other {WORDS[len(used)]} ': True,
        'points are lost': (lost.loc[used, 'mean channel'] < -1).all(),
        f'These {WORDS[len(used)]} also ': True,
        'also gain most over the baseline of their seed': (
            set(gain['mbo_i'].nlargest(len(used)).index) == set(used)
        ),
        '*spatial only* falls to the level of *none*': (lost['spatial only'] - lost['none']).abs().max() < 2,
    })  # fmt: skip


@pytest.mark.parametrize(
    'preset_name', ['toybox', 'slotwise', 'slotwise_long', 'voc_toybox', 'movi_toybox', 'clevr6_toybox']
)
def test_paired_tables_are_those_of_the_rows(preset_name):
    tables = ROOT / 'figures' / 'tables'
    rows = pd.read_csv(tables / f'{preset_name}.csv')
    rows = rows[rows.masks == 'decoder'].set_index(['model', 'seed'])
    paired = pd.read_csv(tables / f'{preset_name}_paired.csv')
    assert len(paired)
    for row in paired.itertuples():
        model, against = row.model.split(' - ')
        found = rows[row.metric][model] - rows[row.metric][against]
        shown = [float(value) for value in paired['by seed'][row.Index].split()]
        np.testing.assert_allclose(shown, found.sort_index(), atol=0.051)
        assert row.difference == pytest.approx(found.mean(), abs=0.0051)


def test_tables_of_interventions_are_those_of_the_rows():
    tables = ROOT / 'figures' / 'tables'
    rows = pd.read_csv(tables / 'slotwise_long_interventions.csv')
    summary = pd.read_csv(tables / 'slotwise_long_interventions_summary.csv')
    made = summaries.mean_and_spread(rows, 'intervention').reset_index()
    pd.testing.assert_frame_equal(made.astype(str), summary.astype(str), check_dtype=False)
    shown = pd.read_csv(tables / 'slotwise_long_interventions_by_seed.csv', index_col='seed')
    values = rows.pivot(index='seed', columns='intervention', values='mbo_i')
    np.testing.assert_allclose(shown, values.sub(values['both'], axis=0)[list(shown)], atol=0.051)


def test_the_page_on_evaluation_quotes_the_rows_on_the_patch_grid():
    table = pd.read_csv(ROOT / 'figures' / 'tables' / 'slotwise.csv').groupby('model')[['fg_ari', 'mbo_i']].mean()
    shares, pooled = (table.loc[f'truth {name}'] for name in ('as shares of patches', 'pooled to patches'))
    models = table.loc[['baseline', 'top-down']]
    others = table.fg_ari[[*models.index, 'k-means on tokens', 'truth at token means']]
    check_quotes('evaluation.md', {
        'easy decoder](slotwise.md), k-means on tokens and *truth at token means* do score above *truth pooled to': (
            (others > pooled.fg_ari).all()
        ),
        '*truth at token means* above *truth as shares of patches*, too': (
            table.fg_ari['truth at token means'] > shares.fg_ari
        ),
        'The two ways differ by more than models do': (shares - pooled > models.max() - models.min()).all(),
        'score several points lower in FG-ARI and mBO': (shares - pooled > 2).all(),
    })  # fmt: skip


def test_the_chapter_on_training_says_what_its_models_leave_behind():
    rows = pd.read_csv(ROOT / 'figures' / 'tables' / 'toybox.csv')
    rows = rows[rows.masks.isin(['decoder', '-'])]
    table = rows.groupby('model')[['fg_ari', 'mbo_i']].mean()
    models, tokens = table.loc[['baseline', 'top-down']], table.loc['k-means on tokens']
    cheap = table.loc[['k-means on colours', 'block grid']].max()
    check_quotes('03_train_coco.py', {
        "Both models beat k-means on colours and the block grid by far, and k-means on the encoder's tokens in neither "
        'FG-ARI nor mBO.': (models > cheap + 10).all(axis=None) and (models < tokens).all(axis=None),
        "four layers at the paper's scale and one here": (
            preset('coco').model.decoder_layers == 4 and preset('toybox').model.decoder_layers == 1
        ),
    })  # fmt: skip


@pytest.mark.parametrize('preset_name', ['toybox', 'slotwise', 'slotwise_long'])
def test_committed_tables_are_those_the_readers_see(preset_name):
    table = pd.read_csv(ROOT / 'figures' / 'tables' / f'{preset_name}.csv')
    summary = summaries.summary_table(table)
    shown = pd.read_csv(ROOT / 'figures' / 'tables' / f'{preset_name}_summary.csv').astype(str)
    pd.testing.assert_frame_equal(summary.astype(str), shown, check_dtype=False)
    if preset_name == 'toybox':
        assert summaries.markdown(summary) in (ROOT / 'README.md').read_text()
    assert (table.dataset == 'toybox').all()
    trained = table[table.model.isin(VARIANTS)]
    assert len(trained)
    for (model, seed), row in trained.groupby(['model', 'seed']):
        config = preset(preset_name, seed=int(seed), **VARIANTS[model])
        assert (row.config == config.key).all(), (
            f'{preset_name}: {model} was run with other settings than the preset has'
        )
    assert trained[['commit', 'config', 'torch', 'seconds']].notna().all(axis=None)
