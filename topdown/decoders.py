"""Decoders: slots to reconstructed patch tokens, and to masks.

Every decoder takes slots (B, K, d) and the target tokens (B, N, D) and returns ``Decoded``: the reconstruction
(B, N, D) and masks (B, K, N), non-negative and summing to one over slots.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Decoded(NamedTuple):
    """What a decoder returns; ``masks`` is None if they were not asked for."""

    reconstruction: Tensor  # (B, N, D)
    masks: Tensor | None  # (B, K, N)


class Attention(nn.Module):
    """Multi-head attention with explicit weights on request.

    Args:
        width: of queries, keys, values and output.
        num_heads: must divide the width.
    """

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        if num_heads < 1 or width % num_heads:
            raise ValueError(f'num_heads ({num_heads}) must divide the width ({width})')
        self.num_heads, self.head_size = num_heads, width // num_heads
        self.project_q = nn.Linear(width, width)
        self.project_k = nn.Linear(width, width)
        self.project_v = nn.Linear(width, width)
        self.project_out = nn.Linear(width, width)

    def forward(
        self, x: Tensor, memory: Tensor, causal: bool = False, need_weights: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """x (B, N, D) attends to memory (B, M, D) -> output (B, N, D), weights (B, N, M) averaged over heads."""
        q = self.project_q(x).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
        k = self.project_k(memory).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
        v = self.project_v(memory).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
        weights = None
        if need_weights or x.device.type == 'cpu':  # explicit softmax: faster than the fused kernel's CPU backward
            logits = q @ k.transpose(-1, -2) * self.head_size**-0.5
            if causal:
                later = torch.ones(logits.shape[-2:], dtype=torch.bool, device=x.device).triu(1)
                logits = logits.masked_fill(later, float('-inf'))
            attention = logits.softmax(dim=-1)
            out = attention @ v
            weights = attention.float().mean(dim=1) if need_weights else None
        else:
            out = F.scaled_dot_product_attention(q, k, v, is_causal=causal)
        return self.project_out(out.transpose(1, 2).flatten(2)), weights


class DecoderLayer(nn.Module):
    """Pre-norm transformer decoder layer: causal self-attention, cross-attention to slots, ReLU feed-forward of 4 D."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.norm_self, self.norm_cross, self.norm_mlp = (nn.LayerNorm(width) for _ in range(3))
        self.self_attention = Attention(width, num_heads)
        self.cross_attention = Attention(width, num_heads)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.ReLU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor, slots: Tensor, need_weights: bool) -> tuple[Tensor, Tensor | None]:
        normed = self.norm_self(x)
        x = x + self.self_attention(normed, normed, causal=True)[0]
        attended, weights = self.cross_attention(self.norm_cross(x), slots, need_weights=need_weights)
        x = x + attended
        return x + self.mlp(self.norm_mlp(x)), weights


class AutoregressiveDecoder(nn.Module):
    """Transformer that predicts token n from tokens before n in raster order (teacher forcing) and the slots.

    No positional embedding, no dropout, no final norm, no output projection. Mask of slot k at patch n: the last
    layer's cross-attention weight, averaged over heads.

    Args:
        feature_size: D.
        slot_size: d.
        num_layers, num_heads: of the transformer.
        input_masking: share of input tokens, the begin token included, that a learned mask token replaces in
            training mode; 0 turns it off.
    """

    def __init__(
        self, feature_size: int, slot_size: int, num_layers: int = 4, num_heads: int = 8, input_masking: float = 0.1
    ) -> None:
        super().__init__()
        if not 0 <= input_masking < 1:
            raise ValueError(f'input_masking must lie in [0, 1), got {input_masking}')
        self.input_masking = input_masking
        self.begin_token = nn.Parameter(0.02 * torch.randn(1, 1, feature_size))
        self.mask_token = nn.Parameter(0.02 * torch.randn(1, 1, feature_size))
        self.project_input = nn.Sequential(
            nn.Linear(feature_size, feature_size, bias=False), nn.LayerNorm(feature_size)
        )
        self.project_slots = nn.Sequential(nn.Linear(slot_size, feature_size, bias=False), nn.LayerNorm(feature_size))
        self.layers = nn.ModuleList(DecoderLayer(feature_size, num_heads) for _ in range(num_layers))

    def forward(
        self, slots_BKd: Tensor, target_BND: Tensor, need_masks: bool = True, hidden_BN: Tensor | None = None
    ) -> Decoded:
        """Decode.

        Args:
            slots_BKd: slots.
            target_BND: tokens to reconstruct, also the teacher-forced input.
            need_masks: whether to return masks.
            hidden_BN: boolean, which input positions (0 is the begin token) the mask token replaces; drawn at
                random with share ``input_masking`` in training mode if None.
        """
        batch, num_patches, _ = target_BND.shape
        x = torch.cat([self.begin_token.expand(batch, -1, -1).to(target_BND.dtype), target_BND[:, :-1]], dim=1)
        if hidden_BN is None and self.training and self.input_masking > 0:
            hidden_BN = torch.rand(batch, num_patches, device=x.device) < self.input_masking
        if hidden_BN is not None:
            x = torch.where(hidden_BN[..., None], self.mask_token.to(x.dtype), x)
        x = self.project_input(x)
        slots = self.project_slots(slots_BKd)
        weights = None
        for i, layer in enumerate(self.layers):
            x, weights = layer(x, slots, need_weights=need_masks and i == len(self.layers) - 1)
        return Decoded(x, None if weights is None else weights.transpose(1, 2))


class SlotwiseDecoder(nn.Module):
    """Each slot has one token for all its patches; an MLP draws its mask; a shared map adds what place alone decides.

    ::

        y_k = MLP_y(s_k),   a_kn = MLP_a(P s_k + e_n),   alpha = softmax_k a
        x^_n = b_n + sum_k alpha_kn y_k,   mask = alpha

    Unlike with ``MLPDecoder``, a slot cannot draw an object and the ground around it: whatever differs within its mask
    is error. Meant for small encoders, whose tokens vary little within an object.

    Args:
        feature_size: D.
        slot_size: d.
        num_patches: N.
        hidden_size: width of the hidden layers.
    """

    def __init__(self, feature_size: int, slot_size: int, num_patches: int, hidden_size: int) -> None:
        super().__init__()
        self.place = nn.Parameter(torch.zeros(1, num_patches, feature_size))
        self.position = nn.Parameter(0.02 * torch.randn(1, 1, num_patches, hidden_size))
        self.project_slots = nn.Linear(slot_size, hidden_size)
        self.mask_mlp = nn.Sequential(
            nn.ReLU(), nn.Linear(hidden_size, hidden_size),
            nn.ReLU(), nn.Linear(hidden_size, 1),
        )  # fmt: skip
        self.token_mlp = nn.Sequential(
            nn.Linear(slot_size, hidden_size), nn.ReLU(), nn.Linear(hidden_size, feature_size)
        )

    def forward(self, slots_BKd: Tensor, target_BND: Tensor, need_masks: bool = True) -> Decoded:
        """Decode; of the target only the number of patches is used."""
        if target_BND.shape[1] != self.place.shape[1]:
            raise ValueError(f'the decoder was built for {self.place.shape[1]} patches and got {target_BND.shape[1]}')
        opacity = self.mask_mlp(self.project_slots(slots_BKd)[:, :, None] + self.position).squeeze(-1)
        alpha = opacity.float().softmax(dim=1)
        reconstruction = self.place + alpha.transpose(1, 2) @ self.token_mlp(slots_BKd).float()
        return Decoded(reconstruction, alpha if need_masks else None)


class MLPDecoder(nn.Module):
    """Each slot predicts every patch and its own opacity; patches are the opacity-weighted mean (DINOSAUR).

    ::

        [y_kn, a_kn] = MLP(P s_k + e_n),   alpha = softmax_k a,   x^_n = sum_k alpha_kn y_kn,   mask = alpha

    Args:
        feature_size: D.
        slot_size: d.
        num_patches: N.
        hidden_size: width of the three hidden layers.
    """

    def __init__(self, feature_size: int, slot_size: int, num_patches: int, hidden_size: int) -> None:
        super().__init__()
        self.position = nn.Parameter(0.02 * torch.randn(1, 1, num_patches, hidden_size))
        self.project_slots = nn.Linear(slot_size, hidden_size)
        self.mlp = nn.Sequential(
            nn.ReLU(), nn.Linear(hidden_size, hidden_size),
            nn.ReLU(), nn.Linear(hidden_size, hidden_size),
            nn.ReLU(), nn.Linear(hidden_size, feature_size + 1),
        )  # fmt: skip

    def forward(self, slots_BKd: Tensor, target_BND: Tensor, need_masks: bool = True) -> Decoded:
        """Decode; of the target only the number of patches is used."""
        if target_BND.shape[1] != self.position.shape[2]:
            raise ValueError(
                f'the MLP decoder was built for {self.position.shape[2]} patches and got {target_BND.shape[1]}'
            )
        out = self.mlp(self.project_slots(slots_BKd)[:, :, None] + self.position)
        alpha = out[..., -1:].float().softmax(dim=1)
        reconstruction = (alpha * out[..., :-1]).sum(dim=1)
        return Decoded(reconstruction, alpha.squeeze(-1) if need_masks else None)
