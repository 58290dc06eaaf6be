"""What codes and slots mean: what they tell of the category, the place and the colour of what a slot covers.

Two questions, two kinds of measure. *Agreement* asks whether groups, such as codes, are the true groups. A *probe* asks
whether the true group can be read off linearly, by a classifier that is fitted on objects of some images and scored on
objects of others. Agreement is blind where a probe is not: clusters follow what varies most, and a group that is there
in directions of little variance leaves no mark on them. So low agreement says that codes do not sort by a target, not
that slots do not hold it.

Arrays in, numbers out, but for ``code_meaning`` and ``probe_table``, which run a model. The same numbers for k-means
on the same slots are the reference of codes: they say whether the codebook found more, or less, than plain clustering
with as many clusters finds.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from sklearn.cluster import KMeans
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import adjusted_mutual_info_score, normalized_mutual_info_score
from sklearn.metrics.cluster import contingency_matrix
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits
from torch import Tensor

from topdown.evaluate import metrics
from topdown.evaluate.baselines import patch_shares
from topdown.evaluate.predict import (
    labels_from_masks,
    object_categories,
    predict,
    run_model,
    slot_categories,
    slot_overlaps,
)
from topdown.evaluate.statistics import Interval, ratio_interval
from topdown.evaluate.truth import EvalSet
from topdown.model.codebook import count_hits, perplexity
from topdown.model.slot_model import SlotModel

MEASURES = ('purity', 'nmi', 'ami', 'accuracy')


TARGETS = ('category', 'position', 'colour')


CELLS = 3
"""Cells on a side of the grid of positions."""


COLOURS = 8
"""Groups of colours."""


COVERED = 0.5
"""Least IoU of a slot's mask with the object that it covers."""


def agreement(truth: np.ndarray, clusters: np.ndarray) -> dict[str, float]:
    """How well a clustering agrees with true groups.

    ``purity`` is the share of items that belong to their cluster's most frequent group; it grows with the number of
    clusters whatever they mean. ``nmi`` is the mutual information over the mean of both entropies, ``ami`` the same
    adjusted for chance: about 0 for independent labels, however many. ``accuracy`` is the share of items that are right
    if each cluster stands for one group and each group for one cluster, chosen to make it largest (Hungarian method).

    Args:
        truth, clusters: (n,) labels.

    Returns:
        The four measures, 1 for identical partitions; NaN with fewer than two items.

    Raises:
        ValueError: if the arrays are not of one length.
    """
    truth, clusters = np.asarray(truth), np.asarray(clusters)
    if truth.shape != clusters.shape or truth.ndim != 1:
        raise ValueError(f'truth and clusters must be arrays of one length, got {truth.shape} and {clusters.shape}')
    if len(truth) < 2:
        return dict.fromkeys(MEASURES, float('nan'))
    table = contingency_matrix(truth, clusters)
    rows, columns = linear_sum_assignment(table, maximize=True)
    return {
        'purity': float(table.max(axis=0).sum() / len(truth)),
        'nmi': float(normalized_mutual_info_score(truth, clusters)),
        'ami': float(adjusted_mutual_info_score(truth, clusters)),
        'accuracy': float(table[rows, columns].sum() / len(truth)),
    }


def slot_cells(labels: np.ndarray, num_slots: int, cells: int = CELLS) -> np.ndarray:
    """Which cell of a ``cells`` x ``cells`` grid holds the centre of mass of every slot's mask.

    Args:
        labels: predicted label maps (V, M, M).
        num_slots: K.
        cells: cells on a side.

    Returns:
        (V, K) int64, cells numbered row by row; -1 for slots without a pixel.
    """
    size = labels.shape[-1]
    mass = np.stack([_per_slot(labels, num_slots, axis) for axis in (None, 0, 1)])
    with np.errstate(invalid='ignore', divide='ignore'):
        place = np.floor((mass[1:] / mass[0] + 0.5) * cells / size)
    row, column = np.nan_to_num(place).astype(np.int64).clip(0, cells - 1)
    return np.where(mass[0] > 0, row * cells + column, -1)


def _per_slot(labels: np.ndarray, num_slots: int, axis: int | None) -> np.ndarray:
    """Number of pixels, or sum of row (axis 0) or column (axis 1) numbers, of every slot's mask: (V, K)."""
    size = labels.shape[-1]
    weight = None if axis is None else np.indices((size, size))[axis].ravel()
    return np.stack([np.bincount(x.ravel(), weight, num_slots)[:num_slots] for x in labels])


def slot_colours(labels: np.ndarray, images: np.ndarray, num_slots: int) -> np.ndarray:
    """Mean colour of the pixels of every slot.

    Args:
        labels: predicted label maps (V, M, M).
        images: (V, 3, S, S), or what makes them; every pixel takes the label nearest to its centre.
        num_slots: K.

    Returns:
        (V, K, 3); NaN for slots without a pixel.
    """
    size = images.shape[-1]
    nearest = ((np.arange(size) + 0.5) * labels.shape[-1] / size).astype(np.int64)
    found = np.full((len(labels), num_slots, 3), np.nan)
    for i, label in enumerate(labels):
        image = np.asarray(images[i])
        flat = label[nearest][:, nearest].ravel()
        mass = np.bincount(flat, minlength=num_slots)[:num_slots]
        sums = [np.bincount(flat, channel.ravel(), num_slots)[:num_slots] for channel in image]
        there = mass > 0
        found[i, there] = (np.stack(sums, 1)[there]) / mass[there, None]
    return found


def cluster(vectors: np.ndarray, count: int, seed: int = 0) -> np.ndarray:
    """k-means: (n, d) -> labels (n,), with as many clusters as there are vectors if ``count`` is larger."""
    if not len(vectors):
        return np.zeros(0, np.int64)
    count = min(count, len(np.unique(vectors, axis=0)))
    with threadpool_limits(1):
        return KMeans(count, n_init=1, random_state=seed).fit_predict(vectors.astype(np.float64))


def probe(features: np.ndarray, truth: np.ndarray, images: np.ndarray, seed: int = 0) -> np.ndarray:
    """Which objects a linear probe gets right that never saw their image.

    Features are standardised and given to a logistic regression (multinomial, L2 penalty of scikit-learn's default
    strength), once fitted on the objects of one half of the images and scored on those of the other, and once the
    other way round.

    Args:
        features: (n, d).
        truth: (n,) labels.
        images: (n,) the image of every object: an image is in one half, with all its objects.
        seed: of the halves.

    Returns:
        (n,) bool.

    Raises:
        ValueError: if lengths differ or the objects are of fewer than two images.
    """
    features, truth, images = np.asarray(features, np.float64), np.asarray(truth), np.asarray(images)
    if not len(features) == len(truth) == len(images):
        raise ValueError(f'one row per object: got {len(features)} features, {len(truth)} labels, {len(images)} images')
    known = np.unique(images)
    if len(known) < 2:
        raise ValueError(
            f'a probe needs objects of two images at least, got those of {len(known)}: the model covers too few'
        )
    half = np.isin(images, np.random.default_rng(seed).permutation(known)[: len(known) // 2])
    right = np.zeros(len(truth), bool)
    for fitted in (half, ~half):
        if len(np.unique(truth[fitted])) == 1:  # nothing to fit: the only label that was seen is the answer
            right[~fitted] = truth[~fitted] == truth[fitted][0]
            continue
        with threadpool_limits(1):
            model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000)).fit(
                features[fitted], truth[fitted]
            )
        right[~fitted] = model.predict(features[~fitted]) == truth[~fitted]
    return right


def accuracy(right: np.ndarray, images: np.ndarray) -> Interval:
    """Share of objects that are right, with its 95 % bootstrap interval over images."""
    known, where = np.unique(images, return_inverse=True)
    return ratio_interval(np.bincount(where, right, len(known)), np.bincount(where, minlength=len(known)))


def one_hot(labels: np.ndarray) -> np.ndarray:
    """(n,) labels -> (n, number of distinct labels) float64."""
    return (np.unique(labels)[None] == np.asarray(labels)[:, None]).astype(np.float64)


def measure(
    codes: np.ndarray,
    slots: np.ndarray,
    categories: np.ndarray,
    cells: np.ndarray,
    colours: np.ndarray,
    codebook_size: int,
    seed: int = 0,
) -> dict[str, float]:
    """Agreement of codes, and of k-means clusters of the same slots, with category, position and colour.

    All is measured over the slots that cover an object, so that the three numbers can be compared with each other.
    k-means sees all slots of the set, as the codebook does in training; since it is fitted to the very slots that it is
    measured on and the codebook is not, it is a demanding reference.

    Args:
        codes: (V, K) code of every slot.
        slots: (V, K, d) the slots.
        categories: (V, K) true category of the object that a slot covers, 0 for none.
        cells: (V, K) position, see ``slot_cells``.
        colours: (V, K, 3) see ``slot_colours``.
        codebook_size: E, the number of clusters.
        seed: of k-means.

    Returns:
        ``code_category_ami``, ``kmeans_category_ami`` and so on for every target and measure, as shares;
        ``probe_slots_category`` and ``probe_code_category``, accuracy of a linear probe for the category on slots and
        on codes (see ``probe``), and ``probe_chance_category``, that of the most frequent category, NaN with objects of
        fewer than two images; and ``object_slots``, the number of slots they were measured over.
    """
    chosen = categories > 0
    reference = cluster(slots.reshape(-1, slots.shape[-1]), codebook_size, seed).reshape(codes.shape)
    targets = {
        'category': categories[chosen],
        'position': cells[chosen],
        'colour': cluster(colours[chosen], COLOURS, seed),
    }
    result: dict[str, float] = {'object_slots': int(chosen.sum())}
    for name, found in (('code', codes[chosen]), ('kmeans', reference[chosen])):
        for target, truth in targets.items():
            result |= {f'{name}_{target}_{key}': value for key, value in agreement(truth, found).items()}
    images = np.nonzero(chosen)[0]
    sets = {'slots': slots[chosen], 'code': one_hot(codes[chosen]), 'chance': np.zeros((len(images), 1))}
    enough = len(np.unique(images)) > 1
    for name, features in sets.items():
        right = probe(features, targets['category'], images, seed) if enough else [np.nan]
        result[f'probe_{name}_category'] = float(np.mean(right))
    return result


def code_meaning(model: SlotModel, data: EvalSet, seed: int = 0) -> dict[str, float]:
    """What the codes of a model's first-pass slots stand for, over a validation set; see ``measure``.

    A slot covers an object if the IoU of its first-pass mask with the object is at least ``COVERED``.

    Returns:
        What ``measure`` does, and ``perplexity`` and ``codes_used``, over all slots of the set.

    Raises:
        ValueError: for a model without a codebook.
    """
    if model.codebook is None:
        raise ValueError('code_meaning needs a model with a codebook: top_down=True and quantize=True')
    found, size, count = slot_codes(model, data, seed), model.config.codebook_size, model.config.num_slots
    labels, hits = found.labels.numpy(), count_hits(found.codes.flatten(), size)
    of_masks = slot_cells(labels, count), slot_colours(labels, data.images, count)
    measured = measure(found.codes.numpy(), found.slots.numpy(), found.categories.numpy(), *of_masks, size, seed)
    return {'perplexity': float(perplexity(hits)), 'codes_used': int((hits > 0).sum()), **measured}


class SlotCodes(NamedTuple):
    """First-pass slots of a set."""

    labels: Tensor  # (V, M, M) whose mask a pixel is in
    codes: Tensor  # (V, K)
    slots: Tensor  # (V, K, d)
    categories: Tensor  # (V, K) true category of the object that a slot covers, 0 for none


def slot_codes(model: SlotModel, data: EvalSet, seed: int = 0) -> SlotCodes:
    """Those of a model with a codebook."""
    parts = [(o.code_index.cpu(), o.first_slots.float().cpu()) for _, o in run_model(model, data, seed, decode=False)]
    codes, slots = (torch.cat(x) for x in zip(*parts, strict=True))
    labels = predict(model, data, 'first', seed)
    return SlotCodes(labels, codes, slots, slot_categories(labels, data, codes.shape[1], COVERED))


def code_agreement(one: SlotCodes, other: SlotCodes, seed: int = 0) -> dict[str, float]:
    """AMI of two models' codes over slots of the same images that overlap each other most, by ``COVERED`` or more.

    Returns:
        matched, the share of one's slots that have such a partner, and matched_slots; codes_ami; shuffled_ami, with the
        other's codes shuffled among these slots, and in_place_ami, among those in one cell of a grid twice as fine as
        that of ``slot_cells``; position_ami and other_position_ami of each model's codes with its own cells; and over
        the object_slots that cover an object in both, codes_objects_ami, category_ami and other_category_ami.
    """
    joint = metrics.joint_histogram(one.labels, other.labels, one.codes.shape[1])
    overlap, partner = (x.numpy() for x in metrics.iou(joint, first=0)[0].max(dim=2))
    (image, slot), sides = np.nonzero(overlap >= COVERED), []
    for side, at in ((one, (image, slot)), (other, (image, partner[image, slot]))):
        grids = [slot_cells(side.labels.numpy(), side.codes.shape[1], cells) for cells in (CELLS, 2 * CELLS)]
        sides.append([x[at] for x in (side.codes.numpy(), side.categories.numpy(), *grids)])
    (a, kinds, cells, fine), (b, other_kinds, other_cells, _) = sides
    rng, in_place, both = np.random.default_rng(seed), b.copy(), (kinds > 0) & (other_kinds > 0)
    in_place[np.argsort(fine)] = b[np.lexsort((rng.random(len(b)), fine))]
    pairs = {
        'codes': (a, b), 'shuffled': (a, rng.permutation(b)), 'in_place': (a, in_place), 'position': (cells, a),
        'other_position': (other_cells, b), 'codes_objects': (a[both], b[both]), 'category': (kinds[both], a[both]),
        'other_category': (other_kinds[both], b[both]),
    }  # fmt: skip
    counts = {'matched_slots': len(a), 'matched': len(a) / int(joint.any(dim=2).sum()), 'object_slots': int(both.sum())}
    return counts | {f'{name}_ami': agreement(*pair)['ami'] for name, pair in pairs.items()}


class Objects(NamedTuple):
    """What is known of every object that a first-pass slot covers."""

    images: np.ndarray  # (n,) the image of every object
    features: dict[str, np.ndarray]  # name -> (n, d), for probes
    partitions: dict[str, np.ndarray]  # name -> (n,) labels, those of ``features`` that are groups
    targets: dict[str, np.ndarray]  # name -> (n,) true labels


def covered_objects(model: SlotModel, data: EvalSet, seed: int = 0) -> Objects:
    """Features and true labels of all objects that a first-pass slot covers (IoU of at least ``COVERED``).

    An object's slot is, in either pass, the one whose mask of that pass overlaps it most. Position and colour are those
    of the first-pass mask, as in ``code_meaning``. Groups are one-hot features: an index is all that a code hands on.

    Raises:
        ValueError: for a model without a codebook, or one that covers objects of fewer than two images.
    """
    if model.codebook is None:
        raise ValueError('covered_objects needs a model with a codebook: top_down=True and quantize=True')
    count, size = model.config.num_slots, model.codebook.size
    parts = []
    for _, out in run_model(model, data, seed, decode=False):
        maps = [labels_from_masks(x, data.grid, data.mask_size) for x in (out.first_attention, out.attention)]
        parts.append([x.cpu() for x in (out.code_index, out.first_slots.float(), out.slots.float(), *maps)])
    codes, first, second, labels, later_labels = (torch.cat(x) for x in zip(*parts, strict=True))
    overlap, slot = slot_overlaps(labels, data, count).max(dim=2)
    later = slot_overlaps(later_labels, data, count).argmax(dim=2)
    image, which = torch.nonzero(overlap >= COVERED, as_tuple=True)
    if len(image.unique()) < 2:
        raise ValueError(f'slots of the first pass cover {len(image)} objects: too few to say what they hold')
    slot, later = slot[image, which], later[image, which]
    tokens = object_tokens(data)[image, which].numpy()
    partitions = {
        'codes': codes[image, slot].numpy(),
        'k-means on slots': cluster(first.flatten(0, 1).numpy(), size, seed).reshape(codes.shape)[image, slot],
        'k-means on mean tokens': cluster(tokens, size, seed),
    }
    features = {
        'first-pass slots': first[image, slot].numpy(),
        'second-pass slots': second[image, later].numpy(),
        'code vectors': model.codebook.codes.float().cpu()[codes[image, slot]].numpy(),
        **{name: one_hot(found) for name, found in partitions.items()},
        'mean tokens': tokens,
        'position and size': _place_and_size(data)[image, which],
    }
    colours = slot_colours(labels.numpy(), data.images, count)[image, slot]
    targets = {
        'category': object_categories(data)[image, which].numpy(),
        'position': slot_cells(labels.numpy(), count)[image, slot],
        'colour': cluster(colours, COLOURS, seed),
    }
    return Objects(image.numpy(), features, partitions, targets)


def object_tokens(data: EvalSet) -> Tensor:
    """Mean token (V, O, D) under the true mask of every object, patches weighted by their share of it."""
    parts, first = [], 0
    for shares in patch_shares(data):
        inside = shares[:, 1:]
        total = inside @ data.tokens[first : first + len(shares)].float()
        parts.append(total / inside.sum(-1, keepdim=True).clamp(min=1e-6))
        first += len(shares)
    return torch.cat(parts)


def _place_and_size(data: EvalSet) -> np.ndarray:
    """Row and column of the centre of mass and area of every object's true mask (V, O, 3), in pixels; NaN for none."""
    maps = np.maximum(data.instances[:], 0)
    area, rows, columns = (_per_slot(maps, int(maps.max()) + 1, axis)[:, 1:] for axis in (None, 0, 1))
    with np.errstate(invalid='ignore'):
        return np.stack([rows / area, columns / area, area], axis=-1)


def probe_table(model: SlotModel, data: EvalSet, seed: int = 0) -> list[dict[str, object]]:
    """What a linear probe reads off slots, codes, tokens and references, over the same objects of a set.

    Args:
        model: a model with a codebook.
        data: the set.
        seed: of the slots' noise, of k-means and of the halves.

    Returns:
        A row for every set of features of ``covered_objects`` and target, and two references: *permuted labels*
        (first-pass slots, the labels shuffled among objects) and *most frequent* (the other half's most frequent
        label). Columns: features, target, classes, objects, dimensions; accuracy with its 95 % bootstrap interval over
        images, low and high, as shares; for features that are groups ``ami``, their adjusted mutual information with
        the target over the same objects.

    Raises:
        ValueError: see ``covered_objects`` and ``probe``.
    """
    found = covered_objects(model, data, seed)
    shuffled = np.random.default_rng(seed).permutation(len(found.images))
    rows = []
    for target, truth in found.targets.items():
        cases = {name: (features, truth) for name, features in found.features.items()}
        cases['permuted labels'] = found.features['first-pass slots'], truth[shuffled]
        cases['most frequent'] = np.zeros((len(truth), 1)), truth
        for name, (features, labels) in cases.items():
            right = accuracy(probe(features, labels, found.images, seed), found.images)
            groups = found.partitions.get(name)
            rows.append({
                'features': name, 'target': target, 'classes': len(np.unique(truth)), 'objects': len(truth),
                'dimensions': features.shape[1], 'accuracy': right.mean, 'low': right.low, 'high': right.high,
                'ami': np.nan if groups is None else agreement(truth, groups)['ami'],
            })  # fmt: skip
    return rows


def where_and_what(model: SlotModel, data: EvalSet, seed: int = 0) -> dict[str, float]:
    """Shares of all true objects that are found, and that are found *and* recognised.

    An object is found if a decoder's mask overlaps it by half or more (IoU). Its category is read off by a linear probe
    fitted on objects of other images (``probe``): off the slot, and off the mean token under that slot's mask, which is
    what any mask hands on, whoever drew it. An object that is not found counts as wrong, and so do all if they are
    found in fewer than two images. Beside them, read off mean tokens under the true masks, of all objects.

    Returns:
        found, slots, tokens under masks, tokens under truth: shares between 0 and 1; NaN if fewer than two images have
        objects of known category. To probes, all frames of a clip are one image.
    """
    parts = []
    for rows, out in run_model(model, data, seed):
        masks = out.masks.float().cpu()
        weights = masks / masks.sum(dim=-1, keepdim=True).clamp(min=1e-6)
        labels = labels_from_masks(masks, data.grid, data.mask_size)
        parts.append([labels, out.slots.float().cpu(), weights @ data.tokens[rows].float()])
    labels, slots, tokens = (torch.cat(part) for part in zip(*parts, strict=True))
    overlap, slot = slot_overlaps(labels, data, slots.shape[1]).max(dim=2)
    categories = object_categories(data)
    image, which = torch.nonzero(categories, as_tuple=True)
    clip = image // data.dataset.frames  # its frames show the same objects
    if len(clip.unique()) < 2:
        return dict.fromkeys(('found', 'slots', 'tokens under masks', 'tokens under truth'), float('nan'))
    found = overlap[image, which] >= COVERED
    truth, count = categories[image, which].numpy(), len(image)
    image_found, slot_found, clip_found = image[found], slot[image, which][found], clip[found].numpy()
    shares = {'found': float(found.float().mean())}
    for name, vectors in {'slots': slots, 'tokens under masks': tokens}.items():
        known = vectors[image_found, slot_found].numpy(), truth[found.numpy()], clip_found
        shares[name] = float(probe(*known, seed).sum() / count) if len(np.unique(clip_found)) > 1 else 0.0
    right = probe(object_tokens(data)[image, which].numpy(), truth, clip.numpy(), seed)
    return {**shares, 'tokens under truth': float(right.mean())}
