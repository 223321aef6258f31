"""Events as JSON lines, one object per line, in UTF-8."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from functools import partial
from typing import TextIO

from aii.sinks.base import LineSink, Output, TextOutput
from aii.sinks.files import CallFolder, RotatingFile
from aii.streaming.events import CallEnded, CallStarted, Event, Partial

RETRY = 1.0
"""Seconds between attempts to write a file whose disk is full, say."""


def json_line(event: Event) -> str:
    """The event as one line of JSON without its end."""
    return json.dumps(event.to_dict(), ensure_ascii=False, separators=(", ", ": "))


def json_error(line: str) -> str:
    """A line that belongs to no call."""
    return json.dumps({"type": "error", "error": line}, ensure_ascii=False)


class JsonlSink(LineSink):
    """JSON lines on a text stream, or with ``retry`` on an output that may work again."""

    def __init__(
        self,
        output: TextIO | Output,
        *,
        name: str,
        size: int = 10_000,
        owned: bool = False,
        retry: float = 0.0,
        line: Callable[[Event], str | None] = json_line,
    ) -> None:
        if isinstance(output, io.TextIOBase):
            output = TextOutput(output)
        super().__init__(
            output,  # type: ignore[arg-type]
            line,
            name=name,
            size=size,
            owned=owned,
            retry=retry,
        )

    @classmethod
    def to_stream(cls, stream: TextIO, name: str, *, partials: bool = True) -> JsonlSink:
        """Writes to ``stream``, which stays open."""
        return cls(stream, name=name, line=json_line if partials else _without_partials)

    @classmethod
    def to_file(
        cls,
        path: str,
        *,
        rotate: int | str | None = None,
        keep: int | None = None,
        partials: bool = True,
    ) -> JsonlSink:
        """Appends to the file at ``path``; see :class:`aii.sinks.files.RotatingFile`.

        Raises:
            OSError: it cannot be opened.
        """
        output = RotatingFile(path, rotate=rotate, keep=keep)
        line = json_line if partials else _without_partials
        return cls(output, name=path, owned=True, retry=RETRY, line=line)

    @classmethod
    def to_folder(cls, path: str, *, daily: bool = False, partials: bool = True) -> JsonlSink:
        """A file per call in the folder at ``path``; see :class:`aii.sinks.files.CallFolder`.

        Raises:
            OSError: it cannot be made or written.
        """
        line = partial(_marked_line, partials=partials)
        return cls(CallFolder(path, daily=daily), name=path, owned=True, retry=RETRY, line=line)


def _without_partials(event: Event) -> str | None:
    return None if isinstance(event, Partial) else json_line(event)


def _marked_line(event: Event, *, partials: bool) -> str | None:
    """A line for a :class:`aii.sinks.files.CallFolder`."""
    if isinstance(event, Partial) and not partials:
        return None
    mark = "+" if isinstance(event, CallStarted) else "-" if isinstance(event, CallEnded) else ""
    call_id = "".join(char if char.isprintable() else "?" for char in event.call_id)
    return f"{mark}\t{call_id}\t{json_line(event)}"
