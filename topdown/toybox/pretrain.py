"""Self-supervised pretraining of the embedded encoders: no labels, no masks.

``topdown pretrain --folder runs/pretrain`` watches three-frame clips of Toybox scenes (a stream of their own, disjoint
from training and validation images) in which every toy moves steadily. The encoder itself only ever sees the middle
frame. With objective fate, two losses share one masked forward pass:

* masked colour prediction: pixels of random 2 x 2 blocks of patches are blanked, and from the final tokens of the
  blanked patches the mean colours of their 4 x 4 pixel cells are predicted (L1). Blocks, not single patches, so that
  colours cannot be filled in from next door;
* common fate: patches that moved alike belong together. Block matching between the frames, on pixels alone, gives
  the shift of every patch where it is unambiguous; the tokens of the single, partly blanked frame must then be
  similar where shifts are equal and dissimilar where they differ (a supervised-contrastive loss, Khosla et al. 2020,
  within each image, with shifts in place of labels).

With objective category, which goes on from the weights that fate gave, there are two views of every frame, each in
colours of its own, and agreement across views takes the place of common fate: the mean token of what moved alike must
be nearer to its mean token in the other view than to those of all other things. In the second view a thing is seen
alone, without the ground and the other things, which would tell one image from another better than toys do. What is
left to agree on is the shape, and that is what toys of a category share. A mean says little of single tokens: parts of
a toy may stay unlike.

The patch embedding is a stack of three strided convolutions: with it and blocks, the category probe rose
faster than with the usual linear one. The trials are in the book's page on the encoder.

At the end the final norm is recalibrated so that every channel of the tokens has mean zero and variance one over
Toybox scenes: reconstruction losses then weigh all channels alike.
"""

from __future__ import annotations

import json
import math
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from timm.layers import set_fused_attn
from torch import Tensor, nn
from tqdm.auto import tqdm

from topdown import precision
from topdown.config import PretrainConfig
from topdown.model.encoder import TOYBOX_MEAN, TOYBOX_STD, vit_toybox_patch8_96
from topdown.toybox.scenes import ToyboxConfig, clip_at

SIZE = 96


REACH, STEP = 8, 2


SHIFTS = [(dy, dx) for dy in range(-REACH, REACH + 1, STEP) for dx in range(-REACH, REACH + 1, STEP)]


STILL = len(SHIFTS) // 2


UNKNOWN = -1


STILL_SHARE = 0.35


LEAST = 4
"""Patches that a thing needs in both views."""


LEEWAY = 0.25
"""How far views move at least, as a share of half a frame; what lies outside is mirrored."""


class Pretrainer(nn.Module):
    """The encoder and its colour head.

    Args:
        config: the settings.
    """

    def __init__(self, config: PretrainConfig) -> None:
        super().__init__()
        self.config = config
        self.vit = vit_toybox_patch8_96(pretrained=config.objective == 'category')
        width = self.vit.embed_dim
        self.side = self.vit.patch_embed.grid_size[0]
        self.patch = SIZE // self.side
        if config.objective == 'fate':
            self.vit.pos_embed.data.copy_(0.5 * sincos_position(self.side, width))
        self.mask_token = nn.Parameter(torch.zeros(width))
        self.colour_head = nn.Linear(width, 3 * (self.patch // 4) ** 2)

    def forward(self, images: Tensor, shifts_BN: Tensor) -> tuple[Tensor, Tensor]:
        """Colour loss, and common-fate loss or loss across views.

        Args:
            images: normalised (B, 3, 96, 96); with objective category the first half are the first views of frames,
                the second half their second views, whose patches see nothing but what moves as they do.
            shifts_BN: patch shifts, indices into ``SHIFTS`` or ``UNKNOWN``.
        """
        hidden = self.draw_mask(len(images))
        pixels = hidden.repeat_interleave(self.patch, 1).repeat_interleave(self.patch, 2)[:, None]
        hidden = hidden.flatten(1)
        with precision.autocast(self.config.precision, 'cpu'):
            x = self.vit.patch_embed(images.masked_fill(pixels, 0.0)) + hidden[..., None] * self.mask_token
            x = x + self.vit.pos_embed
            seen = {'attn_mask': alone(shifts_BN)} if self.config.objective == 'category' else {}
            for block in self.vit.blocks:
                x = block(x, **seen)
            tokens = self.vit.norm(x)
        tokens = tokens.float()
        colours = F.avg_pool2d(images, 4)
        cells = self.patch // 4
        colours = colours.unflatten(-1, (self.side, cells)).unflatten(-3, (self.side, cells))
        colours = colours.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)  # (B, N, 3 cells^2)
        colour_loss = (self.colour_head(tokens) - colours)[hidden].abs().mean()
        if self.config.objective == 'fate':
            return colour_loss, common_fate_loss(tokens, shifts_BN, self.config.temperature)
        return colour_loss, across_views_loss(tokens, shifts_BN, self.config.view_temperature)

    def draw_mask(self, batch: int) -> Tensor:
        """Random blocks, the block grid shifted at random (around the edges): (B, side, side) bool."""
        block, count = self.config.block, self.side // self.config.block
        order = torch.rand(batch, count**2).argsort(1)
        mask = (order < int(count**2 * self.config.masked)).view(batch, count, count)
        mask = mask.repeat_interleave(block, 1).repeat_interleave(block, 2)
        return mask.roll(tuple(torch.randint(0, block, (2,)).tolist()), (1, 2))


def alone(shifts_BN: Tensor) -> Tensor:
    """What keeps patches of second views from attending to what moves otherwise: (B, 1, N, N), added to the logits."""
    other = shifts_BN[:, :, None] != shifts_BN[:, None]
    other[: len(other) // 2] = False
    return torch.zeros(other.shape).masked_fill(other, -1e4)[:, None]


def across_views_loss(tokens_BND: Tensor, shifts_BN: Tensor, temperature: float) -> Tensor:
    """From the mean token of a thing in one view, which mean token of the other views is its own, and back (InfoNCE).

    A thing is what moves with one shift in one frame and has ``LEAST`` patches at least in both views.

    Args:
        tokens_BND: tokens, the first half of first views, the second half of second views of the same frames.
        shifts_BN: index of every patch's shift; what is ``STILL`` or ``UNKNOWN`` is no thing.
        temperature: divides cosines.
    """
    member = F.one_hot(shifts_BN + 1, len(SHIFTS) + 1).to(tokens_BND)
    member[..., [UNKNOWN + 1, STILL + 1]] = 0
    size = member.sum(1)
    means = F.normalize(member.transpose(1, 2) @ tokens_BND, dim=-1)
    both = (size >= LEAST).view(2, -1, size.shape[1]).all(0)
    first, second = (view[both] for view in means.chunk(2))
    logits, own = first @ second.T / temperature, torch.arange(len(first))
    total = F.cross_entropy(logits, own, reduction='sum') + F.cross_entropy(logits.T, own, reduction='sum')
    return total / max(2 * len(own), 1)


def common_fate_loss(tokens_BND: Tensor, shifts_BN: Tensor, temperature: float) -> Tensor:
    """Tokens of patches that moved alike attract, those that moved differently repel, within each image.

    ::

        L = mean over groups, mean over i in group, mean over j != i of the group of
            -log( exp(z_i . z_j / t) / sum_{l != i, l known} exp(z_i . z_l / t) ),    z = token / |token|

    Args:
        tokens_BND: tokens.
        shifts_BN: index of every patch's shift, ``UNKNOWN`` where it is ambiguous.
        temperature: t.
    """
    z = F.normalize(tokens_BND, dim=-1)
    logits = z @ z.transpose(1, 2) / temperature
    known = shifts_BN != UNKNOWN
    itself = torch.eye(z.shape[1], dtype=torch.bool, device=z.device)
    logits = logits.masked_fill(~known[:, None] | itself, float('-inf'))
    same = (shifts_BN[:, :, None] == shifts_BN[:, None]) & known[:, :, None] & known[:, None] & ~itself
    count = same.sum(-1)
    log_share = logits - logits.logsumexp(-1, keepdim=True)
    per_anchor = -log_share.masked_fill(~same, 0.0).sum(-1) / count.clamp(min=1)
    weight = (count > 0) / (count + 1)  # every group counts the same
    return (weight * per_anchor).sum() / weight.sum().clamp(min=1e-6)


def sincos_position(side: int, width: int) -> Tensor:
    """Fixed two-dimensional sine-cosine position code (1, side^2, width)."""
    frequency = 100.0 ** (-torch.arange(width // 4) / (width // 4))
    phase = torch.arange(side)[:, None] * frequency
    code = torch.cat([phase.sin(), phase.cos()], 1)
    rows, columns = code[:, None].expand(-1, side, -1), code[None].expand(side, -1, -1)
    return torch.cat([rows, columns], -1).reshape(1, side**2, width)


def block_shifts(clip: np.ndarray, patch: int = 8) -> np.ndarray:
    """Motion of every patch of the middle frame of three, by exhaustive block matching on pixels alone.

    Motion is taken as steady over the three frames, so that what is covered in one direction of time is seen in the
    other. A pixel is still if it equals the same place of the frame before or after: ground in front of a moving
    thing was in view before, ground behind it is in view after. A patch is still if at least ``STILL_SHARE`` of its
    pixels are. Any other patch has moved, if one shift fits its changed pixels far better than staying and than every
    shift not next to it, in one direction of time at least; else its motion is unknown (flat, covered, or on an edge
    between motions).

    Args:
        clip: (3, S, S, 3) uint8.
        patch: side of a patch; S is a multiple of it.

    Returns:
        (S / patch, S / patch) int16 indices into ``SHIFTS`` (pixels a frame), ``UNKNOWN`` where ambiguous.
    """
    before, now, after = np.ascontiguousarray(clip.transpose(0, 3, 1, 2))
    size = now.shape[-1]
    side = size // patch
    difference = np.empty((2, len(SHIFTS), size, size), np.uint16)  # sum over colours of absolute differences
    for sign, other, out in ((-1, before, difference[0]), (1, after, difference[1])):
        padded = np.pad(other, ((0, 0), (REACH, REACH), (REACH, REACH)), mode='edge')
        for i, (dy, dx) in enumerate(SHIFTS):
            y, x = REACH + sign * dy, REACH + sign * dx
            there = padded[:, y : y + size, x : x + size]
            (np.maximum(now, there) - np.minimum(now, there)).sum(0, dtype=np.uint16, out=out[i])
    changed = difference[:, STILL].min(0) > 0
    difference *= changed
    count = changed.reshape(side, patch, side, patch).sum((1, 3))
    cost = difference.reshape(2, len(SHIFTS), side, patch, side, patch).sum((3, 5), dtype=np.uint32).min(0)
    best, least, staying = cost.argmin(0), cost.min(0), cost[STILL]
    shifts = np.array(SHIFTS)
    apart = np.abs(shifts[:, None] - shifts[None]).max(2) > STEP
    rival = np.where(np.moveaxis(apart[best], -1, 0), cost, np.inf).min(0)
    still = count <= (1 - STILL_SHARE) * patch**2
    moved = ~still & (best != STILL) & (least < 0.35 * staying) & (least < 0.7 * rival)
    return np.where(still, STILL, np.where(moved, best, UNKNOWN)).astype(np.int16)


def render_clips(config: PretrainConfig, folder: Path, processes: int = 2) -> tuple[Tensor, Tensor]:
    """Middle frames (clips, S, S, 3) uint8 and patch shifts (clips, S / 8, S / 8), made once and kept in ``folder``."""
    path = folder / f'clips-{config.image_size}-{config.clips}.safetensors'
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        jobs = [(config.image_size, i) for i in range(config.clips)]
        with ProcessPoolExecutor(processes, mp_context=get_context('spawn')) as pool:
            made = list(tqdm(pool.map(_clip, jobs, chunksize=50), 'rendering clips', len(jobs), mininterval=10))
        frames, shifts = (torch.from_numpy(np.stack(part)) for part in zip(*made, strict=True))
        temporary = path.with_suffix('.part')
        save_file({'frames': frames, 'shifts': shifts}, temporary)
        temporary.rename(path)
    content = load_file(path)
    return content['frames'], content['shifts']


def _clip(job: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    size, index = job
    clip = clip_at(ToyboxConfig(size=size), index)
    return clip[1], block_shifts(clip)


def draw_views(frames: Tensor, shifts: Tensor, batch: int, patch: int = 8) -> tuple[Tensor, Tensor]:
    """Random windows on the patch grid, and mirror images: normalised (B, 3, 96, 96) and patch shifts (B, N)."""
    index = torch.randint(len(frames), (batch,))
    side = SIZE // patch
    top, left = torch.randint(0, shifts.shape[1] - side + 1, (2,)).tolist()
    images = frames[index, top * patch : top * patch + SIZE, left * patch : left * patch + SIZE]
    images = images.permute(0, 3, 1, 2).float() / 255
    moves = shifts[index, top : top + side, left : left + side].long()
    mirrored = torch.rand(batch) < 0.5
    images = torch.where(mirrored[:, None, None, None], images.flip(-1), images)
    moves = torch.where(mirrored[:, None, None], moves.flip(-1), moves)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (TOYBOX_MEAN, TOYBOX_STD))
    return (images - mean) / std, moves.flatten(1)


def draw_pairs(frames: Tensor, shifts: Tensor, batch: int, config: PretrainConfig) -> tuple[Tensor, Tensor]:
    """Two views each of half as many frames: moved, turned, scaled, mirrored and in other colours.

    Returns:
        Normalised images (B, 3, 96, 96), first all first views, and patch shifts (B, N), ``UNKNOWN`` outside the frame.
    """
    index = torch.randint(len(frames), (batch // 2,)).repeat(2)
    images = frames[index].permute(0, 3, 1, 2).float() / 255
    turn = torch.empty(batch).uniform_(-config.turn, config.turn).deg2rad()
    scale = SIZE / frames.shape[1] * torch.empty(batch).uniform_(config.zoom, 1.1)
    mirror = torch.where(torch.rand(batch) < 0.5, -1.0, 1.0)
    rows = torch.stack([turn.cos() * mirror, -turn.sin(), turn.sin() * mirror, turn.cos()], 1).view(-1, 2, 2)
    offset = torch.empty(batch, 2, 1).uniform_(-1, 1) * (1 - scale).clamp(min=LEEWAY)[:, None, None]
    window = torch.cat([rows * scale[:, None, None], offset], 2)
    grid = F.affine_grid(window, [batch, 1, SIZE, SIZE], align_corners=False)
    views = F.grid_sample(images, grid, padding_mode='reflection', align_corners=False)
    side = SIZE * shifts.shape[1] // frames.shape[1]
    grid = F.affine_grid(window, [batch, 1, side, side], align_corners=False)
    known = (shifts[index, None] - UNKNOWN).float()  # what lies outside the frame is sampled as 0
    moves = F.grid_sample(known, grid, 'nearest', align_corners=False).flatten(1).long() + UNKNOWN
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (TOYBOX_MEAN, TOYBOX_STD))
    return (recoloured(views) - mean) / std, moves


def recoloured(images: Tensor) -> Tensor:
    """Every image in colours of its own: a random smooth map of colours to colours, mixed with what they were."""
    batch = len(images)
    first, second = 4 * torch.randn(batch, 6, 3), torch.randn(batch, 3, 6)
    phase = 2 * math.pi * torch.rand(batch, 6, 1)
    mapped = 0.6 + 0.2 * (second @ torch.sin(first @ images.flatten(2) + phase)).view_as(images)
    return torch.lerp(images, mapped, torch.rand(batch, 1, 1, 1)).clamp(0, 1)


@torch.no_grad()
def calibrate(vit: nn.Module, images: Tensor) -> None:
    """Fold a standardisation of every channel over normalised ``images`` into the final norm's weight and bias."""
    tokens = torch.cat([vit.forward_features(part) for part in images.split(64)]).flatten(0, 1)
    mean, std = tokens.mean(0), tokens.std(0)
    vit.norm.weight.div_(std)
    vit.norm.bias.sub_(mean).div_(std)


def pretrain(config: PretrainConfig, folder: Path) -> nn.Module:
    """Train, calibrate, and write the weights to ``folder``; the log goes to ``folder/log.jsonl``.

    On processors of one kind the same settings give the same bits: torch computes on one thread, in a fixed precision.
    """
    frames, shifts = render_clips(config, folder)
    set_fused_attn(False)  # explicit softmax is the faster one on CPU
    precision.settle(1)
    torch.manual_seed(config.seed)
    model = Pretrainer(config)
    decayed = [p for n, p in model.named_parameters() if p.ndim > 1 and 'pos_embed' not in n]
    others = [p for n, p in model.named_parameters() if p.ndim <= 1 or 'pos_embed' in n]
    optimizer = torch.optim.AdamW(
        [{'params': decayed, 'weight_decay': config.weight_decay}, {'params': others, 'weight_decay': 0.0}],
        lr=config.lr,
        betas=(0.9, 0.98),
    )
    category = config.objective == 'category'
    weights = torch.tensor([config.colour_weight, 1.0] if category else [1.0, config.fate_weight])
    average, began = None, time.perf_counter()
    with (folder / 'log.jsonl').open('w', buffering=1) as log:
        log.write(json.dumps(asdict(config)) + '\n')
        for step in tqdm(range(config.steps), 'pretraining', mininterval=10):
            rate = min(1, (step + 1) / config.warmup_steps) * (0.51 + 0.49 * math.cos(math.pi * step / config.steps))
            for group in optimizer.param_groups:
                group['lr'] = config.lr * rate
            batch = config.batch_size
            views = draw_pairs(frames, shifts, batch, config) if category else draw_views(frames, shifts, batch)
            losses = torch.stack(model(*views))
            optimizer.zero_grad()
            (weights @ losses).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            found = losses.detach()
            average = found if average is None else 0.99 * average + 0.01 * found
            if (step + 1) % 100 == 0 or step + 1 == config.steps:
                minutes = (time.perf_counter() - began) / 60
                named = zip(('colour', 'views' if category else 'fate'), average.tolist(), strict=True)
                log.write(json.dumps({'step': step + 1, 'minutes': minutes, **dict(named)}) + '\n')
    model.eval()
    torch.manual_seed(config.seed)
    calibrate(model.vit, draw_views(frames, shifts, config.calibration_views)[0])
    path = folder / f'vit_toybox_{"category_" if category else ""}patch8_96.safetensors'
    save_file(model.vit.state_dict(), path)
    print(f'{path}: {path.stat().st_size / 1e6:.1f} MB')
    return model.vit
