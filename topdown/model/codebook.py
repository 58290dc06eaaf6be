"""Vector quantization of slots: a codebook learned by exponential moving averages.

Letters: B batch, K slots, d slot width, E codebook size, M = B K vectors of a step.

Equations (van den Oord et al. 2017, appendix; Kim et al. 2024)::

    (5)  j(m) = argmin_e |x_m - c_e|                            assignment, Euclidean
    (6)  n_e <- decay n_e + (1 - decay) #{m: j(m) = e}           running cluster size, in hits a step
         t_e <- decay t_e + (1 - decay) sum_{m: j(m) = e} x_m    running sum
         c_e <- t_e / n~_e,   n~_e = (n_e + eps) / (n + E eps) n,   n = sum_e n_e
    (7)  straight-through: forward c_j, backward identity to x
    (8)  perplexity = exp(-sum_e p_e log p_e)                   p_e: the share of vectors assigned to e
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from topdown import distributed


class Quantized(NamedTuple):
    """What ``Codebook`` returns."""

    codes: Tensor  # (..., d), the nearest codes, straight-through to the input
    index: Tensor  # (...,) int64, which code
    commitment: Tensor  # (), mean squared distance of the input to its (detached) code
    perplexity: Tensor  # (), equation (8) over this batch


class Codebook(nn.Module):
    """Nearest-code lookup with a codebook that follows the vectors it is shown in training mode.

    The state is in four buffers, readable and settable: ``codes`` (E, d), ``cluster_size`` (E,), ``code_sum``
    (E, d) and ``initialized`` (a boolean scalar). A fifth, ``tally`` (E + 2,), is for the log and no part of the model:
    hits by code, codes revived and updates made since it was last set to zero.

    Args:
        size: E.
        width: d.
        ema_decay: of equation (6).
        dead_code_threshold: codes whose running cluster size falls under this many hits a step are replaced by random
            vectors of the batch; 0 turns revival off. The average is M / E hits, so the threshold must be chosen
            with the batch size in mind.
        kmeans_iterations: Lloyd steps of the start on the first training batch.
        eps: Laplace smoothing of equation (6).

    Raises:
        ValueError: if a parameter is out of range.
    """

    def __init__(
        self,
        size: int,
        width: int,
        ema_decay: float = 0.99,
        dead_code_threshold: float = 0.8,
        kmeans_iterations: int = 10,
        eps: float = 1e-5,
    ) -> None:
        super().__init__()
        if size < 1 or width < 1:
            raise ValueError(f'codebook size and width must be positive, got {size} and {width}')
        if not 0 <= ema_decay < 1:
            raise ValueError(f'ema_decay must lie in [0, 1), got {ema_decay}')
        if dead_code_threshold < 0:
            raise ValueError(f'dead_code_threshold must not be negative, got {dead_code_threshold}')
        self.size, self.width, self.ema_decay, self.eps = size, width, ema_decay, eps
        self.dead_code_threshold, self.kmeans_iterations = dead_code_threshold, kmeans_iterations
        self.register_buffer('codes', torch.zeros(size, width))
        self.register_buffer('cluster_size', torch.zeros(size))
        self.register_buffer('code_sum', torch.zeros(size, width))
        self.register_buffer('initialized', torch.tensor(False))
        self.register_buffer('tally', torch.zeros(size + 2), persistent=False)
        self._started = False  # ``initialized`` as Python knows it: once true, no step has to ask the device

    def _load_from_state_dict(self, *args: object) -> None:
        self._started = False
        super()._load_from_state_dict(*args)

    def forward(self, x: Tensor) -> Quantized:
        """Quantize (..., d) vectors; in training mode also start (first call) and update the codebook.

        The returned codes are those from before the update; gradients pass them by equation (7).

        Raises:
            RuntimeError: in evaluation mode before any training batch was seen: k-means must not start from
                validation images.
        """
        with torch.autocast(x.device.type, enabled=False):
            own = x.detach().to(self.codes.dtype).reshape(-1, self.width)
            vectors = distributed.gather(own) if self.training else own  # all processes learn from all slots
            if not self._started and not self.initialized:
                if not self.training:
                    raise RuntimeError(
                        'the codebook has no codes yet: it starts from the first training batch; '
                        'train at least one step or load a checkpoint before evaluating'
                    )
                self.start(vectors)
            self._started = True
            index = self.assign(vectors)
            hits = count_hits(index, self.size)
            mine = index[distributed.share(len(index))] if self.training else index
            nearest = self.codes[mine].view(x.shape)
            if self.training:
                self.update(vectors, index, hits)
            commitment = F.mse_loss(x.to(nearest.dtype), nearest)
            codes = x + (nearest - x).detach()
        return Quantized(codes, mine.view(x.shape[:-1]), commitment, perplexity(hits))

    def assign(self, vectors: Tensor) -> Tensor:
        """(M, d) -> index of the nearest code (M,), equation (5)."""
        return nearest_index(vectors, self.codes)

    @torch.compiler.disable  # once a run: not worth compiling
    @torch.no_grad()
    def start(self, vectors: Tensor) -> None:
        """k-means on (M, d) vectors; cluster sizes are those of the last Lloyd step, sums are sizes times means."""
        codes = _draw(vectors, self.size)
        hits = torch.ones_like(self.cluster_size)
        for _ in range(self.kmeans_iterations):
            index = nearest_index(vectors, codes)
            hits = count_hits(index, self.size)
            sums = sum_by_code(vectors, index, self.size)
            codes = torch.where(hits[:, None] > 0, sums / hits[:, None].clamp(min=1), codes)
        self.codes.copy_(codes)
        self.cluster_size.copy_(hits)
        self.code_sum.copy_(codes * hits[:, None])
        self.initialized.fill_(True)

    @torch.no_grad()
    def update(self, vectors: Tensor, index: Tensor, hits: Tensor) -> None:
        """Equation (6) from (M, d) vectors, their codes (M,) and hits (E,), then revival of dead codes."""
        sums = sum_by_code(vectors, index, self.size)
        self.tally[: self.size] += hits
        self.tally[-1] += 1
        self.cluster_size.lerp_(hits.to(self.cluster_size.dtype), 1 - self.ema_decay)
        self.code_sum.lerp_(sums, 1 - self.ema_decay)
        total = self.cluster_size.sum()
        smoothed = (self.cluster_size + self.eps) / (total + self.size * self.eps) * total
        self.codes.copy_(self.code_sum / smoothed[:, None])
        if self.dead_code_threshold > 0:
            dead = self.cluster_size < self.dead_code_threshold
            self.tally[-2] += dead.sum()
            fresh = _draw(vectors, self.size)
            if len(vectors) < self.size:  # not enough for all: those that are drawn first go to the dead
                fresh = fresh[dead.cumsum(0) - 1]
            self.codes.copy_(torch.where(dead[:, None], fresh, self.codes))
            self.code_sum.copy_(torch.where(dead[:, None], fresh * self.dead_code_threshold, self.code_sum))
            self.cluster_size.masked_fill_(dead, self.dead_code_threshold)

    def usage(self) -> tuple[Tensor, Tensor]:
        """Since the tally was set to zero: the share of codes hit, and the share revived at an update (scalars)."""
        return (self.tally[:-2] > 0).float().mean(), self.tally[-2] / (self.tally[-1] * self.size).clamp(min=1)


def nearest_index(vectors: Tensor, codes: Tensor) -> Tensor:
    """Index (M,) of the Euclidean-nearest of codes (E, d) for each of vectors (M, d); first one wins a tie."""
    distance = codes.square().sum(1) - 2 * vectors @ codes.T  # |x|^2 left out: constant for a row
    return distance.argmin(dim=1)


def sum_by_code(vectors: Tensor, index: Tensor, size: int) -> Tensor:
    """Sums (size, d) of the vectors (M, d) of every index, always added in the same order.

    ``index_add_`` has an order on a CPU and none on a GPU; there the sum is a product with ones and zeros, so that
    processes that hold the same vectors get the same sums.
    """
    if vectors.device.type == 'cpu':
        return vectors.new_zeros(size, vectors.shape[1]).index_add_(0, index, vectors)
    return (index == torch.arange(size, device=index.device)[:, None]).to(vectors.dtype) @ vectors


def count_hits(index: Tensor, size: int) -> Tensor:
    """How often each of 0 .. size - 1 is in index (M,), as (size,) float32; without asking the device for anything.

    Whole numbers are exact in whatever order they are added.
    """
    ones = torch.ones(len(index), device=index.device)
    return torch.zeros(size, device=index.device).index_add_(0, index, ones)


def perplexity(hits: Tensor) -> Tensor:
    """Equation (8) from hits (E,): between 1 (one code used) and E (all used alike)."""
    share = hits / hits.sum().clamp(min=1)
    return torch.exp(-torch.special.xlogy(share, share).sum())


def _draw(vectors: Tensor, count: int) -> Tensor:
    """``count`` rows of ``vectors`` in random order; where there are fewer, all of them again and again."""
    order = torch.randperm(len(vectors), device=vectors.device)
    return vectors[order[torch.arange(count, device=vectors.device) % len(vectors)]]
