#!/usr/bin/env bash
# Labels in a gray PNG of 2 or 4 bits are multiplied when they are read.
#
# Versions: pypng 0.20220715.0, Pillow 13.0.0, imageio 2.38.1, imagecodecs 2026.3.6, numpy 2.4.6.
# Guess: labels 0 to 3, written as gray values of 2 bits, are read as 0 to 3, as they are from a palette PNG of 2
#   bits.
# Seen: Pillow, imageio and imagecodecs stretch gray values to 8 bits: 0, 1, 2, 3 become 0, 85, 170, 255, and with 4
#   bits 0, 17, 34, 51. Only pypng itself gives the stored numbers. From a palette PNG of the same depth Pillow gives
#   0, 1, 2, 3.
# Why it matters: where the number is a class (ADE20K, VOC) class 3 is read as class 255, or as void; where it is only
#   a name (a folder of instance labels) nothing happens. The two kinds of PNG cannot be told apart by looking at
#   them.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" --disable-pip-version-check --quiet install numpy==2.4.6 pillow==13.0.0 pypng==0.20220715.0 \
    imageio==2.38.1 imagecodecs==2026.3.6
cd "$work"
"$work/venv/bin/python" - <<'PY'
import imagecodecs
import imageio.v3
import numpy as np
import png
from PIL import Image

labels = np.arange(16, dtype=np.uint8).reshape(4, 4) // 4
colours = [(60 * n, 10 * n, 255 - 9 * n) for n in range(4)]
for depth, factor in ((2, 85), (4, 17)):
    with open('gray.png', 'wb') as file:
        png.Writer(4, 4, greyscale=True, bitdepth=depth).write(file, labels.tolist())
    with open('palette.png', 'wb') as file:
        png.Writer(4, 4, palette=colours, bitdepth=depth).write(file, labels.tolist())
    with open('gray.png', 'rb') as file:
        stored = np.array([list(row) for row in png.Reader(file=file).read()[2]])
    with open('gray.png', 'rb') as file:
        codecs = imagecodecs.png_decode(file.read())
    pillow, palette = np.array(Image.open('gray.png')), np.array(Image.open('palette.png'))
    print(depth, 'bits: pypng', np.unique(stored).tolist(), 'Pillow', np.unique(pillow).tolist(),
          'imagecodecs', np.unique(codecs).tolist(), 'Pillow, palette', np.unique(palette).tolist())
    assert (stored == labels).all() and (palette == labels).all()
    assert (pillow == labels * factor).all() and (codecs == labels * factor).all()
    assert (imageio.v3.imread('gray.png') == labels * factor).all()
PY
