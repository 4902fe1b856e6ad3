import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from decathlon.data.download import Archive, download, official_archives
from mtan_core.errors import UserError

CONTENT = np.random.default_rng(0).bytes(1_500_000)


class Handler(BaseHTTPRequestHandler):
    """Serves `content`, breaking off after `drop_after` bytes `drops` times; notes the Range of every request."""

    content = CONTENT
    etag = '"one"'
    ranges = True
    drops = 0
    drop_after = 400_000
    seen: list[str | None]

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        self.seen.append(wanted)
        if not self.path.endswith(".bin"):
            self.send_error(404)
            return
        start = 0
        if wanted and self.ranges and self.headers.get("If-Range") == self.etag:
            start = int(wanted.removeprefix("bytes=").rstrip("-"))
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(self.content) - 1}/{len(self.content)}")
        else:
            self.send_response(200)
        self.send_header("ETag", self.etag)
        self.send_header("Content-Length", str(len(self.content) - start))
        self.end_headers()
        end = len(self.content)
        if type(self).drops:
            type(self).drops -= 1
            end = start + self.drop_after
        with suppress(ConnectionError):  # a client that has seen enough hangs up
            self.wfile.write(self.content[start:end])
        self.close_connection = True

    def log_message(self, *_: Any) -> None: ...


@contextmanager
def serving(**settings: Any) -> Iterator[tuple[str, type[Handler]]]:
    handler: type[Handler] = type("Served", (Handler,), {"seen": [], **settings})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}", handler
        finally:
            server.shutdown()
            thread.join()


def archive(name: str = "a.bin", content: bytes = CONTENT) -> Archive:
    return Archive(name, f"http://127.0.0.1:9/{name}", len(content), hashlib.sha256(content).hexdigest())


def fetch(folder: Path, url: str, one: Archive | None = None) -> dict[str, str]:
    return download(folder, url, [one or archive()], pause=0.001)


def test_it_fetches_checks_and_keeps(tmp_path: Path) -> None:
    with serving() as (url, handler):
        assert fetch(tmp_path, url) == {"a.bin": "fetched"}
        assert (tmp_path / "a.bin").read_bytes() == CONTENT
        assert fetch(tmp_path, url) == {"a.bin": "kept"}
    assert handler.seen == [None]
    assert [file.name for file in tmp_path.iterdir()] == ["a.bin"]


def test_dropped_connections_are_taken_up_where_they_broke(tmp_path: Path) -> None:
    with serving(drops=3) as (url, handler):
        fetch(tmp_path, url)
    assert (tmp_path / "a.bin").read_bytes() == CONTENT
    assert handler.seen == [None, "bytes=400000-", "bytes=800000-", "bytes=1200000-"]


def test_a_server_without_ranges_begins_anew(tmp_path: Path) -> None:
    with serving(drops=2, ranges=False) as (url, _):
        fetch(tmp_path, url)
    assert (tmp_path / "a.bin").read_bytes() == CONTENT


def test_a_later_run_resumes_unless_the_file_has_changed(tmp_path: Path) -> None:
    with serving(drops=99, drop_after=0) as (url, handler):
        handler.drops, handler.drop_after = 1, 300_000
        with pytest.raises(UserError, match=r"found the connection failing at 300000.*goes on from there"):
            handler_drops_for_ever(handler)
            fetch(tmp_path, url)
    assert (tmp_path / "a.bin.part").stat().st_size == 300_000
    with serving(etag='"two"') as (url, handler):
        fetch(tmp_path, url)
        assert handler.seen == ["bytes=300000-"]
    assert (tmp_path / "a.bin").read_bytes() == CONTENT


def handler_drops_for_ever(handler: type[Handler]) -> None:
    """From its second answer on, the server sends headers and nothing else."""
    original = handler.do_GET

    def do_get(self: Handler) -> None:
        original(self)
        handler.drops, handler.drop_after = 99, 0

    handler.do_GET = do_get  # type: ignore[method-assign]


def test_what_is_not_the_official_file_is_refused_and_removed(tmp_path: Path) -> None:
    with serving(content=CONTENT[:-1] + b"x") as (url, _):
        one = archive(content=CONTENT[:-1] + b"y")
        with pytest.raises(UserError, match="Expected sha256"):
            fetch(tmp_path, url, one)
        assert not list(tmp_path.iterdir())
        with pytest.raises(UserError, match="1500000 offered"):
            fetch(tmp_path, url, archive(content=CONTENT[:-1]))
    (tmp_path / "a.bin").write_bytes(b"something of the user's")
    with pytest.raises(UserError, match="Expected 1500000 bytes"):
        fetch(tmp_path, "http://127.0.0.1:9")
    assert (tmp_path / "a.bin").read_bytes() == b"something of the user's"


def test_a_refusal_and_a_dead_server_are_told(tmp_path: Path) -> None:
    with serving() as (url, _), pytest.raises(UserError, match="status 404"):
        fetch(tmp_path, url, archive("missing"))
    with pytest.raises(UserError, match="connection failing at 0"):
        fetch(tmp_path, url)
    with pytest.raises(UserError, match="--base-url"):
        fetch(tmp_path, "ftp://somewhere")


def test_the_official_archives_are_known(tmp_path: Path) -> None:
    devkit, data, imagenet = official_archives()
    assert (devkit.size, data.size, imagenet.size) == (23_503_205, 406_351_554, 6_535_075_840)
    assert all(len(one.sha256) == 64 for one in (devkit, data, imagenet))
    state = download(tmp_path, archives=[imagenet])["decathlon-1.0-data-imagenet.tar"]
    assert "sign in" in state
    assert str(tmp_path) in state
