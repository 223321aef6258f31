"""How busy the server is, in a few numbers; a sink that counts and remembers the last windows."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from aii.streaming.events import Event, Heard, Skipped

WINDOWS = 100
"""How many windows the latencies are of."""


class Load:
    """Latencies of the last windows, and what was skipped; a sink, for any number of threads.

    The latency of a window is its waiting and its computing.

    Args:
        objective: seconds within which a window should be answered.
        clock: seconds, monotonic.
    """

    def __init__(self, objective: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._objective = objective
        self._clock = clock
        self._since = clock()
        self._lock = threading.Lock()
        self._latencies: deque[float] = deque(maxlen=WINDOWS)
        self._skipped = 0
        self._cpu = _cpu_seconds()
        self._cpu_at = clock()
        self._share = 0.0

    def emit(self, event: Event) -> None:
        """Take one event; from any thread."""
        if isinstance(event, Heard):
            if event.work.decode:
                with self._lock:
                    self._latencies.append(event.work.queued + event.work.decode)
        elif isinstance(event, Skipped) and event.reason == "behind":
            with self._lock:
                self._skipped += event.windows

    def close(self, timeout: float = 0.0) -> bool:
        """There is nothing to write."""
        return True

    def report(self) -> dict[str, Any]:
        """Objective, latencies, windows skipped, memory (bytes), share of all cores, uptime."""
        with self._lock:
            ordered, skipped = sorted(self._latencies), self._skipped
            share = self._measure()
        within = sum(latency <= self._objective for latency in ordered)
        return {
            "objective": self._objective,
            "latency": {"p50": _percentile(ordered, 0.5), "p95": _percentile(ordered, 0.95)},
            "within": round(within / len(ordered), 4) if ordered else None,
            "skipped": skipped,
            "memory": resident_bytes(),
            "cpu": share,
            "uptime": round(self._clock() - self._since, 1),
        }

    def _measure(self) -> float:
        """The process's share of all cores since this was last asked, at least a second ago."""
        now, cpu = self._clock(), _cpu_seconds()
        if now - self._cpu_at >= 1.0:
            self._share = (cpu - self._cpu) / (now - self._cpu_at) / (os.cpu_count() or 1)
            self._cpu, self._cpu_at = cpu, now
        return round(min(max(self._share, 0.0), 1.0), 3)


def _percentile(ordered: list[float], share: float) -> float | None:
    if not ordered:
        return None
    return round(ordered[min(int(share * len(ordered)), len(ordered) - 1)], 4)


def _cpu_seconds() -> float:
    times = os.times()
    return times.user + times.system


def resident_bytes() -> int | None:
    """Memory of this process that is in RAM; None where the system does not say."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return None
