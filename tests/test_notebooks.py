"""Notebooks: paired, in step with their scripts, with clean stored outputs; and nbval does catch a changed number."""

import base64
import io
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import jupytext
import nbformat
import numpy as np
import pytest
import yaml
from jupytext.config import find_jupytext_configuration_file, load_jupytext_configuration_file
from PIL import Image

from book._ext.figure_alt import text_of
from book._ext.page_cost import say
from tests.tidy_notebooks import (
    LARGEST_FIGURE,
    SOLUTION,
    execute,
    pair,
    paired,
    source_sha,
    squeeze_svg,
    tidy,
    write_exercises,
)

BOOK = Path(__file__).parent.parent / 'book'
NOTEBOOKS = sorted(BOOK.glob('[0-9]*.ipynb'))


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def path(request):
    return request.param


@pytest.fixture
def notebook(path):
    return nbformat.read(path, as_version=4)


def outputs(notebook):
    return [out for cell in notebook.cells if cell.cell_type == 'code' for out in cell.outputs]


def test_scripts_and_notebooks_come_in_pairs():
    assert NOTEBOOKS
    assert [p.stem for p in NOTEBOOKS] == [p.stem for p in sorted(BOOK.glob('[0-9]*.py'))]


def test_notebook_is_in_step_with_its_script(path, notebook):
    script = jupytext.read(path.with_suffix('.py'))
    assert [(c.cell_type, c.source.strip(), c.metadata.get('tags', [])) for c in notebook.cells] == [
        (c.cell_type, c.source.strip(), c.metadata.get('tags', [])) for c in script.cells
    ], f'run make pair: {path.name} and its script differ'


def test_kernel_is_named_with_its_language(notebook):
    assert notebook.metadata.kernelspec.language == 'python'
    assert set(notebook.metadata) <= {'kernelspec', 'language_info', 'cost'}


def test_parameters_come_right_after_the_title_and_are_literals(notebook):
    tagged = [i for i, cell in enumerate(notebook.cells) if 'parameters' in cell.metadata.get('tags', [])]
    assert len(tagged) == 1
    before = notebook.cells[: tagged[0]]
    assert [cell.cell_type for cell in before if cell.metadata.get('tags') != ['remove-cell']] == ['markdown']
    assert any(cell.source.startswith('# ') for cell in before)
    for line in notebook.cells[tagged[0]].source.splitlines():
        assert re.fullmatch(r"""\w+ = (True|False|{}|-?[\d.]+(e-?\d+)?|'[^']*'|"[^"]*")\s*(#.*)?""", line), line


def test_what_a_chapter_cost_is_stored(notebook):
    cost = notebook.metadata.cost
    assert 0 <= cost.minutes < 60
    assert 0.3 < cost.gigabytes < 16
    assert re.fullmatch(r'20\d\d-\d\d-\d\d', cost.date)
    assert f'in {cost.minutes:g} minutes' in say(cost)


def test_the_first_cell_installs_the_package_where_it_is_missing(notebook, tmp_path, monkeypatch):
    first = next(cell for cell in notebook.cells if cell.cell_type == 'code')
    assert first.metadata.tags == ['remove-cell']
    asked = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, 'path', list(sys.path))
    monkeypatch.setattr(subprocess, 'run', lambda command, check: asked.append(command))
    exec(first.source, {})
    assert not asked  # it is here
    monkeypatch.setattr('importlib.util.find_spec', lambda name: None)
    (tmp_path / 'topdown-book' / 'book').mkdir(parents=True)
    exec(first.source, {})
    where = yaml.safe_load((BOOK.parent / '_config.yml').read_text())['repository']['url']
    assert asked[0][:2] == ['git', 'clone']
    assert where in asked[0]
    assert asked[1][1:4] == ['-m', 'pip', 'install']
    assert Path.cwd() == tmp_path / 'topdown-book' / 'book'
    assert sys.path[0] == str(tmp_path / 'topdown-book')


def test_cells_carry_tags_and_what_code_their_outputs_belong_to_only(notebook):
    for cell in notebook.cells:
        assert set(cell.metadata) <= ({'tags', 'source_sha'} if cell.cell_type == 'code' else {'tags'})


def test_stored_outputs_belong_to_their_code(path, notebook):
    changed = [
        cell.source.strip().splitlines()[0]
        for cell in notebook.cells
        if cell.cell_type == 'code' and cell.metadata.get('source_sha') != source_sha(cell.source)
    ]
    assert not changed, f'{path.name}: run make execute, these cells have changed since'


def test_pairing_what_is_stored_changes_nothing(path):
    assert paired(path.with_suffix('.py')) == path.read_text()


def test_outputs_are_stored_and_clean(path, notebook):
    code = [cell for cell in notebook.cells if cell.cell_type == 'code']
    assert all(cell.execution_count for cell in code), f'{path.name} was not executed: run make execute'
    assert [cell.execution_count for cell in code] == sorted(cell.execution_count for cell in code)
    for out in outputs(notebook):
        assert out.output_type != 'error'
        assert out.get('name') != 'stderr'
        assert 'widget' not in ' '.join(out.get('data', {}))
    text = path.read_text()
    assert 'application/vnd.jupyter.widget' not in text
    for place in (str(Path.home()), str(BOOK.parent), '/tmp/', '/home/', 'site-packages'):
        assert place not in text.replace('~/', ''), f'{path.name} holds an absolute path: {place}'


def test_figures_are_small(path, notebook):
    for out in outputs(notebook):
        for kind, data in out.get('data', {}).items():
            if kind.startswith('image/'):
                size = len(base64.b64decode(data)) if kind == 'image/png' else len(data)
                assert size < LARGEST_FIGURE, f'{path.name}: run tests/tidy_notebooks.py'
    assert path.stat().st_size < 1_500_000


def test_chapter_opens_with_a_question_and_has_checked_cells(notebook):
    text = '\n'.join(cell.source for cell in notebook.cells[:3])
    assert '**' in text
    assert '?' in text
    checked = [cell for cell in notebook.cells if 'NBVAL_CHECK_OUTPUT' in cell.source]
    assert checked
    assert all(cell.outputs for cell in checked)
    assert all('assert' in cell.source for cell in checked)


def test_figures_say_what_to_see(notebook):
    for cell in notebook.cells:
        if cell.cell_type == 'code' and 'plots.show' in cell.source:
            assert len(text_of(cell.source)) > 30, cell.source[:80]


def test_long_cells_are_folded(notebook):
    for cell in notebook.cells:
        if cell.cell_type == 'code' and len(cell.source.splitlines()) > 18:
            folded = (['hide-input'], ['remove-cell'], ['method'], [SOLUTION, 'hide-cell'])
            assert cell.metadata.get('tags') in folded, cell.source[:80]


def test_no_text_is_left_to_be_written(notebook):
    found = [cell.source for cell in notebook.cells if re.search(r'to be written|todo|tbd|fixme', cell.source, re.I)]
    assert not found


def solutions(notebook):
    return [cell for cell in notebook.cells if SOLUTION in cell.metadata.get('tags', [])]


def numbers(text):
    """Of the points of a numbered list."""
    return [int(number) for number in re.findall(r'^(\d+)\. ', text, re.M)]


def test_chapter_ends_with_what_was_seen_and_exercises_with_as_many_solutions(path, notebook):
    if path.stem.startswith('9'):  # the appendix that other notebooks are made by
        return
    text = '\n'.join(cell.source for cell in notebook.cells if cell.cell_type == 'markdown')
    assert 'What was seen' in text
    (asked,) = [cell.source.split('**Exercises**')[1] for cell in notebook.cells if '**Exercises**' in cell.source]
    answers, *code = solutions(notebook)
    assert len(numbers(asked)) >= 2
    assert numbers(asked) == numbers(answers.source) == list(range(1, len(numbers(asked)) + 1))
    assert answers.source.startswith('<details><summary><b>Solutions</b></summary>\n\n')  # folded, and a list again
    assert answers.source.endswith('\n\n</details>')
    assert all(cell.cell_type == 'code' and 'hide-cell' in cell.metadata.tags for cell in code)
    # nothing that stays needs what a solution's code defines
    assert not code or notebook.cells[-len(code) :] == code


def test_exercises_are_the_chapters_without_their_solutions(path, notebook, tmp_path):
    write_exercises(tmp_path)
    made = nbformat.read(tmp_path / path.name, as_version=4)
    nbformat.validate(made)
    nbformat.validate(notebook)
    assert [cell.cell_type for cell in made.cells] == [cell.cell_type for cell in notebook.cells]
    left, answers = (tmp_path / path.name).read_text(), solutions(notebook)
    for cell, whole in zip(made.cells, notebook.cells):
        if whole in answers:
            assert cell.source in ('*Your answers*', '# your answer')
            assert not cell.get('outputs')
            assert json.dumps(whole.source)[1:-1] not in left
        else:
            assert cell == whole
    lines = [line for cell in answers if cell.cell_type == 'markdown' for line in cell.source.split('\n')]
    assert not [line for line in lines if len(line) > 20 and json.dumps(line)[1:-1] in left]


def test_exercises_are_written_to_one_folder(tmp_path):
    command = [sys.executable, str(BOOK.parent / 'tests' / 'tidy_notebooks.py'), 'exercises']
    assert subprocess.run([*command, str(tmp_path / 'new')], check=False).returncode == 0
    assert sorted(path.name for path in (tmp_path / 'new').iterdir()) == [path.name for path in NOTEBOOKS]
    refused = subprocess.run(command, check=False, capture_output=True, text=True)
    assert refused.returncode
    assert 'one folder' in refused.stderr


def test_a_chapter_runs_from_a_foreign_folder(tmp_path):
    command = [sys.executable, '-m', 'papermill', '-k', 'python3', '--no-progress-bar']
    environment = {**os.environ, 'TOPDOWN_PRESET': 'smoke'}
    for name in ('07_results', '06_clevr6'):
        out = tmp_path / f'{name}.ipynb'
        found = subprocess.run(
            [*command, str(BOOK / f'{name}.ipynb'), str(out)], cwd=tmp_path, env=environment, capture_output=True,
            text=True, check=False,
        )  # fmt: skip
        assert found.returncode == 0, found.stderr[-2000:]
        stored, again = (nbformat.read(path, as_version=4) for path in (BOOK / f'{name}.ipynb', out))
        printed = [
            [''.join(o.text for o in c.outputs) for c in n.cells if 'NBVAL_CHECK_OUTPUT' in c.source]
            for n in (stored, again)  # a busy machine sends one text in pieces
        ]
        assert printed[0] == printed[1]
    assert (tmp_path / 'runs' / 'clevr6_smoke' / 'results.csv').is_file()  # runs go where the user is


def make_notebook(folder, value, stored):
    """A notebook of one checked cell that prints ``value`` while ``stored`` is what it is compared with."""
    cell = nbformat.v4.new_code_cell(f'# NBVAL_CHECK_OUTPUT\nprint({value})')
    cell.execution_count = 1
    if stored is not None:
        cell.outputs = [nbformat.v4.new_output('stream', name='stdout', text=f'{stored}\n')]
    kernel = {'kernelspec': {'name': 'python3', 'display_name': 'Python 3', 'language': 'python'}}
    path = folder / 'one.ipynb'
    nbformat.write(nbformat.v4.new_notebook(cells=[cell], metadata=kernel), path)
    return path


@pytest.mark.parametrize(('stored', 'passes'), [(64.3, True), (64.4, False)])
def test_nbval_catches_a_changed_number(tmp_path, stored, passes):
    path = make_notebook(tmp_path, 64.3, stored)
    command = [sys.executable, '-m', 'pytest', '--nbval-lax', '-p', 'no:cacheprovider', '-q', str(path)]
    found = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (found.returncode == 0) == passes, found.stdout
    if not passes:
        assert '64.4' in found.stdout


@pytest.mark.parametrize('status', ['completed', 'pending'])
def test_tidying_drops_what_readers_do_not_need(tmp_path, status):
    path = make_notebook(tmp_path, 1, 1)
    notebook = json.loads(path.read_text())
    notebook['metadata']['papermill'] = {'input_path': '/somewhere'}
    cell = notebook['cells'][0]
    cell['metadata'] = {'tags': ['parameters'], 'execution': {'iopub.execute_input': 'now'}}
    cell['metadata']['papermill'] = {'status': status, 'duration': 1.0}
    cell['outputs'] += [
        {'output_type': 'stream', 'name': 'stderr', 'text': ['warning']},
        {'output_type': 'display_data', 'metadata': {}, 'data': {'application/vnd.jupyter.widget-view+json': {}}},
        {'output_type': 'display_data', 'metadata': {}, 'data': {'text/plain': ['a run:  50%|###   | 1/2 [00:00<?]']}},
    ]
    path.write_text(json.dumps(notebook))
    tidy(path)
    notebook = json.loads(path.read_text())
    assert set(notebook['metadata']) == {'kernelspec'}
    executed = {'source_sha': source_sha(''.join(notebook['cells'][0]['source']))} if status == 'completed' else {}
    assert notebook['cells'][0]['metadata'] == {'tags': ['parameters'], **executed}
    assert [out['name'] for out in notebook['cells'][0]['outputs']] == ['stdout']


def test_figures_with_images_are_made_small_enough():
    noise = np.random.default_rng(0).integers(0, 256, (300, 300, 3), np.uint8)
    with io.BytesIO() as file:
        Image.fromarray(noise).save(file, 'png')
        image = base64.b64encode(file.getvalue()).decode()
    figure = f'<svg><image xlink:href="data:image/png;base64,{image}"/><path d="M 0 0"/></svg>'
    small = squeeze_svg(figure)
    assert len(small) < LARGEST_FIGURE < len(figure)
    assert small.startswith('<svg><image xlink:href="data:image/png;base64,')
    assert small.endswith('"/><path d="M 0 0"/></svg>')
    inside = Image.open(io.BytesIO(base64.b64decode(small.split('base64,')[1].split('"')[0])))
    assert inside.size == (300, 300)
    assert len(inside.convert('RGB').getcolors()) <= 256


HEADER = """# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---
"""


def write_script(path, *cells):
    path.write_text(HEADER + ''.join(f'\n# %%\n{cell}\n' for cell in cells))
    return path


def test_a_cell_that_changes_loses_its_outputs_and_no_other(tmp_path):
    script = write_script(tmp_path / 'a.py', 'a = 1\nprint(a)', 'print(2)', 'print(3)')
    pair([script])
    execute([tmp_path / 'a.ipynb'])
    whole = (tmp_path / 'a.ipynb').read_bytes()
    pair([script])
    assert (tmp_path / 'a.ipynb').read_bytes() == whole
    write_script(script, 'a = 1\nprint(a)', 'print(4)', 'print(3)')
    pair([script])
    cells = nbformat.read(tmp_path / 'a.ipynb', as_version=4).cells
    assert [[out.text for out in cell.outputs] for cell in cells] == [['1\n'], [], ['3\n']]
    assert [cell.execution_count for cell in cells] == [1, None, 3]
    assert [cell.metadata.get('source_sha') == source_sha(cell.source) for cell in cells] == [True, False, True]


def test_pairing_and_executing_stop_at_the_first_failure_and_leave_nothing_half_done(tmp_path):
    scripts = [write_script(tmp_path / f'{name}.py', f"x = {name!r}\nprint('{name}')") for name in 'abc']
    pair(scripts)
    write_script(scripts[1], "print('b')", '1 / 0')
    before = {path: path.read_bytes() for path in tmp_path.glob('*.ipynb')}
    scripts[2].write_bytes(b'\xff\xfe broken')
    with pytest.raises(SystemExit, match=r'c.py cannot be paired'):
        pair(scripts)
    assert {path: path.read_bytes() for path in tmp_path.glob('*.ipynb')} == before  # b's, too
    write_script(scripts[2], "print('c')")
    pair(scripts)
    before = {path.name: path.read_bytes() for path in tmp_path.glob('*.ipynb')}
    with pytest.raises(SystemExit) as stop:
        execute(sorted(tmp_path.glob('*.ipynb')))
    assert stop.value.code == 1
    changed = [
        path.name for path in tmp_path.glob('*') if before.get(path.name, path.read_bytes()) != path.read_bytes()
    ]
    assert changed == ['a.ipynb']  # whole; b's stays as it was, and c's was not begun


def test_only_notebooks_of_the_book_are_pairs():
    """JupyterLab must not make a pair of what papermill wrote elsewhere, which papermill could not write again then."""
    assert not list(BOOK.parent.glob('*jupytext*'))
    assert not [key for key in tomllib.loads((BOOK.parent / 'pyproject.toml').read_text())['tool'] if key == 'jupytext']
    inside = load_jupytext_configuration_file(find_jupytext_configuration_file(BOOK))
    assert inside.default_formats(str(BOOK / 'x.ipynb')) == 'ipynb,py:percent'
    for path in [*BOOK.glob('[0-9]*.py'), *NOTEBOOKS]:
        assert 'formats:' not in path.read_text()[:400]
        assert '"formats"' not in path.read_text()[-2000:]


def test_the_workflow_calls_the_test_command_and_nothing_else():
    workflow = yaml.safe_load((BOOK.parent / '.github' / 'workflows' / 'test.yml').read_text())
    (job,) = workflow['jobs'].values()
    assert [step['run'] for step in job['steps'] if 'run' in step] == ['make test']


@pytest.mark.parametrize('path', sorted(BOOK.glob('[0-9]*.py')), ids=lambda path: path.name)
def test_code_is_no_wider_than_the_page(path):
    """The built book cuts off or scrolls what is wider than 88 characters."""
    cells = [cell for cell in jupytext.read(path).cells if cell.cell_type == 'code']
    wide = [line for cell in cells for line in cell.source.split('\n') if len(line) > 88]
    assert not wide
