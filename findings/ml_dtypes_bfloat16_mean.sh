#!/usr/bin/env bash
# NumPy's mean of a bfloat16 array is wrong by a factor of four at 1,000 values.
#
# Versions: ml_dtypes 0.6.0, numpy 2.4.6.
# Guess: np.mean adds bfloat16 in float32, as it adds float16: the mean of ones is 1.
# Seen: ones are added in bfloat16, where 256 + 1 is 256: the sum of 1,000 ones is 256, their mean 0.2559, their
#   standard deviation 0.504 instead of 0, np.nanmean the same; along an axis, too. The product b @ b is right (1000),
#   the median also, and mean(dtype=np.float32). np.save drops the type: it is loaded as raw pairs of bytes ('V2').
# Why it matters: features of a frozen encoder are stored in bfloat16, and their mean and spread set up a codebook or
#   a normalisation. A mean over a few tokens is right and hides it.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" --disable-pip-version-check --quiet install numpy==2.4.6 ml_dtypes==0.6.0
cd "$work"
"$work/venv/bin/python" - <<'PY'
import ml_dtypes
import numpy as np

ones = np.ones((1000, 4), ml_dtypes.bfloat16)
half = np.ones((1000, 4), np.float16)
print('bfloat16: sum', ones.sum(0), 'mean', ones.mean(0), 'spread', ones.std(0))
print('float16:  sum', half.sum(0), 'mean', half.mean(0), 'spread', half.std(0))
print('bfloat16 in float32: mean', ones.mean(0, dtype=np.float32), 'product', ones[:, 0] @ ones[:, 0])
assert (half.mean(0) == 1).all() and (half.std(0) == 0).all()
assert (ones.sum(0).astype(float) == 256).all()
assert np.allclose(ones.mean(0).astype(float), 0.256, atol=1e-3), ones.mean(0)
assert np.allclose(np.nanmean(ones, 0).astype(float), 0.256, atol=1e-3)
assert np.allclose(ones.std(0).astype(float), 0.504, atol=1e-3), ones.std(0)
assert (ones.mean(0, dtype=np.float32) == 1).all() and float(ones[:, 0] @ ones[:, 0]) == 1000
assert (ones[:8].mean(0).astype(float) == 1).all(), 'a few values must be right'
np.save('features.npy', ones)
print('loaded as', np.load('features.npy').dtype)
assert np.load('features.npy').dtype == np.dtype('V2')
PY
