"""641-byte frames: 640 bytes of SLIN, then one carriage return, again and again."""

from __future__ import annotations

from aii.protocols.base import Framing
from aii.protocols.frames import Audio, Frame
from aii.protocols.slin import CR

FRAME = 640
"""Bytes of audio in a frame."""

STRIDE = FRAME + 1
HITS = 4
"""Carriage returns in their places that prove a lock. Measured on 20 minutes of speech, with every
sample as a start: one occurs by chance at 5e-3 of them, two at 1e-5 to 4e-5, three and four at
none."""

REACH = (HITS - 1) * STRIDE
"""Bytes from the first to the last of the returns that prove a lock."""


def locked_at(data: bytes | bytearray, place: int) -> bool:
    """Whether ``data`` holds four carriage returns, 641 bytes apart, from ``place`` on."""
    last = place + REACH
    return last < len(data) and all(data[i] == CR for i in range(place, last + 1, STRIDE))


class Cr641Framing(Framing):
    """Strips the carriage returns and checks that each is where it must be.

    On a miss it says so and passes everything on as audio until four returns, 641 bytes apart, show
    where frames end again; so no byte of a sample is lost and none is added. A frame begins with a
    whole sample: when the damage left half a sample behind, that byte goes, or all that follows
    would be noise. Holds at most 2.6 kB.
    """

    _name = "cr641"

    def __init__(self) -> None:
        super().__init__()
        self._held = bytearray()  # from the start of a frame on, or while searching from anywhere
        self._locked = True
        self._passed = 0  # bytes of audio passed on since the lock was lost
        self._place = 0  # bytes of the call so far, for the notices

    def _feed(self, data: bytes, idle: float) -> list[Frame]:
        self._held += data
        frames: list[Frame] = []
        while True:
            step = self._next_frame() if self._locked else self._search()
            if step is None:
                return frames
            frames += step

    def _take(self, count: int) -> bytes:
        taken = bytes(self._held[:count])
        del self._held[:count]
        self._place += count
        return taken

    def _next_frame(self) -> list[Frame] | None:
        if len(self._held) < STRIDE:
            return None
        if self._held[FRAME] == CR:
            return [Audio(self._take(STRIDE)[:FRAME])]
        self._locked, self._passed = False, 0
        where = self._place + FRAME
        return self._notice(f"641-byte frames: no carriage return at byte {where}; searching")

    def _search(self) -> list[Frame] | None:
        """Go on to the next proven lock; None when more bytes are needed."""
        end = len(self._held) - REACH  # places from here on cannot be proven yet
        place = self._held.find(CR, 0, max(end, 0))
        while place >= 0 and not locked_at(self._held, place):
            place = self._held.find(CR, place + 1, end)
        if place < 0:  # one byte more is kept back, so that half a sample is never out already
            passed = self._take(max(end - 1, 0))
            self._passed += len(passed)
            return [Audio(passed)] if passed else None
        half = (self._passed + place) % 2
        payload = self._take(place + 1)[: max(place - half, 0)]
        self._locked = True
        lost = ", half a sample dropped" if half else ""
        notice = self._notice(f"641-byte frames: locked again at byte {self._place}{lost}")
        return [Audio(payload), *notice] if payload else notice

    def _drain(self) -> list[Frame]:
        rest = self._take(len(self._held))
        if self._locked and len(rest) % 2 == 1 and rest[-1] == CR:
            rest = rest[:-1]  # the return of a short last frame
        return [Audio(rest)] if rest else []
