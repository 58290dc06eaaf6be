"""The page on extending the package: its blocks of Python run, in order, in one namespace."""

import re
import sys
import types
from pathlib import Path

PAGE = Path(__file__).parent.parent / 'book' / 'extend.md'
BLOCKS = re.findall(r'^```python\n(.*?)^```', PAGE.read_text(), flags=re.M | re.S)


def test_every_part_of_the_page_has_a_block():
    assert len(BLOCKS) >= 5
    for name in ('ImageSet', 'train_model', 'register_model', 'Decoded'):
        assert any(name in block for block in BLOCKS), name


def test_blocks_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    page = types.ModuleType('extend_page')  # timm looks a model's module up
    monkeypatch.setitem(sys.modules, page.__name__, page)
    for number, block in enumerate(BLOCKS, 1):
        exec(compile(block, f'{PAGE.name}, block {number}', 'exec'), vars(page))
    assert 'fg_ari' in capsys.readouterr().out
    assert (tmp_path / 'runs' / 'squares' / 'checkpoint.safetensors').is_file()
