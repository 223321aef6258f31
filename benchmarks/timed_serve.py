"""The product's server, which also writes down how long each of its requests took.

    python -m benchmarks.timed_serve FILE --model embedded --policy alignatt ...

A JSON line per request that was answered: ``{"at": clock, "seconds": ...}``, from the moment when
the call asked to the moment when the answer was there.
"""

from __future__ import annotations

import json
import sys
import time
from concurrent.futures import Future
from functools import partial
from typing import TextIO

import aii.engine.local
from aii.cli.serve import main as serve
from aii.types import DecodeRequest, Hypothesis


class TimedEngine(aii.engine.local.LocalEngine):
    """A local engine that keeps times."""

    out: TextIO

    def submit(self, request: DecodeRequest) -> Future[Hypothesis]:
        """As ``LocalEngine.submit``."""
        begin = time.monotonic()
        future = super().submit(request)
        future.add_done_callback(partial(self._done, begin))
        return future

    def _done(self, begin: float, future: Future[Hypothesis]) -> None:
        if not future.cancelled() and future.exception() is None:
            self.out.write(json.dumps({"at": begin, "seconds": time.monotonic() - begin}) + "\n")


def main() -> int:
    """Serve until a signal comes."""
    with open(sys.argv[1], "w", buffering=1, encoding="utf-8") as TimedEngine.out:
        aii.engine.local.LocalEngine = TimedEngine  # type: ignore[misc]
        return serve(sys.argv[2:])


if __name__ == "__main__":
    sys.exit(main())
