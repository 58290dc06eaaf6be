"""Bins of crowding and agreement of codes on hand-made maps, and the command that makes tables of both."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import adjusted_mutual_info_score

from topdown import VARIANTS, build_model, load_run, predict, preset, train_model
from topdown.book import codes, crowds
from topdown.book.codes import SlotCodes, code_agreement, slot_codes, where_and_what
from topdown.book.plan import MAIN, Job
from topdown.book.runs import job_folder, measure_run
from topdown.cli import main
from topdown.data.base import Annotation, ImageSet
from topdown.evaluate.truth import make_eval_set, make_truth_set
from topdown.presets import PRESETS
from topdown.toybox.scenes import ToyboxConfig, _compose, _stream, scene_at


class Drawn(ImageSet):
    """Images of 20 x 20 pixels with hand-made masks."""

    def __init__(self, masks):
        super().__init__(list(range(len(masks))), {1: 'thing'}, 20, 20)
        self.masks = masks

    def path(self, i):
        return None

    def file_name(self, i):
        return str(i)

    def annotation(self, i):
        count = len(self.masks[i])
        return Annotation(np.array(self.masks[i]).reshape(-1, 20, 20), np.ones(count, int), np.zeros(count, bool))


def box(rows, columns):
    mask = np.zeros((20, 20), bool)
    mask[rows, columns] = True
    return mask


@pytest.fixture
def drawn():
    """One object; three, two of which touch and one that stands alone; two that overlap; and an image of nothing."""
    masks = [
        [box(slice(0, 10), slice(0, 10))],
        [box(slice(0, 4), slice(0, 5)), box(slice(4, 8), slice(0, 5)), box(slice(12, 20), slice(10, 20))],
        [box(slice(0, 6), slice(0, 10)), box(slice(4, 10), slice(0, 10))],
        [],
    ]
    return make_truth_set(preset('toybox', mask_size=20), dataset=Drawn(masks), progress=False)


def predicted():
    """The first image as it is; the second with the touching ones joined; the third with half of the first object."""
    labels = torch.zeros(4, 20, 20, dtype=torch.uint8)
    labels[0, :10, :10] = 1
    labels[1, :8, :5], labels[1, 12:, 10:] = 1, 2
    labels[2, :4, :5], labels[2, 6:10, :10] = 1, 2
    return labels


def test_bins_of_hand_made_images(drawn):
    hidden = [np.array([0.0]), np.array([0.0, 0.15, 0.3]), np.array([0.05, 0.0]), np.zeros(0)]
    rows = pd.DataFrame(crowds.crowd_rows(predicted(), drawn, 3, hidden)).set_index(['by', 'low'])
    assert list(dict.fromkeys(rows.index.get_level_values('by'))) == list(crowds.BINS)
    whole = rows.loc[('all', 0)]
    assert (whole['count'], whole.high) == (4, np.inf)
    # overlapped pixels are nobody's: the two are 40 pixels each, of which 20 and 40 are found
    assert rows.mbo_i['objects'].to_dict() == pytest.approx({1: 100, 2: 75, 3: 100 * 2 / 3})
    assert rows.recall['objects'].to_dict() == pytest.approx({1: 100, 2: 100, 3: 100})
    assert rows['count']['objects'].to_dict() == {1: 1, 2: 1, 3: 1}
    assert whole.mbo_i == pytest.approx((100 + 75 + 200 / 3) / 3)  # the image of nothing has none
    assert rows.fg_ari[('objects', 1)] == 100
    # of 120 pixels in segments of 20, 20 and 80: 2 * 190 + 3160 pairs, joined to 40 and 80: 780 + 3160
    true, joined, every = 3540, 3940, 120 * 119 / 2
    expected = true * joined / every
    assert rows.fg_ari[('objects', 3)] == pytest.approx(100 * (3540 - expected) / ((true + joined) / 2 - expected))
    # percent of 400 pixels: 25; 5, 5, 20; 10, 10
    assert rows['count']['size'].to_dict() == {5: 2, 8: 2, 20: 2}
    assert rows.mbo_i['size'].to_dict() == pytest.approx({5: 50, 8: 75, 20: 100})
    assert rows['count']['touching'].to_dict() == {0: 2, 1: 4}  # those that overlap touch, too
    assert rows.mbo_i['touching'].to_dict() == pytest.approx({0: 100, 1: (50 + 50 + 50 + 100) / 4})
    assert rows['count']['hidden'].to_dict() == {0: 3, 1: 1, 10: 1, 20: 1}
    assert rows.mbo_i['hidden'].to_dict() == pytest.approx({0: 250 / 3, 1: 50, 10: 50, 20: 100})
    assert rows.fg_ari[['size', 'touching', 'hidden']].isna().all()


def test_without_hidden_shares_there_are_no_such_bins(drawn):
    rows = pd.DataFrame(crowds.crowd_rows(predicted(), drawn, 3))
    assert set(rows.by) == set(crowds.BINS) - {'hidden'}


def test_scenes_know_what_is_hidden():
    config = ToyboxConfig(size=64)
    shares = []
    for index in range(12):
        scene = scene_at(config, 'val', index)
        _, toys, _ = _compose(config, _stream(config, 'val', index), None)
        bodies = [np.asarray(toy.silhouette) > 127 for toy in toys]
        for number, body in enumerate(bodies):
            front = np.any([body & other for other in bodies[number + 1 :]], axis=0) & body
            assert scene.hidden[number] == pytest.approx(front.sum() / body.sum())
        assert len(scene.hidden) == len(scene.masks)
        assert scene.hidden[-1] == 0  # nothing is in front of the last
        shares += scene.hidden.tolist()
    assert 0 < max(shares) <= config.most_hidden


def slots_of(index, labels, categories=None):
    index = torch.as_tensor(index)
    categories = torch.ones_like(index) if categories is None else torch.as_tensor(categories)
    return SlotCodes(labels, index, torch.zeros(*index.shape, 2), categories)


def quarters(seed):
    """60 images of four slots, a quarter of the image each: their maps, and which quarter (V, K) every slot has."""
    rng = np.random.default_rng(seed)
    order = np.stack([rng.permutation(4) for _ in range(60)])
    labels = torch.from_numpy(order).view(60, 2, 2).repeat_interleave(6, 1).repeat_interleave(6, 2)
    return labels, np.argsort(order, axis=1)


def test_codes_that_mean_the_same_agree_whatever_their_names():
    meaning = np.random.default_rng(2).integers(0, 5, (60, 4))  # of every quarter
    (labels, place), (other_labels, other_place) = quarters(0), quarters(1)
    own, others = (np.take_along_axis(meaning, at, 1) for at in (place, other_place))
    found = code_agreement(slots_of(own, labels, own), slots_of(7 - others, other_labels))
    assert (found['matched'], found['matched_slots'], found['codes_ami']) == (1, 240, pytest.approx(1))
    assert found['object_slots'] == (meaning > 0).sum()
    assert found['codes_objects_ami'] == found['category_ami'] == pytest.approx(1)
    assert abs(found['other_category_ami']) < 1e-9  # one category tells nothing
    chance = ['shuffled_ami', 'in_place_ami', 'position_ami', 'other_position_ami']
    assert all(abs(found[name]) < 0.06 for name in chance)


def test_codes_that_name_the_place_agree_by_the_place_alone():
    labels, place = quarters(0)
    noise = np.random.default_rng(2).integers(0, 2, (2, 60, 4))
    found = code_agreement(*(slots_of(2 * place + extra, labels) for extra in noise))
    assert found['codes_ami'] > 0.5
    assert found['in_place_ami'] == pytest.approx(found['codes_ami'], abs=0.03)
    assert found['position_ami'] > 0.5 < found['other_position_ami']
    assert abs(found['shuffled_ami']) < 0.05


def test_only_slots_that_overlap_by_half_match():
    labels, other = torch.zeros(2, 10, 10, dtype=torch.uint8), torch.zeros(2, 10, 10, dtype=torch.uint8)
    labels[:, :, 6:], other[:, :, 9:] = 1, 2  # 60 and 40 pixels; 90 and 10, of slots 0 and 2
    one, two = slots_of([[3, 4], [5, 6]], labels), slots_of([[0, 9, 1], [1, 9, 0]], other)
    found = code_agreement(one, two)
    assert (found['matched'], found['matched_slots']) == (0.5, 2)  # 60 of 90; 10 of 40 is too little
    assert found['codes_ami'] == pytest.approx(adjusted_mutual_info_score([3, 5], [0, 1]))
    nothing = code_agreement(slots_of([[3, 4]], labels[:1]), slots_of([[0, 9, 1]], other[:1]))
    assert nothing['matched_slots'] == 1
    assert np.isnan(nothing['codes_ami'])
    with pytest.raises(ValueError, match='same shape'):
        code_agreement(one, slots_of([[0, 1]], other[:1]))


def test_what_is_found_in_one_image_cannot_be_read(tiny, encoder, monkeypatch):
    """A model that finds nothing, or objects of one image alone, has a joint score of nothing, and that is no error."""
    data = make_eval_set(tiny, encoder, progress=False)
    model = build_model(tiny.with_(top_down=False), encoder)
    monkeypatch.setattr(codes, 'COVERED', 1.01)
    found = where_and_what(model, data)
    assert [found[name] for name in ('found', 'slots', 'tokens under masks')] == [0, 0, 0]
    assert found['tokens under truth'] > 0
    best = codes.slot_overlaps(predict(model, data), data, 7).amax(dim=(1, 2)).sort().values
    monkeypatch.setattr(codes, 'COVERED', float(best[-1]))
    one = where_and_what(model, data)
    assert one['found'] > 0 == one['slots'] == one['tokens under masks']


@pytest.fixture
def finished(tiny, encoder, tmp_path, monkeypatch):
    """Runs of two seeds of a tiny preset, one of them not there, and the folder."""
    tiny = dataclasses.replace(tiny.with_(steps=2), name='smoke')
    monkeypatch.setitem(PRESETS, 'smoke', tiny)
    monkeypatch.setattr(crowds, 'CROWDED', 9)
    jobs = [Job('ablation', variant, seed) for variant in MAIN for seed in (0, 1)]
    monkeypatch.setattr(crowds, 'plan', lambda name: [*jobs, Job('ablation', 'channel only', 0), jobs[0]])
    data = make_eval_set(tiny, encoder, progress=False)
    for job in jobs[:-1]:
        config = job.config('smoke')
        run = train_model(config, job_folder(tmp_path, config), encoder, eval_set=data, progress=False)
        row = pd.Series({**measure_run(run, data), **run.provenance})
        (job_folder(tmp_path, config) / 'row.json').write_text(row.to_json())
    return tmp_path


def test_the_command_writes_a_row_a_run_and_bin(finished, encoder, capsys):
    folder, data = finished / 'tables', make_eval_set(preset('smoke'), encoder, progress=False)
    main(['tables', 'crowds', '--preset', 'smoke', '--run-dir', str(finished), '--tables', str(folder)])
    assert 'joint_found' in capsys.readouterr().out
    bins, runs = (pd.read_csv(folder / f'smoke_{name}.csv') for name in ('crowds', 'agreement'))
    pairs = runs[runs.other_seed.notna()]
    assert list(zip(pairs.variant, pairs.seed, pairs.other_seed)) == [('top-down', 1, 0)]
    assert pairs.joint_found.isna().all()
    assert pairs.matched.between(0, 1).all()
    own = preset('smoke', **VARIANTS['top-down'])
    one, other = (
        slot_codes(load_run(job_folder(finished, own.with_(seed=seed)) / 'checkpoint.safetensors', encoder)[0], data)
        for seed in (1, 0)
    )
    assert pairs.matched.item() == pytest.approx(code_agreement(one, other)['matched'])
    runs = runs[runs.other_seed.isna()]
    assert runs[['joint_found', 'joint_slots']].notna().all(axis=None)
    assert list(zip(runs.variant, runs.seed)) == [
        (variant, seed) for variant in MAIN for seed in (0, 1) if (variant, seed) != (MAIN[-1], 1)
    ]
    assert runs[['commit', 'threads', 'precision', 'device', 'config', 'seconds']].notna().all(axis=None)
    assert not bins.duplicated(['variant', 'seed', 'images', 'by', 'low']).any()
    assert set(bins.images) == {'own', 'crowded'}
    assert set(bins.by) == set(crowds.BINS)
    whole = bins[bins.by.eq('all')]
    assert (whole['count'] == 6).all()  # eval_images
    for by in crowds.BINS:  # a bin has all images, or all objects, just once
        part = bins[bins.by.eq(by)].groupby(['images', 'variant', 'seed'])['count'].sum()
        assert part.groupby('images').nunique().eq(1).all()
    counts = bins[bins.by.ne('all')].groupby(['images', 'by'])['count'].sum().unstack()
    assert (counts['objects'] == 30).all()
    assert (counts['size'] == counts['touching']).all()
    assert (counts['size'] == counts['hidden']).all()
    assert (counts['size']['crowded']) > counts['size']['own']
    for job in (Job('ablation', variant, 0) for variant in MAIN):
        row = pd.read_json(job_folder(finished, job.config('smoke')) / 'row.json', typ='series')
        mine = whole[whole.variant.eq(job.variant) & whole.seed.eq(0) & whole.images.eq('own')].iloc[0]
        assert [mine.fg_ari, mine.mbo_i, mine.recall] == pytest.approx([row.fg_ari, row.mbo_i, row.recall])
    bins.assign(mbo_i=bins.mbo_i + 1).to_csv(folder / 'smoke_other.csv', index=False)
    with pytest.raises(SystemExit):
        main(['tables', 'crowds', '--preset', 'smoke', '--run-dir', str(finished), '--tables', str(folder)])
    assert 'disagree' in capsys.readouterr().err


def test_without_a_finished_run_the_command_says_how_to_make_them(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(['tables', 'crowds', '--preset', 'smoke', '--run-dir', str(tmp_path), '--tables', str(tmp_path)])
    said = capsys.readouterr().err
    assert 'holds no finished run' in said
    assert 'topdown tables --preset smoke' in said
    assert not list(tmp_path.iterdir())


def test_photographs_have_neither_hidden_shares_nor_crowded_images(coco_root, encoder, tmp_path, monkeypatch):
    config = preset(
        'smoke', dataset='coco', steps=2, batch_size=2, cache_tokens=False, eval_images=0, eval_every=0, seeds=1
    )
    monkeypatch.setitem(PRESETS, 'photos_slotwise', dataclasses.replace(config, name='photos_slotwise'))
    job = Job('main', 'top-down', 0)
    own = job.config('photos_slotwise', str(coco_root))
    run = train_model(own, job_folder(tmp_path, own), encoder, progress=False)
    (job_folder(tmp_path, own) / 'row.json').write_text(pd.Series(run.provenance).to_json())
    found = crowds.crowds('photos_slotwise', tmp_path, str(coco_root))
    assert set(found['crowds'].images) == {'own'}
    assert set(found['crowds'].by) == set(crowds.BINS) - {'hidden'}
    numbers = found['crowds'][found['crowds'].by.eq('objects')]
    assert numbers[['low', 'count']].to_numpy().tolist() == [[1, 1], [2, 2]]  # one image has none
    assert 'other_seed' not in found['agreement']  # one seed agrees with none
