"""Tables: nothing is invented, data sets do not mix, effects are paired, and claims follow from the rows."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from topdown import VARIANTS
from topdown.book import claims as judge
from topdown.book import tables
from topdown.cli import main

ROOT = Path(__file__).parent.parent
PAPER, TABLES = ROOT / 'figures' / 'paper', ROOT / 'figures' / 'tables'


def runs(**means):
    """Five seeds of every variant; variants share what the seed does, so that pairs differ by the means alone."""
    seed_effect = [0.0, 0.4, -0.3, 0.8, -0.9]
    return pd.DataFrame([
        {'variant': name.replace('_', ' '), 'seed': seed, 'fg_ari': 80 + mean + effect, 'mbo_i': 60 + mean + effect}
        for name, mean in means.items()
        for seed, effect in enumerate(seed_effect)
    ])  # fmt: skip


@pytest.fixture
def published():
    rows = [
        ('baseline', 'COCO', 'FG-ARI', '30.6'), ('baseline', 'COCO', 'mBO', tables.NOT_AVAILABLE),
        ('top-down', 'COCO', 'FG-ARI', '37.4'), ('top-down', 'COCO', 'mBO', '33.0'), ('peer', 'COCO', 'FG-ARI', '1.0'),
    ]  # fmt: skip
    frame = pd.DataFrame(rows, columns=['row', 'dataset', 'metric', 'value'])
    return frame.assign(source=['a', 'a', 'a', 'a', 'b'])


def test_published_and_ours_stand_side_by_side(published):
    nothing = tables.read_runs('nowhere', 'toybox')
    table = tables.side_by_side(published, {'COCO': nothing, 'Toybox': runs(baseline=0, other=1)}, citations={'b': 'B'})
    assert list(table.columns) == [
        ('COCO', 'FG-ARI'), ('COCO', 'mBO'), ('Toybox', 'FG-ARI'), ('Toybox', 'mBO_i'), ('', 'runs'),
    ]  # fmt: skip
    assert table.loc[('baseline', 'paper')].tolist() == ['30.6', 'not available', '–', '–', '–']
    assert table.loc[('baseline', 'this book')].tolist() == ['not run', 'not run', '80.0 ± 0.7', '60.0 ± 0.7', '5']
    assert table.loc[('top-down', 'this book')].tolist() == ['not run'] * 4 + ['0']
    assert table.loc[('peer', 'B')].tolist() == ['1.0', '–', '–', '–', '–']
    assert ('peer', 'this book') not in table.index
    assert not any(method == 'other' for method, _ in table.index)
    more = tables.side_by_side(published, {'Toybox': runs(other=1)}, ours=['other'])
    assert more.loc[('other', 'this book'), ('Toybox', 'FG-ARI')] == '81.0 ± 0.7'


def test_the_papers_own_figures_are_those_that_are_known():
    found = tables.read_published(PAPER)
    assert list(found.columns) == ['table', 'row', 'dataset', 'metric', 'value', 'source', 'note']
    own = found[(found.source == 'kim2024topdown') & (found.value != tables.NOT_AVAILABLE)]
    known = {
        ('baseline', 'COCO', 'FG-ARI'): '30.6', ('top-down', 'COCO', 'FG-ARI'): '37.4',
        ('top-down', 'COCO', 'mBO'): '33.0',
        ('top-down', 'VOC', 'FG-ARI'): '26.7', ('top-down', 'VOC', 'mBO'): '43.9',
        ('top-down', 'MOVi-C', 'FG-ARI'): '58.9', ('top-down', 'MOVi-E', 'FG-ARI'): '59.7',
    }  # fmt: skip
    assert {(r.row, r.dataset, r.metric): r.value for r in own.itertuples()} == known
    bibliography = (ROOT / 'book' / 'references.bib').read_text()
    for source in {*found.source, *tables.read(PAPER / 'claims.csv').source}:
        assert f'{{{source},' in bibliography
    ours = set(found[found.source == 'kim2024topdown'].row)
    assert {name for name in ours if not name.startswith('E = ')} <= set(VARIANTS)


def test_runs_are_read_from_either_kind_of_table(tmp_path):
    pd.DataFrame({
        'model': ['block grid', 'baseline', 'baseline'], 'masks': ['-', 'decoder', 'slots'], 'seed': 0,
        'fg_ari': [1.0, 2.0, 3.0],
    }).to_csv(tmp_path / 'toybox.csv', index=False)  # fmt: skip
    found = tables.read_runs(tmp_path, 'toybox')
    assert found[['variant', 'fg_ari']].to_numpy().tolist() == [['baseline', 2.0]]
    pd.DataFrame({'experiment': ['ablation'], 'variant': ['new'], 'seed': [0]}).to_csv(tmp_path / 'x.csv', index=False)
    assert tables.read_runs(tmp_path, 'x').variant.tolist() == ['new']
    (tmp_path / 'empty.csv').write_text('')
    for name in ('empty', 'missing'):
        assert len(tables.read_runs(tmp_path, name)) == 0
        assert {'variant', 'seed'} <= set(tables.read_runs(tmp_path, name))
    assert set(judge.read_all(tmp_path)) == {'toybox', 'x'}


def test_effects_are_paired_by_seed():
    table = pd.concat([runs(baseline=0, better=1), runs(once=5).head(1)])
    found = tables.effects(table).set_index(['variant', 'metric'])
    better = found.loc[('better', 'fg_ari')]
    assert better.difference == pytest.approx(1)
    assert (better.low, better.high) == (pytest.approx(1), pytest.approx(1))  # what the seeds share cancels
    assert better.seeds == 5
    once = found.loc[('once', 'mbo_i')]
    assert once.difference == pytest.approx(5)
    assert np.isnan(once.low)
    assert tables.effect_text(once.difference, once.low, once.high) == '+5.0'
    assert tables.show_effects(found.reset_index()).loc['better', 'FG-ARI'] == '+1.0 [+1.0, +1.0]'
    assert len(tables.effects(table, 'nobody')) == 0
    assert tables.say_effects(tables.effects(table, 'nobody'), 'nobody') == tables.NOT_RUN
    said = tables.say_effects(found.reset_index(), 'the baseline')
    assert said.splitlines()[0] == 'FG-ARI: above the baseline: better; not told apart from the baseline: once.'


def test_an_effect_has_a_sign_only_if_its_interval_excludes_zero():
    assert [tables.sign(*pair) for pair in ((0.1, 2), (-2, -0.1), (-1, 1), (float('nan'), float('nan')))] == [
        1,
        -1,
        0,
        0,
    ]


def test_means():
    assert tables.means_table(runs(a=0)).loc['a'].tolist() == ['80.0 ± 0.7', '60.0 ± 0.7', 5]
    assert tables.means_table(runs().head(0)).to_numpy().tolist() == [[tables.NOT_RUN]]
    assert tables.spread([]) == tables.NOT_RUN
    assert tables.spread([1.0, float('nan')]) == '1.0'


def test_codebook_sizes_are_found_wherever_they_are_written():
    frame = pd.DataFrame({
        'variant': ['E = 8', 'codebook 16', 'whatever', 'baseline', 'x'], 'seed': 0,
        'changes': [None, None, '{"codebook_size": 32}', '{}', "{'codebook_size': 64, 'dead_code_threshold': 0.1}"],
    })  # fmt: skip
    assert tables.with_codebook_size(frame).codebook_size.tolist() == [8, 16, 32, 64]
    assert tables.with_codebook_size(frame.assign(codebook_size=[5, 4, 3, 2, 1])).codebook_size.tolist() == [
        1,
        2,
        3,
        4,
        5,
    ]
    assert len(tables.with_codebook_size(tables.read_runs('nowhere', 'x'))) == 0


@pytest.mark.parametrize(
    ('fg_ari', 'mbo_i', 'verdict'),
    [
        (1, 1, judge.REPRODUCED), (1, 0, judge.PARTLY), (0, 0, judge.NOT_REPRODUCED), (1, -1, judge.NOT_REPRODUCED),
    ],
)  # fmt: skip
def test_a_claim_needs_every_metric(fg_ari, mbo_i, verdict):
    table = runs(baseline=0, **{'top-down': 0})
    noise = np.tile([0.01, -0.01, 0.02, -0.02, 0.0], 2)
    table['fg_ari'] += noise * np.array([1] * 5 + [-1] * 5) + np.array([0] * 5 + [fg_ari] * 5)
    table['mbo_i'] += noise * np.array([1] * 5 + [-1] * 5) + np.array([0] * 5 + [mbo_i] * 5)
    found, evidence = judge.claim_verdict(tables.effects(table))
    assert found == verdict
    assert '5 seeds' in evidence
    assert judge.claim_verdict(tables.effects(table).head(0)) == (tables.NOT_RUN, tables.NOTHING)
    one = tables.effects(table[table.seed == 0])
    assert judge.claim_verdict(one)[0] == judge.TOO_FEW


def test_a_size_between_the_extremes_must_stand_out():
    claims = pd.DataFrame({'key': ['codebook'], 'claim': ['c'], 'page': ['09_codebook_size.ipynb']})

    def verdict(**means):
        frame = runs(**means)
        frame['variant'] = 'E = ' + frame.variant.str[1:]
        frame['mbo_i'] += np.random.default_rng(0).normal(0, 0.01, len(frame))
        return judge.verdicts(claims, {'toybox_codebook': frame}).iloc[0]

    assert verdict(e8=0, e16=1, e32=0)['on Toybox'] == judge.REPRODUCED
    assert verdict(e8=0, e16=1, e32=2)['on Toybox'] == judge.NOT_REPRODUCED
    assert verdict(e8=0, e16=0, e32=0)['on Toybox'] == judge.NOT_REPRODUCED
    assert verdict(e8=0, e16=0)['on Toybox'] == tables.NOT_RUN
    assert verdict(e8=0, e16=0)["on the paper's data"] == judge.NEEDS_GPU
    assert verdict(e8=0, e16=1, e32=0).page == '[codebook size](09_codebook_size.ipynb)'


def test_a_rule_must_choose_well_where_there_is_something_to_choose():
    claims = pd.DataFrame({'key': ['rule'], 'claim': ['c'], 'page': ['09_codebook_size.ipynb']})

    def verdict(perplexities, **means):
        frame = runs(**means)
        frame['codebook_size'] = frame.variant.str[1:].astype(int)
        frame['mbo_i'] += np.random.default_rng(0).normal(0, 0.01, len(frame))
        frame['perplexity'] = frame.variant.map(dict(zip(means, perplexities)))
        return judge.verdicts(claims, {'toybox_codebook': frame}).iloc[0]['on Toybox']

    assert verdict((8, 12, 12), e8=0, e16=1, e32=0) == judge.REPRODUCED  # chooses 16
    assert verdict((8, 16, 20), e8=0, e16=1, e32=0) == judge.NOT_REPRODUCED  # chooses 32
    assert verdict((8, 12, 12), e8=0, e16=0, e32=0) == judge.NOT_REPRODUCED  # nothing to choose


def test_effects_in_groups_take_the_baseline_from_elsewhere_if_they_have_none():
    plain = runs(baseline=0, **{'top-down': 1}).assign(setting='as it is')
    tiny = runs(**{'top-down': -2}).assign(setting='tiny codebook')
    found = tables.effects_by(pd.concat([plain, tiny]), 'setting', metrics=['mbo_i'], otherwise='as it is')
    assert found.groupby('setting').difference.mean().round(6).to_dict() == {'as it is': 1.0, 'tiny codebook': -2.0}
    assert len(tables.effects_by(plain.head(0), 'setting')) == 0
    assert len(tables.effects_by(tables.read_runs('nowhere', 'x'), 'setting')) == 0


def test_unlike_parts_are_judged_by_the_difference_of_gains():
    claims = pd.DataFrame({'key': ['unlike_parts'], 'claim': ['c'], 'page': ['12_when_it_fails.ipynb']})
    noise = np.random.default_rng(0).normal(0, 0.01, 10)

    def verdict(unlike, alike, seeds=5):
        parts = [
            runs(baseline=0, **{'top-down': gain}).assign(setting=setting)
            for setting, gain in (('as it is', unlike), ('easy parts', alike))
        ]
        parts[0]['mbo_i'] += noise
        frame = pd.concat(parts)
        return judge.verdicts(claims, {'toybox_difficulty': frame[frame.seed < seeds]}).iloc[0]['on Toybox']

    assert verdict(1, 0) == judge.REPRODUCED
    assert verdict(1, 1) == judge.NOT_REPRODUCED
    assert verdict(1, 0, seeds=1) == judge.TOO_FEW
    assert judge.verdicts(claims, {}).iloc[0]['on Toybox'] == tables.NOT_RUN


def test_meaning_of_codes_becomes_rows():
    frame = runs(**{'top-down': 0})
    frame['code_category_ami'], frame['kmeans_position_nmi'] = 0.1, [0.2] * 4 + [None]
    long = tables.meaning(frame)
    assert len(long) == 9
    first = long[long.measure == 'ami'].iloc[0]
    assert (first.partition, first.target, first.value) == ('codes', 'category', 0.1)
    assert set(long.partition) == {'codes', 'k-means on slots'}
    assert {'variant', 'seed', 'fg_ari'} <= set(long)
    empty = tables.meaning(runs().head(0))
    assert len(empty) == 0
    assert {'partition', 'target', 'measure', 'value'} <= set(empty)


def probe_rows(slots, codes, seeds=5):
    """Rows of probes of the category: position and size right in a tenth, slots and codes in so many more."""
    noise = np.array([0.0, 0.01, -0.01, 0.02, -0.02])
    return pd.DataFrame([
        {'variant': 'top-down', 'split': split, 'seed': seed, 'features': name, 'target': target, 'accuracy': value,
         'objects': 9 + seed, 'ami': 0.05 if name == 'codes' else np.nan}
        for split in ('val', 'train') for seed in range(seeds) for target in ('category', 'colour')
        for name, value in (
            ('first-pass slots', 0.1 + slots + noise[seed]), ('codes', 0.1 + codes - noise[seed]),
            ('position and size', 0.1),
        )
    ])  # fmt: skip


@pytest.mark.parametrize(
    ('slots', 'codes', 'verdict'),
    [(0.3, 0.3, judge.REPRODUCED), (0.3, 0.0, judge.PARTLY), (0.3, -0.1, judge.NOT_REPRODUCED)]
    + [(0.0, 0.0, judge.NOT_REPRODUCED), (0.0, 0.3, judge.PARTLY)],
)
def test_slots_and_codes_must_tell_more_of_the_category_than_position_and_size_do(slots, codes, verdict):
    claims = pd.DataFrame({'key': ['semantics'], 'claim': ['c'], 'page': ['10_what_codes_mean.ipynb']})
    row = judge.verdicts(claims, {'toybox_probe': probe_rows(slots, codes)}).iloc[0]
    assert row['on Toybox'] == verdict
    assert f'first-pass slots {10 + 100 * slots:.1f} %, minus position and size {100 * slots:+.1f}' in row.evidence
    one = judge.verdicts(claims, {'toybox_probe': probe_rows(slots, codes, seeds=1)}).iloc[0]
    assert one['on Toybox'] == judge.TOO_FEW
    assert judge.verdicts(claims, {}).iloc[0]['on Toybox'] == tables.NOT_RUN


def test_probes_are_shown_with_their_interval_over_seeds():
    shown = tables.probe_summary(probe_rows(0.3, 0.0))
    assert shown.columns.tolist() == [
        'images',
        'features',
        'category',
        'colour',
        'AMI with category',
        'objects',
        'runs',
    ]
    assert shown.images.tolist() == ['validation'] * 3 + ['training'] * 3
    shown = shown[shown.images == 'validation']
    first = shown.set_index('features').loc['first-pass slots']
    assert first.category == '40.0 [38.0, 42.0]'  # t with 4 degrees of freedom, sd 1.58 points over 5 seeds
    assert first[['AMI with category', 'objects', 'runs']].tolist() == [tables.NOTHING, 9, 5]
    assert shown['AMI with category'].tolist() == [tables.NOTHING, '0.05', tables.NOTHING]
    assert tables.probe_summary(probe_rows(0.3, 0.0, seeds=1)).category.tolist() == ['40.0', '10.0', '10.0'] * 2


def test_claims_on_the_papers_data_need_the_papers_data():
    claims = tables.read(PAPER / 'claims.csv')
    verdicts = judge.verdicts(claims, {}).set_index(claims.key)
    assert (verdicts["on the paper's data"] == judge.NEEDS_GPU).all()
    assert set(verdicts['on Toybox']) <= {tables.NOT_RUN, tables.NOTHING}
    table = runs(baseline=0, **{'top-down': 1})
    table['fg_ari'] += np.random.default_rng(0).normal(0, 0.1, len(table))
    table['mbo_i'] += np.random.default_rng(1).normal(0, 0.1, len(table))
    verdicts = judge.verdicts(claims, {'coco': table}).set_index(claims.key)
    assert verdicts.loc['coco', "on the paper's data"] == judge.REPRODUCED
    assert verdicts.loc['voc', "on the paper's data"] == judge.NEEDS_GPU


def test_the_committed_claims_are_those_of_the_committed_tables():
    claims = tables.read(PAPER / 'claims.csv')
    made = judge.verdicts(claims, judge.read_all(TABLES))
    shown = tables.read(TABLES / 'claims.csv')
    pd.testing.assert_frame_equal(made, shown, check_dtype=False, obj='claims.csv (run topdown tables claims)')
    for page in claims.page:
        assert (ROOT / 'book' / page).is_file(), page


def test_command_line_writes_the_claims(tmp_path, capsys):
    (tmp_path / 'paper').mkdir()
    (tmp_path / 'tables').mkdir()
    (tmp_path / 'paper' / 'claims.csv').write_text((PAPER / 'claims.csv').read_text())
    main(['tables', 'claims', '--tables', str(tmp_path / 'tables')])
    assert judge.NEEDS_GPU in capsys.readouterr().out
    assert len(tables.read(tmp_path / 'tables' / 'claims.csv')) == len(tables.read(PAPER / 'claims.csv'))
