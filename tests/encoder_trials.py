"""Trials of pretraining, all judged alike: ``python -m tests.encoder_trials FOLDER [TRIAL ...]``.

Every trial is pretrained below FOLDER, where rendered clips and weights are kept, and gets a row of
figures/tables/encoder_trials_category.csv. Without names all trials are run that have no row yet. True masks and labels
serve this judgement only.
"""

from __future__ import annotations

import json
import sys
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
from topdown.model.encoder import make_encoder
from topdown.presets import preset
from topdown.toybox.pretrain import pretrain

TABLE = Path(__file__).parent.parent / 'figures' / 'tables' / 'encoder_trials_category.csv'
PATCHES = 4000
"""Patches on toys that the probe of patches is fitted to and scored on."""


def judge(data: EvalSet, count: int = 7) -> dict[str, float]:
    """What tokens of a set give: percent, but for AMI and the share of variance.

    ``k-means``: on the tokens of each image, ``count`` clusters. ``bound``: truth at token means. ``probe of toys``: the
    category from the mean token of every true toy; ``of patches``: from single patches that a toy covers by more than
    half. ``AMI 64`` and ``16``: of so many k-means clusters of mean tokens with the category. ``between``: the share of
    the variance of tokens on toys that lies between toys, not within them.
    """
    scores = {name: summarize(score(labels, data)) for name, labels in (
        ('k-means', kmeans(data, data.tokens, count)), ('bound', truth_at_token_means(data)),
    )}  # fmt: skip
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
        **{f'{name} {title}': scores[name][key] for name in scores for key, title in (('fg_ari', 'FG-ARI'), ('mbo_i', 'mBO_i'))},
        'probe of toys': 100 * probe(means, truth, image).mean(),
        'probe of patches': 100 * probe(tokens[some].numpy(), category[some], where.numpy()[some]).mean(),
        'AMI 64': agreement(truth, cluster(means, 64))['ami'],
        'AMI 16': agreement(truth, cluster(means, 16))['ami'],
        'between': float(((centre[toy] - mean) ** 2).sum() / ((tokens - mean) ** 2).sum()),
    }  # fmt: skip


def judged(**changes: object) -> dict[str, float]:
    """``judge`` on the validation images of preset ``toybox`` with changes."""
    config = preset('toybox', precision='fp32', **changes)
    return judge(make_eval_set(config, make_encoder(config), progress=False))


if __name__ == '__main__':
    from tests.trial_list import TRIALS

    folder = Path(sys.argv[1])
    done = pd.read_csv(TABLE)['trial'].tolist() if TABLE.exists() else []
    for name in sys.argv[2:] or [name for name in TRIALS if name not in done]:
        changes = dict(TRIALS[name])
        row = {'trial': name, 'steps': 0, 'minutes': 0.0}
        seen = {
            key: changes.pop(key)
            for key in ('encoder', 'layer', 'layers', 'join', 'final_norm', 'weights')
            if key in changes
        }
        if changes:
            own = folder / name.replace(' ', '-').replace(',', '')
            own.mkdir(parents=True, exist_ok=True)
            for clips in folder.glob('clips-*.safetensors'):
                link = own / clips.name
                link.exists() or link.symlink_to(clips.resolve())
            torch.set_num_threads(1)
            pretrain(PretrainConfig(**changes), own)
            last = json.loads((own / 'log.jsonl').read_text().splitlines()[-1])
            row |= {
                'steps': last['step'],
                'minutes': last['minutes'],
                'losses': str([round(x, 3) for x in last['losses']]),
            }
            seen['weights'] = str(next(own.glob('vit*.safetensors')))
        row |= judged(**seen)
        print(json.dumps(row), flush=True)
        with (folder / 'rows.jsonl').open('a') as f:
            f.write(json.dumps(row | {'settings': TRIALS[name]}) + '\n')
