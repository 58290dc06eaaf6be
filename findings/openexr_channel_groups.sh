#!/usr/bin/env bash
# OpenEXR's Python binding joins R, G and B, and cannot read a file of mixed precision that it wrote itself.
#
# Versions: OpenEXR 3.5.3, numpy 2.4.6.
# Guess: what is written as channels R, G, B and Z is found under R, G, B and Z.
# Seen: R, G and B are one array 'RGB' (height, width, 3), so channels()['R'] is a KeyError; the same behind a layer's
#   name ('segmentation.R' is part of 'segmentation'). If R is float32 and G and B float16, writing works and reading
#   raises; separate_channels=True reads both kinds of file as they were written. Writing puts Channel objects in the
#   place of the arrays of the caller's own dictionary.
# Why it matters: Kubric, from which MOVi and its successors are made, renders layers of depth, flow and segmentation
#   into EXR files. A loader that asks for channels by the names they were written under fails or gets three at once.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" --disable-pip-version-check --quiet install numpy==2.4.6 OpenEXR==3.5.3
cd "$work"
"$work/venv/bin/python" - <<'PY'
import numpy as np
import OpenEXR

HEADER = {'compression': OpenEXR.ZIP_COMPRESSION, 'type': OpenEXR.scanlineimage}
plain, half = np.ones((4, 5), np.float32), np.ones((4, 5), np.float16)


def names(path, **options):
    return {name: channel.pixels.shape for name, channel in OpenEXR.File(path, **options).channels().items()}


layers = {'R': plain, 'G': plain * 2, 'B': plain * 3, 'Z': plain * 10}
layers |= {f'segmentation.{name}': plain for name in 'RGB'}
OpenEXR.File(HEADER, layers).write('scene.exr')
print('written R, G, B, Z, segmentation.R, .G, .B; found', names('scene.exr'))
assert names('scene.exr') == {'RGB': (4, 5, 3), 'Z': (4, 5), 'segmentation': (4, 5, 3)}, names('scene.exr')
assert set(names('scene.exr', separate_channels=True)) == set(layers)
print('the dictionary now holds', type(layers['Z']))
assert isinstance(layers['Z'], OpenEXR.Channel)

OpenEXR.File(HEADER, {'R': plain, 'G': half, 'B': half}).write('mixed.exr')
try:
    names('mixed.exr')
except ValueError as error:
    print('mixed precision:', error)
    assert 'separate_channels=True' in str(error)
else:
    raise AssertionError('mixed precision is read now')
assert set(names('mixed.exr', separate_channels=True)) == {'R', 'G', 'B'}
PY
