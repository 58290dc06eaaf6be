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
# # Where could top-down information help?
#
# **Question of this chapter: tokens tell the category of a patch not at all, a little, or for certain. At which of
# these settings does the top-down pathway help, if at any, and is it the codes that do it?**
#
# That a pathway does not help on some tokens says little as long as nobody has seen it help on any. The premise of the
# paper {cite}`kim2024topdown` is that a slot can know what a patch cannot: *what* is there, and that this knowledge
# then tells which patches belong to it. Here the premise is made true by construction, and by degrees.
#
# The token of a patch is that of the shipped encoder, and beside it, in 16 further channels, *evidence* on its category
# $y$ (the ground counts as one),
#
# $$ \rho\, u_y + \sqrt{1 - \rho^2}\; \epsilon , $$
#
# with the fixed corners $u_y$ of a simplex and noise $\epsilon$ that is fresh in every patch and as long as $u_y$.
# $\rho$ is the dial, from 0, noise alone, to 1; it leaves the variance of tokens as it is. Evidence channels have twice
# the spread of the others, so that the loss does not overlook them.
#
# An earlier form had colours and place in the encoder's stead, added to the evidence. On those tokens the baseline
# stayed, for 3,000 steps, with slots that share out the image as a grid of cells, until evidence was certain: a model
# that finds no objects at all cannot show what helps to find them.
#
# Beside the pathway stand three controls. *six-iterations* has the same number of updates and no modulation. *without
# quantization* modulates by the slots themselves instead of by codes. *shuffled codes* gives every slot the code of
# another slot of the same image: the codes are there, but not whose they are.
#
# The chapter trains nothing: it reads `figures/tables/<preset>.csv`, which `topdown tables --preset dial` writes, and
# shows *not run* where the file or a row is missing.

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
preset = 'dial'  # whose rows: dial, or dial_smoke
patches = 12  # over so many patches of one toy evidence is averaged, beside one alone

# %% tags=["hide-input"]
import numpy as np
import pandas as pd

import topdown
from topdown.book import plots, tables
from topdown.book.claims import PARTLY, REPRODUCED, TOO_FEW, claim_verdict
from topdown.book.plan import CONTROLS, LEVELS
from topdown.data.dial import accuracy
from topdown.evaluate.statistics import seed_interval, smallest_difference

if preset not in ('dial', 'dial_smoke'):
    raise ValueError(f'preset must be dial or dial_smoke, got {preset!r}')
if not (isinstance(patches, int) and patches >= 1):
    raise ValueError(f'patches must be a whole number from 1, got {patches!r}')
plots.style()
pd.set_option('display.max_colwidth', None)
folder = topdown.figures_dir() / 'tables'
name = preset if preset == 'dial' else f'{preset}_dial'
runs = tables.read_runs(folder, name)
if 'evidence' not in runs:
    runs['evidence'] = pd.Series(dtype=float)
metrics = ('fg_ari', 'mbo_i')
by_masks = {
    'decoder': runs,
    'slot': runs.assign(**{m: runs.get(f'slots_{m}', float('nan')) for m in metrics}),
}
checks = {}
print(
    f'{preset}: {len(runs)} runs, {runs.evidence.nunique()} of {len(LEVELS)} levels, '
    f'{runs.variant.nunique()} of {len(CONTROLS)} models, {runs.seed.nunique()} seeds'
)

# %% [markdown]
# ## What a patch knows, and what a slot could
#
# How often the category is right that lies nearest to the evidence: of one patch, and of the mean over several patches
# of one toy. Where the first is low and the second high, a slot that holds the right patches knows what none of them
# knows.

# %%
levels = pd.DataFrame(
    {
        'one patch, %': [100 * accuracy(level) for level in LEVELS],
        f'mean of {patches}, %': [100 * accuracy(level, patches) for level in LEVELS],
    },
    index=pd.Index(LEVELS, name='evidence'),
)
levels.round(1)

# %% [markdown]
# ## All models at every level
#
# Percent on held-out images, mean ± standard deviation over seeds, of the decoder's masks and of slot attention's.

# %%
if len(runs):
    parts = {
        masks: tables.means_table(
            found.assign(row=found.setting + ', ' + found.variant), metrics, 'row'
        )
        for masks, found in by_masks.items()
    }
    means = pd.concat(parts, axis=1)
    means.index = pd.MultiIndex.from_tuples(
        [tuple(row.rsplit(', ', 1)) for row in means.index], names=['level', 'model']
    )
else:
    means = pd.DataFrame({'runs': [tables.NOT_RUN]})
means

# %% [markdown]
# ## What every variant adds to the baseline
#
# Differences on the seeds that both have, with 95 % intervals over seeds; filled points: the interval excludes zero.
# Below them, of the models with a codebook: how far codes agree with the category of the object that their slot covers
# (adjusted mutual information, 0 for chance, 1 for identical), and the perplexity of the codes, as their share of the
# codebook.

# %% tags=["hide-input"]
# alt: What each variant adds to the baseline against how often one patch tells its
#   category, with 95 % intervals over seeds; below, agreement of codes with
#   categories, and codes in use.
ticks = {accuracy(level): f'{100 * accuracy(level):.0f}' for level in LEVELS}
panels = {}
for masks, found in by_masks.items():
    gained = tables.effects_by(found, 'evidence', metrics=metrics)
    for metric in metrics:
        part = gained[gained.metric == metric].rename(columns={'difference': 'mean'})
        panels[f'{tables.NAMES[metric]}, {masks} masks'] = part
meanings = {
    'code_category_ami': ('AMI of codes and category', 1.0),
    'perplexity': ('perplexity / E', topdown.preset(preset).model.codebook_size),
}
for column, (title, scale) in meanings.items():
    rows = [
        [level, variant, *seed_interval(part.to_numpy() / scale)]
        for (level, variant), part in runs.reindex(columns=[*runs, column])
        .loc[:, lambda frame: ~frame.columns.duplicated()]
        .dropna(subset=column)
        .groupby(['evidence', 'variant'], sort=False)[column]
    ]
    panels[title] = pd.DataFrame(
        rows, columns=['evidence', 'variant', 'mean', 'low', 'high']
    )
panels = {
    title: frame.assign(x=frame.evidence.map(accuracy))
    for title, frame in panels.items()
}
if len(runs):
    plots.show_intervals(panels, 'one patch, % right', ticks, columns=2)
else:
    print(tables.NOT_RUN)

# %% [markdown]
# ## Is it the codes?
#
# If top-down information is what helps, the pathway must lie above the baseline, and also above the models that do as
# much without it: six iterations, and the pathway with another slot's codes. Top-down minus each of them, over the
# seeds that both have:

# %% tags=["hide-input"]
rivals = ('baseline', 'six-iterations', 'shuffled codes', 'without quantization')
against = pd.concat(
    [
        part[part.variant == 'top-down'].assign(masks=masks, rival=rival)
        for masks, found in by_masks.items()
        for rival in rivals
        for part in [tables.effects_by(found, 'evidence', rival, metrics)]
    ],
    ignore_index=True,
)
if len(against):
    shown = against.assign(
        text=[
            tables.effect_text(row.difference, row.low, row.high)
            for row in against.itertuples()
        ],
        metric=against.metric.map(tables.NAMES),
    ).pivot(index=['evidence', 'rival'], columns=['masks', 'metric'], values='text')
    order = pd.MultiIndex.from_product([LEVELS, rivals], names=['evidence', 'minus'])
    shown = shown.reindex(order).fillna(tables.NOT_RUN)
else:
    shown = pd.DataFrame({'effect': [tables.NOT_RUN]})
shown

# %% [markdown]
# The verdict goes by [the rule that was stated before the runs](stated.md), on the decoder's masks: *above*, if the
# intervals of both metrics lie above zero, *in part*, if one of them does and the other does not lie below; *below*
# likewise. **Top-down information helps** at a level if the pathway lies above the baseline, six iterations and shuffled
# codes, all three, at least in part. **It harms** if it lies below both the baseline and six iterations, so that what is
# only the harm of more iterations is not laid at the pathway's door.


# %% tags=["hide-input"]
def word(found):
    """What the rule says of top-down minus a rival."""
    for side, name in {1: 'above', -1: 'below'}.items():
        verdict, _ = claim_verdict(found, side)
        if verdict in (REPRODUCED, PARTLY):
            return name if verdict == REPRODUCED else f'{name} in part'
    return verdict if verdict in (tables.NOT_RUN, TOO_FEW) else 'undecided'


primary = against[against.masks == 'decoder']
words = pd.DataFrame(
    {
        rival: [
            word(primary[(primary.evidence == level) & (primary.rival == rival)])
            for level in LEVELS
        ]
        for rival in rivals
    },
    index=[f'{100 * accuracy(level):.0f} %' for level in LEVELS],
).rename_axis('one patch right')
words

# %%
said = {'helps': [], 'harms': [], 'neither': [], tables.NOT_RUN: []}
for level, row in words.iterrows():
    over = row['baseline'], row['six-iterations'], row['shuffled codes']
    helps = all(found.startswith('above') for found in over)
    harms = all(found.startswith('below') for found in over[:2])
    outcome = 'helps' if helps else 'harms' if harms else 'neither'
    said[tables.NOT_RUN if tables.NOT_RUN in over else outcome].append(level)
for outcome, found in said.items():
    if found:
        print(f'{outcome} where one patch is right in: {", ".join(found)}')

# %% [markdown]
# How small an effect could have been seen: the true difference to the baseline whose interval lies above zero in four of
# five repetitions, by the scatter of the differences over seeds.

# %% tags=["hide-input"]
least = {}
for metric in metrics if len(runs) else ():
    table = runs.pivot_table(
        index='seed', columns=['evidence', 'variant'], values=metric
    )
    both = [
        level
        for level in LEVELS
        if {(level, 'top-down'), (level, 'baseline')} <= set(table)
    ]
    spread = [
        (table[level, 'top-down'] - table[level, 'baseline']).var() for level in both
    ]
    if np.isfinite(spread).any():
        count = int(runs[runs.variant == 'top-down'].seed.nunique())
        least[metric] = smallest_difference(np.nanmean(spread) ** 0.5, count)
print(
    ', '.join(f'{tables.NAMES[m]} {value:.1f} points' for m, value in least.items())
    or tables.NOT_RUN
)

# %% [markdown]
# ## What if codes were the categories?
#
# Whatever the codebook finds, the pathway's idea has a limit that can be tried: give it the truth. Here evidence is
# certain, but slots and decoder do not see it; it only names the code. *True categories* hands the second pass, for
# every slot, the category of what the slot attended to most in the first pass, in place of a code. *Shuffled
# categories* hands it that of another slot. If knowing *what* is there helps to find it, in the form that the paper
# gives this knowledge, it must show here. All other models are trained on the same tokens, without the evidence.

# %%
hinted = tables.read_runs(folder, f'{preset}_hints')
metrics_too = ('fg_ari', 'ari', 'mbo_i', 'slots_fg_ari', 'slots_mbo_i')
titled = {'slots_fg_ari': 'FG-ARI, slots', 'slots_mbo_i': 'mBO_i, slots'}
tables.means_table(hinted, metrics_too).rename(columns=titled)

# %% [markdown]
# Differences over the seeds that both have, with their 95 % interval, of the decoder's masks; and the smallest true
# difference that four of five repetitions would have told from zero.

# %% tags=["hide-input"]
rows = []
for a, b in (
    ('true categories', 'baseline'), ('true categories', 'six-iterations'),
    ('true categories', 'shuffled categories'), ('short true categories', 'baseline'),
    ('short true categories', 'six-iterations'),
    ('short true categories', 'short shuffled categories'),
    ('top-down', 'baseline'), ('six-iterations', 'baseline'),
):  # fmt: skip
    found = tables.effects(hinted, b, metrics)
    found = found[found.variant == a]
    row = {'model': a, 'minus': b, 'verdict': word(found)}
    for cell in found.itertuples():
        said_here = tables.effect_text(cell.difference, cell.low, cell.high)
        pairs = hinted.pivot_table(index='seed', columns='variant', values=cell.metric)
        scatter = (pairs[a] - pairs[b]).std()
        row[tables.NAMES[cell.metric]] = said_here
        row[f'{tables.NAMES[cell.metric]} could show'] = round(
            smallest_difference(scatter, cell.seeds), 1
        )
    rows.append(row)
truth_table = pd.DataFrame(rows).set_index(['model', 'minus'])
truth_table.fillna(tables.NOT_RUN)

# %% [markdown]
# **The truth does not help.** As they are, hints are long vectors, so that scales made of them are far apart from the first
# step on. Handed true categories in this form, the model finds objects far worse than the baseline does, and, in FG-ARI,
# worse than with the categories of other slots. Those harm, too, but less. Cut to an eighth (the rows *short*: vectors
# of length one), true categories are not told from the baseline in either metric. So how far codes reach decides more
# than what they say, and in neither form does knowing what is there help to find it. The *short* rows were added after
# the others had been seen, and are exploratory. Runs of this size do see effects if they are large, as the first rows
# show; one of a few points they would miss.
#
# Likely causes, neither of which was tested by itself. A category tells toys of two kinds apart, but no two toys of a
# kind, and no two slots on the ground; slots that are handed the same long code scale the same channels and want the
# same patches. And a slot that has gathered the mean of its patches asks for more of their kind in its next iteration
# anyway, without any pathway.

# %% [markdown]
# ## Checks

# %%
# NBVAL_CHECK_OUTPUT
checks['levels tell more and more'] = bool(
    levels.iloc[:, 0].is_monotonic_increasing
    and (levels.iloc[:, 1] >= levels.iloc[:, 0]).all()
)
checks['levels and models are those of the plan'] = set(runs.evidence) <= set(
    LEVELS
) and set(runs.variant) <= set(CONTROLS)
once = runs.drop_duplicates(['evidence', 'variant', 'seed'])
checks['no run is there twice'] = len(once) == len(runs)
scores = runs.reindex(columns=[*metrics, *(f'slots_{m}' for m in metrics)])
checks['metrics are percentages'] = bool(
    scores.stack().dropna().between(-100, 100).all()
)
assert all(checks.values()), checks
print('\n'.join(f'{name}: {value}' for name, value in checks.items()))

# %% [markdown]
# ## What was seen, and its limits

# %% tags=["hide-input"]
signs = [tables.sign(row.low, row.high) for row in against.itertuples()]
compared = against.assign(sign=signs)[against.rival == 'baseline']
for masks, part in compared.groupby('masks', sort=False):
    for metric, found in part.groupby('metric', sort=False):
        best = found.loc[found.difference.idxmax()]
        right = f'{100 * accuracy(best.evidence):.0f} %'
        effect = tables.effect_text(best.difference, best.low, best.high)
        print(
            tables.wrap(
                f'{masks} masks, {tables.NAMES[metric]}: top-down minus baseline is '
                f'largest where one patch is right in {right}: {effect}; above zero at '
                f'{(found.sign == 1).sum()}, below at {(found.sign == -1).sum()} of '
                f'{len(found)} levels.'
            )
        )
agree = panels['AMI of codes and category']
for variant, part in agree.groupby('variant', sort=False):
    low, high = part.loc[part.x.idxmin()], part.loc[part.x.idxmax()]
    print(
        f'{variant}: AMI of codes and category {low["mean"]:.2f} at evidence '
        f'{low.evidence:g}, {high["mean"]:.2f} at {high.evidence:g}.'
    )
unseen = ', '.join(f'{value:.1f} in {tables.NAMES[m]}' for m, value in least.items())
verdict = {
    True: 'There are settings in which top-down information helps, by the rule above.',
    False: 'In no setting that was run do the rows show that top-down information '
    f'helps, by the rule above. True differences below these could well be missed: '
    f'{unseen or tables.NOT_RUN}.',
}
judged = sum(len(said[outcome]) for outcome in ('helps', 'harms', 'neither'))
print(tables.wrap(verdict[bool(said['helps'])]) if judged else tables.NOT_RUN)

# %% [markdown]
# Tokens made like this are a model of what an encoder gives: in them the category lies in directions of its own, the
# same in every patch of a toy, and its noise is independent from patch to patch, which is the best case for averaging.
# Real tokens say more in some patches than in others, and neighbours err together. And slots are recurrent already: a
# slot that has gathered the mean of its evidence asks for more of the same in its next iteration, without any pathway.
# What the pathway could add is only what codes know beyond that, which six iterations show. And the dial turns what
# tokens tell, not what codes take up: the agreement of codes and categories, printed above, says how much of the
# evidence arrives in them. Codes follow what varies most among slots, and as long as the agreement stays near zero, a
# missing effect is a verdict on these codes and not on codes that do know. Few seeds see large differences only, and
# the rule asks for three comparisons at once, so that it misses effects rather than invents them. A run is judged where
# it ends, after the same number of steps for all models: one that leaves its plateau later is judged earlier on its way.
#
# **Exercises**
#
# 1. Why do codes agree with categories at all where evidence is noise alone, if they do?
# 2. At the last level, what is left for a model to get wrong?
# 3. Which control would be needed if *shuffled codes* were as good as the pathway?

# %% [markdown] tags=["solution"]
# <details><summary><b>Solutions</b></summary>
#
# 1. Toys of one category look alike, and a slot that covers one of them holds that, whatever the evidence says.
# 2. Which toy: two toys of one category in one image have the same evidence, and only the encoder's channels part them.
# 3. One whose codes hold nothing at all, such as one constant code for all slots: shuffled codes still tell every slot
#    what else is in the image, and still scale channels.
#
# </details>

# %%
config = topdown.preset(preset)
print(
    f'tokens: {config.encoder.image_size}² of width {config.encoder.feature_size}; '
    f'{config.train.steps} steps of {config.train.batch_size} images'
)
