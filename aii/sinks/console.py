"""One line per window for whoever watches the server.

::

    4f2a partial 0.21 s decode, 5.00 s buffered, 160000 bytes: [0.00 -> 2.40] four seven one
    4f2a final 0.83 s decode, 30.00 s buffered, 960000 bytes: [0.00 -> 2.40] four seven one [...]
"""

from __future__ import annotations

from typing import TextIO

from aii.sinks.base import LineSink, TextOutput
from aii.streaming.events import Answer, CallEnded, CallStarted, Dtmf, Event, Final, Heard, Skipped


def console_line(event: Event) -> str | None:
    """The event for a person to read; everything is on one line, whatever the text holds."""
    body = _body(event)
    if body is None:
        return None
    line = f"{event.call_id} {event.type} {body}".rstrip()
    return "".join(c if c.isprintable() else "?" for c in line)


def _body(event: Event) -> str | None:
    if isinstance(event, Heard):
        work = event.work
        spoken = "  ".join(
            f"[{segment.start:.2f} -> {segment.end:.2f}] {segment.text.strip()}"
            for segment in event.segments
        )
        failed = f"error: {event.error}" if isinstance(event, Final) and event.error else ""
        return (
            f"{work.decode:.2f} s decode, {work.buffered:.2f} s buffered, {work.bytes} bytes: "
            f"{failed or spoken or '(nothing)'}"
        )
    if isinstance(event, CallStarted):
        return f"from {event.caller}" if event.caller else ""
    if isinstance(event, CallEnded):
        return f"after {event.end:.2f} s: {event.reason}"
    if isinstance(event, Dtmf):
        return f"{event.digit} at {event.start:.2f} s"
    if isinstance(event, Answer):
        said = f" from {event.source}" if event.source else ""
        asked = f"{event.question}: " if event.question else ""
        return f"{asked}{event.status} {event.value or ''}".rstrip() + said
    if isinstance(event, Skipped):
        windows = f"{event.windows} partial window(s)" if event.windows else "nothing to hear"
        what = "audio" if event.lost else windows
        return f"{what} from {event.start:.2f} to {event.end:.2f} s: {event.reason}"
    return None


class ConsoleSink(LineSink):
    """Lines for people on a text stream."""

    def __init__(self, stream: TextIO, *, size: int = 1000) -> None:
        super().__init__(TextOutput(stream), console_line, name="the console", size=size)
