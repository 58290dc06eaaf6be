#!/usr/bin/env bash
# The adjusted Rand index of two equal trivial clusterings: 1, or not a number.
#
# Versions: scikit-learn 1.9.1, genieclust 1.3.0, igraph 1.0.0, numpy 2.4.6.
# Guess: genieclust, made for comparing clusterings, gives 1.0 for two equal clusterings whatever they are, as
#   scikit-learn does. (igraph was expected to give NaN.)
# Seen: where both clusterings are one cluster, or both all single points, genieclust and igraph give NaN. On anything
#   else the three agree, also at 320 x 320 pixels.
# Why it matters: FG-ARI of an image with one object, found whole, is such a case, and 1.0 here. With NaN the image
#   drops out of a nanmean or makes the mean NaN: the score of a data set of few objects moves.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" --disable-pip-version-check --quiet install numpy==2.4.6 scikit-learn==1.9.1 \
    genieclust==1.3.0 igraph==1.0.0
cd "$work"
"$work/venv/bin/python" - <<'PY'
import math

import igraph
import numpy as np
from genieclust.compare_partitions import adjusted_rand_score as genie
from sklearn.metrics import adjusted_rand_score as sklearn


def three(truth, prediction):
    other = igraph.compare_communities(truth.tolist(), prediction.tolist(), method='adjusted_rand')
    return sklearn(truth, prediction), genie(truth, prediction), other


one, single = np.zeros(100, int), np.arange(100)
for name, labels in (('one cluster', one), ('single points', single)):
    values = three(labels, labels)
    print(name, 'scikit-learn, genieclust, igraph:', *values)
    assert values[0] == 1 and math.isnan(values[1]) and math.isnan(values[2]), values
assert three(one, single) == (0, 0, 0), three(one, single)
rng = np.random.default_rng(0)
truth = rng.integers(0, 5, 320 * 320)
prediction = np.where(rng.random(truth.size) < 0.7, truth, rng.integers(0, 7, truth.size))
values = three(truth, prediction)
print('320 x 320:', *values)
assert np.allclose(values, values[0], atol=1e-9)
PY
