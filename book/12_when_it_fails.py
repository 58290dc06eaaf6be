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
# # When does it fail?
#
# **Question of this chapter: made harder or easier in one respect at a time, where does slot attention break, and does
# the top-down pathway break later, earlier, or in the same place?**
#
# The argument for the pathway is about objects of unlike parts: grouped by likeness they fall apart, and knowing *what*
# is there should hold them together. If that is so, the pathway should gain most where parts are unlike, and nothing
# where every toy has one colour. The same comparison is made with more clutter, more objects, too few and too many
# slots, a codebook of two, and grounds from plain to strong.
#
# With the paper's decoder some runs end [on the plateau](08_ablation.ipynb) of their training, and with two seeds a
# setting one such run is most of an interval. `-p preset slotwise` shows [the easier decoder](slotwise.md), which has
# no plateau, in more settings.
#
# The chapter trains nothing: it reads `figures/tables/<preset>_difficulty.csv`, which
# `topdown tables --preset <preset> --only difficulty` writes, and shows *not run* where the file or a row is missing.

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
preset = 'toybox'  # a Toybox preset: the settings are changes to its generator
floor = 2.0  # a codebook with a perplexity below this counts as collapsed

# %% tags=["hide-input"]
import pandas as pd

import topdown
from topdown.book import plots, tables
from topdown.book.claims import verdicts as judge
from topdown.book.plan import SETTINGS

if preset not in topdown.PRESETS:
    raise ValueError(
        f'preset must be one of {", ".join(topdown.PRESETS)}, got {preset!r}'
    )
if not floor >= 1:
    raise ValueError(
        f'floor must be at least 1, the perplexity of a single code, got {floor!r}'
    )
plots.style()
pd.set_option('display.max_colwidth', None)
folder = topdown.figures_dir() / 'tables'
runs = tables.read_runs(folder, f'{preset}_difficulty')
if 'setting' not in runs:
    runs['setting'] = pd.Series(dtype=str)
titles = {'fg_ari': 'FG-ARI', 'mbo_i': 'mBO$_i$'}
checks = {}
print(
    f'{preset}: {len(runs)} runs, {runs.setting.nunique()} of {len(SETTINGS)} '
    f'settings, {runs.seed.nunique()} seeds'
)

# %% [markdown]
# ## The settings
#
# Each changes one thing; *as it is* is the preset. The threshold for reviving codes is scaled with the number of slots
# and codes, so that a change of the codebook's size does not also change how readily codes are revived.

# %%
pd.Series(
    {name: str(changes or '–') for name, changes in SETTINGS.items()}, name='changes'
).rename_axis('setting').to_frame()

# %% [markdown]
# ## Both models in every setting
#
# Percent on held-out images of the same setting. Compare models within a setting: between settings the images
# differ, and so does what can be reached.

# %%
if len(runs):
    table = tables.means_table(
        runs.assign(row=runs.setting + ', ' + runs.variant),
        ('fg_ari', 'mbo_i', 'miou'),
        'row',
    )
    index = pd.MultiIndex.from_tuples(
        [tuple(name.rsplit(', ', 1)) for name in table.index],
        names=['setting', 'model'],
    )
    table = table.set_index(index)
else:
    table = pd.DataFrame({'runs': [tables.NOT_RUN]})
table

# %%
# alt: Scores of baseline and top-down in every setting: compare the two points of a
#   row, not the rows.
if len(runs):
    plots.show_rows(runs, 'setting', titles, 'variant')

# %% [markdown]
# ## What the pathway adds
#
# Top-down minus baseline, on the seeds that both have. *tiny codebook* changes nothing about the baseline, so it is
# held against the baseline of *as it is*.

# %%
gains = tables.effects_by(runs, 'setting', metrics=titles, otherwise='as it is')
gains = gains[gains.variant == 'top-down']
tables.show_effects(gains.assign(variant=gains.setting)).rename_axis('setting')

# %%
# alt: What the pathway adds in every setting, with its 95 % interval over seeds. Filled
#   points exclude zero.
if len(gains):
    plots.show_forest(
        gains.assign(variant=gains.setting), 'the baseline of the setting', titles
    )

# %%
print(tables.say_effects(gains.assign(variant=gains.setting), 'the baseline'))

# %% [markdown]
# With two seeds an interval of Student's t is very wide: its quantile is 12.7 instead of 2. What it cannot tell apart
# may differ all the same. And with 95 % intervals, one in twenty of those without any effect seems to have one: a
# single setting that stands out, in one metric, is about what chance gives.
#
# ## Unlike parts
#
# The test of the argument: the gain with unlike parts minus the gain with parts of one colour, seed by seed.

# %%
claims = tables.read(topdown.figures_dir() / 'paper' / 'claims.csv')
verdict = judge(claims[claims.key == 'unlike_parts'], {'toybox_difficulty': runs}).iloc[
    0
]
print(tables.wrap(f'{verdict.claim}: {verdict["on Toybox"]}; {verdict.evidence}'))

# %% [markdown]
# ## Signs of failure
#
# What to watch in any run: a reconstruction loss that is no lower than the others', a codebook of which few codes are
# used, and a second pass that is no better than the first.

# %%
signs = runs[runs.variant == 'top-down'].copy()
for column in ('perplexity', 'codes_used', 'val_loss', 'first_mbo_i'):
    signs[column] = signs[column] if column in signs else float('nan')
signs['second pass gains, mBO_i'] = (
    signs.mbo_i - signs.first_mbo_i if len(signs) else pd.Series(dtype=float)
)
shown = ['val_loss', 'perplexity', 'codes_used', 'second pass gains, mBO_i']
signs.groupby('setting', sort=False)[shown].mean().round(3) if len(
    signs
) else pd.DataFrame({'signs': [tables.NOT_RUN]})

# %%
collapsed = signs[signs.perplexity < floor]
worse = signs[signs['second pass gains, mBO_i'] < 0]
if len(signs):
    print(
        f'perplexity below {floor:g}: '
        f'{", ".join(dict.fromkeys(collapsed.setting)) or "no setting"}'
    )
    print(
        'second pass worse than the first: '
        f'{", ".join(dict.fromkeys(worse.setting)) or "no setting"}'
    )
else:
    print(tables.NOT_RUN)

# %% [markdown]
# ## What are slots for, when segmenters exist?
#
# The sceptic's question. Rubinstein et al. {cite}`rubinstein2025done` argue that promptable segmenters, trained with
# very many masks, find objects far better than slots do, also on images unlike those they were trained on, and that a
# mask with an encoder is then all that the usual aims ask for: cut an object out, encode it, and classify it without its
# misleading background. What can be said against it, and what cannot?
#
# Where a segmenter's training reaches, its masks are better, and no number of this book speaks against using it. Slot
# attention asks another question, how grouping can be learned *without* a mask, which matters where nobody can draw
# one. And a slot is meant to be more than a mask: a vector that says what the object is, of a fixed number, to be
# predicted over time, swapped, or acted on. Whether it says so can be measured. Below, the share of true objects that a
# decoder's mask covers by half; of these, as a share of all objects, the ones whose category a linear probe reads off
# the slot; and the ones whose category it reads off the mean of the encoder's tokens *under that same mask*, which is
# what any segmenter could hand on; last, under the true mask. Probes are fitted on objects of other images.

# %% tags=["hide-input"]
from topdown.book.codes import where_and_what

config = topdown.preset('toybox')  # whose trained models ship with the package
encoder = topdown.make_encoder(config)
eval_set = topdown.make_eval_set(config, encoder)
joint = pd.DataFrame(
    {
        name: where_and_what(topdown.load(name, encoder).model, eval_set)
        for name in ('toybox/baseline/0', 'toybox/top-down/0')
    }
).T
checks['a slot says less than the tokens under its mask'] = bool(
    (joint['slots'] < joint['tokens under masks']).all()
)
(100 * joint).round(1)

# %% [markdown]
# The sceptic has a point here: a slot says less of what an object is than the tokens under the slot's own mask do, so
# that whoever wants categories should take the masks and go back to the encoder. Masks have to be judged, too, and not
# by how they overlap the truth alone: with better masks more objects could be read, as the last column shows.
#
# **Your own check.** Let any segmenter write label maps of the images (a file of whole numbers an image), and score
# them by the same protocols as slots: `topdown evaluate --predictions FOLDER` ([evaluation](evaluation.md)). For the
# second half of the question, take its masks in place of `masks` in `topdown.book.codes.where_and_what`.
#
# ## Checks

# %%
# NBVAL_CHECK_OUTPUT
checks['every setting is known'] = set(runs.setting) <= set(SETTINGS)
checks['metrics are percentages'] = bool(
    runs.reindex(columns=list(titles)).stack().between(-100, 100).all()
)
pairs = runs.drop_duplicates(['setting', 'variant', 'seed'])
checks['no run is there twice'] = len(pairs) == len(runs)
assert all(checks.values()), checks
print('\n'.join(f'{name}: {value}' for name, value in checks.items()))

# %% [markdown]
# ## What was seen, and its limits

# %%
if len(runs):
    means = (
        runs.groupby(['variant', 'setting'], sort=False).mbo_i.mean().unstack('variant')
    )
    for model in means:
        ranked = means[model].dropna().sort_values()
        print(
            f'{model}: lowest mBO_i with {ranked.index[0]} ({ranked.iloc[0]:.1f}), ',
            end='',
        )
        print(f'highest with {ranked.index[-1]} ({ranked.iloc[-1]:.1f}).')
    if {'baseline', 'top-down'} <= set(means):
        both = means.dropna()
        same = both['baseline'].rank().equals(both['top-down'].rank())
        print(f'Both models rank the {len(both)} settings alike: {same}.')
else:
    print(tables.NOT_RUN)

# %% [markdown]
# Settings change the images for training and for validation alike, but not the encoder: it was made on Toybox as it
# is ([its page](encoder.md)), so a setting that looks unlike it is also a test of the encoder. Few seeds show large
# effects only. And a generated difficulty is a model of the real one: clutter here is scraps of coloured paper, not a
# kitchen.
#
# **Exercises**
#
# 1. *few slots* leaves fewer slots than some images have segments. Which metric must suffer, and which need not?
# 2. Why does *easy parts* not make the task trivial?
# 3. Add a setting of your own and run it: which line of `topdown/book/plan.py` must change?

# %% [markdown] tags=["solution"]
# <details><summary><b>Solutions</b></summary>
#
# 1. mIoU, because masks are matched one to one and an object without a slot counts 0. mBO lets one mask serve several
#    objects, so it suffers less; FG-ARI counts pairs of pixels and suffers as far as objects are joined.
# 2. Colours are shared between categories and toys overlap: two toys of one colour that touch look like one. And the
#    ground has colours, too.
# 3. `SETTINGS`, and nothing else: the plan, the tables and this chapter go by it.
#
# </details>
