"""Replies on the call's own socket: a bounded outbox that the connection empties when it can.

The best-known callers never read. Their kernel takes what fits into its buffers; beyond that lines
wait here up to a bound, then whole lines are dropped and counted. A call never notices.
"""

from __future__ import annotations

from aii.sinks.jsonl import json_error, json_line
from aii.streaming.events import Event, Final

BOUND = 1 << 20
"""Bytes of replies held for a client that does not read: half a day of speech as text."""


def text_lines(event: Event) -> str:
    """A final's plain transcript, a line per segment; nothing for other events."""
    if not isinstance(event, Final):
        return ""
    lines = (" ".join(segment.text.split()) for segment in event.segments)
    return "".join(line + "\n" for line in lines if line)


class Outbox:
    """Bytes to be written to one client. Used by the connection's thread alone.

    Args:
        reply: ``none``, ``text`` and ``jsonl`` as they come, or ``auto``: finals as text, but only
            once the client has half-closed and so shows that it waits for an answer.
        bound: bytes held at most.
    """

    def __init__(self, reply: str, *, bound: int = BOUND) -> None:
        self.reply = reply
        self.dropped = 0
        self._bound = bound
        self._open = reply != "auto"
        self._bytes = bytearray()

    def __len__(self) -> int:
        """Bytes that may be written now."""
        return len(self._bytes) if self._open else 0

    def emit(self, event: Event) -> None:
        """Add the event in the form that was asked for."""
        if self.reply == "jsonl":
            self.add((json_line(event) + "\n").encode())
        elif self.reply in ("text", "auto"):
            self.add(text_lines(event).encode())

    def say(self, line: str) -> None:
        """A line that is no event, such as an error; only for clients that asked for replies."""
        if self.reply == "text":
            self.add(f"aii: {line}\n".encode())
        elif self.reply == "jsonl":
            self.add((json_error(line) + "\n").encode())

    def add(self, data: bytes) -> bool:
        """Add bytes as a whole, or drop them as a whole and return False."""
        if len(self._bytes) + len(data) > self._bound:
            self.dropped += 1
            return False
        self._bytes += data
        return True

    def half_closed(self) -> None:
        """The client sends no more."""
        self._open = True

    def mute(self) -> None:
        """Nothing that was said or will be said is for this client."""
        self.reply = "none"
        self._bytes.clear()

    def peek(self, size: int = 65536) -> bytes:
        """The next bytes to write, at most ``size``."""
        return bytes(self._bytes[:size]) if self._open else b""

    def wrote(self, count: int) -> None:
        """``count`` of the bytes that ``peek`` gave are written."""
        del self._bytes[:count]
