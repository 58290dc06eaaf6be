"""What a model costs: parameters, FLOPs, memory, and the least time that given hardware can take.

FLOPs are those of matrix products (``topdown.model.flops``; counted by torch in ``count_flops``). What moves memory
enters the roofline as bytes. Letters as in ``topdown.model.flops``.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode

from topdown.config import Config
from topdown.model.flops import forward_flops, step_flops, vit_flops  # noqa: F401 (for the chapter on costs)
from topdown.model.slot_model import SlotModel


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
