"""Command line: ``topdown COMMAND``, made by tyro from the functions below: a command is a function.

``train`` and ``bench`` take every parameter of the configuration by its plain name, with the defaults of the preset.
What a command does is in the rooms, imported when it is called, so that help comes at once. Options that are wrong end
with status 2, what fails later with 1 and one line.
"""

from __future__ import annotations

import functools
import itertools
import json
import operator
import sys
import typing
from pathlib import Path
from typing import Annotated, Literal

import docstring_parser
import tyro
from tyro.conf import DisallowNone, FlagConversionOff, FlagCreatePairsOff, OmitArgPrefixes, Positional, arg
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, StructConstructorSpec, StructFieldSpec
from tyro.extras import SubcommandApp

from topdown.config import NEEDS, OWNERS, PARTS, RENAMED, Config, PretrainConfig, owner, parse_object, say_needs
from topdown.datasets import DATASETS
from topdown.files import brief
from topdown.presets import PRESETS
from topdown.presets import preset as make_config
from topdown.protocols import PROTOCOLS

Preset = Literal[*PRESETS]
Protocol = Literal[*PROTOCOLS]
Masks = Literal['decoder', 'slots', 'first']
Split = Literal['train', 'val']
Known = Literal[*DATASETS]
Fetched = Literal[*(name for name, known in DATASETS.items() if known.source.elsewhere)]
Flag = FlagCreatePairsOff[bool]


class _All(dict):
    """All parameters of an experiment by their plain names; those left out have the preset's value."""


class _Labels(dict):
    """Parameters that say where labels are and how they are read; those left out are missing."""

    names = ('train_annotations', 'train_images', 'val_annotations', 'val_images', 'void_label')


class _Data(dict):
    """Parameters that say what is evaluated; those left out are missing, and stay as the run or preset has them."""

    names = ('dataset', 'data_root', *_Labels.names[2:], 'keep_crowd', 'mask_size', 'void', 'eval_images')


Parameters = Annotated[FlagConversionOff[_All], arg(name='')]
DataParameters = Annotated[FlagConversionOff[_Data], arg(name='')]
LabelParameters = Annotated[FlagConversionOff[_Labels], arg(name='')]

app, data = SubcommandApp(), SubcommandApp()


@app.command
def train(
    parameters: Parameters, preset: Preset = 'toybox', folder: Path = Path('runs/train'), stop_at: int | None = None
) -> None:
    """Train one model, or go on with it: the experiment of a preset, with changed parameters.

    Args:
        preset: whose values the parameters have if they are left out; ``--preset NAME --help`` shows them.
        folder: where checkpoint and logs go.
        stop_at: end early after this step, leaving a checkpoint to go on from.
    """
    from topdown import distributed
    from topdown.train.ending import ending
    from topdown.train.loop import train_model

    try:
        distributed.start()
        run = train_model(make_config(preset, **parameters), folder, stop_at=stop_at)
    except (ValueError, OSError, RuntimeError, ArithmeticError, ImportError, KeyboardInterrupt) as error:
        status, words = ending(error)
        sys.stderr.write(words)
        raise SystemExit(status) from None
    if distributed.is_main():
        print(run.evaluations.round(1).to_string(index=False) if len(run.evaluations) else f'{folder}: no evaluations')
    distributed.stop()


@app.command
def evaluate(
    parameters: DataParameters, checkpoint: Positional[Path | None] = None, predictions: Path | None = None,
    preset: Preset = 'coco', protocols: tuple[Protocol, ...] = ('oclf',), source: Masks | None = None,
    table: Path | None = None, average_batch: int = 0,
) -> None:  # fmt: skip
    """Score a checkpoint, or label maps that any program wrote, under one or several protocols.

    Args:
        checkpoint: checkpoint.safetensors of a run.
        predictions: instead: folder of <path of the image>.png, .tif, .npy or .npz: labels, or shares (K, h, w) of any
            resolution.
        preset: with ``--predictions``: data and sizes.
        protocols: one or several, each with images and masks cut its own way.
        source: whose masks; every protocol's own if left out: slot attention's for slotdiffusion, else the decoder's.
        table: write one row per image and protocol to this CSV file.
        average_batch: means over batches of so many images, as slotdiffusion prints them (64); 0 for over images.
    """
    from topdown.evaluate.report import describe_scores, score_protocols
    from topdown.train.loop import load_run

    if (checkpoint is None) == (predictions is None):
        raise ValueError('give either a checkpoint or --predictions FOLDER')
    model = encoder = None
    config = make_config(preset)
    if checkpoint:
        model, encoder, saved = load_run(checkpoint)
        config = saved.config
    config = config.with_(**parameters)
    scores, labels_read = score_protocols(config, protocols, model, encoder, source, predictions)
    if table:
        table.parent.mkdir(parents=True, exist_ok=True)
        scores.to_csv(table, index=False)
    print(f'{config.data.dataset}, {len(scores) // len(protocols)} images\n{labels_read}')
    print(describe_scores(scores, protocols, average_batch))


@app.command
def segment(
    images: Positional[tuple[Path, ...]], checkpoint: Path, out: Path = Path('segments'),
    size: int | Literal['image', 'grid'] = 'image', source: Masks = 'decoder',
) -> None:  # fmt: skip
    """Segment single images: a PNG of labels and an overlay for each.

    Args:
        images: image files.
        checkpoint: checkpoint.safetensors of a run.
        out: folder for label PNGs and overlays.
        size: of the labels: image for the image's own, 255 where the encoder did not look (it sees the square in the
            middle); grid for one per patch; or the side of the square, in pixels.
        source: whose masks.
    """
    from topdown.book.segment import segment_files

    segment_files(checkpoint, images, out, size, source)


app.command(data, name='data', help='List, fetch, prepare, check and describe data sets.')


@data.command(name='list')
def data_list() -> None:
    """List the data sets that can be read."""
    from topdown.data.check import overview

    print(overview().to_string(index=False))


@data.command
def fetch(name: Positional[Fetched], root: Positional[Path]) -> None:
    """Download a data set from its official addresses, and unpack what is packed.

    Args:
        root: folder to hold it.
    """
    from topdown.data.fetch import fetch

    known = DATASETS[name]
    print(f'{known.source.title}. Licence: {known.source.licence}')
    for path in fetch(known.source, root):
        print(f'{path} is there')
    if known.prepare:
        print(f'next: topdown data prepare {name} {root}')


@data.command
def prepare(
    name: Positional[Known], root: Positional[Path], preset: Preset | None = None, tokens: Path | None = None,
    workers: int = 2,
) -> None:  # fmt: skip
    """Make or convert a data set, and store its encoder's tokens if asked to; goes on where it stopped.

    Args:
        root: folder that holds it, or, of toybox, will hold it.
        preset: whose encoder makes the tokens; if left out, the one called like the data set.
        tokens: store the tokens of training images in this folder.
        workers: processes that read images, threads that convert.
    """
    from topdown.train.prepare import prepare

    prepare(name, root, preset, tokens, workers)


@data.command
def subset(name: Positional[Literal['coco']], ids: Path, data_root: Path, out: Path) -> None:
    """Make a data set of some of COCO's images, linked or copied, with their annotations; goes on where it stopped.

    Args:
        ids: CSV file with the columns file_name and split (train or val: of the new data set).
        data_root: folder that holds COCO 2017.
        out: folder of the new data set.
    """
    from topdown.data.subset import make_subset

    for split, (images, objects) in make_subset(ids, data_root, out).items():
        print(f'{out}, {split}: {images} images, {objects} annotations')


@data.command
def check(
    parameters: LabelParameters, name: Positional[Known], root: Positional[Path | None] = None,
    splits: tuple[Split, ...] = (),
) -> None:  # fmt: skip
    """Read all of a data set and name every problem; the exit status is 1 if there is one.

    Args:
        root: folder that holds it; not needed with ``--val-annotations``.
        splits: those whose annotations are given, or else both.
    """
    from topdown.data.check import check_splits

    given = [split for split in typing.get_args(Split) if f'{split}_annotations' in parameters]
    if check_splits(name, root, splits or given or typing.get_args(Split), parameters):
        raise SystemExit(1)


@data.command
def card(
    name: Positional[Known], root: Positional[Path | None] = None, out: Path = Path('figures'), split: Split = 'val',
    limit: int = 0,
) -> None:  # fmt: skip
    """Statistics of a data set, and a figure of its first images.

    Args:
        root: folder that holds it; toybox needs none.
        out: gets tables/data_cards.csv and data_NAME.png.
        limit: use the first so many images; 0 for all.
    """
    from topdown.book.card import write_card
    from topdown.data import open_whole

    write_card(open_whole(name, root, split, limit), name, split, out)


@data.command
def speed(
    name: Positional[Known], root: Positional[Path | None] = None, count: int = 400, workers: tuple[int, ...] = (0,),
    protocol: Protocol = 'oclf', table: Path | None = None,
) -> None:  # fmt: skip
    """How many training images a second are read and cut, by way of reading and number of loader processes.

    Args:
        root: folder that holds it; toybox needs none.
        count: of images.
        workers: loader processes, such as 1 4 16; 0 reads without.
        protocol: how images are cut.
        table: write the rows to this CSV file.
    """
    from topdown.data.card import write_speed

    write_speed(name, root, count, workers, protocol, table)


@app.command
def bench(
    parameters: Parameters, preset: Preset = 'toybox', device: Literal['cpu', 'cuda'] = 'cpu', rounds: int = 10,
    models: tuple[str, ...] = ('baseline', 'top-down'), memory: Flag = True, evaluation: Flag = False,
    grow: Path | None = None, store: Path | None = None, inference: Path | None = None, json: Path | None = None,
    table: Path | None = None,
) -> None:  # fmt: skip
    """How fast training is, and where the time goes: the experiment of a preset, with changed parameters.

    Args:
        preset: whose values the parameters have if they are left out.
        rounds: timed steps of each model.
        models: names of topdown.VARIANTS; overheads refer to the first.
        memory: leave peak memory out.
        evaluation: time evaluation, too (makes the encoder).
        grow: instead: growth over N, K, E, batch and slot width, written to this CSV file.
        store: instead: encoder in the loop against stored tokens, a row added to this CSV table.
        inference: instead: what applying a model costs, rows added to this CSV table.
        json: write everything to this file.
        table: add rows to this CSV table.
    """
    from topdown.book import bench

    config = make_config(preset, **parameters)
    if store:
        bench.run_store(config, store)
    elif inference:
        bench.run_inference(config, models, device, rounds, inference)
    elif grow:
        bench.run_growth(config, device, rounds, grow)
    else:
        bench.run(config, models, device, rounds, memory, evaluation, json, table)


@app.command
def tables(
    what: Positional[Literal['runs', 'plan', 'collect', 'growth', 'probes', 'crowds', 'claims']] = 'runs',
    preset: Preset = 'toybox', only: tuple[str, ...] = (), workers: int = 1,
    engine: Literal['local', 'slurm'] = 'local', slurm_options: dict = {}, data_root: str = '',  # noqa: B006
    run_dir: Path = Path('runs'), tables: Path = Path('figures/tables'),
) -> None:  # fmt: skip
    """Make the runs behind the tables of the book, where they are missing, and gather them into tables.

    Args:
        what: runs; plan, only say what is to be done; collect, only gather what is there; growth, what codes mean in
            the course of training; probes, what a linear probe reads off slots and codes; crowds, finished runs by
            crowding, and codes between seeds; claims, the verdicts on the paper's claims, from tables that there are.
        only: some of the preset's experiments, such as ablation and codebook; all if left out.
        workers: runs at a time; the cores are shared out among them.
        engine: processes of this machine, or jobs of a cluster.
        slurm_options: for submitit, such as {"slurm_partition": "gpu", "gpus_per_node": 1}.
        data_root: folder of the data set.
        run_dir: where runs are kept.
        tables: where tables are written.
    """
    if what == 'claims':
        from topdown.book.claims import write_claims

        print(write_claims(tables.parent).drop(columns='page').to_string(index=False))
        return
    from topdown.book.schedule import make_tables

    make_tables(preset, only or None, what, workers, engine, slurm_options, data_root, run_dir, tables)


@app.command
def show(folder: Positional[Path], publish: Flag = False, figures: Flag = True) -> None:
    """Show what a run of the training chapter found: table, figures, and what the published interval says of it.

    Args:
        folder: holds results.csv, such as runs/toybox.
        publish: copy them to figures/, those of the default preset to the README, too.
        figures: with ``--publish``: leave figures out.
    """
    from topdown.book import publish as room

    print(room.show(folder))
    if publish:
        room.publish(
            folder, Path('figures'), Path('README.md') if folder.name == room.DEFAULT_PRESET else None, figures
        )


@app.command
def interventions(folder: Positional[Path], table: Path | None = None) -> None:
    """What the trained top-down models of a folder rely on: scores with parts of the modulation taken away.

    Args:
        folder: of runs, such as runs/toybox.
        table: write rows to this CSV file; means, and mBO_i lost by seed, beside it.
    """
    from topdown.book.runs import take_apart

    take_apart(folder, table)


@app.command
def watch(folder: Positional[Path], seconds: float = 5.0) -> None:
    """Watch a run while it lasts: its last rows and the course of its loss, drawn in the terminal.

    Args:
        folder: of the run.
        seconds: between two looks.
    """
    from topdown.train.watch import watch

    watch(folder, seconds)


@app.command
def pretrain(settings: Annotated[PretrainConfig, arg(name='')], folder: Path = Path('runs/pretrain')) -> None:
    """Pretrain an embedded encoder on Toybox clips, without labels; with --objective category as the shipped one was.

    Args:
        folder: where weights and log go.
    """
    from topdown.toybox.pretrain import pretrain

    pretrain(settings, folder)


def main(arguments: list[str] | None = None) -> None:
    """Entry point of the ``topdown`` command."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    named = [after for word, after in itertools.pairwise(words) if word == '--preset']
    named += [word.removeprefix('--preset=') for word in words if word.startswith('--preset=')]
    base = PRESETS.get(named[-1] if named else 'toybox', PRESETS['toybox'])
    status = 2
    try:
        _refuse_old(words)
        status = 1
        app.cli(prog='topdown', args=words, registry=_options(base), config=(OmitArgPrefixes, DisallowNone))
    except (ValueError, OSError, RuntimeError, ImportError, ArithmeticError) as error:
        said = error if isinstance(error, RuntimeError) else brief(error, 2000)  # failed runs have a line each
        print(f'error: {said}', file=sys.stderr)
        raise SystemExit(status) from None


def _refuse_old(words: list[str]) -> None:
    """What parameters of ``train`` were called and how they were given before: say how it is done now."""
    for word in words if words[:1] == ['train'] else ():
        name, equals, value = word.lstrip('-').replace('-', '_').partition('=')
        if name in RENAMED:
            owner(name)
        if equals and name in OWNERS and not word.startswith('-'):
            raise ValueError(f'write --{name} {value} for {word}')


def _options(base: Config) -> ConstructorRegistry:
    """How tyro makes options of parameters, which have the values of ``base``, and of dictionaries, which are JSON."""
    registry = ConstructorRegistry()
    groups = {type(part, (dict,), {}): part for part in PARTS}

    def changed(found: dict) -> dict:  # what is left out may depend on what is not, as a threshold on the batch
        return {name: value for name, value in found.items() if value != base.settings()[name]}

    @registry.struct_rule
    def parameters(info: tyro.constructors.StructTypeInfo) -> StructConstructorSpec | None:
        if info.type is _All:  # a group of the help for each part, put together again
            fields = tuple(StructFieldSpec(part, group, tyro.MISSING) for group, part in groups.items())
            return StructConstructorSpec(
                lambda **found: changed(functools.reduce(operator.or_, found.values())), fields
            )
        if info.type in (_Data, _Labels):
            fields = tuple(_option(name, None) for name in info.type.names)
            return StructConstructorSpec(lambda **found: {k: v for k, v in found.items() if v is not None}, fields)
        if info.type in groups:
            names = [name for name, (part, _) in OWNERS.items() if part == groups[info.type]]
            return StructConstructorSpec(dict, tuple(_option(name, base) for name in names))
        return None

    @registry.primitive_rule
    def json_object(info: tyro.constructors.PrimitiveTypeInfo) -> PrimitiveConstructorSpec | None:
        read = lambda texts: parse_object(texts[0], 'the value')  # noqa: E731
        spec = PrimitiveConstructorSpec(1, 'JSON', read, lambda v: isinstance(v, dict), lambda v: [json.dumps(v)])
        return spec if info.type is dict else None

    return registry


def _option(parameter: str, base: Config | None) -> StructFieldSpec:
    """The option of a parameter: its type, its value in ``base``, and the docstring under its field."""
    part, name = owner(parameter)
    kind, text = typing.get_type_hints(PARTS[part])[name], _docstrings(PARTS[part])[name]
    text += f' Needs {say_needs(parameter)}.' if parameter in NEEDS else ''
    if base is None:
        return StructFieldSpec(parameter, kind | None, None, text)
    return StructFieldSpec(parameter, kind, getattr(getattr(base, part), name), text)


@functools.cache
def _docstrings(kind: type) -> dict[str, str]:
    """Field of a dataclass -> the docstring under it, as one line."""
    found = docstring_parser.parse_from_object(kind).params
    return {field.arg_name: ' '.join(field.description.split()) for field in found}
