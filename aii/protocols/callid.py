"""A call id before the audio: ``<id> CR`` with an optional LF, or 40 bytes padded with NULs."""

from __future__ import annotations

import struct
from enum import Enum
from itertools import pairwise

from aii.protocols.base import Framing
from aii.protocols.frames import LONGEST_CALL_ID, CallId, Frame
from aii.protocols.hold import PATIENCE, Hold
from aii.protocols.slin import CR, RawFraming

LF = 10
SHORTEST_CALL_ID = 3
"""Characters, where the id is looked for rather than promised: shorter ones occur in speech."""

PADDED = 40
"""Bytes of the dialect that pads the id with NULs and sends no carriage return."""

JUDGED = 640
"""Bytes after a CR LF that show whether the LF is a line end or the first byte of the audio."""


class Found(Enum):
    """What the beginning of a connection says about a call id."""

    ID = "there is one"
    NONE = "there is none"
    UNFINISHED = "so far it is the beginning of one"


def find_call_id(data: bytes | bytearray, shortest: int) -> tuple[Found, str, int]:
    """Look for a call id at the start of ``data``.

    Returns:
        What was found, the id, and how many bytes it takes with its CR or its padding (not an LF).
    """
    limit = min(len(data), LONGEST_CALL_ID)
    length = next((i for i in range(limit) if not 0x21 <= data[i] <= 0x7E), limit)
    call_id = bytes(data[:length]).decode("ascii")
    if length == len(data):
        return Found.UNFINISHED, "", 0
    if length >= shortest and data[length] == CR:
        return Found.ID, call_id, length + 1
    padding = data[length:PADDED]
    if SHORTEST_CALL_ID <= length < PADDED and not any(padding):
        full = len(data) >= PADDED
        return (Found.ID, call_id, PADDED) if full else (Found.UNFINISHED, "", 0)
    return Found.NONE, "", 0


def _roughness(pcm: bytes) -> float:
    """Mean step from one sample to the next; some ten times higher a byte out of place."""
    samples = struct.unpack(f"<{len(pcm) // 2}h", pcm[: len(pcm) // 2 * 2])
    steps = [abs(b - a) for a, b in pairwise(samples)]
    return sum(steps) / len(steps) if steps else 0.0


def lf_is_audio(data: bytes | bytearray) -> bool:
    """Whether the LF that ``data`` begins with is half a sample and not the end of a line.

    About one call in 100 begins with a sample whose low byte is 10. Taken for a line end, it would
    shift the call by a byte and turn it into noise. Speech read a byte out of place is far rougher
    than speech, which tells the two apart; where it does not (too little, or noise), it is a line
    end. Only audio that was made from 8 bits (low bytes all zero) is smoother out of place: then
    the LF must lie among the samples that it would begin.
    """
    head = bytes(data[: JUDGED + 1])
    if len(head) < 64:
        return False
    low, high = head[2::2], head[1::2]
    if not any(high):
        return min(low) <= LF <= max(low) < 128
    return _roughness(head[:-1]) * 2 < _roughness(head[1:])


class CallIdFraming(Framing):
    """The call id, then everything else through ``body`` (raw SLIN unless another is given).

    A preamble that is no call id is said in a notice and is audio like the rest. Holds at most
    129 bytes of it, and 641 bytes while an LF is judged.
    """

    def __init__(self, body: Framing | None = None) -> None:
        super().__init__()
        self._body = body or RawFraming()
        self._hold = Hold()
        self._stage = "id"  # then after a return "lf", in the end "body"

    @property
    def name(self) -> str:
        body = self._body.name
        return f"callid+{body}" if body in ("cr641", "wav") else "callid"

    @property
    def tick_after(self) -> float | None:
        if self._stage == "body":
            return self._body.tick_after
        return PATIENCE if self._stage == "lf" and self._hold else None

    def send(self) -> bytes:
        return super().send() + self._body.send()

    def hang_up(self) -> None:
        self._body.hang_up()

    def _feed(self, data: bytes, idle: float) -> list[Frame]:
        if self._stage == "body":
            return self._body.receive(data, idle)
        self._hold.add(data, idle)
        frames = self._read_id() if self._stage == "id" else []
        if self._stage == "lf" and self._hold:
            frames += self._judge(final=False)
        return frames

    def _wait(self, idle: float) -> list[Frame]:
        if self._stage == "body":
            return self._body.tick(idle)
        if self._stage == "lf" and self._hold:
            return self._judge(final=idle >= PATIENCE)
        return []

    def _drain(self) -> list[Frame]:
        frames: list[Frame] = []
        if self._stage == "id" and self._hold:
            frames = self._notice(f"the call ended within its id: {bytes(self._hold.data)!a}")
            frames += self._go_on(0)
        elif self._stage == "lf" and self._hold:
            frames = self._judge(final=True)
        return frames + self._body.eof()

    def _read_id(self) -> list[Frame]:
        found, call_id, length = find_call_id(self._hold.data, shortest=0)
        if found is Found.UNFINISHED:
            return []
        if found is Found.NONE:
            start = bytes(self._hold.data[:16])
            frames = self._notice(f"no call id before the audio, which begins with {start!a}")
            return frames + self._go_on(0)
        frames = [CallId(call_id)] if call_id else self._notice("an empty call id")
        if self._hold.data[length - 1] != CR:
            return frames + self._go_on(length)
        self._stage = "lf"
        for data, idle in self._hold.pieces(length):
            self._hold.add(data, idle)
        return frames

    def _judge(self, final: bool) -> list[Frame]:
        """What follows the return: an LF that ends the line goes, once that is clear."""
        if self._hold.data[0] != LF:
            return self._go_on(0)
        if len(self._hold) <= JUDGED and not final:
            return []
        return self._go_on(0 if lf_is_audio(self._hold.data) else 1)

    def _go_on(self, skip: int) -> list[Frame]:
        """Hand what is held to the body, without the first ``skip`` bytes."""
        self._stage = "body"
        pieces = self._hold.pieces(skip)
        return [frame for data, idle in pieces for frame in self._body.receive(data, idle)]
