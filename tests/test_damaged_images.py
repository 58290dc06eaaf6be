"""Images that cannot be read are one message each, wherever they are met: training, its loaders, check, segment."""

import random
import struct
import subprocess
import sys
import zlib

import pytest
import torch

import topdown
from topdown.cli import main
from topdown.data.base import MOST_PIXELS


def chunk(kind, content):
    return struct.pack('>I', len(content)) + kind + content + struct.pack('>I', zlib.crc32(kind + content))


def png(header, rest):
    return b'\x89PNG\r\n\x1a\n' + header + rest


SIZE = struct.pack('>II5B', 64, 64, 1, 0, 0, 0, 0)
END = chunk(b'IEND', b'')
ROWS = chunk(b'IDAT', zlib.compress(b''.join(b'\0' + random.Random(i).randbytes(8) for i in range(64))))
DAMAGED = {
    'bomb': png(chunk(b'IHDR', struct.pack('>II5B', 20_000, 20_000, 1, 0, 0, 0, 0)), ROWS + END),
    'header cut': png(chunk(b'IHDR', SIZE[:6]), ROWS + END),  # Pillow: Truncated IHDR chunk
    'broken chunk': png(chunk(b'IHDR', SIZE), b'\x00\x00\x01\x00ID\x01T' + bytes(300)),  # Pillow: SyntaxError
    'cut': png(chunk(b'IHDR', SIZE), ROWS[:200]),
    'no header': png(b'', ROWS + END),
    'nothing': b'',
}


def test_whole_images_of_this_making_can_be_read(tmp_path):
    path = tmp_path / 'a.png'
    path.write_bytes(png(chunk(b'IHDR', SIZE), ROWS + END))
    assert topdown.data.base.read_image_file(path).shape == (3, 64, 64)
    assert MOST_PIXELS < 20_000**2


@pytest.fixture(params=DAMAGED)
def damaged(request, coco_root):
    """COCO whose third training image, in the file that is named so, is damaged."""
    (coco_root / 'train2017' / '000000000012.jpg').write_bytes(DAMAGED[request.param])
    return coco_root


def error(capsys, arguments):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if 'error' in line or 'Traceback' in line]
    assert len(lines) == 1
    return lines[0]


@pytest.mark.parametrize('how', ['num_workers=0', 'token_dir', 'num_workers=2'])
@pytest.mark.parametrize('damaged', ['bomb', 'nothing'], indirect=True)
def test_in_training(damaged, how, tmp_path, capsys):
    options = ['--token-dir', str(tmp_path / 'tokens'), '--num-workers', '1']
    if how != 'token_dir':
        options = ['--cache-tokens', 'False', '--num-workers', how[-1]]
    arguments = ['train', '--preset', 'smoke', '--folder', str(tmp_path / 'run'), '--dataset', 'coco', '--steps', '1']
    line = error(capsys, [*arguments, '--data-root', str(damaged), '--batch-size', '4', '--mask-size', '32', *options])
    assert line.startswith('error: ')
    assert '000000000012.jpg cannot be read (' in line


def test_in_a_check_and_in_segmenting(damaged, tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(['data', 'check', 'coco', str(damaged), '--splits', 'train'])
    printed = capsys.readouterr()
    assert '000000000012.jpg cannot be read (' in printed.out
    assert 'Traceback' not in printed.err
    path, run = damaged / 'train2017' / '000000000012.jpg', tmp_path / 'run'
    config = topdown.preset('smoke', dataset='coco', data_root=str(damaged), steps=1, batch_size=4, mask_size=32)
    with pytest.warns(UserWarning, match='skipped: skip_corrupt=True'):
        topdown.train_model(config.with_(skip_corrupt=True), run, progress=False)
    line = error(capsys, ['segment', str(path), '--checkpoint', str(run / 'checkpoint.safetensors')])
    assert '000000000012.jpg cannot be read (' in line


def test_skipping_takes_the_next_image(damaged):
    config = topdown.preset('smoke', dataset='coco', data_root=str(damaged), skip_corrupt=True)
    data = topdown.open_dataset(config, 'train')
    with pytest.warns(UserWarning, match=r'000000000012.jpg cannot be read .*skipped'):
        assert torch.equal(data.view(2), data.view(3))


def test_a_loader_of_several_processes_tells_it_as_one_does(coco_root):
    """From the shell, where nothing captures what worker processes print."""
    (coco_root / 'train2017' / '000000000012.jpg').unlink()
    command = [sys.executable, '-m', 'topdown', 'train', '--preset', 'smoke', '--folder', str(coco_root / 'run')]
    changes = ['--dataset', 'coco', '--data-root', str(coco_root), '--batch-size', '4', '--mask-size', '32']
    command += [*changes, '--cache-tokens', 'False', '--num-workers', '2']
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.returncode == 1
    assert 'Traceback' not in found.stderr
    assert found.stderr.rstrip().splitlines()[-1].startswith('error: ')
    assert found.stderr.rstrip().endswith('000000000012.jpg is missing: check the path, or unpack the images again')
