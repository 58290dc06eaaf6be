"""What the evaluators of bench and slotdiffusion do to one image, pixel by pixel and pair by pair."""

import numpy as np

from .metrics import mean_iou, pair_counting_ari


def iou_table(truth, prediction, rows, extra=()):
    """IoU of truth == row (rows) with every predicted label (columns) over all pixels; unlabelled ones are -1."""
    labels = sorted(set(prediction.ravel().tolist()) | set(extra))
    return [
        [((truth == o) & (prediction == k)).sum() / max(1, ((truth == o) | (prediction == k)).sum()) for k in labels]
        for o in rows
    ]


def compacted(labels):
    """0, 1, 2, ... instead of the labels that occur, in their order."""
    names = {label: number for number, label in enumerate(sorted(set(labels.ravel().tolist())))}
    return np.vectorize(names.get)(labels)


def slotdiffusion(prediction, masks, categories, keep, void=None):
    """FG-ARI, ARI, mBO and mIoU over instances (_i) and classes (_c)."""
    height, width = prediction.shape
    painted = {'i': np.zeros((height, width), int), 'c': np.zeros((height, width), int)}
    covered = np.zeros((height, width), int)
    ranks = {category: number for number, category in enumerate(sorted(set(categories.tolist())), 1)}
    for o, mask in enumerate(masks):
        if not keep[o]:
            continue
        for place in zip(*np.nonzero(mask)):
            painted['i'][place] = o + 1
            painted['c'][place] = ranks[categories[o]]
            covered[place] += 1
    overlap = covered > 1
    if void is not None:
        overlap = overlap | void
        for labels in painted.values():
            labels[void] = 0
    found = {}
    for over, labels in painted.items():
        truth, segments = compacted(labels), prediction.copy()
        truth[overlap] = 0
        segments[overlap] = prediction.max() + 1
        objects = list(range(1, truth.max() + 1))
        inside = truth > 0
        found[f'fg_ari_{over}'] = pair_counting_ari(truth[inside], segments[inside])
        found[f'ari_{over}'] = pair_counting_ari(truth.ravel(), segments.ravel())
        best = [max(row) for row in iou_table(truth, segments, objects)]
        found[f'mbo_{over}'] = np.mean(best) if best else np.nan
        found[f'miou_{over}'] = mean_iou(iou_table(truth, segments, [0, *objects]))
    return found


def bench(prediction, segments, skip=()):
    """FG-ARI, ARI, mBO and mIoU of segments (H, W): 0 background, things from 1, -1 no segment."""
    found = {}
    for name, rows in (('fg_ari', segments > 0), ('ari', segments >= 0)):
        found[name] = pair_counting_ari(segments[rows], prediction[rows]) if rows.any() else np.nan
    objects = [o for o in sorted(set(segments.ravel().tolist())) if o >= 0 and o not in skip]
    table = iou_table(segments, prediction, objects)
    found['mbo_i'] = np.mean([max(row) for row in table]) if objects else np.nan
    found['miou'] = mean_iou(table) if objects else np.nan
    return found


def nearest_as_opencv(array, height, width):
    """Every pixel shows the one at its place times old / new, rounded down."""
    rows = [min(int(y * (1 / (height / array.shape[0]))), array.shape[0] - 1) for y in range(height)]
    columns = [min(int(x * (1 / (width / array.shape[1]))), array.shape[1] - 1) for x in range(width)]
    return np.array([[array[y, x] for x in columns] for y in rows])


def linear_as_opencv(array, height, width):
    """(H, W, 3) uint8: every pixel is a mean of the four around its centre, by distance; no filter before it."""

    def weights(old, new):
        found = np.zeros((new, old))
        for i in range(new):
            place = min(max((i + 0.5) * old / new - 0.5, 0), old - 1)
            low = min(int(place), old - 2)
            found[i, low], found[i, low + 1] = 1 - (place - low), place - low
        return found

    mixed = np.einsum(
        'yh,hwc,xw->yxc', weights(array.shape[0], height), array.astype(float), weights(array.shape[1], width)
    )
    return np.floor(mixed + 0.5)


def _counts(truth, prediction):
    return np.array(
        [[((truth == o) & (prediction == k)).sum() for k in np.unique(prediction)] for o in np.unique(truth)]
    )


def exact_ari(truth, prediction):
    """Adjusted Rand index by whole numbers of any size."""
    from fractions import Fraction

    def pairs(counts):
        return sum(int(n) * (int(n) - 1) for n in np.ravel(counts))

    table = _counts(truth, prediction)
    rows, columns, both = pairs(table.sum(1)), pairs(table.sum(0)), pairs(table)
    expected = Fraction(rows * columns, pairs(table.sum()))
    return float((both - expected) / (Fraction(rows + columns, 2) - expected))


def int64_ari(truth, prediction):
    """The same with products of 64 bits, as the released evaluator has it."""
    table = _counts(truth, prediction).astype(np.int64)
    rows, columns, total = table.sum(1), table.sum(0), table.sum()
    rows, columns = (rows * (rows - 1)).sum(keepdims=True), (columns * (columns - 1)).sum(keepdims=True)
    expected = rows * columns / (total * (total - 1))
    return float((((table * (table - 1)).sum() - expected) / ((rows + columns) / 2 - expected))[0])
