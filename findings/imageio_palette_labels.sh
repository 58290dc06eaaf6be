#!/usr/bin/env bash
# Which readers give the labels of a palette PNG, and which its colours.
#
# Versions: Pillow 13.0.0, imageio 2.38.1, scikit-image 0.26.0, imagecodecs 2026.3.6, mediapy 1.2.7, numpy 2.4.6.
# Guess: imageio, scikit-image and imagecodecs read what is stored, one number a pixel, as Pillow does; mediapy, made
#   for showing images, gives colours.
# Seen: the other way round. imageio, scikit-image and imagecodecs give colours (H, W, 3); mediapy gives the labels.
#   imageio gives the labels with mode='P'.
# Why it matters: masks of VOC, DAVIS and the exports of most labelling tools are palette PNGs. Colours turned gray
#   are still small integers, of which every metric can be computed, and classes of like brightness become one.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" --disable-pip-version-check --quiet install numpy==2.4.6 pillow==13.0.0 imageio==2.38.1 \
    scikit-image==0.26.0 imagecodecs==2026.3.6 mediapy==1.2.7
cd "$work"
"$work/venv/bin/python" - <<'PY'
import imagecodecs
import imageio.v3
import mediapy
import numpy as np
import skimage.io
from PIL import Image

labels = np.zeros((8, 9), np.uint8)
labels[1:4, 1:4], labels[5:7, 2:8] = 7, 26
picture = Image.fromarray(labels)
picture.putpalette([(37 * n + 90 * c) % 256 for n in range(256) for c in range(3)])
picture.save('labels.png')
with open('labels.png', 'rb') as file:
    data = file.read()
found = {
    'Pillow': np.array(Image.open('labels.png')),
    'imageio': imageio.v3.imread('labels.png'),
    'imageio, mode P': imageio.v3.imread('labels.png', mode='P'),
    'scikit-image': skimage.io.imread('labels.png'),
    'imagecodecs': imagecodecs.png_decode(data),
    'mediapy': mediapy.read_image('labels.png'),
}
for name, array in found.items():
    print(f'{name:16}', array.shape, 'labels' if np.array_equal(array, labels) else 'colours')
for name in ('Pillow', 'imageio, mode P', 'mediapy'):
    assert np.array_equal(found[name], labels), name
for name in ('imageio', 'scikit-image', 'imagecodecs'):
    assert found[name].shape == (8, 9, 3), name
PY
