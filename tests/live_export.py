"""The live figure's data: ``python -m tests.live_export`` writes book/_static/live/data.js and figures/live.png.

The model is the one that ships with the package and that the chapter on modulation maps looks at. Of the first five
validation images, the file holds what the second pass starts from: keys, values, initial slots, first attention and the
codes' numbers; and once, the weights that it needs. ``book/_static/live/live.js`` does the rest in the page.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from topdown.book import plots
from topdown.data import open_dataset
from topdown.evaluate.predict import labels_from_masks
from topdown.files import write_text
from topdown.model.encoder import Encoder, encode_all, make_encoder
from topdown.model.modulation import Scales
from topdown.model.slot_model import SlotModel
from topdown.presets import preset
from topdown.train import shipped
from topdown.train.loop import Run

ROOT = Path(__file__).parent.parent
DATA = ROOT / 'book' / '_static' / 'live' / 'data.js'
FIGURE = ROOT / 'figures' / 'live.png'
NAME = 'toybox/top-down/0'
BEFORE = 'globalThis.liveModulation = '  # a script, as pages that were opened from a disk may not fetch
IMAGES = 5
FOR_INPUTS = ('norm_inputs.', 'project_k.', 'project_v.')  # weights that only make keys and values, which are there


def pack(values: Tensor) -> str:
    """An array as base64 of little-endian float16.

    Raises:
        ValueError: if a value is out of float16's range.
    """
    half = values.detach().cpu().numpy().astype('<f2')
    if not np.isfinite(half).all():
        raise ValueError('the live figure keeps its arrays in float16, and this run has values beyond its range')
    return base64.b64encode(half.tobytes()).decode()


def unpack(text: str, *shape: int) -> Tensor:
    """The array that ``pack`` wrote, as float32."""
    return torch.from_numpy(np.frombuffer(base64.b64decode(text), '<f2').astype(np.float32)).view(shape)


def read(path: Path = DATA) -> dict:
    """What the page gets."""
    return json.loads(path.read_text().removeprefix(BEFORE).rstrip(';\n'))


def png(image: Tensor) -> str:
    """An image (3, S, S) in [0, 1] as base64 of a PNG."""
    pixels = (image * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    with io.BytesIO() as file:
        Image.fromarray(pixels).save(file, 'png', optimize=True)
        return base64.b64encode(file.getvalue()).decode()


def digest(model: SlotModel) -> str:
    """SHA-256 of a model's weights and codes in float16, as they ship."""
    arrays = (array.half() for _, array in sorted(model.state_dict().items()))
    return hashlib.sha256(b''.join(array.numpy().tobytes() for array in arrays)).hexdigest()


def export(run: Run, encoder: Encoder, data_file: Path = DATA, figure_file: Path = FIGURE) -> None:
    """Write data and static image of a run.

    Raises:
        ValueError: if it is not a run of the pathway that the figure computes, or see ``pack``.
    """
    model, config = run.model, run.config.model
    plain = {'num_heads': 1, 'share_weights': True, 'feedback_rounds': 1, 'shift_attention': True, 'quantize': True}
    plain |= {'top_down': True, 'channel_modulation': True, 'spatial_modulation': True, 'predictor': 'linear'}
    plain |= {'modulate_queries': False, 'modulate_mlp': False, 'shuffle_codes': False, 'qkv_size': 0}
    if wrong := [name for name, value in plain.items() if getattr(config, name) != value]:
        raise ValueError(f'the live figure computes the default pathway, and this run differs in {", ".join(wrong)}')
    attend, dataset = model.slot_attention, open_dataset(run.config, 'val')
    images = torch.stack([dataset.shown(i) for i in range(IMAGES)])
    images = (255 * images).round() / 255  # as the page shows them
    # The noise of every evaluation with seed 0: the live figure starts where the chapter's other figures do.
    noise = torch.randn(len(dataset), config.num_slots, config.slot_size, generator=torch.Generator().manual_seed(0))
    tokens, noise, model.precision = encode_all(encoder, images), noise[:IMAGES], 'fp32'
    with torch.no_grad():
        keys, values = attend.keys_values(model.head(tokens))
        start, out = model.slot_init(noise), model(tokens, noise, decode=False)
    parts = {name: array for name, array in attend.state_dict().items() if not name.startswith(FOR_INPUTS)}
    parts |= {'codes': model.codebook.codes}
    parts |= {f'channel.{name}': array for name, array in model.modulation.channel.state_dict().items()}
    arrays = {'keys': keys, 'values': values, 'start': start, 'first': out.first_attention, 'second': out.attention}
    record = ('preset', 'config', 'seed', 'dataset', 'steps', 'commit', 'date')
    data = {
        'record': {n: run.provenance[n] for n in record} | {'weights_sha256': digest(model)},
        'slots': config.num_slots, 'width': config.slot_size, 'hidden': attend.mlp_size,
        'iterations': attend.num_iterations, 'codes': config.codebook_size, 'grid': encoder.grid,
        'side': images.shape[-1], 'colours': (255 * plots.COLOURS[: config.num_slots]).round().astype(int).tolist(),
        'model': {name: pack(array) for name, array in parts.items()},
        'images': [
            {'png': png(images[i]), 'code': out.code_index[i].tolist()}
            | {name: pack(array[i]) for name, array in arrays.items()}
            for i in range(IMAGES)
        ],
    }  # fmt: skip
    write_text(data_file, BEFORE + json.dumps(data) + ';\n')

    def labels(attention: Tensor) -> np.ndarray:
        return labels_from_masks(attention, encoder.grid, images.shape[-1])[0].numpy()

    rows = []
    for i in range(IMAGES):
        found, (channel, spatial, *_) = slice(i, i + 1), out.scales
        slot = int(np.bincount(labels(out.attention[found]).ravel()).argmax())
        columns = {'first pass': out.first_attention[found], 'second pass': out.attention[found]}
        for name, scales in {'no channel\nscale': (True, False), 'no spatial\nscale': (False, True)}.items():
            changed = [scale[found].clone() for scale in (channel, spatial)]
            for scale, off in zip(changed, scales):
                scale[0, slot] = 1 if off else scale[0, slot]
            with torch.no_grad():
                columns[name] = attend(start[found], keys[found], values[found], Scales(*changed))[1]
        shown = {name: labels(attention) for name, attention in columns.items()}
        rows.append((f'slot {slot}', images[i].permute(1, 2, 0).numpy(), shown))
    plots.style()
    plots.save(plots.show_pass_masks(rows), figure_file)
    print(*(f'{file.name}: {file.stat().st_size:,} bytes' for file in (data_file, figure_file)), sep='\n')


if __name__ == '__main__':
    network = make_encoder(preset('toybox'), 'fp32')  # on every processor the same
    export(shipped.load(NAME, network), network)
