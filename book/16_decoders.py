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
# # Which decoder?
#
# **Question of this chapter: slots are trained by what a decoder makes of them. How far do the masks depend on which
# decoder that is, what does each of them cost, and does the top-down pathway add more with one than with another?**
#
# All decoders are trained by the same loss, the mean squared error to the frozen encoder's tokens. They differ in what
# they may see beside the slots, and so in what is left for slots to say.
#
# - *autoregressive*, the paper's {cite}`kim2024topdown` and the default: a transformer that predicts every token from
#   the slots and the tokens before it, in raster order. Masks are what its last layer attends to.
# - *random orders*: the same, but in training every batch goes through the patches in one of eight scans, an idea of
#   SPOT {cite}`kakogeorgiou2024spot`, which has a spiral as well. The evaluation is in raster order.
# - *self-trained*: SPOT's other idea on top. The model with *random orders* of the same kind and seed teaches a second one:
#   to the second one's loss, the cross-entropy between its slot attention and the first one's decoder masks is added
#   (`topdown/train/teach.py`). It costs two trainings, and a forward pass of the teacher at every step.
# - *mlp*: every slot predicts every patch, and how opaque it is there {cite}`seitzer2023dinosaur`. It sees slots alone.
# - *slotwise*: every slot has one token for all its patches, placed by slot attention's own attention
#   ([its page](slotwise.md)). It sees slots and attention.
# - *diffusion*: noise is added to the tokens, and a transformer, which sees all patches at once, takes it off again with
#   the slots to ask, as SlotDiffusion {cite}`wu2023slotdiffusion` does in the latent space of an autoencoder.
#
# Of the last one, with tokens standardised over their channels, $N(x)$, noise $e$ from $N(0, 1)$, and a time $t$ from 0
# to 1 for every image:
#
# $$ z_n = \cos(\tfrac{\pi}{2} t)\, N(x_n) + \sin(\tfrac{\pi}{2} t)\, e_n ,
#    \qquad \hat x = f\big(\cos(\tfrac{\pi}{2} t)\, z,\; t,\; \text{slots}\big) . $$
#
# It predicts the tokens and not the noise, so its loss is the others'. In training $t$ is uniform; when it is
# evaluated, $t$ is one half and the noise always the same, so that an image always has the same masks
# (`topdown/model/diffusion.py`).
#
# Everything here is exploratory: none of it was [stated before the runs](stated.md). The chapter trains nothing: it
# reads `figures/tables/<preset>_decoders.csv`, which `topdown tables --preset toybox --only decoders` writes, and
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
preset = 'toybox'  # whose rows
against = 'baseline,six-iterations'  # what the pathway is compared with
elsewhere = 'dial,photos_slotwise'  # presets whose rows are shown beside them

# %% tags=["hide-input"]
import pandas as pd

import topdown
from topdown.book import cost, plots, tables
from topdown.book.bench import token_shape
from topdown.book.claims import PARTLY, REPRODUCED, TOO_FEW, claim_verdict
from topdown.book.plan import DECODERS, MAIN, plan
from topdown.model.flops import step_flops
from topdown.model.slot_model import SlotModel

rivals = [name.strip() for name in against.split(',')]
if not set(rivals) <= set(MAIN) - {'top-down'}:
    raise ValueError(f'against must be baseline, six-iterations or both: {against!r}')
jobs = plan(preset, ['decoders'])  # refuses presets without the experiment
plots.style()
pd.set_option('display.max_colwidth', None)
folder = topdown.figures_dir() / 'tables'
runs = tables.read_runs(folder, f'{preset}_decoders')
metrics = ('fg_ari', 'mbo_i')
for name in ('setting', *metrics, *(f'slots_{m}' for m in metrics), 'seconds', 'steps'):
    if name not in runs:
        runs[name] = pd.Series(dtype=str if name == 'setting' else float)
for m in metrics:  # a row that lacks them has one kind of masks only
    runs[f'slots_{m}'] = runs[f'slots_{m}'].fillna(runs[m])
by_masks = {
    'decoder': runs,
    'slot': runs.assign(**{m: runs[f'slots_{m}'] for m in metrics}),
}
titles = {'fg_ari': 'FG-ARI', 'mbo_i': 'mBO$_i$'}
cells = pd.MultiIndex.from_product([DECODERS, MAIN], names=['decoder', 'model'])
checks = {}
print(
    f'{preset}: {len(runs)} of {len(jobs)} runs, {runs.setting.nunique()} of '
    f'{len(DECODERS)} decoders, {runs.seed.nunique()} seeds'
)

# %% [markdown]
# ## What each of them is
#
# Beside the change to the preset: numbers that are trained in the decoder, matrix products of a training step and
# memory that its backward pass needs, an image's share of each. Both are arithmetic, for the baseline; nothing is timed
# here. Peak memory of a whole process would say less, since at this size most of it is what importing takes. Of
# *self-trained*, the teacher is not in it: its own training before, and a forward pass of it at every step.

# %%
base = topdown.preset(preset, top_down=False)
patches, features, _ = token_shape(base)
batch = base.train.batch_size
what = {}
for name, changes in DECODERS.items():
    config = base.with_(**changes)
    model = SlotModel(config.model, features, patches).train()
    kept = cost.activation_bytes(model, model.slot_init.mean.new_zeros(
        batch, patches, features
    ), 'bf16')  # fmt: skip
    what[name] = {
        'changes': str(changes or tables.NOTHING),
        'trained numbers, thousands': cost.count_parameters(model)['decoder'] / 1e3,
        'products of a step, GFLOP': step_flops(config.model, features, patches) / 1e9,
        'kept for the backward pass, MB': kept / batch / 1e6,
    }
pd.DataFrame.from_dict(what, orient='index').rename_axis('decoder').round(2)

# %% [markdown]
# ## Masks
#
# Percent on held-out images, mean ± standard deviation over seeds, by the decoder's masks and by slot attention's own.
# Those of *slotwise* are the same.

# %%
names = {f'slots_{m}': f'{tables.NAMES[m]}, slots' for m in metrics}
groups = runs.groupby(['setting', 'variant'], sort=False)
scores = pd.DataFrame({
    tables.NAMES.get(c) or names[c]: groups[c].agg(tables.spread)
    for c in (*metrics, *names)
}).rename_axis(['decoder', 'model'])  # fmt: skip
scores.reindex(cells).fillna(tables.NOT_RUN)

# %%
# alt: Scores of the decoders' masks, one row a decoder, one colour a model; points are
#   runs, lines their means.
if len(runs):
    plots.show_rows(runs, 'setting', titles, 'variant')

# %%
# alt: Scores of slot attention's own masks, one row a decoder, one colour a model;
#   points are runs, lines their means.
if len(runs):
    plots.show_rows(by_masks['slot'], 'setting', titles, 'variant')

# %% [markdown]
# ## Which decoder groups best?
#
# Every decoder minus the autoregressive one, model by model, over the seeds that both have, with 95 % intervals.

# %%
rows = [
    [model, masks, cell.variant, tables.NAMES[cell.metric],
     tables.effect_text(cell.difference, cell.low, cell.high)]
    for masks, found in by_masks.items()
    for model, part in found.groupby('variant', sort=False)
    for cell in tables.effects(
        part.assign(variant=part.setting), 'autoregressive', metrics
    ).itertuples()
]  # fmt: skip
columns = ['model', 'masks', 'decoder', 'metric', 'text']
beside = pd.DataFrame(rows, columns=columns).pivot(
    index=['decoder', 'model'], columns=['masks', 'metric'], values='text'
)
if not len(rows):
    beside['effect'] = tables.NOT_RUN
others = cells[cells.get_level_values('decoder') != 'autoregressive']
beside.reindex(others).fillna(tables.NOT_RUN)

# %% [markdown]
# ## What the pathway adds, decoder by decoder
#
# Top-down minus each of the others, over the seeds that both have. The verdict is by the rule for
# [claims](intro.md): that top-down is better is *reproduced here* if the intervals of both metrics lie above zero, *in
# part* if one does and none lies below.

# %% tags=["hide-input"]
gains = pd.concat(
    [
        part[part.variant == 'top-down'].assign(masks=masks, rival=rival)
        for masks, found in by_masks.items()
        for rival in rivals
        for part in [tables.effects_by(found, 'setting', rival, metrics)]
    ],
    ignore_index=True,
)
rows = []
for masks in by_masks:
    for decoder in DECODERS:
        for rival in rivals:
            mine = (gains.masks == masks) & (gains.rival == rival)
            verdict, evidence = claim_verdict(gains[mine & (gains.setting == decoder)])
            rows.append([masks, decoder, rival, verdict, evidence])
judged = pd.DataFrame(
    rows, columns=['masks', 'decoder', 'minus', 'verdict', 'evidence']
)
judged.set_index(['masks', 'decoder', 'minus'])

# %%
# alt: Top-down minus the model named above each figure, masks of the decoder, one row a
#   decoder: mean difference and its 95 % interval over seeds. Filled points exclude
#   zero.
for rival in rivals:
    found = gains[(gains.masks == 'decoder') & (gains.rival == rival)]
    if len(found):
        plots.show_forest(found.assign(variant=found.setting), rival, titles)

# %% [markdown]
# ## Elsewhere
#
# The same, shorter, on [the dial](13_the_dial.ipynb) at the level at which the mean of both gains was highest there, and
# on [photographs](14_photographs.ipynb): scores of the decoder's masks, and top-down minus the others. The level was
# chosen by the very runs that are the dial's autoregressive rows here, which flatters them. The other decoders were not
# run in these places.

# %% tags=["hide-input"]
parts = {}
for name in elsewhere.split(',') if elsewhere else ():
    found = tables.read_runs(folder, f'{name.strip()}_decoders')
    if 'setting' not in found:
        continue
    groups = found.groupby(['setting', 'variant'], sort=False)
    part = pd.DataFrame(
        {tables.NAMES[m]: groups[m].agg(tables.spread) for m in metrics}
    )
    for rival in rivals:
        gained = tables.effects_by(found, 'setting', rival, metrics)
        for row in gained[gained.variant == 'top-down'].itertuples():
            said = tables.effect_text(row.difference, row.low, row.high)
            column = f'{tables.NAMES[row.metric]}, minus {rival}'
            part.loc[(row.setting, 'top-down'), column] = said
    parts[name.strip()] = part
far = pd.concat(parts) if parts else pd.DataFrame({'runs': [tables.NOT_RUN]})
far.fillna(tables.NOTHING)

# %% [markdown]
# ## Where and what
#
# Percent of true objects that are found, with an IoU of one half or more, and that are found *and* whose category a linear
# probe, fitted on other images, reads off: off the slot, off the mean token under its mask, and, whether found or not, off
# the mean token under the true mask ([](17_crowds.ipynb)).

# %% tags=["hide-input"]
JOINT = {
    f'joint_{name.replace(" ", "_")}': name
    for name in ('found', 'slots', 'tokens under masks', 'tokens under truth')
}
told = runs.assign(**{name: 100 * runs[name] for name in JOINT if name in runs})
groups = told.groupby(['setting', 'variant'], sort=False)
joint = {
    said: groups[name].agg(tables.spread).rename_axis(cells.names)
    for name, said in JOINT.items()
    if name in told
}
joint = pd.DataFrame(joint or {'found': tables.NOT_RUN}, index=cells)
joint.fillna(tables.NOT_RUN)

# %% [markdown]
# ## What a step takes
#
# Milliseconds of a training step, evaluations on the way included, mean over seeds, and how many times as long as the
# baseline with the autoregressive decoder. Runs went on beside others, so these are no more than orders of magnitude.

# %%
ms = (1e3 * runs.seconds / runs.steps).groupby([runs.setting, runs.variant]).mean()
ms = ms.rename_axis(['decoder', 'model']).reindex(cells)
times = pd.DataFrame({
    'ms a step': ms.round(1), 'times': (ms / ms['autoregressive', 'baseline']).round(2)
})  # fmt: skip
times.astype(object).where(times.notna(), tables.NOT_RUN)

# %% [markdown]
# ## Checks

# %% tags=["hide-input"]
# NBVAL_CHECK_OUTPUT
checks['runs are those of the plan'] = set(zip(runs.setting, runs.variant)) <= set(
    cells
)
checks['no run is there twice'] = not runs.duplicated(
    ['setting', 'variant', 'seed']
).any()
shown = runs[[*metrics, *names]]
checks['metrics are percentages'] = bool(
    shown.stack().dropna().between(-100, 100).all()
)
changed = {
    said.split('=')[0]
    for changes in DECODERS.values()
    for said in base.with_(**changes).differences(base)
}
checks['settings differ in the decoder and its training alone'] = changed == {
    'decoder', 'patch_order', 'teacher', 'teacher_weight',
}  # fmt: skip
assert all(checks.values()), checks
print('\n'.join(f'{name}: {value}' for name, value in checks.items()))

# %% [markdown]
# ## What was seen, and its limits

# %% tags=["hide-input"]
for masks, found in by_masks.items():
    for metric in metrics:
        means = found.groupby(['variant', 'setting'], sort=False)[metric].mean()
        for model in means.index.unique('variant') if len(means) else ():
            ranked = means[model].sort_values()
            print(
                tables.wrap(
                    f'{masks} masks, {tables.NAMES[metric]}, {model}: highest with '
                    f'{ranked.index[-1]} ({ranked.iloc[-1]:.1f}), lowest with '
                    f'{ranked.index[0]} ({ranked.iloc[0]:.1f}).'
                )
            )
own = runs[runs.variant == 'baseline']
taught = tables.effects(own.assign(variant=own.setting), 'random orders', metrics)
for row in taught[taught.variant == 'self-trained'].itertuples():
    said = tables.effect_text(row.difference, row.low, row.high)
    print(
        f'{tables.NAMES[row.metric]}, baseline, self-trained minus its teachers: {said}'
    )
for (masks, rival), part in gains.groupby(['masks', 'rival'], sort=False):
    said = tables.say_effects(part.assign(variant=part.setting), rival)
    print(f'top-down, {masks} masks, by decoder:\n{said}')
for masks, part in judged.groupby('masks', sort=False):
    verdicts = part.pivot(index='decoder', columns='minus', values='verdict')
    verdicts = verdicts[~verdicts.isin([tables.NOT_RUN, TOO_FEW]).any(axis=1)]
    helps = verdicts.index[verdicts.isin([REPRODUCED, PARTLY]).all(axis=1)]
    if len(verdicts):
        print(
            tables.wrap(
                f'{masks} masks: of {len(verdicts)} decoders, the pathway is better '
                f'than {" and ".join(rivals)}, at least in part, with '
                f'{", ".join(helps) or "none"}.'
            )
        )
if not len(runs):
    print(tables.NOT_RUN)

# %% [markdown]
# Rate, length of training and masking of inputs are the preset's, and were chosen with the autoregressive decoder: the
# others have them as they are, so a low score may be that of a decoder or of its settings. Validation losses are not in
# the tables, since each decoder sees something else, and a decoder that sees much needs little of the slots for a low
# loss. Masks of the decoders are of different kinds, too: what a layer attends to when it has seen earlier tokens, or
# noisy ones, or nothing. Slot attention's own masks are made alike in all. Three seeds see large differences only, and
# of as many intervals as stand on this page some exclude zero by chance.
#
# **Exercises**
#
# 1. The autoregressive decoder sees true tokens. Why does it need the slots at all, and what makes it need them more?
# 2. What would the diffusion decoder's masks rest on at $t = 1$, and what on near $t = 0$?
# 3. At which of the decoders could a slot that holds two toys of different looks be without cost?

# %% [markdown] tags=["solution"]
# <details><summary><b>Solutions</b></summary>
#
# 1. Where the earlier tokens do not tell what comes next, as at the upper left corner of a toy, only slots do. Masked
#    inputs and random orders make such places more, and the first tokens have nothing before them.
# 2. On places and slots alone, since no token is left in $\cos(\pi t / 2)\, z$. Near 0 on the tokens themselves: a patch
#    knows what it is and hardly needs an answer, so that little holds its attention to the right slot.
# 3. Where a slot can say different things in different places: with the MLP, which has places, and with both
#    transformers, which have tokens. The slotwise decoder has one token a slot and pays for it.
#
# </details>
