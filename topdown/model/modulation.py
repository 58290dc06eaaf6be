"""The paper's idea: scales of a second pass, from what the first pass found (codes) and where (attention).

Letters as in ``topdown.model.slot_attention``; c_k is the code of slot k, A and W are attention and weights, v values.

Equations (Kim et al. 2024)::

    (9)   m^c_k  = f(c_k)                                   what: one factor a channel; f linear, or an MLP
    (10)  m^s_kn = 1 + A_kn - mean_n A_kn                   where: one factor a patch, with mean one; A_kn without shift
    (11)  M_k    = m^s_k (outer) m^c_k                      the modulation map of a slot, patches by channels
    (12)  U_k    = sum_n W_kn (M_kn * v_n)                  instead of (3)
                 = m^c_k * sum_n W_kn m^s_kn v_n
    (13)  q_k   <- m^q_k * q_k  in (1),   m^q_k = f_q(c_k)  two further options
          h_k   <- m^f_k * h_k  in (4),   m^f_k = f_f(c_k)  h_k: what the ReLU of the slots' MLP gives

The second line of equation (12) is what is computed: nothing of size B x K x N x C exists. The paper scales by m^c and
m^s; the released code's shipped default scales by m^q, m^c and m^f. Without scales, all are one, and equation (12) is
equation (3) again.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn


class Scales(NamedTuple):
    """What the modulated pass is scaled by, constant over its steps; None stands for ones."""

    channel: Tensor | None = None  # (B, K, C), m^c: values, per channel ("what")
    spatial: Tensor | None = None  # (B, K, N), m^s: values, per patch ("where")
    query: Tensor | None = None  # (B, K, C), m^q: queries
    mlp: Tensor | None = None  # (B, K, hidden width of the MLP), m^f: its hidden units


PLAIN = Scales()


class Modulation(nn.Module):
    """Scales of the second pass from codes ("what") and attention ("where"): equations (9), (10) and (13).

    Each scale by code has a predictor f of its own. As an MLP it is Linear(d, d / 4), GELU, Linear, as in the released
    code. Linear layers start as torch starts them; nothing bounds the scales.

    Args:
        slot_size: d.
        qkv_size: C, width of the queries and values that are scaled.
        mlp_size: hidden width of the slots' MLP; 4 d if None.
        channel_modulation, spatial_modulation, queries, mlp: which of the scales to use.
        shift_attention: centre the attention map at one, as equation (10) does; off: m^s = A.
        predictor: 'linear' or 'mlp'.

    Raises:
        ValueError: for an unknown predictor, or if all scales are off.
    """

    def __init__(
        self,
        slot_size: int,
        qkv_size: int,
        mlp_size: int | None = None,
        *,
        channel_modulation: bool = True,
        spatial_modulation: bool = True,
        queries: bool = False,
        mlp: bool = False,
        shift_attention: bool = True,
        predictor: str = 'linear',
    ) -> None:
        super().__init__()
        if not (channel_modulation or spatial_modulation or queries or mlp):
            raise ValueError('modulation needs something to scale; for nothing, turn the top-down pathway off')
        if predictor not in ('linear', 'mlp'):
            raise ValueError(f"predictor must be 'linear' or 'mlp', got {predictor!r}")
        self.spatial, self.shift = spatial_modulation, shift_attention

        def predict(width: int) -> nn.Module:
            if predictor == 'linear':
                return nn.Linear(slot_size, width)
            hidden = max(1, slot_size // 4)
            return nn.Sequential(nn.Linear(slot_size, hidden), nn.GELU(), nn.Linear(hidden, width))

        self.channel = predict(qkv_size) if channel_modulation else None
        self.query = predict(qkv_size) if queries else None
        self.mlp = predict(mlp_size or 4 * slot_size) if mlp else None

    def forward(self, codes_BKd: Tensor, attention_BKN: Tensor) -> Scales:
        """Codes (B, K, d) and attention (B, K, N) -> scales by equations (9), (10) and (13), None where off."""
        spatial = None
        if self.spatial:
            spatial = attention_BKN
            if self.shift:
                spatial = 1 + attention_BKN - attention_BKN.mean(dim=-1, keepdim=True)
        return Scales(
            channel=None if self.channel is None else self.channel(codes_BKd),
            spatial=spatial,
            query=None if self.query is None else self.query(codes_BKd),
            mlp=None if self.mlp is None else self.mlp(codes_BKd),
        )
