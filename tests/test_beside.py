"""Code beside reason: pages made from the source hold every line of it once, at its place."""

import ast
import io
import re
import sys
import tokenize
from importlib import import_module
from pathlib import Path

import pytest
from docutils import nodes

ROOT = Path(__file__).parent.parent
sys.path.append(str(ROOT / 'book' / '_ext'))
beside, formulas = import_module('beside'), import_module('formulas')

MODULES = sorted((ROOT / 'topdown').rglob('*.py'))
SHOWN = [ROOT / 'topdown' / 'model' / f'{name}.py' for name in ('slot_attention', 'codebook', 'modulation')]
HEADS = {path.stem: ast.get_docstring(ast.parse(path.read_text())) for path in SHOWN}
EQUATIONS = {int(n): text for head in HEADS.values() for n, text in formulas.EQUATION.findall(head)}
SAMPLE = '''\
# Whose work it is.
"""Head.

    (1)  a_k = b_k    what
"""

import math

# Two lines
# of reason.
LIMIT = 3


# Kept.
@property
@staticmethod
def first(x):
    """Equation (1), and (2)."""
    y = x  # plain

    def inner():
        """Stays code."""

    # Why.
    if y:
        z = """a string
# that is no comment
"""  # (2)
    return z


class Thing:
    """A thing."""

    def silent(self):
        return math.pi


LAST = 1
'''


def code_lines(source):
    """Numbers of the lines that hold more than a comment or a string that is a statement, by another way: tokens."""
    found, statement = set(), []
    skipped = (tokenize.COMMENT, tokenize.NL, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.NEWLINE:
            if [t.type for t in statement] != [tokenize.STRING]:
                found |= {n for t in statement for n in range(t.start[0], t.end[0] + 1)}
            statement = []
        elif token.type not in skipped:
            statement.append(token)
    return sorted(n for n in found if source.splitlines()[n - 1].strip())


def shown_lines(source):
    """(number, text) of the lines at the right, blank ones left out."""
    blocks = [block for row in beside.rows(source) for block in row.code]
    lines = [(first + i, line) for first, text in blocks for i, line in enumerate(text.split('\n'))]
    return [(n, line) for n, line in lines if line.strip()]


@pytest.mark.parametrize('path', MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_line_of_code_is_shown_once_in_order_with_its_number(path):
    source = path.read_text()
    lines, shown = source.splitlines(), shown_lines(source)
    assert all(lines[n - 1] == line for n, line in shown)
    numbers = [n for n, _ in shown]
    assert numbers == sorted(set(numbers))
    assert set(code_lines(source)) <= set(numbers)
    beyond = [lines[n - 1].strip() for n in set(numbers) - set(code_lines(source))]
    assert not [line for line in beyond if line.startswith('#')]  # comments are at the left


@pytest.mark.parametrize('path', MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_docstrings_are_at_the_left_and_nowhere_else(path):
    source = path.read_text()
    tree = ast.parse(source)
    outer = [tree, *(n for n in ast.walk(tree) if isinstance(n, ast.ClassDef)), *tree.body]
    outer += [n for parent in outer if isinstance(parent, ast.ClassDef) for n in parent.body]
    owners = {id(n): n for n in outer if isinstance(n, (ast.Module, ast.ClassDef, *beside.FUNCTIONS))}.values()
    docs = sorted(filter(None, map(ast.get_docstring, owners)))
    rows = beside.rows(source)
    assert sorted(row.reason for row in rows if row.reason in docs) == docs
    at_right = {n for n, _ in shown_lines(source)}
    for node in owners:
        if ast.get_docstring(node):
            assert not at_right & set(range(node.body[0].lineno, node.body[0].end_lineno + 1))


def test_comments_decorators_and_what_has_no_reason():
    rows = beside.rows(SAMPLE)
    assert [(row.name, row.reason.split('\n')[0], row.equations) for row in rows] == [
        ('', 'Whose work it is.', ()),
        ('', 'Two lines', ()),
        ('first', 'Kept.', (1,)),
        ('', 'Why.', (2,)),
        ('Thing', 'A thing.', ()),
    ]
    assert rows[0].reason.endswith('a_k = b_k    what')
    assert rows[1] == ('', 'Two lines\nof reason.', (), [(11, 'LIMIT = 3')])
    assert rows[2].reason == 'Kept.\n\nEquation (1), and (2).'
    assert [block[0] for block in rows[2].code] == [15, 19]
    assert rows[2].code[1][1].endswith('"""Stays code."""')
    assert '# that is no comment' in rows[3].code[0][1]
    assert rows[4].code[-1][1].endswith('LAST = 1')
    assert {n for n, _ in shown_lines(SAMPLE)} - set(code_lines(SAMPLE)) == {22}  # the inner docstring


def test_equations_stand_beside_the_lines_that_name_them():
    rows = beside.rows(SHOWN[0].read_text())
    lines = {n: next(text for _, text in row.code) for row in rows for n in row.equations}
    assert sorted(lines) == [1, 2, 3, 4, 11, 12, 13]
    assert '.softmax(' in lines[1]
    assert lines[2].lstrip().startswith('weights = ')
    assert lines[3] == lines[12]
    assert 'updates = ' in lines[3]
    assert 'self.gru(' in lines[4]


def test_all_equations_of_a_head_are_found():
    assert sorted(EQUATIONS) == list(range(1, 14))
    for head in HEADS.values():
        (block,) = re.findall(r'::\n\n((?: {4}.*\n?)+)', head)
        found = [f'    ({n})'.ljust(9) + text for n, text in formulas.EQUATION.findall(head)]
        assert [line.split() for line in block.splitlines()] == [line.split() for line in '\n'.join(found).splitlines()]


@pytest.mark.parametrize('number', EQUATIONS)
def test_formulas_keep_every_sign_in_order(number):
    """TeX undone is the plain text again."""
    shown = formulas.equation(number, EQUATIONS[number])
    assert bool(list(shown.findall(nodes.math_block))) == (number != 7)  # that is one sentence
    for part in re.split(r' {2,}|\n', EQUATIONS[number]):
        if tex := formulas.tex(part):
            plain = re.sub(r'\\tilde (\w)', r'\1~', tex)
            plain = re.sub(r'\\(?:operatorname|sqrt)\{(.*?)\}', r'\1', plain)
            for sign, command in {
                'eps': 'epsilon',
                '<-': 'leftarrow',
                '*': 'odot',
                '.': 'cdot',
                'outer': 'otimes',
            }.items():
                plain = plain.replace(f'\\{command}', sign)
            clean = lambda text: re.sub(r'[\s(){}\\;]|sqrt', '', text)  # noqa: E731
            assert clean(plain) == clean(part)


def test_formulas_read_as_they_are_set():
    assert formulas.tex(EQUATIONS[1].split('  ')[0]) == (
        r'A_{kn} = \operatorname{softmax}_{k}( q_{k} \cdot  k_{n} / \sqrt{C  / H } )'
    )
    assert formulas.tex('sum_{m: j(m) = e} n~_e') == r'\sum_{m : j (m ) = e } \tilde n_{e}'
    assert formulas.tex('a word') is None
    assert formulas.tex('a_k ; b_k') is None


def test_symbols_in_words_are_set_and_code_is_left_alone():
    text = nodes.paragraph('', 'U_k of m^c, x_BND, a_word; ')
    text += nodes.literal('', 'U_k')
    formulas.set_symbols(text)
    assert [node.astext() for node in text.findall(nodes.math)] == ['U_{k}', 'm^{c} ']
    assert text.astext() == 'U_{k} of m^{c} , x_BND, a_word; U_k'


def test_pages_show_the_three_modules():
    pages = {path.stem: path.read_text() for path in (ROOT / 'book').glob('beside_*.md')}
    shown = {
        page: re.findall(r'^\.\. beside:: topdown\.model\.(\w+)$', text, flags=re.M) for page, text in pages.items()
    }
    assert shown == {f'beside_{path.stem}': [path.stem] for path in SHOWN}
    for text in pages.values():
        assert {'00_the_method', '01_vq_bootstrapping', '02_modulation_maps'} <= set(
            re.findall(r'\]\((\w+)\.ipynb', text)
        )
