"""Label maps of a model, or of any program, and their scores on a data set."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from topdown import distributed
from topdown.data.base import crop_masks
from topdown.evaluate import metrics
from topdown.evaluate.truth import BATCH, EvalSet, Rows, TruthSet
from topdown.model.modulation import Scales
from topdown.model.slot_model import Output, SlotModel

LARGEST = 2**17
"""Tokens that a model gets at once: at 128 x 128 pixels, eight images."""
SOURCES = ('decoder', 'slots', 'first')


def labels_from_masks(masks_BKN: Tensor, grid: tuple[int, int], size: int | tuple[int, int]) -> Tensor:
    """Soft masks over patches -> labels (B, H, W) of that size: bilinear upsampling, then argmax over slots.

    They are uint8, or int32 of more than 256 slots.
    """
    maps = masks_BKN.float().unflatten(-1, grid)
    # max finds what argmax does, in a tenth of the time where the dimension is not the last
    labels = F.interpolate(maps, size, mode='bilinear', align_corners=False).max(dim=1).indices
    return labels.to(torch.uint8 if maps.shape[1] <= 256 else torch.int32)


def labels_from_patches(labels_BN: Tensor, grid: tuple[int, int], size: int, count: int) -> Tensor:
    """Hard patch labels -> labels (B, size, size), upsampled exactly as soft masks are."""
    return labels_from_masks(F.one_hot(labels_BN.long(), count).transpose(1, 2), grid, size)


def run_model(
    model: SlotModel,
    data: EvalSet | Tensor,
    seed: int = 0,
    precision: str | None = None,
    limit: int = 0,
    decode: bool = True,
) -> Iterator[tuple[slice, Output]]:
    """Apply a model to images batch by batch, in evaluation mode, with noise that depends on seed and image alone.

    Args:
        model: the model.
        data: the set, of which models of clips go through every clip from its first frame on, or tokens (V, N, D).
        seed: of the slots' noise.
        precision: bf16 or fp32; by default what the model was trained in.
        limit: use the first so many images; 0 for all.
        decode: whether the decoder's part of the output is wanted.

    Yields:
        The slice of images and the model's output, on the device it runs on and without gradients. Modes of torch are
        the caller's own in between.
    """
    tokens, first, count, frames = data, 0, len(data), 1
    device, config = next(model.parameters()).device, model.config
    if not isinstance(data, Tensor):
        tokens, first, count = data.tokens, data.first, len(data.dataset)
        frames = data.dataset.frames if config.clip_length > 1 else 1
    noise = torch.randn(count, config.num_slots, config.slot_size, generator=torch.Generator().manual_seed(seed))
    before = model.training, model.precision
    model.eval()
    model.precision = precision or model.precision
    end = min(limit or len(tokens), len(tokens))
    size = frames if frames > 1 else max(1, min(BATCH, LARGEST // tokens.shape[1]))  # a clip at a time
    try:
        for start in range(0, end, size):
            batch = slice(start, min(start + size, end))
            with torch.no_grad():
                starts = noise[first:][batch][::frames].to(device)
                out = model(tokens[batch].to(device).float(), starts, decode=decode)
            yield batch, out
    finally:
        model.precision = before[1]
        model.train(before[0])


def masks_of(out: Output, source: str) -> Tensor:
    """Soft masks (B, K, N): 'decoder' for the decoder's, 'slots' for slot attention's, 'first' for the first pass's.

    Raises:
        ValueError: for an unknown source; 'first' without the top-down pathway.
    """
    if source not in SOURCES:
        raise ValueError(f"source must be 'decoder', 'slots' or 'first', got {source!r}")
    masks = {'decoder': out.masks, 'slots': out.attention, 'first': out.first_attention}[source]
    if masks is None:
        raise ValueError(f'the model gives no masks of source {source!r}')
    return masks


def predict(
    model: SlotModel,
    data: EvalSet,
    source: str = 'decoder',
    seed: int = 0,
    precision: str | None = None,
    change: Callable[[Scales], Scales] | None = None,
    limit: int = 0,
) -> Tensor:
    """Label maps (V, M, M) of a set's images; arguments beside ``data`` as for ``predict_tokens``."""
    return predict_tokens(model, data, data.grid, data.mask_size, source, seed, precision, change, limit)


def predict_tokens(
    model: SlotModel,
    tokens: EvalSet | Tensor,
    grid: tuple[int, int],
    size: int | tuple[int, int],
    source: str = 'decoder',
    seed: int = 0,
    precision: str | None = None,
    change: Callable[[Scales], Scales] | None = None,
    limit: int = 0,
) -> Tensor:
    """Label maps (V, H, W), see ``labels_from_masks``, of images whose tokens are at hand.

    Args:
        model: the model.
        tokens: (V, N, D), or a set that holds them.
        grid: rows and columns of patches.
        size: side of the maps, or their height and width, in pixels.
        source: see ``masks_of``.
        seed: of the slots' noise.
        precision: bf16 or fp32; by default what the model was trained in.
        change: applied to the scales of every modulated pass, to see what each of them does.
        limit: predict the first so many images; 0 for all.

    Raises:
        ValueError: see ``masks_of``; also for ``change`` without the top-down pathway.
    """
    if change is not None and model.modulation is None:
        raise ValueError('change needs a model with the top-down pathway: this one has no scales')
    hook = None if change is None else model.modulation.register_forward_hook(lambda _, __, scales: change(scales))
    found, count = None, min(limit or len(tokens), len(tokens))
    try:
        for batch, out in run_model(model, tokens, seed, precision, limit, source == 'decoder'):
            labels = labels_from_masks(masks_of(out, source), grid, size).cpu()
            found = labels.new_empty(count, *labels.shape[1:]) if found is None else found
            found[batch] = labels
    finally:
        if hook is not None:
            hook.remove()
    return found


def interventions(model: SlotModel, data: EvalSet) -> dict[str, Callable[[Scales], Scales]]:
    """Changes to a trained model's scales, for ``predict``, each taking away one thing it may rely on.

    'both' leaves all as it was trained; 'none' scales by ones, so that a second pass repeats the first; 'channel only'
    and 'spatial only' keep one part; 'mean channel' gives every slot the data set's average channel scale (no *what*);
    'shuffled codes' and 'spatial of another slot' give a slot the scale of the next slot of its image.

    Args:
        model: a model with the top-down pathway; parts that it does not have are left out of the dictionary.
        data: the set over which the channel scale is averaged.

    Raises:
        ValueError: for a model without the pathway.
    """
    if model.modulation is None:
        raise ValueError('interventions need a model with the top-down pathway: this one has no scales')
    found: dict[str, Callable[[Scales], Scales]] = {'both': lambda s: s, 'none': lambda s: Scales()}
    if model.modulation.channel is not None:
        scales = [out.scales.channel.float() for _, out in run_model(model, data, decode=False)]
        average = torch.cat(scales).mean((0, 1))
        found['channel only'] = lambda s: s._replace(spatial=None)
        found['mean channel'] = lambda s: s._replace(channel=average.expand_as(s.channel))
        found['shuffled codes'] = lambda s: s._replace(channel=s.channel.roll(1, dims=1))
    if model.modulation.spatial:
        found['spatial only'] = lambda s: Scales(spatial=s.spatial)
        found['spatial of another slot'] = lambda s: s._replace(spatial=s.spatial.roll(1, dims=1))
    return found


def slot_categories(labels: Tensor, data: TruthSet, num_slots: int, threshold: float = 0.5) -> Tensor:
    """Which true category each slot stands for.

    Args:
        labels: predicted label maps (V, M, M).
        data: the set.
        num_slots: K.
        threshold: least IoU between a slot's mask and an object.

    Returns:
        (V, K) int64: class of the object that the slot's mask overlaps most, 0 if none by ``threshold``; class c stands
        for category id ``data.main_truth.ids[c - 1]``.
    """
    best, which = slot_overlaps(labels, data, num_slots).max(dim=1)  # (V, K)
    return torch.where(best >= threshold, object_categories(data).gather(1, which), 0)


def slot_overlaps(labels: Tensor, data: TruthSet, num_slots: int) -> Tensor:
    """IoU of every true object with every slot's mask.

    Args:
        labels: predicted label maps (V, M, M).
        data: the set.
        num_slots: K.

    Returns:
        (V, O, K), objects numbered as in ``data.instances`` less one; 0 where an image has fewer objects.
    """
    truth = data.main_truth
    joint = metrics.joint_histogram(truth.regions, labels, truth.instance.shape[1])
    joint = F.pad(joint, (0, num_slots - joint.shape[2]))
    return metrics.iou(metrics.merge_rows(joint, truth.instance))[0]


def object_categories(data: TruthSet) -> Tensor:
    """Category id (V, O) int64 of every true object, numbered as in ``slot_overlaps``; 0 where there is none."""
    truth = data.main_truth
    owner = torch.zeros(len(data), int(truth.instance.max().clamp(min=0)) + 1, dtype=torch.int64)
    owner.scatter_(1, truth.instance.clamp(min=0), truth.category.clamp(min=0))
    return owner[:, 1:]


def score(labels: Tensor | np.ndarray, data: TruthSet, protocol: str | None = None) -> list[dict[str, float]]:
    """Metrics of predicted label maps (V, M, M), one row per image, as shares (see ``metrics.score``).

    Args:
        labels: predicted labels >= 0.
        data: the set.
        protocol: one that the set has the truth of; its main one if None. Maps of the main one's size are resized
            nearest-exact to this one's (``score_model`` upsamples a model's soft masks to each instead).

    Raises:
        ValueError: if the number or size of maps is not that of the set, or the set lacks the protocol.
    """
    if protocol is not None and protocol not in data.truth:
        raise ValueError(f'the set has the truth of {", ".join(data.truth)}, not of protocol {protocol!r}')
    protocol = protocol or next(iter(data.truth))
    truth = data.truth[protocol]
    if tuple(np.shape(labels)) == tuple(data.main_truth.regions.shape) != tuple(truth.regions.shape):
        side, maps = truth.regions.shape[-1], labels
        labels = Rows(lambda rows: crop_masks(np.asarray(maps[rows]), side), *truth.regions.shape)
    return _score(labels, data, protocol)


def _score(labels: Tensor | np.ndarray, data: TruthSet, protocol: str, part: slice = slice(None)) -> list[dict]:
    """Rows of a part of the set; NaN where nobody labelled the images."""
    if not data.dataset.labelled:
        return [dict.fromkeys(metrics.METRICS, float('nan')) for _ in range(len(labels))]
    return metrics.score(labels, data.truth[protocol][part])


def per_image_table(labels: Tensor | np.ndarray, data: TruthSet) -> pd.DataFrame:
    """One row per image and protocol, of predicted label maps; see ``rows_table``."""
    return rows_table({protocol: score(labels, data, protocol) for protocol in data.truth}, data)


def rows_table(rows: dict[str, list[dict[str, float]]], data: TruthSet) -> pd.DataFrame:
    """One row per image and protocol: image_id, file_name, protocol and every metric as a share.

    Sorted by how far the protocols disagree, by whatever metric they disagree on most, in column ``disagreement``.

    Args:
        rows: protocol -> a row per image, as of ``score``.
        data: the set.
    """
    parts = []
    for protocol, found in rows.items():
        part = pd.DataFrame(found)
        part.insert(0, 'image_id', data.image_ids)
        part.insert(1, 'file_name', data.file_names)
        part.insert(2, 'protocol', protocol)
        parts.append(part)
    return order_by_disagreement(pd.concat(parts, ignore_index=True))


def order_by_disagreement(table: pd.DataFrame) -> pd.DataFrame:
    """Rows of ``rows_table``, sorted as it says."""
    values = table.groupby('image_id')[list(metrics.METRICS)]
    spread = (values.max() - values.min()).max(axis=1).rename('disagreement')
    table = table.drop(columns='disagreement', errors='ignore').join(spread, on='image_id')
    return table.sort_values(['disagreement', 'image_id', 'protocol'], ascending=[False, True, True], kind='stable')


def score_model(
    model: SlotModel,
    data: EvalSet,
    sources: Sequence[str] = ('decoder',),
    seed: int = 0,
    protocols: Sequence[str] = (),
) -> dict[str, dict[str, list[dict[str, float]]]]:
    """Metrics of a model's masks, by source and protocol, a row per image as of ``score``; the model runs once.

    Its soft masks are upsampled to every protocol's own mask size.

    Args:
        model: the model.
        data: the set.
        sources: of masks, see ``masks_of``.
        seed: of the slots' noise.
        protocols: of those that the set has the truth of; all of them if empty.
    """
    rows = {source: {name: [] for name in protocols or data.truth} for source in sources}
    for batch, out in run_model(model, data, seed, decode='decoder' in sources):
        for source in sources:
            sides = {data.truth[name].regions.shape[-1] for name in rows[source]}
            labels = {side: labels_from_masks(masks_of(out, source), data.grid, side).cpu() for side in sides}
            for name, found in rows[source].items():
                found += _score(labels[data.truth[name].regions.shape[-1]], data, name, batch)
    return rows


def evaluate_model(model: SlotModel, data: EvalSet, source: str = 'decoder', seed: int = 0) -> dict[str, float]:
    """Mean metrics of a model in percent, over the parts of the set that processes have."""
    main = next(iter(data.truth))
    rows = score_model(model, data, (source,), seed, (main,))[source][main]
    return metrics.summarize(distributed.gather_lists(rows))
