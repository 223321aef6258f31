"""A recording as a call: decoded like any other, by the same sessions and the same engine.

Its audio is all there, so it is fed as fast as it is decoded, and the engine is told that its
windows may wait: live calls go before it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import AsyncGenerator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from aii.errors import ServiceError
from aii.protocols.frames import Audio, CallId, Format, Hangup
from aii.servers.call import Call
from aii.servers.leg import LEFT, Manner
from aii.servers.web.state import Web
from aii.streaming.events import Event, Final
from aii.streaming.settings import CallSettings
from aii.types import SAMPLE_RATE, Hypothesis

log = logging.getLogger(__name__)

PATIENCE = 10.0
"""Seconds by which a recording's windows may be later than those of calls."""

AHEAD = 65.0
"""Seconds of audio that are fed before they are decoded: two windows and a little."""

PIECE = 30 * SAMPLE_RATE
"""Samples that are fed at once."""

WISHES = {"policy": "window", "window": 30, "reset_seconds": 30, "reset": "carry"}
"""A recording is cut as ``aii transcribe`` cuts it, and nothing is shown before it is final."""


@dataclass(frozen=True)
class Heard:
    """A final of a recording and what the engine said of it."""

    final: Final
    hypothesis: Hypothesis


class Recording:
    """One recording, on the web's loop. ``async for`` gives its finals; ``leave`` must follow.

    Args:
        web: whose engine decodes.
        samples: (N,) int16 at 16 kHz.
        settings: see :func:`settings_of`.
        caller: where it comes from.
    """

    def __init__(self, web: Web, samples: np.ndarray, settings: CallSettings, caller: str) -> None:
        self._samples = samples
        self._fed = 0
        self._clock = web.services.clock
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()
        self._hypothesis: Hypothesis | None = None
        self._found: list[Heard] = []
        self._failure = ""
        self._stop = ""
        self._call = Call(
            web.services,
            caller,
            wake=self._wake,
            tell=self._tell,
            settings=settings,
            manner=Manner(PATIENCE, self._note),
        )
        self._call.take([CallId(f"file-{secrets.token_hex(4)}"), Format(SAMPLE_RATE, "f32")])

    # Told by the server.

    def stop(self) -> None:
        """The server stops: there is no time for the rest."""
        self._stop = "the server is stopping; send the recording again"
        self._changed.set()

    abort = stop

    # The call.

    def _wake(self) -> None:
        """From any thread."""
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._changed.set)

    def _note(self, hypothesis: Hypothesis, events: list[Event]) -> None:
        self._hypothesis = hypothesis

    def _tell(self, event: Event) -> None:
        if not isinstance(event, Final):
            return
        if event.error is not None:
            self._failure = event.error
        elif self._hypothesis is not None:
            self._found.append(Heard(event, self._hypothesis))

    def _step(self) -> None:
        """Feed what the call has room for, and do what is due."""
        call = self._call
        while self._fed < len(self._samples) and call.backlog < AHEAD:
            piece = self._samples[self._fed : self._fed + PIECE]
            self._fed += len(piece)
            call.take([Audio(piece.astype("<i2").tobytes())])
        if self._fed >= len(self._samples) and not call.over:
            call.take([Hangup("eof")])
        call.step()

    async def finals(self) -> AsyncGenerator[Heard, None]:
        """The recording's finals, as they are found.

        Raises:
            ServiceError: a window could not be decoded, or the server stops.
        """
        while True:
            self._changed.clear()
            self._step()
            while self._found:
                yield self._found.pop(0)
            if self._failure:
                raise ServiceError(f"a part of the recording could not be decoded: {self._failure}")
            if self._stop:
                raise ServiceError(self._stop)
            if self._call.finished:
                return
            due = self._call.wake_at
            wait = None if due is None else max(due - self._clock(), 0.0)
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._changed.wait(), wait)

    def leave(self, reason: str = LEFT) -> None:
        """Nobody wants the rest; or there is none."""
        if not self._call.finished:
            self._call.give_up(reason)
        self._call.close()
        self._call.sum_up()
        # The call and this know each other; who collects such garbage may take hours to come by,
        # and what was sent lies on the disk until then.
        self._samples = np.zeros(0, np.int16)


def settings_of(
    web: Web,
    *,
    language: str | None = None,
    task: str = "transcribe",
    prompt: str = "",
    temperature: float = 0.0,
    words: bool = False,
) -> CallSettings:
    """How a recording is heard.

    Args:
        language: code or name; None for the server's.
        temperature: above 0 the only one that is tried; 0 tries those of the server.

    Raises:
        InputError: the model does not know the language or the task.
    """
    sessions = web.models.current.sessions
    wishes: dict[str, Any] = {**WISHES, "task": task, "words": "final" if words else "none"}
    if language:
        wishes["language"] = language
    if prompt:
        wishes["prompt"] = prompt
    settings = sessions.settings.changed(wishes)
    sessions.vocabulary.language(settings.language, settings.task)
    if temperature > 0:
        options = {**settings.options, "temperatures": (temperature,)}
        settings = replace(settings, options=options)
    return settings
