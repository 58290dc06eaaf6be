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
# # Many things in motion: MOVi
#
# **Question of this chapter: with many things in an image, does the pathway still help, and how do slots fare from
# one frame of a clip to the next?**
#
# MOVi-C and MOVi-E are rendered clips of scanned household objects, up to ten and up to twenty-three in a clip. The
# model sees their frames one at a time, as still images. What is MOVi's own: many slots, frames that are near copies
# of each other, and true masks in which an object keeps its number through the clip.
#
# Run as it is, this notebook needs neither a GPU nor a network: it makes short clips of many moving toys, in MOVi's
# file format, so that MOVi's reader reads them, and trains on them with [the easier decoder](slotwise.md). With the
# data at hand, the same notebook runs the paper's configurations:
#
# ```bash
# papermill book/05_movi.ipynb out.ipynb -p preset movi_c -p data_root /data/movi
# ```

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
preset = 'movi_toybox'  # movi_smoke, movi_toybox, movi_c or movi_e
data_root = ''  # folder of the data set; clips are made in the user's cache if empty
run_dir = 'runs'  # where checkpoints, tables and figures go
seeds = 0  # runs of every model; 0 leaves it to the preset
steps = 0  # optimiser steps of every run; 0 leaves it to the preset
token_dir = ''  # keep the encoder's tokens in this folder; empty: as the preset has it
models = 'baseline,top-down'  # any of topdown.VARIANTS, such as six-iterations
fresh = False  # delete earlier runs of this preset first

# %% [markdown]
# ## Setting up
#
# The next cell checks every parameter before anything long begins. `TOPDOWN_PRESET`, an environment variable, takes
# the place of the preset; `smoke` stands for `movi_smoke`.

# %% tags=["hide-input"]
import numpy as np
import pandas as pd
import torch

import topdown
from topdown.book import chapters, plots, tables
from topdown.data.movi import DRAWN, FRAMES
from topdown.evaluate.predict import labels_from_masks

plots.style()
pd.set_option('display.max_colwidth', None)
base, chosen, folder = chapters.begin(
    preset, ('movi_toybox', 'movi_smoke', 'movi_c', 'movi_e'), models, run_dir, fresh,
    data_root=data_root, seeds=seeds,
    steps=steps, token_dir=token_dir, cache_tokens=bool(token_dir),
)  # fmt: skip
print(
    f'preset {base.name}: {base.train.steps} steps of {base.train.batch_size} images, '
    f'{base.seeds} seed(s)'
)

# %% [markdown]
# ## A clip
#
# Frames of the first validation clip and their true masks: an object has one colour in all of them. Things pass in
# front of each other and may leave the image.

# %%
# alt: Every other frame of a clip and its true masks: a thing keeps its colour from
#   frame to frame, also behind another one.
train_set = topdown.open_dataset(base, 'train')
val_set = topdown.open_dataset(base, 'val')
encoder = topdown.make_encoder(base)
eval_set = topdown.make_eval_set(base, encoder, dataset=val_set)
print(
    f'{base.data.dataset}: {len(train_set)} training and {len(val_set)} validation '
    f'frames, {FRAMES} a clip'
)
frames = np.linspace(0, min(FRAMES, len(val_set)) - 1, 6).round().astype(int)
images = eval_set.images[frames].permute(0, 2, 3, 1).numpy()
clip = val_set.read_clip_annotation(0).labels[frames]
plots.save(
    plots.show_masks(images, {'truth': clip}, truth=('truth',)), folder / 'data.png'
)
_ = plots.show_masks(images[::2], {'truth': clip[::2]}, truth=('truth',))

# %% [markdown]
# ## An epoch
#
# Frames of a clip are alike, so an epoch takes only some of them, drawn anew each time. Which frames of the first
# three clips the first three epochs have:

# %%
epochs = {}
for epoch in range(3):
    order = train_set.order(torch.Generator().manual_seed(epoch)).sort().values
    for number in range(min(3, len(train_set) // FRAMES)):
        inside = order[order // FRAMES == number] % FRAMES
        epochs[f'epoch {epoch}', f'clip {number}'] = ' '.join(
            str(int(frame)) for frame in inside
        )
pd.Series(epochs).unstack()

# %% [markdown]
# ## What any method must beat
#
# The rows of the chapter on COCO: they need no training of slots. With many small things, a *block grid* of as many
# cells as slots is a hard rival in FG-ARI: a thing seldom has room for more than a few cells.


# %%
def untrained():
    return topdown.build_model(base.with_(seed=12345, top_down=False), encoder)


labels = topdown.baselines(eval_set, base.model.num_slots, untrained)
rows = chapters.baseline_rows(labels, eval_set)
pd.DataFrame(rows).set_index('model')[['fg_ari', 'mbo_i', 'miou']].round(1)

# %% [markdown]
# ## Training
#
# Both models of a seed start from the same weights and see the same frames in the same order.

# %%
# alt: Training loss, metrics and codes in use over steps, one line a model, bands over
#   seeds.
data = topdown.TrainData(train_set, encoder, base)
trained = chapters.train_variants(base, folder, chosen, encoder, data, eval_set)
trained.save(folder)
_ = plots.show_training(trained.log, trained.evaluations)

# %% [markdown]
# ## The result
#
# Mean over validation frames, in percent; with several seeds, mean ± standard deviation over seeds.

# %%
results = chapters.write_results(rows + trained.rows, base, folder)
topdown.mean_and_spread(results, ['model', 'masks'])[
    ['fg_ari', 'mbo_i', 'miou', 'runs']
]

# %% [markdown]
# What the models gain over each row that needed no training of slots, in points. A negative number is a baseline that
# is not beaten.

# %%
chapters.gains(results, chosen)[['fg_ari', 'mbo_i', 'miou']].round(1)

# %% [markdown]
# Against the first model. Frames of a clip resemble each other, so an interval over frames would be far too narrow:
# the difference is averaged over each clip first, and the interval is over clips.

# %%
by_clip = {}
for (name, seed), per_frame in trained.scores['decoder'].items():
    clips = pd.DataFrame(per_frame).groupby(np.arange(len(per_frame)) // FRAMES).mean()
    by_clip[name, seed] = clips.to_dict('records')
paired = topdown.paired_table(by_clip, chosen[0])
paired.to_csv(folder / 'paired.csv', index=False)
print(f'{len(next(iter(by_clip.values())))} clips')
paired.set_index(['model', 'metric']) if len(
    paired
) else 'one model, nothing to compare'

# %% [markdown]
# Beside the paper's numbers on MOVi. Numbers on other clips cannot be compared with them and stand in columns of their
# own.

# %%
published = tables.read_published(topdown.figures_dir() / 'paper')
published = published[published.table == 'MOVi-C and MOVi-E against DINOSAUR']
ours = results[results.masks.eq('decoder')].rename(columns={'model': 'variant'})
names = {'movi_c': 'MOVi-C', 'movi_e': 'MOVi-E'}
tables.side_by_side(published, {names.get(base.data.dataset, 'Toybox, clips'): ours})

# %% [markdown]
# ## With the number of things
#
# Frames by the number of true objects in them, some of which may be hidden or have left the image.

# %%
count = np.array([len(np.unique(found[found > 0])) for found in eval_set.instances])
parts = {'frames': pd.Series(count).value_counts().sort_index()}
scored = {'block grid': topdown.score(labels['block grid'], eval_set)}
scored |= {name: trained.scores['decoder'][name, 0] for name in chosen}
for metric in ('fg_ari', 'mbo_i'):
    for name, per_frame in scored.items():
        parts[f'{metric}, {name}'] = (
            100 * pd.DataFrame(per_frame)[metric].groupby(count).mean()
        )
pd.DataFrame(parts).rename_axis('objects').round(1)

# %% [markdown]
# ## From frame to frame
#
# Slots start from noise. With noise of its own for every frame, as in evaluation, the same thing falls to another slot
# in every frame. With the same noise for all frames, the model sees nearly the same problem again; whether slots then
# stay with their things is to be seen in the last columns, where a slot has one colour throughout. Nothing was trained
# for it.

# %% tags=["hide-input"]
# alt: Frames of a held-out clip, truth, masks frame by frame, and masks with the same
#   noise in all frames: look whether a thing keeps its colour.
columns = {'truth': clip}
for name in chosen:
    model = trained.runs[name, 0].model.eval()
    noise = torch.randn(
        1,
        base.model.num_slots,
        base.model.slot_size,
        generator=torch.Generator().manual_seed(0),
    )
    with torch.no_grad():
        device = next(model.parameters()).device
        out = model(
            eval_set.tokens[frames].to(device),
            noise.expand(len(frames), -1, -1).to(device),
        )
    columns[f'{name},\nown noise'] = topdown.predict(model, eval_set)[frames].numpy()
    columns[f'{name},\nsame noise'] = labels_from_masks(
        out.masks.cpu(), eval_set.grid, eval_set.mask_size
    ).numpy()
plots.save(plots.show_masks(images, columns, truth=('truth',)), folder / 'masks.png')
_ = plots.show_masks(
    images[::2], {k: v[::2] for k, v in columns.items()}, truth=('truth',)
)

# %% [markdown]
# ## Checks
#
# What must hold whatever the preset: an epoch has so many different frames of every clip, objects keep their numbers,
# masks share out every patch, and losses are finite.

# %% tags=["hide-input"]
# NBVAL_CHECK_OUTPUT
order = train_set.order(torch.Generator().manual_seed(0))
whole = val_set.read_clip_annotation(0)
frame = val_set.annotation(0)
checks = {
    'losses are finite': bool(trained.log['loss'].notna().all()),
    'an epoch has the same number of different frames of every clip': bool(
        (torch.bincount(order // FRAMES) == DRAWN).all()
        and len(order.unique()) == len(order)
    ),
    "a clip's objects are those of its frames": bool(
        len(frame.masks) == len(np.unique(whole.labels[0][whole.labels[0] > 0]))
    ),
}
for run in trained.runs.values():
    _, out = next(topdown.run_model(run.model, eval_set, limit=8, precision='fp32'))
    checks['masks sum to one over slots'] = bool(
        (out.masks.sum(1) - 1).abs().max() < 1e-5
    )
assert all(checks.values()), checks
print('\n'.join(f'{name}: {value}' for name, value in checks.items()))

# %% [markdown]
# ## What was seen, and its limits

# %%
print(tables.say_effects(chapters.effects(results, chosen[0]), chosen[0]))
print(chapters.say_rivals(results, chosen))

# %% [markdown]
# The first lines ask whether training again would show the difference (95 % intervals over the seeds of this page); the
# last ones, which rows without training of slots the models leave behind.
#
# Scores fall with the *number of things* for every trained model, and the block grid's do not fall as much: with more
# things in an image, each is nearer in size to a cell. This is why a published FG-ARI on a data set of many small
# things needs the grid's row beside it. *Frames of a clip* are near copies, so the number of frames says little about
# how much was seen in training, and an interval over frames would be too narrow.
#
# Limits: stand-in clips have things that slide in straight lines over ground that stays still, where MOVi's fall and
# roll and MOVi-E's camera moves; they are few; and the encoder was itself made by motion in such clips ([its
# page](encoder.md)), so nothing here says that motion is needed or used. The model sees single frames.
#
# **Exercises**
#
# 1. Take the interval over frames instead of clips. By how much is it too narrow, and what decides that?
# 2. With the same noise in every frame, slots should stay with their things. Measure it: FG-ARI over all frames of a
#    clip at once, as one image.
# 3. Nine frames a clip and epoch: what would change if an epoch had all of them?

# %% [markdown] tags=["solution"]
# <details><summary><b>Solutions</b></summary>
#
# 1. The next cell computes both. If all frames of a clip agreed, the interval would be too narrow by the square root of
#    the frames in a clip; if they were independent, not at all.
# 2. Put the label maps of a clip side by side, as one wide map, true and predicted, and pass them to
#    `topdown.metrics`: a slot that changes its thing between frames now counts as an error.
# 3. The order within an epoch only: steps are counted, not epochs, and frames are drawn evenly either way. With very
#    few steps, nine a clip make sure that all clips were seen.
#
# </details>

# %% tags=["solution", "hide-cell"]
over_frames = topdown.paired_table(trained.scores['decoder'], chosen[0])
pd.DataFrame(
    {
        title: table.set_index(['model', 'metric'])['95 % over images']
        for title, table in (('over frames', over_frames), ('over clips', paired))
        if len(table)
    }
)
