"""One call on one socket, on a thread of its own.

The thread waits for the socket and for a bell that the engine rings, never for a decode::

    socket -> framing -> SlinDecoder -> Session -> engine.submit        (reading)
    engine's answer -> inbox + bell -> Session -> events -> sinks, outbox  (deciding)

So the session is touched by this thread alone and needs no lock. Reading stops only while a call
holds more undecoded audio than ``max_backlog``; the sender then feels TCP's own back-pressure and
nothing is lost. Writing never waits: what a client does not read stays in a bounded outbox.
"""

from __future__ import annotations

import logging
import selectors
import socket
from collections import deque
from concurrent.futures import Future
from functools import partial

from aii.audio.pcm import SlinDecoder
from aii.errors import AiiError, EngineClosedError, EngineFullError
from aii.protocols import Audio, CallId, Dtmf, Flush, Format, Frame, Hangup, Notice
from aii.servers.lifecycle import Bell, make_selector
from aii.servers.services import Services
from aii.sinks.socket import Outbox
from aii.streaming.events import Event
from aii.streaming.session import Session
from aii.types import Hypothesis

log = logging.getLogger(__name__)

CHUNK = 65536
"""Bytes read at once."""

LINGER = 10.0
"""Seconds that a client may leave our last bytes unread before we close."""

DRAIN = 1.0
"""Seconds that a client has to close after we have; closing on unread bytes would reset it."""

LAST_READS = 64
"""Chunks taken from a socket whose call we end ourselves."""


class Connection:
    """The call on ``sock``, which it closes at the end; ``run`` is the thread's body."""

    def __init__(self, sock: socket.socket, caller: str, services: Services) -> None:
        self._sock = sock
        self._caller = caller
        self._services = services
        self._framing = services.make_framing()
        self._decoder = SlinDecoder(services.rate)
        self._session: Session | None = None
        self._outbox = Outbox(services.reply)
        self._control = bytearray()  # what the framing itself says
        self._inbox: deque[tuple[int, Future[Hypothesis]]] = deque()
        self._orders: deque[str] = deque()
        self._bell = Bell()
        self._selector = make_selector()
        self._watched = 0
        self._last_byte = services.clock()
        self._heard_end = False  # the client's end of file, or a reset
        self._over = False  # nothing more is fed to the session
        self._paused = False
        self._aborted = False

    # From other threads.

    def stop(self) -> None:
        """End the call as if the caller had hung up; its last words are still decoded."""
        self._orders.append("stop")
        self._bell.ring()

    def abort(self) -> None:
        """End the call now, whatever is not decoded."""
        self._orders.append("abort")
        self._bell.ring()

    def close(self) -> None:
        """Free the sockets; only for a connection that does not run (any more)."""
        self._selector.close()
        self._sock.close()
        self._bell.close()

    def _answered(self, request_id: int, future: Future[Hypothesis]) -> None:
        self._inbox.append((request_id, future))
        self._bell.ring()

    # The thread.

    def run(self) -> None:
        """Serve the call to its end. Raises nothing."""
        try:
            self._sock.setblocking(False)
            self._selector.register(self._bell, selectors.EVENT_READ)
            while not self._finished:
                self._step()
            if not self._aborted:
                self._part()
        except Exception:
            log.exception("%s: the call ends because of a mistake of ours", self._name)
            self._give_up("internal error")
        finally:
            self.close()
            if self._session is not None:
                self._services.release(self._session.call_id)

    def _step(self) -> None:
        """Wait for something to happen and do what follows from it."""
        readable = self._wait(self._timeout())
        self._obey()
        self._take_answers()
        if readable:
            self._read()
        else:
            self._let_time_pass()
        self._ask()
        self._pause_or_resume()
        self._write()

    @property
    def _finished(self) -> bool:
        return self._aborted or (self._over and (self._session is None or self._session.done))

    @property
    def _name(self) -> str:
        return self._caller if self._session is None else self._session.call_id

    @property
    def _unsent(self) -> int:
        text = len(self._outbox) if self._framing.takes_text else 0
        return len(self._control) + text

    def _timeout(self) -> float | None:
        """Seconds until something is due without anybody ringing."""
        moments = []
        if not self._over and not self._paused:
            if self._framing.tick_after is not None:
                moments.append(self._last_byte + self._framing.tick_after)
            if self._services.idle_timeout > 0:
                moments.append(self._last_byte + self._services.idle_timeout)
        if self._session is not None and self._session.wake_at is not None:
            moments.append(self._session.wake_at)
        return max(min(moments) - self._services.clock(), 0.0) if moments else None

    def _wait(self, timeout: float | None) -> bool:
        """Wait for the socket or the bell; whether the socket has something to read."""
        reading = not self._heard_end and not self._paused
        wanted = selectors.EVENT_READ * reading | selectors.EVENT_WRITE * (self._unsent > 0)
        if wanted != self._watched:
            if self._watched:
                self._selector.unregister(self._sock)
            if wanted:
                self._selector.register(self._sock, wanted)
            self._watched = wanted
        readable = False
        for key, events in self._selector.select(timeout):
            if key.fileobj is self._bell:
                self._bell.hush()
            else:
                readable = bool(events & selectors.EVENT_READ)
        return readable

    def _obey(self) -> None:
        while self._orders:
            if self._orders.popleft() == "abort":
                self._give_up("shutdown deadline")
            elif not self._over:
                self._end_ourselves("shutdown")

    # From the socket to the session.

    def _read(self) -> bool:
        """Take what the socket has; whether there may be more."""
        try:
            data = self._sock.recv(CHUNK)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError as error:
            log.info("%s: %s", self._name, error)
            self._gone("connection reset")
            return False
        if not data:
            self._gone("eof")
            return False
        now = self._services.clock()
        idle, self._last_byte = now - self._last_byte, now
        if not self._over:
            self._handle(self._framing.receive(data, idle))
        return True

    def _let_time_pass(self) -> None:
        if self._over or self._paused:
            return
        idle = self._services.clock() - self._last_byte
        tick_after = self._framing.tick_after
        if tick_after is not None and idle >= tick_after:
            self._handle(self._framing.tick(idle))
        if 0 < self._services.idle_timeout <= idle and not self._over:
            log.info("%s: nothing came for %.0f s; the call is ended", self._name, idle)
            self._end_ourselves("idle")

    def _gone(self, reason: str) -> None:
        """The client sends no more."""
        self._heard_end = True
        if reason == "eof":
            self._outbox.half_closed()
        if not self._over:
            self._handle(self._framing.eof(), reason)

    def _end_ourselves(self, reason: str) -> None:
        """We end the call; what the client has sent by now still counts."""
        reads = 0
        while not self._heard_end and reads < LAST_READS and self._read():
            reads += 1
        if reads == LAST_READS:
            log.warning(
                "%s: what the client sent beyond %d bytes more is not read",
                self._name,
                LAST_READS * CHUNK,
            )
        self._framing.hang_up()
        self._outbox.half_closed()
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
        self._control += self._framing.send()

    def _feed(self, frame: Audio | Dtmf | Flush | Format, session: Session) -> None:
        if isinstance(frame, Audio):
            session.feed(self._decoder.feed(frame.payload))
        elif isinstance(frame, Dtmf):
            self._emit(session.dtmf(frame.digit))
        elif isinstance(frame, Flush):
            session.flush()
        else:
            log.info("%s: %s at %d Hz", session.call_id, frame.encoding, frame.rate)
            session.feed(self._decoder.flush())
            self._decoder = SlinDecoder(frame.rate)

    def _begin(self, wanted: str | None) -> Session:
        """The call's session, which begins with its id or, without one, with its first frame."""
        if self._session is None:
            call_id = self._services.claim(wanted)
            self._session = self._services.make_session(call_id, self._caller)
            self._emit(self._session.start())
        elif wanted is not None and wanted != self._session.call_id:
            log.warning("%s: a second call id, %s, is ignored", self._name, wanted)
        return self._session

    def _hung_up(self, reason: str) -> None:
        self._over = True
        if reason == "refused" and self._session is None:
            log.info("%s: not a call; refused", self._caller)
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
                log.error("%s: a window failed: %s", self._name, _line(error))
                self._emit(self._session.fail(request_id, error))

    def _pause_or_resume(self) -> None:
        if self._session is None or self._over:
            self._paused = False
            return
        backlog, most = self._session.backlog, self._services.max_backlog
        if not self._paused and backlog > most:
            self._paused = True
            log.warning(
                "%s: %.0f s of audio wait for the engine; the server stops reading from this call "
                "until they are fewer",
                self._name,
                backlog,
            )
        elif self._paused and backlog < 0.9 * most:
            self._paused = False
            self._last_byte = self._services.clock()  # the silence was ours
            log.warning("%s: reading goes on", self._name)

    # From the session to the outside.

    def _emit(self, events: list[Event]) -> None:
        for event in events:
            for sink in self._services.sinks:
                sink.emit(event)
            before = self._outbox.dropped
            self._outbox.emit(event)
            if before == 0 and self._outbox.dropped:
                log.warning("%s: the client does not read; replies to it are dropped", self._name)

    def _write(self) -> bool:
        """Write what the socket takes; whether anything went out."""
        wrote = False
        while self._unsent:
            control = bool(self._control)
            data = bytes(self._control) if control else self._outbox.peek()
            try:
                count = self._sock.send(data)
            except (BlockingIOError, InterruptedError):
                break
            except OSError as error:
                log.info("%s: replies end: %s", self._name, error)
                self._control.clear()
                self._outbox.mute()
                break
            wrote = True
            if control:
                del self._control[:count]
            else:
                self._outbox.wrote(count)
        return wrote

    def _part(self) -> None:
        """After the call: the last replies, then a clean end of the connection."""
        if not self._framing.takes_text:
            self._outbox.mute()
        clock = self._services.clock
        until = clock() + LINGER
        while self._unsent and not self._aborted and clock() < until:
            if self._wait(until - clock()):
                self._read()
            self._obey()
            if self._write():
                until = clock() + LINGER
        if self._outbox.dropped:
            log.warning("%s: %d replies were dropped", self._name, self._outbox.dropped)
        if self._heard_end:
            return
        try:
            self._sock.shutdown(socket.SHUT_WR)
        except OSError:
            return
        until = clock() + DRAIN
        while not self._heard_end and not self._aborted and clock() < until:
            if self._wait(until - clock()):
                self._read()
            self._obey()

    def _give_up(self, reason: str) -> None:
        self._aborted = self._over = True
        session = self._session
        if session is not None and not session.done:
            self._services.engine.cancel(session.call_id)
            log.error(
                "%s: %.1f s of audio are not decoded: %s", self._name, session.backlog, reason
            )
            self._emit(session.abort(reason))


def _line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
