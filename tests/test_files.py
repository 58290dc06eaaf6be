"""A file is whole or not there."""

import os

import pytest

from topdown import files


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_takes_its_place_when_it_is_whole(tmp_path):
    target = tmp_path / 'a' / 'table.csv'
    files.write_text(target, 'old')
    with files.fresh(target) as place:
        place.write_text('new')
        assert target.read_text() == 'old'
    assert target.read_text() == 'new'
    assert names(target.parent) == ['table.csv']


@pytest.mark.parametrize('error', [KeyboardInterrupt, ValueError, OSError(28, 'No space left on device')])
def test_what_fails_leaves_the_old_file_and_nothing_else(tmp_path, error):
    target = tmp_path / 'table.csv'
    files.write_text(target, 'old')

    def fail():
        with files.fresh(target) as place:
            place.write_text('half')
            raise error

    with pytest.raises(error if isinstance(error, type) else OSError):
        fail()
    assert target.read_text() == 'old'
    assert names(tmp_path) == ['table.csv']


def test_what_a_killed_process_left_is_removed_by_the_next(tmp_path):
    child = os.fork()
    if not child:
        os._exit(0)
    os.waitpid(child, 0)
    (tmp_path / f'.table.csv.{child}.part').touch()  # of a process that is no more
    (tmp_path / f'.table.csv.{os.getppid()}.part').touch()  # of one that runs
    (tmp_path / f'.other.csv.{child}.part').touch()  # somebody else's
    files.write_text(tmp_path / 'table.csv', 'x')
    assert names(tmp_path) == sorted([f'.other.csv.{child}.part', f'.table.csv.{os.getppid()}.part', 'table.csv'])


def test_errors_name_the_target(tmp_path):
    (tmp_path / 'folder').mkdir()
    with pytest.raises(OSError, match='folder'):
        files.write_text(tmp_path / 'folder', 'x')
