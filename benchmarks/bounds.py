"""The greatest number of something that still holds, found in a few trials."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Search:
    """The most calls that hold, between two bounds that draw nearer.

    Attributes:
        count: calls to try next.
        low: the most that held, 0 for none so far.
        high: the fewest that did not, None for none so far.
    """

    count: int
    low: int = 0
    high: int | None = None

    @property
    def done(self) -> bool:
        """Whether the bounds are near enough."""
        return self.high is not None and self.high - self.low <= max(1, round(0.06 * self.low))

    def learn(self, holds: bool, cpu: float, cores: int) -> None:
        """Take in what became of ``count`` calls, with which the server used ``cpu`` cores."""
        if holds:
            self.low = max(self.low, self.count)
        else:
            self.high = min(self.high or self.count, self.count)
        if self.high is None:  # as many as would fill the cores, if calls cost what these do
            wanted = self.count * 0.9 * cores / max(cpu, 0.01)
            self.count = round(min(max(wanted, 1.5 * self.count, self.count + 1), 3 * self.count))
        elif self.low == 0:
            self.count = max(self.high // 2, 1)
        else:
            middle = round((self.low * self.high) ** 0.5)
            self.count = min(max(middle, self.low + 1), self.high - 1)
