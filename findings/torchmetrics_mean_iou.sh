#!/usr/bin/env bash
# torchmetrics' MeanIoU is a mean over images, and -1 stands for classes that did not occur.
#
# Versions: torchmetrics 1.9.0, torch 2.14.1, numpy 2.4.6.
# Guess: updates add up intersections and unions of the whole data set, as the benchmarks of ADE20K and Cityscapes do;
#   a class that never occurs is NaN.
# Seen: each image has its own IoU (over the classes it has), and images are averaged. A class found on 50 pixels of
#   one image and missed on 2 of another has 0.5, pooled over pixels 0.93. With per_class=True a class that never
#   occurs is -1, which a plain mean over classes takes for a value.
# Why it matters: the number is not that of published tables (mean 0.74 against 0.95 here), and where many of 150
#   classes do not occur in a subset, the mean of the values per class is negative.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" --disable-pip-version-check --quiet install numpy==2.4.6 torch==2.14.1 torchmetrics==1.9.0
cd "$work"
"$work/venv/bin/python" -W ignore - <<'PY'
import torch
from torchmetrics.segmentation import MeanIoU

truth, prediction = torch.zeros(2, 2, 10, 10, dtype=torch.long)
truth[0, :5] = prediction[0, :5] = 1  # the first image: half of it is class 1, found
truth[1, 0, :2], prediction[1, 5, :2] = 1, 1  # the second: two pixels of class 1, sought elsewhere


def pooled(label):
    here, there = truth == label, prediction == label
    return float((here & there).sum() / (here | there).sum())


per_class = MeanIoU(num_classes=4, input_format='index', per_class=True)
mean = MeanIoU(num_classes=4, input_format='index')
for image in range(2):
    per_class.update(prediction[image : image + 1], truth[image : image + 1])
    mean.update(prediction[image : image + 1], truth[image : image + 1])
print('torchmetrics', per_class.compute().tolist(), 'mean', float(mean.compute()))
print('pooled over pixels', [pooled(0), pooled(1)], 'mean', (pooled(0) + pooled(1)) / 2)
values = per_class.compute()
assert values[1] == 0.5 and abs(pooled(1) - 50 / 54) < 1e-6
assert values[2:].tolist() == [-1, -1] and values.mean() < 0
images = [(1 + 1) / 2, (96 / 100 + 0) / 2]
assert abs(float(mean.compute()) - sum(images) / 2) < 1e-6
PY
