#!/usr/bin/env bash
# kornia's connected components cut a long object into pieces.
#
# Versions: kornia 0.9.0, torch 2.14.1, scipy 1.17.1, numpy 2.4.6.
# Guess: with its 100 iterations it joins whatever is connected in a mask of 32 x 32 pixels, as scipy does.
# Seen: an iteration carries a label one pixel further. A winding line of 32 x 32 pixels, one object for scipy, comes
#   back as 199 labels; with 1,000 iterations it is one. No warning. Labels are not 1 to n but places in the batch: a
#   full second image has another label than the first.
# Why it matters: predicted masks are split into objects this way on a GPU. At 320 x 320 pixels, the size at which
#   masks are scored, a straight line of 300 pixels is already 200 pieces, and each piece counts as a segment.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" --disable-pip-version-check --quiet install numpy==2.4.6 scipy==1.17.1 torch==2.14.1 \
    kornia==0.9.0
cd "$work"
"$work/venv/bin/python" -W ignore - <<'PY'
import numpy as np
import torch
from kornia.contrib import connected_components
from scipy import ndimage

winding = np.zeros((32, 32), np.float32)
winding[::2] = 1
winding[1:-1:4, 31], winding[3:-1:4, 0] = 1, 1
line = np.zeros((320, 320), np.float32)
line[160, 10:310] = 1


def count(mask, **options):
    return len(connected_components(torch.from_numpy(mask)[None, None], **options).unique()) - 1


for name, mask in (('winding', winding), ('straight, 300 px', line)):
    counts = ndimage.label(mask)[1], count(mask), count(mask, num_iterations=1000)
    print(f'{name}: scipy {counts[0]}, kornia {counts[1]}, with 1,000 iterations {counts[2]}')
    assert counts[0] == 1 and counts[2] == 1
    assert counts[1] == {'winding': 199, 'straight, 300 px': 200}[name], counts
labels = connected_components(torch.ones(2, 1, 4, 4))
print('labels of two full images', labels.unique().tolist())
assert labels.unique().tolist() == [16, 32]
PY
