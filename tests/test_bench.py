"""The benchmark measures what it says, on models of milliseconds."""

import json

import numpy as np
import pandas as pd
import pytest

from topdown.book import bench
from topdown.cli import main
from topdown.presets import preset


@pytest.fixture
def config():
    return preset('smoke', batch_size=4)


def test_token_shape_is_that_of_the_encoder(encoder):
    assert bench.token_shape(preset('toybox')) == (encoder.num_patches, encoder.feature_size, tuple(encoder.grid))
    assert bench.token_shape(preset('coco')) == (196, 768, (14, 14))
    assert bench.token_shape(preset('clevr6')) == (128 * 128, 3, (128, 128))


def test_models_are_measured_in_turn_and_phases_add_up(config):
    steppers = {n: bench.Stepper(config.with_(top_down=n == 'b'), 16, 12) for n in 'ab'}
    table = bench.compare(steppers, rounds=3, warmup=1)
    assert table.model.tolist() == list('ababab')
    assert table['round'].tolist() == [0, 0, 1, 1, 2, 2]
    assert (table[list(bench.PHASES)] > 0).all(axis=None)
    np.testing.assert_allclose(table[list(bench.PHASES)].sum(axis=1), table.step, rtol=1e-6)


def test_a_step_of_the_benchmark_trains(config):
    stepper = bench.Stepper(config, 16, 12)
    before = stepper.model.head.out.weight.detach().clone()
    stepper.step()
    assert (stepper.model.head.out.weight != before).any()
    assert bool(stepper.model.codebook.initialized)


def test_parts_name_the_second_pass_only_where_there_is_one(config):
    assert set(bench.parts(bench.Stepper(config, 16, 12), 1)) == {
        'head', 'first pass', 'codes and second pass', 'decoder'
    }  # fmt: skip
    plain = bench.Stepper(config.with_(top_down=False), 16, 12)
    assert set(bench.parts(plain, 1)) == {'head', 'first pass', 'decoder'}


def test_result_is_consistent_and_goes_to_json_and_table(tmp_path, capsys):
    path, table = tmp_path / 'b' / 'bench.json', tmp_path / 'bench.csv'
    for _ in range(2):  # the second run's rows replace the first's
        main(['bench', '--preset', 'smoke', '--rounds', '2', '--json', str(path), '--table', str(table), '--no-memory'])
    result = json.loads(path.read_text())
    assert list(result['models']) == ['baseline', 'top-down']
    for row in result['models'].values():
        assert row['step_min_s'] <= row['step_s'] <= row['step_max_s']
        assert row['least_s'] == pytest.approx(row['tflop'] / result['ceiling_tflops'])
        assert row['share_of_ceiling'] == pytest.approx(row['least_s'] / row['step_s'])
        assert row['tokens_per_s'] == pytest.approx(144 * row['images_per_s'])
    assert result['models']['baseline']['overhead_percent'] == 0
    assert len(pd.read_csv(table)) == 2
    assert 'images/s' in capsys.readouterr().out


def test_models_of_pixels_are_measured_too():
    config = preset('clevr6_smoke')
    row = bench.bench(config, ['top-down'], rounds=1, memory=False)['models']['top-down']
    stepper = bench.Stepper(config, 32 * 32, 3)
    stepper.step()  # the first one starts the codebook by k-means
    step = bench.step_flops(stepper)
    assert row['tflop'] == pytest.approx(step / 1e12)
    assert step > 3 * config.train.batch_size * 2 * 32 * 32 * 25 * 8 * 8  # one of the convolutions
    assert all(seconds > 0 for seconds in bench.evaluation_times(config, count=2, repeats=1).values())


def test_peak_memory_is_that_of_a_process_of_its_own(config):
    found = bench.peak_memory(config, 16, 12, steps=1)
    assert 0.1 < found['imports_gb'] <= found['peak_gb'] < 8
    more = bench.peak_memory(config.with_(slot_size=512, batch_size=64), 256, 256, steps=1)
    assert more['peak_gb'] > found['peak_gb'] + 0.05


def test_evaluation_is_timed_by_part(config):
    found = bench.evaluation_times(config, count=2, repeats=1)
    assert list(found) == ['encoder', 'model', 'label maps', 'metrics']
    assert all(seconds > 0 for seconds in found.values())


def test_stored_tokens_give_the_losses_of_the_encoder_in_the_loop(config, tmp_path, capsys):
    found = bench.store_speed(config.with_(encoder='vit_tiny_patch16_224', layer=2, image_size=32), 12, 4)
    assert found['times_faster'] == pytest.approx(found['loop_s'] / found['store_s'])
    assert 0 < found['worst_difference'] < 0.02  # the store rounds to bfloat16
    assert found['write_s'] > 0


def test_growth_covers_every_quantity(config, monkeypatch):
    monkeypatch.setattr(bench, 'GROWTH', {'patches': (9, 16), 'num_slots': (2, 3)})
    table = bench.grow(config, rounds=1, progress=False)
    assert len(table) == 8
    kept = table[(table.along == 'patches') & (table.model == 'top-down')].activations.tolist()
    assert kept[1] > kept[0]


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--models', 'baseline', 'nonsense'], 'models must be among'),
        (['--device', 'cuda'], 'torch sees no GPU'),
        (['--rounds', '0'], 'rounds must be at least 1'),
        (['--batch-size', '-1'], 'batch_size must be at least 1'),
    ],
)
def test_impossible_options_are_refused(arguments, message, capsys, monkeypatch):
    monkeypatch.setattr(bench.torch.cuda, 'is_available', lambda: False)
    with pytest.raises(SystemExit):
        main(['bench', '--preset', 'smoke', *arguments])
    assert message in capsys.readouterr().err


def test_what_applying_a_model_costs(tmp_path, capsys):
    table = tmp_path / 'inference.csv'
    words = [
        'bench',
        '--preset',
        'smoke',
        '--rounds',
        '2',
        '--models',
        'baseline',
        'top-down',
        '--inference',
        str(table),
    ]
    for _ in range(2):  # measured again, a row is replaced
        main(words)
    assert 'top-down' in capsys.readouterr().out
    rows = pd.read_csv(table)
    assert rows[['batch', 'model']].values.tolist() == [
        [batch, model] for batch in (1, 32) for model in ('baseline', 'top-down')
    ]
    assert (rows.least_ms <= rows.ms).all()
    assert (rows.ms <= rows.most_ms).all()
    by = rows.set_index(['model', 'batch'])
    assert by.own_gb['baseline', 1] < by.own_gb['baseline', 32] < 2
