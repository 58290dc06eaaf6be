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
# # What it costs
#
# **Question of this chapter: what does the top-down pathway cost in parameters, arithmetic, memory and time, against
# the baseline and against six plain iterations, and how long would a training run take?**
#
# The paper does not say. Parameters and arithmetic are worked out here while you watch, twice: by formula and by
# torch's own counter. Times and memory were measured by `topdown bench`; their rows carry the commit and the date.
#
# ```bash
# topdown bench --preset coco --batch-size 8 --models baseline top-down six-iterations --table figures/tables/bench.csv
# topdown bench --preset coco --batch-size 4 --grow figures/tables/bench_growth.csv
# topdown bench --preset coco --batch-size 8 --store figures/tables/token_store.csv
# topdown bench --preset coco --models baseline top-down six-iterations --inference figures/tables/inference.csv
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
preset = 'coco'  # whose model is counted: any preset with patch tokens

# %% [markdown]
# ## Setting up

# %% tags=["hide-input"]
import pandas as pd
import seaborn as sns
import torch
from IPython.display import display

import topdown
from topdown.book import bench, cost, plots
from topdown.model.slot_model import SlotModel

plots.style()
config = topdown.preset(preset)
patches, features, _ = bench.token_shape(config)
names = ('baseline', 'top-down', 'six-iterations')
models = {}
for name in names:
    model = SlotModel(
        config.with_(**topdown.VARIANTS[name]).model, features, patches
    ).train()
    models[name] = model
tables = topdown.figures_dir() / 'tables'
print(
    f'{config.name}: N = {patches} patches of width D = {features}, K = '
    f'{config.model.num_slots} slots'
)

# %% [markdown]
# ## Parameters
#
# The second pass uses the first one's weights, so the pathway adds only the map from codes to channel scales, and the
# codebook, which is not trained by gradients.

# %%
parameters = (
    pd.DataFrame({name: cost.count_parameters(model) for name, model in models.items()})
    .fillna(0)
    .astype(int)
)
parameters.loc['trained in all'] = parameters.drop(index='codebook').sum()
parameters.T

# %% [markdown]
# ## Arithmetic
#
# Matrix products of one image's forward pass, by formula (`topdown.model.flops.forward_flops`), in millions of operations, a
# multiplication and an addition counting two.

# %%
flops = {
    name: cost.forward_flops(
        config.with_(**topdown.VARIANTS[name]).model, features, patches
    )
    for name in names
}
by_part = pd.DataFrame(flops).T / 1e6
by_part['all'] = by_part.sum(axis=1)
by_part['over the baseline, %'] = 100 * (
    by_part['all'] / by_part.loc['baseline', 'all'] - 1
)
by_part.round(2)

# %% [markdown]
# The same, counted by torch while the model runs. A backward pass costs twice the forward pass, but for the search for
# the nearest codes, through which no gradient goes.

# %%
# NBVAL_CHECK_OUTPUT
torch.manual_seed(0)
tokens = torch.randn(2, patches, features)
for name, model in models.items():
    model(tokens)  # starts the codebook, which is no part of a step
    settings = config.with_(**topdown.VARIANTS[name]).model
    forward, step = (
        sum(flops[name].values()),
        cost.step_flops(settings, features, patches),
    )
    assert cost.count_flops(model, tokens) == 2 * forward
    assert cost.count_flops(model, tokens, backward=True) == 2 * step
    print(f'{name}: formula and counter agree, forward pass and training step')

# %% [markdown]
# ## Memory that the backward pass needs
#
# What a forward pass keeps for the backward pass, each tensor once, an image's share, in MB. Nothing of size
# $K \times N \times d$ is ever made: the modulation map is applied factor by factor (see the chapter on
# [modulation maps](02_modulation_maps.ipynb)).

# %%
kept = {
    precision: {
        name: cost.activation_bytes(model, tokens, precision) / 2 / 1e6
        for name, model in models.items()
    }
    for precision in ('fp32', 'bf16')
}
pd.DataFrame(kept).round(1)

# %% [markdown]
# ## Time, measured
#
# Seconds of a training step on two cores of a CPU, random tokens, models measured in turn: median and range; share of
# what the machine's fastest matrix product would allow; the overhead over the baseline, step by step; peak memory of a
# process that only trains, and how much of it importing torch and timm takes.


# %% tags=["hide-input"]
def read(name):
    path = tables / name
    return pd.read_csv(path) if path.is_file() else None


measured = read('bench.csv')
if measured is None:
    print('not run: topdown bench --table figures/tables/bench.csv')
else:
    columns = {
        'step_s': 'step, s', 'step_min_s': 'fastest', 'step_max_s': 'slowest',
        'images_per_s': 'images/s',
        'least_s': 'products alone, s', 'share_of_ceiling': 'share',
        'overhead_percent': 'overhead, %',
        'peak_gb': 'peak, GB', 'imports_gb': 'imports, GB',
    }  # fmt: skip
    shown = measured.set_index(['preset', 'precision', 'batch', 'model'])[
        list(columns)
    ].rename(columns=columns)
    display(shown.round(3))

# %% [markdown]
# Where the time of a step goes, each part forward and backward by itself, seconds:

# %%
if measured is not None:
    pieces = [
        'head_s',
        'first pass_s',
        'codes and second pass_s',
        'decoder_s',
        'clip_s',
        'adam_s',
    ]
    parts = measured.set_index(['preset', 'precision', 'model'])[
        [p for p in pieces if p in measured]
    ]
    display(parts.rename(columns=lambda c: c.removesuffix('_s')).round(4))

# %% [markdown]
# How near each part is to the limit: what its products alone would take at the machine's best speed, as a share of what
# it took. Slot attention works on a handful of slots, so its products are small and many, and most of its time goes
# into starting them.

# %% tags=["hide-input"]
if measured is not None:
    grouped = {
        'head': ['head'],
        'first pass': ['first pass'],
        'codes and second pass': ['codes and scales', 'second pass'],
        'decoder': ['decoder'],
    }
    shares = {}
    for row in measured.to_dict('records'):
        settings = topdown.preset(row['preset'], **topdown.VARIANTS[row['model']])
        count, width, _ = bench.token_shape(settings)
        products = cost.forward_flops(settings.model, width, count)
        shares[row['preset'], row['precision'], row['model']] = {
            part: 3 * row['batch'] * sum(products[name] for name in inside)
            / (1e12 * row['ceiling_tflops'] * row[f'{part}_s'])
            for part, inside in grouped.items()
        }  # fmt: skip
    display(
        pd.DataFrame(shares).T.rename_axis(['preset', 'precision', 'model']).round(2)
    )

# %% [markdown]
# ## Two builds, side by side
#
# An earlier build of the package against this one, in turn, CPU seconds a step: medians, the median and range of the
# ratios round by round, and the share of the step that its products alone would take. What gained: weights of
# cross-attention applied to the few slots, causal attention in three blocks of which none is written in place, one
# product for queries, keys and values, and a ReLU that is *not* done in place (on a view, torch's autograd copies the
# whole tensor four times more). What was tried and dropped: the feed-forward layer in chunks, attention in 1, 2, 4 or
# 6 blocks, and `torch.compile` (4 % on one thread).
#
# ```bash
# python -m tests.builds 546be3d 12
# ```

# %%
builds = read('builds.csv')
if builds is None:
    print('not run: python -m tests.builds COMMIT ROUNDS')
else:
    columns = {
        'threads': 'threads', 'before': 'before, s', 'now': 'now, s',
        'ratio': 'times faster', 'ratio_least': 'least', 'ratio_most': 'most',
        'share': 'products, share',
    }  # fmt: skip
    display(builds.set_index('case')[list(columns)].rename(columns=columns).round(3))

# %% [markdown]
# With the paper's decoder, nearly all of a step is the decoder, and the pathway is lost in the noise. With the easier
# decoder of `slotwise`, slot attention is most of the step, and three further iterations cost what three iterations
# cost.
#
# ## What the pathway costs once trained
#
# Applying a model to an image, slots and decoder's masks included, the encoder not: milliseconds an image and peak
# memory beside what importing takes, one image and 32 at a time. The decoder is the larger part here, too; a
# program that needs slots only can leave it out (`decode=False`).

# %%
applied = read('inference.csv')
if applied is None:
    print(
        'not run: topdown bench --preset coco --inference figures/tables/inference.csv'
    )
else:
    columns = {
        'ms': 'ms an image', 'least_ms': 'least', 'most_ms': 'most',
        'own_gb': 'memory, GB', 'threads': 'threads', 'device': 'device',
    }  # fmt: skip
    display(
        applied.set_index(['preset', 'precision', 'batch', 'model'])[list(columns)]
        .rename(columns=columns)
        .round(3)
    )

# %% [markdown]
# ## From files to tensors, measured
#
# Images a second that are read, resized and cut for training, by way of reading and number of loader processes:
# Pillow and torch (the default), OpenCV (`image_reader=opencv`), and torchvision on tensors, as much public code has it.
# A GPU that takes R images a second needs R over the row of one process of them; beyond the cores there are, more
# processes bring nothing.

# %%
reading = read('reading.csv')
if reading is None:
    print('not run: topdown data speed coco DIR --workers 0 1 2 4 --table ...')
else:
    display(
        reading.pivot(
            index=['dataset', 'protocol', 'cores', 'workers'],
            columns='reader',
            values='images_per_s',
        ).round(0)
    )

# %% [markdown]
# ## With stored tokens, measured
#
# The encoder is frozen, so its tokens can be computed once and read from disk ([data](data.md)). A step with the
# encoder in the loop against one from the store, on the same images, reading included; what storing one view of one
# image takes; and the largest relative difference of the two losses, since stored tokens are rounded.

# %%
stored = read('token_store.csv')
if stored is None:
    print(
        'not run: topdown bench --preset coco --batch-size 8 --store '
        'figures/tables/token_store.csv'
    )
else:
    columns = {
        'loop_s': 'step with encoder, s', 'store_s': 'step from store, s',
        'times_faster': 'times faster',
        'write_s': 'storing a view, s', 'worst_difference': 'losses differ by at most',
    }  # fmt: skip
    display(
        stored.set_index(['preset', 'precision', 'batch'])[list(columns)]
        .rename(columns=columns)
        .round(4)
    )

# %% [markdown]
# ## How it grows
#
# One quantity at a time, the others being the preset's. Lines that stay parallel say that the pathway grows as the
# plain model does.

# %% tags=["hide-input"]
# alt: Time of a step and memory kept, against patches, slots, codes, batch and width,
#   baseline and top-down: the two lines of a panel stay parallel.
growth = read('bench_growth.csv')
if growth is None:
    print(
        'not run: topdown bench --preset coco --batch-size 4 --grow '
        'figures/tables/bench_growth.csv'
    )
else:
    names = {'step': 'step, s', 'activations': 'activations, GB'}
    growth['activations'] /= 1e9
    long = growth.melt(['along', 'value', 'model'], list(names), 'what', 'amount')
    grid = sns.relplot(
        long.replace({'what': names}),
        x='value',
        y='amount',
        hue='model',
        palette={name: plots.method_colour(name) for name in growth.model.unique()},
        col='along',
        row='what',
        kind='line',
        marker='o',
        height=2.2,
        aspect=0.8,
        facet_kws={'sharex': 'col', 'sharey': 'row'},
    )
    grid.set(xscale='log', yscale='log', xlabel='')
    grid.set_titles('')
    for axis, name in zip(grid.axes[:, 0], names.values()):
        axis.set_ylabel(name)
    for axis, name in zip(grid.axes[0], grid.col_names):
        axis.set_title(name.replace('_', ' '))
        values = sorted(growth[growth['along'] == name].value.unique())
        axis.set_xticks(values, [f'{value:g}' for value in values])
        axis.minorticks_off()
    for axis in grid.axes[-1]:
        axis.tick_params('x', rotation=45)
    sns.move_legend(grid, 'upper center', ncol=2, title='', bbox_to_anchor=(0.5, 1.08))

# %% [markdown]
# ## What a run would take on a GPU: an estimate
#
# **Predicted, not measured.** No GPU was at hand. A roofline takes, of every part, the longer of two times: arithmetic
# at the device's published peak, or memory traffic at its published bandwidth. No real program reaches it; the second
# column of times assumes 40 % of it, which well-tuned transformers reach. Tokens are computed by DINO ViT-B/16 in every
# step; with stored tokens its part falls away.

# %% tags=["hide-input"]
vit = cost.vit_flops(
    width=768, depth=12, tokens=197, patch_values=3 * 16 * 16, patches=196
)
rows = []
for device in cost.DEVICES:
    per_image = int(cost.activation_bytes(models['top-down'], tokens, 'bf16') / 2)
    found = cost.predict_step(
        device,
        config,
        models['top-down'],
        features,
        patches,
        per_image,
        vit,
        86_000_000,
    )
    days = config.train.steps / 1000 / 86_400
    rows.append({
        'device': found.device, 'encoder, ms': found.encoder_ms,
        'model, ms': found.model_ms,
        'optimiser, ms': found.optimizer_ms, 'step, ms': found.step_ms,
        'step at 40 %, ms': found.step_ms / 0.4,
        'images/s at 40 %': 400 * config.train.batch_size / found.step_ms,
        'run at 40 %, hours': 24 * found.step_ms / 0.4 * days,
        'memory, GB': found.memory_gb,
    })  # fmt: skip
pd.DataFrame(rows).set_index('device').round(1)

# %% [markdown]
# The memory column is for the explicit attention that CPUs run; a GPU's fused attention keeps less.

# %%
# NBVAL_CHECK_OUTPUT
overhead = by_part.loc['top-down', 'over the baseline, %']
fits = max(row['memory, GB'] for row in rows) < 24
added = (
    parameters.loc['trained in all', 'top-down']
    / parameters.loc['trained in all', 'baseline']
    - 1
)
assert max(row['step, ms'] for row in rows) < float('inf')
print(f'the pathway adds less than 1 % of the arithmetic: {overhead < 1}')
print(f'the pathway adds less than 1 % of the parameters: {added < 0.01}')
print(f'the preset fits a card of 24 GB: {fits}')

# %% [markdown]
# ## What was seen, and its limits
#
# The pathway is nearly free at the paper's scale, whatever is counted: its second pass works on a handful of slots, and
# the decoder on all patches. Six plain iterations cost the same arithmetic as three and three but for codes and scales.
# Times were measured on two CPU cores; GPU times are estimates, and say so.
#
# **Exercises**
#
# 1. Run this chapter with `-p preset slotwise`. Why is the pathway's share so much larger?
# 2. At which number of slots does the second pass cost a tenth of the decoder?

# %% [markdown] tags=["solution"]
# <details><summary><b>Solutions</b></summary>
#
# 1. The easier decoder has one small network a slot and no attention over patches, so slot attention is most of what
#    is left to compute.
# 2. A step's arithmetic in `topdown.cost` is linear in $K$; solve with the numbers of the table by part, or call
#    `forward_flops` with `num_slots` raised until the ratio is reached.
#
# </details>
