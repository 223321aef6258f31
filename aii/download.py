"""One large file over HTTP: resumed, checked and put in place whole, or not at all.

The bytes go to ``NAME.part`` beside the target. A later call goes on from there with an HTTP Range
request. Only a file with the promised SHA-256 gets the target's name, by an atomic rename. A lock
file keeps two processes from writing the same part. Proxies come from the environment
(``http_proxy``, ``https_proxy``, ``no_proxy``), as urllib reads them.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import shutil
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from aii.errors import DownloadError
from aii.progress import ProgressBar

try:
    import fcntl
except ImportError:  # Windows: two processes are then not kept apart, the rename still is atomic
    fcntl = None  # type: ignore[assignment]

_CHUNK = 1 << 20  # bytes per read
_MAX_BYTES = 16 << 30  # larger than any published model by far
_LOCK_SECONDS = 3600.0
_RETRIED_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})
_PASSING_ERRORS = (
    urllib.error.URLError,
    http.client.HTTPException,
    TimeoutError,
    ConnectionError,
    ssl.SSLError,
)


@dataclass(frozen=True)
class Fetch:
    """What to fetch and how hard to try.

    Attributes:
        url: http or https address.
        sha256: the promised checksum, 64 lower-case hexadecimal digits.
        attempts: connections that are opened before giving up; each goes on where the last broke.
        timeout: seconds without a byte after which a connection counts as dead.
        pause: seconds before the second attempt; doubled for each later one.
        sleep: waits that long; tests pass a fake.
    """

    url: str
    sha256: str
    attempts: int = 5
    timeout: float = 30.0
    pause: float = 1.0
    sleep: Callable[[float], None] = time.sleep


def file_sha256(path: Path) -> str:
    """SHA-256 of a file as hexadecimal digits, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_CHUNK):
            digest.update(piece)
    return digest.hexdigest()


def download(fetch: Fetch, target: Path) -> Path:
    """Have the file at ``target`` with the promised checksum; returns ``target``.

    A file that is there already and has the checksum is left alone; one that has not is replaced
    when the new one is complete.

    Raises:
        DownloadError: the server refused, vanished too often, or sent other bytes than promised;
            or the disk has no room.
    """
    part = target.with_name(target.name + ".part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _lock(target.with_name(target.name + ".lock"), fetch.sleep):
            if not (target.is_file() and file_sha256(target) == fetch.sha256):
                _fetch_whole(fetch, part)
                os.replace(part, target)
    except OSError as error:
        raise DownloadError(f"cannot write {target}: {error.strerror or error}") from error
    return target


@contextlib.contextmanager
def _lock(path: Path, sleep: Callable[[float], None]) -> Iterator[None]:
    """Hold the lock file ``path``, waiting for another process for up to an hour."""
    if fcntl is None:
        yield
        return
    with path.open("ab") as file:
        for _ in range(int(_LOCK_SECONDS)):
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                sleep(1.0)
        else:
            raise DownloadError(f"another process has held {path} for an hour; end it or remove it")
        yield  # closing the file releases the lock


def _fetch_whole(fetch: Fetch, part: Path) -> None:
    """Fill ``part`` with the promised bytes, in as many connections as are allowed."""
    problem = "nothing was tried"
    for attempt in range(fetch.attempts):
        if attempt:
            fetch.sleep(fetch.pause * 2 ** (attempt - 1))
        try:
            _fetch_rest(fetch, part)
        except urllib.error.HTTPError as error:
            problem = f"the server answered {error.code} {error.reason}"
            error.close()
            if error.code == 416:  # the part is as long as the file, or longer
                if part.is_file() and file_sha256(part) == fetch.sha256:
                    return
                part.unlink(missing_ok=True)
            elif error.code not in _RETRIED_STATUS:
                raise DownloadError(f"cannot download {fetch.url}: {problem}") from None
            continue
        except _PASSING_ERRORS as error:
            problem = str(getattr(error, "reason", None) or error) or type(error).__name__
            continue
        found = file_sha256(part)
        if found == fetch.sha256:
            return
        problem = f"SHA-256 is {found[:12]}..., promised was {fetch.sha256[:12]}..."
        part.unlink()
    raise DownloadError(f"cannot download {fetch.url}: {problem}; try again later")


def _fetch_rest(fetch: Fetch, part: Path) -> None:
    """One connection: append what is missing, or start over where the server cannot resume.

    Raises:
        urllib.error.URLError, http.client.HTTPException, OSError: the connection failed;
            what has come so far is kept in ``part``.
    """
    have = part.stat().st_size if part.is_file() else 0
    headers = {"User-Agent": "aii", "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
    request = urllib.request.Request(fetch.url, headers=headers)
    opener = urllib.request.build_opener()  # a new one, so that the proxies are today's
    with opener.open(request, timeout=fetch.timeout) as response:
        if have and not _resumes_at(response, have):
            have = 0
        length = int(response.headers.get("Content-Length") or 0)
        _check_room(part, length)
        with part.open("ab" if have else "wb") as output:
            _copy(response, output, have, length)


def _resumes_at(response: Any, offset: int) -> bool:
    """Whether the answer is the rest of the file from ``offset`` on, not the whole of it."""
    content_range = response.headers.get("Content-Range") or ""
    return response.status == 206 and content_range.startswith(f"bytes {offset}-")


def _check_room(part: Path, length: int) -> None:
    if length > _MAX_BYTES:
        raise DownloadError(f"the server announces {length} bytes for {part.stem}; not a model")
    if length > shutil.disk_usage(part.parent).free:
        raise DownloadError(f"{part.parent} has no room for {length / 1e6:.0f} MB; free some space")


def _copy(source: Any, output: BinaryIO, have: int, length: int) -> None:
    """Append the answer's body; a body that ends early is a passing error."""
    got = 0
    target = Path(output.name).with_suffix("")
    label, total = target.name, have + length if length else 0
    size = f"{total / 1e6:.0f} MB" if total else "of unknown size"
    here = f", {have / 1e6:.0f} MB of it are here" if have else ""
    announcement = f"aii: downloading {target.stem} to {target} ({size}{here})"
    with ProgressBar(label, total, announcement=announcement) as bar:
        bar.update(have)
        while piece := source.read(_CHUNK):
            got += len(piece)
            if have + got > _MAX_BYTES:
                raise DownloadError(f"the server sends {label} without end; not a model")
            output.write(piece)
            bar.update(have + got)
    if length and got < length:
        raise http.client.IncompleteRead(b"", length - got)
