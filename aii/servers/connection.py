"""One call on one socket, on a thread of its own.

The thread waits for the socket and for a bell that the engine rings, never for a decode::

    socket -> framing -> SlinDecoder -> Session -> engine.submit        (reading)
    engine's answer -> inbox + bell -> Session -> events -> sinks, outbox  (deciding)

So the session is touched by this thread alone and needs no lock. Reading stops only while a call
holds more undecoded audio than ``max_backlog``, or than it needs while all calls together hold too
much; the sender then feels TCP's own back-pressure and nothing is lost.
"""

from __future__ import annotations

import logging
import socket
from collections import deque
from concurrent.futures import Future
from functools import partial

from aii.audio.pcm import SlinDecoder
from aii.errors import AiiError, EngineClosedError, EngineFullError
from aii.protocols import Audio, CallId, Dtmf, Flush, Format, Frame, Hangup, Notice
from aii.servers.budget import EASY
from aii.servers.line import CHUNK, Line
from aii.servers.logs import Once
from aii.servers.services import Services
from aii.sinks.socket import Outbox
from aii.streaming.events import CallEnded, Event
from aii.streaming.session import Session
from aii.types import SAMPLE_RATE, Hypothesis

log = logging.getLogger(__name__)

LAST_READS = 64
"""Chunks taken from a socket whose call we end ourselves."""

BUDGET_POLL = 0.25
"""Seconds between looks at the budget of all calls while it keeps this one from reading."""


class Connection:
    """The call on ``sock``, which it closes at the end; ``run`` is the thread's body."""

    def __init__(self, sock: socket.socket, caller: str, services: Services) -> None:
        self._caller = caller
        self._services = services
        self._framing = services.make_framing()
        self._decoder = SlinDecoder(services.rate)
        self._session: Session | None = None
        self._line = Line(sock, Outbox(services.reply), services.clock)
        self._once = Once(log)
        self._claimed: str | None = None  # the id that is ours until the call's last event
        self._inbox: deque[tuple[int, Future[Hypothesis]]] = deque()
        self._orders: deque[str] = deque()
        self._over = False  # nothing more is fed to the session
        self._full = False  # this call holds too much,
        self._crowded = False  # or all together do
        self._reported = 0.0  # seconds of audio that the budget knows of
        self._aborted = False

    # From other threads.

    def stop(self) -> None:
        """End the call as if the caller had hung up; its last words are still decoded."""
        self._orders.append("stop")
        self._line.ring()

    def abort(self) -> None:
        """End the call now, whatever is not decoded."""
        self._orders.append("abort")
        self._line.ring()

    def close(self) -> None:
        """Free the sockets; only for a connection that does not run (any more)."""
        self._line.close()

    def _answered(self, request_id: int, future: Future[Hypothesis]) -> None:
        self._inbox.append((request_id, future))
        self._line.ring()

    # The thread.

    def run(self) -> None:
        """Serve the call to its end. Raises nothing."""
        try:
            self._line.open()
            while not self._finished:
                self._step()
            if not self._aborted:
                self._line.part(self._told_to_abort)
        except Exception:
            log.exception("%s: the call ends because of a mistake of ours", self._name)
            self._give_up("internal error")
        finally:
            self.close()
            self._release()
            self._services.budget.change(-self._reported)
            self._sum_up()

    def _step(self) -> None:
        """Wait for something to happen and do what follows from it."""
        readable = self._line.wait(self._timeout(), reading=not self._paused)
        self._obey()
        self._take_answers()
        if readable:
            self._read()
        else:
            self._let_time_pass()
        self._ask()
        self._pause_or_resume()
        self._line.takes_text = self._framing.takes_text
        self._line.write()

    @property
    def _finished(self) -> bool:
        return self._aborted or (self._over and (self._session is None or self._session.done))

    @property
    def _paused(self) -> bool:
        return self._full or self._crowded

    @property
    def _name(self) -> str:
        return self._caller if self._session is None else self._session.call_id

    @property
    def _patience(self) -> float:
        """Seconds without a byte after which we end the call; 0 is never."""
        limits = [self._services.idle_timeout]
        if not self._line.received:
            limits.append(self._services.first_byte_timeout)
        return min((limit for limit in limits if limit > 0), default=0.0)

    def _timeout(self) -> float | None:
        """Seconds until something is due without anybody ringing."""
        moments = []
        if not self._over and not self._paused:
            if self._framing.tick_after is not None:
                moments.append(self._line.last_byte + self._framing.tick_after)
            if self._patience:
                moments.append(self._line.last_byte + self._patience)
        if self._crowded:
            moments.append(self._services.clock() + BUDGET_POLL)
        if self._session is not None and self._session.wake_at is not None:
            moments.append(self._session.wake_at)
        return max(min(moments) - self._services.clock(), 0.0) if moments else None

    def _obey(self) -> None:
        while self._orders:
            if self._orders.popleft() == "abort":
                self._give_up("shutdown deadline")
            elif not self._over:
                self._end_ourselves("shutdown")

    def _told_to_abort(self) -> bool:
        self._obey()
        return self._aborted

    # From the socket to the session.

    def _read(self) -> bool:
        """Take what the socket has; whether there may be more."""
        before = self._line.last_byte
        data = self._line.read()
        if data is None or self._over:
            return bool(data)
        if data:
            self._handle(self._framing.receive(data, self._line.last_byte - before))
        else:
            self._handle(self._framing.eof(), self._line.end)
        return bool(data)

    def _let_time_pass(self) -> None:
        if self._over or self._paused:
            return
        idle = self._services.clock() - self._line.last_byte
        tick_after = self._framing.tick_after
        if tick_after is not None and idle >= tick_after:
            self._handle(self._framing.tick(idle))
        if 0 < self._patience <= idle and not self._over:
            log.info("%s: nothing came for %.0f s; the connection is ended", self._name, idle)
            self._end_ourselves("idle")

    def _end_ourselves(self, reason: str) -> None:
        """We end the call; what the client has sent by now still counts."""
        reads = 0
        while not self._line.end and reads < LAST_READS and self._read():
            reads += 1
        if reads == LAST_READS:
            log.warning(
                "%s: what the client sent beyond %d bytes more is not read",
                self._name,
                LAST_READS * CHUNK,
            )
        self._framing.hang_up()
        if not self._over:
            self._handle(self._framing.eof(), reason)

    def _handle(self, frames: list[Frame], ended: str | None = None) -> None:
        """Feed the session; ``ended`` says why, when the end was not the framing's finding."""
        for frame in frames:
            if isinstance(frame, Notice):
                log.warning("%s: %s", self._name, frame.text)
            elif isinstance(frame, CallId):
                self._begin(frame.id)
            elif isinstance(frame, Hangup):
                self._hung_up(ended or frame.reason)
            else:
                self._feed(frame, self._begin(None))
        self._line.control += self._framing.send()

    def _feed(self, frame: Audio | Dtmf | Flush | Format, session: Session) -> None:
        if isinstance(frame, Audio):
            session.feed(self._decoder.feed(frame.payload))
        elif isinstance(frame, Dtmf):
            self._emit(session.dtmf(frame.digit))
        elif isinstance(frame, Flush):
            session.flush()
        else:
            line = "%s: %s at %d Hz"
            self._once.log(
                "changes of format", logging.INFO, line, self._name, frame.encoding, frame.rate
            )
            session.feed(self._decoder.flush())
            self._decoder = SlinDecoder(frame.rate)

    def _begin(self, wanted: str | None) -> Session:
        """The call's session, which begins with its id or, without one, with its first frame."""
        if self._session is None:
            self._claimed = self._services.claim(wanted)
            self._session = self._services.make_session(self._claimed, self._caller)
            self._emit(self._session.start())
        elif wanted is not None and wanted != self._session.call_id:
            line = "%s: a second call id, %s, is ignored"
            self._once.log("second call ids", logging.WARNING, line, self._name, wanted)
        return self._session

    def _hung_up(self, reason: str) -> None:
        self._over = True
        if self._session is None and (reason == "refused" or not self._line.received):
            return
        session = self._begin(None)
        session.feed(self._decoder.flush())
        self._emit(session.finish(reason))

    # Between the session and the engine.

    def _ask(self) -> None:
        """Hand a due request to the engine."""
        session = self._session
        if session is None:
            return
        while (request := session.next_request(self._services.clock())) is not None:
            try:
                future = self._services.engine.submit(request)
            except EngineFullError:
                session.refuse(request.request_id, self._services.clock())
            except AiiError as error:
                self._emit(session.fail(request.request_id, error))
            else:
                future.add_done_callback(partial(self._answered, request.request_id))

    def _take_answers(self) -> None:
        while self._inbox and self._session is not None:
            request_id, future = self._inbox.popleft()
            error: BaseException | None
            if future.cancelled():
                error = EngineClosedError("the request was withdrawn")
            else:
                error = future.exception()
            if error is None:
                self._emit(self._session.accept(future.result()))
            else:
                line = "%s: a window failed: %s"
                self._once.log("failures", logging.ERROR, line, self._name, _one_line(error))
                self._emit(self._session.fail(request_id, error))

    def _pause_or_resume(self) -> None:
        if self._session is None:
            return
        backlog, services = self._session.backlog, self._services
        services.budget.change(backlog - self._reported)
        self._reported = backlog
        before, paused = self._full, self._paused
        limit = services.max_backlog * (EASY if self._full else 1.0)
        self._full = backlog > limit and not self._over
        self._crowded = services.budget.over and backlog > services.enough and not self._over
        if paused and not self._paused:
            self._line.last_byte = services.clock()  # the silence was ours
        if self._full == before or self._over:
            return
        kind, line = "pauses", "%s: %.0f s of audio wait for the engine; the server stops reading "
        if before:
            kind, line = "times reading went on", "%s: %.0f s of audio wait: reading goes on"
        else:
            line += "from this call until they are fewer"
        self._once.log(kind, logging.WARNING, line, self._name, backlog)

    # From the session to the outside.

    def _emit(self, events: list[Event]) -> None:
        outbox = self._line.outbox
        for event in events:
            for sink in self._services.sinks:
                sink.emit(event)
            before = outbox.dropped
            outbox.emit(event)
            if before == 0 and outbox.dropped:
                log.warning("%s: the client does not read; replies to it are dropped", self._name)
            if isinstance(event, CallEnded):
                self._release()

    def _release(self) -> None:
        """Another call may have our id."""
        if self._claimed is not None:
            self._services.release(self._claimed)
            self._claimed = None

    def _give_up(self, reason: str) -> None:
        self._aborted = self._over = True
        session = self._session
        if session is not None and not session.done:
            self._services.engine.cancel(session.call_id)
            log.error(
                "%s: %.1f s of audio are not decoded: %s", self._name, session.backlog, reason
            )
            self._emit(session.abort(reason))

    def _sum_up(self) -> None:
        """The call in one line of the log."""
        line, session = self._line, self._session
        trouble = f" ({line.trouble})" if line.trouble else ""
        if session is None:
            what = f"{line.received} bytes" if line.received else "nothing was sent"
            log.info("%s: no call: %s%s", self._caller, what, trouble)
            return
        counters, dropped = session.counters, line.outbox.dropped
        replies = f", {dropped} replies dropped" if dropped else ""
        log.info(
            "%s: over: %s%s; %.1f s of audio, %d finals, %d partials, %d windows skipped, "
            "%d failed, %.1f s lost%s%s",
            self._name,
            session.reason,
            trouble,
            counters.samples / SAMPLE_RATE,
            counters.finals,
            counters.partials,
            counters.skipped,
            counters.failed,
            counters.lost / SAMPLE_RATE,
            replies,
            self._once.more(),
        )


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
