"""Sphinx: figures of notebooks get the text that introduces them as alternative text, for who cannot see them."""

from docutils import nodes

LONGEST = 300


def add_alt(app, doctree) -> None:
    """Give every output figure without an alternative text the last paragraph of prose before it."""
    before = ''
    for node in doctree.findall():
        if isinstance(node, nodes.paragraph) and not inside_output(node):
            before = ' '.join(node.astext().split())
        elif isinstance(node, nodes.image) and inside_output(node):
            node['alt'] = (
                before
                if len(before) <= LONGEST
                else before[:LONGEST].rsplit(' ', 1)[0] + ' ...'
            )


def inside_output(node: nodes.Node) -> bool:
    """Whether a node belongs to the output of a cell."""
    while node is not None:
        if 'cell_output' in getattr(node, 'attributes', {}).get('classes', ()):
            return True
        node = node.parent
    return False


def setup(app) -> dict[str, bool]:
    """Called by Sphinx."""
    app.connect('doctree-read', add_alt)
    return {'parallel_read_safe': True}
