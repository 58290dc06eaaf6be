"""Scores of a model, or of label maps that any program wrote, under several protocols, with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from topdown.config import Config
from topdown.data.predictions import read_predictions
from topdown.evaluate import metrics
from topdown.evaluate.predict import order_by_disagreement, per_image_table, rows_table, score_model
from topdown.evaluate.statistics import bootstrap_interval
from topdown.evaluate.truth import make_eval_set, make_truth_set
from topdown.model.encoder import Encoder
from topdown.model.slot_model import SlotModel


def score_protocols(
    config: Config,
    protocols: Sequence[str],
    model: SlotModel | None = None,
    encoder: Encoder | None = None,
    source: str = 'decoder',
    predictions: Path | None = None,
) -> tuple[pd.DataFrame, str]:
    """One row per image and protocol, most disputed images first, and what was read: ``topdown evaluate``.

    Masks are the model's, from ``source`` (see ``predict``), or without a model those in the folder ``predictions``.
    """
    parts = []
    for protocol in protocols:
        config = config.with_(protocol=protocol)
        if model is not None:
            data = make_eval_set(config, encoder)
            parts.append(rows_table(score_model(model, data, (source,))[source], data))
        else:
            data = make_truth_set(config)
            labels = read_predictions(predictions, data.dataset, uncut=len(protocols) > 1)
            parts.append(per_image_table(labels, data))
    return order_by_disagreement(pd.concat(parts, ignore_index=True)), data.dataset.report.line()


def describe_scores(table: pd.DataFrame, protocols: Sequence[str]) -> str:
    """Means of ``score_protocols`` as text: percent, with 95 % bootstrap intervals over images."""
    columns = {}
    for protocol in protocols:
        found = {
            name: bootstrap_interval(table[table.protocol == protocol][name].to_numpy()) for name in metrics.METRICS
        }
        columns[protocol] = {
            name: f'{100 * f.mean:.1f} [{100 * f.low:.1f}, {100 * f.high:.1f}]' for name, f in found.items()
        }
    frame = pd.DataFrame(columns).rename_axis('metric').rename_axis('percent [95 % over images]', axis=1)
    return frame.to_string()
