#!/usr/bin/env bash
# kornia's mean IoU counts a class that nobody predicted and nobody drew as perfect.
#
# Versions: kornia 0.9.0, torch 2.14.1, numpy 2.4.6.
# Guess: a class that is in neither map is 0 (or left out).
# Seen: it is 1. A prediction that is wrong in every pixel scores 0.98 with 100 classes and 0.987 with ADE20K's 150.
# Why it matters: mean_iou gives one value a class and image, and its mean is what is asked for; it is then near 1 for
#   every model, and the more so the more classes a data set has.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" --disable-pip-version-check --quiet install numpy==2.4.6 torch==2.14.1 kornia==0.9.0
cd "$work"
"$work/venv/bin/python" -W ignore - <<'PY'
import torch
from kornia.metrics import mean_iou

truth, prediction = torch.full((1, 8, 8), 3), torch.full((1, 8, 8), 7)
for classes in (10, 100, 150):
    values = mean_iou(prediction, truth, classes)
    print(classes, 'classes, every pixel wrong: mean', float(values.mean()))
    assert values.shape == (1, classes)
    assert abs(float(values.mean()) - (classes - 2) / classes) < 1e-5
    assert values[0, [3, 7]].max() < 1e-5 and values[0, 0] == 1
PY
