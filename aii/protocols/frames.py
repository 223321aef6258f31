"""What a framing makes of the bytes of a connection.

    Frame = Ask | Audio | CallId | Dtmf | Flush | Format | Hangup | Metadata | Notice

Frames are plain frozen values. Whatever came over the wire, ``Audio.payload`` is SLIN: signed
16-bit little-endian mono. Its rate is the listener's setting until a ``Format`` says otherwise.
Text that a stranger may have chosen (call ids, notices) is printable ASCII by construction, so that
it can go into a log line as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from aii.question import Question

LONGEST_CALL_ID = 128
"""Characters; longer ids are cut."""

LONGEST_NOTICE = 300
"""Characters; longer notices are cut."""


def printable(text: str, *, first: int, limit: int) -> str:
    """``text`` with everything outside ASCII ``first``..0x7e as ``?``, at most ``limit`` long."""
    return "".join(c if first <= ord(c) <= 0x7E else "?" for c in text[:limit])


@dataclass(frozen=True)
class Audio:
    """SLIN bytes in the order of the call.

    A payload may hold any number of bytes, an odd number too: samples are whole only in the
    concatenation (``aii.audio.pcm.SlinDecoder`` carries the odd byte). Where one wire carries both
    sides of a call, ``leg`` says whose audio this is; each leg is a stream of its own.
    """

    payload: bytes
    leg: str = ""


@dataclass(frozen=True)
class Ask:
    """The client asks the caller something; ``aii.question`` reads what, if nobody has yet."""

    question: Question | Mapping[str, Any]


@dataclass(frozen=True)
class Format:
    """The wire itself says what its audio is; it overrides the listener's setting from here on.

    Attributes:
        rate: samples per second of the ``Audio`` that follows.
        encoding: how samples are written on the wire (``aii.audio.pcm.ENCODINGS``), for the log.
        channels: how many the wire carries, for the log; an ``Audio`` is one channel regardless.
    """

    rate: int
    encoding: str = "s16"
    channels: int = 1


@dataclass(frozen=True)
class CallId:
    """The caller's name for the call: 1 to 128 characters 0x21..0x7e, others turned into ``?``."""

    id: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "id", printable(self.id, first=0x21, limit=LONGEST_CALL_ID))


@dataclass(frozen=True)
class Dtmf:
    """A key was pressed: one of ``0123456789*#ABCD``."""

    digit: str


@dataclass(frozen=True)
class Flush:
    """The caller wants the words of everything so far now."""


@dataclass(frozen=True)
class Hangup:
    """The call is over; nothing follows.

    Attributes:
        reason: ``eof`` (the connection ended), ``hangup`` (the caller said so), ``refused`` (we
            cannot take this; ``send()`` holds the answer to write before closing).
    """

    reason: str


@dataclass(frozen=True)
class Metadata:
    """What the wire says about the call: printable text by name, as ``aii.protocols.metadata`` has
    cleaned it. Later values replace earlier ones of the same name."""

    values: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Notice:
    """One line for the log about something odd on the wire; never a reason to stop."""

    text: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "text", printable(self.text, first=0x20, limit=LONGEST_NOTICE))


Frame = Ask | Audio | CallId | Dtmf | Flush | Format | Hangup | Metadata | Notice
