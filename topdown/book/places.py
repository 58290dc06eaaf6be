"""Where the book's files are, from wherever a chapter is run."""

from __future__ import annotations

from pathlib import Path


def project_dir() -> Path:
    """Where a notebook's relative paths start: the current folder, or its parent if that is ``book``."""
    here = Path.cwd()
    return here.parent if here.name == 'book' else here


def from_project(folder: str) -> str:
    """A folder that a parameter names, relative ones from ``project_dir``; empty stays empty."""
    return str(project_dir() / Path(folder).expanduser()) if folder else folder


def figures_dir() -> Path:
    """The folder of published figures and of tables that chapters read: this project's, from wherever they are run.

    ``figures`` of the current project (``project_dir``), or else of the source tree that the package was installed
    from.

    Raises:
        FileNotFoundError: if there is neither.
    """
    places = project_dir() / 'figures', Path(__file__).parents[2] / 'figures'
    for place in places:
        if (place / 'paper').is_dir():
            return place
    raise FileNotFoundError(
        f"{places[0] / 'paper'} is missing: run chapters from the project's folder, or install the package from it "
        'with pip install -e .'
    )
