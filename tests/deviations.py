"""How far the package is from its oracles: ``python -m tests.deviations`` writes figures/tables/deviations.csv.

Random weights and shapes; the largest absolute deviation over all trials is kept, for gradients relative to the largest
entry of that parameter's gradient (or, where that is zero but for rounding, to a thousandth of the largest of all).
Outputs and gradients are compared in float32, as a user computes. Ten steps of an optimiser are taken in double
precision: in float32, among the millions of hidden units of all trials, some lie within rounding of a ReLU's kink, and
the two versions then rightly take different steps.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from sklearn.metrics import adjusted_rand_score
from torch import Tensor

from tests.reference import metrics as brute
from tests.reference import model as naive
from topdown.config import ModelConfig
from topdown.evaluate import metrics
from topdown.model.slot_model import Output, SlotModel

LIMITS = {
    'slots': 5e-5, 'reconstruction': 5e-5, 'attention': 1e-5, 'masks': 1e-5, 'code index': 0.0, 'gradients': 1e-3,
    'loss over ten optimiser steps': 1e-10, 'codes after ten optimiser steps': 1e-10, 'ARI': 1e-9, 'FG-ARI': 1e-9,
    'mBO': 1e-9, 'mIoU': 1e-9,
}  # fmt: skip
"""Largest deviation allowed."""


def naive_copy(model: SlotModel) -> tuple[dict[str, Tensor], list[Tensor] | None]:
    """The model's parameters by name and its codebook's state (None without one), for the naive version."""
    p = {name: t.detach().clone().requires_grad_() for name, t in model.named_parameters()}
    book = model.codebook
    return p, None if book is None else [t.clone() for t in (book.codes, book.cluster_size, book.code_sum)]


def run_both(
    model: SlotModel, p: dict[str, Tensor], book: list[Tensor] | None, batch: int, num_patches: int, width: int
) -> tuple[Output, dict[str, Tensor]]:
    """One training batch of random tokens forwards and backwards, through the package and through the naive version."""
    config, dtype = model.config, model.slot_init.mean.dtype
    tokens = torch.randn(batch, num_patches, width, dtype=dtype)
    noise = torch.randn(batch, config.num_slots, config.slot_size, dtype=dtype)
    hidden = torch.rand(batch, num_patches) < 0.1
    # masks are asked for in float32 only: the decoder makes them in that precision
    found = model(tokens, noise, need_masks=dtype == torch.float32, hidden_BN=hidden)
    expected = naive.forward(
        p, tokens, noise, hidden, iterations=config.num_iterations, heads=config.num_heads,
        layers=config.decoder_layers, decoder_heads=config.decoder_heads, commitment=config.commitment_weight,
        codes=None if book is None else book[0].clone(),
    )  # fmt: skip
    if book is not None:
        vectors = expected['first_slots'].detach().flatten(0, 1)
        naive.update_codebook(*book, vectors, expected['index'].flatten(), config.ema_decay)
    for parameter in (*model.parameters(), *p.values()):
        parameter.grad = None
    found.loss.backward()
    expected['loss'].backward()
    return found, expected


def model_trial(seed: int) -> dict[str, float]:
    """One random model and ten steps of Adam with clipping, the package against the naive version."""
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    heads, decoder_heads, layers = (int(rng.choice(v)) for v in ([1, 2], [1, 2, 4], [1, 2]))
    top_down = bool(seed % 4)
    config = ModelConfig(
        num_slots=int(rng.integers(2, 7)), slot_size=16, qkv_size=int(rng.choice([16, 32])), num_heads=heads,
        num_iterations=3, codebook_size=int(rng.integers(4, 12)), dead_code_threshold=0.0,
        commitment_weight=float(rng.choice([0, 0.1])) * top_down,
        decoder_layers=layers, decoder_heads=decoder_heads, top_down=top_down,
    )  # fmt: skip
    sizes = int(rng.integers(1, 4)), int(rng.integers(4, 20)), 24
    model = SlotModel(config, feature_size=sizes[2], num_patches=sizes[1]).train()
    if config.top_down:
        model.codebook.start(torch.randn(64, config.slot_size))
    worst = dict.fromkeys(list(LIMITS)[:8], 0.0)

    def keep(name: str, a: Tensor, b: Tensor, scale: float = 1.0) -> None:
        worst[name] = max(worst[name], float((a.detach() - b.detach()).abs().max()) / scale)

    p, book = naive_copy(model)
    found, expected = run_both(model, p, book, *sizes)
    for name in ('slots', 'attention', 'reconstruction', 'masks'):
        keep(name, getattr(found, name), expected[name])
    if book is not None:
        keep('code index', found.code_index, expected['index'])
    largest = max(float(t.grad.abs().max()) for t in p.values() if t.grad is not None)
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            scale = max(float(p[name].grad.abs().max()), 1e-3 * largest)  # some are zero but for rounding
            keep('gradients', parameter.grad, p[name].grad, scale)

    p, book = naive_copy(model.double())
    ours, theirs = torch.optim.Adam(model.parameters(), 1e-3), torch.optim.Adam(p.values(), 1e-3)
    for _ in range(10):
        found, expected = run_both(model, p, book, *sizes)
        keep('loss over ten optimiser steps', found.loss, expected['loss'])
        for optimizer, parameters in ((ours, model.parameters()), (theirs, p.values())):
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
    if book is not None:
        keep('codes after ten optimiser steps', model.codebook.codes, book[0])
    return worst


def metrics_trial(seed: int) -> dict[str, float]:
    """One random pair of label maps against scikit-learn and brute force."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(-1, rng.integers(2, 5), (9, 9))
    prediction = rng.integers(0, rng.integers(1, 6), (9, 9))
    found = metrics.score(prediction[None], metrics.make_truth([truth], [truth]))[0]
    expected = {
        'ARI': (adjusted_rand_score(*brute.every(truth, prediction)), found['ari']),
        'FG-ARI': (adjusted_rand_score(*brute.foreground(truth, prediction)), found['fg_ari']),
    }
    rows = brute.overlaps(truth, prediction)
    if rows:
        expected |= {
            'mBO': (np.mean([max(row) for row in rows]), found['mbo_i']),
            'mIoU': (brute.mean_iou(rows), found['miou']),
        }
    return {name: abs(a - b) for name, (a, b) in expected.items()}


def table(trials: int) -> pd.DataFrame:
    """Largest deviation of every quantity over so many trials, beside what is allowed."""
    worst = dict.fromkeys(LIMITS, 0.0)
    for seed in range(trials):
        for name, value in {**model_trial(seed), **metrics_trial(seed)}.items():
            worst[name] = max(worst[name], value)
    against = {name: 'the model written out naively' for name in list(LIMITS)[:8]}
    against |= {'ARI': 'scikit-learn', 'FG-ARI': 'scikit-learn', 'mBO': 'brute force', 'mIoU': 'brute force'}
    return pd.DataFrame([
        {'quantity': name, 'against': against[name], 'largest deviation': f'{worst[name]:.1e}',
         'allowed': f'{LIMITS[name]:.0e}', 'trials': trials}
        for name in LIMITS
    ])  # fmt: skip


if __name__ == '__main__':
    result = table(int(sys.argv[1]) if len(sys.argv) > 1 else 100)
    result.to_csv(Path(__file__).parent.parent / 'figures' / 'tables' / 'deviations.csv', index=False)
    print(result.to_string(index=False))
