"""One call on one socket, as a member of the loop that drives all calls.

It waits for nothing: it is stepped when the socket has something, when the engine has rung, and
when its time has come::

    socket -> framing -> Call -> engine             (hearing)
    engine's answer -> ring -> Call -> outbox       (deciding)

Reading stops only while a call holds more undecoded audio than ``max_backlog``, or than it needs
while all calls together hold too much; the sender then feels TCP's own back-pressure and nothing is
lost.
"""

from __future__ import annotations

import logging
import socket
from collections import deque
from functools import partial

from aii.protocols import Frame
from aii.servers.call import Call
from aii.servers.line import CHUNK, Line
from aii.servers.loop import Loop
from aii.servers.services import Services
from aii.sinks.socket import Outbox
from aii.streaming.events import Event

log = logging.getLogger(__name__)

LAST_READS = 64
"""Chunks taken from a socket whose call we end ourselves."""


class Connection:
    """The call on ``sock``, which it closes at the end; a :class:`aii.servers.loop.Member`.

    Args:
        sock: connected; from now on ours.
        caller: its other end, for the log.
        services: what every connection is given.
        loop: which will drive it.
    """

    def __init__(
        self, sock: socket.socket, caller: str, services: Services, loop: Loop[Connection]
    ) -> None:
        self.gone = False
        self._caller = caller
        self._services = services
        self._ring = partial(loop.ring, self)
        self._framing = services.make_framing()
        self._line = Line(sock, Outbox(services.reply), services.clock)
        self._call = Call(services, caller, wake=self._ring, tell=self._tell)
        self._orders: deque[str] = deque()
        self._parting = False

    # From other threads.

    def stop(self) -> None:
        """End the call as if the caller had hung up; its last words are still decoded."""
        self._orders.append("stop")
        self._ring()

    def abort(self) -> None:
        """End the call now, whatever is not decoded."""
        self._orders.append("abort")
        self._ring()

    # The loop's thread.

    def fileno(self) -> int:
        """The socket's number."""
        return self._line.fileno()

    @property
    def wanted(self) -> int:
        """The socket's events that matter now."""
        if self._parting:
            return self._line.wanted(reading=True)
        if self._call.paused:
            return self._line.wanted(reading=False)
        if self._call.over or self._framing.tick_after is not None:
            return self._line.wanted(reading=True)
        return self._line.wanted(reading=self._line.gathered is None)

    @property
    def due(self) -> float | None:
        """When something is due without anything happening."""
        line, call = self._line, self._call
        if self._parting:
            return line.gone_by
        due = call.wake_at
        if call.over or call.paused:
            return due
        for limit in (self._framing.tick_after, self._patience or None):
            if limit is not None and (due is None or line.last_byte + limit < due):
                due = line.last_byte + limit
        gathered = line.gathered
        if gathered is not None and (due is None or gathered < due):
            due = gathered
        return due

    def step(self, ready: int) -> None:
        """Do what follows from what has happened. Raises nothing."""
        try:
            if self._orders:
                self._obey()
            if not self._parting:
                self._serve(ready)
                self._parting = self._call.finished
                ready = 0
            if self._parting:
                self.gone = self._call.aborted or self._line.part(ready)
        except Exception:
            log.exception("%s: the call ends because of a mistake of ours", self._call.name)
            self.gone = True
            self._call.give_up("internal error")

    def leave(self) -> None:
        """Free the socket and what is shared with other calls; the call's line in the log."""
        self._line.close()
        self._call.close()
        self._sum_up()

    def _serve(self, ready: int) -> None:
        """One round of the call."""
        call, line = self._call, self._line
        paused = call.paused
        if not paused and line.ready(ready, self._services.clock()):
            self._read()
        else:
            self._let_time_pass()
        call.step()
        if call.wanted_end and not call.over:
            self._end_ourselves("done")
            call.step()
        if paused and not call.paused:
            line.rest()  # the silence was ours
        line.takes_text = self._framing.takes_text
        if line.unsent:
            line.write()

    @property
    def _patience(self) -> float:
        """Seconds without a byte after which we end the call; 0 is never."""
        idle = self._services.idle_timeout
        if self._line.received:
            return idle
        first = self._services.first_byte_timeout
        return min(idle, first) if idle and first else idle or first

    def _obey(self) -> None:
        while self._orders:
            if self._orders.popleft() == "abort":
                self._call.give_up("shutdown deadline")
            elif not self._call.over:
                self._end_ourselves("shutdown")

    # From the socket to the session.

    def _read(self) -> bool:
        """Take what the socket has; whether there may be more."""
        data = self._line.read()
        if data is None or self._call.over:
            return bool(data)
        if data:
            self._handle(self._framing.receive(data, self._line.pause))
        else:
            self._handle(self._framing.eof(), self._line.end)
        return bool(data)

    def _let_time_pass(self) -> None:
        if self._call.over or self._call.paused:
            return
        idle = self._services.clock() - self._line.last_byte
        tick_after = self._framing.tick_after
        if tick_after is not None and idle >= tick_after:
            self._handle(self._framing.tick(idle))
        if 0 < self._patience <= idle and not self._call.over:
            log.info("%s: nothing came for %.0f s; the connection is ended", self._call.name, idle)
            self._end_ourselves("idle")

    def _end_ourselves(self, reason: str) -> None:
        """We end the call; what the client has sent by now still counts."""
        reads = 0
        while not self._line.end and reads < LAST_READS and self._read():
            reads += 1
        if reads == LAST_READS:
            log.warning(
                "%s: what the client sent beyond %d bytes more is not read",
                self._call.name,
                LAST_READS * CHUNK,
            )
        self._framing.hang_up()
        if not self._call.over:
            self._handle(self._framing.eof(), reason)

    def _handle(self, frames: list[Frame], ended: str | None = None) -> None:
        """Hand frames to the call; ``ended`` says why, where the end was not the framing's word."""
        self._call.take(frames, ended=ended, silent=not self._line.received)
        if said := self._framing.send():
            self._line.control += said

    # From the call to the client.

    def _tell(self, event: Event) -> None:
        outbox = self._line.outbox
        before = outbox.dropped
        outbox.emit(event)
        if before == 0 and outbox.dropped:
            log.warning("%s: the client does not read; replies to it are dropped", self._call.name)

    def _sum_up(self) -> None:
        """The call in one line of the log."""
        line = self._line
        trouble = f" ({line.trouble})" if line.trouble else ""
        if not self._call.begun:
            what = f"{line.received} bytes" if line.received else "nothing was sent"
            log.info("%s: no call: %s%s", self._caller, what, trouble)
            return
        dropped = line.outbox.dropped
        self._call.sum_up(trouble, f", {dropped} replies dropped" if dropped else "")
