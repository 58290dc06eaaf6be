"""Toybox as tokens with a dial: from nothing to certainty, how far a patch tells what kind of toy it is of.

The token of a patch n whose majority belongs to category y (0 for the ground, which counts as one)::

    t_n = [ x_n,  STRENGTH * (rho u_y + sqrt(1 - rho^2) noise_n) ]

x_n is the token of the encoder ``vit_toybox_patch8_96``, all channels of mean 0 and variance 1; beside it stands the
*evidence*, in channels of its own: u_y are the corners of a simplex, as long as the noise is, and the noise is fresh in
every patch. rho, the setting ``evidence``, is the dial; it leaves the variance of tokens as it is. Evidence that says
little in one patch says much in the mean over a toy, where the noise averages out: a slot can know what a patch cannot.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from scipy.stats import norm
from torch import Tensor

from topdown.config import EncoderConfig
from topdown.data.coco import CocoInstances
from topdown.data.own import TokenFolder
from topdown.model.encoder import FrozenEncoder
from topdown.toybox.catalogue import CATEGORIES

KINDS = 1 + len(CATEGORIES)
"""Categories and the ground."""
GRID, PATCH = 12, 8
"""R, and the pixels of a patch's side."""
WIDTH = 128 + KINDS - 1
"""D: the encoder's channels, and those of the evidence: a simplex has one corner more than dimensions."""
STRENGTH = 2.0
"""Standard deviation of an evidence channel."""
VERSION = 1
"""Raised whenever tokens of unchanged settings change."""


def accuracy(evidence: float, patches: int = 1) -> float:
    """Share of right answers to what category a patch is of, from its evidence alone, by the nearest rho u_y.

    All categories are as likely and as far from each other, so it is the chance that one of equally many normal
    variables, ahead by rho sqrt(KINDS) / sqrt(1 - rho^2) standard deviations, is the largest.

    Args:
        evidence: rho.
        patches: of one category, over which evidence is averaged first.
    """
    if evidence == 1:
        return 1.0
    ahead = evidence * (KINDS * patches / (1 - evidence**2)) ** 0.5
    return float(norm.expect(lambda x: norm.cdf(x + ahead) ** (KINDS - 1)))


class DialTokens(CocoInstances):
    """Toybox's images and masks, each image read as the tokens (D, R, R) that this module describes.

    Args:
        root: folder of Toybox.
        split: 'train' or 'val'.
        image_size: R, ``GRID``.
        mask_size, limit, protocol: see ``ImageSet``.
        evidence: rho.
        feature_size: ``WIDTH``; 0 where nothing is said of tokens.

    Attributes:
        vectors: (17, 16) u_y of the ground and all categories.

    Raises:
        ValueError: if ``image_size`` or ``feature_size`` is another.
    """

    def __init__(
        self, root: str | Path, split: str, image_size: int, *sizes: object, evidence=0.0, feature_size=0,
        **options: object,
    ) -> None:  # fmt: skip
        if feature_size and (image_size, feature_size) != (GRID, WIDTH):
            raise ValueError(f'dataset toybox_dial has other tokens: set image_size={GRID} and feature_size={WIDTH}')
        super().__init__(root, split, PATCH * GRID, *sizes, **options)
        self.evidence, self.recipe = evidence, f'dial {VERSION}, evidence {evidence}'
        corners = np.linalg.svd(np.eye(KINDS) - 1 / KINDS)[0][:, :-1]
        turn = np.linalg.qr(np.random.default_rng(VERSION).standard_normal((KINDS - 1, KINDS - 1)))[0]
        self.vectors = KINDS**0.5 * corners @ turn
        self.encoder = FrozenEncoder(
            EncoderConfig(name='vit_toybox_patch8_96', image_size=PATCH * GRID, layer=5, final_norm=True)
        )

    def read_image(self, i: int) -> Tensor:
        """Tokens (D, R, R) float32."""
        noise = np.random.default_rng([self.split == 'val', self.ids[i]]).standard_normal((GRID**2, KINDS - 1))
        found = self.evidence * self.vectors[self.patch_categories(i).ravel()] + (1 - self.evidence**2) ** 0.5 * noise
        tokens = [self.encoder(self.shown(i)[None])[0], STRENGTH * torch.from_numpy(found.astype(np.float32))]
        return torch.cat(tokens, dim=1).T.reshape(WIDTH, GRID, GRID)

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

    def _read_fast(self, i: int, at: tuple[float, ...] | None) -> None:
        """Tokens are made of images as Pillow reads them."""
