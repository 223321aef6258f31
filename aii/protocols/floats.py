"""What browsers and Python programs send to ``/ws``: float32 in, ``{"text", "latency"}`` out.

Each binary message is little-endian float32, 16 kHz, mono, of any length. Each window that was
decoded is answered by one message with the words of the last 30 s, so a client shows what the last
message says and nothing else. Texts are for control: ``{"type": "flush"}`` makes everything so far
final, ``{"type": "end"}`` ends the call and gets its last words, ``{"type": "collect", ...}`` asks
for digits or one of some words, and gets an answer (``aii.streaming.collect``).
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from aii.audio.pcm import float_to_slin
from aii.protocols.frames import Ask, Audio, Flush, Format, Frame, Hangup
from aii.protocols.messages import Message, MessageProtocol

if TYPE_CHECKING:
    from aii.streaming.events import Event

RATE = 16_000

SHOWN = 30.0
"""Seconds of speech whose words a message has."""

LOUDEST = 8.0
"""Samples are from -1 to 1; beyond this they are of another scale, or no samples at all."""

LONGEST_REASON = 120
"""Bytes of the reason with which a WebSocket can be closed, in whole."""

UNSUPPORTED = 1003
DAMAGED = 1007


class Refused(Exception):  # noqa: N818
    """A message that ends the connection: close code and reason."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


def slin_of(samples: np.ndarray) -> bytes:
    """SLIN of float samples, rounded to 16 bits as Whisper's own loader does.

    Raises:
        Refused: they are no samples.
    """
    if not samples.size:
        return b""
    peak = float(np.abs(samples).max())
    if not peak <= LOUDEST:  # also where it is no number
        what = f"a sample is {peak:.4g}" if np.isfinite(peak) else "a sample is no finite number"
        raise Refused(DAMAGED, f"{what}; wanted are float32 from -1 to 1")
    return float_to_slin(samples)


class SampleProtocol(MessageProtocol):
    """What the endpoints have in common: samples of floats, control texts, refusals.

    Attributes:
        refusal: the close code and reason for what cannot be taken, else None.
    """

    def __init__(self, parameters: Mapping[str, str] | None = None) -> None:
        super().__init__(parameters)
        self.refusal: tuple[int, str] | None = None
        self._begun = False

    def receive(self, message: str | bytes) -> list[Frame]:
        """Take the next message; one that cannot be taken ends the call."""
        try:
            return super().receive(message)
        except Refused as refused:
            self.refusal = refused.code, refused.reason
            return self._checked([Hangup(f"refused: {refused.reason}")])

    def _begin(self) -> list[Frame]:
        """What was said about the call, before its first audio."""
        if self._begun:
            return []
        self._begun = True
        return [*self._about(self._parameters), Format(RATE, "f32")]

    def _text(self, message: str) -> list[Frame]:
        wanted = (self._object(message) or {}).get("type")
        if wanted == "flush":
            return [*self._begin(), Flush()]
        if wanted == "end":
            return [*self._begin(), Hangup("hangup")]
        if wanted == "collect":
            return [*self._begin(), Ask(self._object(message) or {})]
        raise Refused(
            UNSUPPORTED, 'wanted are binary messages, {"type": "flush"} or {"type": "end"}'
        )

    def event(self, event: Event) -> list[Message]:
        """What the client is told of an event; answers to its questions as they are."""
        if event.type == "answer":
            self._say(json.dumps(event.to_dict(), ensure_ascii=False))
        return super().event(event)


class FloatProtocol(SampleProtocol):
    """One connection to ``/ws``, ``/ws/optimized`` or ``/ws/standard``.

    Args:
        parameters: the URI's; with ``detail=true`` each answer also tells its span, its words,
            whether it is final, how long it waited (milliseconds) and the call's id.
    """

    name = "ws"

    def __init__(self, parameters: Mapping[str, str] | None = None) -> None:
        said = dict(parameters or {})
        self._detail = said.pop("detail", "") in ("true", "1", "yes")
        super().__init__(said)
        self._spoken: deque[tuple[float, str]] = deque()  # final segments: end, text

    def _binary(self, message: bytes) -> list[Frame]:
        if len(message) % 4:
            raise Refused(
                DAMAGED, f"a message has {len(message)} bytes; float32 comes in multiples of 4"
            )
        return [*self._begin(), Audio(slin_of(np.frombuffer(message, "<f4")))]

    def _event(self, event: Mapping[str, Any]) -> None:
        kind = event["type"]
        if kind not in ("partial", "final"):
            return
        while self._spoken and self._spoken[0][0] < event["end"] - SHOWN:
            self._spoken.popleft()
        before = "".join(text for _, text in self._spoken)
        answer: dict[str, Any] = {
            "text": (before + event["text"]).strip(),
            "latency": round(event["work"]["decode"] * 1000, 3),
        }
        if self._detail:
            answer["final"] = kind == "final"
            answer["queued"] = round(event["work"]["queued"] * 1000, 3)
            answer |= {name: event[name] for name in ("start", "end", "words", "call_id")}
        if kind == "final":
            self._spoken.extend((s["end"], s["text"]) for s in event["segments"])
        self._say(json.dumps(answer, ensure_ascii=False), droppable=kind == "partial")
