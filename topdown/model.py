"""The two-pass model: slot attention, codes, modulation, slot attention again, decoder.

This is the one place where the parts are put together. With ``top_down=False`` the same class is the plain
DINOSAUR baseline.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from topdown.codebook import Codebook
from topdown.config import ModelConfig
from topdown.decoders import AutoregressiveDecoder, Decoded, MLPDecoder, SlotwiseDecoder
from topdown.slots import InputHead, Modulation, SlotAttention, SlotInit


@dataclass
class Output:
    """Everything one forward pass makes. Fields of the pathway are None where it is off."""

    loss: Tensor  # (), reconstruction plus weighted commitment
    reconstruction_loss: Tensor  # (), mean squared error to the tokens
    reconstruction: Tensor  # (B, N, D)
    slots: Tensor  # (B, K, d), last pass
    attention: Tensor  # (B, K, N), last pass, sums to one over slots
    masks: Tensor | None  # (B, K, N), from the decoder, sums to one over slots
    first_slots: Tensor | None = None  # (B, K, d), first pass
    first_attention: Tensor | None = None  # (B, K, N), first pass
    code_index: Tensor | None = None  # (B, K) int64
    perplexity: Tensor | None = None  # (), of the codes in this batch
    channel_scale: Tensor | None = None  # (B, K, C), m^c
    spatial_scale: Tensor | None = None  # (B, K, N), m^s


class SlotModel(nn.Module):
    """Patch tokens to slots, masks and reconstruction.

    Args:
        config: the settings.
        feature_size: D of the tokens.
        num_patches: N of the tokens (the MLP decoder is built for it).
    """

    def __init__(self, config: ModelConfig, feature_size: int, num_patches: int) -> None:
        super().__init__()
        self.config = config
        qkv_size = config.qkv_size or config.slot_size
        self.head = InputHead(feature_size, config.slot_size)
        self.slot_init = SlotInit(config.slot_size)
        self.slot_attention = SlotAttention(
            config.slot_size, config.slot_size, config.iterations, qkv_size, config.attention_heads
        )
        self.decoder: nn.Module
        if config.decoder in ('mlp', 'slotwise'):
            kind = MLPDecoder if config.decoder == 'mlp' else SlotwiseDecoder
            self.decoder = kind(feature_size, config.slot_size, num_patches, config.decoder_hidden)
        else:
            self.decoder = AutoregressiveDecoder(
                feature_size, config.slot_size, config.decoder_layers, config.decoder_heads, config.input_masking
            )
        # The pathway comes last, so that with one seed the baseline starts from the same weights.
        self.codebook: Codebook | None = None
        self.modulation: Modulation | None = None
        if config.top_down:
            if config.quantize:
                self.codebook = Codebook(config.codebook_size, config.slot_size, config.code_decay, config.dead_below)
            self.modulation = Modulation(
                config.slot_size, qkv_size, config.channel, config.spatial, config.shift, config.predictor
            )

    def forward(self, tokens_BND: Tensor, noise_BKd: Tensor | None = None, need_masks: bool = True) -> Output:
        """One image batch through both passes and the decoder.

        Args:
            tokens_BND: patch tokens, input and target alike (detached as target).
            noise_BKd: standard normal noise of the slots' start; drawn if None.
            need_masks: whether the decoder's masks are wanted (training does without).
        """
        config = self.config
        target = tokens_BND.detach()
        if noise_BKd is None:
            noise_BKd = torch.randn(len(target), config.slots, config.slot_size, device=target.device)
        keys, values = self.slot_attention.keys_values(self.head(target))
        start = self.slot_init(noise_BKd)
        slots, attention = self.slot_attention(start, keys, values)
        pathway: dict[str, Tensor | None] = {}
        commitment: Tensor | float = 0.0
        if self.modulation is not None:
            codes = slots
            pathway |= {'first_slots': slots, 'first_attention': attention}
            if self.codebook is not None:
                codes, index, commitment, perplexity = self.codebook(slots)
                pathway |= {'code_index': index, 'perplexity': perplexity}
            channel_scale, spatial_scale = self.modulation(codes, attention)
            pathway |= {'channel_scale': channel_scale, 'spatial_scale': spatial_scale}
            slots, attention = self.slot_attention(start, keys, values, channel_scale, spatial_scale)
        decoded: Decoded = self.decoder(slots, target, need_masks=need_masks)
        error = F.mse_loss(decoded.reconstruction.float(), target.float())
        return Output(
            loss=error + config.commitment * commitment,
            reconstruction_loss=error.detach(),
            reconstruction=decoded.reconstruction,
            slots=slots,
            attention=attention,
            masks=decoded.masks,
            **pathway,
        )
