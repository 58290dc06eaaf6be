"""The whole book as one PDF, ``make pdf``: ``python -m tests.print_book BOOK.pdf`` prints all pages in their order.

Chromium prints (see ``tests.live_page``), ``pdfunite`` of poppler joins; nothing else has to be installed.
"""

from __future__ import annotations

import base64
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

from tests.check_book import ROOT, listed
from tests.live_page import CHROMIUM, Browser

PAPER = {'paperWidth': 8.27, 'paperHeight': 11.69, 'printBackground': True}  # inches: A4
READY = '(window.MathJax?.startup?.promise ?? Promise.resolve()).then(() => document.fonts.ready).then(() => true)'


def print_page(browser: Browser, page: Path) -> bytes:
    """One page, with its formulas set."""
    browser.open(page.as_uri(), width=900, until=READY)
    return base64.b64decode(browser.send('Page.printToPDF', **PAPER)['data'])


def main(target: Path, html: Path = ROOT / '_build' / 'html') -> None:
    """Print all pages of ``_toc.yml``.

    Raises:
        SystemExit: if a program is missing or a page was not built; nothing is written then.
    """
    contents = yaml.safe_load((ROOT / '_toc.yml').read_text())
    pages = [html / f'{name}.html' for name in (contents['root'], *listed(contents))]
    for program, found in (('Chromium', CHROMIUM), ('pdfunite (of poppler-utils)', shutil.which('pdfunite'))):
        if not found:
            raise SystemExit(f'the book is printed by {program}, which was not found: install it')
    for page in pages:
        if not page.is_file():
            raise SystemExit(f'{page} is not there: build the book first, with make book')
    with tempfile.TemporaryDirectory() as folder, Browser() as browser:
        parts = [Path(folder, f'{number:03}.pdf') for number in range(len(pages))]
        for part, page in zip(parts, pages, strict=True):
            part.write_bytes(print_page(browser, page))
        whole = Path(folder, 'book.pdf')
        subprocess.run(['pdfunite', *parts, whole], check=True)
        shutil.copy(whole, target)
    print(f'{target}: {len(pages)} pages of the book, {target.stat().st_size / 1e6:.0f} MB')


if __name__ == '__main__':
    main(Path(sys.argv[1]))
