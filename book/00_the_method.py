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
# # The whole method on one page
#
# **Question of this chapter: what is self-modulating slot attention, when every line of it is on the table?**
#
# Five small classes of plain torch, one after the other: slot attention, a codebook, the modulation map, the decoder,
# and the model that goes through its slots twice. They are trained here for two or three minutes, and they are the package's
# model: a test takes them from this page, gives them the package's weights, and finds the same slots, masks and losses,
# step for step. Copy what you need; it depends on torch alone.
#
# The method is Kim, Kim and Kwak's {cite}`kim2024topdown`; slot attention is Locatello et al.'s
# {cite}`locatello2020slot`, reconstructing the tokens of a frozen encoder is DINOSAUR's {cite}`seitzer2023dinosaur`.
#
# Letters, here and in the whole book: $B$ images in a batch, $N$ patches of an image, $D$ width of a patch's token, $K$
# slots, $d$ width of a slot, $E$ codes.

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
preset = 'toybox'  # smoke or toybox
steps = 0  # of training; 0: two thirds of the preset's
seed = 1

# %% [markdown]
# ## 1. Slot attention
#
# Slots are vectors that compete for patches. Each gives a query, each patch a key and a value. The softmax goes over
# *slots*, so that every patch shares itself out among them, and then each slot takes the weighted mean of what it won:
#
# $$A_{kn} = \operatorname{softmax}_k \frac{q_k \cdot k_n}{\sqrt d}, \qquad
#   W_{kn} = \frac{A_{kn} + \epsilon}{\sum_{n'} (A_{kn'} + \epsilon)}, \qquad
#   U_k = \sum_n W_{kn} v_n .$$
#
# A gated recurrent unit moves the slot towards what it has collected, a small MLP refines it, and the competition
# starts again, three times. Nothing says which slot is to take what: they start as different draws from one Gaussian.
#
# The two arguments `what` and `where` are the paper's addition. In the first pass they are one, and this is slot
# attention as everyone knows it.

# %% tags=["method"]
import torch
import torch.nn.functional as F
from torch import nn


class SlotAttention(nn.Module):
    def __init__(self, d, iterations=3):
        super().__init__()
        self.iterations = iterations
        self.norm_inputs, self.norm_slots, self.norm_mlp = (
            nn.LayerNorm(d) for _ in range(3)
        )
        self.project_q, self.project_k, self.project_v = (
            nn.Linear(d, d, bias=False) for _ in range(3)
        )
        self.gru = nn.GRUCell(d, d)
        self.mlp = nn.Sequential(nn.Linear(d, 4 * d), nn.ReLU(), nn.Linear(4 * d, d))

    def forward(self, slots, inputs, what=1.0, where=1.0):
        inputs = self.norm_inputs(inputs)  # (B, N, d)
        keys, values = self.project_k(inputs), self.project_v(inputs)
        for _ in range(self.iterations):
            queries = self.project_q(self.norm_slots(slots))  # (B, K, d)
            logits = queries @ keys.transpose(1, 2) * queries.shape[-1] ** -0.5
            attention = logits.softmax(dim=1)  # (B, K, N), over slots
            weights = attention + 1e-8
            weights = weights / weights.sum(dim=-1, keepdim=True)
            updates = what * ((weights * where) @ values)  # (B, K, d)
            slots = self.gru(updates.flatten(0, 1), slots.flatten(0, 1)).view_as(slots)
            slots = slots + self.mlp(self.norm_mlp(slots))
        return slots, attention


# %% [markdown]
# ## 2. The codebook: *what* is there
#
# After the first pass every slot is replaced by the nearest of $E$ codes. A code is a running mean of the slots that
# chose it (with a count $n_e$ and a sum $t_e$ that forget slowly), so it learns without gradients; the slot's gradient
# goes past it as if nothing had happened (*straight-through*). The codebook starts from k-means on the first batch, and
# a code that hardly any slot chooses is given a slot of the batch to start over from.
#
# $$j(k) = \arg\min_e \lVert s_k - c_e \rVert, \qquad c_e \leftarrow t_e / n_e ,$$
#
# $$n_e \leftarrow \gamma n_e + (1 - \gamma) \#\{k : j(k) = e\}, \qquad
#   t_e \leftarrow \gamma t_e + (1 - \gamma) \sum_{k : j(k) = e} s_k .$$


# %% tags=["method"]
class Codebook(nn.Module):
    def __init__(self, size, d, decay=0.99, dead=0.3):
        super().__init__()
        self.size, self.decay, self.dead = size, decay, dead
        self.register_buffer('codes', torch.zeros(size, d))
        self.register_buffer('cluster_size', torch.zeros(size))
        self.register_buffer('code_sum', torch.zeros(size, d))
        self.register_buffer('initialized', torch.tensor(False))

    def forward(self, slots):
        vectors = slots.detach().flatten(0, 1)  # (B K, d)
        if self.training and not self.initialized:
            self.start(vectors)
        index = nearest(vectors, self.codes)
        found = self.codes[index].view_as(slots)
        if self.training:
            self.update(vectors, index)
        distance = F.mse_loss(slots, found)
        return slots + (found - slots).detach(), index.view(slots.shape[:2]), distance

    def start(self, vectors):
        codes = draw(vectors, self.size)
        for _ in range(10):  # Lloyd's steps
            hits, sums = count(vectors, nearest(vectors, codes), self.size)
            mean = sums / hits[:, None].clamp(min=1)
            codes = torch.where(hits[:, None] > 0, mean, codes)
        self.codes.copy_(codes)
        self.cluster_size.copy_(hits)
        self.code_sum.copy_(codes * hits[:, None])
        self.initialized.fill_(True)

    def update(self, vectors, index):
        hits, sums = count(vectors, index, self.size)
        self.cluster_size.lerp_(hits, 1 - self.decay)
        self.code_sum.lerp_(sums, 1 - self.decay)
        total = self.cluster_size.sum()
        share = (self.cluster_size + 1e-5) / (total + self.size * 1e-5)  # never 0
        self.codes.copy_(self.code_sum / (share * total)[:, None])
        idle, fresh = self.cluster_size < self.dead, draw(vectors, self.size)
        self.codes[idle] = fresh[idle]
        self.code_sum[idle] = fresh[idle] * self.dead
        self.cluster_size[idle] = self.dead


def nearest(vectors, codes):
    return (codes.square().sum(1) - 2 * vectors @ codes.T).argmin(dim=1)


def count(vectors, index, size):
    hits = torch.bincount(index, minlength=size).float()
    return hits, torch.zeros(size, vectors.shape[1]).index_add_(0, index, vectors)


def draw(vectors, size):
    order = torch.randperm(len(vectors))
    return vectors[order[torch.arange(size) % len(vectors)]]


# %% [markdown]
# ## 3. The modulation map: *what* and *where*, handed back
#
# The code says what may be there, the first pass's attention where. Both become factors by which the *values* of the
# second pass are scaled: one factor a channel, from the code by a linear map, and one a patch, attention moved so that
# its mean is one. Together they are an outer product, a map of $N \times d$ factors for every slot:
#
# $$M_{k n} = \underbrace{\bigl(1 + A_{kn} - \tfrac1N \textstyle\sum_{n'} A_{kn'}\bigr)}_{where}\,
#   \underbrace{f(c_k)}_{what} \in \mathbb R^d, \qquad U_k = \sum_n W_{kn}\, M_{kn} \odot v_n .$$
#
# Since the map is a product, it never has to be made: `what` is taken out of the sum, and `where` joins the weights.

# %% [markdown]
# ## 4. The decoder
#
# What makes slots useful is that something must be rebuilt from them: here the encoder's tokens, by a transformer that
# predicts each token from those before it and from the slots. Some of its inputs are hidden in training, so that it
# cannot do without the slots. The weights with which a patch looks at the slots, in the last layer, are the mask.


# %% tags=["method"]
class Attention(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.project_q, self.project_k, self.project_v, self.project_out = (
            nn.Linear(width, width) for _ in range(4)
        )

    def forward(self, x, to, causal):
        q, k, v = (
            project(y).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for project, y in zip(
                (self.project_q, self.project_k, self.project_v), (x, to, to)
            )
        )
        logits = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5  # (B, heads, N, N or K)
        if causal:
            later = torch.ones(logits.shape[-2:]).triu(1).bool()
            logits = logits.masked_fill(later, -torch.inf)
        weights = logits.softmax(dim=-1)
        out = self.project_out((weights @ v).transpose(1, 2).flatten(2))
        return out, weights.mean(dim=1)


class Layer(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.norm_self, self.norm_cross, self.norm_mlp = (
            nn.LayerNorm(width) for _ in range(3)
        )
        self.self_attention = Attention(width, heads)
        self.cross_attention = Attention(width, heads)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.ReLU(), nn.Linear(4 * width, width)
        )

    def forward(self, x, slots):
        normed = self.norm_self(x)
        x = x + self.self_attention(normed, normed, causal=True)[0]
        seen, weights = self.cross_attention(self.norm_cross(x), slots, causal=False)
        x = x + seen
        return x + self.mlp(self.norm_mlp(x)), weights


class Decoder(nn.Module):
    def __init__(self, width, d, layers, heads, hidden):
        super().__init__()
        self.hidden = hidden
        self.begin_token = nn.Parameter(width**-0.5 * torch.randn(1, 1, width))
        self.mask_token = nn.Parameter(torch.rand(1, 1, width))
        self.project_input, self.project_slots = (
            nn.Sequential(nn.Linear(size, width, bias=False), nn.LayerNorm(width))
            for size in (width, d)
        )
        self.layers = nn.ModuleList(Layer(width, heads) for _ in range(layers))

    def forward(self, slots, tokens):
        begin = self.begin_token.expand(len(tokens), -1, -1)
        x = self.project_input(torch.cat([begin, tokens[:, :-1]], dim=1))
        if self.training:
            hide = torch.rand(tokens.shape[:2]) < self.hidden
            x = torch.where(hide[..., None], self.mask_token, x)
        slots = self.project_slots(slots)
        for layer in self.layers:
            x, weights = layer(x, slots)
        return x, weights.transpose(1, 2)  # tokens (B, N, D), masks (B, K, N)


# %% [markdown]
# ## 5. Twice through the slots
#
# The model. A head makes the tokens narrower; a first pass finds a draft of slots; codes and attention turn the draft
# into a modulation map; and the second pass, **with the same weights and from the same initial slots**, does it again
# with scaled values. Only its slots are decoded. Leave out the three lines between the passes, and this is the
# baseline.


# %% tags=["method"]
class Head(nn.Module):
    def __init__(self, width, d):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.hidden, self.out = nn.Linear(width, width), nn.Linear(width, d)

    def forward(self, tokens):
        return self.out(self.hidden(self.norm(tokens)).relu())


class TopDown(nn.Module):
    def __init__(self, width, slots, d, codes, layers, heads, hidden, dead):
        super().__init__()
        self.num_slots, self.d = slots, d
        self.head = Head(width, d)
        self.slot_init = nn.ParameterDict(
            {name: torch.randn(1, 1, d) * d**-0.5 for name in ('mean', 'log_std')}
        )
        self.slot_attention = SlotAttention(d)
        self.decoder = Decoder(width, d, layers, heads, hidden)
        self.codebook = Codebook(codes, d, dead=dead)
        self.modulation = nn.ModuleDict({'channel': nn.Linear(d, d)})

    def forward(self, tokens):
        noise = torch.randn(len(tokens), self.num_slots, self.d)
        start = self.slot_init['mean'] + self.slot_init['log_std'].exp() * noise
        inputs = self.head(tokens)
        first, attention = self.slot_attention(start, inputs)
        codes, index, distance = self.codebook(first)
        what = self.modulation['channel'](codes)  # (B, K, d)
        where = 1 + attention - attention.mean(dim=-1, keepdim=True)  # (B, K, N)
        slots, attention = self.slot_attention(start, inputs, what, where)
        rebuilt, masks = self.decoder(slots, tokens)
        return {
            'slots': slots, 'attention': attention, 'masks': masks, 'index': index,
            'error': F.mse_loss(rebuilt, tokens), 'distance': distance,
        }  # fmt: skip


# %% [markdown]
# ## 6. Training
#
# Tokens come from the encoder that ships with the package, the first of the two ([its page](encoder.md)), whose tokens
# are the easier ones, with a decoder of one layer. Everything else is the preset's.

# %% tags=["hide-input"]
import math

import topdown
from topdown.book import chapters, plots

plots.style()
base, _, folder = chapters.begin(
    preset, ('smoke', 'toybox'), 'top-down', 'runs', steps=steps, seed=seed,
    more={'encoder': 'vit_toybox_patch8_96', 'decoder_layers': 1, 'precision': 'fp32'},
)  # fmt: skip
if not steps:
    base = base.with_(steps=2 * base.train.steps // 3)
encoder = topdown.make_encoder(base)
data = topdown.TrainData(topdown.open_dataset(base, 'train'), encoder, base)
held_out = topdown.make_eval_set(base, encoder)
settings = base.model
torch.manual_seed(base.train.seed)
torch.set_num_threads(base.train.threads or torch.get_num_threads())
model = TopDown(
    encoder.feature_size, settings.num_slots, settings.slot_size,
    settings.codebook_size, settings.decoder_layers, settings.decoder_heads,
    settings.input_masking, settings.dead_code_threshold,
)  # fmt: skip
print(f'{sum(p.numel() for p in model.parameters()):,} trained numbers')

# %% [markdown]
# Adam, a rate that rises for some steps and then halves every so many, gradients clipped at a norm of one. Training
# begins on a plateau, on which one slot has all or slots share the image out like a grid; most seeds leave it within
# these steps, and some do not.

# %%
optimizer = torch.optim.Adam(model.parameters())
losses, used = [], torch.zeros(settings.codebook_size)
for step, tokens in enumerate(data.batches(0, base.train.steps)):
    rise = min(1.0, (step + 1) / base.train.warmup_steps)
    rate = base.train.lr * rise * 0.5 ** (step / base.train.lr_half_life)
    for group in optimizer.param_groups:
        group['lr'] = rate
    out = model(tokens.float())
    optimizer.zero_grad()
    out['error'].backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    losses.append(float(out['error'].detach()))
    assert math.isfinite(losses[-1]), f'the loss at step {step} is {losses[-1]}'
print(f'loss: {losses[0]:.3f} at first, {sum(losses[-20:]) / 20:.3f} at the end')

# %% [markdown]
# The masks of held-out images, with the truth beside them, and how well they fit it. The numbers are an anecdote, one
# short run; the comparisons of this book are made by [longer ones](15_does_it_help.ipynb).

# %% tags=["hide-input"]
# alt: Six held-out images, their true instances, and the masks of the model trained
#   above. A slot has one colour; look for toys in one piece and for ground that is
#   not shared out among slots.
from topdown.evaluate.predict import labels_from_masks

model.eval()
with torch.no_grad():
    parts = [model(tokens.float()) for tokens in held_out.tokens.split(16)]
masks = torch.cat([part['masks'] for part in parts])
labels = labels_from_masks(masks, encoder.grid, held_out.mask_size)
scores = topdown.summarize(topdown.score(labels, held_out))
print(
    f'{len(labels)} held-out images: FG-ARI {scores["fg_ari"]:.1f}, '
    f'mBO_i {scores["mbo_i"]:.1f}'
)
images = held_out.images[:6].permute(0, 2, 3, 1).numpy()
shown = {'truth': held_out.instances[:6].clip(0), 'masks': labels[:6].numpy()}
_ = plots.show_masks(images, shown, truth=('truth',))

# %% [markdown]
# ## Checks

# %%
# NBVAL_CHECK_OUTPUT
checks = {
    'attention shares out every patch': bool(
        (parts[0]['attention'].sum(dim=1) - 1).abs().max() < 1e-5
    ),
    'masks share out every patch': bool((masks.sum(dim=1) - 1).abs().max() < 1e-5),
    'every slot has a code': bool((parts[0]['index'] < settings.codebook_size).all()),
    'the loss has fallen': losses[-1] < losses[0],
}
assert all(checks.values()), checks
print('\n'.join(f'{name}: {value}' for name, value in checks.items()))

# %% [markdown]
# ## What was seen, what is left out, and its limits
#
# The package adds what a page does not need: evaluation in batches of any data set, bfloat16, several processes, slot
# attention with heads, the variants of the ablation, other decoders, the released code's starts of every weight, and
# checks of what it is given. [VQ bootstrapping](01_vq_bootstrapping.ipynb) and [modulation
# maps](02_modulation_maps.ipynb) look closely at the two ideas, and [training](03_train_coco.ipynb) does it in earnest.
#
# **Exercises**
#
# 1. Turn the model above into the baseline, and into slot attention with six iterations.
# 2. What happens to the second pass if `what` is one and `where` is one? And why is that not the baseline?
# 3. Why must the softmax of slot attention go over slots, and that of the decoder over positions?

# %% [markdown] tags=["solution"]
# <details><summary><b>Solutions</b></summary>
#
# 1. Decode `first` and leave the second pass out; give `SlotAttention` six iterations in place of three.
# 2. It repeats the first pass, from the same start with the same weights. It is the baseline's forward pass, but
#    trained to be good *with* the scales.
# 3. Slots must compete: what one gets another cannot have. A position in the decoder asks which of the tokens before
#    it, and which of the slots, tell most about the next; nothing is used up by that.
#
# </details>
