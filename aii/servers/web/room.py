"""Room for clients of one kind: how many there may be at once, and how they are told to end."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Protocol

LATE = 1.0
"""Seconds for those who are told to end now."""


class Ending(Protocol):
    """Something that runs on the web's loop and can be told to end."""

    def stop(self) -> None:
        """End in order: last words are still decoded and sent."""

    def abort(self) -> None:
        """End now."""


class Room:
    """Clients that are served; for the web's loop only.

    Args:
        most: how many at once; None is any number.
    """

    def __init__(self, most: int | None = None) -> None:
        self._most = most
        self._guests: set[Ending] = set()
        self._empty = asyncio.Event()
        self._empty.set()

    def __len__(self) -> int:
        return len(self._guests)

    @property
    def full(self) -> bool:
        """Whether there is no room for one more."""
        return self._most is not None and len(self._guests) >= self._most

    @contextlib.contextmanager
    def with_guest(self, guest: Ending) -> Iterator[None]:
        """Within, the guest counts, and is told when the server stops."""
        self._guests.add(guest)
        self._empty.clear()
        try:
            yield
        finally:
            self._guests.discard(guest)
            if not self._guests:
                self._empty.set()

    def stop(self) -> int:
        """Tell all to end in order; how many there are."""
        guests = list(self._guests)
        for guest in guests:
            guest.stop()
        return len(guests)

    async def emptied(self, timeout: float) -> bool:
        """Whether all are gone within ``timeout`` seconds; who is late is told to end now, and has
        ``LATE`` seconds for it."""
        if await self._wait(max(timeout, 0.0)):
            return True
        for guest in list(self._guests):
            guest.abort()
        await self._wait(LATE)
        return False

    async def _wait(self, timeout: float) -> bool:
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._empty.wait(), timeout)
        return not self._guests


class Place:
    """A guest that ends by itself."""

    def stop(self) -> None:
        """Nothing is to be done."""

    abort = stop
