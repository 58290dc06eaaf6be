"""Training, resumption, checkpoints, evaluation, baselines."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

import topdown
from topdown.cli import main
from topdown.config import TrainConfig
from topdown.evaluate import baselines, metrics, predict
from topdown.model.modulation import Scales
from topdown.train.batches import TrainData
from topdown.train.checkpoint import load_checkpoint
from topdown.train.health import VARYING
from topdown.train.loop import learning_rate, load_run, train_model


def states_equal(first, second):
    a, b = first.state_dict(), second.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize('changes', [{}, {'decoder': 'autoregressive', 'cache_tokens': False}], ids=str)
def test_resuming_gives_the_same_run_bit_for_bit(tiny, tmp_path, encoder, changes):
    config = tiny.with_(**changes)
    whole = train_model(config, tmp_path / 'whole', encoder, progress=False)
    train_model(config, tmp_path / 'parts', encoder, progress=False, stop_at=3)
    parts = train_model(config, tmp_path / 'parts', encoder, progress=False)
    assert states_equal(whole.model, parts.model)
    pd.testing.assert_frame_equal(whole.log.drop(columns=VARYING), parts.log.drop(columns=VARYING), check_exact=True)
    pd.testing.assert_frame_equal(whole.evaluations, parts.evaluations, check_exact=True)
    first, second = (load_checkpoint(tmp_path / name / 'checkpoint.safetensors') for name in ('whole', 'parts'))
    assert all(torch.equal(first.tensors[name], second.tensors[name]) for name in first.tensors)
    again = train_model(config, tmp_path / 'parts', encoder, progress=False)
    assert states_equal(again.model, parts.model)  # a finished run is not trained further


def test_training_learns(tiny, tmp_path, encoder):
    run = train_model(tiny.with_(steps=40, lr=2e-3, eval_every=0), tmp_path, encoder, progress=False)
    assert run.log.loss.iloc[-5:].mean() < 0.97 * run.log.loss.iloc[:5].mean()
    assert run.evaluations.step.tolist() == [40]
    assert set(metrics.summarize([{'fg_ari': 0.0}])) < set(run.evaluations.columns)
    assert pd.read_csv(tmp_path / 'log.csv').shape == run.log.shape


def test_seed_decides_everything(tiny, tmp_path, encoder):
    runs = [
        train_model(tiny.with_(seed=seed, steps=3), tmp_path / name, encoder, progress=False)
        for name, seed in (('a', 0), ('b', 0), ('c', 1))
    ]
    assert states_equal(runs[0].model, runs[1].model)
    assert not states_equal(runs[0].model, runs[2].model)


def test_loader_and_cache_show_the_same_images(tiny, encoder):
    dataset = topdown.open_dataset(tiny, 'train', progress=False)
    cached = TrainData(dataset, encoder, tiny)
    read = TrainData(dataset, encoder, tiny.with_(cache_tokens=False))
    for a, b in zip(cached.batches(2, 5), read.batches(2, 5), strict=True):
        torch.testing.assert_close(a, b, atol=0.15, rtol=0.1)  # bfloat16, other batch sizes
        assert (a - b).abs().mean() < 0.02


def test_cache_refuses_random_crops(tiny, encoder):
    dataset = topdown.open_dataset(tiny, 'train', progress=False)
    with pytest.raises(ValueError, match='random_crop'):
        TrainData(dataset, encoder, tiny.with_(random_crop=True))
    with pytest.raises(ValueError, match='batch_size'):
        TrainData(dataset, encoder, tiny.with_(batch_size=1000))


def test_learning_rate_schedule():
    config = TrainConfig(lr=1.0, warmup_steps=10, lr_half_life=100)
    assert learning_rate(config, 0) == pytest.approx(0.1)
    assert learning_rate(config, 100) == pytest.approx(0.5)
    assert learning_rate(config, 200) == pytest.approx(0.25)


def test_checkpoint_of_another_experiment_is_refused(tiny, tmp_path, encoder):
    train_model(tiny, tmp_path, encoder, progress=False, stop_at=2)
    with pytest.raises(ValueError, match='another experiment'):
        train_model(tiny.with_(num_slots=4), tmp_path, encoder, progress=False)


def test_foreign_and_damaged_checkpoints_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match='no checkpoint at'):
        load_checkpoint(tmp_path / 'none.safetensors')
    save_file({'weight': torch.zeros(2)}, tmp_path / 'foreign.safetensors')
    with pytest.raises(ValueError, match='not a checkpoint of this package'):
        load_checkpoint(tmp_path / 'foreign.safetensors')
    (tmp_path / 'damaged.safetensors').write_bytes(b'PK\x03\x04 not safetensors at all')
    with pytest.raises(ValueError, match='damaged'):
        load_checkpoint(tmp_path / 'damaged.safetensors')


def test_failed_write_keeps_the_old_checkpoint(tiny, tmp_path, encoder, monkeypatch):
    train_model(tiny, tmp_path, encoder, progress=False, stop_at=2)
    before = (tmp_path / 'checkpoint.safetensors').read_bytes()

    def fail(tensors, path, header):
        path.write_bytes(b'half')
        raise OSError('disk full')

    monkeypatch.setattr('topdown.train.checkpoint.save_file', fail)
    with pytest.raises(OSError, match='disk full'):
        train_model(tiny, tmp_path, encoder, progress=False)
    assert (tmp_path / 'checkpoint.safetensors').read_bytes() == before
    assert not list(tmp_path.glob('.*.part'))


def test_load_run_gives_the_trained_model(tiny, tmp_path, encoder):
    run = train_model(tiny, tmp_path, encoder, progress=False)
    model, _, saved = load_run(tmp_path / 'checkpoint.safetensors', encoder)
    assert states_equal(model, run.model)
    assert saved.config == tiny


def test_not_finite_loss_stops(tiny, tmp_path, encoder):
    with pytest.raises(FloatingPointError, match='lower lr'):
        train_model(tiny.with_(lr=1e30, warmup_steps=0, grad_clip=1e30, log_every=1), tmp_path, encoder, progress=False)


def test_a_run_on_shared_tokens_is_the_run_on_its_own(tiny, tmp_path, encoder):
    shared = topdown.TrainData(topdown.open_dataset(tiny, 'train', progress=False), encoder, tiny)
    orders = {}
    for seed in (0, 1):
        config = tiny.with_(seed=seed)
        own = train_model(config, tmp_path / f'own{seed}', encoder, progress=False)
        lent = train_model(config, tmp_path / f'lent{seed}', encoder, shared, progress=False)
        assert states_equal(own.model, lent.model)
        orders[seed] = torch.cat(list(shared.batches(0, 3, config)))
    assert not torch.equal(orders[0], orders[1])  # another seed, another order


def test_baselines_and_scores(tiny, encoder):
    data = topdown.make_eval_set(tiny, encoder, progress=False)
    labels = topdown.baselines(data, 5, lambda: topdown.build_model(tiny.with_(top_down=False), encoder))
    means = {name: topdown.summarize(topdown.score(found, data)) for name, found in labels.items()}
    assert set(means) == {
        'truth as shares of patches', 'truth pooled to patches', 'truth at token means', 'one slot', 'block grid',
        'k-means on colours', 'k-means on tokens', 'random slots',
    }  # fmt: skip
    for name in ('truth as shares of patches', 'truth pooled to patches'):  # of masks on these patches, the closest
        best = means.pop(name)
        assert all(best[m] > row[m] for row in means.values() for m in ('mbo_i', 'miou'))
    perfect = topdown.score(data.instances[:].clip(0), data)
    assert topdown.summarize(perfect)['mbo_i'] == 100
    with pytest.raises(ValueError, match='shape'):
        topdown.score(data.instances[:2], data)


def test_block_grid_has_as_many_cells_as_slots(tiny, encoder):
    data = topdown.make_eval_set(tiny, encoder, progress=False)
    for count in (1, 2, 5, 6, 7, 11, 24):
        labels = baselines.block_grid(data, count)
        assert labels[0].unique().tolist() == list(range(count))
        area = torch.bincount(labels[0].flatten().long())
        assert area.max() < 2.1 * area.min()


def test_predictions_come_from_the_masks_asked_for(tiny, encoder):
    data = topdown.make_eval_set(tiny, encoder, progress=False)
    model = topdown.build_model(tiny, encoder)
    with pytest.raises(RuntimeError, match='codebook has no codes'):
        topdown.predict(model, data)
    model.train()(data.tokens)
    found = {source: topdown.predict(model, data, source) for source in ('decoder', 'slots', 'first')}
    assert all(labels.shape == data.instances.shape for labels in found.values())
    assert torch.equal(found['slots'], topdown.predict(model, data, 'slots'))  # noise is fixed
    with pytest.raises(ValueError, match='source'):
        topdown.predict(model, data, 'thin air')
    plain = topdown.build_model(tiny.with_(top_down=False), encoder)
    with pytest.raises(ValueError, match='first'):
        topdown.predict(plain, data, 'first')


def test_labels_are_upsampled_bilinearly():
    masks = torch.zeros(1, 2, 4)
    masks[0, 0, :2], masks[0, 1, 2:] = 1.0, 1.0
    labels = predict.labels_from_masks(masks, (2, 2), 8)
    assert labels[0].tolist() == [[0] * 8] * 4 + [[1] * 8] * 4


def test_genuine_coco_layout_end_to_end(coco_root, encoder):
    """Loader, encoder, slots, masks, metrics on polygons, RLE, crowds, gray images, and images without objects."""
    config = topdown.preset(
        'smoke', dataset='coco', data_root=str(coco_root), steps=2, batch_size=2, cache_tokens=False, eval_images=0,
        eval_every=0,
    )  # fmt: skip
    run = train_model(config, coco_root / 'run', encoder, progress=False)
    assert np.isfinite(run.evaluations[list(('fg_ari', 'mbo_i', 'mbo_c', 'miou'))].to_numpy()).all()
    kept = topdown.make_eval_set(config.with_(keep_crowd='keep'), encoder)
    dropped = topdown.make_eval_set(config.with_(keep_crowd='drop'), encoder)
    assert (kept.instances[:] != dropped.instances[:]).any()


def test_command_line(tiny, tmp_path, capsys):
    changes = ['--data-root', tiny.data.data_root, '--toybox', json.dumps(tiny.data.toybox), '--steps', '2']
    main(['train', '--preset', 'smoke', '--folder', str(tmp_path / 'run'), '--eval-images', '4', *changes])
    assert 'fg_ari' in capsys.readouterr().out
    with pytest.raises(SystemExit) as stop:
        main(['train', '--preset', 'coco', '--folder', str(tmp_path / 'coco')])
    assert stop.value.code == 1
    assert 'data_root' in capsys.readouterr().err


def test_scales_can_be_changed_for_one_prediction(tiny, encoder):
    data = topdown.make_eval_set(tiny, encoder, progress=False)
    model = topdown.build_model(tiny, encoder)
    model.train()(data.tokens)
    usual = topdown.predict(model, data)
    none = topdown.predict(model, data, 'slots', change=lambda scales: Scales())
    assert torch.equal(none, topdown.predict(model, data, 'first'))
    assert not torch.equal(none, topdown.predict(model, data, 'slots'))
    assert torch.equal(usual, topdown.predict(model, data))  # nothing stays behind
    with pytest.raises(ValueError, match='top-down pathway'):
        topdown.predict(topdown.build_model(tiny.with_(top_down=False), encoder), data, change=lambda s: s)


def test_slots_are_given_the_category_of_the_object_they_cover(tiny, encoder):
    data = topdown.make_eval_set(tiny, encoder, progress=False)
    labels = torch.from_numpy(data.instances[:].clip(0))
    found = topdown.slot_categories(labels, data, 8)
    for b in range(len(data)):
        assert found[b, 0] == 0  # the ground is not an object
        for k in range(1, 8):
            of_object = data.classes[b][data.instances[b] == k]
            assert found[b, k] == (of_object[0] if len(of_object) else 0)
    halves = torch.zeros_like(labels)
    halves[:, :, : labels.shape[2] // 2] = 1
    assert (topdown.slot_categories(halves, data, 2, threshold=0.99) == 0).all()


def test_interventions_take_away_what_they_say(tiny, encoder):
    data = topdown.make_eval_set(tiny, encoder, progress=False)
    model = topdown.build_model(tiny, encoder)
    model.train()(data.tokens)
    changes = topdown.interventions(model, data)
    assert len(changes) == 7
    _, out = next(topdown.run_model(model, data))
    scales = out.scales
    assert changes['none'](scales) == Scales()
    assert changes['channel only'](scales).spatial is None
    assert changes['spatial only'](scales).channel is None
    flat = changes['mean channel'](scales).channel
    assert torch.equal(flat, flat[:1, :1].expand_as(flat))
    torch.testing.assert_close(flat[0, 0], scales.channel.float().mean((0, 1)))
    assert torch.equal(changes['shuffled codes'](scales).channel[:, 1], scales.channel[:, 0])
    only = topdown.build_model(tiny.with_(spatial_modulation=False), encoder)
    only.train()(data.tokens)
    assert 'spatial only' not in topdown.interventions(only, data)
    with pytest.raises(ValueError, match='top-down pathway'):
        topdown.interventions(topdown.build_model(tiny.with_(top_down=False), encoder), data)


def test_a_finished_run_keeps_its_provenance(tiny, tmp_path, encoder, monkeypatch):
    first = train_model(tiny, tmp_path, encoder, progress=False)
    assert first.provenance['steps'] == 6
    assert first.provenance['seed'] == tiny.train.seed
    monkeypatch.setattr('topdown.origin._commit', lambda: 'later')
    again = train_model(tiny, tmp_path, encoder, progress=False)
    assert again.provenance == first.provenance
