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
# # What do codes mean?
#
# **Question of this chapter: a code is handed on as *what* is there. Does it stand for a category, or for where a slot
# looks, or for a colour; and does the codebook find more of it than plain clustering of the same slots?**
#
# The paper {cite}`kim2024topdown` shows pictures of slots that share a code. Pictures can be chosen; this chapter
# measures. Every slot that covers an object (IoU of at least one half with its first-pass mask) has a true category, a
# position (which ninth of the picture holds the mask's centre of mass) and a colour (one of eight groups of mean
# colours). Its code is a fourth label. How much does the code tell of the other three?
#
# Beside the codes stand clusters of k-means on the very same slots, as many as there are codes. k-means is fitted to
# the slots that it is measured on and the codebook is not, so it is a demanding reference: if it finds no more, then
# the slots hold no more that clustering could find.
#
# The chapter trains nothing: it reads `figures/tables/<preset>_<experiment>.csv`, where `topdown.semantics` has added
# its measures to every run with a codebook, and shows *not run* where there is none.

# %% tags=["parameters"]
preset = 'toybox'  # whose rows: toybox, or a preset of the paper's scale, such as coco
measure = 'ami'  # shown in figures: ami, nmi, purity or accuracy

# %%
import numpy as np
import pandas as pd

import topdown
from topdown.book import plots, tables
from topdown.book.codes import MEASURES, TARGETS, agreement

if preset not in topdown.PRESETS:
    raise ValueError(f'preset must be one of {", ".join(topdown.PRESETS)}, got {preset!r}')
if measure not in MEASURES:
    raise ValueError(f'measure must be one of {", ".join(MEASURES)}, got {measure!r}')
plots.style()
folder = topdown.figures_dir() / 'tables'
experiments = {name: tables.read_runs(folder, f'{preset}_{name}') for name in tables.EXPERIMENTS}
checks = {}
for name, runs in experiments.items():
    measured = runs.get(f'code_category_{measure}', pd.Series(dtype=float)).notna().sum()
    print(f'{name}: {len(runs)} runs, {measured} with measured codes')

# %% [markdown]
# ## Four measures, and which one to trust
#
# - *Purity*: share of slots that belong to the most frequent category of their code.
# - *NMI*: mutual information of codes and categories over the mean of their entropies.
# - *AMI*: the same, less what would be expected by chance.
# - *Accuracy*: share of slots that are right if every code may stand for one category and every category for one code,
#   matched so that the share is largest (Hungarian method).
#
# A codebook is large, and more groups look purer whatever they mean. Below, labels that are drawn at random and so mean
# nothing, against sixteen categories: the more groups, the higher purity and NMI. AMI stays at zero, so AMI is the
# measure for comparing codebooks of different sizes.

# %%
rng = np.random.default_rng(0)
truth = rng.integers(0, 16, 1500)
sizes = [2, 8, 32, 128, 512]
chance = [
    {'groups': size, 'measure': name, 'value': value}
    for size in sizes
    for name, value in agreement(truth, rng.integers(0, size, len(truth))).items()
]
chance = pd.DataFrame(chance)
_ = plots.show_lines(
    chance, 'groups', {'value': 'agreement of random labels with 16 categories'}, 'measure', 'groups', log=True
)

# %%
table = chance.pivot(index='groups', columns='measure', values='value')[list(MEASURES)]
checks['purity of nothing grows with the number of groups'] = bool(table.purity.is_monotonic_increasing)
checks['AMI of nothing is zero'] = bool(table.ami.abs().max() < 0.03)
checks['a perfect partition has 1 in all'] = all(abs(v - 1) < 1e-9 for v in agreement(truth, 15 - truth).values())
table.round(2)

# %% [markdown]
# ## Codes against k-means
#
# The model with the whole pathway, every seed a point. A tall bar at *category* would say that codes are names of
# things.

# %%
runs = experiments['ablation']
long = tables.meaning(runs[runs.variant == 'top-down'])
if len(long):
    shown = long[long.measure == measure]
    plots.show_points(shown, 'target', 'value', 'partition', f'agreement ({measure})')
else:
    print(tables.NOT_RUN)

# %%
if len(long):
    grouped = long.groupby(['target', 'partition', 'measure'], sort=False).value
    table = grouped.agg(lambda v: f'{v.mean():.2f} ± {v.std():.2f}' if len(v) > 1 else f'{v.mean():.2f}').unstack(
        'measure'
    )
else:
    table = pd.DataFrame({'agreement': [tables.NOT_RUN]})
table

# %% [markdown]
# Differences seed by seed, with their 95 % interval: codes minus k-means for every target, and category minus the two
# others for the codes.

# %%
from topdown import seed_interval


def say_difference(a, b, title):
    """One line on the difference of two columns of runs, over seeds."""
    found = seed_interval((a - b).dropna().to_numpy())
    interval = 'one seed, no interval' if np.isnan(found.low) else f'95 % [{found.low:+.3f}, {found.high:+.3f}]'
    print(f'{title}: {found.mean:+.3f}, {interval}')


whole = runs[runs.variant == 'top-down']
if len(long):
    for target in TARGETS:
        codes, clusters = whole[f'code_{target}_{measure}'], whole[f'kmeans_{target}_{measure}']
        say_difference(codes, clusters, f'{target}, codes minus k-means on slots')
    for target in ('position', 'colour'):
        category, other = whole[f'code_category_{measure}'], whole[f'code_{target}_{measure}']
        say_difference(category, other, f'codes, category minus {target}')
else:
    print(tables.NOT_RUN)

# %% [markdown]
# ## With the size of the codebook
#
# Does a larger codebook sort more finely by category, or only more finely?

# %%
by_size = tables.meaning(tables.with_codebook_size(experiments['codebook']))
by_size = by_size[by_size.measure == measure]
if len(by_size):
    codes = by_size[by_size.partition == 'codes']
    plots.show_lines(codes, 'codebook_size', {'value': f'codes: {measure}'}, 'target', 'codebook size E', log=True)
else:
    print(tables.NOT_RUN)

# %% [markdown]
# ## In the course of training
#
# If semantics are bootstrapped, agreement with the category must grow while the model trains: codes are a guess from
# slots, the guess helps to make better slots, and so on.

# %%
steps = tables.read_runs(folder, f'{preset}_growth')
growth = tables.meaning(steps)
growth = growth[(growth.measure == measure) & (growth.partition == 'codes')] if 'step' in growth else growth.head(0)
if len(growth):
    plots.show_lines(growth, 'step', {'value': f'codes: {measure}'}, 'target', 'step', log=True)
else:
    print(tables.NOT_RUN)

# %% [markdown]
# The same runs: quality of the masks, and how many codes are in use. Early on, slots of an untrained model become alike
# before they part, and one code is nearest to nearly all of them; as they part, revival brings the others back.

# %%
if len(growth):
    plots.show_lines(
        steps, 'step', {'mbo_i': tables.NAMES['mbo_i'], 'perplexity': 'perplexity'}, 'variant', 'step', log=True
    )
    course = steps.groupby('step').perplexity.mean()
    print(f'perplexity, mean over seeds: {course.iloc[0]:.1f} after {course.index[0]} steps, ', end='')
    print(f'{course.min():.1f} after {course.idxmin()}, {course.iloc[-1]:.1f} at the end')
else:
    print(tables.NOT_RUN)

# %% [markdown]
# ## Checks

# %%
# NBVAL_CHECK_OUTPUT
measured = pd.concat([tables.meaning(r) for r in experiments.values()], ignore_index=True)
checks['every measured agreement lies where it can'] = bool(measured.value.between(-0.2, 1).all())
assert all(checks.values()), checks
print('\n'.join(f'{name}: {value}' for name, value in checks.items()))

# %% [markdown]
# ## What was seen, and its limits

# %%
if len(long):
    means = whole[[f'{p}_{t}_{measure}' for p in tables.PARTITIONS for t in TARGETS]].mean()
    ranked = means[[f'code_{t}_{measure}' for t in TARGETS]].sort_values(ascending=False)
    order = [name.split('_')[1] for name in ranked.index]
    print(f'By {measure}, codes tell most about {order[0]} ({ranked.iloc[0]:.2f}), ', end='')
    print(f'then {order[1]} ({ranked.iloc[1]:.2f}), least about {order[2]} ({ranked.iloc[2]:.2f}).')
    code, kmeans = means[f'code_category_{measure}'], means[f'kmeans_category_{measure}']
    print(f'On the category, k-means on the same slots has {kmeans:.2f} and the codes {code:.2f}.')
    print(f'These are {len(whole)} runs; slots that cover an object: {whole.object_slots.min():.0f} or more a run.')
else:
    print(tables.NOT_RUN)

# %% [markdown]
# Only slots that cover an object by half take part, so a model that finds few objects is judged by those that it finds.
# Colour is the mean colour of a mask; toys have several colours, and a mean may be none of them. Codes that tell of
# none of the three may still tell of something that was not asked for.
#
# What the encoder does not tell apart, no codebook can: see [how it was made](encoder.md), and
# [VQ bootstrapping](01_vq_bootstrapping.ipynb) for one codebook looked at closely.
#
# **Exercises**
#
# 1. Why is accuracy low for a codebook that is much larger than the number of categories, even if every code is pure?
# 2. How would you find out whether codes sort by category *given* the position?
# 3. Set `measure = 'purity'` and compare codebooks of different sizes. What misleads?
#
# **Solutions**
#
# 1. Each category can be matched to one code only. If three codes share a category evenly, two thirds of its slots
#    count as wrong. The cell below shows it.
# 2. Measure AMI with the category among the slots of each position by itself, and average with their numbers as
#    weights.
# 3. Purity grows with the number of groups by chance alone, as the first figure shows, so the largest codebook wins.

# %%
pure = truth * 3 + rng.integers(0, 3, len(truth))  # three codes for each category, none shared
for name, value in agreement(truth, pure).items():
    print(f'{name}: {value:.2f}')
