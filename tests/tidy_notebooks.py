"""After executing chapters in place: drop what changes from run to run and says nothing (timings, widgets, paths).

Pictures keep at most 256 colours, which makes figures with photographs four times smaller; fewer in large figures.
"""

import base64
import json
import re
import sys
from pathlib import Path

import nbformat

from topdown.book.plots import squeeze_png

LARGEST_FIGURE = 150_000  # bytes
PROGRESS = re.compile(r'^.*\d+%\|.*\|.*\[')
IN_SVG = re.compile(r'(data:image/png;base64,)([A-Za-z0-9+/=\s]+)')


def squeeze(picture: str, colours: int = 256) -> str:
    """A PNG in base64, with fewer colours."""
    return base64.b64encode(squeeze_png(base64.b64decode(picture), colours)).decode()


def squeeze_svg(figure: str) -> str:
    """An SVG whose pictures have as many colours as fit into ``LARGEST_FIGURE``, 64 at least."""
    for colours in (256, 128, 64):
        smaller = IN_SVG.sub(lambda found, n=colours: found[1] + squeeze(found[2], n), figure)
        if len(smaller) < LARGEST_FIGURE:
            break
    return smaller


def tidy(path: Path) -> None:
    notebook = json.loads(path.read_text())
    notebook['metadata'] = {
        key: value for key, value in notebook['metadata'].items() if key in ('kernelspec', 'language_info', 'jupytext')
    }
    notebook['metadata'].get('jupytext', {}).pop('text_representation', None)
    for cell in notebook['cells']:
        tags = cell['metadata'].get('tags')
        cell['metadata'] = {'tags': tags} if tags else {}
        if cell['cell_type'] == 'code':
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
    nbformat.write(nbformat.from_dict(notebook), path)  # as jupytext writes it, so that pairing changes nothing


if __name__ == '__main__':
    for name in sys.argv[1:]:
        tidy(Path(name))
