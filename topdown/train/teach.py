"""Self-training: the masks of a trained model's decoder teach the slot attention of another one.

As in SPOT (Kakogeorgiou et al. 2024), with A (B, K, N) the student's attention, y_n the teacher's slot of patch n, the
largest of its decoder's masks there, and pi the one-to-one match of slots with the largest sum of IoUs of hard masks::

    loss = -mean_n log A_{pi(y_n), n}
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor


def teaching_loss(attention_BKN: Tensor, masks_BKN: Tensor) -> Tensor:
    """The loss (), with gradients to the student's attention alone, from it and the teacher's masks."""
    slots = attention_BKN.shape[1]
    target = masks_BKN.argmax(dim=1)
    taught, own = (F.one_hot(x, slots).transpose(1, 2).float() for x in (target, attention_BKN.argmax(dim=1)))
    joint = taught @ own.transpose(1, 2)  # (B, K, K), the teacher's slots by the student's
    union = taught.sum(dim=2)[:, :, None] + own.sum(dim=2)[:, None] - joint
    overlap = (joint / union.clamp(min=1)).cpu().numpy()
    match = np.stack([linear_sum_assignment(x, maximize=True)[1] for x in overlap])
    index = torch.from_numpy(match).to(target.device)[:, :, None].expand_as(attention_BKN)
    return F.nll_loss(attention_BKN.gather(1, index).float().clamp(min=1e-8).log(), target)
