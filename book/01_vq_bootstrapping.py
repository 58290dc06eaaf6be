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
# # VQ bootstrapping
#
# **Question of this chapter: slots are continuous and belong to one image. How does a discrete vocabulary, shared by
# all images, come out of them without labels, and what is in it?**
#
# The top-down pathway needs to know *what* is in an image before anything has told it. The paper's answer is to
# bootstrap: slots of the first pass already lie near each other when they stand for similar things, so the nearest
# entry of a learned codebook is a first guess. This chapter takes vector quantization
# {cite}`vandenoord2017vqvae` apart on toy data, derives each piece in a few lines, holds the package to it, and then
# opens the codebook of a trained model.
#
# It runs on the embedded data set. The model is the one of [the training chapter](03_train_coco.ipynb): its checkpoint
# if that has been run, else the trained model that ships with the package, and of presets without one it is trained here.

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

# %%
import os

import torch
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_mutual_info_score

import topdown
from topdown.book import chapters, plots
from topdown.model.codebook import Codebook, perplexity

plots.style()
preset = os.environ.get('TOPDOWN_PRESET', preset)
base = topdown.preset(preset, data_root=topdown.from_project(data_root))
folder = topdown.project_dir() / run_dir / preset
checks = {}

# %% [markdown]
# ## The nearest code
#
# A codebook holds $E$ vectors $c_e$. A slot $x$ is replaced by the nearest one,
#
# $$ j(x) = \operatorname*{argmin}_e \lVert x - c_e \rVert. $$
#
# In two dimensions this cuts the plane into cells. Below, points from five blobs and a codebook of eight codes, started
# as the package starts it: by k-means on the first batch it is shown in training.

# %% tags=["hide-input"]
# alt: Points of five blobs in the plane, cut into the cells of eight codes. Codes sit
#   in the middle of the points that are nearest to them; a blob with two codes is
#   cut in half.
torch.manual_seed(0)
centres = torch.tensor([[0.0, 2.2], [2.0, 0.8], [1.3, -1.7], [-1.3, -1.7], [-2.0, 0.8]])


def draw(count, shift=0.0):
    """Points from the five blobs, all moved to the right by ``shift_attention``."""
    which = torch.randint(len(centres), (count,))
    return centres[which] + 0.35 * torch.randn(count, 2) + torch.tensor([shift, 0.0])


book = Codebook(size=8, width=2, ema_decay=0.9, dead_code_threshold=0.0)
points = draw(400)
found = book.train()(points)
by_hand = torch.stack([((p - book.codes) ** 2).sum(1).argmin() for p in points])
checks['nearest codes equal brute force'] = bool((book.assign(points) == by_hand).all())
_ = plots.show_cells(points.numpy(), book.codes.numpy())

# %% [markdown]
# Blobs that got two codes are cut in half, and neighbouring blobs may share one: k-means finds a local optimum and
# knows nothing of the number of kinds. Codes are a guess.
#
# ## Straight through
#
# The choice of a code is piecewise constant: its derivative is zero almost everywhere, so nothing could be learned
# through it. The straight-through estimator uses the code on the way forward and pretends on the way back
# that it was the slot,
#
# $$ \hat c = x + \mathrm{sg}(c_{j(x)} - x), \qquad \frac{\partial \hat c}{\partial x} := 1, $$
#
# with $\mathrm{sg}$ stopping the gradient. Three derivatives of $w \cdot \hat c$ with respect to $x$: the true one, by
# finite differences; straight-through by hand; and the package's.

# %%
book.eval()
x, w = points[:5].clone().requires_grad_(), torch.tensor([1.0, -2.0])
step = 1e-3
with torch.no_grad():
    true = [
        (w @ (book(x + step * e).codes - book(x - step * e).codes).T / (2 * step))
        for e in torch.eye(2)
    ]
code = book.codes[book.assign(x.detach())]
(by_hand,) = torch.autograd.grad(((x + (code - x).detach()) @ w).sum(), x)
(package,) = torch.autograd.grad((book(x).codes @ w).sum(), x)
checks['the true derivative is zero'] = bool(torch.stack(true).abs().max() < 1e-3)
checks['straight-through passes w on'] = torch.equal(
    by_hand, w.expand(5, 2)
) and torch.equal(package, by_hand)
print('finite differences:', *(round(v, 3) for v in torch.stack(true)[:, 0].tolist()))
print('straight-through:  ', *package[0].tolist())

# %% [markdown]
# ## Moving averages are k-means, a batch at a time
#
# k-means alternates two steps: assign points to codes, move each code to the mean of its points. Over a stream, the
# mean becomes a moving average of hits $n_e$ and of sums $t_e$ of the vectors assigned:
#
# $$ n_e \leftarrow \gamma n_e + (1 - \gamma)\, \lvert B_e \rvert, \qquad
#    t_e \leftarrow \gamma t_e + (1 - \gamma) \sum_{x \in B_e} x, \qquad c_e = t_e / n_e, $$
#
# where $B_e$ are the vectors of this batch with nearest code $e$. If the assignments stay the same, $c_e$ is the mean
# of all earlier members, each step back weighted by $\gamma$ less. The package adds a tiny constant to $n_e$ (Laplace
# smoothing), so that a code without hits does not divide by zero. Here are the ten lines, held against the package
# while the blobs drift to the right.

# %%
# alt: Points that drift to the right and the paths of the codes, which follow them step
#   by step and stay a little behind.
gamma, eps = book.ema_decay, book.eps
codes, hits, sums = book.codes.clone(), book.cluster_size.clone(), book.code_sum.clone()
path = [codes.clone()]
for t in range(60):
    batch = draw(100, shift=0.05 * t)
    index = ((batch[:, None] - codes) ** 2).sum(-1).argmin(1)
    member = torch.nn.functional.one_hot(index, 8).float()
    hits = gamma * hits + (1 - gamma) * member.sum(0)
    sums = gamma * sums + (1 - gamma) * member.T @ batch
    codes = sums / ((hits + eps) / (hits.sum() + 8 * eps) * hits.sum())[:, None]
    book.train()(batch)
    path.append(codes.clone())
checks['moving averages equal the package'] = bool(
    (codes - book.codes).abs().max() < 1e-4
)
_ = plots.show_cells(batch.numpy(), codes.numpy(), torch.stack(path).numpy())

# %% [markdown]
# Lines are the ways the codes went: they follow the blobs, a few steps behind.
#
# ## Dead codes
#
# A code that is nearest to nothing never moves again. It costs nothing, but the vocabulary is smaller than it looks.
# How much of it is in use is measured by the perplexity, the exponential of the entropy of the codes' shares $p_e$,
#
# $$ \exp\Bigl(-\sum_e p_e \log p_e\Bigr), $$
#
# which is $n$ if $n$ codes are used alike and the others not at all. The remedy of the released code is revival: a code
# whose running hits fall under a threshold is put onto a random vector of the batch. Below, a codebook of 64 starts
# from a narrow first batch, as the slots of an untrained model are, and then sees all the blobs.

# %%
# alt: Codes in use over steps, with revival and without: one line climbs towards the
#   whole codebook, the other stays where the narrow first batch left it.
for n in (1, 4, 16):
    assert abs(perplexity(torch.ones(n)).item() - n) < 1e-4
curves = {}
for name, threshold in (('without revival', 0.0), ('with revival', 0.3)):
    torch.manual_seed(1)
    book = Codebook(
        size=64, width=2, ema_decay=0.9, dead_code_threshold=threshold
    ).train()
    book(0.05 * torch.randn(200, 2) + torch.tensor([0.0, 2.2]))
    curves[name] = [book(draw(200)).perplexity.item() for _ in range(80)]
checks['revival puts more codes to use'] = (
    curves['with revival'][-1] > 2 * curves['without revival'][-1]
)
_ = plots.show_curves(curves, 'step', 'perplexity', 'codes in use, of 64')

# %% [markdown]
# The threshold is in hits a step. With $M$ vectors a step the average code gets $M/E$ hits: a threshold near or above
# that would redraw most codes at every step. At the paper's scale, 64 images of 7 slots on 512 codes make
# $M/E = 0.875$ beside a threshold of 0.8.
#
# ## The codebook of a trained model
#
# Everything from here on is about the model of the preset.

# %%
# alt: Bars: how often each code is the nearest to a slot, from the most used to the
#   least. A steep fall means that few codes do most of the work.
encoder = topdown.make_encoder(base)
eval_set = topdown.make_eval_set(base, encoder)
config = base.with_(seed=0)
run = chapters.one_run(config, folder, 'top-down', encoder, eval_set, train)
model = run.model
outputs = [out for _, out in topdown.run_model(model, eval_set)]
slots = torch.cat([out.first_slots for out in outputs]).float().cpu()
index = torch.cat([out.code_index for out in outputs]).cpu()
masks = torch.cat([out.first_attention for out in outputs]).float().cpu()
hits = torch.bincount(index.flatten(), minlength=base.model.codebook_size).numpy()
print(
    f'{base.data.dataset}: {slots.shape[0]} held-out images of {slots.shape[1]} slots'
)
plots.save(plots.show_code_usage(hits), folder / 'code_usage.png')
_ = plots.show_code_usage(hits)

# %% [markdown]
# The slots of the first pass and the codes, in the plane of the slots' two leading principal components. Each slot has
# the colour of its code. Where colours form patches, codes are regions of slot space; what looks mixed in two
# dimensions may still be apart in the others.

# %%
# alt: Slots of the first pass in the plane of their two leading principal components,
#   each in the colour of its code. Patches of one colour are codes that are regions.
flat = slots.flatten(0, 1)
mean = flat.mean(0)
_, _, axes = torch.linalg.svd(flat - mean, full_matrices=False)
plane = ((flat - mean) @ axes[:2].T).numpy()
codes = ((model.codebook.codes.cpu() - mean) @ axes[:2].T).numpy()
plots.save(
    plots.show_slot_plane(plane, index.flatten().numpy(), codes[hits > 0]),
    folder / 'slot_plane.png',
)
_ = plots.show_slot_plane(plane, index.flatten().numpy(), codes[hits > 0])

# %% [markdown]
# What does a code stand for? For each of the six most used codes, the slots that lie nearest to it, each shown as
# the part of its image that its mask covers. The rule is the distance to the code; slots that win no pixel have
# nothing to show and are passed over. Nothing was picked by hand.

# %% tags=["hide-input"]
# alt: Rows of crops: the slots nearest to a code, one row a code. Look whether a row
#   shows one kind of toy, one place, or one colour.
labels = topdown.predict(
    model, eval_set, 'first'
)  # codes belong to the first pass's slots
images = eval_set.images[:].permute(0, 2, 3, 1).numpy()
distance = (slots - model.codebook.codes.cpu()[index]).norm(dim=-1)
crops = {}
for code in [c for c in hits.argsort()[::-1][:6] if hits[c]]:
    where = (index == code).nonzero()
    shown = (
        (b, k)
        for b, k in where[distance[index == code].argsort()].tolist()
        if (labels[b] == k).any()
    )
    crops[f'code {code}'] = [
        plots.crop_to_mask(images[b], (labels[b] == k).numpy())
        for (b, k), _ in zip(shown, range(8))
    ]
plots.save(plots.show_codes(crops), folder / 'typical_slots.png')
_ = plots.show_codes(crops)

# %% [markdown]
# ## Do codes carry meaning?
#
# Rough semantics can be measured here, because Toybox knows its categories. Every slot whose mask overlaps a toy by an
# IoU of at least one half stands for that toy's category; the others, ground and pieces, are left out. Then three
# questions: how much do codes tell about the category, about where in the image the slot is (the ninth of the
# image that holds its mask's centre of mass), and about how large it is (five classes of equal number)? The measure
# is adjusted mutual information: 0 for chance, 1 if one determines the other.
#
# Beside the codes stand k-means with as many clusters, fitted on these very slots, and codes
# shuffled among slots, which must give 0.

# %% tags=["hide-input"]
# alt: Bars: how much codes, k-means clusters of the same slots, and shuffled codes tell
#   of category, place and size. Shuffled codes must stand at zero.
category = topdown.slot_categories(labels, eval_set, slots.shape[1])
known = category > 0
share = masks / masks.sum(-1, keepdim=True).clamp(min=1e-6)
rows, columns = eval_set.grid
y = (share.unflatten(-1, eval_set.grid).sum(-1) @ torch.arange(rows).float()) / rows
x = (
    share.unflatten(-1, eval_set.grid).sum(-2) @ torch.arange(columns).float()
) / columns
place = (3 * y).long().clamp(0, 2) * 3 + (3 * x).long().clamp(0, 2)
size = masks.sum(-1)
size_class = torch.bucketize(size, torch.quantile(size, torch.linspace(0.2, 0.8, 4)))
target = {'category': category[known], 'place': place[known], 'size': size_class[known]}

clusters = KMeans(base.model.codebook_size, n_init=1, random_state=0).fit_predict(
    flat.double().numpy()
)
shuffled = index[known][
    torch.randperm(int(known.sum()), generator=torch.Generator().manual_seed(0))
]
partitions = {
    'codes': index[known].numpy(),
    'k-means on slots': clusters[known.flatten().numpy()],
    'codes, shuffled': shuffled.numpy(),
}
meaning = {
    name: {
        what: adjusted_mutual_info_score(truth.numpy(), found)
        for what, truth in target.items()
    }
    for name, found in partitions.items()
}
enough = int(known.sum()) > 200  # with fewer, chance alone may look like meaning
checks['shuffled codes tell nothing'] = (
    not enough or max(abs(v) for v in meaning['codes, shuffled'].values()) < 0.1
)
plots.save(
    plots.show_bars(meaning, 'adjusted mutual information'), folder / 'code_meaning.png'
)
print(f'{int(known.sum())} of {known.numel()} slots stand for a toy')
_ = plots.show_bars(meaning, 'adjusted mutual information')

# %% [markdown]
# The bars say what this codebook sorts by. If *category* were the tallest, codes would be names of things. In the run
# stored here it is by far the shortest: a code tells where a slot looks, a little about how much of the image it
# takes, and next to nothing about what is there. k-means, fitted on the very same slots, finds no more of it, so the
# codebook is not to blame: slots do not fall into groups by category.
#
# That is not to say that slots do not hold the category. Groups follow what varies most, and adjusted mutual
# information sees groups only: k-means on the encoder's own tokens, from which a linear probe reads the category of
# most toys, has next to none of it, either. [The chapter on codes](10_what_codes_mean.ipynb) measures both, with probes
# on slots, codes and tokens. Two causes are likely for the order seen here. The tokens of the small encoder tell
# instances of one image apart, and nothing asked for two ducks in two images to be more alike than a duck and a
# boat. And the first pass is only a draft: nothing asks it for good masks (see [the next
# chapter](02_modulation_maps.ipynb)), so its slots need not stand for one thing each.
#
# ## Checks

# %%
# NBVAL_CHECK_OUTPUT
checks['every slot has one code'] = index.shape == slots.shape[:2] and bool(
    (index >= 0).all()
)
again = (
    model.codebook.assign(slots.flatten(0, 1).to(model.codebook.codes.device))
    .cpu()
    .view(index.shape)
)
checks['codes can be found again from the slots'] = bool(
    (again == index).float().mean() > 0.99
)
assert all(checks.values()), checks
print('\n'.join(f'{name}: {value}' for name, value in checks.items()))

# %% [markdown]
# ## What was seen, and its limits
#
# Nearest codes, moving averages and straight-through gradients are a few lines each, and the package equals them.
# Revival keeps a codebook alive that starts from an untrained model's slots: at the end most codes are in use. But
# codes in use are not yet codes with meaning: on Toybox, at this scale, the rough semantics that the paper reports for
# COCO did not appear in the codes. That was measured on one model and one seed; a systematic study needs several, and
# several codebook sizes.
#
# **Exercises**
#
# 1. Set `size=5` in the first example. How often, over twenty seeds, does k-means give every blob its own code?
# 2. Raise `dead_code_threshold` to 5 in the example of dead codes. What happens to the codes, and why does the
#    perplexity hide it?
# 3. Run with `-p preset slotwise`. Does *category* gain on *place*?

# %% [markdown] tags=["solution"]
# <details><summary><b>Solutions</b></summary>
#
# 1. Count seeds for which the nearest codes of the blobs' centres are all different. K-means from random points can
#    give one blob two codes and another none of its own; more codes than blobs make that rarer, at the price of split
#    blobs.
# 2. Codes that are hit less often than that are replaced again and again by slots of the current batch, and never
#    settle. Perplexity counts how evenly codes are used, and fresh copies of slots are used evenly.
# 3. The table above, computed for that preset; training takes some minutes if its runs are not there yet. One model and
#    one seed decide nothing: [the chapter on codes](10_what_codes_mean.ipynb) has several.
#
# </details>
