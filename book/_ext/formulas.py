"""The numbered equations at the head of a file, plain text there, as mathematics; not an extension, but part of beside.py."""

import re

from docutils import nodes

EQUATION = re.compile(r'^    \((\d+)\)  (.*(?:\n {8,}\S.*)*)', flags=re.M)
NAMED = re.compile(r'\((\d+)\)(?: to \((\d+)\))?')
SYMBOL = re.compile(r'\b([A-Za-z](?:\^[a-z])?_[a-z]{1,2}|[A-Za-z]\^[a-z])\b')
TOKEN = re.compile(
    r'(?P<space> +)|sqrt\((?P<root>[^()]*)\)|(?P<sign>\(outer\)|<-|#{|[-+=/*.,:|()}]|\d+)|(?P<name>[A-Za-z]+)'
    r'(?P<tilde>~?)(?:\^(?P<up>[a-z]))?(?:_(?:(?P<low>\w+)|{(?P<long>[^}]*)}))?'
)
SIGNS = {'(outer)': r'\otimes ', '<-': r'\leftarrow ', '*': r'\odot ', '.': r'\cdot '}
SIGNS |= {'#{': r'\#\{', '}': r'\}', ',': r',\;'}
WORDS = {'eps': r'\epsilon', 'sum': r'\sum', 'log': r'\log', 'exp': r'\exp'}
OPERATORS = (
    'GRU',
    'LayerNorm',
    'ReLU',
    'argmin',
    'decay',
    'mean',
    'perplexity',
    'softmax',
)
WORDS |= {word: rf'\operatorname{{{word}}}' for word in OPERATORS}


def numbers(text: str) -> list[int]:
    """The numbers of equations that a text names, ranges written out."""
    ends = [(int(a), int(b or a)) for a, b in NAMED.findall(text)]
    return [n for a, b in ends for n in range(a, b + 1)]


def tex(text: str) -> str | None:
    """A formula in TeX; None for what is not understood as one to its last sign."""
    found, end = '', 0
    while end < len(text):
        part = TOKEN.match(text, end)
        if not part:
            return None
        name, end = part['name'], part.end()
        if name and len(name) > 1 and name not in WORDS:
            return None
        if part['root']:
            found += rf'\sqrt{{{tex(part["root"])}}}'
        elif name:
            found += rf'\tilde {name}' if part['tilde'] else WORDS.get(name, name)
            low = part['low'] or tex(part['long'] or '')
            found += f'^{{{part["up"]}}}' if part['up'] else ''
            found += f'_{{{low}}}' if low else ' '
        else:
            found += SIGNS.get(part[0], part[0])
    return found


def equation(number: int, text: str) -> nodes.container:
    """Number, formulas and the words behind them; what is not understood as a formula stays words."""
    shown = nodes.container('', classes=['beside-equation'])
    shown += nodes.paragraph('', f'({number})', classes=['beside-number'])
    for lines in re.split(r'\n(?! *=)', text):  # a line that starts with = goes on
        formula, words = [], []
        for line in lines.split('\n'):
            parts = re.split(' {2,}', line.strip())
            if tex(parts[-1]) is None:
                words.append(parts.pop())
            line = ' '.join(tex(part) or rf'\text{{ {part} }}' for part in parts)
            formula.append(re.sub(r'=|\\leftarrow', r'&\g<0>', line, count=1))
        if any(formula):
            aligned = r'\begin{aligned}' + r'\\'.join(formula) + r'\end{aligned}'
            shown += nodes.math_block('', aligned, nowrap=False, number=None)
        if words:
            shown += nodes.paragraph('', '; '.join(words), classes=['beside-words'])
    set_symbols(shown)
    return shown


def set_symbols(node: nodes.Node) -> None:
    """Symbols with an index in running text, like c_k, as mathematics."""
    for text in list(node.findall(nodes.Text)):
        if not isinstance(
            text.parent, (nodes.literal, nodes.FixedTextElement, nodes.math)
        ):
            parts = enumerate(SYMBOL.split(text))
            new = [nodes.math('', tex(p)) if n % 2 else nodes.Text(p) for n, p in parts]
            text.parent.replace(text, new)
