"""Slot attention: slots compete for patches, collect what they win, and are updated, a few times over.

Dimension letters, used as suffixes here and throughout the package:
B batch, N patches, D feature width, K slots, d slot width, C key/value/query width, H heads, E codebook size.

Equations (Locatello et al. 2020), for one image and every head::

    (1)  A_kn = softmax_k( q_k . k_n / sqrt(C / H) )      competition among slots
    (2)  W_kn = (A_kn + eps) / sum_n (A_kn + eps)         weighted mean over patches
    (3)  U_k  = sum_n W_kn v_n                            what a slot collects
    (4)  S_k <- GRU(U_k, S_k)
         S_k <- S_k + W_2 ReLU(W_1 LayerNorm(S_k) + b_1) + b_2

With H heads, q, k and v are cut into H parts of width C / H, and the softmax of equation (1) runs over slots and heads
together, as in the released code; U_k is the heads' sums side by side. The attention returned is the mean over heads
and so sums to 1 / H over slots.

A pass may be given scales, which enter as equations (12) and (13) of ``topdown.model.modulation`` say.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from topdown import precision
from topdown.model.modulation import PLAIN, Scales

EPS = 1e-8


class InputHead(nn.Module):
    """Features to slot-attention inputs: LayerNorm, Linear, ReLU, Linear; no positional embedding. Biases start at 0.

    Args:
        feature_size: D.
        slot_size: d.
    """

    def __init__(self, feature_size: int, slot_size: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(feature_size)
        self.hidden = nn.Linear(feature_size, feature_size)
        self.out = nn.Linear(feature_size, slot_size)

    def forward(self, x_BND: Tensor) -> Tensor:
        """(B, N, D) -> (B, N, d)."""
        return self.out(F.relu(self.hidden(self.norm(x_BND))))


class SlotInit(nn.Module):
    """Gaussian start, one learned mean and log standard deviation shared by all slots.

    Args:
        slot_size: d.
    """

    def __init__(self, slot_size: int) -> None:
        super().__init__()
        self.mean = nn.Parameter(nn.init.xavier_uniform_(torch.empty(1, 1, slot_size)))
        self.log_std = nn.Parameter(nn.init.xavier_uniform_(torch.empty(1, 1, slot_size)))

    def forward(self, noise_BKd: Tensor) -> Tensor:
        """Standard normal noise (B, K, d) -> initial slots (B, K, d), reparameterised."""
        return self.mean + self.log_std.exp() * noise_BKd


class SlotAttention(nn.Module):
    """Iterative competition of slots for inputs.

    Args:
        input_size: width of the inputs.
        slot_size: d.
        num_iterations: T, refinement steps of one pass.
        qkv_size: C, width of queries, keys and values; d if None.
        num_heads: H; the softmax runs over slots and heads together, and the attention returned is the mean over
            heads.
        mlp_size: hidden width of the residual MLP; 4 d if None.

    Raises:
        ValueError: if a size is not positive or ``num_heads`` does not divide ``qkv_size``.
    """

    def __init__(
        self,
        input_size: int,
        slot_size: int,
        num_iterations: int = 3,
        qkv_size: int | None = None,
        num_heads: int = 1,
        mlp_size: int | None = None,
    ) -> None:
        super().__init__()
        qkv_size = qkv_size or slot_size
        if num_iterations < 1:
            raise ValueError(f'num_iterations must be at least 1, got {num_iterations}')
        if num_heads < 1 or qkv_size % num_heads:
            raise ValueError(f'num_heads ({num_heads}) must divide qkv_size ({qkv_size})')
        self.num_iterations, self.num_heads = num_iterations, num_heads
        self.qkv_size, self.head_size = qkv_size, qkv_size // num_heads
        self.norm_inputs = nn.LayerNorm(input_size)
        self.norm_slots = nn.LayerNorm(slot_size)
        self.norm_mlp = nn.LayerNorm(slot_size)
        self.project_q = nn.Linear(slot_size, qkv_size, bias=False)
        self.project_k = nn.Linear(input_size, qkv_size, bias=False)
        self.project_v = nn.Linear(input_size, qkv_size, bias=False)
        self.gru = nn.GRUCell(qkv_size, slot_size)
        self.mlp_size = mlp_size or 4 * slot_size
        self.mlp = nn.Sequential(nn.Linear(slot_size, self.mlp_size), nn.ReLU(), nn.Linear(self.mlp_size, slot_size))

    def keys_values(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs (B, N, input_size) -> keys and values, each (B, H, N, C / H). Shared by both passes."""
        inputs = self.norm_inputs(inputs)
        return self._split(self.project_k(inputs)), self._split(self.project_v(inputs))

    def forward(self, slots_BKd: Tensor, keys: Tensor, values: Tensor, scales: Scales = PLAIN) -> tuple[Tensor, Tensor]:
        """One pass of ``num_iterations`` steps.

        Args:
            slots_BKd: initial slots.
            keys, values: from ``keys_values``.
            scales: of equations (12) and (13), held constant over the steps; ``PLAIN`` for none.

        Returns:
            Slots (B, K, d) and the last step's attention A (B, K, N), the mean over heads, summing to 1 / H over
            slots, attached to the graph and taken before ``eps`` and renormalisation.
        """
        slots = slots_BKd
        for _ in range(self.num_iterations):
            slots, attention = self.step(slots, keys, values, scales)
        return slots, attention

    def step(self, slots: Tensor, keys: Tensor, values: Tensor, scales: Scales = PLAIN) -> tuple[Tensor, Tensor]:
        """Equations (1) to (4) once, shapes as in ``forward``; with scales also equations (11) to (13)."""
        batch, num_slots, slot_size = slots.shape
        queries = self.project_q(self.norm_slots(slots))
        if scales.query is not None:
            queries = queries * scales.query
        logits = self._split(queries) @ keys.transpose(-1, -2) * self.head_size**-0.5  # (B, H, K, N)
        if logits.dtype in (torch.bfloat16, torch.float16):
            logits = logits.float()
        attention = logits.flatten(1, 2).softmax(dim=1).view(logits.shape)  # (1), slots and heads
        weights = attention + EPS  # (2)
        weights = weights / weights.sum(dim=-1, keepdim=True)
        if scales.spatial is not None:
            weights = weights * scales.spatial.unsqueeze(1)
        updates = weights.to(values.dtype) @ values  # (3), with scales (12)
        updates = updates.transpose(1, 2).reshape(batch, num_slots, self.qkv_size)
        if scales.channel is not None:
            updates = updates * scales.channel
        with precision.state(slots.device):
            new = self.gru(updates.flatten(0, 1).to(slots.dtype), slots.flatten(0, 1))  # (4)
        slots = new.view(batch, num_slots, slot_size)
        hidden = self.mlp[1](self.mlp[0](self.norm_mlp(slots)))
        if scales.mlp is not None:
            hidden = hidden * scales.mlp
        return slots + self.mlp[2](hidden), attention[:, 0] if self.num_heads == 1 else attention.mean(dim=1)

    def _split(self, x: Tensor) -> Tensor:
        """(B, L, C) -> (B, H, L, C / H)."""
        return x.unflatten(-1, (self.num_heads, self.head_size)).transpose(1, 2)
