"""Scores of a model, or of label maps that any program wrote, under several protocols, with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from topdown.config import Config
from topdown.data import open_dataset
from topdown.data.predictions import read_predictions
from topdown.evaluate import metrics
from topdown.evaluate.predict import order_by_disagreement, per_image_table, rows_table, score_model
from topdown.evaluate.statistics import bootstrap_interval
from topdown.evaluate.truth import make_eval_set, make_truth_set
from topdown.model.encoder import Encoder
from topdown.model.slot_model import SlotModel
from topdown.protocols import get_protocol


def score_protocols(
    config: Config,
    protocols: Sequence[str],
    model: SlotModel | None = None,
    encoder: Encoder | None = None,
    source: str | None = None,
    predictions: Path | None = None,
) -> tuple[pd.DataFrame, str]:
    """One row per image and protocol, most disputed images first, and what was read: ``topdown evaluate``.

    Masks are the model's, from ``source`` (see ``masks_of``; by default every protocol's own), or without a model those
    in the folder ``predictions``.

    Raises:
        ValueError: if the images have no true masks.
    """
    parts = []
    for protocol in protocols:
        config = config.with_(protocol=protocol)
        dataset = open_dataset(config, 'val')
        if not dataset.labelled:
            raise ValueError('nothing to score: the images have no true masks; topdown segment shows what it finds')
        if model is not None:
            data = make_eval_set(config, encoder, dataset=dataset)
            own = source or get_protocol(protocol).masks
            parts.append(rows_table(score_model(model, data, (own,))[own], data))
        else:
            data = make_truth_set(config, dataset=dataset)
            labels = read_predictions(predictions, data.dataset, uncut=len(protocols) > 1)
            parts.append(per_image_table(labels, data))
    return order_by_disagreement(pd.concat(parts, ignore_index=True)), data.dataset.report.line()


def describe_scores(table: pd.DataFrame, protocols: Sequence[str], batch_size: int = 0) -> str:
    """Means of ``score_protocols`` as text: percent, with 95 % bootstrap intervals over images.

    With ``batch_size``, means over batches instead (see ``summarize``), which have no interval.
    """
    columns: dict[str, dict[str, str]] = {protocol: {} for protocol in protocols}
    for protocol, shown in columns.items():
        rows = table[table.protocol == protocol].sort_index()
        rows = rows[[name for name in rows if name in metrics.NAMES]].dropna(axis=1, how='all')
        for name, mean in metrics.summarize(rows.to_dict('records'), batch_size).items():
            low, high = (100 * edge for edge in bootstrap_interval(rows[name].to_numpy())[1:])
            shown[name] = f'{mean:.1f}' if batch_size else f'{mean:.1f} [{low:.1f}, {high:.1f}]'
    title = f'percent [means of batches of {batch_size}]' if batch_size else 'percent [95 % over images]'
    frame = pd.DataFrame(columns).fillna('-').rename_axis('metric').rename_axis(title, axis=1)
    return '\n'.join([frame.to_string(), *(f'{name}: as {get_protocol(name).imitates}' for name in protocols)])
