"""Command line: ``topdown train | evaluate | segment | interventions | bench | data``.

Options only; what a command does is in ``commands`` and ``bench``, loaded when it is called.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path

from topdown.datasets import DATASETS
from topdown.presets import PRESETS
from topdown.protocols import PROTOCOLS


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    parser = argparse.ArgumentParser(prog='topdown', description='Slot attention that modulates itself.')
    commands = parser.add_subparsers(dest='command', required=True)
    commands.add_parser('train', help='train one model (see topdown train --help)', add_help=False)
    part = commands.add_parser('evaluate', help='score a checkpoint, or label PNGs from any program')
    part.add_argument('checkpoint', nargs='?', type=Path, help='checkpoint.safetensors of a run')
    part.add_argument(
        '--predictions',
        type=Path,
        help='folder of <path of the picture>.png, .tif, .npy or .npz: labels, or shares (K, h, w) of any resolution',
    )
    part.add_argument('--preset', default='coco', choices=list(PRESETS), help='with --predictions: data and sizes')
    part.add_argument('--dataset', default='', help="data set, such as folder; default: the preset's or the run's")
    part.add_argument('--data-root', default='', help='folder of the data set')
    _label_options(part)
    part.add_argument('--keep-crowd', choices=['auto', 'keep', 'drop'], help='crowd regions as objects (see config)')
    part.add_argument(
        '--protocols',
        nargs='+',
        default=['oclf'],
        choices=list(PROTOCOLS),
        help='one or several, each with pictures and masks cut its own way',
    )
    part.add_argument('--source', default='decoder', choices=['decoder', 'slots', 'first'], help='whose masks')
    part.add_argument('--limit', type=int, help='use the first so many pictures; 0 for all')
    part.add_argument('--table', type=Path, help='write one row an image and protocol to this CSV file')
    part.set_defaults(run='commands.evaluate')
    part = commands.add_parser('segment', help='segment single pictures')
    part.add_argument('images', nargs='+', type=Path, help='picture files')
    part.add_argument('--checkpoint', required=True, type=Path, help='checkpoint.safetensors of a run')
    part.add_argument('--out', type=Path, default=Path('segments'), help='folder for label PNGs and overlays')
    part.add_argument(
        '--size', type=_size, default='image', help="of the labels: image (its own), grid (a patch's each), or a side"
    )
    part.add_argument('--source', default='decoder', choices=['decoder', 'slots', 'first'], help='whose masks')
    part.set_defaults(run='commands.segment')
    part = commands.add_parser('interventions', help='what trained top-down models rely on')
    part.add_argument('folder', type=Path, help='folder of runs, such as runs/toybox')
    part.add_argument(
        '--table', type=Path, help='write rows to this CSV file; means, and mBO_i lost by seed, beside it'
    )
    part.set_defaults(run='commands.take_apart')
    part = commands.add_parser('bench', help='how fast training is, and where the time goes')
    _bench_options(part)
    part.set_defaults(run='book.bench.run')
    data = commands.add_parser('data', help='list, fetch, prepare, check and describe data sets')
    actions = data.add_subparsers(dest='action', required=True)
    actions.add_parser('list', help='data sets that can be read').set_defaults(run='commands.data_list')
    part = actions.add_parser('fetch', help='download one from its official addresses')
    part.add_argument('name', choices=[name for name, known in DATASETS.items() if known.source.elsewhere])
    part.add_argument('root', type=Path, help='folder to hold it')
    part.set_defaults(run='commands.data_fetch')
    part = actions.add_parser('prepare', help='make or convert one, and store its tokens; goes on where it stopped')
    part.add_argument('name', choices=[*DATASETS])
    part.add_argument('root', type=Path, help='folder that holds it, or, of toybox, will hold it')
    part.add_argument('--preset', choices=list(PRESETS), help='whose encoder makes the tokens; default: NAME')
    part.add_argument('--tokens', type=Path, help='store the tokens of training pictures in this folder')
    part.add_argument('--workers', type=int, default=2, help='processes that read pictures, threads that convert')
    part.set_defaults(run='commands.data_prepare')
    part = actions.add_parser('check', help='read all of it and name every problem')
    part.add_argument('name', choices=[*DATASETS])
    part.add_argument('root', nargs='?', type=Path, help='folder that holds it; not needed with --annotations')
    _label_options(part)
    part.add_argument('--splits', nargs='+', choices=['train', 'val'], help='default: both; with --annotations: val')
    part.set_defaults(run='commands.data_check')
    part = actions.add_parser('card', help='statistics of one and a figure of its first pictures')
    part.add_argument('name', choices=[*DATASETS])
    part.add_argument('root', nargs='?', type=Path, help='folder that holds it; toybox needs none')
    part.add_argument('--out', type=Path, default=Path('figures'), help='gets tables/data_cards.csv and data_NAME.png')
    part.add_argument('--split', default='val', choices=['train', 'val'])
    part.add_argument('--limit', type=int, default=0, help='use the first so many pictures; 0 for all')
    part.set_defaults(run='commands.data_card')
    part = actions.add_parser('speed', help='how fast one process reads it')
    part.add_argument('name', choices=[*DATASETS])
    part.add_argument('root', nargs='?', type=Path, help='folder that holds it; toybox needs none')
    part.add_argument('--count', type=int, default=200, help='of pictures')
    part.set_defaults(run='commands.data_speed')
    return parser


def _size(text: str) -> int | str:
    return int(text) if text.isdigit() else text


def _label_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('--annotations', default='', help='annotation file in the format of COCO, lying anywhere')
    parser.add_argument('--images', default='', help='folder that its file names start from')
    parser.add_argument('--void-label', type=int, help='of dataset folder: the label of pixels of unknown truth')


def _bench_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('--preset', default='toybox', choices=list(PRESETS))
    parser.add_argument('--batch', type=int, help="pictures a step; the preset's if left out")
    parser.add_argument('--precision', choices=['auto', 'bf16', 'fp32'], help="the preset's if left out")
    parser.add_argument('--device', default='cpu', choices=['cpu', 'cuda'])
    parser.add_argument('--compile', action='store_true', help='with torch.compile')
    parser.add_argument('--rounds', type=int, default=10, help='timed steps of each model')
    parser.add_argument('--models', nargs='+', default=['baseline', 'top-down'], metavar='MODEL')
    parser.add_argument('--no-memory', action='store_true', help='leave peak memory out')
    parser.add_argument('--evaluation', action='store_true', help='time evaluation, too (makes the encoder)')
    parser.add_argument('--grow', type=Path, metavar='CSV', help='instead: growth over N, K, E, batch and slot width')
    parser.add_argument('--store', type=Path, metavar='CSV', help='instead: encoder in the loop against stored tokens')
    parser.add_argument('--json', type=Path, help='write everything to this file')
    parser.add_argument('--table', type=Path, metavar='CSV', help='add rows to this table')


def main(arguments: list[str] | None = None) -> None:
    """Entry point of the ``topdown`` command."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments[:1] == ['train']:
        importlib.import_module('topdown.train.loop').main(arguments[1:])
        return
    parser = build_parser()
    options = parser.parse_args(arguments)
    module, _, name = options.run.rpartition('.')
    try:
        getattr(importlib.import_module(f'topdown.{module}'), name)(options)
    except (ValueError, OSError, RuntimeError) as error:
        parser.exit(1, f'error: {error}\n')


if __name__ == '__main__':
    main()
