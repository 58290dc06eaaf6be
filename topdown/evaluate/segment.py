"""Segments of single images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from topdown.data.base import crop_image, read_image_file
from topdown.evaluate.predict import predict_tokens
from topdown.model.encoder import Encoder, encode_all
from topdown.model.slot_model import SlotModel
from topdown.protocols import get_protocol

NOT_SEEN = 255
"""Label of pixels outside the square that the encoder saw, as label maps commonly have it for *unknown*."""


def segment_image(
    image: str | Path | np.ndarray,
    model: SlotModel,
    encoder: Encoder,
    size: int | str = 'image',
    source: str = 'decoder',
    protocol: str = 'oclf',
    seed: int = 0,
) -> tuple[Tensor, np.ndarray]:
    """Segments of one image.

    The encoder sees the square in the image's centre. Labels of the image's own size have ``NOT_SEEN`` beside it.

    Args:
        image: a file, or an array (H, W, 3) or (H, W) of uint8, or of floats in [0, 1].
        model, encoder: see ``train.load_run``.
        size: 'image' for labels of the image's own size; 'grid' for one per patch; or their side M, of the square.
        source: see ``predict``.
        protocol: how the image is cut to the encoder's square.
        seed: of the slots' noise.

    Returns:
        The image (3, H, W) and its labels (H, W); for other sizes the square (3, S, S) and its labels.

    Raises:
        FileNotFoundError, ValueError: if the image is missing or unreadable, or of another shape or range; for an
            unknown size, or a model of more than 255 slots.
    """
    if not (size in ('image', 'grid') or (isinstance(size, int) and size > 0)):
        raise ValueError(f"size must be 'image', 'grid' or a number of pixels, got {size!r}")
    if model.config.num_slots > NOT_SEEN:
        raise ValueError(f'{model.config.num_slots} slots are too many: labels go to 254, and 255 is what is not seen')
    whole = read_image_file(Path(image)) if isinstance(image, (str, Path)) else _as_image(image)
    square = crop_image(whole, encoder.config.image_size, resize=get_protocol(protocol).image_resize)
    side = {'image': min(whole.shape[1:]), 'grid': encoder.grid}.get(size, size)
    labels = predict_tokens(model, encode_all(encoder, square[None]), encoder.grid, side, source, seed)[0].numpy()
    if size != 'image':
        return square, labels
    found = np.full(whole.shape[1:], NOT_SEEN, labels.dtype)
    top, left = (round((extent - side) / 2) for extent in found.shape)
    found[top : top + side, left : left + side] = labels
    return whole, found


def _as_image(image: np.ndarray) -> Tensor:
    """An array of numbers as (3, H, W) float32 in [0, 1]."""
    array = np.asarray(image)
    if array.ndim == 2:
        array = array[..., None].repeat(3, axis=2)
    if array.ndim != 3 or array.shape[2] != 3:
        raise ValueError(f'image must have shape (H, W, 3) or (H, W), got {np.shape(image)}')
    scale = 255 if array.dtype == np.uint8 else 1
    found = torch.from_numpy(np.ascontiguousarray(array)).permute(2, 0, 1).float() / scale
    if not 0 <= float(found.min()) <= float(found.max()) <= 1:
        raise ValueError(f'image must be uint8 or lie in [0, 1], got {array.dtype} up to {array.max()}')
    return found
