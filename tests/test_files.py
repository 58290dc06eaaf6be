"""A file is whole or not there."""

import os
import signal
import socket
import subprocess
import sys
import threading

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


HOLD = 'import sys; from topdown.files import locked\nwith locked(sys.argv[1]): input(print("held"))'


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the folder ``run`` until it is told to end."""
    command = [sys.executable, '-uc', HOLD, str(tmp_path / 'run')]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == 'held\n'
        yield process
        process.kill()


def test_a_folder_in_use_is_refused_and_the_other_process_named(tmp_path, holder):
    message = rf'run is in use by process {holder.pid} on {socket.gethostname()}: wait'
    with pytest.raises(BlockingIOError, match=message), files.locked(tmp_path / 'run'):
        pass
    with files.locked(tmp_path / 'other'):
        pass
    assert names(tmp_path / 'run') == ['.lock', '.lock.owner']
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with files.locked(tmp_path / 'run'):  # the lock ended with its process
        assert (tmp_path / 'run' / '.lock.owner').read_text().startswith(f'process {os.getpid()} ')
    assert names(tmp_path / 'run') == ['.lock']


def test_who_waits_for_a_folder_says_so_and_gets_it(tmp_path, holder, capsys):
    threading.Timer(0.3, lambda: holder.communicate('\n')).start()
    with files.locked(tmp_path / 'run', wait=True):
        assert holder.wait(10) == 0
    assert f'in use by process {holder.pid} on' in capsys.readouterr().err


def test_a_folder_is_free_again_after_an_error_and_is_not_given_twice(tmp_path):
    with pytest.raises(KeyError), files.locked(tmp_path):
        raise KeyError
    with files.locked(tmp_path), pytest.raises(BlockingIOError), files.locked(tmp_path):
        pass
    with files.locked(tmp_path):
        pass
