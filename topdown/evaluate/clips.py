"""Scores of whole clips: whether segments stay with their objects from frame to frame. Label maps in, numbers out.

A clip's frames side by side are one image, so that an object and a segment that keep their numbers count once::

    FG-ARI, mBO    of that image, with the first frame and without
    flicker        share of pixels, of those whose true object is the same in a frame and the next, that change slot;
                   over all pixels, and over those of objects
    kept slot      share of returns after which the slot that overlaps the object most (IoU) is the one of before
    kept code      the same of the slots' codes

An object returns where it is seen, then hidden (by another or by the image's border), then seen again. It is seen in a
frame with at least ``SEEN`` of the pixels that it has in the frame where it has most, and hidden with at most
``HIDDEN``; before and after are the nearest frames in which it is seen.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from topdown.data.base import crop_masks
from topdown.evaluate import metrics
from topdown.evaluate.truth import TruthSet

SEEN, HIDDEN = 0.5, 0.1


def clip_truth(data: TruthSet) -> Tensor:
    """True labels (C, T, M, M) of a set's whole clips, 0 for background; an object keeps its number in a clip."""
    frames = data.dataset.frames
    clips = range(-(-data.first // frames), (data.first + len(data)) // frames)
    resize = data.main_truth.protocol.mask_resize
    parts = [crop_masks(data.dataset.read_clip_annotation(c).labels, data.mask_size, resize) for c in clips]
    return torch.from_numpy(np.stack(parts))


def returns(area_TO: Tensor) -> list[tuple[int, int, int]]:
    """Object, last frame in which it was seen before and first one after, of every return.

    Args:
        area_TO: visible pixels of every object in every frame.
    """
    found = []
    for o, area in enumerate(area_TO.T.tolist()):
        last, gone = -1, False
        for t, pixels in enumerate(area):
            if pixels > 0 and pixels >= SEEN * max(area):
                if gone and last >= 0:
                    found.append((o, last, t))
                last, gone = t, False
            gone = gone or pixels <= HIDDEN * max(area)
    return found


def score_clip(labels_TMM: Tensor, truth_TMM: Tensor, codes_TK: Tensor | None = None) -> dict[str, float]:
    """Scores of one clip, as shares; NaN where there is nothing to count.

    Args:
        labels_TMM: predicted labels, the slot of every pixel.
        truth_TMM: true labels, 0 for background.
        codes_TK: code of every slot in every frame.

    Returns:
        ``clip_fg_ari`` and ``clip_mbo_i``, and with the suffix ``_later`` without the first frame; ``flicker`` and
        ``flicker_objects``; ``returns``, their number; ``kept_slot`` and, with codes, ``kept_code``.
    """
    row = {}
    for suffix, first in (('', 0), ('_later', 1)):
        joint = metrics.joint_histogram(truth_TMM[first:].flatten()[None, None], labels_TMM[first:].flatten()[None, None])
        overlap, there = metrics.iou(joint.double())
        row[f'clip_fg_ari{suffix}'] = metrics.fg_ari(joint.double()).item()
        row[f'clip_mbo_i{suffix}'] = (overlap.amax(2).sum() / there.sum()).item()
    still, changed = truth_TMM[1:] == truth_TMM[:-1], labels_TMM[1:] != labels_TMM[:-1]
    for name, among in (('flicker', still), ('flicker_objects', still & (truth_TMM[1:] > 0))):
        row[name] = changed[among].double().mean().item()
    joint = metrics.joint_histogram(truth_TMM, labels_TMM).double()
    best = metrics.iou(joint)[0].argmax(2)  # (T, O)
    found = returns(joint[:, 1:].sum(2))
    pairs = [(before, best[before, o], after, best[after, o]) for o, before, after in found]
    row |= {'returns': len(pairs), 'kept_slot': _share([slot == later for _, slot, _, later in pairs])}
    if codes_TK is not None:
        row['kept_code'] = _share([codes_TK[t, slot] == codes_TK[u, later] for t, slot, u, later in pairs])
    return row


def score_clips(labels_VMM: Tensor, data: TruthSet, codes_VK: Tensor | None = None) -> dict[str, float]:
    """Scores of a set's whole clips in percent: means over clips, but ``kept_slot`` and ``kept_code`` over all returns.

    Arguments as for ``score_clip``, of all images of the set; ``returns`` is the number of all.
    """
    frames, truth = data.dataset.frames, clip_truth(data)
    skipped = -data.first % frames
    rows = []
    for c, true in enumerate(truth):
        part = slice(skipped + c * frames, skipped + (c + 1) * frames)
        rows.append(score_clip(labels_VMM[part], true, None if codes_VK is None else codes_VK[part]))
    found, counts = metrics.summarize(rows), np.array([row['returns'] for row in rows], float)
    found['returns'] = float(counts.sum())
    for name in {'kept_slot', 'kept_code'} & set(found):
        kept = np.nan_to_num([row[name] for row in rows]) @ counts
        found[name] = 100 * kept / counts.sum() if counts.sum() else float('nan')
    return found


def _share(values: list[Tensor]) -> float:
    return float(np.mean([bool(value) for value in values])) if values else float('nan')
