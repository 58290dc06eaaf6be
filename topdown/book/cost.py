"""What a model costs: parameters, FLOPs, memory, and the least time that given hardware can take.

FLOPs are those of matrix products, a multiplication and an addition counting two; they are worked out by formula here
and counted by torch in ``count_flops``, and tests hold the two equal. Everything else (softmax, norms, activations, the
optimiser) moves memory rather than computes, and enters the roofline as bytes.

Letters: B batch, N patches, D feature width, K slots, d slot width, C width of queries, keys and values, E codebook
size, T iterations.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode

from topdown.config import Config, ModelConfig
from topdown.model.decoders import causal_blocks
from topdown.model.slot_model import SlotModel

PARTS = ('head', 'first pass', 'codes and scales', 'second pass', 'decoder')


@dataclass(frozen=True)
class Device:
    """Peak figures of hardware, as its maker publishes them."""

    name: str
    tflops: float
    """Dense bfloat16 matrix products with float32 accumulation, 10^12 a second."""
    bandwidth: float
    """Memory bandwidth, GB/s."""
    memory: float
    """GB."""


DEVICES = (
    Device('A100 80 GB SXM', 312, 2039, 80),
    Device('H100 80 GB SXM', 989, 3350, 80),
    Device('RTX 4090 24 GB', 165, 1008, 24),
)


def forward_flops(config: ModelConfig, feature_size: int, num_patches: int) -> dict[str, int]:
    """Matrix-product FLOPs of one image's forward pass, by part (``PARTS``).

    ::

        head         2 N D (D + d)
        keys, values 2 N d 2C                          (counted with the first pass)
        one step     2 K d C + 4 K N C + 6 K d (C + d) + 2 K (2 d) mlp
        codes        2 K d E,  channel scale 2 K d C
        decoder      autoregressive: 2 N D D + 2 K d D, and a layer 8 N D D + 4 P D + 16 N D D (positions),
                     8 K D D + 2 K D + 4 N H K D (slots, H heads); P = sum of queries times keys over ``causal_blocks``,
                     a third above N^2 / 2 (a GPU's kernel has its own way)

    Args:
        config: the model's; decoders for tokens only.
        feature_size: D.
        num_patches: N.
    """
    n, dim, k, d = num_patches, feature_size, config.num_slots, config.slot_size
    c, t, mlp = config.qkv_size or d, config.num_iterations, 4 * d
    keys_values = 2 * n * d * 2 * c
    step = 2 * k * d * c + 4 * k * n * c + 2 * k * (3 * d * c + 3 * d * d) + 4 * k * d * mlp
    parts = dict.fromkeys(PARTS, 0)
    parts['head'] = 2 * n * dim * (dim + d)
    parts['first pass'] = keys_values + t * step
    if config.top_down:
        widths = [c] * config.channel_modulation + [c] * config.modulate_queries + [mlp] * config.modulate_mlp
        small = max(1, d // 4)
        scales = sum(2 * k * d * w if config.predictor == 'linear' else 2 * k * small * (d + w) for w in widths)
        codes = 2 * k * d * config.codebook_size if config.quantize else 0
        parts['codes and scales'] = config.feedback_rounds * (codes + scales)
        parts['second pass'] = config.feedback_rounds * t * step + (0 if config.share_weights else keys_values)
    parts['decoder'] = _decoder_flops(config, dim, n)
    return parts


def _decoder_flops(config: ModelConfig, dim: int, n: int) -> int:
    k, d, hidden = config.num_slots, config.slot_size, config.decoder_hidden
    if config.decoder == 'autoregressive':
        pairs = sum((last - first) * last for first, last in causal_blocks(n))
        own = 8 * n * dim * dim + 4 * pairs * dim
        cross = 8 * k * dim * dim + 2 * k * dim + 4 * n * config.decoder_heads * k * dim
        return 2 * n * dim * dim + 2 * k * d * dim + config.decoder_layers * (own + cross + 16 * n * dim * dim)
    if config.decoder == 'slotwise':
        return 2 * k * hidden * (d + dim) + 2 * n * k * dim
    if config.decoder == 'mlp':
        return 2 * k * d * hidden + 2 * k * n * hidden * (2 * hidden + dim + 1)
    raise ValueError(f'no formula for the FLOPs of decoder {config.decoder!r}; count them with count_flops')


def step_flops(config: ModelConfig, feature_size: int, num_patches: int) -> int:
    """Matrix-product FLOPs of one image's training step.

    The backward pass costs two products for each of the forward pass, and none for the nearest codes. (Tokens need no
    gradient, but the norm before the first layer has weights that do.)
    """
    forward = sum(forward_flops(config, feature_size, num_patches).values())
    codes = 0
    if config.top_down and config.quantize:
        codes = config.feedback_rounds * 2 * config.num_slots * config.slot_size * config.codebook_size
    return 3 * forward - 2 * codes


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


def count_flops(model: nn.Module, tokens_BND: Tensor, backward: bool = False) -> int:
    """FLOPs of matrix products that torch counts in a forward pass, and in the backward pass if asked for, of a batch.

    Where torch's attention kernel is fused, its counter can miss it; on CPU this package's attention is explicit.
    """
    counter = FlopCounterMode(display=False)
    with counter:
        out = model(tokens_BND, need_masks=False)
        if backward:
            out.loss.backward()
    return counter.get_total_flops()


def count_parameters(model: nn.Module) -> dict[str, int]:
    """Trained numbers by part of a ``SlotModel``; codes are not trained and listed as 'codebook'."""
    groups = {'head': 'head', 'slot_init': 'slot attention', 'slot_attention': 'slot attention'}
    groups |= {'second_attention': 'slot attention', 'modulation': 'modulation', 'decoder': 'decoder'}
    found: dict[str, int] = {}
    for name, parameter in model.named_parameters():
        part = groups.get(name.split('.')[0], name.split('.')[0])
        found[part] = found.get(part, 0) + parameter.numel()
    if getattr(model, 'codebook', None) is not None:
        found['codebook'] = model.codebook.codes.numel()
    return found


def activation_bytes(model: SlotModel, tokens_BND: Tensor, computed_in: str = 'fp32') -> int:
    """Bytes that the forward pass of a batch keeps for the backward pass, each storage once, weights left out.

    Nothing is computed: tensors have shapes and no values. ``computed_in`` is bf16 or fp32. (Under autocast, such
    tensors take the statistics of layer norms for bfloat16 where a CPU keeps float32: 0.02 % of the paper's model.)
    """
    kept: dict[int, int] = {}
    alive: list[Tensor] = []  # so that no storage's identity is used twice

    def note(x: Tensor) -> Tensor:
        storage = x.untyped_storage()
        if storage._cdata not in weights:
            kept[storage._cdata] = storage.nbytes()
            alive.append(x)
        return x.detach()  # else the graph would hold an output that holds the graph

    before, model.precision = model.precision, computed_in
    try:
        with FakeTensorMode() as mode:
            state = {**dict(model.named_parameters()), **dict(model.named_buffers())}
            state = {name: mode.from_tensor(x) for name, x in state.items()}
            weights = {state[name].untyped_storage()._cdata for name, _ in model.named_parameters()}
            with saved_tensors_hooks(note, lambda x: x):
                functional_call(model, state, (mode.from_tensor(tokens_BND),), {'need_masks': False})
    finally:
        model.precision = before
    alive.clear()  # the graph holds the hook, and the hook these tensors
    return sum(kept.values())


@dataclass(frozen=True)
class Prediction:
    """The least a training step can take on some hardware: no kernel is perfect, so the real one takes longer."""

    device: str
    encoder_ms: float
    model_ms: float
    optimizer_ms: float
    memory_gb: float

    @property
    def step_ms(self) -> float:
        """Sum of the parts, milliseconds."""
        return self.encoder_ms + self.model_ms + self.optimizer_ms


def predict_step(
    device: Device, config: Config, model: nn.Module, feature_size: int, num_patches: int, image_bytes: int,
    encoder_flops: int, encoder_parameters: int,
) -> Prediction:  # fmt: skip
    """Roofline of a training step in bfloat16: products at the device's peak, or memory at its bandwidth.

    The model's part takes the longer of its products' time and the time to write and read what it keeps for the
    backward pass (``image_bytes`` an image, three passes over it) and its weights; the optimiser reads weights,
    gradients and two moments and writes three of them, and clipping reads gradients twice and writes them once.
    ``memory_gb`` is weights, gradients, moments, bfloat16 copies, encoder weights and kept activations.
    """
    batch = config.train.batch_size
    count = sum(p.numel() for p in model.parameters())

    def seconds(flops: float, moved: float) -> float:
        return max(flops / (device.tflops * 1e12), moved / (device.bandwidth * 1e9))

    model_time = seconds(
        batch * step_flops(config.model, feature_size, num_patches), 3 * batch * image_bytes + 6 * count
    )
    encoder_time = seconds(batch * encoder_flops, 2 * encoder_parameters)
    optimizer_time = 4 * (7 + 3) * count / (device.bandwidth * 1e9)
    memory = 4 * 4 * count + 2 * count + 2 * encoder_parameters + batch * image_bytes
    return Prediction(device.name, 1e3 * encoder_time, 1e3 * model_time, 1e3 * optimizer_time, memory / 1e9)
