"""Agreement of partitions with known answers, positions and colours of hand-made masks, and a trained model's codes."""

import numpy as np
import pytest

from topdown.book import codes as semantics
from topdown.book.codes import agreement, cluster, measure, slot_cells, slot_colours


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
    assert found['kmeans_category_accuracy'] > 0.6  # k-means may leave two groups together
    assert abs(found['code_position_ami']) < 0.1
    assert abs(found['code_colour_ami']) < 0.1
    nothing = measure(categories, slots, np.zeros_like(categories), cells, colours, codebook_size=300)
    assert nothing['object_slots'] == 0
    assert np.isnan(nothing['code_category_ami'])


def test_clusters_are_no_more_than_distinct_vectors():
    assert len(set(cluster(np.repeat(np.eye(3), 4, axis=0), 8))) == 3


def test_codes_of_a_trained_model(tiny, encoder, tmp_path):
    from topdown import build_model, make_eval_set, train_model

    run = train_model(tiny.with_(steps=3), tmp_path, encoder, progress=False)
    data = make_eval_set(tiny, encoder)
    found = semantics.code_meaning(run.model, data)
    assert 1 <= found['perplexity'] <= found['codes_used'] <= tiny.model.codebook_size
    assert {f'{n}_{t}_{m}' for n in ('code', 'kmeans') for t in semantics.TARGETS for m in semantics.MEASURES} < {
        *found
    }
    assert found == semantics.code_meaning(run.model, data)
    with pytest.raises(ValueError, match='codebook'):
        semantics.code_meaning(build_model(tiny.with_(top_down=False), encoder), data)
