"""Downloads against a server on this machine: progress, resumption, checksums and failures."""

import contextlib
import hashlib
import io
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.support import cifar_samples
from tpc import data
from tpc.data import cifar10, download
from tpc.errors import DataError, UsageError
from tpc.report import download_progress
from tpc.runtime.files.lock import BusyError, Lock

CONTENT = bytes(range(256)) * 4096  # 1 MiB
FILE = "cifar-10-python.tar.gz"


@dataclass
class Server:
    """What the server does, and the Range headers it was sent (None where there was none)."""

    content: bytes = CONTENT
    ranges: bool = True
    cut_after: int | None = None
    status: int | None = None
    announce: bool = True
    shift: int = 0
    range: str | None = None
    length: str | None = None
    hold: float = 0.0  # seconds before it closes the connection
    trickle: float = 0.0  # seconds between two bytes
    requests: list[str | None] = field(default_factory=list)
    url: str = ""

    def respond(self, handler: BaseHTTPRequestHandler) -> None:
        asked = handler.headers.get("Range")
        self.requests.append(asked)
        if self.status is not None:
            handler.send_error(self.status)
            return
        start = int(asked.removeprefix("bytes=").rstrip("-")) + self.shift if asked and self.ranges else 0
        if start >= len(self.content):
            handler.send_error(416)
            return
        body = self.content[start:]
        handler.send_response(206 if start or self.shift else 200)
        if start or self.shift:
            made = f"bytes {start}-{len(self.content) - 1}/{len(self.content)}"
            handler.send_header("Content-Range", made if self.range is None else self.range)
        if self.announce:
            handler.send_header("Content-Length", str(len(body)) if self.length is None else self.length)
        handler.end_headers()
        with contextlib.suppress(ConnectionError):
            if self.trickle:
                for i in range(len(body)):
                    handler.wfile.write(body[i : i + 1])
                    time.sleep(self.trickle)
            handler.wfile.write(body[: self.cut_after])
            time.sleep(self.hold)


@pytest.fixture
def server(monkeypatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    behaviour = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            behaviour.respond(self)

        def log_message(self, *arguments):
            pass

    listener = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    behaviour.url = f"http://127.0.0.1:{listener.server_address[1]}/{FILE}"
    thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield behaviour
    listener.shutdown()
    thread.join()
    listener.server_close()


@pytest.fixture
def offer(server, monkeypatch):
    """CIFAR-10 as this server publishes it."""

    def publish(content: bytes) -> None:
        server.content = content
        published = data.Download(FILE, server.url, hashlib.md5(content).hexdigest(), len(content))
        monkeypatch.setitem(data.SOURCES, "cifar10", replace(cifar10.SOURCE, downloads=(published,)))

    publish(CONTENT)
    return publish


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_download_with_progress(server, offer, tmp_path):
    seen = []
    path = data.get("cifar10", tmp_path / "new" / "folder", progress=lambda done, total: seen.append((done, total)))
    assert path == tmp_path / "new" / "folder" / FILE
    assert path.read_bytes() == CONTENT
    assert names(path.parent) == [FILE]
    assert seen[0] == (0, len(CONTENT))
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert seen == sorted(seen)
    assert len(seen) > 2
    assert data.get("cifar10", path.parent) == path
    assert len(server.requests) == 1  # the right file is not downloaded again


def test_the_downloaded_archive_loads(server, offer, tmp_path):
    archive = cifar_samples.pack(
        cifar_samples.write_python(cifar_samples.make_sample(), tmp_path / "made"), tmp_path / "a"
    )
    offer(archive.read_bytes())
    data.get("cifar10", tmp_path / "data")
    assert data.load("cifar10", tmp_path / "data").train_x.shape == (30, 3072)


@pytest.mark.parametrize("announce", [True, False])
def test_interrupted_download_resumes(server, offer, tmp_path, announce):
    server.cut_after, server.announce = 700_000, announce
    with pytest.raises(
        DataError, match=r"stopped after 700,000 of 1,048,576 bytes: .*\n  Fix: run the same command again"
    ):
        data.get("cifar10", tmp_path)
    assert names(tmp_path) == [f"{FILE}.part"]
    assert "partial download, 67 %" in [row.status for row in data.ls(tmp_path) if row.dataset == "cifar10"]
    server.cut_after = None
    seen = []
    data.get("cifar10", tmp_path, progress=lambda done, total: seen.append(done))
    assert server.requests == [None, "bytes=700000-"]
    assert seen[0] == 700_000
    assert (tmp_path / FILE).read_bytes() == CONTENT
    assert names(tmp_path) == [FILE]


@pytest.mark.parametrize("part", [b"?" * 5000, CONTENT[:400_000], CONTENT[:999] + b"?" * 5000])
def test_server_without_range_starts_over(server, offer, tmp_path, part):
    (tmp_path / f"{FILE}.part").write_bytes(part)
    server.ranges = False
    assert data.get("cifar10", tmp_path).read_bytes() == CONTENT
    assert server.requests == [f"bytes={len(part)}-"]
    assert names(tmp_path) == [FILE]


def test_server_that_resumes_earlier_or_later(server, offer, tmp_path):
    part = tmp_path / f"{FILE}.part"
    part.write_bytes(CONTENT[:5000])
    server.shift = 10
    with pytest.raises(DataError, match="another part of the file"):
        data.get("cifar10", tmp_path)
    server.shift = -10
    assert data.get("cifar10", tmp_path).read_bytes() == CONTENT


def test_complete_part_is_only_checked(server, offer, tmp_path):
    (tmp_path / f"{FILE}.part").write_bytes(CONTENT)
    assert data.get("cifar10", tmp_path).read_bytes() == CONTENT
    assert server.requests == []


def test_oversized_part_is_dropped(server, offer, tmp_path):
    (tmp_path / f"{FILE}.part").write_bytes(CONTENT + b"x")
    assert data.get("cifar10", tmp_path).read_bytes() == CONTENT
    assert server.requests == [None]


@pytest.mark.parametrize("resumed", [False, True])
def test_wrong_checksum_leaves_what_was_there(server, offer, tmp_path, resumed):
    server.content = CONTENT[:-1] + b"!"
    part = tmp_path / f"{FILE}.part"
    if resumed:
        part.write_bytes(CONTENT[:99])
    expected = hashlib.md5(CONTENT).hexdigest()
    kept = f"The 99 bytes in {part} are kept" if resumed else "Nothing was kept"
    with pytest.raises(DataError, match=rf"is not {FILE}: expected the MD5 checksum {expected}, got .* {kept}"):
        data.get("cifar10", tmp_path)
    assert names(tmp_path) == [part.name] * resumed
    assert not resumed or part.read_bytes() == CONTENT[:99]


def test_a_complete_part_with_a_wrong_checksum_is_removed(server, offer, tmp_path):
    (tmp_path / f"{FILE}.part").write_bytes(CONTENT[:-1] + b"!")
    with pytest.raises(DataError, match="It was removed"):
        data.get("cifar10", tmp_path)
    assert data.get("cifar10", tmp_path).read_bytes() == CONTENT


OTHER = b"<html>log in first</html>"
ANSWERS = {
    "a page": {"content": OTHER, "ranges": False},
    "a page without its length": {"content": OTHER, "ranges": False, "announce": False},
    "a page for a part": {"content": OTHER, "shift": -700_000},
    "a shorter file": {"content": CONTENT[:-1], "ranges": False},
    "a longer file": {"content": CONTENT + b"x", "ranges": False},
    "a longer file without its length": {"content": CONTENT + b"x", "ranges": False, "announce": False},
    "a longer part": {"content": CONTENT + b"x"},
    "the beginning of another file": {"content": b"!" * len(CONTENT), "ranges": False, "cut_after": 900_000},
    "all of another file": {"content": b"!" * len(CONTENT), "ranges": False},
    "another end": {"content": CONTENT[:-1] + b"!"},
    "nothing": {"cut_after": 0},
    "404": {"status": 404},
    "416": {"status": 416},
    "503": {"status": 503},
}


@pytest.mark.parametrize("answer", ANSWERS)
def test_no_answer_replaces_a_good_part(server, offer, tmp_path, answer):
    part = tmp_path / f"{FILE}.part"
    part.write_bytes(CONTENT[:700_000])
    for name, value in ANSWERS[answer].items():
        setattr(server, name, value)
    with pytest.raises(DataError) as caught:
        data.get("cifar10", tmp_path)
    assert names(tmp_path) == [part.name]
    assert part.read_bytes() == CONTENT[:700_000]
    assert "700,000" in str(caught.value)
    good = Server(requests=server.requests, url=server.url)
    for name in ANSWERS[answer]:
        setattr(server, name, getattr(good, name))
    assert data.get("cifar10", tmp_path).read_bytes() == CONTENT
    assert server.requests[-1] == "bytes=700000-"


@pytest.mark.parametrize(("offered", "told"), [(OTHER, "25 bytes"), (CONTENT * 3, "3,145,728 bytes")])
def test_a_length_that_is_not_the_published_one_is_told_at_once(server, offer, tmp_path, offered, told):
    server.content, seen = offered, []
    with pytest.raises(DataError, match=f"offers {told} .* where {FILE} has 1,048,576: it is another file"):
        data.get("cifar10", tmp_path, progress=lambda done, total: seen.append(done))
    assert seen == []
    assert names(tmp_path) == []


RANGES = ["bytes " + "9" * 5000 + "-5/9", "bytes 5-6/" + "1" * 5000, "bytes -5-6/7", "bytes 5-6", "bytes */7", "", "x"]


@pytest.mark.parametrize("header", RANGES, ids=range(len(RANGES)))
def test_strange_ranges_are_refused(server, offer, tmp_path, header):
    (tmp_path / f"{FILE}.part").write_bytes(CONTENT[:5000])
    server.range = header
    with pytest.raises(DataError, match=r"another part of the file .*The 5,000 bytes in .* are kept"):
        data.get("cifar10", tmp_path)
    assert (tmp_path / f"{FILE}.part").read_bytes() == CONTENT[:5000]


@pytest.mark.parametrize("length", ["9" * 5000, "-1", "x"])
def test_a_strange_length_is_no_length(server, offer, tmp_path, length):
    server.length = length
    assert data.get("cifar10", tmp_path).read_bytes() == CONTENT


def test_a_server_that_stalls_is_told_and_loses_nothing(server, offer, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "TIMEOUT", 0.2)
    server.cut_after, server.hold = 300_000, 1.0
    with pytest.raises(DataError, match=r"stopped after 300,000 of .*: the server sent nothing for 0 s"):
        data.get("cifar10", tmp_path)
    assert (tmp_path / f"{FILE}.part").read_bytes() == CONTENT[:300_000]


def test_a_server_that_trickles_is_told_and_loses_nothing(server, offer, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "SLOW_SECONDS", 0.3)
    server.trickle = 0.02
    seen = []
    with pytest.raises(DataError, match=r"stopped after \d+ of .*: the server sent \d+ bytes in 0 s"):
        data.get("cifar10", tmp_path, progress=lambda done, total: seen.append(done))
    assert len(seen) > 5
    assert (tmp_path / f"{FILE}.part").read_bytes() == CONTENT[: seen[-1]]
    server.trickle = 0.0
    assert data.get("cifar10", tmp_path).read_bytes() == CONTENT


def test_two_downloads_of_one_file_exclude_each_other(server, offer, tmp_path):
    with Lock(tmp_path / f"{FILE}.lock", "x"), pytest.raises(BusyError, match=rf"{FILE}\.part is being written by"):
        data.get("cifar10", tmp_path)
    assert data.get("cifar10", tmp_path).read_bytes() == CONTENT


def test_lines_tell_rate_and_time_left_and_speak_up_when_nothing_comes(monkeypatch):
    monkeypatch.setattr(download_progress, "EVERY", 0.02)
    stream, now = io.StringIO(), [100.0]
    lines = download_progress.Lines("x", stream, clock=lambda: now[0])
    assert lines.text(100.0) == "waiting for the server"
    lines(0, 10_000_000)
    for second in range(1, 5):
        now[0] = 100.0 + second
        lines(second * 1000, 10_000_000)
    assert lines.text(now[0]) == "4.0 kB of 10.0 MB, 1.0 kB/s, 2 h 46 min left"
    now[0] += 7
    while "nothing for 7 s" not in stream.getvalue():
        time.sleep(0.01)
    lines.close()
    assert "x: 4.0 kB of 10.0 MB, nothing for 7 s\n" in stream.getvalue()


def test_a_wrong_file_is_replaced_only_by_a_right_one(server, offer, tmp_path):
    (tmp_path / FILE).write_bytes(b"damaged")
    server.content = CONTENT[:-1] + b"!"
    with pytest.raises(DataError, match="checksum"):
        data.get("cifar10", tmp_path)
    assert (tmp_path / FILE).read_bytes() == b"damaged"
    server.content = CONTENT
    assert data.get("cifar10", tmp_path).read_bytes() == CONTENT


def test_endless_server_is_stopped(server, offer, tmp_path):
    server.content, server.announce = CONTENT * 3, False
    with pytest.raises(DataError, match=r"more than the published 1,048,576 bytes. Nothing was kept"):
        data.get("cifar10", tmp_path)
    assert names(tmp_path) == []


def test_a_server_that_sends_nothing(server, offer, tmp_path):
    server.cut_after = 0
    with pytest.raises(DataError, match=r"stopped after 0 of 1,048,576 bytes"):
        data.get("cifar10", tmp_path)
    assert names(tmp_path) == []


def test_server_errors(server, offer, tmp_path):
    server.status = 404
    with pytest.raises(DataError, match=rf"{FILE} answered 404 Not Found"):
        data.get("cifar10", tmp_path)
    assert names(tmp_path) == []
    server.status = None
    server.content = CONTENT[:10]
    (tmp_path / f"{FILE}.part").write_bytes(CONTENT[:20])
    with pytest.raises(DataError, match=r"ends before byte 20, .* is part of one. The 20 bytes in .* are kept"):
        data.get("cifar10", tmp_path)
    assert names(tmp_path) == [f"{FILE}.part"]


def test_a_mirror_must_serve_the_published_file(server, tmp_path):
    with pytest.raises(DataError, match=r"offers 1,048,576 bytes .* has 170,498,071: it is another file\. Nothing"):
        data.get("cifar10", tmp_path, url=server.url)


def test_unreachable_and_odd_addresses(offer, tmp_path):
    with pytest.raises(DataError, match=r"Cannot reach http://127.0.0.1:9/x: .*refused"):
        data.get("cifar10", tmp_path, url="http://127.0.0.1:9/x")
    for url in ("file:///etc/passwd", "ftp://host/x", "cifar.tar.gz"):
        with pytest.raises(UsageError, match="Expected an http:// or https:// address"):
            data.get("cifar10", tmp_path, url=url)
    with pytest.raises(DataError, match="Cannot reach http://: no host given"):
        data.get("cifar10", tmp_path, url="http://")
    for url in ("http://host:port/x", "http://127.0.0.1/a b", "http://[/x"):
        with pytest.raises(UsageError, match=r"'http://.*' is not a usable address"):
            data.get("cifar10", tmp_path, url=url)
    assert names(tmp_path) == []


def test_disk_trouble(server, offer, tmp_path, monkeypatch):
    blocker = tmp_path / "blocker"
    blocker.write_text("a file")
    with pytest.raises(DataError, match=r"Cannot write .*blocker"):
        data.get("cifar10", blocker)
    with pytest.raises(DataError, match=r"Cannot write .*blocker/inside"):
        data.get("cifar10", blocker / "inside")
    (tmp_path / "taken" / FILE).mkdir(parents=True)
    with pytest.raises(DataError, match="a folder of that name is in the way"):
        data.get("cifar10", tmp_path / "taken")
    assert server.requests == []

    usage = download.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(download.shutil, "disk_usage", lambda folder: usage._replace(free=1000))
    with pytest.raises(DataError, match=r"Not enough room in .*: 1,048,576 bytes needed, 1,000 free"):
        data.get("cifar10", tmp_path / "full")
    assert names(tmp_path / "full") == []


def test_several_files_have_no_single_address(offer, monkeypatch, tmp_path, server):
    one = data.SOURCES["cifar10"].downloads[0]
    two = (one, replace(one, file="folder/second.bin"))
    monkeypatch.setitem(data.SOURCES, "cifar10", replace(cifar10.SOURCE, downloads=two))
    with pytest.raises(UsageError, match="has 2 files; one address cannot replace them"):
        data.get("cifar10", tmp_path, url=server.url)
    assert data.get("cifar10", tmp_path) == tmp_path
    assert names(tmp_path) == [FILE, "folder"]
    assert names(tmp_path / "folder") == ["second.bin"]


def test_published_addresses():
    published = data.SOURCES["cifar10"].downloads[0]
    assert published.url == "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"
    assert published.md5 == "c58f30108f718f92721af3b95e74349a"
    background = data.SOURCES["omniglot"].downloads[0]
    assert background.url == "https://github.com/brendenlake/omniglot/raw/master/python/images_background.zip"
    assert (background.md5, background.size) == ("68d2efa1b9178cc56df9314c21c6e718", 9_464_212)
