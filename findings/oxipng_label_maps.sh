#!/usr/bin/env bash
# A lossless PNG optimiser changes the numbers of a label map.
#
# Versions: pyoxipng 9.1.1, Pillow 13.0.0, numpy 2.4.6.
# Guess: oxipng is lossless, so that every label keeps its number.
# Seen: it is lossless in COLOURS. Of a palette PNG (as PASCAL VOC's) unused colours are dropped and the rest numbered
#   anew: labels 0, 7, 26, 255 are read as 0, 1, 2, 3, at every level tried. A gray label map of few labels (as
#   ADE20K's) becomes a palette PNG with the same effect, its gray values intact in the palette. With
#   palette_reduction, grayscale_reduction and color_type_reduction all False the numbers are kept.
# Why it matters: whoever shrinks a folder of VOC masks this way gets other classes, void (255) becomes a class, and
#   no reader can tell: the file is a valid palette PNG that looks the same.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" --disable-pip-version-check --quiet install numpy==2.4.6 pillow==13.0.0 pyoxipng==9.1.1
cd "$work"
"$work/venv/bin/python" - <<'PY'
import numpy as np
import oxipng
from PIL import Image

labels = np.zeros((512, 683), np.uint8)
down, right = np.mgrid[:512, :683]
for label, y, x in ((7, 100, 150), (26, 300, 500), (255, 400, 100)):
    labels[((down - y) / 60) ** 2 + ((right - x) / 90) ** 2 < 1] = label
colours = np.zeros((256, 3), np.uint8)
for label in range(256):  # the colour map of PASCAL VOC
    for bit in range(8):
        for channel in range(3):
            colours[label, channel] |= (label >> 3 * (7 - bit) + channel & 1) << bit
coloured = Image.fromarray(labels)
coloured.putpalette(colours.ravel().tolist())
coloured.save('palette.png')
Image.fromarray(labels).save('gray.png')

keep = {'palette_reduction': False, 'grayscale_reduction': False, 'color_type_reduction': False}
for kind in ('palette', 'gray'):
    for level in (0, 2, 4):
        oxipng.optimize(f'{kind}.png', 'smaller.png', level=level)
        smaller = Image.open('smaller.png')
        print(f'{kind}, level {level}: mode {smaller.mode}, labels', np.unique(np.array(smaller)).tolist())
        assert smaller.mode == 'P' and np.unique(np.array(smaller)).tolist() == [0, 1, 2, 3]
        looks = colours[labels] if kind == 'palette' else np.stack([labels] * 3, -1)
        assert (np.array(smaller.convert('RGB')) == looks).all(), 'colours must be intact'
        oxipng.optimize(f'{kind}.png', 'kept.png', level=level, **keep)
        assert (np.array(Image.open('kept.png')) == labels).all()
PY
