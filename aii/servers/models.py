"""The model that serves calls, and its replacement while calls go on.

:class:`Models` looks like an engine to whoever submits. A call stays with the model under which it
began: it is bound when its id is claimed, and set free when it ends. A model that is replaced is
closed, and its memory given back, once the last of its calls is over.
"""

from __future__ import annotations

import logging
import threading
import time
import weakref
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from aii.engine.api import GAUGES, Engine
from aii.errors import ServiceError
from aii.servers.demand import FORESEEN, Demand
from aii.streaming.factory import Sessions
from aii.streaming.session import Session
from aii.streaming.settings import CallSettings
from aii.types import DecodeRequest, Hypothesis

log = logging.getLogger(__name__)

CLOSING = 30.0
"""Seconds that a replaced engine gets to come to rest."""

LAST_LINE = 2.0
"""Seconds, for all together, for what is said of models replaced a moment before the end."""

LETTING_GO = (0.1, 0.4, 1.5, 5.0, 0.0)
"""Seconds between the looks whether the last holder of a replaced model has let go of it."""


class ChangeUnderWayError(ServiceError):
    """Another change of the model has not finished."""


@dataclass(frozen=True, eq=False)
class Loaded:
    """A model in service.

    Attributes:
        name: as it was asked for.
        engine: what decodes; several of these may share one.
        sessions: makes the sessions of its calls.
        about: further facts, such as ``device``.
    """

    name: str
    engine: Engine
    sessions: Sessions
    about: Mapping[str, Any] = field(default_factory=dict)

    @property
    def language(self) -> str | None:
        """Code of the language that calls are decoded in, None to detect it."""
        return self.sessions.settings.language


@dataclass
class _Binding:
    loaded: Loaded
    count: int = 1


Loader = Callable[[str, "str | None", "Loaded | None"], Loaded]
"""Name, language, and the model in service if it is to be kept -> what serves from now on."""


class Models:
    """An :class:`aii.engine.api.Engine` whose model can be changed.

    Args:
        first: what serves at the start.
        load: loads another model, or the same one for another language.
        freed: called when a model has been dropped, so that its memory can be given back.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        first: Loaded,
        load: Loader,
        *,
        freed: Callable[[], object] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._current = first
        self._load = load
        self._freed = freed
        self._clock = clock
        self._demand = Demand()
        self._bound: dict[str, _Binding] = {}
        self._uses: Counter[int] = Counter()  # calls of each engine
        self._engines: dict[int, Engine] = {id(first.engine): first.engine}
        self._closing: list[Engine] = []  # replaced, and not at rest yet
        self._retiring: list[threading.Thread] = []
        self._retired: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._changing = threading.Lock()
        self._closed = False

    # What calls see.

    @property
    def current(self) -> Loaded:
        """What serves calls that begin now."""
        return self._current

    @property
    def engines(self) -> int:
        """Models in memory: the current one and those with calls that began before it."""
        with self._lock:
            return len(self._engines)

    def bind(self, call_id: str) -> None:
        """A call (or a further leg of it) begins; it stays with the model that serves now."""
        with self._lock:
            binding = self._bound.get(call_id)
            loaded = self._current if binding is None else binding.loaded
            self._demand.begin(call_id, self._clock(), loaded.sessions.settings.step)
            if binding is not None:
                binding.count += 1
                return
            self._bound[call_id] = _Binding(self._current)
            self._uses[id(self._current.engine)] += 1

    def release(self, call_id: str) -> None:
        """The call (or a leg of it) is over."""
        with self._lock:
            binding = self._bound.get(call_id)
            if binding is None:
                return
            self._demand.end(call_id, self._clock())
            binding.count -= 1
            if binding.count:
                return
            del self._bound[call_id]
            self._uses[id(binding.loaded.engine)] -= 1
            del binding  # or this frame would still hold the model while its memory is given back
        self._retire()

    def of(self, call_id: str) -> Loaded:
        """The model of a call; the current one where the call is not bound."""
        with self._lock:
            binding = self._bound.get(call_id)
            return self._current if binding is None else binding.loaded

    def make_session(
        self,
        call_id: str,
        caller: str,
        settings: CallSettings | None = None,
        *,
        start: float = 0.0,
    ) -> Session:
        """A session of a call that is bound; see :meth:`aii.streaming.factory.Sessions.make`."""
        return self.of(call_id).sessions.make(call_id, caller, settings, start=start)

    def settings(self, call_id: str) -> CallSettings:
        """How a call is heard that does not say otherwise."""
        return self.of(call_id).sessions.settings

    # An engine.

    def submit(self, request: DecodeRequest) -> Future[Hypothesis]:
        """Queue a request with the engine of its call."""
        return self.of(request.call_id).engine.submit(request)

    def cancel(self, call_id: str) -> int:
        """Withdraw a call's waiting requests; how many there were."""
        return self.of(call_id).engine.cancel(call_id)

    def stats(self) -> dict[str, float]:
        """Counters of all models that have served, and gauges of those that do."""
        with self._lock:
            every = [engine.stats() for engine in self._engines.values()]
            ending = [engine.stats() for engine in self._closing]
            total: Counter[str] = Counter(self._retired)
        for stats in (*every, *ending):
            total.update({name: value for name, value in stats.items() if name not in GAUGES})
        gauges = {
            name: combine(stats[name] for stats in every if name in stats)
            for name, combine in GAUGES.items()
            if any(name in stats for stats in every)
        }
        return {**total, **gauges}

    def no_room(self) -> str:
        """Why a call that begins now would be at the cost of those there are; "" if it would not.

        The first call is always welcome: there is nobody who could lose by it.
        """
        with self._lock:
            if not self._bound:
                return ""
        stats = self.stats()
        if stats.get("full", 0.0) > 0.0:
            return "this machine is full: its answers come too late already"
        with self._lock:
            foreseen = self._demand.foreseen(stats.get("busy", 0.0), self._clock())
        if foreseen > FORESEEN:
            return "this machine is full: with one call more its answers would come too late"
        return ""

    def close(self, timeout: float = 0.0) -> bool:
        """Close every engine; whether all have come to rest."""
        with self._lock:
            self._closed = True
            engines = list(self._engines.values())
            retiring = list(self._retiring)
        at_rest = sum(not engine.close(timeout) for engine in engines) == 0
        until = time.monotonic() + LAST_LINE
        for thread in retiring:  # of models replaced a moment ago: they have a line to say
            thread.join(max(0.0, until - time.monotonic()))
        return at_rest

    # Changes.

    def change(self, model: str | None = None, language: str | None = "") -> Loaded:
        """Serve calls that begin from now on with another model or language. Takes its time.

        Args:
            model: its name; None keeps the one in service.
            language: code; None to detect it; "" leaves the choice as it is.

        Raises:
            ChangeUnderWayError: another change has not finished.
            AiiError: it cannot be loaded, or does not know the language; nothing has changed then.
        """
        if not self._changing.acquire(blocking=False):
            raise ChangeUnderWayError("another change is under way; try again when it is done")
        try:
            before = self._current
            name = before.name if model is None else model
            wanted = before.language if language == "" else language
            kept = before if name == before.name else None
            if kept is None and language == "":
                wanted = None  # the old model's language need not be one of the new one's
            loaded = self._load(name, wanted, kept)
            with self._lock:
                if self._closed:
                    loaded.engine.close(0.0)
                    raise ServiceError("the server is stopping")
                self._engines[id(loaded.engine)] = loaded.engine
                self._current = loaded
            log.info("new calls: model %s, language %s", loaded.name, loaded.language or "auto")
            del before, kept
            self._retire()
            return loaded
        finally:
            self._changing.release()

    def _retire(self) -> None:
        """Close engines that have been replaced and serve no call any more."""
        with self._lock:
            if self._closed:
                return  # whoever closes all has these among them
            idle = [
                key
                for key in self._engines
                if key != id(self._current.engine) and not self._uses[key]
            ]
            engines = [self._engines.pop(key) for key in idle]
            for key in idle:
                del self._uses[key]
            self._closing += engines
            if not engines:
                return
            retire = threading.Thread(
                target=self._close_all, args=(engines,), name="aii-retire", daemon=True
            )
            self._retiring = [*filter(threading.Thread.is_alive, self._retiring), retire]
            retire.start()

    def _close_all(self, engines: list[Engine]) -> None:
        holders = [weakref.ref(engine) for engine in engines]
        while engines:
            engine = engines.pop()
            if not engine.close(CLOSING):
                log.warning("a model that was replaced is still decoding; its memory is kept")
            with self._lock:
                self._closing.remove(engine)
                counts = engine.stats()
                self._retired.update({k: v for k, v in counts.items() if k not in GAUGES})
            del engine
        for pause in LETTING_GO:  # a call's thread may be about to drop its session
            held = any(holder() for holder in holders)
            self._freed()
            if not held:
                log.info("the memory of a model that was replaced is given back")
                return
            time.sleep(pause)
        log.warning("a model that was replaced is still held; its memory is not given back")
