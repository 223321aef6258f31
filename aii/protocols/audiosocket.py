"""Asterisk's AudioSocket: messages of ``kind (1) | length (2, big-endian) | payload``.

The first is the call's UUID; then audio, keys, at times an error; the end is the end of the
connection. No text can go back: the client would play it to the caller.

``docs.asterisk.org/Configuration/Channel-Drivers/AudioSocket``.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass

from aii.errors import ConfigError
from aii.protocols.base import Framing
from aii.protocols.codecs import CODECS, Codec
from aii.protocols.frames import Audio, CallId, Dtmf, Format, Frame, Hangup
from aii.protocols.mislabelled import LAWS, Doubt

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

UNSURE_8K = {160: "G.711", 640: "16 kHz SLIN"}
"""Payload lengths under which kind 0x10 has carried something else (20 ms of it)."""

PAYLOADS = ("auto", *CODECS)
"""What kind 0x10 can be said to carry; ``auto`` believes it, and warns where that looks wrong."""

KEEPALIVES = 3_600
"""Silences in a row to a client that sends nothing; then it is left to its own devices."""


@dataclass(frozen=True)
class AudioSocketOptions:
    """How AudioSocket is spoken on a listener.

    Attributes:
        payload: what messages of kind 0x10 carry (``PAYLOADS``). Asterisk marks every codec that
            is not SLIN so, and before 20.17 and 22.7 SLIN of any rate too.
        keepalive: seconds without a byte after which 20 ms of silence are sent, again and again;
            0 is never. Asterisk gives a call up after 2 s without anything in both directions.

    Raises:
        ConfigError: there is no such payload, or the time is negative.
    """

    payload: str = "auto"
    keepalive: float = 0.0

    def __post_init__(self) -> None:
        if self.payload not in PAYLOADS:
            raise ConfigError(
                f"AudioSocket payload {self.payload!r} is unknown; choose from "
                f"{', '.join(PAYLOADS)}"
            )
        if not self.keepalive >= 0:
            raise ConfigError(f"a keep-alive every {self.keepalive:g} s; give 0 or more")


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

    def __init__(self, options: AudioSocketOptions | None = None) -> None:
        super().__init__()
        self._options = options or AudioSocketOptions()
        self._codecs = {kind: Codec("s16", rate) for kind, rate in AUDIO_RATES.items()}
        if self._options.payload != "auto":
            self._codecs[0x10] = CODECS[self._options.payload]
        self._held = bytearray()
        self._begun = False  # the UUID has come
        self._kind: int | None = None  # of the last audio
        self._odd_kinds: set[int] = set()
        self._said_unsure = False
        self._doubt = Doubt() if self._options.payload == "auto" else None
        self._silences = 0  # sent since the last byte came

    @property
    def tick_after(self) -> float | None:
        """When the next keep-alive is due; a caller may be silent from the first moment on."""
        if not self._options.keepalive or not self._begun or self._silences >= KEEPALIVES:
            return None
        return self._options.keepalive * (self._silences + 1)

    def hang_up(self) -> None:
        self._outbox += message(HANG_UP)

    def _feed(self, data: bytes, idle: float) -> list[Frame]:
        self._silences = 0
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

    def _wait(self, idle: float) -> list[Frame]:
        due = self.tick_after
        if due is not None and idle >= due:
            self._silences = int(idle / self._options.keepalive)
            kind = 0x10 if self._kind is None else self._kind  # which every Asterisk takes
            self._outbox += message(kind, self._codecs[kind].silence(20))
        return []

    def _message(self, kind: int, payload: bytes) -> list[Frame]:
        if kind in AUDIO_RATES:
            return self._audio(kind, payload)
        if kind == UUID:
            self._begun = True
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
        codec = self._codecs[kind]
        if kind != self._kind:
            self._kind = kind
            frames.append(Format(codec.rate, codec.encoding))
        unsure = kind == 0x10 and self._options.payload == "auto" and len(payload) in UNSURE_8K
        if unsure and not self._said_unsure:
            self._said_unsure = True
            frames += self._notice(
                f"AudioSocket: {len(payload)}-byte messages marked as 8 kHz SLIN may be "
                f"{UNSURE_8K[len(payload)]}; dial with c(slin) or c(slin16), or say what they are "
                "with --audiosocket-payload"
            )
        if self._doubt is not None and kind == 0x10:
            frames += self._doubted(self._doubt, payload)
        return [*frames, Audio(codec.to_slin(payload))] if payload else frames

    def _doubted(self, doubt: Doubt, payload: bytes) -> list[Frame]:
        """What to say of the sound of messages that are marked as 8 kHz SLIN."""
        law = doubt.hear(payload)
        if doubt.over:
            self._doubt = None
        if not law:
            return []
        return self._notice(
            f"AudioSocket: messages marked as 8 kHz SLIN sound like {LAWS[law]}; dial with c(slin) "
            f"or c(slin16), or say what they are with --audiosocket-payload {law}"
        )

    def _drain(self) -> list[Frame]:
        """The audio of a message that was cut off by the end of the call."""
        kind = self._held[0] if self._held else HANG_UP
        payload = bytes(self._held[HEADER:])
        return self._audio(kind, payload) if kind in AUDIO_RATES and payload else []
