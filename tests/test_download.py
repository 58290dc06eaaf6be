"""Downloads from a local server with ranges, resets, wrong checksums and truncated files."""

import base64
import errno
import hashlib
import io
import json
import tarfile
import threading
import urllib.parse
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import google_crc32c
import pytest

from topdown.data import fetch as fetch_module
from topdown.data.fetch import download, fetch, list_bucket
from topdown.datasets import DATASETS, Archive, Bucket, RemoteFile, Source


class Handler(BaseHTTPRequestHandler):
    """Serves ``files``, and lists those of a bucket, two a page.

    ``faults`` holds what goes wrong with the next answers to a path; ``listed`` changes what is said of an object.
    """

    files: ClassVar[dict[str, bytes]] = {}
    faults: ClassVar[dict[str, list[str]]] = {}
    listed: ClassVar[dict[str, dict[str, str | None]]] = {}
    requests: ClassVar[list[tuple[str, str, str | None]]] = []

    def listing(self, query):
        """As the JSON interface of Google Cloud Storage answers; checksums in base64."""
        bucket = '/' + self.path.split('/')[4] + '/'
        names = sorted(n.removeprefix(bucket) for n in self.files if n.startswith(bucket))
        names = [n for n in names if n.startswith(query['prefix'])]
        first = int(query.get('pageToken', 0))
        items = []
        for name in names[first : first + 2]:
            content = self.files[bucket + name]
            item = {
                'name': name, 'size': str(len(content)),
                'md5Hash': base64.b64encode(hashlib.md5(content).digest()).decode(),
                'crc32c': base64.b64encode(google_crc32c.Checksum(content).digest()).decode(),
            } | self.listed.get(name, {})  # fmt: skip
            items.append({key: value for key, value in item.items() if value is not None})
        page = {'items': items} if items else {}
        return page | ({'nextPageToken': str(first + 2)} if first + 2 < len(names) else {})

    def do_HEAD(self):
        self.send_response(200 if self.path in self.files else 404)
        self.send_header('Content-Length', str(len(self.files.get(self.path, b''))))
        self.end_headers()

    def do_GET(self):
        self.path, _, query = self.path.partition('?')
        wanted = self.headers.get('Range')
        self.requests.append(('GET', self.path, wanted))
        fault = self.faults.get(self.path, []).pop(0) if self.faults.get(self.path) else ''
        if fault == 'error':
            self.send_error(503)
            return
        content = self.files.get(self.path)
        if content is None and self.path.startswith('/storage/v1/b/'):
            content = json.dumps(self.listing(dict(urllib.parse.parse_qsl(query)))).encode()
            if fault == 'garbage':
                content = b'<html>sign in</html>'
        if content is None:
            self.send_error(404)
            return
        first = int(wanted.removeprefix('bytes=').rstrip('-')) if wanted and fault != 'no ranges' else 0
        if first >= len(content) > 0 and wanted:
            self.send_error(416)
            return
        self.send_response(206 if first else 200)
        self.send_header('Content-Length', str(len(content) - first))
        self.end_headers()
        body = content[first:]
        if fault == 'cut':
            body = body[: len(body) // 2]
        elif fault == 'flip':
            body = body[:-1] + bytes([body[-1] ^ 1])
        self.wfile.write(body)
        if fault == 'cut':
            self.connection.close()

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    """Address of the server; nobody waits between tries."""
    Handler.files, Handler.faults, Handler.listed, Handler.requests = {}, {}, {}, []
    monkeypatch.setattr(fetch_module.time, 'sleep', lambda _: None)
    http = ThreadingHTTPServer(('127.0.0.1', 0), Handler)
    threading.Thread(target=http.serve_forever, daemon=True).start()
    yield f'http://127.0.0.1:{http.server_port}'
    http.shutdown()
    http.server_close()


CONTENT = bytes(range(256)) * 4000
MD5 = hashlib.md5(CONTENT).hexdigest()


def get(server, name, folder, md5=MD5):
    return download(RemoteFile(f'{server}/{name}', folder / name, 0, md5), folder)


def test_a_cut_connection_is_resumed_where_it_stopped(server, tmp_path):
    Handler.files['/a.bin'], Handler.faults['/a.bin'] = CONTENT, ['cut', 'error', 'cut']
    target = get(server, 'a.bin', tmp_path)
    assert target.read_bytes() == CONTENT
    ranges = [wanted for _, _, wanted in Handler.requests]
    assert ranges[0] is None
    assert ranges[-1] not in (None, 'bytes=0-')
    assert [p.name for p in tmp_path.iterdir()] == ['a.bin']


def test_a_part_from_an_earlier_day_is_used(server, tmp_path):
    Handler.files['/a.bin'] = CONTENT
    (tmp_path / 'a.bin.part').write_bytes(CONTENT[:1000])
    assert get(server, 'a.bin', tmp_path).read_bytes() == CONTENT
    assert Handler.requests == [('GET', '/a.bin', 'bytes=1000-')]
    (tmp_path / 'b.bin.part').write_bytes(CONTENT)  # whole, but not yet moved
    Handler.files['/b.bin'] = CONTENT
    assert get(server, 'b.bin', tmp_path).read_bytes() == CONTENT


def test_a_server_without_ranges_starts_over(server, tmp_path):
    Handler.files['/a.bin'], Handler.faults['/a.bin'] = CONTENT, ['no ranges']
    (tmp_path / 'a.bin.part').write_bytes(CONTENT[:1000])
    assert get(server, 'a.bin', tmp_path).read_bytes() == CONTENT


def test_wrong_checksums_are_deleted_and_named(server, tmp_path):
    Handler.files['/a.bin'] = CONTENT[:-1] + b'x'
    with pytest.raises(OSError, match=r'a.bin is damaged: its checksum is .* try again'):
        get(server, 'a.bin', tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_what_came_is_kept_when_tries_run_out(server, tmp_path):
    Handler.files['/a.bin'], Handler.faults['/a.bin'] = CONTENT, ['cut'] + ['error'] * 9
    with pytest.raises(OSError, match=r'in 5 tries .*a.bin.part'):
        get(server, 'a.bin', tmp_path, '')
    assert 0 < (tmp_path / 'a.bin.part').stat().st_size < len(CONTENT)
    Handler.faults['/a.bin'] = []
    assert get(server, 'a.bin', tmp_path).read_bytes() == CONTENT


def test_a_missing_address_is_said_at_once(server, tmp_path):
    with pytest.raises(OSError, match='answers 404'):
        get(server, 'nothing.zip', tmp_path, '')
    assert len(Handler.requests) == 1


def archives(server, **changes):
    """A zip and a tar that share a folder, served."""
    zipped, tarred = io.BytesIO(), io.BytesIO()
    with zipfile.ZipFile(zipped, 'w') as file:
        file.writestr('data/images/a.jpg', b'a')
    with tarfile.open(fileobj=tarred, mode='w:gz') as file:
        info = tarfile.TarInfo('data/labels/a.png')
        info.size = 1
        file.addfile(info, io.BytesIO(b'b'))
    Handler.files |= {'/p.zip': zipped.getvalue(), '/l.tgz': tarred.getvalue(), **changes}
    sums = [hashlib.md5(Handler.files[name]).hexdigest() for name in ('/p.zip', '/l.tgz')]
    return Source('Toys', 'free', (
        Archive(f'{server}/p.zip', 'data/images', sums[0]), Archive(f'{server}/l.tgz', 'data/labels', sums[1]),
    ))  # fmt: skip


def test_fetch_unpacks_everything_and_leaves_nothing_else(server, tmp_path):
    source = archives(server)
    root = tmp_path / 'new' / 'place'
    assert fetch(source, root, progress=False) == [root / 'data' / 'images', root / 'data' / 'labels']
    files = sorted(str(p.relative_to(root)) for p in root.rglob('*') if p.is_file())
    assert files == ['data/images/a.jpg', 'data/labels/a.png']
    assert [p.name for p in root.iterdir()] == ['data']
    count = len(Handler.requests)
    fetch(source, root, progress=False)
    assert len(Handler.requests) == count


def test_a_damaged_archive_leaves_no_half_data(server, tmp_path):
    whole = archives(server)
    Handler.files['/p.zip'] = Handler.files['/p.zip'][:60]
    source = Source('Toys', 'free', (Archive(whole.archives[0].url, 'data/images'), whole.archives[1]))
    with pytest.raises(OSError, match=r'p.zip cannot be unpacked'):
        fetch(source, tmp_path, progress=False)
    assert not (tmp_path / 'data').exists()


def packed(kind, name, content):
    """An archive of one file."""
    buffer = io.BytesIO()
    if kind == 'zip':
        with zipfile.ZipFile(buffer, 'w', zipfile.ZIP_DEFLATED) as file:
            file.writestr(name, content)
    else:
        with tarfile.open(fileobj=buffer, mode='w:gz') as file:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
    return bytearray(buffer.getvalue())


def encrypted():
    """A zip whose headers say that its file is encrypted."""
    content = packed('zip', 'data/a', b'a')
    content[6] |= 1
    content[content.rfind(b'PK\x01\x02') + 8] |= 1
    return content


def understated():
    """A zip whose headers say that its file of a million bytes has one."""
    content = packed('zip', 'data/a', bytes(1_000_000))
    for header, at in ((b'PK\x03\x04', 22), (b'PK\x01\x02', 24)):
        place = content.rfind(header) + at
        content[place : place + 4] = (1).to_bytes(4, 'little')
    return content


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        (packed('zip', 'data/a', bytes(10_000_000)), 'more than 20 times its size'),
        (packed('tar', 'data/a', bytes(10_000_000)), 'more than 20 times its size'),
        (understated(), 'Bad CRC-32'),
        (encrypted(), 'encrypted'),
        (packed('tar', '../a', b'a'), 'outside the destination'),
        (b'', 'could not be opened'),
    ],
    ids=['zip bomb', 'tar bomb', 'understated zip', 'encrypted', 'tar that leaves', 'empty'],
)
def test_archives_that_cannot_be_trusted_are_refused_and_leave_nothing(server, tmp_path, content, message):
    Handler.files['/p.zip'] = bytes(content)
    root = tmp_path / 'root'
    with pytest.raises(OSError, match=rf'p.zip cannot be unpacked \(.*{message}'):
        fetch(Source('Toys', 'free', (Archive(f'{server}/p.zip', 'data'),)), root, progress=False)
    assert [path.name for path in tmp_path.rglob('*')] == ['root']


def test_names_in_a_zip_cannot_leave_the_folder(server, tmp_path):
    Handler.files['/p.zip'] = bytes(packed('zip', '../../data/a', b'a'))
    fetch(Source('Toys', 'free', (Archive(f'{server}/p.zip', 'data'),)), tmp_path / 'root', progress=False)
    assert [p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob('*') if p.is_file()] == ['root/data/a']


@pytest.mark.parametrize('kind', [tarfile.SYMTYPE, tarfile.LNKTYPE])
@pytest.mark.parametrize(('name', 'target'), [('d/', '..'), ('d', '..'), ('d', '/'), ('d/e/', '../..')])
def test_links_in_a_tar_are_left_out(tmp_path, kind, name, target):
    path = tmp_path / 'root' / 'a.tar'
    path.parent.mkdir()
    with tarfile.open(path, 'w') as file:
        link = tarfile.TarInfo(name)
        link.type, link.linkname = kind, target
        file.addfile(link)
        for place in (f'{name.rstrip("/")}/out', 'data/a'):
            info = tarfile.TarInfo(place)
            info.size = 1
            file.addfile(info, io.BytesIO(b'a'))
    fetch_module._unpack(path, tmp_path / 'root')
    found = [p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob('*') if p.is_symlink() or p.is_file()]
    assert sorted(found) == sorted(['root/a.tar', 'root/data/a', f'root/{name.rstrip("/")}/out'])


class Full(io.FileIO):
    """A file on a disk that takes 1000 bytes."""

    def write(self, data):
        if len(data) > 1000:
            raise OSError(errno.ENOSPC, 'No space left on device')
        return super().write(data)


@pytest.mark.parametrize('where', ['download', 'unpacking'])
def test_a_disk_that_fills_up_is_said_once_and_cleared(server, tmp_path, monkeypatch, where):
    source, whole = archives(server), Path.open
    if where == 'download':
        Handler.files['/p.zip'] += bytes(2000)

        def opened(path, mode='r', *args, **kwargs):
            return (Full if mode in ('ab', 'wb') else whole)(path, mode, *args, **kwargs)

        monkeypatch.setattr(Path, 'open', opened)
    else:

        def extract(self, folder):
            (folder / 'data').mkdir(parents=True)
            raise OSError(errno.ENOSPC, 'No space left on device')

        monkeypatch.setattr(zipfile.ZipFile, 'extractall', extract)
    with pytest.raises(OSError, match='is full') as refused:
        fetch(source, tmp_path, progress=False)
    assert refused.value.errno == errno.ENOSPC
    assert list(tmp_path.iterdir()) == []
    assert sum(path == '/p.zip' for _, path, _ in Handler.requests) == 1  # not tried again


def test_a_small_disk_is_noticed_before_the_start(server, tmp_path, monkeypatch):
    source = archives(server)
    monkeypatch.setattr(fetch_module.shutil, 'disk_usage', lambda _: type('Usage', (), {'free': 10})())
    with pytest.raises(OSError, match='GB are needed'):
        fetch(source, tmp_path, progress=False)
    assert Handler.requests == []


NAMES = ('a-train.tfrecord-00000-of-00002', 'a-train.tfrecord-00001-of-00002', 'a-validation.tfrecord-00000-of-00001')


def bucket(server):
    """Three files that are wanted, on two pages; one that is not, and one of another prefix."""
    for number, name in enumerate((*NAMES, 'a-test.tfrecord-00000-of-00001')):
        Handler.files[f'/toys/sets/a/1.0.0/{name}'] = CONTENT[number:]
    Handler.files |= {'/toys/sets/b/1.0.0/b.json': b'{}', '/toys/sets/a/1.0.0/': b''}
    return Source('Toys', 'free', bucket=Bucket('toys', 'sets/a/1.0.0/', 'a/1.0.0', ('-test.',), server))


def test_a_bucket_is_listed_page_by_page_and_fetched(server, tmp_path):
    source = bucket(server)
    root = tmp_path / 'new' / 'place'
    paths = fetch(source, root, progress=False)
    assert paths == [root / 'a' / '1.0.0' / name for name in NAMES]
    assert [p.read_bytes() for p in paths] == [CONTENT[n:] for n in range(3)]
    assert sorted(p.name for p in root.rglob('*') if p.is_file()) == sorted(NAMES)
    assert [p.name for p in root.iterdir()] == ['a']  # no .download is left
    asked = [path for _, path, _ in Handler.requests if not path.startswith('/storage')]
    assert len(Handler.requests) - len(asked) == 3  # five objects, two a page
    fetch(source, root, progress=False)  # all there: listed, not got again
    assert len([p for _, p, _ in Handler.requests if not p.startswith('/storage')]) == len(asked) == 3
    paths[1].write_bytes(b'short')  # a copy that somebody broke off
    fetch(source, root, progress=False)
    assert paths[1].read_bytes() == CONTENT[1:]


def test_a_bucket_is_resumed_after_resets(server, tmp_path):
    source = bucket(server)
    listing, first, second = '/storage/v1/b/toys/o', *(f'/toys/sets/a/1.0.0/{name}' for name in NAMES[:2])
    Handler.faults = {listing: ['error', 'cut'], first: ['cut', 'error', 'cut'], second: ['cut', *['error'] * 9]}
    with pytest.raises(OSError, match=r'00001-of-00002 could not be downloaded in 5 tries .* goes on from there'):
        fetch(source, tmp_path, workers=1, progress=False)
    there = {str(p.relative_to(tmp_path)) for p in tmp_path.rglob('*') if p.is_file()}
    assert there == {f'a/1.0.0/{NAMES[0]}', f'.download/{NAMES[1]}.part', '.download/.lock'}  # the third was not begun
    Handler.faults, Handler.requests = {}, []
    paths = fetch(source, tmp_path, progress=False)
    assert [p.read_bytes() for p in paths] == [CONTENT[n:] for n in range(3)]
    ranges = {path: wanted for _, path, wanted in Handler.requests}
    assert first not in ranges
    assert ranges[second].startswith('bytes=')


def test_files_of_a_bucket_that_do_not_fit_are_deleted_and_named(server, tmp_path):
    source = bucket(server)
    name, path = NAMES[1], f'/toys/sets/a/1.0.0/{NAMES[1]}'
    key = path.removeprefix('/toys/')

    def refused(message):
        with pytest.raises(OSError, match=message):
            fetch(source, tmp_path, progress=False)
        assert not list(tmp_path.rglob(f'{name}*'))

    Handler.faults[path] = ['flip']
    refused('00001-of-00002 is damaged: its checksum is .* try again')
    Handler.listed[key] = {'md5Hash': None}  # an object put together from parts has no MD5
    Handler.faults[path] = ['flip']
    refused('00001-of-00002 is damaged: its checksum is [0-9a-f]{8}, not [0-9a-f]{8}')
    whole = Handler.files[path]
    Handler.listed[key] = {'md5Hash': None, 'crc32c': None, 'size': str(len(whole))}
    Handler.files[path] = whole[:1000]
    refused('00001-of-00002 has 1000 bytes, .* are listed')
    Handler.files[path] = whole
    Handler.listed[key] = {'md5Hash': None}
    assert fetch(source, tmp_path, progress=False)[1].read_bytes() == whole


def test_a_bucket_that_is_moved_or_hidden_is_said(server, tmp_path):
    source = bucket(server)
    Handler.faults['/storage/v1/b/toys/o'] = ['garbage']
    with pytest.raises(OSError, match='is not a listing of a bucket'):
        fetch(source, tmp_path, progress=False)
    Handler.listed['sets/a/1.0.0/' + NAMES[0]] = {'size': None}
    with pytest.raises(OSError, match=r'is not a listing of a bucket .*size'):
        fetch(source, tmp_path, progress=False)
    nothing = Source('Toys', 'free', bucket=Bucket('toys', 'sets/c/', base=server))
    with pytest.raises(OSError, match='toys lists nothing under sets/c/'):
        fetch(nothing, tmp_path, progress=False)
    with pytest.raises(OSError, match='could not be downloaded'):
        list_bucket(Bucket('toys', 'sets/', base='http://127.0.0.1:9'), tmp_path, pause=0)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize('name', ['..', '.', '.lock', 'a\0b', 'a\nb', '..\\a', ''])
def test_names_that_are_none_are_refused(server, tmp_path, name):
    source = bucket(server)
    Handler.listed['sets/a/1.0.0/' + NAMES[2]] = {'name': f'sets/a/1.0.0/{name}' if name else ''}
    with pytest.raises(OSError, match=r'is not a listing of a bucket .*cannot be the name of a file'):
        fetch(source, tmp_path, progress=False)
    assert list(tmp_path.iterdir()) == []


def test_two_files_of_one_name_are_refused(server, tmp_path):
    source = bucket(server)
    Handler.files[f'/toys/sets/a/1.0.0/more/{NAMES[0]}'] = b'x'
    with pytest.raises(OSError, match='two files of one name'):
        fetch(source, tmp_path, progress=False)


def test_a_small_disk_is_noticed_before_a_bucket_is_got(server, tmp_path, monkeypatch):
    source = bucket(server)
    need = sum(len(CONTENT) - n for n in range(3))
    (tmp_path / '.download').mkdir()
    (tmp_path / '.download' / f'{NAMES[0]}.part').write_bytes(CONTENT[:1000])
    for free in (need - 1001, need - 1000):
        monkeypatch.setattr(fetch_module.shutil, 'disk_usage', lambda _, free=free: type('Usage', (), {'free': free})())
        if free < need - 1000:
            with pytest.raises(OSError, match='GB are needed'):
                fetch(source, tmp_path, progress=False)
            assert all(path.startswith('/storage') for _, path, _ in Handler.requests)
    assert len(fetch(source, tmp_path, progress=False)) == 3


def test_official_buckets_are_where_the_readers_look():
    for name in ('movi_c', 'movi_d', 'movi_e'):
        place = DATASETS[name].source.bucket
        assert (place.name, place.prefix, place.into) == (
            'kubric-public', f'tfds/{name}/128x128/1.0.0/', f'{name}/128x128/1.0.0',
        )  # fmt: skip
        assert 'Apache-2.0' in DATASETS[name].source.licence
    assert DATASETS['clevr6'].source.bucket.prefix.endswith('/clevr_with_masks_train.tfrecords')
    assert DATASETS['clevr6'].source.licence == 'CC BY 4.0'


def test_sets_behind_a_login_say_how_to_get_them(tmp_path):
    with pytest.raises(PermissionError, match='Log in at'):
        fetch(DATASETS['cityscapes'].source, tmp_path)
    assert all(known.source.licence for known in DATASETS.values())
    assert all(len(a.md5) == 32 for known in DATASETS.values() for a in known.source.archives)
