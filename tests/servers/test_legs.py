"""Both sides of a call, heard apart and timed together."""

from __future__ import annotations

import numpy as np
import pytest
from server_rig import Clock
from tone_speech import ToneEngine, encoded, say, starts

from aii.protocols import AsteriskMediaProtocol, FreeswitchProtocol, make_framing
from aii.protocols.asterisk_media import control
from aii.protocols.audiosocket import message
from aii.servers.call import Call
from aii.servers.call_ids import CallIds
from aii.servers.registry import CallRegistry
from aii.servers.services import Services
from aii.streaming.events import CallEnded, CallStarted, Event, Final
from aii.streaming.factory import Sessions
from aii.streaming.settings import CallSettings

ASKED, ANSWERED = "help one two", "yes nine"


class Desk:
    """What calls share, and what all of them said."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.events: list[Event] = []
        sessions = Sessions(CallSettings(words="all"))
        self.services = Services(
            engine=ToneEngine(),
            make_session=sessions.make,
            make_framing=lambda: make_framing("auto"),
            defaults=lambda call_id: sessions.settings,
            ids=CallIds(self.clock),
            registry=CallRegistry(clock=self.clock),
            clock=self.clock,
        )

    def call(self) -> Call:
        return Call(self.services, "peer", wake=lambda: None, tell=self.events.append)

    def words(self, leg: str) -> list[tuple[str, float]]:
        """Words with their times."""
        return [
            (word.text.strip(), word.start)
            for event in self.events
            if isinstance(event, Final) and event.leg == leg
            for word in event.words
        ]

    def of(self, kind: type[Event]) -> list[Event]:
        return [event for event in self.events if isinstance(event, kind)]


def timed(spoken: str, lead: float) -> list[tuple[str, float]]:
    words = spoken.split()
    return [
        (w, pytest.approx(t, abs=0.021))
        for w, t in zip(words, starts(len(words), lead), strict=True)
    ]


def play(call: Call, machine, *pieces) -> None:
    for piece in pieces:
        call.take(machine.receive(piece))
        call.step()


def end(call: Call, machine) -> None:
    call.take(machine.eof())
    for _ in range(20):
        call.step()
    assert call.finished
    call.close()


@pytest.mark.parametrize("rate", [8_000, 16_000])
@pytest.mark.parametrize("step", [640, 641, 5_000])
def test_a_stereo_stream_is_one_call_of_two_legs(rate, step) -> None:
    desk = Desk()
    caller, callee = say(ASKED), say(ANSWERED, lead=0.9)
    both = np.zeros((max(len(caller), len(callee)), 2), np.float32)
    both[: len(caller), 0], both[: len(callee), 1] = caller, callee
    sides = [np.frombuffer(encoded(both[:, side], "s16", rate), "<i2") for side in (0, 1)]
    wire = np.stack(sides, axis=1).tobytes()
    machine, call = FreeswitchProtocol({"mix": "stereo", "rate": str(rate)}), desk.call()
    play(call, machine, '{"uuid":"c-1"}', *(wire[i : i + step] for i in range(0, len(wire), step)))
    end(call, machine)

    assert desk.words("caller") == timed(ASKED, 0.1)
    assert desk.words("callee") == timed(ANSWERED, 0.9)
    assert {event.call_id for event in desk.events} == {"c-1"}
    assert {event.leg for event in desk.of(CallStarted)} == {"caller", "callee"}
    assert [event.end for event in desk.of(CallEnded)] == [pytest.approx(len(both) / 16_000)] * 2
    for leg in ("caller", "callee"):  # a stream of events of its own
        numbers = [event.seq for event in desk.events if event.leg == leg]
        assert numbers == list(range(1, len(numbers) + 1))


def test_two_connections_with_one_id_are_one_call() -> None:
    """The callee answers 0.8 s after the caller's audio began."""
    desk = Desk()
    wires, calls = [], []
    for leg, spoken in (("caller", ASKED), ("callee", ANSWERED)):
        machine = AsteriskMediaProtocol({"call_id": "c-2", "leg": leg})
        call = desk.call()
        play(call, machine, control("MEDIA_START", channel_id=leg, format="ulaw"))
        wire = encoded(say(spoken), "ulaw", 8_000)
        play(call, machine, wire[:160])
        wires.append((machine, wire[160:]))
        calls.append(call)
        desk.clock.now += 0.8
    for (machine, rest), call in zip(wires, calls, strict=True):
        play(call, machine, rest)
        end(call, machine)
    assert desk.words("caller") == timed(ASKED, 0.1)
    assert desk.words("callee") == timed(ANSWERED, 0.1 + 0.8)
    assert {event.call_id for event in desk.events} == {"c-2"}


def test_two_audiosockets_joined_by_the_registry() -> None:
    desk = Desk()
    uuids = {"caller": bytes(range(16)), "callee": bytes(range(16, 32))}
    for leg, uuid in uuids.items():
        said = {"call_id": "c-3", "leg": leg, "from": "100", "to": "200", "language": "en"}
        desk.services.registry.put(uuid.hex(), said)
    calls = []
    for leg, spoken in (("caller", ASKED), ("callee", ANSWERED)):
        machine, call = make_framing("auto"), desk.call()
        play(
            call,
            machine,
            message(0x01, uuids[leg]),
            message(0x10, encoded(say(spoken), "s16", 8000)),
        )
        calls.append((machine, call))
        desk.clock.now += 0.25
    for machine, call in calls:
        end(call, machine)
    assert desk.words("caller") == timed(ASKED, 0.1)
    assert desk.words("callee") == timed(ANSWERED, 0.1 + 0.25)
    started = desk.of(CallStarted)
    assert [(e.call_id, e.leg, e.caller, e.callee) for e in started] == [
        ("c-3", "caller", "100", "200"),
        ("c-3", "callee", "100", "200"),
    ]
    assert all(final.language == "en" for final in desk.of(Final))


def test_the_id_is_free_once_both_legs_are_over() -> None:
    desk = Desk()
    for _ in range(2):
        calls = []
        for leg in ("a", "b"):
            machine, call = AsteriskMediaProtocol({"call_id": "c-4", "leg": leg}), desk.call()
            play(call, machine, bytes(640))
            calls.append((machine, call))
        for machine, call in calls:
            end(call, machine)
    assert {event.call_id for event in desk.events} == {"c-4"}


def test_the_same_leg_twice_is_another_call() -> None:
    desk = Desk()
    for _ in range(2):
        machine, call = AsteriskMediaProtocol({"call_id": "c-5", "leg": "a"}), desk.call()
        play(call, machine, bytes(640))
    assert [event.call_id for event in desk.of(CallStarted)] == ["c-5", "c-5~2"]
