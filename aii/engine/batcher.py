"""Who goes next: the waiting requests, earliest deadline first. Pure; the owner locks."""

from __future__ import annotations

import heapq
import itertools
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from aii.errors import EngineFullError

T = TypeVar("T")


@dataclass(order=True)
class _Entry(Generic[T]):
    deadline: float
    number: int  # equal deadlines go in the order in which they came
    item: T | None = field(compare=False)
    call_id: str = field(compare=False)


class DeadlineQueue(Generic[T]):
    """A bounded queue of items with deadlines, of which a call's can be withdrawn.

    Withdrawn items leave a husk in the heap until it comes up, so withdrawing costs nothing; there
    are never more husks than the bound, for they are swept out when they outnumber the living.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._heap: list[_Entry[T]] = []
        self._numbers = itertools.count()
        self._by_call: defaultdict[str, dict[int, _Entry[T]]] = defaultdict(dict)
        self._living = 0

    def __len__(self) -> int:
        return self._living

    def push(self, item: T, *, call_id: str, deadline: float) -> None:
        """Add ``item``.

        Raises:
            EngineFullError: the queue is full.
        """
        if self._living >= self._size:
            raise EngineFullError(
                f"{self._size} windows wait for the engine already; "
                "serve fewer calls or raise --queue-size"
            )
        entry = _Entry(deadline, next(self._numbers), item, call_id)
        heapq.heappush(self._heap, entry)
        self._by_call[call_id][entry.number] = entry
        self._living += 1

    def pop(self) -> T | None:
        """Remove and return the item with the earliest deadline; None when there is none."""
        while self._heap:
            entry = heapq.heappop(self._heap)
            item = entry.item
            if item is not None:
                mine = self._by_call[entry.call_id]
                del mine[entry.number]
                if not mine:
                    del self._by_call[entry.call_id]
                self._living -= 1
                return item
        return None

    def cancel(self, call_id: str) -> list[T]:
        """Remove and return all items of a call."""
        items: list[T] = []
        for entry in self._by_call.pop(call_id, {}).values():
            if entry.item is not None:
                items.append(entry.item)
                entry.item = None
        self._living -= len(items)
        if len(self._heap) > 2 * self._living + 16:
            self._heap = [entry for entry in self._heap if entry.item is not None]
            heapq.heapify(self._heap)
        return items

    def clear(self) -> list[T]:
        """Remove and return everything, earliest deadline first."""
        items = []
        while (item := self.pop()) is not None:
            items.append(item)
        return items
