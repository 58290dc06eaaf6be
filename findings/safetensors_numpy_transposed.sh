#!/usr/bin/env bash
# A transposed NumPy array is stored wrongly, silently, by safetensors 0.8.0.
#
# Versions: safetensors 0.8.0 (0.7.0 beside it), numpy 2.4.6.
# Guess: safetensors.numpy.save_file stores what the array holds, as 0.7.0 does, or refuses an array that is not
#   contiguous, as safetensors.torch does.
# Seen: 0.8.0 stores the memory in its own order under the array's shape: a transposed array comes back scrambled. No
#   error, no warning; the docstring asks for contiguous arrays. 0.7.0 stores the same array rightly.
# Why it matters: weights of other frameworks are transposed before they are stored for torch (kernels of linear
#   layers are (in, out) there, (out, in) here). Such a file has right names, shapes and types, loads, and gives a bad
#   encoder.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
pip=("$work/venv/bin/pip" --disable-pip-version-check --quiet install)
"${pip[@]}" numpy==2.4.6 safetensors==0.8.0
"${pip[@]}" --no-deps --target "$work/older" safetensors==0.7.0
cat > "$work/case.py" <<'PY'
import numpy as np
import safetensors
from safetensors.numpy import load_file, save_file

kernel = np.arange(6, dtype=np.float32).reshape(2, 3).T  # (in, out) -> (out, in)
save_file({'transposed': kernel, 'copied': np.ascontiguousarray(kernel)}, 'kernel.safetensors')
found = load_file('kernel.safetensors')
print(safetensors.__version__, 'stored', kernel.tolist(), 'found', found['transposed'].tolist())
assert (found['copied'] == kernel).all()
right = bool((found['transposed'] == kernel).all())
if safetensors.__version__ == '0.8.0':
    assert not right, '0.8.0 is right now'
    assert (found['transposed'].ravel() == np.arange(6)).all(), found['transposed']
else:
    assert right, 'the older version is wrong, too'
PY
cd "$work"
"$work/venv/bin/python" case.py
PYTHONPATH="$work/older" "$work/venv/bin/python" case.py
