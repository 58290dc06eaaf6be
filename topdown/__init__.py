"""topdown: slot attention that modulates itself from the top down, and the means to measure it.

The package is thin: ``slots``, ``codebook`` and ``decoders`` are the model's parts, ``model`` puts them together,
``train`` and ``evaluate`` run it, ``metrics`` and ``plots`` know nothing of it. The names most used are available here,
imported on first use.
"""

from __future__ import annotations

import importlib

_WHERE = {
    'book.places': 'figures_dir from_project project_dir',
    'book.summaries': 'append_rows mean_and_spread paired_table uncertainty_table',
    'config': 'Config',
    'data': 'open_dataset',
    'evaluate.baselines': 'baselines',
    'evaluate.metrics': 'summarize',
    'evaluate.predict': 'evaluate_model interventions per_image_table predict run_model score slot_categories',
    'evaluate.segment': 'segment_image',
    'evaluate.statistics': 'bootstrap_interval compare seed_interval',
    'evaluate.truth': 'EvalSet make_eval_set make_truth_set',
    'model.encoder': 'FrozenEncoder make_encoder',
    'model.slot_model': 'SlotModel',
    'presets': 'PRESETS VARIANTS preset',
    'protocols': 'PROTOCOLS',
    'origin': 'provenance',
    'train.batches': 'TrainData',
    'train.loop': 'build_model load_run train_model',
    'train.shipped': 'list_runs load',
}
"""Module -> the names most used in it."""
_HOME = {name: module for module, names in _WHERE.items() for name in names.split()}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    value = getattr(importlib.import_module(f'{__name__}.{_HOME[name]}'), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
