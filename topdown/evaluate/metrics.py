"""Segmentation metrics of object-centric learning: label maps in, numbers out. Knows no model.

Everything comes from one joint histogram per image, J[r, k] = number of pixels of true region r and predicted label k.
A region is a set of pixels that agree in instance and in class, so that summing rows of J gives the histogram of
instances and the histogram of classes. All functions take batches and run where their tensors are, CPU or GPU.

Metrics (per image; means over images are taken by ``summarize``)::

    FG-ARI   adjusted Rand index (Hubert and Arabie 1985) over foreground pixels only
    ARI      the same over all pixels, background being one more segment
    mBO      mean over true objects of max_k IoU(o, k)                 (Pont-Tuset et al. 2017)
    mIoU     mean over true objects of IoU under the best one-to-one matching, 0 for unmatched objects
    recall   share of true objects with max_k IoU(o, k) >= 0.5
    CorLoc   1 if some true object has max_k IoU(o, k) >= 0.5, else 0  (masks here; boxes in papers on localization)

mBO over instance masks is mBO_i, over class masks mBO_c; mIoU, recall and CorLoc are over instances. Under some
protocols the background is an object of mBO_i or mIoU, never of recall and CorLoc, and some have mIoU and FG-ARI over
classes, too (``miou_c``, ``fg_ari_c``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from topdown.protocols import PROTOCOLS, Protocol, get_protocol

IGNORE = -1


MOST_REGIONS, MOST_CELLS = 2**12, 2**24
"""Most true regions of an image, and most cells of its histogram: memory is asked for only below them."""


METRICS = ('fg_ari', 'ari', 'mbo_i', 'mbo_c', 'miou', 'recall', 'corloc')
NAMES = (*METRICS, 'miou_c', 'fg_ari_c')
"""With those that only some protocols have."""


@dataclass
class Truth:
    """True regions of a batch of images.

    Instances are numbered from 1 in every image, classes from 1 in the whole batch; 0 is background. Category ids are
    whatever integers the annotations use, 0 and negative ones included, and so are kept apart, in ``ids``.
    """

    regions: Tensor  # (B, H, W) integer, region of every pixel
    instance: Tensor  # (B, R) int64, instance of every region; IGNORE where left out
    category: Tensor  # (B, R) int64, class of every region; IGNORE where left out
    ids: Tensor  # (C,) int64, ascending: class c stands for category id ids[c - 1]
    erased: Tensor  # (B, 2) int64, instances and classes without a pixel that count 0
    protocol: Protocol = PROTOCOLS['oclf']  # what IGNORE means, and which scores there are

    def __len__(self) -> int:
        return len(self.regions)

    def __getitem__(self, part: slice) -> Truth:
        rows = {name: getattr(self, name)[part] for name in ('regions', 'instance', 'category', 'erased')}
        return replace(self, **rows)

    def to(self, device: str | torch.device) -> Truth:
        """The same on another device."""
        names = ('regions', 'instance', 'category', 'ids', 'erased')
        return replace(self, **{name: getattr(self, name).to(device) for name in names})


# ------------------------------------------------------------------------------------------------------- truth


def instance_labels(masks: np.ndarray, keep: np.ndarray | None = None) -> np.ndarray:
    """Instance masks to one label map; pixels in several masks are set aside, as ``Protocol.aside`` has it.

    Args:
        masks: (O, H, W) boolean.
        keep: (O,) boolean, which instances count as objects; the others are left to the background.

    Returns:
        (H, W) int64: 0 background, o + 1 for instance o, ``IGNORE`` where two or more kept instances overlap.

    Raises:
        ValueError: if masks are not (O, H, W) or hold more than whole numbers.
    """
    masks = _masks(masks)
    if keep is not None:
        masks = masks & _per_mask(keep, masks, 'keep')[:, None, None].astype(bool)
    if not len(masks):
        return np.zeros(masks.shape[1:], np.int64)
    labels = masks.argmax(0) + 1
    count = masks.sum(0)
    labels[count == 0] = 0
    labels[count > 1] = IGNORE
    return labels


def class_labels(
    masks: np.ndarray, categories: np.ndarray, keep: np.ndarray | None = None, protocol: str = 'oclf'
) -> np.ndarray:
    """Instance masks to one map of classes, numbered from 1 in ascending order of the image's category ids.

    Args:
        masks: (O, H, W) boolean.
        categories: (O,) category ids, any integers.
        keep: (O,) boolean, which instances count.
        protocol: where pixels have several classes, the highest id wins under ``oclf``; under ``spot``, pixels of
            several kept instances are left out, also if these are of one class; see ``Protocol.class_overlap``.

    Returns:
        (H, W) int64: 0 background, c for the c-th smallest of ``categories`` (each counted once, kept or not),
        ``IGNORE`` where left out.

    Raises:
        ValueError: for an unknown protocol, if there is not one category to a mask, or for masks or categories that are
            not whole numbers.
    """
    remove = get_protocol(protocol).class_overlap != 'highest'
    masks = _masks(masks)
    keep = np.ones(len(masks), bool) if keep is None else _per_mask(keep, masks, 'keep')
    labels = np.zeros(masks.shape[1:], np.int64)
    _, classes = np.unique(_per_mask(categories, masks, 'category ids'), return_inverse=True)
    for o in np.argsort(classes, kind='stable'):
        if keep[o]:
            labels[masks[o]] = classes[o] + 1
    if remove:
        labels[instance_labels(masks, keep) == IGNORE] = IGNORE
    return labels


def true_labels(
    masks: np.ndarray, categories: np.ndarray, keep: np.ndarray | None = None, protocol: str = 'oclf',
    void: np.ndarray | None = None, order: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray, tuple[int, int]]:  # fmt: skip
    """Instance masks of a cut as a protocol counts them.

    Args:
        masks, categories, keep, protocol: as of ``class_labels``.
        void: (H, W) boolean, pixels to be set aside.
        order: (O,) the objects in the order of their labels' colours, if these have any.

    Returns:
        Maps as of ``instance_labels`` and ``class_labels``, and how many instances and classes without a pixel count 0.
    """
    rules = get_protocol(protocol)
    by_colour = rules.no_background == 'colour' and order is not None
    if by_colour:
        masks, categories, keep = masks[order], categories[order], None if keep is None else keep[order]
    maps = instance_labels(masks, keep), class_labels(masks, categories, keep, protocol)
    if void is not None:
        for labels in maps:
            labels[void] = IGNORE
    if not by_colour and rules.no_background != 'first':
        return *maps, (0, 0)
    erased, numbers = [0, 0], np.arange(1, len(masks) + 1) * (True if keep is None else keep)
    last = (_masks(masks) * numbers[:, None, None]).max(0, initial=0) * (True if void is None else ~void)
    painted = last, np.append(0, np.unique(categories, return_inverse=True)[1] + 1)[last]  # later over earlier objects
    for n, labels in enumerate(maps):
        present = np.unique(painted[n] if rules.erased else labels[labels != IGNORE])
        if len(present) and present[0] > 0:
            labels[labels == present[0]] = 0
        if rules.erased:
            left = np.unique(labels[labels > 0])
            erased[n] = int((np.setdiff1d(present[1:], left) < left.max(initial=0)).sum())
    return *maps, tuple(erased)


class TruthMaker:
    """Label maps of images, one after the other, to the regions of all: two bytes a pixel at most while it goes.

    Args:
        count: of images.
        height, width: of the maps.
        protocol: under which they are made.
    """

    def __init__(self, count: int, height: int, width: int, protocol: str = 'oclf') -> None:
        self.protocol, self.erased = get_protocol(protocol), np.zeros((count, 2), np.int64)
        self.maps = np.zeros((count, height, width), np.uint8)
        self.owners: list[tuple[np.ndarray, np.ndarray]] = []
        self.named: list[np.ndarray] = []

    def add(
        self, instances: np.ndarray, classes: np.ndarray, categories: np.ndarray | None = None, erased=(0, 0)
    ) -> None:
        """The next image; ``erased`` as of ``true_labels``, other arguments and errors as of ``make_truth``."""
        b, shape = len(self.owners), self.maps.shape[1:]
        instance, category = _whole(instances, 'true labels', IGNORE), _whole(classes, 'true classes', IGNORE)
        if not instance.shape == category.shape == shape:
            raise ValueError(
                f'instances {instance.shape} and classes {category.shape} must have the same shape, {shape}'
            )
        if not instance.size:
            raise ValueError(f'true map {b} has no pixels: shape {instance.shape}')
        width = int(category.max()) + 2
        if (int(instance.max()) + 2) * width >= 2**63:
            raise ValueError(f'labels up to {instance.max()} of classes up to {width - 2} are too large: number from 1')
        found, regions = np.unique((instance + 1) * width + category + 1, return_inverse=True)
        if len(found) > MOST_REGIONS:
            raise ValueError(
                f'true map {b} has {len(found)} regions, more than {MOST_REGIONS}: this is not a label map'
            )
        if len(found) > 256 and self.maps.dtype == np.uint8:
            self.maps = self.maps.astype(np.int32)
        self.maps[b], self.erased[b] = regions.reshape(shape), erased
        instance, category = found // width - 1, found % width - 1
        self.owners.append((instance, category))
        positive = category[category > 0]
        self.named.append(positive if categories is None else _category_ids(positive, categories))

    def truth(self) -> Truth:
        """What was added."""
        ids = np.unique(np.concatenate([np.zeros(0, np.int64), *self.named]))
        count = max((len(instance) for instance, _ in self.owners), default=1)
        rows = np.full((2, len(self.owners), count), IGNORE, np.int64)
        for b, (instance, category) in enumerate(self.owners):
            _, compact = np.unique(np.append(instance, (IGNORE, 0)), return_inverse=True)  # IGNORE 0, background 1
            rows[0, b, : len(instance)] = compact[: len(instance)] - 1
            rows[1, b, : len(category)] = category
            rows[1, b, : len(category)][category > 0] = np.searchsorted(ids, self.named[b]) + 1
        parts = (torch.from_numpy(part) for part in (self.maps, *rows, ids, self.erased))
        return Truth(*parts, self.protocol)


def make_truth(
    instances: np.ndarray | Sequence[np.ndarray],
    classes: np.ndarray | Sequence[np.ndarray],
    categories: Sequence[np.ndarray] | None = None,
    protocol: str = 'oclf',
) -> Truth:
    """Label maps of instances and of classes (B, H, W) to regions.

    Args:
        instances: 0 background, instances from 1, ``IGNORE`` where left out.
        classes: 0 background, classes from 1, ``IGNORE`` where left out.
        categories: for every image, the category ids whose c-th smallest class c stands for, as ``class_labels``
            numbers them; None if the maps hold positive category ids themselves.
        protocol: under which the maps are made.

    Raises:
        ValueError: if there is no map, or one without pixels or with more than ``MOST_REGIONS`` regions; if shapes
            differ, labels are not whole numbers from ``IGNORE``, or a class is without a category.
    """
    if not len(instances):
        raise ValueError('there are no true maps')
    shape = np.shape(instances[0])
    if len(shape) != 2:
        raise ValueError(f'true maps must have shape (H, W), got {shape}')
    maker = TruthMaker(len(instances), *shape, protocol)
    for one in zip(instances, classes, [None] * len(instances) if categories is None else categories, strict=True):
        maker.add(*one)
    return maker.truth()


# --------------------------------------------------------------------------------------------------- histograms


def joint_histogram(regions_BHW: Tensor, prediction_BHW: Tensor, num_regions: int = 0) -> Tensor:
    """Intersections of every region with every predicted segment.

    Args:
        regions_BHW: integer labels >= 0.
        prediction_BHW: integer labels >= 0, of the same shape.
        num_regions: R; one more than the largest label if 0.

    Returns:
        J (B, R, P) int64, P being one more than the largest predicted label.

    Raises:
        ValueError: if shapes differ, or labels are negative, of a type with fractions, or so large that an image has
            more than ``MOST_CELLS`` cells.
    """
    if regions_BHW.shape != prediction_BHW.shape:
        raise ValueError(
            f'truth {tuple(regions_BHW.shape)} and prediction {tuple(prediction_BHW.shape)} must have the same shape'
        )
    for labels in (regions_BHW, prediction_BHW):
        if labels.is_floating_point() or labels.is_complex():
            raise ValueError(f'labels must be of a type of whole numbers, such as int64, got {labels.dtype}')
    batch = len(regions_BHW)
    if not regions_BHW.numel():
        return torch.zeros(batch, max(num_regions, 1), 1, dtype=torch.int64, device=regions_BHW.device)
    if min(int(regions_BHW.min()), int(prediction_BHW.min())) < 0:
        raise ValueError('labels must not be negative')
    num_regions = num_regions or int(regions_BHW.max()) + 1
    num_labels = int(prediction_BHW.max()) + 1
    cells = num_regions * num_labels
    if cells > MOST_CELLS:
        raise ValueError(f'{num_regions} regions and labels up to {num_labels - 1} are too many: number labels from 0')
    kind = torch.int16 if cells < 2**15 and regions_BHW.device.type == 'cpu' else torch.int64  # less memory to read
    code = regions_BHW.flatten(1).to(kind) * num_labels + prediction_BHW.flatten(1).to(kind)
    if regions_BHW.device.type == 'cpu':  # an image at a time stays in the processor's cache
        counts = torch.stack([torch.bincount(c, minlength=cells) for c in code])
    else:
        offset = torch.arange(batch, device=code.device)[:, None] * cells
        counts = torch.bincount((code + offset).flatten(), minlength=batch * cells)
    return counts.view(batch, num_regions, num_labels)


def merge_rows(joint_BRP: Tensor, owner_BR: Tensor) -> Tensor:
    """Sum rows of a histogram that belong to one instance or class.

    Args:
        joint_BRP: from ``joint_histogram``.
        owner_BR: row of every region, 0 background, ``IGNORE`` to leave it out.

    Returns:
        (B, 1 + O, P) float64; row 0 is background. Rows that no pixel has are zero.
    """
    count = max(int(owner_BR.max()), 0) + 1
    member = owner_BR[:, None] == torch.arange(count, device=owner_BR.device)[:, None]  # (B, 1 + O, R)
    return member.double() @ joint_BRP.double()


def segments(joint_BRP: Tensor, owner_BR: Tensor, aside: str) -> tuple[Tensor, Tensor | float]:
    """What ``merge_rows`` gives, with one more predicted segment if pixels set aside are one (see ``Protocol.aside``).

    Returns:
        (B, 1 + O, P); and (B, 1, P), what predicted segments hold beside all true ones.
    """
    merged = merge_rows(joint_BRP, owner_BR)
    if aside == 'removed':
        return merged, 0.0
    left = (owner_BR == IGNORE).double()[:, None] @ joint_BRP.double()
    if aside == 'apart':
        merged = F.pad(merged, (0, 1))
        merged[:, 0, -1] = left.sum((1, 2))
    return merged, left if aside == 'unlabelled' else 0.0


# ------------------------------------------------------------------------------------------------------ metrics


def adjusted_rand_index(joint: Tensor) -> Tensor:
    """ARI (B,) of histograms (B, O, P), rows and columns being the two partitions.

    Edge cases, as the public evaluators have them: no pixel gives 1; if both partitions put all pixels together, 1;
    if only the true one does, 0.
    """
    pairs = _pairs(joint).sum((1, 2))
    true_pairs, predicted_pairs = _pairs(joint.sum(2)).sum(1), _pairs(joint.sum(1)).sum(1)
    all_pairs = _pairs(joint.sum((1, 2)))
    expected = true_pairs * predicted_pairs / all_pairs.clamp(min=1)
    best = (true_pairs + predicted_pairs) / 2
    degenerate = (best == expected) | (all_pairs == 0)
    return torch.where(degenerate, 1.0, (pairs - expected) / torch.where(degenerate, 1.0, best - expected))


def fg_ari(joint: Tensor) -> Tensor:
    """FG-ARI (B,) of histograms (B, 1 + O, P): rows 1 and on. An image without objects gives 1."""
    return adjusted_rand_index(joint[:, 1:])


def iou(joint: Tensor, beside: Tensor | float = 0.0, first: int = 1) -> tuple[Tensor, Tensor]:
    """IoU (B, O, P) of true objects and predicted segments; which objects there are (B, O).

    Args:
        joint, beside: as of ``segments``.
        first: row of the first object: 0 if the background is one.
    """
    area = joint.sum(2, keepdim=True)
    union = area + joint.sum(1, keepdim=True) - joint + beside
    return joint[:, first:] / union[:, first:].clamp(min=1), area[:, first:, 0] > 0


def _best(overlap: Tensor) -> Tensor:
    return overlap.amax(2).sum(1)


def _found(overlap: Tensor) -> Tensor:
    return (overlap.amax(2) >= 0.5).double().sum(1)


def _matched(overlap: Tensor) -> Tensor:
    """Hungarian matching; unmatched objects count 0."""
    total = [matrix[linear_sum_assignment(matrix, maximize=True)].sum() for matrix in overlap.cpu().numpy()]
    return torch.as_tensor(np.array(total), device=overlap.device)


def all_metrics(prediction_BHW: Tensor, truth: Truth) -> dict[str, Tensor]:
    """Every metric of a batch, as shares (not percent).

    Args:
        prediction_BHW: predicted labels >= 0.
        truth: of the same images, on the same device.

    Returns:
        Name -> (B,) float64: those of ``METRICS``, and further ones over classes that the protocol has.

    Raises:
        ValueError: if shapes differ or a predicted label is negative.
    """
    rules = truth.protocol
    joint = joint_histogram(truth.regions, prediction_BHW, truth.instance.shape[1])
    parts = [segments(joint, owner, rules.aside) for owner in (truth.instance, truth.category)]
    (instances, _), (classes, _) = parts

    def mean(total: Callable[[Tensor], Tensor], name: str, over: int = 0) -> Tensor:
        """Over the objects or classes of every image; NaN without any, or without such scores."""
        overlap, there = iou(*parts[over], int(name not in rules.background))
        count = there.sum(1) + truth.erased[:, over]
        valid = count > 0 if not over or name in rules.class_metrics else torch.zeros_like(count, dtype=torch.bool)
        return torch.where(valid, total(overlap) / count.clamp(min=1), torch.nan)

    recall = mean(_found, 'recall')
    values = {
        'fg_ari': fg_ari(instances),
        'ari': adjusted_rand_index(instances),
        'mbo_i': mean(_best, 'mbo_i'),
        'mbo_c': mean(_best, 'mbo_c', 1),
        'miou': mean(_matched, 'miou'),
        'recall': recall,
        'corloc': torch.where(recall.isnan(), recall, (recall > 0).double()),
    }
    if not rules.empty_counts:
        for name, first in (('fg_ari', 1), ('ari', 0)):
            values[name] = values[name].where(instances[:, first:].sum((1, 2)) > 0, torch.nan)
    if 'miou_c' in rules.class_metrics:
        values |= {'miou_c': mean(_matched, 'miou_c', 1), 'fg_ari_c': fg_ari(classes)}
    return values


def score(prediction_BHW: Tensor | np.ndarray, truth: Truth, batch: int = 16) -> list[dict[str, float]]:
    """Every metric of every image: a list of rows, name -> share. Maps are asked for batch by batch.

    Raises:
        ValueError: if the number or size of the maps is not that of the truth, or they hold more than whole numbers
            from 0.
    """
    prediction = prediction_BHW if hasattr(prediction_BHW, 'shape') else np.asarray(prediction_BHW)
    if prediction.shape != truth.regions.shape:
        raise ValueError(
            f'predictions have shape {tuple(prediction.shape)}, the truth has {tuple(truth.regions.shape)}'
        )
    rows, done, regions = [], 0, truth.instance.shape[1]
    while done < len(truth):
        found = _as_labels(prediction[done : done + batch])
        fits = 2**22 // (regions * max(regions, int(found.max()) + 1))  # noise has as many labels as pixels
        part = slice(done, done + max(1, min(len(found), fits)))
        values = all_metrics(found[: part.stop - done].to(truth.regions.device), truth[part])
        columns = [column.tolist() for column in values.values()]
        rows += [dict(zip(values, row, strict=True)) for row in zip(*columns, strict=True)]
        done = part.stop
    return rows


def score_image(
    prediction: np.ndarray,
    masks: np.ndarray,
    categories: np.ndarray,
    keep: np.ndarray | None = None,
    protocol: str = 'oclf',
    void: np.ndarray | None = None,
) -> dict[str, float]:
    """Every metric of one image, as shares.

    Args:
        prediction: (H, W) predicted labels >= 0.
        masks: (O, H, W) true instance masks, overlaps allowed.
        categories: (O,) category ids, any integers.
        keep: (O,) which instances count as objects; None for all.
        protocol: one of ``PROTOCOLS``.
        void: (H, W) pixels to be set aside; None for none.
    """
    *maps, erased = true_labels(masks, categories, keep, protocol, void)
    maker = TruthMaker(1, *maps[0].shape, protocol)
    maker.add(*maps, categories, erased)
    return score(np.asarray(prediction)[None], maker.truth())[0]


def summarize(rows: Iterable[dict[str, float]], batch_size: int = 0) -> dict[str, float]:
    """Means over images in percent; images where a metric is NaN (no object) are skipped for it.

    With ``batch_size``, as SlotDiffusion has it: the mean of every batch of so many images counts as often as the
    batch has images, skipped ones included; a batch where all are skipped is left out.
    """
    rows = list(rows)
    if not rows:
        raise ValueError('no images to summarize')
    result = {}
    for name in rows[0]:
        values = np.array([row[name] for row in rows], float)
        if batch_size:
            batches = [values[first : first + batch_size] for first in range(0, len(values), batch_size)]
            values = np.concatenate([
                np.full(len(batch), np.nan if np.isnan(batch).all() else np.nanmean(batch)) for batch in batches
            ])  # fmt: skip
        result[name] = 100 * float(np.nanmean(values)) if not np.isnan(values).all() else float('nan')
    return result


def _as_labels(labels_BHW: Tensor | np.ndarray) -> Tensor:
    """Predicted labels of any type as int32, large ones renumbered in each image, so that counting is cheap."""
    array = _whole(labels_BHW, 'labels', 0)
    if array.max(initial=0) > 1000:
        array = np.stack([np.unique(image, return_inverse=True)[1].reshape(image.shape) for image in array])
    return torch.from_numpy(array.astype(np.int32))


def _masks(masks: np.ndarray) -> np.ndarray:
    masks = np.asarray(masks)
    if masks.ndim != 3:
        raise ValueError(f'masks must have shape (O, H, W), got {masks.shape}')
    return masks if masks.dtype == bool else _whole(masks, 'masks', 0).astype(bool)


def _per_mask(values: np.ndarray, masks: np.ndarray, what: str) -> np.ndarray:
    found = _whole(values, what)
    if found.shape != (len(masks),):
        raise ValueError(f'{len(masks)} masks need as many {what}, got shape {found.shape}')
    return found


def _whole(values: Tensor | np.ndarray, what: str, lowest: int = -(2**63)) -> np.ndarray:
    """Any array of whole numbers from ``lowest`` as int64; whatever else it holds is refused."""
    array = np.asarray(values.cpu() if torch.is_tensor(values) else values)
    if not array.size:
        return array.astype(np.int64)
    if array.dtype.kind not in 'biuf':
        raise ValueError(f'{what} must be whole numbers, got {array.dtype}')
    low, high = array.min().item(), array.max().item()
    if not lowest <= low <= high < 2**63 or (array.dtype.kind == 'f' and (array % 1).any()):  # also of NaN
        raise ValueError(f'{what} must be whole numbers from {lowest}, got {array.dtype} from {low:g} to {high:g}')
    return array.astype(np.int64, copy=False)


def _category_ids(classes: np.ndarray, categories: np.ndarray) -> np.ndarray:
    """The id of every class, class c being the c-th smallest of an image's category ids."""
    known = np.unique(_whole(categories, 'category ids'))
    if classes.max(initial=0) > len(known):
        raise ValueError(f'an image has class {classes.max()}, but {len(known)} categories')
    return known[classes - 1]


def _pairs(count: Tensor) -> Tensor:
    return count * (count - 1) / 2
