"""After executing chapters in place: drop what changes from run to run and says nothing (timings, widgets, paths)."""

import json
import sys
from pathlib import Path


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
                out.get('data', {}).pop('application/vnd.jupyter.widget-view+json', None)
            cell['outputs'] = [out for out in cell['outputs'] if out.get('data', True)]
    path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + '\n')


if __name__ == '__main__':
    for name in sys.argv[1:]:
        tidy(Path(name))
