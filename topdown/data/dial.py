"""Toybox as tokens with a dial: from nothing to certainty, how far a patch tells what kind of toy it is of.

The token of a patch n whose majority belongs to category y (0 for the ground, which counts as one)::

    t_n = appearance + POSITION * position + STRENGTH * (rho u_y + sqrt(1 - rho^2) noise_n)

*Appearance* is the mean colours of the patch's four cells, *position* waves along both sides, each brought to ``WIDTH``
channels of mean 0 and variance 1 by a fixed random projection. The rest is the *evidence*: u_y are fixed, orthogonal,
of the length of the noise, and the noise is fresh in every patch. rho, the setting ``evidence``, is the dial; it leaves
the variance of tokens as it is. Colours are shared between categories and parts of a toy differ in colour, so grouping
by appearance has to fail where grouping by category would not; and evidence that says little in one patch says much in
the mean over a toy, where the noise averages out: a slot can know what a patch cannot.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from scipy.stats import norm
from torch import Tensor

from topdown.data.base import read_image_file
from topdown.data.coco import CocoInstances
from topdown.data.own import TokenFolder
from topdown.toybox.catalogue import CATEGORIES

WIDTH, GRID, PATCH = 64, 12, 8
"""D of the tokens, R where nobody says otherwise, and the pixels of a patch's side."""
POSITION, STRENGTH = 0.5, 1.0
"""Weights of position and evidence beside appearance."""
SAMPLE, VERSION = 64, 1
"""Training images over which appearance is standardised; raised whenever tokens of unchanged settings change."""


def accuracy(evidence: float, patches: int = 1) -> float:
    """Share of right answers to what category a patch is of, from its evidence alone, by the nearest rho u_y.

    Categories are as far from each other, so it is the chance that one of as many normal variables, which is ahead by
    rho |u| / sqrt(1 - rho^2) standard deviations, is the largest. Evidence is averaged over so many ``patches`` first.
    """
    if evidence == 1:
        return 1.0
    ahead = evidence * (WIDTH * patches / (1 - evidence**2)) ** 0.5
    return float(norm.expect(lambda x: norm.cdf(x + ahead) ** len(CATEGORIES)))


class DialTokens(CocoInstances):
    """Toybox's images and masks, each image read as the tokens (D, R, R) that this module describes.

    Args:
        root: folder of Toybox.
        split: 'train' or 'val'.
        image_size: R.
        mask_size, limit, protocol: see ``ImageSet``.
        evidence: rho.
        feature_size: ``WIDTH``; 0 where nothing is said of tokens: R is ``GRID`` then.

    Raises:
        ValueError: if ``feature_size`` is another.
    """

    def __init__(
        self, root: str | Path, split: str, image_size: int, *sizes: object, evidence=0.0, feature_size=0,
        **options: object,
    ) -> None:  # fmt: skip
        if feature_size not in (0, WIDTH):
            raise ValueError(f'dataset toybox_dial has tokens of {WIDTH} channels: set feature_size={WIDTH}')
        self.side = image_size if feature_size else GRID
        super().__init__(root, split, PATCH * self.side, *sizes, **options)
        self.evidence, self.recipe = evidence, f'dial {VERSION}, evidence {evidence}'
        draw = np.random.default_rng(VERSION)
        # (17, D) u_y of the ground and all categories
        self.vectors = np.linalg.qr(draw.standard_normal((WIDTH, 1 + len(CATEGORIES))))[0].T * WIDTH**0.5
        self._projection = torch.from_numpy(draw.standard_normal((2, WIDTH, 12)).astype(np.float32))
        paths = sorted((self.root / 'train2017').iterdir())[:SAMPLE]
        sample = torch.stack([self._colours(read_image_file(path)) for path in paths])
        self._spread = torch.std_mean(self._projection[0] @ sample.movedim(1, 0).flatten(1), 1, keepdim=True)
        phase = torch.outer(torch.tensor([0.5, 1.0, 2.0]), torch.arange(self.side) * torch.pi / self.side)
        waves = torch.cat([phase.sin(), phase.cos()]).repeat(1, self.side)  # (6, N), along a row
        down = waves.unflatten(1, (self.side, -1)).transpose(1, 2).flatten(1)
        position = self._projection[1] @ torch.cat([waves, down])
        self._position = POSITION * (position - position.mean(1, keepdim=True)) / position.std(1, keepdim=True)

    def read_image(self, i: int) -> Tensor:
        """Tokens (D, R, R) float32."""
        (spread, mean), colours = self._spread, self._colours(super().read_image(i)).flatten(1)
        appearance = (self._projection[0] @ colours - mean) / spread.clamp(min=1e-6)
        noise = np.random.default_rng([self.split == 'val', self.ids[i]]).standard_normal((self.side**2, WIDTH))
        found = self.evidence * self.vectors[self.patch_categories(i).ravel()] + (1 - self.evidence**2) ** 0.5 * noise
        tokens = appearance + self._position + STRENGTH * torch.from_numpy(found.T.astype(np.float32))
        return tokens.view(WIDTH, self.side, self.side)

    def patch_categories(self, i: int) -> np.ndarray:
        """Category (R, R) of most of each patch, 0 for the ground."""
        truth = self.annotation(i).cut(self.image_size, self.protocol.mask_resize)
        shares = F.avg_pool2d(torch.from_numpy(truth.masks).float()[None], PATCH)[0].numpy()
        owner = np.concatenate([1 - shares.sum(0, keepdims=True), shares]).argmax(0)
        return np.concatenate([[0], truth.categories])[owner]

    cut = TokenFolder.cut

    def shown(self, i: int) -> Tensor:
        """The image (3, S, S), of ``PATCH`` pixels a token."""
        return super().cut(super().read_image(i), False, None)

    def _colours(self, image: Tensor) -> Tensor:
        """Mean colours (12, R, R) of the four cells of every patch."""
        return F.pixel_unshuffle(F.avg_pool2d(super().cut(image, False, None), PATCH // 2), 2)

    def _read_fast(self, i: int, at: tuple[float, ...] | None) -> None:
        """Tokens are made of images as Pillow reads them."""
