"""What the chapters on single data sets share: parameters checked, models trained side by side, rows for the tables."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
from torch import Tensor

from topdown.book import plots, tables
from topdown.book.places import from_project, project_dir
from topdown.book.summaries import METRICS, Scores
from topdown.config import Config, typed
from topdown.evaluate.metrics import summarize
from topdown.evaluate.predict import score, score_model
from topdown.evaluate.truth import EvalSet
from topdown.files import locked
from topdown.model.encoder import Encoder
from topdown.presets import VARIANTS, preset
from topdown.train import shipped
from topdown.train.batches import TrainData
from topdown.train.loop import RUN_FILES, Run, train_model


def begin(
    name: str, presets: Sequence[str], models: str, run_dir: str, fresh: bool = False,
    more: dict[str, object] | None = None, **changes: object,
) -> tuple[Config, list[str], Path]:  # fmt: skip
    """Check a chapter's parameters before anything long begins, and make its folder.

    ``TOPDOWN_PRESET``, an environment variable, takes the place of the preset; ``smoke`` stands for the chapter's own
    preset of seconds.

    Args:
        name: the preset asked for.
        presets: those that the chapter works with, the one of seconds among them (its name ends in ``smoke``).
        models: names of ``VARIANTS``, separated by commas.
        run_dir: where runs go.
        fresh: delete earlier runs of these models with this configuration first, and nothing else.
        more: changes to any parameters of the preset, taken as they are.
        changes: to the preset; what is empty or 0 is left to it. Relative folders count from the project.

    Returns:
        The experiment, the models, and the folder ``run_dir/<preset>``, with the data set's name if it is another.

    Raises:
        ValueError: for another preset, an unknown model, or an impossible value.
    """
    for parameter, value in {'preset': name, 'models': models, 'run_dir': run_dir}.items():
        typed(parameter, value, str)
    typed('fresh', fresh, bool)
    name = os.environ.get('TOPDOWN_PRESET', name)
    if name == 'smoke':
        name = next(p for p in presets if p.endswith('smoke'))
    if name not in presets:
        raise ValueError(f'preset must be one of {", ".join(presets)} in this chapter, got {name!r}')
    chosen = [model.strip() for model in models.split(',')]
    if not set(chosen) <= set(VARIANTS):
        raise ValueError(f'models must be among {", ".join(VARIANTS)}, got {models!r}')
    for key in {'data_root', 'token_dir'} & set(changes):
        changes[key] = from_project(typed(key, changes[key], str))
    given = {key: value for key, value in changes.items() if value or value is None}
    base = preset(name, **given, **typed('changes', more or {}, dict))
    other = f'-{base.data.dataset}' if base.data.dataset != preset(name).data.dataset else ''
    folder = project_dir() / run_dir / f'{name}{other}'
    if fresh:
        for seed in range(base.seeds):
            for model in chosen:
                forget_run(run_folder(folder, model, base.with_(seed=seed, **VARIANTS[model])))
    folder.mkdir(parents=True, exist_ok=True)
    return base, chosen, folder


def run_folder(folder: Path, model: str, config: Config) -> Path:
    """Where a chapter's run of one model and seed lies."""
    return folder / f'{model}-seed{config.train.seed}-{config.key}'


def forget_run(folder: Path) -> None:
    """Delete a run's own files, and its folder if nothing else is in it; a linked folder is emptied and stays.

    Raises:
        BlockingIOError: if a process trains in it.
    """
    if not folder.is_dir():
        return
    with locked(folder):
        for path in [*(folder / name for name in RUN_FILES), *folder.glob('events.out.tfevents.*')]:
            path.unlink(missing_ok=True)
    if folder.is_dir() and not folder.is_symlink() and not any(folder.iterdir()):
        folder.rmdir()


def one_run(config: Config, folder: Path, model: str, encoder: Encoder, eval_set: EvalSet, train: bool) -> Run:
    """A trained model of one seed: the one that ships with the package, or, if there is none, trained here.

    With ``train``, or where it has been trained before, the one in ``folder`` in any case.
    """
    place = run_folder(folder, model, config)
    name = None if typed('train', train, bool) or place.is_dir() else shipped.find(config)
    if name is None:
        return train_model(config, place, encoder, eval_set=eval_set)
    print(f'{name}: the trained model that ships with the package')
    return shipped.load(name, encoder)


@dataclass
class Trained:
    """Models that were trained on the same images in the same order, and what they reach."""

    rows: list[dict[str, object]] = field(default_factory=list)  # one per model, source of masks and seed; percent
    runs: dict[tuple[str, int], Run] = field(default_factory=dict)  # by model and seed
    scores: dict[str, Scores] = field(default_factory=dict)  # source of masks -> (model, seed) -> one row per image
    protocols: dict[str, pd.Series] = field(default_factory=dict)  # model -> (protocol, metric), first seed, percent

    @property
    def log(self) -> pd.DataFrame:
        """Training logs of all runs: step, loss and so on, model, seed."""
        return pd.concat(run.log.assign(model=name, seed=seed) for (name, seed), run in self.runs.items())

    @property
    def evaluations(self) -> pd.DataFrame:
        """Evaluations along the way of all runs: step, metrics, model, seed."""
        return pd.concat(run.evaluations.assign(model=name, seed=seed) for (name, seed), run in self.runs.items())

    def save(self, folder: Path) -> None:
        """Write ``log.csv``, ``evaluations.csv`` and their figure, ``training.png``."""
        self.log.to_csv(folder / 'log.csv', index=False)
        self.evaluations.to_csv(folder / 'evaluations.csv', index=False)
        plots.save(plots.show_training(self.log, self.evaluations), folder / 'training.png')


def train_variants(
    base: Config,
    folder: Path,
    models: Sequence[str],
    encoder: Encoder,
    data: TrainData,
    eval_set: EvalSet,
    sources: Sequence[str] = (),
    progress: bool = True,
) -> Trained:
    """Train every model with every seed, each in a folder of its own, and score its masks. Finished runs are kept.

    Args:
        base: the experiment; ``base.seeds`` says how many seeds.
        folder: parent of the runs.
        models: names of ``VARIANTS``.
        encoder, data, eval_set: shared by all.
        sources: of masks, see ``evaluate.predict``; by default the decoder's, and slot attention's where they differ.
        progress: show bars.
    """
    if not sources:
        sources = ('decoder',) if base.model.decoder == 'slotwise' else ('decoder', 'slots')
    found = Trained()
    for seed in range(base.seeds):
        for name in models:
            config = base.with_(seed=seed, **VARIANTS[name])
            run = train_model(config, run_folder(folder, name, config), encoder, data, eval_set, progress=progress)
            found.runs[name, seed] = run
            names = list(eval_set.truth)[: None if seed == 0 else 1]
            scored = score_model(run.model, eval_set, sources, protocols=names)
            if seed == 0:
                found.protocols[name] = protocol_means(scored[sources[0]])
            for source in sources:
                per_image = scored[source][names[0]]
                found.scores.setdefault(source, {})[name, seed] = per_image
                found.rows.append({'model': name, 'masks': source, **summarize(per_image), **run.provenance})
    return found


def protocol_means(rows: dict[str, list[dict[str, float]]]) -> pd.Series:
    """Means in percent by protocol and metric, of rows by protocol as ``score_model`` gives them."""
    return pd.concat({protocol: pd.Series(summarize(found)) for protocol, found in rows.items()})


def baseline_rows(labels: dict[str, Tensor], eval_set: EvalSet) -> list[dict[str, object]]:
    """Rows as in ``Trained.rows`` of label maps that no training of slots made, by name."""
    return [
        {'model': name, 'masks': '-', 'seed': 0, **summarize(score(maps, eval_set))} for name, maps in labels.items()
    ]


def write_results(rows: list[dict[str, object]], base: Config, folder: Path) -> pd.DataFrame:
    """Write ``results.csv``, one row per model, source of masks and seed, and say where the numbers come from.

    Args:
        rows: of ``baseline_rows`` and ``Trained`` together.
        base: the experiment.
        folder: where the file goes.

    Returns:
        The rows, with the data set's name.
    """
    results = pd.DataFrame(rows).assign(dataset=base.data.dataset)
    results.to_csv(folder / 'results.csv', index=False)
    print(f'data set: {base.data.dataset}, preset: {base.name}, protocol: {base.data.protocol}')
    return results


def effects(results: pd.DataFrame, against: str, metrics: Sequence[str] = ('fg_ari', 'mbo_i')) -> pd.DataFrame:
    """Every trained model minus one of them, over seeds, masks of the decoder: see ``tables.effects``."""
    ours = results[results.masks.eq('decoder')].rename(columns={'model': 'variant'})
    return tables.effects(ours, against, metrics)


def say_rivals(results: pd.DataFrame, models: Sequence[str], metrics: Sequence[str] = ('fg_ari', 'mbo_i')) -> str:
    """A sentence a metric: which rows without training of slots no model beats, and which every model beats."""
    found = gains(results, models)
    lines = []
    for metric in metrics:
        wins = (found[metric].unstack('model') > 0).T
        groups = {'beaten by all models': wins.all(), 'by none': ~wins.any(), 'by some': wins.any() & ~wins.all()}
        said = [f'{words}: {", ".join(wins.columns[mask])}' for words, mask in groups.items() if mask.any()]
        lines.append(tables.wrap(f'{tables.NAMES[metric]}, {"; ".join(said)}.'))
    return '\n'.join(lines)


def gains(rows: pd.DataFrame, models: Sequence[str], source: str = 'decoder') -> pd.DataFrame:
    """What models gain over every baseline, in points of the mean over seeds; negative where a baseline is not beaten.

    Args:
        rows: of ``Trained`` and ``baseline_rows`` together.
        models: the trained ones.
        source: whose masks count.

    Returns:
        One row per model and baseline, one column per metric.
    """
    means = rows[rows.masks.isin([source, '-'])].groupby('model', sort=False)[list(METRICS)].mean()
    return pd.concat(
        {name: means.loc[name] - means.drop(index=list(models)) for name in models}, names=['model', 'over']
    )
