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
        'figure.dpi': 64, 'savefig.dpi': 110, 'figure.constrained_layout.use': True, 'font.size': 10,
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
        count, 1 + len(columns), figsize=(1.25 * (1 + len(columns)), 1.25 * count + 0.3), squeeze=False
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
    figure, axes = plt.subplots(len(crops), columns, figsize=(0.75 * columns, 0.75 * len(crops) + 0.2), squeeze=False)
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


def show_cells(points: np.ndarray, codes: np.ndarray, path: np.ndarray | None = None) -> Figure:
    """Points of the plane, codes, and the cells in which each code is the nearest.

    Args:
        points: (M, 2).
        codes: (E, 2).
        path: (T, E, 2), where the codes came from.
    """
    low, high = np.concatenate([points, codes]).min(0) - 0.5, np.concatenate([points, codes]).max(0) + 0.5
    xs, ys = np.meshgrid(np.linspace(low[0], high[0], 240), np.linspace(low[1], high[1], 200))
    cells = ((np.stack([xs, ys], -1)[:, :, None] - codes) ** 2).sum(-1).argmin(-1)
    figure, axis = plt.subplots(figsize=(5.2, 3.6))
    extent = (low[0], high[0], low[1], high[1])
    axis.imshow(COLOURS[cells % len(COLOURS)], extent=extent, origin='lower', alpha=0.25, aspect='auto')
    axis.scatter(*points.T, s=6, color='0.25', linewidths=0)
    if path is not None:
        for e in range(path.shape[1]):
            axis.plot(*path[:, e].T, color='0.1', linewidth=1)
    axis.scatter(*codes.T, s=90, marker='*', color='white', edgecolors='0.1', zorder=3)
    axis.set(xticks=[], yticks=[], xlim=(low[0], high[0]), ylim=(low[1], high[1]))
    return figure


def show_slot_plane(points: np.ndarray, index: np.ndarray, codes: np.ndarray) -> Figure:
    """Slots in a plane, coloured by their code, and the codes as stars.

    Args:
        points: (M, 2).
        index: (M,) code of each.
        codes: (E, 2).
    """
    figure, axis = plt.subplots(figsize=(5.2, 4.0))
    axis.scatter(*points.T, s=5, c=COLOURS[index % len(COLOURS)], linewidths=0, alpha=0.6)
    axis.scatter(*codes.T, s=60, marker='*', color='white', edgecolors='0.1', zorder=3)
    axis.set(xlabel='first principal component', ylabel='second')
    return figure


def show_curves(curves: dict[str, list[float]], xlabel: str, ylabel: str, title: str) -> Figure:
    """Named curves over 1, 2, ..."""
    figure, axis = plt.subplots(figsize=(5.2, 2.6))
    for number, (name, values) in enumerate(curves.items()):
        axis.plot(np.arange(1, len(values) + 1), values, label=name, color=COLOURS[number])
    axis.set(xlabel=xlabel, ylabel=ylabel, title=title, ylim=(0, None))
    axis.legend()
    return figure


def show_bars(groups: dict[str, dict[str, float]], ylabel: str) -> Figure:
    """Bars of several named groups over the same names."""
    frame = pd.DataFrame([
        {'group': group, 'name': name, 'value': value} for group, bars in groups.items() for name, value in bars.items()
    ])  # fmt: skip
    figure, axis = plt.subplots(figsize=(5.6, 2.8))
    sns.barplot(frame, x='name', y='value', hue='group', ax=axis, palette=COLOURS[: len(groups)].tolist())
    axis.set(xlabel='', ylabel=ylabel)
    axis.legend(title=None)
    return figure


def show_map(values: np.ndarray, xlabel: str, ylabel: str, title: str, centre: float | None = None) -> Figure:
    """A matrix as a picture with a colour bar; diverging around ``centre`` if it is given.

    Args:
        values: (rows, columns).
    """
    figure, axis = plt.subplots(figsize=(6.4, 2.4))
    options: dict[str, object] = {'cmap': 'magma'}
    if centre is not None:
        reach = float(np.abs(values - centre).max()) or 1.0
        options = {'cmap': 'RdBu_r', 'vmin': centre - reach, 'vmax': centre + reach}
    shown = axis.imshow(values, aspect='auto', interpolation='nearest', **options)
    figure.colorbar(shown, ax=axis, pad=0.01)
    axis.set(xlabel=xlabel, ylabel=ylabel, title=title)
    return figure


def show_pass_masks(rows: list[tuple[str, np.ndarray, dict[str, np.ndarray]]]) -> Figure:
    """Pictures with several segmentations each, a row a picture, its name at the left.

    Args:
        rows: (name, picture (H, W, 3) in [0, 1], title -> labels (M, M)).
    """
    titles = list(rows[0][2])
    width = 1.0 * (1 + len(titles))
    figure, axes = plt.subplots(len(rows), 1 + len(titles), figsize=(width, 1.0 * len(rows) + 0.3), squeeze=False)
    for number, (line, (name, picture, columns)) in enumerate(zip(axes, rows, strict=True)):
        _picture(line[0], picture, 'picture' if not number else '')
        line[0].set_ylabel(name, fontsize=9)
        for axis, title in zip(line[1:], titles, strict=True):
            shown = overlay(picture, columns[title], clear=0 if title == 'truth' else None)
            _picture(axis, shown, title if not number else '')
    return figure


def show_histogram(values: np.ndarray, xlabel: str, title: str) -> Figure:
    """Histogram with a line at zero and one at the mean."""
    figure, axis = plt.subplots(figsize=(5.2, 2.4))
    axis.hist(values, bins=40, color=COLOURS[1])
    axis.axvline(0, color='0.3', linewidth=1)
    axis.axvline(float(np.mean(values)), color=COLOURS[0], linewidth=1.5, label='mean')
    axis.set(xlabel=xlabel, ylabel='pictures', title=title)
    axis.legend()
    return figure


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
