"""How a call is to be heard, and the session that is made of it."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from fake_engine import VOCABULARY, answer, floats, speech

from aii.config import ServerConfig
from aii.errors import ConfigError
from aii.streaming.alignatt import AlignAttPolicy, AlignAttSettings
from aii.streaming.factory import Sessions
from aii.streaming.local_agreement import AgreementSettings, LocalAgreementPolicy
from aii.streaming.policy import CallContext
from aii.streaming.settings import POLICIES, CallSettings, make_policy
from aii.streaming.vocabulary import Vocabulary
from aii.streaming.window import WindowPolicy, WindowSettings


def context() -> CallContext:
    return CallContext("c", itertools.count(1))


def test_policies_have_names():
    kinds = [type(make_policy(CallSettings(policy=name), context())) for name in POLICIES]
    assert kinds == [WindowPolicy, LocalAgreementPolicy, AlignAttPolicy]


def test_a_call_changes_settings_by_name():
    server = CallSettings(window=WindowSettings(4.0, 20.0), prompt="old")
    call = server.changed(
        {
            "policy": "alignatt",
            "language": "German",
            "task": "translate",
            "prompt": " Meier, Fritz!Box ",
            "leg": "caller",
            "words": "all",
            "condition": "no",
            "objective": 0.5,
            "window": "2.5",
            "reset_seconds": "10",
            "reset": "hard",
            "agreement_step": "0.8",
            "alignatt_step": "0.4",
            "loop_guard": "false",
        }
    )
    assert (call.policy, call.language, call.task) == ("alignatt", "de", "translate")
    assert (call.prompt, call.leg, call.words) == ("Meier, Fritz!Box", "caller", "all")
    assert (call.condition, call.objective) == (False, 0.5)
    assert call.window == WindowSettings(2.5, 10.0, carry=False)
    assert call.agreement == AgreementSettings(step=0.8)
    assert call.alignatt == AlignAttSettings(step=0.4)
    assert call.guards.loop is False
    assert server.changed({}) == server
    assert replace(call).changed({"language": "auto"}).language is None
    assert set(CallSettings.names()) >= {"policy", "language", "prompt", "leg"}


@pytest.mark.parametrize(
    "wanted, message",
    [
        ({"polcy": "window"}, "did you mean policy"),
        ({"x" * 500: "y"}, "known are policy"),
        ({"policy": "fastest"}, "wanted is one of window, local-agreement, alignatt"),
        ({"language": "klingon"}, "klingon"),
        ({"task": "summarise"}, "task"),
        ({"condition": "perhaps"}, "true or false"),
        ({"window": "0"}, "above 0"),
        ({"window": "nan"}, "above 0"),
        ({"window": "31"}, "do not go together"),
        ({"reset": "soft"}, "carry, hard"),
        ({"agreement_step": "40"}, "do not go together"),
        ({"alignatt_step": "29"}, "do not go together"),
        ({"prompt": "x" * 2001}, "at most 2000"),
        ({"leg": "a\nb"}, "printable"),
    ],
)
def test_what_makes_no_sense_is_one_clear_line(wanted, message):
    with pytest.raises(ConfigError, match=message) as caught:
        CallSettings().changed(wanted)
    assert len(str(caught.value)) < 600
    assert "\n" not in str(caught.value)


def test_bad_numbers_of_alignatt_are_refused():
    for bad in ({"threshold": -1}, {"last_threshold": -1}, {"beams": 0}, {"buffer": 30.0}):
        with pytest.raises(ConfigError):
            AlignAttSettings(**bad)


def test_every_session_has_its_own_policy_and_context():
    sessions = Sessions(CallSettings(policy="alignatt", prompt="Meier"), VOCABULARY)
    first, second = sessions.make("a", "here"), sessions.make("b")
    for session in (first, second):
        session.feed(floats(speech(1.0)))
    requests = [session.next_request(0.0) for session in (first, second)]
    assert [request.call_id for request in requests] == ["a", "b"]
    assert requests[0].request_id != requests[1].request_id
    assert requests[0].options["initial_prompt"] == "Meier"
    assert requests[0].stop is not None
    (started,) = first.start()
    assert started.caller == "here"


def test_a_calls_own_settings_go_before_the_servers():
    sessions = Sessions(CallSettings(prompt="Meier"), VOCABULARY)
    own = sessions.settings.changed({"policy": "local-agreement", "language": "de", "leg": "left"})
    session = sessions.make("a", settings=own)
    session.feed(floats(speech(1.0)))
    request = session.next_request(0.0)
    assert (request.language, request.stop) == ("de", None)
    assert request.prompt == VOCABULARY.encode("Meier")
    events = session.start() + session.finish("eof") + answer(session)
    assert {event.leg for event in events} == {"left"}
    assert events[0].to_dict()["leg"] == "left"
    assert [event.seq for event in events] == list(range(1, len(events) + 1))


def test_a_leg_may_begin_later_than_its_call():
    session = Sessions(CallSettings(), VOCABULARY).make("a", start=12.5)
    samples = speech(6.0, seed=1)
    session.feed(floats(samples))
    request = session.next_request(0.0)
    assert (request.start, request.duration) == (12.5, 5.0)
    events = session.finish("eof") + session.accept(_nothing(request)) + answer(session)
    final, ended = events[-2:]
    assert (final.start, final.end, ended.end) == (12.5, 18.5, 18.5)
    assert all(12.5 <= word.start <= word.end <= 18.5 for word in final.words)
    assert session.counters.samples == len(samples)


def _nothing(request):
    from aii.types import Hypothesis

    return Hypothesis(request.request_id)


@pytest.mark.parametrize("policy", POLICIES)
def test_times_count_from_the_start_of_the_call_under_every_policy(policy):
    samples = np.concatenate([speech(20.0, seed=1, shortest=0.3, longest=0.8), np.zeros(8000, int)])
    found = []
    for start in (0.0, 100.0):
        settings = CallSettings(policy=policy)
        session = Sessions(settings, VOCABULARY).make("a", start=start)
        session.feed(floats(samples))
        events = answer(session) + session.finish("eof") + answer(session)
        words = [w for e in events if e.type == "final" for w in e.words]
        found.append([(w.text, round(w.start - start, 3), round(w.end - start, 3)) for w in words])
    assert found[0] == found[1]


def test_a_model_of_one_language_decides_it():
    sessions = Sessions(CallSettings(), Vocabulary(only_language="en"))
    session = sessions.make("a")
    session.feed(floats(speech(6.0)))
    assert session.next_request(0.0).language == "en"
    with pytest.raises(ConfigError, match="English only"):
        sessions.make("b", settings=CallSettings(language="fr"))


def test_the_servers_options_become_settings():
    from aii.cli.calls import call_settings

    config = ServerConfig.load(
        {
            "policy": "alignatt",
            "alignatt_step": "0.25",
            "alignatt_threshold": "10",
            "alignatt_beams": "4",
            "agreement_step": "2",
            "guards": "loop, rate",
            "drafts": "false",
            "window": "2",
            "reset": "hard",
        },
        {"AII_PROMPT": "Meier"},
    )
    settings = call_settings(config)
    assert (settings.policy, settings.prompt, settings.drafts) == ("alignatt", "Meier", False)
    assert settings.alignatt == AlignAttSettings(step=0.25, threshold=10, beams=4)
    assert settings.agreement.step == 2.0
    assert settings.window == WindowSettings(2.0, 30.0, carry=False)
    guards = settings.guards
    assert (guards.no_speech, guards.compression, guards.rate, guards.loop) == (
        None, None, 22.5, True,
    )  # fmt: skip
    assert call_settings(ServerConfig()) == CallSettings()
    with pytest.raises(ConfigError, match="--guards"):
        ServerConfig.load({"guards": "luck"}, {})


def test_a_models_vocabulary(tiny_model, embedded_model):
    from aii.cli.calls import vocabulary_of

    for model in (tiny_model, embedded_model):
        vocabulary = vocabulary_of(model)
        assert vocabulary.tokenizer().encoding.n_vocab == model.dims.n_vocab
    assert vocabulary_of(embedded_model).only_language in (None, "en")


@pytest.mark.parametrize("suits", [True, False])
@pytest.mark.parametrize("wanted", [None, True, False])
def test_the_text_before_a_window_is_given_where_it_suits_the_model(suits, wanted):
    sessions = Sessions(CallSettings(condition=wanted), Vocabulary(previous_text=suits))
    context = sessions.make("call")._policy._context
    assert context.condition is (suits if wanted is None else wanted)
