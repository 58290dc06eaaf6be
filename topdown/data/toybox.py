"""Toybox: procedurally made scenes of many-part toys, written in genuine COCO format.

Every object belongs to one of sixteen categories. A category is an arrangement of unlike parts (shape, colour,
texture); colours are shared between categories, so colour alone neither joins the parts of an object nor tells
two objects apart. Knowing *what* an object is says which parts belong together, which is the situation that
top-down modulation claims to help in.

The generator needs NumPy, Pillow and pycocotools only. It is deterministic: the picture of an index depends on
the configuration, the seed and the index, never on the number of processes.

Layout on disk, as in COCO 2017::

    root/
      train2017/000000000001.jpg ...
      val2017/...
      annotations/instances_train2017.json, instances_val2017.json
      toybox.json          the configuration, written last: its presence says that the set is whole
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter

VERSION = 2
"""Raised whenever the pictures of an unchanged configuration change."""

SUPERSAMPLE = 2

PALETTE = {
    'red': (214, 58, 52), 'orange': (236, 134, 44), 'yellow': (246, 202, 66), 'lime': (150, 190, 62),
    'green': (52, 138, 84), 'teal': (44, 158, 164), 'sky': (104, 178, 226), 'blue': (46, 92, 176),
    'purple': (122, 78, 164), 'pink': (232, 128, 166), 'brown': (134, 88, 56), 'cream': (246, 232, 204),
    'grey': (142, 150, 158), 'dark': (52, 54, 66),
}  # fmt: skip
BACKGROUND_COLOURS = [
    (198, 204, 196), (186, 200, 212), (214, 202, 184), (204, 190, 206), (176, 190, 178), (222, 214, 206),
    (164, 178, 196), (196, 180, 164), (182, 204, 206), (210, 196, 196),
]  # fmt: skip
BACKGROUNDS = ('plain', 'planks', 'stripes', 'dots', 'cloth', 'tiles')


class Part(NamedTuple):
    """One part of a toy, in the toy's own frame: x to the right, y down, the toy filling about [-1, 1] squared.

    ``w`` and ``h`` are full extents, ``turn`` degrees clockwise, ``colours`` the palette names an instance chooses
    from, ``texture`` one of plain, stripes, bands, diagonal, dots, checks, speckle.
    """

    shape: str
    x: float
    y: float
    w: float
    h: float
    colours: str
    texture: str = 'plain'
    turn: float = 0.0
    like: int | None = None  # take the colour of that earlier part (two wheels match)


P = Part
CATEGORIES: dict[str, tuple[Part, ...]] = {
    'car': (
        P('trapezoid', -0.05, -0.30, 1.15, 0.62, 'sky cream'), P('round', 0, 0.18, 1.95, 0.62, 'red blue yellow'),
        P('ellipse', -0.55, 0.50, 0.58, 0.58, 'dark'), P('ellipse', -0.55, 0.50, 0.26, 0.26, 'cream grey'),
        P('ellipse', 0.55, 0.50, 0.58, 0.58, 'dark'), P('ellipse', 0.55, 0.50, 0.26, 0.26, 'cream', like=3),
    ),
    'house': (
        P('rect', 0, 0.38, 1.45, 1.15, 'cream yellow pink', 'bands'), P('triangle', 0, -0.55, 1.9, 0.85, 'red brown purple'),
        P('rect', -0.32, 0.58, 0.38, 0.75, 'brown blue'), P('rect', 0.36, 0.32, 0.42, 0.42, 'sky'),
    ),
    'tree': (
        P('rect', 0, 0.62, 0.34, 0.78, 'brown', 'stripes'), P('ellipse', -0.42, -0.05, 0.95, 0.85, 'green lime', 'speckle'),
        P('ellipse', 0.42, -0.05, 0.95, 0.85, 'green', 'speckle', like=1), P('ellipse', 0, -0.50, 1.1, 0.95, 'lime', 'speckle', like=1),
        P('ellipse', -0.3, -0.15, 0.24, 0.24, 'red orange'), P('ellipse', 0.32, -0.42, 0.24, 0.24, 'red', like=4),
    ),
    'fish': (
        P('triangle', 0.72, 0, 0.75, 0.9, 'orange yellow pink', turn=-90), P('triangle', -0.05, -0.48, 0.7, 0.45, 'orange', like=0),
        P('ellipse', -0.18, 0.02, 1.5, 0.98, 'blue teal purple', 'stripes'), P('ellipse', -0.62, -0.1, 0.26, 0.26, 'cream'),
        P('ellipse', -0.64, -0.1, 0.12, 0.12, 'dark'),
    ),
    'rocket': (
        P('drop', 0, 0.82, 0.42, 0.6, 'yellow orange', turn=180), P('triangle', -0.42, 0.42, 0.6, 0.62, 'red teal'),
        P('triangle', 0.42, 0.42, 0.6, 0.62, 'red', like=1), P('ellipse', 0, -0.12, 0.78, 1.65, 'cream grey'),
        P('triangle', 0, -0.78, 0.62, 0.52, 'red', like=1), P('ellipse', 0, -0.18, 0.36, 0.36, 'blue sky'),
    ),
    'mushroom': (
        P('round', 0, 0.45, 0.62, 1.05, 'cream', 'stripes'), P('half', 0, -0.28, 1.85, 1.05, 'red brown purple', 'dots'),
    ),
    'flower': (
        P('rect', 0, 0.52, 0.15, 1.0, 'green'), P('ellipse', 0.32, 0.55, 0.62, 0.26, 'lime', turn=-25),
        *(P('ellipse', 0.46 * math.cos(a), -0.38 + 0.46 * math.sin(a), 0.56, 0.56, 'pink purple red', like=None if i == 0 else 2)
          for i, a in enumerate(np.arange(6) * math.pi / 3)),
        P('ellipse', 0, -0.38, 0.48, 0.48, 'yellow brown', 'dots'),
    ),
    'boat': (
        P('rect', 0, -0.15, 0.11, 1.5, 'brown'), P('righttriangle', 0.45, -0.25, 0.75, 1.15, 'cream yellow', 'bands'),
        P('righttriangle', -0.36, -0.15, -0.55, 0.85, 'orange teal'), P('trapezoid', 0, 0.66, 1.85, 0.52, 'blue red green', turn=180),
    ),
    'duck': (
        P('triangle', 0.85, -0.05, 0.4, 0.5, 'yellow cream', turn=60), P('ellipse', 0.15, 0.3, 1.45, 0.95, 'yellow cream teal', like=0),
        P('ellipse', -0.5, -0.4, 0.75, 0.72, 'green yellow'), P('triangle', -0.98, -0.34, 0.32, 0.42, 'orange red', turn=-90),
        P('drop', 0.3, 0.25, 0.48, 0.85, 'brown grey purple', turn=70), P('ellipse', -0.58, -0.48, 0.15, 0.15, 'dark'),
    ),
    'balloon': (
        P('rect', -0.2, 0.45, 0.06, 0.62, 'dark'), P('rect', 0.2, 0.45, 0.06, 0.62, 'dark'),
        P('ellipse', 0, -0.3, 1.4, 1.4, 'red purple teal', 'stripes'), P('rect', 0, 0.78, 0.58, 0.42, 'brown', 'checks'),
    ),
    'icecream': (
        P('ellipse', -0.32, -0.2, 0.78, 0.78, 'pink lime'), P('ellipse', 0.32, -0.2, 0.78, 0.78, 'brown cream'),
        P('ellipse', 0, -0.56, 0.78, 0.78, 'cream sky', 'speckle'), P('triangle', 0, 0.5, 1.15, 1.05, 'orange', 'checks', 180),
        P('ellipse', 0, -0.95, 0.26, 0.26, 'red'),
    ),
    'lamp': (
        P('rect', 0, 0.25, 0.14, 1.1, 'grey brown'), P('half', 0, 0.82, 1.0, 0.3, 'dark blue'),
        P('trapezoid', 0, -0.5, 1.5, 0.85, 'yellow orange teal', 'stripes'),
    ),
    'butterfly': (
        P('ellipse', -0.5, -0.32, 0.98, 0.8, 'orange sky purple', 'dots', 25), P('ellipse', 0.5, -0.32, 0.98, 0.8, 'orange', 'dots', -25, 0),
        P('ellipse', -0.42, 0.42, 0.78, 0.65, 'yellow pink blue', turn=-25), P('ellipse', 0.42, 0.42, 0.78, 0.65, 'yellow', 'plain', 25, 2),
        P('ellipse', 0, 0, 0.26, 1.35, 'dark brown', 'bands'),
    ),
    'robot': (
        P('rect', -0.28, 0.8, 0.3, 0.4, 'dark'), P('rect', 0.28, 0.8, 0.3, 0.4, 'dark'),
        P('round', -0.72, 0.2, 0.26, 0.8, 'orange grey'), P('round', 0.72, 0.2, 0.26, 0.8, 'orange', like=2),
        P('round', 0, 0.2, 1.15, 0.95, 'teal blue grey'), P('rect', 0, 0.2, 0.6, 0.42, 'yellow cream', 'checks'),
        P('round', 0, -0.6, 0.85, 0.6, 'grey sky'), P('ellipse', -0.2, -0.62, 0.2, 0.2, 'red'), P('ellipse', 0.2, -0.62, 0.2, 0.2, 'red'),
    ),
    'umbrella': (
        P('rect', 0, 0.3, 0.12, 1.35, 'brown dark'), P('round', 0.16, 0.92, 0.42, 0.14, 'brown', like=0),
        P('half', 0, -0.4, 1.95, 1.0, 'blue pink lime', 'stripes'), P('triangle', 0, -0.92, 0.16, 0.22, 'red'),
    ),
    'cactus': (
        P('trapezoid', 0, 0.72, 0.95, 0.6, 'orange brown blue', 'bands', 180), P('round', -0.5, -0.12, 0.6, 0.26, 'green', like=None),
        P('round', -0.7, -0.32, 0.26, 0.62, 'green', like=1), P('round', 0.5, 0.08, 0.6, 0.26, 'green', like=1),
        P('round', 0.68, -0.16, 0.26, 0.66, 'green', like=1), P('round', 0, -0.2, 0.56, 1.4, 'green', 'stripes', 0, 1),
        P('ellipse', 0, -0.92, 0.36, 0.3, 'pink red'),
    ),
}  # fmt: skip
"""Category name -> parts, painted in this order. Category ids are 1-based positions in this table."""


@dataclasses.dataclass(frozen=True)
class ToyboxConfig:
    """What the pictures look like. Part of the cache key, so every change makes a data set of its own."""

    size: int = 192
    """Side of the square pictures, in pixels."""
    num_train: int = 3000
    num_val: int = 500
    min_objects: int = 2
    max_objects: int = 6
    dissimilarity: float = 1.0
    """0: all parts of an object have its one colour and no texture; 1: parts as unlike as the category has them."""
    clutter: float = 0.4
    """Density of unlabelled scraps: the mean number of scraps is 5 times this."""
    background_contrast: float = 0.5
    """Strength of the background's texture; 0 gives plain grounds."""
    colour_jitter: float = 0.06
    """Standard deviation of an instance's colours around the palette's, as a share of the full range."""
    seed: int = 0
    categories: int = len(CATEGORIES)
    """Toys are of the first so many categories of the table."""
    grey_ground: bool = False
    """The same even grey ground in every picture, as in CLEVR."""
    most_hidden: float = 0.5
    """Largest share of a toy that toys in front of it may hide; 0: none overlap."""

    def __post_init__(self) -> None:
        for name, low, high in (
            ('size', 32, 2048), ('num_train', 1, 10**7), ('num_val', 1, 10**7), ('min_objects', 1, 20),
            ('max_objects', 1, 20), ('dissimilarity', 0, 1), ('clutter', 0, 10), ('background_contrast', 0, 1),
            ('colour_jitter', 0, 1), ('seed', 0, 2**31), ('categories', 1, len(CATEGORIES)), ('most_hidden', 0, 1),
        ):  # fmt: skip
            value = getattr(self, name)
            if not low <= value <= high:
                raise ValueError(f'ToyboxConfig.{name} must lie in [{low}, {high}], got {value!r}')
        if self.min_objects > self.max_objects:
            raise ValueError(f'ToyboxConfig.min_objects ({self.min_objects}) exceeds max_objects ({self.max_objects})')

    @property
    def key(self) -> str:
        """Hash of everything that decides the pictures: the cache key. Later knobs count where they are not at rest."""
        values = {'version': VERSION, **dataclasses.asdict(self)}
        for name, rest in (('categories', len(CATEGORIES)), ('grey_ground', False), ('most_hidden', 0.5)):
            if values[name] == rest:
                del values[name]
        text = json.dumps(values, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


class Scene(NamedTuple):
    """One rendered picture with its truth."""

    image: np.ndarray  # (H, W, 3) uint8
    masks: np.ndarray  # (O, H, W) bool, visible pixels only, disjoint
    categories: np.ndarray  # (O,) int, 1-based category ids


# ---------------------------------------------------------------------------------------------------- drawing


def _outline(shape: str) -> np.ndarray:
    """Corner points (n, 2) of a unit shape, extents [-0.5, 0.5]."""
    turn = np.linspace(0, 2 * math.pi, 40, endpoint=False)
    match shape:
        case 'ellipse':
            return 0.5 * np.stack([np.cos(turn), np.sin(turn)], 1)
        case 'rect':
            return np.array([(-0.5, -0.5), (0.5, -0.5), (0.5, 0.5), (-0.5, 0.5)])
        case 'round':
            c, s = np.cos(turn), np.sin(turn)
            return 0.5 * np.stack([np.sign(c) * np.abs(c) ** 0.45, np.sign(s) * np.abs(s) ** 0.45], 1)
        case 'triangle':
            return np.array([(0, -0.5), (0.5, 0.5), (-0.5, 0.5)])
        case 'righttriangle':
            return np.array([(-0.5, -0.5), (0.5, 0.5), (-0.5, 0.5)])
        case 'trapezoid':
            return np.array([(-0.3, -0.5), (0.3, -0.5), (0.5, 0.5), (-0.5, 0.5)])
        case 'half':
            arc = np.linspace(math.pi, 2 * math.pi, 30)
            return np.stack([0.5 * np.cos(arc), 0.5 + np.sin(arc)], 1)
        case 'drop':
            return 0.5 * np.stack([np.sin(turn) * np.sin(turn / 2) ** 1.5, np.cos(turn)], 1) * (1.0, -1.0)
    raise ValueError(f'unknown shape {shape!r}')


OUTLINES = {
    s: _outline(s) for s in ('ellipse', 'rect', 'round', 'triangle', 'righttriangle', 'trapezoid', 'half', 'drop')
}


def _pattern(texture: str, xs: np.ndarray, ys: np.ndarray, period: float) -> np.ndarray:
    """Share of the second colour at points given in the toy's frame, in [0, 1]."""
    match texture:
        case 'stripes':
            return (np.mod(xs, period) < period / 2).astype(np.float32)
        case 'bands':
            return (np.mod(ys, period) < period / 2).astype(np.float32)
        case 'diagonal':
            return (np.mod(xs + ys, period) < period / 2).astype(np.float32)
        case 'checks':
            return ((np.mod(xs, period) < period / 2) ^ (np.mod(ys, period) < period / 2)).astype(np.float32)
        case 'dots':
            row = np.floor(ys / period)
            dx = np.mod(xs + 0.5 * period * np.mod(row, 2), period) / period - 0.5
            dy = np.mod(ys, period) / period - 0.5
            return (dx**2 + dy**2 < 0.09).astype(np.float32)
        case 'speckle':
            cell = np.floor(xs / 0.06) * 12.9898 + np.floor(ys / 0.06) * 78.233
            return (np.mod(np.sin(cell) * 43758.5453, 1.0) < 0.25).astype(np.float32)
    return np.zeros(xs.shape, np.float32)


def _colour(name: str, jitter: float, rng: np.random.Generator) -> np.ndarray:
    return np.clip(np.array(PALETTE[name], np.float32) + 255 * jitter * rng.standard_normal(3), 0, 255)


def _background(config: ToyboxConfig, side: int, rng: np.random.Generator) -> Image.Image:
    """A quiet, lightly textured ground with a soft fall of light."""
    base = np.array(BACKGROUND_COLOURS[rng.integers(len(BACKGROUND_COLOURS))], np.float32)
    base = np.clip(base + 255 * config.colour_jitter * rng.standard_normal(3), 40, 250)
    kind = BACKGROUNDS[rng.integers(len(BACKGROUNDS))]
    ys, xs = np.mgrid[0:side, 0:side].astype(np.float32) / side
    angle = rng.uniform(-0.3, 0.3)
    u, v = xs * math.cos(angle) + ys * math.sin(angle) + 2, ys * math.cos(angle) - xs * math.sin(angle) + 2
    period = rng.uniform(0.10, 0.22)
    match kind:
        case 'planks':
            row = np.floor(v / period)
            tone = np.mod(np.sin(row * 12.9898) * 43758.5453, 1.0) - 0.5
            tone = tone - 1.2 * (np.mod(v, period) < 0.012)
        case 'stripes':
            tone = (np.mod(u, period) < period / 2) - 0.5
        case 'dots':
            tone = 1.4 * _pattern('dots', u, v, period * 0.7) - 0.4
        case 'cloth':
            tone = 0.5 * (np.sin(u * 2 * math.pi / period * 4) * np.sin(v * 2 * math.pi / period * 4))
        case 'tiles':
            tone = -1.0 * ((np.mod(u, period * 1.3) < 0.012) | (np.mod(v, period * 1.3) < 0.012)).astype(np.float32)
        case _:
            tone = np.zeros_like(xs)
    light = 1 + 0.10 * (rng.uniform(-1, 1) * (xs - 0.5) * 2 + rng.uniform(-1, 1) * (ys - 0.5) * 2)
    if config.grey_ground:
        base, light = np.full(3, 150, np.float32), np.ones_like(xs)
    picture = base * light[..., None] + (30 * config.background_contrast * tone)[..., None]
    return Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8))


class _Toy:
    """One instance of a category: its parts as pixel polygons and the silhouette that they cover."""

    def __init__(self, category: int, centre: tuple[float, float], radius: float, config: ToyboxConfig, side: int, rng):
        self.category, self.centre, self.radius, self.side = category, centre, radius, side
        self.rng, self.config = rng, config
        self.angle = math.radians(rng.uniform(-14, 14))
        self.flip = -1.0 if rng.random() < 0.5 else 1.0
        self.stretch = np.array([rng.uniform(0.88, 1.12), rng.uniform(0.88, 1.12)])
        self.parts = list(CATEGORIES.values())[category - 1]
        wobble = rng.normal(0, 0.03, (len(self.parts), 2))
        self.polygons = [self._place(part, wobble[i]) for i, part in enumerate(self.parts)]
        self.silhouette = Image.new('L', (side, side), 0)
        draw = ImageDraw.Draw(self.silhouette)
        for polygon in self.polygons:
            draw.polygon(polygon, fill=255)
        self.area = int(np.count_nonzero(np.asarray(self.silhouette)))
        self.colours = self._colours()

    def _colours(self) -> list[np.ndarray]:
        """One colour a part, drawn from its choices, moved towards the first part's by the dissimilarity knob."""
        colours: list[np.ndarray] = []
        for part in self.parts:
            names = part.colours.split()
            colour = _colour(names[self.rng.integers(len(names))], self.config.colour_jitter, self.rng)
            if part.like is not None:
                colour = colours[part.like]
            elif colours:
                colour = colours[0] + self.config.dissimilarity * (colour - colours[0])
            colours.append(colour)
        return colours

    def shift(self, dx: int, dy: int) -> None:
        """Move by whole pixels."""
        self.centre = (self.centre[0] + dx, self.centre[1] + dy)
        self.polygons = [[(x + dx, y + dy) for x, y in polygon] for polygon in self.polygons]
        self.silhouette = Image.new('L', (self.side, self.side), 0)
        for polygon in self.polygons:
            ImageDraw.Draw(self.silhouette).polygon(polygon, fill=255)

    def _place(self, part: Part, wobble: np.ndarray) -> list[tuple[float, float]]:
        """Toy frame -> pixels: the part's own turn, then flip, stretch, the toy's turn, scale and shift."""
        points = OUTLINES[part.shape] * (part.w, part.h)
        t = math.radians(part.turn)
        points = points @ np.array([[math.cos(t), math.sin(t)], [-math.sin(t), math.cos(t)]])
        points = (points + np.array([part.x, part.y]) + wobble) * (self.flip, 1.0) * self.stretch
        c, s = math.cos(self.angle), math.sin(self.angle)
        points = points @ np.array([[c, s], [-s, c]]) * self.radius + self.centre
        return [tuple(p) for p in points]

    def paint(self, canvas: Image.Image) -> None:
        """Draw a soft shadow, then the parts with texture, light and outline."""
        shadow = ImageChops.offset(self.silhouette, int(0.03 * self.radius), int(0.06 * self.radius))
        left, top, right, bottom = self._box(1.5)
        soft = shadow.crop((left, top, right, bottom)).filter(ImageFilter.GaussianBlur(0.03 * self.radius))
        canvas.paste((30, 32, 40), (left, top, right, bottom), soft.point(lambda v: int(v * 0.33)))
        width = max(1, round(0.035 * self.radius))
        for part, polygon, colour in zip(self.parts, self.polygons, self.colours, strict=True):
            self._paint_part(canvas, part, polygon, colour, width)

    def _box(self, reach: float) -> tuple[int, int, int, int]:
        x, y = self.centre
        r = reach * self.radius
        return max(0, int(x - r)), max(0, int(y - r)), min(self.side, int(x + r) + 1), min(self.side, int(y + r) + 1)

    def _paint_part(self, canvas: Image.Image, part: Part, polygon, colour: np.ndarray, width: int) -> None:
        xs, ys = np.array(polygon).T
        left, top = max(0, int(xs.min()) - 2), max(0, int(ys.min()) - 2)
        right, bottom = min(self.side, int(xs.max()) + 3), min(self.side, int(ys.max()) + 3)
        if right <= left or bottom <= top:
            return
        local = [(x - left, y - top) for x, y in polygon]
        stencil = Image.new('L', (right - left, bottom - top), 0)
        ImageDraw.Draw(stencil).polygon(local, fill=255)
        gy, gx = np.mgrid[top:bottom, left:right].astype(np.float32)
        gx, gy = (gx - self.centre[0]) / self.radius, (gy - self.centre[1]) / self.radius
        c, s = math.cos(self.angle), math.sin(self.angle)
        u, v = (gx * c + gy * s) * self.flip + 4, gy * c - gx * s + 4
        share = _pattern(part.texture, u, v, 0.30) * 0.55 * self.config.dissimilarity
        second = colour * 0.55 if colour.mean() > 140 else colour + 0.6 * (255 - colour)
        light = 1.06 - 0.10 * gy + 0.05 * gx
        paint = (colour + share[..., None] * (second - colour)) * light[..., None]
        canvas.paste(Image.fromarray(np.clip(paint, 0, 255).astype(np.uint8)), (left, top), stencil)
        rim = tuple(int(c) for c in colour * 0.55)
        ImageDraw.Draw(canvas).line([*polygon, polygon[0]], fill=rim, width=width, joint='curve')


def _scrap(canvas: Image.Image, config: ToyboxConfig, rng: np.random.Generator) -> None:
    """Clutter: one unlabelled shape in a palette colour, smaller than most parts."""
    side = canvas.size[0]
    names = list(PALETTE)
    shape = list(OUTLINES)[rng.integers(len(OUTLINES))]
    radius = side * rng.uniform(0.025, 0.06)
    angle = rng.uniform(0, 2 * math.pi)
    c, s = math.cos(angle), math.sin(angle)
    points = OUTLINES[shape] @ np.array([[c, s], [-s, c]]) * 2 * radius + rng.uniform(0, side, 2)
    colour = _colour(names[rng.integers(len(names))], config.colour_jitter, rng)
    ImageDraw.Draw(canvas).polygon([tuple(p) for p in points], fill=tuple(int(v) for v in colour))


def render_scene(config: ToyboxConfig, rng: np.random.Generator, *, num_objects: int | None = None) -> Scene:
    """Draw one scene.

    Args:
        config: the look of the pictures.
        rng: all randomness comes from it.
        num_objects: how many toys to ask for; drawn from the configured range if None. Toys that would hide more
            than half of another, or be more than half hidden, are left out, so crowded scenes may hold fewer.

    Returns:
        The picture and the disjoint visible masks, front toys over back toys.
    """
    ground, toys, visible = _compose(config, rng, num_objects)
    for toy in toys:
        toy.paint(ground)
    k = SUPERSAMPLE
    masks = np.stack([m[k // 2 :: k, k // 2 :: k] for m in visible])
    return Scene(_finish(ground, config), masks, np.array([t.category for t in toys]))


def render_clip(config: ToyboxConfig, rng: np.random.Generator, reach: int = 8) -> np.ndarray:
    """Three frames of a scene in which every toy moves steadily and the ground stays: (3, H, W, 3) uint8.

    Each toy shifts by its own random even number of pixels a frame, up to ``reach`` in either direction, never by
    none. The middle frame is the scene as ``render_scene`` composes it. There is no truth: the clip is what a camera
    would see.
    """
    ground, toys, _ = _compose(config, rng, None)
    velocities = []
    for _ in toys:
        dx, dy = 0, 0
        while dx == dy == 0:
            dx, dy = (2 * int(v) for v in rng.integers(-(reach // 2), reach // 2 + 1, 2))
        velocities.append((dx * SUPERSAMPLE, dy * SUPERSAMPLE))
    frames = []
    for time in (-1, 0, 1):
        canvas = ground.copy()
        for toy, (dx, dy) in zip(toys, velocities, strict=True):
            toy.shift(time * dx, time * dy)
            toy.paint(canvas)
            toy.shift(-time * dx, -time * dy)
        frames.append(_finish(canvas, config))
    return np.stack(frames)


class Clip(NamedTuple):
    """A scene in motion, with its truth."""

    frames: np.ndarray  # (T, H, W, 3) uint8
    labels: np.ndarray  # (T, H, W) uint8, 0 ground, o > 0 the visible pixels of toy o, from back to front
    categories: np.ndarray  # (O,) int, 1-based category ids


def render_motion(config: ToyboxConfig, rng: np.random.Generator, frames: int, reach: float = 1.0) -> Clip:
    """A scene in which every toy moves steadily, in front of others or behind them, and may leave the picture.

    The frame in the middle is the scene as ``render_scene`` composes it. Each toy has a velocity of its own, up to
    ``reach`` pixels a frame in either direction.
    """
    ground, toys, _ = _compose(config, rng, None)
    most = round(reach * SUPERSAMPLE)
    velocities = rng.integers(-most, most + 1, (len(toys), 2))
    pictures, labels, k = [], [], SUPERSAMPLE
    for time in np.arange(frames) - frames // 2:
        canvas, seen = ground.copy(), np.zeros((config.size * k,) * 2, np.uint8)
        for number, (toy, velocity) in enumerate(zip(toys, velocities, strict=True), 1):
            dx, dy = (int(time * v) for v in velocity)
            toy.shift(dx, dy)
            toy.paint(canvas)
            seen[np.asarray(toy.silhouette) > 127] = number
            toy.shift(-dx, -dy)
        pictures.append(_finish(canvas, config))
        labels.append(seen[k // 2 :: k, k // 2 :: k])
    return Clip(np.stack(pictures), np.stack(labels), np.array([t.category for t in toys]))


def _finish(canvas: Image.Image, config: ToyboxConfig) -> np.ndarray:
    return np.asarray(canvas.resize((config.size, config.size), Image.Resampling.BOX))


def _compose(
    config: ToyboxConfig, rng: np.random.Generator, num_objects: int | None
) -> tuple[Image.Image, list[_Toy], list[np.ndarray]]:
    """The ground with its clutter, the toys from back to front, and their visible masks, all supersampled."""
    side = config.size * SUPERSAMPLE
    wanted = int(rng.integers(config.min_objects, config.max_objects + 1)) if num_objects is None else num_objects
    ground = _background(config, side, rng)
    for _ in range(rng.poisson(5 * config.clutter)):
        _scrap(ground, config, rng)
    toys: list[_Toy] = []
    visible: list[np.ndarray] = []
    for _ in range(wanted):
        for attempt in range(30):
            radius = side * 0.315 * rng.uniform(0.82, 1.12) * (2 / max(wanted, 2)) ** 0.32 * 0.985**attempt
            centre = tuple(rng.uniform(0.8 * radius, side - 0.8 * radius, 2))
            if any(math.dist(centre, toy.centre) < 0.60 * (radius + toy.radius) for toy in toys):
                continue
            toy = _Toy(int(rng.integers(1, config.categories + 1)), centre, radius, config, side, rng)
            body = np.asarray(toy.silhouette) > 127
            left_over = [mask & ~body for mask in visible]
            if all(m.sum() >= (1 - config.most_hidden) * t.area for m, t in zip(left_over, toys, strict=True)):
                toys.append(toy)
                visible = [*left_over, body]
                break
    return ground, toys, visible


def scene_at(config: ToyboxConfig, split: str, index: int) -> Scene:
    """The scene of one index of 'train' or 'val': the same whenever and wherever it is asked for."""
    return render_scene(config, _stream(config, split, index))


def clip_at(config: ToyboxConfig, index: int) -> np.ndarray:
    """The clip of one index of the pretraining stream, disjoint from 'train' and 'val'."""
    return render_clip(config, _stream(config, 'pretrain', index))


def motion_at(config: ToyboxConfig, split: str, index: int, frames: int) -> Clip:
    """The moving scene of one index of 'train' or 'val', whose middle frame is the picture of that index."""
    return render_motion(config, _stream(config, split, index), frames)


def _stream(config: ToyboxConfig, split: str, index: int) -> np.random.Generator:
    stream = {'train': 0, 'val': 1, 'pretrain': 2}[split]
    return np.random.default_rng([config.seed, stream, index, VERSION])


# ------------------------------------------------------------------------------------------------ writing COCO


def default_root() -> Path:
    """Where Toybox is kept if no folder is given: ``$TOPDOWN_CACHE`` or the user's cache folder."""
    base = os.environ.get('TOPDOWN_CACHE') or Path(os.environ.get('XDG_CACHE_HOME') or '~/.cache') / 'topdown'
    return Path(base).expanduser() / 'toybox'


def make_toybox(
    config: ToyboxConfig | None = None,
    root: str | Path | None = None,
    processes: int | None = None,
    progress: bool = True,
) -> Path:
    """Write the data set if it is not there yet.

    The files are made in a temporary folder and moved into place at the end, so an interrupted run leaves nothing
    that looks whole.

    Args:
        config: look and size; the default set if None.
        root: parent folder; the set lies in ``root/<config.key>``. ``default_root()`` if None or empty.
        processes: worker processes; all processors if None.
        progress: show a bar.

    Returns:
        The folder, in the layout of COCO 2017.

    Raises:
        PermissionError: if the folder cannot be written.
    """
    config = config or ToyboxConfig()
    parent = Path(root).expanduser() if root else default_root()
    target = parent / config.key
    if (target / 'toybox.json').is_file():
        return target
    try:
        parent.mkdir(parents=True, exist_ok=True)
        workplace = Path(tempfile.mkdtemp(prefix=f'.{config.key}-', dir=parent))
    except OSError as error:
        raise PermissionError(
            f'cannot write to {parent} ({error}); pass another data_root or set TOPDOWN_CACHE'
        ) from error
    try:
        _write(config, workplace, processes or os.cpu_count() or 1, progress)
        if target.exists():  # another process was faster, or an earlier folder is not whole
            if (target / 'toybox.json').is_file():
                return target
            shutil.rmtree(target)
        workplace.rename(target)
    finally:
        shutil.rmtree(workplace, ignore_errors=True)
    return target


def _write(config: ToyboxConfig, folder: Path, processes: int, progress: bool) -> None:
    from tqdm.auto import tqdm

    (folder / 'annotations').mkdir()
    for split in ('train', 'val'):
        (folder / f'{split}2017').mkdir()
    # Workers are plain subprocesses: multiprocessing would run a caller's script again in every worker.
    paths = [str(Path(__file__).parents[2]), *filter(None, [os.environ.get('PYTHONPATH')])]
    environment = {**os.environ, 'PYTHONPATH': os.pathsep.join(paths)}
    command = [sys.executable, '-m', 'topdown.data.toybox', json.dumps(dataclasses.asdict(config)), str(folder)]
    workers = [
        subprocess.Popen([*command, str(i), str(processes)], stdout=subprocess.PIPE, text=True, env=environment)
        for i in range(processes)
    ]
    found: list[tuple[str, dict, list[dict]]] = []
    total = config.num_train + config.num_val
    with tqdm(total=total, desc='making Toybox', unit='picture', disable=not progress) as bar:

        def collect(worker: subprocess.Popen) -> int:
            for line in worker.stdout:
                found.append(json.loads(line))
                bar.update()
            return worker.wait()

        try:
            with ThreadPoolExecutor(processes) as pool:
                codes = list(pool.map(collect, workers))
        finally:
            for worker in workers:
                worker.kill()
                worker.stdout.close()
    if any(codes) or len(found) != total:
        raise RuntimeError(f'making Toybox failed after {len(found)} of {total} pictures; see the message above')
    found.sort(key=lambda row: row[1]['id'])
    records = {split: [row[1:] for row in found if row[0] == split] for split in ('train', 'val')}
    categories = [
        {'id': i, 'name': name, 'supercategory': 'toy'}
        for i, name in enumerate(list(CATEGORIES)[: config.categories], 1)
    ]
    for split, rows in records.items():
        annotations = [annotation for _, found in rows for annotation in found]
        for number, annotation in enumerate(annotations, 1):
            annotation['id'] = number
        content = {
            'info': {'description': f'Toybox {split}', 'version': str(VERSION), 'config': dataclasses.asdict(config)},
            'licenses': [{'id': 1, 'name': 'Apache-2.0', 'url': 'https://www.apache.org/licenses/LICENSE-2.0'}],
            'images': [image for image, _ in rows],
            'annotations': annotations,
            'categories': categories,
        }
        (folder / 'annotations' / f'instances_{split}2017.json').write_text(json.dumps(content))
    (folder / 'toybox.json').write_text(json.dumps({'version': VERSION, **dataclasses.asdict(config)}, indent=1))


def _write_one(config: ToyboxConfig, split: str, index: int, folder: Path) -> tuple[str, dict, list[dict]]:
    """Render and save one picture; return its COCO records."""
    from pycocotools import mask as mask_tools

    scene = scene_at(config, split, index)
    name = f'{index + 1:012d}.jpg'
    Image.fromarray(scene.image).save(folder / f'{split}2017' / name, quality=93, subsampling=0)
    image = {'id': index + 1, 'file_name': name, 'width': config.size, 'height': config.size, 'license': 1}
    annotations = []
    for mask, category in zip(scene.masks, scene.categories, strict=True):
        rle = mask_tools.encode(np.asfortranarray(mask, np.uint8))
        annotations.append({
            'id': 0, 'image_id': index + 1, 'category_id': int(category), 'iscrowd': 0,
            'area': int(mask.sum()), 'bbox': [float(v) for v in mask_tools.toBbox(rle)],
            'segmentation': {'size': [config.size] * 2, 'counts': rle['counts'].decode()},
        })  # fmt: skip
    return split, image, annotations


def _work(arguments: list[str]) -> None:
    """One worker of ``_write``: every so-manieth picture; a line of JSON records for each."""
    config, folder = ToyboxConfig(**json.loads(arguments[0])), Path(arguments[1])
    jobs = [(split, i) for split, n in (('train', config.num_train), ('val', config.num_val)) for i in range(n)]
    for split, index in jobs[int(arguments[2]) :: int(arguments[3])]:
        print(json.dumps(_write_one(config, split, index, folder)), flush=True)


if __name__ == '__main__':
    _work(sys.argv[1:])
