"""The book as one PDF: what is missing is named before anything is printed, and pages come in their order."""

import shutil
import subprocess

import pytest
import yaml

from tests import print_book
from tests.check_book import ROOT, listed


def test_a_missing_program_or_page_is_named_and_nothing_is_written(tmp_path, monkeypatch):
    target = tmp_path / 'book.pdf'
    monkeypatch.setattr(print_book, 'CHROMIUM', None)
    with pytest.raises(SystemExit, match='Chromium, which was not found: install it'):
        print_book.main(target, tmp_path)
    monkeypatch.setattr(print_book, 'CHROMIUM', 'chromium')
    monkeypatch.setattr(shutil, 'which', lambda name: name)
    with pytest.raises(SystemExit, match=r'intro.html is not there: build the book first'):
        print_book.main(target, tmp_path)
    assert not target.exists()


@pytest.mark.skipif(not (print_book.CHROMIUM and shutil.which('pdfunite')), reason='needs Chromium and poppler')
def test_pages_are_printed_in_the_order_of_the_contents(tmp_path, capsys):
    contents = yaml.safe_load((ROOT / '_toc.yml').read_text())
    names = [contents['root'], *listed(contents)]
    for name in names[:3]:
        page = tmp_path / f'{name}.html'
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text(f'<!doctype html><title>x</title><p>Here is {name}.</p>')
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(print_book, 'listed', lambda found: names[1:3])
        print_book.main(tmp_path / 'book.pdf', tmp_path)
    assert '3 pages of the book' in capsys.readouterr().out
    text = subprocess.run(['pdftotext', tmp_path / 'book.pdf', '-'], capture_output=True, text=True, check=True).stdout
    places = [text.index(f'Here is {name}.') for name in names[:3]]
    assert places == sorted(places)
