#!/usr/bin/env bash
# A sum of overlapping masks is encoded with holes by two RLE libraries and without by two others.
#
# Versions: pycocotools 2.0.11, faster-coco-eval 1.8.0, hotcoco 1.3.0, RLEMaskLib 0.8.1, numpy 2.4.6.
# Guess: encode() takes every pixel that is not 0 as inside, in all four libraries.
# Seen: pycocotools and faster-coco-eval start a new run wherever the VALUE changes and take runs as outside and
#   inside in turn. An array that counts how many masks cover a pixel (0, 1, 2) is encoded with its overlap as a hole:
#   12 pixels instead of 16. hotcoco and RLEMaskLib give 16. None raises.
# Why it matters: `sum(masks)` is a common way to join masks of a crowd or of several parts, and is right until two of
#   them overlap. faster-coco-eval and hotcoco both offer themselves in the place of pycocotools.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" --disable-pip-version-check --quiet install numpy==2.4.6 pycocotools==2.0.11 \
    faster-coco-eval==1.8.0 hotcoco==1.3.0 rlemasklib==0.8.1
cd "$work"
"$work/venv/bin/python" - <<'PY'
import faster_coco_eval.core.mask as faster
import hotcoco.mask as hot
import numpy as np
import pycocotools.mask as coco
import rlemasklib

one, two = np.zeros((2, 6, 6), np.uint8)
one[1:5, 1:5], two[2:4, 2:4] = 1, 1
libraries = {'pycocotools': coco, 'faster-coco-eval': faster, 'hotcoco': hot, 'RLEMaskLib': rlemasklib}
areas = {}
for name, library in libraries.items():
    summed, joined = (np.asfortranarray(mask) for mask in (one + two, one | two))
    areas[name] = int(library.area(library.encode(summed)))
    assert int(library.area(library.encode(joined))) == 16, name
    print(f'{name:16} area of the sum {areas[name]}, of the union 16')
assert areas == {'pycocotools': 12, 'faster-coco-eval': 12, 'hotcoco': 16, 'RLEMaskLib': 16}, areas
assert coco.decode(coco.encode(np.asfortranarray(one + two)))[2].tolist() == [0, 1, 0, 0, 1, 0]
PY
