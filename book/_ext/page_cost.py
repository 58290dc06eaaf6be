"""Sphinx: below a chapter's title, what it cost when its stored outputs were made."""

import json
from pathlib import Path

from docutils import nodes


def say(cost: dict) -> str:
    """The line, from a notebook's ``cost`` (see ``tests/tidy_notebooks.py``)."""
    models = f', and {cost["models"]} MB of trained models' if cost['models'] else ''
    return (
        f'Needs no GPU, no data and no network. Executed on {cost["date"]} in '
        f'{cost["minutes"]:g} minutes with {cost["gigabytes"]:g} GB of memory{models} '
        f'({cost["processor"]}).'
    )


def add_cost(app, doctree) -> None:
    """Put the line under the title of every notebook that has been executed."""
    path = Path(app.env.doc2path(app.env.docname))
    if path.suffix != '.ipynb':
        return
    cost = json.loads(path.read_text())['metadata'].get('cost')
    title = next(iter(doctree.findall(nodes.title)), None)
    if cost and title is not None:
        line = nodes.paragraph('', '', nodes.emphasis(text=say(cost)))
        line['classes'].append('page-cost')
        title.parent.insert(title.parent.index(title) + 1, line)


def setup(app) -> dict[str, bool]:
    """Called by Sphinx."""
    app.connect('doctree-read', add_cost)
    return {'parallel_read_safe': True}
