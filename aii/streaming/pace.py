"""Whether the engine keeps up with a call, told from when its audio came.

A caller who speaks sends a second of audio per second; a recording that is piped in comes at once
and may wait. Only what a live call waits for makes the engine late, so a file gets every update
that a call would get, however fast it is sent.
"""

from __future__ import annotations

from collections import deque

from aii.types import SAMPLE_RATE

GRAIN = 0.1
"""Seconds of clock in which audio counts as having come at once."""


class Pace:
    """When the audio of one call came.

    Args:
        slack: seconds that audio may wait before its call is behind.
    """

    def __init__(self, slack: float = 2.0) -> None:
        self._slack = slack
        self._came: deque[tuple[float, int]] = deque()  # clock, position reached then
        self._begin: float | None = None  # clock at which a live call was at position 0

    def note(self, position: int, now: float) -> None:
        """All audio before ``position`` is here at the clock's ``now`` (seconds)."""
        if self._begin is None:
            self._begin = now - position / SAMPLE_RATE
        if self._came and self._came[-1][1] >= position:
            return
        if self._came and now - self._came[-1][0] < GRAIN:
            self._came[-1] = (self._came[-1][0], position)
        else:
            self._came.append((now, position))

    def behind(self, position: int, now: float) -> bool:
        """Whether the audio before ``position`` has waited for too long, and the call is live.

        Positions must be asked for in rising order.
        """
        while self._came and self._came[0][1] < position:
            self._came.popleft()
        if not self._came or self._begin is None:
            return False
        live = self._begin + position / SAMPLE_RATE
        return now - max(live, self._came[0][0]) > self._slack
