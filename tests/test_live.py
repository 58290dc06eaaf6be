"""The live figure: its data are a trained model's, its script computes as the package does, and a browser shows it."""

import base64
import io
import json
import shutil
import subprocess

import numpy as np
import pytest
import torch
from PIL import Image

from tests import live_export, live_page
from topdown.evaluate.predict import labels_from_masks
from topdown.model.encoder import Encoder, encode_all, make_encoder
from topdown.model.slot_model import SlotModel
from topdown.presets import preset
from topdown.train import shipped
from topdown.train.loop import train_model

LIVE = live_export.DATA.parent
LARGEST = 1_500_000  # bytes, of all that the figure loads
ROUNDED = 0.02  # of keys, values and attention, which are in float16
SETTINGS = [
    {'slot': slot, 'all': every, 'channel': channel, 'spatial': spatial, 'code': code}
    for slot, every, channel, spatial, code in [
        (0, False, 1, 1, None), (0, False, 0, 1, None), (3, False, 1.7, 0.2, None), (6, False, 1, 1, 5),
        (2, True, 0.5, 2, 63), (1, True, 0, 0, None),
    ]
]  # fmt: skip
RUN_JS = """
require(process.argv[2]); const live = require(process.argv[1]);
const data = live.unpackAll(globalThis.liveModulation);
const settings = JSON.parse(require('fs').readFileSync(0));
console.log(JSON.stringify(data.images.map((image) => settings.map((setting) => {
  const attention = live.attend(data, image, live.scalesOf(data, image, setting));
  const labels = live.winners(live.enlarge(attention, data.grid, data.side), data.slots);
  return { attention: [...attention], labels: [...labels] };
}))));
"""


def arrays(data: dict, image: dict) -> list[torch.Tensor]:
    """An image's keys, values, initial slots, first and second attention, as a batch of one."""
    slots, width, patches = data['slots'], data['width'], data['grid'][0] * data['grid'][1]
    shapes = {'keys': (1, patches, width), 'values': (1, patches, width), 'start': (slots, width)}
    shapes |= {'first': (slots, patches), 'second': (slots, patches)}
    return [live_export.unpack(image[name], 1, *shape) for name, shape in shapes.items()]


def second(model: SlotModel, data: dict, image: dict, setting: dict) -> torch.Tensor:
    """The package's second pass, its attention (1, K, N), with what a reader has set."""
    keys, values, start, first, _ = arrays(data, image)
    index = torch.tensor(image['code'])
    chosen = (torch.arange(data['slots']) == setting['slot']) | setting['all']
    if setting['code'] is not None:
        index[chosen] = setting['code']
    scales = model.modulation(model.codebook.codes[index][None], first)
    strengths = zip(('channel', 'spatial'), (scales.channel, scales.spatial))
    changed = {n: torch.where(chosen[:, None], 1 + setting[n] * (scale - 1), scale) for n, scale in strengths}
    return model.slot_attention(start, keys, values, scales._replace(**changed))[1]


@torch.no_grad()
def check_data(data: dict, model: SlotModel, encoder: Encoder) -> None:
    """From a file's images and initial slots, the model comes to everything else in the file."""
    attend = model.slot_attention
    assert len(data['images']) == live_export.IMAGES
    for image in data['images']:
        pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(image['png']))), np.float32) / 255
        tokens = encode_all(encoder, torch.from_numpy(pixels).permute(2, 0, 1)[None])
        keys, values = attend.keys_values(model.head(tokens))
        kept_keys, kept_values, start, *kept = arrays(data, image)
        slots, first = attend(start, keys, values)
        codes, index, _, _ = model.codebook(slots)
        assert index[0].tolist() == image['code']
        found = [first, attend(start, keys, values, model.modulation(codes, first))[1]]
        pairs = [(keys, kept_keys[:, None]), (values, kept_values[:, None]), *zip(found, kept)]
        assert all((exact - rounded).abs().max() < ROUNDED for exact, rounded in pairs)


@pytest.fixture
def trained(encoder):
    """The model that the figure shows."""
    return shipped.load(live_export.NAME, encoder).model


def test_the_data_are_those_of_the_model_that_ships(trained):
    data = live_export.read()
    record, row = data['record'], shipped.list_runs().loc[live_export.NAME]
    assert record['weights_sha256'] == live_export.digest(trained), (
        'another model ships now: run python -m tests.live_export'
    )
    assert (record['config'], record['seed'], record['commit']) == (row.config, row.seed, row.commit)
    check_data(data, trained, make_encoder(preset('toybox'), 'fp32'))
    assert sum(path.stat().st_size for path in LIVE.iterdir()) < LARGEST


def test_the_export_of_another_run(tiny, encoder, tmp_path):
    files, exact = (tmp_path / 'data.js', tmp_path / 'live.png'), make_encoder(tiny, 'fp32')
    run = train_model(tiny, tmp_path / 'run', encoder, progress=False)
    live_export.export(run, exact, *files)
    data = live_export.read(files[0])
    check_data(data, run.model, exact)
    assert data['record']['config'] == tiny.key
    assert files[1].is_file()
    plain = train_model(tiny.with_(top_down=False), tmp_path / 'plain', encoder, progress=False)
    with pytest.raises(ValueError, match='differs in top_down'):
        live_export.export(plain, exact, *files)


@pytest.mark.skipif(not shutil.which('node'), reason="node, which runs the live figure's script here, is not there")
def test_the_script_computes_what_the_package_computes(trained):
    command = ['node', '-e', RUN_JS, str(LIVE / 'live.js'), str(LIVE / 'data.js')]
    done = subprocess.run(command, input=json.dumps(SETTINGS), capture_output=True, text=True, check=True)
    data, seen = live_export.read(), set()
    for image, results in zip(data['images'], json.loads(done.stdout)):
        for setting, found in zip(SETTINGS, results):
            with torch.no_grad():
                attention = second(trained, data, image, setting)
            assert (torch.tensor(found['attention']) - attention.flatten()).abs().max() < 1e-4, setting
            labels = labels_from_masks(attention, data['grid'], data['side']).flatten()
            assert (torch.tensor(found['labels']) == labels).double().mean() > 0.999, setting
            seen.add(tuple(found['labels']))
    assert len(seen) > len(SETTINGS)  # settings and images matter


@pytest.mark.skipif(not live_page.CHROMIUM, reason='no Chromium to open the live figure in')
def test_the_figure_works_in_a_browser(tmp_path):
    for path in [*LIVE.iterdir(), live_export.FIGURE]:
        shutil.copy(path, tmp_path)
    (tmp_path / 'page.html').write_text(
        '<!doctype html><meta name="viewport" content="width=device-width"><link rel="stylesheet" href="live.css">'
        '<script defer src="data.js"></script><script defer src="live.js"></script>'
        '<div id="live-modulation"><img src="live.png" alt="" style="max-width: 100%"></div>'
    )
    problems, _ = live_page.check((tmp_path / 'page.html').as_uri())
    assert not problems
