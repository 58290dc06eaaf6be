"""Encoders of Toybox side by side: ``python -m tests.encoder_trials [NAME FOLDER [SETTING=VALUE ...]]``.

Without arguments the shipped encoders are judged, at several blocks. With a name, an encoder is pretrained in FOLDER
with changed settings of ``topdown pretrain``, unless the folder holds its weights already, and judged. Rows go to
figures/tables/encoder_trials_category.csv, into rows of the same name if there are such; those of trials whose code was
not kept stay as they are. True masks and labels serve this judgement only.
"""

from __future__ import annotations

import json
import sys
from dataclasses import fields
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F

from topdown.book.codes import agreement, cluster, probe
from topdown.config import PretrainConfig
from topdown.evaluate.baselines import kmeans, patch_shares, truth_at_token_means
from topdown.evaluate.metrics import summarize
from topdown.evaluate.predict import object_categories, score
from topdown.evaluate.truth import EvalSet, make_eval_set
from topdown.model.encoder import SHIPPED, make_encoder
from topdown.presets import preset
from topdown.toybox.pretrain import pretrain

TABLE = Path(__file__).parent.parent / 'figures' / 'tables' / 'encoder_trials_category.csv'
PATCHES = 4000
"""Patches on toys that the probe of patches is fitted to and scored on."""


def judge(data: EvalSet, count: int = 7) -> dict[str, float]:
    """What tokens of a set give: percent, but for AMI and the share of variance.

    ``k-means``: on the tokens of each image, ``count`` clusters. ``bound``: truth at token means. ``probe of toys``:
    the category from the mean token of every true toy; ``of patches``: from single patches that a toy covers by more
    than half. ``AMI 64`` and ``16``: of so many k-means clusters of mean tokens with the category. ``between``: the
    share of the variance of tokens on toys that lies between toys, not within them.
    """
    segmented = {'k-means': kmeans(data, data.tokens, count), 'bound': truth_at_token_means(data)}
    found = {}
    for name, labels in segmented.items():
        means = summarize(score(labels, data))
        found |= {f'{name} FG-ARI': means['fg_ari'], f'{name} mBO_i': means['mbo_i']}
    categories = object_categories(data)
    most = categories.shape[1] + 1
    shares = torch.cat([F.pad(part, (0, 0, 0, most - part.shape[1])) for part in patch_shares(data)])  # (V, C, N)
    covered, owner = shares.max(1)
    member = shares[:, 1:] @ data.tokens.float()
    means = member / shares[:, 1:].sum(-1, keepdim=True).clamp(min=1e-6)
    there = (categories > 0) & (shares[:, 1:].sum(-1) > 0)
    image, truth, means = there.nonzero()[:, 0].numpy(), categories[there].numpy(), means[there].numpy()

    on_toys = (owner > 0) & (covered > 0.5)
    where = on_toys.nonzero()[:, 0]
    toy, tokens = where * most + owner[on_toys], data.tokens[on_toys].double()
    category = categories[where, owner[on_toys] - 1].numpy()
    some = np.random.default_rng(0).permutation(len(toy))[:PATCHES]
    _, toy = toy.unique(return_inverse=True)
    centre = torch.zeros(int(toy.max()) + 1, tokens.shape[1], dtype=torch.float64).index_add_(0, toy, tokens)
    centre /= toy.bincount()[:, None]
    mean = tokens.mean(0)
    return {
        **found,
        'probe of toys': 100 * probe(means, truth, image).mean(),
        'probe of patches': 100 * probe(tokens[some].numpy(), category[some], where.numpy()[some]).mean(),
        'AMI 64': agreement(truth, cluster(means, 64))['ami'],
        'AMI 16': agreement(truth, cluster(means, 16))['ami'],
        'between': float(((centre[toy] - mean) ** 2).sum() / ((tokens - mean) ** 2).sum()),
    }


def judged(**changes: object) -> dict[str, float]:
    """``judge`` on the validation images of preset ``toybox`` with changes."""
    config = preset('toybox', precision='fp32', **changes)
    return judge(make_eval_set(config, make_encoder(config), progress=False))


def trial(folder: Path, changes: dict[str, object]) -> dict[str, float]:
    """Pretrain, if that was not done, and judge."""
    if not list(folder.glob('vit_*.safetensors')):
        pretrain(PretrainConfig(**changes), folder)
    last = json.loads((folder / 'log.jsonl').read_text().splitlines()[-1])
    return {'steps': last['step'], 'minutes': last['minutes'], **judged(weights=str(next(folder.glob('vit_*'))))}


def write(rows: list[dict[str, object]], table: Path = TABLE) -> None:
    """Put rows into the table, over what is there under the same name."""
    known = pd.read_csv(table, dtype=str) if table.exists() else pd.DataFrame(columns=['trial'])
    found = pd.DataFrame(rows)
    for name in found.select_dtypes('float'):
        digits = 2 if name.startswith(('AMI', 'between')) else 1
        found[name] = [f'{value:.{digits}f}' if np.isfinite(value) else '–' for value in found[name]]
    fresh = {row['trial']: row for row in found.astype(str).to_dict('records')}
    kept = [{**row, **fresh.pop(row['trial'], {})} for row in known.to_dict('records')]
    pd.DataFrame([*kept, *fresh.values()]).fillna('–').to_csv(table, index=False)


if __name__ == '__main__':
    if sys.argv[1:]:
        name, folder, *words = sys.argv[1:]
        settings = dict(word.split('=') for word in words)
        kinds = {field.name: type(field.default) for field in fields(PretrainConfig)}
        found = [{'trial': name, **trial(Path(folder), {key: kinds[key](value) for key, value in settings.items()})}]
    else:
        found = [
            {'trial': f'{name}, block {block}', **judged(encoder=name, layer=block)}
            for name in SHIPPED
            for block in (5, 4, 3)
        ]
    write(found)
    print(pd.DataFrame(found).to_string(index=False))
