"""Scores of whole clips: whether segments stay with their objects from frame to frame. Label maps in, numbers out.

A clip's frames side by side are one image, so that an object and a segment that keep their numbers count once::

    FG-ARI, mBO    of that image, with the first frame and without
    flicker        share of pixels that change slot, of those (all, or objects' alone) whose true object stays the same
    kept slot      share of returns after which the slot that overlaps the object most (IoU) is the one of before
    kept code      the same of the slots' codes

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


def clip_truth(data: TruthSet) -> Tensor:
    """True labels (C, T, M, M) of a set's whole clips, 0 for background; an object keeps its number in a clip."""
    frames, resize = data.dataset.frames, data.main_truth.protocol.mask_resize
    clips = range(data.first // frames, (data.first + len(data)) // frames)
    parts = [crop_masks(data.dataset.read_clip_annotation(c).labels, data.mask_size, resize) for c in clips]
    return torch.from_numpy(np.stack(parts))


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


def score_clip(labels_TMM: Tensor, truth_TMM: Tensor, codes_TK: Tensor | None = None) -> dict[str, float]:
    """Scores of one clip, as shares, from the slot and the true label of every pixel and the code of every slot.

    Returns:
        ``clip_fg_ari``, ``clip_mbo_i``, and without the first frame ``clip_fg_ari_later``, ``clip_mbo_i_later``;
        ``flicker``, ``flicker_objects``; ``returns``, their number; ``kept_slot`` and, with codes, ``kept_code``. NaN
        where there is nothing to count.
    """
    row = {}
    for suffix, first in (('', 0), ('_later', 1)):
        whole = (x[first:].flatten()[None, None] for x in (truth_TMM, labels_TMM))
        joint = metrics.joint_histogram(*whole).double()
        overlap, there = metrics.iou(joint)
        row[f'clip_fg_ari{suffix}'] = metrics.fg_ari(joint).item()
        row[f'clip_mbo_i{suffix}'] = (overlap.amax(2).sum() / there.sum()).item()
    still, changed = truth_TMM[1:] == truth_TMM[:-1], labels_TMM[1:] != labels_TMM[:-1]
    for name, among in (('flicker', still), ('flicker_objects', still & (truth_TMM[1:] > 0))):
        row[name] = changed[among].double().mean().item()
    joint = metrics.joint_histogram(truth_TMM, labels_TMM).double()
    best, found = metrics.iou(joint)[0].argmax(2), returns(joint[:, 1:].sum(2))
    kept = {'kept_slot': [best[t, o] == best[u, o] for o, t, u in found]}
    if codes_TK is not None:
        kept['kept_code'] = [codes_TK[t, best[t, o]] == codes_TK[u, best[u, o]] for o, t, u in found]
    row |= {name: torch.tensor(values, dtype=torch.float64).mean().item() for name, values in kept.items()}
    return {**row, 'returns': len(found)}


def score_clips(labels_VMM: Tensor, data: TruthSet, codes_VK: Tensor | None = None) -> dict[str, float]:
    """Means over a set's whole clips of ``score_clip``, in percent; ``returns`` is their number in all."""
    frames, rows = data.dataset.frames, []
    for c, truth in enumerate(clip_truth(data)):
        part = slice(c * frames, (c + 1) * frames)
        rows.append(score_clip(labels_VMM[part], truth, None if codes_VK is None else codes_VK[part]))
    return {**metrics.summarize(rows), 'returns': sum(row['returns'] for row in rows)}
