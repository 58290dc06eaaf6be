#!/usr/bin/env bash
# scikit-image's adapted Rand error leaves out the truth's label 0 unless told otherwise, and is not 1 - ARI.
#
# Versions: scikit-image 0.26.0, scikit-learn 1.9.1, numpy 2.4.6.
# Guess: adapted_rand_error(truth, prediction) counts every pixel; ignore_labels=(0,) makes it a foreground score.
# Seen: ignore_labels IS (0,) if nothing is said; () counts every pixel. Neither value is one minus the adjusted Rand
#   index of the same pixels (0.308 against 0.555 here on the foreground): it is not adjusted for chance. Where no
#   foreground is left, or where every object is one pixel, it is NaN.
# Why it matters: it is scikit-image's only Rand score of segmentations. Beside FG-ARI its values look like a much
#   better model, and ARI with background cannot be had from it without knowing of the switch.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" --disable-pip-version-check --quiet install numpy==2.4.6 scikit-image==0.26.0 scikit-learn==1.9.1
cd "$work"
"$work/venv/bin/python" -W ignore - <<'PY'
import numpy as np
from skimage.metrics import adapted_rand_error
from sklearn.metrics import adjusted_rand_score

truth, prediction = np.zeros((2, 8, 8), int)
truth[:4], truth[4:6] = 1, 2
prediction[:3], prediction[3:5] = 1, 2
default = adapted_rand_error(truth, prediction)[0]
foreground = adapted_rand_error(truth, prediction, ignore_labels=(0,))[0]
everything = adapted_rand_error(truth, prediction, ignore_labels=())[0]
kept = truth > 0
fg_ari, ari = adjusted_rand_score(truth[kept], prediction[kept]), adjusted_rand_score(truth.ravel(), prediction.ravel())
print(f'default {default:.3f}, foreground {foreground:.3f}, everything {everything:.3f}')
print(f'1 - FG-ARI {1 - fg_ari:.3f}, 1 - ARI {1 - ari:.3f}')
assert default == foreground != everything
assert abs(default - 0.3077) < 1e-4 and abs(1 - fg_ari - 0.5547) < 1e-4
assert abs(everything - 0.3182) < 1e-4 and abs(1 - ari - 0.4884) < 1e-4
nothing = np.zeros((4, 4), int)
single = np.arange(16).reshape(4, 4)
print('no foreground', adapted_rand_error(nothing, nothing)[0], 'single pixels', adapted_rand_error(single, single)[0])
assert np.isnan(adapted_rand_error(nothing, nothing)[0]) and np.isnan(adapted_rand_error(single, single)[0])
PY
