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
# # Clips: slots that go on
#
# **Question of this chapter: where slots go on from one frame of a clip to the next, does the top-down pathway help
# them to stay with their objects? And can it work in time, without a second pass: what was found in a frame modulates the
# one pass over the next?**
#
# On single images the pathway pays for its guess with a second pass over the same image. In a clip the guess could come
# for nothing, since what was there a moment ago mostly still is: the codes and the attention of a frame are a forecast
# for the next one. And a code that says what a thing is, in whatever pose and however much of it is seen, is what a
# slot would need that waits for its thing to come back from behind another.
#
# SAVi {cite}`kipf2022savi` made slot attention go through clips. A *corrector*, slot attention, takes the slots of a
# frame from a start to what the frame shows; a *predictor*, one block of a transformer over slots, makes the next
# frame's start of them. It predicts optical flow, and may be told where objects are in the first frame, by boxes for
# instance. Here nobody tells the slots anything, and the target is the frozen tokens, as everywhere in this book.
#
# With $S_t$ the slots that come out of frame $t$, and noise as ever where a clip begins, every frame starts from
#
# $$ S^0_1 = \mu + \sigma \odot \varepsilon, \qquad S^0_t = P(S_{t-1}), \qquad
#    X = S + \mathrm{MHA}(\mathrm{LN}(S)), \quad P(S) = X + \mathrm{MLP}(\mathrm{LN}(X)) , $$
#
# with four heads and a hidden layer of $4d$. Four models have this in common:
#
# - *baseline*: one pass a frame, $S_t = \mathrm{SA}(x_t, S^0_t)$, of three iterations;
# - *six-iterations*: the same with six, as many as two passes have;
# - *top-down*: two passes a frame, as on images: codes $c_t$ and attention $A_t$ of the first pass make the scales $m$
#   of the second, which starts from the same $S^0_t$;
# - *in time*: one pass a frame, scaled by what the frame before left,
#
# $$ S_t, A_t = \mathrm{SA}\big(x_t,\, S^0_t;\; m(c_{t-1}, A_{t-1})\big), \qquad c_t = \mathrm{VQ}(S_t), \qquad
#    m \equiv 1 \text{ in the first frame} $$
#
# ($m$ by equations 9 and 10 in `topdown/model/modulation.py`; the loop over frames is in `topdown/model/slot_model.py`,
# settings `clip_length` and `feedback`).
#
# The comparisons by FG-ARI and mBO$_i$, frame by frame, were [stated before the runs](stated.md), which also tells what
# became of the first nine, and that six iterations were added when the others were known; everything else here is exploratory. The chapter trains nothing: it reads
# `figures/tables/<preset>.csv`, which `topdown tables --preset movi_video` writes, and shows *not run* where the file or a
# row is missing.

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
preset = 'movi_video'  # whose rows: a preset with clip_length above 1
run_dir = 'runs'  # where checkpoints are, for the figure of a clip

# %% tags=["hide-input"]
from pathlib import Path

import numpy as np
import pandas as pd

import topdown
from topdown.book import plots, tables
from topdown.book.bench import token_shape
from topdown.book.claims import claim_verdict
from topdown.book.plan import plan
from topdown.book.runs import job_folder
from topdown.data.movi import FRAMES
from topdown.evaluate.statistics import seed_interval
from topdown.model.flops import forward_flops, step_flops

base = topdown.preset(preset)
if base.model.clip_length == 1:
    raise ValueError(f'{preset} has clip_length=1: its models know no clips')
jobs = plan(preset, ['main'])
models = list(dict.fromkeys(job.variant for job in jobs))
plots.style()
pd.set_option('display.max_colwidth', None)
runs = tables.read_runs(topdown.figures_dir() / 'tables', preset)
names = {'fg_ari': 'FG-ARI', 'mbo_i': 'mBO$_i$'}
VIEWS = {
    'over clips': ('clip_', ''),
    'over clips, without first frames': ('clip_', '_later'),
    'frame by frame': ('', ''),
    'frame by frame, without first frames': ('', '_later'),
}
KEPT = {
    'flicker': 'flicker',
    'flicker_objects': 'flicker, on objects',
    'kept_slot': 'kept slot',
    'kept_code': 'kept code',
    'kept_code_chance': 'kept code, by chance',
}
JOINT = {
    f'joint_{name.replace(" ", "_")}': name
    for name in ('found', 'slots', 'tokens under masks', 'tokens under truth')
}
scores = [f'{a}{m}{b}' for a, b in VIEWS.values() for m in names]
wanted = [*scores, *KEPT, *JOINT, 'returns', 'perplexity', 'seconds', 'steps']
runs = runs.reindex(columns=[*runs, *(name for name in wanted if name not in runs)])
runs[list(JOINT)] *= 100
pairs = [
    ('top-down', 'baseline'),
    ('in time', 'baseline'),
    ('in time', 'top-down'),
    ('top-down', 'six-iterations'),
]
checks = {}
print(f'{preset}: {len(runs)} of {len(jobs)} runs, {runs.seed.nunique()} seeds')

# %% [markdown]
# ## The clips
#
# MOVi's own format {cite}`greff2022kubric`, 24 frames, so that MOVi is a change of preset away, with toys in it that
# *swing*: each goes to and fro on a straight line at its own pace, in front of others or behind them, and past the
# border of the image and back. So things disappear and return, most of them over the border, and near to where they left.
# Training sees runs of a few consecutive frames, long
# enough to hold most returns from one end to the other, which a test says; evaluation goes through every held-out clip
# from its first frame to its last, further than a model has ever been.

# %%
clips = {
    'frames of a clip': FRAMES,
    'frames of a clip in a training step': base.model.clip_length,
    'clips a step': base.train.batch_size // base.model.clip_length,
    'steps': base.train.steps,
    'training clips': base.data.toybox.get('num_train', tables.NOTHING),
    'held-out clips': base.data.toybox.get('num_val', tables.NOTHING),
    'returns in held-out clips': f'{runs.returns.max():.0f}'
    if runs.returns.notna().any()
    else tables.NOT_RUN,
}
pd.DataFrame({'': clips}).astype(str)

# %% [markdown]
# A return is an object that is seen, then hidden or out of the image, then seen again: with at least half of the pixels
# that it has in the frame that shows most of it, then at most a tenth, then half again (`topdown/evaluate/clips.py`).
#
# Below, frames of the first held-out clip, with what runs of the first seed make of them, if their checkpoints are
# there. One colour is one object or one slot, in all frames of a column.

# %% tags=["hide-input"]
# alt: Frames of a held-out clip, one a row: image, true objects, and the slots of the
#   baseline, of two passes a frame and of one pass modulated by the frame before.
files = {
    job.variant: job_folder(topdown.from_project(run_dir), job.config(preset))
    / 'checkpoint.safetensors'
    for job in jobs
    if job.seed == jobs[0].seed
}
files = {name: path for name, path in files.items() if Path(path).is_file()}
columns, first = {}, None
for name, path in files.items():
    model, encoder, saved = topdown.load_run(path)
    if first is None:
        one = base.with_(eval_images=FRAMES)  # the first clip
        first = topdown.make_eval_set(one, encoder, progress=False)
        rows = np.linspace(0, FRAMES - 1, 4).round().astype(int)
        truth = first.dataset.read_clip_annotation(0).labels[rows]
        columns = {'truth': truth}
    columns[name] = topdown.predict(model, first)[rows].numpy()
if columns:
    shown = first.images[rows].permute(0, 2, 3, 1).numpy()
    plots.show_masks(shown, columns, truth=('truth',))
else:
    print(f'the runs of seed {jobs[0].seed}: no checkpoints here')

# %% [markdown]
# ## Masks
#
# Percent on held-out clips, mean ± standard deviation over seeds, by the decoder's masks. *Over clips* takes all frames
# of a clip as one image, so that an object must keep its slot to be whole; *frame by frame* does not care which slot it
# is. A first frame starts from noise, like any single image: its scores are what later ones have to start from.

# %%
table = {}
for view, (before, after) in VIEWS.items():
    for metric, title in names.items():
        values = runs.groupby('variant')[f'{before}{metric}{after}']
        table[view, title] = values.agg(tables.spread).reindex(models)
pd.DataFrame(table).fillna(tables.NOT_RUN).T

# %%
# alt: Scores over clips and frame by frame, one row a model; points are runs, lines
#   their means.
for view, (before, after) in VIEWS.items():
    titles = {f'{before}{m}': f'{title}, {view}' for m, title in names.items()}
    if not after and runs[[*titles]].notna().any(axis=None):
        plots.show_rows(runs, 'variant', titles, 'variant')

# %% [markdown]
# ## What the pathway adds
#
# Differences seed by seed, points of percent with 95 % intervals over seeds. The verdict is by the rule for
# [claims](intro.md): that the first is better is *reproduced here* if the intervals of both metrics lie above zero, *in
# part* if one does and none lies below. What was stated is frame by frame, over three seeds.

# %% tags=["hide-input"]
rows = []
STATED = range(3)  # seeds of the statement
for seeds, found in {
    'as stated, first three seeds': runs[runs.seed.isin(STATED)],
    'exploratory, all seeds': runs,
}.items():
    for one, other in pairs:
        for view in ('frame by frame', 'over clips'):
            before, after = VIEWS[view]
            part = found[['variant', 'seed']].assign(
                **{metric: found[f'{before}{metric}{after}'] for metric in names}
            )
            effects = tables.effects(part.dropna(), other)
            verdict, evidence = claim_verdict(effects[effects.variant == one])
            label = seeds if view == 'frame by frame' or 'all' in seeds else ''
            if label:
                rows.append(
                    [label, f'{one} better than {other}', view, verdict, evidence]
                )
columns = ['seeds', 'that', 'scores', 'verdict', 'evidence']
judged = pd.DataFrame(rows, columns=columns)
judged.set_index(['seeds', 'that', 'scores'])

# %% [markdown]
# ## Do slots stay with their objects?
#
# - *flicker*: of all pixels whose true object, or ground, is the same in a frame and the next, the share that change
#   slot; *on objects*: of those pixels alone that belong to one;
# - *kept slot*: of all returns, the share after which the slot that overlaps the object best is the one that did when
#   it was last seen; a slot drawn at random would be the same one in one of $K$ cases, but one that stays with a *place*
#   would often be, since most toys come back near to where they left, and so would one that covers everything;
# - *kept code*: the share after which that slot has the same code as then, whichever slot it is; *by chance*: the share
#   of all slots of that later frame that have it. A vocabulary of which one word is used keeps every code.
#
# Codes are those of a frame's first pass in *top-down*, and of its only pass *in time*; models without the pathway have none. Percent,
# mean ± standard deviation over seeds.

# %%
values = runs.groupby('variant')[list(KEPT)]
kept = values.agg(tables.spread).reindex(models).rename(columns=KEPT)
no_codes = [KEPT['kept_code'], KEPT['kept_code_chance']]
plain = [name for name in ('baseline', 'six-iterations') if name in set(runs.variant)]
kept.loc[plain, no_codes] = tables.NOTHING
kept.loc[f'one of K = {base.model.num_slots}'] = tables.NOTHING
kept.loc[kept.index[-1], 'kept slot'] = f'{100 / base.model.num_slots:.1f}'
kept.fillna(tables.NOT_RUN).rename_axis(None)

# %% tags=["hide-input"]
rows = []
for one, other in pairs:
    found = tables.effects(runs, other, [*KEPT][:4])
    for row in found[found.variant == one].itertuples():
        text = tables.effect_text(row.difference, row.low, row.high)
        rows.append([f'{one} minus {other}', KEPT[row.metric], text])
coded = runs.dropna(subset='kept_code')
for name, part in coded.groupby('variant', sort=False):  # against chance, run by run
    found = seed_interval((part.kept_code - part.kept_code_chance).to_numpy())
    rows.append([f'{name} minus chance', 'kept code', tables.effect_text(*found)])
apart = pd.DataFrame(rows, columns=['what', 'metric', 'text'])
stay = apart.pivot(index='what', columns='metric', values='text')
stay = stay.reindex(list(dict.fromkeys(apart.what))).rename_axis(None)
stay.fillna(tables.NOTHING) if len(stay) else pd.DataFrame({'': [tables.NOT_RUN]})

# %% [markdown]
# ## Where and what
#
# As [in crowded scenes](17_crowds.ipynb): of all objects of all frames, the share that a decoder's mask overlaps with an IoU of
# one half or more (*found*); that are found and whose category a linear probe reads off the slot (*slots*), or off the mean
# token under that slot's mask (*tokens under masks*); and whose category it reads off the mean token under the true
# mask, which no model has a part in. Frames of a clip show the same things, so the probe is fitted on objects of other
# clips, not only of other frames.

# %%
joint = runs.groupby('variant')[list(JOINT)].agg(tables.spread).reindex(models)
joint = joint.rename(columns=JOINT).rename_axis(None).fillna(tables.NOT_RUN)
for one, other in pairs:
    found = tables.effects(runs, other, list(JOINT)[:3])
    for row in found[found.variant == one].itertuples():
        text = tables.effect_text(row.difference, row.low, row.high)
        joint.loc[f'{one} minus {other}', JOINT[row.metric]] = text
joint.fillna(tables.NOTHING)

# %% [markdown]
# ## What a frame costs
#
# Matrix products of one frame, by formula (`topdown/model/flops.py`; the predictor and the decoder are in, the encoder
# is not), and milliseconds of a training step from the rows. Runs went on beside others, so the latter are no more
# than orders of magnitude.

# %% tags=["hide-input"]
patches, features, _ = token_shape(base)
rows = {}
for name in models:
    config = base.with_(**topdown.VARIANTS[name]).model
    parts = forward_flops(config, features, patches)
    mine = runs[runs.variant == name]
    ms = (1e3 * mine.seconds / mine.steps).mean()
    rows[name] = {
        'passes a frame': 1 + (parts['second pass'] > 0),
        'to apply, MFLOP': sum(parts.values()) / 1e6,
        'to train, MFLOP': step_flops(config, features, patches) / 1e6,
        'a step, ms': ms,
    }
spent = pd.DataFrame.from_dict(rows, orient='index')
for column in ('to apply', 'to train'):
    part = spent[f'{column}, MFLOP']
    spent.insert(spent.shape[1] - 1, f'{column}, times baseline', part / part.iloc[0])
spent = spent.round(2).astype(object)
spent.where(spent.notna(), tables.NOT_RUN)

# %% [markdown]
# ## Checks

# %% tags=["hide-input"]
# NBVAL_CHECK_OUTPUT
checks['runs are those of the plan'] = set(runs.variant) <= set(models)
checks['no run is there twice'] = not runs.duplicated(['variant', 'seed']).any()
percents = runs[[*scores, *KEPT, *JOINT]].astype(float).stack().dropna()
checks['scores are percentages'] = bool(percents.between(-100, 100.001).all())
checks['all runs were scored on the same returns'] = runs.returns.nunique() <= 1
checks['feedback in time has one pass a frame'] = spent['passes a frame'].loc[
    ['baseline', 'top-down', 'in time']
].tolist() == [1, 2, 1]
lacking = runs[runs.variant.isin(plain)].kept_code.isna().all()
checks['models without the pathway have no codes'] = bool(lacking)
assert all(checks.values()), checks
print('\n'.join(f'{name}: {value}' for name, value in checks.items()))

# %% [markdown]
# ## What was seen, and its limits

# %% tags=["hide-input"]
for row in judged.itertuples():
    said = f'{row.that}, {row.scores} ({row.seeds}): {row.verdict}.'
    print(tables.wrap(f'{said} {row.evidence}'))
means = runs.groupby('variant', sort=False)[[*KEPT, 'returns', 'perplexity']].mean()
for row in means.itertuples():
    said = (
        f'{row.Index}: of {row.returns:.0f} returns, the slot was the same in '
        f'{row.kept_slot:.0f} %'
    )
    if not np.isnan(row.kept_code):
        said += (
            f', the code in {row.kept_code:.0f} % ({row.kept_code_chance:.0f} % by '
            f'chance, perplexity {row.perplexity:.0f})'
        )
    said += f'; {row.flicker_objects:.0f} % of pixels that stay with their object '
    said += 'change slot.'
    print(tables.wrap(said))
if not len(runs):
    print(tables.NOT_RUN)

# %% [markdown]
# So few seeds see large differences only, and of as many intervals as stand on this page some exclude zero by chance.
# The verdicts as stated rest on the first three; the other two were added after a look, which makes intervals over all
# five narrower than they would be by right.
# The decoder is the easier one, *slotwise* ([its page](slotwise.md)); what was tried before is among
# [all that was tried](tried.md). Gradients go back through all frames of a training clip, and can grow on the way.
# Training sees a few consecutive frames at a time and evaluation goes on for 24, so every model is used beyond what it
# was trained for. The ground stays still and toys swing on straight lines without turning, so a predictor could learn
# more here than on real clips, and the pathway could have more to say where things turn and change. They are also fast,
# up to a fifth of the image in a frame in either direction, so that they return often enough to be counted. And returns, as they are counted,
# leave out things that stay partly hidden.
#
# **Exercises**
#
# 1. A model whose slots all keep to fixed places would have little flicker. Which of the numbers above would give it
#    away?
# 2. In time, the first frame of a clip has no scales. What would change if it had two passes, and what would that cost
#    in a clip of 24?
# 3. Attention $A_{t-1}$ says where a thing was. When is that a bad forecast, and which of the two scales suffers?

# %% [markdown] tags=["solution"]
# <details><summary><b>Solutions</b></summary>
#
# 1. Scores over clips: things move from place to place, so slots of places lose them. The kept slot would not: most toys
#    return near to where they left, and find the slot of that place.
# 2. The first frame would start as in *top-down*, its slots a little better or worse, and whatever they lose or win is
#    handed on by the predictor. One second pass in 24 frames: a twenty-fourth of what *top-down* pays more.
# 3. Where things move further than their own size in a frame, or come back after an occlusion. Then $m^s$ raises the
#    patches where the thing was, and so what has come there now; $m^c$, which says what and not where, is as good as
#    before.
#
# </details>
