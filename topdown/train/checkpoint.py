"""Checkpoints: one safetensors file with weights, codebook, optimizer and random state; configuration in its header.

A file is written beside its target and moved into place, so an interrupted run never leaves half a checkpoint. It bears
a SHA-256 of its tensors and its header, which is verified whenever it is opened, and nothing is saved that is not
finite.

Formats: ``topdown-2`` is written. ``topdown-1`` is read: it has no checksum, does not say what the data were made of
(the next checkpoint of the run does), and holds the log, which goes to ``log.csv``.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from topdown.config import Config
from topdown.data.digest import Made
from topdown.files import brief, fresh
from topdown.model.slot_model import SlotModel

FORMAT, BEFORE = 'topdown-2', 'topdown-1'
FIELDS = {'format', 'precision', 'config', 'step', 'encoder', 'feature_size', 'num_patches', 'seconds'}
"""Of every header; that of today has ``data`` and ``sha256``, too, that of before ``log``."""


@dataclass
class Checkpoint:
    """The content of a checkpoint file."""

    config: Config
    precision: str  # it was computed in: bf16 or fp32
    step: int  # optimiser steps done
    feature_size: int  # D the model was built for
    num_patches: int  # N the model was built for
    encoder_fingerprint: str  # of the encoder whose tokens it was trained on
    seconds: float  # training time so far
    data: dict[str, Made]  # split -> what it was made of
    tensors: dict[str, Tensor]
    log: dict[str, list[dict]] = field(default_factory=dict)  # of format topdown-1: rows of its logs, train and eval

    def load_model(self, model: nn.Module) -> None:
        """Put weights and codebook into ``model``."""
        state = {name.removeprefix('model.'): t for name, t in self.tensors.items() if name.startswith('model.')}
        model.load_state_dict(state)
        if 'tally' in self.tensors:
            model.codebook.tally.copy_(self.tensors['tally'])

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


def random_state() -> dict[str, Tensor]:
    """States of torch's generators, of the CPU and of the GPU if there is one, by their names in a checkpoint."""
    gpu = {'random_state_cuda': torch.cuda.get_rng_state()} if torch.cuda.is_available() else {}
    return {'random_state': torch.get_rng_state(), **gpu}


def save_checkpoint(
    path: str | Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    config: Config,
    step: int,
    encoder_fingerprint: str,
    sizes: tuple[int, int],
    seconds: float,
    data: dict[str, Made],
) -> None:
    """Write everything that a bit-for-bit resumption needs; ``sizes`` are D and N.

    Raises:
        FloatingPointError, OSError: if a number is not finite or the disk is full; the file of before stays.
    """
    path = Path(path)
    tensors = {f'model.{name}': t.detach().cpu().contiguous() for name, t in model.state_dict().items()}
    for name, parameter in model.named_parameters():
        for key, value in optimizer.state.get(parameter, {}).items():
            tensors[f'optimizer.{name}/{key}'] = value.detach().cpu().contiguous()
    for name, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise FloatingPointError(f'{name} is not finite after step {step}: lower lr or use precision=fp32')
    if model.codebook is not None:
        tensors['tally'] = model.codebook.tally.cpu()
    tensors |= {f'data.{split}': made.images for split, made in data.items()}
    tensors |= random_state()
    header = {
        'format': FORMAT, 'precision': model.precision, 'config': json.dumps(config.to_dict()), 'step': str(step),
        'encoder': encoder_fingerprint, 'feature_size': str(sizes[0]), 'num_patches': str(sizes[1]),
        'seconds': str(seconds), 'data': json.dumps({split: made.content for split, made in data.items()}),
    }  # fmt: skip
    header['sha256'] = _checksum(header, tensors)
    with fresh(path) as place:
        try:
            save_file(tensors, place, header)
        except SafetensorError as error:  # what the library makes of a full disk
            raise OSError(f'{path} could not be written: {error}') from error


def load_checkpoint(path: str | Path) -> Checkpoint:
    """Read a checkpoint.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is not a checkpoint of this package, or damaged.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f'there is no checkpoint at {path}')
    try:
        with safe_open(path, 'pt') as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except Exception as error:  # whatever a damaged file makes the library stumble over
        raise ValueError(
            f'{path} is not a safetensors file or is damaged ({brief(error)}): delete it and train again'
        ) from error
    version = header.get('format')
    if version not in (FORMAT, BEFORE):
        raise ValueError(f'{path} is not a checkpoint of this package (format {str(version)[:80]!r}, not {FORMAT!r})')
    if version == FORMAT and header.pop('sha256', None) != _checksum(header, tensors):
        raise ValueError(f'{path} is damaged (its checksum is another): delete it and train again')
    header.setdefault('precision', '')  # the first versions did not say
    wrong = set(header) ^ (FIELDS | ({'data'} if version == FORMAT else {'log'}))
    if wrong:
        raise ValueError(
            f'{path} has a header of another version ({brief(", ".join(sorted(wrong)))}): use that version'
        )
    try:
        config = Config.from_dict(json.loads(header['config']))
        if not header['precision']:
            header['precision'] = config.train.precision
            if config.train.precision == 'bf16':
                config = config.with_(precision='auto')  # of a version whose default was bf16
        content = json.loads(header.get('data', '{}'))
        saved = Checkpoint(
            config=config,
            precision=header['precision'],
            step=int(header['step']),
            feature_size=int(header['feature_size']),
            num_patches=int(header['num_patches']),
            encoder_fingerprint=header['encoder'],
            seconds=float(header['seconds']),
            data={split: Made(tensors[f'data.{split}'], hashes) for split, hashes in content.items()},
            tensors=tensors,
            log={name: [dict(row) for row in rows] for name, rows in json.loads(header.get('log', '{}')).items()},
        )
        _check_tensors(saved)
    except (ValueError, TypeError, KeyError, AttributeError, RuntimeError, OverflowError) as error:
        problem = brief(repr(error))
        raise ValueError(f'{path} has a header that cannot be read ({problem}): delete it and train again') from error
    return saved


def _check_tensors(saved: Checkpoint) -> None:
    """Refuse what does not go into the model that the header describes, before memory is asked for."""
    tensors, options = saved.tensors, saved.config.model
    if saved.step < 0 or options.decoder_layers > len(tensors):
        raise ValueError(f'step={saved.step}, decoder_layers={options.decoder_layers}')
    with torch.device('meta'):
        model = SlotModel(options, saved.feature_size, saved.num_patches)
    wanted = {'random_state': torch.get_rng_state(), **{f'model.{name}': t for name, t in model.state_dict().items()}}
    for name, weight in model.named_parameters():
        state = {'step': torch.zeros(()), 'exp_avg': weight, 'exp_avg_sq': weight}
        state = {f'optimizer.{name}/{key}': tensor for key, tensor in state.items()}
        wanted |= state if set(state) & set(tensors) else {}  # a weight that was never used has none
    wanted |= {f'data.{split}': torch.zeros(len(made.images), 2, dtype=int) for split, made in saved.data.items()}
    wanted |= {'tally': model.codebook.tally} if 'tally' in tensors and model.codebook else {}
    forms = [{(name, t.dtype, t.shape) for name, t in part.items()} for part in (wanted, tensors)]
    if odd := {form for form in forms[0] ^ forms[1] if form[0] != 'random_state_cuda'}:
        raise ValueError(f'{min(name for name, *_ in odd)} is missing, or another than its model has')


def _checksum(header: dict[str, str], tensors: dict[str, Tensor]) -> str:
    """SHA-256 of all fields and all tensors, their names, types and shapes."""
    digest = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f'{name}/{tensor.dtype}/{tuple(tensor.shape)}'.encode())
        digest.update(tensor.contiguous().view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
