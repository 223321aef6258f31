"""The parts of the grammar benchmark; its figures are the model's and are not tested."""

from __future__ import annotations

import json

import numpy as np
import pytest

from benchmarks import digit_grammar
from benchmarks.digit_grammar import WAYS, line, pink, strings, telephone, written


def recordings() -> dict[int, list[np.ndarray]]:
    return {digit: [np.full(1600, 0.1 * (digit + 1), np.float32)] for digit in range(10)}


def test_strings_say_what_they_hold():
    made = strings(recordings(), 50, 4, seed=1)
    assert {len(said) for _, said in made} == {1, 2, 3, 4}
    for samples, said in made:
        assert samples.dtype == np.float32
        edges = np.flatnonzero(np.diff((samples != 0).astype(int)) == 1)
        assert len(edges) == len(said)
    again = strings(recordings(), 50, 4, seed=1)
    assert all(
        a[1] == b[1] and np.array_equal(a[0], b[0]) for a, b in zip(made, again, strict=True)
    )


def test_the_telephone_passes_its_band_and_noise_has_its_level():
    time = np.arange(16_000) / 16_000
    chance = np.random.default_rng(1)
    for frequency, passes in ((100, False), (1000, True), (5000, False)):
        tone = (0.5 * np.sin(2 * np.pi * frequency * time)).astype(np.float32)
        assert (telephone(tone, None, chance).std() > 0.3) == passes
    assert pink(16_000, chance).std() == pytest.approx(1.0)
    tone = (0.1 * np.sin(2 * np.pi * 1000 * time)).astype(np.float32)
    noisy = [telephone(tone, level, np.random.default_rng(2)) - tone for level in (20.0, 0.0)]
    assert noisy[1].std() / noisy[0].std() == pytest.approx(10.0, rel=0.05)


def test_a_mu_law_line_changes_a_signal_by_little():
    time = np.arange(16_000) / 16_000
    tone = (0.3 * np.sin(2 * np.pi * 1013.7 * time)).astype(np.float32)
    chance = np.random.default_rng(1)
    heard = line(tone, "mu-law", chance)
    error = (heard - line(tone, "no noise", chance))[1000:-1000]
    assert len(heard) == len(tone)
    assert 30 < 20 * np.log10(tone.std() / error.std()) < 45  # G.711 has some 38 dB


@pytest.mark.parametrize(
    "text, same", [(" Four, two.", "four two"), ("42", "four two"), ("oh 7", "zero seven"),
                   ("four-two", "four two"), ("hello 7", "hello seven"), ("", "")],
)  # fmt: skip
def test_figures_and_words_are_the_same_word(text: str, same: str):
    assert written(text) == same


def test_it_runs_and_every_answer_of_a_grammar_is_in_it(shared_data, capsys, monkeypatch):
    monkeypatch.setenv("AII_TEST_DATA", str(shared_data))
    if not (shared_data / digit_grammar.RECORDINGS).is_file():
        pytest.skip(f"{digit_grammar.RECORDINGS} is not at {shared_data}")
    heard: list[tuple[str, str]] = []
    measure = digit_grammar.measure

    def watched(*args):
        ways = measure(*args)
        heard.extend((way, text) for way, pairs in ways.items() for _, text in pairs)
        return ways

    monkeypatch.setattr(digit_grammar, "measure", watched)
    assert digit_grammar.main(["--quick"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {line["benchmark"] for line in lines} == {"digit_grammar"}
    assert len(lines) == len(WAYS) * 2
    assert all(line["value"] >= 0 for line in lines)
    names = set(digit_grammar.NAMES)
    kept = [way for way in WAYS if way not in ("open", "question, no grammar")]
    answers = [text.split() for way, text in heard if way in kept]
    assert all(set(words) <= names and len(words) <= 4 for words in answers)
