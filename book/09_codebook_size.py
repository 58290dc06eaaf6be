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
# # How large should the codebook be?
#
# **Question of this chapter: how does the result change with the number of codes $E$, how many of them are in use, and
# can a good $E$ be chosen without labels?**
#
# Too few codes cannot tell kinds of things apart; with too many, each is seen too seldom to learn anything. The paper
# {cite}`kim2024topdown` tries four sizes on COCO and finds 512 best, and it monitors the perplexity of the codes, but
# it gives no rule that could be followed on other data. Its figures are not in this book's transcription
# ([the paper's tables](07_results.ipynb)).
#
# The threshold below which a code is revived is scaled with $E$: it stays the same share of the average number of hits
# that a code gets. Otherwise a larger codebook would also be a more restless one.
#
# Training with the paper's decoder begins on a plateau, and [a run that ends there](08_ablation.ipynb) scores like a
# grid of cells whatever its codebook: look at the points before the means. `-p preset slotwise` shows more sizes with
# [the easier decoder](slotwise.md), which has no plateau.
#
# The chapter trains nothing: it reads `figures/tables/<preset>_codebook.csv`, `_categories.csv` and `_ablation.csv`,
# which `topdown tables` writes, and shows *not run* where a file or a row is missing.

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
preset = 'toybox'  # whose rows: toybox, slotwise or coco
metric = 'mbo_i'  # what 'best' means: fg_ari, mbo_i, mbo_c or miou

# %% tags=["hide-input"]
import numpy as np
import pandas as pd
import torch

import topdown
from topdown.book import plots, tables
from topdown.book.codebook_size import choose_codebook_size
from topdown.model.codebook import perplexity

if preset not in topdown.PRESETS:
    raise ValueError(
        f'preset must be one of {", ".join(topdown.PRESETS)}, got {preset!r}'
    )
if metric not in ('fg_ari', 'mbo_i', 'mbo_c', 'miou'):
    raise ValueError(f'metric must be fg_ari, mbo_i, mbo_c or miou, got {metric!r}')
plots.style()
folder = topdown.figures_dir() / 'tables'
usual = topdown.preset(preset).model.codebook_size
runs = tables.with_codebook_size(tables.read_runs(folder, f'{preset}_codebook'))
baseline = tables.read_runs(folder, f'{preset}_ablation')
baseline = baseline[baseline.variant == 'baseline']
titles = {'fg_ari': 'FG-ARI', 'mbo_i': 'mBO$_i$', 'perplexity': 'perplexity'}
checks = {}
print(
    f'{preset}: {len(runs)} runs, {runs.codebook_size.nunique()} sizes, '
    f'{runs.seed.nunique()} seeds; ',
    end='',
)
print(f'the preset has {usual} codes')

# %% [markdown]
# ## The result against the size
#
# Points are runs, the line joins their means; the band is the baseline, which has no codebook. The dotted diagonal on
# the right is where all codes would be used alike.

# %% tags=["hide-input"]
# alt: FG-ARI, mBO and perplexity against the size of the codebook: points are runs,
#   lines their means, the band is the baseline.
lines = (
    {'true categories': 16} if topdown.preset(preset).data.dataset == 'toybox' else {}
)
if len(runs) and 'perplexity' in runs:
    lines["the rule's choice"] = choose_codebook_size(runs)
if len(runs):
    figure = plots.show_lines(
        runs.assign(variant='top-down'),
        'codebook_size',
        titles,
        'variant',
        'E',
        log=True,
    )
    for axis in figure.axes:
        for (name, size), style in zip(lines.items(), (':', '--')):
            axis.axvline(size, color='0.2', ls=style, lw=1, label=name)
    for axis, name in zip(figure.axes, ('fg_ari', 'mbo_i')):
        if len(baseline):
            mean, half = baseline[name].mean(), baseline[name].std(ddof=0)
            axis.axhspan(mean - half, mean + half, color='0.6', alpha=0.25, lw=0)
    sizes = sorted(runs.codebook_size.unique())
    figure.axes[-1].plot(sizes, sizes, ':', color='0.5')
    figure.axes[-1].set_yscale('log', base=2)
    for old in figure.legends:
        old.remove()
    figure.legend(
        *figure.axes[0].get_legend_handles_labels(), loc='outside lower center', ncols=3
    )
else:
    print(tables.NOT_RUN)

# %%
shown = ('fg_ari', 'mbo_i', 'mbo_c', 'miou', 'perplexity', 'codes_used')
tables.means_table(runs, shown, 'codebook_size').rename_axis('E' if len(runs) else None)

# %% [markdown]
# Differences to the preset's own size, on the seeds that both have, with 95 % intervals over seeds.

# %%
named = runs.assign(variant='E = ' + runs.codebook_size.astype(str))
against_usual = tables.effects(named, f'E = {usual}', ['fg_ari', 'mbo_i'])
tables.show_effects(against_usual)

# %%
print(tables.say_effects(against_usual, f'E = {usual}'))

# %% [markdown]
# ## How many codes are in use
#
# The share of the codebook in use, $\text{perplexity} / E$, must fall once there are more codes than kinds of slots,
# and the perplexity itself must level off. Where it levels off, more codes do not find more.

# %%
if len(runs) and 'perplexity' in runs:
    use = runs.groupby('codebook_size')[['perplexity']].mean()
    use['share in use'] = use.perplexity / use.index
    times = use.index.to_series() / use.index.to_series().shift()
    growth = use.perplexity / use.perplexity.shift()
    use['growth for twice the codes'] = growth ** (1 / np.log2(times))
    use = use.round(2)
else:
    use = pd.DataFrame({'perplexity': [tables.NOT_RUN]})
use

# %% [markdown]
# ## A rule without labels
#
# The paper's rule is not known, so this book has one of its own (`topdown.codebook_size`): **the largest size tried
# whose perplexity is at least half of it**. As long as most codes are in use, a larger codebook can still tell more
# apart; once most are idle, further codes add nothing that slots ask for. It needs runs of a few sizes and no label.

# %%
if len(runs) and 'perplexity' in runs:
    chosen = choose_codebook_size(runs)
    print(
        f'sizes tried: {", ".join(map(str, sorted(runs.codebook_size.unique())))}; the '
        f'rule chooses E = {chosen}'
    )
    against_best = runs.groupby('codebook_size')[metric].mean()
    best = int(against_best.idxmax())
    print(f'best mean {tables.NAMES[metric]}: E = {best}')
    found = tables.effects(named, f'E = {best}', [metric])
    for row in found[found.variant == f'E = {chosen}'].itertuples():
        effect = tables.effect_text(row.difference, row.low, row.high)
        print(f'the choice minus the best: {effect} points, {row.seeds} seeds')
    print(f'all sizes: {against_best.min():.1f} to {against_best.max():.1f}')
else:
    print(tables.NOT_RUN)

# %% [markdown]
# Choosing can only be worth while if sizes differ. The last line says how much there was to win.
#
# ## Does it follow the number of categories?
#
# Toybox can be made with fewer categories. If codes stand for categories, fewer categories should need fewer codes: the
# perplexity should level off earlier, and the best size should move to the left. These rows have one seed a case; [a
# chapter of its own](19_how_many_codes.ipynb) goes on from here, with a prediction and three seeds.

# %% tags=["hide-input"]
# alt: mBO and perplexity against the size of the codebook, one line for each number of
#   categories.
kinds = tables.read_runs(folder, f'{preset}_categories')
if not len(kinds):
    kinds = tables.read_runs(folder, 'slotwise_categories')
    print('rows of the easier decoder, preset slotwise')
kinds = tables.with_codebook_size(kinds)
if len(kinds) and 'categories' in kinds:
    kinds['kinds'] = kinds.categories.astype(int).astype(str) + ' categories'
    kinds = kinds.sort_values(['categories', 'codebook_size'])
    plots.show_lines(
        kinds,
        'codebook_size',
        {metric: tables.NAMES[metric], 'perplexity': 'perplexity'},
        'kinds',
        'E',
        log=True,
    )
else:
    print(tables.NOT_RUN)

# %% tags=["hide-input"]
if len(kinds) and 'categories' in kinds:
    by_count = kinds.groupby('categories')
    best = kinds.groupby(['categories', 'codebook_size'])[metric].mean().unstack()
    largest = kinds[kinds.codebook_size == kinds.codebook_size.max()]
    summary = pd.DataFrame(
        {
            'best E': best.idxmax(axis=1),
            'chosen E': [choose_codebook_size(part) for _, part in by_count],
            f'best {tables.NAMES[metric]}': best.max(axis=1).round(1),
            'spread over sizes': (best.max(axis=1) - best.min(axis=1)).round(1),
            'perplexity at the largest E': largest.groupby('categories')
            .perplexity.mean()
            .round(1),
        }
    )
else:
    summary = pd.DataFrame({'best E': [tables.NOT_RUN]})
summary

# %% [markdown]
# ## Checks

# %% tags=["hide-input"]
# NBVAL_CHECK_OUTPUT
both = pd.concat([runs, kinds], ignore_index=True).reindex(
    columns=['codebook_size', 'perplexity', 'codes_used']
)
measured = both.dropna()
checks['perplexity is at most the number of codes in use'] = bool(
    (measured.perplexity <= measured.codes_used + 1e-6).all()
)
checks['codes in use are at most the codebook'] = bool(
    (measured.codes_used <= measured.codebook_size).all()
)
tried = set(both.codebook_size)
checks['the rule chooses a size that was tried'] = (
    not len(measured) or choose_codebook_size(measured) in tried
)
checks['a uniform codebook has perplexity E'] = (
    abs(float(perplexity(torch.ones(64))) - 64) < 1e-3
)
assert all(checks.values()), checks
print('\n'.join(f'{name}: {value}' for name, value in checks.items()))

# %% [markdown]
# ## What was seen, and its limits

# %% tags=["hide-input"]
if len(runs):
    means = runs.groupby('codebook_size')[metric].mean()
    best = int(means.idxmax())
    rivals = tables.effects(named, f'E = {best}', [metric])
    alike = [
        row.variant
        for row in rivals.itertuples()
        if tables.sign(row.low, row.high) == 0
    ]
    print(
        f'Best mean {tables.NAMES[metric]}: E = {best} ({means.max():.1f}); lowest: '
        f'{means.min():.1f}.'
    )
    print(
        f'Not told apart from it over {runs.seed.nunique()} seeds: '
        f'{", ".join(alike) or "no other size"}.'
    )
    if len(baseline):
        print(f'The baseline, without a codebook, has {baseline[metric].mean():.1f}.')
else:
    print(tables.NOT_RUN)

# %% [markdown]
# A codebook size is a statement about the data only if the codes are about the data. Where codes hold little of what
# kind of thing a slot stands for ([what codes mean](10_what_codes_mean.ipynb)), the best size is a matter of how slots
# are scaled, and it need not follow the number of categories. The number of categories has one seed a case, which shows
# a trend and no more. And sizes were compared at one length of training: a large codebook may need more of it.
#
# **Exercises**
#
# 1. The perplexity of a batch cannot exceed the number of its slots. Where does that bite?
# 2. Why is *share in use* alone no rule?
# 3. Should the rule look at the perplexity over a batch or over the validation set?

# %% [markdown] tags=["solution"]
# <details><summary><b>Solutions</b></summary>
#
# 1. With batches of 16 images and 7 slots there are 112 slots: for codebooks of 128 and more, the perplexity of a
#    batch levels off whatever the codes do. The tables here count over the whole validation set.
# 2. It is largest for the smallest codebook: one code is always in use.
# 3. Over the set, for the reason of the first exercise; the training log shows that of a batch because it is at hand.
#
# </details>

# %% tags=["solution", "hide-cell"]
config = topdown.preset(preset)
print(
    f'slots in a batch of the preset {preset}: '
    f'{config.train.batch_size * config.model.num_slots}'
)
