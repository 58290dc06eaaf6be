"""What the commands of ``topdown.cli`` do; apart from it, so that asking for help loads nothing heavy."""

from __future__ import annotations

import argparse
import pkgutil
from pathlib import Path

import pandas as pd

from topdown.data import open_dataset
from topdown.data.base import PictureSet
from topdown.datasets import DATASETS
from topdown.evaluate import metrics
from topdown.evaluate.statistics import bootstrap_interval
from topdown.model.encoder import make_encoder
from topdown.presets import PRESETS, preset
from topdown.protocols import PROTOCOLS
from topdown.train import batches, loop


def evaluate(options: argparse.Namespace) -> None:
    """Score a checkpoint, or label maps that any program wrote, under one or several protocols."""
    from topdown.data.predictions import read_predictions
    from topdown.evaluate.predict import order_by_disagreement, per_image_table, predict
    from topdown.evaluate.truth import make_eval_set, make_truth_set

    if (options.checkpoint is None) == (options.predictions is None):
        raise ValueError('give either a checkpoint or --predictions FOLDER')
    changes = _settings(options, 'val')
    if options.limit is not None:
        changes['eval_images'] = options.limit
    if options.checkpoint is not None:
        model, encoder, saved = loop.load_run(options.checkpoint)
        config = saved.config.with_(**changes)
    else:
        config = preset(options.preset, **changes)
    parts = []
    for protocol in options.protocols:  # each sees pictures and masks cut its own way
        config = config.with_(protocol=protocol)
        if options.checkpoint is not None:
            data = make_eval_set(config, encoder)
            labels = predict(model, data, options.source)
        else:
            data = make_truth_set(config)
            labels = read_predictions(options.predictions, data.dataset, uncut=len(options.protocols) > 1)
        parts.append(per_image_table(labels, data))
    table = order_by_disagreement(pd.concat(parts, ignore_index=True))
    if options.table:
        options.table.parent.mkdir(parents=True, exist_ok=True)
        table.to_csv(options.table, index=False)
    rows = []
    for protocol, part in table.groupby('protocol', sort=False):
        for name in metrics.METRICS:
            found = bootstrap_interval(part[name].to_numpy())
            shown = f'{100 * found.mean:.1f} [{100 * found.low:.1f}, {100 * found.high:.1f}]'
            rows.append({'protocol': protocol, 'metric': name, 'percent [95 % over images]': shown})
    print(f'{config.data.dataset}, {len(data)} images')
    print(data.dataset.report.line())
    frame = pd.DataFrame(rows).pivot(index='metric', columns='protocol', values='percent [95 % over images]')
    print(frame.loc[list(metrics.METRICS), list(options.protocols)].to_string())


def _settings(options: argparse.Namespace, split: str) -> dict[str, object]:
    """Settings of the data set that options name; what is left out stays as it is."""
    given = {name: getattr(options, name, None) for name in ('dataset', 'data_root', 'keep_crowd', 'void_label')}
    given |= {f'{split}_{name}': getattr(options, name, None) for name in ('annotations', 'images')}
    return {name: value for name, value in given.items() if value not in (None, '')}


def segment(options: argparse.Namespace) -> None:
    """Segment single images: a PNG of labels and an overlay for each."""
    from topdown.book.plots import overlay
    from topdown.evaluate.segment import segment_files

    model, encoder, saved = loop.load_run(options.checkpoint)
    protocol = saved.config.data.protocol
    segment_files(options.images, options.out, model, encoder, protocol, overlay, options.size, options.source)


def take_apart(options: argparse.Namespace) -> None:
    """What every top-down run of a folder relies on: its scores with parts of the modulation taken away."""
    from topdown.book.summaries import mean_and_spread
    from topdown.evaluate.predict import interventions, predict, score
    from topdown.evaluate.truth import make_eval_set

    paths = sorted(options.folder.glob('top-down-seed*/checkpoint.safetensors'))
    if not paths:
        raise FileNotFoundError(f'{options.folder} holds no top-down-seed*/checkpoint.safetensors: train first')
    rows, encoder, data = [], None, None
    for path in paths:
        model, encoder, saved = loop.load_run(path, encoder)
        data = data or make_eval_set(saved.config, encoder)
        for name, change in interventions(model, data).items():
            found = metrics.summarize(score(predict(model, data, change=change), data))
            place = {'intervention': name, 'seed': saved.config.train.seed, 'config': saved.config.key}
            rows.append({**place, **found})
    table = pd.DataFrame(rows)
    summary = mean_and_spread(table, 'intervention').reset_index()
    print(summary.to_string(index=False))
    if options.table:
        options.table.parent.mkdir(parents=True, exist_ok=True)
        table.to_csv(options.table, index=False)
        summary.to_csv(options.table.with_name(f'{options.table.stem}_summary.csv'), index=False)
        by_seed = table.pivot(index='seed', columns='intervention', values='mbo_i')[list(summary.intervention)]
        lost = by_seed.sub(by_seed['both'], axis=0).drop(columns='both').round(1).reset_index()
        lost.to_csv(options.table.with_name(f'{options.table.stem}_by_seed.csv'), index=False)


def data_list(options: argparse.Namespace) -> None:
    """Print the data sets that can be read."""
    rows = []
    for name, known in DATASETS.items():
        how = f'topdown data fetch {name} FOLDER' if known.source.elsewhere else '-'
        how = 'by hand, after a login' if known.source.login else 'made on first use' if known.make else how
        how += f', then topdown data prepare {name} FOLDER' if known.prepare else ''
        counts = {split: known.official.get(split, '-') for split in ('train', 'val')}
        rows.append({'name': name, 'data set': known.source.title, **counts, 'get it': how})
    print(pd.DataFrame(rows).to_string(index=False))


def data_fetch(options: argparse.Namespace) -> None:
    """Download a data set, and unpack what is packed."""
    from topdown.data.fetch import fetch

    source = DATASETS[options.name].source
    print(f'{source.title}. Licence: {source.licence}')
    for path in fetch(source, options.root):
        print(f'{path} is there')
    if DATASETS[options.name].prepare:
        print(f'next: topdown data prepare {options.name} {options.root}')


def data_prepare(options: argparse.Namespace) -> None:
    """Get a data set ready for training: make or convert it, and store its encoder's tokens if asked to."""
    known = DATASETS[options.name]
    if known.prepare:
        print(f'{pkgutil.resolve_name(known.prepare)(options.root, workers=max(2, options.workers))} is there')
    elif known.make:
        config = preset(options.preset or 'toybox', dataset=options.name, data_root=str(options.root))
        print(f'{open_dataset(config, "train").root} is there')
    else:
        print(f'{options.name} is read as it is: nothing to convert')
    if options.tokens is None:
        return
    name = options.preset or options.name
    if name not in PRESETS:
        raise ValueError(
            f'there is no preset {name!r} that says which encoder makes the tokens: pass --preset with one of '
            f'{", ".join(PRESETS)}; data set and folder take the place of its own'
        )
    config = preset(
        name, dataset=options.name, data_root=str(options.root), cache_tokens=True, token_dir=str(options.tokens),
        num_workers=options.workers, batch_size=1,
    )  # fmt: skip
    if config.encoder.name == 'pixels':
        raise ValueError(
            f'preset {name!r} works on pixels, which have no tokens to store: train without --tokens, or pass --preset '
            'with one that has an encoder'
        )
    if config.data.random_crop:
        raise ValueError(
            f'preset {name!r} trains with random crops, and every crop needs tokens of its own: tokens cannot be '
            'stored; train without --tokens'
        )
    batches.TrainData(open_dataset(config, 'train'), make_encoder(config), config, progress=True)
    print(f'tokens are there; train with cache_tokens=true token_dir={options.tokens}')


def data_check(options: argparse.Namespace) -> None:
    """Check a data set whole; the exit status is 1 if there is a problem."""
    from topdown.data.check import check

    problems, errors = 0, []
    for split in options.splits or (['val'] if options.annotations else ['train', 'val']):
        try:
            data = _open_whole(options.name, options.root, split, strict=False, **_settings(options, split))
        except (OSError, ValueError) as error:
            errors.append((split, error))
            continue
        report = check(data, options.name, split)
        print(report)
        problems += len(report.problems)
    if errors and not problems:
        raise errors[0][1]
    for split, error in errors:
        print(f'{options.name} {split}: {error}')
    if problems:
        raise SystemExit(1)


def data_card(options: argparse.Namespace) -> None:
    """Statistics of a split as a row of a table, and a picture of its first pictures with their objects."""
    from PIL import Image

    from topdown.book.plots import show_masks, style
    from topdown.book.summaries import append_rows
    from topdown.data.card import first_pictures, statistics

    data = _open_whole(options.name, options.root, options.split, options.limit)
    row = {'dataset': options.name, 'split': options.split, **statistics(data)}
    table = options.out / 'tables' / 'data_cards.csv'
    append_rows(table, [row], same=('dataset', 'split'))
    style()
    images, labels = first_pictures(data)
    picture = options.out / f'data_{options.name}.png'
    figure = show_masks(images, {'objects': labels}, truth=('objects',))
    for dpi in (110, 90, 75):  # figures of the book have less than 150 KB
        figure.savefig(picture, dpi=dpi)
        Image.open(picture).convert('RGB').quantize(128).save(picture, optimize=True)
        if picture.stat().st_size < 150_000:
            break
    print('\n'.join([data.report.line(), *(f'{key}: {value}' for key, value in row.items())]))
    print(f'written to {table} and {picture}')


def data_speed(options: argparse.Namespace) -> None:
    """How many training pictures a second one process reads and cuts, by protocol."""
    from topdown.data.card import reading_speed

    for protocol in PROTOCOLS:
        data = _open_whole(options.name, options.root, 'train', options.count, protocol)
        found = reading_speed(data)
        size = f'{data.image_size} x {data.image_size}'
        print(f'{options.name}, {protocol}, {len(data)} pictures to {size}: {found:.0f} a second')


def _open_whole(
    name: str,
    root: Path | None,
    split: str,
    limit: int = 0,
    protocol: str = 'oclf',
    strict: bool = True,
    **changes: object,
) -> PictureSet:
    """A data set at the paper's sizes, or at Toybox's own; Toybox needs no root."""
    made = bool(DATASETS[name].make)
    if root is None and not made and f'{split}_annotations' not in changes:
        raise ValueError(f'{name} needs ROOT, the folder that holds it')
    config = preset('toybox' if made else 'coco', dataset=name, data_root=str(root or ''), protocol=protocol, **changes)
    data = open_dataset(config, split, strict=strict)
    data.ids = data.ids[: limit or None]
    return data
