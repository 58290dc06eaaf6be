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
# # Slot attention on pixels: CLEVR6
#
# **Question of this chapter: does the pathway help where slot attention began, on the pixels of images of simple,
# one-coloured things, with nothing pretrained?**
#
# All other chapters stand on a frozen encoder. Here there is none: as in the original model {cite}`locatello2020slot`,
# a small convolutional network makes the features, another one draws each slot's image, and both are trained with
# the slots. The paper runs this once, on CLEVR6, and its two metrics disagree: FG-ARI falls with the pathway and mBO
# rises.
#
# Run as it is, this notebook needs neither a GPU nor a network, but half an hour on two cores: it makes Toybox images
# that are like CLEVR's, with toys of one colour each that hardly overlap, on the same grey ground in every image.
# With the data at hand (`topdown data fetch clevr6`, then `prepare`), it runs the paper's configuration:
#
# ```bash
# papermill book/06_clevr6.ipynb out.ipynb -p preset clevr6 -p data_root /data/clevr
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
preset = 'clevr6_toybox'  # clevr6_smoke, clevr6_toybox or clevr6
data_root = ''  # folder of the data set; Toybox is made in the user's cache if empty
run_dir = 'runs'  # where checkpoints, tables and figures go
seeds = 0  # runs of every model; 0 leaves it to the preset
steps = 0  # optimiser steps of every run; 0 leaves it to the preset
models = 'baseline,top-down'  # any of topdown.VARIANTS, such as six-iterations
fresh = False  # delete earlier runs of this preset first

# %% [markdown]
# ## Setting up
#
# The next cell checks every parameter before anything long begins. `TOPDOWN_PRESET`, an environment variable, takes
# the place of the preset; `smoke` stands for `clevr6_smoke`.

# %%
import pandas as pd
import torch

import topdown
from topdown.book import chapters, plots, tables
from topdown.evaluate import baselines

plots.style()
pd.set_option('display.max_colwidth', None)
base, chosen, folder = chapters.begin(
    preset, ('clevr6_toybox', 'clevr6_smoke', 'clevr6'), models, run_dir, fresh,
    data_root=data_root, seeds=seeds,
    steps=steps,
)  # fmt: skip
print(
    f'preset {base.name}: {base.train.steps} steps of {base.train.batch_size} images, '
    f'{base.seeds} seed(s)'
)

# %% [markdown]
# ## The data
#
# `encoder='pixels'` stands where the frozen encoder stands elsewhere and gives every pixel's colour as a token, so
# training, evaluation and checkpoints are those of the other chapters.

# %%
# alt: Small, plain Toybox images and their true instances.
train_set = topdown.open_dataset(base, 'train')
val_set = topdown.open_dataset(base, 'val')
encoder = topdown.make_encoder(base)
eval_set = topdown.make_eval_set(base, encoder, dataset=val_set)
print(
    f'{base.data.dataset}: {len(train_set)} training and {len(val_set)} validation '
    'images',
    end=', ',
)
print(f'{encoder.grid[0]} x {encoder.grid[1]} pixels, so N = {encoder.num_patches}')
show = list(range(min(6, len(eval_set))))
images = eval_set.images[show].permute(0, 2, 3, 1).numpy()
truth = eval_set.instances[show].clip(0)
plots.save(
    plots.show_masks(images, {'truth': truth}, truth=('truth',)), folder / 'data.png'
)
_ = plots.show_masks(images[:3], {'truth': truth[:3]}, truth=('truth',))

# %% [markdown]
# ## What any method must beat
#
# The rows need no training. On one-coloured things, *k-means on colours* is a rival, the more so with the *place* of a
# pixel beside its colour. A *block grid* shows how far place alone goes in FG-ARI, which looks at pixels of objects
# only and so does not mind cells that take in the ground around an object; mBO does.

# %%
labels = topdown.baselines(eval_set, base.model.num_slots)
del labels['k-means on tokens']  # tokens are colours here
down, across = (torch.linspace(-1, 1, size) for size in encoder.grid)
place = torch.cartesian_prod(down, across).expand(len(eval_set), -1, -1)
labels['k-means on colours and place'] = baselines.kmeans(
    eval_set, torch.cat([eval_set.tokens, place], dim=-1), base.model.num_slots
)
rows = chapters.baseline_rows(labels, eval_set)
pd.DataFrame(rows).set_index('model')[['fg_ari', 'mbo_i', 'miou']].round(1)

# %% [markdown]
# ## The two ends
#
# Features: four 5 × 5 convolutions at full resolution; to each place is added a linear map of its distances from the
# four edges; then the head that tokens have, too. Images: every slot is repeated over a small grid, places are added
# again, transposed convolutions enlarge it to an image of colours and one of opacity, and a softmax over slots of the
# opacities blends the images. In between, both passes are exactly those of the other chapters: `topdown.pixels` has
# the ends, `topdown.model` puts them in, and nothing else knows of pixels.

# %%
model = topdown.build_model(base, encoder)
ends = {'features': model.head.convolutions, 'images': model.decoder.convolutions}
layers = pd.DataFrame([
    {
        'end': end,
        'layer': str(layer),
        'parameters': sum(p.numel() for p in layer.parameters()),
    }
    for end, part in ends.items()
    for layer in part
    if not isinstance(layer, torch.nn.ReLU)
]).set_index('end')  # fmt: skip
layers

# %% [markdown]
# ## Training
#
# The loss is the mean squared error to the pixels. Both models of a seed start from the same weights and see the same
# images in the same order.

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
# Mean over validation images, in percent; with several seeds, mean ± standard deviation over seeds. Decoder masks
# are the opacities; slot attention's masks are its own attention.

# %%
results = chapters.write_results(rows + trained.rows, base, folder)
topdown.mean_and_spread(results, ['model', 'masks'])[
    ['fg_ari', 'mbo_i', 'miou', 'runs']
]

# %% [markdown]
# What the models gain over each row that needed no training, in points (decoder masks). A negative number is a
# baseline that is not beaten.

# %%
chapters.gains(results, chosen)[['fg_ari', 'mbo_i', 'miou']].round(1)

# %% [markdown]
# ## Beside the paper
#
# What the paper says of the pathway on CLEVR6, and the difference found here on the same images with its 95 %
# interval over them. The paper's figures were not transcribed, only their direction. Over images, an interval says
# whether these trained models differ, not whether training them again would show the same.

# %%
paired = topdown.paired_table(trained.scores['decoder'], chosen[0])
paired.to_csv(folder / 'paired.csv', index=False)
published = tables.read_published(topdown.figures_dir() / 'paper')
published = (
    published[published.dataset.eq('CLEVR6') & published.row.eq('top-down')]
    .set_index('metric')
    .note
)
said = {'fg_ari': published['FG-ARI'], 'mbo_i': published['mBO']}
beside = (
    paired[paired.metric.isin(said)]
    if len(paired)
    else pd.DataFrame(columns=['model', 'metric', 'difference'])
)
beside.assign(paper=beside.metric.map(said)).set_index(['model', 'metric']).T

# %% [markdown]
# ## Masks on held-out images
#
# The first validation images, whatever they show; none was chosen.

# %%
# alt: Held-out images, truth, and the masks of both models.
last_seed = base.seeds - 1
columns = {'truth': truth}
columns |= {
    name: topdown.predict(trained.runs[name, last_seed].model, eval_set)[show].numpy()
    for name in chosen
}
plots.save(plots.show_masks(images, columns, truth=('truth',)), folder / 'masks.png')
_ = plots.show_masks(
    images[:5], {k: v[:5] for k, v in columns.items()}, truth=('truth',)
)

# %% [markdown]
# ## What every slot draws
#
# The blended image, and each slot's own image, faded to white where its opacity is low. A slot that took an object
# shows it and nothing else; one that took the ground shows the ground with holes.

# %%
# alt: A held-out image, the blend that the decoder draws, and the image of every slot,
#   faded where it is not the one that is seen.
shown = chosen[-1]
model = trained.runs[shown, last_seed].model
_, out = next(topdown.run_model(model, eval_set, limit=4, precision='fp32'))
with torch.no_grad():
    drawn, masks = model.decoder.draw(out.slots)
blended, drawn = (
    (x / 2 + 0.5).unflatten(-2, encoder.grid).cpu().numpy()
    for x in (out.reconstruction, drawn)
)
parts = images[:4], blended, drawn, masks.unflatten(-1, encoder.grid).cpu().numpy()
plots.save(plots.show_slot_images(*parts), folder / 'slots.png')
print(f'model: {shown}')
_ = plots.show_slot_images(*parts)

# %% [markdown]
# ## Attention before and after modulation
#
# The first image: slot attention in the first pass and in the second, and the decoder's opacities.

# %%
# alt: Attention of every slot in both passes, and the opacities of the decoder.
if ('top-down', last_seed) in trained.runs:
    model = trained.runs['top-down', last_seed].model
    _, out = next(topdown.run_model(model, eval_set, limit=1))
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
# ## What the second pass changes
#
# The masks of slot attention in the first pass, in the second, and in the second when its scales are replaced by ones
# (it then repeats the first). The decoder is the same; only the slots that it gets differ.

# %%
passes = pd.DataFrame(columns=['fg_ari', 'mbo_i', 'miou'])
if ('top-down', last_seed) in trained.runs:
    found = {
        'slot attention, first pass': topdown.predict(model, eval_set, 'first'),
        'slot attention, second pass': topdown.predict(model, eval_set, 'slots'),
        'decoder': topdown.predict(model, eval_set),
    }
    changes = topdown.interventions(model, eval_set)
    found['decoder, scales of one'] = topdown.predict(
        model, eval_set, change=changes['none']
    )
    passes = pd.DataFrame(
        {
            n: topdown.summarize(topdown.score(maps, eval_set))
            for n, maps in found.items()
        }
    ).T
passes[['fg_ari', 'mbo_i', 'miou']].round(1)

# %% [markdown]
# How often each code is the nearest one to a slot of the first pass, over all validation images.

# %%
# alt: Bars: how often each code is the nearest to a slot.
if ('top-down', last_seed) in trained.runs:
    index = torch.cat(
        [out.code_index for _, out in topdown.run_model(model, eval_set)]
    ).cpu()
    hits = torch.bincount(index.flatten(), minlength=base.model.codebook_size).numpy()
    plots.save(plots.show_code_usage(hits), folder / 'codes.png')
    plots.show_code_usage(hits)

# %% [markdown]
# ## Checks
#
# What must hold whatever the preset: attention and opacities share out every pixel among the slots, the images
# blended by hand are the reconstruction, the spatial scale has mean one, and the second pass differs from the first.

# %% tags=["hide-input"]
# NBVAL_CHECK_OUTPUT
checks = {'losses are finite': bool(trained.log['loss'].notna().all())}
for (name, _), run in trained.runs.items():
    _, out = next(topdown.run_model(run.model, eval_set, limit=2, precision='fp32'))
    with torch.no_grad():
        drawn, masks = run.model.decoder.draw(out.slots)
    ones = torch.ones((), device=masks.device)
    checks['attention sums to one over slots'] = bool(
        (out.attention.sum(1) - ones).abs().max() < 1e-5
    )
    checks['opacities sum to one over slots'] = bool(
        (out.masks.sum(1) - ones).abs().max() < 1e-5
    )
    blended = torch.einsum('bkn,bknc->bnc', masks, drawn)
    checks['the blend is the reconstruction'] = bool(
        (blended - out.reconstruction).abs().max() < 1e-4
    )
    if name == 'top-down':
        checks['spatial scale has mean one'] = bool(
            (out.scales.spatial.mean(-1) - ones).abs().max() < 1e-5
        )
        checks['modulation changes the attention'] = not torch.equal(
            out.attention, out.first_attention
        )
assert all(checks.values()), checks
print('\n'.join(f'{name}: {value}' for name, value in checks.items()))

# %% [markdown]
# ## What was seen, and its limits

# %%
print(tables.say_effects(chapters.effects(results, chosen[0]), chosen[0]))
print(chapters.say_rivals(results, chosen))
by_seed = results[results.masks.eq('decoder')].pivot(
    index='model', columns='seed', values='fg_ari'
)
print('FG-ARI, least and most over seeds: ', end='')
print(
    '; '.join(
        f'{name} {row.min():.1f} and {row.max():.1f}'
        for name, row in by_seed.iterrows()
    )
)

# %% [markdown]
# The first lines ask whether training again would show the difference (95 % intervals over the seeds of this page);
# the next, which rows without training the models leave behind; the last, how far runs of one model lie apart.
#
# In the run stored here, slots have begun to draw things: their images show one toy each, as a soft spot. The ground
# they still share out among themselves, each taking what lies around its toy, which FG-ARI does not mind and mBO does.
# Scores still rise at the end of training, so this compares models half-way. There, the model with the pathway
# is behind in both seeds, in both metrics; of the paper's finding, FG-ARI down and mBO up, the sign of the first is
# seen, but not more clearly than seeds scatter. A likely cause is that the pathway learns later: its second pass rests
# on codes of slots that do not yet stand for anything. That was not tested.
#
# Limits: a few thousand steps of small images and narrow networks stand here for the original's half a million of
# full size. On one-coloured things on an even ground, k-means on colours is near the task's solution, which the
# networks have yet to learn from nothing. What the paper reports needs the paper's run.
#
# **Exercises**
#
# 1. Set `steps` three times higher. Do the seeds come closer to each other? Which model gains more?
# 2. If *decoder, scales of one* is worse than *decoder* above: does that show that the pathway helps?
# 3. The loss is a mean over pixels and most are ground. Why do slots not all end as ground?
#
# **Solutions**
#
# 1. `papermill book/06_clevr6.ipynb out.ipynb -p steps 9000 -p run_dir longer` keeps the present results beside the new
#    ones. If seeds do come closer, the difference at the shorter budget was one of speed.
# 2. No. It shows that this model relies on its scales, which it was trained with. Whether a model trained without them
#    does as well is what the baseline is for.
# 3. Opacities sum to one over slots, so a slot that draws things where others draw ground lowers the error there at no
#    cost elsewhere; two slots that both draw ground share it, and nothing is gained by the second.
