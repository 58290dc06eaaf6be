"""Precision is chosen by flags, obeyed everywhere, and kept."""

import numpy as np
import pytest
import torch

import topdown
from topdown import precision
from topdown.book import bench
from topdown.data.token_store import stored_tokens
from topdown.model.encoder import encode_all
from topdown.train.checkpoint import load_checkpoint
from topdown.train.health import doubts
from topdown.train.loop import train_model

FAST = {'avx2': True, 'avx512_f': True, 'avx512_bf16': True}
SLOW = {'avx2': True, 'avx512_f': True, 'avx512_bf16': False, 'amx_bf16': False}


def fake(monkeypatch, flags, limit=''):
    monkeypatch.setattr(precision, '_capabilities', lambda: flags)
    monkeypatch.setenv(precision.LIMIT, limit)


@pytest.mark.parametrize(
    ('flags', 'limit', 'name', 'reason'),
    [
        (FAST, '', 'bf16', 'avx512_bf16'),
        ({'amx_bf16': True}, '', 'bf16', 'amx_bf16'),
        (SLOW, '', 'fp32', 'emulate'),
        ({}, '', 'fp32', 'emulate'),
        (FAST, 'AVX2', 'fp32', 'ONEDNN_MAX_CPU_ISA=AVX2'),
        (FAST, 'avx512_core', 'fp32', 'AVX512_CORE'),
        (FAST, 'AVX512_CORE_BF16', 'bf16', 'avx512_bf16'),
        (FAST, 'AVX512_CORE_AMX_FP16', 'bf16', 'avx512_bf16'),
        (FAST, 'DEFAULT', 'bf16', 'avx512_bf16'),
    ],
)
def test_flags_decide(monkeypatch, flags, limit, name, reason):
    fake(monkeypatch, flags, limit)
    found = precision.choose('auto')
    assert found.name == name
    assert reason in found.reason
    assert precision.choose('bf16').name == 'bf16'
    assert precision.choose('fp32').name == 'fp32'


@pytest.mark.parametrize(('capability', 'name'), [((7, 5), 'fp32'), ((8, 0), 'bf16'), ((9, 0), 'bf16')])
def test_gpus_from_ampere_on_compute_bfloat16(monkeypatch, capability, name):
    monkeypatch.setattr(torch.cuda, 'get_device_capability', lambda device: capability)
    assert precision.choose('auto', 'cuda').name == name


@pytest.mark.parametrize('device', ['mps', 'xpu'])
def test_other_devices_are_refused(device):
    """Apple's GPUs among them: nothing here was ever tried on them. Without a GPU of CUDA, a CPU computes."""
    for use in (lambda: precision.choose('auto', device), lambda: precision.autocast('fp32', device)):
        with pytest.raises(ValueError, match=f'device {device} is not supported: .* cpu and on cuda'):
            use()


def test_a_machine_of_apple_computes_on_its_cpu(monkeypatch, tiny):
    monkeypatch.setattr(torch.backends.mps, 'is_available', lambda: True)
    encoder = topdown.make_encoder(tiny)
    assert {p.device.type for p in encoder.parameters()} == {'cpu'}
    assert 'mps' in list(doubts(tiny, []))[-1]


@pytest.mark.parametrize('name', ['fp16', 'float16', 'tf32'])
def test_other_precisions_are_refused(name):
    with pytest.raises(ValueError, match=r'auto.*bf16.*fp32'):
        precision.choose(name)
    with pytest.raises(ValueError, match='precision must be one of'):
        topdown.preset('smoke', precision=name)


def test_float32_products_are_not_rounded_to_tf32(tiny, tmp_path):
    """Whatever was set before; set one way, so that torch, which compares the two ways of setting it, can read it."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    assert precision.uses_tf32()
    run = train_model(tiny.with_(steps=1), tmp_path, progress=False)
    assert run.provenance['tf32'] is False
    assert not torch.backends.cuda.matmul.allow_tf32
    assert not torch.backends.cudnn.allow_tf32
    assert torch.get_float32_matmul_precision() == 'highest'


def test_the_processor_is_named_by_its_widest_arithmetic(monkeypatch):
    fake(monkeypatch, {**FAST, 'cpu_name': 'Some CPU', 'architecture': 'x86_64'})
    assert precision.processor() == 'Some CPU, x86_64, avx512_bf16'
    fake(monkeypatch, {**SLOW, 'avx512_f': False})
    assert precision.processor() == 'CPU, ?, avx2'


def test_older_versions_of_torch_are_asked_too(monkeypatch):
    monkeypatch.delattr(torch.cpu, 'get_capabilities', raising=False)
    monkeypatch.setattr(torch.cpu, '_is_avx512_bf16_supported', lambda: True, raising=False)
    for name in ('_is_amx_tile_supported', '_is_avx512_supported', '_is_avx2_supported'):
        monkeypatch.setattr(torch.cpu, name, lambda: False, raising=False)
    monkeypatch.delenv(precision.LIMIT, raising=False)
    assert precision.choose('auto') == precision.Precision('bf16', 'the processor has avx512_bf16')


class Watch(torch.overrides.TorchFunctionMode):
    """Whether bfloat16 autocast was on while anything was computed."""

    def __init__(self):
        super().__init__()
        self.seen = set()

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function is torch.nn.functional.linear:
            self.seen.add(torch.is_autocast_enabled('cpu'))
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ('flags', 'setting', 'low'),
    [(FAST, 'auto', True), (SLOW, 'auto', False), (FAST, 'fp32', False), (SLOW, 'bf16', True)],
)
def test_every_place_computes_in_the_same_precision(monkeypatch, tiny, tmp_path, flags, setting, low):
    """Training, encoder, evaluation, predictions, single images, interventions and the benchmark."""
    fake(monkeypatch, flags)
    config = tiny.with_(precision=setting, steps=2, eval_every=1)
    with Watch() as watch:
        encoder = topdown.make_encoder(config)
        data = topdown.make_eval_set(config, encoder, progress=False)
        run = train_model(config, tmp_path, encoder, eval_set=data, progress=False)
        topdown.predict(run.model, data)
        topdown.interventions(run.model, data)
        topdown.baselines(data, 3, lambda: topdown.build_model(config.with_(top_down=False), encoder))
        model, again, saved = topdown.load_run(tmp_path / 'checkpoint.safetensors')
        topdown.segment_image(np.zeros((40, 50, 3), np.uint8), model, again)
        bench.Stepper(config, 16, 12).step()
    assert watch.seen == {low}
    name = 'bf16' if low else 'fp32'
    assert (encoder.precision, run.model.precision, model.precision, again.precision, saved.precision) == (name,) * 5
    assert run.provenance['precision'] == name
    assert saved.config.train.precision == setting


def test_a_run_goes_on_in_the_precision_it_began_with(monkeypatch, tiny, tmp_path, capsys):
    fake(monkeypatch, SLOW)
    train_model(tiny, tmp_path / 'whole', progress=False)
    train_model(tiny, tmp_path / 'parts', progress=False, stop_at=3)
    fake(monkeypatch, FAST)
    capsys.readouterr()
    run = train_model(tiny, tmp_path / 'parts')
    assert 'fp32 (as it began)' in capsys.readouterr().out
    assert run.provenance['precision'] == 'fp32'
    whole = load_checkpoint(tmp_path / 'whole' / 'checkpoint.safetensors')
    parts = load_checkpoint(tmp_path / 'parts' / 'checkpoint.safetensors')
    assert all(torch.equal(t, parts.tensors[name]) for name, t in whole.tensors.items())


def test_tokens_of_another_precision_are_refused_on_resume(monkeypatch, tiny, tmp_path):
    fake(monkeypatch, SLOW)
    train_model(tiny, tmp_path, progress=False, stop_at=3)
    fake(monkeypatch, FAST)
    with pytest.raises(ValueError, match='trained in fp32, and the tokens given were made in bf16'):
        train_model(tiny, tmp_path, topdown.make_encoder(tiny), progress=False)


def test_stored_tokens_belong_to_a_precision(tiny, tmp_path, encoder, monkeypatch):
    folders = set()
    monkeypatch.setattr('topdown.train.batches.stored_tokens', lambda *a: folders.add(a[2]) or stored_tokens(*a))
    for name in ('fp32', 'bf16'):
        config = tiny.with_(precision=name, token_dir=str(tmp_path))
        topdown.TrainData(topdown.open_dataset(config, 'train'), topdown.make_encoder(config), config)
    assert len(folders) == 2
    assert len(list(tmp_path.glob('*/'))) == 2


def test_gradients_stay_on_and_autocast_off_between_batches(tiny, encoder):
    """Whoever takes a batch from a generator computes in the modes of his own."""
    config = tiny.with_(precision='bf16', cache_tokens=False)
    own = topdown.make_encoder(config)
    train_set = topdown.open_dataset(config, 'train', progress=False)
    batches = topdown.TrainData(train_set, own, config).batches(0, 2)
    model = topdown.build_model(config.with_(top_down=False), own)
    outputs = topdown.run_model(model, topdown.make_eval_set(config, own, progress=False))
    for generator in (batches, outputs):
        next(generator)
        assert torch.is_grad_enabled()
        assert not torch.is_autocast_enabled('cpu')
        generator.close()
    assert model.training


def test_products_that_are_slow_stay_small(monkeypatch):
    """The ceiling stops at the first product that takes long, as an emulated one does."""
    sizes, clock = [], iter(range(1000))
    monkeypatch.setattr(precision, 'now', lambda device: next(clock))  # every product takes a second
    made = torch.randn
    monkeypatch.setattr(torch, 'randn', lambda *size, **kind: sizes.append(size) or made(*size, **kind))
    assert precision.ceiling('bf16') == pytest.approx(2 * 256**3 / 1e12)
    assert sizes == [(256, 256)] * 2


def test_encoding_follows_the_encoder(encoder):
    images = torch.rand(2, 3, 96, 96)
    own = topdown.make_encoder(topdown.preset('smoke'), 'fp32')
    plain, low = encode_all(own, images), None
    own.precision = 'bf16'
    low = encode_all(own, images)
    assert plain.dtype == low.dtype == torch.float32
    assert not torch.equal(plain, low)
    torch.testing.assert_close(plain, low, atol=0.2, rtol=0.1)
