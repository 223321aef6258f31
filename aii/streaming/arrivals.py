"""For how long a call has sent nothing, by the clock.

The time of a call is that of its audio. Where none comes (a muted bridge, a gateway that sends no
silence) it stands still, and whoever waits for the caller must not.
"""

from __future__ import annotations

GRACE = 1.0
"""Seconds without audio that are put down to the network; what came late may still make up for
them."""

LOOK = 0.25
"""Seconds between looks at a call that sends nothing."""


class Arrivals:
    """The audio of one call beside the clock, from the first ``note`` on.

    Attributes:
        lag: seconds by which the audio was behind the clock when last noted.
    """

    def __init__(self) -> None:
        self.lag = 0.0
        self._idle = 0.0
        self._lost = 0.0
        self._origin: float | None = None  # clock at which the call would have been at 0
        self._position = 0.0
        self._came = 0.0
        self._noted = 0.0

    def note(self, position: float, now: float, *, reading: bool = True) -> None:
        """The audio has come to ``position`` (seconds) at the clock's ``now``.

        Where it is not being read, as so much of it waits, nobody knows whether some has come.
        """
        if self._origin is None:
            self._origin, self._came = now - position, now
        elif not reading:
            self._origin += now - self._noted
            self._came = now
        elif position > self._position:
            self._came = now
        self._position, self._noted = position, now
        self._idle = now - self._came
        self.lag = max(now - self._origin - position, 0.0)
        self._lost = self.lag if self._idle >= GRACE else min(self._lost, self.lag)

    def idle(self, position: float) -> float:
        """Seconds for which nothing has come, where the audio is at ``position`` now."""
        return 0.0 if position > self._position else self._idle

    def lost(self, position: float) -> float:
        """Seconds by which the audio is behind the clock and counts as not sent: none came for
        longer than ``GRACE``, and none has made up for it since."""
        return max(self._lost - max(position - self._position, 0.0), 0.0)

    @property
    def wake_at(self) -> float | None:
        """When to look again even if nothing comes; None before the first ``note``."""
        return None if self._origin is None else max(self._came + GRACE, self._noted + LOOK)
