"""Diffusion decoder: noisy tokens made clean, all patches at once, with slots to ask.

SlotDiffusion (Wu et al. 2023) does so in the latent space of an autoencoder of pixels; here it is done in the space of
the frozen encoder's tokens, so that the loss is that of every decoder.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from topdown import distributed
from topdown.model.decoders import Decoded, DecoderLayer, projection

TIME_FEATURES = 32
"""Numbers by which the network is told the time."""

EVALUATED_AT = 0.5
"""The time in evaluation mode. At 1 a patch knows nothing but its place, near 0 it hardly needs the slots; in the
middle, where training is on average, signal and noise are equal."""


def signal_and_noise(time: Tensor) -> tuple[Tensor, Tensor]:
    """The schedule: alpha and sigma at times from 0, signal alone, to 1, noise alone; their squares add up to one."""
    angle = math.pi / 2 * time
    return angle.cos(), angle.sin()


def time_features(time_B: Tensor) -> Tensor:
    """Sines and cosines of times, at frequencies from 1 to 100 radians: (B,) -> (B, ``TIME_FEATURES``)."""
    frequencies = torch.logspace(0, 2, TIME_FEATURES // 2, device=time_B.device, dtype=time_B.dtype)
    angle = time_B[:, None] * frequencies
    return torch.cat([angle.sin(), angle.cos()], dim=1)


class DiffusionDecoder(nn.Module):
    """Transformer that predicts the clean tokens from noisy ones and the slots; every patch attends to every other.

    With N(x) a token standardised over its channels, noise e from N(0, 1) and a time t from 0 to 1 for every image::

        alpha_t = cos(pi t / 2),   sigma_t = sin(pi t / 2),   z_n = alpha_t N(x_n) + sigma_t e_n
        x^_n = f_n(alpha_t z_1, ..., alpha_t z_N; t, s),   loss = mean |x^ - x|^2

    The prediction is x itself (x_0 in the words of diffusion) and not e, so the loss is that of all decoders. Channels
    of z have variance one at any t; alpha_t z is then the best linear guess at N(x), and at t = 1 no noise drowns the
    places. f: a linear map, learned positions and an MLP of t are added, pre-norm layers as the autoregressive decoder
    has them but for the order of patches, a norm, a linear map. Mask of slot k at patch n: the last layer's
    cross-attention weight, averaged over heads.

    In training mode t is uniform, and t and e are drawn for every batch. In evaluation mode t is ``EVALUATED_AT`` and e
    the same for every image, so that one image always gives the same masks.

    Args:
        feature_size: D.
        slot_size: d.
        num_patches: N.
        num_layers, num_heads: of the transformer.

    Raises:
        ValueError: if ``num_heads`` does not divide D.
    """

    def __init__(
        self, feature_size: int, slot_size: int, num_patches: int, num_layers: int = 4, num_heads: int = 8
    ) -> None:
        super().__init__()
        self.position = nn.Parameter(0.02 * torch.randn(1, num_patches, feature_size))
        self.project_input = nn.Linear(feature_size, feature_size)
        self.time_mlp = nn.Sequential(
            nn.Linear(TIME_FEATURES, feature_size), nn.ReLU(), nn.Linear(feature_size, feature_size)
        )
        self.project_slots = projection(slot_size, feature_size)
        self.layers = nn.ModuleList(DecoderLayer(feature_size, num_heads, causal=False) for _ in range(num_layers))
        self.project_out = nn.Sequential(nn.LayerNorm(feature_size), nn.Linear(feature_size, feature_size))
        own = torch.Generator('cpu').manual_seed(0)  # takes nothing from the draws of training
        noise = torch.randn(1, num_patches, feature_size, generator=own, device='cpu')
        self.register_buffer('noise', noise, persistent=False)

    def forward(
        self,
        slots_BKd: Tensor,
        target_BND: Tensor,
        attention_BKN: Tensor | None = None,
        need_masks: bool = True,
        time_B: Tensor | None = None,
        noise_BND: Tensor | None = None,
    ) -> Decoded:
        """Decode.

        Args:
            slots_BKd: slots.
            target_BND: tokens to reconstruct, of which the network sees a noisy version.
            attention_BKN: not used.
            need_masks: whether to return masks.
            time_B: how noisy each image is, from 0 to 1; by the mode if None.
            noise_BND: standard normal noise; by the mode if None.

        Raises:
            ValueError: for another number of patches than the decoder was built for.
        """
        batch, *size = target_BND.shape
        if size[0] != self.position.shape[1]:
            raise ValueError(f'the decoder was built for {self.position.shape[1]} patches and got {size[0]}')
        clean = target_BND.to(torch.promote_types(target_BND.dtype, torch.float32))
        if time_B is None:
            time_B = clean.new_full((batch,), EVALUATED_AT)
            if self.training:
                time_B = distributed.rows(lambda count: torch.rand(count, device=clean.device), batch)
        if noise_BND is None:
            noise_BND = self.noise
            if self.training:
                noise_BND = distributed.rows(lambda count: torch.randn(count, *size, device=clean.device), batch)
        alpha, sigma = (part[:, None, None] for part in signal_and_noise(time_B))
        noisy = alpha * F.layer_norm(clean, clean.shape[-1:]) + sigma * noise_BND
        x = self.project_input(alpha * noisy) + self.position + self.time_mlp(time_features(time_B))[:, None]
        slots, weights = self.project_slots(slots_BKd), None
        for i, layer in enumerate(self.layers):
            x, weights = layer(x, slots, need_weights=need_masks and i == len(self.layers) - 1)
        return Decoded(self.project_out(x), None if weights is None else weights.transpose(1, 2))
