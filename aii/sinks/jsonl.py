"""Events as JSON lines, one object per line, in UTF-8."""

from __future__ import annotations

import io
import json
from typing import TextIO

from aii.sinks.base import LineSink, Output, TextOutput
from aii.streaming.events import Event

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
    ) -> None:
        if isinstance(output, io.TextIOBase):
            output = TextOutput(output)
        super().__init__(
            output,  # type: ignore[arg-type]
            json_line,
            name=name,
            size=size,
            owned=owned,
            retry=retry,
        )

    @classmethod
    def to_file(cls, path: str) -> JsonlSink:
        """Appends to the file at ``path``.

        It is written without a buffer of Python's, so that after a failed write it is known how
        much of the last line has got there, and no line comes twice or in two halves.

        Raises:
            OSError: it cannot be opened.
        """
        return cls(open(path, "ab", buffering=0), name=path, owned=True, retry=RETRY)
