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
# # Which parts of the pathway matter?
#
# **Question of this chapter: take the pathway's parts away one at a time, or put something else in their place. Which
# of them change the result, by how much, and how sure is that?**
#
# The paper {cite}`kim2024topdown` ablates four things: the channel-wise scale, the codes that predict it, the
# spatial-wise scale, and the shifting of the attention map. Its figures for this table are not in this book's
# transcription, so the comparison here is with the claim only: that each of the four helps.
#
# An effect is a difference between two models of the same seed, which start from the same weights and see the same
# images in the same order. Over seeds $1 \dots n$ the differences $d_i$ have a mean $\bar d$ and a 95 % interval of
# Student's t,
#
# $$ \bar d \pm t_{n-1,\,0.975}\; s_d / \sqrt n . $$
#
# An interval that holds zero does not say that there is no effect. It says that effects outside of it are unlikely.
#
# The chapter trains nothing: it reads `figures/tables/<preset>_ablation.csv`, which
# `topdown tables --only ablation` writes, and shows *not run* where the file or a row is missing.

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
preset = 'toybox'  # whose rows: toybox, or a preset of the paper's scale, such as coco

# %% tags=["hide-input"]
import pandas as pd

import topdown
from topdown.book import plots, tables
from topdown.book.claims import verdicts as judge

if preset not in topdown.PRESETS:
    raise ValueError(
        f'preset must be one of {", ".join(topdown.PRESETS)}, got {preset!r}'
    )
plots.style()
pd.set_option('display.max_colwidth', None)
folder = topdown.figures_dir() / 'tables'
runs = tables.read_runs(folder, f'{preset}_ablation')
titles = {'fg_ari': 'FG-ARI', 'mbo_i': 'mBO$_i$', 'miou': 'mIoU', 'ari': 'ARI'}
print(
    f'{preset}: {len(runs)} runs, {runs.variant.nunique()} variants, '
    f'{runs.seed.nunique()} seeds'
)

# %% [markdown]
# ## What is compared
#
# Variants are changes to a preset. These are the ones that the package knows; an experiment may hold others, with the
# change in the column `changes` of its rows.

# %%
variants = pd.Series(
    {name: str(change or '–') for name, change in topdown.VARIANTS.items()},
    name='changes',
)
variants.rename_axis('variant').to_frame()

# %% [markdown]
# ## Means
#
# Percent on held-out images, mean ± standard deviation over seeds.

# %%
tables.means_table(runs)

# %% [markdown]
# ## Against the baseline
#
# Does a variant beat slot attention without the pathway? Filled points: the interval excludes zero. ARI is over all
# pixels, the ground included: it rewards a ground that is left in one piece, which the other metrics do not look at.

# %%
against_baseline = tables.effects(runs, 'baseline', titles)
tables.show_effects(against_baseline)

# %%
# alt: One row a variant: its mean difference to the baseline and the 95 % interval over
#   seeds, a panel a metric. Filled points exclude zero.
if len(against_baseline):
    plots.show_forest(against_baseline, 'the baseline', titles)

# %%
print(tables.say_effects(against_baseline, 'the baseline'))

# %% [markdown]
# ## Against the whole pathway
#
# What is lost if a part is taken away? A part that helps leaves a variant *below*.

# %%
against_whole = tables.effects(runs, 'top-down', titles)
tables.show_effects(against_whole)

# %%
# alt: One row a variant: its mean difference to the whole pathway and the 95 % interval
#   over seeds. Points left of zero are variants that lack something.
if len(against_whole):
    plots.show_forest(against_whole, 'the whole pathway', titles)

# %%
print(tables.say_effects(against_whole, 'the whole pathway'))

# %% [markdown]
# ## What could have been seen
#
# Half the width of an interval is the size that an effect must have to stand out from the scatter of seeds. An effect
# smaller than this may exist and go unseen here.

# %%
if len(against_whole):
    half = against_whole.assign(half=(against_whole.high - against_whole.low) / 2)
    for metric, part in half.groupby('metric', sort=False):
        print(
            f'{tables.NAMES[metric]}: half widths from {part.half.min():.1f} to '
            f'{part.half.max():.1f} points'
        )
else:
    print(tables.NOT_RUN)

# %% [markdown]
# Many comparisons were made at once: with 95 % intervals, one in twenty of those without any effect will seem to have
# one. A single filled point among many is weak evidence; a variant that stands out in every metric is better.

# %%
comparisons = len(against_whole)
clear = sum(tables.sign(row.low, row.high) != 0 for row in against_whole.itertuples())
print(
    f'{clear} of {comparisons} intervals against the whole pathway exclude zero; '
    f'{comparisons / 20:.1f} would by chance'
)

# %% [markdown]
# ## Checks
#
# The effects are those of the rows: recomputed here with nothing but means over seeds.

# %%
# NBVAL_CHECK_OUTPUT
checks = {}
by_seed = runs.drop_duplicates(['variant', 'seed'], keep='last')
for row in against_baseline.itertuples():
    pairs = by_seed.pivot(index='seed', columns='variant', values=row.metric)[
        [row.variant, 'baseline']
    ].dropna()
    again = float((pairs[row.variant] - pairs['baseline']).mean())
    checks[row.variant, row.metric] = abs(
        again - row.difference
    ) < 1e-9 and row.seeds == len(pairs)
assert all(checks.values()), checks
inside = against_baseline.dropna()
assert bool(
    ((inside.low <= inside.difference) & (inside.difference <= inside.high)).all()
)
print('effects equal differences of means:', all(checks.values()))

# %% [markdown]
# ## What was seen, and its limits
#
# The verdicts on the paper's claims about its parts, from the rows above and by the rule of
# [the introduction](intro.md): a claim is reproduced if the interval lies on the claimed side of zero in every metric.

# %%
claims = tables.read(topdown.figures_dir() / 'paper' / 'claims.csv')
claims = claims[claims['where'] == 'Ablation']
verdicts = judge(
    claims,
    {'toybox_ablation': runs} if preset == 'toybox' else {f'{preset}_ablation': runs},
)
verdicts.drop(columns='page').set_index('claim')

# %% [markdown]
# Which variants stand out from the baseline in more than one metric, and on which side:

# %%
sides = against_baseline.assign(
    side=[tables.sign(row.low, row.high) for row in against_baseline.itertuples()]
)
for name, part in sides.groupby('variant', sort=False):
    for side, word in ((1, 'above'), (-1, 'below')):
        found = [tables.NAMES[metric] for metric in part[part.side == side].metric]
        if len(found) > 1:
            print(f'{name}: {word} in {", ".join(found)}')

# %% [markdown]
# ## Runs that ended on the plateau
#
# Training with the autoregressive decoder begins on a plateau, and a run that is still there when it ends scores like
# one slot or a grid of cells. How many runs of each variant did, by their mBO$_i$:

# %%
plateau = 30.0  # percent of mBO_i, below which a run is counted as still there
stuck = runs.assign(stuck=runs.mbo_i < plateau)
stuck.groupby('variant', sort=False).stuck.agg(['sum', 'count']).rename(
    columns={'sum': 'runs on the plateau', 'count': 'runs'}
)

# %% [markdown]
# The same effects, on the seeds on which both models of a pair left it. This asks another question, how good models are
# *if* they leave, and it was not stated before the runs: it is exploratory.

# %% tags=["hide-input"]
rows = []
free = stuck[~stuck.stuck]
for name in dict.fromkeys(free.variant):
    for against in ('baseline', 'top-down'):
        pair = tables.effects(free, against, ('fg_ari', 'mbo_i'))
        for cell in pair[pair.variant == name].itertuples():
            said = tables.effect_text(cell.difference, cell.low, cell.high)
            metric = tables.NAMES[cell.metric]
            rows.append([name, f'minus {against}, {metric}', f'{said} ({cell.seeds})'])
table = pd.DataFrame(rows, columns=['variant', 'difference', 'text (seeds)'])
table.pivot(index='variant', columns='difference', values='text (seeds)').fillna(
    '–'
) if len(rows) else tables.NOT_RUN

# %% [markdown]
# In the rows stored here, what moves means most is whether a run leaves the plateau. *Spatial only* and *without
# shifting* stayed there most often, *without quantization* never; with five seeds none of this is told from chance. The
# whole pathway and the baseline stayed with the same seed, so the comparison between them is sharper than most, and
# shows no effect. Nor does it matter whose code a slot is handed: *shuffled codes* do as well as its own. So this
# ablation shows of no part of the pathway that it helps or harms objects, and the sizes above say how much it would have
# missed.
#
# With [the easier decoder](slotwise.md), which has no plateau, scatter is smaller. `-p preset slotwise` shows those rows,
# `-p preset coco` those of the paper's scale.
#
# **Exercises**
#
# 1. The interval is over seeds, with the validation images fixed. Which question does it not answer?
# 2. Pair the differences wrongly, by shuffling the seeds of the baseline. What happens to the intervals, and what does
#    that say about pairing?
# 3. How many seeds would be needed to see an effect of half a point in FG-ARI?

# %% [markdown] tags=["solution"]
# <details><summary><b>Solutions</b></summary>
#
# 1. Whether the effect would be there on other images. [The long runs of the easier decoder](slotwise.md) show an
#    interval over images beside the one over seeds.
# 2. Means stay, widths change: what the two models of one seed have in common (weights, order of images) no longer
#    cancels. If widths hardly grow, seeds have little in common, and pairing gains little.
# 3. The half width shrinks with $\sqrt n$ and with the quantile of t. The next cell does the arithmetic from the
#    scatter of the differences seen.
#
# </details>

# %% tags=["solution", "hide-cell"]
from scipy import stats


def seeds_needed(scatter, effect):
    """Fewest seeds whose interval, with this scatter, is narrower than the effect."""
    for n in range(2, 1000):
        if stats.t.ppf(0.975, n - 1) * scatter / n**0.5 < effect:
            return n


pairs = (
    by_seed.pivot(index='seed', columns='variant', values='fg_ari')
    if len(by_seed)
    else pd.DataFrame()
)
if {'baseline', 'top-down'} <= set(pairs) and len(pairs) > 1:
    scatter = float((pairs['top-down'] - pairs['baseline']).std())
    print(
        f'differences scatter by {scatter:.2f} points: {seeds_needed(scatter, 0.5)} '
        'seeds'
    )
else:
    print(tables.NOT_RUN)
