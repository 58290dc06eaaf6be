"""Crowded scenes: scores by how many objects an image has, how large they are, and how much others hide of them."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

import numpy as np
import pandas as pd
from torch import Tensor

from topdown.book.codes import COVERED, code_agreement, slot_codes, where_and_what
from topdown.book.plan import MAIN, plan
from topdown.book.runs import job_folder, read_row
from topdown.evaluate.predict import predict, score, slot_overlaps
from topdown.evaluate.truth import TruthSet, make_eval_set
from topdown.model.encoder import make_encoder
from topdown.origin import provenance
from topdown.toybox.scenes import scene_at, toybox_config
from topdown.train.loop import load_run

BINS = {
    'all': (0,), 'objects': (1, 2, 3, 4, 5, 6, 7, 9, 13, 17), 'size': (0, 1, 2, 5, 8, 12, 20), 'touching': (0, 1),
    'hidden': (0, 1, 10, 20),
}  # fmt: skip
"""Lower edges of bins: of images by their number of objects; of objects by their share of the image in percent, whether
they touch another, and their share that others hide, in percent."""
CROWDED = 16
"""Most toys of a crowded image, which is given a slot for each and one for the ground."""


def crowd_rows(labels: Tensor, data: TruthSet, num_slots: int, hidden: list[np.ndarray] | None = None) -> list[dict]:
    """Scores by bin, a row for each that has any.

    Args:
        labels, data, num_slots: as of ``slot_overlaps``.
        hidden: of every image the shares (O,) of objects that others hide; None where nobody knows.

    Returns:
        by, of ``BINS``; low and high, the bin's edges, the upper one outside; count, of images or objects; means over
        them in percent: fg_ari, of images alone, mbo_i and recall, which are of an object its best IoU and whether that
        is ``COVERED``. An object touches another if a pixel of it lies beside one of another, or of several objects.
    """
    images, parts = pd.DataFrame(score(labels, data)).assign(all=0), []
    best = slot_overlaps(labels, data, num_slots).amax(dim=2).numpy()
    for image in range(len(data)):
        truth = data.instances[image].astype(np.int64)
        area = np.bincount(truth[truth > 0])[1:]
        beside = (truth[1:], truth[:-1]), (truth[:, 1:], truth[:, :-1])
        met = [np.stack([a, b])[:, (a != b) & (a != 0) & (b != 0)] for a, b in beside]
        overlap = best[image, : len(area)]
        part = {'mbo_i': overlap, 'recall': overlap >= COVERED, 'size': 100 * area / truth.size}
        part['touching'] = np.isin(np.arange(1, len(area) + 1), np.concatenate(met, axis=1))
        parts.append(pd.DataFrame({**part, 'hidden': np.nan if hidden is None else 100 * hidden[image]}))
    images['objects'], objects, rows = [len(part) for part in parts], pd.concat(parts).astype(float), []
    for by, edges in BINS.items():
        frame = images if by in images else objects
        for span, part in frame.groupby(pd.cut(frame[by], [*edges, np.inf], right=False), observed=True):
            means = 100 * part.reindex(columns=['fg_ari', 'mbo_i', 'recall']).mean()
            rows.append({'by': by, 'low': span.left, 'high': span.right, 'count': len(part), **means})
    return rows


def crowds(preset_name: str, run_dir: str | Path = 'runs', data_root: str = '') -> dict[str, pd.DataFrame]:
    """Finished runs of a preset's main models by bin, and what they tell and agree upon.

    Returns:
        'crowds', ``crowd_rows`` of decoders' masks on own images, the preset's for validation, and of Toybox crowded
        ones, as no run was made on; 'agreement', ``where_and_what`` of every run, as joint_found and so on, and
        ``code_agreement`` of every two top-down models, other_seed being that of the second.

    Raises:
        FileNotFoundError: if no run is finished.
        ValueError: if a run was made on other data than now.
    """
    found, sets, known, codes = {'crowds': [], 'agreement': []}, {}, {}, {}
    jobs = [job for job in plan(preset_name) if job.variant in MAIN and job.experiment in ('main', 'ablation')]
    for job in {(job.variant, job.seed): job for job in jobs}.values():
        config = job.config(preset_name, data_root)
        if read_row(folder := job_folder(run_dir, config), config, known) is None:
            continue
        if not sets:
            encoder, cases, toys = make_encoder(config), {'own': config}, config.data.dataset == 'toybox'
            if toys:
                look = {**config.data.toybox, 'num_train': 1, 'max_objects': CROWDED}
                cases['crowded'] = config.with_(toybox=look, num_slots=CROWDED + 1)
            for name, case in cases.items():
                data, look = make_eval_set(case, encoder), toybox_config(case.data.toybox)
                hidden = [scene_at(look, 'val', number - 1).hidden for number in data.image_ids] if toys else None
                sets[name] = data, case.model.num_slots, hidden
        began, own, rows = time.perf_counter(), sets['own'][0], []
        model = load_run(folder / 'checkpoint.safetensors', encoder)[0]
        models = [{f'joint_{name.replace(" ", "_")}': share for name, share in where_and_what(model, own).items()}]
        if model.codebook is not None:
            codes[job.seed] = mine = slot_codes(model, own)
            models += [{'other_seed': seed, **code_agreement(mine, codes[seed])} for seed in list(codes)[:-1]]
        for name, (data, slots, hidden) in sets.items():
            model.config = dataclasses.replace(model.config, num_slots=slots)
            rows += [{'images': name, **row} for row in crowd_rows(predict(model, data), data, slots, hidden)]
        origin = {'variant': job.variant, **provenance(config, time.perf_counter() - began, model.precision)}
        found['crowds'] += [origin | row for row in rows]
        found['agreement'] += [origin | row for row in models]
    if not sets:
        remedy = f'make them with topdown tables --preset {preset_name}'
        raise FileNotFoundError(f'{run_dir}/{preset_name}/jobs holds no finished run of {", ".join(MAIN)}: {remedy}')
    return {name: pd.DataFrame(rows) for name, rows in found.items()}
