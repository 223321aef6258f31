"""Who goes next: which waiting request joins the batch, and what the batch does. Pure.

The owner locks, holds the clock, and does the work; here are only the decisions.
"""

from __future__ import annotations

import bisect
import itertools
from collections import Counter
from dataclasses import dataclass
from typing import Generic, TypeVar

from aii.errors import EngineFullError

T = TypeVar("T")

PATIENCE = 30.0
"""Seconds after which a request that waits counts as due, whatever its deadline: so that those
without one are not overtaken for ever."""


@dataclass(frozen=True, eq=False)
class Entry(Generic[T]):
    """A request that waits or runs.

    Attributes:
        due: clock reading, the deadline as far as it is believed.
        number: requests due at the same moment go in the order in which they came.
        item: what the owner calls it.
        call_id: whose it is.
        rows: rows of tokens that it will need.
    """

    due: float
    number: int
    item: T
    call_id: str
    rows: int

    @property
    def rank(self) -> tuple[float, int]:
        """The lowest goes first."""
        return self.due, self.number


class Batcher(Generic[T]):
    """Requests that wait, bounded, and those that run, within a number of rows.

    The earliest deadline goes first among the calls with the fewest requests running: a call with
    many requests at once takes its turns with the others, and no deadline can be earlier than the
    moment at which the request came.

    Args:
        size: requests that may wait.
        rows: rows of tokens that may be in use; one request may always run.
    """

    def __init__(self, size: int, rows: int) -> None:
        self._size = size
        self._rows = rows
        self._numbers = itertools.count()
        self._waiting: dict[str, list[Entry[T]]] = {}
        self._count = 0
        self._running: list[Entry[T]] = []
        self._running_of: Counter[str] = Counter()

    def __len__(self) -> int:
        """Requests that wait."""
        return self._count

    @property
    def running(self) -> int:
        """Requests that run."""
        return len(self._running)

    def push(self, item: T, *, call_id: str, deadline: float, now: float, rows: int = 1) -> None:
        """Let ``item`` wait.

        Raises:
            EngineFullError: as many as allowed wait already.
        """
        if self._count >= self._size:
            raise EngineFullError(
                f"{self._size} windows wait for the engine already; "
                "serve fewer calls or raise --queue-size"
            )
        due = min(max(now, deadline), now + PATIENCE)  # one that is no number counts as past
        entry = Entry(due, next(self._numbers), item, call_id, rows)
        bisect.insort(self._waiting.setdefault(call_id, []), entry, key=lambda e: e.rank)
        self._count += 1

    def start(self) -> Entry[T] | None:
        """The request that joins next, from now on running; None where none waits or fits."""
        if not self._waiting:
            return None
        call_id, queue = min(
            self._waiting.items(), key=lambda item: (self._running_of[item[0]], item[1][0].rank)
        )
        taken = sum(entry.rows for entry in self._running)
        if self._running and taken + queue[0].rows > self._rows:
            return None
        entry = queue.pop(0)
        if not queue:
            del self._waiting[call_id]
        self._count -= 1
        self._running.append(entry)
        self._running_of[call_id] += 1
        return entry

    def finish(self, entry: Entry[T]) -> bool:
        """A running request leaves; False for one that was cancelled, which has left already."""
        if entry not in self._running:
            return False
        self._running.remove(entry)
        self._running_of[entry.call_id] -= 1
        if not self._running_of[entry.call_id]:
            del self._running_of[entry.call_id]
        return True

    def cancel(self, call_id: str) -> tuple[list[T], list[T]]:
        """Let all requests of a call leave: those that waited and those that ran."""
        waiting = self._waiting.pop(call_id, [])
        self._count -= len(waiting)
        running = [entry for entry in self._running if entry.call_id == call_id]
        for entry in running:
            self.finish(entry)
        return [entry.item for entry in waiting], [entry.item for entry in running]

    def clear(self) -> list[T]:
        """Let everything that waits leave, in the order in which it would have been due."""
        entries = sorted(itertools.chain(*self._waiting.values()), key=lambda e: e.rank)
        self._waiting.clear()
        self._count = 0
        return [entry.item for entry in entries]


class Turns:
    """Encoder or decoder: while both have work, each gets as much time as the other.

    So a crowd that arrives cannot keep those who are nearly done from their last tokens, and a long
    text cannot keep the others from being heard.
    """

    def __init__(self) -> None:
        self._owed = 0.0  # seconds that the decoder is behind

    def encode_next(self, listening: int, asking: int) -> bool:
        """Whether the encoder is next, where so many wait for it and so many for the decoder."""
        return listening > 0 and (asking == 0 or self._owed <= 0.0)

    def encoded(self, seconds: float) -> None:
        """The encoder has worked so long."""
        self._owed += seconds

    def decoded(self, seconds: float) -> None:
        """The decoder has worked so long."""
        self._owed = max(self._owed - seconds, 0.0)
