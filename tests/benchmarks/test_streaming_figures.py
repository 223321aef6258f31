"""Figures of streaming quality, on calls that can be counted by hand, and the simulated clock."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from fake_engine import floats, hear, make_session, speech, spoken

from aii.types import SAMPLE_RATE, DecodeRequest, Hypothesis, Timing, Word
from benchmarks.simulated_call import Shown, play
from benchmarks.spoken_calls import SpokenCall, SpokenWord, assemble
from benchmarks.streaming_figures import Figures, pairs, spread


def call(*words: tuple[str, float]) -> SpokenCall:
    """Words with their ends."""
    said = tuple(SpokenWord(text, end - 0.3, end) for text, end in words)
    return SpokenCall("test 1", np.zeros(SAMPLE_RATE, np.float32), said)


@pytest.mark.parametrize(
    "reference, found, open_end, wanted",
    [
        ("a b c", "a b c", False, [0, 1, 2]),
        ("a b c", "a c", False, [0, 2]),
        ("a b c", "a x c", False, [0, -1, 2]),
        ("a b c", "a b b c", False, [0, -1, 1, 2]),
        ("a b c d e", "a b", True, [0, 1]),
        ("a b c d e", "x b", True, [-1, 1]),
        ("", "a", False, [-1]),
        ("a", "", True, []),
    ],
)
def test_pairs(reference: str, found: str, open_end: bool, wanted: list[int]) -> None:
    assert pairs(reference.split(), found.split(), open_end=open_end) == wanted


def test_latency_runs_from_the_end_of_a_word_to_its_first_showing_and_to_its_final() -> None:
    figures = Figures()
    figures.add(
        call(("one", 1.0), ("two", 2.0)),
        [
            Shown(1.5, "", " one"),
            Shown(2.5, " one", " too"),
            Shown(3.0, " one", " two"),
            Shown(4.0, " one two", ""),
        ],
    )
    assert figures.errors.rate == 0
    assert figures.first == [0.5, 1.0]
    assert figures.last == [1.5, 2.0]
    assert (figures.shown, figures.changed) == (3, 1)
    assert figures.unstable == pytest.approx(1 / 3)
    assert figures.erased == 1
    assert figures.erasure == 0.5


def test_times_of_words_are_compared_where_the_word_is_right() -> None:
    figures = Figures()
    said = call(("one", 1.0), ("two", math.nan), ("three", 3.0))
    heard = [Word(" one,", 0.9, 1.2), Word(" two", 1.5, 2.0), Word(" ...", 2.0, 2.1)]
    figures.add_times(said, [*heard, Word(" free", 2.1, 2.5), Word(" Three.", 2.6, 2.8)])
    assert figures.starts == pytest.approx([0.2, -0.1])
    assert figures.ends == pytest.approx([0.2, -0.2])


def test_wrong_words_have_no_latency_and_words_without_times_neither() -> None:
    figures = Figures()
    said = call(("one", 1.0), ("two", math.nan), ("three", 3.0))
    figures.add(said, [Shown(4.0, "one two tree", "")])
    assert figures.errors.substitutions == 1
    assert figures.first == figures.last == [3.0]


def test_a_call_without_words_shown() -> None:
    figures = Figures()
    figures.add(call(("one", 1.0)), [])
    assert figures.errors.deletions == 1
    assert figures.unstable == figures.erasure == 0
    assert math.isnan(spread(figures.last)["mean"])


def test_spread() -> None:
    values = [float(n) for n in range(1, 101)]
    assert spread(values) == {"mean": 50.5, "p50": 50.0, "p95": 95.0}


def slow(seconds: float):
    """A perfect engine that takes so long."""

    def decode(request: DecodeRequest) -> Hypothesis:
        return replace(hear(request), timing=Timing(0.0, seconds))

    return decode


def test_without_computing_a_partial_comes_at_its_mark() -> None:
    samples = speech(12.0)
    played = play(floats(samples), make_session(), slow(0.5))
    assert [moment.time for moment in played.shown] == pytest.approx([5.0, 10.0, 12.0])
    assert played.text == spoken(samples)
    assert played.requests == 3
    assert played.decode == 1.5


def test_with_computing_it_comes_as_much_later_as_it_took() -> None:
    samples = speech(12.0)
    played = play(floats(samples), make_session(), slow(0.5), computing=True)
    assert [moment.time for moment in played.shown] == pytest.approx([5.5, 10.5, 12.5])
    assert played.text == spoken(samples)


def test_an_engine_that_is_too_slow_skips_windows_and_loses_no_word() -> None:
    samples = speech(30.0, longest=2.0)
    session = make_session()
    played = play(floats(samples), session, slow(12.0), computing=True)
    assert played.text == spoken(samples)
    assert session.counters.skipped > 0


def test_assembled_calls_have_their_words_where_they_say() -> None:
    """Each word is a tone of its own loudness, which is found where it should be."""
    t = np.arange(4000) / SAMPLE_RATE
    tone = np.sin(2 * np.pi * 500 * t).astype(np.float32)

    def utterances():
        while True:
            gap = np.zeros(1600, np.float32)
            words = [SpokenWord("one", 0.0, 0.25), SpokenWord("two", 0.35, 0.6)]
            yield np.concatenate([tone, gap, tone]), words

    made = assemble("tones 1", utterances(), 5.0, np.random.default_rng(0))
    assert made.seconds >= 5.0
    assert len(made.words) >= 4
    for word in made.words:
        a, b = round(word.start * SAMPLE_RATE), round(word.end * SAMPLE_RATE)
        inside = np.square(made.samples[a:b]).mean()
        assert inside > 100 * np.square(made.samples[a - 800 : a - 10]).mean()
        assert inside > 100 * np.square(made.samples[b + 10 : b + 800]).mean()
    assert made.text.startswith("one two one two")
