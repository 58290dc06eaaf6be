#!/usr/bin/env bash
# Formulas and capitals in titles of a .bib file are rewritten.
#
# Versions: pybtex 0.26.1 (what sphinxcontrib-bibtex, and so Jupyter Book, formats references with).
# Guess: a formula in a title is left as it is, or shown as a symbol; LaTeX's text commands are carried out.
# Seen: titles are put into sentence case, formulas included: $\beta$-VAE begins with a capital Beta, which looks like
#   a B; $K$-means becomes $k$-means, O(N^2) o(n^2). Braces around a formula protect it. \textit{word} is shown as
#   "\textit word"; accents are right.
# Why it matters: the field's titles have such names (beta-VAE, K-means, N-body, 3D), and the built page gives another
#   title than the paper's without any warning.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" --disable-pip-version-check --quiet install pybtex==0.26.1
cd "$work"
"$work/venv/bin/python" - <<'PY'
from pybtex.database import parse_string
from pybtex.plugin import find_plugin

style = find_plugin('pybtex.style.formatting', 'plain')()
backend = find_plugin('pybtex.backends', 'plaintext')()


def shown(title):
    entry = f'@misc{{key, author={{Kr{{\\"u}}ger, J}}, title={{{title}}}, year=2020}}'
    text = next(iter(style.format_bibliography(parse_string(entry, 'bibtex')))).text.render(backend)
    print(f'{title:42} {text}')
    assert text.startswith('J Krüger. ') and text.endswith(' 2020.')
    return text.removeprefix('J Krüger. ').removesuffix(' 2020.').rstrip('.')


assert shown(r'$\beta$-{VAE}: Learning Concepts') == '\N{GREEK CAPITAL LETTER BETA}-VAE: learning concepts'
assert shown(r'{$\beta$-VAE}: Learning Concepts') == '\N{GREEK SMALL LETTER BETA}-VAE: learning concepts'
assert shown(r'Attention is $K$-means in O(N^2)') == 'Attention is $k$-means in o(n^2)'
assert shown(r'Attention is {$K$}-means in {O(N^2)}') == 'Attention is $K$-means in O(N^2)'
assert shown(r'Learning \textit{without} labels') == r'Learning \textit without labels'
PY
