"""Figures: arrays and frames in, matplotlib figures out. Knows no model."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

COLOURS = np.array([
    (0.90, 0.29, 0.24), (0.16, 0.50, 0.73), (0.95, 0.70, 0.16), (0.15, 0.63, 0.42), (0.56, 0.35, 0.68),
    (0.90, 0.49, 0.13), (0.35, 0.75, 0.80), (0.80, 0.45, 0.65), (0.55, 0.60, 0.20), (0.45, 0.45, 0.50),
])  # fmt: skip
"""Of slots and segments; repeated from the start when there are more."""


def style() -> None:
    """The book's look: quiet axes, one sans-serif face, figures small enough to store in a notebook."""
    sns.set_theme(context='notebook', style='ticks', palette=COLOURS.tolist())
    mpl.rcParams.update({
        'figure.dpi': 80, 'savefig.dpi': 110, 'figure.constrained_layout.use': True, 'font.size': 10,
        'axes.titlesize': 10, 'axes.labelsize': 10, 'legend.fontsize': 9, 'axes.spines.top': False,
        'axes.spines.right': False, 'axes.titlelocation': 'left', 'legend.frameon': False,
    })  # fmt: skip


def overlay(image: np.ndarray, labels: np.ndarray, strength: float = 0.6, clear: int | None = None) -> np.ndarray:
    """Paint segments over a picture.

    Args:
        image: (H, W, 3) in [0, 1].
        labels: (M, M) integer labels; the picture is resized to them by nearest neighbour.
        strength: opacity of the paint.
        clear: a label to leave unpainted (such as background).

    Returns:
        (M, M, 3) in [0, 1], segments outlined.
    """
    size = labels.shape[0]
    rows = np.arange(size) * image.shape[0] // size
    image = image[rows][:, rows]
    paint = COLOURS[labels % len(COLOURS)]
    out = (1 - strength) * image + strength * paint
    if clear is not None:
        out[labels == clear] = image[labels == clear]
    edge = np.zeros(labels.shape, bool)
    edge[1:] |= labels[1:] != labels[:-1]
    edge[:, 1:] |= labels[:, 1:] != labels[:, :-1]
    out[edge] = 1.0
    return out


def show_masks(images: np.ndarray, columns: dict[str, np.ndarray], truth: tuple[str, ...] = ()) -> Figure:
    """Pictures beside their segmentations, a row a picture.

    Args:
        images: (B, H, W, 3) in [0, 1].
        columns: title -> labels (B, M, M).
        truth: the columns whose label 0 is background and stays unpainted.
    """
    count = len(images)
    figure, axes = plt.subplots(
        count, 1 + len(columns), figsize=(1.55 * (1 + len(columns)), 1.55 * count + 0.3), squeeze=False
    )
    for row in range(count):
        _picture(axes[row, 0], images[row], 'picture' if row == 0 else '')
        for axis, (title, labels) in zip(axes[row, 1:], columns.items(), strict=True):
            shown = overlay(images[row], labels[row], clear=0 if title in truth else None)
            _picture(axis, shown, title if row == 0 else '')
    return figure


def show_attention(image: np.ndarray, rows: dict[str, np.ndarray], grid: tuple[int, int]) -> Figure:
    """Attention maps of all slots of one picture, a row a pass, on one colour scale.

    Args:
        image: (H, W, 3) in [0, 1].
        rows: title -> attention (K, N).
        grid: rows and columns of patches.
    """
    slots = len(next(iter(rows.values())))
    figure, axes = plt.subplots(
        len(rows), slots + 1, figsize=(1.15 * (slots + 1), 1.25 * len(rows) + 0.3), squeeze=False
    )
    top = max(float(a.max()) for a in rows.values())
    low = min(0.0, *(float(a.min()) for a in rows.values()))
    for number, (row, (title, maps)) in enumerate(zip(axes, rows.items(), strict=True)):
        _picture(row[0], image, '')
        row[0].set_ylabel(title, fontsize=9)
        for k, axis in enumerate(row[1:]):
            name = '' if number else f'slot {k}'
            _picture(axis, maps[k].reshape(grid), name, cmap='magma', vmin=low, vmax=top)
    return figure


def show_training(log: pd.DataFrame, evaluations: pd.DataFrame, hue: str = 'model') -> Figure:
    """Training loss, metrics at evaluations, and codebook perplexity where there is one.

    Args:
        log: columns step, loss, perplexity and ``hue``.
        evaluations: columns step, fg_ari, mbo_i and ``hue``.
        hue: the column that tells curves apart; several seeds of one are drawn as mean and range.
    """
    figure, axes = plt.subplots(1, 4, figsize=(11.5, 2.7))
    options = {'hue': hue, 'errorbar': ('pi', 100), 'legend': False}
    smooth = log.copy()
    smooth['step'] = (smooth['step'] // max(1, smooth['step'].max() // 60) + 1) * max(1, smooth['step'].max() // 60)
    sns.lineplot(smooth, x='step', y='loss', ax=axes[0], **{**options, 'legend': True, 'errorbar': None})
    axes[0].legend(title=None)
    axes[0].set(title='reconstruction loss', ylabel='')
    for axis, column, title in ((axes[1], 'fg_ari', 'FG-ARI'), (axes[2], 'mbo_i', 'mBO$_i$')):
        sns.lineplot(evaluations, x='step', y=column, ax=axis, marker='o', **options)
        axis.set(title=f'{title}, held-out pictures', ylabel='')
    codes = smooth.dropna(subset='perplexity')
    if len(codes):
        sns.lineplot(codes, x='step', y='perplexity', ax=axes[3], color=COLOURS[4], errorbar=None)
        axes[3].set(title='codes in use in a batch (perplexity)', ylabel='')
    else:
        axes[3].set_axis_off()
    return figure


def show_code_usage(hits: np.ndarray) -> Figure:
    """How often every code is used, most used first.

    Args:
        hits: (E,) counts.
    """
    share = np.sort(hits)[::-1] / max(1, hits.sum())
    figure, axis = plt.subplots(figsize=(6.5, 2.2))
    axis.bar(np.arange(len(share)), 100 * share, color=COLOURS[4], width=0.9)
    positive = share[share > 0]
    perplexity = float(np.exp(-(positive * np.log(positive)).sum()))
    axis.set(
        xlabel='code, by use', ylabel='share of slots, %', title=f'perplexity {perplexity:.1f} of {len(share)} codes'
    )
    return figure


def show_codes(crops: dict[str, list[np.ndarray]], columns: int = 8) -> Figure:
    """Crops of the slots that are nearest to their code, a row a code.

    Args:
        crops: title of the code -> crops (h, w, 3) in [0, 1], nearest first.
        columns: how many crops to show of each.
    """
    figure, axes = plt.subplots(len(crops), columns, figsize=(1.0 * columns, 1.0 * len(crops) + 0.2), squeeze=False)
    for row, (title, pictures) in zip(axes, crops.items(), strict=True):
        for i, axis in enumerate(row):
            if i < len(pictures):
                _picture(axis, pictures[i], '')
            else:
                axis.set_axis_off()
        row[0].set_ylabel(title, rotation=0, ha='right', va='center', fontsize=9)
    return figure


def crop_to_mask(image: np.ndarray, mask: np.ndarray, size: int = 48, fade: float = 0.75) -> np.ndarray:
    """The square around a mask, with everything outside the mask faded to white.

    Args:
        image: (H, W, 3) in [0, 1].
        mask: (M, M) bool.
        size: side of the crop returned, pixels.
        fade: how white the outside becomes.
    """
    side = mask.shape[0]
    rows = np.arange(side) * image.shape[0] // side
    faded = np.where(mask[..., None], image[rows][:, rows], fade + (1 - fade) * image[rows][:, rows])
    ys, xs = np.nonzero(mask)
    if not len(ys):
        return np.ones((size, size, 3))
    reach = max(np.ptp(ys), np.ptp(xs), 4) // 2 + 2
    cy, cx = (ys.max() + ys.min()) // 2, (xs.max() + xs.min()) // 2
    padded = np.pad(faded, ((reach, reach), (reach, reach), (0, 0)), constant_values=1.0)
    crop = padded[cy : cy + 2 * reach, cx : cx + 2 * reach]
    pick = np.arange(size) * crop.shape[0] // size
    return crop[pick][:, pick]


def save(figure: Figure, path: str | Path) -> Path:
    """Write a figure as PNG, making its folder, and close it."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    plt.close(figure)
    return path


def _picture(axis: plt.Axes, picture: np.ndarray, title: str, **options: object) -> None:
    axis.imshow(picture, interpolation='nearest', **options)
    axis.set_title(title, fontsize=9, loc='center')
    axis.set(xticks=[], yticks=[])
    for spine in axis.spines.values():
        spine.set_visible(False)
