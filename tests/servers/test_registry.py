from __future__ import annotations

import subprocess
import sys
import threading

import pytest

from aii.errors import ConfigError, ServiceError
from aii.question import Question
from aii.servers.registry import CallPlan, CallRegistry, parse_plan
from aii.streaming.events import Final, Partial, SpeechEnded
from aii.streaming.settings import CallSettings
from aii.types import Segment

CALL = "0f2b1c5e-8a53-4a4f-9a8e-0d8f6a3c2b10"


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_what_a_dialplan_says_ahead_is_found_by_the_call() -> None:
    registry = CallRegistry()
    said = {
        "caller": "+49 30 1",
        "to": 100,
        "language": "de",
        "prompt": ["Meier", "Fritz!Box"],
        "policy": "alignatt",
        "sinks": ["webhook:http://127.0.0.1/x", "console"],
        "collect": {"digits": [1, 4]},
        "end_on": "answer, no_speech",
        "channel": "PJSIP/alice-1",
        "queue": "support",
    }
    plan = registry.put(CALL.upper(), said)
    assert registry.resolve(CALL) == plan
    assert plan.call_id == CALL.upper()
    assert (plan.caller, plan.callee) == ("+49 30 1", "100")
    assert plan.wishes == {"language": "de", "prompt": "Meier, Fritz!Box", "policy": "alignatt"}
    assert plan.sinks == ("webhook:http://127.0.0.1/x", "console")
    assert plan.collect == Question.parse({"digits": [1, 4]})
    assert plan.end_on == {"answer", "no_speech"}
    assert plan.details == {"channel": "PJSIP/alice-1", "queue": "support"}
    settings = plan.settings(CallSettings(language="en", objective=2.0))
    assert (settings.language, settings.policy) == ("de", "alignatt")
    assert (settings.prompt, settings.objective) == ("Meier, Fritz!Box", 2.0)


def test_a_call_that_nobody_announced() -> None:
    assert CallRegistry().resolve(None) == CallPlan()
    assert CallRegistry().resolve("a b") == CallPlan(call_id="a b")
    base = CallSettings()
    assert CallPlan().settings(base) is base


def test_what_the_wire_says_counts_where_the_registry_is_silent() -> None:
    registry = CallRegistry()
    registry.put("c1", {"caller": "1", "language": "de", "queue": "a"})
    wire = {"caller": "2", "callee": "3", "prompt": "x", "rate": "8000", "codec": "ulaw"}
    plan = registry.resolve("c1", {**wire, "queue": "b", "note": "n"})
    assert (plan.caller, plan.callee) == ("1", "3")
    assert plan.wishes == {"language": "de", "prompt": "x"}
    assert plan.details == {"queue": "a", "note": "n"}


def test_only_the_registry_may_name_sinks_and_questions(caplog) -> None:
    wire = {"sinks": "jsonl:/etc/passwd", "collect": "digits:4", "end_on": "sometimes", "leg": "a"}
    plan = CallRegistry().resolve("c1", wire)
    assert (plan.sinks, plan.collect, plan.end_on, plan.leg) == ((), None, frozenset(), "a")
    assert (
        "end_on is 'sometimes'; choose from final, speech_ended, answer, no_speech" in caplog.text
    )
    assert CallRegistry().resolve("c1", {"end_on": "final"}).end_on == {"final"}


def test_another_id_to_run_under_joins_the_legs() -> None:
    """Two AudioSockets have two UUIDs."""
    registry = CallRegistry()
    registry.put("u1", {"call_id": "call-7", "leg": "caller"})
    registry.put("u2", {"call_id": "call-7", "leg": "callee"})
    plans = [registry.resolve("u1"), registry.resolve("u2")]
    assert [(plan.call_id, plan.leg) for plan in plans] == [
        ("call-7", "caller"),
        ("call-7", "callee"),
    ]


def test_a_wish_that_makes_no_sense_is_left_out(caplog) -> None:
    plan = CallRegistry().resolve("c1", {"language": "klingon", "policy": "alignatt"})
    settings = plan.settings(CallSettings())
    assert (settings.language, settings.policy) == (None, "alignatt")
    assert len(caplog.records) == 1
    assert caplog.text.count("\n") == 1


def test_entries_expire_and_are_bounded() -> None:
    clock = Clock()
    registry = CallRegistry(most=3, clock=clock)
    registry.put("a", {"expires": "10"})
    registry.put("b", {"expires": 20})
    registry.put("c", {})
    with pytest.raises(ServiceError, match="3 calls are registered already"):
        registry.put("d", {})
    registry.put("c", {"caller": "1"})  # replacing needs no room
    clock.now = 10.0
    assert registry.get("a") is None
    assert registry.get("b") is not None
    clock.now = 20.0
    registry.put("d", {})
    registry.put("e", {})
    assert len(registry) == 3
    assert [registry.get(name) is None for name in "abcde"] == [True, True, False, False, False]
    assert registry.remove("c")
    assert not registry.remove("c")
    clock.now = 10_000.0
    assert not registry.remove("d")
    assert "expires" not in registry.put("f", {"expires": 5}).details


@pytest.mark.parametrize(
    "call_id, said",
    [
        ("", {}),
        ("a b", {}),
        ("x" * 129, {}),
        ("c", {"expires": 0}),
        ("c", {"expires": "soon"}),
        ("c", {"expires": float("nan")}),
        ("c", {"sinks": {"a": 1}}),
        ("c", {"sinks": ["console"] * 17}),
        ("c", {"sinks": ["x" * 3000]}),
        ("c", {"end_on": "midnight"}),
        ("c", {"collect": {"digits": 0}}),
        ("c", {"collect": "letters:3"}),
        ("c", {"language": "klingon"}),
        ("c", {"policy": "best"}),
        ("c", {"vad": "perhaps"}),
        ("c", {"note": {"nested": 1}}),
        ("c", {"note": [[1]]}),
        ("c", {"note": "x" * 2001}),
        ("c", {f"n{i}": 1 for i in range(65)}),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(call_id, said) -> None:
    registry = CallRegistry()
    with pytest.raises(ConfigError) as error:
        registry.put(call_id, said)
    assert "\n" not in str(error.value)
    assert len(registry) == 0


def test_when_a_call_is_to_end() -> None:
    plan = parse_plan("c", {"end_on": ["final"]})
    spoken = (Segment(0, 1, " yes"),)
    assert plan.ends_on(Final(segments=spoken))
    assert not plan.ends_on(Final())
    assert not plan.ends_on(Final(segments=spoken, reason="agreement"))
    assert not plan.ends_on(Partial(segments=spoken))
    assert parse_plan("c", {"end_on": "speech_ended"}).ends_on(SpeechEnded())
    assert not CallPlan().ends_on(Final(segments=spoken))


def test_many_threads() -> None:
    registry = CallRegistry(most=50)

    def work(number: int) -> None:
        for turn in range(50):
            name = f"c{(number * 50 + turn) % 60}"
            try:
                registry.put(name, {"caller": name})
            except ServiceError:
                registry.remove(name)
            plan = registry.resolve(name)
            assert plan.caller in ("", name)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(100)
    assert 0 < len(registry) <= 50


def test_needs_no_web_packages() -> None:
    code = "import sys, aii.servers.registry; sys.exit('fastapi' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
