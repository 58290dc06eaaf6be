"""Decoders: slots to reconstructed patch tokens, and to masks.

Every decoder takes slots (B, K, d), the target tokens (B, N, D) and slot attention's attention (B, K, N), uses what it
needs of them, and returns ``Decoded``: the reconstruction (B, N, D) and masks (B, K, N), non-negative and summing to
one over slots.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from topdown import distributed


class Decoded(NamedTuple):
    """What a decoder returns; ``masks`` is None if they were not asked for."""

    reconstruction: Tensor  # (B, N, D)
    masks: Tensor | None  # (B, K, N)


class Attention(nn.Module):
    """Weights of multi-head attention: queries, keys, values and output, each of one width.

    Query, key and value weights start as the three parts of one (3 D, D) matrix with Xavier's uniform start: bound
    sqrt(6 / (D + 3 D)), and not sqrt(6 / (D + D)) as each for itself would have. All biases start at zero.

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
        for projection in (self.project_q, self.project_k, self.project_v):
            nn.init.xavier_uniform_(projection.weight, gain=0.5**0.5)
            nn.init.zeros_(projection.bias)
        nn.init.zeros_(self.project_out.bias)


class SelfAttention(Attention):
    """Attention among positions, each to itself and those before it, or to all."""

    def __init__(self, width: int, num_heads: int, causal: bool = True) -> None:
        super().__init__(width, num_heads)
        self.causal = causal

    def forward(self, x: Tensor) -> Tensor:
        """Attend: (B, N, D) -> (B, N, D)."""
        parts = (self.project_q, self.project_k, self.project_v)
        weight, bias = (torch.cat([getattr(part, name) for part in parts]) for name in ('weight', 'bias'))
        qkv = F.linear(x, weight, bias).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        if x.device.type != 'cpu':
            out = F.scaled_dot_product_attention(*qkv, is_causal=self.causal)
        elif self.causal:
            out = _CausalAttention.apply(*qkv.flatten(1, 2)).unflatten(0, (-1, self.num_heads))
        else:  # explicit: of the fused kernel, the backward pass is slow and no product counted
            q, k, v = qkv
            out = (q * self.head_size**-0.5 @ k.transpose(-1, -2)).softmax(-1) @ v
        return self.project_out(out.transpose(1, 2).flatten(2))


def causal_blocks(count: int, blocks: int = 3) -> list[tuple[int, int]]:
    """Queries from and to, of as many blocks, of so many; a block meets the keys up to its own last one."""
    step = -(-count // blocks)
    return [(first, min(first + step, count)) for first in range(0, count, step)]


class _CausalAttention(torch.autograd.Function):
    """softmax(q k^T / sqrt(C) + mask) v of many small matrices (M, N, C), as CPUs do it fastest.

    It goes by ``causal_blocks``, so that of the square above the diagonal little is computed and nothing stored. The
    fused kernel's backward pass takes twice as long.
    """

    @staticmethod
    def forward(ctx, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """(M, N, C) each -> (M, N, C)."""
        q = q * q.shape[-1] ** -0.5
        blocks, out, weights = causal_blocks(q.shape[1]), [], []
        mask = q.new_full((blocks[0][1],) * 2, float('-inf')).triu(1)
        for first, last in blocks:
            logits = torch.bmm(q[:, first:last], k[:, :last].transpose(1, 2))
            logits[:, :, first:] += mask[: last - first, : last - first]
            weights.append(logits.softmax(-1))
            out.append(torch.bmm(weights[-1], v[:, :last]))
        ctx.save_for_backward(q, k, v, *weights)
        return torch.cat(out, dim=1)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The gradients of all three: with A the weights, dA = g v^T and dS = A (dA - sum A dA)."""
        q, k, v, *weights = ctx.saved_tensors
        grad_q, grad_k, grad_v = [], None, None
        for (first, last), a in reversed(list(zip(causal_blocks(q.shape[1]), weights, strict=True))):
            g = grad[:, first:last]
            s = torch._softmax_backward_data(torch.bmm(g, v[:, :last].transpose(1, 2)), a, -1, a.dtype)
            grad_q.insert(0, torch.bmm(s, k[:, :last]))
            of_k, of_v = torch.bmm(s.transpose(1, 2), q[:, first:last]), torch.bmm(a.transpose(1, 2), g)
            if grad_k is None:  # the last block meets all keys
                grad_k, grad_v = of_k, of_v
            else:
                grad_k[:, :last] += of_k
                grad_v[:, :last] += of_v
        return torch.cat(grad_q, dim=1) * q.shape[-1] ** -0.5, grad_k, grad_v


class SlotCrossAttention(Attention):
    """Attention of many positions to few slots.

    Positions are many and slots few, so the weights of queries and output are applied to the slots: with keys k and
    values v of a slot and head, ``(W_q x + b_q) . k = x . (W_q^T k) + b_q . k`` and ``W_o sum_k a_k v_k = sum_k a_k
    (W_o v_k)``, which costs K H products of width D a position instead of D and is the same but for rounding.
    """

    def forward(self, x: Tensor, slots: Tensor, need_weights: bool = False) -> tuple[Tensor, Tensor | None]:
        """Attend.

        Args:
            x: positions, (B, N, D).
            slots: (B, K, D).
            need_weights: whether weights are wanted.

        Returns:
            (B, N, D), and weights (B, N, K) averaged over heads, or None.
        """
        heads, size = self.num_heads, self.head_size
        keys, values = (
            project(slots).unflatten(-1, (heads, size)).permute(2, 0, 1, 3).flatten(1, 2)  # (H, B K, D / H)
            for project in (self.project_k, self.project_v)
        )
        keys = keys * size**-0.5
        into = self._of_slots(keys, self.project_q.weight.unflatten(0, (heads, size)), slots)
        bias = self._of_slots(keys, self.project_q.bias.view(heads, size, 1), slots)
        out = self._of_slots(values, self.project_out.weight.unflatten(1, (heads, size)).permute(1, 2, 0), slots)
        logits = x @ into.transpose(1, 2) + bias.transpose(1, 2)  # (B, N, H K)
        exact = torch.promote_types(logits.dtype, torch.float32)
        attention = logits.to(exact).unflatten(-1, (heads, -1)).softmax(dim=-1)
        mixed = attention.flatten(2).to(out.dtype) @ out + self.project_out.bias.to(out.dtype)
        return mixed, attention.mean(dim=2) if need_weights else None

    @staticmethod
    def _of_slots(vectors: Tensor, weight: Tensor, slots: Tensor) -> Tensor:
        """Vectors (H, B K, D / H) of all slots through weights (H, D / H, W) -> (B, H K, W)."""
        found = (vectors @ weight).view(len(weight), *slots.shape[:2], -1)
        return found.transpose(0, 1).flatten(1, 2)


def _as_autocast(x: Tensor) -> Tensor:
    """Under autocast, ``x`` in its precision: cast once here instead of once by every layer that reads it."""
    kind = x.device.type
    return x.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else x


def projection(size: int, width: int) -> nn.Sequential:
    """Linear map without bias, Xavier's uniform start, then LayerNorm."""
    linear = nn.Linear(size, width, bias=False)
    nn.init.xavier_uniform_(linear.weight)
    return nn.Sequential(linear, nn.LayerNorm(width))


class DecoderLayer(nn.Module):
    """Pre-norm transformer decoder layer: self-attention, cross-attention to slots, ReLU feed-forward of 4 D."""

    def __init__(self, width: int, num_heads: int, causal: bool = True) -> None:
        super().__init__()
        self.norm_self, self.norm_cross, self.norm_mlp = (nn.LayerNorm(width) for _ in range(3))
        self.self_attention = SelfAttention(width, num_heads, causal)
        self.cross_attention = SlotCrossAttention(width, num_heads)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.ReLU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor, slots: Tensor, need_weights: bool) -> tuple[Tensor, Tensor | None]:
        normed = _as_autocast(self.norm_self(x))
        x = x + self.self_attention(normed)
        attended, weights = self.cross_attention(self.norm_cross(x), slots, need_weights)
        x = x + attended
        return x + self.mlp(self.norm_mlp(x)), weights


class AutoregressiveDecoder(nn.Module):
    """Transformer that predicts each token from those before it (teacher forcing) and the slots.

    No positional embedding, no dropout, no final norm, no output projection. Mask of slot k at patch n: the last
    layer's cross-attention weight, averaged over heads. With t_0 the begin token and t_n the n-th patch's token::

        x_n = LayerNorm(W t_n),   x_n = mask token where hidden,   n = 0 .. N - 1

    so the mask token is neither projected nor normalised. All layers start as copies of one.

    Args:
        feature_size: D.
        slot_size: d.
        num_layers, num_heads: of the transformer.
        input_masking: share of positions, the begin token's included, at which a learned mask token replaces the
            projected input in training mode; 0 turns it off.
        num_orders: 1 goes through the patches in raster order; 8 draws one of the ``scan_orders`` for every batch in
            training mode (raster in evaluation), each with a begin token of its own (Kakogeorgiou et al. 2024).

    Raises:
        ValueError: if ``input_masking`` or ``num_orders`` is out of range, or ``num_heads`` does not divide D.
    """

    def __init__(
        self,
        feature_size: int,
        slot_size: int,
        num_layers: int = 4,
        num_heads: int = 8,
        input_masking: float = 0.1,
        num_orders: int = 1,
    ) -> None:
        super().__init__()
        if not 0 <= input_masking < 1:
            raise ValueError(f'input_masking must lie in [0, 1), got {input_masking}')
        if not 1 <= num_orders <= 8:
            raise ValueError(f'num_orders must lie between 1 and 8, got {num_orders}')
        self.input_masking, self.num_orders = input_masking, num_orders
        self.begin_token = nn.Parameter(feature_size**-0.5 * torch.randn(num_orders, 1, feature_size))
        self.mask_token = nn.Parameter(torch.rand(1, 1, feature_size), requires_grad=input_masking > 0)
        self.project_input = projection(feature_size, feature_size)
        self.project_slots = projection(slot_size, feature_size)
        self.layers = nn.ModuleList(DecoderLayer(feature_size, num_heads) for _ in range(num_layers))
        for layer in self.layers[1:]:
            layer.load_state_dict(self.layers[0].state_dict())

    def forward(
        self,
        slots_BKd: Tensor,
        target_BND: Tensor,
        attention_BKN: Tensor | None = None,
        need_masks: bool = True,
        hidden_BN: Tensor | None = None,
        order: int | None = None,
    ) -> Decoded:
        """Decode.

        Args:
            slots_BKd: slots.
            target_BND: tokens to reconstruct, also the teacher-forced input.
            attention_BKN: not used.
            need_masks: whether to return masks.
            hidden_BN: boolean, at which positions (0 is the begin token's) the mask token replaces the projected
                input; drawn at random with share ``input_masking`` in training mode if None.
            order: which of the orders to go through the patches in; drawn in training mode and 0 (raster) in
                evaluation mode if None.
        """
        batch, num_patches, _ = target_BND.shape
        which, path, before = 0, None, target_BND
        if order or (order is None and self.training and self.num_orders > 1):
            # a tensor: torch.compile would make a model of its own for every number
            which = torch.randint(self.num_orders, (1,)) if order is None else torch.tensor([order])
            (path,) = scan_orders(num_patches)[which].to(target_BND.device)
            before = target_BND[:, path]
        begin = self.begin_token[which].expand(batch, 1, -1).to(target_BND.dtype)
        x = self.project_input(torch.cat([begin, before[:, :-1]], dim=1))
        if hidden_BN is None and self.training and self.input_masking > 0:
            draw = distributed.rows(lambda count: torch.rand(count, num_patches, device=x.device), batch)
            hidden_BN = draw < self.input_masking
        if hidden_BN is not None:
            x = torch.where(hidden_BN[..., None], self.mask_token.to(x.dtype), x)
        slots = self.project_slots(slots_BKd)
        weights = None
        for i, layer in enumerate(self.layers):
            x, weights = layer(x, slots, need_weights=need_masks and i == len(self.layers) - 1)
        if path is not None:
            back = path.argsort()
            x, weights = x[:, back], None if weights is None else weights[:, back]
        return Decoded(x, None if weights is None else weights.transpose(1, 2))


def scan_orders(num_patches: int) -> Tensor:
    """The eight ways to scan a square grid line by line, as patch indices (8, N); the first is raster order.

    Raises:
        ValueError: if the grid is not square.
    """
    side = math.isqrt(num_patches)
    if side**2 != num_patches:
        raise ValueError(f'patch_order=random needs a square grid of patches, got {num_patches} patches')
    grid = torch.arange(num_patches).view(side, side)
    turned = [g.flip(dims) if dims else g for g in (grid, grid.T) for dims in ((), (1,), (0,), (0, 1))]
    return torch.stack([g.reshape(-1) for g in turned])


class SlotwiseDecoder(nn.Module):
    """Each slot has one token for all its patches, placed by slot attention; a shared map adds what place alone says.

    ::

        y_k = MLP(s_k),   alpha_kn = A_kn / sum_k A_kn,   x^_n = p_n + sum_k alpha_kn y_kn,   mask = alpha

    A is the last pass's attention (its sum over slots is one with one head). With hard masks this would be k-means in
    token space, amortised over images. A slot cannot describe more than one kind of token, so it cannot take two
    unlike things (an object and its ground, say) without cost, which the MLP decoder allows.

    Args:
        feature_size: D.
        slot_size: d.
        num_patches: N.
        hidden_size: hidden width of the MLP.
    """

    def __init__(self, feature_size: int, slot_size: int, num_patches: int, hidden_size: int) -> None:
        super().__init__()
        self.place = nn.Parameter(torch.zeros(1, num_patches, feature_size))
        self.token_mlp = nn.Sequential(
            nn.Linear(slot_size, hidden_size), nn.ReLU(), nn.Linear(hidden_size, feature_size)
        )

    def forward(self, slots_BKd: Tensor, target_BND: Tensor, attention_BKN: Tensor, need_masks: bool = True) -> Decoded:
        """Decode; of the target only the number of patches is used."""
        if target_BND.shape[1] != self.place.shape[1]:
            raise ValueError(f'the decoder was built for {self.place.shape[1]} patches and got {target_BND.shape[1]}')
        alpha = attention_BKN / attention_BKN.sum(dim=1, keepdim=True)
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

    def forward(
        self, slots_BKd: Tensor, target_BND: Tensor, attention_BKN: Tensor | None = None, need_masks: bool = True
    ) -> Decoded:
        """Decode; of the target only the number of patches is used, of the attention nothing."""
        if target_BND.shape[1] != self.position.shape[2]:
            raise ValueError(
                f'the MLP decoder was built for {self.position.shape[2]} patches and got {target_BND.shape[1]}'
            )
        out = self.mlp(self.project_slots(slots_BKd)[:, :, None] + self.position)
        alpha = out[..., -1:].float().softmax(dim=1)
        reconstruction = (alpha * out[..., :-1]).sum(dim=1)
        return Decoded(reconstruction, alpha.squeeze(-1) if need_masks else None)
