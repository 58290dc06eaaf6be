#!/usr/bin/env bash
# A ReLU done in place after a linear layer makes the backward pass copy whole tensors, if the input has three dimensions.
#
# Versions: torch 2.14.1, numpy 2.4.6.
# Guess: in place saves memory and, if anything, time; the backward pass does the same work.
# Seen: for inputs (batch, width) it does. For (batch, tokens, width) the linear layer's output is a view of a matrix, and
#   autograd's way of going back through a change of a view makes four copies more of the hidden layer's size in a forward
#   and backward pass of Linear, ReLU, Linear: 8 copies instead of 4. Memory is not saved: what the
#   ReLU keeps is its result either way.
# Why it matters: the feed-forward layers of most transformers are of this form. In this project's decoder the copies were
#   6 % of a training step on a CPU.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" --disable-pip-version-check --quiet install numpy==2.4.6 torch==2.14.1
cd "$work"
"$work/venv/bin/python" -W ignore - <<'PY'
import torch
from torch.profiler import ProfilerActivity, profile


def copies(inplace, dimensions):
    """Copies of a forward and backward pass, and of how many of them are of the hidden layer's size."""
    torch.manual_seed(0)
    layers = torch.nn.Sequential(torch.nn.Linear(8, 32), torch.nn.ReLU(inplace=inplace), torch.nn.Linear(32, 8))
    x = torch.randn(*[4] * (dimensions - 1), 8)
    with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as seen:
        layers(x).sum().backward()
    found = [e for e in seen.key_averages(group_by_input_shape=True) if e.key == 'aten::copy_']
    large = sum(e.count for e in found if e.input_shapes[0] and e.input_shapes[0][-1:] == [32])
    return sum(e.count for e in found), large


seen = {d: (copies(False, d), copies(True, d)) for d in (2, 3)}
print('dimensions: (copies, of the hidden size) not in place, in place:', seen)
(plain_2, placed_2), (plain_3, placed_3) = seen[2], seen[3]
assert placed_2[0] == plain_2[0], seen
assert placed_3[0] - plain_3[0] == 4, seen
assert placed_3[1] - plain_3[1] == 4, seen
PY
