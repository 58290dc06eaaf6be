#!/usr/bin/env bash
# litdata stores a file's content in the place of its name.
#
# Versions: litdata 0.2.76, torch 2.14.1, torchvision 0.29.1, numpy 2.4.6, Pillow 13.0.0.
# Guess: a text in a sample is stored as that text.
# Seen: if the text happens to be the path of a file that exists where optimize runs, the FILE is stored, and an image
#   comes back as a tensor. The same sample made in another folder keeps its text. A bfloat16 tensor is refused with a
#   TypeError, and a palette image comes back without its palette (labels intact, every colour black).
# Why it matters: file_name, image_id, mask_path are fields of nearly every sample here; whether they are texts then
#   depends on the working folder, and an image is stored twice.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" --disable-pip-version-check --quiet install numpy==2.4.6 pillow==13.0.0 torch==2.14.1 \
    torchvision==0.29.1 litdata==0.2.76
mkdir "$work/with_image" "$work/without_image"
cat > "$work/case.py" <<'PY'
import sys

import litdata
import numpy as np
import torch
from litdata.streaming.serializers import TensorSerializer
from PIL import Image


def sample(number):
    labels = Image.fromarray(np.full((16, 16), 3, np.uint8))
    labels.putpalette([(30 * n + 50 * c) % 256 for n in range(256) for c in range(3)])
    return {'number': number, 'file_name': '000001.png', 'labels': labels}


if __name__ == '__main__':
    there = sys.argv[1] == 'there'
    if there:
        Image.fromarray(np.full((16, 16), 200, np.uint8)).save('000001.png')
    litdata.optimize(sample, inputs=[0, 1], output_dir='chunks', num_workers=1, chunk_size=2)
    found = litdata.StreamingDataset('chunks')[0]
    name, labels = found['file_name'], found['labels']
    print('file there:' if there else 'no such file:', type(name), name if isinstance(name, str) else tuple(name.shape))
    if there:
        assert isinstance(name, torch.Tensor) and name.shape[-2:] == (16, 16) and name.unique().tolist() == [200], name
    else:
        assert name == '000001.png', name
    assert np.unique(np.array(labels)).tolist() == [3] and np.unique(np.array(labels.convert('RGB'))).tolist() == [0]
    try:
        TensorSerializer().serialize(torch.ones(2, 2, dtype=torch.bfloat16))
    except TypeError as error:
        print('bfloat16:', error)
    else:
        raise AssertionError('bfloat16 is stored now')
PY
export OMP_NUM_THREADS=1 HOME="$work"
(cd "$work/with_image" && "$work/venv/bin/python" -W ignore ../case.py there)
(cd "$work/without_image" && "$work/venv/bin/python" -W ignore ../case.py missing)
