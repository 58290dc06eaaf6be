"""Figures: arrays and frames in, matplotlib figures out. Knows no model."""

from __future__ import annotations

import io
from collections.abc import Iterable
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from PIL import Image

STYLE = Path(__file__).parents[2] / 'figures' / 'topdown.mplstyle'
"""The book's style; not there if the package is installed without its repository."""


METHOD_COLOURS = {
    'baseline': '#0072B2', 'top-down': '#D55E00', 'six-iterations': '#009E73', 'codes': '#CC79A7',
    'k-means on slots': '#E69F00', 'k-means on tokens': '#E69F00', 'k-means on colours': '#F0E442',
    'released_default': '#56B4E9', 'codes, shuffled': '#444444', 'shuffled codes': '#444444',
    'random slots': '#999999', 'block grid': '#666666',
}  # fmt: skip
"""Method -> its one colour in every figure (Okabe and Ito's palette)."""


OTHER_COLOURS = ('#332288', '#44AA99', '#882255', '#999933', '#88CCEE', '#DDCC77')
"""Of what is no method, such as targets or settings (from Tol's muted palette)."""


COLOURS = np.array([
    (0.90, 0.29, 0.24), (0.16, 0.50, 0.73), (0.95, 0.70, 0.16), (0.15, 0.63, 0.42), (0.56, 0.35, 0.68),
    (0.90, 0.49, 0.13), (0.35, 0.75, 0.80), (0.80, 0.45, 0.65), (0.55, 0.60, 0.20), (0.45, 0.45, 0.50),
])  # fmt: skip
"""Of slots and segments; repeated from the start when there are more."""


def style() -> None:
    """The book's look: quiet axes, one sans-serif face, colours that everyone can tell apart."""
    if STYLE.is_file():
        plt.style.use(STYLE)
    if 'inline' in plt.get_backend():  # in a notebook: figures are vectors, and only the images in them pixels
        from matplotlib_inline.backend_inline import set_matplotlib_formats

        set_matplotlib_formats('svg', metadata={'Date': None})


def method_colour(name: str) -> str:
    """The method's colour in every figure; dark grey for what has none."""
    return METHOD_COLOURS.get(name, '#333333')


def palette(names: Iterable[str]) -> dict[str, str]:
    """Name -> colour: methods their own, whatever else ``OTHER_COLOURS`` in order."""
    names = list(dict.fromkeys(names))
    others = [name for name in names if name not in METHOD_COLOURS]
    colours = {name: OTHER_COLOURS[number % len(OTHER_COLOURS)] for number, name in enumerate(others)}
    return {name: METHOD_COLOURS.get(name) or colours[name] for name in names}


def overlay(image: np.ndarray, labels: np.ndarray, strength: float = 0.6, clear: int | None = None) -> np.ndarray:
    """Paint segments over an image.

    Args:
        image: (H, W, 3) in [0, 1].
        labels: (M, N) integer labels; the image is resized to them by nearest neighbour.
        strength: opacity of the paint.
        clear: a label to leave unpainted (such as background).

    Returns:
        (M, N, 3) in [0, 1], segments outlined.
    """
    rows, columns = (np.arange(new) * old // new for new, old in zip(labels.shape, image.shape, strict=False))
    image = image[rows[:, None], columns]
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
    """Images beside their segmentations, one row per image.

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
        _image(axes[row, 0], images[row], 'image' if row == 0 else '')
        for axis, (title, labels) in zip(axes[row, 1:], columns.items(), strict=True):
            shown = overlay(images[row], labels[row], clear=0 if title in truth else None)
            _image(axis, shown, title if row == 0 else '')
    return figure


def show_attention(image: np.ndarray, rows: dict[str, np.ndarray], grid: tuple[int, int]) -> Figure:
    """Attention maps of all slots of one image, one row per pass, on one colour scale.

    Args:
        image: (H, W, 3) in [0, 1].
        rows: title -> attention (K, N).
        grid: rows and columns of patches.
    """
    slots = len(next(iter(rows.values())))
    side = min(1.0, 7.6 / (slots + 1))
    figure, axes = plt.subplots(
        len(rows), slots + 1, figsize=(side * (slots + 1), 1.1 * side * len(rows) + 0.3), squeeze=False
    )
    top = max(float(a.max()) for a in rows.values())
    low = min(0.0, *(float(a.min()) for a in rows.values()))
    for number, (row, (title, maps)) in enumerate(zip(axes, rows.items(), strict=True)):
        _image(row[0], image, '')
        row[0].set_ylabel(title, fontsize=9)
        for k, axis in enumerate(row[1:]):
            name = '' if number else f'slot {k}'
            _image(axis, maps[k].reshape(grid), name, cmap='magma', vmin=low, vmax=top)
    return figure


def show_slot_images(images: np.ndarray, blended: np.ndarray, drawn: np.ndarray, masks: np.ndarray) -> Figure:
    """What each slot draws, faded to white where its mask is low, one row per image.

    Args:
        images: (B, H, W, 3) in [0, 1].
        blended: the reconstructions, (B, H, W, 3).
        drawn: every slot's image, (B, K, H, W, 3).
        masks: (B, K, H, W).
    """
    columns = 2 + drawn.shape[1]
    side = min(1.1, 7.6 / columns)
    figure, axes = plt.subplots(
        len(images), columns, figsize=(side * columns, 1.05 * side * len(images) + 0.3), squeeze=False
    )
    for number, row in enumerate(axes):
        _image(row[0], images[number], '' if number else 'image')
        _image(row[1], blended[number].clip(0, 1), '' if number else 'blended')
        for k, axis in enumerate(row[2:]):
            alpha = masks[number, k][..., None]
            shown = alpha * drawn[number, k].clip(0, 1) + 1 - alpha
            _image(axis, shown, '' if number else f'slot {k}')
    return figure


def show_training(log: pd.DataFrame, evaluations: pd.DataFrame, hue: str = 'model') -> Figure:
    """Training loss, metrics at evaluations, and codebook perplexity where there is one.

    Args:
        log: columns step, loss, perplexity and ``hue``.
        evaluations: columns step, fg_ari, mbo_i and ``hue``.
        hue: the column that tells curves apart; several seeds of one are drawn as mean and range.
    """
    figure, grid = plt.subplots(2, 2, figsize=(7.4, 4.8))
    axes = grid.flat
    options = {'hue': hue, 'errorbar': ('pi', 100), 'legend': False, 'palette': palette(log[hue].astype(str))}
    smooth = log.copy()
    smooth['step'] = (smooth['step'] // max(1, smooth['step'].max() // 60) + 1) * max(1, smooth['step'].max() // 60)
    sns.lineplot(smooth, x='step', y='loss', ax=axes[0], **{**options, 'legend': True, 'errorbar': None})
    axes[0].legend(title=None)
    axes[0].set(title='reconstruction loss', ylabel='')
    for axis, column, title in ((axes[1], 'fg_ari', 'FG-ARI'), (axes[2], 'mbo_i', 'mBO$_i$')):
        if column not in evaluations:  # no true masks
            axis.set_axis_off()
            continue
        sns.lineplot(evaluations, x='step', y=column, ax=axis, marker='o', **options)
        axis.set(title=f'{title}, held-out images', ylabel='')
    codes = smooth.dropna(subset='perplexity')
    if len(codes):
        sns.lineplot(codes, x='step', y='perplexity', ax=axes[3], color=METHOD_COLOURS['codes'], errorbar=None)
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
    axis.bar(np.arange(len(share)), 100 * share, color=METHOD_COLOURS['codes'], width=0.9)
    positive = share[share > 0]
    perplexity = float(np.exp(-(positive * np.log(positive)).sum()))
    axis.set(
        xlabel='code, by use', ylabel='share of slots, %', title=f'perplexity {perplexity:.1f} of {len(share)} codes'
    )
    return figure


def show_codes(crops: dict[str, list[np.ndarray]], columns: int = 8) -> Figure:
    """Crops of the slots that are nearest to their code, one row per code.

    Args:
        crops: title of the code -> crops (h, w, 3) in [0, 1], nearest first.
        columns: how many crops to show of each.
    """
    figure, axes = plt.subplots(len(crops), columns, figsize=(0.75 * columns, 0.75 * len(crops) + 0.2), squeeze=False)
    for row, (title, images) in zip(axes, crops.items(), strict=True):
        for i, axis in enumerate(row):
            if i < len(images):
                _image(axis, images[i], '')
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
    axis.scatter(*points.T, s=5, c=COLOURS[index % len(COLOURS)], linewidths=0, alpha=0.6, rasterized=True)
    axis.scatter(*codes.T, s=60, marker='*', color='white', edgecolors='0.1', zorder=3)
    axis.set(xlabel='first principal component', ylabel='second')
    return figure


def show_curves(curves: dict[str, list[float]], xlabel: str, ylabel: str, title: str) -> Figure:
    """Named curves over 1, 2, ..."""
    figure, axis = plt.subplots(figsize=(5.2, 2.6))
    colours = palette(curves)
    for name, values in curves.items():
        axis.plot(np.arange(1, len(values) + 1), values, label=name, color=colours[name])
    axis.set(xlabel=xlabel, ylabel=ylabel, title=title, ylim=(0, None))
    axis.legend()
    return figure


def show_bars(groups: dict[str, dict[str, float]], ylabel: str) -> Figure:
    """Bars of several named groups over the same names."""
    frame = pd.DataFrame([
        {'group': group, 'name': name, 'value': value} for group, bars in groups.items() for name, value in bars.items()
    ])  # fmt: skip
    figure, axis = plt.subplots(figsize=(5.6, 2.8))
    sns.barplot(frame, x='name', y='value', hue='group', ax=axis, palette=palette(groups))
    axis.set(xlabel='', ylabel=ylabel)
    axis.legend(title=None)
    return figure


def show_map(values: np.ndarray, xlabel: str, ylabel: str, title: str, centre: float | None = None) -> Figure:
    """A matrix as an image with a colour bar; diverging around ``centre`` if it is given.

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
    """Images with several segmentations each, one row per image, its name at the left.

    Args:
        rows: (name, image (H, W, 3) in [0, 1], title -> labels (M, M)).
    """
    titles = list(rows[0][2])
    width = 1.0 * (1 + len(titles))
    figure, axes = plt.subplots(len(rows), 1 + len(titles), figsize=(width, 1.0 * len(rows) + 0.3), squeeze=False)
    for number, (line, (name, image, columns)) in enumerate(zip(axes, rows, strict=True)):
        _image(line[0], image, 'image' if not number else '')
        line[0].set_ylabel(name, fontsize=9)
        for axis, title in zip(line[1:], titles, strict=True):
            shown = overlay(image, columns[title], clear=0 if title == 'truth' else None)
            _image(axis, shown, title if not number else '')
    return figure


def show_histogram(values: np.ndarray, xlabel: str, title: str) -> Figure:
    """Histogram with a line at zero and one at the mean."""
    figure, axis = plt.subplots(figsize=(5.2, 2.4))
    axis.hist(values, bins=40, color=METHOD_COLOURS['baseline'])
    axis.axvline(0, color='0.3', linewidth=1)
    axis.axvline(float(np.mean(values)), color=METHOD_COLOURS['top-down'], linewidth=1.5, label='mean')
    axis.set(xlabel=xlabel, ylabel='images', title=title)
    axis.legend()
    return figure


def show_forest(effects: pd.DataFrame, against: str, names: dict[str, str], unit: str = 'points of percent') -> Figure:
    """Effects with their intervals, one row per variant, one panel per metric; filled where the interval excludes zero.

    Args:
        effects: variant, metric, difference, low, high, as ``tables.effects`` gives them.
        against: what the variants are compared with, for the title.
        names: metric -> title of its panel, in order.
        unit: below the panels.
    """
    metrics = [name for name in names if name in set(effects.metric)]
    variants = list(dict.fromkeys(effects.variant))
    figure, axes = plt.subplots(1, len(metrics), figsize=(7.4, 0.32 * len(variants) + 1.1), sharey=True, squeeze=False)
    for axis, metric in zip(axes[0], metrics, strict=True):
        axis.axvline(0, color='0.6', linewidth=1)
        for row in effects[effects.metric == metric].itertuples():
            y, colour = variants.index(row.variant), method_colour(row.variant)
            clear = row.low > 0 or row.high < 0
            axis.plot([row.low, row.high], [y, y], color=colour, linewidth=2)
            axis.plot(row.difference, y, 'o', color=colour, markersize=6, markerfacecolor=colour if clear else 'white')
        axis.set(title=names[metric], xlabel=unit, xlim=np.clip(axis.get_xlim(), -100, 100))  # no difference is larger
        axis.grid(axis='x')
    axes[0, 0].set_yticks(range(len(variants)), variants)
    axes[0, 0].set_ylim(len(variants) - 0.5, -0.5)
    figure.suptitle(f'minus {against}, mean and 95 % interval over seeds', fontsize=10, x=0.01, ha='left')
    return figure


def show_points(frame: pd.DataFrame, x: str, y: str, hue: str, ylabel: str = '', xlabel: str = '') -> Figure:
    """Every run a point, their mean a bar, grouped by ``x`` and told apart by ``hue``.

    Args:
        frame: one row per run (and ``x``, ``hue``), in order of appearance.
        x, y, hue: columns.
        ylabel, xlabel: names of the axes.
    """
    figure, axis = plt.subplots(figsize=(7.0, 3.0))
    groups, hues = list(dict.fromkeys(frame[x])), list(dict.fromkeys(frame[hue].astype(str)))
    colours, width = palette(hues), 0.8 / max(1, len(hues))
    for number, name in enumerate(hues):
        part = frame[frame[hue].astype(str) == name]
        at = np.array([groups.index(value) for value in part[x]]) + (number - (len(hues) - 1) / 2) * width
        means = part.groupby(x, sort=False)[y].mean()
        place = np.array([groups.index(value) for value in means.index]) + (number - (len(hues) - 1) / 2) * width
        axis.bar(place, means, 0.92 * width, color=colours[name], alpha=0.55, label=name)
        axis.plot(at, part[y], 'o', color=colours[name], markersize=3.5, markeredgecolor='white', markeredgewidth=0.5)
    axis.axhline(0, color='0.4', linewidth=0.8)
    axis.set_xticks(range(len(groups)), groups)
    axis.set(xlabel=xlabel, ylabel=ylabel)
    figure.legend(loc='outside upper left', ncols=min(4, len(hues)))
    return figure


def show_lines(
    frame: pd.DataFrame, x: str, metrics: dict[str, str], hue: str, xlabel: str, log: bool = False
) -> Figure:
    """Metrics along ``x``, one panel per metric and one line per ``hue``: runs as points, their mean as a line.

    Args:
        frame: one row per run and value of ``x``, a number.
        x, hue: columns.
        metrics: column -> title of its panel; those that the frame lacks are left out.
        xlabel: name of the horizontal axes.
        log: whether they are logarithmic, each value with its tick.
    """
    metrics = {name: title for name, title in metrics.items() if name in frame and frame[name].notna().any()}
    figure, axes = plt.subplots(1, len(metrics), figsize=(5.6 if len(metrics) == 1 else 7.4, 2.8), squeeze=False)
    colours = palette(frame[hue].astype(str))
    for axis, (metric, title) in zip(axes[0], metrics.items(), strict=True):
        for name, colour in colours.items():
            part = frame[frame[hue].astype(str) == name].dropna(subset=metric)
            axis.plot(part[x], part[metric], 'o', color=colour, alpha=0.4, markersize=3.5)
            axis.plot(part.groupby(x)[metric].mean(), color=colour, label=name)
        if log:
            levels = sorted(frame[x].unique())
            axis.set_xscale('log', base=2)
            axis.set_xticks(levels, [f'{level:g}' for level in levels])
            axis.minorticks_off()
        axis.set(title=title, xlabel=xlabel)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc='outside right upper')
    return figure


def show_intervals(panels: dict[str, pd.DataFrame], xlabel: str, ticks: dict[float, str], columns: int = 3) -> Figure:
    """Means with their intervals along a number, one line per variant; filled where the interval excludes zero.

    Args:
        panels: title -> x, variant, mean, low, high.
        xlabel: name of the horizontal axes.
        ticks: x -> its label.
        columns: panels beside each other.
    """
    lines = -(-len(panels) // columns)
    figure, axes = plt.subplots(lines, columns, figsize=(2.6 * columns, 2.4 * lines + 0.4), squeeze=False)
    variants = list(dict.fromkeys(name for frame in panels.values() for name in frame.variant))
    colours, step = palette(variants), 0.012 * (max(ticks) - min(ticks))
    for axis, (title, frame) in zip(axes.flat, panels.items()):
        axis.axhline(0, color='0.6', linewidth=1)
        for number, name in enumerate(variants):
            part, colour = frame[frame.variant == name].dropna(subset='mean').sort_values('x'), colours[name]
            at = part.x + step * (number - (len(variants) - 1) / 2)
            axis.plot(at, part['mean'], color=colour, linewidth=1.2, label=name)
            axis.vlines(at, part.low, part.high, color=colour, linewidth=1.2)
            fills = np.where((part.low > 0) | (part.high < 0), colour, 'white')
            axis.scatter(at, part['mean'], 20, c=fills, edgecolors=colour, zorder=3)
        axis.set_xticks(list(ticks), list(ticks.values()))
        axis.set(title=title, xlabel=xlabel)
    for axis in axes.flat[len(panels) :]:
        axis.set_axis_off()
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc='outside lower center', ncols=columns)
    return figure


def show_rows(frame: pd.DataFrame, y: str, metrics: dict[str, str], hue: str) -> Figure:
    """Metrics of named cases, one row per case and one panel per metric: runs as points, their mean as a line.

    Args:
        frame: one row per run; cases keep the order in which they occur.
        y, hue: columns.
        metrics: column -> title of its panel; those that the frame lacks are left out.
    """
    metrics = {name: title for name, title in metrics.items() if name in frame and frame[name].notna().any()}
    cases, colours = list(dict.fromkeys(frame[y])), palette(frame[hue].astype(str))
    figure, axes = plt.subplots(1, len(metrics), figsize=(7.4, 0.36 * len(cases) + 1.0), sharey=True, squeeze=False)
    for axis, (metric, title) in zip(axes[0], metrics.items(), strict=True):
        for number, (name, colour) in enumerate(colours.items()):
            part = frame[frame[hue].astype(str) == name]
            shift = 0.32 * (number - (len(colours) - 1) / 2)
            axis.plot(
                part[metric], [cases.index(c) + shift for c in part[y]], 'o', color=colour, alpha=0.5, markersize=4
            )
            means = part.groupby(y, sort=False)[metric].mean()
            axis.plot(
                means, [cases.index(c) + shift for c in means.index], '|', color=colour, markersize=12, label=name
            )
        axis.grid(axis='x')
        axis.set(title=title)
    axes[0, 0].set_yticks(range(len(cases)), cases)
    axes[0, 0].set_ylim(len(cases) - 0.5, -0.5)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc='outside lower center', ncols=min(4, len(colours)))
    return figure


def save(figure: Figure, path: str | Path) -> Path:
    """Write a figure as PNG of at most 256 colours (a quarter of the bytes), making its folder, and close it."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with io.BytesIO() as file:
        figure.savefig(file, format='png')
        path.write_bytes(squeeze_png(file.getvalue()))
    plt.close(figure)
    return path


def squeeze_png(data: bytes, colours: int = 256) -> bytes:
    """The same image with at most so many colours; as it was where that is not smaller."""
    image = Image.open(io.BytesIO(data)).convert('RGB').quantize(colours, method=Image.Quantize.FASTOCTREE, dither=0)
    with io.BytesIO() as file:
        image.save(file, 'png', optimize=True)
        return min(data, file.getvalue(), key=len)


def _image(axis: plt.Axes, image: np.ndarray, title: str, **options: object) -> None:
    axis.imshow(image, interpolation='nearest', **options)
    axis.set_title(title, fontsize=9, loc='center')
    axis.set(xticks=[], yticks=[])
    for spine in axis.spines.values():
        spine.set_visible(False)
