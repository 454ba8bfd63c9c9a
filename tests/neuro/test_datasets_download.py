"""Downloads against a local server that resumes, breaks off, ignores ranges, lies, floods or has nothing."""

from __future__ import annotations

import gzip
import hashlib
import http.server
import re
import socketserver
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from neuro import datasets
from neuro.datasets.download import Remote, RemoteFile, fetch
from neuro.datasets.mnist import MNIST_MIRRORS
from neuro.errors import DataError

CONTENT = np.random.RandomState(2).bytes(300_000)
PACKED = gzip.compress(CONTENT, mtime=0)
FILE = RemoteFile("array", len(CONTENT), hashlib.sha256(CONTENT).hexdigest())


class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    """Serves PACKED, or files of `folder`; a URL begins with the manner. `asked` holds (manner, Range) of requests."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[tuple[str, str | None]] = []
        self.folder = Path()

    def mirrors(self, *manners: str) -> tuple[str, ...]:
        return tuple(f"http://127.0.0.1:{self.server_port}/{manner}/" for manner in manners)

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up on a flood is what the test wants."""


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        manner, wanted = self.path.split("/")[1], self.headers.get("Range")
        self.server.asked.append((manner, wanted))
        if manner == "absent":
            self.send_error(404)
            return
        content = gzip.compress(CONTENT[::-1], mtime=0) if manner == "liar" else PACKED
        if manner == "folder":
            content = (self.server.folder / self.path.split("/")[2]).read_bytes()
        start = int(match[1]) if wanted and (match := re.match(r"bytes=(\d+)-", wanted)) else 0
        if manner == "ignores-range":
            start = 0
        if start >= len(content):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        if manner != "flood":
            self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        body = content[start:]
        if manner == "breaks-off" and not start:
            body = body[: len(body) // 3]
        if manner == "flood":
            body = bytes(4 * len(CONTENT))
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """Quiet."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def arrived(folder: Path) -> bool:
    return [path.name for path in folder.iterdir()] == ["array.gz"] and (folder / "array.gz").read_bytes() == PACKED


def test_a_whole_file(server: Server, tmp_path: Path) -> None:
    remote = Remote((FILE,), server.mirrors("good"))
    fetch(remote, tmp_path / "new" / "folder")
    assert arrived(tmp_path / "new" / "folder")
    assert server.asked == [("good", None)]
    fetch(remote, tmp_path / "new" / "folder")
    assert len(server.asked) == 1  # what is there is not fetched again


def test_a_broken_connection_is_continued_where_it_broke(server: Server, tmp_path: Path) -> None:
    fetch(Remote((FILE,), server.mirrors("breaks-off")), tmp_path)
    assert arrived(tmp_path)
    assert server.asked == [("breaks-off", None), ("breaks-off", f"bytes={len(PACKED) // 3}-")]


@pytest.mark.parametrize("have", [1, len(PACKED) // 2, len(PACKED)])
@pytest.mark.parametrize("manner", ["good", "ignores-range"])
def test_a_part_of_an_earlier_run_is_used(server: Server, tmp_path: Path, have: int, manner: str) -> None:
    (tmp_path / "array.gz.part").write_bytes(PACKED[:have])
    fetch(Remote((FILE,), server.mirrors(manner)), tmp_path)
    assert arrived(tmp_path)
    assert server.asked[0] == (manner, f"bytes={have}-")
    assert len(server.asked) == 1


def test_a_part_that_was_wrong_is_dropped_and_fetched_anew(server: Server, tmp_path: Path) -> None:
    (tmp_path / "array.gz.part").write_bytes(b"x" * 1000)
    fetch(Remote((FILE,), server.mirrors("good")), tmp_path)
    assert arrived(tmp_path)
    assert server.asked == [("good", "bytes=1000-"), ("good", None)]


def test_the_next_mirror_helps(server: Server, tmp_path: Path) -> None:
    fetch(Remote((FILE,), server.mirrors("absent", "liar", "flood", "good")), tmp_path)
    assert arrived(tmp_path)
    assert server.asked[-1][0] == "good"


@pytest.mark.parametrize(
    ("manner", "reason"),
    [("liar", "not the published one"), ("flood", "sends more than"), ("absent", "HTTP 404")],
)
def test_nothing_false_ever_gets_the_name(server: Server, tmp_path: Path, manner: str, reason: str) -> None:
    with pytest.raises(DataError, match=reason) as refusal:
        fetch(Remote((FILE,), server.mirrors(manner)), tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert "by hand" in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_no_server_at_all(tmp_path: Path) -> None:
    with Server() as closed:
        port = closed.server_port
    with pytest.raises(DataError, match="refused"):
        fetch(Remote((FILE,), (f"http://127.0.0.1:{port}/",)), tmp_path, timeout=2.0)


def test_load_goes_to_the_network_only_when_allowed(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NEURO_DATA", raising=False)
    monkeypatch.setattr("neuro.datasets.source.user_cache", lambda: tmp_path)
    source = datasets.SOURCES["mnist"]
    assert isinstance(source, datasets.InFolder)
    monkeypatch.setitem(datasets.SOURCES, "mnist", replace(source, remote=Remote((FILE,), server.mirrors("good"))))
    with pytest.raises(DataError, match="download=True"):
        datasets.load("mnist")
    assert server.asked == []
    with pytest.raises(DataError, match="lacks train-images"):  # the one file the server has is not MNIST
        datasets.load("mnist", download=True)
    assert server.asked == [("good", None)]
    assert (tmp_path / "mnist" / "array.gz").exists()


def test_half_a_downloaded_mnist_is_completed_and_verified(
    server: Server, shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NEURO_DATA", raising=False)
    monkeypatch.setattr("neuro.datasets.source.user_cache", lambda: tmp_path)
    server.folder = shared / "data" / "mnist"
    source = datasets.SOURCES["mnist"]
    assert isinstance(source, datasets.InFolder)
    remote = Remote(MNIST_MIRRORS.files, server.mirrors("folder"))
    monkeypatch.setitem(datasets.SOURCES, "mnist", replace(source, remote=remote))
    (tmp_path / "mnist").mkdir()
    first, second = (f"{file.name}.gz" for file in remote.files[:2])
    (tmp_path / "mnist" / first).write_bytes((server.folder / first).read_bytes())
    (tmp_path / "mnist" / f"{second}.part").write_bytes((server.folder / second).read_bytes()[:777])
    split = datasets.load("mnist", download=True)
    assert [len(y) for _, y in split.parts.values()] == [54_000, 6_000, 10_000]
    assert server.asked == [("folder", "bytes=777-"), ("folder", None), ("folder", None)]
    assert len(list((tmp_path / "mnist").iterdir())) == 4
