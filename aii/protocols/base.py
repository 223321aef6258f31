"""The interface of a framing: a machine from bytes to frames that owns no socket and no clock.

A server uses one per connection::

    framing = make_framing("auto", web_port=8000)
    while not over:
        data = recv within framing.tick_after      # seconds, or without a limit when None
        frames = framing.receive(data, idle)       # idle: seconds since the bytes before these
               | framing.tick(idle)                # when nothing came
               | framing.eof()                     # at end of file, reset or our own decision
        write framing.send()                       # mostly nothing

Every byte of audio that went in comes out, in order, in ``Audio`` frames; the last frame of a
connection is always one ``Hangup``. Memory is bounded whatever comes in. Machines raise nothing on
bad bytes: they say so in a ``Notice`` and go on.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from aii.protocols.frames import Frame, Hangup, Notice

MOST_NOTICES = 20
"""A connection's log lines about its wire end here, however bad it is."""


class Framing(ABC):
    """One connection's way from bytes to frames."""

    _name: str
    _takes_text: bool = True

    def __init__(self) -> None:
        self._over = False
        self._outbox = b""
        self._notices = 0

    @property
    def name(self) -> str:
        """Which framing this is, for the log; changes once an automatic one has decided."""
        return self._name

    @property
    def takes_text(self) -> bool:
        """Whether lines of text may be written to the client; False while that is unknown."""
        return self._takes_text

    @property
    def tick_after(self) -> float | None:
        """Call ``tick`` once nothing has come for this many seconds; None: no need to."""
        return None

    def receive(self, data: bytes, idle: float = 0.0) -> list[Frame]:
        """Take the next bytes, in pieces of any size.

        Args:
            data: what came; nothing at all is the same as ``tick(idle)``.
            idle: seconds between the bytes before and these (from the start for the first).
        """
        if self._over:
            return []
        return self._checked(self._feed(data, idle) if data else self._wait(idle))

    def tick(self, idle: float) -> list[Frame]:
        """Nothing has come for ``idle`` seconds, counted from the last bytes."""
        return [] if self._over else self._checked(self._wait(idle))

    def eof(self) -> list[Frame]:
        """The connection has ended: what was still held, then ``Hangup``. Later calls: nothing."""
        if self._over:
            return []
        return self._checked([*self._drain(), Hangup("eof")])

    def send(self) -> bytes:
        """Bytes to write to the client now; each is handed out once."""
        out, self._outbox = self._outbox, b""
        return out

    def hang_up(self) -> None:
        """We end the call: puts into ``send()`` what must be said first; mostly nothing."""
        self._outbox += b""

    @abstractmethod
    def _feed(self, data: bytes, idle: float) -> list[Frame]:
        """``receive`` for at least one byte."""

    def _wait(self, idle: float) -> list[Frame]:
        """``tick``."""
        return []

    def _drain(self) -> list[Frame]:
        """What is still held when the connection ends."""
        return []

    def _notice(self, text: str) -> list[Frame]:
        """A notice, or nothing when this connection has had its share."""
        self._notices += 1
        if self._notices > MOST_NOTICES:
            return []
        last = "; further notices of this call are dropped"
        return [Notice(text + (last if self._notices == MOST_NOTICES else ""))]

    def _checked(self, frames: list[Frame]) -> list[Frame]:
        """``frames`` up to the first ``Hangup``, after which the machine is deaf."""
        for number, frame in enumerate(frames):
            if isinstance(frame, Hangup):
                self._over = True
                return frames[: number + 1]
        return frames
