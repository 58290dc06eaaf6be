"""The short form of ``make fuzz``, and that what judges its inputs can fail them."""

from __future__ import annotations

import json
import time

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tests import fuzz, reliability
from topdown.data import base, predictions
from topdown.data.base import read_image_file, read_labels, stored_size


@pytest.mark.parametrize('name', fuzz.PARSERS)
def test_broken_inputs_are_read_or_refused_in_one_line(name):
    """As many as the parser's share of the long form is worth."""
    outcomes = {'read': 0, 'refused': 0, 'failed': 0}
    problems = []

    def said(number, outcome, problem):
        outcomes[outcome] += 1
        problems.extend([f'{number}: {problem}'] if problem else [])

    count = max(5, min(300, fuzz.PARSERS[name].count // 500))
    fuzz.try_all(name, 1, range(count), said)
    assert not problems
    assert sum(outcomes.values()) == count


def test_the_long_form_is_a_million():
    assert sum(parser.count for parser in fuzz.PARSERS.values()) >= 1_000_000


def fail(error):
    def attempt(rng):
        if error is not None:
            raise error

    return attempt


@pytest.mark.parametrize(
    ('error', 'outcome'),
    [
        (None, 'read'), (ValueError('a.png is damaged'), 'refused'), (FileNotFoundError('a.png is missing'), 'refused'),
        (ValueError('damaged'), 'failed'), (ValueError('a.png\nis damaged'), 'failed'), (ValueError(''), 'failed'),
        (ValueError('a.png' + 2000 * 'x'), 'failed'), (KeyError('a.png'), 'failed'), (MemoryError(), 'failed'),
        (json.JSONDecodeError('a.png', '', 0), 'failed'), (RuntimeError('a.png'), 'failed'), (fuzz.TooLong(), 'failed'),
        (AssertionError('a.png'), 'failed'),
    ],
    ids=repr,
)  # fmt: skip
def test_only_a_result_or_one_line_is_survived(error, outcome):
    parser = fuzz.Parser('a', 1, r'a\.png', fail)
    assert fuzz.judge(parser, fail(error), fuzz.source(0, 'a', 0))[0] == outcome
    whole = fuzz.source(0, 'a', 0)
    whole.whole = True
    assert fuzz.judge(parser, fail(error), whole)[0] == ('read' if error is None else 'failed')


def test_the_end_of_a_process_and_endless_inputs_are_failures_of_one_input(monkeypatch, capsys):
    def prepare(folder):
        def attempt(rng):
            if rng.random() < 0.2:
                fuzz.os._exit(3)
            while rng.random() < 0.2:
                time.sleep(0.1)

        return attempt

    monkeypatch.setitem(fuzz.PARSERS, 'a', fuzz.Parser('a', 1, '.', prepare))
    state = {}
    fuzz.run('a', 0, 0, 20, state)
    assert state['a']['read'] + state['a']['failed'] == 20
    assert (
        state['a']['failed']
        == len(state['a']['problems'])
        == sum(fuzz.source(0, 'a', i).random() < 0.2 for i in range(20))
    )
    assert 'ended with status 3' in capsys.readouterr().out


def test_an_input_can_be_made_again():
    first, second = (fuzz.change(fuzz.source(0, 'a', 7), {'a': [1, 2]}) for _ in range(2))
    assert fuzz.same(first, second)
    assert len({repr(fuzz.change(fuzz.source(0, 'a', i), {'a': [1, 2]})) for i in range(50)}) > 25


def test_rows_take_the_place_of_their_kind(tmp_path):
    path = tmp_path / 'reliability.csv'
    reliability.write_rows('mutants', [{'what': 'm', 'tried': 5, 'survived': 5, 'how': ''}], path)
    for tried in (1, 2):
        rows = [{'what': what, 'tried': tried, 'survived': 1, 'how': 'h'} for what in 'ab']
        reliability.write_rows('inputs', rows, path)
    table = pd.read_csv(path)
    assert table.kind.tolist() == ['inputs'] * 3 + ['mutants']
    assert table.what.tolist() == ['a', 'b', 'all', 'm']
    assert table.tried.tolist() == [2, 2, 4, 5]
    assert table.command.tolist() == ['`make fuzz`'] * 3 + ['`make mutants`']


# ------------------------------------------------------------------------------------ what inputs would rarely come to


def test_formats_that_start_programs_are_not_opened(tmp_path):
    path = tmp_path / 'a.jpg'
    Image.new('RGB', (8, 8)).save(path, 'EPS')
    with pytest.raises(ValueError, match=r'a.jpg cannot be read \(cannot identify image file'):
        read_image_file(path)


@pytest.mark.parametrize('size', [(1, 51), (51, 1), (9500, 9500)])
def test_images_that_are_bombs_only_when_cut_are_refused(size, tmp_path):
    path = tmp_path / 'a.png'
    Image.new('1', size).save(path)
    for read in (read_image_file, read_labels, stored_size):
        with pytest.raises(ValueError, match=rf'a.png cannot be read .{size[1]} x {size[0]} pixels are too many'):
            read(path)
    Image.new('1', (50, 1)).save(path)
    assert read_image_file(path).shape == (3, 1, 50)


def test_memory_is_not_asked_for_on_anybodys_word(tmp_path, monkeypatch):
    path = tmp_path / 'a.npz'
    monkeypatch.setattr(predictions, 'MOST_CELLS', 10_000)
    np.savez_compressed(path, np.zeros((100, 101), np.uint8))
    with pytest.raises(ValueError, match=r'a.npz cannot be read .* would unpack to 10228 bytes'):
        predictions._read_array(path)
    monkeypatch.setattr(base, 'MOST_CELLS', 10_000)
    with pytest.raises(ValueError, match=r'a.npz has 101 objects in 100 pixels'):
        predictions._largest(path, np.ones((101, 1, 1), np.float32), 10, (10, 10))
    assert predictions._largest(path, np.ones((100, 1, 1), np.float32), 10, (10, 10)).shape == (10, 10)
