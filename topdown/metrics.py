"""Segmentation metrics of object-centric learning: label maps in, numbers out. Knows no model.

Everything comes from one joint histogram per image, J[o, k] = number of pixels with true label o and predicted
label k. Labels are integers; truth label 0 is background and ``IGNORE`` marks pixels left out altogether.

Metrics (per image; means over images are taken by ``summarize``)::

    FG-ARI   adjusted Rand index (Hubert and Arabie 1985) over foreground pixels only
    mBO      mean over true objects of max_k IoU(o, k)                 (Pont-Tuset et al. 2017)
    mIoU     mean over true objects of IoU under the best one-to-one matching, 0 for unmatched objects

mBO over instance masks is mBO_i, over class masks mBO_c.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from scipy.optimize import linear_sum_assignment

IGNORE = -1


def instance_labels(masks: np.ndarray, keep: np.ndarray | None = None) -> np.ndarray:
    """Instance masks to one label map under protocol ``oclf``.

    Args:
        masks: (O, H, W) boolean.
        keep: (O,) boolean, which instances count as objects; the others are left to the background.

    Returns:
        (H, W) int64: 0 background, o + 1 for instance o, ``IGNORE`` where two or more kept instances overlap.
    """
    masks = np.asarray(masks, bool)
    if keep is not None:
        masks = masks & np.asarray(keep, bool)[:, None, None]
    if not len(masks):
        return np.zeros(masks.shape[1:], np.int64)
    labels = masks.argmax(0) + 1
    count = masks.sum(0)
    labels[count == 0] = 0
    labels[count > 1] = IGNORE
    return labels


def class_labels(masks: np.ndarray, categories: np.ndarray, keep: np.ndarray | None = None) -> np.ndarray:
    """Instance masks to one map of category ids; where classes overlap, the higher id wins (protocol ``oclf``).

    Args:
        masks: (O, H, W) boolean.
        categories: (O,) positive category ids.
        keep: (O,) boolean, which instances count.

    Returns:
        (H, W) int64, 0 for background.
    """
    labels = np.zeros(np.shape(masks)[1:], np.int64)
    for o in np.argsort(categories, kind='stable'):
        if keep is None or keep[o]:
            labels[np.asarray(masks[o], bool)] = categories[o]
    return labels


def joint_histogram(truth: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    """Intersections of every true with every predicted segment.

    Args:
        truth: integer label map; 0 background, ``IGNORE`` left out.
        prediction: integer label map of the same shape, labels >= 0.

    Returns:
        J (1 + O, P) int64: row 0 is background, one further row per true label that occurs, in ascending order;
        one column per predicted label that occurs.

    Raises:
        ValueError: if shapes differ or a predicted label is negative.
    """
    truth, prediction = np.asarray(truth), np.asarray(prediction)
    if truth.shape != prediction.shape:
        raise ValueError(f'truth {truth.shape} and prediction {prediction.shape} must have the same shape')
    if prediction.size and prediction.min() < 0:
        raise ValueError('predicted labels must not be negative')
    valid = truth != IGNORE
    truth, prediction = truth[valid].astype(np.int64), prediction[valid].astype(np.int64)
    if not truth.size:
        return np.zeros((1, 1), np.int64)
    rows, columns = int(truth.max()) + 1, int(prediction.max()) + 1
    joint = np.bincount(truth * columns + prediction, minlength=rows * columns).reshape(rows, columns)
    occurs = joint.any(1)
    occurs[0] = True
    return joint[occurs][:, joint.any(0)]


def fg_ari(joint: np.ndarray) -> float:
    """Foreground adjusted Rand index from a joint histogram.

    Edge cases, as the public evaluators have them: no foreground pixel gives 1; a single true object gives 1 if
    one segment covers it and 0 otherwise.
    """
    joint = joint[1:].astype(np.float64)
    pairs = _pairs(joint).sum()
    true_pairs, predicted_pairs = _pairs(joint.sum(1)).sum(), _pairs(joint.sum(0)).sum()
    all_pairs = _pairs(joint.sum())
    if all_pairs == 0:
        return 1.0
    expected = true_pairs * predicted_pairs / all_pairs
    best = (true_pairs + predicted_pairs) / 2
    return 1.0 if best == expected else float((pairs - expected) / (best - expected))


def iou(joint: np.ndarray) -> np.ndarray:
    """(O, P) intersection over union of true objects (rows 1 and on) and predicted segments."""
    union = joint.sum(1, keepdims=True) + joint.sum(0, keepdims=True) - joint
    return joint[1:] / np.maximum(union[1:], 1)


def mean_best_overlap(joint: np.ndarray) -> float:
    """mBO; NaN for an image without objects, which the mean over images skips."""
    overlap = iou(joint)
    return float(overlap.max(1).mean()) if len(overlap) else float('nan')


def mean_iou(joint: np.ndarray) -> float:
    """mIoU under Hungarian matching, unmatched objects counting 0; NaN for an image without objects."""
    overlap = iou(joint)
    if not len(overlap):
        return float('nan')
    rows, columns = linear_sum_assignment(overlap, maximize=True)
    return float(overlap[rows, columns].sum() / len(overlap))


def score_image(
    prediction: np.ndarray, masks: np.ndarray, categories: np.ndarray, keep: np.ndarray | None = None
) -> dict[str, float]:
    """All metrics of one image under protocol ``oclf``, as shares (not percent).

    Args:
        prediction: (H, W) predicted labels >= 0.
        masks: (O, H, W) true instance masks, overlaps allowed.
        categories: (O,) category ids.
        keep: (O,) which instances count as objects; None for all.

    Returns:
        fg_ari, mbo_i, mbo_c, miou.
    """
    joint = joint_histogram(instance_labels(masks, keep), prediction)
    by_class = joint_histogram(class_labels(masks, categories, keep), prediction)
    return {
        'fg_ari': fg_ari(joint),
        'mbo_i': mean_best_overlap(joint),
        'mbo_c': mean_best_overlap(by_class),
        'miou': mean_iou(joint),
    }


def summarize(rows: Iterable[dict[str, float]]) -> dict[str, float]:
    """Means over images in percent; images where a metric is NaN (no object) are skipped for it."""
    rows = list(rows)
    if not rows:
        raise ValueError('no images to summarize')
    result = {}
    for name in rows[0]:
        values = np.array([row[name] for row in rows], float)
        result[name] = 100 * float(np.nanmean(values)) if not np.isnan(values).all() else float('nan')
    return result


def _pairs(count: np.ndarray) -> np.ndarray:
    return count * (count - 1) / 2
