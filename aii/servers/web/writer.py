"""What goes to a WebSocket's client: a bounded queue, and an end for those who do not read it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable, Iterable

from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

log = logging.getLogger(__name__)

LAG = 64
"""Messages that wait for a client before what may be dropped is."""

MOST_HELD = 4_000
"""Messages that wait for a client before it is cut whatever the time."""

LONGEST_REASON = 120
"""Bytes of a close reason; WebSockets take 123."""

GOING_AWAY, POLICY, TOO_BIG, INTERNAL, TRY_LATER = 1001, 1008, 1009, 1011, 1013

Message = str | bytes


def cut_reason(reason: str) -> str:
    """A reason that fits into a close frame."""
    return reason.encode("utf-8", "replace")[:LONGEST_REASON].decode("utf-8", "ignore")


async def close(websocket: WebSocket, code: int, reason: str) -> None:
    """Close with a reason, unless it is closed."""
    with contextlib.suppress(RuntimeError, WebSocketDisconnect, OSError):
        await websocket.close(code, cut_reason(reason))


class Writer:
    """Sends messages as fast as the client takes them; for one event loop.

    Args:
        websocket: which has been accepted.
        patience: seconds that a client may leave a message unread.
        slow: called when it is cut for that.

    Attributes:
        open: whether the client is there, as far as is known.
        dropped: messages that it has lost.
    """

    def __init__(
        self, websocket: WebSocket, patience: float, slow: Callable[[], None] = lambda: None
    ) -> None:
        self.open = True
        self.dropped = 0
        self._websocket = websocket
        self._patience = patience
        self._slow = slow
        self._held: deque[Message] = deque()
        self._changed = asyncio.Event()
        self._sent = asyncio.Event()
        self._ending = False
        self._task = asyncio.create_task(self._run())

    @property
    def lags(self) -> bool:
        """Whether so much waits that what may be dropped should be."""
        return len(self._held) >= LAG

    def put(self, messages: Iterable[Message]) -> None:
        """Have messages sent, in this order."""
        if not self.open:
            return
        self._held.extend(messages)
        self._changed.set()
        if len(self._held) > MOST_HELD:
            self._cut()

    async def room(self) -> None:
        """Wait until what is held is sent, or the client is gone."""
        while self.open and self._held:
            self._sent.clear()
            await self._sent.wait()

    def gone(self) -> None:
        """The client is not there any more; nothing is sent."""
        self.open = False
        self._held.clear()
        self._changed.set()
        self._sent.set()

    async def finish(self, code: int, reason: str) -> None:
        """Send what is held, then close; both as long as the client reads."""
        self._ending = True
        self._changed.set()
        await asyncio.wait([self._task])
        if not self.open or self._websocket.application_state != WebSocketState.CONNECTED:
            return
        try:
            await asyncio.wait_for(close(self._websocket, code, reason), self._patience)
        except asyncio.TimeoutError:
            self._cut()

    async def stop(self) -> None:
        """Send nothing more."""
        self.gone()
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while self.open:
            while self._held and self.open:
                message = self._held.popleft()
                try:
                    await asyncio.wait_for(self._send(message), self._patience)
                except asyncio.TimeoutError:
                    self._cut()
                except (RuntimeError, WebSocketDisconnect, OSError):
                    self.gone()
            self._sent.set()
            if self._ending:
                return
            self._changed.clear()
            await self._changed.wait()

    async def _send(self, message: Message) -> None:
        if isinstance(message, str):
            await self._websocket.send_text(message)
        else:
            await self._websocket.send_bytes(message)

    def _cut(self) -> None:
        """The client does not read."""
        if not self.open:
            return
        self.gone()
        reason = "what was sent was not read in time; read faster, or connect anew"
        cut = self._websocket.scope.get("extensions", {}).get("aii.cut")
        if cut is not None:
            cut(POLICY, cut_reason(reason))
        self._slow()
