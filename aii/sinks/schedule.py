"""Which delivery goes next: in order within a call, and no call waits for another."""

from __future__ import annotations

import heapq
from collections import deque
from dataclasses import dataclass, field


@dataclass
class _Call:
    """What waits for one call; ``busy`` while one is under way."""

    rows: deque[int] = field(default_factory=deque)
    busy: bool = False
    failures: int = 0


class Schedule:
    """Rows of a spool in the order in which they may be sent. No locks, no clock of its own.

    Of each call the first row goes first, and the next one when that is done. Calls that are due
    take turns in the order of their oldest rows.
    """

    def __init__(self) -> None:
        self._calls: dict[str, _Call] = {}
        self._due: list[tuple[float, int, str]] = []  # each call that waits and is not busy, once
        self._droppable: dict[str, list[int]] = {}
        self._count = 0

    def __len__(self) -> int:
        """Rows that wait or are under way."""
        return self._count

    def add(self, row: int, call: str, *, droppable: bool = False) -> list[int]:
        """A row that is to be sent; the rows that need not be sent any more because of it."""
        needless = [] if call not in self._droppable else self._drop(call)
        state = self._calls.setdefault(call, _Call())
        state.rows.append(row)
        self._count += 1
        if droppable:
            self._droppable.setdefault(call, []).append(row)
        if len(state.rows) == 1 and not state.busy:
            heapq.heappush(self._due, (0.0, row, call))
        return needless

    def _drop(self, call: str) -> list[int]:
        """Forget the droppable rows of a call; the first one may be under way and stays."""
        state, rows = self._calls.get(call), self._droppable.pop(call)
        if state is None:
            return []
        first = state.rows[0] if state.rows else None
        needless = [row for row in rows if row in state.rows and row != first]
        for row in needless:
            state.rows.remove(row)
        self._count -= len(needless)
        return needless

    def take(self, now: float) -> tuple[int, str] | None:
        """The row to send now and its call, or None. It must be ``done`` or told to ``wait``."""
        if not self._due or self._due[0][0] > now:
            return None
        _, row, call = heapq.heappop(self._due)
        self._calls[call].busy = True
        return row, call

    def done(self, call: str) -> None:
        """The row that was taken for a call need not be sent again."""
        state = self._calls[call]
        state.rows.popleft()
        self._count -= 1
        state.busy, state.failures = False, 0
        if state.rows:
            heapq.heappush(self._due, (0.0, state.rows[0], call))
        else:
            del self._calls[call]
            self._droppable.pop(call, None)

    def wait(self, call: str, until: float) -> int:
        """The row that was taken is to be sent again, not before ``until``; how often it failed."""
        state = self._calls[call]
        state.busy = False
        state.failures += 1
        heapq.heappush(self._due, (until, state.rows[0], call))
        return state.failures

    def failures(self, call: str) -> int:
        """How often the first row of a call has failed."""
        return self._calls[call].failures

    @property
    def next_at(self) -> float | None:
        """When ``take`` will give something, if nothing is added; None: never."""
        return self._due[0][0] if self._due else None
