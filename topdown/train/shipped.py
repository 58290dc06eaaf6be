"""Trained models that ship with the package, so that pages which look at one need not train it first.

A file holds the weights and codes of a run, rounded to float16, and in its header the configuration, a thinned log, the
evaluations along the way and the row of the tables that the run gave. ``runs.csv`` lists the files with their SHA-256.
"""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path

import pandas as pd
from safetensors.torch import load as parse
from safetensors.torch import save

from topdown.config import Config, typed
from topdown.files import fresh, write_text
from topdown.model.encoder import Encoder, make_encoder
from topdown.model.slot_model import SlotModel
from topdown.train.checkpoint import load_checkpoint
from topdown.train.loop import Run

FOLDER = Path(__file__).parent.parent / 'trained'

EVERY = 50
"""Of the log, one row in so many steps is kept."""


def list_runs() -> pd.DataFrame:
    """The trained models that ship, by name ('toybox/top-down/0' is preset, variant and seed).

    Returns:
        Columns variant, seed, fg_ari and mbo_i (percent, of the run's row), steps, config (its key), commit, date, MB,
        sha256.
    """
    path = FOLDER / 'runs.csv'
    if not path.is_file():
        raise FileNotFoundError(f'{path} is missing from the installation: reinstall topdown')
    return pd.read_csv(path, index_col='name')


def load(name: str, encoder: Encoder | None = None) -> Run:
    """A trained model that ships, in evaluation mode, with its log and its row.

    Weights are those of the run rounded to float16, so masks differ from the run's own in a few patches.

    Args:
        name: of ``list_runs``.
        encoder: whose tokens it is to take; made anew if None.

    Raises:
        ValueError: for an unknown name, a damaged file, or tokens of another encoder than the run's.
        FileNotFoundError: if the installation lacks the file.
    """
    known = list_runs()
    if typed('name', name, str) not in known.index:
        raise ValueError(f'there is no trained model {name[:100]!r}; there are {", ".join(known.index)}')
    path = _path(name)
    if not path.is_file():
        raise FileNotFoundError(f'{path} is missing from the installation: reinstall topdown')
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != known.sha256[name]:
        raise ValueError(f'{path} is damaged (its checksum is another): reinstall topdown')
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], 'little')])['__metadata__']
    config = Config.from_dict(json.loads(header['config']))
    encoder = encoder or make_encoder(config)
    if encoder.fingerprint() != header['encoder']:
        raise ValueError(f'{name} was trained on tokens of other encoder weights than those given')
    model = SlotModel(config.model, encoder.feature_size, encoder.num_patches)
    weights = {key: value.float() if value.is_floating_point() else value for key, value in parse(content).items()}
    model.load_state_dict(weights)
    model.precision = encoder.precision
    tables = {part: pd.read_csv(io.StringIO(header[part])) for part in ('log', 'evaluations')}
    row = json.loads(header['row'])
    device = next(encoder.parameters()).device
    return Run(config=config, model=model.to(device).eval(), seconds=row['seconds'], provenance=row, **tables)


def find(config: Config) -> str | None:
    """The name of the trained model with this configuration and seed, if one ships."""
    known = list_runs()
    mine = known.index[(known.config == config.key) & (known.seed == config.train.seed)]
    return mine[0] if len(mine) else None


def ship(run: Path, name: str) -> Path:
    """Put a finished run of an experiment (a folder with ``row.json``) among those that ship; returns its file."""
    saved, row = load_checkpoint(run / 'checkpoint.safetensors'), json.loads((run / 'row.json').read_text())
    log = pd.read_csv(run / 'log.csv')
    header = {
        'config': json.dumps(saved.config.with_(token_dir='', data_root='').to_dict()),
        'encoder': saved.encoder_fingerprint,
        'log': log[log.step % EVERY == 0].to_csv(index=False, float_format='%.5g'),
        'evaluations': (run / 'evaluations.csv').read_text(),
        'row': json.dumps(row),
    }
    weights = {key.removeprefix('model.'): t for key, t in saved.tensors.items() if key.startswith('model.')}
    content = save({k: t.half() if t.is_floating_point() else t for k, t in weights.items()}, header)
    path = _path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    with fresh(path) as place:
        place.write_bytes(content)
    new = {key: row[key] for key in ('variant', 'seed', 'fg_ari', 'mbo_i', 'steps', 'config', 'commit', 'date')}
    new |= {'MB': round(len(content) / 1e6, 2), 'sha256': hashlib.sha256(content).hexdigest()}
    table = pd.DataFrame([new], index=pd.Index([name], name='name'))
    if (FOLDER / 'runs.csv').is_file():
        table = pd.concat([list_runs().drop(index=name, errors='ignore'), table])
    write_text(FOLDER / 'runs.csv', table.sort_index().to_csv())
    return path


def _path(name: str) -> Path:
    preset, variant, seed = name.split('/')
    return FOLDER / preset / f'{variant}-{seed}.safetensors'
