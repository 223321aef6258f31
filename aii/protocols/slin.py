"""Raw SLIN: every byte is audio, but for the lone carriage return that asks for a flush."""

from __future__ import annotations

from aii.protocols.base import Framing
from aii.protocols.frames import Audio, Flush, Frame

CR = 13

QUIET = 0.1
"""Seconds of silence on the wire that must surround a carriage return which means "flush"."""


class RawFraming(Framing):
    """PCM from the first byte to the last.

    Byte 13 is an ordinary half of a sample (0.5 % of all bytes of speech). It means "flush now"
    only as a read of its own, on a sample boundary, with at least 100 ms without bytes before it
    and after it. A client that dribbles single bytes cannot be told from one that types a return,
    so a return straight after another single byte is audio.
    """

    _name = "raw"

    def __init__(self) -> None:
        super().__init__()
        self._odd = False  # half a sample has come
        self._dribble = False  # the read before was a single byte of audio
        self._held = False  # a carriage return waits for its 100 ms

    @property
    def tick_after(self) -> float | None:
        return QUIET if self._held else None

    def _feed(self, data: bytes, idle: float) -> list[Frame]:
        frames = self._wait(idle)
        if self._held:
            self._held = False
            data = b"\r" + data
        alone = data == b"\r" and idle >= QUIET
        if alone and not self._odd and not self._dribble:
            self._held = True
            return frames
        self._dribble = len(data) == 1
        self._odd ^= len(data) % 2 == 1
        return [*frames, Audio(data)]

    def _wait(self, idle: float) -> list[Frame]:
        if not self._held or idle < QUIET:
            return []
        self._held = False
        return [Flush()]

    def _drain(self) -> list[Frame]:
        return [Audio(b"\r")] if self._held else []
