"""Sphinx: ``.. beside:: module`` shows a module in two columns, its reasons at the left of the lines they are about.

All of it comes from the source when the book is built: docstrings, comments that have lines of their own, and the
numbered equations at the head of a file, once more beside the lines that name them.
"""

import ast
import io
import re
import tokenize
from itertools import groupby, pairwise
from pathlib import Path
from textwrap import indent
from typing import NamedTuple

from docutils import nodes
from docutils.statemachine import StringList
from formulas import EQUATION, equation, numbers, set_symbols
from sphinx import addnodes
from sphinx.ext.napoleon.docstring import GoogleDocstring
from sphinx.util.docutils import SphinxDirective

FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
Lines = list[tuple[int, str]]  # runs of lines: number of the first in the file, text


class Row(NamedTuple):
    """What stands side by side."""

    name: str = ''  # of the class or function that starts here, if one does
    reason: str = ''  # docstring and comments
    equations: tuple[int, ...] = ()  # those that a function names here
    code: Lines = ()  # all other lines


def rows(source: str) -> list[Row]:
    """One for the module, for whatever has a docstring or a comment above it, for statements whose comments name equations.

    What has none of these belongs to the row before it. No line of code is left out or comes twice.
    """
    lines = dict(enumerate(source.splitlines(), start=1))
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    comments = {t.start[0]: t.string for t in tokens if t.type == tokenize.COMMENT}
    starts, reasons = {1: Row()}, set()

    def named(node: ast.AST) -> list[int]:
        inside = range(node.lineno, node.end_lineno + 1)
        return numbers(' '.join(comments.get(n, '') for n in inside))

    def visit(node: ast.AST, name: str) -> None:
        function = isinstance(node, FUNCTIONS)
        if doc := ast.get_docstring(node):
            first = [*getattr(node, 'decorator_list', ()), node][0]
            prose = re.split(r'^\w+:$', doc, flags=re.M)[0]
            own = set(numbers(prose)) - set(named(node)) if function else ()
            line = getattr(first, 'lineno', node.body[0].lineno)
            starts[line] = Row(name, doc, tuple(sorted(own)))
            reasons.update(range(node.body[0].lineno, node.body[0].end_lineno + 1))
        for child in node.body:
            if function and named(child):
                starts[child.lineno] = Row(equations=tuple(named(child)))
            elif not function and isinstance(child, (ast.ClassDef, *FUNCTIONS)):
                visit(child, f'{name}.{child.name}'.strip('.'))

    visit(ast.parse(source), '')
    above = [n for n, text in comments.items() if lines[n].lstrip() == text]
    reasons.update(above)
    for first, text in runs(lines, above):
        below = starts.pop(first + len(text.splitlines()), Row())
        text = re.sub('^ *#+ ?', '', text, flags=re.M)
        starts[first] = below._replace(reason=f'{text}\n\n{below.reason}'.strip())
    edges = [*sorted(starts), len(lines) + 1]
    return [
        starts[a]._replace(
            code=runs(lines, [n for n in range(a, b) if n not in reasons])
        )
        for a, b in pairwise(edges)
    ]


def runs(lines: dict[int, str], chosen: list[int]) -> Lines:
    """The chosen lines, those that follow each other joined, without blank lines at the ends."""
    found = []
    for _, run in groupby(enumerate(chosen), lambda pair: pair[1] - pair[0]):
        run = [n for _, n in run]
        filled = [n for n in run if lines[n].strip()]
        if filled:
            joined = '\n'.join(lines[n] for n in range(filled[0], filled[-1] + 1))
            found.append((filled[0], joined))
    return found


class Beside(SphinxDirective):
    """The directive; its argument is the module's name."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        module = self.arguments[0]
        path = Path(self.env.srcdir, *module.split('.')).with_suffix('.py')
        if not path.is_file():
            raise self.error(f'beside: {module} has no source {path}')
        known = {}
        for file in sorted(path.parent.glob('*.py')):
            self.env.note_dependency(str(file))
            head = ast.get_docstring(ast.parse(file.read_text('utf-8'))) or ''
            known |= {int(n): text for n, text in EQUATION.findall(head)}
        shown = nodes.container(classes=['beside'])
        for row in rows(path.read_text('utf-8')):
            left = nodes.container(classes=['beside-reason'])
            left += self.reason(row, module)
            for block in list(left.findall(nodes.literal_block)):
                if own := EQUATION.findall(indent(block.astext(), '    ')):
                    block.parent.replace(block, [equation(n, text) for n, text in own])
            left += [equation(n, known[n]) for n in row.equations if n in known]
            right = nodes.container(classes=['beside-lines'])
            for first, text in row.code:
                block = nodes.literal_block(text, text, language='python', linenos=True)
                block['highlight_args'] = {'linenostart': first}
                right += block
            both = nodes.container('', left, right, classes=['beside-row'])
            both['ids'] = [nodes.make_id(row.name)] if row.name else []
            shown += both
        return [shown]

    def reason(self, row: Row, module: str) -> list[nodes.Node]:
        """Name and docstring, the latter as on the pages of the reference."""
        doc = GoogleDocstring(row.reason, self.config, self.env.app, 'function').lines()
        text = f':py:obj:`{row.name} <{module}.{row.name}>`\n\n' if row.name else ''
        text += '.. py:function:: f()\n   :no-index:\n\n' + indent(
            '\n'.join(doc), '   '
        )
        parsed = nodes.container()
        lines = StringList(text.splitlines(), source=module)
        self.state.nested_parse(lines, self.content_offset, parsed)
        (content,) = parsed.findall(addnodes.desc_content)
        set_symbols(content)
        return [*parsed[: 1 if row.name else 0], *content.children]


def setup(app) -> dict[str, bool]:
    """Called by Sphinx."""
    app.add_directive('beside', Beside)
    return {'parallel_read_safe': True}
