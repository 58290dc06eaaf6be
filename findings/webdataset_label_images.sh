#!/usr/bin/env bash
# WebDataset's decoding of a gray image is no way to read labels.
#
# Versions: webdataset 1.0.2, Pillow 13.0.0, numpy 2.4.6.
# Guess: decode('l8') gives the numbers that a label PNG holds: indices of a palette PNG, gray values of the others.
# Seen: labels in a palette PNG become the brightness of their colours. 16-bit labels are cut off at 255: 300 and 600
#   become one label, although the writer had stored them exactly. 8-bit gray PNGs are right. No error, no warning.
# Why it matters: shards of VOC, DAVIS (palette) and Cityscapes' instanceIds (16 bits) decode to plausible maps with
#   wrong or merged objects. A field named npy keeps any label.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" --disable-pip-version-check --quiet install numpy==2.4.6 pillow==13.0.0 webdataset==1.0.2
cd "$work"
"$work/venv/bin/python" - <<'PY'
import io

import numpy as np
import webdataset
from PIL import Image

labels = np.zeros((8, 8), np.uint8)
labels[1:3, 1:3], labels[5:7, 5:7] = 1, 2
picture = Image.fromarray(labels)
picture.putpalette([(50 * n + 40 * n * c) % 256 for n in range(256) for c in range(3)])
buffer = io.BytesIO()
picture.save(buffer, 'PNG')
wide = labels.astype(np.uint16) * 300
with webdataset.TarWriter('shard.tar') as shard:
    fields = {'palette.png': buffer.getvalue(), 'gray.png': labels, 'wide.png': wide, 'wide.npy': wide}
    shard.write({'__key__': 'a', **fields})
raw = next(iter(webdataset.WebDataset('shard.tar', shardshuffle=False)))
found = next(iter(webdataset.WebDataset('shard.tar', shardshuffle=False).decode('l8')))
for name in ('palette.png', 'gray.png', 'wide.png', 'wide.npy'):
    print(name, np.unique(found[name]).tolist())
assert (found['gray.png'] == labels).all() and (found['wide.npy'] == wide).all()
assert (np.array(Image.open(io.BytesIO(raw['wide.png']))) == wide).all(), 'the writer must have stored it exactly'
assert (np.array(Image.open(io.BytesIO(raw['palette.png']))) == labels).all()
assert np.unique(found['palette.png']).tolist() == np.unique(np.array(picture.convert('L'))).tolist() != [0, 1, 2]
assert np.unique(found['wide.png']).tolist() == [0, 255]
PY
