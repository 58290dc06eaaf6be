"""Scores of whole clips: whether segments stay with their objects from frame to frame. Label maps in, numbers out.

A clip's frames side by side are one image, so that an object and a segment that keep their numbers count once::

    FG-ARI, mBO    of that image, with the first frame and without
    flicker        share of pixels that change slot, of those (all, or objects' alone) whose true object stays the same
    kept slot      share of returns after which the slot that overlaps the object most (IoU) is the one of before
    kept code      the same of the slots' codes; by chance: of any slot of the later frame

An object returns where it is seen (with at least ``SEEN`` of the pixels of its fullest frame), then hidden, by another
or by the border (with at most ``HIDDEN`` of them), then seen again.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from topdown.data.base import crop_masks
from topdown.evaluate import metrics
from topdown.evaluate.truth import TruthSet

SEEN, HIDDEN = 0.5, 0.1


def returns(area_TO: Tensor) -> list[tuple[int, int, int]]:
    """Object, last frame in which it was seen before, and first one after, of every return; from visible pixels."""
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


def score_clip(labels_TMM: Tensor, truth_TMM: Tensor, codes_TK: Tensor | None = None) -> tuple[dict, dict]:
    """Scores of one clip from the slot and the true label (0: background) of every pixel and the code of every slot.

    Returns:
        Shares ``clip_fg_ari``, ``clip_mbo_i``, ``flicker`` and ``flicker_objects``, NaN where there is nothing to
        count, the first two with ``_later`` without the first frame. Lists with a number for every return:
        ``kept_slot`` and, with codes, ``kept_code`` and ``kept_code_chance``.
    """
    row = {}
    for suffix, first in (('', 0), ('_later', 1)):
        joint = metrics.joint_histogram(*(x[first:].reshape(1, 1, -1) for x in (truth_TMM, labels_TMM))).double()
        overlap, there = metrics.iou(joint)
        row[f'clip_fg_ari{suffix}'] = metrics.fg_ari(joint).item()
        row[f'clip_mbo_i{suffix}'] = (overlap.amax(2).sum() / there.sum()).item()
    still, changed = truth_TMM[1:] == truth_TMM[:-1], labels_TMM[1:] != labels_TMM[:-1]
    row['flicker'] = changed[still].double().mean().item()
    row['flicker_objects'] = changed[still & (truth_TMM[1:] > 0)].double().mean().item()
    joint = metrics.joint_histogram(truth_TMM, labels_TMM).double()
    best, found = metrics.iou(joint)[0].argmax(2), returns(joint[:, 1:].sum(2))
    kept = {'kept_slot': [float(best[t, o] == best[u, o]) for o, t, u in found]}
    if codes_TK is not None:
        same = [codes_TK[u] == codes_TK[t, best[t, o]] for o, t, u in found]
        kept['kept_code'] = [float(known[best[u, o]]) for known, (o, _, u) in zip(same, found, strict=True)]
        kept['kept_code_chance'] = [float(known.double().mean()) for known in same]
    return row, kept


def score_clips(labels_VMM: Tensor, data: TruthSet, codes_VK: Tensor | None = None) -> dict[str, float]:
    """Means of ``score_clip`` over a set's whole clips and over all returns, in percent; ``returns``, their number."""
    frames, resize, found = data.dataset.frames, data.main_truth.protocol.mask_resize, []
    for start in range(0, len(data) - frames + 1, frames):
        truth = data.dataset.read_clip_annotation((data.first + start) // frames).labels
        parts = [x if x is None else x[start : start + frames] for x in (labels_VMM, codes_VK)]
        found.append(score_clip(parts[0], torch.from_numpy(crop_masks(truth, data.mask_size, resize)), parts[1]))
    means = metrics.summarize(row for row, _ in found)
    kept = {name: np.concatenate([part[name] for _, part in found]) for name in found[0][1]}
    means |= {name: 100 * values.mean() if len(values) else np.nan for name, values in kept.items()}
    return {**means, 'returns': len(kept['kept_slot'])}
