"""Downloads from a local server with ranges, resets, wrong checksums and truncated files."""

import hashlib
import io
import tarfile
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import pytest

from topdown.data import download as module
from topdown.data.download import SOURCES, Archive, Source, download, fetch


class Handler(BaseHTTPRequestHandler):
    """Serves ``files``; ``faults`` holds what goes wrong with the next answers to a path."""

    files: ClassVar[dict[str, bytes]] = {}
    faults: ClassVar[dict[str, list[str]]] = {}
    requests: ClassVar[list[tuple[str, str, str | None]]] = []

    def do_HEAD(self):
        self.send_response(200 if self.path in self.files else 404)
        self.send_header('Content-Length', str(len(self.files.get(self.path, b''))))
        self.end_headers()

    def do_GET(self):
        wanted = self.headers.get('Range')
        self.requests.append(('GET', self.path, wanted))
        fault = self.faults.get(self.path, []).pop(0) if self.faults.get(self.path) else ''
        if fault == 'error':
            self.send_error(503)
            return
        if self.path not in self.files:
            self.send_error(404)
            return
        content = self.files[self.path]
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
        self.wfile.write(body)
        if fault == 'cut':
            self.connection.close()

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    """Address of the server; nobody waits between tries."""
    Handler.files, Handler.faults, Handler.requests = {}, {}, []
    monkeypatch.setattr(module.time, 'sleep', lambda _: None)
    http = ThreadingHTTPServer(('127.0.0.1', 0), Handler)
    threading.Thread(target=http.serve_forever, daemon=True).start()
    yield f'http://127.0.0.1:{http.server_port}'
    http.shutdown()
    http.server_close()


CONTENT = bytes(range(256)) * 4000
MD5 = hashlib.md5(CONTENT).hexdigest()


def test_a_cut_connection_is_resumed_where_it_stopped(server, tmp_path):
    Handler.files['/a.bin'], Handler.faults['/a.bin'] = CONTENT, ['cut', 'error', 'cut']
    target = download(f'{server}/a.bin', tmp_path / 'a.bin', MD5)
    assert target.read_bytes() == CONTENT
    ranges = [wanted for _, _, wanted in Handler.requests]
    assert ranges[0] is None
    assert ranges[-1] not in (None, 'bytes=0-')
    assert [p.name for p in tmp_path.iterdir()] == ['a.bin']
    count = len(Handler.requests)
    download(f'{server}/a.bin', tmp_path / 'a.bin', MD5)  # there already
    assert len(Handler.requests) == count


def test_a_part_from_an_earlier_day_is_used(server, tmp_path):
    Handler.files['/a.bin'] = CONTENT
    (tmp_path / 'a.bin.part').write_bytes(CONTENT[:1000])
    assert download(f'{server}/a.bin', tmp_path / 'a.bin', MD5).read_bytes() == CONTENT
    assert Handler.requests == [('GET', '/a.bin', 'bytes=1000-')]
    (tmp_path / 'b.bin.part').write_bytes(CONTENT)  # whole, but not yet moved
    Handler.files['/b.bin'] = CONTENT
    assert download(f'{server}/b.bin', tmp_path / 'b.bin', MD5).read_bytes() == CONTENT


def test_a_server_without_ranges_starts_over(server, tmp_path):
    Handler.files['/a.bin'], Handler.faults['/a.bin'] = CONTENT, ['no ranges']
    (tmp_path / 'a.bin.part').write_bytes(CONTENT[:1000])
    assert download(f'{server}/a.bin', tmp_path / 'a.bin', MD5).read_bytes() == CONTENT


def test_wrong_checksums_are_deleted_and_named(server, tmp_path):
    Handler.files['/a.bin'] = CONTENT[:-1] + b'x'
    with pytest.raises(OSError, match=r'a.bin is damaged: its checksum is .* try again'):
        download(f'{server}/a.bin', tmp_path / 'a.bin', MD5)
    assert list(tmp_path.iterdir()) == []


def test_what_came_is_kept_when_tries_run_out(server, tmp_path):
    Handler.files['/a.bin'], Handler.faults['/a.bin'] = CONTENT, ['cut'] + ['error'] * 9
    with pytest.raises(OSError, match=r'in 5 tries .*a.bin.part'):
        download(f'{server}/a.bin', tmp_path / 'a.bin')
    assert 0 < (tmp_path / 'a.bin.part').stat().st_size < len(CONTENT)
    Handler.faults['/a.bin'] = []
    assert download(f'{server}/a.bin', tmp_path / 'a.bin', MD5).read_bytes() == CONTENT


def test_a_missing_address_is_said_at_once(server, tmp_path):
    with pytest.raises(OSError, match='answers 404'):
        download(f'{server}/nothing.zip', tmp_path / 'nothing.zip')
    assert len(Handler.requests) == 1


def archives(server, **changes):
    """A zip and a tar that share a folder, served."""
    zipped, tarred = io.BytesIO(), io.BytesIO()
    with zipfile.ZipFile(zipped, 'w') as file:
        file.writestr('data/pictures/a.jpg', b'a')
    with tarfile.open(fileobj=tarred, mode='w:gz') as file:
        info = tarfile.TarInfo('data/labels/a.png')
        info.size = 1
        file.addfile(info, io.BytesIO(b'b'))
    Handler.files |= {'/p.zip': zipped.getvalue(), '/l.tgz': tarred.getvalue(), **changes}
    sums = [hashlib.md5(Handler.files[name]).hexdigest() for name in ('/p.zip', '/l.tgz')]
    return Source('Toys', 'free', (
        Archive(f'{server}/p.zip', 'data/pictures', sums[0]), Archive(f'{server}/l.tgz', 'data/labels', sums[1]),
    ))  # fmt: skip


def test_fetch_unpacks_everything_and_leaves_nothing_else(server, tmp_path):
    source = archives(server)
    root = tmp_path / 'new' / 'place'
    assert fetch(source, root, progress=False) == [root / 'data' / 'pictures', root / 'data' / 'labels']
    files = sorted(str(p.relative_to(root)) for p in root.rglob('*') if p.is_file())
    assert files == ['data/labels/a.png', 'data/pictures/a.jpg']
    assert [p.name for p in root.iterdir()] == ['data']
    count = len(Handler.requests)
    fetch(source, root, progress=False)
    assert len(Handler.requests) == count


def test_a_damaged_archive_leaves_no_half_data(server, tmp_path):
    whole = archives(server)
    Handler.files['/p.zip'] = Handler.files['/p.zip'][:60]
    source = Source('Toys', 'free', (Archive(whole.archives[0].url, 'data/pictures'), whole.archives[1]))
    with pytest.raises(OSError, match='no whole archive'):
        fetch(source, tmp_path, progress=False)
    assert not (tmp_path / 'data').exists()


def test_a_small_disk_is_noticed_before_the_start(server, tmp_path, monkeypatch):
    source = archives(server)
    monkeypatch.setattr(module.shutil, 'disk_usage', lambda _: type('Usage', (), {'free': 10})())
    with pytest.raises(OSError, match='GB are needed'):
        fetch(source, tmp_path, progress=False)
    assert Handler.requests == []


def test_sets_behind_a_login_say_how_to_get_them(tmp_path):
    with pytest.raises(PermissionError, match='Log in at'):
        fetch(SOURCES['cityscapes'], tmp_path)
    assert all(source.licence and (source.archives or source.login) for source in SOURCES.values())
    assert all(len(a.md5) == 32 for source in SOURCES.values() for a in source.archives)
