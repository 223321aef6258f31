"""Clients that were refused, in the log: one line for each reason and while, the others counted.

A stranger who comes a thousand times a second must be told of, and must not fill the log with it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

log = logging.getLogger(__name__)

EVERY = 10.0
"""Seconds between two lines of the same reason."""

LONGEST = 200
"""Characters of what a line tells of the client's doing."""


class Refusals:
    """See the module. For any number of threads.

    Args:
        count: told the word of each refusal, for the metrics.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        count: Callable[[str], None] = lambda why: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._count = count
        self._clock = clock
        self._lock = threading.Lock()
        self._kinds: dict[str, tuple[float, int]] = {}  # when the last line was, and how many since

    def __call__(self, why: str, who: str = "", line: str = "") -> None:
        """Somebody was refused.

        Args:
            why: one of few words, fixed in the code.
            who: the client's address.
            line: what it was told; "" where the log says it elsewhere, so that it is only counted.
        """
        self._count(why)
        if not line:
            return
        now = self._clock()
        with self._lock:
            when, unsaid = self._kinds.get(why, (-EVERY, 0))
            if now < when + EVERY:
                self._kinds[why] = when, unsaid + 1
                return
            self._kinds[why] = now, 0
        log.warning("%s: refused: %s%s", _plain(who) or "somebody", _plain(line), _more(unsaid))

    def close(self) -> None:
        """Say how many had no line of their own."""
        with self._lock:
            left = {why: unsaid for why, (_, unsaid) in self._kinds.items() if unsaid}
            self._kinds.clear()
        if left:
            counts = ", ".join(f"{many} ({why})" for why, many in sorted(left.items()))
            log.warning("further clients were refused since the last such lines: %s", counts)


def _plain(text: str) -> str:
    """On one line, with nothing in it that a terminal could obey."""
    return "".join(c if c.isprintable() else "?" for c in text[:LONGEST])


def _more(unsaid: int) -> str:
    return f" (and {unsaid} more since the last such line)" if unsaid else ""
