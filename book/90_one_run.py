# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # One run
#
# **Question of this page: what does one model, trained with one seed, come to?**
#
# Every run behind the book's tables is this notebook, executed with other parameters by
# `topdown tables` (or `make tables`). The executed copy lies beside the run's checkpoint, so each row of
# a table can be opened and read. It trains, or goes on from the last checkpoint, or only reads what a finished run
# wrote, and leaves `row.json`, from which the tables are gathered.
#
# The defaults are those of the preset `smoke`: a dozen steps on 48 images, to show what the page looks like. Its
# numbers mean nothing.

# %% tags=["remove-cell"]
import importlib.util
import os
import subprocess
import sys

if importlib.util.find_spec('topdown') is None:  # in a fresh Colab, say
    where = 'https://github.com/topdown-book/topdown'
    for command in (
        ['git', 'clone', '-q', '--depth', '1', where, 'topdown-book'],
        [sys.executable, '-m', 'pip', 'install', '-q', '-e', './topdown-book[book]'],
    ):
        subprocess.run(command, check=True)
    os.chdir('topdown-book/book')
    sys.path.insert(0, os.path.abspath('..'))

# %% tags=["parameters"]
preset = 'smoke'  # any of topdown.PRESETS; the tables of the book are made with toybox
data_root = ''  # folder of the data set; Toybox is made in the user's cache if empty
experiment = 'ablation'  # what asked for the run first; it does not change the run
variant = 'top-down'  # any of topdown.VARIANTS
seed = 0  # of weights, noise and the order of images
changes = '{}'  # further changes to the preset as JSON, such as {"codebook_size": 128}
steps = 0  # optimiser steps; 0 leaves them to the preset
run_dir = 'runs'  # parent of all runs
token_dir = ''  # folder of tokens that runs share; empty keeps them in memory

# %% tags=["hide-input"]
import os

import pandas as pd

import topdown
from topdown.book import plan, plots, runs

plots.style()
preset = os.environ.get('TOPDOWN_PRESET', preset)
job = plan.Job(experiment, variant, seed, plan.parse_changes(changes))
options = {'data_root': data_root, 'token_dir': token_dir, 'steps': steps}
config = job.config(
    preset, **options
)  # refuses unknown presets, parameters and impossible values
folder = runs.job_folder(run_dir, config)
print(
    f'{preset}, {variant}, seed {seed}, changes {job.changes}: {config.train.steps} '
    f'steps, configuration {config.key}'
)

# %% [markdown]
# ## Training and measuring
#
# One call. `topdown.book.runs.run_job` is all that a run is: the training loop of the
# [training chapter](03_train_coco.ipynb), the metrics of [evaluation](evaluation.md) on the validation set, and, where
# there is a codebook, how well codes agree with what slots cover. Metrics are in percent, for the decoder's masks;
# `first_` marks those of the first pass, `slots_` those of slot attention where they differ from the decoder's.

# %%
row = runs.run_job(
    job, preset, topdown.project_dir() / run_dir, progress=False, **options
)
metrics = ['fg_ari', 'ari', 'mbo_i', 'mbo_c', 'miou', 'recall', 'corloc']
sources = {'decoder': '', 'slot attention': 'slots_', 'first pass': 'first_'}
table = {
    name: [row.get(prefix + m) for m in metrics]
    for name, prefix in sources.items()
    if prefix + 'miou' in row
}
pd.DataFrame(table, index=metrics).T.round(1)

# %% [markdown]
# The curves of training, with the metrics at every evaluation on the way.

# %%
# alt: The loss and the metrics of this run over its steps.
where = topdown.project_dir() / folder
log = pd.read_csv(where / 'log.csv').assign(model=variant)
_ = plots.show_training(
    log, pd.read_csv(where / 'evaluations.csv').assign(model=variant)
)

# %% [markdown]
# ## What the codes stand for
#
# Adjusted mutual information of codes with the true category, the place (a 3 × 3 grid) and the colour (eight groups) of
# the slots that cover an object: 0 by chance, 1 if one says all of the other. *k-means* is the reference, as many
# clusters of the same slots.

# %%
names = {'code': 'codes', 'kmeans': 'k-means'}
targets = ['category', 'position', 'colour']
if 'codes_used' in row:
    print(
        f'{row["codes_used"]} of {row["codebook_size"]} codes in use, perplexity '
        f'{row["perplexity"]:.1f}'
    )
meaning = {
    title: [row.get(f'{name}_{t}_ami', float('nan')) for t in targets]
    for name, title in names.items()
}
pd.DataFrame(meaning, index=targets).T.round(2)

# %% [markdown]
# ## Checks and provenance

# %%
# NBVAL_CHECK_OUTPUT
checks = {
    'the row is of this configuration and seed': (row['config'], row['seed'])
    == (config.key, seed),
    'the loss is finite': 0 < row['train_loss'] < float('inf')
    and 0 < row['val_loss'] < float('inf'),
    'metrics are percentages': all(-100 <= row[m] <= 100 for m in metrics),
    'no more codes are used than there are': row.get('codes_used', 0)
    <= row.get('codebook_size', 0),
}
assert all(checks.values()), checks
print('\n'.join(f'{name}: {value}' for name, value in checks.items()))

# %%
origin = [
    'commit',
    'date',
    'device',
    'threads',
    'seconds',
    'parameters',
    'topdown',
    'torch',
    'timm',
    'python',
]
pd.Series({name: row[name] for name in origin}, name='this run').to_frame()

# %% [markdown]
# ## Limits and exercises
#
# One run is one draw: other seeds give other numbers, and the tables show how much they differ.
#
# 1. Execute this page with `-p preset toybox -r changes '{"num_slots": 4}'`. What do too few slots do to mBO?
# 2. Execute it with another seed. How far do two seeds lie apart, compared with two variants?
