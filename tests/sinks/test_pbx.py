from __future__ import annotations

import itertools
import socket
import threading
import time

import pytest
from sink_peers import WAIT, Ari, Asterisk, Receiver, wait_until

from aii.sinks import queued
from aii.sinks.ami import AmiSink, Manager
from aii.sinks.ari import AriSink
from aii.sinks.pbx import LONGEST, Channels, first_bytes, last_bytes, one_line, pieces
from aii.streaming.events import (
    Answer,
    CallEnded,
    CallStarted,
    Dtmf,
    Event,
    Final,
    Partial,
    Skipped,
)
from aii.types import Segment

CHANNEL = "PJSIP/alice-00000001"


def started(call: str = "c1", channel: str = CHANNEL, leg: str = "") -> CallStarted:
    return CallStarted(call, 1, "4711", details={"channel": channel} if channel else {}, leg=leg)


def final(text: str, seq: int = 2, call: str = "c1", leg: str = "") -> Final:
    segments = (Segment(0.0, 1.5, f" {text}"),)
    return Final(call, seq, 0.0, 1.5, segments, "en", reason="endpoint", leg=leg)


def answer(value: str | None = "42", status: str = "match") -> Answer:
    return Answer("c1", 3, question="pin", status=status, value=value, source="speech",
                  text="four two", start=1.0, end=2.0, confidence=0.9)  # fmt: skip


END = CallEnded("c1", 9, "eof", 9.0)


def manager(asterisk: Asterisk, **options) -> AmiSink:
    return AmiSink(asterisk.address, "aii", "secret", **{"first": 0.01, "most": 0.05, **options})


def send(sink: AmiSink | AriSink, *events: Event) -> None:
    for event in events:
        sink.emit(event)


def test_a_call_as_user_events_and_variables():
    with Asterisk(channels=(CHANNEL,)) as asterisk:
        sink = manager(asterisk)
        send(sink, started(), Partial("c1", 2), final("four seven"), final("one", 3), answer(),
             Dtmf("c1", 4, "5", 2.0), Skipped("c1", 5), END)  # fmt: skip
        assert sink.close(WAIT)
    names = [event["UserEvent"] for event in asterisk.events]
    assert names == ["AiiStarted", "AiiFinal", "AiiFinal", "AiiAnswer", "AiiDtmf", "AiiEnded"]
    first = asterisk.events[1]
    told = ("CallID", "Seq", "Text", "Start", "End", "Language", "Reason")
    assert {key: first[key] for key in told} == {
        "CallID": "c1", "Seq": "2", "Text": "four seven", "Start": "0.0", "End": "1.5",
        "Language": "en", "Reason": "endpoint",
    }  # fmt: skip
    assert first["Channel"] == CHANNEL
    assert asterisk.events[0]["Caller"] == "4711"
    reply = asterisk.events[3]
    assert (reply["Value"], reply["Status"], reply["Question"]) == ("42", "match", "pin")
    assert [(name, value) for _, name, value in asterisk.set] == [
        ("AII_FINAL", "four seven"),
        ("AII_TRANSCRIPT", "four seven"),
        ("AII_FINAL", "one"),
        ("AII_TRANSCRIPT", "four seven one"),
        ("AII_ANSWER", "42"),
        ("AII_ANSWER_SOURCE", "speech"),
        ("AII_ANSWER_STATUS", "match"),
    ]
    assert asterisk.logins == 1


def test_a_variable_is_set_before_its_event_is_told():
    seen = []
    with Asterisk(channels=(CHANNEL,)) as asterisk:
        append = asterisk.events.append
        asterisk.events = type("L", (list,), {
            "append": lambda self, m: (seen.append(len(asterisk.set)), append(m)),
        })()  # fmt: skip
        sink = manager(asterisk)
        send(sink, started(), answer())
        assert sink.close(WAIT)
    assert seen == [0, 3]


def test_without_a_channel_there_are_events_only():
    with Asterisk() as asterisk:
        sink = manager(asterisk, partials=True, variable="X")
        send(sink, started(channel=""), Partial("c1", 2), final("hello"), END)
        assert sink.close(WAIT)
    assert len(asterisk.events) == 4
    assert asterisk.set == []


def test_a_channel_that_has_hung_up_costs_nothing_but_a_line(caplog):
    with Asterisk() as asterisk:
        sink = manager(asterisk)
        send(sink, started(), final("one"), final("two"), END)
        assert sink.close(WAIT)
    assert [event["UserEvent"] for event in asterisk.events].count("AiiFinal") == 2
    assert caplog.text.count("refuses Setvar: No such channel") == 1


def test_long_texts_and_hostile_ones_stay_within_lines_that_asterisk_reads():
    text = "wörter und mehr " * 400
    bad = "one\r\nAction: Originate\r\nChannel: x\0\x1b[2J"
    with Asterisk(channels=(CHANNEL,)) as asterisk:
        sink = manager(asterisk)
        send(sink, started(), final(text), final(bad), Final(f"{bad}{'x' * 5000}", 1), END)
        assert sink.close(WAIT)
    assert asterisk.dumped == 0
    event = asterisk.events[1]
    parts = [event["Text"], *(event[f"Text{n}"] for n in range(2, 10) if f"Text{n}" in event)]
    assert " ".join(parts) == text.strip()
    variables = asterisk.variables[CHANNEL]
    assert len(variables["AII_TRANSCRIPT"].encode()) <= LONGEST
    assert variables["AII_TRANSCRIPT"].endswith("mehr one Action: Originate Channel: x [2J")
    assert not any("Originate" in e.get("Action", "") for e in asterisk.events)


def test_a_lost_connection_is_made_again_and_no_final_is_lost(caplog):
    with Asterisk(channels=(CHANNEL,)) as asterisk:
        sink = manager(asterisk)
        send(sink, started(), final("one"))
        wait_until(lambda: len(asterisk.events) == 2)
        wait_until(lambda: sink.pending == 0)  # its answer has come, too
        asterisk.cut()
        send(sink, final("two", 3), final("three", 4), END)
        assert sink.close(WAIT)
    texts = [event["Text"] for event in asterisk.events if event["UserEvent"] == "AiiFinal"]
    assert texts == ["one", "two", "three"]
    assert asterisk.logins == 2
    assert asterisk.variables[CHANNEL]["AII_TRANSCRIPT"] == "one two three"


def test_finals_wait_for_an_asterisk_that_is_not_there_yet(caplog):
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = free.getsockname()
    sink = AmiSink(address, "aii", "secret", first=0.01, most=0.05)
    send(sink, started(), final("one"))
    wait_until(lambda: "cannot be reached" in caplog.text)
    assert sink.pending == 2
    assert sink.close(WAIT)
    assert "2 events are lost" in caplog.text


def test_a_wrong_secret_is_told_once_and_tried_again(caplog):
    with Asterisk(secret="other") as asterisk:
        sink = manager(asterisk)
        send(sink, started(channel=""), final("one"))
        wait_until(lambda: "the login as aii failed: Authentication failed" in caplog.text)
        asterisk.secret = "secret"
        wait_until(lambda: sink.pending == 0)
        assert sink.close(WAIT)
    assert [event["UserEvent"] for event in asterisk.events] == ["AiiStarted", "AiiFinal"]
    assert caplog.text.count("cannot be reached") == 1
    assert "secret" not in caplog.text.replace("the login", "")


def test_what_is_no_manager_is_told(caplog):
    with Asterisk() as asterisk:
        asterisk.greeting = "SSH-2.0-OpenSSH"
        sink = manager(asterisk)
        send(sink, started())
        wait_until(lambda: "this is no Asterisk manager: it says 'SSH-2.0" in caplog.text)
        sink.close(1.0)


def test_events_that_nobody_asked_for_are_passed_over():
    with Asterisk(channels=(CHANNEL,)) as asterisk:
        asterisk.chatty = True
        sink = manager(asterisk)
        send(sink, started(), final("one"), END)
        assert sink.close(WAIT)
    assert len(asterisk.events) == 3


def test_a_manager_that_never_answers_delays_nobody(caplog):
    with Asterisk() as asterisk:
        asterisk.silent = True
        sink = manager(asterisk, timeout=0.5)
        begin = time.monotonic()
        for n in range(600):
            send(sink, final(f"{n}", n))
        assert time.monotonic() - begin < WAIT / 2
        wait_until(lambda: "no answer in time" in caplog.text)
        asterisk.silent = False
        wait_until(lambda: sink.pending == 0)
        assert sink.close(WAIT)
    texts = [event["Text"] for event in asterisk.events]
    assert list(dict.fromkeys(texts)) == [str(n) for n in range(600)]


class Dripping:
    """A manager's socket: a greeting, a login accepted, then a piece each second."""

    def __init__(self, *pieces: bytes) -> None:
        self.now = 0.0
        self.sent = 0
        self._first = [b"Asterisk Call Manager/9.0.0\r\n", b"Response: Success\r\n\r\n"]
        self._pieces = itertools.cycle(pieces)

    def settimeout(self, seconds: float) -> None:
        assert seconds > 0

    def sendall(self, data: bytes) -> None:
        self.sent += 1

    def recv(self, size: int) -> bytes:
        if self._first:
            return self._first.pop(0)
        self.now += 1.0
        assert self.now < 60, "it is still waiting"
        return next(self._pieces)

    def close(self) -> None:
        pass


@pytest.mark.parametrize("pieces", [
    (b"R",),  # a line that never ends
    (b"Response: Success\r\n",),  # a message that never ends
    (b"Event: Newchannel\r\n\r\n",),  # messages, none of which is the answer
], ids=["line", "message", "events"])  # fmt: skip
def test_a_manager_that_drips_is_given_up_in_time(pieces, monkeypatch):
    dripping = Dripping(*pieces)
    monkeypatch.setattr(socket, "create_connection", lambda address, timeout: dripping)
    manager = Manager(("pbx", 5038), "aii", "secret", timeout=5.0, clock=lambda: dripping.now)
    with pytest.raises(TimeoutError):
        manager.act([("Action", "Ping")])
    assert dripping.now == pytest.approx(5.0, abs=1.0)
    manager.close()


def test_a_line_of_a_manager_is_bounded(monkeypatch):
    dripping = Dripping(b"x" * 4096)
    monkeypatch.setattr(socket, "create_connection", lambda address, timeout: dripping)
    manager = Manager(("pbx", 5038), "aii", "secret", timeout=50.0, clock=lambda: dripping.now)
    with pytest.raises(ConnectionError, match="a line of more than 65536 bytes"):
        manager.act([("Action", "Ping")])
    assert len(manager._held) < 100_000


def test_what_is_held_is_bounded(monkeypatch, caplog):
    monkeypatch.setattr(queued, "FINALS", 50)
    with Asterisk() as asterisk:
        asterisk.silent = True
        sink = manager(asterisk, size=5, partials=True, timeout=0.05)
        for n in range(100):
            send(sink, Partial("c1", n), Dtmf("c1", n, "5", 0.0), final("x", n))
        assert sink.pending <= 51
        assert sink.dropped >= 150
        assert sink.lost >= 49
        sink.close(0.5)
    assert "events are lost" in caplog.text
    assert "events were dropped" in caplog.text


def test_a_mistake_of_ours_costs_one_event(caplog, monkeypatch):
    with Asterisk() as asterisk:
        sink = manager(asterisk)
        deliver = sink._deliver
        monkeypatch.setattr(sink, "_deliver", lambda e: 1 / 0 if e.seq == 2 else deliver(e))
        send(sink, started(channel=""), final("one", 2), final("two", 3))
        sink.close(WAIT)
    assert [event.get("Text") for event in asterisk.events] == [None, "two"]
    assert "lost by a mistake of ours" in caplog.text


def ari(receiver: Receiver, path: str = "", **options) -> AriSink:
    options = {"first": 0.01, "most": 0.05, **options}
    return AriSink(receiver.url + path, "aii", "secret", **options)


@pytest.mark.parametrize("path", ["", "/", "/ari", "/ari/"])
def test_ari_sets_variables_on_the_calls_channel(path: str):
    pbx = Ari(stasis=("170.1", "170.2"))
    with Receiver(pbx) as receiver:
        sink = ari(receiver, path)
        send(sink, started("a", "170.1"), started("b", "170.2"), final("hello", 2, "a"))
        send(sink, final("bye", 2, "b"), Partial("a", 3), final("you", 4, "a"))
        assert sink.close(WAIT)
    assert pbx.variables == {
        "170.1": {"AII_FINAL": "you", "AII_TRANSCRIPT": "hello you"},
        "170.2": {"AII_FINAL": "bye", "AII_TRANSCRIPT": "bye"},
    }


def test_legs_have_channels_of_their_own():
    pbx = Ari(stasis=("1", "2"))
    with Receiver(pbx) as receiver:
        sink = ari(receiver, variable="T")
        send(sink, started("a", "1", "caller"), started("a", "2", "callee"))
        send(sink, final("hello", 2, "a", "caller"), final("bye", 2, "a", "callee"))
        assert sink.close(WAIT)
    assert pbx.variables["1"]["T_TRANSCRIPT"] == "hello"
    assert pbx.variables["2"]["T_TRANSCRIPT"] == "bye"


def test_answers_by_ari_and_names_that_need_quoting():
    name = "PJSIP/a b-1"
    pbx = Ari(stasis=("PJSIP%2Fa%20b-1",))
    with Receiver(pbx) as receiver:
        sink = ari(receiver)
        send(sink, started(channel=name), answer(None, "nomatch"))
        assert sink.close(WAIT)
    assert pbx.variables["PJSIP%2Fa%20b-1"] == {
        "AII_ANSWER": "", "AII_ANSWER_SOURCE": "speech", "AII_ANSWER_STATUS": "nomatch",
    }  # fmt: skip


def test_a_channel_outside_of_stasis_costs_a_line(caplog):
    with Receiver(Ari(other=("170.1",))) as receiver:
        sink = ari(receiver)
        send(sink, started(channel="170.1"), final("one"), final("two"), started("d", ""))
        send(sink, final("no channel", 2, "d"))
        assert sink.close(WAIT)
    assert caplog.text.count("sets nothing on 170.1: 409 Conflict") == 1
    assert len(receiver.got) == 2


def test_ari_finals_arrive_once_it_is_back_and_lets_us_in(caplog):
    pbx = Ari(stasis=("1",))
    broken = [500, 401, 503]
    with Receiver(lambda post: broken.pop() if broken else pbx(post)) as receiver:
        receiver.down()
        sink = ari(receiver)
        send(sink, started(channel="1"), final("one"), final("two", 3))
        thread = threading.Timer(0.1, receiver.up)
        thread.start()
        wait_until(lambda: sink.pending == 0)
        thread.join()
        assert sink.close(WAIT)
    assert pbx.variables["1"]["AII_TRANSCRIPT"] == "one two"
    assert broken == []
    assert caplog.text.count("cannot be reached") == 1


def test_texts_are_cut_between_words_and_never_within_a_character():
    assert one_line(" a\r\nb\tc\x00d ") == "a b c d"
    assert first_bytes("äöü", 3) == "ä"
    assert last_bytes("one two three", 9) == "three"
    assert last_bytes("short") == "short"
    assert pieces("aa bb cc dd", 5) == ["aa bb", "cc dd"]
    assert pieces("", 5) == []
    assert "".join(pieces("x" * 12, 5)) == "x" * 12
    assert pieces("ääää", 3) == ["ä"] * 4


def test_channels_of_calls_that_never_end_are_forgotten(monkeypatch):
    monkeypatch.setattr("aii.sinks.pbx.CALLS", 3)
    channels = Channels()
    for n in range(10):
        channels.follow(started(f"c{n}"))
    assert len(channels._channels) == 3
    channels.follow(CallEnded("c9", 2, "eof"))
    assert len(channels._channels) == 2
