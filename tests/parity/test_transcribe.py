"""Dictionaries of ``transcribe`` equal openai-whisper's on the same weights, on 95 s of audio."""

from __future__ import annotations

import copy
import json
import math
from typing import Any

import numba
import numpy as np
import pytest
import torch

from aii.transcribe import transcribe

RATE = 16_000
CASES: dict[str, dict[str, Any]] = {
    "detected language": dict(language=None),
    "all temperatures": dict(temperature=(0.0, 0.2, 0.4, 0.6, 0.8, 1.0)),
    "one temperature": dict(temperature=0.0, logprob_threshold=None),
    "no fallback": dict(compression_ratio_threshold=None, logprob_threshold=None),
    "beams": dict(beam_size=3, patience=1.5, best_of=2, temperature=(0.0, 0.7)),
    "alone": dict(condition_on_previous_text=False, initial_prompt="four five six"),
    "carried": dict(
        initial_prompt="press one", carry_initial_prompt=True, temperature=0.4, best_of=2
    ),
    "long prompt": dict(initial_prompt="nine " * 230, carry_initial_prompt=True, temperature=0),
    "clips": dict(clip_timestamps="3,17.5,12,40.01,90"),
    "clip list": dict(clip_timestamps=[1.004, 5, 50.5, 50.52, 94], temperature=0),
    "no silence": dict(no_speech_threshold=None),
    "all silence": dict(no_speech_threshold=0.0, logprob_threshold=None),
    "some silence": dict(no_speech_threshold=1e-5, logprob_threshold=-4.0, temperature=(0, 1.0)),
    "text only": dict(without_timestamps=True, temperature=0),
    "translate": dict(task="translate", temperature=0, language="Spanish"),
}
WORD_CASES: dict[str, dict[str, Any]] = {
    "fallback": dict(),
    "text only": dict(without_timestamps=True),
    "clips": dict(clip_timestamps="2,2.02,3,3.05,4,40", temperature=0),
    "no merging": dict(prepend_punctuations="", append_punctuations="", temperature=0.3),
    "without spaces": dict(language="ja", temperature=0.3),
    "hallucinations": dict(hallucination_silence_threshold=0.5, temperature=0.3),
    "hallucinations, patient": dict(hallucination_silence_threshold=4.0, temperature=0.3),
}
BRIEF = ("multilingual", "english", "large-v3", "wide")
CHOSEN = {
    "turbo": tuple(CASES),
    "embedded": ("detected language", "no fallback", "beams", "carried", "clips", "text only"),
    **dict.fromkeys(
        ("multilingual", "english", "large-v3", "wide"), ("detected language", "beams")
    ),
}
CHOSEN_WORDS = {
    "turbo": tuple(WORD_CASES),
    "embedded": ("fallback", "clips", "hallucinations"),
    **dict.fromkeys(BRIEF, ("fallback",)),
}


def _listed(chosen: dict[str, tuple[str, ...]]) -> list[tuple[str, str]]:
    return [(pair, case) for pair, cases in chosen.items() for case in cases]


def _speech_like(seconds: float) -> np.ndarray:
    """Syllables of voiced sound, with pauses from a moment to many seconds between phrases."""
    chance = np.random.default_rng(7)
    pieces: list[np.ndarray] = []
    missing = round(seconds * RATE)
    while missing > 0:
        length = round(chance.uniform(0.1, 0.35) * RATE)
        time = np.arange(length) / RATE
        pitch = chance.uniform(90, 220)
        harmonics = np.arange(1, 25)
        formants = chance.uniform([300, 900, 2200], [800, 2000, 3000])
        gains = sum(np.exp(-(((pitch * harmonics - f) / 200) ** 2)) for f in formants)
        voice = (gains[:, None] * np.sin(2 * np.pi * pitch * harmonics[:, None] * time)).sum(0)
        voice *= np.hanning(length) * chance.uniform(0.05, 0.2)
        pause = chance.choice([0.03, 0.4, 2.5, 9.0], p=[0.8, 0.14, 0.04, 0.02])
        pieces += [voice, np.zeros(round(pause * RATE))]
        missing -= sum(map(len, pieces[-2:]))
    audio = np.concatenate(pieces)[: round(seconds * RATE)]
    return (audio + chance.normal(0, 1e-4, len(audio))).astype(np.float32)


AUDIO = _speech_like(95.013)


@pytest.fixture(scope="module", autouse=True)
def _numba_apart() -> None:
    """openai-whisper's path search would set PyTorch's number of threads anew through OpenMP."""
    numba.config.THREADING_LAYER = "workqueue"
    assert torch.get_num_threads() == 1


@pytest.fixture(scope="module")
def talkers(pair):
    """The pair, its random weights bent so that it writes words, times and ends in any order."""
    theirs, ours = pair
    if ours.dims.n_audio_layer == 4:  # the embedded model talks as it is
        return pair
    theirs, ours = copy.deepcopy(theirs), copy.deepcopy(ours)
    chance = torch.Generator().manual_seed(3)
    decoder, width = theirs.decoder, ours.dims.n_text_state
    time, end = torch.nn.functional.normalize(torch.randn(2, width, generator=chance))
    wish = torch.rand(ours.dims.n_text_ctx, 1, generator=chance)  # of each position
    with torch.no_grad():
        decoder.ln.weight.fill_(1.0)
        decoder.ln.bias.zero_()
        decoder.positional_embedding += torch.where(wish < 0.6, -0.6, 1.2) * time
        decoder.positional_embedding += torch.where(wish < 0.96, -0.6, 1.8) * end
        decoder.token_embedding.weight[-1501:] += 1.5 * time
        decoder.token_embedding.weight[50257 if ours.is_multilingual else 50256] += 4 * end
    ours.load_state_dict(theirs.state_dict())
    return theirs, ours


def _same(expected: Any, found: Any, name: str = "") -> None:
    if isinstance(expected, dict):
        assert list(found) == list(expected), name
        for key, value in expected.items():
            _same(value, found[key], f"{name}.{key}")
    elif isinstance(expected, list):
        assert len(found) == len(expected), name
        for i, (one, other) in enumerate(zip(expected, found, strict=True)):
            _same(one, other, f"{name}[{i}]")
    elif name.endswith(("avg_logprob", "no_speech_prob", "probability")):
        assert math.isclose(found, expected, abs_tol=1e-4), name
    else:
        assert found == expected, name


def _compare(talkers, audio: np.ndarray, options: dict[str, Any]) -> dict[str, Any]:
    theirs, ours = talkers
    defaults = {"sample_len": 20, "temperature": (0.0, 0.8), "language": "en", "fp16": False}
    options = {**defaults, **options}
    if not ours.is_multilingual:
        options["language"] = "en"
    torch.manual_seed(11)
    expected = theirs.transcribe(audio, **options)
    torch.manual_seed(11)
    found = transcribe(ours, audio, **options)
    _same(expected, found)
    assert repr(found) == repr(_through_json(found))
    return found


def _through_json(result: dict[str, Any]) -> dict[str, Any]:
    """What a reader of the JSON file gets: plain numbers and text only."""
    return json.loads(json.dumps(result))


@pytest.mark.parametrize("pair, case", _listed(CHOSEN), indirect=["pair"])
def test_same_dictionary(talkers, case: str) -> None:
    found = _compare(talkers, AUDIO, CASES[case])
    assert "silence" in case or len(found["segments"]) > 2


@pytest.mark.parametrize("pair, case", _listed(CHOSEN_WORDS), indirect=["pair"])
def test_same_words(talkers, case: str) -> None:
    options = {"word_timestamps": True, "condition_on_previous_text": False, **WORD_CASES[case]}
    found = _compare(talkers, AUDIO, options)
    assert all("words" in segment for segment in found["segments"])
    words = sum(len(segment["words"]) for segment in found["segments"])
    assert "hallucinations" in case or words > 2
