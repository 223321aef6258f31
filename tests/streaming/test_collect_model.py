"""Questions asked with a real network: whatever it hears, the answer is in the grammar."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from fake_engine import call_settings

from aii.audio.vad import VadBatcher, load_detector
from aii.engine.hearing import hear
from aii.grammar import Grammar
from aii.question import Question
from aii.resources import asset
from aii.streaming.endpointing import EndpointSettings
from aii.streaming.events import Answer, Event, Final
from aii.streaming.factory import Sessions
from aii.streaming.settings import POLICIES
from aii.streaming.vocabulary import Vocabulary
from aii.types import Hypothesis

PIECE = 3200


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize(
    "grammar", [Grammar.digits(1, 4), Grammar.words(["sales", "billing", "hello"])], ids=str
)
def test_the_sample_call_is_answered_within_the_grammar(embedded_model, policy, grammar):
    settings = replace(
        call_settings(policy=policy, language="en"),
        endpointing=EndpointSettings(min_silence=0.4),
    )
    session = Sessions(settings, Vocabulary(), voice=True).make("c")
    detector = VadBatcher(load_detector("energy"))
    options = {"audio_context": embedded_model.metadata.get("audio_context", "full")}
    data = np.frombuffer(asset("sample_call.slin").read_bytes(), "<i2").astype(np.float32) / 32768
    constrained = 0
    events: list[Event] = [*session.start(), *session.collect(Question(grammar))]
    for start in range(0, 12 * 16_000, PIECE):
        session.feed(data[start : start + PIECE])
        events += session.check()
        while True:
            if (voice := session.next_voice()) is not None:
                events += session.heard(detector.run([voice])[0])
            elif (request := session.next_request(start / 16_000)) is not None:
                constrained += "constraint" in request.options
                heard = hear(embedded_model, request, options)
                events += session.accept(Hypothesis(**heard))
            else:
                break
        if any(isinstance(event, Answer) for event in events):
            break
    answers = [event for event in events if isinstance(event, Answer)]
    finals = [event for event in events if isinstance(event, Final) and event.text.strip()]
    assert constrained > 0
    for final in finals:  # all that was heard until the answer is part of one
        assert grammar.read(final.text) is not None, final.text
    assert len(answers) == 1
    if answers[0].status == "match":
        assert answers[0].value == grammar.read(answers[0].text)
        assert answers[0].confidence is None or 0 <= answers[0].confidence <= 1
