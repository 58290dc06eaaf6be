"""topdown: slot attention that modulates itself from the top down, and the means to measure it.

The package is thin: ``slots``, ``codebook`` and ``decoders`` are the model's parts, ``model`` puts them together,
``train`` and ``evaluate`` run it, ``metrics`` and ``plots`` know nothing of it. The names most used are available here,
imported on first use.
"""

from __future__ import annotations

import importlib

_WHERE = {
    'PRESETS': 'config', 'VARIANTS': 'config', 'Config': 'config', 'preset': 'config', 'PROTOCOLS': 'protocols',
    'FrozenEncoder': 'encoder', 'make_encoder': 'encoder',
    'SlotModel': 'model',
    'open_dataset': 'data',
    'TrainData': 'train', 'build_model': 'train', 'load_run': 'train', 'train_model': 'train',
    'EvalSet': 'evaluate', 'baselines': 'evaluate', 'evaluate_model': 'evaluate', 'make_eval_set': 'evaluate',
    'predict': 'evaluate', 'run_model': 'evaluate', 'score': 'evaluate', 'per_image_table': 'evaluate',
    'segment_image': 'evaluate', 'interventions': 'evaluate', 'slot_categories': 'evaluate',
    'summarize': 'metrics',
    'append_rows': 'results', 'figures_dir': 'results', 'mean_and_spread': 'results', 'project_dir': 'results',
    'provenance': 'results', 'uncertainty_table': 'results', 'paired_table': 'results',
    'bootstrap_interval': 'statistics', 'compare': 'statistics', 'seed_interval': 'statistics',
}  # fmt: skip

__all__ = sorted(_WHERE)


def __getattr__(name: str) -> object:
    if name not in _WHERE:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    value = getattr(importlib.import_module(f'{__name__}.{_WHERE[name]}'), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_WHERE])
