"""Evaluation of a model, or of any label maps, on a data set; and the baselines every table shows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm.auto import tqdm

from topdown import distributed, metrics
from topdown.config import Config
from topdown.data import open_dataset
from topdown.data.base import PictureSet, crop_image, crop_masks, read_picture
from topdown.encoder import Encoder, encode_all
from topdown.metrics import Truth
from topdown.model import Output, SlotModel
from topdown.protocols import get_protocol
from topdown.slots import Scales

BATCH = 32
LARGEST = 2**17
"""Tokens that a model gets at once: at 128 x 128 pixels, eight pictures."""


@dataclass
class TruthSet:
    """What predictions are scored against."""

    dataset: PictureSet | None  # the pictures; None for a single one that was given
    truth: dict[str, Truth]  # protocol -> true regions at mask size; the first is the main one
    image_ids: list[int] | list[str]
    file_names: list[str]

    def __len__(self) -> int:
        return len(self.image_ids)

    @property
    def mask_size(self) -> int:
        """M, pixels."""
        return self.main_truth.regions.shape[-1]

    @property
    def main_truth(self) -> Truth:
        """Under the experiment's own protocol."""
        return next(iter(self.truth.values()))

    @property
    def instances(self) -> np.ndarray:
        """Label maps (V, M, M) int16: 0 background, instances from 1, ``IGNORE`` left out."""
        return self._map(self.main_truth.instance)

    @property
    def classes(self) -> np.ndarray:
        """Label maps (V, M, M) int16: 0 background, classes from 1 (see ``Truth.ids``), ``IGNORE`` left out."""
        return self._map(self.main_truth.category)

    def _map(self, owner: Tensor) -> np.ndarray:
        regions = self.main_truth.regions
        return owner.to(torch.int16).gather(1, regions.flatten(1).long()).view(regions.shape).numpy()


@dataclass
class EvalSet(TruthSet):
    """Validation tokens and truth, computed once and used for every model and baseline."""

    tokens: Tensor  # (V, N, D)
    images: Tensor  # (V, 3, S, S)
    grid: tuple[int, int]


def make_truth_set(
    config: Config,
    split: str = 'val',
    protocols: tuple[str, ...] = (),
    dataset: PictureSet | None = None,
    progress: bool = True,
) -> TruthSet:
    """Label a split as the experiment's settings have it: protocol, crowd regions and void pixels are its own.

    Args:
        config: the experiment.
        split: 'train' or 'val'.
        protocols: further protocols, beside the experiment's own, to make the truth of: one prediction can then be
            scored under each.
        dataset: the split, if it is open already or is no data set that ``config`` can name.
        progress: show a bar.

    Raises:
        FileNotFoundError, ValueError: see ``open_dataset``; ValueError also for an unknown protocol.
    """
    dataset = dataset or open_dataset(config, split, progress)
    names = list(dict.fromkeys((config.data.protocol, *protocols)))
    maps: dict[str, tuple[list, list]] = {name: ([], []) for name in names}
    categories = []
    for i in tqdm(range(len(dataset)), desc='reading true masks', disable=not progress):
        truth = dataset.annotation(i)
        categories.append(truth.categories)
        unknown = None
        if config.data.void == 'ignore' and truth.void is not None:
            unknown = truth.void
        for name, (instances, classes) in maps.items():
            protocol = get_protocol(name)
            keep = None if config.data.keep_crowd or protocol.keep_crowd else ~truth.crowd
            cut = crop_masks(truth.masks, dataset.mask_size, protocol.mask_resize)
            maps_of_picture = (
                metrics.instance_labels(cut, keep).astype(np.int32),
                metrics.class_labels(cut, truth.categories, keep, name),
            )
            for labels, kept in zip(maps_of_picture, (instances, classes), strict=True):
                if unknown is not None:
                    hidden = crop_masks(unknown[None], dataset.mask_size, protocol.mask_resize)[0]
                    labels[hidden] = metrics.IGNORE
                kept.append(labels)
    dataset.report.warn()
    return TruthSet(
        dataset=dataset,
        truth={name: metrics.make_truth(*pair, categories) for name, pair in maps.items()},
        image_ids=list(dataset.ids),
        file_names=[dataset.file_name(i) for i in range(len(dataset))],
    )


def make_eval_set(
    config: Config,
    encoder: Encoder,
    split: str = 'val',
    protocols: tuple[str, ...] = (),
    dataset: PictureSet | None = None,
    progress: bool = True,
) -> EvalSet:
    """Encode and label a split, cut as the experiment's protocol has it; arguments as for ``make_truth_set``.

    Pictures and tokens are kept in memory, each once: at the paper's scale 3 GB each for COCO's 5,000 pictures.
    """
    known = make_truth_set(config, split, protocols, dataset, progress)
    dataset, size = known.dataset, known.dataset.image_size
    images = torch.empty(len(dataset), 3, size, size)
    tokens = torch.empty(len(dataset), encoder.num_patches, encoder.feature_size)
    for first in tqdm(range(0, len(dataset), BATCH), desc='reading pictures', disable=not progress):
        for i in range(first, min(first + BATCH, len(dataset))):
            images[i] = dataset.view(i)
        tokens[first : first + BATCH] = encode_all(encoder, images[first : first + BATCH])
    return EvalSet(**vars(known), tokens=tokens, images=images, grid=encoder.grid)


def labels_from_masks(masks_BKN: Tensor, grid: tuple[int, int], size: int) -> Tensor:
    """Soft masks over patches -> labels (B, size, size) int32: bilinear upsampling, then argmax over slots."""
    maps = masks_BKN.float().unflatten(-1, grid)
    return F.interpolate(maps, (size, size), mode='bilinear', align_corners=False).argmax(dim=1).int()


def labels_from_patches(labels_BN: Tensor, grid: tuple[int, int], size: int, count: int) -> Tensor:
    """Hard patch labels -> labels (B, size, size), upsampled exactly as soft masks are."""
    return labels_from_masks(F.one_hot(labels_BN.long(), count).transpose(1, 2), grid, size)


def run_model(
    model: SlotModel,
    data: EvalSet,
    seed: int = 0,
    precision: str | None = None,
    limit: int = 0,
    part: slice = slice(None),
) -> Iterator[tuple[slice, Output]]:
    """Apply a model to the set batch by batch, in evaluation mode, with noise that depends on seed and image alone.

    Args:
        model: the model.
        data: the set.
        seed: of the slots' noise.
        precision: bf16 or fp32; by default what the model was trained in.
        limit: use the first so many images; 0 for all.
        part: use these images only.

    Yields:
        The slice of images and the model's output, on the device it runs on and without gradients. Modes of torch are
        the caller's own in between.
    """
    device = next(model.parameters()).device
    config = model.config
    noise = torch.randn(len(data), config.slots, config.slot_size, generator=torch.Generator().manual_seed(seed))
    before = model.training, model.precision
    model.eval()
    model.precision = precision or model.precision
    start, end, _ = part.indices(limit or len(data))
    size = max(1, min(BATCH, LARGEST // data.tokens.shape[1]))
    try:
        for first in range(start, end, size):
            batch = slice(first, min(first + size, end))
            with torch.no_grad():
                out = model(data.tokens[batch].to(device), noise[batch].to(device))
            yield batch, out
    finally:
        model.precision = before[1]
        model.train(before[0])


def predict(
    model: SlotModel,
    data: EvalSet,
    source: str = 'decoder',
    seed: int = 0,
    precision: str | None = None,
    change: Callable[[Scales], Scales] | None = None,
    part: slice = slice(None),
) -> Tensor:
    """Label maps (V, M, M) int32 of the whole set.

    Args:
        model: the model.
        data: the set.
        source: 'decoder' for the decoder's masks, 'slots' for slot attention's, 'first' for those of the first pass.
        seed: of the slots' noise.
        precision: bf16 or fp32; by default what the model was trained in.
        change: applied to the scales of every modulated pass, to see what each of them does.
        part: predict these images only.

    Raises:
        ValueError: for an unknown source; 'first' or ``change`` without the top-down pathway.
    """
    if source not in ('decoder', 'slots', 'first'):
        raise ValueError(f"source must be 'decoder', 'slots' or 'first', got {source!r}")
    parts = []
    if change is not None and model.modulation is None:
        raise ValueError('change needs a model with the top-down pathway: this one has no scales')
    hook = None if change is None else model.modulation.register_forward_hook(lambda _, __, scales: change(scales))
    try:
        for _, out in run_model(model, data, seed, precision, part=part):
            masks = {'decoder': out.masks, 'slots': out.attention, 'first': out.first_attention}[source]
            if masks is None:
                raise ValueError(f'the model gives no masks of source {source!r}')
            parts.append(labels_from_masks(masks, data.grid, data.mask_size).cpu())
    finally:
        if hook is not None:
            hook.remove()
    return torch.cat(parts)


def interventions(model: SlotModel, data: EvalSet) -> dict[str, Callable[[Scales], Scales]]:
    """Changes to a trained model's scales, for ``predict``, each taking away one thing it may rely on.

    'both' leaves all as it was trained; 'none' scales by ones, so that a second pass repeats the first; 'channel only'
    and 'spatial only' keep one part; 'mean channel' gives every slot the data set's average channel scale (no *what*);
    'shuffled codes' and 'spatial of another slot' give a slot the scale of the next slot of its picture.

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
        scales = [out.scales.channel.float() for _, out in run_model(model, data)]
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
    truth = data.main_truth
    joint = metrics.joint_histogram(truth.regions, labels, truth.instance.shape[1])
    joint = F.pad(joint, (0, num_slots - joint.shape[2]))
    overlap, _ = metrics.iou(metrics.merge_rows(joint, truth.instance))
    best, which = overlap.max(dim=1)  # (V, K)
    owner = torch.zeros(len(data), overlap.shape[1] + 1, dtype=torch.int64)
    owner.scatter_(1, truth.instance.clamp(min=0), truth.category.clamp(min=0))
    return torch.where(best >= threshold, owner.gather(1, which + 1), 0)


def segment_image(
    image: str | Path | np.ndarray,
    model: SlotModel,
    encoder: Encoder,
    size: int = 320,
    source: str = 'decoder',
    protocol: str = 'oclf',
    seed: int = 0,
) -> tuple[Tensor, np.ndarray]:
    """Segments of one picture.

    Args:
        image: a file, or an array (H, W, 3) or (H, W) of uint8, or of floats in [0, 1].
        model, encoder: see ``train.load_run``.
        size: side M of the label map, pixels.
        source: see ``predict``.
        protocol: how the picture is cut to the encoder's square.
        seed: of the slots' noise.

    Returns:
        The cut picture (3, S, S) and its labels (M, M).

    Raises:
        FileNotFoundError, ValueError: if the picture is missing or unreadable, or of another shape or range.
    """
    if isinstance(image, (str, Path)):
        picture = read_picture(Path(image))
    else:
        array = np.asarray(image)
        if array.ndim == 2:
            array = array[..., None].repeat(3, axis=2)
        if array.ndim != 3 or array.shape[2] != 3:
            raise ValueError(f'image must have shape (H, W, 3) or (H, W), got {np.shape(image)}')
        scale = 255 if array.dtype == np.uint8 else 1
        picture = torch.from_numpy(np.ascontiguousarray(array)).permute(2, 0, 1).float() / scale
        if not 0 <= float(picture.min()) <= float(picture.max()) <= 1:
            raise ValueError(f'image must be uint8 or lie in [0, 1], got {array.dtype} up to {array.max()}')
    picture = crop_image(picture, encoder.config.image_size, resize=get_protocol(protocol).image_resize)
    nothing = metrics.make_truth(np.zeros((1, size, size), np.int16), np.zeros((1, size, size), np.int16))
    tokens = encode_all(encoder, picture[None])
    data = EvalSet(None, {protocol: nothing}, [0], [''], tokens, picture[None], encoder.grid)
    return picture, predict(model, data, source, seed)[0].numpy()


def score(labels: Tensor | np.ndarray, data: TruthSet, protocol: str | None = None) -> list[dict[str, float]]:
    """Metrics of predicted label maps (V, M, M), a row an image, as shares (see ``metrics.score``).

    Args:
        labels: predicted labels >= 0.
        data: the set.
        protocol: one that the set has the truth of; its main one if None.

    Raises:
        ValueError: if the number or size of maps is not that of the set, or the set lacks the protocol.
    """
    if protocol is not None and protocol not in data.truth:
        raise ValueError(f'the set has the truth of {", ".join(data.truth)}, not of protocol {protocol!r}')
    return metrics.score(labels, data.truth[protocol] if protocol else data.main_truth)


def per_image_table(labels: Tensor | np.ndarray, data: TruthSet) -> pd.DataFrame:
    """One row an image and protocol: image_id, file_name, protocol and every metric as a share.

    Sorted by how far the protocols disagree, by whatever metric they disagree on most, in column ``disagreement``.
    """
    parts = []
    for protocol in data.truth:
        part = pd.DataFrame(score(labels, data, protocol))
        part.insert(0, 'image_id', data.image_ids)
        part.insert(1, 'file_name', data.file_names)
        part.insert(2, 'protocol', protocol)
        parts.append(part)
    return order_by_disagreement(pd.concat(parts, ignore_index=True))


def order_by_disagreement(table: pd.DataFrame) -> pd.DataFrame:
    """Rows of ``per_image_table``, sorted as it says."""
    values = table.groupby('image_id')[list(metrics.METRICS)]
    spread = (values.max() - values.min()).max(axis=1).rename('disagreement')
    table = table.drop(columns='disagreement', errors='ignore').join(spread, on='image_id')
    return table.sort_values(['disagreement', 'image_id', 'protocol'], ascending=[False, True, True], kind='stable')


def evaluate_model(model: SlotModel, data: EvalSet, source: str = 'decoder', seed: int = 0) -> dict[str, float]:
    """Mean metrics of a model in percent; several processes share the images."""
    part = distributed.share(len(data))
    rows = metrics.score(predict(model, data, source, seed, part=part), data.main_truth[part])
    return metrics.summarize(distributed.gather_lists(rows))


# --------------------------------------------------------------------------------------------------- baselines


def block_grid(data: EvalSet, count: int) -> Tensor:
    """A fixed grid of ``count`` cells as equal as can be: rows of cells, the last row sharing what is left."""
    rows = max(1, round(count**0.5))
    per_row = [count // rows + (r < count % rows) for r in range(rows)]
    labels = torch.zeros(data.mask_size, data.mask_size, dtype=torch.int32)
    first = 0
    edges = torch.linspace(0, data.mask_size, rows + 1).round().long().tolist()
    for top, bottom, cells in zip(edges[:-1], edges[1:], per_row, strict=True):
        column = torch.arange(data.mask_size) * cells // data.mask_size
        labels[top:bottom] = (first + column).int()
        first += cells
    return labels.expand(len(data), -1, -1)


def kmeans(data: EvalSet, features: Tensor, count: int, seed: int = 0) -> Tensor:
    """k-means with ``count`` clusters on the patches of each picture; features (V, N, F) -> labels (V, M, M)."""
    from sklearn.cluster import KMeans
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):  # many small problems: threads only get in each other's way
        labels = np.stack([
            KMeans(count, n_init=3, random_state=seed).fit_predict(x.double().numpy()) for x in features
        ])  # fmt: skip
    return labels_from_patches(torch.from_numpy(labels), data.grid, data.mask_size, count)


def patch_colours(data: EvalSet) -> Tensor:
    """Mean colour of every patch (V, N, 3)."""
    size = data.images.shape[-1] // data.grid[0]
    return F.avg_pool2d(data.images, size).flatten(2).transpose(1, 2)


def pooled_truth(data: EvalSet) -> Tensor:
    """The upper bound of the patch grid: each patch gets the true label that covers most of it."""
    labels = _patch_truth(data)
    return labels_from_patches(labels, data.grid, data.mask_size, int(labels.max()) + 1)


def truth_at_token_means(data: EvalSet) -> Tensor:
    """What the tokens allow to models with one token a segment, were the segments known.

    Every true segment (background included) is given the mean of its patches' tokens, and every patch then goes to the
    nearest mean.
    """
    truth = _patch_truth(data)
    member = F.one_hot(truth, int(truth.max()) + 1).float()
    size = member.sum(1)
    means = member.transpose(1, 2) @ data.tokens / size[..., None].clamp(min=1)
    distance = torch.cdist(data.tokens, means).masked_fill((size == 0)[:, None], float('inf'))
    return labels_from_patches(distance.argmin(-1), data.grid, data.mask_size, member.shape[-1])


def _patch_truth(data: EvalSet) -> Tensor:
    """The true label (V, N) that covers most of each patch."""
    maps = torch.from_numpy(np.maximum(data.instances, 0))
    count, parts = int(maps.max()) + 1, []
    for part in maps.split(64):
        shares = F.one_hot(part.long(), count).permute(0, 3, 1, 2).float()
        parts.append(F.adaptive_avg_pool2d(shares, data.grid).flatten(2).argmax(dim=1))
    return torch.cat(parts)


def baselines(
    data: EvalSet, count: int, untrained: Callable[[], SlotModel] | None = None, seed: int = 0
) -> dict[str, Tensor]:
    """Label maps (V, M, M) of every baseline, by name.

    Args:
        data: the set.
        count: number of segments, the model's K.
        untrained: makes an untrained model (without the pathway: it has no codes yet), for the row
            'random slots' (slot-attention masks).
        seed: of k-means and of the slots' noise.
    """
    labels = {
        'truth pooled to patches': pooled_truth(data),
        'truth at token means': truth_at_token_means(data),
        'one slot': torch.zeros(data.main_truth.regions.shape, dtype=torch.int32),
        'block grid': block_grid(data, count),
        'k-means on colours': kmeans(data, patch_colours(data), count, seed),
        'k-means on tokens': kmeans(data, data.tokens, count, seed),
    }
    if untrained is not None:
        labels['random slots'] = predict(untrained(), data, 'slots', seed)
    return labels
