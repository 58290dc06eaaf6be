"""What a run says before it starts, and what its log counts over an epoch."""

import re

import numpy as np
import pytest
import torch

import topdown
from topdown import distributed
from topdown.model.codebook import Codebook, perplexity
from topdown.model.flops import encoder_flops, step_flops
from topdown.train import health
from topdown.train.health import doubts, price
from topdown.train.loop import train_model


@pytest.mark.parametrize(
    ('name', 'changes', 'objects', 'said'),
    [
        ('clevr6', {}, [3, 6, 7], None),
        ('clevr6', {}, [3, 10, 8], '2 of 3 validation images .* num_slots=7, up to 10'),
        ('coco', {'batch_size': 256}, [], 'batch_size=256 .* all 1 process.* not the 64 of preset'),
        ('coco', {'pretrained': False}, [], 'vit_base_patch16_224.dino are random'),
        ('coco', {'pretrained': False, 'weights': 'own.safetensors'}, [], None), ('coco_short', {}, [7], None),
    ],
    ids=str,
)  # fmt: skip
def test_odd_experiments_are_named(name, changes, objects, said):
    """Images of CLEVR10 for a preset of seven slots, a batch that was meant for each process, an untrained encoder."""
    found = list(doubts(topdown.preset(name, **changes), objects))
    assert len(found) == bool(said)
    assert not said or re.search(said, found[0])


def test_a_run_says_what_is_odd_and_what_it_costs_before_it_starts(tiny, tmp_path, capsys):
    config = tiny.with_(num_slots=2, dead_code_threshold=0.1)
    train_model(config, tmp_path)
    said = capsys.readouterr().out
    assert re.search(r'validation images hold more objects than num_slots=2, up to \d', said)
    assert re.search(r'steps 1 to 6 of 4 images, 24 in all, 1.0 epochs, at least 0.0 min here \(its matrix', said)


def test_the_price_is_that_of_the_formulas(monkeypatch, encoder):
    monkeypatch.setattr(health, 'ceiling', lambda *_, **__: 2.0)
    config, runs = topdown.preset('toybox', batch_size=10), 10**9
    found = price(config, encoder, 500, 100)
    assert found == '1,000 in all, 2.0 epochs, at least 0.0 min here (its matrix products, at 2 TFLOP/s)'

    def hours(**changes):
        text = price(config.with_(**changes), encoder, 500, runs)
        return float(re.search(r'at least ([\d.]+) h', text)[1])

    model, own = step_flops(config.model, 128, 144), encoder_flops(encoder)
    assert hours() == pytest.approx(model / 2e12 * 10 * runs / 3600, abs=0.06)
    assert hours(cache_tokens=False) == pytest.approx((model + own) / 2e12 * 10 * runs / 3600, abs=0.06)
    pixels = topdown.preset('clevr6_smoke')
    assert price(pixels, topdown.make_encoder(pixels), 48, 12) == '96 in all, 2.0 epochs'
    monkeypatch.setattr(distributed, 'world', lambda: 4)
    assert hours() == pytest.approx(model / 2e12 * 10 * runs / 3600 / 4, abs=0.06)


def test_codes_are_counted_over_the_epoch(tiny, tmp_path, monkeypatch):
    """24 images in batches of 4 are six steps: the tally begins anew with the first row after an epoch's end."""
    config, batches = tiny.with_(steps=14, log_every=2, eval_every=0), []
    learn = Codebook.update

    def update(self, vectors, index, hits):
        batches.append(hits.clone())
        learn(self, vectors, index, hits)

    monkeypatch.setattr(Codebook, 'update', update)
    log = train_model(config, tmp_path, progress=False).log
    spans = [(0, 2), (0, 4), (0, 6), (6, 8), (6, 10), (6, 12), (12, 14)]
    expected = [perplexity(torch.stack(batches[a:b]).sum(0)).item() for a, b in spans]
    np.testing.assert_allclose(log.perplexity, expected, rtol=1e-6)
