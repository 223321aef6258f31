"""Events as JSON lines, one object per line, in UTF-8."""

from __future__ import annotations

import json
from typing import TextIO

from aii.sinks.base import LineSink
from aii.streaming.events import Event


def json_line(event: Event) -> str:
    """The event as one line of JSON without its end."""
    return json.dumps(event.to_dict(), ensure_ascii=False, separators=(", ", ": "))


def json_error(line: str) -> str:
    """A line that belongs to no call."""
    return json.dumps({"type": "error", "error": line}, ensure_ascii=False)


class JsonlSink(LineSink):
    """JSON lines on a text stream."""

    def __init__(
        self, stream: TextIO, *, name: str, size: int = 10_000, owned: bool = False
    ) -> None:
        super().__init__(stream, json_line, name=name, size=size, owned=owned)
