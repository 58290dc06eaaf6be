"""How every parameter starts: ``python -m tests.starts`` writes figures/tables/starts.csv.

``RULES`` says it for each parameter of a model on tokens with the autoregressive decoder. Everything that is drawn is
drawn from one distribution per parameter, so mean, spread (standard deviation) and bound (largest absolute value) tell
the rules apart.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch

from topdown import preset
from topdown.model.slot_model import SlotModel


class Start(NamedTuple):
    """A distribution; a normal one has no bound."""

    name: str
    mean: float
    spread: float
    bound: float


def constant(value: float) -> Callable[..., Start]:
    """All entries alike."""
    return lambda *_: Start(f'{value:g}', value, 0.0, value)


def uniform(name: str, bound: Callable[..., float]) -> Callable[..., Start]:
    """Uniform between minus and plus ``bound(shape, fan_in)``."""
    return lambda shape, fan_in: Start(name, 0.0, bound(shape, fan_in) / math.sqrt(3), bound(shape, fan_in))


def begin(shape: tuple[int, ...], fan_in: int) -> Start:
    """N(0, 1/D)."""
    return Start('N(0, 1/D)', 0.0, shape[-1] ** -0.5, math.inf)


def mask(shape: tuple[int, ...], fan_in: int) -> Start:
    """Uniform in [0, 1)."""
    return Start('uniform [0, 1)', 0.5, 1 / math.sqrt(12), 1.0)


ONE, ZERO = constant(1.0), constant(0.0)
TORCH = uniform("torch's own", lambda shape, fan_in: fan_in**-0.5)
XAVIER = uniform('Xavier uniform', lambda shape, fan_in: math.sqrt(6 / (shape[0] + shape[1])))
STACKED = uniform('Xavier uniform, of (3D, D)', lambda shape, fan_in: math.sqrt(6 / (3 * shape[0] + shape[1])))
VECTOR = uniform('Xavier uniform, of (1, 1, d)', lambda shape, fan_in: math.sqrt(6 / (2 * shape[-1])))

ATTENTION = r'decoder\.layers\.\d+\.(self|cross)_attention'
SLOTS = '(slot|second)_attention'
RULES = {
    r'head\.norm\.weight': ONE, r'head\.norm\.bias': ZERO,
    r'head\.(hidden|out)\.weight': TORCH, r'head\.(hidden|out)\.bias': ZERO,
    r'slot_init\.(mean|log_std)': VECTOR,
    SLOTS + r'\.norm_(inputs|slots|mlp)\.weight': ONE, SLOTS + r'\.norm_(inputs|slots|mlp)\.bias': ZERO,
    SLOTS + r'\.project_[qkv]\.weight': TORCH, SLOTS + r'\.gru\.(weight|bias)_[ih]h': TORCH,
    SLOTS + r'\.mlp\.[02]\.weight': TORCH, SLOTS + r'\.mlp\.[02]\.bias': ZERO,
    r'decoder\.begin_token': begin, r'decoder\.mask_token': mask,
    r'decoder\.project_(input|slots)\.0\.weight': XAVIER,
    r'decoder\.project_(input|slots)\.1\.weight': ONE, r'decoder\.project_(input|slots)\.1\.bias': ZERO,
    r'decoder\.layers\.\d+\.norm_(self|cross|mlp)\.weight': ONE,
    r'decoder\.layers\.\d+\.norm_(self|cross|mlp)\.bias': ZERO,
    ATTENTION + r'\.project_[qkv]\.weight': STACKED, ATTENTION + r'\.project_[qkv]\.bias': ZERO,
    ATTENTION + r'\.project_out\.weight': TORCH, ATTENTION + r'\.project_out\.bias': ZERO,
    r'decoder\.layers\.\d+\.mlp\.[02]\.(weight|bias)': TORCH,
    r'modulation\.(channel|query|mlp)(\.[02])?\.(weight|bias)': TORCH,
}  # fmt: skip
"""Regular expression of whole names -> rule; a rule gets the parameter's shape and its layer's number of inputs."""


def expected_start(model: SlotModel, name: str) -> Start:
    """How that parameter starts by ``RULES``.

    Raises:
        LookupError: if not exactly one rule speaks of it.
    """
    rules = [rule for pattern, rule in RULES.items() if re.fullmatch(pattern, name)]
    if len(rules) != 1:
        raise LookupError(f'{len(rules)} rules for {name}: RULES needs one')
    owner = model.get_submodule(name.rpartition('.')[0])
    # a GRU's parameters, inputs' too, go by the width of its state
    fan_in = getattr(owner, 'hidden_size', None) or getattr(owner, 'in_features', 0)
    return rules[0](tuple(model.get_parameter(name).shape), fan_in)


def measured_start(models: list[SlotModel], name: str) -> tuple[int, float, float, float]:
    """Number of entries, mean, spread and largest absolute value of a parameter over models of several seeds."""
    values = torch.cat([model.get_parameter(name).detach().flatten().double() for model in models])
    return len(values), float(values.mean()), float(values.std(correction=0)), float(values.abs().max())


def table(seeds: int) -> pd.DataFrame:
    """What is drawn at the COCO configuration, layers of the decoder (which start alike) as one; the rest is 0 or 1."""
    models = []
    for seed in range(seeds):
        torch.manual_seed(seed)
        models.append(SlotModel(preset('coco').model, 768, 196))
    rows = []
    for name, parameter in models[0].named_parameters():
        if re.search(r'layers\.[1-9]', name):
            continue
        start = expected_start(models[0], name)
        if not start.spread:
            continue
        _, mean, spread, largest = measured_start(models, name)
        rows.append({
            'parameter': name.replace('layers.0', 'layers.*'), 'shape': ' x '.join(map(str, parameter.shape)),
            'start': start.name, 'mean': mean, 'rule: mean': start.mean, 'spread': spread, 'rule: spread': start.spread,
            'largest': largest, 'rule: bound': 'none' if np.isinf(start.bound) else f'{start.bound:.4f}',
        })  # fmt: skip
    found = pd.DataFrame(rows)
    numbers = found.select_dtypes('number').columns
    found[numbers] = found[numbers].map(lambda value: f'{value:.4f}'.replace('-0.0000', '0.0000'))
    return found


if __name__ == '__main__':
    result = table(5)
    result.to_csv(Path(__file__).parent.parent / 'figures' / 'tables' / 'starts.csv', index=False)
    print(result.to_string(index=False))
