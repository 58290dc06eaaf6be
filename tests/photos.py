"""What the chapter on photographs needs beside its runs.

``python -m tests.photos ROOT`` writes the rows that need no training, in some ten minutes: ROOT holds the photographs
in COCO's layout, and the preset says where the encoder's weights are. figures/tables/photos_encoder.csv says what each
block of the encoder offers, on the first validation images; figures/tables/photos_baselines.csv what any method must
beat, on all of them.

``python -m tests.photos picture ROOT`` draws masks of the runs of seed 0, in minutes.

``python -m tests.photos convert MODEL.onnx WEIGHTS.safetensors`` takes that encoder's weights from its ONNX file (needs
``pip install onnx``).
"""

from __future__ import annotations

import sys

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

import topdown
from topdown.book import plots
from topdown.book.chapters import baseline_rows
from topdown.book.runs import job_folder
from topdown.book.tables import NAMES
from topdown.evaluate.baselines import kmeans, patch_shares, truth_at_token_means
from topdown.evaluate.predict import object_categories
from topdown.evaluate.truth import EvalSet

IMAGES = 240
CASES = ((9, False), (10, False), (11, False), (11, True), (12, False), (12, True))
"""Block, and whether the final norm is applied to it."""

PERSON = 1
"""The first of COCO's categories, and so the first class."""

OUTSIDE = {
    'embeddings.cls_token': 'cls_token', 'embeddings.patch_embeddings.projection': 'patch_embed.proj',
    'layernorm': 'norm',
}  # fmt: skip
INSIDE = {
    'norm1': 'norm1', 'norm2': 'norm2', 'mlp.fc1': 'mlp.fc1', 'mlp.fc2': 'mlp.fc2', 'layer_scale1': 'ls1',
    'layer_scale2': 'ls2', 'attention.output.dense': 'attn.proj',
}  # fmt: skip
"""What a part of a Transformer, and of one of its blocks, is called in the ONNX file -> its name in timm."""

MATRICES = ('key', 'value', 'query', 'attn.proj', 'mlp.fc1', 'mlp.fc2')
"""Of every block, in the order in which they are used: the file has no names for them."""


def convert(source: str, target: str) -> None:
    """Write the weights of the encoder in an ONNX file as timm names those of vit_small_patch14_dinov2."""
    import onnx

    graph = onnx.load(source).graph
    given = {item.name: torch.from_numpy(onnx.numpy_helper.to_array(item).copy()) for item in graph.initializer}
    products = [name for node in graph.node if node.op_type == 'MatMul' for name in node.input if name in given]
    first, rest = (given[next(n for n in given if n.startswith(start))] for start in ('onnx::Concat', 'onnx::Reshape'))
    found = {'pos_embed': torch.cat([first, rest], 1)}
    joined: dict[str, dict[str, Tensor]] = {}
    for name, tensor in given.items():
        own = name.removeprefix('backbone.').removesuffix('.lambda1').removesuffix('.weight').removesuffix('.bias')
        kind = {'lambda1': '.gamma', 'weight': '.weight', 'bias': '.bias'}.get(name.rsplit('.', 1)[-1], '')
        if own in OUTSIDE:
            found[OUTSIDE[own] + kind] = tensor
        elif own.startswith('encoder.layer.'):
            block, part = own.removeprefix('encoder.layer.').split('.', 1)
            if part in INSIDE:
                found[f'blocks.{block}.{INSIDE[part]}{kind}'] = tensor
            else:
                joined.setdefault(f'blocks.{block}.attn.qkv.bias', {})[part.rsplit('.', 1)[-1]] = tensor
    for number, name in enumerate(products):
        block, place = divmod(number, len(MATRICES))
        part, matrix = MATRICES[place], given[name].T.contiguous()
        if place < 3:
            joined.setdefault(f'blocks.{block}.attn.qkv.weight', {})[part] = matrix
        else:
            found[f'blocks.{block}.{part}.weight'] = matrix
    found |= {name: torch.cat([parts[key] for key in ('query', 'key', 'value')]) for name, parts in joined.items()}
    save_file(found, target)
    print(f'{target}: {len(found)} tensors, {sum(x.numel() for x in found.values()) / 1e6:.1f} M weights')


def pooled(data: EvalSet) -> tuple[Tensor, Tensor, Tensor]:
    """Mean token (n, D) under the true mask of every object of a patch and a half at least; its category; its image."""
    categories, parts, first = object_categories(data), [], 0
    for shares in patch_shares(data):
        inside = shares[:, 1:]
        size = inside.sum(-1)
        image, which = torch.nonzero(size >= 1.5, as_tuple=True)
        tokens = inside @ data.tokens[first : first + len(shares)].float() / size.clamp(min=1e-6)[..., None]
        parts.append((tokens[image, which], categories[first + image, which], first + image))
        first += len(shares)
    return tuple(torch.cat(part) for part in zip(*parts, strict=True))


def neighbours(tokens: Tensor, categories: Tensor, images: Tensor) -> float:
    """Share of objects, percent, whose nearest one in another image (cosine of centred tokens) is of their category."""
    tokens = F.normalize(tokens - tokens.mean(0), dim=1)
    likeness = (tokens @ tokens.T).masked_fill(images[:, None] == images, -2)
    return 100 * (categories[likeness.argmax(1)] == categories).float().mean().item()


def describe(data: EvalSet, count: int) -> dict[str, object]:
    """What the tokens of a set offer."""
    row: dict[str, object] = {}
    cases = {'k-means': kmeans(data, data.tokens, count), 'segments known': truth_at_token_means(data)}
    for name, maps in cases.items():
        found = topdown.summarize(topdown.score(maps, data))
        row |= {f'{name}, {NAMES[metric]}': found[metric] for metric in ('fg_ari', 'mbo_i', 'mbo_c')}
    tokens, categories, images = pooled(data)
    other = categories != PERSON
    row['neighbour of the same category, %'] = neighbours(tokens, categories, images)
    row['the same without people, %'] = neighbours(tokens[other], categories[other], images[other])
    return {**row, 'objects': len(categories), 'without people': int(other.sum())}


def encoder_rows(base: topdown.Config) -> pd.DataFrame:
    """One row for every block, with and without the final norm, and with all channels scaled alike or not."""
    rows = []
    for layer, norm in CASES:
        config = base.with_(layer=layer, final_norm=norm, eval_images=IMAGES)
        data = topdown.make_eval_set(config, topdown.make_encoder(config), progress=False)
        spread, mean = torch.std_mean(data.tokens.flatten(0, 1), dim=0)
        raw = data.tokens
        for alike in (False, True):
            data.tokens = (raw - mean) / spread if alike else raw
            channels = f'{spread.min():.2f} to {spread.max():.2f}'
            rows.append({
                'block': layer, 'final norm': norm, 'channels scaled alike': alike, 'spread of channels': channels,
                **describe(data, config.model.num_slots),
            })  # fmt: skip
            print(rows[-1], flush=True)
    return pd.DataFrame(rows).round(1)


def main(root: str) -> None:
    """Write both tables."""
    base, tables = topdown.preset('photos', data_root=root), topdown.figures_dir() / 'tables'
    encoder_rows(base).to_csv(tables / 'photos_encoder.csv', index=False)
    encoder = topdown.make_encoder(base)
    data = topdown.make_eval_set(base, encoder, progress=False)
    untrained = base.with_(seed=12345, top_down=False)
    labels = topdown.baselines(data, base.model.num_slots, lambda: topdown.build_model(untrained, encoder))
    found = pd.DataFrame(baseline_rows(labels, data)).assign(images=len(data))
    found.to_csv(tables / 'photos_baselines.csv', index=False)
    print(found.round(1).to_string(index=False))


def picture(root: str, count: int = 8) -> None:
    """Draw ``figures/photos_masks.png`` from the runs of seed 0: masks alone, since the photographs are not ours."""
    name, labels = 'photos_slotwise', {}
    base = topdown.preset(name, data_root=root, eval_images=count)
    data = topdown.make_eval_set(base, topdown.make_encoder(base), progress=False)
    labels['truth'] = data.instances[:].clip(0)
    labels['k-means'] = np.asarray(kmeans(data, data.tokens, base.model.num_slots)[:])
    for variant in ('baseline', 'top-down'):
        config = topdown.preset(name, seed=0, **topdown.VARIANTS[variant])
        model = topdown.load_run(job_folder('runs', config) / 'checkpoint.safetensors')[0]
        labels[variant] = topdown.predict(model, data).numpy()
    plots.style()
    figure = plots.show_masks(np.ones((count, data.mask_size, data.mask_size, 3)), labels, truth=('truth',))
    for row, image in enumerate(data.image_ids[:count]):
        axis = figure.axes[row * (1 + len(labels))]
        axis.clear()
        axis.axis('off')
        axis.text(0.5, 0.5, f'COCO\n{image}', ha='center', va='center', fontsize=8)
    plots.save(figure, topdown.figures_dir() / 'photos_masks.png')


if __name__ == '__main__':
    if sys.argv[1] == 'convert':
        convert(*sys.argv[2:])
    elif sys.argv[1] == 'picture':
        picture(*sys.argv[2:])
    else:
        main(sys.argv[1])
