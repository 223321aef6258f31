from __future__ import annotations

import io
import threading
import time

import numpy as np
import pytest
from sink_peers import WAIT, Receiver, wait_until

from aii.errors import ConfigError
from aii.sinks import outlets as module
from aii.sinks.build import Maker, build_outlets, default_spool, parse_sinks
from aii.sinks.outlets import Outlets
from aii.sinks.spec import SinkSpec
from aii.sinks.webhook import WebhookSink
from aii.streaming.events import CallEnded, CallStarted, Event, Final, Partial
from aii.types import Segment


class Keeper:
    """A sink that keeps what it gets."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.heard: list[tuple[str, str, int]] = []
        self.closed = False
        self.pending = 0
        self.dropped = 3

    def emit(self, event: Event) -> None:
        self.events.append(event)

    def close(self, timeout: float = 0.0) -> bool:
        self.closed = True
        return True


class Recorder(Keeper):
    def audio(self, call_id: str, leg: str, samples: np.ndarray) -> None:
        self.heard.append((call_id, leg, len(samples)))


class Bad(Keeper):
    def emit(self, event: Event) -> None:
        raise RuntimeError("broken")


def call(name: str, leg: str = "") -> list[Event]:
    text = (Segment(0, 1, f" {name}"),)
    return [
        CallStarted(name, 1, leg=leg), Final(name, 2, 0.0, 1.0, text, leg=leg),
        CallEnded(name, 3, "eof", leg=leg),
    ]  # fmt: skip


def send(outlets: Outlets, *events: Event) -> None:
    for event in events:
        outlets.emit(event)


RULES = [SinkSpec.parse("jsonl", whole=False), SinkSpec.parse("wav", whole=False)]


def test_every_sink_gets_every_event_and_a_broken_one_harms_no_other(caplog):
    one, other = Keeper(), Keeper()
    outlets = Outlets([one, Bad(), other])
    send(outlets, *call("a"), *call("b"))
    assert one.events == other.events == [*call("a"), *call("b")]
    assert caplog.text.count("Bad does not take a started event") == 1
    assert outlets.close(1.0)
    assert one.closed
    assert other.closed
    assert outlets.counts() == {"keeper.dropped": 6, "bad.dropped": 3}
    assert outlets.dropped == 9


def test_audio_goes_to_those_who_record():
    recorder = Recorder()
    outlets = Outlets([Keeper(), recorder])
    assert outlets.records("a")
    outlets.audio("a", "x", np.zeros(5, np.float32))
    assert recorder.heard == [("a", "x", 5)]
    assert not Outlets([Keeper()]).records("a")
    outlets.close(1.0)


def test_a_sink_that_is_slow_to_close_holds_up_no_other():
    gate = threading.Event()

    class Slow(Keeper):
        def close(self, timeout: float = 0.0) -> bool:
            return gate.wait(WAIT)

    keeper = Keeper()
    outlets = Outlets([Slow(), keeper])
    begin = time.monotonic()
    assert not outlets.close(0.05)
    assert time.monotonic() - begin < WAIT / 2
    wait_until(lambda: keeper.closed)
    gate.set()


def test_a_call_brings_sinks_that_see_it_alone_and_share_with_others():
    made: dict[str, Recorder] = {}

    def make(spec: SinkSpec) -> Recorder:
        return made.setdefault(spec.text, Recorder())

    outlets = Outlets([], make=make, rules=RULES)
    outlets.attach("a", ["jsonl:x", "jsonl:x"])
    outlets.attach("b", ["jsonl:x", "wav:y"])
    assert outlets.records("b")
    assert not outlets.records("a")
    send(outlets, *call("a")[:2], *call("b")[:1], *call("c"))
    outlets.audio("a", "", np.zeros(3, np.float32))
    outlets.audio("b", "", np.zeros(4, np.float32))
    send(outlets, call("a")[2], *call("b")[1:])
    wait_until(lambda: len(made) == 2 and len(made["jsonl:x"].events) == 6)
    assert [event.call_id for event in made["jsonl:x"].events].count("c") == 0
    wait_until(lambda: len(made["wav:y"].events) == 3)
    assert made["wav:y"].heard == [("b", "", 4)]
    send(outlets, *call("a"))  # the id comes again, without sinks
    assert len(made["jsonl:x"].events) == 6
    assert outlets.close(WAIT)
    assert made["jsonl:x"].closed


def test_sinks_of_a_call_stay_until_all_its_legs_have_ended():
    keeper = Keeper()
    outlets = Outlets([], make=lambda spec: keeper, rules=RULES)
    outlets.attach("a", ["jsonl:x"])
    one, other = call("a", "caller"), call("a", "callee")
    send(outlets, one[0], other[0], *one[1:], *other[1:])
    wait_until(lambda: len(keeper.events) == 6)
    assert outlets._calls == {}
    outlets.close(1.0)


def test_what_comes_while_a_sink_is_being_made_is_kept_in_order(monkeypatch):
    monkeypatch.setattr(module, "EARLY", 5)
    gate, keeper = threading.Event(), Keeper()

    def make(spec: SinkSpec) -> Keeper:
        gate.wait(WAIT)
        return keeper

    outlets = Outlets([], make=make, rules=RULES)
    outlets.attach("a", ["jsonl:x"])
    begin = time.monotonic()
    send(outlets, call("a")[0], *(Partial("a", n) for n in range(20)), call("a")[1])
    assert time.monotonic() - begin < WAIT / 2  # it has not waited for the gate
    gate.set()
    send(outlets, call("a")[2])
    wait_until(lambda: len(keeper.events) == 7)
    assert [event.type for event in keeper.events] == [
        "started", *["partial"] * 4, "final", "ended",
    ]  # fmt: skip
    outlets.close(1.0)


def test_a_sink_that_cannot_be_made_costs_a_line(caplog):
    def make(spec: SinkSpec):
        raise ConfigError("no such place")

    outlets = Outlets([], make=make, rules=RULES)
    for name in "ab":
        outlets.attach(name, ["jsonl:x"])
        send(outlets, *call(name))
    wait_until(lambda: "own sink jsonl:x cannot be had: no such place" in caplog.text)
    assert caplog.text.count("no such place") == 1
    assert outlets.close(WAIT)


def test_sinks_that_nobody_needs_are_closed_once_they_hold_nothing(monkeypatch):
    monkeypatch.setattr(module, "IDLE", 0.01)
    keeper = Keeper()
    keeper.pending = 1
    outlets = Outlets([], make=lambda spec: keeper, rules=RULES)
    outlets.attach("a", ["jsonl:x"])
    send(outlets, *call("a"))
    wait_until(lambda: len(keeper.events) == 3)
    time.sleep(0.05)
    assert not keeper.closed
    keeper.pending = 0
    wait_until(lambda: keeper.closed)
    assert outlets._pool == {}
    outlets.close(1.0)


@pytest.mark.parametrize(
    "rules, specs, line",
    [
        ([], ["jsonl:x"], "calls may bring no sinks; see --allow-sink"),
        (RULES, ["webhook:http://x/"], "is not one that calls may bring"),
        (RULES, ["jsonl:x", "kafka:y"], "wanted is one of"),
        (RULES, ["jsonl,rotate=1M:x"], "is not one that calls may bring"),
    ],
)
def test_what_a_call_may_not_bring(rules, specs, line):
    outlets = Outlets([], make=lambda spec: Keeper(), rules=rules)
    with pytest.raises(ConfigError, match=line):
        outlets.attach("a", specs)
    assert outlets._calls == {}
    outlets.close(1.0)


def test_there_are_only_so_many_sinks_of_calls():
    outlets = Outlets([], make=lambda spec: Keeper(), rules=RULES, most=2)
    outlets.attach("a", ["jsonl:1"])
    outlets.attach("b", ["jsonl:2", "jsonl:1"])
    with pytest.raises(ConfigError, match="2 sinks of calls are open"):
        outlets.attach("c", ["jsonl:3"])
    outlets.close(1.0)


# -- from text to sinks -------------------------------------------------------------------------


def test_without_any_there_is_the_console_and_jsonl_is_one_more():
    def kinds(*texts: str, jsonl: str | None = None) -> list[str]:
        return [spec.text for spec in parse_sinks(texts, jsonl, redact=False)]

    assert kinds() == ["console"]
    assert kinds(jsonl="x") == ["console", "jsonl:x"]
    assert kinds("none") == []
    assert kinds("jsonl:y", "webhook:http://z/") == ["jsonl:y", "webhook:http://z/"]


def test_sinks_that_do_not_go_together():
    with pytest.raises(ConfigError, match="a recording cannot be redacted"):
        parse_sinks(["wav:x"], None, redact=True)
    assert parse_sinks(["wav:x"], None, redact=False)
    with pytest.raises(ConfigError, match="write to the same place"):
        parse_sinks(["jsonl:x"], "x", redact=False)


def test_where_deliveries_wait_by_default():
    assert str(default_spool({"XDG_STATE_HOME": "/s"})) == "/s/aii/spool"
    assert str(default_spool({"HOME": "/h"})) == "/h/.local/state/aii/spool"


def build(tmp_path, *texts: str, rules: tuple[str, ...] = (), environ=None) -> Outlets:
    maker = Maker(io.StringIO(), tmp_path / "spool", environ or {})
    specs = parse_sinks(texts, None, redact=False)
    return build_outlets(specs, [SinkSpec.parse(r, whole=False) for r in rules], maker)


def test_all_kinds_are_made_and_closed(tmp_path):
    environ = {"S": "secret"}
    with Receiver() as receiver:
        outlets = build(
            tmp_path, "console", f"jsonl,rotate=1M,keep=2:{tmp_path}/a.jsonl",
            f"jsonl,rotate=day:{tmp_path}/b/", f"wav:{tmp_path}/c",
            f"webhook,secret=S,per=event,queue=1M,timeout=5,workers=1:{receiver.url}/x",
            f"ari,user=u,secret=S,variable=X:{receiver.url}",
            "ami,user=u,secret=S,timeout=1:127.0.0.1:1", environ=environ,
        )  # fmt: skip
        assert len(outlets.sinks) == 7
        send(outlets, *call("a"))
        wait_until(lambda: len(receiver.taken) == 3)
        assert outlets.close(WAIT)
    assert len((tmp_path / "a.jsonl").read_text().splitlines()) == 3
    assert len(list((tmp_path / "b").glob("*/a.jsonl"))) == 1
    assert all("webhook-signature" in post.headers for post in receiver.taken)


@pytest.mark.parametrize(
    "text, line",
    [
        (
            "jsonl:/no/such/dir/x",
            "cannot write events to /no/such/dir/x: No such file or directory",
        ),
        ("webhook,secret=NONE:http://127.0.0.1/", "there is no secret in NONE"),
        ("webhook,ca=/no/ca:https://127.0.0.1/", "cannot read certificates from /no/ca"),
        ("ami:127.0.0.1", "are needed to log in"),
    ],
)
def test_what_cannot_be_had_is_one_line_and_closes_the_others(tmp_path, text, line):
    with pytest.raises(ConfigError, match=line) as info:
        build(tmp_path, f"jsonl:{tmp_path}/x", text)
    assert "\n" not in str(info.value)


def test_what_an_earlier_run_has_left_for_a_calls_own_webhook_is_delivered(tmp_path):
    with Receiver() as receiver:
        receiver.down()
        outlets = build(tmp_path, "none", rules=("webhook,queue=1M",))
        outlets.attach("a", [f"webhook,per=call:{receiver.url}/own"])
        send(outlets, *call("a"))
        pool = outlets._pool
        wait_until(lambda: all(late.ready for late in pool.values()))
        [late] = pool.values()
        assert isinstance(late.sink, WebhookSink)
        late.sink._most = 0.05
        wait_until(lambda: late.sink._spool.held and len(late.sink._schedule) == 1)
        assert outlets.close(WAIT)
        receiver.up()
        outlets = build(tmp_path, "none", rules=("webhook,queue=1M",))
        wait_until(lambda: receiver.taken)
        assert outlets.close(WAIT)
    assert receiver.taken[0].path == "/own"
    assert receiver.taken[0].event["text"] == " a"
