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
# # Train on COCO, or on the embedded stand-in
#
# **Question of this chapter: trained with the same budget, does slot attention with top-down modulation decompose
# held-out images better than the same model without it?**
#
# Run as it is, this notebook needs neither a GPU nor a network: it makes *Toybox*, a procedural data set in COCO
# format, and uses the small encoder that ships with the package. Its numbers are Toybox's and say nothing about
# COCO's. With the data at hand, the same notebook runs the paper's configuration:
#
# ```bash
# papermill book/03_train_coco.ipynb out.ipynb -p preset coco -p data_root /data/coco
# ```
#
# Other presets of that scale are `voc`, `movi_c` and `movi_e`; `coco_short` and `voc_short`, a recipe of a tenth of the
# images that many published rows share; and `coco_spot` ([](differences.md)). A run says in its first line how many
# images it will see and the least time that takes on this machine, and after ten steps how long it will last.
#
# Results go to `runs/<preset>/`. A run that was stopped goes on from its last checkpoint when the notebook is run
# again, and a finished one is not trained again; `-p fresh True` starts over.
#
# Results of another data set than the preset's go to `runs/<preset>-<dataset>/`. With images that have no labels,
# metrics and all else that needs true masks are left out, and the rest is the same:
#
# ```bash
# papermill book/03_train_coco.ipynb out.ipynb -p data_root FOLDER -y '{"changes": {"dataset": "images"}}'
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
preset = 'toybox'  # smoke, toybox, toybox_category, slotwise, coco, voc_short, ...
data_root = ''  # folder of the data set; Toybox is made in the user's cache if empty
run_dir = 'runs'  # where checkpoints, tables and figures go
seeds = 0  # runs of every model; 0 leaves it to the preset
steps = 0  # optimiser steps of every run; 0 leaves it to the preset
token_dir = ''  # keep the encoder's tokens in this folder; empty: as the preset has it
models = 'baseline,top-down'  # any of topdown.VARIANTS, such as six-iterations
changes = {}  # to other parameters of the preset, such as {'batch_size': 32}
fresh = False  # delete earlier runs of this preset first

# %% [markdown]
# ## Setting up
#
# The next cell checks every parameter before anything long begins. `TOPDOWN_PRESET`, an environment variable, takes
# the place of the preset; continuous integration sets it to `smoke` to run this page in seconds.

# %% tags=["hide-input"]
import pandas as pd
import torch

import topdown
from topdown.book import chapters, plots
from topdown.evaluate.predict import labels_from_masks
from topdown.evaluate.truth import Rows

plots.style()
presets = (
    'smoke', 'toybox', 'toybox_category', 'slotwise', 'slotwise_long', 'coco', 'voc',
    'movi_c', 'movi_e', 'coco_short', 'voc_short', 'coco_spot',
)  # fmt: skip
base, chosen, folder = chapters.begin(
    preset, presets, models, run_dir, fresh, data_root=data_root, seeds=seeds,
    steps=steps, token_dir=token_dir, cache_tokens=bool(token_dir), more=changes,
)  # fmt: skip
print(
    f'preset {base.name}: {base.train.steps} steps of {base.train.batch_size} images, '
    f'{base.seeds} seed(s)'
)

# %% [markdown]
# ## The data
#
# Both splits are read through the same reader as COCO's own files. In Toybox, every object is a toy of one of
# sixteen categories, made of parts that differ in shape, colour and texture, while colours are shared between
# categories. Grouping patches by how they look therefore breaks toys apart and joins parts of different toys.

# %%
train_set = topdown.open_dataset(base, 'train')
val_set = topdown.open_dataset(base, 'val')
print(
    f'{base.data.dataset}: {len(train_set)} training and {len(val_set)} validation '
    'images, '
    f'{len(val_set.category_names)} categories'
)

# %%
# alt: Three training images of Toybox and their true instances: toys of several parts
#   and colours in front of a busy ground.
encoder = topdown.make_encoder(base)
eval_set = topdown.make_eval_set(
    base, encoder, protocols=val_set.protocols, dataset=val_set
)
show = list(range(min(6, len(eval_set))))
images = eval_set.images[show].permute(0, 2, 3, 1).numpy()
truth = {
    'instances': eval_set.instances[show].clip(0),
    'classes': eval_set.classes[show].clip(0),
} if val_set.labelled else {}  # fmt: skip
plots.save(plots.show_masks(images, truth, truth=tuple(truth)), folder / 'data.png')
first = {title: maps[:3] for title, maps in truth.items() if title == 'instances'}
_ = plots.show_masks(images[:3], first, truth=('instances',))
# %% [markdown]
# ## What any method must beat
#
# Rows that involve no training of slots. Two put the truth itself on the patch grid: *truth as shares of patches*, each
# patch's shares of the true segments, upsampled as a model's soft masks are; and *truth pooled to patches*, where each
# patch belongs whole to one segment. They show what the grid costs. Neither is a bound: masks that spill over the
# ground lose nothing in FG-ARI and may score above both (see the page on evaluation). *Truth at token means* gives
# every true segment, the ground included, the mean of its tokens, and every patch to the nearest of these means: what
# one mean token a segment tells apart, were the segments known. *One slot* for the whole image is the least. A *block
# grid* of as many cells as there are slots shows how far position alone goes: FG-ARI looks at foreground pixels only,
# so compact cells score well on it, and a model that does not beat the grid has learned nothing. *k-means* groups each
# image's patches by colour, or by the encoder's tokens. *Random slots* are an untrained model's attention maps.


# %%
def untrained():
    return topdown.build_model(base.with_(seed=12345, top_down=False), encoder)


baselines = topdown.baselines(eval_set, base.model.num_slots, untrained)
rows = chapters.baseline_rows(baselines, eval_set)
table = pd.DataFrame(rows).drop(columns=['masks', 'seed']).set_index('model')
table.dropna(axis=1, how='all').round(1)

# %% [markdown]
# ## Training
#
# `topdown.train_model` is the whole loop: Adam, linear warm-up and exponential decay, clipping at a global norm of one,
# bfloat16 autocast, evaluation along the way, checkpoints. The encoder is frozen. Where the preset says so, its
# tokens are computed once, for every image and its mirror image, and kept in memory.
#
# The decoder is the paper's: an autoregressive transformer, which predicts every patch's token from those before it and
# the slots. It has four layers at the paper's scale and one here. It can do a good deal without the slots, from the
# tokens before alone, and all its runs begin on a plateau: slots share the image out like a grid, FG-ARI and mBO stand
# still, and only the loss says that anything happens. With a third or half of its inputs masked it leaves the plateau
# after one to three thousand steps ([the search](stated.md)). This page once said that it cannot work on these images;
# the trials behind that masked a tenth of its inputs, let the rate fall fast, and ended on the plateau. [An easier
# decoder](slotwise.md) was the default then.
#
# Every model of a seed starts from the same weights, sees the same images in the same order and takes the same
# number of steps. The baseline is the same class with the pathway switched off.

# %%
data = topdown.TrainData(train_set, encoder, base)
trained = chapters.train_variants(base, folder, chosen, encoder, data, eval_set)
runs, scores = trained.runs, trained.scores

# %% [markdown]
# What to look for: a loss that keeps falling, and codes in use that do not dwindle to a few. Bands are the range over
# seeds; where they overlap, the curves do not tell the models apart.

# %%
# alt: Training loss, FG-ARI, mBO and codes in use over steps, one line a model, bands
#   over seeds. A metric that stands still and then climbs has left the plateau.
trained.save(folder)
_ = plots.show_training(trained.log, trained.evaluations)
# %% [markdown]
# ## The result
#
# Mean over validation images, in percent; with several seeds, mean ± standard deviation over seeds. Masks come from
# the decoder, as in the paper's tables, or from slot attention itself; the table says which.

# %%
results = chapters.write_results(rows + trained.rows, base, folder)
topdown.mean_and_spread(results, ['model', 'masks'])

# %% [markdown]
# How sure the means are: with other images of the same kind (bootstrap over the validation images), and with other
# seeds (Student's t, wide with few seeds).

# %%
uncertainty = topdown.uncertainty_table(scores['decoder'])
uncertainty.to_csv(folder / 'uncertainty.csv')
uncertainty.T

# %% [markdown]
# Against the first model, pair by pair: on the same images, each model's mean over seeds, and on the same seeds,
# which share initial weights and the order of images. The p-value over images asks whether these trained models
# differ; the one over seeds, whether training them again would show the same. With two seeds, it can only say 0.5 or 1.

# %%
paired = topdown.paired_table(scores['decoder'], chosen[0])
paired.to_csv(folder / 'paired.csv', index=False)
paired.set_index(['model', 'metric']) if len(
    paired
) else 'one model or no truth, nothing to compare'

# %% [markdown]
# What the models gain over each row that needed no training of slots, in points of the mean (decoder masks). A negative
# number is a baseline that is not beaten.

# %%
chapters.gains(results, chosen).dropna(axis=1, how='all').round(1)

# %% [markdown]
# The same masks, the decoder's, under the other public protocols (see the page on evaluation). They differ where masks
# overlap, where crowds are labelled, in how true masks are resized, and in whether the ground counts as one more object,
# as `bench` and the mIoU of `slotdiffusion` have it. In Toybox no two masks overlap and there are no crowds, so there the
# FG-ARI of all agrees but for the size at which masks are compared; on COCO it does not.

# %%
untaught = {
    name: chapters.protocol_means({
        protocol: topdown.score(baselines[name], eval_set, protocol)
        for protocol in eval_set.truth
    })
    for name in ('truth pooled to patches', 'block grid', 'k-means on tokens')
}  # fmt: skip
side_by_side = pd.DataFrame(untaught | trained.protocols).T
side_by_side.to_csv(folder / 'protocols.csv')
shown = side_by_side.loc[:, pd.IndexSlice[:, ['fg_ari', 'mbo_i', 'miou']]]
shown.dropna(axis=1, how='all').round(1)

# %% [markdown]
# ## Masks on held-out images
#
# The first validation images, whatever they show; none was chosen.

# %%
# alt: Held-out images, truth, and the masks of both models: look for toys in two
#   pieces, for two toys in one, and for the ground.
last_seed = base.seeds - 1
shown = {'truth': truth['instances']} if truth else {}
shown |= {
    name: topdown.predict(
        runs[name, last_seed].model, eval_set, limit=len(show)
    ).numpy()
    for name in chosen
}
plots.save(plots.show_masks(images, shown, truth=('truth',)), folder / 'masks.png')
_ = plots.show_masks(images[:4], {k: v[:4] for k, v in shown.items()}, truth=('truth',))
# %% [markdown]
# ## Attention before and after modulation
#
# The same image, the same initial slots and the same weights in both passes; only the values of the second pass
# are scaled, by what the codes say (per channel) and by where the first pass looked (per patch).

# %%
# alt: Attention of every slot of the first image in the first and the second pass, and
#   the masks of the decoder, which are sharper.
if ('top-down', last_seed) in runs:
    model = runs['top-down', last_seed].model
    _, out = next(topdown.run_model(model, eval_set, limit=8))
    maps = {
        'first pass': out.first_attention[0],
        'second pass': out.attention[0],
        'decoder': out.masks[0],
    }
    maps = {title: m.float().cpu().numpy() for title, m in maps.items()}
    plots.save(
        plots.show_attention(images[0], maps, eval_set.grid), folder / 'attention.png'
    )
    plots.show_attention(images[0], maps, eval_set.grid)

# %% [markdown]
# ## The codes found
#
# How often each code is the nearest one to a slot of the first pass, over the first 500 validation images, and the
# perplexity: the number of codes that are in use, if all were used alike.

# %%
# alt: Bars: how often each code is the nearest to a slot, from the most used to the
#   least.
if ('top-down', last_seed) in runs:
    model = runs['top-down', last_seed].model
    parts = [
        (out.code_index.cpu(), out.first_attention.float().cpu())
        for _, out in topdown.run_model(model, eval_set, limit=500, decode=False)
    ]
    index, masks = (torch.cat(part) for part in zip(*parts))
    labels = labels_from_masks(masks, eval_set.grid, eval_set.mask_size)
    hits = torch.bincount(index.flatten(), minlength=base.model.codebook_size).numpy()
    plots.save(plots.show_code_usage(hits), folder / 'codes.png')
    plots.show_code_usage(hits)

# %% [markdown]
# For the six most used codes, slots mapped to them: each crop shows what the slot attends to in the first pass, from
# which the codes come, the rest faded. If codes stand for kinds of things, a row repeats itself.

# %%
# alt: Rows of crops, one row a code: what the slots of this code look at. A row that
#   repeats itself would be a code that stands for a kind of thing.
if ('top-down', last_seed) in runs:
    crops = {}
    for code in [code for code in hits.argsort()[::-1][:6] if hits[code]]:
        where = (index == code).nonzero()
        mass = torch.stack([masks[b, k].sum() for b, k in where])
        found = [where[i].tolist() for i in mass.argsort(descending=True)[:8]]
        crops[f'code {code}'] = [
            plots.crop_to_mask(
                eval_set.images[b].permute(1, 2, 0).numpy(), (labels[b] == k).numpy()
            )
            for b, k in found
        ]
    plots.save(plots.show_codes(crops), folder / 'code_crops.png')
    plots.show_codes(crops)

# %% [markdown]
# ## Checks
#
# What must hold whatever the preset: attention and masks share out every patch among the slots, the two passes used
# the same number of slots, losses are finite, the pathway's spatial scale has mean one, as equation
# $m^s_{k,n} = 1 + A_{k,n} - \frac1N \sum_n A_{k,n}$ says, and the evaluator finds no fault with the truth itself.

# %% tags=["hide-input"]
# NBVAL_CHECK_OUTPUT
checks = {'losses are finite': bool(trained.log['loss'].notna().all())}
for (name, _), run in runs.items():
    _, out = next(topdown.run_model(run.model, eval_set, limit=8, precision='fp32'))
    ones = torch.ones(())
    checks['attention sums to one over slots'] = bool(
        (out.attention.sum(1) - ones).abs().max() < 1e-5
    )
    checks['masks sum to one over slots'] = bool(
        (out.masks.sum(1) - ones).abs().max() < 1e-5
    )
    if name == 'top-down':
        checks['spatial scale has mean one'] = bool(
            (out.scales.spatial.mean(-1) - ones).abs().max() < 1e-5
        )
        checks['modulation changes the attention'] = not torch.equal(
            out.attention, out.first_attention
        )
objects = Rows(lambda rows: eval_set.instances[rows].clip(0), *eval_set.instances.shape)
itself = topdown.summarize(topdown.score(objects, eval_set))
if truth:
    checks['the truth itself scores 100 in FG-ARI and mBO'] = (
        min(itself['fg_ari'], itself['mbo_i']) > 100 - 1e-9
    )
assert all(checks.values()), checks
print('\n'.join(f'{name}: {value}' for name, value in checks.items()))

# %% [markdown]
# ## What was seen, and its limits
#
# The tables above are this chapter's answer for the preset it was run with. Two short runs on one small data set are an
# anecdote; five seeds, also against six plain iterations, are in [the ablation](08_ablation.ipynb), and the same
# question on other data in [a chapter of its own](15_does_it_help.ipynb).
#
# Both models beat k-means on colours and the block grid by far, and k-means on the encoder's tokens in neither FG-ARI
# nor mBO. Little room is left there for segments that are one token: *truth at token means* knows the true segments, and
# k-means, which solves nearly the same problem for every image anew, is most of the way there. The encoder was
# trained on motion (see [its page](encoder.md)), so its tokens already hold much of what slots, or a top-down pathway,
# could add. What the pathway really does here is taken apart in [the chapter on modulation
# maps](02_modulation_maps.ipynb). Toybox objects are rendered, their categories few and their number of slots known;
# none of this carries over to photographs unasked.
#
# **Exercises**
#
# 1. Run with `-p models baseline,top-down,six-iterations`. Six plain iterations cost what three and three cost: is
#    the second pass better spent with modulation?
# 2. Raise `steps`. Which model gains more from a longer budget?
# 3. In `topdown/config.py`, set Toybox's `dissimilarity` to 0, so that every toy has one colour. Who needs top-down
#    information then?

# %% [markdown] tags=["solution"]
# <details><summary><b>Solutions</b></summary>
#
# 1. [The ablation](08_ablation.ipynb) did it with five seeds and this budget, and shows the differences with their
#    intervals.
# 2. `-p steps 9000` (three times as long), or `-p preset toybox_category`, which trains longer on tokens that carry
#    categories. Compare differences with those above, not scores: all models gain from more steps.
# 3. [The chapter on failures](12_when_it_fails.ipynb) has it, as *easy parts*, with two seeds, beside other
#    settings.
#
# </details>
