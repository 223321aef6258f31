"""Calls that are delivered whole: their events are kept on disk until the call is over."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Sequence
from typing import Any

from aii.sinks.spool import Entry, Spool
from aii.streaming.events import CallEnded, CallStarted, Event

log = logging.getLogger(__name__)


class WholeCalls:
    """Puts the events of each call together at its end. Used by one thread.

    Args:
        spool: where they are kept.
    """

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._legs: dict[str, int] = {}
        self._short: set[str] = set()  # calls of which something is lost
        self._over: list[tuple[str, bool]] = []  # calls to put together, and whether they are whole
        self._failing = False

    @property
    def unjoined(self) -> bool:
        """Whether calls are over that the disk has not let us put together yet."""
        return bool(self._over)

    def resume(self) -> list[tuple[int, str]]:
        """Rows and calls of what an earlier run has not ended."""
        self._over += [(call, False) for call in self._spool.calls()]
        return self.join()

    def add(self, items: Sequence[tuple[Event, bytes]]) -> list[Entry]:
        """Keep events, each with its JSON; what found no room.

        Raises:
            OSError: the disk took nothing; none of them is kept.
        """
        refused = self._spool.keep([Entry(event.call_id, body) for event, body in items])
        self._short |= {entry.call for entry in refused}
        for event, _ in items:
            call = event.call_id
            if isinstance(event, CallStarted):
                self._legs[call] = self._legs.get(call, 0) + 1
            elif isinstance(event, CallEnded):
                self._legs[call] = self._legs.get(call, 1) - 1
                if self._legs[call] <= 0:
                    del self._legs[call]
                    self._over.append((call, call not in self._short))
                    self._short.discard(call)
        return refused

    def join(self) -> list[tuple[int, str]]:
        """Rows and calls of what could be put together; the rest stays for another time."""
        joined = []
        while self._over:
            call, complete = self._over[0]
            try:
                joined.append((self._join(call, complete=complete), call))
            except OSError as error:
                if not self._failing:
                    log.error("call %s is not ready to be sent: %s; tried again", call, error)
                self._failing = True
                break
            if self._failing:
                self._failing = False
                log.warning("calls are ready to be sent again, call %s first", call)
            del self._over[0]
        return joined

    def _join(self, call: str, *, complete: bool) -> int:
        events = [json.loads(part) for part in self._spool.parts(call)]
        whole = {
            "type": "call",
            "call_id": call,
            "complete": complete,
            "text": transcript(events),
            "events": events,
            "time": round(time.time(), 3),
        }
        body = json.dumps(whole, ensure_ascii=False).encode("utf-8", "replace")
        return self._spool.join(Entry(call, body))


def transcript(events: Sequence[dict[str, Any]]) -> str:
    """The finals of a call as one text; with several legs a line for each final, its leg first."""
    finals = [event for event in events if event["type"] == "final"]
    if not any("leg" in event for event in finals):
        return "".join(event["text"] for event in finals)
    finals.sort(key=lambda event: event["start"])
    spoken = (event for event in finals if event["text"].strip())
    return "\n".join(f"{event.get('leg', '')}: {event['text'].strip()}" for event in spoken)
