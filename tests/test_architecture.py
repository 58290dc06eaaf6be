"""Notebooks define no modules and import what is declared, and the package loads fast. (Layers: lint-imports.)"""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CHAPTERS = sorted((ROOT / 'book').glob('[0-9]*.py'))
KNOWN_AS = {'sklearn': 'scikit-learn', 'IPython': 'jupyterlab'}  # modules that are not named as their distribution is


def imported(tree):
    """Top-level names of all modules that a file imports, wherever."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.split('.')[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield '.' if node.level else node.module.split('.')[0]


@pytest.mark.parametrize('path', CHAPTERS, ids=lambda path: path.name)
def test_chapters_define_no_classes_and_import_what_the_project_declares(path):
    tree = ast.parse(path.read_text())
    unwanted = (
        ast.While if path.name.startswith('00') else (ast.ClassDef, ast.While)
    )  # the method is that page's subject
    assert not [node for node in ast.walk(tree) if isinstance(node, unwanted)]
    project = tomllib.loads((ROOT / 'pyproject.toml').read_text())['project']
    declared = [*project['dependencies'], *project['optional-dependencies']['book'], 'topdown']
    names = {re.match(r'[\w-]+', text)[0] for text in declared}
    found = set(imported(tree))
    assert 'topdown' in found
    assert {KNOWN_AS.get(name, name) for name in found - sys.stdlib_module_names} <= names


def test_import_of_the_package_is_light():
    for module in ('topdown', 'topdown.cli'):
        code = f"import sys, {module}; assert not {{'torch', 'timm', 'pandas', 'scipy'}} & set(sys.modules)"
        assert subprocess.run([sys.executable, '-c', code], cwd=ROOT, check=False).returncode == 0, module
