"""Tokens with a dial: what they tell of the category, that they are the same again, and what is refused."""

import runpy
import warnings
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.collections import PathCollection

import topdown
from tests.conftest import TINY
from topdown.book import plots
from topdown.book.codes import probe
from topdown.book.plan import CONTROLS, HINTED, LEVELS, plan
from topdown.config import ModelConfig
from topdown.data import open_dataset
from topdown.data.dial import KINDS, STRENGTH, WIDTH, accuracy
from topdown.data.token_store import store_key
from topdown.evaluate.truth import make_eval_set
from topdown.model.encoder import make_encoder
from topdown.model.slot_model import SlotModel, nearest_hints
from topdown.presets import preset
from topdown.train.batches import TrainData
from topdown.train.loop import train_model


@pytest.fixture(scope='module')
def opened(toybox_root):
    """Level and split -> data set."""

    def get(evidence, split='train', **changes):
        return open_dataset(dial(toybox_root, evidence=evidence, **changes), split, progress=False)

    return get


def dial(root, **changes):
    return preset('dial_smoke', **{'data_root': str(root), 'toybox': TINY, **changes})


def tokens_of(data):
    """(images, D, N) float64."""
    return np.stack([data.read_image(i).flatten(1).double().numpy() for i in range(len(data))])


@pytest.fixture(scope='module')
def evidence(opened):
    """Level -> evidence (patches, 16), with the patches' categories and images."""
    certain = opened(1.0)
    categories = np.stack([certain.patch_categories(i).ravel() for i in range(len(certain))])
    images = np.repeat(np.arange(len(certain)), categories.shape[1])

    def get(level):
        found = tokens_of(opened(level))[:, 1 - KINDS :].transpose(0, 2, 1).reshape(-1, KINDS - 1) / STRENGTH
        return found, categories.ravel(), images

    return get


def test_patches_tell_as_much_as_the_level_says_and_means_tell_more(evidence, opened):
    vectors, before = opened(0.0).vectors, 0.0
    np.testing.assert_allclose(vectors @ vectors.T, KINDS * np.eye(KINDS) - 1, atol=1e-9)  # a simplex
    for level in (0.0, 0.2, 0.4, 0.6):
        found, categories, images = evidence(level)
        right = float(((found @ vectors.T).argmax(1) == categories).mean())
        expected = accuracy(level)
        assert right == pytest.approx(expected, abs=4 * (expected * (1 - expected) / len(found)) ** 0.5)
        assert expected > before
        before = expected
        if 0 < level < 0.6:
            groups = [(images == i) & (categories == y) for i in range(24) for y in range(17)]
            groups = [np.flatnonzero(group)[:9] for group in groups if group.sum() >= 9]
            means = np.stack([found[group].mean(0) for group in groups])
            together = ((means @ vectors.T).argmax(1) == [categories[group[0]] for group in groups]).mean()
            of_nine = accuracy(level, 9)
            assert together == pytest.approx(of_nine, abs=4 * (of_nine * (1 - of_nine) / len(groups)) ** 0.5 + 1e-3)
            assert together > right + 0.2
    found, categories, _ = evidence(1.0)
    np.testing.assert_allclose(found, vectors[categories], atol=1e-5)
    assert accuracy(0.0) == pytest.approx(1 / 17)
    assert accuracy(1.0) == 1


def test_noise_alone_tells_a_probe_nothing(evidence):
    found, categories, images = evidence(0.0)
    most = np.bincount(categories).max() / len(categories)
    assert probe(found, categories, images).mean() <= most + 0.01
    found, categories, images = evidence(0.6)
    assert probe(found, categories, images).mean() > most + 0.1
    assert found.std() == pytest.approx(1, abs=0.01)


def test_appearance_is_the_shipped_encoders(opened, toybox_root):
    usual = preset('slotwise', data_root=str(toybox_root), toybox=TINY)
    tokens = make_encoder(usual.with_(precision='fp32'))(torch.stack([opened(0.6).shown(i) for i in range(3)]))
    for i in range(3):
        ours = opened(0.6).read_image(i)[: 1 - KINDS].flatten(1).T
        torch.testing.assert_close(ours, tokens[i], atol=1e-4, rtol=0)


def test_labels_and_patches_are_those_of_toybox(opened, toybox_root):
    config = dial(toybox_root, evidence=0.4)
    usual = preset('smoke', data_root=str(toybox_root), toybox=TINY)
    tokens, images = (open_dataset(c, 'val', progress=False) for c in (config, usual))
    for i in range(len(images)):
        ours, theirs = tokens.annotation(i), images.annotation(i)
        assert np.array_equal(ours.masks, theirs.masks)
        assert np.array_equal(ours.categories, theirs.categories)
        owner, size = np.zeros((96, 96), int), images.annotation(i).cut(96)
        for number, mask in enumerate(size.masks, 1):
            owner[mask] = number
        for row, column in np.ndindex(12, 12):
            part = owner[8 * row : 8 * row + 8, 8 * column : 8 * column + 8]
            most = np.bincount(part.ravel()).argmax()
            expected = 0 if most == 0 else theirs.categories[most - 1]
            assert tokens.patch_categories(i)[row, column] == expected
        assert torch.equal(tokens.shown(i), images.view(i))
    truth = make_eval_set(config, make_encoder(config), progress=False)
    other = make_eval_set(usual, make_encoder(usual), progress=False)
    assert np.array_equal(truth.instances[:], other.instances[:])
    assert np.array_equal(truth.classes[:], other.classes[:])
    assert truth.tokens.shape == (8, 144, WIDTH)
    assert torch.equal(truth.tokens[3], tokens.read_image(3).flatten(1).T)


def test_tokens_are_the_same_again_and_levels_share_their_noise(opened):
    one, again = opened(0.2), opened(0.2)
    assert torch.equal(again.view(5), one.view(5))
    assert torch.equal(one.view(5), again.view(5))  # whatever was read before
    assert not torch.equal(one.view(4), one.view(5))
    half = 0.5 * opened(1.0).read_image(2) + 0.75**0.5 * opened(0.0).read_image(2)
    assert torch.allclose(opened(0.5).read_image(2)[1 - KINDS :], half[1 - KINDS :], atol=1e-4)
    train, val = opened(0.0), opened(0.0, 'val')
    assert train.ids[0] == val.ids[0]
    assert not torch.allclose(train.read_image(0), val.read_image(0))


def test_stored_tokens_of_levels_are_kept_apart(opened, toybox_root, tmp_path):
    assert len({store_key(opened(level), 'tokens') for level in LEVELS}) == len(LEVELS)
    for level in (0.0, 0.6):
        config = dial(toybox_root, evidence=level, token_dir=str(tmp_path))
        (stored,) = TrainData(open_dataset(config, 'train', False), make_encoder(config), config).views
        assert torch.equal(stored[7], opened(level).read_image(7).flatten(1).T.bfloat16())


def test_what_makes_no_sense_is_refused(opened, toybox_root):
    for wrong in (-0.1, 1.5, float('nan')):
        with pytest.raises(ValueError, match='evidence must'):
            preset('dial', evidence=wrong)
    with pytest.raises(ValueError, match=r"evidence=0.5 needs dataset='toybox_dial'"):
        preset('toybox', evidence=0.5)
    with pytest.raises(ValueError, match='set image_size=12 and feature_size=144'):
        opened(0.2, feature_size=32)
    with pytest.raises(ValueError, match='set flip=False and random_crop=False'):
        opened(0.2).view(0, flip=True)
    with pytest.raises(ValueError, match="encoder='tokens' belong together"):
        make_encoder(preset('toybox', dataset='toybox_dial'))
    with pytest.raises(ValueError, match='shuffle_codes=True needs top_down=True'):
        ModelConfig(top_down=False, shuffle_codes=True)
    with pytest.raises(ValueError, match='it has dial'):
        plan('dial', ['ablation'])


def test_shuffled_codes_are_those_of_other_slots():
    torch.manual_seed(0)
    sizes = {'num_slots': 4, 'slot_size': 8, 'codebook_size': 16, 'decoder_layers': 1, 'decoder_heads': 2}
    model = SlotModel(ModelConfig(**sizes), 6, 9)
    shuffled = SlotModel(ModelConfig(**sizes, shuffle_codes=True), 6, 9)
    tokens, noise = torch.randn(3, 9, 6), torch.randn(3, 4, 8)
    model(tokens, noise)  # the codebook starts
    shuffled.load_state_dict(model.state_dict())
    ours, others = model.eval()(tokens, noise), shuffled.eval()(tokens, noise)
    assert torch.equal(ours.code_index, others.code_index)
    assert torch.equal(others.scales.channel[:, 1:], ours.scales.channel[:, :-1])
    assert torch.equal(others.scales.channel[:, 0], ours.scales.channel[:, -1])
    assert torch.equal(others.scales.spatial, ours.scales.spatial)
    assert not torch.allclose(others.slots, ours.slots)


def test_the_plan_has_every_control_at_every_level():
    jobs = plan('dial', ['dial'])
    assert {(job.variant, job.config('dial').data.evidence, job.seed) for job in jobs} == {
        (variant, level, seed) for variant in CONTROLS for level in LEVELS for seed in range(3)
    }
    assert len(jobs) == len({job.config('dial').key + str(job.seed) for job in jobs}) == 75
    assert {job.seed for job in plan('dial_smoke')} == {0}
    assert {job.setting for job in jobs} == {f'evidence {level:g}' for level in LEVELS}
    hinted = plan('dial', ['hints'])
    assert {(job.variant, job.seed) for job in hinted} == {(variant, seed) for variant in HINTED for seed in range(5)}
    assert {(job.config('dial').data.evidence, job.config('dial').model.hint_channels) for job in hinted} == {(1.0, 16)}


def test_hints_name_the_codes_and_are_seen_by_nothing_else():
    torch.manual_seed(0)
    sizes = {'num_slots': 4, 'slot_size': 8, 'decoder_layers': 1, 'decoder_heads': 2, 'hint_channels': 3}
    model = SlotModel(ModelConfig(**sizes, quantize=False, hinted_codes=True), 9, 9).eval()
    noise = torch.randn(2, 4, 8)
    kinds = torch.nn.functional.normalize(torch.randn(5, 3), dim=1)
    which = torch.randint(5, (2, 9))
    tokens = torch.cat([torch.randn(2, 9, 6), kinds[which]], dim=-1)
    out = model(tokens, noise)
    codes = nearest_hints(tokens[..., 6:], out.first_attention, 8)
    for b in range(2):
        for k in range(4):
            mean = sum(out.first_attention[b, k, n] * kinds[which[b, n]] for n in range(9))
            there = which[b].unique()
            assert torch.equal(codes[b, k, :3], kinds[there[(kinds[there] @ mean).argmax()]])
    assert not codes[..., 3:].any()
    assert torch.equal(out.scales.channel, model.modulation.channel(codes))
    tokens[..., 6:] = kinds[torch.randint(5, (2, 9))]
    other = model(tokens, noise)
    assert torch.equal(other.first_slots, out.first_slots)  # of hints, nothing reaches the first pass
    assert out.reconstruction.shape == (2, 9, 6)
    assert not torch.equal(other.slots, out.slots)
    with pytest.raises(ValueError, match='leaves nothing of tokens of width 3'):
        SlotModel(ModelConfig(**sizes), 3, 9)
    for wrong in ({'hinted_codes': True, 'quantize': False}, {'hint_channels': 9, 'slot_size': 8}):
        with pytest.raises(ValueError, match='hint_channels must lie'):
            ModelConfig(**wrong)


def test_a_model_trains_on_them(toybox_root, tmp_path):
    config = dial(toybox_root, evidence=1.0, batch_size=8, steps=8, eval_images=0)
    run = train_model(config, tmp_path, progress=False)
    assert run.log.loss.iloc[-1] < run.log.loss.iloc[0]
    assert run.evaluations.fg_ari.between(0, 100).all()


# --------------------------------------------------------------------------------------------------------- the chapter

CHAPTER = Path(__file__).parent.parent / 'book' / '13_the_dial.py'
SCORES = ['fg_ari', 'mbo_i', 'slots_fg_ari', 'slots_mbo_i']


def made_up(gains, seeds=3):
    """Rows as tables hold them: top-down gains so much at a level over the others, which are alike but for noise."""
    rows = []
    for job in plan('dial', ['dial']):
        level = job.changes['evidence']
        if job.seed < seeds:
            gain = gains.get(level, 0.0) if job.variant == 'top-down' else 0.0
            row = {'experiment': 'dial', 'variant': job.variant, 'setting': job.setting, 'seed': job.seed}
            noise = 0.1 * (job.seed - 1) * CONTROLS.index(job.variant)  # adds up to nothing
            row |= {name: 50 + gain + noise for name in SCORES}
            coded = job.variant in ('top-down', 'shuffled codes')
            row |= {'code_category_ami': level / 2 if coded else np.nan, 'perplexity': 30.0 if coded else np.nan}
            rows.append({**row, 'evidence': level})
    return pd.DataFrame(rows)


@pytest.fixture
def read_chapter(tmp_path, monkeypatch, capsys):
    """What the chapter prints, and its names, with this table."""

    def read(table):
        (tmp_path / 'tables').mkdir(exist_ok=True)
        if table is not None:
            table.to_csv(tmp_path / 'tables' / 'dial.csv', index=False)
        monkeypatch.setattr(topdown, 'figures_dir', lambda: tmp_path)
        mpl.use('Agg')
        with mpl.rc_context(), warnings.catch_warnings():
            warnings.simplefilter('error', RuntimeWarning)
            names = runpy.run_path(str(CHAPTER))
        plt.close('all')
        return capsys.readouterr().out, names

    return read


def test_the_chapter_says_where_the_pathway_helps_and_where_it_harms(read_chapter):
    said, names = read_chapter(made_up({0.0: -5.0, 0.6: 5.0}))
    assert 'helps where one patch is right in: 88 %\n' in said
    assert 'harms where one patch is right in: 6 %\n' in said
    assert 'neither where one patch is right in: 21 %, 52 %, 100 %\n' in said
    assert names['words'].loc['88 %', 'shuffled codes'] == 'above'
    assert 'There are settings in which top-down information helps' in said
    assert 'at evidence 0, 0.50 at 1' in said
    assert names['shown'].loc[(0.6, 'six-iterations'), ('decoder', 'FG-ARI')].startswith('+5')
    said, _ = read_chapter(made_up({}))
    assert 'In no setting that was run do the rows show that' in said


def test_the_pathway_does_not_help_where_six_iterations_or_other_slots_codes_do_as_well(read_chapter):
    for rival in ('six-iterations', 'shuffled codes'):
        table = made_up({0.6: 5.0})
        alike = (table.variant == rival) & (table.evidence == 0.6)
        table.loc[alike, SCORES] += 5.0
        said, _ = read_chapter(table)
        assert 'helps where' not in said
        assert 'In no setting that was run do the rows show that' in said


def test_the_rule_wants_both_metrics_of_the_decoders_masks(read_chapter):
    table = made_up({})
    mine = (table.variant == 'top-down') & (table.evidence == 0.4)
    table.loc[mine, ['fg_ari', 'slots_fg_ari', 'slots_mbo_i']] += 5.0
    said, names = read_chapter(table)
    assert names['words'].loc['52 %'].tolist() == ['above in part'] * 4
    assert 'helps where one patch is right in: 52 %\n' in said
    table.loc[mine, 'mbo_i'] -= 5.0
    assert (read_chapter(table)[1]['words'].loc['52 %'] == 'undecided').all()
    table.loc[mine, 'fg_ari'] -= 5.0
    assert (read_chapter(table)[1]['words'].loc['52 %'] == 'below in part').all()


def test_what_six_iterations_lose_as_well_is_not_the_pathways_harm(read_chapter):
    table = made_up({0.0: -5.0})
    table.loc[(table.variant == 'six-iterations') & (table.evidence == 0), SCORES] -= 5.0
    said, _ = read_chapter(table)
    assert 'harms where' not in said


def test_the_chapter_works_on_what_there_is(read_chapter):
    said, names = read_chapter(None)
    assert (names['words'] == 'not run').all(axis=None)
    assert said.count('not run\n') == 3
    assert 'not run where one patch is right in: 6 %, 21 %, 52 %, 88 %, 100 %' in said
    assert names['means'].runs.tolist() == ['not run']
    whole = made_up({0.6: 5.0})
    said, _ = read_chapter(whole[(whole.seed == 0) & whole.variant.isin(['baseline', 'top-down'])])
    assert 'not run where one patch is right in: 6 %, 21 %, 52 %, 88 %, 100 %' in said
    said, _ = read_chapter(whole[(whole.evidence < 0.3) & (whole.variant != 'without quantization')])
    assert 'not run where one patch is right in: 52 %, 88 %, 100 %' in said
    said, names = read_chapter(whole[whole.seed == 0].drop(columns=['slots_fg_ari', 'code_category_ami', 'perplexity']))
    assert 'neither where one patch is right in: 6 %, 21 %, 52 %, 88 %, 100 %' in said
    assert (names['words'] == 'too few seeds to say').all(axis=None)


def test_intervals_along_a_number_are_filled_where_they_exclude_zero():
    frame = pd.DataFrame({'x': [0.1, 0.9], 'variant': 'top-down', 'mean': [0.2, 3.0], 'low': [-1, 2], 'high': [1, 4]})
    one = frame.assign(low=np.nan, high=np.nan, variant='six-iterations')
    figure = plots.show_intervals({'a': frame, 'b': one}, 'right', {0.1: '10', 0.9: '90'})
    assert [axis.get_title() or axis.get_title(loc='left') for axis in figure.axes] == ['a', 'b', '']
    for axis, expected in zip(figure.axes, ([True, False], [True, True]), strict=False):
        (drawn,) = [c for c in axis.collections if isinstance(c, PathCollection) and len(c.get_offsets())]
        assert [mpl.colors.to_hex(fill) == '#ffffff' for fill in drawn.get_facecolors()] == expected
        assert [label.get_text() for label in axis.get_xticklabels()] == ['10', '90']
    plt.close(figure)
