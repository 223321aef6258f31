"""All sinks of a server as one, and the sinks that single calls bring along.

A call's own sinks are shared between the calls that ask for the same, are made and closed on a
thread of their own (opening a file or a queue on disk may take its time), and stay until they have
delivered what they hold.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from aii.errors import ConfigError
from aii.sinks.base import Sink, droppable
from aii.sinks.spec import SinkSpec
from aii.streaming.events import CallEnded, CallStarted, Event

log = logging.getLogger(__name__)

MOST = 256
"""Sinks of single calls at once."""

EARLY = 1000
"""Events that wait for a sink that is being made."""

IDLE = 5.0
"""Seconds between looks for sinks of calls that nobody needs any more."""

MAKING = 30.0
"""Seconds for which a sink that could not be made keeps its place, so that calls that ask for it
again and again do not try it as often."""


_Heard = tuple[str, str, np.ndarray]


class _Late:
    """A sink that is being made; keeps events until it is there."""

    def __init__(self, spec: SinkSpec) -> None:
        self.spec = spec
        self.users = 0
        self.failed_at: float | None = None
        self.records = spec.kind == "wav"
        self._lock = threading.Lock()
        self._early: deque[Event | _Heard] | None = deque()
        self.sink: Any = None

    def emit(self, event: Event) -> None:
        if not self._kept(event, EARLY * (1 if droppable(event) else 100)) and self.sink:
            self.sink.emit(event)

    def audio(self, call_id: str, leg: str, samples: np.ndarray) -> None:
        heard = (call_id, leg, samples)
        if not self._kept(heard, EARLY) and self.sink:
            self.sink.audio(*heard)

    def _kept(self, what: Event | _Heard, room: int) -> bool:
        """Whether this came too early, and is kept or dropped."""
        with self._lock:
            if self._early is None:
                return False
            if len(self._early) < room:
                self._early.append(what)
            return True

    def made(self, sink: Any) -> None:
        """``sink`` is there; None: it cannot be made."""
        while True:
            with self._lock:
                early, self._early = self._early, deque()
                if not early:
                    self.sink, self._early = sink, None
                    break
            for what in early if sink is not None else ():
                if isinstance(what, tuple):
                    sink.audio(*what)
                else:
                    sink.emit(what)
        if sink is None:
            self.failed_at = time.monotonic()

    @property
    def ready(self) -> bool:
        """Whether it is made, or cannot be."""
        return self.sink is not None or self.failed_at is not None


@dataclass
class _Call:
    """The sinks that a call has brought, and its legs that are open."""

    sinks: list[_Late] = field(default_factory=list)
    legs: int = 0


class Outlets:
    """A sink that hands each event to many; never blocks and never raises.

    Args:
        sinks: those that see all calls.
        make: makes a call's own sink; raises AiiError or OSError.
        rules: what calls may ask for (``SinkSpec.parse(..., whole=False)``); none: nothing.
        most: sinks of single calls at once.
    """

    def __init__(
        self,
        sinks: Sequence[Sink],
        *,
        make: Callable[[SinkSpec], Sink] | None = None,
        rules: Sequence[SinkSpec] = (),
        most: int = MOST,
    ) -> None:
        self._sinks = tuple(sinks)
        self._recorders: list[Any] = [sink for sink in sinks if hasattr(sink, "audio")]
        self._make = make
        self._rules = tuple(rules)
        self._most = most
        self._lock = threading.Lock()
        self._pool: dict[str, _Late] = {}
        self._calls: dict[str, _Call] = {}
        self._said: set[str] = set()
        self._work: queue.SimpleQueue[_Late | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._closing = False

    def records(self, call_id: str) -> bool:
        """Whether anybody wants the audio of this call."""
        if self._recorders:
            return True
        call = self._calls.get(call_id) if self._calls else None
        return call is not None and any(late.records for late in call.sinks)

    @property
    def sinks(self) -> tuple[Sink, ...]:
        """Those that see all calls."""
        return self._sinks

    @property
    def dropped(self) -> int:
        """Events that the sinks of the server have dropped or lost."""
        return sum(n for name, n in self.counts().items() if name.endswith(("dropped", "lost")))

    def counts(self) -> dict[str, int]:
        """What the sinks of the server count, by ``Kind.count``."""
        found: dict[str, int] = {}
        for sink in self._sinks:
            counts: dict[str, int] = getattr(sink, "counts", None) or {
                name: getattr(sink, name) for name in ("dropped", "lost") if hasattr(sink, name)
            }
            for name, number in counts.items():
                key = f"{type(sink).__name__.removesuffix('Sink').lower()}.{name}"
                found[key] = found.get(key, 0) + number
        return found

    def emit(self, event: Event) -> None:
        """Hand the event to all sinks of the server and of its call."""
        for sink in self._sinks:
            self._hand(sink, event)
        if self._calls:
            self._to_own(event)

    def _to_own(self, event: Event) -> None:
        with self._lock:
            call = self._calls.get(event.call_id)
            if call is None:
                return
            call.legs += isinstance(event, CallStarted)
            own = list(call.sinks)
        for sink in own:
            self._hand(sink, event)
        if isinstance(event, CallEnded):
            with self._lock:
                call.legs -= 1
                if call.legs <= 0:
                    self._calls.pop(event.call_id, None)
                    for late in call.sinks:
                        late.users -= 1

    def _hand(self, sink: Any, event: Event) -> None:
        try:
            sink.emit(event)
        except Exception:  # a sink never harms a call or another sink
            name = type(sink).__name__
            if name not in self._said:
                self._said.add(name)
                log.exception("%s does not take a %s event", name, event.type)

    def audio(self, call_id: str, leg: str, samples: np.ndarray) -> None:
        """Samples (N,) float32 at 16 kHz that a leg of a call has just heard."""
        for recorder in self._recorders:
            recorder.audio(call_id, leg, samples)
        call = self._calls.get(call_id) if self._calls else None
        if call is not None:
            for late in call.sinks:
                if late.records:
                    late.audio(call_id, leg, samples)

    # -- sinks of single calls ----------------------------------------------------------------

    def attach(self, call_id: str, specs: Sequence[str]) -> None:
        """Give a call sinks of its own, before its first event; they go when it has ended.

        Raises:
            ConfigError: one of them cannot be, or is not allowed; the call has none of its own.
        """
        wanted = [self.allowed(text) for text in specs]
        with self._lock:
            call = self._calls.setdefault(call_id, _Call())
            for spec in wanted:
                late = self._pooled(spec)
                if late not in call.sinks:
                    late.users += 1
                    call.sinks.append(late)

    def allowed(self, text: str) -> SinkSpec:
        """A sink that a call may bring.

        Raises:
            ConfigError: it cannot be, or is not allowed.
        """
        spec = SinkSpec.parse(text)
        if self._make is None or not self._rules:
            raise ConfigError(f"sink {text!r}: calls may bring no sinks; see --allow-sink")
        for rule in self._rules:
            allowed = spec.allowed_by(rule)
            if allowed is not None:
                return allowed
        raise ConfigError(f"sink {text!r} is not one that calls may bring; see --allow-sink")

    def _pooled(self, spec: SinkSpec) -> _Late:
        key = f"{spec.text} {sorted(spec.options.items(), key=str)}"
        late = self._pool.get(key)
        failed = None if late is None else late.failed_at
        if failed is not None and time.monotonic() - failed > MAKING:
            late = None
        if late is None:
            if len(self._pool) >= self._most:
                raise ConfigError(f"sink {spec.text!r}: {self._most} sinks of calls are open")
            late = self._pool[key] = _Late(spec)
            self._work.put(late)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="aii-sinks", daemon=True)
                self._thread.start()
        return late

    def adopt(self, specs: Sequence[SinkSpec]) -> None:
        """Make sinks for what an earlier run has left undelivered; they go when it is delivered."""
        with self._lock:
            for spec in specs:
                self._pooled(spec)

    def _run(self) -> None:
        while not self._closing:
            try:
                late = self._work.get(timeout=IDLE)
            except queue.Empty:
                self._close_idle()
                continue
            if late is not None:
                self._make_one(late)

    def _make_one(self, late: _Late) -> None:
        sink = None
        try:
            assert self._make is not None
            sink = self._make(late.spec)
        except Exception as error:
            log.error("a call's own sink %s cannot be had: %s", late.spec.text, error)
        late.made(sink)

    def _close_idle(self, timeout: float = 5.0) -> None:
        """Close the sinks that no call has and that hold nothing."""
        with self._lock:
            idle = {
                key: late
                for key, late in self._pool.items()
                if late.users <= 0 and late.ready and not getattr(late.sink, "pending", 0)
            }
            for key in idle:
                del self._pool[key]
        for late in idle.values():
            if late.sink is not None:
                late.sink.close(timeout)

    # -- the end ------------------------------------------------------------------------------

    def close(self, timeout: float = 0.0) -> bool:
        """Close all sinks, side by side, within ``timeout`` seconds; whether all is out."""
        self._closing = True
        self._work.put(None)
        if self._thread is not None:
            self._thread.join(timeout)
        with self._lock:
            own = [late.sink for late in self._pool.values() if late.sink is not None]
            self._pool.clear()
            self._calls.clear()
        done: list[bool] = []
        threads = [
            threading.Thread(target=lambda s=sink: done.append(s.close(timeout)), daemon=True)
            for sink in (*self._sinks, *own)
        ]
        for thread in threads:
            thread.start()
        until = time.monotonic() + timeout + 1.0
        for thread in threads:
            thread.join(max(until - time.monotonic(), 0.0))
        return len(done) == len(threads) and all(done)
