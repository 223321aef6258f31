"""Paths, filters and word times equal openai-whisper's."""

from __future__ import annotations

import copy

import numba
import numpy as np
import pytest
import torch
import whisper.timing as theirs
import whisper.tokenizer

from aii import timing as ours
from aii.tokenizer import get_tokenizer

TEXT = " My number is four, five (six)... isn't it? 数字は四です。"


@pytest.fixture(scope="module", autouse=True)
def _numba_apart() -> None:
    """openai-whisper's path search would set PyTorch's number of threads anew through OpenMP."""
    numba.config.THREADING_LAYER = "workqueue"


def _matrices():
    chance = np.random.default_rng(5)
    for rows, columns in [(1, 1), (1, 9), (9, 1), (4, 0), (16, 16), (50, 300), (200, 1500)]:
        yield chance.standard_normal((rows, columns))
        yield np.round(chance.standard_normal((rows, columns)))  # ties
        holes = chance.standard_normal((rows, columns))
        holes[chance.random(holes.shape) < 0.2] = np.inf
        yield holes
        yield np.full((rows, columns), np.nan)


@pytest.mark.parametrize("x", list(_matrices()), ids=lambda x: "x".join(map(str, x.shape)))
def test_same_path(x: np.ndarray) -> None:
    np.testing.assert_array_equal(ours.dtw_cpu(x), theirs.dtw_cpu(x.copy()))


@pytest.mark.parametrize("shape", [(3,), (4,), (10,), (1, 15), (6, 7), (2, 3, 40), (2, 3, 4, 50)])
@pytest.mark.parametrize("width", [1, 3, 7])
def test_same_median(shape: tuple[int, ...], width: int) -> None:
    x = torch.randn(*shape)
    x.view(-1)[2] = float("nan")
    expected = theirs.median_filter(x, width)
    torch.testing.assert_close(
        ours.median_filter(x, width), expected, rtol=0, atol=0, equal_nan=True
    )


def _tokenizers(model, language: str):
    arguments = dict(num_languages=model.num_languages, language=language, task="transcribe")
    return tuple(
        make(model.is_multilingual, **arguments)
        for make in (whisper.tokenizer.get_tokenizer, get_tokenizer)
    )


@pytest.mark.filterwarnings("ignore:std_mean")
@pytest.mark.parametrize("frames", [3000, 1201, 60, 2, 1])
@pytest.mark.parametrize("language", ["en", "ja"])
def test_same_alignment(pair, frames: int, language: str) -> None:
    their_tokenizer, our_tokenizer = _tokenizers(pair[1], language)
    tokens = our_tokenizer.encode(TEXT)
    mel = torch.randn(pair[1].dims.n_mels, 3000)
    expected = theirs.find_alignment(pair[0], their_tokenizer, tokens, mel, frames, qk_scale=1.5)
    found = ours.find_alignment(pair[1], our_tokenizer, tokens, mel, frames, qk_scale=1.5)
    assert [(w.word, w.tokens) for w in found] == [(w.word, w.tokens) for w in expected]
    assert [(w.start, w.end) for w in found] == [(w.start, w.end) for w in expected]
    np.testing.assert_allclose(
        [w.probability for w in found], [w.probability for w in expected], atol=1e-5
    )


def test_same_merging() -> None:
    chance = np.random.default_rng(2)
    pieces = [" one", "two", " ", "", ",", ".", ' "', '"', " (", ")", "。", " -", "-", " ¿", "?!"]
    for _ in range(300):
        words = chance.choice(pieces, size=chance.integers(0, 9)).tolist()
        one = [theirs.WordTiming(w, [i], i, i + 1, 0.5) for i, w in enumerate(words)]
        other = [ours.WordTiming(w, [i], i, i + 1, 0.5) for i, w in enumerate(words)]
        theirs.merge_punctuations(one, "\"'“¿([{-", "\"'.。,，!！?？:：”)]}、")
        ours.merge_punctuations(other, ours.PREPEND_PUNCTUATIONS, ours.APPEND_PUNCTUATIONS)
        assert [(w.word, w.tokens) for w in other] == [(w.word, w.tokens) for w in one]


def test_same_tidying(monkeypatch: pytest.MonkeyPatch) -> None:
    """Random words, pauses and segments: everything after the alignment."""
    their_tokenizer = whisper.tokenizer.get_tokenizer(True, language="en", task="transcribe")
    our_tokenizer = get_tokenizer(True, language="en", task="transcribe")
    chance = np.random.default_rng(9)
    for _ in range(300):
        count = int(chance.integers(1, 12))
        words = chance.choice([" one", " two", " six", ".", "?", ","], size=count).tolist()
        steps = chance.choice([0, 0.02, 0.3, 0.5, 1.5, 4.0], size=count + 1)
        edges = np.round(np.cumsum(steps), 2)
        last = float(chance.uniform(0, 20))
        cut = int(chance.integers(0, count + 1))
        tokens = [our_tokenizer.encode(word) for word in words]
        segments = []
        for part in (tokens[:cut], tokens[cut:]):
            start, end = sorted(np.round(chance.uniform(20, 40, 2), 2).tolist())
            flat = [50364, *(t for word in part for t in word), 51000]
            segments.append({"seek": 2000, "start": start, "end": end, "tokens": flat})
        results = []
        for module, tokenizer in ((theirs, their_tokenizer), (ours, our_tokenizer)):
            timings = [
                module.WordTiming(w, list(t), float(a), float(b), 0.5)
                for w, t, a, b in zip(words, tokens, edges, edges[1:], strict=False)
            ]
            monkeypatch.setattr(module, "find_alignment", lambda *_, found=timings, **__: found)
            mine = copy.deepcopy(segments)
            module.add_word_timestamps(
                segments=mine, model=None, tokenizer=tokenizer, mel=None, num_frames=3000,
                last_speech_timestamp=last,
            )  # fmt: skip
            results.append(mine)
        assert results[0] == results[1]
