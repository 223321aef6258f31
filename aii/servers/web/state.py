"""What the web routes of one server share."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol

from aii.errors import MissingExtraError
from aii.servers.load import Load
from aii.servers.metrics import Metrics
from aii.servers.web.board import Board

if TYPE_CHECKING:
    from starlette.requests import HTTPConnection

    from aii.config import ServerConfig
    from aii.servers.models import Models
    from aii.servers.services import Services
    from aii.sinks.base import Sink

log = logging.getLogger(__name__)

READING_AT_ONCE = 4
"""Recordings that are read at the same time; others wait."""


class Ending(Protocol):
    """Something that runs on the web's loop and can be told to end."""

    def stop(self) -> None:
        """End in order: last words are still decoded and sent."""

    def abort(self) -> None:
        """End now."""


class Web:
    """The web side of one server: its sinks, limits, and what is running.

    It exists before the engine does, since its sinks are among those that calls are given;
    ``attach`` completes it.

    Attributes:
        config: what was asked for.
        board: the live list.
        load: how busy the server is.
        metrics: for Prometheus, None where the extra is not installed.
        stopping: no further sessions are taken.
        client_ids: those of ``/ws/transcription`` that are in use.
        readers: a place for each recording that is being read.
    """

    def __init__(self, config: ServerConfig) -> None:
        self.config = config
        self.board = Board()
        self.load = Load(config.objective)
        self.metrics: Metrics | None = None
        with contextlib.suppress(MissingExtraError):
            self.metrics = Metrics()
        self.stopping = False
        self.client_ids: set[str] = set()
        self.readers = asyncio.Semaphore(READING_AT_ONCE)
        self._services: Services | None = None
        self._models: Models | None = None
        self._running: set[Ending] = set()
        self._empty = asyncio.Event()
        self._empty.set()

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

    def refused(self, why: str) -> None:
        """Count a client that was refused or cut."""
        if self.metrics is not None:
            self.metrics.refused(why)

    # What runs; on the web's loop only.

    @property
    def sessions(self) -> int:
        """Sessions that are open."""
        return len(self._running)

    @property
    def full(self) -> bool:
        """Whether further sessions are refused."""
        return self.sessions >= self.config.max_sessions

    def refusal(self) -> tuple[str, str] | None:
        """Why a call that comes now is not taken, as a word for metrics and as a line; or None."""
        if self.stopping:
            return "stopping", "the server is stopping"
        if self.full:
            return "sessions", "too many sessions are open"
        why = self.services.no_room()
        return ("full", why) if why else None

    @contextlib.contextmanager
    def running(self, session: Ending) -> Iterator[None]:
        """Within, the session counts, and is told when the server stops."""
        self._running.add(session)
        self._empty.clear()
        try:
            yield
        finally:
            self._running.discard(session)
            if not self._running:
                self._empty.set()

    async def finish(self, timeout: float) -> bool:
        """End all sessions: their last words within ``timeout`` seconds, then without.

        Returns whether all were finished in time.
        """
        self.stopping = True
        if self._running:
            log.info("%d web sessions are being finished", len(self._running))
        for session in list(self._running):
            session.stop()
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._empty.wait(), timeout)
        late = list(self._running)
        for session in late:
            session.abort()
        if late:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._empty.wait(), 1.0)
        return not late


def web_of(connection: HTTPConnection) -> Web:
    """The state behind a request or a WebSocket."""
    web: Web = connection.app.state.web
    return web
