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
# # How many codes does it take?
#
# **Question of this chapter: do the number of codes in use, and the best size $E$ of the codebook, follow from what there
# is to tell apart: the number of categories, how frequent each is, and the slots of an image?**
#
# The paper {cite}`kim2024topdown` takes 512 codes for COCO, and finds that fewer and more do worse. [Another
# chapter](09_codebook_size.ipynb) shows sizes on one data set and a rule that watches perplexity. This one asks for a rule
# that needs no run at all, and tests it on runs that it was not made from: with 4, 8 and 16 categories of toys, as frequent as each
# other or by Zipf's law (that of rank $r$ has frequency $\propto 1 / r$), three sizes of the codebook and three seeds. The
# threshold at which a code is revived is scaled with $E$, so that it is the same share of a code's average hits; since that
# joins two causes, it is crossed with $E$ as well.
#
# The decoder is [the easier one](slotwise.md), which has no plateau for runs to end on: with the paper's decoder some do, and
# no size of the codebook is told from the best one ([](09_codebook_size.ipynb)).
#
# ## What was predicted
#
# [Before the runs](#predicted-codes): with $K$ slots an image,
#
# $$ \text{perplexity} = a\, E^b\, (K / 7)^c , $$
#
# where $a$ and $b$ come from older runs of eight sizes with 16 categories (`slotwise_codebook_then.csv`, as they were), $c$ from older runs with 4, 7 and 11 slots, and
# *nothing* from categories: older runs, with one seed a case, had shown no sign of them. (With 16 categories, the rows below
# are among those older runs, and so are the first seeds of four and eight at two sizes: they are shown and *not counted*.) The rival is what "one code a
# kind of thing" would say: the same curve, but cut off at $9 e^H$, where $H$ is the entropy of kinds, the ground being half
# of all slots, and 9 is the number of cells of a grid of places, since codes also sort by place
# ([](10_what_codes_mean.ipynb)).
#
# And of the best $E$: that none is told from another; the rule that is held against the paper's 512 anyhow is
# $E = K e^{H'}$, slots times kinds of toys ($H'$ leaves out the ground), to the nearest size tried.
#
# The chapter trains nothing: it reads `figures/tables/slotwise_kinds.csv`, which
# `topdown tables --preset slotwise --only kinds` writes, and the older tables, and shows *not run* where a file or a row is
# missing.

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
preset = 'slotwise'  # whose rows
metric = 'mbo_i'  # what 'best' means: fg_ari, mbo_i, mbo_c or miou

# %% tags=["hide-input"]
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

import topdown
from topdown.book import plots, tables
from topdown.book.codebook_size import choose_codebook_size
from topdown.book.codes import CELLS
from topdown.book.plan import KINDS, KINDS_SIZES, plan
from topdown.toybox.catalogue import CATEGORIES

if metric not in ('fg_ari', 'mbo_i', 'mbo_c', 'miou'):
    raise ValueError(f'metric must be fg_ari, mbo_i, mbo_c or miou, got {metric!r}')
jobs = plan(preset, ['kinds'])  # refuses presets without the experiment
plots.style()
pd.set_option('display.max_colwidth', None)
folder = topdown.figures_dir() / 'tables'
base = topdown.preset(preset)
runs = tables.read_runs(folder, f'{preset}_kinds')
for name in ('setting', 'codebook_size', 'perplexity', 'revived', metric):
    if name not in runs:
        runs[name] = pd.Series(dtype=str if name == 'setting' else float)
runs['case'] = runs.setting.str.rsplit(', E = ', n=1).str[0]
runs['codebook_size'] = runs.codebook_size.astype(int)
older = pd.concat([
    tables.read_runs(folder, f'{preset}_{name}')
    for name in ('codebook', 'categories', 'difficulty')
])  # fmt: skip
marks = set(zip(older.get('config', ()), older.seed))
configs = runs.get('config', pd.Series(runs.index, dtype=object))
fresh = [pair not in marks for pair in zip(configs, runs.seed)]
runs['fresh'] = pd.Series(fresh, index=runs.index, dtype=bool)
cells = pd.MultiIndex.from_product([KINDS, KINDS_SIZES], names=['setting', 'E'])
FREQUENCIES = [name for name, (_, times) in KINDS.items() if times == 1]
checks = {}
print(f'{preset}: {len(runs)} of {len(jobs)} runs, {runs.seed.nunique()} seeds')

# %% tags=["hide-input"]


def entropy(case):
    """H', the entropy of toys' categories in a setting, in nats."""
    look = KINDS[case][0].get('toybox', {})
    count = look.get('categories', len(CATEGORIES))
    share = np.arange(1, count + 1) ** -float(look.get('zipf', 0))
    share /= share.sum()
    return -(share * np.log(share)).sum()


def fitted():
    """a, b and c of the prediction, from older rows; None if there are none."""
    sizes = tables.with_codebook_size(
        tables.read_runs(folder, f'{preset}_codebook_then')
    )
    slots = tables.read_runs(folder, f'{preset}_difficulty')
    if not (len(sizes) and len(slots)):
        return None
    b, log_a = np.polyfit(np.log(sizes.codebook_size), np.log(sizes.perplexity), 1)
    number = {'few slots': 4, 'as it is': 7, 'many slots': 11}
    slots = slots[(slots.variant == 'top-down') & slots.setting.isin(number)]
    c, _ = np.polyfit(
        np.log(slots.setting.map(number) / 7), np.log(slots.perplexity), 1
    )
    return np.exp(log_a), b, c


fit = fitted()


def predicted(size, slots=base.model.num_slots):
    """Perplexity by the formula; NaN without the rows that it comes from."""
    return np.nan if fit is None else fit[0] * size ** fit[1] * (slots / 7) ** fit[2]


def rival(size, case):
    """Perplexity if codes stood for kinds in places."""
    return min(predicted(size), CELLS**2 * np.exp(np.log(2) + entropy(case) / 2))


if fit is not None:
    print('a = {:.2f}, b = {:.3f}, c = {:.2f}'.format(*fit))

# %% [markdown]
# ## Perplexity: predicted and found
#
# Over the validation set, mean over seeds; errors of both predictions in percent of what was found, over *fresh* runs, that
# no older table has. Without revival and with more of it nothing was predicted but the direction.

# %% tags=["hide-input"]
groups = runs.groupby(['case', 'codebook_size'])
use = groups.perplexity.mean().rename_axis(['setting', 'E']).reindex(cells)
fresh = runs[runs.fresh].groupby(['case', 'codebook_size']).perplexity
fresh = fresh.agg(['mean', 'size']).rename_axis(['setting', 'E']).reindex(cells)
table = pd.DataFrame({
    'found': use,
    'seeds from to': groups.perplexity.agg(
        lambda x: f'{x.min():.1f} to {x.max():.1f}'
    ).rename_axis(['setting', 'E']).reindex(cells),
    'fresh runs': fresh['size'].fillna(0).astype(int),
    'predicted': [predicted(size) for _, size in cells],
    'by kinds': [rival(size, case) for case, size in cells],
})  # fmt: skip
for name in ('predicted', 'by kinds'):
    table[f'{name}, error %'] = 100 * (table[name] / fresh['mean'] - 1)
errors = table[table.index.get_level_values('setting').isin(FREQUENCIES)]
table.round(1).astype(object).where(table.notna(), tables.NOT_RUN)

# %% tags=["hide-input"]
# alt: Perplexity against the size of the codebook, both logarithmic, one line a setting
#   of categories, with the prediction dashed and, dotted, where codes that stand for
#   kinds would stop.
if len(runs):
    figure, axis = plt.subplots(figsize=(7, 3.6))
    for name, colour in plots.palette(FREQUENCIES).items():
        line = use[name].dropna()
        axis.plot(line.index, line, 'o-', color=colour, label=name)
        axis.axhline(CELLS**2 * 2 * np.exp(entropy(name) / 2), ls=':', color=colour)
    axis.plot(KINDS_SIZES, [predicted(size) for size in KINDS_SIZES], 'k--')
    axis.set(xscale='log', yscale='log', xlabel='E', ylabel='perplexity')
    axis.set_xticks(KINDS_SIZES, KINDS_SIZES)
    axis.legend(fontsize=8)

# %% [markdown]
# ## Revival, crossed with size
#
# Top-down with 16 categories, at one $E$ and seed by seed: the perplexity without revival, and with three times the
# threshold, over that with the usual one. Below 1 means that fewer codes are in use.

# %% tags=["hide-input"]
usual = '16 categories'
pivot = runs.pivot_table(
    index=['codebook_size', 'seed'], columns='case', values='perplexity'
)
others = [name for name, (_, times) in KINDS.items() if times != 1]
if {usual, *others} <= set(pivot):
    ratio = pivot[others].div(pivot[usual], axis=0).dropna()
    ratio = ratio.groupby('codebook_size').agg(['mean', 'min', 'max']).round(2)
else:
    ratio = pd.DataFrame({'times': [tables.NOT_RUN]})
ratio

# %% [markdown]
# ## The best size
#
# One size minus another, setting by setting, over three seeds with 95 % intervals, points of the metric.

# %% tags=["hide-input"]
rows = []
for case, part in runs.groupby('case', sort=False):
    named = part.assign(variant='E = ' + part.codebook_size.astype(str))
    for small in KINDS_SIZES[:-1]:
        found = tables.effects(named, f'E = {small}', [metric])
        for row in found.itertuples():
            if int(row.variant[4:]) > small:
                rows.append([case, f'{row.variant} minus {small}', *row[3:6]])
columns = ['setting', 'sizes', 'difference', 'low', 'high']
steps = pd.DataFrame(rows, columns=columns)
steps['sign'] = [tables.sign(r.low, r.high) for r in steps.itertuples()]
steps['text'] = [
    tables.effect_text(r.difference, r.low, r.high) for r in steps.itertuples()
]
if len(steps):
    shown = steps.pivot(index='setting', columns='sizes', values='text')
    shown = shown.reindex(KINDS).fillna(tables.NOT_RUN)
else:
    shown = pd.DataFrame({tables.NAMES[metric]: [tables.NOT_RUN]})
shown

# %% [markdown]
# What each way of choosing chooses and, in brackets, gives away: the best of the three sizes by its mean over seeds, minus
# that of the size chosen. *By the rule* is $K e^{H'}$, *the paper's* is 512, *by perplexity* is the rule of [the chapter on
# sizes](09_codebook_size.ipynb), which needs runs of all sizes.

# %% tags=["hide-input"]
rows = {}
for case in FREQUENCIES:
    part = runs[runs.case == case]
    means = part.groupby('codebook_size')[metric].mean()
    if set(means.index) != set(KINDS_SIZES):
        continue
    wish = base.model.num_slots * np.exp(entropy(case))
    nearest = min(KINDS_SIZES, key=lambda size: abs(np.log(size / wish)))
    ways = {
        'by the rule': nearest,
        "the paper's": 512,
        'by perplexity': choose_codebook_size(part),
        'the smallest': min(KINDS_SIZES),
    }
    rows[case] = {'K exp H': wish, 'best E': means.idxmax()}
    for name, size in ways.items():
        rows[case] |= {f'{name}: E': size, f'{name}: lost': means.max() - means[size]}
lost = pd.DataFrame.from_dict(rows, orient='index').rename_axis('setting').round(2)
shown = pd.DataFrame({'lost': [tables.NOT_RUN]})
if len(lost):
    shown = lost[['K exp H', 'best E']].copy()
    for name in ways:
        pairs = zip(lost[f'{name}: E'], lost[f'{name}: lost'])
        shown[name] = [f'{size} ({points:.2f})' for size, points in pairs]
shown

# %% [markdown]
# ## Elsewhere
#
# The same formula, made on one encoder and one decoder, on rows of top-down models that differ in more than the number of
# kinds: other decoders, other tokens, photographs. Of the dial, all levels together; sets differ in the number of slots that
# perplexity is counted over.

# %% tags=["hide-input"]
elsewhere = {
    'the default, paper\'s decoder': 'toybox_codebook',
    'tokens with categories': 'toybox_category',
    'the dial': 'dial',
    'photographs': 'photos_slotwise',
}  # fmt: skip
rows = []
for name, file in elsewhere.items():
    found = tables.read_runs(folder, file)
    if 'perplexity' not in found:
        continue
    found = found[(found.variant == 'top-down') & found.perplexity.notna()]
    for size, part in found.groupby('codebook_size'):
        slots = topdown.preset(part.preset.iloc[0]).model.num_slots
        guess, mean = predicted(size, slots), part.perplexity.mean()
        rows.append([name, int(size), slots, len(part), mean, guess])
columns = ['where', 'E', 'slots', 'runs', 'found', 'predicted']
far = pd.DataFrame(rows, columns=columns)
far['error %'] = 100 * (far.predicted / far.found - 1)
far.round(1).set_index(['where', 'E'])

# %% [markdown]
# ## Where and what
#
# Percent of true objects that are found, and that are found *and* whose category a linear probe reads off
# ([](17_crowds.ipynb) says how): off the slot, off the mean token under its mask, and off that under the true mask.

# %% tags=["hide-input"]
JOINT = {
    f'joint_{name.replace(" ", "_")}': name
    for name in ('found', 'slots', 'tokens under masks', 'tokens under truth')
}
joint = runs.assign(**{name: 100 * runs[name] for name in JOINT if name in runs})
tables.means_table(joint, JOINT, 'setting').rename(columns=JOINT)

# %% [markdown]
# ## Checks

# %% tags=["hide-input"]
# NBVAL_CHECK_OUTPUT
checks['runs are those of the plan'] = set(zip(runs.case, runs.codebook_size)) <= set(
    cells
)
checks['no run is there twice'] = not runs.duplicated(['setting', 'seed']).any()
checks['perplexity lies between 1 and E'] = bool(
    runs.perplexity.between(1, runs.codebook_size).all()
)
checks['the rule names one size in all settings'] = (
    not len(lost) or lost['by the rule: E'].nunique() == 1
)
checks['entropy of equal frequencies is the logarithm of their number'] = bool(
    np.isclose(entropy('8 categories'), np.log(8))
)
checks['Zipf lowers it'] = entropy('8 categories, Zipf') < entropy('8 categories')
assert all(checks.values()), checks
print('\n'.join(f'{name}: {value}' for name, value in checks.items()))

# %% [markdown]
# ## What was seen, and its limits

# %% tags=["hide-input"]
if errors.found.notna().any():
    known = errors.dropna(subset=['predicted, error %'])
    for name, what in (('predicted', 'the formula'), ('by kinds', 'one code a kind')):
        off = known[f'{name}, error %'].abs()
        print(
            tables.wrap(
                f'Perplexity by {what}: off by {off.mean():.0f} % in the mean and by '
                f'{off.max():.0f} % at most, of {len(off)} fresh settings; '
                f'below 15 % in '
                f'{(off < 15).sum()}.'
            )
        )
    told = steps[steps.setting.isin(FREQUENCIES)]
    large = told[(told.sign != 0) & (told.difference.abs() > 1)]
    print(
        tables.wrap(
            f'Best size: of {len(told)} differences, {(told.sign != 0).sum()} exclude '
            f'zero and {len(large)} of these exceed one point of '
            f'{tables.NAMES[metric]}.'
        )
    )
    came = {}
    if len(known):
        came['perplexity within 15 %'] = (known['predicted, error %'].abs() < 15).all()
    if others[0] in ratio.columns.get_level_values(0) and 512 in ratio.index:
        at = ratio.loc[512].xs('mean', level=1)
        came['without revival lower, with more of it higher, by 5 %'] = (
            at[others[0]] < 0.95 and at[others[1]] > 1.05
        )
    if len(told):
        came['no size told from another by more than a point'] = not len(large)
    for name, holds in came.items():
        print(tables.wrap(f'Predicted: {name}: {"came true" if holds else "did not"}.'))
    if len(lost):
        spans = lost.filter(like=': lost').mean()
        print(
            tables.wrap(
                'Given away in the mean: '
                + ', '.join(f'{n[:-6]} {v:.2f}' for n, v in spans.items())
                + ' points.'
            )
        )
    if len(far):
        print(
            tables.wrap(
                'Elsewhere the formula is off by '
                f'{far["error %"].min():+.0f} to {far["error %"].max():+.0f} %.'
            )
        )
else:
    print(tables.NOT_RUN)

# %% [markdown]
# One decoder, one encoder and one length of training made the formula and most of its test; a codebook that is trained
# longer, or on more kinds than sixteen, may do otherwise. All images here have seven slots, so the part of the formula with
# $K$ is fitted and not tested. The rule for $E$ names 64 in all six settings, so what is tested of it is 64 against 512 and
# 8; and it can only be wrong where sizes differ, which they hardly do. Perplexity is counted over the validation set, whose
# slots number 3,500: it could not exceed that.
#
# **Exercises**
#
# 1. Zipf's law makes one toy in three of one category. Why need that not show in the perplexity?
# 2. What would the table look like if each code stood for one category in any place?
# 3. Why does revival matter more for a large codebook?

# %% [markdown] tags=["solution"]
# <details><summary><b>Solutions</b></summary>
#
# 1. Codes divide what varies most among slots, and that is where they are and how large, not what they show; a frequent
#    category is in as many places as a rare one.
# 2. Perplexity is the exponential of an entropy. With half of all slots on the ground it would level off at $2 \sqrt C$ for
#    $C$ categories as frequent as each other, 8 for sixteen, whatever $E$, and lower with Zipf's law.
# 3. A code gets its share of a batch's 112 slots. Among 512 codes that is one hit in five steps on average, so chance
#    alone leaves many without for long, and only revival brings them back to where slots are.
#
# </details>
