"""What the web routes of one server share."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from typing import TYPE_CHECKING

from aii.errors import MissingExtraError
from aii.servers.load import Load
from aii.servers.metrics import Metrics
from aii.servers.refusals import Refusals
from aii.servers.web.board import Board
from aii.servers.web.room import LATE, Room

if TYPE_CHECKING:
    from starlette.requests import HTTPConnection

    from aii.config import ServerConfig
    from aii.servers.models import Models
    from aii.servers.services import Services
    from aii.sinks.base import Sink

log = logging.getLogger(__name__)

READING_AT_ONCE = 4
"""Recordings that are read at the same time; others wait."""

LOOK = 0.05
"""Seconds between looks at the calls that are still open when the server stops."""


class Web:
    """The web side of one server: its sinks, limits, and what is running.

    It exists before the engine does, since its sinks are among those that calls are given;
    ``attach`` completes it.

    Attributes:
        config: what was asked for.
        board: the live list.
        load: how busy the server is.
        metrics: for Prometheus, None where the extra is not installed.
        refused: told of each client that is refused or cut: a word for the metrics, and, where the
            log is to have it, the client and a line.
        stopping: no further sessions are taken.
        tcp_port: where calls come by plain TCP, None where they do not.
        client_ids: those of ``/ws/transcription`` that are in use.
        readers: a place for each recording that is being read.
        calling: the WebSockets with a call.
        watching: those who follow events.
        sending: the requests with a recording, from their first byte on.
        hearing: the recordings that are being decoded.
    """

    def __init__(self, config: ServerConfig) -> None:
        self.config = config
        self.board = Board()
        self.load = Load(config.objective)
        self.metrics: Metrics | None = None
        with contextlib.suppress(MissingExtraError):
            self.metrics = Metrics()
        self.refused = Refusals(self._count_refusal)
        self.stopping = False
        self.tcp_port: int | None = None
        self.client_ids: set[str] = set()
        self.readers = asyncio.Semaphore(READING_AT_ONCE)
        self._services: Services | None = None
        self._models: Models | None = None
        self.calling = Room(config.max_sessions)
        self.watching = Room(config.max_watchers)
        self.sending = Room(config.max_recordings)
        self.hearing = Room()

    @property
    def sinks(self) -> list[Sink]:
        """What must see every event."""
        metrics: list[Sink] = [] if self.metrics is None else [self.metrics]
        return [self.board, self.load, *metrics]

    def attach(self, services: Services, models: Models) -> None:
        """The engine is there."""
        self._services, self._models = services, models
        if self.metrics is None:
            return
        self.metrics.watch(
            {
                "aii_calls_open": ("Calls (their legs) that are open", lambda: self.board.open),
                "aii_web_sessions": ("Web sessions that are open", lambda: self.sessions),
                "aii_web_watchers": ("Clients that follow events", lambda: self.watchers),
                "aii_web_recordings": ("Recordings in work", lambda: self.recordings),
                "aii_queue": ("Windows that wait for the engine", self.waiting),
                "aii_backlog_seconds": (
                    "Seconds of audio that wait in all calls",
                    lambda: services.budget.total,
                ),
                "aii_models": ("Models in memory", lambda: models.engines),
            }
        )
        self.metrics.watch_stats(models.stats)
        self.metrics.watch_sinks(services.sinks)

    @property
    def services(self) -> Services:
        """What each call is given."""
        assert self._services is not None, "the parts are not attached"
        return self._services

    @property
    def models(self) -> Models:
        """The model in service."""
        assert self._models is not None, "the parts are not attached"
        return self._models

    @property
    def ready(self) -> bool:
        """Whether calls are taken."""
        return self._services is not None and not self.stopping

    def waiting(self) -> float:
        """Windows that wait for the engine."""
        return self.models.stats().get("waiting", 0)

    def _count_refusal(self, why: str) -> None:
        if self.metrics is not None:
            self.metrics.refused(why)

    # What runs; on the web's loop only.

    @property
    def sessions(self) -> int:
        """WebSockets with a call that are open."""
        return len(self.calling)

    @property
    def watchers(self) -> int:
        """Clients that follow events."""
        return len(self.watching)

    @property
    def recordings(self) -> int:
        """Recordings that are sent, read or heard."""
        return len(self.sending)

    def refusal(self) -> tuple[str, str] | None:
        """Why a call that comes now is not taken, as a word for metrics and as a line; or None."""
        if self.stopping:
            return "stopping", "the server is stopping"
        if self.calling.full:
            return "sessions", "too many sessions are open"
        why = self.services.no_room()
        return ("full", why) if why else None

    def watcher_refusal(self) -> tuple[str, str] | None:
        """The same for one who wants to follow events, which is no call."""
        if self.stopping:
            return "stopping", "the server is stopping"
        return ("watchers", "too many follow the events") if self.watching.full else None

    async def finish(self, timeout: float) -> bool:
        """End all sessions: their last words within ``timeout`` seconds, then without.

        Who follows events is told last, so that the last words of all calls reach them, those by
        TCP too.

        Returns whether all were finished in time.
        """
        self.stopping = True
        until = time.monotonic() + timeout
        stopped = self.calling.stop() + self.hearing.stop()
        if stopped:
            log.info("%d web sessions are being finished", stopped)
        rooms = self.calling, self.hearing
        in_time = all(await asyncio.gather(*(room.emptied(timeout) for room in rooms)))
        while self.watching and self.board.open and time.monotonic() < until + LATE:
            await asyncio.sleep(LOOK)
        self.watching.stop()
        await self.watching.emptied(max(until - time.monotonic(), LATE))
        return in_time


def web_of(connection: HTTPConnection) -> Web:
    """The state behind a request or a WebSocket."""
    web: Web = connection.app.state.web
    return web
