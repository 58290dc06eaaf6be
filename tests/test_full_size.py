"""What the full size of COCO asks for, at a small one: nothing is held that is not needed, and parts add up."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

import topdown
from tests.rehearsal import CATEGORIES, make_coco, rehearse
from topdown import distributed
from topdown.data.base import Texts
from topdown.data.coco import CocoInstances
from topdown.data.records import read_lists
from topdown.evaluate import metrics, truth
from topdown.evaluate.predict import labels_from_masks, masks_of, score_model
from topdown.model.encoder import make_encoder


def test_rows_are_made_when_asked_for():
    asked = []

    def make(rows):
        asked.append(rows)
        return np.array(rows)[:, None] * np.ones(3)

    rows = truth.Rows(make, 5, 3)
    assert (len(rows), rows.shape, asked) == (5, (5, 3), [])
    assert rows[-1].tolist() == [4, 4, 4]
    assert rows[1:3][:, 0].tolist() == [1, 2]
    assert rows[[0, -2]][:, 0].tolist() == [0, 3]
    assert asked == [[4], [1, 2], [0, 3]]
    assert [row[0] for row in rows] == [0, 1, 2, 3, 4]
    with pytest.raises(IndexError):
        rows[5]


def test_truth_takes_a_byte_a_pixel_until_an_image_has_more_regions():
    few = np.arange(100).reshape(10, 10)
    many = np.arange(400).reshape(20, 20)
    assert metrics.make_truth([few], [np.zeros_like(few)]).regions.dtype == torch.uint8
    first, wide = metrics.TruthMaker(1, 20, 20), metrics.TruthMaker(2, 20, 20)
    small = many % 7
    first.add(small, small)
    wide.add(small, small)
    wide.add(many, np.minimum(many, 1))
    found = wide.truth()
    assert found.regions.dtype == torch.int32
    assert torch.equal(found.regions[0], first.truth().regions[0].int())
    assert found.instance[1].gather(0, found.regions[1].flatten().long()).view(20, 20).tolist() == many.tolist()


def test_texts_are_what_they_were():
    names = ['a.jpg', '', 'ä/ü.png', '🦊.jpg']
    found = Texts(names)
    assert list(found) == names
    assert (len(found), found[-1], found.index('ä/ü.png')) == (4, '🦊.jpg', 2)
    with pytest.raises(IndexError):
        found[4]
    assert len(Texts([])) == 0


@pytest.mark.parametrize(
    'change', [lambda text: text, lambda text: '\ufeff' + text, lambda text: text.replace('"info": {}', '"info": NaN')]
)
def test_lists_of_a_file_are_read_without_its_annotations(tmp_path, change):
    make_coco(tmp_path, 3, 4)
    path = tmp_path / 'annotations' / 'instances_train2017.json'
    path.write_text(change(path.read_text()), encoding='utf-8')
    whole = json.loads(path.read_text(encoding='utf-8-sig'))
    assert whole['annotations']
    assert {key: value for key, value in read_lists(path, 'again').items() if key in ('images', 'categories')} == {
        key: whole[key] for key in ('images', 'categories')
    }
    for text, message in (('{', 'is not JSON'), ('[1]', 'holds a list instead of an object')):
        path.write_text(text)
        with pytest.raises(ValueError, match=message):
            read_lists(path, 'again')


def test_made_up_coco_reads_as_cocos_own_layout(tmp_path):
    make_coco(tmp_path, 30, 4)
    data = CocoInstances(tmp_path, 'val', 64, 64)
    assert data.category_names == {c['id']: c['name'] for c in CATEGORIES}
    found = [data.annotation(i) for i in range(len(data))]
    assert sum(one.crowd.sum() for one in found) >= 1
    content = json.loads((tmp_path / 'annotations' / 'instances_val2017.json').read_text())
    forms = {type(a['segmentation']) for a in content['annotations']}
    assert forms == {list, dict}
    assert not data.report.problems


def test_large_sets_keep_tokens_in_half_the_bytes(tiny, encoder, monkeypatch, tmp_path):
    exact = topdown.make_eval_set(tiny, encoder, progress=False)
    monkeypatch.setattr(truth, 'HALVED_FROM', 1)
    halved = topdown.make_eval_set(tiny, encoder, progress=False)
    assert (exact.tokens.dtype, halved.tokens.dtype) == (torch.float32, torch.bfloat16)
    assert torch.equal(exact.tokens.bfloat16(), halved.tokens)
    stored = topdown.make_eval_set(tiny.with_(token_dir=str(tmp_path)), encoder, progress=False)
    assert torch.equal(stored.tokens, halved.tokens)
    model = topdown.build_model(tiny.with_(top_down=False), encoder)
    a, b = (topdown.evaluate_model(model, data)['mbo_i'] for data in (exact, halved))
    assert a == pytest.approx(b, abs=2)


def test_one_pass_scores_all_sources_and_protocols(tiny, encoder):
    data = topdown.make_eval_set(tiny, encoder, protocols=('spot',), progress=False)
    model = topdown.build_model(tiny, encoder)
    model.train()(data.tokens)
    found = score_model(model, data, ('decoder', 'slots', 'first'))
    for source, rows in found.items():
        labels = topdown.predict(model, data, source)
        for protocol in ('oclf', 'spot'):
            assert rows[protocol] == topdown.score(labels, data, protocol)
    _, out = next(topdown.run_model(model, data, limit=2, decode=False))
    _, whole = next(topdown.run_model(model, data, limit=2))
    assert torch.equal(out.attention, whole.attention)
    assert out.loss is None
    labels = labels_from_masks(masks_of(whole, 'slots'), data.grid, data.mask_size)
    assert labels.dtype == torch.uint8
    assert torch.equal(labels, topdown.predict(model, data, 'slots', limit=2))


@pytest.mark.parametrize('world', [2, 4, 16])
def test_processes_hold_their_own_parts_and_score_them_alike(tiny, encoder, monkeypatch, world):
    """Each of several processes in turn; together they hold every image once, with the noise it has alone."""
    whole = topdown.make_eval_set(tiny, encoder, progress=False)
    model = topdown.build_model(tiny.with_(top_down=False), encoder)
    expected = score_model(model, whole)['decoder']['oclf']
    counts = np.array([[len(whole.dataset.annotation(i).categories), 0] for i in range(len(whole))])
    monkeypatch.setattr(distributed, 'world', lambda: world)
    monkeypatch.setattr(distributed, 'gather_lists', lambda _: counts.tolist())
    rows, names = [], []
    for rank in range(world):
        monkeypatch.setattr(distributed, 'rank', lambda rank=rank: rank)
        part = topdown.make_eval_set(tiny, encoder, progress=False, shared=True)
        assert len(part.tokens) == len(part) == len(part.main_truth)
        names += part.file_names
        rows += score_model(model, part)['decoder']['oclf']
    assert names == whole.file_names
    for row, other in zip(rows, expected, strict=True):
        assert row == pytest.approx(other, abs=0.05)  # batches of other sizes round otherwise


def test_untrained_encoders_are_alike(tiny):
    torch.manual_seed(3)
    before = torch.get_rng_state()
    first, second = (make_encoder(tiny.with_(pretrained=False)) for _ in range(2))
    assert first.fingerprint() == second.fingerprint() != make_encoder(tiny).fingerprint()
    assert torch.equal(before, torch.get_rng_state())


def test_rehearsal_in_small(tmp_path):
    """The whole of ``make rehearsal``: notebook, resumption, evaluation, each within 10 GB."""
    import argparse

    changes = {'encoder': 'vit_toybox_patch8_96', 'image_size': 96, 'layer': 5, 'slot_size': 32, 'decoder_layers': 1,
               'decoder_heads': 4, 'batch_size': 4, 'codebook_size': 8, 'num_workers': 1}  # fmt: skip
    rows = list(rehearse(argparse.Namespace(
        work=tmp_path, val=10, train=12, steps=4, models='baseline,top-down', limit=10.0, changes=changes,
    )))  # fmt: skip
    known = {row['stage']: row for row in rows}
    assert {'baselines', 'training and evaluation', 'topdown train, resumed', 'topdown evaluate'} <= set(known)
    assert all(0 < row['own_gb'] < row['address_space_gb'] < 10 for row in rows)
    (log,) = (tmp_path / 'runs' / 'coco').glob('top-down*/log.csv')
    assert log.read_text().splitlines()[-1].startswith('14,')


def test_batches_are_made_ahead_in_their_order():
    import threading
    import time

    from topdown.train.batches import ahead

    threads, started = set(), []

    def make(i):
        started.append(i)
        threads.add(threading.get_ident())
        time.sleep(0.01 * (3 - i % 3))
        if i == 20:
            raise OSError('a broken disk')
        return i

    assert list(ahead(make, range(10), 0)) == list(ahead(make, range(10), 3)) == list(range(10))
    assert len(threads - {threading.get_ident()}) == 3
    stream, started[:] = ahead(make, iter(range(15, 40)), 2), []
    assert [next(stream) for _ in range(5)] == [15, 16, 17, 18, 19]
    with pytest.raises(OSError, match='a broken disk'):
        next(stream)
    assert max(started) < 24  # no more than asked for


def test_tokens_read_from_a_disk_give_the_bits_of_those_in_memory(tiny, encoder, tmp_path):
    from topdown.train.batches import TrainData

    images = topdown.open_dataset(tiny, 'train')
    memory = TrainData(images, encoder, tiny)
    disk = TrainData(images, encoder, tiny.with_(token_dir=str(tmp_path)))
    for a, b in zip(memory.batches(0, 9), disk.batches(0, 9), strict=True):
        assert torch.equal(a, b)
