"""Metrics by brute force over pixels and assignments."""

import itertools

import numpy as np


def overlaps(truth, prediction, ignore=-1):
    """IoU of every true object that occurs (rows) with every predicted label (columns)."""
    valid = truth != ignore
    labels = range(int(prediction.max()) + 1)
    rows = []
    for o in sorted(set(truth[truth > 0].tolist())):
        rows.append([
            ((truth == o) & (prediction == k)).sum() / max(1, ((truth == o) | ((prediction == k) & valid)).sum())
            for k in labels
        ])  # fmt: skip
    return rows


def mean_iou(rows):
    """Best one-to-one assignment, tried exhaustively; unmatched objects count 0."""
    padded = [list(row) + [0.0] * len(rows) for row in rows]
    best = max(
        sum(padded[o][k] for o, k in enumerate(columns))
        for columns in itertools.permutations(range(len(padded[0])), len(padded))
    )
    return best / len(rows)


def foreground(truth, prediction):
    """Pixels of objects, as two flat label arrays."""
    inside = truth > 0
    return truth[inside], prediction[inside]


def every(truth, prediction, ignore=-1):
    """All pixels that count, background included."""
    inside = truth != ignore
    return truth[inside], prediction[inside]


def pair_counting_ari(truth, prediction):
    """Adjusted Rand index by counting pairs of pixels one by one."""
    n = len(truth)
    both = same_truth = same_prediction = 0
    for i, j in itertools.combinations(range(n), 2):
        t, p = truth[i] == truth[j], prediction[i] == prediction[j]
        both, same_truth, same_prediction = both + (t and p), same_truth + t, same_prediction + p
    total = n * (n - 1) / 2
    if not total:
        return 1.0
    expected = same_truth * same_prediction / total
    best = (same_truth + same_prediction) / 2
    return 1.0 if best == expected else float(np.float64(both - expected) / (best - expected))


def class_map(masks, categories, keep, remove):
    """Rank of the category at every pixel: 0 background, -1 left out; pixel by pixel.

    The highest id wins a contested pixel; with ``remove``, pixels of several kept instances are left out.
    """
    ranks = {category: number for number, category in enumerate(sorted(set(categories.tolist())), 1)}
    out = np.zeros(masks.shape[1:], int)
    for place in np.ndindex(out.shape):
        owners = [o for o in range(len(masks)) if keep[o] and masks[(o, *place)]]
        if owners:
            out[place] = ranks[max(categories[o] for o in owners)]
        if remove and len(owners) > 1:
            out[place] = -1
    return out
