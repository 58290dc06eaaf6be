#!/usr/bin/env bash
# Boxes of masks: torchvision's end on the last pixel, pycocotools' behind it.
#
# Versions: torchvision 0.29.1, torch 2.14.1, pycocotools 2.0.11, numpy 2.4.6.
# Guess: masks_to_boxes gives the box that encloses the mask, as the corners of pycocotools' toBbox.
# Seen: the right and lower edges are the NUMBERS of the last column and row: a mask of 6 x 3 pixels has a box of 5 x
#   2, one pixel a box of no area, and its IoU with the box from pycocotools is 0.56 and 0. An empty mask is a box of
#   zeros, the same as that of a mask of pixel (0, 0).
# Why it matters: CorLoc and recall of boxes compare boxes made from predicted masks with the data set's own. At
#   patches of 16 pixels an object of one patch already loses 12 % of its box.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" --disable-pip-version-check --quiet install numpy==2.4.6 torch==2.14.1 torchvision==0.29.1 \
    pycocotools==2.0.11
cd "$work"
"$work/venv/bin/python" -W ignore - <<'PY'
import numpy as np
import pycocotools.mask as coco
import torch
from torchvision.ops import box_iou, masks_to_boxes

masks = np.zeros((4, 40, 50), np.uint8)
masks[0, 2:5, 1:7], masks[1, 20, 30], masks[2, 0, 0] = 1, 1, 1
ours = masks_to_boxes(torch.from_numpy(masks))
left, top, width, height = np.array([coco.toBbox(coco.encode(np.asfortranarray(mask))) for mask in masks]).T
theirs = torch.from_numpy(np.stack([left, top, left + width, top + height], 1)).float()
overlap = box_iou(ours, theirs).diagonal()
for name, a, b, iou in zip(('6 x 3', 'one pixel', 'pixel (0, 0)', 'empty'), ours, theirs, overlap):
    print(f'{name:12} torchvision {a.tolist()} pycocotools {b.tolist()} IoU {float(iou):.2f}')
assert ours[0].tolist() == [1, 2, 6, 4] and theirs[0].tolist() == [1, 2, 7, 5]
assert abs(float(overlap[0]) - 10 / 18) < 1e-6 and overlap[1] == 0
assert ours[2].tolist() == ours[3].tolist() == [0, 0, 0, 0] and theirs[2].tolist() == [0, 0, 1, 1]
patch = torch.zeros(1, 224, 224)
patch[0, 16:32, 16:32] = 1
(box,) = masks_to_boxes(patch).tolist()
assert (box[2] - box[0]) * (box[3] - box[1]) == 15 * 15
PY
