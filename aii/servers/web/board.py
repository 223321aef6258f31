"""The live list: what all calls have said so far, and their events as they happen.

A :class:`Board` is a sink. It keeps the open calls and the last that have ended, bounded in finals,
and hands every event to whoever watches. A watcher that does not keep up loses partials first and
is told to go when it has fallen behind for good; no call ever waits for one.
"""

from __future__ import annotations

import json
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from aii.sinks.base import droppable
from aii.streaming.events import Answer, CallEnded, CallStarted, Event, Final, Heard, Partial

ENDED = 50
"""Calls that have ended and are still shown."""

KEPT = 1_000
"""Calls that have ended and can still be asked for by id: of hundreds that end at once, each one's
dialplan wants its text a moment later."""

FINALS = 50_000
"""Finals kept in all calls together; a call with many gives up its first ones for others."""

LEAST = 50
"""Finals that each call may keep whatever the others have."""

SHOWN = 20
"""Finals of each call in a snapshot; the others can be asked for."""

HELD = 2_000
"""Events that wait for a watcher before it is told to go."""

PARTIALS = 200
"""Events that wait for a watcher before it loses partials."""


@dataclass
class Entry:
    """One leg of a call, as far as it is known."""

    call_id: str
    leg: str
    started: float
    first: CallStarted
    ended: float | None = None
    reason: str | None = None
    duration: float = 0.0
    language: str | None = None
    finals: deque[tuple[float, Final]] = field(default_factory=deque)
    forgotten: int = 0
    partial: tuple[float, Partial] | None = None
    answer: Answer | None = None  # the last one

    def add(self, now: float, event: Event) -> None:
        """Take the leg's next event."""
        if isinstance(event, Heard):
            self.language = event.language or self.language
            self.duration = max(self.duration, event.end)
        if isinstance(event, Final):
            self.finals.append((now, event))
            self.partial = None
        elif isinstance(event, Partial):
            self.partial = now, event
        elif isinstance(event, Answer):
            self.answer = event
        elif isinstance(event, CallEnded):
            self.ended, self.reason, self.duration = now, event.reason, event.end
            self.partial = None

    def trim(self, most: int) -> int:
        """Forget all but the last ``most`` finals; how many were forgotten."""
        many = max(len(self.finals) - most, 0)
        for _ in range(many):
            self.finals.popleft()
        self.forgotten += many
        return many

    def to_dict(self, finals: int | None = None) -> dict[str, Any]:
        """For JSON, with the last ``finals`` of the finals (None: all that are kept)."""
        about = {k: v for k, v in self.first.to_dict().items() if k not in ("type", "seq")}
        kept = list(self.finals)
        shown = kept if finals is None else kept[max(len(kept) - finals, 0) :]
        return {
            **about,
            "call_id": self.call_id,
            "leg": self.leg,
            "started": round(self.started, 3),
            "ended": None if self.ended is None else round(self.ended, 3),
            "reason": self.reason,
            "duration": round(self.duration, 3),
            "language": self.language,
            "finals": [timed(now, event) for now, event in shown],
            "earlier": self.forgotten + len(kept) - len(shown),
            "partial": None if self.partial is None else timed(*self.partial),
        }


def timed(now: float, event: Event) -> dict[str, Any]:
    """An event as it is shown, with the unix time at which it happened."""
    return {**event.to_dict(), "time": round(now, 3)}


class Watcher:
    """One who reads all events; made by :meth:`Board.watch`.

    Attributes:
        lagging: it has fallen behind for good and gets nothing more.
    """

    def __init__(self, wake: Callable[[], None]) -> None:
        self.lagging = False
        self._wake = wake
        self._held: deque[str] = deque()

    def put(self, line: str, first_to_go: bool) -> None:
        """Hold a line; called by the board, under its lock."""
        if self.lagging or (first_to_go and len(self._held) >= PARTIALS):
            return
        if len(self._held) >= HELD:
            self.lagging = True
            self._held.clear()
        else:
            self._held.append(line)
        self._wake()

    def take(self) -> str | None:
        """The next line, or None when there is none now."""
        return self._held.popleft() if self._held else None


class Board:
    """See the module; a sink. For any number of threads."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._open: dict[tuple[str, str], Entry] = {}
        self._ended: deque[Entry] = deque()
        self._watchers: set[Watcher] = set()
        self._count = 0  # finals kept

    @property
    def open(self) -> int:
        """Legs of calls that have not ended."""
        return len(self._open)

    # A sink.

    def emit(self, event: Event) -> None:
        """Take one event; from any thread."""
        now = self._clock()
        with self._lock:
            self._keep(now, event)
            if self._watchers:
                line = json.dumps(timed(now, event), ensure_ascii=False)
                for watcher in self._watchers:
                    watcher.put(line, droppable(event))

    def close(self, timeout: float = 0.0) -> bool:
        """There is nothing to write."""
        return True

    def _keep(self, now: float, event: Event) -> None:
        key = event.call_id, event.leg
        if isinstance(event, CallStarted):
            self._open[key] = Entry(*key, started=now, first=event)
        entry = self._open.get(key)
        if entry is None:
            return
        entry.add(now, event)
        if isinstance(event, Final):
            self._count += 1
            self._make_room(entry)
        if isinstance(event, CallEnded):
            del self._open[key]
            self._ended.append(entry)
            while len(self._ended) > KEPT:
                self._count -= len(self._ended.popleft().finals)

    def _make_room(self, entry: Entry) -> None:
        """Ended calls go first, then the oldest finals of the call that has grown."""
        while self._count > FINALS and self._ended:
            self._count -= len(self._ended.popleft().finals)
        if self._count > FINALS:
            self._count -= entry.trim(max(LEAST, FINALS // max(len(self._open), 1)))

    # For those who look.

    def calls(self, finals: int | None = SHOWN) -> list[dict[str, Any]]:
        """Open calls, then those that have ended, the latest first."""
        with self._lock:
            return [entry.to_dict(finals) for entry in self._shown()]

    def find(self, call_id: str, leg: str | None = None) -> list[Entry]:
        """The latest call of this id: its legs, or the one named."""
        with self._lock:
            found: dict[str, Entry] = {}
            for entry in self._all():
                if entry.call_id == call_id and leg in (None, entry.leg):
                    found.setdefault(entry.leg, entry)
            return [found[name] for name in sorted(found)]

    def describe(self, entries: Iterable[Entry]) -> list[dict[str, Any]]:
        """Entries with all their finals."""
        with self._lock:
            return [entry.to_dict() for entry in entries]

    def heard(self, entries: Iterable[Entry]) -> list[Final]:
        """The finals of entries, in the order of speech."""
        with self._lock:
            finals = [final for entry in entries for _, final in entry.finals]
        return sorted(finals, key=lambda final: (final.start, final.end))

    def _all(self) -> list[Entry]:
        opened = sorted(self._open.values(), key=lambda entry: entry.started, reverse=True)
        return [*opened, *reversed(self._ended)]

    def _shown(self) -> list[Entry]:
        found = self._all()
        return found[: len(self._open) + ENDED]

    def watch(self, wake: Callable[[], None]) -> Watcher:
        """Begin to read events: first a snapshot, then every event, without a gap or a double.

        Args:
            wake: called when there is something to take; from any thread, must not block.
        """
        watcher = Watcher(wake)
        with self._lock:
            calls = [entry.to_dict(SHOWN) for entry in self._shown()]
            watcher.put(json.dumps({"type": "snapshot", "calls": calls}, ensure_ascii=False), False)
            self._watchers.add(watcher)
        return watcher

    def leave(self, watcher: Watcher) -> None:
        """The watcher reads no more."""
        with self._lock:
            self._watchers.discard(watcher)
