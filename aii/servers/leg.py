"""One leg of a call: a session between samples, the engine and the sinks.

A call that is heard as one has one leg, named "". Requests go out in ``ask``; answers come on other
threads and are handed to the one that drives the call, which alone touches the session.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from aii.audio.pcm import SlinDecoder
from aii.audio.vad import VoiceAnswer
from aii.errors import AiiError, EngineClosedError, EngineFullError
from aii.servers.logs import Once
from aii.streaming.events import Event
from aii.streaming.session import Session
from aii.types import SAMPLE_RATE, Hypothesis

if TYPE_CHECKING:
    from aii.servers.call_ids import Claim
    from aii.servers.services import Services

log = logging.getLogger(__name__)

Later = Callable[[Callable[[], None], bool], None]
"""Have the call's thread do something; True: soon, False: when it is next awake."""

LEFT = "left"
"""Reason of an end after which nobody wants to know the rest."""

VOICE_POLL = 0.05
"""Seconds after which a call looks for what the voice detector has said."""


@dataclass(frozen=True)
class Manner:
    """How a call is served, apart from its settings.

    Attributes:
        patience: seconds by which its requests may be later than those of other calls.
        heard: takes each hypothesis with the events that came of it.
    """

    patience: float = 0.0
    heard: Callable[[Hypothesis, list[Event]], None] | None = None


class Leg:
    """See the module.

    Args:
        session: the leg's session, which has not begun.
        claim: the id and leg that it has.
        services: engine and clock.
        rate: samples per second of the bytes that come.
        emit: takes events.
        later: hands what has been answered to the call's thread.
        manner: see there.
        once: for the log.
    """

    def __init__(
        self,
        session: Session,
        claim: Claim,
        services: Services,
        rate: int,
        *,
        emit: Callable[[list[Event]], None],
        later: Later,
        manner: Manner,
        once: Once,
    ) -> None:
        self.session = session
        self.claim = claim
        self._services = services
        self._decoder = SlinDecoder(rate)
        self._emit = emit
        self._later = later
        self._listening = False  # a request to the voice detector is out
        self._manner = manner
        self._once = once

    @property
    def done(self) -> bool:
        """Whether its last event was given."""
        return self.session.done

    def hear(self, payload: bytes) -> None:
        """Take SLIN, cut anywhere."""
        self._feed(self._decoder.feed(payload))

    def change_rate(self, rate: int) -> None:
        """What comes from here on has another rate."""
        self._feed(self._decoder.flush())
        self._decoder = SlinDecoder(rate)

    def _feed(self, samples: np.ndarray) -> None:
        if len(samples):
            self.session.feed(samples)
            outlets = self._services.outlets
            if outlets is not None and not self.session.redacts:
                outlets.audio(self.claim.call_id, self.claim.leg, samples)
            self._emit(self.session.check())

    def finish(self, reason: str) -> None:
        """Nothing more comes."""
        self._feed(self._decoder.flush())
        self._emit(self.session.finish(reason))

    def give_up(self, reason: str) -> None:
        """End now, whatever is not decoded."""
        if self.done:
            return
        session = self.session
        self._services.engine.cancel(session.call_id)
        events = session.abort(reason)
        lost = session.counters.lost / SAMPLE_RATE
        level = logging.INFO if reason == LEFT else logging.ERROR
        log.log(level, "%s: %.1f s of audio are not decoded: %s", self.name, lost, reason)
        self._emit(events)

    @property
    def name(self) -> str:
        """What the log calls it."""
        return f"{self.claim.call_id} ({self.claim.leg})" if self.claim.leg else self.claim.call_id

    @property
    def wake_at(self) -> float | None:
        """When ``ask`` is due even if nothing happens; None: no need."""
        due = self.session.wake_at
        if not self._listening:
            return due
        soon = self._services.clock() + VOICE_POLL
        return soon if due is None else min(due, soon)

    def ask(self, *, reading: bool = True) -> None:
        """Give what is due by the clock, and hand requests to the engine and the voice detector.

        Args:
            reading: whether the call's audio is read as it comes.
        """
        self._emit(self.session.tick(self._services.clock(), reading=reading))
        self._ask_engine()
        voice = self._services.voice
        while voice is not None and (request := self.session.next_voice()) is not None:
            self._listening = True
            voice.submit(request, partial(self._judged, request.request_id))

    def _judged(self, request_id: int, answer: VoiceAnswer | None) -> None:
        """Called by the voice detector, on its thread."""
        # Audio comes all the time and takes the answer along; only after its end nothing does.
        self._later(partial(self._take_voice, request_id, answer), self.session.finishing)

    def _take_voice(self, request_id: int, answer: VoiceAnswer | None) -> None:
        self._listening = False
        if answer is None:
            self._emit(self.session.voice_failed(request_id))
        else:
            self._emit(self.session.heard(answer))

    def _ask_engine(self) -> None:
        session, clock = self.session, self._services.clock
        while (request := session.next_request(clock())) is not None:
            if self._manner.patience:
                request = replace(request, deadline=request.deadline + self._manner.patience)
            try:
                future = self._services.engine.submit(request)
            except EngineFullError:
                session.refuse(request.request_id, clock())
            except AiiError as error:
                self._emit(session.fail(request.request_id, error))
            else:
                future.add_done_callback(partial(self._answered, request.request_id))

    def _answered(self, request_id: int, future: Future[Hypothesis]) -> None:
        """Called by the engine, on its thread."""
        self._later(partial(self._take_answer, request_id, future), True)

    def _take_answer(self, request_id: int, future: Future[Hypothesis]) -> None:
        error: BaseException | None
        if future.cancelled():
            error = EngineClosedError("the request was withdrawn")
        else:
            error = future.exception()
        if error is not None:
            line = "%s: a window failed: %s"
            self._once.log("failures", logging.ERROR, line, self.name, one_line(error))
            self._emit(self.session.fail(request_id, error))
            return
        hypothesis = future.result()
        events = self.session.accept(hypothesis)
        if self._manner.heard is not None:
            self._manner.heard(hypothesis, events)
        self._emit(events)


def one_line(error: BaseException) -> str:
    """What an error says, on one line."""
    return " ".join(str(error).split()) or type(error).__name__
