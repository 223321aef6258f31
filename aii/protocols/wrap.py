"""The other direction: SLIN into what a caller would send, for clients and tests."""

from __future__ import annotations

import struct
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from aii.errors import ConfigError
from aii.protocols import audiosocket
from aii.protocols.callid import SHORTEST_CALL_ID
from aii.protocols.frames import LONGEST_CALL_ID
from aii.protocols.slin import CR

WRAPPINGS = ("raw", "callid", "cr641", "audiosocket", "wav")
"""Framings that ``wrap`` can make."""

UNKNOWN_SIZE = 0xFFFFFFFF
"""What a WAV header says when its writer cannot know how much will follow."""


@dataclass(frozen=True)
class Packet:
    """One write of a caller: its bytes, and how many seconds of audio they carry."""

    data: bytes
    seconds: float = 0.0


def wrap(
    pcm: Iterable[bytes],
    framing: str,
    *,
    call_id: str | None = None,
    frame_bytes: int = 640,
    rate: int = 16_000,
) -> Iterator[Packet]:
    """Turn SLIN into the writes of a caller.

    Args:
        pcm: SLIN in pieces of any size; read as it is needed.
        framing: one of ``WRAPPINGS``.
        call_id: sent ahead with ``callid`` (required there) and ``cr641``; for ``audiosocket`` a
            UUID (random when None).
        frame_bytes: bytes of audio in one write; the last may be shorter.
        rate: samples per second, for the packets' seconds and for what ``wav`` and ``audiosocket``
            say about the audio.

    Raises:
        ConfigError: the framing is unknown, cannot carry this call id or rate, or the size is
            out of range.
    """
    if not 1 <= frame_bytes <= 65_534:
        raise ConfigError(f"frame bytes must be 1 to 65534, not {frame_bytes}")
    if rate <= 0:
        raise ConfigError(f"the sample rate must be above 0, not {rate}")
    head, kind = _preamble(framing, call_id, rate), 0
    if framing == "audiosocket":
        kind = _kind(rate)
    return _packets(pcm, framing, head, kind, frame_bytes, rate)


def _packets(
    pcm: Iterable[bytes], framing: str, head: bytes, kind: int, frame_bytes: int, rate: int
) -> Iterator[Packet]:
    if head:
        yield Packet(head)
    for frame in cut(pcm, frame_bytes):
        seconds = len(frame) / (2 * rate)
        if framing == "cr641":
            frame += bytes([CR])
        elif framing == "audiosocket":
            frame = audiosocket.message(kind, frame)
        yield Packet(frame, seconds)


def cut(pieces: Iterable[bytes], size: int) -> Iterator[bytes]:
    """Regroup bytes into pieces of ``size``; the last holds what is left."""
    held = bytearray()
    for piece in pieces:
        held += piece
        while len(held) >= size:
            yield bytes(held[:size])
            del held[:size]
    if held:
        yield bytes(held)


def wav_header(rate: int, data_bytes: int = UNKNOWN_SIZE) -> bytes:
    """The 44 bytes before 16-bit mono PCM in a WAV file (RIFF, Microsoft 1991)."""
    riff_bytes = min(data_bytes + 36, UNKNOWN_SIZE)
    fmt = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, rate, rate * 2, 2, 16)
    return (
        struct.pack("<4sI4s", b"RIFF", riff_bytes, b"WAVE")
        + fmt
        + struct.pack("<4sI", b"data", data_bytes)
    )


def _preamble(framing: str, call_id: str | None, rate: int) -> bytes:
    """What comes before the audio."""
    if framing not in WRAPPINGS:
        raise ConfigError(f"unknown framing {framing!r}; choose one of {', '.join(WRAPPINGS)}")
    if framing == "audiosocket":
        return audiosocket.message(audiosocket.UUID, _uuid(call_id).bytes)
    if framing in ("raw", "wav") and call_id is not None:
        raise ConfigError(f"framing {framing} carries no call id; use callid, cr641 or audiosocket")
    if framing == "wav":
        return wav_header(rate)
    if call_id is None:
        if framing == "callid":
            raise ConfigError("framing callid needs a call id")
        return b""
    fits = SHORTEST_CALL_ID <= len(call_id) <= LONGEST_CALL_ID
    if not fits or not all(0x21 <= ord(c) <= 0x7E for c in call_id):
        raise ConfigError(
            f"a call id is {SHORTEST_CALL_ID} to {LONGEST_CALL_ID} printable ASCII characters "
            f"without spaces, not {call_id[:LONGEST_CALL_ID]!a}"
        )
    return call_id.encode("ascii") + bytes([CR])


def _uuid(call_id: str | None) -> uuid.UUID:
    if call_id is None:
        return uuid.uuid4()
    try:
        return uuid.UUID(call_id)
    except ValueError:
        raise ConfigError(f"with audiosocket the call id is a UUID, not {call_id[:64]!a}") from None


def _kind(rate: int) -> int:
    for kind, known in audiosocket.AUDIO_RATES.items():
        if known == rate:
            return kind
    rates = ", ".join(map(str, audiosocket.AUDIO_RATES.values()))
    raise ConfigError(f"audiosocket has no audio of {rate} Hz; choose one of {rates}")
