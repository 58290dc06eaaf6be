"""After executing chapters in place: drop what changes from run to run and says nothing (timings, widgets, paths).

Pictures keep at most 256 colours, which makes figures with photographs four times smaller.
"""

import base64
import json
import sys
from pathlib import Path

from topdown.plots import squeeze_png


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
                if 'image/png' in data:
                    picture = squeeze_png(base64.b64decode(''.join(data['image/png'])))
                    data['image/png'] = base64.b64encode(picture).decode()
            cell['outputs'] = [out for out in cell['outputs'] if out.get('data', True)]
    path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + '\n')


if __name__ == '__main__':
    for name in sys.argv[1:]:
        tidy(Path(name))
