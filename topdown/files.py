"""Files that are whole or not there, what is said of those that are neither, and folders for one writer at a time."""

from __future__ import annotations

import contextlib
import glob
import json
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import filelock


@contextlib.contextmanager
def fresh(path: str | Path) -> Iterator[Path]:
    """A place beside ``path`` to write to, which takes its place when the block ends well.

    File and folder are synced, so that after a power cut, too, there is the old file or the new one. When the block
    fails, the old file stays and nothing else is left; what a killed process left is removed by the next one.

    Args:
        path: the target; its folder is made.

    Raises:
        OSError: whatever the disk says, naming the target.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in path.parent.glob(f'.{glob.escape(path.name)}.*.part'):
        if not _alive(left):
            left.unlink(missing_ok=True)
    temporary = path.with_name(f'.{path.name}.{os.getpid()}.part')
    try:
        yield temporary
        with temporary.open('rb') as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync_folder(path.parent)
    except OSError as error:
        if error.filename is None or Path(error.filename) != temporary:
            raise
        raise type(error)(error.errno, error.strerror, str(path)) from error
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    with fresh(path) as place:
        place.write_text(text)


def brief(error: object, most: int = 300) -> str:
    """What an error says, in one line of a bounded length."""
    return ' '.join(str(error).split('\n'))[:most]


def read_json(path: str | Path, remedy: str) -> dict:
    """The object that a JSON file holds; else a ``ValueError`` that names the file. A byte order mark is no matter."""
    try:
        found = json.loads(Path(path).read_bytes())
    except (ValueError, RecursionError) as error:  # also of encodings, and of numbers of thousands of digits
        raise ValueError(f'{path} is not JSON ({brief(error)}): {remedy}') from error
    if not isinstance(found, dict):
        raise ValueError(f'{path} holds a {type(found).__name__} instead of an object: {remedy}')
    return found


@contextlib.contextmanager
def locked(folder: str | Path, wait: bool = False) -> Iterator[None]:
    """Keep a folder to this process while the block runs.

    The lock is ``.lock`` in the folder, and it ends with its process, however that ends; the file stays. Who holds it
    stands in ``.lock.owner``, as the lock itself does not tell.

    Args:
        folder: the folder; it is made.
        wait: wait for the other process, saying so once, instead of giving up.

    Raises:
        BlockingIOError: if another process holds it and ``wait`` is False, naming that process and its host.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    owner = folder / '.lock.owner'
    lock = filelock.FileLock(folder / '.lock')
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        other = 'another process'
        with contextlib.suppress(OSError):  # it may end just now
            other = owner.read_text()
        if not wait:
            message = f'{folder} is in use by {other}: wait for it or end it, or choose another folder'
            raise BlockingIOError(message) from None
        print(f'{folder} is in use by {other}: waiting for it', file=sys.stderr, flush=True)
        lock.acquire()
    try:
        with contextlib.suppress(OSError):  # a full disk: the lock holds without its holder's name, too
            write_text(owner, f'process {os.getpid()} on {socket.gethostname()}')
        yield
    finally:
        owner.unlink(missing_ok=True)
        lock.release()


def sync_folder(folder: Path) -> None:
    """Make what was renamed or made in a folder last; a no-op where folders cannot be opened (Windows)."""
    with contextlib.suppress(PermissionError, IsADirectoryError):
        number = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)


def _alive(temporary: Path) -> bool:
    """Whether the process that writes a temporary file, which its name tells, still runs."""
    number = temporary.name.rsplit('.', 2)[1]
    if not number.isdigit():
        return True  # not one of ours
    number = int(number)
    if number == os.getpid():
        return True
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
