"""A progress bar on standard error, drawn only where somebody can see it."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TextIO

_WIDTH = 30  # characters between the bars
_REDRAW_SECONDS = 0.1


class ProgressBar:
    """``label  45 % |#####     | 34.1/75.5 MB, 12.0 MB/s, 3 s left`` on one line.

    Used as a context manager. Where the stream is no terminal, it writes ``announcement`` as one
    line, or nothing.

    Args:
        label: what is going on.
        total: how much there is in all; 0 when it is not known.
        unit: what is counted, after scaling.
        scale: how many counts make one ``unit`` (1e6 for bytes shown as MB).
        stream: where to draw; standard error when None.
        announcement: what to say instead where no bar can be drawn.
    """

    def __init__(
        self,
        label: str,
        total: float,
        unit: str = "MB",
        scale: float = 1e6,
        stream: TextIO | None = None,
        announcement: str = "",
    ) -> None:
        self._label = label
        self._total = total
        self._unit = unit
        self._scale = scale
        self._stream = sys.stderr if stream is None else stream
        self._visible = self._stream is not None and self._stream.isatty()
        self._announcement = announcement
        self._began = time.monotonic()
        self._drawn = float("-inf")
        self._first: float | None = None
        self._done = 0.0

    def __enter__(self) -> ProgressBar:
        if self._announcement and not self._visible and self._stream is not None:
            self._stream.write(self._announcement + "\n")
            self._stream.flush()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._visible:
            self._draw()
            self._stream.write("\n")

    def update(self, done: float) -> None:
        """Show that ``done`` of the total is there; the first call sets the starting point."""
        if self._first is None:
            self._first = done
        self._done = done
        now = time.monotonic()
        if self._visible and now - self._drawn >= _REDRAW_SECONDS:
            self._drawn = now
            self._draw()

    def _draw(self) -> None:
        self._stream.write("\r" + self.line(time.monotonic() - self._began) + "\x1b[K")
        self._stream.flush()

    def line(self, elapsed: float) -> str:
        """The line to show after ``elapsed`` seconds."""
        done, total = self._done / self._scale, self._total / self._scale
        rate = (self._done - (self._first or 0.0)) / self._scale / max(elapsed, 1e-3)
        pace = f"{rate:.1f} {self._unit}/s"
        if total <= 0:
            return f"{self._label}  {done:.1f} {self._unit}, {pace}"
        share = min(1.0, done / total)
        bar = "#" * round(share * _WIDTH)
        left = f", {(total - done) / rate:.0f} s left" if rate > 0 and share < 1 else ""
        return (
            f"{self._label}  {share:4.0%} |{bar:<{_WIDTH}}| "
            f"{done:.1f}/{total:.1f} {self._unit}, {pace}{left}"
        )
