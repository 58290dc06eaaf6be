"""Pairs of scripts and notebooks, and what notebooks keep: `python tests/tidy_notebooks.py pair | execute`.

Every executed cell carries ``source_sha``, which says what code its outputs belong to. Pairing makes notebooks from
scripts and keeps outputs, but those of cells whose code is another now; executing runs chapters with their default
parameters. Both stop at the first failure, and every notebook is written whole or stays as it was. What changes from
run to run and says nothing (timings, widgets, paths) is dropped, but what a whole chapter cost stays in its metadata,
from where ``book/_ext/page_cost.py`` takes the line below its title. Images keep at most 256 colours, which makes
figures with photographs four times smaller; fewer in large figures.
"""

import base64
import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jupytext
import nbformat
from jupytext.combine import combine_inputs_with_outputs

from topdown.book.plots import squeeze_png
from topdown.files import write_text
from topdown.precision import processor

BOOK = Path(__file__).parent.parent / 'book'
LARGEST_FIGURE = 150_000  # bytes
PROGRESS = re.compile(r'^.*\d+%\|.*\|.*\[')
IN_SVG = re.compile(r'(data:image/png;base64,)([A-Za-z0-9+/=\s]+)')


def squeeze(image: str, colours: int = 256) -> str:
    """A PNG in base64, with fewer colours."""
    return base64.b64encode(squeeze_png(base64.b64decode(image), colours)).decode()


def squeeze_svg(figure: str) -> str:
    """An SVG whose images have as many colours as fit into ``LARGEST_FIGURE``, 64 at least."""
    for colours in (256, 128, 64):
        smaller = IN_SVG.sub(lambda found, n=colours: found[1] + squeeze(found[2], n), figure)
        if len(smaller) < LARGEST_FIGURE:
            break
    return smaller


def source_sha(source: str) -> str:
    """What an executed cell's outputs belong to: 12 hexadecimal digits."""
    return hashlib.sha256(source.encode()).hexdigest()[:12]


def tidy(path: Path) -> None:
    """Clean a notebook that papermill executed, and mark the cells it executed."""
    notebook = json.loads(path.read_text())
    notebook['metadata'] = {
        key: value for key, value in notebook['metadata'].items() if key in ('kernelspec', 'language_info', 'cost')
    }
    for cell in notebook['cells']:
        before = cell['metadata']
        cell['metadata'] = {key: before[key] for key in ('tags', 'source_sha') if before.get(key)}
        if cell['cell_type'] == 'code':
            if before.get('papermill', {}).get('status') == 'completed':
                cell['metadata']['source_sha'] = source_sha(''.join(cell['source']))
            cell['outputs'] = [out for out in cell['outputs'] if out.get('name') != 'stderr']
            for out in cell['outputs']:
                data = out.get('data', {})
                data.pop('application/vnd.jupyter.widget-view+json', None)
                if PROGRESS.search(''.join(data.get('text/plain', ''))):
                    data.clear()
                if 'image/png' in data:
                    data['image/png'] = squeeze(''.join(data['image/png']))
                if 'image/svg+xml' in data:
                    data['image/svg+xml'] = squeeze_svg(''.join(data['image/svg+xml']))
            cell['outputs'] = [out for out in cell['outputs'] if out.get('data', True)]  # those left without any
    write_text(path, as_text(nbformat.from_dict(notebook)))  # as pairing writes it, which then changes nothing


def as_text(notebook: nbformat.NotebookNode) -> str:
    """A notebook's file."""
    return nbformat.writes(notebook).rstrip('\n') + '\n'


def paired(script: Path) -> str:
    """The notebook of a script, with outputs of the stored one where the code is what made them."""
    notebook, stored = jupytext.read(script), script.with_suffix('.ipynb')
    if stored.is_file():
        filters = {'cell_metadata_filter': 'tags,-all', 'notebook_metadata_filter': 'kernelspec'}
        notebook.metadata.setdefault('jupytext', {}).update(filters)  # what scripts lack is taken from the notebook
        notebook = combine_inputs_with_outputs(notebook, nbformat.read(stored, as_version=4), fmt='py:percent')
    notebook.metadata.pop('jupytext', None)  # book/jupytext.toml says it; copies elsewhere are not pairs
    for cell in notebook.cells:
        cell.metadata = {key: cell.metadata[key] for key in ('tags', 'source_sha') if key in cell.metadata}
        if cell.cell_type == 'code' and cell.metadata.get('source_sha') != source_sha(cell.source):
            cell.metadata.pop('source_sha', None)
            cell.outputs, cell.execution_count = [], None
    return as_text(notebook)


def pair(scripts: list[Path]) -> None:
    """Make the notebook of every script, all of them or none."""
    texts = {}
    for script in scripts:
        try:
            texts[script.with_suffix('.ipynb')] = paired(script)
        except Exception as error:  # whatever a parser stumbles over
            raise SystemExit(f'{script} cannot be paired: {error}') from error
    for path, text in texts.items():
        if not path.is_file() or path.read_text() != text:
            write_text(path, text)


def execute(notebooks: list[Path]) -> None:
    """Run chapters with their default parameters, and store each as soon as it is done."""
    environment = {name: value for name, value in os.environ.items() if name != 'TOPDOWN_PRESET'}
    for path in notebooks:
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / path.name
            command = [sys.executable, '-m', 'papermill', '--cwd', '.', '-k', 'python3', str(path), str(copy)]
            began = time.time()
            _, status, usage = os.wait4(subprocess.Popen(command, env=environment).pid, 0)
            if status:
                print(f'{path} failed and is left as it was', file=sys.stderr)
                raise SystemExit(os.waitstatus_to_exitcode(status))
            written = [f.stat() for f in Path('runs').rglob('*.safetensors')]
            notebook = json.loads(copy.read_text())
            notebook['metadata']['cost'] = {
                'minutes': round((time.time() - began) / 60, 1), 'gigabytes': round(usage.ru_maxrss * 1024 / 1e9, 1),
                'models': sum(f.st_size for f in written if f.st_mtime > began) // 10**6,
                'date': time.strftime('%Y-%m-%d', time.gmtime()), 'processor': processor(),
            }  # fmt: skip
            copy.write_text(json.dumps(notebook))
            tidy(copy)
            write_text(path, copy.read_text())


if __name__ == '__main__':
    command, *names = sys.argv[1:]
    scripts = [Path(name) for name in names] or sorted(BOOK.glob('[0-9]*.py'))
    pair(scripts)
    if command == 'execute':
        execute([script.with_suffix('.ipynb') for script in scripts])
