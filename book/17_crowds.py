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
# # Crowded scenes, and codes between seeds and data sets
#
# **Question of this chapter: does the pathway help where there is more to tell apart, do two models that were trained
# apart come to use their codes in the same way, and are the categories that share a code alike?**
#
# If knowing *what* is there holds parts together, it should matter most where bottom-up grouping has least to go by:
# with many objects, small ones, ones that touch, and ones of which others hide a part. And if codes stand for
# something in the images, then two models with nothing in common but the data should put the same code, under whatever
# number, on the same things.
#
# Both are asked of models that are there already; nothing was trained for this chapter, and nothing was stated
# beforehand: all of it is *exploratory*. It reads `figures/tables/<preset>_crowds.csv` and `<preset>_agreement.csv`,
# which `topdown tables crowds --preset <preset>` writes from finished runs, and shows *not run* where a file or a row
# is missing.

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
preset = 'toybox'  # whose rows are shown: a preset with a main table or an ablation
photographs = 'photos_slotwise'  # whose rows are shown in the part on photographs
least = 0.1  # two models of which fewer slots match are not said to agree or not

# %% tags=["hide-input"]
import numpy as np
import pandas as pd

import topdown
from topdown.book import plots, tables
from topdown.book.crowds import BINS
from topdown.evaluate.statistics import smallest_difference

names = [preset, photographs]
for name in names:
    if name not in topdown.PRESETS:
        raise ValueError(
            f'preset and photographs must be of {", ".join(topdown.PRESETS)}, got '
            f'{name!r}'
        )
if not 0 <= least <= 1:
    raise ValueError(f'least is a share of slots, from 0 to 1, got {least!r}')
plots.style()
pd.set_option('display.max_colwidth', None)
folder = topdown.figures_dir() / 'tables'
RIVALS = ('baseline', 'six-iterations')
UNITS = {
    'objects': ('objects an image', ''),
    'size': ('share of the image', ' %'),
    'touching': ('touching', ''),
    'hidden': ('hidden by others', ' %'),
}
SHOWN = {
    'own': 'own images',
    'crowded': 'crowded images',
    'photographs': 'photographs',
}
ORDER = {by: number for number, by in enumerate(UNITS)}
checks = {}


def read_bins(name):
    """Rows of a preset by bin, with the bin's name as readers see it."""
    rows = tables.read_runs(folder, f'{name}_crowds')
    columns = ['images', 'by', 'low', 'high', 'count', 'fg_ari', 'mbo_i', 'recall']
    rows = rows.reindex(columns=[*rows, *(c for c in columns if c not in rows)])
    names = [bin_name(row.by, row.low, row.high) for row in rows.itertuples()]
    return rows.assign(bin=names).rename(columns={'low': 'edge', 'high': 'end'})


def bin_name(by, low, high):
    """'2', '7 to 8', '5 to 8 %', '20 % or more', 'yes'."""
    unit = UNITS.get(by, ('', ''))[1]
    if by == 'all':
        return 'all'
    if by == 'touching':
        return 'yes' if low else 'no'
    if high == np.inf:
        return f'{low:g}{unit} or more'
    last = high - 1 if by == 'objects' else high
    return f'{low:g}{unit}' if last == low else f'{low:g} to {last:g}{unit}'


bins = read_bins(preset)
photos = read_bins(photographs).assign(images='photographs')
every = pd.concat([bins, photos], ignore_index=True)
told = {name: tables.read_runs(folder, f'{name}_agreement') for name in names}
for name, rows in ((preset, bins), (photographs, photos)):
    found = rows.groupby('variant', sort=False).seed.nunique().to_dict()
    said = ', '.join(f'{variant} {count} seeds' for variant, count in found.items())
    print(f'{name}: {said or tables.NOT_RUN}')

# %% [markdown]
# ## The bins
#
# Images are sorted by their number of true objects. Objects are sorted by their share of the image, by whether a pixel
# of theirs lies beside one of another object, and by how much of them others hide. The last is known on Toybox alone,
# whose generator knows what is behind a toy; photographs and their labels do not say it.
#
# *Own* images are the preset's validation images; *photographs* those of the other preset. *Crowded* ones are Toybox
# scenes with up to sixteen toys, as no model has seen: they were trained on at most six toys with seven slots, and are
# given seventeen slots here. What they do there says how far they carry, not what training on such scenes would give.

# %%
if len(every):
    once = every[every.by != 'all'].drop_duplicates(['images', 'by', 'edge'])
    once = once.assign(place=once.by.map(ORDER)).sort_values(['place', 'edge'])
    shown = once.assign(by=once.by.map(lambda by: UNITS[by][0]))
    order = zip(shown.by, shown.bin)
    shown = shown.pivot_table(
        index=['by', 'bin'], columns='images', values='count', sort=False
    )
    shown = shown.map(lambda count: tables.NOTHING if np.isnan(count) else f'{count:g}')
    kinds = [kind for kind in SHOWN if kind in shown]
    shown = shown.loc[list(dict.fromkeys(order)), kinds]
else:
    shown = pd.DataFrame({'images or objects': [tables.NOT_RUN]})
shown

# %% [markdown]
# ## By the number of objects
#
# Top-down and six iterations minus the baseline, on the seeds that both have, masks of the decoder; bars are 95 %
# intervals over seeds, and points are filled where these exclude zero.

# %% tags=["hide-input"]
# alt: What the pathway and six iterations add to the baseline, by the number of objects
#   of an image, in FG-ARI and mBO: images like those trained on, crowded ones, and
#   photographs.
metrics = {'fg_ari': 'FG-ARI', 'mbo_i': 'mBO$_i$'}
counted = every[every.by == 'objects']
edges = sorted(counted.edge.unique())
panels = {}
for kind, part in counted.groupby('images', sort=False):
    found = tables.effects_by(part, 'edge', metrics=metrics)
    found = found.assign(x=found.edge.map(edges.index), mean=found.difference)
    for metric, title in metrics.items():
        panels[f'{title}, {SHOWN[kind]}'] = found[found.metric == metric]
if panels:
    ticks = {n: f'{edge:g}' for n, edge in enumerate(edges)}
    _ = plots.show_intervals(panels, 'objects an image, from', ticks, columns=2)
else:
    print(tables.NOT_RUN)

# %% [markdown]
# Runs that ended on the plateau that training begins on are results, too, and are in every row and interval; which they
# are is said below. FG-ARI of an image with few objects is a coarse number: an image of one object has 1 or 0, and
# with two objects and more slots than segments, splitting one of them costs much. So levels should not be compared
# between bins, but what is added can be, seed by seed.
#
# ## By number, size, touch and occlusion
#
# Top-down minus the two others in every bin, points of percent with 95 % intervals over seeds. For objects, mBO$_i$ is
# the mean over objects of the best overlap, and FG-ARI, which is of images, has no value.

# %% tags=["hide-input"]


def effect_table(rows):
    """Top-down minus its rivals in every bin, as text."""
    parts = []
    for rival in RIVALS:
        for (kind, by), part in rows[rows.by != 'all'].groupby(
            ['images', 'by'], sort=False
        ):
            found = tables.effects_by(part, 'bin', rival)
            found = found[found.variant == 'top-down']
            parts.append(found.assign(images=kind, by=UNITS[by][0], rival=rival))
    found = pd.concat(parts) if parts else pd.DataFrame()
    if not len(found):
        return pd.DataFrame({'effect': [tables.NOT_RUN]})
    found['text'] = [
        tables.effect_text(r.difference, r.low, r.high) for r in found.itertuples()
    ]
    found['what'] = found.metric.map(tables.NAMES) + ', minus ' + found.rival
    index = ['images', 'by', 'bin']
    table = found.pivot_table(
        index=index, columns='what', values='text', aggfunc='first', sort=False
    ).loc[list(dict.fromkeys(zip(*(found[name] for name in index))))]
    return table.fillna(tables.NOTHING).rename_axis(columns=None)


effect_table(bins)

# %% [markdown]
# ## On photographs
#
# The same on [photographs](14_photographs.ipynb), of the preset that the parameter `photographs` names. The number of
# objects is that of its labels, which leave out whatever is of none of COCO's 80 categories. What is hidden nobody
# knows, and there are no crowded images beside its own.

# %%
effect_table(photos)

# %% [markdown]
# ## More where it is harder?
#
# One number a comparison: what is added in the harder half of bins minus what is added in the easier half, seed by
# seed, every bin counting as often as it has images or objects. Harder are many objects, small ones, those that touch
# others and those that others hide; the cut is where the two halves are most alike in number.

# %% tags=["hide-input"]


def halves(rows, harder):
    """The harder half of bins minus the easier, a row per run; and where the cut is.

    Args:
        rows: by one thing, of one kind of images.
        harder: 1 if high bins are, -1 if low ones are.
    """
    counts = rows.groupby('edge')['count'].first()
    middle = (counts.cumsum().iloc[:-1] - counts.sum() / 2).abs().idxmin()
    upper = (rows.edge > middle).rename('upper')
    keys, scores = [rows.variant, rows.seed, upper], rows[['fg_ari', 'mbo_i']]
    weights = scores.notna().mul(rows['count'], axis=0)
    means = (scores * weights).groupby(keys).sum() / weights.groupby(keys).sum()
    high, low = (means.xs(side, level='upper') for side in (True, False))
    return (harder * (high - low)).reset_index(), rows.edge[upper].min()


contrasts = []
for (kind, by), part in every[every.by != 'all'].groupby(['images', 'by'], sort=False):
    if part.edge.nunique() > 1:
        gain, cut = halves(part, -1 if by == 'size' else 1)
        label = f'below {cut:g} %' if by == 'size' else bin_name(by, cut, np.inf)
        for rival in RIVALS:
            found = tables.effects(gain, rival)
            found = found[found.variant == 'top-down']
            contrasts.append(found.assign(images=kind, by=by, half=label, minus=rival))
contrasts = pd.concat(contrasts, ignore_index=True) if contrasts else pd.DataFrame()
if len(contrasts):
    contrasts['sign'] = [
        tables.sign(row.low, row.high) for row in contrasts.itertuples()
    ]
    shown = contrasts[['images']].copy()
    shown['harder half'] = contrasts.by.map(lambda by: UNITS[by][0]) + ': '
    shown['harder half'] += contrasts.half
    shown['top-down minus'] = contrasts.minus
    shown['metric'] = contrasts.metric.map(tables.NAMES)
    shown['added there, more'] = [
        tables.effect_text(r.difference, r.low, r.high) for r in contrasts.itertuples()
    ]
    words = {1: 'more', -1: 'less', 0: 'not told apart'}
    shown['verdict (exploratory)'] = contrasts.sign.map(words)
    shown = shown.set_index(['images', 'harder half'])
else:
    shown = pd.DataFrame({'more where it is harder': [tables.NOT_RUN]})
shown

# %% [markdown]
# With so many intervals of 95 %, one in twenty excludes zero where there is nothing to find; the count at the end of
# the chapter should be held against that.
#
# ## Where and what
#
# Of all true objects, the share that a decoder's mask overlaps with an IoU of one half or more (*found*); that are found
# and whose category a linear probe, fitted on objects of other images, reads off the slot (*slots*), or off the mean token under
# that slot's mask (*tokens under masks*); and whose category it reads off the mean token under the true mask (*tokens
# under truth*), which no model has a part in. Percent; mean and standard deviation over seeds, and differences to the
# baseline, seed by seed, below.

# %% tags=["hide-input"]
JOINT = {
    f'joint_{name.replace(" ", "_")}': name
    for name in ('found', 'slots', 'tokens under masks', 'tokens under truth')
}


def joint_scores(models):
    """Shares of objects in percent, a row per run."""
    models = models.reindex(columns=[*models, *(c for c in JOINT if c not in models)])
    models = models.dropna(subset='joint_found')
    return models.assign(**{name: 100 * models[name] for name in JOINT})


def joint_table(models):
    """Means of every model, and differences to the baseline."""
    joint = joint_scores(models)
    if not len(joint):
        return pd.DataFrame({'found': [tables.NOT_RUN]})
    shown = tables.means_table(joint, JOINT).rename(columns=JOINT)
    shown = shown.rename_axis(None).astype({'runs': str})
    found = tables.effects(joint, 'baseline', list(JOINT)[:3])
    texts = [
        tables.effect_text(r.difference, r.low, r.high) for r in found.itertuples()
    ]
    found = found.assign(text=texts, metric=found.metric.map(JOINT))
    minus = found.pivot(index='variant', columns='metric', values='text')
    minus.index = minus.index + ' minus baseline'
    return pd.concat([shown, minus]).fillna(tables.NOTHING)


pd.concat({name: joint_table(told[name]) for name in names}).fillna(tables.NOTHING)

# %%
for name in names:
    joint = joint_scores(told[name])
    lost = joint[joint.joint_found < 5]
    seeds = [
        f'{variant} {", ".join(map(str, part.seed))}'
        for variant, part in lost.groupby('variant', sort=False)
    ]
    said = '; '.join(seeds) or 'no run'
    print(
        f'{name}, found fewer than one object in twenty: '
        f'{said if len(joint) else tables.NOT_RUN}'
    )

# %% [markdown]
# ## Codes of two seeds
#
# Codes have numbers, not names: number 7 of one model has nothing to do with number 7 of another. But on the same
# image, a slot of one model can be matched with the slot of the other whose first-pass mask overlaps it by half or
# more, and over all such pairs the two partitions can be compared by AMI
# ([which measure, and why](10_what_codes_mean.ipynb)). What that is held against:
#
# - *shuffled*: the other model's codes, shuffled among all matched slots;
# - *in place*: shuffled only among slots whose centres lie in the same cell of a 6 x 6 grid. What is left is what the
#   two agree upon by looking at the same place, and whatever else they share must lie above it;
# - *position*, *category*: AMI of each model's codes with the ninth of the image that its slot looks at, and with the
#   category of the object that it covers, over matched slots that cover one in both models.

# %% tags=["hide-input"]
AMIS = {
    'codes_ami': 'codes of both',
    'shuffled_ami': 'shuffled',
    'in_place_ami': 'in place',
    'position_ami': 'position',
    'other_position_ami': 'position, other',
    'codes_objects_ami': 'codes of both, objects',
    'category_ami': 'category',
    'other_category_ami': 'category, other',
}
twos = {
    name: models.reindex(columns=['seed', 'other_seed', 'matched', *AMIS]).dropna(
        subset='other_seed'
    )
    for name, models in told.items()
}


def pair_table(twos):
    """A column per pair of seeds, and the mean over those that match well enough."""
    if not len(twos):
        return pd.DataFrame({'seeds': [tables.NOT_RUN]})
    index = [f'{r.other_seed:.0f}, {r.seed:.0f}' for r in twos.itertuples()]
    shown = twos.set_axis(index)[list(AMIS)].rename(columns=AMIS)
    shown.insert(0, 'slots matched, %', (100 * twos.matched).to_numpy())
    shown.loc['mean'] = shown[(twos.matched >= least).to_numpy()].mean()
    shown = shown.T.map(lambda v: tables.NOTHING if np.isnan(v) else f'{v:.2f}')
    return shown.rename_axis(columns='seeds')


pair_table(twos[preset])

# %%
pair_table(twos[photographs])

# %% [markdown]
# Two models of which fewer slots match than the parameter `least` says are shown and not counted, in the mean neither:
# a run that ended on its plateau cuts the image in another way than any other. Pairs share models, so there is no
# interval over them: what can be counted is in how many a number lies above another.
#
# ## Codes of two data sets
#
# The same measure for models that were trained on different things: Toybox, [the dial](13_the_dial.ipynb) at its best
# level, and photographs, top-down and three seeds each. They are shown the same images, each through its own encoder:
# Toybox's first validation images, which the dial's tokens are made of, too; and the photographs, of which there are no
# tokens of the dial. A model is a stranger to the other's images; *slots matched* says how far it cuts them as another
# model does. Rows are means over pairs of runs (`figures/tables/codes_across.csv`, `python -m tests.across`).

# %% tags=["hide-input"]
across = tables.read(folder / 'codes_across.csv')
if len(across):
    across['models'] = across.one + ', ' + across.other
    groups = across.groupby(['images', 'models'])
    between = groups[list(AMIS)].mean().rename(columns=AMIS)
    between.insert(0, 'slots matched, %', 100 * groups.matched.mean())
    between.insert(0, 'pairs', groups.size())
    between = between.round(2)
else:
    between = pd.DataFrame({'models': [tables.NOT_RUN]})
between

# %% [markdown]
# ## Are categories that share a code alike?
#
# Codes might sort by something between a category and no meaning at all: all animals here, all vehicles there. So of
# all pairs of objects of *different* categories, those that share a code are looked at: how alike are their categories,
# and how alike would they be if codes were shuffled among objects in the same ninth of the image whose slots are in
# the same third by size? (Codes sort by place and size, and kinds of things have their places and sizes.) Likeness is, by
# *meaning*, on photographs one for the same of COCO's twelve supercategories, else zero, and on toys the cosine of
# counts of the shapes, textures and colours that a table gives a category's parts; by *tokens*, the cosine of the
# categories' mean tokens under true masks, less their mean, in the encoder that the slots come from.
# In brackets, where 95 % of 200 shufflings lie (`figures/tables/codes_similar.csv`).

# %% tags=["hide-input"]
similar = tables.read(folder / 'codes_similar.csv')
if len(similar):
    similar['sign'] = [
        (row.shared > row.high) - (row.shared < row.low) for row in similar.itertuples()
    ]
    alike = similar[['preset', 'seed', 'alike', 'objects', 'shared', 'chance']].copy()
    alike['95 % of chance'] = [
        f'[{row.low:.2f}, {row.high:.2f}]' for row in similar.itertuples()
    ]
    alike['sharing a code'] = similar['sign'].map(
        {1: 'more alike', -1: 'less alike', 0: 'not told from chance'}
    )
    alike = alike.set_index(['preset', 'alike', 'seed']).sort_index().round(2)
else:
    alike = pd.DataFrame({'likeness': [tables.NOT_RUN]})
alike

# %% [markdown]
# What direct supervision would give, the true category in place of the code, is in [the chapter on the
# dial](13_the_dial.ipynb).
#
# ## Checks

# %% tags=["hide-input"]
# NBVAL_CHECK_OUTPUT
scores = ['fg_ari', 'mbo_i', 'recall']
made = [('a', 0, 1, 1, 10), ('a', 0, 2, 1, 20), ('a', 0, 3, 2, 40)]
made = pd.DataFrame(made, columns=['variant', 'seed', 'edge', 'count', 'mbo_i'])
gain, cut = halves(made.assign(fg_ari=np.nan), -1)
checks['halves of a made-up table'] = (gain.mbo_i.tolist(), cut) == ([15 - 40], 3)
checks['bins are those of the package'] = set(every.by) <= set(BINS)
place = ['images', 'by', 'edge']
checks['no bin is there twice'] = not every.duplicated(
    [*place, 'variant', 'seed']
).any()
checks['all runs were scored on the same objects'] = bool(
    (every.groupby(place)['count'].nunique() == 1).all()
)
checks['scores are percentages'] = bool(
    every[scores].stack().dropna().between(-100, 100).all()
)
spread = pd.concat(twos)[list(AMIS)].stack().dropna()
checks['agreement lies where it can'] = bool(spread.between(-1, 1).all())
main = pd.concat(
    [tables.read_runs(folder, f'{preset}{end}') for end in ('', '_ablation')]
)
whole = bins[bins.by.eq('all') & bins.images.eq('own')]
same = whole.merge(
    main.reindex(columns=['config', 'seed', 'device', *scores]),
    on=[c for c in ('config', 'seed', 'device') if c in whole],
)
checks['all bins together give the scores of the main tables'] = all(
    np.allclose(same[f'{m}_x'], same[f'{m}_y'], atol=1e-6) for m in scores
)
assert all(checks.values()), checks
print('\n'.join(f'{name}: {value}' for name, value in checks.items()))

# %% [markdown]
# ## What was seen, and its limits

# %% tags=["hide-input"]
if len(contrasts):
    for rival, part in contrasts.groupby('minus', sort=False):
        signs = part.sign.tolist()
        print(
            tables.wrap(
                f'Top-down minus {rival}: of {len(part)} comparisons of harder with '
                f'easier bins, {signs.count(1)} say that more is added where it is '
                f'harder, {signs.count(-1)} that less is; about {len(part) / 20:.1f} '
                'would say either by chance.'
            )
        )
    unseen = []
    for row in contrasts[contrasts.by.eq('objects')].itertuples():
        rows = every[every.by.eq('objects') & every.images.eq(row.images)]
        gain = halves(rows, 1)[0]
        pairs = gain.pivot(index='seed', columns='variant', values=row.metric)
        scatter = (pairs['top-down'] - pairs[row.minus]).std()
        could = smallest_difference(scatter, row.seeds)
        unseen.append(
            f'{could:.1f} ({tables.NAMES[row.metric]}, {row.images}, {row.minus})'
        )
    print(
        tables.wrap(
            'True differences between many and few objects that four of five '
            f'repetitions would have told from zero: {", ".join(unseen)} points.'
        )
    )
else:
    print(tables.NOT_RUN)

# %% tags=["hide-input"]
for name in names:
    effect = tables.effects(joint_scores(told[name]), 'baseline', ['joint_slots'])
    for row in effect[effect.variant == 'top-down'].itertuples():
        words = {1: 'above', -1: 'below', 0: 'not told apart from'}
        print(
            tables.wrap(
                f'{name}: where and what, read off slots: top-down is '
                f'{words[tables.sign(row.low, row.high)]} the baseline, '
                f'{tables.effect_text(row.difference, row.low, row.high)} points.'
            )
        )
    pairs = twos[name][twos[name].matched >= least]
    if not len(pairs):
        print(f'{name}, codes of two seeds: {tables.NOT_RUN}')
        continue
    mean, count = pairs[list(AMIS)].mean(), len(pairs)
    shuffled = (pairs.codes_ami > pairs.shuffled_ami).sum()
    placed = (pairs.codes_ami > pairs.in_place_ami).sum()
    known = pairs[['category_ami', 'other_category_ami']].max(axis=1)
    category = (pairs.codes_objects_ami > known).sum()
    print(
        tables.wrap(
            f'{name}: of {len(twos[name])} pairs of seeds, {count} match well enough. '
            f'Their codes agree with AMI {mean.codes_ami:.2f}: above shuffled codes '
            f'({mean.shuffled_ami:.2f}) in {shuffled}, above codes shuffled in place '
            f'({mean.in_place_ami:.2f}) in {placed}. On objects, they agree more with '
            f'each other ({mean.codes_objects_ami:.2f}) than either does with the '
            f'category ({mean.category_ami:.2f}, {mean.other_category_ami:.2f}) in '
            f'{category}.'
        )
    )
for (images, models), part in (
    across.groupby(['images', 'models']) if len(across) else ()
):
    one, other = models.split(', ')
    if one != other and part.matched.mean() >= least:
        above = (part.codes_ami > part.in_place_ami).sum()
        print(
            tables.wrap(
                f'{one} and {other}, shown {images}: codes agree with AMI '
                f'{part.codes_ami.mean():.2f}, in place '
                f'{part.in_place_ami.mean():.2f}; above it in {above} of {len(part)} '
                'pairs of runs.'
            )
        )
for (name, kind), part in similar.groupby(['preset', 'alike']) if len(similar) else ():
    signs = part['sign'].tolist()
    print(
        tables.wrap(
            f'{name}, likeness by {kind}, of categories that share a code: above '
            f'chance in {signs.count(1)}, below in {signs.count(-1)} of {len(part)} '
            'runs.'
        )
    )

# %% [markdown]
# Size, number and occlusion go together: where toys are many they are small, and what is hidden looks small. So these
# are not four causes but four views of one. Images of many objects also have more slots in use, whatever the objects
# look like. The cells of *in place* are coarse: two models that both sort by place more finely than that, or by the
# size of what a slot covers, agree beyond *in place* without any likeness of meaning. And slots that match are the ones
# on which two models see the same segment; the others, left out here, may well have codes that agree less.
#
# **Exercises**
#
# 1. Why can two models whose codes agree perfectly both know nothing of categories?
# 2. A toy is hidden by half. Why may its overlap with the best slot be as high as that of one that shows in whole?
# 3. With seventeen slots and two toys, which of FG-ARI, mBO$_i$ and *found* suffers most, and why?

# %% [markdown] tags=["solution"]
# <details><summary><b>Solutions</b></summary>
#
# 1. Both may sort by the same other thing, such as place or colour. Agreement says that a partition is in the data, not
#    which one it is; the column *position* is there for that.
# 2. Truth is the visible part alone: nobody asks a slot to cover what it cannot see. Occlusion matters by making the
#    visible part small, and by cutting it into pieces.
# 3. All three fall if toys are split. FG-ARI counts pairs of pixels within toys, so a toy cut into halves loses half of
#    its pairs; mBO$_i$ falls to the larger piece; *found* asks for half the overlap and so falls from one to zero just
#    where the larger piece does.
#
# </details>
