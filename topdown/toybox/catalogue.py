"""The table of toys: their parts, colours and grounds."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

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
