# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # The paper's tables, and ours
#
# **Question of this chapter: what does the paper report, what do others report on the same data, and which of these
# figures has this book measured itself?**
#
# Each section is one table of the paper {cite}`kim2024topdown`. A row is a method and who reports it; a column is a
# data set and a metric. Figures are in percent. Nothing is filled in by guessing:
#
# - *not available*: the paper has a figure there which is not in `figures/paper`, this book's transcription;
# - *not run*: this book has the code for it and nobody has run it at that scale;
# - *–*: there is no such figure.
#
# Toybox is this book's own data set ([its page](data.md)). Its figures stand in columns of their own, because they
# cannot be compared with those on COCO: other images, another encoder, a shallower decoder, far fewer steps. *Toybox,
# wide* and *Toybox, clips* are its stand-ins for VOC and MOVi ([crops](04_voc.ipynb), [clips](05_movi.ipynb)). What can
# be compared is the sign of a difference between two methods.
#
# The chapter trains nothing: it reads `figures/paper` and `figures/tables`, and runs in a second.

# %% tags=["remove-cell"]
import importlib.util
import os
import subprocess
import sys

if importlib.util.find_spec('topdown') is None:  # in a fresh Colab, say
    where = 'https://github.com/topdown-book/topdown'
    for command in (
        ['git', 'clone', '-q', '--depth', '1', where, 'topdown-book'],
        [sys.executable, '-m', 'pip', 'install', '-q', '-e', './topdown-book[book]'],
    ):
        subprocess.run(command, check=True)
    os.chdir('topdown-book/book')
    sys.path.insert(0, os.path.abspath('..'))

# %% tags=["parameters"]
toybox = 'toybox_ablation'  # runs of the embedded scale: it or toybox_category
notes_too = True  # print the notes on published figures

# %% tags=["hide-input"]
import pandas as pd

import topdown
from topdown.book import tables
from topdown.book.claims import read_all, verdicts
from topdown.book.plan import MAIN

if toybox not in ('toybox_ablation', 'toybox_category'):
    raise ValueError(
        f'toybox must be toybox_ablation or toybox_category, got {toybox!r}'
    )
if not isinstance(notes_too, bool):
    raise ValueError(f'notes_too must be True or False, got {notes_too!r}')
figures = topdown.figures_dir()
published = tables.read_published(figures / 'paper')
at_paper_scale = {
    name: tables.read_runs(figures / 'tables', name.lower().replace('-', '_'))
    for name in ('COCO', 'VOC', 'MOVi-C', 'MOVi-E', 'CLEVR6')
}
embedded = tables.read_runs(figures / 'tables', toybox)
embedded = embedded[embedded.variant.isin(MAIN)]
standins = {
    'VOC': {'Toybox, wide': tables.read_runs(figures / 'tables', 'voc_toybox')},
    'MOVi-C': {'Toybox, clips': tables.read_runs(figures / 'tables', 'movi_toybox')},
}
peers = published[published.table == 'Published peers']
checks = {}


def table_of(name, *datasets):
    """The rows of one of the paper's tables, on some data sets or on all."""
    part = published[published.table == name]
    return part[part.dataset.isin(datasets)] if datasets else part


def beside(part, *datasets, **options):
    """Published rows, our runs on the same data sets, and those on the stand-ins."""
    here = {name: at_paper_scale[name] for name in datasets} | {'Toybox': embedded}
    for name in datasets:
        here |= standins.get(name, {})
    return tables.side_by_side(part, here, **options)


print(
    f'{len(published)} published cells, '
    f'{(published.value != tables.NOT_AVAILABLE).sum()} of them transcribed'
)
print(
    f"runs on Toybox: {len(embedded)}; at the paper's scale: "
    f'{sum(map(len, at_paper_scale.values()))}'
)

# %% [markdown]
# ## MOVi-C and MOVi-E against DINOSAUR
#
# *baseline* is DINOSAUR {cite}`seitzer2023dinosaur` with the autoregressive decoder, the same model with the pathway
# switched off. mBO on Toybox is over instances; which of the two the paper's *mBO* is, the transcription does not say.

# %%
beside(table_of('MOVi-C and MOVi-E against DINOSAUR'), 'MOVi-C', 'MOVi-E')

# %% [markdown]
# ## COCO and PASCAL VOC against DINOSAUR

# %%
beside(table_of('COCO and PASCAL VOC against DINOSAUR'), 'COCO', 'VOC')

# %% [markdown]
# What the paper's figures claim, and what the same comparison gives here. For the paper there is one figure a model and
# no spread; ours are differences over the seeds that both models have, with their 95 % interval.

# %%
cells = (
    table_of('COCO and PASCAL VOC against DINOSAUR')
    .set_index(['dataset', 'metric', 'row'])
    .value
)
for dataset, metric in dict.fromkeys(index[:2] for index in cells.index):
    pair = [cells[dataset, metric, row] for row in ('top-down', 'baseline')]
    known = tables.NOT_AVAILABLE not in pair
    print(
        f'{dataset}, {metric}, paper:',
        f'{float(pair[0]) - float(pair[1]):+.1f}' if known else tables.NOT_AVAILABLE,
    )
found = tables.effects(embedded)
for row in found[found.variant == 'top-down'].itertuples():
    effect = tables.effect_text(row.difference, row.low, row.high)
    print(f'Toybox, {tables.NAMES[row.metric]}, this book: {effect}, {row.seeds} seeds')

# %% [markdown]
# ## State of the art
#
# Peers, as their papers or later comparisons list them; the column *reported by* names the method's paper, and the
# notes below say where a figure cannot come from it. They differ in encoder, decoder, image size and training, so
# this table ranks systems and not ideas. One table per data set.

# %%
citations = {
    'seitzer2023dinosaur': 'Seitzer et al. 2023',
    'kakogeorgiou2024spot': 'Kakogeorgiou et al. 2024',
    'singh2022slate': 'Singh et al. 2022', 'locatello2020slot': 'Locatello et al. 2020',
    'didolkar2025transfer': 'Didolkar et al. 2025',
}  # fmt: skip
art = pd.concat([table_of('State of the art'), peers], ignore_index=True)


def against_peers(dataset):
    """Everything that was published on one data set, beside our runs on it."""
    part = art[art.dataset == dataset]
    return tables.side_by_side(
        part, {dataset: at_paper_scale[dataset]}, citations=citations
    )


against_peers('COCO')

# %%
against_peers('VOC')

# %%
against_peers('MOVi-C')

# %%
against_peers('MOVi-E')

# %% [markdown]
# Notes on these figures: DINOSAUR {cite}`seitzer2023dinosaur`, SPOT {cite}`kakogeorgiou2024spot`, SLATE
# {cite}`singh2022slate`, Slot Attention {cite}`locatello2020slot`, FT-DINOSAUR {cite}`didolkar2025transfer`.

# %%
notes = (
    peers.iloc[: None if notes_too else 0][['row', 'dataset', 'note']]
    .drop_duplicates()
    .dropna()
)
for note, part in notes.groupby('note', sort=False):
    print(tables.wrap(f'{", ".join(part.row + " on " + part.dataset)}: {note}'))

# %% [markdown]
# ## Six iterations against three and three
#
# Two passes cost about what six plain iterations cost. If the second pass gained only because it is a second pass, six
# plain iterations would gain as much.

# %%
beside(table_of('Six iterations against three and three'))

# %%
found = tables.effects(embedded, 'six-iterations')
six = found[found.variant == 'top-down']
for row in six.itertuples():
    effect = tables.effect_text(row.difference, row.low, row.high)
    print(
        f'Toybox, top-down minus six iterations, {tables.NAMES[row.metric]}: {effect}, '
        f'{row.seeds} seeds'
    )
if not len(six):
    print(tables.NOT_RUN)

# %% [markdown]
# ## Codebook sizes
#
# The paper tries four sizes on COCO and finds 512 best. Toybox has fewer categories than COCO, so its own series is of
# smaller sizes; [the chapter on codebook sizes](09_codebook_size.ipynb) reads it.

# %%
sizes = tables.with_codebook_size(
    tables.read_runs(figures / 'tables', 'toybox_codebook')
)
sizes['variant'] = 'E = ' + sizes.codebook_size.astype(str)
coco_sizes = tables.with_codebook_size(
    tables.read_runs(figures / 'tables', 'coco_codebook')
)
coco_sizes['variant'] = 'E = ' + coco_sizes.codebook_size.astype(str)
part = table_of('Codebook sizes')
ours = sorted({*part.row, *sizes.variant}, key=lambda name: int(name.split()[-1]))
tables.side_by_side(part, {'COCO': coco_sizes, 'Toybox': sizes}, ours)

# %% [markdown]
# ## Ablation
#
# *channel only* and *spatial only* keep one of the two scales, *without shifting* uses attention itself as the spatial
# scale, *without quantization* predicts the channel scale from the slot and not from its code.
# [The chapter on the ablation](08_ablation.ipynb) has the effects and their intervals.

# %%
ablation = tables.read_runs(figures / 'tables', 'toybox_ablation')
part = table_of('Ablation')
tables.side_by_side(
    part, {'Toybox': ablation}, list(dict.fromkeys([*part.row, *ablation.variant]))
)

# %% [markdown]
# ## CLEVR6 with slot attention on pixels
#
# The paper also puts its pathway on the original slot attention, which sees pixels and draws pixels, and reports that
# FG-ARI falls while mBO rises. The preset `clevr6_toybox` is that model on small, plain Toybox images
# ([its chapter](06_clevr6.ipynb)).

# %%
pixels = table_of('CLEVR6 with slot attention on pixels')
on_toybox = tables.read_runs(figures / 'tables', 'clevr6_toybox')
tables.side_by_side(
    pixels, {'CLEVR6': at_paper_scale['CLEVR6'], 'Toybox, pixels': on_toybox}
)

# %% [markdown]
# ## Checks
#
# What must hold whatever was run: every cell has a source, a cell is a number or says that it is missing, and no column
# holds figures of two data sets.

# %%
# NBVAL_CHECK_OUTPUT
numbers = pd.to_numeric(published.value, errors='coerce')
checks['every cell is a number or not available'] = bool(
    (numbers.notna() | (published.value == tables.NOT_AVAILABLE)).all()
)
checks['numbers are percentages'] = bool(numbers.dropna().between(0, 100).all())
checks['every cell has a source'] = bool(published.source.notna().all())
checks['seven tables of the paper'] = (
    published[published.source == 'kim2024topdown'].table.nunique() == 7
)
shown = beside(table_of('COCO and PASCAL VOC against DINOSAUR'), 'COCO', 'VOC')
paper_rows = shown.xs(tables.REPORTED, level='reported by')
checks['no figure of the paper in a column of Toybox'] = bool(
    (paper_rows['Toybox'] == tables.NOTHING).all(axis=None)
)
assert all(checks.values()), checks
print('\n'.join(f'{name}: {value}' for name, value in checks.items()))

# %% [markdown]
# ## What was seen, and its limits

# %%
claims = verdicts(
    tables.read(figures / 'paper' / 'claims.csv'), read_all(figures / 'tables')
)
for column in ('on Toybox', "on the paper's data"):
    counts = claims[column].value_counts()
    print(
        f'{column}: '
        + '; '.join(
            f'{name if name != tables.NOTHING else "no counterpart"}: {n}'
            for name, n in counts.items()
        )
    )

# %% [markdown]
# These are the verdicts on the paper's claims, which [the introduction](intro.md) lists one by one. The limits are
# plain: figures at the paper's scale need a GPU and the data; [the page on clusters](cluster.md) says how. Toybox
# cannot stand in for COCO: its images are rendered, its encoder was trained on such images only ([its
# page](encoder.md)), and its categories are few. And a published figure without a spread over seeds cannot be tested: a
# difference of one point may be the seed. [The next chapters](15_does_it_help.ipynb) ask on which data the pathway
# could help, and what runs of this size can show.
#
# **Exercises**
#
# 1. Which claims would change their verdict if only one seed had been run?
# 2. The two public evaluators differ where masks overlap ([evaluation](evaluation.md)). Which columns of the table of
#    peers can that affect?
#
# **Solutions**
#
# 1. With one seed there is no interval, and `tables.sign` of a missing interval is 0: nothing is reproduced. That is
#    the intention.
# 2. All of COCO's and VOC's, class mBO most. MOVi and Toybox masks are the visible parts of objects and never overlap.
