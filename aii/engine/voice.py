"""Voice activity for all calls of a server: one thread that steps the detector.

Requests gather for a few milliseconds and go through the detector together, which costs a ninth of
what they cost one by one. The more calls there are, the more come together by themselves.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence

from aii.audio.vad import Detector, VadBatcher, VoiceAnswer, VoiceRequest

log = logging.getLogger(__name__)

Done = Callable[[VoiceAnswer | None], None]

GATHER = 0.01
"""Seconds for which the first request waits for others."""

MOST_REQUESTS = 256
"""Requests stepped at once; so many wait at most for each other."""


class VoiceThread:
    """Answers requests until it is closed; see :class:`aii.audio.vad.Voice`.

    Args:
        detector: what judges the steps.
        gather: seconds for which the first request waits for others.
        queue_size: requests that may wait. Calls have one out at a time, so this is calls.
    """

    def __init__(
        self, detector: Detector, *, gather: float = GATHER, queue_size: int = 100_000
    ) -> None:
        self._batcher = VadBatcher(detector)
        self._gather = gather
        self._queue_size = queue_size
        self._waiting: list[tuple[VoiceRequest, Done]] = []
        self._bell = threading.Condition()
        self._closed = False
        self._counts = {"steps": 0, "batches": 0, "failed": 0}
        self._seconds = 0.0
        self._spoilt = 0  # batches in which one failed
        self._thread = threading.Thread(target=self._run, name="voice", daemon=True)
        self._thread.start()

    def submit(self, request: VoiceRequest, done: Done) -> None:
        """Never waits; ``done`` is called once, on another thread or, with None, at once."""
        with self._bell:
            refused = self._closed or len(self._waiting) >= self._queue_size
            if not refused:
                self._waiting.append((request, done))
                if len(self._waiting) in (1, MOST_REQUESTS):
                    self._bell.notify()
        if refused:
            done(None)

    def stats(self) -> dict[str, float]:
        """Counts since the start: steps, batches, failed requests; seconds; requests that wait."""
        return {**self._counts, "seconds": self._seconds, "waiting": len(self._waiting)}

    def close(self, timeout: float = 0.0) -> bool:
        """Answer no more; whether the thread has ended within ``timeout`` seconds."""
        with self._bell:
            self._closed = True
            self._bell.notify()
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while (batch := self._take()) is not None:
            begun = time.perf_counter()
            answers = self._answer([request for request, _ in batch])
            self._seconds += time.perf_counter() - begun
            self._counts["batches"] += 1
            self._tell(batch, answers)
        with self._bell:
            rest, self._waiting = self._waiting, []
        self._tell(rest, [None] * len(rest))

    def _take(self) -> list[tuple[VoiceRequest, Done]] | None:
        """The next requests, once there are any; None when closed."""
        with self._bell:
            self._bell.wait_for(lambda: self._waiting or self._closed)
            if not self._closed and len(self._waiting) < MOST_REQUESTS:
                self._bell.wait_for(
                    lambda: self._closed or len(self._waiting) >= MOST_REQUESTS, self._gather
                )
            if self._closed:
                return None
            batch = self._waiting[:MOST_REQUESTS]
            del self._waiting[:MOST_REQUESTS]
            return batch

    def _answer(self, requests: Sequence[VoiceRequest]) -> list[VoiceAnswer | None]:
        """All together; where that fails, each for itself, so that one cannot spoil the others."""
        try:
            answers: list[VoiceAnswer | None] = [*self._batcher.run(requests)]
        except Exception:
            self._spoilt += 1
            if _tells(self._spoilt):
                line = "voice activity of %d calls failed (batch %d that did); now one by one"
                log.exception(line, len(requests), self._spoilt)
            answers = [self._alone(request) for request in requests]
        self._counts["steps"] += sum(request.steps for request in requests)
        return answers

    def _alone(self, request: VoiceRequest) -> VoiceAnswer | None:
        try:
            return self._batcher.one(request)
        except Exception as error:
            self._counts["failed"] += 1
            if _tells(self._counts["failed"]):
                log.error(
                    "%s: voice activity failed (%s): taken for speech", request.call_id, error
                )
            return None

    def _tell(
        self, batch: Sequence[tuple[VoiceRequest, Done]], answers: Sequence[VoiceAnswer | None]
    ) -> None:
        for (request, done), answer in zip(batch, answers, strict=True):
            try:
                done(answer)
            except Exception:  # what a call does with its answer is not the others' trouble
                log.exception("%s: an answer of the voice detector was not taken", request.call_id)


def _tells(count: int) -> bool:
    """Whether something is said of the ``count``-th failure: the 1st, 2nd, 4th, 8th...

    A detector that fails does so many times a second, for every call.
    """
    return count & (count - 1) == 0
