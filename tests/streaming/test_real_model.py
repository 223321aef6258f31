"""All policies on the embedded model: what must be equal is, and the rest keeps its promises."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest

from aii.audio.pcm import slin_to_float
from aii.audio.vad import EnergyDetector, VadBatcher
from aii.cli.calls import vocabulary_of
from aii.engine.hearing import hear
from aii.engine.local import LocalEngine
from aii.evaluation import word_errors
from aii.resources import asset
from aii.streaming.alignatt import AlignAttSettings
from aii.streaming.endpointing import EndpointSettings
from aii.streaming.events import Final, Partial, Skipped, SpeechStarted
from aii.streaming.factory import Sessions
from aii.streaming.settings import POLICIES, CallSettings
from aii.transcribe import default_audio_context, transcribe
from aii.types import Hypothesis

S = 16_000
OPTIONS = {"temperatures": (0.0,)}

SETTINGS = {
    "window": CallSettings(language="en").changed({"window": 1.5}),
    "local-agreement": CallSettings(policy="local-agreement", language="en"),
    "alignatt": CallSettings(policy="alignatt", language="en"),
}


@pytest.fixture(scope="module")
def call() -> np.ndarray:
    """The first seconds of the sample call."""
    return slin_to_float(asset("sample_call.slin").read_bytes())[: 7 * S]


@pytest.fixture(scope="module")
def played(embedded_model, call) -> dict[str, Heard]:
    """The call under every policy."""
    return {name: Heard(embedded_model, call, settings) for name, settings in SETTINGS.items()}


class Heard:
    """A call played through a session on the model; the answers are kept."""

    def __init__(self, model, samples: np.ndarray, settings: CallSettings, piece: float = 0.25):
        self.options = {"audio_context": default_audio_context(model), **OPTIONS}
        self.model = model
        self.answers: list[Hypothesis] = []
        watched = settings.endpointing is not None
        sessions = Sessions(settings, vocabulary_of(model), voice=watched)
        self.session = sessions.make("c")
        self.events = self.session.start()
        for a in range(0, len(samples), round(piece * S)):
            self.session.feed(samples[a : a + round(piece * S)])
            self._answer()
        self.events += self.session.finish("eof")
        self._answer()
        assert self.session.done

    def _answer(self) -> None:
        batcher = VadBatcher(EnergyDetector())
        self.events += self.session.check()
        while True:
            voice, request = self.session.next_voice(), self.session.next_request(0.0)
            if voice is None and request is None:
                return
            if voice is not None:
                self.events += self.session.heard(batcher.run([voice])[0])
            if request is not None:
                answer = Hypothesis(**hear(self.model, request, self.options))
                self.answers.append(answer)
                self.events += self.session.accept(answer)

    @property
    def finals(self) -> list[Final]:
        return [event for event in self.events if isinstance(event, Final)]

    @property
    def text(self) -> str:
        return "".join(final.text for final in self.finals)

    @property
    def told(self) -> list[tuple]:
        """Everything that partials and finals say, without what it cost."""
        return [
            (e.type, e.start, e.end, e.text, e.words, e.removed)
            for e in self.events
            if isinstance(e, (Partial, Final))
        ]

    @property
    def passes(self) -> int:
        return sum(answer.passes for answer in self.answers)


def test_window_is_offline_decoding_where_no_window_ends(embedded_model, call, played):
    context = default_audio_context(embedded_model)
    offline = transcribe(
        embedded_model, call, temperature=0.0, audio_context=context, fp16=False, language="en"
    )
    assert played["window"].text == offline["text"]
    assert offline["text"].split()


@pytest.mark.parametrize("policy", ["window", "local-agreement"])
def test_drafts_change_nothing_but_the_passes(embedded_model, call, played, policy):
    with_drafts = played[policy]
    without = Heard(embedded_model, call, replace(SETTINGS[policy], drafts=False))
    assert with_drafts.told == without.told
    for one, other in zip(with_drafts.answers, without.answers, strict=True):
        assert [token.id for token in one.tokens] == [token.id for token in other.tokens]
        assert one.passes <= other.passes
    assert with_drafts.passes < without.passes


@pytest.mark.parametrize("policy", POLICIES)
def test_every_committed_word_has_its_time(call, played, policy):
    heard = played[policy]
    assert len(heard.text.split()) >= 4
    end = 0.0
    for final in heard.finals:
        assert final.start == end
        end = final.end
        assert "".join(word.text for word in final.words) == final.text
        spans = [(word.start, word.end) for word in final.words]
        assert all(final.start <= a <= b <= final.end for a, b in spans)
        assert all(before[1] <= after[0] + 1e-6 for before, after in itertools.pairwise(spans))
    assert end == pytest.approx(len(call) / S, abs=0.01)


@pytest.mark.parametrize("policy", ["local-agreement", "alignatt"])
def test_the_size_of_the_pieces_changes_nothing(embedded_model, call, played, policy):
    other = Heard(embedded_model, call, SETTINGS[policy], piece=3.3)
    assert other.told == played[policy].told


@pytest.mark.parametrize("policy", ["local-agreement", "alignatt"])
def test_words_are_final_while_the_call_goes_on(played, policy):
    heard = played[policy]
    reasons = [final.reason for final in heard.finals]
    assert reasons.count("agreement") >= 2
    assert reasons[-1] == "hangup"
    early = "".join(final.text for final in heard.finals if final.reason == "agreement")
    assert len(early.split()) >= len(heard.text.split()) / 2


def words(events: list) -> list[tuple]:
    """What partials and finals say and when, without what it cost and how sure it is."""
    return [
        (e.type, e.start, e.end, e.text, [(w.text, w.start, w.end) for w in e.words])
        for e in events
        if isinstance(e, (Partial, Final))
    ]


@pytest.mark.parametrize("policy", ["local-agreement", "alignatt"])
def test_two_calls_at_once_are_heard_as_each_is_alone(embedded_model, call, policy):
    """Side by side on one engine, each with words before it that the other must not be prompted
    with, and forced tokens and frames of its own."""
    parts = {"one": call[: 4 * S], "other": call[3 * S :]}
    settings = SETTINGS[policy]
    alone = {name: Heard(embedded_model, part, settings) for name, part in parts.items()}
    assert len({heard.text for heard in alone.values()}) == 2
    options = {"audio_context": default_audio_context(embedded_model), **OPTIONS}
    engine = LocalEngine(embedded_model, options=options)
    sessions = Sessions(settings, vocabulary_of(embedded_model))
    calls = {name: sessions.make(name) for name in parts}
    events = {name: call.start() for name, call in calls.items()}

    def let_both_be_heard() -> None:
        while requests := {
            name: request
            for name, call in calls.items()
            if (request := call.next_request(0.0)) is not None
        }:
            futures = {name: engine.submit(request) for name, request in requests.items()}
            for name, future in futures.items():
                events[name] += calls[name].accept(future.result(200))

    for a in range(0, 4 * S, S // 4):
        for name, part in parts.items():
            calls[name].feed(part[a : a + S // 4])
        let_both_be_heard()
    for name, session in calls.items():
        events[name] += session.finish("eof")
    let_both_be_heard()
    assert engine.close(60)
    for name, heard in alone.items():
        assert words(events[name]) == words(heard.events)


def test_alignatt_with_beams(embedded_model, call):
    settings = CallSettings(
        policy="alignatt", language="en", alignatt=AlignAttSettings(step=1.0, beams=3)
    )
    heard = Heard(embedded_model, call[: 3 * S], settings)
    assert heard.text.split()
    assert all(final.words for final in heard.finals if final.text)


@pytest.mark.parametrize("policy", POLICIES)
def test_with_voice_activity_pauses_make_words_final_and_silence_costs_nothing(
    embedded_model, call, policy
):
    noise = np.random.default_rng(0).normal(0, 1e-4, 4 * S).astype(np.float32)
    samples = np.concatenate([noise, call[: 2 * S], noise])
    settings = CallSettings(policy=policy, language="en", endpointing=EndpointSettings())
    heard = Heard(embedded_model, samples, settings)
    assert [event.type for event in heard.events if isinstance(event, SpeechStarted)]
    assert "endpoint" in [final.reason for final in heard.finals]
    silence = [event for event in heard.events if isinstance(event, Skipped)]
    assert sum(event.end - event.start for event in silence) > 6.0
    assert not any(event.lost for event in silence)
    assert heard.text.split()


@pytest.mark.parametrize("policy", POLICIES)
def test_the_sample_call_is_heard(embedded_model, policy):
    """All of it, as with ``--vad energy``; the text so far as prompt costs 3 words and more."""
    samples = slin_to_float(asset("sample_call.slin").read_bytes())
    settings = CallSettings(policy=policy, endpointing=EndpointSettings())
    heard = Heard(embedded_model, samples, settings)
    reference = " ".join(asset("sample_call.txt").read_text().split())
    errors = word_errors(reference, heard.text)
    assert errors.rate <= 0.03, heard.text
