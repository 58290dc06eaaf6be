"""Get data sets from their official addresses: resumable, checked, and never half there.

What is to be got is listed first, with sizes and checksums. A file comes to ``<root>/.download/<name>.part``, where an
interrupted download goes on, and is moved when it is whole and checked. An archive is then unpacked beside the data,
moved into place when all of it is unpacked, and deleted.
"""

from __future__ import annotations

import base64
import errno
import gzip
import hashlib
import http.client
import json
import lzma
import shutil
import struct
import tarfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import google_crc32c
from tqdm.auto import tqdm

from topdown.datasets import Bucket, RemoteFile, Source
from topdown.files import brief, locked

CHUNK = 1 << 20
RETRIES = 5
MOST_UNPACKED = 20
"""An archive may unpack to so many times its size; those of the data sets unpack to at most a few times theirs."""
FULL = (errno.ENOSPC, errno.EDQUOT)
UNREADABLE = (
    tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, EOFError, RuntimeError, ValueError, LookupError,
    struct.error, zlib.error, lzma.LZMAError,
)  # fmt: skip
"""What damaged, encrypted and oversized archives raise."""

_Result = TypeVar('_Result')


def fetch(source: Source, root: str | Path, workers: int = 8, progress: bool = True) -> list[Path]:
    """Download, and unpack if need be, what is not there yet.

    Args:
        source: the data set.
        root: folder to hold it; one process at a time fetches into it.
        workers: downloads at a time.
        progress: show a bar.

    Returns:
        The paths that the archives give, or the bucket's files, those that were there already included.

    Raises:
        PermissionError: if the data set is behind a login; the message says how to get it.
        OSError: if the disk is too small, an address cannot be reached after several tries, a file does not fit its
            checksum, or an archive cannot be unpacked (it is deleted then, so that the next try starts anew).
    """
    if source.login:
        raise PermissionError(f'{source.title} cannot be downloaded without an account. {source.login}')
    root = Path(root).expanduser()
    with _workplace(root) as place:
        if source.bucket:
            files = list_bucket(source.bucket, root)
            _download_all(source.title, files, place, workers, progress)
            return [file.target for file in files]
        missing = [archive for archive in source.archives if not (root / archive.gives).exists()]
        files = [RemoteFile(a.url, place / a.name, _size(a.url), a.md5) for a in missing]
        _download_all(source.title, files, place, workers, progress, unpacked=sum(file.size for file in files))
        for archive, file in zip(missing, files, strict=True):
            _unpack(file.target, root / archive.into)
            if not (root / archive.gives).exists():
                raise OSError(f'{archive.url} did not contain {archive.gives}: its makers may have changed it')
            file.target.unlink()
        return [root / archive.gives for archive in source.archives]


@contextmanager
def _workplace(root: Path) -> Iterator[Path]:
    """The folder of what is not whole yet, kept only while it holds something; emptied when the disk is full."""
    place = root / '.download'
    with locked(place, wait=True):
        try:
            yield place
        except OSError as error:
            if error.errno not in FULL:
                raise
            shutil.rmtree(place, ignore_errors=True)
            raise OSError(
                error.errno, f'{root} is full: what was not whole yet was deleted; make room or choose another disk'
            ) from error
        finally:
            if not {path.name for path in place.glob('*')} - {'.lock', '.lock.owner'}:
                shutil.rmtree(place, ignore_errors=True)


def list_bucket(bucket: Bucket, root: Path, pause: float = 1.0) -> list[RemoteFile]:
    """What a bucket holds under its prefix, page by page.

    Raises:
        OSError: if the listing cannot be read, or is empty.
    """
    found: list[RemoteFile] = []
    page = ''
    while True:
        query = {'prefix': bucket.prefix, 'fields': 'nextPageToken,items(name,size,md5Hash,crc32c)'}
        query |= {'pageToken': page} if page else {}
        url = f'{bucket.base}/storage/v1/b/{bucket.name}/o?{urllib.parse.urlencode(query)}'
        try:
            content = json.loads(_patiently(url, lambda url=url: _read(url), pause))
            for item in content.get('items', ()):
                name = item['name']
                if name.endswith('/') or any(part in name for part in bucket.leave):
                    continue
                last = name.rsplit('/', 1)[-1]
                if not last.isprintable() or last[:1] in ('', '.') or '\\' in last:
                    raise ValueError(f'{name!r} cannot be the name of a file here')
                sums = {
                    kind: base64.b64decode(item.get(key, ''), validate=True).hex()
                    for kind, key in (('md5', 'md5Hash'), ('crc32c', 'crc32c'))
                }
                target, size = root / bucket.into / last, int(item['size'])
                if size < 0:
                    raise ValueError(f'{name!r} has {size} bytes')
                address = f'{bucket.base}/{bucket.name}/{urllib.parse.quote(name)}'
                found.append(RemoteFile(address, target, size, **sums))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError) as error:
            problem = f'{type(error).__name__}: {brief(error)}'
            raise OSError(f'{url} is not a listing of a bucket ({problem}); try again') from error
        page = content.get('nextPageToken', '')
        if not page:
            break
    if not found:
        raise OSError(f'{bucket.base}/{bucket.name} lists nothing under {bucket.prefix}: its makers may have moved it')
    if len({file.target for file in found}) < len(found):
        raise OSError(f'{bucket.base}/{bucket.name} lists two files of one name under {bucket.prefix}')
    return found


def _download_all(
    title: str, files: list[RemoteFile], place: Path, workers: int, progress: bool, unpacked: int = 0
) -> None:
    """Files of the announced size are taken for whole, as they are moved into place only when they are."""
    files = [f for f in files if not (f.target.is_file() and f.size in (0, f.target.stat().st_size))]
    total, have = sum(f.size for f in files), sum(_have(_part(f, place)) for f in files)
    free = shutil.disk_usage(place).free
    if (need := total - have + unpacked) > free:
        raise OSError(
            f'{place.parent} has {free / 1e9:.2f} GB free, about {need / 1e9:.2f} GB are needed: choose another disk'
        )
    stop = threading.Event()

    def came(count: int) -> None:
        bar.update(count)
        if stop.is_set():
            raise _Stopped

    def get(file: RemoteFile) -> None:
        try:
            came(0)
            download(file, place, came)
        except _Stopped:
            pass
        except BaseException:
            stop.set()
            raise

    bar = tqdm(desc=title, unit='B', unit_scale=True, total=total, initial=have, disable=not progress or not files)
    with bar, ThreadPoolExecutor(workers) as pool:
        try:
            for job in as_completed([pool.submit(get, file) for file in files]):
                job.result()
        finally:  # the first failure, or Ctrl-C, stops the others where they are
            stop.set()


class _Stopped(Exception):
    """Another download failed."""


def download(file: RemoteFile, place: Path, came: Callable[[int], object] = int, pause: float = 1.0) -> Path:
    """One file, going on from its part if that is there; moved to its target when whole and checked.

    Args:
        file: address, target and, where known, size and checksum.
        place: folder of the part, ``<name>.part``.
        came: called with the number of bytes that came.
        pause: seconds before the first new try; doubled after each.

    Raises:
        OSError: see ``fetch``.
    """
    part = _part(file, place)
    place.mkdir(parents=True, exist_ok=True)
    kept = f'what came so far is kept in {part} and the next try goes on from there'
    _patiently(file.url, lambda: _transfer(file.url, part, came), pause, kept)
    wrong = ''
    if file.size and _have(part) != file.size:
        wrong = f'has {_have(part)} bytes, {file.size} are listed'
    elif (wanted := file.md5 or file.crc32c) and (found := _checksum(part, bool(file.md5))) != wanted:
        wrong = f'is damaged: its checksum is {found}, not {wanted}'
    if wrong:
        part.unlink()
        raise OSError(f'{file.url} {wrong}. It was deleted; try again')
    file.target.parent.mkdir(parents=True, exist_ok=True)
    return part.replace(file.target)


def _part(file: RemoteFile, place: Path) -> Path:
    return place / f'{file.target.name}.part'


def _have(part: Path) -> int:
    return part.stat().st_size if part.is_file() else 0


def _patiently(url: str, work: Callable[[], _Result], pause: float, kept: str = 'try again later') -> _Result:
    """Several tries, with longer and longer pauses between them; what the server or the disk refuses is final."""
    for attempt in range(RETRIES):
        try:
            return work()
        except urllib.error.HTTPError as error:
            if error.code < 500 and error.code not in (408, 429):
                raise OSError(f'{url} answers {error.code} {error.reason}: the address may have changed') from error
            problem: Exception = error
        except (OSError, EOFError, http.client.HTTPException) as error:
            if getattr(error, 'errno', None) in FULL:
                raise
            problem = error
        if attempt < RETRIES - 1:
            time.sleep(pause * 2**attempt)
    raise OSError(f'{url} could not be downloaded in {RETRIES} tries ({problem}); {kept}') from problem


def _read(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=60) as response:
        return response.read()


def _size(url: str) -> int:
    """What the server announces, 0 if nothing: the download itself will say what is wrong."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method='HEAD'), timeout=60) as response:
            return int(response.headers.get('Content-Length') or 0)
    except (OSError, ValueError, http.client.HTTPException):
        return 0


def _transfer(url: str, part: Path, came: Callable[[int], object]) -> None:
    have = _have(part)
    request = urllib.request.Request(url, headers={'Range': f'bytes={have}-'} if have else {})
    try:
        response = urllib.request.urlopen(request, timeout=60)
    except urllib.error.HTTPError as error:
        if error.code == 416 and have:  # nothing is left to ask for
            return
        raise
    with response:
        if have and response.status != 206:  # the server starts over, so must the file
            came(-have)
            have = 0
        total = have + int(response.headers.get('Content-Length') or 0)
        with part.open('ab' if have else 'wb') as file:
            while chunk := response.read(CHUNK):
                file.write(chunk)
                came(len(chunk))
    if _have(part) < total:
        raise EOFError(f'{_have(part)} of {total} bytes came')


def _checksum(path: Path, md5: bool) -> str:
    """MD5 or CRC-32C, hexadecimal."""
    digest = hashlib.md5(usedforsecurity=False) if md5 else google_crc32c.Checksum()
    with path.open('rb') as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.digest().hex()


def _unpack(file: Path, folder: Path) -> None:
    """Unpack beside the data, then move into place, file by file where folders are there already.

    Neither kind of archive can write outside its folder: ``zipfile`` drops ``..`` and roots from names, and tarfile's
    data filter refuses them. Links are left out: no data set has any, and versions of that filter let some lead out.
    """
    fresh = file.with_name(file.name + '.unpacked')
    left = MOST_UNPACKED * file.stat().st_size

    def announced(size: int) -> None:
        nonlocal left
        left -= size
        if left < 0:
            raise tarfile.TarError(f'it would unpack to more than {MOST_UNPACKED} times its size')

    def checked(member: tarfile.TarInfo, path: str) -> tarfile.TarInfo | None:
        announced(member.size)
        return None if member.issym() or member.islnk() else tarfile.data_filter(member, path)

    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir()
    try:
        if zipfile.is_zipfile(file):
            with zipfile.ZipFile(file) as archive:
                announced(sum(member.file_size for member in archive.infolist()))
                archive.extractall(fresh)
        else:
            with tarfile.open(file) as archive:
                archive.extractall(fresh, filter=checked)
        _merge(fresh, folder)
    except UNREADABLE as error:
        file.unlink()
        raise OSError(f'{file} cannot be unpacked ({brief(error)}); it was deleted, try again') from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _merge(source: Path, target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    for item in source.iterdir():
        there = target / item.name
        if item.is_dir() and there.is_dir():
            _merge(item, there)
        else:
            item.replace(there)
    source.rmdir()
