"""What the number of codes follows: frequencies of categories, the plan, and the chapter on made-up rows."""

import runpy
import shutil
import warnings
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

import topdown
from tests.pages import check_quotes
from tests.tried import PLATEAU
from topdown.book.plan import KINDS, KINDS_SIZES, plan
from topdown.book.tables import effects, read_runs, with_codebook_size
from topdown.presets import preset
from topdown.toybox.scenes import ToyboxConfig, scene_at

BOOK = Path(__file__).parent.parent
OLDER = ('slotwise_codebook_then', 'slotwise_difficulty')


def test_categories_follow_zipfs_law_if_asked():
    look = ToyboxConfig(size=32, categories=4, zipf=1.0, num_train=1, num_val=1, clutter=0, background_contrast=0)
    kinds = np.concatenate([scene_at(look, 'train', i).categories for i in range(400)])
    shares = np.bincount(kinds, minlength=5)[1:] / len(kinds)
    expected = np.array([1, 1 / 2, 1 / 3, 1 / 4]) / (25 / 12)
    assert np.abs(shares - expected).max() < 4 * (0.25 / len(kinds)) ** 0.5
    assert ToyboxConfig(zipf=1.0).key != ToyboxConfig().key == ToyboxConfig(zipf=0.0).key
    with pytest.raises(ValueError, match='zipf'):
        ToyboxConfig(zipf=-1.0)


def test_the_plan_crosses_size_and_revival_and_shares_runs_with_other_experiments():
    jobs = plan('slotwise', ['kinds'])
    assert len(jobs) == len(KINDS) * len(KINDS_SIZES) * 3
    usual = preset('slotwise').model
    for job in jobs:
        model = job.config('slotwise').model
        share = model.dead_code_threshold * model.codebook_size / (usual.dead_code_threshold * usual.codebook_size)
        wanted = 0 if 'no revival' in job.setting else 3 if 'more revival' in job.setting else 1
        assert share == pytest.approx(wanted, abs=1e-3)
    keys = {job.config('slotwise').key for job in plan('slotwise', ['codebook'])}
    shared = {job.config('slotwise').key for job in jobs if job.setting.startswith('16 categories, E')}
    assert shared <= keys


def made_up(perplexity, score=lambda case, size: 60.0):
    """Rows as the table has them."""
    rows = []
    for job in plan('slotwise', ['kinds']):
        case, size = job.setting.rsplit(', E = ', 1)
        row = {'variant': 'top-down', 'setting': job.setting, 'seed': job.seed, 'codebook_size': int(size)}
        noise = 0.01 * (job.seed - 1)
        row |= {'perplexity': perplexity(case, int(size)) * (1 + noise), 'mbo_i': score(case, int(size)) + noise}
        rows.append({**row, 'revived': 0.01, 'experiment': 'kinds'})
    return pd.DataFrame(rows)


@pytest.fixture
def read_chapter(tmp_path, monkeypatch, capsys):
    """What the chapter prints, and its names, with this table and the older ones of the project."""

    def read(table, older=True):
        shutil.rmtree(tmp_path / 'tables', ignore_errors=True)
        (tmp_path / 'tables').mkdir()
        for name in OLDER if older else ():
            shutil.copy(BOOK / 'figures' / 'tables' / f'{name}.csv', tmp_path / 'tables')
        if table is not None:
            table.to_csv(tmp_path / 'tables' / 'slotwise_kinds.csv', index=False)
        monkeypatch.setattr(topdown, 'figures_dir', lambda: tmp_path)
        mpl.use('Agg')
        with mpl.rc_context(), warnings.catch_warnings():
            warnings.simplefilter('error', RuntimeWarning)
            names = runpy.run_path(str(BOOK / 'book' / '19_how_many_codes.py'))
        plt.close('all')
        return capsys.readouterr().out, names

    return read


def test_the_chapter_tells_a_prediction_that_holds_from_one_that_does_not(read_chapter):
    _, names = read_chapter(None)
    formula, kinds = names['predicted'], names['rival']
    said, names = read_chapter(made_up(lambda case, size: formula(size)))
    assert 'slotwise: 72 of 72 runs, 3 seeds' in said
    flat = ' '.join(said.split())
    assert (
        'Perplexity by the formula: off by 0 % in the mean and by 0 % at most, of 18 fresh settings; below 15 % in 18'
        in flat
    )
    assert 'of 18 differences, 0 exclude zero' in flat
    assert 'Predicted: perplexity within 15 %: came true.' in flat
    assert 'with more of it higher, by 5 %: did not.' in flat
    said, names = read_chapter(made_up(lambda case, size: kinds(size, case.split(', no')[0].split(', more')[0])))
    flat = ' '.join(said.split())
    assert 'Perplexity by one code a kind: off by 0 % in the mean' in flat
    assert 'Perplexity by the formula: off by 0 % in the mean' not in flat


def test_the_chapter_says_what_choosing_gives_away(read_chapter):
    _, names = read_chapter(None)
    formula = names['predicted']
    best = lambda case, size: 60.0 + 2.0 * (size == 64)  # noqa: E731
    said, names = read_chapter(made_up(lambda case, size: formula(size), best))
    assert (names['lost']['best E'] == 64).all()
    assert (names['lost']["the paper's: lost"] == 2.0).all()
    assert (names['lost']['by the rule: lost'] == 0.0).all()
    assert 'and 12 of these exceed one point' in ' '.join(said.split())


def test_the_chapter_works_on_what_there_is(read_chapter):
    said, names = read_chapter(None, older=False)
    assert said.endswith('not run\n')
    whole = made_up(lambda case, size: size / 2)
    said, names = read_chapter(whole[whole.seed == 0], older=False)
    assert names['errors'].found.notna().all()
    assert names['errors'].predicted.isna().all()


def test_what_is_said_of_the_papers_decoder_is_in_its_rows():
    runs = with_codebook_size(read_runs(BOOK / 'figures' / 'tables', 'toybox_codebook'))
    named = runs.assign(variant=runs.codebook_size.astype(str))
    found = effects(named, str(runs.groupby('codebook_size').mbo_i.mean().idxmax()), ['mbo_i'])
    check_quotes('19_how_many_codes.py', {
        "with the paper's decoder some do": runs.mbo_i.min() < PLATEAU,
        'no size of the codebook is told from the best one': len(found) == runs.codebook_size.nunique() - 1
        and all(row.low < 0 < row.high for row in found.itertuples()),
    })  # fmt: skip
