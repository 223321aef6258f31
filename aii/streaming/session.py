"""One call: its audio, its policy, its counters; the state that no other call sees.

The owner (a connection's thread) feeds samples, asks for a request, hands it to the engine, and
hands the answer back; at most one request is out at a time. All of it happens on one thread, with
the time passed in, so a session holds no lock, no socket and no clock.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np

from aii.audio.buffer import AudioBuffer
from aii.streaming.events import (
    CallEnded,
    CallStarted,
    Dtmf,
    Event,
    Final,
    Partial,
    Skipped,
)
from aii.streaming.policy import Policy
from aii.types import SAMPLE_RATE, DecodeRequest, Hypothesis

RETRY = 0.05
"""Seconds after which a request that the engine had no room for is made again."""


@dataclass
class Counters:
    """What a call came to. ``skipped`` counts windows; ``lost`` samples that were never decoded."""

    samples: int = 0
    partials: int = 0
    finals: int = 0
    skipped: int = 0
    failed: int = 0
    lost: int = 0


class Session:
    """One call.

    Args:
        call_id: the id that goes into every event.
        policy: when to decode and what to commit.
        caller: where the call comes from, for the first event.
    """

    def __init__(self, call_id: str, policy: Policy, *, caller: str = "") -> None:
        self.call_id = call_id
        self.counters = Counters()
        self._policy = policy
        self._caller = caller
        self._buffer = AudioBuffer()
        self._seq = 0
        self._out: int | None = None  # id of the request that the engine has
        self._not_before = float("-inf")
        self._reason: str | None = None  # of the end, once the caller is gone
        self._ended = False

    @property
    def done(self) -> bool:
        """Whether the call's last event has been given."""
        return self._ended

    @property
    def waiting(self) -> bool:
        """Whether a request is out."""
        return self._out is not None

    @property
    def reason(self) -> str:
        """Why the call ended, "" while it has not."""
        return self._reason or ""

    @property
    def finishing(self) -> bool:
        """Whether the caller is gone."""
        return self._reason is not None

    @property
    def backlog(self) -> float:
        """Seconds of audio held."""
        return self._buffer.seconds

    @property
    def wake_at(self) -> float | None:
        """When ``next_request`` should be asked again even if nothing comes; None: no need."""
        return None if self.waiting or self._not_before == float("-inf") else self._not_before

    def start(self) -> list[Event]:
        """The call's first event."""
        return self._stamped([CallStarted(caller=self._caller)])

    def feed(self, samples: np.ndarray) -> None:
        """Take the next samples (N,), float32 at 16 kHz.

        Raises:
            RuntimeError: the call is over.
        """
        if self.finishing:
            raise RuntimeError("the call is over")
        self._buffer.append(samples)
        self.counters.samples += len(samples)

    def dtmf(self, digit: str) -> list[Event]:
        """A key was pressed at the end of the audio so far."""
        return self._stamped([Dtmf(digit=digit, start=self._buffer.end / SAMPLE_RATE)])

    def flush(self) -> None:
        """The words of everything so far are wanted as finals now."""
        self._policy.flush(self._buffer)

    def finish(self, reason: str) -> list[Event]:
        """The caller is gone, because of ``reason``. Further calls change nothing."""
        if self.finishing:
            return []
        self._reason = reason
        self._policy.finish(self._buffer)
        return self._stamped([])

    def next_request(self, now: float) -> DecodeRequest | None:
        """What the engine should decode now, or None. It must be answered, failed or refused."""
        if self._ended or self.waiting or now < self._not_before:
            return None
        self._not_before = float("-inf")
        request = self._policy.next_request(self._buffer, now)
        self._out = None if request is None else request.request_id
        return request

    def accept(self, hypothesis: Hypothesis) -> list[Event]:
        """The engine's answer; one that is not waited for (any more) is ignored."""
        if self._ended or hypothesis.request_id != self._out:
            return []
        self._out = None
        return self._stamped(self._policy.accept(hypothesis, self._buffer))

    def fail(self, request_id: int, error: BaseException) -> list[Event]:
        """The engine could not answer."""
        if self._ended or request_id != self._out:
            return []
        self._out = None
        self.counters.failed += 1
        return self._stamped(self._policy.fail(error, self._buffer))

    def refuse(self, request_id: int, now: float) -> None:
        """The engine had no room: the audio stays, the request is made again a little later."""
        if request_id != self._out:
            return
        self._out = None
        self._not_before = now + RETRY
        self._policy.refuse()

    def abort(self, reason: str) -> list[Event]:
        """End the call now; audio that was not decoded is named in a ``Skipped`` event."""
        if self._ended:
            return []
        self._reason = reason
        self._out = None
        left = len(self._buffer)
        self._ended = True
        events: list[Event] = []
        if left:
            self.counters.lost += left
            start, end = self._buffer.start / SAMPLE_RATE, self._buffer.end / SAMPLE_RATE
            events.append(Skipped(start=start, end=end, reason=reason, windows=1, lost=True))
            self._buffer.drop_to(self._buffer.end)
        return self._stamped([*events, self._end()])

    def _end(self) -> CallEnded:
        return CallEnded(reason=self.reason, end=self._buffer.end / SAMPLE_RATE)

    def _stamped(self, events: list[Event]) -> list[Event]:
        """``events`` with call id and number, and the last event if nothing is left to do."""
        if self.finishing and not self._ended and self._policy.done:
            self._ended = True
            events = [*events, self._end()]
        stamped = []
        for event in events:
            self._count(event)
            self._seq += 1
            stamped.append(dataclasses.replace(event, call_id=self.call_id, seq=self._seq))
        return stamped

    def _count(self, event: Event) -> None:
        if isinstance(event, Partial):
            self.counters.partials += 1
        elif isinstance(event, Final):
            self.counters.finals += 1
        elif isinstance(event, Skipped) and not event.lost:
            self.counters.skipped += event.windows
