"""A call that is asked something and then sends nothing, between its wire and its events."""

from __future__ import annotations

from concurrent.futures import Future

from fake_engine import hear
from server_rig import Clock

from aii.protocols import Audio, Dtmf, Hangup, make_framing
from aii.protocols.frames import Ask, CallId
from aii.servers.call import Call
from aii.servers.registry import CallRegistry
from aii.servers.services import Services
from aii.streaming.arrivals import GRACE
from aii.streaming.events import Answer, Event
from aii.streaming.factory import Sessions
from aii.streaming.settings import CallSettings
from aii.streaming.window import WindowSettings
from aii.types import DecodeRequest, Hypothesis

QUESTION = Ask({"digits": 4, "timeout": 3.0})


class SlowEngine:
    """Answers when it is told to, on the same thread."""

    def __init__(self) -> None:
        self.waiting: list[tuple[DecodeRequest, Future[Hypothesis]]] = []

    def submit(self, request: DecodeRequest) -> Future[Hypothesis]:
        future: Future[Hypothesis] = Future()
        self.waiting.append((request, future))
        return future

    def answer(self) -> None:
        waiting, self.waiting = self.waiting, []
        for request, future in waiting:
            future.set_result(hear(request))


class Asked:
    """A call, what drives it, and what came out of it."""

    def __init__(self, max_backlog: float, registry: CallRegistry | None = None) -> None:
        self.clock, self.engine = Clock(), SlowEngine()
        self.events: list[Event] = []
        services = Services(
            engine=self.engine,  # type: ignore[arg-type]
            make_session=Sessions(CallSettings(window=WindowSettings(window=1.0, reset=2.0))).make,
            make_framing=lambda: make_framing("raw"),
            max_backlog=max_backlog,
            registry=registry or CallRegistry(),
            clock=self.clock,
        )
        self.call = Call(services, "peer", wake=lambda: None, tell=self.events.append)

    def sends(self, *frames) -> None:
        self.call.take(frames)
        self.call.step()

    def sends_nothing(self, seconds: float, *, decoded: bool = True) -> None:
        """Step the call when it wants to be, and when the engine has answered."""
        end = self.clock.now + seconds
        for _ in range(200):
            while decoded and self.engine.waiting:
                self.engine.answer()
                self.call.step()
            due = self.call.wake_at
            if due is None or due > end:
                break
            self.clock.now = due
            self.call.step()
        else:
            raise AssertionError("it wants to be stepped all the time")
        self.clock.now = end

    @property
    def answers(self) -> list[Answer]:
        return [event for event in self.events if isinstance(event, Answer)]


def test_the_answer_comes_by_the_clock_and_once() -> None:
    asked = Asked(max_backlog=60.0)
    asked.sends(Audio(bytes(6400)), QUESTION)
    asked.sends_nothing(2.9)
    assert asked.answers == []
    asked.sends_nothing(1.0)
    [answer] = asked.answers
    assert (answer.status, answer.value) == ("timeout", None)
    asked.sends_nothing(600.0)
    asked.sends(Audio(bytes(6400)), Hangup("eof"))
    asked.sends_nothing(1.0)
    assert asked.call.finished
    assert asked.answers == [answer]


def test_audio_that_waits_on_the_socket_is_not_held_against_the_caller() -> None:
    """While the server reads nothing of a call, nobody knows whether it sends something."""
    asked = Asked(max_backlog=2.0)
    asked.sends(Audio(bytes(100)), QUESTION, Audio(bytes(32_000 * 5 // 2)))
    assert asked.call.paused
    asked.sends_nothing(30.0, decoded=False)
    assert asked.answers == []
    while asked.engine.waiting:
        asked.engine.answer()
        asked.call.step()
    asked.sends(Audio(bytes(6400)))
    asked.sends_nothing(0.2)
    assert not asked.call.paused
    assert asked.answers == []
    asked.sends_nothing(1.0)
    assert [answer.status for answer in asked.answers] == ["timeout"]


def registered(**values) -> CallRegistry:
    registry = CallRegistry()
    registry.put("c1", values)
    return registry


def test_a_call_that_never_sends_any_audio_times_out() -> None:
    """A telephone that sends no silence, or whose audio gets lost on its way."""
    asked = Asked(60.0, registered(collect="digits,timeout=3:4", end_on="answer"))
    asked.sends(CallId("c1"))
    asked.sends_nothing(GRACE - 0.1)
    assert asked.events == []
    asked.sends_nothing(2.9)
    assert [event.type for event in asked.events] == ["started"]
    assert not asked.call.wanted_end
    asked.sends_nothing(1.0)
    assert [answer.status for answer in asked.answers] == ["timeout"]
    assert asked.call.wanted_end


def test_keys_of_a_call_without_audio_are_its_answer() -> None:
    asked = Asked(60.0, registered(collect="digits:2"))
    asked.sends(CallId("c1"))
    asked.sends_nothing(2.0)
    asked.sends(Dtmf("4"), Dtmf("2"))
    assert [answer.value for answer in asked.answers] == ["42"]


def test_a_call_that_is_asked_nothing_begins_with_its_audio() -> None:
    asked = Asked(60.0, registered(caller="100"))
    asked.sends(CallId("c1"))
    asked.sends_nothing(60.0)
    assert asked.events == []
    assert asked.call.wake_at is None


def test_legs_that_come_in_time_are_the_only_ones() -> None:
    asked = Asked(60.0, registered(collect="digits:4"))
    asked.sends(CallId("c1"))
    asked.sends_nothing(0.5)
    asked.sends(Audio(bytes(640), "caller"), Audio(bytes(640), "callee"))
    asked.sends_nothing(60.0)
    assert [event.type for event in asked.events].count("started") == 2
    assert len(asked.answers) == 1
