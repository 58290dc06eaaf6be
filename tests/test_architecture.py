"""Imports point one way, and the project's files speak of the project alone."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / 'topdown'
MAY_IMPORT = {
    'protocols': set(), 'statistics': set(), 'distributed': set(), 'slots': set(), 'plots': set(),
    'config': {'protocols'}, 'metrics': {'protocols'}, 'codebook': {'distributed'}, 'decoders': {'distributed'},
    'data.report': set(), 'data.base': {'data.report', 'protocols'}, 'data.toybox': set(),
    'data.records': {'data.base', 'data.report'}, 'data.coco': {'data.base', 'data.records', 'data.report'},
    'data.labels': {'data.base'}, 'data.predictions': {'data.base'},
    'data.features': {'data.base'}, 'data.tfrecord': set(), 'data.movi': {'data.base', 'data.tfrecord'},
    'data.clevr': {'data.base', 'data.tfrecord'}, 'data.download': {'data.tfrecord'}, 'data.card': {'data.base'},
    'data.check': {'data.base', 'data.clevr', 'data.movi', 'data.report'},
    'data': {'config', 'data', 'data.clevr', 'data.coco', 'data.movi', 'data.standins', 'data.toybox'},
    'data.standins': {'data.base', 'data.coco', 'data.movi', 'data.tfrecord', 'data.toybox'},
    'chapters': {'config', 'encoder', 'evaluate', 'metrics', 'plots', 'results', 'tables', 'train'},
    'tables': {'codebook_size', 'config', 'results', 'statistics'},
    'encoder': {'config', 'distributed', 'precision'}, 'checkpoint': {'config'}, 'precision': set(),
    'results': {'config', 'precision', 'statistics'},
    'model': {'config', 'precision', 'slots', 'codebook', 'decoders', 'distributed', 'pixels'},
    'pixels': {'decoders', 'slots'},
    'evaluate': {'config', 'data', 'distributed', 'metrics', 'protocols', 'model', 'slots', 'encoder', 'data.base'},
    'train': {
        'distributed', 'config', 'model', 'encoder', 'evaluate', 'checkpoint', 'precision', 'results', 'data',
        'data.base', 'data.features',
    },
    'cli': {'config', 'data.download', 'protocols'},
    'commands': {
        'encoder', 'metrics', 'train', 'config', 'data', 'data.base', 'data.card', 'data.check', 'data.clevr',
        'data.download', 'data.predictions', 'protocols', 'statistics', 'evaluate', 'results', 'plots',
    },
    'cost': {'config', 'model'},
    'bench': {
        'config', 'cost', 'data.base', 'encoder', 'evaluate', 'metrics', 'model', 'precision', 'results', 'train',
    },
    'semantics': {'codebook', 'evaluate', 'model'}, 'codebook_size': set(),
    'experiments': {'config', 'data', 'encoder', 'evaluate', 'metrics', 'results', 'semantics', 'train'},
    'pretrain': {'encoder', 'precision', 'data.toybox'}, '': set(),
}  # fmt: skip


def modules():
    for path in sorted(PACKAGE.rglob('*.py')):
        parts = path.relative_to(PACKAGE).with_suffix('').parts
        yield '.'.join(p for p in parts if p != '__init__'), path


def test_imports_point_from_the_root_to_the_leaves():
    for name, path in modules():
        imported = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or '').split('.')[0] == 'topdown':
                inner = node.module.removeprefix('topdown').lstrip('.')
                imported |= {inner} if inner else {alias.name for alias in node.names}
        assert imported <= MAY_IMPORT[name], f'topdown.{name} imports {imported - MAY_IMPORT[name]}'


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
