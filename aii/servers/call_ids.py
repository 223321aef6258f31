"""The ids of the calls that are running, so that no two events of different calls mix."""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Claim:
    """A call, or one leg of it, under the id that it got.

    Attributes:
        call_id: the id wanted, or a variant while that was taken.
        leg: "" for a call that is heard as one.
        start: seconds from the start of the call to this leg's first sample.
    """

    call_id: str
    leg: str = ""
    start: float = 0.0


@dataclass
class _Running:
    """A call that has begun; ``legs`` are those that have not ended."""

    began: float
    legs: set[str] = field(default_factory=set)


class CallIds:
    """Which ids are taken; for any number of threads.

    Args:
        clock: seconds, monotonic.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._calls: dict[str, _Running] = {}
        self._lock = threading.Lock()

    def claim(self, wanted: str | None, leg: str = "", *, together: bool = False) -> Claim:
        """``wanted``, or with ``~2``, ``~3``... while that is taken; a new id for None.

        Connections that want the same id for different legs share it: they are one call, and the
        later one's ``start`` is the time since the first began.

        Args:
            wanted: the caller's name for the call.
            leg: whose audio this is, "" for a call that is heard as one.
            together: this leg's audio begins with the call's, as where one stream has both.
        """
        base = wanted or f"call-{secrets.token_hex(4)}"
        call_id, number = base, 2
        with self._lock:
            while not self._free(call_id, leg):
                call_id, number = f"{base}~{number}", number + 1
            now = self._clock()
            call = self._calls.setdefault(call_id, _Running(now))
            call.legs.add(leg)
            start = 0.0 if together else max(now - call.began, 0.0)
        if wanted is not None and call_id != wanted:
            log.warning("%s: this id is taken by a running call; it runs as %s", wanted, call_id)
        return Claim(call_id, leg, start)

    def _free(self, call_id: str, leg: str) -> bool:
        call = self._calls.get(call_id)
        return call is None or (leg != "" and "" not in call.legs and leg not in call.legs)

    def release(self, claim: Claim) -> None:
        """This leg is over; with the last one the id is free. Further calls change nothing."""
        with self._lock:
            call = self._calls.get(claim.call_id)
            if call is not None:
                call.legs.discard(claim.leg)
                if not call.legs:
                    del self._calls[claim.call_id]
