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
# # Modulation maps
#
# **Question of this chapter: what exactly is rescaled in the second pass, by how much, and what does it change?**
#
# After the first pass, every slot has a code (*what*) and an attention map (*where*). The second pass starts again
# from the same initial slots, with the same weights; the one thing that differs is that the values a slot collects are
# multiplied by its modulation map. So whatever differs between the two passes is the modulation's doing. That makes it
# easy to take apart.
#
# The chapter uses the model of [the training chapter](03_train_coco.ipynb), the one that ships with the package, or
# trains it here.

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
preset = 'toybox'  # smoke, toybox, slotwise, coco, voc, movi_c or movi_e
data_root = ''  # folder of the data set; Toybox is made in the user's cache if empty
run_dir = 'runs'  # where the trained model is looked for, or put
train = False  # True: train it here, even if one ships with the package

# %% tags=["hide-input"]
import os

import numpy as np
import pandas as pd
import torch

import topdown
from topdown.book import chapters, plots
from topdown.model.modulation import Scales
from topdown.model.slot_attention import SlotAttention

plots.style()
preset = os.environ.get('TOPDOWN_PRESET', preset)
base = topdown.preset(preset, data_root=topdown.from_project(data_root))
folder = topdown.project_dir() / run_dir / preset
checks = {}

encoder = topdown.make_encoder(base)
eval_set = topdown.make_eval_set(base, encoder)
config = base.with_(seed=0)
model = chapters.one_run(config, folder, 'top-down', encoder, eval_set, train).model
images = eval_set.images[:].permute(0, 2, 3, 1).numpy()
_, out = next(topdown.run_model(model, eval_set, limit=16, precision='fp32'))
print(f'{base.data.dataset}: {len(eval_set)} held-out images')

# %% [markdown]
# ## What: one number per channel
#
# The channel scale $m^c_k = f(c_k)$ is predicted from the slot's code by a linear layer, with nothing that keeps it
# near one or even positive. Below, the scales of the slots of the first image, one row per slot; white is one, which
# would change nothing.

# %%
# alt: A map of slots by channels: red scales a channel of the values up, blue down,
#   white leaves it. Rows that are alike are slots that are scaled alike.
channel = out.scales.channel.cpu().numpy()
plots.save(
    plots.show_map(channel[0], 'channel', 'slot', 'channel scale', centre=1.0),
    folder / 'channel_scale.png',
)
print(
    f'over 16 images: mean {channel.mean():.2f}, standard deviation '
    f'{channel.std():.2f}, ',
    end='',
)
print(f'negative {100 * (channel < 0).mean():.0f} %')
print(
    'standard deviation over slots of one channel: '
    f'{channel.reshape(-1, channel.shape[-1]).std(0).mean():.2f}'
)
_ = plots.show_map(channel[0], 'channel', 'slot', 'channel scale', centre=1.0)

# %% [markdown]
# The last number is the one that matters for *what*: a scale that is the same for all slots is no information about
# any of them, only a second set of value weights. In the run stored here it is a small part of the whole spread: rows
# of the image look alike. Whether the small part matters is to be seen below.
#
# ## Where: one number per patch, with mean one
#
# The spatial scale is the first pass's attention, shifted:
#
# $$ m^s_{k,n} = 1 + A_{k,n} - \frac1N \sum_{n'} A_{k,n'}. $$
#
# Why the shift? The attention of a slot is about $1/K$ on average, so scaling by it would shrink all values about
# $K$-fold, and a slot that looks at few patches would be shrunk more than one that looks at many. After the shift
# the mean over patches is one for every slot: what is turned up in one place is turned down elsewhere.

# %% tags=["hide-input"]
# alt: For every slot of the first image, the attention of the first pass and the
#   spatial scale made of it: brighter where the slot looked.
attention = out.first_attention.cpu()
shifted = 1 + attention - attention.mean(-1, keepdim=True)
checks['the spatial scale is the shifted attention'] = bool(
    (shifted - out.scales.spatial.cpu()).abs().max() < 1e-6
)
checks['its mean over patches is one'] = bool((shifted.mean(-1) - 1).abs().max() < 1e-6)
print(
    f'attention itself: mean {attention.mean():.3f}; shifted: from {shifted.min():.2f} '
    f'to {shifted.max():.2f}'
)
maps = {
    'attention, first pass': attention[0].numpy(),
    'spatial scale': shifted[0].numpy(),
}
plots.save(
    plots.show_attention(images[0], maps, eval_set.grid), folder / 'spatial_scale.png'
)
_ = plots.show_attention(images[0], maps, eval_set.grid)

# %% [markdown]
# ## The map is an outer product, and need never be made
#
# Slot $k$ sees values $v_{k,n} = M_k[n] \odot v_n$ with $M_k = m^s_k \otimes m^c_k$, a table of patches by channels
# for every slot of every image. Written out for the whole batch this is $B \times K \times N \times d$ numbers. But
# the update is a sum over patches in which the channel scale is constant,
#
# $$ U_k = \sum_n W_{k,n}\, m^s_{k,n}\, m^c_k \odot v_n = m^c_k \odot \sum_n (W_{k,n} m^s_{k,n})\, v_n , $$
#
# so two small products do. The naive form, against one step of the package:

# %% tags=["hide-input"]
# alt: The whole modulation map of one slot, patches by channels: rows of one colour
#   come from the channel scale, columns a little lighter or darker from the spatial
#   one.
torch.manual_seed(0)
layer = SlotAttention(8, 8, num_iterations=1).double()
x, start = torch.randn(2, 12, 8).double(), torch.randn(2, 5, 8).double()
scales = Scales(torch.randn(2, 5, 8).double(), 1 + 0.3 * torch.randn(2, 5, 12).double())
keys, values = layer.keys_values(x)
with torch.no_grad():
    q = layer.project_q(layer.norm_slots(start))
    a = (q @ keys[:, 0].transpose(1, 2) / 8**0.5).softmax(1)
    w = (a + 1e-8) / (a + 1e-8).sum(-1, keepdim=True)
    naive_map = scales.spatial[..., None] * scales.channel[:, :, None]  # B x K x N x C
    u = (w[..., None] * naive_map * values[:, 0][:, None]).sum(2)
    s = layer.gru(u.flatten(0, 1), start.flatten(0, 1)).view(2, 5, 8)
    s = s + layer.mlp(layer.norm_mlp(s))
    package, _ = layer(start, keys, values, scales)
checks['the factored form equals the naive one'] = bool(
    (s - package).abs().max() < 1e-12
)
one = out.scales.spatial[0, 0].cpu()[:, None] * out.scales.channel[0, 0].cpu()
plots.save(
    plots.show_map(one.T.numpy(), 'patch', 'channel', 'map of slot 0', centre=1.0),
    folder / 'map.png',
)
_ = plots.show_map(
    one.T.numpy(), 'patch', 'channel', 'modulation map of slot 0', centre=1.0
)

# %% [markdown]
# Rows of one colour are channels: the channel scale dominates the image, and the spatial scale shows as columns that
# are a little stronger or weaker.
#
# ## Attention before and after

# %%
# alt: Attention of every slot before and after modulation, over the first image: look
#   for slots that have let go of a neighbour, or of the ground.
maps = {
    'first pass': attention[0].numpy(),
    'second pass': out.attention[0].cpu().numpy(),
}
maps['second - first'] = maps['second pass'] - maps['first pass']
plots.save(plots.show_attention(images[0], maps, eval_set.grid), folder / 'passes.png')
_ = plots.show_attention(images[0], maps, eval_set.grid)

# %% [markdown]
# ## Turn it yourself
#
# The second pass of this chapter's model on the first five held-out images, computed in the page. Choose an image and a
# slot and move its scales: at 0 a scale is one everywhere, which changes nothing; at 1 it is what the model makes of
# the slot's code and attention; at 2 it is twice as far from one. *Code* gives the slot the channel scale of another
# code. The upper row shows the masks of all slots, the lower row the attention of the chosen one. With both scales of
# all slots at 0, the second pass repeats the first. Which of the two scales moves the masks more, and does it matter
# which code a slot has?
#
# <div id="live-modulation">
#
# ![Masks of five images after the first pass, the second, and the second with a scale of one slot set to
# one](../figures/live.png)
#
# Here the figure stands still: without the channel scale, or the spatial scale, of the slot with the largest mask. It
# moves in the book, where the browser runs scripts.
#
# </div>
#
# ## What each part does
#
# Interventions on the trained model, with nothing trained anew. *None* replaces all scales by one: the second pass
# then repeats the first. *Channel only* and *spatial only* replace the other by one. *Mean channel* gives every slot
# the average channel scale of the data set: the information *what* is gone, the rescaling stays. *Shuffled codes*
# gives slots the channel scale of another slot of the same image. *Spatial of another slot* does the same with
# *where*.
#
# The model was trained with both parts in place. An intervention shows what this model leans on, not how well a model
# would do that was trained without the part; that is the ablation, and needs training.

# %% tags=["hide-input"]
predictions = {
    name: topdown.predict(model, eval_set, change=change)
    for name, change in topdown.interventions(model, eval_set).items()
}
per_image = {
    name: topdown.score(labels, eval_set) for name, labels in predictions.items()
}
table = pd.DataFrame(
    {name: topdown.summarize(rows) for name, rows in per_image.items()}
).T
first = topdown.score(topdown.predict(model, eval_set, 'first'), eval_set)
unmodulated = topdown.score(
    topdown.predict(model, eval_set, 'slots', change=lambda s: Scales()), eval_set
)
checks['without scales the second pass repeats the first'] = all(
    abs(a['ari'] - b['ari']) < 1e-9 for a, b in zip(first, unmodulated)
)
table.to_csv(folder / 'interventions.csv')
table[['fg_ari', 'ari', 'mbo_i', 'mbo_c']].round(1)

# %% [markdown]
# How to read it: the gap between *none* and *both* is what the second pass adds to the first. If *mean channel* is
# close to *both*, the channel scale works as a learned rescaling and codes matter little; if *shuffled codes* or *mean
# channel* fall towards *none*, the model relies on what the codes say. Note that the first pass is never trained to be
# good by itself: it is a draft whose only purpose is to make the second pass good, so *none* is no fair stand-in for a
# model without the pathway.
#
# What each intervention costs in mBO$_i$, against *both* on the same images:

# %%
instance = {
    name: 100 * np.array([row['mbo_i'] for row in rows])
    for name, rows in per_image.items()
}
costs = {
    name: topdown.compare(values, instance['both']).difference
    for name, values in instance.items()
}
pd.DataFrame({
    name: {
        'mbo_i - both': f'{d.mean:+.1f}',
        '95 % over images': f'[{d.low:+.1f}, {d.high:+.1f}]',
    }
    for name, d in costs.items()
    if name != 'both'
}).T  # fmt: skip

# %% [markdown]
# What this model lives by:

# %%
free = [name for name, d in costs.items() if name != 'both' and d.mean > -1]
dear = [name for name, d in costs.items() if d.mean < -1]
print(f'costs less than a point: {", ".join(free) or "nothing"}')
print(f'costs more: {", ".join(dear) or "nothing"}')
if {'mean channel', 'shuffled codes'} <= set(free) and 'spatial only' in dear:
    print('The channel scale is what counts, and it may as well be one for all slots:')
    print('a learned rescaling of channels, which no code has to be looked up for.')

# %% [markdown]
# It is one model: which parts are used can differ from seed to seed, as [other runs](slotwise.md) show. And what is used
# need not be needed, nor what is not used be useless in training: whether a model trained without it is worse is for
# [the ablation](08_ablation.ipynb) to say.
#
# ## Where it helps, where it hurts
#
# The difference in mBO$_i$ between the second and the first pass, image by image, and by a fixed rule the three
# images with the largest gain and the three with the largest loss.

# %% tags=["hide-input"]
# alt: Histogram of the gain of the second pass over the first, image by image: mass
#   right of zero is images that modulation made better.
first_pass = topdown.predict(model, eval_set, 'first')
second_pass = predictions['both']
before = np.array([row['mbo_i'] for row in topdown.score(first_pass, eval_set)])
after = np.array([row['mbo_i'] for row in per_image['both']])
gain = 100 * (after - before)
found = topdown.compare(100 * after, 100 * before)
print(f'second - first pass: {found.difference.mean:+.1f} points of mBO_i, ', end='')
print(f'95 % over images [{found.difference.low:+.1f}, {found.difference.high:+.1f}]')
print(f'better in {100 * np.nanmean(gain > 0):.0f} % of images')
plots.save(
    plots.show_histogram(gain[~np.isnan(gain)], 'gain, points', 'second - first pass'),
    folder / 'gain.png',
)
_ = plots.show_histogram(
    gain[~np.isnan(gain)],
    'gain in mBO$_i$, points',
    'second minus first pass, by image',
)

# %%
# alt: The three images with the largest gain and the three with the largest loss:
#   truth, first pass, second pass.
order = [int(i) for i in np.argsort(np.nan_to_num(gain, nan=0.0))]
truth = eval_set.instances[:].clip(0)
rows = [
    (
        f'{gain[i]:+.0f}',
        images[i],
        {'truth': truth[i], 'first pass': first_pass[i], 'second pass': second_pass[i]},
    )
    for i in [*order[:-4:-1], *order[2::-1]]
]
rows = [
    (name, image, {k: np.asarray(v) for k, v in columns.items()})
    for name, image, columns in rows
]
plots.save(plots.show_pass_masks(rows), folder / 'helps_and_hurts.png')
_ = plots.show_pass_masks(rows)

# %% [markdown]
# ## Checks

# %%
# NBVAL_CHECK_OUTPUT
assert all(checks.values()), checks
print('\n'.join(f'{name}: {value}' for name, value in checks.items()))

# %% [markdown]
# ## What was seen, and its limits
#
# The map is a product of two vectors, costs next to nothing in factored form, and is everything that tells the two
# passes apart. Interventions show what one trained model relies on. The page on [an easier decoder](slotwise.md) repeats
# them for every seed. Whether the pathway makes a better *model* is the
# question of [the training chapter](03_train_coco.ipynb), which compares it with one trained without.
#
# **Exercises**
#
# 1. Replace the channel scale by its sign, or by its absolute value. Which of the two does the model need?
# 2. Add `'double spatial': lambda s: s._replace(spatial=1 + 2 * (s.spatial - 1))`. Is more of *where* better?
# 3. Train with `-p models released_default` in the training chapter: no spatial scale, but queries and the slots' MLP
#    are scaled. Which interventions make sense there?

# %% [markdown] tags=["solution"]
# <details><summary><b>Solutions</b></summary>
#
# 1. Two more entries among the interventions: `lambda s: s._replace(channel=s.channel.sign())` and the same with
#    `abs()`. Scales of mixed sign turn channels of the values around; if the model needs that, only the first keeps its
#    score.
# 2. The mean of the scale stays one, so keys and queries see the same total; what grows is the contrast between
#    patches. If the score hardly moves, so does the role of *where*, as the rows for the spatial scale above say in
#    another way.
# 3. Those on the channel scale, and new ones on the scales of queries and of the MLP's hidden units, which `Scales`
#    holds, too. Nothing spatial is there to take away.
#
# </details>
