"""The calls that run now, for whoever wants to ask one of them something."""

from __future__ import annotations

import threading
from collections.abc import Callable

from aii.question import Question

Asker = Callable[[Question], None]


class RunningCalls:
    """How to ask each running call, by its id; from any thread."""

    def __init__(self) -> None:
        self._calls: dict[str, Asker] = {}
        self._lock = threading.Lock()

    def add(self, call_id: str, ask: Asker) -> None:
        """A call has begun; another leg of the same call takes the questions of the one before."""
        with self._lock:
            self._calls[call_id] = ask

    def remove(self, call_id: str) -> None:
        """A call is over."""
        with self._lock:
            self._calls.pop(call_id, None)

    def ask(self, call_id: str, question: Question) -> bool:
        """Ask a call; False where none of this id runs."""
        with self._lock:
            ask = self._calls.get(call_id)
        if ask is None:
            return False
        ask(question)
        return True
