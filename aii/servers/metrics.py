"""What the server has done, for Prometheus; needs the extra ``metrics``.

:class:`Metrics` is a sink that counts events; gauges are read when somebody asks. Labels have few
values: no call's id, no client's address.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from aii.errors import MissingExtraError
from aii.streaming.events import CallEnded, CallStarted, Event, Final, Heard, Partial, Skipped

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0)
"""Upper bounds of the latency histograms, in seconds."""

ENDS = ("eof", "hangup", "connection reset", "idle", "shutdown", "done")
"""Reasons of ends that are counted apart; all others are "other"."""

REASONS = ("reset", "agreement", "endpoint", "flush", "hangup", "error")
"""Reasons of finals that are counted apart."""

Gauge = Callable[[], float]


class Metrics:
    """Counters and histograms of one server; a sink, for any number of threads.

    Raises:
        MissingExtraError: prometheus-client is not installed.
    """

    def __init__(self) -> None:
        try:
            import prometheus_client as client
        except ImportError:
            raise MissingExtraError("prometheus_client", "metrics") from None
        self.registry: CollectorRegistry = client.CollectorRegistry()
        client.ProcessCollector(registry=self.registry)
        client.PlatformCollector(registry=self.registry)
        client.GCCollector(registry=self.registry)
        self._client = client
        self._calls = self._counter("aii_calls", "Calls (their legs) that have begun")
        self._ends = self._counter("aii_calls_ended", "Calls that have ended", "reason")
        self._audio = self._counter("aii_audio_seconds", "Seconds of audio in calls that ended")
        self._windows = self._counter("aii_windows", "Windows that were decoded", "kind", "reason")
        self._skips = self._counter("aii_windows_skipped", "Windows left out", "reason")
        self._lost = self._counter("aii_lost_seconds", "Seconds of audio that nobody decoded")
        self._removed = self._counter("aii_removed", "Times that a guard took text away")
        self._refused = self._counter("aii_refused", "Clients refused or cut", "why")
        self._requests = self._counter("aii_http_requests", "HTTP requests", "route", "status")
        self._latency = self._histogram("aii_latency_seconds", "Waiting and computing of a window")
        self._queued = self._histogram("aii_queued_seconds", "Waiting of a window for the engine")
        self._decode = self._histogram("aii_decode_seconds", "Computing of a window")

    def _counter(self, name: str, about: str, *labels: str) -> Any:
        return self._client.Counter(name, about, labels, registry=self.registry)

    def _histogram(self, name: str, about: str) -> Any:
        return self._client.Histogram(name, about, registry=self.registry, buckets=BUCKETS)

    # A sink.

    def emit(self, event: Event) -> None:
        """Count one event; from any thread."""
        if isinstance(event, Heard):
            self._heard(event)
        elif isinstance(event, Skipped):
            self._skipped(event)
        elif isinstance(event, CallStarted):
            self._calls.inc()
        elif isinstance(event, CallEnded):
            self._ends.labels(event.reason if event.reason in ENDS else "other").inc()
            self._audio.inc(event.end)

    def close(self, timeout: float = 0.0) -> bool:
        """There is nothing to write."""
        return True

    def _heard(self, event: Heard) -> None:
        reason = event.reason if isinstance(event, Final) else "none"
        kind = "partial" if isinstance(event, Partial) else "final"
        self._windows.labels(kind, reason if reason in REASONS else "none").inc()
        if event.removed:
            self._removed.inc(len(event.removed))
        work = event.work
        if work.decode:
            self._latency.observe(work.queued + work.decode)
            self._queued.observe(work.queued)
            self._decode.observe(work.decode)

    def _skipped(self, event: Skipped) -> None:
        if event.lost:
            self._lost.inc(max(event.end - event.start, 0.0))
        reason = event.reason.split(":")[0]
        self._skips.labels(reason if reason in ("behind", "error", "silence") else "other").inc(
            event.windows
        )

    # What is not an event.

    def refused(self, why: str) -> None:
        """A client was refused or cut; ``why`` is one of few words."""
        self._refused.labels(why).inc()

    def request(self, route: str, status: int) -> None:
        """An HTTP request was answered; ``route`` is the route's pattern, not the address."""
        self._requests.labels(route, str(status)).inc()

    def watch(self, gauges: Mapping[str, tuple[str, Gauge]]) -> None:
        """Add gauges, by name: what they are, and who knows their value."""
        for name, (about, read) in gauges.items():
            self._client.Gauge(name, about, registry=self.registry).set_function(read)

    def watch_stats(self, read: Callable[[], Mapping[str, float]]) -> None:
        """Add an engine's counters, however they are called, as ``aii_engine{of="..."}``."""
        self.registry.register(_Stats(read, "aii_engine", "What the engine counts", "of"))

    def watch_sinks(self, sinks: Sequence[Any]) -> None:
        """Add what sinks have dropped, by their names."""

        def dropped() -> dict[str, float]:
            counts: dict[str, float] = {}
            for sink in sinks:
                name = getattr(sink, "name", type(sink).__name__)
                counts[name] = counts.get(name, 0) + getattr(sink, "dropped", 0)
            return counts

        self.registry.register(
            _Stats(dropped, "aii_sink_dropped", "Lines that a sink has dropped", "sink")
        )

    def text(self) -> tuple[bytes, str]:
        """All of it in Prometheus's text format, and the format's content type."""
        return (
            self._client.generate_latest(self.registry),
            self._client.CONTENT_TYPE_LATEST,
        )


class _Stats:
    """A collector of numbers by name, which may change from time to time."""

    def __init__(
        self, read: Callable[[], Mapping[str, float]], name: str, about: str, label: str
    ) -> None:
        self._read = read
        self._about = name, about, label

    def collect(self) -> list[Any]:
        from prometheus_client.core import GaugeMetricFamily

        name, about, label = self._about
        family = GaugeMetricFamily(name, about, labels=[label])
        for key, value in self._read().items():
            family.add_metric([key], float(value))
        return [family]

    def describe(self) -> list[Any]:
        """Nothing that would have to be read at once."""
        return []
