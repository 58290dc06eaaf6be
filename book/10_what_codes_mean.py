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
# looks, or for a colour? Does the codebook find more of it than plain clustering of the same slots? And what do slots
# hold that neither finds?**
#
# The paper {cite}`kim2024topdown` shows images of slots that share a code. Images can be chosen; this chapter
# measures. Every slot that covers an object (IoU of at least one half with its first-pass mask) has a true category, a
# position (which ninth of the image holds the mask's centre of mass) and a colour (one of eight groups of mean
# colours). Its code is a fourth label. How much does the code tell of the other three?
#
# Beside the codes stand clusters of k-means on the very same slots, as many as there are codes. k-means is fitted to
# the slots that it is measured on and the codebook is not, so it is a demanding reference of *codes*: if it finds no
# more, the codebook is not to blame. What *slots* hold is another question, because groups follow what varies most and
# leave the rest unseen. That is for a linear probe, fitted on some images and scored on others.
#
# The chapter trains nothing: it reads `figures/tables/<preset>_<experiment>.csv`, where `topdown.book.codes` has added
# its measures to every run with a codebook, and `<preset>_probe.csv`, which
# `topdown tables probes --preset <preset>` writes; and it shows *not run* where there is none.

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
measure = 'ami'  # shown in figures: ami, nmi, purity or accuracy

# %% tags=["hide-input"]
import numpy as np
import pandas as pd

import topdown
from topdown.book import plots, tables
from topdown.book.codes import MEASURES, TARGETS, agreement, cluster, probe

if preset not in topdown.PRESETS:
    raise ValueError(
        f'preset must be one of {", ".join(topdown.PRESETS)}, got {preset!r}'
    )
if measure not in MEASURES:
    raise ValueError(f'measure must be one of {", ".join(MEASURES)}, got {measure!r}')
plots.style()
folder = topdown.figures_dir() / 'tables'
experiments = {
    name: tables.read_runs(folder, f'{preset}_{name}') for name in tables.EXPERIMENTS
}
probes = tables.read_runs(folder, f'{preset}_probe')
checks = {}
for name, runs in experiments.items():
    measured = (
        runs.get(f'code_category_{measure}', pd.Series(dtype=float)).notna().sum()
    )
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

# %% tags=["hide-input"]
# alt: Agreement of random labels with sixteen categories against the number of groups:
#   purity and NMI climb, AMI stays at zero.
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
    chance,
    'groups',
    {'value': 'agreement of random labels with 16 categories'},
    'measure',
    'groups',
    log=True,
)

# %%
table = chance.pivot(index='groups', columns='measure', values='value')[list(MEASURES)]
checks['purity of nothing grows with the number of groups'] = bool(
    table.purity.is_monotonic_increasing
)
checks['AMI of nothing is zero'] = bool(table.ami.abs().max() < 0.03)
checks['a perfect partition has 1 in all'] = all(
    abs(v - 1) < 1e-9 for v in agreement(truth, 15 - truth).values()
)
table.round(2)

# %% [markdown]
# ## What no measure of groups can see
#
# Sixteen categories, each in a direction of its own, and eight other directions that vary much more and mean nothing.
# K-means with 64 clusters spends them on the loud directions; its AMI with the category is that of random labels. A
# linear probe (logistic regression, fitted on the objects of one half of the images and scored on the other half, both
# ways) reads the category off the same vectors.

# %%
truth_16 = rng.integers(0, 16, 1500)
quiet = np.eye(16)[truth_16] + 0.1 * rng.standard_normal((1500, 16))
vectors = np.concatenate([5 * rng.standard_normal((1500, 8)), quiet], axis=1)
blind = agreement(truth_16, cluster(vectors, 64))['ami']
seen = probe(vectors, truth_16, images=np.arange(1500) // 3).mean()
print(
    f'k-means, 64 clusters: AMI {blind:.2f}; linear probe: {100 * seen:.0f} % right, '
    f'by chance {100 / 16:.0f} %'
)
checks['AMI of clusters misses what is quiet'] = blind < 0.05
checks['a probe finds what is quiet'] = bool(seen > 0.9)

# %% [markdown]
# So a low AMI of codes says that codes do not *sort by* category. That slots do not *hold* it does not follow.
#
# ## What is linearly there
#
# Probes on real slots, always over the same objects, those that a first-pass slot covers by half. *Mean tokens* is the
# encoder's own: the mean of the tokens under the object's true mask. *Position and size* are those of the true mask, a
# reference, since some categories are larger than others. *Codes* and clusters are given as one-hot vectors: an index
# is all that they hand on. *Code vectors* are the codebook's entries. *Permuted labels* and *most frequent* are two
# forms of chance.
#
# Percent of objects that are right, mean and 95 % interval over seeds. The models have never seen the validation
# images. They have seen the training images, without labels; there are more of them, and a probe finds more, the more
# objects it is fitted on. What a probe does not find may still be there in another form, so all of these are lower
# bounds.

# %% tags=["hide-input"]
# alt: Share of objects whose category a linear probe reads off, from mean tokens down
#   to codes, one point a seed; chance is on the right.
if len(probes):
    shown = probes[probes.target.eq('category')].assign(percent=100 * probes.accuracy)
    names = {
        'first-pass slots': 'first\npass',
        'second-pass slots': 'second\npass',
        'code vectors': 'code\nvectors',
    }
    names |= {
        'k-means on slots': 'k-means\non slots',
        'k-means on mean tokens': 'k-means\non tokens',
    }
    names |= {
        'mean tokens': 'mean\ntokens',
        'position and size': 'position,\nsize',
        'most frequent': 'most\nfrequent',
    }
    names |= {'permuted labels': 'permuted\nlabels'}
    images = shown.split.map({'val': 'validation images', 'train': 'training images'})
    shown = shown.assign(features=shown.features.replace(names), images=images)
    _ = plots.show_points(shown, 'features', 'percent', 'images', 'category, % right')
else:
    print(tables.NOT_RUN)

# %%
tables.probe_summary(probes).set_index(['images', 'features']) if len(
    probes
) else tables.NOT_RUN

# %% [markdown]
# The same, pair by pair and seed by seed, for the category on validation images.

# %% tags=["hide-input"]
from topdown import seed_interval


def say_difference(a, b, title, unit=''):
    """One line on the difference of two columns of runs, over seeds."""
    found = seed_interval((a - b).dropna().to_numpy())
    digits = 1 if unit else 3
    interval = f'95 % [{found.low:+.{digits}f}, {found.high:+.{digits}f}]'
    interval = 'one seed, no interval' if np.isnan(found.low) else interval
    print(f'{title}: {found.mean:+.{digits}f}{unit}, {interval}')


if len(probes):
    of_category = probes[probes.target.eq('category') & probes.split.eq('val')]
    right = 100 * of_category.pivot(index='seed', columns='features', values='accuracy')
    for a, b in (
        ('first-pass slots', 'position and size'),
        ('second-pass slots', 'first-pass slots'),
        ('mean tokens', 'second-pass slots'), ('codes', 'most frequent'),
        ('codes', 'position and size'),
        ('codes', 'k-means on slots'),
    ):  # fmt: skip
        say_difference(right[a], right[b], f'{a} minus {b}', ' points')
    for split, name in (('val', 'validation'), ('train', 'training')):
        of_split = probes[
            probes.target.eq('category') & probes.split.eq(split)
        ].groupby('features')
        mean, ami = 100 * of_split.accuracy.mean(), of_split.ami.mean()
        print(
            f'{name} images: a probe on mean tokens is right in '
            f'{mean["mean tokens"]:.0f} %, ',
            end='',
        )
        print(f'k-means on them has AMI {ami["k-means on mean tokens"]:.2f}')
else:
    print(tables.NOT_RUN)

# %% [markdown]
# The last lines are what an AMI of this size must be held against: even tokens from which a linear probe reads most
# categories give clusters whose AMI is near zero. An AMI near zero therefore does not tell vectors that hold the
# category from vectors that do not.
#
# ## Codes against k-means
#
# The model with the whole pathway, every seed a point. A tall bar at *category* would say that codes are names of
# things. A short one says that codes do not sort by category, and nothing about slots.

# %%
# alt: Agreement of codes and of k-means clusters with category, position and colour,
#   one point a seed.
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
    table = grouped.agg(
        lambda v: f'{v.mean():.2f} ± {v.std():.2f}' if len(v) > 1 else f'{v.mean():.2f}'
    ).unstack('measure')
else:
    table = pd.DataFrame({'agreement': [tables.NOT_RUN]})
table

# %% [markdown]
# Differences seed by seed, with their 95 % interval: codes minus k-means for every target, and category minus the two
# others for the codes.

# %%
whole = runs[runs.variant == 'top-down']
if len(long):
    for target in TARGETS:
        codes, clusters = (
            whole[f'code_{target}_{measure}'],
            whole[f'kmeans_{target}_{measure}'],
        )
        say_difference(codes, clusters, f'{target}, codes minus k-means on slots')
    for target in ('position', 'colour'):
        category, other = (
            whole[f'code_category_{measure}'],
            whole[f'code_{target}_{measure}'],
        )
        say_difference(category, other, f'codes, category minus {target}')
else:
    print(tables.NOT_RUN)

# %% [markdown]
# ## With the size of the codebook
#
# Does a larger codebook sort more finely by category, or only more finely?

# %%
# alt: Agreement of codes with category, position and colour against the size of the
#   codebook.
by_size = tables.meaning(tables.with_codebook_size(experiments['codebook']))
by_size = by_size[by_size.measure == measure]
if len(by_size):
    codes = by_size[by_size.partition == 'codes']
    plots.show_lines(
        codes,
        'codebook_size',
        {'value': f'codes: {measure}'},
        'target',
        'codebook size E',
        log=True,
    )
else:
    print(tables.NOT_RUN)

# %% [markdown]
# ## In the course of training
#
# If semantics are bootstrapped, agreement with the category must grow while the model trains: codes are a guess from
# slots, the guess helps to make better slots, and so on. Beside it, where the table has it, the linear probe of the
# category on first-pass slots and on codes, over the validation images.

# %%
# alt: Agreement of codes with category, position and colour over the steps of training.
steps = tables.read_runs(folder, f'{preset}_growth')
growth = tables.meaning(steps)
growth = (
    growth[(growth.measure == measure) & (growth.partition == 'codes')]
    if 'step' in growth
    else growth.head(0)
)
if len(growth):
    plots.show_lines(
        growth, 'step', {'value': f'codes: {measure}'}, 'target', 'step', log=True
    )
else:
    print(tables.NOT_RUN)

# %%
# alt: Share of objects whose category a probe reads off slots and codes, over the steps
#   of training.
probed = {'slots': 'first-pass slots', 'code': 'codes', 'chance': 'most frequent'}
probed = {
    f'probe_{name}_category': title
    for name, title in probed.items()
    if f'probe_{name}_category' in steps
}
if probed:
    course = steps.melt(['step', 'seed'], list(probed), 'features', 'right').replace(
        {'features': probed}
    )
    _ = plots.show_lines(
        course, 'step', {'right': 'category: share right'}, 'features', 'step', log=True
    )
else:
    print(tables.NOT_RUN)

# %% [markdown]
# The same runs: quality of the masks, and how many codes are in use. Early on, slots of an untrained model become alike
# before they part, and one code is nearest to nearly all of them; as they part, revival brings the others back.

# %% tags=["hide-input"]
# alt: mBO and perplexity over the steps of training.
if len(growth):
    plots.show_lines(
        steps,
        'step',
        {'mbo_i': tables.NAMES['mbo_i'], 'perplexity': 'perplexity'},
        'variant',
        'step',
        log=True,
    )
    course = steps.groupby('step').perplexity.mean()
    print(
        f'perplexity, mean over seeds: {course.iloc[0]:.1f} after {course.index[0]} '
        'steps, ',
        end='',
    )
    print(
        f'{course.min():.1f} after {course.idxmin()}, {course.iloc[-1]:.1f} at the end'
    )
else:
    print(tables.NOT_RUN)

# %% [markdown]
# ## Checks

# %%
# NBVAL_CHECK_OUTPUT
measured = pd.concat(
    [tables.meaning(r) for r in experiments.values()], ignore_index=True
)
checks['every measured agreement lies where it can'] = bool(
    measured.value.between(-1, 1).all()
)
share = probes.get('accuracy', pd.Series(dtype=float))
checks['every probe lies where it can'] = bool(share.between(0, 1).all())
assert all(checks.values()), checks
print('\n'.join(f'{name}: {value}' for name, value in checks.items()))

# %% [markdown]
# ## What was seen, and its limits

# %% tags=["hide-input"]
if len(long):
    means = whole[
        [f'{p}_{t}_{measure}' for p in tables.PARTITIONS for t in TARGETS]
    ].mean()
    ranked = means[[f'code_{t}_{measure}' for t in TARGETS]].sort_values(
        ascending=False
    )
    order = [name.split('_')[1] for name in ranked.index]
    print(
        f'By {measure}, codes tell most about {order[0]} ({ranked.iloc[0]:.2f}), ',
        end='',
    )
    print(
        f'then {order[1]} ({ranked.iloc[1]:.2f}), least about {order[2]} '
        f'({ranked.iloc[2]:.2f}).'
    )
    code, kmeans = (
        means[f'code_category_{measure}'],
        means[f'kmeans_category_{measure}'],
    )
    print(
        f'On the category, k-means on the same slots has {kmeans:.2f} and the codes '
        f'{code:.2f}.'
    )
    print(
        f'These are {len(whole)} runs; slots that cover an object: '
        f'{whole.object_slots.min():.0f} or more a run.'
    )
else:
    print(tables.NOT_RUN)

# %% [markdown]
# Codes and slots are two questions, and the tables answer them differently. *Codes* do not sort by category, and
# neither do clusters of the same slots; nor do codes hand it on in another form, since a probe on the index is no
# better than position and size. *Slots* of the first pass do hold some of it, those of the second pass more, and the
# encoder's tokens most of it, in directions that vary less than place does, so that whatever goes by the nearest centre
# passes it over. What is lost is lost on the way from tokens to slots, and again from slots to codes.
#
# Only slots that cover an object by half take part, so a model that finds few objects is judged by those that it finds.
# Colour is the mean colour of a mask; toys have several colours, and a mean may be none of them. Codes that tell of
# none of the three may still tell of something that was not asked for. A probe shows what is there, not what the model
# makes use of. And a probe on one-hot codes has few objects a code to learn from: small shares of category in the codes
# show in AMI before they show in the probe.
#
# How the encoder was made is on [its page](encoder.md); [VQ bootstrapping](01_vq_bootstrapping.ipynb) looks closely at
# one codebook.
#
# **Exercises**
#
# 1. Why is accuracy low for a codebook that is much larger than the number of categories, even if every code is pure?
# 2. How would you find out whether codes sort by category *given* the position?
# 3. Set `measure = 'purity'` and compare codebooks of different sizes. What misleads?
# 4. In the made-up example, make the loud directions quieter (1 in place of 5). When does AMI begin to see?

# %% [markdown] tags=["solution"]
# <details><summary><b>Solutions</b></summary>
#
# 1. Each category can be matched to one code only. If three codes share a category evenly, two thirds of its slots
#    count as wrong. The cell below shows it.
# 2. Measure AMI with the category among the slots of each position by itself, and average with their numbers as
#    weights.
# 3. Purity grows with the number of groups by chance alone, as the first figure shows, so the largest codebook wins.
# 4. As soon as the category makes up a good part of the variance, so that a cut between categories lowers k-means' sum
#    of squares as much as a cut across a loud direction does. A probe does not care: it may weigh directions.
#
# </details>

# %% tags=["solution", "hide-cell"]
pure = truth * 3 + rng.integers(
    0, 3, len(truth)
)  # three codes for each category, none shared
for name, value in agreement(truth, pure).items():
    print(f'{name}: {value:.2f}')
