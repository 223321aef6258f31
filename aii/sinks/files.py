"""Files that sinks write: names made of call ids, rotation, one file per call.

The outputs here are written without buffers of Python's, so that after a failed write it is known
how much of a line has got there, and no line comes twice or in two halves.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import re
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

log = logging.getLogger(__name__)

OPEN_CALLS = 10_000
"""Calls whose file is known; beyond that the one that was written longest ago is forgotten."""

_LONGEST = 120


def file_stem(call_id: str) -> str:
    """A file name for a call, without folder and extension, whatever the caller sent as its id.

    Letters, digits and a few marks stay; everything else is written as ``%XX``. What is too long is
    cut and told apart by a hash.
    """
    stem = "".join(
        char if re.fullmatch(r"[A-Za-z0-9_.@+~-]", char) else "".join(f"%{b:02X}" for b in bytes_)
        for char in call_id
        for bytes_ in (char.encode("utf-8", "surrogatepass"),)
    )
    if stem.startswith("."):
        stem = "%2E" + stem[1:]
    if len(stem) > _LONGEST:
        stem = stem[:_LONGEST] + "-" + hashlib.sha256(call_id.encode()).hexdigest()[:12]
    return stem or "call"


def open_new(folder: Path, stem: str, extension: str) -> tuple[Path, BinaryIO]:
    """A new file ``stem.extension``, or ``stem~2.extension``... where that is there already.

    Raises:
        OSError: it cannot be made.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(1, 100_000):
        name = stem if number == 1 else f"{stem}~{number}"
        path = folder / f"{name}.{extension}"
        with contextlib.suppress(FileExistsError):
            return path, open(path, "xb", buffering=0)
    raise OSError(f"there are too many files called {stem}.{extension} in {folder}")


def day(now: float) -> str:
    """The date of a Unix time, in UTC."""
    return time.strftime("%Y-%m-%d", time.gmtime(now))


class RotatingFile:
    """An output that appends to a file and puts it aside when it is large or a day is over.

    What was put aside is called ``calls.2025-01-31T120000.jsonl`` for ``calls.jsonl``. It goes on
    in a new file, too, when somebody else (logrotate) has moved the file.

    Args:
        path: the file.
        rotate: bytes after which it is put aside, "day", or None for never.
        keep: files put aside that are kept, the oldest go; None keeps all.
        clock: Unix time.

    Raises:
        OSError: it cannot be opened.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        rotate: int | str | None = None,
        keep: int | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._path = Path(path)
        self._rotate = rotate
        self._keep = keep
        self._clock = clock
        self._half = False  # the last write ended within a line
        self._open()

    def _open(self) -> None:
        self._file = open(self._path, "ab", buffering=0)  # noqa: SIM115
        state = os.fstat(self._file.fileno())
        self._size = state.st_size
        self._day = day(state.st_mtime if state.st_size else self._clock())

    def write(self, data: bytes) -> int:
        """Write the beginning of ``data``, whole lines unless the disk takes less."""
        if not self._half:
            self._look()
            first = data.find(b"\n") + 1 or len(data)
            if self._due(first):
                self._put_aside()
            if isinstance(self._rotate, int):
                room = max(self._rotate - self._size, first)
                data = data[: data.rfind(b"\n", 0, room) + 1 or len(data)]
        count = self._file.write(data) or 0
        self._size += count
        if count:
            self._half = not data[:count].endswith(b"\n")
        return count

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _look(self) -> None:
        """Open the file anew if it is not under its name any more."""
        try:
            there = os.stat(self._path)
            ours = os.fstat(self._file.fileno())
            moved = (there.st_dev, there.st_ino) != (ours.st_dev, ours.st_ino)
        except FileNotFoundError:
            moved = True
        if moved:
            self._file.close()
            self._open()

    def _due(self, coming: int) -> bool:
        if not self._size or self._rotate is None:
            return False
        if self._rotate == "day":
            return day(self._clock()) != self._day
        return self._size + coming > int(self._rotate)

    def _put_aside(self) -> None:
        path = self._path
        moment = time.strftime("%Y-%m-%dT%H%M%S", time.gmtime(self._clock()))
        for number in range(1, 1000):
            name = f"{path.stem}.{moment}" + (f"-{number}" if number > 1 else "") + path.suffix
            target = path.with_name(name)
            if not target.exists():
                break
        try:
            os.rename(path, target)
        except OSError as error:
            log.error("%s cannot be put aside: %s; it grows on", path, error.strerror)
            self._rotate = None
            return
        self._file.close()
        self._open()
        if self._keep is not None:
            for old in self._aside()[: -self._keep]:
                with contextlib.suppress(OSError):
                    old.unlink()

    def _aside(self) -> list[Path]:
        """The files put aside, the oldest first."""
        shape = re.compile(
            re.escape(self._path.stem) + r"\.(\d{4}-\d\d-\d\dT\d{6})(?:-(\d+))?"
            + re.escape(self._path.suffix)
        )  # fmt: skip
        found = ((shape.fullmatch(item.name), item) for item in self._path.parent.iterdir())
        dated = [((m[1], int(m[2] or 1)), item) for m, item in found if m is not None]
        return [item for _, item in sorted(dated)]


@dataclass
class _OpenCall:
    """Where a call is written, and how many of its legs are open."""

    path: Path
    legs: int = 0


class CallFolder:
    """An output that takes lines of all calls and appends each to its call's own file.

    A line is ``MARK\\tCALL ID\\tTEXT``; the mark is ``+`` for the first line of a call, ``-`` for
    its last one, else nothing. A call id that comes again later gets a new file (``id~2.jsonl``).
    Files are opened for each write, so that thousands of calls need no descriptor.

    Args:
        folder: made if it is not there.
        extension: of the files.
        daily: put the files into a folder per day (UTC) of the call's beginning.
        clock: Unix time.

    Raises:
        OSError: the folder cannot be made or written.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        extension: str = "jsonl",
        daily: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._folder = Path(folder)
        self._extension = extension
        self._daily = daily
        self._clock = clock
        self._calls: OrderedDict[str, _OpenCall] = OrderedDict()
        self._done = 0  # bytes of the current line's text that are written
        self._folder.mkdir(parents=True, exist_ok=True)
        if not os.access(self._folder, os.W_OK | os.X_OK):
            raise PermissionError(13, "Permission denied", str(folder))

    def write(self, data: bytes) -> int:
        """Write the first line of ``data``; all of it counts as written once its text is."""
        line, _, _ = data.partition(b"\n")
        mark, call, text = line.split(b"\t", 2)
        call_id = call.decode("utf-8", "replace")
        known = self._calls.get(call_id) or self._begin(call_id)
        rest = (text + b"\n")[self._done :]
        with open(known.path, "ab", buffering=0) as file:
            count = file.write(rest) or 0
        self._done += count
        if count < len(rest):
            raise OSError("the disk took half a line")
        self._done = 0
        known.legs += {b"+": 1, b"-": -1}.get(mark, 0)
        if mark == b"-" and known.legs <= 0:
            self._calls.pop(call_id, None)
        return len(line) + 1

    def _begin(self, call_id: str) -> _OpenCall:
        folder = self._folder / day(self._clock()) if self._daily else self._folder
        path, file = open_new(folder, file_stem(call_id), self._extension)
        file.close()
        self._calls[call_id] = known = _OpenCall(path)
        if len(self._calls) > OPEN_CALLS:
            self._calls.popitem(last=False)
        return known

    def close(self) -> None:
        """Nothing is open between writes."""
