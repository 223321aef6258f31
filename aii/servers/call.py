"""One call between its frames, its sessions, the engine and the sinks; no socket.

Whoever has the call's connection (a thread for TCP, a task for a WebSocket) drives it::

    frames -> take -> Leg -> Session -> engine.submit                (hearing)
    engine's answer -> inbox + wake -> step -> events -> sinks, tell (deciding)

All methods are for that one thread, so a session needs no lock. A call may have legs, channels that
are heard apart: each is a session of its own under the call's one id. What is known about the call
(its plan) comes from the registry and from what the wire says before its first frame of audio.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from aii.errors import ConfigError
from aii.protocols import Audio, CallId, Dtmf, Flush, Format, Frame, Hangup, Notice
from aii.protocols.frames import Ask, Metadata
from aii.question import Question
from aii.servers.budget import EASY
from aii.servers.call_ids import Claim
from aii.servers.leg import Leg, Manner
from aii.servers.logs import Once
from aii.servers.registry import CallPlan
from aii.servers.services import Services
from aii.streaming.arrivals import GRACE
from aii.streaming.events import CallEnded, CallStarted, Event
from aii.streaming.session import Counters, Session
from aii.types import SAMPLE_RATE

log = logging.getLogger(__name__)

BUDGET_POLL = 0.25
"""Seconds between looks at the budget of all calls while it keeps this one from reading."""


class Call:
    """See the module.

    Args:
        services: engine, sinks, limits.
        caller: where it comes from, for the log and the first event.
        wake: makes whoever drives the call run ``step`` soon; from any thread, never blocks.
        tell: takes each event on its way to the client.
        settings: the call's own settings, before those of its plan; None for the server's.
        manner: see there.

    Attributes:
        call_id: its id, None while there is none.
        over: nothing more is heard.
        aborted: it was given up.
        wanted_end: its plan says that it should end now; whoever drives it hangs up.
    """

    def __init__(
        self,
        services: Services,
        caller: str,
        *,
        wake: Callable[[], None],
        tell: Callable[[Event], None],
        settings: Any = None,
        manner: Manner | None = None,
    ) -> None:
        self.call_id: str | None = None
        self.over = False
        self.aborted = False
        self.wanted_end = False
        self._caller = caller
        self._services = services
        self._wake = wake
        self._tell = tell
        self._settings = settings
        self._manner = manner or Manner()
        self._wanted: str | None = None
        self._expected: float | None = None  # when a call that has sent no audio is asked at last
        self._about: dict[str, str] = {}
        self._plan: CallPlan | None = None
        self._rate = services.rate
        self._legs: dict[str, Leg] = {}
        self._claims: dict[Claim, Leg | None] = {}  # what is ours, until the leg's last event
        self._inbox: deque[Callable[[], None]] = deque()
        self._once = Once(log)
        self._full = False  # this call holds too much,
        self._crowded = False  # or all together do
        self._reported = 0.0  # seconds of audio that the budget knows of

    @property
    def name(self) -> str:
        """What the log calls it."""
        return self.call_id or self._caller

    @property
    def begun(self) -> bool:
        """Whether there is a call at all, and not only a connection."""
        return bool(self._legs)

    @property
    def finished(self) -> bool:
        """Whether the last event of all legs was given."""
        return self.aborted or (self.over and all(leg.done for leg in self._legs.values()))

    @property
    def paused(self) -> bool:
        """Whether so much waits for the engine that nothing more should be read."""
        return self._full or self._crowded

    @property
    def backlog(self) -> float:
        """Seconds of audio held."""
        return sum(leg.session.backlog for leg in self._legs.values())

    @property
    def wake_at(self) -> float | None:
        """When ``step`` is due even if nothing happens; None: no need."""
        moments = [self._expected, *(leg.wake_at for leg in self._legs.values())]
        due = [moment for moment in moments if moment is not None]
        if self._crowded:
            due.append(self._services.clock() + BUDGET_POLL)
        return min(due, default=None)

    # What comes from the client.

    def take(
        self, frames: Iterable[Frame], *, ended: str | None = None, silent: bool = False
    ) -> None:
        """Hear frames in their order.

        Args:
            frames: as a framing or a message protocol gives them.
            ended: why the call ends, where that was not the protocol's finding.
            silent: not a byte has come, so that a ``Hangup`` ends no call.
        """
        self._take_answers()
        for frame in frames:
            if isinstance(frame, Audio):
                if not self.over:
                    self._leg(frame.leg).hear(frame.payload)
            elif isinstance(frame, Notice):
                log.warning("%s: %s", self.name, frame.text)
            elif isinstance(frame, CallId):
                self._name_it(frame.id)
            elif isinstance(frame, Metadata):
                self._about.update(frame.values)
            elif isinstance(frame, Hangup):
                self._hung_up(ended or frame.reason, silent)
            elif isinstance(frame, Ask):
                self._ask(frame.question)
            elif not self.over:
                self._obey(frame)

    def _obey(self, frame: Dtmf | Flush | Format) -> None:
        if isinstance(frame, Dtmf):
            self._emit(self._any_leg().session.dtmf(frame.digit))
        elif isinstance(frame, Flush):
            self._any_leg()
            for leg in self._legs.values():
                leg.session.flush()
        else:
            line = "%s: %s at %d Hz"
            self._once.log(
                "changes of format", logging.INFO, line, self.name, frame.encoding, frame.rate
            )
            self._rate = frame.rate
            for leg in self._legs.values():
                leg.change_rate(frame.rate)

    def _name_it(self, wanted: str) -> None:
        """The client has a name for the call, which begins with its first audio."""
        if self._wanted is None and not self._legs:
            self._wanted = wanted
            self._expected = self._services.clock() + GRACE
        elif wanted != self._wanted:
            line = "%s: a second call id, %s, is ignored"
            self._once.log("second call ids", logging.WARNING, line, self.name, wanted)

    def _expect(self) -> None:
        """One that its plan asks something is asked even if no audio comes, and can time out."""
        if self._expected is None or self._services.clock() < self._expected:
            return
        self._expected = None
        plan = self._services.registry.resolve(self._wanted, self._about)
        if plan.collect is not None and not self._legs and not self.over:
            self._leg("")

    def _any_leg(self) -> Leg:
        """The call's first leg; the only one where there are no legs."""
        return next(iter(self._legs.values()), None) or self._leg("")

    def _leg(self, name: str) -> Leg:
        """The leg of this name, which begins with its first frame."""
        leg = self._legs.get(name)
        return self._begin(name) if leg is None else leg

    def _begin(self, name: str) -> Leg:
        services = self._services
        if self._plan is None:
            self._plan = services.registry.resolve(self._wanted, self._about)
        plan = self._plan
        claim = services.ids.claim(
            self.call_id or plan.call_id, name or plan.leg, together=bool(self._legs)
        )
        self._claims[claim] = None
        self.call_id = claim.call_id
        services.bind(claim.call_id)
        leg = Leg(
            self._session(claim, plan),
            claim,
            services,
            self._rate,
            emit=self._emit,
            later=self._later,
            manner=self._manner,
            once=self._once,
        )
        first = not self._legs
        self._legs[name] = self._claims[claim] = leg
        if first:
            self._attach(plan.sinks)
        self._emit(leg.session.start())
        if first:
            services.running.add(claim.call_id, self.ask)
            if plan.collect is not None:
                self._ask(plan.collect)
        return leg

    def _attach(self, sinks: Sequence[str]) -> None:
        """Give the call the sinks that it has brought."""
        if not sinks or self.call_id is None:
            return
        try:
            if self._services.outlets is None:
                raise ConfigError("calls may bring no sinks here")
            self._services.outlets.attach(self.call_id, sinks)
        except ConfigError as error:
            log.warning("%s: %s", self.name, error)

    def ask(self, question: Question) -> None:
        """Ask the caller something, soon; from any thread."""
        self._later(partial(self._ask, question), True)

    def _ask(self, question: Question | Mapping[str, Any] | str) -> None:
        """Ask on the call's first leg; what cannot be asked is said in the log."""
        if self.over:
            return
        try:
            wanted = question if isinstance(question, Question) else Question.parse(question)
        except ConfigError as error:
            log.warning("%s: nothing is asked: %s", self.name, error)
            return
        self._emit(self._any_leg().session.collect(wanted))

    def _session(self, claim: Claim, plan: CallPlan) -> Session:
        """The leg's session, with the settings that the call wants."""
        make, more = self._services.make_session, {"start": claim.start} if claim.start else {}
        caller, base = plan.caller or self._caller, self._services.defaults(claim.call_id)
        if base is None:
            return make(claim.call_id, caller, **more)
        own = replace(self._settings or base, leg=claim.leg)
        try:
            return make(claim.call_id, caller, plan.settings(own), **more)
        except ConfigError as error:
            log.warning("%s: %s; heard without its own wishes", claim.call_id, error)
        return make(claim.call_id, caller, own, **more)

    def finish(self, reason: str) -> None:
        """We end the call; its last words are still decoded."""
        self.take([Hangup(reason)])

    def _hung_up(self, reason: str, silent: bool) -> None:
        if self.over:
            return
        self.over = True
        if not self._legs:
            if reason == "refused" or silent:
                return
            self._leg("")
        for leg in self._legs.values():
            leg.finish(reason)

    def give_up(self, reason: str) -> None:
        """End the call now; what is not decoded is lost, and said to be."""
        self.aborted = self.over = True
        for leg in self._legs.values():
            leg.give_up(reason)

    # Between the sessions and the engine.

    def step(self) -> None:
        """Take the engine's answers, ask what is due, and weigh what waits."""
        self._take_answers()
        self._expect()
        reading = not self.paused
        for leg in self._legs.values():
            leg.ask(reading=reading)
        self._pause_or_resume()

    def _later(self, answer: Callable[[], None], soon: bool) -> None:
        """From other threads: something was answered."""
        self._inbox.append(answer)
        if soon:
            self._wake()

    def _take_answers(self) -> None:
        while self._inbox:
            self._inbox.popleft()()

    def _pause_or_resume(self) -> None:
        if not self._legs:
            return
        backlog, services = self.backlog, self._services
        services.budget.change(backlog - self._reported)
        self._reported = backlog
        before = self._full
        limit = services.max_backlog * (EASY if before else 1.0)
        self._full = backlog > limit and not self.over
        enough = services.enough * len(self._legs)
        self._crowded = services.budget.over and backlog > enough and not self.over
        if self._full == before or self.over:
            return
        kind, line = "pauses", "%s: %.0f s of audio wait for the engine; the server stops reading "
        if before:
            kind, line = "times reading went on", "%s: %.0f s of audio wait: reading goes on"
        else:
            line += "from this call until they are fewer"
        self._once.log(kind, logging.WARNING, line, self.name, backlog)

    # To the outside.

    def _emit(self, events: list[Event]) -> None:
        for event in events:
            if isinstance(event, CallStarted):
                event = self._introduced(event)
            for sink in self._services.sinks:
                sink.emit(event)
            self._tell(event)
            if self._plan is not None and self._plan.ends_on(event):
                self.wanted_end = True
            if isinstance(event, CallEnded):
                self._release()

    def _introduced(self, event: CallStarted) -> Event:
        """The call's first event with what is known about it."""
        plan = self._plan
        if plan is None or not (plan.callee or plan.details):
            return event
        return replace(event, callee=plan.callee, details=plan.details)

    def _release(self) -> None:
        """Another call may have the ids of legs that are done."""
        for claim, leg in list(self._claims.items()):
            if self.aborted or (leg is not None and leg.done):
                del self._claims[claim]
                self._services.ids.release(claim)
                self._services.unbind(claim.call_id)
        if not self._claims and self.call_id is not None:
            self._services.running.remove(self.call_id)

    def close(self) -> None:
        """Give back what is shared with other calls; nothing is done with the call after that."""
        self.aborted = self.aborted or not self.finished
        self._release()
        self._services.budget.change(-self._reported)
        self._reported = 0.0

    def sum_up(self, trouble: str = "", replies: str = "") -> None:
        """The call in one line of the log."""
        counters = Counters()
        for leg in self._legs.values():
            for name, value in vars(leg.session.counters).items():
                setattr(counters, name, getattr(counters, name) + value)
        reasons = dict.fromkeys(leg.session.reason for leg in self._legs.values())
        log.info(
            "%s: over: %s%s; %.1f s of audio, %d finals, %d partials, %d windows skipped, "
            "%d failed, %.1f s lost%s%s",
            self.name,
            ", ".join(reasons),
            trouble,
            counters.samples / SAMPLE_RATE,
            counters.finals,
            counters.partials,
            counters.skipped,
            counters.failed,
            counters.lost / SAMPLE_RATE,
            replies,
            self._once.more(),
        )
