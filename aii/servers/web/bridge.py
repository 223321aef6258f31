"""A call behind a WebSocket: messages in, frames to the call; events out, messages back.

The protocol machine (``aii.protocols.messages``) knows what the messages mean; the call
(``aii.servers.call``) is the one that TCP connections have too. Everything here runs on the web's
event loop: reading, the engine's answers (which only ring), and writing, each bounded::

    receive -> protocol.receive -> call.take -> call.step
    engine's answer -> ring -> call.step -> protocol.event -> outbox -> send

While too much waits for the engine nothing is received, and the client feels TCP's back-pressure.
A client that does not read loses partial results first and is then cut; its call's words are at the
sinks all the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Any, Protocol

from starlette.requests import HTTPConnection
from starlette.websockets import WebSocket

from aii.errors import ConfigError
from aii.protocols.frames import Flush, Frame
from aii.servers.address import shown
from aii.servers.call import Call
from aii.servers.leg import Manner
from aii.servers.web.state import Web, web_of
from aii.servers.web.writer import GOING_AWAY, INTERNAL, POLICY, TOO_BIG, TRY_LATER, Writer, close
from aii.sinks.base import droppable
from aii.streaming.events import Event

log = logging.getLogger(__name__)


class MessageMachine(Protocol):
    """What a protocol machine has; see :class:`aii.protocols.messages.MessageProtocol`.

    One may also have ``refusal``, (close code, reason) once it has met what it cannot take.
    """

    @property
    def subprotocols(self) -> tuple[str, ...]:
        """Those that it speaks, the best first."""

    def receive(self, message: str | bytes) -> list[Frame]:
        """Take a message."""

    def eof(self) -> list[Frame]:
        """Nothing more comes."""

    def event(self, event: Event) -> list[Any]:
        """What the client is told of an event: texts and bytes."""

    def send(self) -> list[Any]:
        """What is to be written now."""


async def bridge(
    websocket: WebSocket,
    protocol: MessageMachine,
    *,
    caller: str | None = None,
    settings: Any = None,
    manner: Manner | None = None,
    quiet: float | None = None,
    left: Callable[[], object] = lambda: None,
) -> None:
    """Serve the call on a WebSocket that is not accepted yet; return when all of it is over.

    Args:
        protocol: what the messages mean.
        caller: where the call comes from; None for the client's address.
        settings: the call's own settings; None for the server's.
        manner: how it is served.
        quiet: seconds without a message after which what was said so far becomes final; None: only
            the call's end and its policy make it so.
        left: called when the client has gone, before its last words are decoded.
    """
    web = web_of(websocket)
    offered = websocket.scope.get("subprotocols", [])
    chosen = next((name for name in protocol.subprotocols if name in offered), None)
    if refusal := web.refusal():
        kind, why = refusal
        await turn_away(websocket, kind, TRY_LATER, f"{why}; try again later", chosen)
        return
    await websocket.accept(subprotocol=chosen)
    caller = caller or peer(websocket)
    session = _Bridge(web, websocket, protocol, caller, settings, manner, quiet, left)
    with web.calling.with_guest(session):
        await session.run()


async def turn_away(
    websocket: WebSocket, why: str, code: int, reason: str, subprotocol: str | None = None
) -> None:
    """Refuse a WebSocket that is not accepted yet, in a way that a client sees: by how it closes.

    Args:
        why: a word for the metrics.
        code: of the close.
        reason: for the client and the log.
    """
    await websocket.accept(subprotocol=subprotocol)
    web_of(websocket).refused(why, peer(websocket), f"{websocket.url.path}: {reason}")
    await close(websocket, code, reason)


def peer(connection: HTTPConnection) -> str:
    """The client's address."""
    client = connection.client
    return "web" if client is None else shown((client.host, client.port))


class _Bridge:
    """One session; all methods but ``_wake`` are for the loop's thread."""

    def __init__(
        self,
        web: Web,
        websocket: WebSocket,
        protocol: MessageMachine,
        caller: str,
        settings: Any,
        manner: Manner | None,
        quiet: float | None,
        left: Callable[[], object],
    ) -> None:
        self._web = web
        self._left = left
        self._quiet = quiet
        self._unsaid = False  # something came since everything was made final
        self._websocket = websocket
        self._protocol = protocol
        self._loop = asyncio.get_running_loop()
        self._clock = web.services.clock
        self._call = Call(
            web.services,
            caller,
            wake=self._wake,
            tell=self._tell,
            settings=settings,
            manner=manner,
        )
        self._began = self._last = self._clock()
        self._received = 0
        self._rung = False
        self._ending: tuple[int, str] | None = None  # how we close, where it is our doing
        self._writer = Writer(websocket, web.config.slow_reader, self._too_slow)
        self._reading = asyncio.Event()  # set while messages are wanted
        self._finished = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None

    async def run(self) -> None:
        """Serve the call to its end. Raises nothing but cancellation."""
        reader = asyncio.create_task(self._read())
        self._reading.set()
        self._set_timer()
        try:
            await self._finished.wait()
            await self._writer.finish(*(self._ending or (1000, "")))
        finally:
            reader.cancel()
            if self._timer is not None:
                self._timer.cancel()
            if not self._call.finished:
                self._call.give_up("shutdown")
            self._call.close()
            await self._writer.stop()
            await asyncio.gather(reader, return_exceptions=True)
            if self._call.begun:
                dropped = self._writer.dropped
                self._call.sum_up("", f", {dropped} replies dropped" if dropped else "")

    # Told by the server.

    def stop(self) -> None:
        """The server stops: last words, then goodbye."""
        self._end("shutdown", GOING_AWAY, "the server is stopping")

    def abort(self) -> None:
        """The server cannot wait any longer."""
        self._guarded(lambda: self._call.give_up("shutdown deadline"))

    # The engine's answers.

    def _wake(self) -> None:
        """From any thread: have ``_step`` run."""
        if not self._rung:
            self._rung = True
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._step)

    def _step(self) -> None:
        self._rung = False
        self._guarded(lambda: None)

    def _guarded(self, action: Callable[[], object]) -> None:
        """Do something with the call and what follows from it; a mistake of ours ends this call
        and no other."""
        if self._finished.is_set():
            return
        try:
            action()
            self._call.step()
            self._after()
        except Exception:
            log.exception("%s: the call ends because of a mistake of ours", self._call.name)
            self._ending = self._ending or (INTERNAL, "internal error")
            with contextlib.suppress(Exception):
                self._call.give_up("internal error")
            self._finished.set()

    def _after(self) -> None:
        """Write what is due, read or pause, and see whether it is over."""
        self._writer.put(self._protocol.send())
        refusal = getattr(self._protocol, "refusal", None)
        if refusal is not None and self._ending is None:
            self._ending = refusal
            self._web.refused("message")
            log.warning("%s: refused: %s", self._call.name, refusal[1])
        if self._call.wanted_end and not self._call.over:
            self._end("done", 1000, "")
        was_paused = not self._reading.is_set()
        if self._call.paused:
            self._reading.clear()
        else:
            if was_paused:
                self._last = self._clock()  # the silence was ours
            self._reading.set()
        self._set_timer()
        if self._call.finished:
            self._finished.set()

    # Time.

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        moments = self._call.wake_at, self._patience(), self._flush_at()
        due = [moment for moment in moments if moment is not None]
        if due and not self._finished.is_set():
            delay = min(max(min(due) - self._clock(), 0.0), 3600.0)
            self._timer = self._loop.call_later(delay, self._guarded, self._let_time_pass)

    def _patience(self) -> float | None:
        """When we end the call because nothing comes or it has lasted too long."""
        if self._call.over:
            return None
        services, config = self._web.services, self._web.config
        limits = []
        if config.session_seconds:
            limits.append(self._began + config.session_seconds)
        if services.idle_timeout and not self._call.paused:
            limits.append(self._last + services.idle_timeout)
        if services.first_byte_timeout and not self._received:
            limits.append(self._last + services.first_byte_timeout)
        return min(limits, default=None)

    def _flush_at(self) -> float | None:
        """When a client that sends nothing more gets the words of what it has sent."""
        if self._quiet is None or not self._unsaid or self._call.over or self._call.paused:
            return None
        return self._last + self._quiet

    def _let_time_pass(self) -> None:
        flush = self._flush_at()
        if flush is not None and self._clock() >= flush:
            self._unsaid = False
            self._call.take([Flush()])
        moment = self._patience()
        if moment is None or self._clock() < moment:
            return
        longest = self._web.config.session_seconds
        if longest and self._clock() >= self._began + longest:
            self._web.refused("session length")
            self._end("session too long", POLICY, f"a session may last {longest:g} s; connect anew")
        else:
            self._web.refused("idle")
            idle = self._clock() - self._last
            self._end("idle", POLICY, f"nothing came for {idle:.0f} s; connect anew to go on")

    def _end(self, reason: str, code: int, words: str) -> None:
        """We end the call; what has come is still heard."""
        if not self._call.over:
            self._ending = self._ending or (code, words)
            self._guarded(lambda: self._hang_up(reason))

    def _hang_up(self, reason: str) -> None:
        hang_up = getattr(self._protocol, "hang_up", None)
        if hang_up is not None:
            hang_up()
        self._call.take(self._protocol.eof(), ended=reason, silent=not self._received)
        if not self._call.over:
            self._call.finish(reason)

    # From the client.

    async def _read(self) -> None:
        """Receive messages while they are wanted, to the end of the connection."""
        while True:
            await self._reading.wait()
            try:
                message = await self._websocket.receive()
            except RuntimeError:  # it was closed from our side
                return
            if message["type"] == "websocket.disconnect":
                self._gone(message.get("code", 1006))
                return
            data = message.get("bytes")
            content: str | bytes = data if data is not None else message.get("text") or ""
            if self._call.over:
                continue  # what comes after the end is for nobody
            self._guarded(lambda content=content: self._take(content))  # type: ignore[misc]

    def _take(self, content: str | bytes) -> None:
        self._last = self._clock()
        self._received += 1
        self._unsaid = True
        most = self._web.config.max_message_bytes
        if len(content) > most:
            self._web.refused("message size")
            words = f"a message of {len(content)} bytes; at most {most} are taken"
            self._ending = self._ending or (TOO_BIG, words)
            self._hang_up("message too big")
            return
        try:
            self._call.take(self._protocol.receive(content))
        except ConfigError as error:  # the call's own settings make no sense
            self._ending = self._ending or (POLICY, str(error))
            self._hang_up("refused")

    def _gone(self, code: int) -> None:
        """The client has closed, or is gone."""
        self._writer.gone()
        self._left()
        reason = "eof" if code in (1000, 1001, 1005) else "connection reset"
        if not self._call.over:
            self._guarded(lambda: self._hang_up(reason))

    # To the client.

    def _tell(self, event: Event) -> None:
        """An event of the call, on its way to the client."""
        if not self._writer.open:
            return
        if self._writer.lags and droppable(event):
            if not self._writer.dropped:
                log.warning("%s: the client reads too slowly; it loses partials", self._call.name)
            self._writer.dropped += 1
            return
        self._writer.put(self._protocol.event(event))

    def _too_slow(self) -> None:
        """A client that does not read was cut; its call ends in order."""
        log.warning("%s: the client is cut: it does not read", self._call.name)
        self._web.refused("slow reader")
        if not self._call.over:
            self._guarded(lambda: self._hang_up("slow reader"))
