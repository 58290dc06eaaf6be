"""How far the package is from its oracles: ``python -m tests.deviations`` writes figures/tables/deviations.csv.

Everything runs in float32, as a user would, over random weights and shapes; the largest absolute deviation over all
trials is kept, for gradients relative to the largest entry of that parameter's gradient (or, where that is zero but for
rounding, to a thousandth of the largest of all).
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from sklearn.metrics import adjusted_rand_score

from tests.reference import metrics as brute
from tests.reference import model as naive
from topdown import metrics
from topdown.config import ModelConfig
from topdown.model import SlotModel

LIMITS = {
    'slots': 5e-5, 'reconstruction': 5e-5, 'attention': 1e-5, 'masks': 1e-5, 'code index': 0.0, 'gradients': 1e-3,
    'loss over ten optimiser steps': 1e-5, 'codes after ten optimiser steps': 5e-5, 'ARI': 1e-9, 'FG-ARI': 1e-9,
    'mBO': 1e-9, 'mIoU': 1e-9,
}  # fmt: skip
"""Largest deviation allowed."""


def model_trial(seed: int) -> dict[str, float]:
    """One random model and ten steps of Adam with clipping, the package against the naive version."""
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    heads, decoder_heads, layers = (int(rng.choice(v)) for v in ([1, 2], [1, 2, 4], [1, 2]))
    top_down = bool(seed % 4)
    config = ModelConfig(
        slots=int(rng.integers(2, 7)), slot_size=16, qkv_size=int(rng.choice([16, 32])), attention_heads=heads,
        iterations=3, codebook_size=int(rng.integers(4, 12)), dead_below=0.0,
        commitment=float(rng.choice([0, 0.1])) * top_down,
        decoder_layers=layers, decoder_heads=decoder_heads, top_down=top_down,
    )  # fmt: skip
    batch, num_patches, width = int(rng.integers(1, 4)), int(rng.integers(4, 20)), 24
    model = SlotModel(config, width, num_patches)
    p = {name: t.detach().clone().requires_grad_() for name, t in model.named_parameters()}
    book = None
    if config.top_down:
        model.codebook.start(torch.randn(64, config.slot_size))
        book = [t.clone() for t in (model.codebook.codes, model.codebook.cluster_size, model.codebook.code_sum)]
    ours, theirs = torch.optim.Adam(model.parameters(), 1e-3), torch.optim.Adam(p.values(), 1e-3)
    worst = dict.fromkeys(list(LIMITS)[:8], 0.0)

    def keep(name: str, a: torch.Tensor, b: torch.Tensor, scale: float = 1.0) -> None:
        worst[name] = max(worst[name], float((a.detach() - b.detach()).abs().max()) / scale)

    for step in range(10):
        tokens = torch.randn(batch, num_patches, width)
        noise = torch.randn(batch, config.slots, config.slot_size)
        hidden = torch.rand(batch, num_patches) < 0.1
        found = model.train()(tokens, noise, hidden_BN=hidden)
        expected = naive.forward(
            p, tokens, noise, hidden, iterations=3, heads=heads, layers=layers, decoder_heads=decoder_heads,
            commitment=config.commitment, codes=None if book is None else book[0].clone(),
        )  # fmt: skip
        if book is not None:
            vectors = expected['first_slots'].detach().flatten(0, 1)
            naive.update_codebook(*book, vectors, expected['index'].flatten(), config.code_decay)
        for optimizer, loss in ((ours, found.loss), (theirs, expected['loss'])):
            optimizer.zero_grad()
            loss.backward()
        if step == 0:
            for name in ('slots', 'attention', 'reconstruction', 'masks'):
                keep(name, getattr(found, name), expected[name])
            if book is not None:
                keep('code index', found.code_index, expected['index'])
            largest = max(float(t.grad.abs().max()) for t in p.values() if t.grad is not None)
            for name, parameter in model.named_parameters():
                if parameter.grad is not None:
                    scale = max(float(p[name].grad.abs().max()), 1e-3 * largest)  # some are zero but for rounding
                    keep('gradients', parameter.grad, p[name].grad, scale)
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
