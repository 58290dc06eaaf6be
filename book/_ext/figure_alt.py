"""Sphinx: figures of notebooks get an alternative text, and a caption, from a comment of the cell that draws them.

The comment begins with ``# alt:``, and goes on in the comment lines below it.
"""

import re

from docutils import nodes

ALT = re.compile(r'^# alt: (.*(?:\n#   .*)*)', re.MULTILINE)


def text_of(source: str) -> str:
    """What a cell says of its figure; empty if it says nothing."""
    found = ALT.search(source)
    return ' '.join(found[1].replace('\n#', ' ').split()) if found else ''


def add_alt(app, doctree) -> None:
    """Give every output figure the text of its cell, as alternative text and below it."""
    for cell in doctree.findall(nodes.container):
        if cell.get('nb_element') != 'cell_code':
            continue
        said = text_of('\n'.join(n.astext() for n in cell.findall(nodes.literal_block)))
        images = list(cell.findall(nodes.image))
        for image in images:
            image['alt'] = said
        if images and said:
            caption = nodes.paragraph('', '', nodes.emphasis(text=said))
            caption['classes'].append('figure-says')
            cell.append(caption)


def setup(app) -> dict[str, bool]:
    """Called by Sphinx."""
    app.connect('doctree-read', add_alt)
    return {'parallel_read_safe': True}
