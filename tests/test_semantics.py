"""Agreement of partitions with known answers, positions and colours of hand-made masks, and a trained model's codes."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.pages import WORDS, check_quotes
from topdown import VARIANTS, preset
from topdown.book import codes as semantics
from topdown.book import tables
from topdown.book.codes import accuracy, agreement, cluster, measure, one_hot, probe, slot_cells, slot_colours

TABLES = Path(__file__).parent.parent / 'figures' / 'tables'


def test_identical_partitions_agree_whatever_their_names():
    truth = np.repeat([3, 7, 9], 10)
    renamed = np.repeat([2, 0, 1], 10)
    assert agreement(truth, renamed) == pytest.approx({'purity': 1, 'nmi': 1, 'ami': 1, 'accuracy': 1})


def test_independent_labels_share_nothing_once_chance_is_taken_off():
    rng = np.random.default_rng(0)
    found = agreement(rng.integers(0, 16, 2000), rng.integers(0, 64, 2000))
    assert abs(found['ami']) < 0.02
    assert found['nmi'] > 0.05  # what adjusting for chance takes away
    exact = agreement(np.repeat([0, 1], 8), np.tile([0, 1], 8))
    assert exact == pytest.approx({'purity': 0.5, 'nmi': 0, 'ami': 0, 'accuracy': 0.5}, abs=0.1)


def test_measures_by_hand():
    truth = np.array([0, 0, 0, 0, 1, 1])
    found = agreement(truth, np.array([0, 0, 1, 1, 2, 2]))  # group 0 is cut in two
    assert found['purity'] == 1
    assert found['accuracy'] == pytest.approx(4 / 6)
    entropy = {2: np.log(3), 1: -(2 / 3 * np.log(2 / 3) + 1 / 3 * np.log(1 / 3))}
    assert found['nmi'] == pytest.approx(entropy[1] / ((entropy[1] + entropy[2]) / 2))
    merged = agreement(truth, np.zeros(6, int))
    assert merged['purity'] == merged['accuracy'] == pytest.approx(4 / 6)
    assert merged['nmi'] == pytest.approx(0)


def test_too_few_items_and_unequal_lengths():
    assert all(np.isnan(v) for v in agreement(np.array([1]), np.array([1])).values())
    with pytest.raises(ValueError, match='one length'):
        agreement(np.zeros(3), np.zeros(4))


def test_cells_are_those_of_the_centre_of_mass():
    labels = np.zeros((1, 9, 9), np.uint8)
    labels[0, :3, 6:] = 1  # top right
    labels[0, 6:, 3:6] = 2  # bottom centre
    assert slot_cells(labels, 4).tolist() == [[4, 2, 7, -1]]
    assert slot_cells(np.eye(2, dtype=np.uint8)[None], 2, cells=1).tolist() == [[0, 0]]


def test_colours_are_means_over_the_mask():
    image = np.zeros((1, 3, 2, 2))
    image[0, 0] = [[0.2, 0.4], [1.0, 1.0]]
    labels = np.zeros((1, 4, 4), np.uint8)
    labels[0, 2:] = 1
    found = slot_colours(labels, image, 3)[0]
    np.testing.assert_allclose(found[:2], [[0.3, 0, 0], [1, 0, 0]])
    assert np.isnan(found[2]).all()


def test_meaning_of_made_up_codes():
    rng = np.random.default_rng(0)
    categories = rng.integers(0, 5, (50, 4))
    cells = rng.integers(0, 9, (50, 4))
    colours = rng.random((50, 4, 3))
    slots = np.eye(5)[categories] + 0.01 * rng.standard_normal((50, 4, 5))
    found = measure(categories, slots, categories, cells, colours, codebook_size=5)
    assert found['object_slots'] == (categories > 0).sum()
    assert found['code_category_ami'] == pytest.approx(1)
    assert found['probe_slots_category'] == found['probe_code_category'] == 1
    assert found['probe_chance_category'] < 0.35
    assert found['kmeans_category_accuracy'] > 0.6  # k-means may leave two groups together
    assert abs(found['code_position_ami']) < 0.1
    assert abs(found['code_colour_ami']) < 0.1
    nothing = measure(categories, slots, np.zeros_like(categories), cells, colours, codebook_size=300)
    assert nothing['object_slots'] == 0
    assert np.isnan([nothing['code_category_ami'], nothing['probe_slots_category']]).all()


def test_clusters_are_no_more_than_distinct_vectors():
    assert len(set(cluster(np.repeat(np.eye(3), 4, axis=0), 8))) == 3


def hidden_category(images=300, each=3, categories=16, seed=0):
    """Objects whose category is there linearly, in directions of little variance beside others of much."""
    rng = np.random.default_rng(seed)
    image = np.repeat(np.arange(images), each)
    truth = rng.integers(0, categories, len(image))
    loud = 5 * rng.standard_normal((len(image), 8))
    quiet = np.eye(categories)[truth] + 0.1 * rng.standard_normal((len(image), categories))
    mixed = np.concatenate([loud, quiet], 1) @ np.linalg.qr(rng.standard_normal((8 + categories,) * 2))[0]
    return mixed, truth, image


def test_a_probe_finds_what_is_linearly_there_and_clusters_do_not():
    features, truth, image = hidden_category()
    assert probe(features, truth, image).mean() > 0.95
    assert abs(agreement(truth, cluster(features, 64))['ami']) < 0.03  # 64 clusters follow the loud directions


def test_a_probe_of_nothing_is_at_chance():
    features, truth, image = hidden_category(images=600)
    shuffled = np.random.default_rng(1).permutation(truth)
    found = accuracy(probe(features, shuffled, image), image)
    assert found.low < 1 / 16 < found.high
    assert found.high - found.low < 0.04
    most = np.where(np.random.default_rng(2).random(len(truth)) < 0.4, 3, truth)
    share = (most == 3).mean()
    assert probe(np.zeros((len(truth), 1)), most, image).mean() == pytest.approx(share)  # always the most frequent


def test_a_probe_never_sees_an_object_of_an_image_that_it_is_scored_on():
    rng = np.random.default_rng(0)
    image = np.repeat(np.arange(40), 5)
    truth = rng.integers(0, 2, 40)[image]  # all objects of an image share their label
    features = one_hot(image)  # and features that tell images apart tell labels to whoever has seen the image
    assert probe(features, truth, image).mean() < 0.75
    assert probe(features, truth, np.arange(200)).mean() > 0.9


def test_a_group_is_worth_what_its_most_frequent_label_is():
    rng = np.random.default_rng(0)
    image, codes = np.arange(3000), rng.integers(0, 4, 3000)
    truth = np.where(rng.random(3000) < 0.7, codes % 2, 1 - codes % 2)
    right = probe(one_hot(codes), truth, image)
    assert right.mean() == pytest.approx((truth == codes % 2).mean())


def test_probes_refuse_what_they_cannot_do():
    with pytest.raises(ValueError, match='two images'):
        probe(np.zeros((3, 1)), np.arange(3), np.zeros(3))
    with pytest.raises(ValueError, match='one row per object'):
        probe(np.zeros((3, 1)), np.arange(2), np.zeros(3))
    assert probe(np.zeros((2, 1)), np.array([1, 1]), np.array([0, 1])).tolist() == [True, True]  # one label, no fit
    assert probe(np.zeros((2, 1)), np.array([1, 2]), np.array([0, 1])).tolist() == [False, False]


def test_intervals_of_accuracy_are_over_images():
    image = np.repeat(np.arange(20), 50)
    right = (image % 2).astype(bool)  # all objects of an image are right, or none: 20 independent cases, not 1000
    found = accuracy(right, image)
    assert found.mean == 0.5
    assert 0.3 < found.high - found.low < 0.6
    assert accuracy(np.ones(4, bool), np.arange(4)) == (1, 1, 1)


@pytest.fixture
def trained(tiny, encoder, tmp_path):
    from topdown import make_eval_set, train_model

    run = train_model(tiny.with_(steps=3), tmp_path, encoder, progress=False)
    return run.model, make_eval_set(tiny, encoder, progress=False)


def test_objects_are_followed_from_mask_to_slot(trained, monkeypatch):
    model, data = trained
    truth = np.maximum(data.instances[:], 0)
    monkeypatch.setattr(semantics, 'COVERED', 0.2)  # a model of three steps covers little
    found = semantics.covered_objects(model, data)
    labels = semantics.predict(model, data, 'first').numpy()
    first = semantics.torch.cat([out.first_slots for _, out in semantics.run_model(model, data)])
    counts = 0
    for image in range(len(data)):
        for thing in range(1, truth[image].max() + 1):
            mask = truth[image] == thing
            ious = [(mask & (labels[image] == k)).sum() / (mask | (labels[image] == k)).sum() for k in range(7)]
            if max(ious) < 0.2:
                continue
            assert found.images[counts] == image
            np.testing.assert_allclose(found.features['first-pass slots'][counts], first[image, np.argmax(ious)])
            rows, columns = np.nonzero(mask)
            expected = [rows.mean(), columns.mean(), mask.sum()]
            np.testing.assert_allclose(found.features['position and size'][counts], expected)
            assert found.targets['category'][counts] == data.classes[image][mask][0]
            side = mask.shape[0] // data.grid[0]
            share = mask.reshape(data.grid[0], side, data.grid[1], side).mean((1, 3)).ravel()
            tokens = share @ data.tokens[image].numpy() / share.sum()
            np.testing.assert_allclose(found.features['mean tokens'][counts], tokens, rtol=1e-3, atol=1e-4)
            counts += 1
    assert counts == len(found.images) > 5


def test_table_of_probes(trained, monkeypatch):
    model, data = trained
    monkeypatch.setattr(semantics, 'COVERED', 0.2)
    rows = semantics.probe_table(model, data)
    assert len(rows) == 30  # eight sets of features and two references, three targets
    pd.testing.assert_frame_equal(pd.DataFrame(rows), pd.DataFrame(semantics.probe_table(model, data)))
    assert {row['target'] for row in rows} == set(semantics.TARGETS)
    for row in rows:
        assert 0 <= row['low'] <= row['accuracy'] <= row['high'] <= 1
        groups = row['features'] in ('codes', 'k-means on slots', 'k-means on mean tokens')
        assert np.isnan(row['ami']) != groups
    model.codebook = None
    with pytest.raises(ValueError, match='codebook'):
        semantics.probe_table(model, data)


def test_codes_of_a_trained_model(tiny, encoder, tmp_path):
    from topdown import build_model, make_eval_set, train_model

    run = train_model(tiny.with_(steps=3), tmp_path, encoder, progress=False)
    data = make_eval_set(tiny, encoder)
    found = semantics.code_meaning(run.model, data)
    assert 1 <= found['perplexity'] <= found['codes_used'] <= tiny.model.codebook_size
    assert {f'{n}_{t}_{m}' for n in ('code', 'kmeans') for t in semantics.TARGETS for m in semantics.MEASURES} < {
        *found
    }
    assert pd.Series(found).equals(pd.Series(semantics.code_meaning(run.model, data)))
    with pytest.raises(ValueError, match='codebook'):
        semantics.code_meaning(build_model(tiny.with_(top_down=False), encoder), data)


def test_the_pages_on_probes_quote_their_table():
    rows = pd.read_csv(TABLES / 'slotwise_probe.csv')
    shown = pd.read_csv(TABLES / 'slotwise_probe_summary.csv')
    made = tables.probe_summary(rows)
    pd.testing.assert_frame_equal(made.astype(str), shown.astype(str), obj='slotwise_probe_summary.csv')
    assert (rows.config == preset('slotwise', **VARIANTS['top-down']).key).all()
    assert rows.seed.nunique() == 5
    right, ami = {}, {}
    for split in ('val', 'train'):
        part = rows[rows.split == split]
        right[split] = part[part.target == 'category'].pivot(index='seed', columns='features', values='accuracy')
        ami[split] = part.groupby(['features', 'target']).ami.mean()
    seen, codes = right['val'], ami['val']['codes']
    above_place = seen['first-pass slots'] > seen['position and size']
    loss = seen['mean tokens'] > 1.5 * seen['second-pass slots']
    alike = abs(seen['codes'].mean() - seen['k-means on slots'].mean()) < 0.01
    blind = max(ami[split]['k-means on mean tokens', 'category'] for split in ami)
    check_quotes('slotwise.md', {
        f'for {WORDS[rows.seed.nunique()]} top-down models': True,
        'gives it away for most toys': (seen['mean tokens'] > 0.5).all(),
        'Slots of the first pass keep some of it, more than position and size would tell': above_place.all(),
        'and slots of the second pass more.': (seen['second-pass slots'] > seen['first-pass slots']).all(),
        'The code, an index, keeps next to nothing.': seen['codes'].mean() - seen['most frequent'].mean() < 0.02,
        'much is lost between tokens and slots': loss.all(),
        'k-means on the same slots does not': alike,
        'has an AMI with it of less than a tenth': blind < 0.1,
        'goes by what varies most among slots, which is place': codes.idxmax() == 'position',
    })  # fmt: skip


def test_the_chapter_on_codes_quotes_its_table():
    rows = pd.read_csv(TABLES / 'toybox_probe.csv')
    made, shown = tables.probe_summary(rows), pd.read_csv(TABLES / 'toybox_probe_summary.csv')
    pd.testing.assert_frame_equal(made.astype(str), shown.astype(str), obj='toybox_probe_summary.csv')
    assert (rows.config == preset('toybox', **VARIANTS['top-down']).key).all()
    right = {
        split: part[part.target == 'category'].pivot(index='seed', columns='features', values='accuracy')
        for split, part in rows.groupby('split')
    }
    seen = right['val']
    above_place = seen['first-pass slots'] > seen['position and size']
    few = all((table['codes'] <= table['position and size']).all() for table in right.values())
    check_quotes('10_what_codes_mean.py', {
        'a probe on the index is no better than position and size': few,
        'do hold some of it, those of the second pass more': above_place.all(),
        'there are more of them, and a probe finds more, the more objects it is fitted on': (
            right['train'].mean() > right['val'].mean()
        )[['mean tokens', 'first-pass slots', 'second-pass slots']].all(),
    })  # fmt: skip
