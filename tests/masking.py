"""What the place of the mask token changes: ``python -m tests.masking`` writes figures/tables/masking.csv.

The released code puts the mask token behind the decoder's input projection and its norm. Put before both, at the same
positions, it would enter as LayerNorm(W m). Here the two are compared in the autoregressive decoder of the COCO
configuration, from the same weights on the same random tokens and slots.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call

from topdown import preset
from topdown.model.decoders import AutoregressiveDecoder

BATCH, NUM_PATCHES, WIDTH = 2, 196, 768


def run(
    decoder: AutoregressiveDecoder, slots: Tensor, target: Tensor, hidden: Tensor, before: bool
) -> tuple[Tensor, dict[str, Tensor]]:
    """Reconstruction and gradients of its squared error, the mask token before the projection or behind its norm."""
    given = {'mask_token': decoder.project_input(decoder.mask_token)} if before else {}
    out = functional_call(decoder, given, (slots, target), {'hidden_BN': hidden}).reconstruction
    names, parameters = zip(*decoder.named_parameters(), strict=True)
    gradients = torch.autograd.grad(F.mse_loss(out, target), parameters)
    return out.detach(), dict(zip(names, gradients, strict=True))


def compare(seed: int, share: float) -> dict[str, float]:
    """Differences between the two places, by random weights and inputs of that seed."""
    torch.manual_seed(seed)
    config = preset('coco').model
    decoder = AutoregressiveDecoder(WIDTH, config.slot_size, config.decoder_layers, config.decoder_heads)
    slots, target = torch.randn(BATCH, config.num_slots, config.slot_size), torch.randn(BATCH, NUM_PATCHES, WIDTH)
    hidden = torch.rand(BATCH, NUM_PATCHES) < share
    (out, gradients), (other, others) = (run(decoder, slots, target, hidden, before) for before in (False, True))
    gap = {name: float((others[name] - g).norm()) for name, g in gradients.items()}
    size = {name: float(g.norm()) for name, g in gradients.items()}

    def relative(names: list[str]) -> float:
        return 100 * sum(gap[n] ** 2 for n in names) ** 0.5 / sum(size[n] ** 2 for n in names) ** 0.5

    return {
        'reconstruction: largest difference': float((other - out).abs().max()),
        'gradients: percent of their size': relative(list(gap)),
        'gradients of the mask token: percent': relative(['mask_token']),
        'gradients of the input projection: percent': relative([n for n in gap if n.startswith('project_input')]),
    }


def table(seeds: int) -> pd.DataFrame:
    """One row per share of masked positions (that of the paper's presets, and half) and seed."""
    return pd.DataFrame([
        {'masked, percent': f'{100 * share:.0f}', 'seed': seed}
        | {name: f'{value:.1f}' for name, value in compare(seed, share).items()}
        for share in (preset('coco').model.input_masking, 0.5)
        for seed in range(seeds)
    ])  # fmt: skip


if __name__ == '__main__':
    result = table(3)
    result.to_csv(Path(__file__).parent.parent / 'figures' / 'tables' / 'masking.csv', index=False)
    print(result.to_string(index=False))
