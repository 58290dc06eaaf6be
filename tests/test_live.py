"""The live figure: its data are a trained model's, its script computes as the package does, and a browser shows it."""

import json
import re
import shutil
import subprocess

import pytest
import torch

from tests import live_export, live_page
from topdown.evaluate.predict import labels_from_masks
from topdown.model.modulation import Modulation
from topdown.model.slot_attention import SlotAttention
from topdown.presets import preset
from topdown.train.loop import train_model

LIVE = live_export.DATA.parent
LARGEST = 1_500_000  # bytes, of all that the figure loads
ROUNDED = 0.02  # of an attention, by arrays in float16 in place of float32
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


class Package:
    """The package's modules with the file's weights, and its arrays of one image at a time."""

    def __init__(self, data: dict) -> None:
        self.data, self.width, self.slots = data, data['width'], data['slots']
        self.patches = data['grid'][0] * data['grid'][1]
        self.layer = SlotAttention(self.width, self.width, data['iterations'], mlp_size=data['hidden'])
        self.modulation = Modulation(self.width, self.width)
        state = self.layer.state_dict() | {f'channel.{n}': p for n, p in self.modulation.channel.state_dict().items()}
        state = {n: live_export.unpack(data['model'][n], *p.shape) for n, p in state.items() if n in data['model']}
        missing, left = self.layer.load_state_dict(state, strict=False)
        assert all(name.startswith(live_export.FOR_INPUTS) for name in missing)
        missing, _ = self.modulation.load_state_dict({name: state[name] for name in left})
        self.codes = live_export.unpack(data['model']['codes'], data['codes'], self.width)

    def arrays(self, image: dict) -> tuple[torch.Tensor, ...]:
        """Keys, values, initial slots, first and second attention, with a batch of one."""
        inputs = [live_export.unpack(image[name], 1, 1, self.patches, self.width) for name in ('keys', 'values')]
        maps = [live_export.unpack(image[name], 1, self.slots, self.patches) for name in ('first', 'second')]
        return *inputs, live_export.unpack(image['start'], 1, self.slots, self.width), *maps

    def second(self, image: dict, setting: dict) -> torch.Tensor:
        """The second pass's attention (1, K, N) with what a reader has set."""
        keys, values, start, first, _ = self.arrays(image)
        index = torch.tensor(image['code'])
        chosen = torch.arange(self.slots) == setting['slot']
        chosen = (chosen | setting['all'])[:, None]
        if setting['code'] is not None:
            index[chosen[:, 0]] = setting['code']
        scales = self.modulation(self.codes[index][None], first)
        channel = torch.where(chosen, 1 + setting['channel'] * (scales.channel - 1), scales.channel)
        spatial = torch.where(chosen, 1 + setting['spatial'] * (scales.spatial - 1), scales.spatial)
        return self.layer(start, keys, values, scales._replace(channel=channel, spatial=spatial))[1]


def check_data(data: dict) -> None:
    """From a file's arrays the package comes to the attention that the trained model had, and to its codes."""
    package = Package(data)
    assert len(data['images']) == live_export.IMAGES
    for image in data['images']:
        keys, values, start, first, second = package.arrays(image)
        with torch.no_grad():
            slots, attention = package.layer(start, keys, values)
            again = package.second(image, SETTINGS[0])
        assert (attention - first).abs().max() < ROUNDED
        assert (again - second).abs().max() < ROUNDED
        distance = torch.cdist(slots[0], package.codes)
        own = distance.gather(1, torch.tensor(image['code'])[:, None])[:, 0]
        assert (own <= 1.02 * distance.min(1).values).all()  # nearest, or as near, in float16


def test_the_shipped_data_are_what_the_model_computed():
    data = live_export.read()
    check_data(data)
    record = data['record']
    assert (record['config'], record['seed']) == (preset('toybox').key, 0), 'run python -m tests.live_export anew'
    assert re.fullmatch(r'[0-9a-f]{10}\+?', record['commit'])
    assert re.fullmatch(r'[0-9a-f]{64}', record['checkpoint_sha256'])
    assert sum(path.stat().st_size for path in LIVE.iterdir()) < LARGEST
    assert live_export.FIGURE.is_file()


def test_the_export_of_another_run(tiny, encoder, tmp_path):
    train_model(tiny, tmp_path / 'run', encoder, progress=False)
    live_export.export(tmp_path / 'run', tmp_path / 'data.js', tmp_path / 'live.png')
    data = live_export.read(tmp_path / 'data.js')
    check_data(data)
    assert data['record']['config'] == tiny.key
    plain = tiny.with_(top_down=False)
    train_model(plain, tmp_path / 'plain', encoder, progress=False)
    with pytest.raises(ValueError, match='differs in top_down'):
        live_export.export(tmp_path / 'plain', tmp_path / 'data.js', tmp_path / 'live.png')


@pytest.mark.skipif(not shutil.which('node'), reason="node, which runs the live figure's script here, is not there")
def test_the_script_computes_what_the_package_computes():
    command = ['node', '-e', RUN_JS, str(LIVE / 'live.js'), str(LIVE / 'data.js')]
    done = subprocess.run(command, input=json.dumps(SETTINGS), capture_output=True, text=True, check=True)
    data = live_export.read()
    package, seen = Package(data), set()
    for image, results in zip(data['images'], json.loads(done.stdout)):
        for setting, found in zip(SETTINGS, results):
            with torch.no_grad():
                attention = package.second(image, setting)
            assert (torch.tensor(found['attention']) - attention.flatten()).abs().max() < 1e-3, setting
            labels = labels_from_masks(attention, data['grid'], data['side']).flatten()
            same = torch.tensor(found['labels']) == labels
            assert same.double().mean() > 0.999, setting
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
