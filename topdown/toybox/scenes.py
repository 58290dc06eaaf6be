"""Toybox: procedurally made scenes of many-part toys, written in genuine COCO format.

Every object belongs to one of sixteen categories. A category is an arrangement of unlike parts (shape, colour,
texture); colours are shared between categories, so colour alone neither joins the parts of an object nor tells
two objects apart. Knowing *what* an object is says which parts belong together, which is the situation that
top-down modulation claims to help in.

The generator needs NumPy, Pillow and pycocotools only. It is deterministic: the image of an index depends on
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
import reprlib
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from topdown.config import typed
from topdown.toybox.catalogue import BACKGROUND_COLOURS, BACKGROUNDS, CATEGORIES, PALETTE, Part

VERSION = 2
"""Raised whenever the images of an unchanged configuration change."""
SUPERSAMPLE = 2


@dataclasses.dataclass(frozen=True)
class ToyboxConfig:
    """What the images look like. Part of the cache key, so every change makes a data set of its own."""

    size: int = 192
    """Side of the square images, in pixels."""
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
    """The same even grey ground in every image, as in CLEVR."""
    most_hidden: float = 0.5
    """Largest share of a toy that toys in front of it may hide; 0: none overlap."""
    zipf: float = 0.0
    """How unlike frequencies of categories are: that of the r-th goes with r^-zipf; 0: all alike, 1: Zipf's law."""
    speed: float = 1.0
    """Of clips: a toy's largest velocity, in pixels a frame in either direction."""
    swing: float = 0.0
    """Of clips: toys go to and fro in about so many frames (0.7 to 1.3 times), and come back; 0: they move steadily."""

    def __post_init__(self) -> None:
        for name, low, high in (
            ('size', 32, 2048), ('num_train', 1, 10**7), ('num_val', 1, 10**7), ('min_objects', 1, 20),
            ('max_objects', 1, 20), ('dissimilarity', 0, 1), ('clutter', 0, 10), ('background_contrast', 0, 1),
            ('colour_jitter', 0, 1), ('seed', 0, 2**31), ('categories', 1, len(CATEGORIES)), ('most_hidden', 0, 1),
            ('zipf', 0, 10), ('speed', 0, 100), ('swing', 0, 10**4),
        ):  # fmt: skip
            value = getattr(self, name)
            if not low <= value <= high:
                raise ValueError(f'ToyboxConfig.{name} must lie in [{low}, {high}], got {value!r}')
        if self.min_objects > self.max_objects:
            raise ValueError(f'ToyboxConfig.min_objects ({self.min_objects}) exceeds max_objects ({self.max_objects})')

    @property
    def key(self) -> str:
        """Hash of everything that decides the images: the cache key. Later knobs count where they are not at rest."""
        values = {'version': VERSION, **dataclasses.asdict(self)}
        for name in ('categories', 'grey_ground', 'most_hidden', 'zipf', 'speed', 'swing'):
            if values[name] == getattr(type(self), name):
                del values[name]
        text = json.dumps(values, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


def toybox_config(changes: dict[str, object]) -> ToyboxConfig:
    """The default look with changes, as the parameter ``toybox`` gives them.

    Raises:
        ValueError: for an unknown name, a wrong type or an impossible value.
    """
    kinds = {field.name: type(field.default) for field in dataclasses.fields(ToyboxConfig)}
    unknown = ', '.join(map(reprlib.repr, sorted(set(changes) - set(kinds))))
    if unknown:
        raise ValueError(f'toybox has no setting {unknown}; it has {", ".join(kinds)}')
    return ToyboxConfig(**{name: typed(f'toybox: {name}', value, kinds[name]) for name, value in changes.items()})


class Scene(NamedTuple):
    """One rendered image with its truth."""

    image: np.ndarray  # (H, W, 3) uint8
    masks: np.ndarray  # (O, H, W) bool, visible pixels only, disjoint
    categories: np.ndarray  # (O,) int, 1-based category ids
    hidden: np.ndarray  # (O,) share of the toy that toys in front of it hide


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
    image = base * light[..., None] + (30 * config.background_contrast * tone)[..., None]
    return Image.fromarray(np.clip(image, 0, 255).astype(np.uint8))


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
        if right <= left or bottom <= top:
            return  # it has left the image
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
        config: the look of the images.
        rng: all randomness comes from it.
        num_objects: how many toys to ask for; drawn from the configured range if None. Toys that would hide more
            than half of another, or be more than half hidden, are left out, so crowded scenes may hold fewer.

    Returns:
        The image and the disjoint visible masks, front toys over back toys.
    """
    ground, toys, visible = _compose(config, rng, num_objects)
    for toy in toys:
        toy.paint(ground)
    k = SUPERSAMPLE
    masks = np.stack([m[k // 2 :: k, k // 2 :: k] for m in visible])
    hidden = np.array([1 - m.sum() / t.area for m, t in zip(visible, toys, strict=True)])
    return Scene(_finish(ground, config), masks, np.array([t.category for t in toys]), hidden)


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


def render_motion(config: ToyboxConfig, rng: np.random.Generator, frames: int) -> Clip:
    """A scene in which every toy moves, in front of others or behind them, and may leave the image.

    The frame in the middle is the scene as ``render_scene`` composes it. There, each toy has a velocity of its own, up
    to ``speed`` in either direction, and keeps or swings with it.
    """
    ground, toys, _ = _compose(config, rng, None)
    most = round(config.speed * SUPERSAMPLE)
    velocities = rng.integers(-most, most + 1, (len(toys), 2))
    pace = 2 * math.pi / (config.swing * rng.uniform(0.7, 1.3, len(toys))) if config.swing else None
    images, labels, k = [], [], SUPERSAMPLE
    for time in np.arange(frames) - frames // 2:
        canvas, seen = ground.copy(), np.zeros((config.size * k,) * 2, np.uint8)
        way = velocities * (time if pace is None else (np.sin(pace * time) / pace)[:, None])
        for number, (toy, (dx, dy)) in enumerate(zip(toys, way.astype(int).tolist(), strict=True), 1):
            toy.shift(dx, dy)
            toy.paint(canvas)
            seen[np.asarray(toy.silhouette) > 127] = number
            toy.shift(-dx, -dy)
        images.append(_finish(canvas, config))
        labels.append(seen[k // 2 :: k, k // 2 :: k])
    return Clip(np.stack(images), np.stack(labels), np.array([t.category for t in toys]))


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
            toy = _Toy(_category(config, rng), centre, radius, config, side, rng)
            body = np.asarray(toy.silhouette) > 127
            left_over = [mask & ~body for mask in visible]
            if all(m.sum() >= (1 - config.most_hidden) * t.area for m, t in zip(left_over, toys, strict=True)):
                toys.append(toy)
                visible = [*left_over, body]
                break
    return ground, toys, visible


def _category(config: ToyboxConfig, rng: np.random.Generator) -> int:
    """A toy's category, from 1, drawn by the configuration's frequencies."""
    if not config.zipf:
        return int(rng.integers(1, config.categories + 1))
    weights = np.arange(1, config.categories + 1) ** -config.zipf
    return int(rng.choice(config.categories, p=weights / weights.sum())) + 1


def scene_at(config: ToyboxConfig, split: str, index: int) -> Scene:
    """The scene of one index of 'train' or 'val': the same whenever and wherever it is asked for."""
    return render_scene(config, _stream(config, split, index))


def clip_at(config: ToyboxConfig, index: int) -> np.ndarray:
    """The clip of one index of the pretraining stream, disjoint from 'train' and 'val'."""
    return render_clip(config, _stream(config, 'pretrain', index))


def motion_at(config: ToyboxConfig, split: str, index: int, frames: int) -> Clip:
    """The moving scene of one index of 'train' or 'val', whose middle frame is the image of that index."""
    return render_motion(config, _stream(config, split, index), frames)


def _stream(config: ToyboxConfig, split: str, index: int) -> np.random.Generator:
    stream = {'train': 0, 'val': 1, 'pretrain': 2}[split]
    return np.random.default_rng([config.seed, stream, index, VERSION])
