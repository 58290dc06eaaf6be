#!/usr/bin/env bash
# A boolean mask comes back from a .mat file as numbers, and then selects other pixels.
#
# Versions: scipy 1.17.1, numpy 2.4.6.
# Guess: scipy.io.savemat and loadmat keep a boolean mask boolean (MATLAB has a logical class for it).
# Seen: it is written as logical (whosmat says so) and loaded as uint8. As an index it then picks rows 0 and 1 instead
#   of pixels, and ~mask is 255 or 254, true everywhere. mat_dtype=True gives bool. Vectors come back as (1, n).
# Why it matters: the Semantic Boundaries Dataset (VOC's trainaug), BSDS500 and many older sets of masks are .mat
#   files. image[mask] raises nothing and has another shape, which a mean over it does not show.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" --disable-pip-version-check --quiet install numpy==2.4.6 scipy==1.17.1
cd "$work"
"$work/venv/bin/python" - <<'PY'
import numpy as np
from scipy.io import loadmat, savemat, whosmat

mask = np.zeros((4, 5), bool)
mask[2:, 3:] = True
image = np.arange(20.0).reshape(4, 5)
savemat('mask.mat', {'mask': mask, 'categories': np.arange(3)})
found = loadmat('mask.mat')
print(whosmat('mask.mat'), 'loaded as', found['mask'].dtype, 'vector', found['categories'].shape)
loaded = image[found['mask']]
print('mean inside', image[mask].mean(), 'with the loaded mask', loaded.mean(), loaded.shape)
print('not mask, loaded:', np.unique(~found['mask']))
assert dict((name, kind) for name, _, kind in whosmat('mask.mat'))['mask'] == 'logical'
assert found['mask'].dtype == np.uint8 and found['categories'].shape == (1, 3)
assert image[mask].shape == (4,) and loaded.shape == (4, 5, 5)
assert (~found['mask']).all()
assert loadmat('mask.mat', mat_dtype=True)['mask'].dtype == bool
PY
