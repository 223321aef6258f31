"""aii.download against a server on the loopback that breaks off, lies and refuses as told."""

from __future__ import annotations

import hashlib
import io
import multiprocessing
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest

from aii.download import Fetch, download
from aii.errors import DownloadError
from aii.progress import ProgressBar

BODY = bytes(range(256)) * 12_000  # 3 MB, more than two reads
SHA256 = hashlib.sha256(BODY).hexdigest()


@dataclass
class Script:
    """What the server does and what it saw.

    Attributes:
        cuts: for each request in turn, how many bytes it sends before it hangs up (None: all).
        ranges: whether it honours Range.
        length: whether it announces Content-Length.
        status: for each request in turn, an error to answer with (None: the file).
    """

    body: bytes = BODY
    cuts: list[int | None] = field(default_factory=list)
    ranges: bool = True
    length: bool = True
    status: list[int | None] = field(default_factory=list)
    seen: list[tuple[str, str | None]] = field(default_factory=list)


class Handler(BaseHTTPRequestHandler):
    script: Script

    def do_GET(self) -> None:
        script, wanted = self.script, self.headers.get("Range")
        script.seen.append((self.path, wanted))
        turn = len(script.seen) - 1
        status = script.status[turn] if turn < len(script.status) else None
        if status:
            self.send_error(status)
            return
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and script.ranges else 0
        if start >= len(script.body):
            self.send_error(416)
            return
        body = script.body[start:]
        self.send_response(206 if start else 200)
        if start:
            total = len(script.body)
            self.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
        if script.length:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        cut = script.cuts[turn] if turn < len(script.cuts) else None
        self.wfile.write(body[:cut])
        self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, Script]]:
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    script = Script()
    handler = type("ScriptedHandler", (Handler,), {"script": script})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as httpd:
        thread = threading.Thread(target=httpd.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{httpd.server_address[1]}", script
        httpd.shutdown()
        thread.join()


def fetch_of(base: str, sha256: str = SHA256, attempts: int = 4) -> Fetch:
    return Fetch(f"{base}/m.pt", sha256, attempts=attempts, timeout=10, sleep=lambda _: None)


def test_whole_file(server: tuple[str, Script], tmp_path: Path) -> None:
    base, script = server
    target = tmp_path / "deep" / "m.pt"
    assert download(fetch_of(base), target) == target
    assert target.read_bytes() == BODY
    assert script.seen == [("/m.pt", None)]
    assert not (tmp_path / "deep" / "m.pt.part").exists()


def test_a_sound_file_is_not_fetched_again(server: tuple[str, Script], tmp_path: Path) -> None:
    base, script = server
    target = tmp_path / "m.pt"
    target.write_bytes(BODY)
    download(fetch_of(base), target)
    assert script.seen == []


def test_breaks_are_resumed_where_they_happened(server: tuple[str, Script], tmp_path: Path) -> None:
    base, script = server
    script.cuts = [1_500_000, 700_000]
    download(fetch_of(base), tmp_path / "m.pt")
    assert (tmp_path / "m.pt").read_bytes() == BODY
    assert [wanted for _, wanted in script.seen] == [None, "bytes=1500000-", "bytes=2200000-"]


def test_a_later_call_goes_on_with_what_an_earlier_one_left(
    server: tuple[str, Script], tmp_path: Path
) -> None:
    base, script = server
    script.cuts = [1_000_000]
    with pytest.raises(DownloadError, match="cannot download"):
        download(fetch_of(base, attempts=1), tmp_path / "m.pt")
    assert (tmp_path / "m.pt.part").stat().st_size == 1_000_000
    download(fetch_of(base), tmp_path / "m.pt")
    assert script.seen[-1][1] == "bytes=1000000-"
    assert (tmp_path / "m.pt").read_bytes() == BODY


def test_server_without_ranges_starts_over(server: tuple[str, Script], tmp_path: Path) -> None:
    base, script = server
    script.ranges = False
    script.cuts = [1_000_000]
    download(fetch_of(base), tmp_path / "m.pt")
    assert (tmp_path / "m.pt").read_bytes() == BODY
    assert len(script.seen) == 2


def test_server_without_lengths(server: tuple[str, Script], tmp_path: Path) -> None:
    base, script = server
    script.length = False
    script.cuts = [5]  # looks like the end; the checksum tells
    download(fetch_of(base), tmp_path / "m.pt")
    assert (tmp_path / "m.pt").read_bytes() == BODY


def test_part_that_is_complete_already(server: tuple[str, Script], tmp_path: Path) -> None:
    base, script = server
    (tmp_path / "m.pt.part").write_bytes(BODY)
    download(fetch_of(base), tmp_path / "m.pt")
    assert (tmp_path / "m.pt").read_bytes() == BODY
    assert len(script.seen) == 1  # answered 416


def test_part_that_is_too_long_or_wrong_is_thrown_away(
    server: tuple[str, Script], tmp_path: Path
) -> None:
    base, _ = server
    for rubbish in (BODY + b"more", b"x" * 1000):
        (tmp_path / "m.pt.part").write_bytes(rubbish)
        (tmp_path / "m.pt").unlink(missing_ok=True)
        download(fetch_of(base), tmp_path / "m.pt")
        assert (tmp_path / "m.pt").read_bytes() == BODY


def test_wrong_bytes_never_get_the_name(server: tuple[str, Script], tmp_path: Path) -> None:
    base, script = server
    target = tmp_path / "m.pt"
    target.write_bytes(b"an older file")
    with pytest.raises(DownloadError, match="SHA-256 is .* promised was 000000"):
        download(fetch_of(base, sha256="0" * 64, attempts=2), target)
    assert target.read_bytes() == b"an older file"
    assert not (tmp_path / "m.pt.part").exists()
    assert len(script.seen) == 2


def test_not_found_is_not_tried_again(server: tuple[str, Script], tmp_path: Path) -> None:
    base, script = server
    script.status = [404]
    with pytest.raises(DownloadError, match="answered 404"):
        download(fetch_of(base), tmp_path / "m.pt")
    assert len(script.seen) == 1


def test_an_overloaded_server_is_asked_again(server: tuple[str, Script], tmp_path: Path) -> None:
    base, script = server
    script.status = [503, 429]
    pauses: list[float] = []
    fetch = Fetch(f"{base}/m.pt", SHA256, timeout=10, pause=1.0, sleep=pauses.append)
    download(fetch, tmp_path / "m.pt")
    assert (tmp_path / "m.pt").read_bytes() == BODY
    assert pauses == [1.0, 2.0]


def test_nobody_there(tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match="cannot download"):
        download(fetch_of("http://127.0.0.1:1"), tmp_path / "m.pt")


def test_a_proxy_from_the_environment_is_used(
    server: tuple[str, Script], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, script = server
    monkeypatch.setenv("http_proxy", base)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    download(fetch_of("http://models.invalid"), tmp_path / "m.pt")
    assert script.seen == [("http://models.invalid/m.pt", None)]


def test_a_folder_that_cannot_be_written(server: tuple[str, Script], tmp_path: Path) -> None:
    base, _ = server
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(DownloadError, match="cannot write"):
        download(fetch_of(base), tmp_path / "file" / "m.pt")


def test_an_absurd_length_is_refused(
    server: tuple[str, Script], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, _ = server
    monkeypatch.setattr("aii.download._MAX_BYTES", 1000)
    with pytest.raises(DownloadError, match="announces 3072000 bytes"):
        download(fetch_of(base), tmp_path / "m.pt")


def test_a_full_disk_is_noticed_before_the_download(
    server: tuple[str, Script], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, _ = server
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(DownloadError, match="no room for 3 MB"):
        download(fetch_of(base), tmp_path / "m.pt")


def test_endless_body_without_a_length(
    server: tuple[str, Script], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, script = server
    script.length = False
    monkeypatch.setattr("aii.download._MAX_BYTES", 1_000_000)
    with pytest.raises(DownloadError, match="without end"):
        download(fetch_of(base), tmp_path / "m.pt")


def _download_elsewhere(base: str, target: str) -> None:
    download(Fetch(f"{base}/m.pt", SHA256, timeout=10), Path(target))


def test_two_processes_fetch_once(server: tuple[str, Script], tmp_path: Path) -> None:
    base, script = server
    target = str(tmp_path / "m.pt")
    context = multiprocessing.get_context("spawn")
    pair = [context.Process(target=_download_elsewhere, args=(base, target)) for _ in range(2)]
    for process in pair:
        process.start()
    for process in pair:
        process.join(200)
        assert process.exitcode == 0
    assert Path(target).read_bytes() == BODY
    assert len(script.seen) == 1


def test_a_lock_that_is_never_let_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fcntl = pytest.importorskip("fcntl")
    monkeypatch.setattr("aii.download._LOCK_SECONDS", 3.0)
    pauses: list[float] = []
    with (tmp_path / "m.pt.lock").open("ab") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        fetch = Fetch("http://127.0.0.1:1/m.pt", SHA256, sleep=pauses.append)
        with pytest.raises(DownloadError, match=r"another process has held .*m\.pt\.lock"):
            download(fetch, tmp_path / "m.pt")
    assert pauses == [1.0, 1.0, 1.0]


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_bar_is_for_terminals_only() -> None:
    terminal, file = _Terminal(), io.StringIO()
    for stream in (terminal, file):
        with ProgressBar("m.pt", 4e6, stream=stream) as bar:
            bar.update(1e6)
            bar.update(4e6)
    assert file.getvalue() == ""
    assert "100% |" + "#" * 30 + "| 4.0/4.0 MB" in terminal.getvalue()


def test_off_a_terminal_a_download_is_one_line(
    server: tuple[str, Script], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "small.pt"
    download(fetch_of(server[0]), target)
    size = f"{len(BODY) / 1e6:.0f} MB"
    assert capsys.readouterr().err == f"aii: downloading small to {target} ({size})\n"


def test_progress_line_tells_pace_and_rest() -> None:
    bar = ProgressBar("m.pt", 10e6, stream=io.StringIO())
    bar.update(2e6)  # what was there before does not count into the pace
    bar.update(5e6)
    expected = "m.pt   50% |" + "#" * 15 + " " * 15 + "| 5.0/10.0 MB, 1.5 MB/s, 3 s left"
    assert bar.line(elapsed=2.0) == expected
    unknown = ProgressBar("m.pt", 0, stream=io.StringIO())
    unknown.update(0)
    unknown.update(3e6)
    assert unknown.line(elapsed=3.0) == "m.pt  3.0 MB, 1.0 MB/s"
