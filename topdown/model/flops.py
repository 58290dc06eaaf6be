"""FLOPs of matrix products by formula, a multiplication and an addition counting two.

Tests hold them equal to what torch counts. Everything else (softmax, norms, activations, the optimiser) moves memory
rather than computes.

Letters: B batch, N patches, D feature width, K slots, d slot width, C width of queries, keys and values, E codebook
size, T iterations.
"""

from __future__ import annotations

from topdown.config import ModelConfig
from topdown.model.decoders import causal_blocks
from topdown.model.diffusion import TIME_FEATURES
from topdown.model.encoder import FrozenEncoder

PARTS = ('head', 'first pass', 'codes and scales', 'second pass', 'decoder')


def forward_flops(config: ModelConfig, feature_size: int, num_patches: int) -> dict[str, int]:
    """Matrix-product FLOPs of one image's forward pass, by part (``PARTS``).

    ::

        head         2 N D (D + d)
        keys, values 2 N d 2C                          (counted with the first pass)
        one step     2 K d C + 4 K N C + 6 K d (C + d) + 2 K (2 d) mlp
        codes        2 K d E,  channel scale 2 K d C
        predictor    of T frames T - 1 times 24 K d d, counted with the first pass (its attention left out)
        decoder      autoregressive: 2 N D D + 2 K d D, and a layer 8 N D D + 4 P D + 16 N D D (positions),
                     8 K D D + 2 K D + 4 N H K D (slots, H heads); P = sum of queries times keys over ``causal_blocks``,
                     a third above N^2 / 2 (a GPU's kernel has its own way)
                     diffusion: the same with P = N^2, and 2 N D D + 2 F D + 2 D D (out, and the MLP of F time features)

    Args:
        config: the model's; decoders for tokens only.
        feature_size: D.
        num_patches: N.
    """
    n, dim, k, d = num_patches, feature_size - config.hint_channels, config.num_slots, config.slot_size
    c, t, mlp = config.qkv_size or d, config.num_iterations, 4 * d
    keys_values = 2 * n * d * 2 * c
    step = 2 * k * d * c + 4 * k * n * c + 2 * k * (3 * d * c + 3 * d * d) + 4 * k * d * mlp
    parts = dict.fromkeys(PARTS, 0)
    parts['head'] = 2 * n * dim * (dim + d)
    parts['first pass'] = keys_values + t * step + (config.clip_length - 1) * 24 * k * d * d // config.clip_length
    if config.top_down:
        widths = [c] * config.channel_modulation + [c] * config.modulate_queries + [mlp] * config.modulate_mlp
        small = max(1, d // 4)
        scales = sum(2 * k * d * w if config.predictor == 'linear' else 2 * k * small * (d + w) for w in widths)
        codes = 2 * k * d * config.codebook_size if config.quantize else 0
        parts['codes and scales'] = config.feedback_rounds * (codes + scales)
        second = config.feedback_rounds * t * step + (0 if config.share_weights else keys_values)
        parts['second pass'] = second if config.feedback == 'image' else 0
    parts['decoder'] = _decoder_flops(config, dim, n)
    return parts


def _decoder_flops(config: ModelConfig, dim: int, n: int) -> int:
    k, d, hidden = config.num_slots, config.slot_size, config.decoder_hidden
    if config.decoder in ('autoregressive', 'diffusion'):
        pairs, more = sum((last - first) * last for first, last in causal_blocks(n)), 0
        if config.decoder == 'diffusion':
            pairs, more = n * n, 2 * n * dim * dim + 2 * dim * (TIME_FEATURES + dim)
        own = 8 * n * dim * dim + 4 * pairs * dim
        cross = 8 * k * dim * dim + 2 * k * dim + 4 * n * config.decoder_heads * k * dim
        layer = own + cross + 16 * n * dim * dim
        return 2 * n * dim * dim + 2 * k * d * dim + config.decoder_layers * layer + more
    if config.decoder == 'slotwise':
        return 2 * k * hidden * (d + dim) + 2 * n * k * dim
    if config.decoder == 'mlp':
        return 2 * k * d * hidden + 2 * k * n * hidden * (2 * hidden + dim + 1)
    raise ValueError(f'no formula for the FLOPs of decoder {config.decoder!r}; count them with count_flops')


def step_flops(config: ModelConfig, feature_size: int, num_patches: int) -> int:
    """Matrix-product FLOPs of one image's training step.

    The backward pass costs two products for each of the forward pass, and none for the nearest codes. (Tokens need no
    gradient, but the norm before the first layer has weights that do; noisy tokens and times of the diffusion decoder
    have no such norm.)
    """
    forward = sum(forward_flops(config, feature_size, num_patches).values())
    codes, dim = 0, feature_size - config.hint_channels
    given = 2 * dim * (num_patches * dim + TIME_FEATURES) if config.decoder == 'diffusion' else 0
    if config.top_down and config.quantize:
        codes = config.feedback_rounds * 2 * config.num_slots * config.slot_size * config.codebook_size
    return 3 * forward - 2 * codes - given


def vit_flops(width: int, depth: int, tokens: int, patch_values: int, patches: int) -> int:
    """Matrix-product FLOPs of a Vision Transformer's forward pass on one image, feed-forward layers of 4 widths.

    Args:
        width: of the tokens.
        depth: blocks.
        tokens: patches and class token.
        patch_values: numbers in one patch, such as 3 * 16 * 16.
        patches: N.
    """
    block = 2 * tokens * width * (3 * width + width + 8 * width) + 4 * tokens**2 * width
    return 2 * patches * patch_values * width + depth * block


def encoder_flops(encoder: FrozenEncoder) -> int:
    """Matrix-product FLOPs of an encoder's forward pass on one image, up to the last block whose tokens are taken.

    Pixels, and tokens from elsewhere, cost none.
    """
    patches, config = encoder.num_patches, encoder.config
    if not hasattr(encoder, 'vit'):
        return 0
    return vit_flops(
        encoder.vit.embed_dim, max(config.layers, default=config.layer), patches + encoder.vit.num_prefix_tokens,
        3 * config.image_size**2 // patches, patches,
    )  # fmt: skip
