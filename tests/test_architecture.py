"""Notebooks hold no modules and loops, the package loads fast, pairs agree. (Imports: import-linter, in make lint.)"""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def test_notebooks_import_the_package_only():
    for path in (ROOT / 'book').glob('*.py'):
        for node in ast.walk(ast.parse(path.read_text())):
            assert not isinstance(node, (ast.ClassDef, ast.While)), f'{path.name}: modules and loops belong in topdown'


def test_import_of_the_package_is_light():
    for module in ('topdown', 'topdown.cli'):
        code = f"import sys, {module}; assert not {{'torch', 'timm', 'pandas', 'scipy'}} & set(sys.modules)"
        assert subprocess.run([sys.executable, '-c', code], cwd=ROOT, check=False).returncode == 0, module


@pytest.mark.parametrize('path', sorted((ROOT / 'book').glob('[0-9]*.py')), ids=lambda p: p.name)
def test_notebook_is_paired_and_up_to_date(path):
    import json

    notebook = json.loads(path.with_suffix('.ipynb').read_text())
    cells = re.split(r'^# %%', path.read_text(), flags=re.M)[1:]
    assert len(cells) == len(notebook['cells'])
    for text, cell in zip(cells, notebook['cells'], strict=True):
        head, _, body = text.partition('\n')
        if '[markdown]' in head:
            body = re.sub(r'^# ?', '', body, flags=re.M)
        assert body.strip() == ''.join(cell['source']).strip()
    code = [c for c in notebook['cells'] if c['cell_type'] == 'code']
    assert all(c['execution_count'] for c in code), 'outputs are not stored: run make execute'
    assert sum('parameters' in c['metadata'].get('tags', []) for c in code) == 1
    assert any('NBVAL_CHECK_OUTPUT' in ''.join(c['source']) for c in code)
    assert notebook['metadata']['kernelspec']['language'] == 'python'
    assert path.with_suffix('.ipynb').stat().st_size < 1.5e6
