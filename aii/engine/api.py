"""The interface of an engine. Only numpy arrays and plain frozen values cross it.

An engine may be a thread of this process or something on another machine; whoever submits sees no
difference. It never blocks the caller.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from typing import Protocol

from aii.types import DecodeRequest, Hypothesis

SPAN = 10.0
"""Seconds that say how busy an engine is."""

GAUGES: Mapping[str, Callable[[Iterable[float]], float]] = {
    "waiting": sum,
    "running": sum,
    "load": max,
    "busy": max,
    "latency_p50": max,
    "latency_p95": max,
    "within": min,
    "full": max,
}
"""Figures of :meth:`Engine.stats` that tell of this moment, and what several engines make of them;
the others count from the start, and add up."""


class Engine(Protocol):
    """What turns requests into hypotheses."""

    def submit(self, request: DecodeRequest) -> Future[Hypothesis]:
        """Queue ``request``; the earliest deadline goes first.

        The future ends with the hypothesis, with the error of this request alone, cancelled (by
        ``cancel``), or with ``EngineClosedError``. Its callbacks run on a thread of the engine,
        or of whoever cancels or closes, and must not block.

        Raises:
            EngineFullError: as many requests as allowed are waiting; try again later.
            EngineClosedError: the engine is shutting down.
        """

    def cancel(self, call_id: str) -> int:
        """Withdraw all requests of a call, waiting or being decoded; how many there were."""

    def stats(self) -> dict[str, float]:
        """Counters and gauges (``GAUGES``) by name, for logs and metrics.

        ``full`` above 0 says that further calls would be at the cost of those there are; ``busy``,
        up to 1, how much of it calls have taken within the last ``SPAN`` seconds.
        """

    def close(self, timeout: float = 0.0) -> bool:
        """Take nothing more; finish what waits within ``timeout`` seconds and fail the rest.

        Returns whether the engine has come to rest; a step of the network cannot be interrupted, so
        after a short timeout one may still be running.
        """
