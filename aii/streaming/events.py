"""What happens in a call, as values that sinks write out.

    Event = (CallStarted | SpeechStarted | Partial | Final | SpeechEnded | Dtmf | Answer | Skipped
             | NoSpeech | CallEnded)

Every event has the id of its call and a number ``seq`` that counts the call's events from 1 without
a gap; where a call's channels are heard apart, each of these legs counts its own. Times are seconds
from the start of the call. A final never changes; the texts of a call's finals, joined as they are,
are its transcript, under every policy. Finals come in the order of speech and never overlap.

A partial shows how what is not yet final sounds so far, from the end of the last final on. Any word
of it may change: the next partial or final replaces it as a whole. What stays of it is up to the
policy: ``local-agreement`` and ``alignatt`` make words final, and so immovable, within about a
second or two, and show as partial only the few behind them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
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
    """Common to all events; call id, number and leg are filled in by the session.

    Attributes:
        call_id: the call.
        seq: the event's number, from 1.
        leg: the channel of the call that it is about, "" where there is only one.
    """

    type: ClassVar[str] = ""
    call_id: str = ""
    seq: int = 0
    leg: str = field(default="", kw_only=True)

    def to_dict(self) -> dict[str, Any]:
        """The event as it is written to a JSON line; ``leg`` only where there is one."""
        head = {"type": self.type, "call_id": self.call_id, "seq": self.seq}
        leg = {"leg": self.leg} if self.leg else {}
        return {**head, **leg, **self._body()}

    def _body(self) -> dict[str, Any]:
        """What the kind of event adds."""
        return {}


@dataclass(frozen=True)
class CallStarted(Event):
    """A call has begun.

    Attributes:
        caller: who calls, as far as known: a number, or the address that the call comes from.
        callee: who is called, "" where nobody said.
        details: what else was said about the call.
    """

    type = "started"
    caller: str = ""
    callee: str = ""
    details: Mapping[str, str] = field(default_factory=dict, hash=False)

    def _body(self) -> dict[str, Any]:
        more = {"callee": self.callee, "details": dict(self.details)}
        return {"caller": self.caller, **{name: value for name, value in more.items() if value}}


@dataclass(frozen=True)
class SpeechStarted(Event):
    """Somebody began to speak at ``start``; only where voice activity is watched.

    It comes at once, even before the last words of the utterance before it.

    Attributes:
        decided: how much of the call had been heard when that was clear.
    """

    type = "speech_started"
    start: float = 0.0
    decided: float = 0.0

    def _body(self) -> dict[str, Any]:
        return {"start": _seconds(self.start), "decided": _seconds(self.decided)}


@dataclass(frozen=True)
class SpeechEnded(Event):
    """What began at ``start`` ended at ``end``; its last final follows.

    Attributes:
        decided: how much of the call had been heard when that was clear.
    """

    type = "speech_ended"
    start: float = 0.0
    end: float = 0.0
    decided: float = 0.0

    def _body(self) -> dict[str, Any]:
        times = {"start": self.start, "end": self.end, "decided": self.decided}
        return {name: _seconds(time) for name, time in times.items()}


@dataclass(frozen=True)
class NoSpeech(Event):
    """Nobody has spoken from ``start`` to ``end``; told once per silence, where it is watched."""

    type = "no_speech"
    start: float = 0.0
    end: float = 0.0

    def _body(self) -> dict[str, Any]:
        return {"start": _seconds(self.start), "end": _seconds(self.end)}


@dataclass(frozen=True)
class Heard(Event):
    """What the audio from ``start`` to ``end`` says: common to partials and finals.

    Attributes:
        segments: the text with its times.
        language: code of the language it was decoded in.
        work: what it cost.
        removed: what guards took away, a line each (``aii.streaming.guards``).
    """

    start: float = 0.0
    end: float = 0.0
    segments: tuple[Segment, ...] = ()
    language: str | None = None
    work: Work = Work()
    removed: tuple[str, ...] = field(default=(), kw_only=True)

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
            **({"removed": list(self.removed)} if self.removed else {}),
        }


@dataclass(frozen=True)
class Partial(Heard):
    """What is not final yet, as it sounds now; the next partial or final replaces it as a whole.

    No word of a partial is promised: each may still change or go. Under ``window`` the whole text
    since the last final is open; under ``local-agreement`` what two updates in a row do not agree
    on yet; under ``alignatt`` the last word, which may be unfinished.
    """

    type = "partial"


@dataclass(frozen=True)
class Final(Heard):
    """Text that never changes.

    Attributes:
        reason: why it is final: ``agreement`` (the policy is sure of it), ``endpoint`` (the speaker
            paused), ``reset`` (the window was full), ``flush``, ``hangup``, ``held`` (redaction
            held these words back, see ``aii.streaming.redaction``), or ``error`` (the audio could
            not be decoded: ``error`` says why, and the text is what was known before, if anything).
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
class Answer(Event):
    """What a caller answered to a question (``aii.streaming.collect``), by keys or by speech.

    Attributes:
        question: the question's name, "" where it has none.
        status: ``match``, ``short`` (too few digits), ``nomatch`` (something else was said),
            ``timeout`` (nothing came), ``ended`` (the call did) or ``replaced`` (by the next
            question).
        value: the digits, or the word as the question spells it; None without a match (digits that
            are too few are given).
        source: ``keys``, ``speech``, or "" where nothing came.
        text: what was heard, or the keys.
        start: when the answer began (seconds), or the question where there is none.
        end: when it ended.
        confidence: 0 to 1, the model's own among all that could have been said (geometric mean
            over the tokens and the end); 1 for keys, None where nothing was heard.
        language: in which it was heard.
    """

    type = "answer"
    question: str = ""
    status: str = ""
    value: str | None = None
    source: str = ""
    text: str = ""
    start: float = 0.0
    end: float = 0.0
    confidence: float | None = None
    language: str | None = None

    def _body(self) -> dict[str, Any]:
        return {
            "question": self.question,
            "status": self.status,
            "value": self.value,
            "source": self.source,
            "text": self.text,
            "start": _seconds(self.start),
            "end": _seconds(self.end),
            "confidence": None if self.confidence is None else round(self.confidence, 3),
        }


@dataclass(frozen=True)
class Skipped(Event):
    """Something was left out between ``start`` and ``end``.

    Attributes:
        reason: ``behind`` (intermediate windows that the engine had no time for: their audio is
            in the next window), ``error: ...`` (one such window failed), ``silence`` (nobody
            spoke, so nothing was decoded), or why audio was never decoded at all (``lost`` is true
            then).
        windows: how many windows were left out.
        lost: whether audio that may hold speech is in no final.
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
