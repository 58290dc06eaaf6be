"""Equations of the model are numbered once, and every one is found: index, code, test, README, book."""

import ast
import importlib
import re
from pathlib import Path

from docutils import nodes
from docutils.core import publish_doctree

import topdown.model

ROOT = Path(__file__).parent.parent
ROW = re.compile(r'^(\d+) +(\S.*?)  +(\w+\.py):([\w.]+) +(\w+\.py)::(\w+)$', flags=re.M)
INDEX = ROW.findall(topdown.model.__doc__)
NUMBERS = [int(row[0]) for row in INDEX]
DEFINED = re.compile(r'^    \((\d+)\)  ', flags=re.M)
CITED = re.compile(r'[Ee]quations? (\(\d+\)(?:(?:, | and | to )\(\d+\))*)')


def defined():
    """(number, file) of every equation that the head of a file writes out."""
    files = sorted((ROOT / 'topdown' / 'model').glob('*.py'))
    heads = {path.name: ast.get_docstring(ast.parse(path.read_text()), clean=False) or '' for path in files}
    return sorted((int(number), name) for name, head in heads.items() for number in DEFINED.findall(head))


def cited(text):
    """Numbers of equations that a text names, ranges included."""
    found = set()
    for group in CITED.findall(text):
        numbers = [int(n) for n in re.findall(r'\d+', group)]
        found |= set(range(numbers[0], numbers[-1] + 1)) if ' to ' in group else set(numbers)
    return found


def test_every_equation_has_one_number_and_one_row_of_the_index():
    assert [number for number, _ in defined()] == NUMBERS == list(range(1, len(INDEX) + 1))
    page = publish_doctree(topdown.model.__doc__, settings_overrides={'halt_level': 1})  # as the book shows it
    (table,) = page.findall(nodes.tbody)
    assert len(table) == len(INDEX)  # every row was understood


def test_the_index_leads_to_code_that_names_the_equation_and_to_tests():
    for number, _, file, thing, test_file, test in INDEX:
        found = importlib.import_module(f'topdown.model.{file.removesuffix(".py")}')
        for name in thing.split('.'):
            found = getattr(found, name)
        assert int(number) in cited(found.__doc__), thing
        functions = [n.name for n in ast.parse((ROOT / 'tests' / test_file).read_text()).body if hasattr(n, 'name')]
        assert functions.count(test) == 1, number


def test_no_text_names_an_equation_that_there_is_not():
    assert cited('equations (2), (4) and (7); Equation (9)') == {2, 4, 7, 9}
    assert cited('Equations (1) to (4)') == {1, 2, 3, 4}
    places = [*ROOT.glob('topdown/**/*.py'), *ROOT.glob('tests/**/*.py'), *ROOT.glob('book/*.md'), ROOT / 'README.md']
    for path in [*places, *ROOT.glob('book/*.py')]:
        assert cited(path.read_text()) <= set(NUMBERS), path.name


def test_readme_and_book_show_the_index():
    rows = re.findall(r'^\| \((\d+)\) (.+) \| `(.+):(.+)` \| `(.+)::(.+)` \|$', (ROOT / 'README.md').read_text(), re.M)
    assert rows == INDEX
    assert '.. automodule:: topdown.model\n' in (ROOT / 'book' / 'api_model.md').read_text()
