"""The two-pass model: slot attention, codes, modulation, slot attention again, decoder.

This is the one place where the parts are put together. With ``top_down=False`` the same class is the plain
DINOSAUR baseline.

A batch may be clips of L frames, flattened: frame t of clip b is row b L + t. Slots of a clip's first frame start from
noise, those of the others from a predictor P, a transformer's block over slots (Kipf et al. 2022)::

    S^0_t = P(S_{t-1}),   P = LayerNorm, self-attention, LayerNorm, MLP, with residuals

``feedback='image'`` has the passes of images on every frame. With ``feedback='time'`` each has one pass, which is the
first and the last, scaled by codes and attention of the frame before; ``Output.scales`` are those for the next one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from topdown import distributed, precision
from topdown.config import ModelConfig
from topdown.model.codebook import Codebook
from topdown.model.decoders import AutoregressiveDecoder, Decoded, MLPDecoder, SlotwiseDecoder, scan_orders
from topdown.model.diffusion import DiffusionDecoder
from topdown.model.modulation import PLAIN, Modulation, Scales
from topdown.model.pixels import PixelStem, SpatialBroadcastDecoder
from topdown.model.slot_attention import InputHead, SlotAttention, SlotInit


@dataclass
class Output:
    """Everything one forward pass makes. Fields of decoder and pathway are None where it is off."""

    slots: Tensor  # (B, K, d), last pass
    attention: Tensor  # (B, K, N), last pass, sums to one over slots
    loss: Tensor | None = None  # (), reconstruction plus weighted commitment
    reconstruction_loss: Tensor | None = None  # (), mean squared error to the tokens
    reconstruction: Tensor | None = None  # (B, N, D)
    masks: Tensor | None = None  # (B, K, N), from the decoder, sums to one over slots
    first_slots: Tensor | None = None  # (B, K, d), first pass
    first_attention: Tensor | None = None  # (B, K, N), first pass
    code_index: Tensor | None = None  # (B, K) int64, of the first pass's slots
    perplexity: Tensor | None = None  # (), of the codes in this batch; of clips, the mean over frames
    scales: Scales | None = None  # of the last modulated pass


class SlotModel(nn.Module):
    """Patch tokens, or the pixels of a square image (decoder 'broadcast'), to slots, masks and reconstruction.

    Args:
        config: the settings.
        feature_size: D of the tokens; 3 for pixels.
        num_patches: N of the tokens (all decoders but the autoregressive one are built for it).

    Attributes:
        precision: what the forward pass computes in, bf16 (autocast) or fp32; the loss is float32 in both.
    """

    def __init__(self, config: ModelConfig, feature_size: int, num_patches: int) -> None:
        super().__init__()
        self.config, self.precision = config, 'fp32'
        if config.hint_channels >= feature_size:
            raise ValueError(f'hint_channels={config.hint_channels} leaves nothing of tokens of width {feature_size}')
        feature_size -= config.hint_channels
        qkv_size = config.qkv_size or config.slot_size
        side = math.isqrt(num_patches)
        self.head: nn.Module
        if config.decoder == 'broadcast':
            self.head = PixelStem(side, config.cnn_size, config.slot_size)
        else:
            self.head = InputHead(feature_size, config.slot_size)
        self.slot_init = SlotInit(config.slot_size)
        sizes = (config.slot_size, config.slot_size, config.num_iterations, qkv_size, config.num_heads)
        self.slot_attention = SlotAttention(*sizes)
        self.decoder: nn.Module
        if config.decoder in ('mlp', 'slotwise'):
            kind = MLPDecoder if config.decoder == 'mlp' else SlotwiseDecoder
            self.decoder = kind(feature_size, config.slot_size, num_patches, config.decoder_hidden)
        elif config.decoder == 'broadcast':
            self.decoder = SpatialBroadcastDecoder(side, config.slot_size, config.cnn_size, config.broadcast_size)
        elif config.decoder == 'diffusion':
            layers = (config.decoder_layers, config.decoder_heads)
            self.decoder = DiffusionDecoder(feature_size, config.slot_size, num_patches, *layers)
        else:
            self.decoder = AutoregressiveDecoder(
                feature_size,
                config.slot_size,
                config.decoder_layers,
                config.decoder_heads,
                config.input_masking,
                num_orders=8 if config.patch_order == 'random' else 1,
            )
            if config.patch_order == 'random':
                scan_orders(num_patches)  # refuses what is not a square grid
        if config.clip_length > 1:
            d, given = config.slot_size, {'dropout': 0.0, 'batch_first': True, 'norm_first': True}
            self.slot_predictor = nn.TransformerEncoderLayer(d, math.gcd(4, d), 4 * d, **given)
        # The pathway comes last, so that with one seed the baseline starts from the same weights.
        self.codebook: Codebook | None = None
        self.modulation: Modulation | None = None
        self.second_attention: SlotAttention | None = None
        if config.top_down:
            if config.quantize:
                self.codebook = Codebook(
                    config.codebook_size, config.slot_size, config.ema_decay, config.dead_code_threshold
                )
            self.modulation = Modulation(
                config.slot_size,
                qkv_size,
                self.slot_attention.mlp_size,
                channel_modulation=config.channel_modulation,
                spatial_modulation=config.spatial_modulation,
                queries=config.modulate_queries,
                mlp=config.modulate_mlp,
                shift_attention=config.shift_attention,
                predictor=config.predictor,
            )
            if not config.share_weights:
                self.second_attention = SlotAttention(*sizes)
        if config.decoder == 'autoregressive':
            self._start_as_released()

    def _start_as_released(self) -> None:
        """The released code's start of the paper's model: biases of the head and of the slots' MLP are zero.

        The decoder's own start is its own matter. Models with other decoders keep torch's biases.
        """
        for part in (
            self.head,
            self.slot_attention.mlp,
            *([self.second_attention.mlp] if self.second_attention else []),
        ):
            for layer in part.modules():
                if isinstance(layer, nn.Linear):
                    nn.init.zeros_(layer.bias)

    def forward(
        self,
        tokens_BND: Tensor,
        noise_BKd: Tensor | None = None,
        need_masks: bool = True,
        hidden_BN: Tensor | None = None,
        decode: bool = True,
    ) -> Output:
        """One image batch through both passes and the decoder.

        Args:
            tokens_BND: patch tokens, input and target alike (detached as target).
            noise_BKd: standard normal noise of the slots' start, a row for each of the images or clips; drawn if None.
            need_masks: whether the decoder's masks are wanted (training does without).
            hidden_BN: for the autoregressive decoder, which of its inputs are masked; drawn in training mode if None.
            decode: whether the decoder is wanted at all; slots and attention do without.
        """
        with precision.autocast(self.precision, tokens_BND.device):
            return self._forward(tokens_BND, noise_BKd, need_masks, hidden_BN, decode)

    def _forward(
        self, tokens_BND: Tensor, noise_BKd: Tensor | None, need_masks: bool, hidden_BN: Tensor | None, decode: bool
    ) -> Output:
        config = self.config
        target, hints = tokens_BND.detach(), None
        if config.hint_channels:
            target, hints = target.split([target.shape[-1] - config.hint_channels, config.hint_channels], dim=-1)
        if len(target) % (config.clip_length if noise_BKd is None else len(noise_BKd)):
            raise ValueError(f'{len(target)} images are not clips of clip_length={config.clip_length} frames')
        if noise_BKd is None:
            noise_BKd = distributed.rows(
                lambda count: torch.randn(count, config.num_slots, config.slot_size, device=target.device),
                len(target) // config.clip_length,
            )
        inputs, frames = self.head(target), len(target) // len(noise_BKd)
        start, scales, passes = self.slot_init(noise_BKd), None, []
        for part, hint in zip(_by_frame(inputs, frames), _by_frame(hints, frames), strict=True):
            if passes:
                start = self.slot_predictor(passes[-1]['slots'])
                scales = passes[-1].get('scales') if config.feedback == 'time' else None
            passes.append(self._frame(part, start, hint, scales))
        found = {name: _joined([frame[name] for frame in passes]) for name in passes[0]}
        commitment, slots, attention = (found.pop(name) for name in ('commitment', 'slots', 'attention'))
        if not decode:
            return Output(slots, attention, **found)
        given = {} if hidden_BN is None else {'hidden_BN': hidden_BN}
        decoded: Decoded = self.decoder(slots, target, attention, need_masks, **given)
        exact = torch.promote_types(decoded.reconstruction.dtype, torch.float32)
        error = F.mse_loss(decoded.reconstruction.to(exact), target.to(exact))
        return Output(
            slots,
            attention,
            loss=error + config.commitment_weight * commitment,
            reconstruction_loss=error.detach(),
            reconstruction=decoded.reconstruction,
            masks=decoded.masks,
            **found,
        )

    def _frame(self, inputs: Tensor, start: Tensor, hints: Tensor | None, scales: Scales | None) -> dict[str, object]:
        """Fields of ``Output``, and the commitment loss, of one frame; ``scales`` are of the frame before, if any."""
        config, again = self.config, self.second_attention or self.slot_attention
        keys, values = self.slot_attention.keys_values(inputs)
        slots, attention = self.slot_attention(start, keys, values, scales or PLAIN)
        found, commitment = {}, 0.0
        if self.modulation is not None:
            found |= {'first_slots': slots, 'first_attention': attention}
            if self.second_attention is not None:
                keys, values = again.keys_values(inputs)
            for number in range(config.feedback_rounds):
                codes = slots
                if self.codebook is not None:
                    codes, index, distance, perplexity = self.codebook(slots)
                    commitment = commitment + distance / config.feedback_rounds
                    if number == 0:
                        found |= {'code_index': index, 'perplexity': perplexity}
                if config.hinted_codes:
                    codes = config.hint_scale * nearest_hints(hints, attention, config.slot_size)
                found['scales'] = self.modulation(codes.roll(1, 1) if config.shuffle_codes else codes, attention)
                if config.feedback == 'image':
                    slots, attention = again(start, keys, values, found['scales'])
        return {'slots': slots, 'attention': attention, 'commitment': commitment, **found}


def _by_frame(x: Tensor | None, frames: int) -> list | tuple:
    """Rows of clips (B, ...) -> for every frame, those of all clips (B / L, ...)."""
    return [x] * frames if x is None or frames == 1 else x.unflatten(0, (-1, frames)).unbind(1)


def _joined(parts: list | tuple) -> object:
    """Inverse of ``_by_frame``, of each of the scales; numbers are averaged."""
    if len(parts) == 1 or parts[0] is None:
        return parts[0]
    if isinstance(parts[0], Scales):
        return Scales(*map(_joined, zip(*parts, strict=True)))
    rows = torch.is_tensor(parts[0]) and parts[0].ndim
    return torch.stack(parts, 1).flatten(0, 1) if rows else sum(parts) / len(parts)


def nearest_hints(hints_BNh: Tensor, attention_BKN: Tensor, width: int) -> Tensor:
    """Codes (B, K, d) that are hints: of those of the image, the nearest to the mean under a slot's attention.

    "Nearest" is by the scalar product, as all hints are of one length; beyond the h channels, codes are zero.
    """
    votes = attention_BKN.to(hints_BNh.dtype) @ hints_BNh  # (B, K, h)
    found = (votes @ hints_BNh.transpose(1, 2)).argmax(dim=-1)  # (B, K)
    codes = hints_BNh.gather(1, found[..., None].expand(-1, -1, hints_BNh.shape[-1]))
    return F.pad(codes, (0, width - codes.shape[-1]))
