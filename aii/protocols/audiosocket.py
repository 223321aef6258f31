"""Asterisk's AudioSocket: messages of ``kind (1) | length (2, big-endian) | payload``.

The first is the call's UUID; then audio, keys, at times an error; the end is the end of the
connection. No text can go back: the client would play it to the caller.
"""

from __future__ import annotations

import uuid

from aii.protocols.base import Framing
from aii.protocols.frames import Audio, CallId, Dtmf, Format, Frame, Hangup

HANG_UP, UUID, DTMF, ERROR = 0x00, 0x01, 0x03, 0xFF
AUDIO_RATES = {
    0x10: 8_000,
    0x11: 12_000,
    0x12: 16_000,
    0x13: 24_000,
    0x14: 32_000,
    0x15: 44_100,
    0x16: 48_000,
    0x17: 96_000,
    0x18: 192_000,
}
"""Samples per second by kind of message."""

HEADER = 3
FIRST = 19
"""Bytes of the UUID message, which comes first."""

START = bytes([UUID, 0, 16])
"""How every AudioSocket connection begins."""

UNSURE_8K = {160: "mu-law", 640: "16 kHz SLIN"}
"""Payload lengths under which kind 0x10 has carried something else (20 ms of it)."""


def message(kind: int, payload: bytes = b"") -> bytes:
    """One message as it goes over the wire; the payload is at most 65,535 bytes."""
    return bytes([kind]) + len(payload).to_bytes(2, "big") + payload


def may_follow_uuid(header: bytes | bytearray) -> bool:
    """Whether up to three bytes can be (the beginning of) a client's second message.

    A hang-up is none: only a server sends it, and three zero bytes are common in silence.
    """
    if not header:
        return True
    kind = header[0]
    if kind not in AUDIO_RATES and kind not in (DTMF, ERROR):
        return False
    if len(header) < HEADER:
        return True
    length = int.from_bytes(header[1:HEADER], "big")
    if kind == DTMF:
        return length == 1
    if kind == ERROR:
        return length <= 4
    return length > 0


class AudioSocketFraming(Framing):
    """One AudioSocket connection. Holds at most one message (65,538 bytes)."""

    _name = "audiosocket"
    _takes_text = False

    def __init__(self) -> None:
        super().__init__()
        self._held = bytearray()
        self._rate = 0
        self._odd_kinds: set[int] = set()
        self._said_unsure = False

    def hang_up(self) -> None:
        self._outbox += message(HANG_UP)

    def _feed(self, data: bytes, idle: float) -> list[Frame]:
        self._held += data
        frames: list[Frame] = []
        start = 0
        while len(self._held) - start >= HEADER:
            body = start + HEADER
            end = body + int.from_bytes(self._held[start + 1 : body], "big")
            if end > len(self._held):
                break
            frames += self._message(self._held[start], bytes(self._held[body:end]))
            start = end
        del self._held[:start]
        return frames

    def _message(self, kind: int, payload: bytes) -> list[Frame]:
        if kind in AUDIO_RATES:
            return self._audio(kind, payload)
        if kind == UUID:
            if len(payload) == 16:
                return [CallId(str(uuid.UUID(bytes=payload)))]
            return self._notice(f"AudioSocket: a UUID of {len(payload)} bytes instead of 16")
        if kind == DTMF:
            digit = payload.decode("ascii", "replace").upper()
            if len(digit) == 1 and digit in "0123456789*#ABCD":
                return [Dtmf(digit)]
            return self._notice(f"AudioSocket: no key of a telephone: {payload[:8]!a}")
        if kind == HANG_UP:
            return [Hangup("hangup")]
        if kind == ERROR:
            return self._notice(f"AudioSocket: the caller reports error {payload[:8].hex() or '-'}")
        if kind in self._odd_kinds:
            return []
        self._odd_kinds.add(kind)
        return self._notice(f"AudioSocket: messages of unknown kind 0x{kind:02x} are skipped")

    def _audio(self, kind: int, payload: bytes) -> list[Frame]:
        frames: list[Frame] = []
        rate = AUDIO_RATES[kind]
        if rate != self._rate:
            self._rate = rate
            frames.append(Format(rate))
        if kind == 0x10 and len(payload) in UNSURE_8K and not self._said_unsure:
            self._said_unsure = True
            frames += self._notice(
                f"AudioSocket: {len(payload)}-byte messages marked as 8 kHz SLIN may be "
                f"{UNSURE_8K[len(payload)]}; set the channel's format to slin or slin16"
            )
        return [*frames, Audio(payload)] if payload else frames

    def _drain(self) -> list[Frame]:
        """The audio of a message that was cut off by the end of the call."""
        kind = self._held[0] if self._held else HANG_UP
        payload = bytes(self._held[HEADER:])
        return self._audio(kind, payload) if kind in AUDIO_RATES and payload else []
