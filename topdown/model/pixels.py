"""Slot attention on pixels: the two ends of the original model (Locatello et al. 2020), for images of simple things.

Here the N "patches" are the pixels of a square image in raster order, N = S^2, D = 3, values in [-1, 1]. Between the
ends, both passes are those of any other model. Equations::

    (14)  e_p  = W_e (x, y, 1 - x, 1 - y) + b_e                x and y from 0 to 1 over rows and columns
    (15)  f_n  = MLP(LayerNorm(CNN(image)_n + e_n))          the stem, instead of the head
    (16)  (y_kn, a_kn) = CNN^T(s_k + e_p)_n                    the slot on a small grid of places p, enlarged to S x S
          alpha = softmax_k a,   x^_n = sum_k alpha_kn y_kn,   mask = alpha
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from topdown.model.decoders import Decoded
from topdown.model.slot_attention import InputHead


class SoftPosition(nn.Module):
    """Equation (14): adds a linear map of every place's distances from the four edges.

    Args:
        side: rows and columns of the grid.
        width: channels.
    """

    def __init__(self, side: int, width: int) -> None:
        super().__init__()
        steps = torch.linspace(0, 1, side)
        y, x = torch.meshgrid(steps, steps, indexing='ij')
        self.register_buffer('grid', torch.stack([x, y, 1 - x, 1 - y], dim=-1), persistent=False)  # (side, side, 4)
        self.project = nn.Linear(4, width)

    def forward(self, x: Tensor) -> Tensor:
        """(..., side, side, width) -> the same shape."""
        return x + self.project(self.grid)


class PixelStem(nn.Module):
    """Equation (15): four 5 x 5 convolutions with ReLU at full resolution, places, and the head that tokens have, too.

    Args:
        side: S.
        width: channels of the convolutions.
        slot_size: d, width of what slot attention gets.
    """

    def __init__(self, side: int, width: int, slot_size: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for channels in (3, width, width, width):
            layers += [nn.Conv2d(channels, width, 5, padding=2), nn.ReLU()]
        self.side = side
        self.convolutions = nn.Sequential(*layers)
        self.position = SoftPosition(side, width)
        self.head = InputHead(width, slot_size)

    def forward(self, pixels_BN3: Tensor) -> Tensor:
        """(B, N, 3) -> (B, N, d)."""
        image = pixels_BN3.unflatten(1, (self.side, self.side)).permute(0, 3, 1, 2)
        features = self.convolutions(image).permute(0, 2, 3, 1)
        return self.head(self.position(features).flatten(1, 2))


class SpatialBroadcastDecoder(nn.Module):
    """Equation (16): each slot draws an image and its opacity; the images are blended.

    The slot is repeated over a grid of ``broadcast_size`` places. 5 x 5 transposed convolutions of stride 2, as many as
    it takes, enlarge it to the image; then come one of stride 1 and a 3 x 3 one to colours and opacity.

    Args:
        side: S.
        slot_size: d.
        width: channels of the convolutions.
        broadcast_size: rows and columns that the slot is repeated over.

    Raises:
        ValueError: if doubling ``broadcast_size`` does not lead to ``side``.
    """

    def __init__(self, side: int, slot_size: int, width: int, broadcast_size: int) -> None:
        super().__init__()
        doublings = round(math.log2(side / broadcast_size))
        if doublings < 0 or broadcast_size * 2**doublings != side:
            raise ValueError(
                f'broadcast_size={broadcast_size}, doubled again and again, does not lead to the side of the image, '
                f'{side}: choose image_size and broadcast_size to fit'
            )
        self.side, self.broadcast_size = side, broadcast_size
        self.position = SoftPosition(broadcast_size, slot_size)
        layers: list[nn.Module] = []
        for number in range(doublings):
            channels = slot_size if number == 0 else width
            layers += [nn.ConvTranspose2d(channels, width, 5, 2, padding=2, output_padding=1), nn.ReLU()]
        layers += [nn.ConvTranspose2d(width if doublings else slot_size, width, 5, padding=2), nn.ReLU()]
        layers += [nn.ConvTranspose2d(width, 4, 3, padding=1)]
        self.convolutions = nn.Sequential(*layers)

    def draw(self, slots_BKd: Tensor) -> tuple[Tensor, Tensor]:
        """Slots (B, K, d) -> each slot's image (B, K, N, 3) and the masks alpha (B, K, N)."""
        batch, count, _ = slots_BKd.shape
        places = slots_BKd.flatten(0, 1)[:, None, None].expand(-1, self.broadcast_size, self.broadcast_size, -1)
        drawn = self.convolutions(self.position(places).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        drawn = drawn.float().flatten(1, 2).unflatten(0, (batch, count))  # (B, K, N, 4)
        return drawn[..., :3], drawn[..., 3].softmax(dim=1)

    def forward(
        self, slots_BKd: Tensor, target_BN3: Tensor, attention_BKN: Tensor | None = None, need_masks: bool = True
    ) -> Decoded:
        """Decode; of the target only the number of pixels is used, of the attention nothing."""
        if target_BN3.shape[1] != self.side**2:
            raise ValueError(f'the decoder was built for {self.side**2} pixels and got {target_BN3.shape[1]}')
        images, alpha = self.draw(slots_BKd)
        return Decoded((alpha[..., None] * images).sum(dim=1), alpha if need_masks else None)
