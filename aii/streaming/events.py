"""What happens in a call, as values that sinks write out.

    Event = CallStarted | Partial | Final | Dtmf | Skipped | CallEnded

Every event has the id of its call and a number ``seq`` that counts the call's events from 1 without
a gap. Times are seconds from the start of the call. A final never changes; the texts of a call's
finals, joined as they are, are its transcript. A partial shows what its window sounds like so far,
from the end of the last final on; the next partial or final replaces it as a whole.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from aii.types import Segment, Word


@dataclass(frozen=True)
class Work:
    """What a window cost.

    Attributes:
        decode: seconds of computing.
        queued: seconds of waiting for the engine.
        buffered: seconds of audio in the window.
        passes: forward passes of the decoder.
    """

    decode: float = 0.0
    queued: float = 0.0
    buffered: float = 0.0
    passes: int = 0

    @property
    def bytes(self) -> int:
        """The window as 16 kHz SLIN."""
        return 2 * round(self.buffered * 16_000)


@dataclass(frozen=True)
class Event:
    """Common to all events; ``call_id`` and ``seq`` are filled in by the session."""

    type: ClassVar[str] = ""
    call_id: str = ""
    seq: int = 0

    def to_dict(self) -> dict[str, Any]:
        """The event as it is written to a JSON line."""
        head = {"type": self.type, "call_id": self.call_id, "seq": self.seq}
        return {**head, **self._body()}

    def _body(self) -> dict[str, Any]:
        """What the kind of event adds."""
        return {}


@dataclass(frozen=True)
class CallStarted(Event):
    """A call has begun; ``caller`` is where it comes from, as far as known."""

    type = "started"
    caller: str = ""

    def _body(self) -> dict[str, Any]:
        return {"caller": self.caller}


@dataclass(frozen=True)
class Heard(Event):
    """What the audio from ``start`` to ``end`` says: common to partials and finals."""

    start: float = 0.0
    end: float = 0.0
    segments: tuple[Segment, ...] = ()
    language: str | None = None
    work: Work = Work()

    @property
    def text(self) -> str:
        """The segments' texts, joined as Whisper joins them (words bring their own spaces)."""
        return "".join(segment.text for segment in self.segments)

    @property
    def words(self) -> tuple[Word, ...]:
        """All words of the segments; empty where no word times were asked for."""
        return tuple(word for segment in self.segments for word in segment.words)

    def _body(self) -> dict[str, Any]:
        work = self.work
        return {
            "start": _seconds(self.start),
            "end": _seconds(self.end),
            "text": self.text,
            "words": [_word(word) for word in self.words],
            "segments": [
                {"start": _seconds(s.start), "end": _seconds(s.end), "text": s.text}
                for s in self.segments
            ],
            "language": self.language,
            "work": {
                "decode": _seconds(work.decode),
                "queued": _seconds(work.queued),
                "buffered": _seconds(work.buffered),
                "bytes": work.bytes,
                "passes": work.passes,
            },
        }


@dataclass(frozen=True)
class Partial(Heard):
    """The window so far; the next partial or final of the call replaces it."""

    type = "partial"


@dataclass(frozen=True)
class Final(Heard):
    """Text that never changes.

    Attributes:
        reason: why it is final: ``reset`` (the window was full), ``flush``, ``hangup``, or
            ``error`` (it could not be decoded: the text is empty and ``error`` says why).
        error: one line, or None.
    """

    type = "final"
    reason: str = ""
    error: str | None = None

    def _body(self) -> dict[str, Any]:
        extra = {} if self.error is None else {"error": self.error}
        return {**super()._body(), "reason": self.reason, **extra}


@dataclass(frozen=True)
class Dtmf(Event):
    """A key was pressed at ``start``."""

    type = "dtmf"
    digit: str = ""
    start: float = 0.0

    def _body(self) -> dict[str, Any]:
        return {"start": _seconds(self.start), "digit": self.digit}


@dataclass(frozen=True)
class Skipped(Event):
    """Something was left out between ``start`` and ``end``.

    Attributes:
        reason: ``behind`` (intermediate windows that the engine had no time for: their audio is
            in the next window), ``error: ...`` (one such window failed), or why audio was never
            decoded at all (``lost`` is true then).
        windows: how many windows were left out.
        lost: whether the audio is in no final.
    """

    type = "skipped"
    start: float = 0.0
    end: float = 0.0
    reason: str = ""
    windows: int = 1
    lost: bool = False

    def _body(self) -> dict[str, Any]:
        return {
            "start": _seconds(self.start),
            "end": _seconds(self.end),
            "reason": self.reason,
            "windows": self.windows,
            "lost": self.lost,
        }


@dataclass(frozen=True)
class CallEnded(Event):
    """Nothing follows.

    Attributes:
        reason: ``eof``, ``hangup``, ``connection reset``, ``idle``, ``shutdown``, or an error line.
        end: seconds of audio in the call.
    """

    type = "ended"
    reason: str = ""
    end: float = 0.0

    def _body(self) -> dict[str, Any]:
        return {"end": _seconds(self.end), "reason": self.reason}


def _seconds(value: float) -> float:
    """Milliseconds are as exact as a JSON line needs to be."""
    return round(value, 3)


def _word(word: Word) -> dict[str, Any]:
    return {
        "text": word.text,
        "start": _seconds(word.start),
        "end": _seconds(word.end),
        "probability": None if word.probability is None else round(word.probability, 3),
    }
