"""The frozen encoder: images to patch tokens, with any timm Vision Transformer.

Importing this module registers ``vit_toybox_patch8_96`` and ``vit_toybox_category_patch8_96`` with timm, the small
encoders that ship with the package: one network with two sets of weights. Both were pretrained on Toybox-like images
without labels or masks (``topdown pretrain``).
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import urllib.parse
import warnings
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import huggingface_hub
import timm
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load
from timm.layers import PatchEmbed, resample_abs_pos_embed, set_fused_attn
from timm.models import register_model
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from topdown import distributed, precision
from topdown.config import Config, EncoderConfig
from topdown.datasets import DATASETS
from topdown.precision import Precision

SHIPPED = {
    'vit_toybox_patch8_96': '5c7d740c2c8d7bbb2e49ede25ac3afb5f4897a47f177562047675ed194a1e960',
    'vit_toybox_category_patch8_96': '2129603ca33bfb0b0f966ff5d3c3de30a255dbd265ad04362b8d74794038ae25',
}
"""Encoders that ship with the package -> SHA-256 of their weights, which lie in ``WEIGHTS``."""


WEIGHTS = Path(__file__).parent / 'weights'


TOYBOX_MEAN, TOYBOX_STD = (0.65, 0.65, 0.65), (0.25, 0.25, 0.25)


class ConvPatchEmbed(PatchEmbed):
    """Patch embedding by three strided 3 x 3 convolutions instead of one 8 x 8 projection; same grid, same shapes."""

    def __init__(self, *args: object, in_chans: int = 3, embed_dim: int = 768, **kwargs: object) -> None:
        super().__init__(*args, in_chans=in_chans, embed_dim=embed_dim, **kwargs)
        widths = (in_chans, embed_dim // 4, embed_dim // 2, embed_dim)
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.GELU()]
        self.proj = nn.Sequential(*layers[:-1])


@register_model
def vit_toybox_patch8_96(pretrained: bool = False, **kwargs: object) -> VisionTransformer:
    """The embedded encoder: 96-pixel images, 8-pixel patches (N = 144), width 128, 5 blocks of 4 heads."""
    return _shipped('vit_toybox_patch8_96', pretrained, kwargs)


@register_model
def vit_toybox_category_patch8_96(pretrained: bool = False, **kwargs: object) -> VisionTransformer:
    """The same network, trained on until its tokens carried categories from image to image."""
    return _shipped('vit_toybox_category_patch8_96', pretrained, kwargs)


def _shipped(name: str, pretrained: bool, kwargs: dict[str, object]) -> VisionTransformer:
    own = {option: kwargs[option] for option in ('img_size', 'drop_rate') if option in kwargs}
    model = VisionTransformer(
        **{'img_size': 96, **own}, patch_size=8, embed_dim=128, depth=5, num_heads=4, class_token=False,
        global_pool='', num_classes=0, embed_layer=ConvPatchEmbed,
    )  # fmt: skip
    model.pretrained_cfg = {'mean': TOYBOX_MEAN, 'std': TOYBOX_STD, 'input_size': (3, 96, 96)}
    if pretrained:
        path, given = WEIGHTS / f'{name}.safetensors', (kwargs.get('pretrained_cfg_overlay') or {}).get('file')
        if not given and not path.exists():
            raise FileNotFoundError(f'{path} is missing from the installation: reinstall topdown')
        content = Path(given or path).read_bytes()
        if not given and hashlib.sha256(content).hexdigest() != SHIPPED[name]:
            raise ValueError(f'{path} is damaged (its checksum is another): reinstall topdown')
        weights = load(content)
        grid = model.patch_embed.grid_size
        weights['pos_embed'] = resample_abs_pos_embed(weights['pos_embed'], grid, num_prefix_tokens=0)
        model.load_state_dict(weights)
    return model


class FrozenEncoder(nn.Module):
    """Patch tokens of one block of a frozen Vision Transformer, or of several together.

    Args:
        config: which encoder, blocks and input size.

    Attributes:
        num_patches: N.
        feature_size: D.
        precision: what it computes in, bf16 or fp32.

    Raises:
        ValueError: if timm has no such model, it gives no tokens on one grid, it has fewer blocks or no final norm, its
            patches do not divide the image, or the file of weights is another model's.
        RuntimeError: if the pretrained weights can be neither found nor downloaded.
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config, self.precision = config, 'fp32'
        self.vit = _create(config)
        self.num_patches = self.vit.patch_embed.num_patches
        self.feature_size = self.vit.embed_dim * (len(config.blocks) if config.join == 'concat' else 1)
        cfg = self.vit.pretrained_cfg
        self.register_buffer('mean', torch.tensor(cfg['mean']).view(1, 3, 1, 1))
        self.register_buffer('std', torch.tensor(cfg['std']).view(1, 3, 1, 1))
        self.requires_grad_(False)
        super().train(False)

    def train(self, mode: bool = True) -> FrozenEncoder:
        """Stays in evaluation mode: the encoder is frozen."""
        return self

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches; N is their product."""
        return self.vit.patch_embed.grid_size

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Images (B, 3, S, S) with values in [0, 1] -> tokens (B, N, D) float32, class and register tokens dropped.

        Raises:
            ValueError: if S is not the configured size.
        """
        _check_size(images, self.config, 3)
        images = (images - self.mean) / self.std
        with precision.autocast(self.precision, images.device):
            found = self.vit.forward_intermediates(
                images,
                indices=[block - 1 for block in self.config.blocks],
                norm=self.config.final_norm,
                stop_early=True,
                output_fmt='NLC',
                intermediates_only=True,
            )
            if self.config.final_norm and isinstance(self.vit.norm, nn.Identity):
                found = [self.vit.fc_norm(tokens) for tokens in found]  # where the final norm comes after pooling
        found = [tokens.float() for tokens in found]
        if self.config.join == 'concat':
            return torch.cat(found, dim=-1)
        return found[0] if len(found) == 1 else torch.stack(found).mean(0)

    def fingerprint(self) -> str:
        """Hash of weights, blocks and norm: what tokens depend on besides the images."""
        config = self.config
        blocks = f'{config.join} of {config.layers}' if config.layers else config.layer
        digest = hashlib.sha256(f'{config.name}/{blocks}/{config.final_norm}'.encode())
        for name, tensor in sorted(self.vit.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()[:16]


class PixelEncoder(nn.Module):
    """No encoder: a token is a pixel, its colour scaled to [-1, 1], or a token that the data set holds, as it is.

    It stands where ``FrozenEncoder`` stands, so that images reach models of pixels the same way. Like it, it has
    frozen weights, which say on which device it is: the mean and spread that colours are scaled by.

    Args:
        config: of which ``image_size`` counts, and of encoder 'tokens' ``feature_size``.

    Attributes:
        num_patches: N, the pixels.
        feature_size: D, of pixels 3.
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config, self.precision = config, 'fp32'
        self.num_patches = config.image_size**2
        self.feature_size, mean, std = (config.feature_size, 0.0, 1.0) if config.name == 'tokens' else (3, 0.5, 0.5)
        self.mean = nn.Parameter(torch.tensor(mean), requires_grad=False)
        self.std = nn.Parameter(torch.tensor(std), requires_grad=False)

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of pixels."""
        return self.config.image_size, self.config.image_size

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, D, S, S), colours in [0, 1] -> tokens (B, N, D) in raster order, colours in [-1, 1].

        Raises:
            ValueError: if D or S is not the configured size.
        """
        _check_size(images, self.config, self.feature_size)
        return ((images - self.mean) / self.std).flatten(2).transpose(1, 2)

    def fingerprint(self) -> str:
        """Pixels, and tokens that the data set holds, depend on nothing but the data set."""
        return self.config.name


Encoder = FrozenEncoder | PixelEncoder


def build_encoder(config: EncoderConfig) -> Encoder:
    """The encoder that a configuration names, or pixels or tokens as they are."""
    return PixelEncoder(config) if config.name in ('pixels', 'tokens') else FrozenEncoder(config)


def make_encoder(config: Config, computed_in: str | None = None) -> Encoder:
    """The experiment's encoder, on the (process's own) GPU if there is one; from now on torch computes as it says.

    Args:
        config: the experiment.
        computed_in: bf16 or fp32, for models that were trained so; by default what ``config.train.precision`` means
            here.

    Raises:
        ValueError, RuntimeError: see ``FrozenEncoder``.
    """
    if (config.encoder.name == 'tokens') != ('feature_size' in DATASETS[config.data.dataset].settings):
        raise ValueError(
            "dataset='tokens' and encoder='tokens' belong together (toybox_dial holds tokens, too): set both or "
            f'neither, got dataset={config.data.dataset!r} and encoder={config.encoder.name!r}'
        )
    precision.settle(config.train.threads)
    with distributed.main_first():  # one process downloads weights
        encoder = build_encoder(config.encoder)
    encoder.precision = computed_in or chosen_precision(config).name
    return encoder.to(_device())


def chosen_precision(config: Config) -> Precision:
    """What the experiment's setting means where it runs; the main process decides for all."""
    return distributed.from_main(precision.choose(config.train.precision, _device()))


def _device() -> torch.device:
    return torch.device('cuda' if torch.cuda.is_available() else 'cpu')


@torch.no_grad()
def encode_all(encoder: Encoder, images: Tensor, batch: int = 32) -> Tensor:
    """Images (V, 3, S, S) -> tokens (V, N, D) float32 on the CPU, in batches."""
    device = next(encoder.parameters()).device
    return torch.cat([encoder(part.to(device)).cpu() for part in images.split(batch)])


def _check_size(images: Tensor, config: EncoderConfig, channels: int) -> None:
    size, found = config.image_size, tuple(images.shape[1:])
    if found != (channels, size, size):
        remedy = 'tokens come from dataset=tokens' if config.name == 'tokens' else 'set image_size or resize them'
        raise ValueError(
            f'encoder {config.name} takes {channels} channels of {size} x {size}, got '
            f'{found[0]} of {found[1]} x {found[2]}; {remedy}'
        )


SCHEMES = ('hf-hub:', 'hf_hub:', 'local-dir:')
"""Beginnings of names that say where timm finds model and weights."""


def _create(config: EncoderConfig) -> nn.Module:
    """The network with its weights; whether it will do is found out on its shapes, before any weight is fetched."""
    if not config.name.startswith(SCHEMES) and not timm.is_model(config.name):
        near = timm.list_models(f'*{config.name.split(".")[0]}*')[:5]
        hint = f'; near it: {", ".join(near)}' if near else ''
        raise ValueError(f'timm {timm.__version__} has no model {config.name!r}{hint}')
    if not torch.cuda.is_available():
        set_fused_attn(False)  # explicit softmax is the faster one on CPU
    options: dict[str, object] = {'num_classes': 0}
    with _fetching(config):
        with torch.device('meta'):
            options['img_size'] = _fitting_side(timm.create_model(config.name, **options), config)
            _check_network(timm.create_model(config.name, **options), config)
        if config.weights:
            _check_weights(config, timm.create_model(config.name).state_dict())
            options['pretrained_cfg_overlay'] = {'file': str(Path(config.weights).expanduser())}
        elif config.pretrained:
            _warn_of_activation(config.name)
        with torch.random.fork_rng([]):
            torch.manual_seed(0)  # of an untrained encoder the weights are always the same, or no run could go on
            return timm.create_model(config.name, pretrained=config.pretrained or bool(config.weights), **options)


def _fitting_side(network: nn.Module, config: EncoderConfig) -> int:
    """The side of the image, if patches divide it: at the border of another one they would see nothing."""
    embed = getattr(network, 'patch_embed', None)
    grid, full = getattr(embed, 'grid_size', None), getattr(embed, 'img_size', None)
    if grid and full:
        patch, size = full[0] // grid[0], config.image_size
        if size % patch:
            near = ' and '.join(str(n) for n in (size // patch * patch, (size // patch + 1) * patch) if n)
            raise ValueError(
                f'image_size={size} is not a multiple of the {patch} pixels of a patch of {config.name}: the nearest '
                f'are {near}'
            )
    return config.image_size


def _check_network(network: nn.Module, config: EncoderConfig) -> None:
    """Raise a ValueError that says why, if it cannot give the tokens asked for."""
    needed = ('blocks', 'patch_embed', 'embed_dim', 'num_prefix_tokens', 'forward_intermediates')
    missing = [name for name in needed if not hasattr(network, name)]
    if not missing and not getattr(network.patch_embed, 'grid_size', None):
        missing = ['patch_embed.grid_size']
    if missing:
        raise ValueError(
            f'{config.name} ({type(network).__name__}) gives no tokens of equal patches on one grid (it has no '
            f'{", ".join(missing)}): choose a Vision Transformer, such as vit_base_patch16_224.dino'
        )
    if 'vitamin' in config.name:
        raise ValueError(f'{config.name} places its tokens half a patch off the grid: masks would be shifted')
    depth = len(network.blocks)
    if config.blocks[-1] > depth:
        raise ValueError(f'layer={config.blocks[-1]}, but {config.name} has {depth} blocks')
    norms = (getattr(network, name, None) for name in ('norm', 'fc_norm'))
    if config.final_norm and all(norm is None or isinstance(norm, nn.Identity) for norm in norms):
        raise ValueError(f'final_norm=True, but {config.name} has no final norm: set final_norm=False')


def _check_weights(config: EncoderConfig, own: dict[str, Tensor]) -> None:
    """Names and shapes of a file of weights: timm itself loads one in which nothing fits without a word."""
    path = Path(config.weights).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f'weights={config.weights}: there is no such file')
    try:
        with safe_open(path, 'pt') as file:
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f'weights={path} is not a safetensors file or is damaged ({error})') from error
    resized = ('pos_embed', 'patch_embed.proj')  # of other image and patch sizes: timm resamples them
    wrong = [
        f'{name}: {"missing" if name not in shapes else f"{shapes[name]}, needs {tuple(tensor.shape)}"}'
        for name, tensor in own.items()
        if shapes.get(name) != tuple(tensor.shape) and not (name.startswith(resized) and name in shapes)
    ]
    wrong += [f'{name}: the model has no such tensor' for name in sorted(shapes.keys() - own.keys())]
    wrong = [text for text in wrong if not text.startswith('head')]  # a classifier, which nobody needs
    if wrong:
        raise ValueError(
            f'weights={path} are not those of {config.name} as timm names them: {len(wrong)} tensors do not '
            f'fit, such as {"; ".join(wrong[:3])}; the file holds {", ".join(sorted(shapes)[:3])}, ...'
        )


def _warn_of_activation(name: str) -> None:
    """OpenAI's CLIP was trained with another GELU than timm's plain names compute."""
    family, _, tag = name.partition('.')
    trained = family.replace('_clip_', '_clip_quickgelu_')
    if trained != family and 'quickgelu' not in family and f'{trained}.{tag}' in timm.list_pretrained(f'{trained}.*'):
        warnings.warn(
            f'{name} computes another activation than its weights were trained with: {trained}.{tag} has theirs',
            stacklevel=2,
        )


@contextlib.contextmanager
def _fetching(config: EncoderConfig) -> Iterator[None]:
    """Turn what timm and the hub raise into one message; where the hub cannot be reached, do not wait for it."""
    offline = huggingface_hub.constants.HF_HUB_OFFLINE
    needs_hub = (config.pretrained and not config.weights) or config.name.startswith(('hf-hub:', 'hf_hub:'))
    try:
        if needs_hub and not offline and config.name not in SHIPPED and not _hub_answers():
            huggingface_hub.constants.HF_HUB_OFFLINE = True  # what is in the cache is found all the same
        yield
    except TypeError as error:
        raise ValueError(f'{config.name} is not a Vision Transformer of timm: {error}') from error
    except (OSError, RuntimeError) as error:
        if not needs_hub or (isinstance(error, FileNotFoundError) and 'reinstall' in str(error)):
            raise
        raise RuntimeError(
            f'the pretrained weights of {config.name} could not be loaded: {type(error).__name__}: {error}\n'
            'They come from the Hugging Face hub on first use. Without a network, download them elsewhere and pass '
            'weights=FILE, a safetensors file, or set HF_HOME to the folder that holds them (and HF_HUB_OFFLINE=1, so '
            'that nothing waits for the network); encoder=vit_toybox_patch8_96 needs no download.'
        ) from error
    finally:
        huggingface_hub.constants.HF_HUB_OFFLINE = offline


def _hub_answers(seconds: float = 3.0) -> bool:
    """Whether the hub's address can be connected to; behind a proxy that is for the proxy to say."""
    if any(os.environ.get(name) for name in ('HTTPS_PROXY', 'https_proxy', 'ALL_PROXY', 'all_proxy')):
        return True
    address = urllib.parse.urlsplit(huggingface_hub.constants.ENDPOINT)
    try:
        with socket.create_connection(
            (address.hostname, address.port or (443 if address.scheme == 'https' else 80)), seconds
        ):
            return True
    except OSError:
        return False
