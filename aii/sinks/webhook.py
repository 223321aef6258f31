"""Events as HTTP POSTs, from a queue on disk that outlives both the receiver and this server.

::

    emit (any thread) -> memory -> one thread: onto the disk -> a few threads: POST -> off the disk

An event is out of danger when it is on the disk, a few milliseconds after ``emit``. From there it
is sent until the receiver has taken it (any 2xx), each time under the same ``webhook-id``: a final
arrives once, or again with the same id. Within a call all arrives in order; calls do not wait for
one another unless the receiver itself cannot be reached. Attempts are further and further apart, up
to ``MOST`` seconds, for as long as it takes.

* ``per="event"``: a POST for each event: the JSON of the event, with ``time`` (Unix seconds).
* ``per="call"``: one POST when a call is over: ``{"type": "call", "call_id", "complete", "text",
  "events", "time"}``. A call that was cut off by the end of the server is sent at its next start,
  with ``complete`` false.

What an answer 400, 410, 413 or the like says will never be taken is put aside on the disk after
``REFUSALS`` attempts, so that it does not hold up what comes after it. When the disk queue is full
(``limit``), partials are given up first, then what is new is lost: with an error in the log and,
for the receiver, a gap in ``seq``.
"""

from __future__ import annotations

import json
import logging
import random
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from aii.sinks.base import OTHERS, droppable
from aii.sinks.post import Http, Outcome, signature
from aii.sinks.schedule import Schedule
from aii.sinks.spool import Entry, Spool
from aii.sinks.whole_calls import WholeCalls
from aii.streaming.events import CallEnded, Event, Final, Partial

log = logging.getLogger(__name__)

FIRST, MOST = 0.5, 30.0
"""Seconds between attempts, at first and at most."""

REFUSALS = 3

MEMORY = 100_000
"""Events that are held when the disk takes nothing; beyond them new ones are lost."""

BATCH = 500


@dataclass(frozen=True)
class _Item:
    """An event on its way to the disk."""

    event: Event
    body: bytes


class WebhookSink:
    """See the module.

    Args:
        address: the receiver, http:// or https://.
        spool: the queue on disk, which the sink closes.
        key: what signs; empty: nothing is signed.
        per: "event" or "call".
        partials: whether partials are sent (never with ``per="call"``).
        timeout: seconds for each step of a request.
        workers: requests at once.
        tls: for https.
        first, most: see ``FIRST`` and ``MOST``.
        size: events in memory beyond which partials are dropped.
    """

    def __init__(
        self,
        address: str,
        spool: Spool,
        *,
        key: bytes = b"",
        per: str = "event",
        partials: bool = False,
        timeout: float = 10.0,
        workers: int = 4,
        tls: ssl.SSLContext | None = None,
        first: float = FIRST,
        most: float = MOST,
        size: int = 10_000,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.counts = dict.fromkeys(("sent", "failed", "rejected", "dropped", "lost"), 0)
        self._name = address.partition("?")[0]
        self._address, self._timeout, self._tls = address, timeout, tls
        self._spool, self._key = spool, key
        self._calls = WholeCalls(spool) if per == "call" else None
        self._partials = partials and per == "event"
        self._first, self._most, self._size = first, most, size
        self._clock = clock
        self._changed = threading.Condition()
        self._held: deque[_Item] = deque()
        self._writing = 0
        self._schedule = Schedule()
        self._failures = 0  # times in a row that the receiver could not be reached
        self._pause = 0.0  # until when nothing is sent at all
        self._closing = self._stopping = False
        self._said: set[str] = set()
        self._taken: list[int] = []  # by the receiver, and still on the disk
        self._resume()
        self._writer = threading.Thread(target=self._write, name="aii-webhook-disk", daemon=True)
        self._senders = [
            threading.Thread(target=self._send, name=f"aii-webhook-{n}", daemon=True)
            for n in range(workers)
        ]
        for thread in (self._writer, *self._senders):
            thread.start()

    def _resume(self) -> None:
        """What an earlier run has left goes first."""
        for row, call, drops in self._spool.waiting():
            self._schedule.add(row, call, droppable=drops)
        if self._calls is not None:
            for row, call in self._calls.resume():
                self._schedule.add(row, call)
        if len(self._schedule):
            log.info("%s: %d deliveries are left from before", self._name, len(self._schedule))

    @property
    def pending(self) -> int:
        """Events and deliveries that the receiver does not have yet."""
        with self._changed:
            return len(self._held) + self._writing + len(self._schedule)

    # -- from the calls ---------------------------------------------------------------------------

    def emit(self, event: Event) -> None:
        """Hold the event for the disk; drop it if it may be and too much is held."""
        if isinstance(event, Partial) and not self._partials:
            return
        body = json.dumps({**event.to_dict(), "time": round(time.time(), 3)}, ensure_ascii=False)
        item = _Item(event, body.encode("utf-8", "replace"))
        with self._changed:
            if self._closing:
                return
            last = isinstance(event, Final | CallEnded)
            room = MEMORY if last else self._size * (1 if droppable(event) else OTHERS)
            if len(self._held) >= room:
                self.counts["lost" if last else "dropped"] += 1
                self._say("memory", logging.ERROR, "the disk is too slow: events are dropped")
                return
            self._held.append(item)
            self._changed.notify_all()

    # -- onto the disk ----------------------------------------------------------------------------

    def _write(self) -> None:
        failures = 0
        while (items := self._next_items()) is not None:
            try:
                self._store(items)
            except OSError as error:
                failures += 1
                self._say("disk", logging.ERROR, f"cannot be queued on disk: {error}; tried again")
                if not self._put_back(items, failures):
                    return
            except Exception:
                log.exception("%s: %d events are lost by a mistake of ours", self._name, len(items))
            else:
                if failures:
                    log.warning("%s: the disk takes events again", self._name)
                    self._said.discard("disk")
                failures = 0

    def _next_items(self) -> list[_Item] | None:
        """What is held, some of it, or nothing when calls wait to be put together; None at the
        end."""
        again = self._calls is not None and self._calls.unjoined
        with self._changed:
            self._writing = 0
            self._changed.notify_all()
            self._changed.wait_for(
                lambda: self._held or self._closing, self._first if again else None
            )
            if self._closing and not self._held:
                return None
            items = [self._held.popleft() for _ in range(min(len(self._held), BATCH))]
            self._writing = len(items)
        return items

    def _put_back(self, items: list[_Item], failures: int) -> bool:
        """Wait with what the disk did not take; False once there is no time any more."""
        with self._changed:
            self._held.extendleft(reversed(items))
            self._writing = 0
            if self._closing:
                return False
            wait = min(self._first * 2**failures, self._most)
            self._changed.wait_for(lambda: self._closing, wait)
        return True

    def _store(self, items: list[_Item]) -> None:
        refused: list[Entry] = []
        if self._calls is None:
            entries = [
                Entry(item.event.call_id, item.body, isinstance(item.event, Partial))
                for item in items
            ]
            stored, refused = self._spool.put(entries)
            rows = [(row, entry.call, entry.droppable) for row, entry in stored]
        else:
            refused = self._calls.add([(item.event, item.body) for item in items])
            rows = [(row, call, False) for row, call in self._calls.join()]
        needless: list[int] = []
        with self._changed:
            for row, call, drops in rows:
                needless += self._schedule.add(row, call, droppable=drops)
            self._changed.notify_all()
        if needless:
            self._forget(needless)
        lost = [entry for entry in refused if not entry.droppable]
        self.counts["dropped"] += len(refused) - len(lost)
        if lost:
            self.counts["lost"] += len(lost)
            log.error(
                "%s: the queue on disk is full (%d bytes): %d events are lost, first of call %s",
                self._name,
                self._spool.held,
                len(lost),
                lost[0].call,
            )

    def _forget(self, rows: list[int]) -> None:
        """Take rows off the disk that need not be sent any more; a full one may need room for it.

        Those that stay on the disk are tried again with the next ones. Only a restart before that
        sends them again, under the same id.
        """
        with self._changed:
            rows, self._taken = [*self._taken, *rows], []
        try:
            self._spool.done(rows)
        except OSError as error:
            with self._changed:
                self._taken += rows
                line = f"cannot be struck off the queue on disk: {error}; tried again"
                self._say("strike", logging.ERROR, line)
        else:
            with self._changed:
                self._said.discard("strike")

    # -- to the receiver --------------------------------------------------------------------------

    def _send(self) -> None:
        http = Http(self._address, timeout=self._timeout, tls=self._tls)
        while (taken := self._take()) is not None:
            row, call = taken
            try:
                self._deliver(http, row, call)
            except Exception as error:  # whatever it is: it must not end the queue
                log.error("%s: %s; it is tried again", self._name, error)
                with self._changed:
                    self._schedule.wait(call, self._clock() + self._most)
        http.close()

    def _take(self) -> tuple[int, str] | None:
        """The next row that is due; None at the end."""
        with self._changed:
            while not self._stopping:
                now = self._clock()
                if now >= self._pause:
                    taken = self._schedule.take(now)
                    if taken is not None:
                        if self._failures:  # one asks whether the receiver is back, not all
                            self._pause = now + self._timeout + self._most
                        return taken
                due = self._schedule.next_at
                wait = None if due is None else max(due, self._pause) - now
                self._changed.wait(None if wait is None else max(wait, 0.001))
        return None

    def _deliver(self, http: Http, row: int, call: str) -> None:
        stored = self._spool.get(row)
        if stored is None:
            outcome = Outcome(True)
        else:
            outcome = http.post(stored.body, self._headers(stored.id, stored.body))
        if outcome.taken:
            self._forget([row])
        elif outcome.never and self._schedule.failures(call) + 1 >= REFUSALS:
            self._spool.reject(row, outcome.why)
            log.error(
                "%s: %s; what call %s sends there is put aside", self._name, outcome.why, call
            )
        with self._changed:
            self._account(outcome, call)
            self._changed.notify_all()

    def _headers(self, id: str, body: bytes) -> dict[str, str]:
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "aii",
            "webhook-id": id,
            "webhook-timestamp": str(int(time.time())),
        }
        if self._key:
            moment = int(headers["webhook-timestamp"])
            headers["webhook-signature"] = signature(self._key, id, moment, body)
        return headers

    def _account(self, outcome: Outcome, call: str) -> None:
        """What comes of an outcome for the row of ``call``, and for all others."""
        now = self._clock()
        if outcome.reached:
            if self._failures:
                log.warning("%s is reached again; %d wait", self._name, len(self._schedule))
            self._failures, self._pause = 0, 0.0
        if outcome.taken:
            self.counts["sent"] += 1
            self._schedule.done(call)
            return
        self.counts["failed"] += 1
        if outcome.never and self._schedule.failures(call) + 1 >= REFUSALS:
            self.counts["rejected"] += 1
            self._schedule.done(call)
            return
        if not outcome.reached:
            self._failures += 1
            self._pause = now + self._backoff(self._failures)
            if self._failures == 1:
                log.warning("%s cannot be reached: %s; events wait", self._name, outcome.why)
            self._schedule.wait(call, self._pause)
            return
        failures = self._schedule.failures(call) + 1
        if failures == 1:
            log.warning("%s: %s; call %s waits", self._name, outcome.why, call)
        self._schedule.wait(call, now + (outcome.after or self._backoff(failures)))

    def _backoff(self, failures: int) -> float:
        """Seconds to wait after so many failures in a row: twice as long each time, and not the
        same for all."""
        wait = min(self._first * 2.0 ** min(failures - 1, 30), self._most)
        return wait * random.uniform(0.8, 1.0)

    def _say(self, kind: str, level: int, line: str) -> None:
        """Log a line once."""
        if kind not in self._said:
            self._said.add(kind)
            log.log(level, "%s: %s", self._name, line)

    # -- the end ----------------------------------------------------------------------------------

    def close(self, timeout: float = 0.0) -> bool:
        """Bring what is held onto the disk and to the receiver within ``timeout`` seconds.

        What the receiver does not take in time stays on the disk for the next start. Returns
        whether all is on the disk and all threads have come to rest.
        """
        until = self._clock() + timeout
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._writer.join(timeout)
        with self._changed:
            if not self._writer.is_alive():
                self._changed.wait_for(self._drained, max(until - self._clock(), 0.0))
            self._stopping = True
            self._changed.notify_all()
        for thread in self._senders:
            thread.join(max(until - self._clock(), 0.1 / len(self._senders)))
        at_rest = not any(thread.is_alive() for thread in (self._writer, *self._senders))
        with self._changed:
            unsaved, left = len(self._held) + self._writing, len(self._schedule)
        if unsaved:
            log.error("%s: %d events are lost: the disk did not take them", self._name, unsaved)
        if left:
            log.warning("%s: %d deliveries wait in %s", self._name, left, self._spool.folder)
        if at_rest:
            if self._taken:
                self._forget([])
            self._spool.close()
        return at_rest and not unsaved

    def _drained(self) -> bool:
        """Whether there is nothing to wait for: all is sent, or nothing can be."""
        return not len(self._schedule) or self._failures > 0
