"""What an engine has done, and how it keeps up. Pure; the owner locks and holds the clock."""

from __future__ import annotations

from collections import deque

from aii.engine.api import SPAN

RECENT = 200
"""Answers that say how late answers are."""

FULL_ABOVE = 0.95
"""Load from which on late answers mean that there is no room for more calls."""

ROOM_BELOW = 0.85
"""Load below which there is room again, whatever was late."""

KEPT = 0.95
"""Share of the answers that must come within the objective."""

_SLACK = 0.1


class Record:
    """Counters and gauges of one engine.

    ``done``, ``failed``, ``cancelled``, ``refused``: requests. ``audio_seconds``: of the windows
    done. ``decode_seconds``: that the engine worked. ``passes``: decoder passes, counted for each
    window that took part; ``steps``: passes made, ``rows``: decodes in all of them together, so
    that rows over steps says how full the batch is; ``encodes``: of how many windows ``encoded``
    were encoded. ``late``: answers later than the objective. Over the last answers that should
    have come within it (those of recordings may take longer):
    ``latency_p50`` and ``latency_p95`` in seconds from submission, and ``within``, the share not
    late (1 while there are none). ``load``: share of the last seconds in which the engine worked.
    ``busy``: the share that calls took of its busier thread, recordings left out.
    ``full``: 1 while it works nearly all the time and more than one answer in twenty is late, so
    that more calls would be at the cost of those there are.

    Args:
        objective: seconds from submission within which answers should come.
        beside: whether the encoder has a thread of its own.
    """

    def __init__(self, objective: float = 1.0, *, beside: bool = False) -> None:
        self._objective = objective
        self.beside = beside
        self._spent: deque[tuple[float, float, float]] = deque()  # when, encoding, decoding
        self._counts = dict.fromkeys(
            ("done", "failed", "cancelled", "refused", "late", "steps", "encodes"), 0
        )
        self._sums = dict.fromkeys(
            (
                "audio_seconds",
                "decode_seconds",
                "passes",
                "rows",
                "encoded",
                "encoder_time",
                "decoder_time",
            ),
            0.0,
        )
        self._latencies: deque[tuple[float, bool]] = deque(maxlen=RECENT)
        self._work: deque[tuple[float, float]] = deque()
        self._full = False

    def count(self, name: str, number: int = 1) -> None:
        """``number`` more of ``name``."""
        self._counts[name] += number

    def answered(self, audio: float, latency: float, passes: int, wanted: float = 0.0) -> None:
        """A request is answered: seconds of audio, seconds since it came, decoder passes.

        Args:
            wanted: seconds since it came within which it was wanted; where these are more than the
                objective, the answer says nothing about whether that is kept.
        """
        self._counts["done"] += 1
        self._sums["audio_seconds"] += audio
        self._sums["passes"] += passes
        if not self.live(wanted):
            return
        late = latency > self._objective
        self._counts["late"] += late
        self._latencies.append((latency, late))

    def live(self, wanted: float) -> bool:
        """Whether an answer wanted within so many seconds is a call's, not a recording's."""
        return wanted <= self._objective + _SLACK

    def encoded(self, windows: int, seconds: float, now: float, live: float = 1.0) -> None:
        """So many windows went through the encoder together; ``live``: the calls' share of it."""
        self._spent.append((now, seconds * live, 0.0))
        self._counts["encodes"] += 1
        self._sums["encoded"] += windows
        self._sums["encoder_time"] += seconds

    def decoded(self, rows: int, seconds: float, now: float, live: float = 1.0) -> None:
        """So many decodes took part in a pass; ``live`` as in :meth:`encoded`."""
        self._spent.append((now, 0.0, seconds * live))
        self._counts["steps"] += 1
        self._sums["rows"] += rows
        self._sums["decoder_time"] += seconds

    def worked(self, begin: float, end: float) -> None:
        """The engine worked from ``begin`` to ``end`` (clock readings, in order)."""
        self._sums["decode_seconds"] += end - begin
        if self._work and begin - self._work[-1][1] < 0.001:
            begin = self._work.pop()[0]  # went on without a pause
        self._work.append((begin, end))
        self._forget(end)

    def _forget(self, now: float) -> None:
        while self._work and self._work[0][1] <= now - SPAN:
            self._work.popleft()
        while self._spent and self._spent[0][0] <= now - SPAN:
            self._spent.popleft()

    def load(self, now: float) -> float:
        """Share of the last seconds in which the engine worked, 0 to 1."""
        self._forget(now)
        return min(sum(end - max(begin, now - SPAN) for begin, end in self._work) / SPAN, 1.0)

    def busy(self, now: float) -> float:
        """Share of the last seconds that calls took of the busier thread, 0 to 1."""
        self._forget(now)
        encoding, decoding = (sum(spent[i] for spent in self._spent) for i in (1, 2))
        time = max(encoding, decoding) if self.beside else encoding + decoding
        return min(time / SPAN, 1.0)

    @property
    def within(self) -> float:
        """Share of the last answers that came within the objective; 1 while there are none."""
        if not self._latencies:
            return 1.0
        return 1.0 - sum(late for _, late in self._latencies) / len(self._latencies)

    def full(self, now: float) -> bool:
        """Whether more calls would be at the cost of those there are."""
        load, kept = self.load(now), self.within >= KEPT
        if load < ROOM_BELOW or kept:
            self._full = False
        elif load >= FULL_ABOVE:
            self._full = True
        return self._full

    def stats(self, now: float) -> dict[str, float]:
        """Everything by name."""
        latencies = sorted(latency for latency, _ in self._latencies)
        last = len(latencies) - 1
        return {
            **self._counts,
            **self._sums,
            "load": self.load(now),
            "busy": self.busy(now),
            "latency_p50": latencies[round(0.5 * last)] if latencies else 0.0,
            "latency_p95": latencies[round(0.95 * last)] if latencies else 0.0,
            "within": self.within,
            "full": float(self.full(now)),
        }
