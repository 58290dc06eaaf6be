"""Every setting of an experiment, as frozen dataclasses, and the presets. Standard library only.

A preset is a ``Config``; ``preset(name, **changes)`` returns one with fields changed by their plain names, for
example ``preset('toybox', steps=500, num_slots=5)``. Unknown names and impossible values are refused.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import reprlib
import typing
from dataclasses import dataclass, field

from topdown.datasets import DATASETS
from topdown.protocols import get_protocol


def _check(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message[:1000])


def typed(name: str, value: object, kind: type) -> object:
    """A parameter's value as the type of its field; whole numbers pass as floats, since papermill passes them so.

    Raises:
        ValueError: for another type, a number that is not finite or beyond 64 bits, or a dictionary of anything but
            names and numbers, texts and booleans.
    """
    if isinstance(value, (int, float)):
        _check(
            abs(value) < (math.inf if isinstance(value, float) else 2**63),
            f'{name} must be finite and fit into 64 bits',
        )
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if typing.get_origin(kind) is tuple:  # of whole numbers, a list in JSON
        _check(isinstance(value, (tuple, list)), f'{name} must be several numbers, got {reprlib.repr(value)}')
        return tuple(typed(name, item, int) for item in value)
    fits = isinstance(value, kind) and not (kind is int and isinstance(value, bool))
    _check(fits, f'{name} must be of type {kind.__name__}, got {reprlib.repr(value)}')
    if kind is dict:
        flat = all(isinstance(k, str) and isinstance(v, (str, int, float)) for k, v in value.items())
        _check(flat, f'{name} must give names numbers, texts or booleans, got {reprlib.repr(value)}')
    return value


def parse_object(text: str, what: str) -> dict[str, object]:
    """A JSON object as an option or a notebook's parameter holds it.

    Raises:
        ValueError: if it is not one, saying that ``what`` must be.
    """
    wanted = f'{what} must be a JSON object such as {{"name": 5}}, got {reprlib.repr(text)}'
    try:
        found = json.loads(text)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f'{wanted}: {error}') from error
    _check(isinstance(found, dict), wanted)
    return found


@dataclass(frozen=True)
class DataConfig:
    """Which images, and how they are cut."""

    dataset: str = 'coco'
    """One of ``datasets.DATASETS``; ``topdown data list`` says what each is and how it is got."""
    data_root: str = ''
    """Folder of the data set; toybox is made there on first use (empty: the user's cache folder)."""
    train_annotations: str = ''
    """Of dataset coco: the annotation file of training; empty: found below ``data_root``, as COCO and common labelling
    tools lay it out."""
    train_images: str = ''
    """Of dataset coco: the folder that the file names of training start from; empty: found likewise."""
    val_annotations: str = ''
    """The annotation file of validation."""
    val_images: str = ''
    """The folder of validation images."""
    protocol: str = 'oclf'
    """Evaluation protocol, one of ``protocols.PROTOCOLS``: how images and true masks are cut and which pixels count."""
    mask_size: int = 320
    """Side, in pixels, of the square at which masks are compared; bench and slotdiffusion have their own."""
    keep_crowd: str = 'auto'
    """Crowd regions as objects: keep, drop, or auto, which drops those of COCO's and Cityscapes' own files, and keeps
    those of others, since many labelling tools mark every mask as a crowd. Protocols spot and bench always keep them,
    slotdiffusion always drops them."""
    void_label: int = -1
    """Of datasets folder and tokens: the label of pixels of unknown truth, such as 255; -1 for none."""
    void: str = 'background'
    """Pixels of unknown truth (VOC's 255, unlabelled ones): background, as released, or ignore. Protocols bench and
    slotdiffusion always set them aside."""
    skip_corrupt: bool = False
    """Training images that cannot be read: warn and use the next one; off: stop at the first, naming it."""
    image_reader: str = 'pillow'
    """pillow, or opencv: three times as fast for JPEG images under protocols that resize bicubically; tokens differ in
    the last bits. Needs topdown[fast]."""
    flip: bool = True
    """Random horizontal flips in training."""
    random_crop: bool = False
    """Random instead of centre crops in training."""
    eval_images: int = 0
    """Validation images used; 0 means all."""
    toybox: dict = field(default_factory=dict)
    """Changes to ToyboxConfig, such as {'dissimilarity': 0.5}."""
    evidence: float = 0.0
    """Of dataset toybox_dial: how much a patch's token tells of its category, from 0, noise alone, to 1, certain."""

    def __post_init__(self) -> None:
        _check(self.dataset in DATASETS, f'dataset must be one of {", ".join(DATASETS)}, got {self.dataset!r}')
        if isinstance(self.keep_crowd, bool):  # of earlier versions
            object.__setattr__(self, 'keep_crowd', 'keep' if self.keep_crowd else 'auto')
        crowds = ('auto', 'keep', 'drop')
        _check(self.keep_crowd in crowds, f'keep_crowd must be auto, keep or drop, got {self.keep_crowd!r}')
        get_protocol(self.protocol)
        _check(self.void in ('background', 'ignore'), f"void must be 'background' or 'ignore', got {self.void!r}")
        _check(self.mask_size > 0, f'mask_size must be positive, got {self.mask_size}')
        _check(0 <= self.evidence <= 1, f'evidence must lie in [0, 1], got {self.evidence}')
        _check(self.eval_images >= 0, f'eval_images must not be negative, got {self.eval_images}')


@dataclass(frozen=True)
class EncoderConfig:
    """The frozen features."""

    name: str = 'vit_base_patch16_224.dino'
    """Any timm model of tokens on one grid (``hf-hub:`` and ``local-dir:`` names, too); ``vit_toybox_patch8_96`` and
    ``vit_toybox_category_patch8_96`` ship with the package; ``pixels`` for none: the model then takes the image itself,
    scaled to [-1, 1], a pixel a token; ``tokens`` for those of dataset tokens, as they are."""
    image_size: int = 224
    """Side of the square input, in pixels; of encoder tokens, in tokens."""
    feature_size: int = 0
    """Of encoder tokens: their width, D."""
    layer: int = 12
    """Features are the output of this transformer block, counted from 1."""
    layers: tuple[int, ...] = ()
    """Instead of ``layer``: several blocks, such as 9 12, whose outputs are joined."""
    join: str = 'mean'
    """How blocks are joined: mean, or concat, which makes tokens as many times as wide."""
    final_norm: bool = False
    """Apply the ViT's final norm to them."""
    pretrained: bool = True
    """Load pretrained weights; without them the encoder is random."""
    weights: str = ''
    """A safetensors file of the encoder's weights, named as timm names them, instead of those that timm downloads."""

    def __post_init__(self) -> None:
        _check(self.image_size > 0, f'image_size must be positive, got {self.image_size}')
        _check(self.layer >= 1, f'layer counts from 1, got {self.layer}')
        object.__setattr__(self, 'layers', tuple(self.layers))  # a list in JSON
        rising = sorted({block for block in self.layers if block >= 1})
        fits = rising == list(self.layers) and len(rising) != 1
        _check(fits, f'layers must be two blocks or more, rising, counted from 1, got {self.layers}')
        _check(self.join in ('mean', 'concat'), f"join must be 'mean' or 'concat', got {self.join!r}")
        _check(bool(self.layers) or self.join == 'mean', f'join={self.join!r} needs layers, two blocks or more')
        _check(self.name != 'tokens' or self.feature_size > 0, "encoder='tokens' needs feature_size, the tokens' width")

    @property
    def blocks(self) -> tuple[int, ...]:
        """Numbers of the blocks used."""
        return self.layers or (self.layer,)


@dataclass(frozen=True)
class ModelConfig:
    """Slot attention, the top-down pathway and the decoder."""

    num_slots: int = 7
    """Number of slots, K."""
    slot_size: int = 256
    """Width of a slot, d."""
    qkv_size: int = 0
    """Width of queries, keys and values; 0 means d."""
    num_iterations: int = 3
    """Steps of one pass of slot attention, T."""
    num_heads: int = 1
    """Heads of slot attention."""
    top_down: bool = True
    """The second, modulated pass; off gives plain slot attention (DINOSAUR)."""
    channel_modulation: bool = True
    """Channel-wise modulation of the values by m^c = f(code)."""
    spatial_modulation: bool = True
    """Spatial-wise modulation of the values by the attention map, m^s."""
    shift_attention: bool = True
    """Centre the attention map at one: m^s = 1 + A - mean_n A; off: m^s = A."""
    modulate_queries: bool = False
    """Scale the queries of the second pass, too: q <- m^q q, m^q = f_q(code)."""
    modulate_mlp: bool = False
    """Scale the hidden units of the slots' MLP in the second pass, too: h <- m^f h, m^f = f_f(code)."""
    quantize: bool = True
    """Predict the scales from codes; off: from the slots themselves."""
    shuffle_codes: bool = False
    """A control: give every slot the code of the next slot of its image, so that codes are there but not whose."""
    hint_channels: int = 0
    """A control: the last so many channels of the tokens, hints of what is there, are kept from slots and decoder."""
    hinted_codes: bool = False
    """A control: of the hints of its image, each slot's code is the one nearest to the mean over what it attends to."""
    hint_scale: float = 1.0
    """What such codes are multiplied by: how far they reach decides how far scales are from one another at first."""
    predictor: str = 'linear'
    """f: linear, or mlp (d, d / 4, GELU)."""
    feedback_rounds: int = 1
    """Rounds of feedback: each takes the codes and attention of the pass before it and starts from the same slots."""
    feedback: str = 'image'
    """What modulates a pass: image, the pass before on the same image, or time, the one pass on the frame before."""
    clip_length: int = 1
    """Frames of a clip in training, each one's slots starting from those of the one before; 1: images apart."""
    share_weights: bool = True
    """One slot attention for all passes; off: the modulated passes have weights of their own."""
    codebook_size: int = 512
    """Number of codes, E."""
    ema_decay: float = 0.99
    """Decay of the codebook's moving averages."""
    dead_code_threshold: float = 0.8
    """Codes with fewer running hits a step (clips: a frame) are revived; scale it with slots / codebook_size. Changes
    of ``batch_size`` and ``clip_length`` by ``with_`` scale it along, since hits do."""
    commitment_weight: float = 0.0
    """Weight of the commitment loss."""
    decoder: str = 'autoregressive'
    """autoregressive, mlp, slotwise (one token per slot, placed by slot attention's own attention), diffusion (takes
    noise off the tokens), or broadcast (spatial broadcast of images, with a CNN in place of the head), which needs
    encoder='pixels'."""
    decoder_layers: int = 4
    """Layers of the autoregressive and the diffusion decoder."""
    decoder_heads: int = 8
    """Heads of the autoregressive and the diffusion decoder."""
    decoder_hidden: int = 1024
    """Hidden width of the MLP and the slotwise decoder."""
    cnn_size: int = 64
    """Channels of both CNNs of the pixel model."""
    broadcast_size: int = 8
    """Side of the grid from which the broadcast decoder draws, doubled until it is the image's."""
    input_masking: float = 0.1
    """Share of the autoregressive decoder's inputs replaced by a mask token in training."""
    patch_order: str = 'raster'
    """Order in which the autoregressive decoder goes through the patches in training: raster, or random, one of the
    eight scans of the grid for every batch, each with a begin token of its own (evaluation is in raster order)."""

    def __post_init__(self) -> None:
        counts = ('num_slots', 'slot_size', 'num_iterations', 'num_heads', 'codebook_size', 'decoder_layers')
        counts += ('feedback_rounds', 'cnn_size', 'broadcast_size', 'clip_length')
        for name in counts:
            _check(getattr(self, name) >= 1, f'{name} must be at least 1, got {getattr(self, name)}')
        _check(self.predictor in ('linear', 'mlp'), f"predictor must be 'linear' or 'mlp', got {self.predictor!r}")
        decoders = ('autoregressive', 'mlp', 'slotwise', 'diffusion', 'broadcast')
        _check(self.decoder in decoders, f'decoder must be one of {", ".join(decoders)}, got {self.decoder!r}')
        _check(0 <= self.input_masking < 1, f'input_masking must lie in [0, 1), got {self.input_masking}')
        _check(self.commitment_weight >= 0, f'commitment_weight must not be negative, got {self.commitment_weight}')
        _check(
            self.patch_order in ('raster', 'random'),
            f"patch_order must be 'raster' or 'random', got {self.patch_order!r}",
        )
        by_code = self.channel_modulation or self.modulate_queries or self.modulate_mlp
        _check(
            not self.top_down or by_code or self.spatial_modulation,
            'top_down needs something to modulate, such as channel_modulation or spatial_modulation; for nothing, '
            'set top_down=False',
        )
        for field_ in dataclasses.fields(self):
            if field_.name in OFF and getattr(self, field_.name) != field_.default:
                _check_effect(field_.name, vars(self))
        fits = self.feedback == 'image' or (self.feedback == 'time' and self.clip_length > 1)
        _check(fits, f"feedback must be 'image', or 'time' with clip_length > 1, got {self.feedback!r}")
        least = int(self.hinted_codes)
        _check(
            least <= self.hint_channels <= self.slot_size,
            f'hint_channels must lie between {least} and slot_size={self.slot_size}, got {self.hint_channels}',
        )
        qkv = self.qkv_size or self.slot_size
        _check(
            qkv % self.num_heads == 0,
            f'num_heads={self.num_heads} must divide the width of queries, keys and values, {qkv}',
        )


@dataclass(frozen=True)
class TrainConfig:
    """The optimisation."""

    steps: int = 500_000
    """Steps of the optimiser."""
    batch_size: int = 64
    """Images a step, of all processes together."""
    lr: float = 4e-4
    """Adam's learning rate after warm-up."""
    warmup_steps: int = 10_000
    """Steps of linear warm-up."""
    lr_half_life: int = 100_000
    """The learning rate halves every so many steps (exponential decay)."""
    grad_clip: float = 1.0
    """Largest global L2 norm of the gradient."""
    teacher: str = ''
    """Checkpoint of a trained model whose decoder's masks slot attention learns to follow (SPOT's self-training);
    {seed} in it stands for the run's seed."""
    teacher_weight: float = 0.0
    """Weight of that loss; 0.005 in SPOT."""
    precision: str = 'auto'
    """bf16 (autocast), fp32, or auto: bf16 where the processor computes it, fp32 where it would be emulated. Encoder,
    training and evaluation all follow it."""
    threads: int = 0
    """CPU threads that compute; 0 leaves their number to torch. Sums depend on it in the last bit, and through training
    so do results."""
    compile: bool = False
    """torch.compile the model."""
    num_workers: int = 8
    """Loader processes."""
    cache_tokens: bool = False
    """Compute the frozen encoder's tokens once, plain and flipped, and keep them: in memory, or in ``token_dir``."""
    token_dir: str = ''
    """Folder for stored tokens (COCO at the paper's scale: 36 GB a view); empty keeps them in memory."""
    eval_every: int = 25_000
    """Steps between evaluations; 0: only at the end."""
    checkpoint_every: int = 5_000
    """Steps between checkpoints; 0: only at the end."""
    log_every: int = 50
    """Steps between rows of the training log."""
    tensorboard: bool = False
    """Show the log to TensorBoard, too (``pip install tensorboard``): ``tensorboard --logdir FOLDER``."""
    seed: int = 0
    """Of weights, noise and the order of images."""

    def __post_init__(self) -> None:
        for name in ('steps', 'batch_size', 'log_every', 'lr_half_life'):
            _check(getattr(self, name) >= 1, f'{name} must be at least 1, got {getattr(self, name)}')
        for name in ('warmup_steps', 'num_workers', 'threads', 'eval_every', 'checkpoint_every', 'seed'):
            _check(getattr(self, name) >= 0, f'{name} must not be negative, got {getattr(self, name)}')
        for name in ('lr', 'grad_clip'):
            _check(0 < getattr(self, name) < math.inf, f'{name} must be positive and finite, got {getattr(self, name)}')
        taught = bool(self.teacher) == (self.teacher_weight > 0) and 0 <= self.teacher_weight < math.inf
        _check(taught, 'teacher, a file, and teacher_weight, above 0, come together or not at all')
        precisions = ('auto', 'bf16', 'fp32')
        _check(
            self.precision in precisions, f'precision must be one of {", ".join(precisions)}, got {self.precision!r}'
        )


@dataclass(frozen=True)
class Config:
    """One experiment. ``seeds`` and ``variants`` are what the training chapter loops over."""

    name: str
    data: DataConfig = field(default_factory=DataConfig)
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    seeds: int = 1
    """Runs of every model, with seeds 0, 1, ..."""

    def __post_init__(self) -> None:
        _check(self.seeds >= 1, f'seeds must be at least 1, got {self.seeds}')
        pixels = self.encoder.name == 'pixels'
        _check(
            pixels == (self.model.decoder == 'broadcast'),
            "encoder='pixels' and decoder='broadcast' belong together: set both or neither, got "
            f'encoder={self.encoder.name!r} and decoder={self.model.decoder!r}',
        )
        times, rest = divmod(self.encoder.image_size, self.model.broadcast_size)
        _check(
            not pixels or (rest == 0 and times.bit_count() == 1),
            f'broadcast_size={self.model.broadcast_size}, doubled again and again, must lead to '
            f'image_size={self.encoder.image_size}',
        )

    def with_(self, **changes: object) -> Config:
        """A copy with fields changed by their plain names; the encoder's name goes by ``encoder``.

        ``toybox`` changes the fields it names and leaves the others as they are here. Hits a step grow with the batch:
        ``batch_size`` and ``clip_length`` without ``dead_code_threshold`` scale the threshold as the number of clips.

        Raises:
            ValueError: for an unknown name, a wrong type, an impossible value, or a changed setting that has no effect
                beside the others (see ``NEEDS``).
        """
        parts: dict[str, dict[str, object]] = {}
        own: dict[str, object] = {}
        for key, value in changes.items():
            if key == 'seeds':
                own[key] = typed(key, value, int)
                continue
            part, name = owner(key)
            value = typed(key, value, typing.get_type_hints(PARTS[part])[name])
            parts.setdefault(part, {})[name] = {**self.data.toybox, **value} if key == 'toybox' else value
        if {'batch_size', 'clip_length'} & set(changes) and 'dead_code_threshold' not in changes:
            scale = changes.get('batch_size', self.train.batch_size) / self.train.batch_size
            scale *= self.model.clip_length / max(1, changes.get('clip_length', self.model.clip_length))
            parts.setdefault('model', {})['dead_code_threshold'] = self.model.dead_code_threshold * scale
        for part, values in parts.items():
            own[part] = dataclasses.replace(getattr(self, part), **values)
        found = dataclasses.replace(self, **own)
        before, after, usual = self.settings(), found.settings(), Config('').settings()
        for key in set(changes) & set(NEEDS):
            if after[key] != before[key] and (key not in OFF + UNDECIDING or after[key] != usual[key]):
                _check_effect(key, after)
        return found

    def settings(self) -> dict[str, object]:
        """Every setting by its plain name."""
        return {key: getattr(getattr(self, part), name) for key, (part, name) in OWNERS.items()}

    def to_dict(self) -> dict:
        """Nested plain dictionary, for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict) -> Config:
        """Inverse of ``to_dict``; also for dictionaries with names of before (``RENAMED``); else ``ValueError``."""
        try:
            found = dict(values)
            for part, kind in PARTS.items():
                settings = {RENAMED.get(key, key): value for key, value in found[part].items()}
                if part == 'encoder' and 'encoder' in settings:  # what its name was called
                    settings['name'] = settings.pop('encoder')
                found[part] = kind(**settings)
            found = cls(**found)
        except (TypeError, KeyError, AttributeError) as error:
            raise ValueError(f'this is not a configuration of this version ({str(error)[:200]!r})') from error
        for place in (found, *(getattr(found, part) for part in PARTS)):
            for name, kind in typing.get_type_hints(type(place)).items():
                typed(name, getattr(place, name), kind)
        return found

    def differences(self, other: Config) -> list[str]:
        """Fields that decide a run and differ, as 'num_slots=7 instead of 5'; ``steps`` may differ."""
        found = []
        for name, (part, field_) in OWNERS.items():
            here, there = (getattr(getattr(c, part), field_) for c in (self, other))
            if here != there and name not in {*CHANGEABLE, 'steps'}:
                found.append(f'{name}={here!r} instead of {there!r}')
        return found

    @property
    def key(self) -> str:
        """Short hash of everything that decides the result; the seed and where the data lies are left out.

        Fields at their default are left out, too, so that options added later do not change the hashes of today's runs,
        and renamed fields go by their old names.
        """
        values = {}
        old = {new: name for name, new in RENAMED.items()}
        for part, kind in PARTS.items():
            settings, usual = getattr(self, part), kind()
            for field_ in dataclasses.fields(kind):
                value = getattr(settings, field_.name)
                if value != getattr(usual, field_.name) and field_.name not in UNDECIDING:
                    name = 'encoder' if (part, field_.name) == ('encoder', 'name') else field_.name
                    values[old.get(name, name)] = value
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:10]


@dataclass(frozen=True)
class PretrainConfig:
    """Settings of the pretraining; with objective category the defaults made the shipped weights."""

    objective: str = 'fate'
    """fate: masked colours and common fate, from scratch; category: masked colours and agreement across views, from the
    shipped weights of the former."""
    steps: int = 3000
    """Steps; the cosine schedule of the learning rate ends with them."""
    clips: int = 3000
    """Clips of three frames."""
    image_size: int = 112
    """Rendered side; of category, views are cut from it; of fate, 96-pixel windows and mirror images are shown."""
    batch_size: int = 24
    """Images a step; with objective category two views each of half as many."""
    lr: float = 1e-3
    """AdamW's learning rate after warm-up."""
    weight_decay: float = 0.05
    """Of weights, not of biases and norms."""
    warmup_steps: int = 50
    """Linear warm-up."""
    masked: float = 0.25
    """Share of patches blanked."""
    block: int = 2
    """Side, in patches, of the blanked blocks."""
    fate_weight: float = 0.3
    """Of objective fate, the weight of the common-fate loss; 0 leaves masked colour prediction alone."""
    temperature: float = 0.2
    """Of the common-fate loss."""
    colour_weight: float = 1.0
    """Of objective category, the weight of masked colours beside agreement across views."""
    view_temperature: float = 0.1
    """Of the loss across views."""
    turn: float = 25.0
    """Largest turn of a view, degrees."""
    zoom: float = 0.8
    """Least side of a view, as a share of the network's 96 pixels; the largest is 1.1."""
    precision: str = 'bf16'
    """bf16 or fp32: fixed, so that the same settings give the same bits on processors of one kind."""
    calibration_views: int = 1024
    """Images over which the final norm is recalibrated."""
    seed: int = 0
    """Of weights, clips' order, views and masks."""

    def __post_init__(self) -> None:
        _check(
            self.objective in ('fate', 'category'), f"objective must be 'fate' or 'category', got {self.objective!r}"
        )
        _check(self.precision in ('bf16', 'fp32'), f"precision must be 'bf16' or 'fp32', got {self.precision!r}")
        for name in ('steps', 'clips', 'batch_size', 'warmup_steps', 'block', 'calibration_views'):
            _check(getattr(self, name) >= 1, f'{name} must be at least 1, got {getattr(self, name)}')
        _check(
            self.image_size >= 96 and self.image_size % 8 == 0,
            f'image_size must be a multiple of 8 from 96 on, got {self.image_size}',
        )
        _check(0 <= self.masked < 1, f'masked must lie in [0, 1), got {self.masked}')
        _check(0 < self.zoom <= 1.1, f'zoom must lie in (0, 1.1], got {self.zoom}')
        even = self.objective == 'fate' or self.batch_size % 2 == 0
        _check(
            even, f"batch_size must be even with objective='category', whose views come in pairs, got {self.batch_size}"
        )


PARTS: dict[str, type] = {'data': DataConfig, 'encoder': EncoderConfig, 'model': ModelConfig, 'train': TrainConfig}
"""Field of a ``Config`` -> its class."""

OWNERS: dict[str, tuple[str, str]] = {
    'encoder' if (part, field_.name) == ('encoder', 'name') else field_.name: (part, field_.name)
    for part, kind in PARTS.items()
    for field_ in dataclasses.fields(kind)
}
"""Plain name of every parameter -> its part and its field there."""


def _reading(setting: str) -> dict[str, tuple]:
    return {'dataset': tuple(name for name, known in DATASETS.items() if setting in known.settings)}


_PASS, _CODES = {'top_down': (True,)}, {'top_down': (True,), 'quantize': (True,)}
_SEQUENCE, _PIXELS = {'decoder': ('autoregressive',)}, {'decoder': ('broadcast',)}
_LAYERED = {'decoder': ('autoregressive', 'diffusion')}
_TOKENS = {'decoder': ('autoregressive', 'mlp', 'slotwise', 'diffusion')}

NEEDS: dict[str, dict[str, tuple]] = {
    'toybox': {'dataset': tuple(name for name, known in DATASETS.items() if known.make)},
    **dict.fromkeys(('train_annotations', 'train_images', 'val_annotations', 'val_images'), _reading('annotations')),
    'void_label': _reading('void'),
    'evidence': _reading('evidence'),
    **dict.fromkeys(('layers', 'final_norm', 'pretrained'), _TOKENS),
    'layer': {**_TOKENS, 'layers': ((),)},
    'feature_size': {'encoder': ('tokens',)},
    **dict.fromkeys(('channel_modulation', 'spatial_modulation', 'modulate_queries', 'modulate_mlp'), _PASS),
    **dict.fromkeys(('shuffle_codes', 'quantize', 'predictor', 'feedback'), _PASS),
    **{name: {**_PASS, 'feedback': ('image',)} for name in ('feedback_rounds', 'share_weights')},
    'hint_channels': _TOKENS,
    'hinted_codes': {**_PASS, 'quantize': (False,)},
    'hint_scale': {'hinted_codes': (True,)},
    'shift_attention': {**_PASS, 'spatial_modulation': (True,)},
    **dict.fromkeys(('codebook_size', 'ema_decay', 'dead_code_threshold', 'commitment_weight'), _CODES),
    **dict.fromkeys(('decoder_layers', 'decoder_heads'), _LAYERED),
    **dict.fromkeys(('input_masking', 'patch_order'), _SEQUENCE),
    'decoder_hidden': {'decoder': ('mlp', 'slotwise')},
    **dict.fromkeys(('cnn_size', 'broadcast_size'), _PIXELS),
    'token_dir': {'cache_tokens': (True,)},
}  # fmt: skip
"""Setting -> the settings, and their values, without which it has no effect. A change to it is refused then."""

OFF = (
    'toybox', 'void_label', 'evidence', 'layers', 'feature_size', 'shuffle_codes', 'hint_channels', 'hinted_codes',
    'hint_scale', 'feedback_rounds', 'feedback', 'share_weights', 'commitment_weight', 'patch_order',
)  # fmt: skip
"""Those of ``NEEDS`` whose default does nothing, so that it is never refused; ``UNDECIDING`` alike."""

UNDECIDING = (
    'data_root', 'train_annotations', 'train_images', 'val_annotations', 'val_images', 'seed', 'threads', 'num_workers',
    'token_dir', 'tensorboard',
)  # fmt: skip
"""Fields that are not part of the key."""

CHANGEABLE = {*UNDECIDING, 'compile', 'eval_every', 'checkpoint_every', 'log_every'} - {'seed'}
"""Fields that decide no result and may change while a run lasts (some are part of the key, which published rows
bear)."""

RENAMED = {
    'slots': 'num_slots', 'iterations': 'num_iterations', 'attention_heads': 'num_heads', 'rounds': 'feedback_rounds',
    'channel': 'channel_modulation', 'spatial': 'spatial_modulation', 'shift': 'shift_attention',
    'code_decay': 'ema_decay', 'dead_below': 'dead_code_threshold', 'commitment': 'commitment_weight',
    'clip': 'grad_clip', 'half_life': 'lr_half_life', 'workers': 'num_workers', 'block': 'layer',
}  # fmt: skip
"""Names of before -> names of now: checkpoints and rows of earlier versions are read through it."""


def say_needs(name: str) -> str:
    """What a setting of ``NEEDS`` has no effect without, in words."""
    return ' and '.join(f'{key}={" or ".join(map(repr, values))}' for key, values in NEEDS[name].items())


def _check_effect(name: str, settings: dict[str, object]) -> None:
    met = all(settings[key] in values for key, values in NEEDS[name].items())
    _check(met, f'{name}={settings[name]!r} needs {say_needs(name)}, without which it has no effect')


def owner(parameter: str) -> tuple[str, str]:
    """The part of a ``Config`` that a parameter belongs to, and its field there.

    Raises:
        ValueError: for an unknown name.
    """
    if parameter in RENAMED:
        raise ValueError(f'parameter {parameter!r} is called {RENAMED[parameter]!r} now')
    if parameter not in OWNERS:
        raise ValueError(f'unknown parameter {parameter!r}; known: {", ".join(sorted([*OWNERS, "seeds"]))}')
    return OWNERS[parameter]
