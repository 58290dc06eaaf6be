#!/usr/bin/env bash
# A transformer's encoder layer, evaluated without gradients on a CPU, ignores autocast, and its products are not counted.
#
# Versions: torch 2.14.1, numpy 2.4.6.
# Guess: under bfloat16 autocast, nn.TransformerEncoderLayer computes in bfloat16 in evaluation as in training, and
#   torch.utils.flop_counter counts the same matrix products in both.
# Seen: without gradients the layer takes a fused way of its own. It stays out of it where autocast is on, but asks that
#   of CUDA's autocast alone. So under a CPU's autocast it gives float32's result bit for bit, and with gradients on
#   another one, off by bfloat16's rounding. And the counter knows nothing of the fused operator: it counts 0, float32 or
#   not, where the same call with gradients has 5.5 million.
# Why it matters: a model is trained in one precision and evaluated in another without a word, and a cost that is counted
#   in evaluation lacks these layers.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" --disable-pip-version-check --quiet install numpy==2.4.6 torch==2.14.1
cd "$work"
"$work/venv/bin/python" -W ignore - <<'PY'
import torch
from torch.utils.flop_counter import FlopCounterMode

torch.manual_seed(0)
layer = torch.nn.TransformerEncoderLayer(64, 4, 256, dropout=0.0, batch_first=True, norm_first=True).eval()
x = torch.randn(8, 7, 64)


def run(gradients, autocast):
    """The layer's output, and the products counted."""
    with torch.set_grad_enabled(gradients), torch.autocast('cpu', torch.bfloat16, enabled=autocast):
        with FlopCounterMode(display=False) as counter:
            found = layer(x)
    return found.detach(), counter.get_total_flops()


seen = {(g, a): run(g, a) for g in (True, False) for a in (True, False)}
off = {key: (found - seen[False, False][0]).abs().max().item() for key, (found, _) in seen.items()}
print('(gradients, autocast): products counted:', {key: count for key, (_, count) in seen.items()})
print('(gradients, autocast): largest difference from float32 without gradients:', off)
assert seen[False, True][1] == seen[False, False][1] == 0, seen
assert seen[True, True][1] == seen[True, False][1] > 5e6, seen
assert off[False, True] == 0, off
assert off[True, False] < 1e-5 < 1e-3 < off[True, True], off
PY
