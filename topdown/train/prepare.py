"""A data set made ready for training: made or converted, and its encoder's tokens stored."""

from __future__ import annotations

import pkgutil
from pathlib import Path

from topdown.data import open_dataset
from topdown.datasets import DATASETS
from topdown.model.encoder import make_encoder
from topdown.presets import PRESETS, preset
from topdown.train.batches import TrainData


def prepare(
    name: str, root: Path, preset_name: str | None = None, tokens: Path | None = None, workers: int = 2
) -> None:
    """Make or convert a data set, and store the tokens of its training images: ``topdown data prepare``.

    Raises:
        FileNotFoundError: if the data are missing.
        ValueError: if no preset says which encoder, or its tokens cannot be stored.
    """
    known = DATASETS[name]
    if known.prepare:
        print(f'{pkgutil.resolve_name(known.prepare)(root, workers=max(2, workers))} is there')
    elif known.make:
        config = preset(preset_name or 'toybox', dataset=name, data_root=str(root))
        print(f'{open_dataset(config, "train").root} is there')
    else:
        print(f'{name} is read as it is: nothing to convert')
    if tokens is None:
        return
    chosen = preset_name or name
    if chosen not in PRESETS:
        raise ValueError(
            f'there is no preset {chosen!r} that says which encoder makes the tokens: pass --preset with one of '
            f'{", ".join(PRESETS)}; data set and folder take the place of its own'
        )
    config = preset(
        chosen, dataset=name, data_root=str(root), cache_tokens=True, token_dir=str(tokens), num_workers=workers,
        batch_size=1,
    )  # fmt: skip
    if config.encoder.name == 'pixels':
        raise ValueError(
            f'preset {chosen!r} works on pixels, which have no tokens to store: train without --tokens, or pass '
            '--preset with one that has an encoder'
        )
    if config.data.random_crop:
        raise ValueError(
            f'preset {chosen!r} trains with random crops, and every crop needs tokens of its own: tokens cannot be '
            'stored; train without --tokens'
        )
    TrainData(open_dataset(config, 'train'), make_encoder(config), config, progress=True)
    print(f'tokens are there; train with --cache-tokens True --token-dir {tokens}')
