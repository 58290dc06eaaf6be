"""Get data sets from their official addresses: resumable, checked, and never half there.

Files of a bucket of Google Cloud Storage are listed first, with their sizes and checksums; each is moved into place
when it is whole and checked. An archive is downloaded to ``<root>/.download/<name>.part``; an interrupted download goes
on where it stopped. The whole file is checked against its published checksum, unpacked beside the data, and moved into
place only when all of it is unpacked; then the archive is deleted.
"""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
import shutil
import tarfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import TypeVar

from tqdm.auto import tqdm

from topdown.data.sources import Archive, Bucket, RemoteFile, Source
from topdown.data.tfrecord import crc32c

CHUNK = 1 << 20


RETRIES = 5


def fetch(source: Source, root: str | Path, workers: int = 0, progress: bool = True) -> list[Path]:
    """Download, and unpack if need be, what is not there yet.

    Args:
        source: the data set.
        root: folder to hold it.
        workers: downloads at a time; 0 for three of archives, eight of a bucket's files.
        progress: show a bar.

    Returns:
        The paths that the archives give, or the bucket's files, those that were there already included.

    Raises:
        PermissionError: if the data set is behind a login; the message says how to get it.
        OSError: if the disk is too small, an address cannot be reached after several tries, or a file does not fit its
            checksum (it is deleted then, so that the next try starts anew).
    """
    if source.login:
        raise PermissionError(f'{source.title} cannot be downloaded without an account. {source.login}')
    root = Path(root).expanduser()
    if source.bucket:
        return _fetch_bucket(source.title, source.bucket, root, workers or 8, progress)
    missing = [a for a in source.archives if not (root / a.gives).exists()]
    root.mkdir(parents=True, exist_ok=True)
    if missing:
        _check_space(missing, root)
        with _Bar(source.title, progress) as bar:
            files = _in_parallel(
                lambda a: download(a.url, root / '.download' / a.name, a.md5, bar), missing, workers or 3, bar
            )
        for archive, file in zip(missing, files, strict=True):
            _unpack(file, root / archive.into)
            if not (root / archive.gives).exists():
                raise OSError(f'{archive.url} did not contain {archive.gives}: its makers may have changed it')
            file.unlink()
        shutil.rmtree(root / '.download', ignore_errors=True)
    return [root / a.gives for a in source.archives]


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
                sums = {
                    kind: base64.b64decode(item.get(key, ''), validate=True).hex()
                    for kind, key in (('md5', 'md5Hash'), ('crc32c', 'crc32c'))
                }
                target = root / bucket.into / name.rsplit('/', 1)[-1]
                address = f'{bucket.base}/{bucket.name}/{urllib.parse.quote(name)}'
                found.append(RemoteFile(address, target, int(item['size']), **sums))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise OSError(f'{url} is no listing of a bucket ({type(error).__name__}: {error}); try again') from error
        page = content.get('nextPageToken', '')
        if not page:
            break
    if not found:
        raise OSError(f'{bucket.base}/{bucket.name} lists nothing under {bucket.prefix}: its makers may have moved it')
    return found


def _fetch_bucket(title: str, bucket: Bucket, root: Path, workers: int, progress: bool) -> list[Path]:
    """Files of the listed size are taken for whole, as they are moved into place only when they are."""
    files = list_bucket(bucket, root)
    missing = [f for f in files if not f.target.is_file() or f.target.stat().st_size != f.size]
    root.mkdir(parents=True, exist_ok=True)
    place = root / '.download'
    need = sum(f.size for f in missing)
    for part in (place / f'{f.target.name}.part' for f in missing):
        need -= part.stat().st_size if part.is_file() else 0
    _need_space(need, root)

    def get(file: RemoteFile) -> None:
        fresh = download(file.url, place / file.target.name, file.md5, bar, crc=file.crc32c)
        if fresh.stat().st_size != file.size:
            size = fresh.stat().st_size
            fresh.unlink()
            raise OSError(f'{file.url} has {size} bytes, {file.size} are listed: it was deleted, try again')
        file.target.parent.mkdir(parents=True, exist_ok=True)
        fresh.replace(file.target)

    if missing:
        with _Bar(title, progress) as bar:
            bar.announce({f.url: f.size for f in missing})
            _in_parallel(get, missing, workers, bar)
        shutil.rmtree(place, ignore_errors=True)
    return [f.target for f in files]


_Item, _Result = TypeVar('_Item'), TypeVar('_Result')


def _in_parallel(work: Callable[[_Item], _Result], items: list[_Item], workers: int, bar: _Bar) -> list[_Result]:
    """The first failure, or Ctrl-C, stops the others where they are."""

    def guarded(item: _Item) -> _Result:
        if bar.stop.is_set():
            raise _Stopped
        try:
            return work(item)
        except BaseException:
            bar.stop.set()
            raise

    with ThreadPoolExecutor(workers) as pool:
        jobs = [pool.submit(guarded, item) for item in items]
        try:
            wait(jobs)
        except BaseException:
            bar.stop.set()
            raise
    errors = [error for job in jobs if (error := job.exception())]
    if errors:
        raise next((e for e in errors if not isinstance(e, _Stopped)), errors[0])
    return [job.result() for job in jobs]


def download(url: str, target: Path, md5: str = '', bar: _Bar | None = None, pause: float = 1.0, crc: str = '') -> Path:
    """One file, going on from ``<target>.part`` if it is there; moved to ``target`` when whole and checked.

    Args:
        url: its address.
        target: where it goes.
        md5: checksum; not checked if empty.
        bar: progress.
        pause: seconds before the first new try; doubled after each.
        crc: CRC-32C, hexadecimal; checked if there is no MD5.

    Raises:
        OSError: see ``fetch``.
    """
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + '.part')
    kept = f'what came so far is kept in {part} and the next try goes on from there'
    _patiently(url, lambda: _transfer(url, part, bar), pause, kept)
    wanted = md5 or crc
    if wanted and (found := _md5(part) if md5 else _crc32c(part)) != wanted:
        part.unlink()
        raise OSError(f'{url} is damaged: its checksum is {found}, not {wanted}. It was deleted; try again')
    part.rename(target)
    return target


def _patiently(url: str, work: Callable[[], _Result], pause: float, kept: str = 'try again later') -> _Result:
    """Several tries, with longer and longer pauses between them; what the server refuses is not tried again."""
    for attempt in range(RETRIES):
        try:
            return work()
        except urllib.error.HTTPError as error:
            if error.code < 500 and error.code not in (408, 429):
                raise OSError(f'{url} answers {error.code} {error.reason}: the address may have changed') from error
            problem: Exception = error
        except (OSError, EOFError, http.client.HTTPException) as error:
            problem = error
        if attempt < RETRIES - 1:
            time.sleep(pause * 2**attempt)
    raise OSError(f'{url} could not be downloaded in {RETRIES} tries ({problem}); {kept}') from problem


def _read(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=60) as response:
        return response.read()


class _Stopped(Exception):
    """Another download failed."""


def _transfer(url: str, part: Path, bar: _Bar | None) -> None:
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={'Range': f'bytes={have}-'} if have else {})
    try:
        response = urllib.request.urlopen(request, timeout=60)
    except urllib.error.HTTPError as error:
        if error.code == 416 and have:  # nothing is left to ask for
            return
        raise
    with response:
        if have and response.status != 206:  # the server starts over, so must the file
            have = 0
        length = response.headers.get('Content-Length')
        total = have + int(length) if length else None
        if bar:
            bar.expect(url, total, have)
        with part.open('ab' if have else 'wb') as file:
            while chunk := response.read(CHUNK):
                if bar and bar.stop.is_set():
                    raise _Stopped
                file.write(chunk)
                if bar:
                    bar.update(len(chunk))
    if total is not None and part.stat().st_size < total:
        raise EOFError(f'{part.stat().st_size} of {total} bytes came')


def _unpack(file: Path, folder: Path) -> None:
    """Unpack beside the data, then move into place, file by file where folders are there already."""
    fresh = file.with_name(file.name + '.unpacked')
    shutil.rmtree(fresh, ignore_errors=True)
    try:
        if zipfile.is_zipfile(file):
            with zipfile.ZipFile(file) as archive:
                archive.extractall(fresh)
        else:
            with tarfile.open(file) as archive:
                archive.extractall(fresh, filter='data')
    except (tarfile.TarError, zipfile.BadZipFile, EOFError) as error:
        shutil.rmtree(fresh, ignore_errors=True)
        file.unlink()
        raise OSError(f'{file} is no whole archive ({error}); it was deleted, try again') from error
    _merge(fresh, folder)


def _merge(source: Path, target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    for item in source.iterdir():
        there = target / item.name
        if item.is_dir() and there.is_dir():
            _merge(item, there)
        else:
            item.replace(there)
    source.rmdir()


def _check_space(archives: list[Archive], root: Path) -> None:
    """Archive and unpacked files are on the disk at the same time: twice the size of what is still to come."""
    need = 0
    for archive in archives:
        request = urllib.request.Request(archive.url, method='HEAD')
        try:
            with urllib.request.urlopen(request, timeout=60) as response:
                need += 2 * int(response.headers.get('Content-Length') or 0)
        except (OSError, ValueError):
            continue  # the download itself will say what is wrong
    _need_space(need, root)


def _need_space(need: int, root: Path) -> None:
    free = shutil.disk_usage(root).free
    if need > free:
        raise OSError(f'{root} has {free / 1e9:.1f} GB free, about {need / 1e9:.1f} GB are needed: choose another disk')


def _md5(path: Path) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    with path.open('rb') as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _crc32c(path: Path) -> str:
    crc = 0
    with path.open('rb') as file:
        while chunk := file.read(CHUNK):
            crc = crc32c(chunk, crc)
    return f'{crc:08x}'


class _Bar:
    """One progress bar for parallel downloads."""

    def __init__(self, title: str, progress: bool) -> None:
        self.bar = tqdm(desc=title, unit='B', unit_scale=True, total=0, disable=not progress)
        self.lock, self.stop = threading.Lock(), threading.Event()
        self.sizes: dict[str, int] = {}
        self.begun: set[str] = set()

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()

    def announce(self, sizes: dict[str, int]) -> None:
        """Files and their sizes, known beforehand."""
        self.sizes |= sizes
        self.bar.total += sum(sizes.values())

    def expect(self, url: str, total: int | None, have: int) -> None:
        """Count a file's size once, and what was there before."""
        with self.lock:
            if url not in self.sizes:
                self.sizes[url] = total or 0
                self.bar.total += total or 0
            if url not in self.begun:
                self.begun.add(url)
                self.bar.update(have)

    def update(self, count: int) -> None:
        """So many bytes came."""
        with self.lock:
            self.bar.update(count)
