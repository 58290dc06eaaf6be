"""Checkpoints: one safetensors file with weights, codebook, optimizer and random state; configuration in its header.

A file is written beside its target and moved into place, so an interrupted run never leaves half a checkpoint.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from topdown.config import Config
from topdown.files import fresh

FORMAT = 'topdown-1'


@dataclass
class Checkpoint:
    """The content of a checkpoint file."""

    config: Config
    precision: str  # it was computed in: bf16 or fp32
    step: int  # optimiser steps done
    feature_size: int  # D the model was built for
    num_patches: int  # N the model was built for
    encoder_fingerprint: str  # of the encoder whose tokens it was trained on
    log: dict[str, list[dict]]  # rows of the training and evaluation log so far
    seconds: float  # training time so far
    tensors: dict[str, Tensor]

    def load_model(self, model: nn.Module) -> None:
        """Put weights and codebook into ``model``."""
        state = {name.removeprefix('model.'): t for name, t in self.tensors.items() if name.startswith('model.')}
        model.load_state_dict(state)

    def load_optimizer(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Put moments and step counts into ``optimizer``, which holds ``model``'s parameters in order."""
        state: dict[int, dict[str, Tensor]] = {}
        for i, (name, _) in enumerate(model.named_parameters()):
            prefix = f'optimizer.{name}/'
            found = {k.removeprefix(prefix): t for k, t in self.tensors.items() if k.startswith(prefix)}
            if found:
                state[i] = found
        optimizer.load_state_dict({'state': state, 'param_groups': optimizer.state_dict()['param_groups']})

    def load_random_state(self) -> None:
        """Restore torch's CPU generator, and the GPU's if there is one now and was one then."""
        torch.set_rng_state(self.tensors['random_state'])
        if torch.cuda.is_available() and 'random_state_cuda' in self.tensors:
            torch.cuda.set_rng_state(self.tensors['random_state_cuda'])


def save_checkpoint(
    path: str | Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    config: Config,
    step: int,
    encoder_fingerprint: str,
    sizes: tuple[int, int],
    log: dict[str, list[dict]],
    seconds: float,
) -> None:
    """Write everything that a bit-for-bit resumption needs; ``sizes`` are D and N."""
    path = Path(path)
    tensors = {f'model.{name}': t.detach().cpu().contiguous() for name, t in model.state_dict().items()}
    for name, parameter in model.named_parameters():
        for key, value in optimizer.state.get(parameter, {}).items():
            tensors[f'optimizer.{name}/{key}'] = value.detach().cpu().contiguous()
    tensors['random_state'] = torch.get_rng_state()
    if torch.cuda.is_available():
        tensors['random_state_cuda'] = torch.cuda.get_rng_state()
    header = {
        'format': FORMAT, 'precision': model.precision, 'config': json.dumps(config.to_dict()), 'step': str(step),
        'encoder': encoder_fingerprint,
        'feature_size': str(sizes[0]), 'num_patches': str(sizes[1]), 'log': json.dumps(log), 'seconds': str(seconds),
    }  # fmt: skip
    with fresh(path) as place:
        save_file(tensors, place, header)


def load_checkpoint(path: str | Path) -> Checkpoint:
    """Read a checkpoint.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is no checkpoint of this package.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f'there is no checkpoint at {path}')
    try:
        with safe_open(path, 'pt') as file:
            header = file.metadata() or {}
            if header.get('format') != FORMAT:
                found = header.get('format', 'none')
                raise ValueError(f'{path} is no checkpoint of this package (format {found!r}, expected {FORMAT!r})')
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f'{path} is no safetensors file or is damaged ({error}): delete it and train again') from error
    config = Config.from_dict(json.loads(header['config']))
    if 'precision' not in header and config.train.precision == 'bf16':
        config = config.with_(precision='auto')  # of a version whose default was bf16
        header['precision'] = 'bf16'
    return Checkpoint(
        config=config,
        precision=header.get('precision', config.train.precision),
        step=int(header['step']),
        feature_size=int(header['feature_size']),
        num_patches=int(header['num_patches']),
        encoder_fingerprint=header['encoder'],
        log=json.loads(header['log']),
        seconds=float(header['seconds']),
        tensors=tensors,
    )
