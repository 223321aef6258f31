"""Path search, median filter, punctuation, and the tidying of word times."""

from __future__ import annotations

import copy
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import scipy.ndimage
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from aii.errors import InputError
from aii.timing import (
    WordTiming,
    add_word_timestamps,
    alignment_matrix,
    dtw,
    dtw_cpu,
    dtw_cuda,
    find_alignment,
    median_filter,
    merge_punctuations,
)
from aii.tokenizer import get_tokenizer


def _slow_path(x: np.ndarray) -> list[tuple[int, int]]:
    """The path by the textbook's recursion, cell by cell."""
    rows, columns = x.shape
    cost = np.full((rows + 1, columns + 1), np.inf)
    cost[0, 0] = 0
    came = {}
    for i in range(1, rows + 1):
        for j in range(1, columns + 1):
            corner, above, left = cost[i - 1, j - 1], cost[i - 1, j], cost[i, j - 1]
            if corner < above and corner < left:
                best, came[i, j] = corner, (i - 1, j - 1)
            elif above < corner and above < left:
                best, came[i, j] = above, (i - 1, j)
            else:
                best, came[i, j] = left, (i, j - 1)
            cost[i, j] = x[i - 1, j - 1] + best
    path, cell = [], (rows, columns)
    while cell[0] > 0 and cell[1] > 0:
        path.append((cell[0] - 1, cell[1] - 1))
        cell = came[cell]
    return path[::-1]


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 12), st.integers(1, 15), st.integers(0, 2**32 - 1), st.booleans())
def test_path_is_the_textbooks(rows: int, columns: int, seed: int, ties: bool) -> None:
    x = np.random.default_rng(seed).standard_normal((rows, columns))
    x = np.round(x) if ties else x
    x[:, 0] += 0.25  # without ties at the border, where the textbook leaves the matrix
    x[0] += 0.125
    expected = _slow_path(x)
    if expected[0] != (0, 0):
        return
    assert [tuple(cell) for cell in dtw_cpu(x).T] == expected


@pytest.mark.parametrize("rows, columns", [(10, 20), (32, 16), (123, 1500), (234, 189)])
def test_path_that_is_drawn_is_found(rows: int, columns: int) -> None:
    chance = np.random.default_rng(42)
    down = chance.permutation([True] * (rows - 1) + [False] * (columns - 1))
    drawn = np.array([[0, 0], *np.cumsum(np.stack([down, ~down], 1), axis=0)]).T
    x = chance.random((rows, columns), dtype=np.float32)
    x[tuple(drawn)] -= 1
    found = dtw_cpu(x)
    np.testing.assert_array_equal(found, drawn)
    for other in (dtw, dtw_cuda):
        np.testing.assert_array_equal(other(torch.from_numpy(x)), found)


def test_path_without_columns_goes_down() -> None:
    assert dtw_cpu(np.zeros((3, 0))).tolist() == [[0, 1, 2], [-1, -1, -1]]


def test_path_through_what_is_no_number() -> None:
    found = dtw_cpu(np.full((2, 3), np.nan))
    assert found[:, -1].tolist() == [1, 2]
    assert (np.diff(found).sum(axis=0) >= 1).all()


@pytest.mark.parametrize("shape", [(10,), (1, 15), (4, 5, 345), (6, 12, 24, 512), (2, 2, 2, 2, 9)])
@pytest.mark.parametrize("width", [3, 5, 7, 13])
def test_median_filter_is_scipys(shape: tuple[int, ...], width: int) -> None:
    x = torch.randn(*shape)
    size = [1] * (len(shape) - 1) + [width]
    expected = scipy.ndimage.median_filter(x.numpy(), size, mode="mirror")
    np.testing.assert_array_equal(median_filter(x, width).numpy(), expected)


def test_median_filter_of_few_values_changes_nothing() -> None:
    x = torch.randn(2, 3)
    assert median_filter(x, 7) is x


@pytest.mark.parametrize("width", [2, 0, -3])
def test_median_filter_needs_an_odd_width(width: int) -> None:
    with pytest.raises(InputError, match="odd"):
        median_filter(torch.randn(20), width)


def _timings(*words: str) -> list[WordTiming]:
    return [WordTiming(word, [i], i, i + 1, 0.5) for i, word in enumerate(words)]


@pytest.mark.parametrize(
    "words, expected",
    [
        ([" four", ",", " five", "."], [" four,", "", " five.", ""]),
        ([" say", ' "', " no", '"', "."], [" say", "", ' " no".', "", ""]),
        ([" (", " -", " one"], ["", "", " ( - one"]),
        ([" one", "-", "two"], [" one", "-", "two"]),
        ([","], [","]),
        ([], []),
    ],
)
def test_punctuation_joins_its_word(words: list[str], expected: list[str]) -> None:
    alignment = _timings(*words)
    merge_punctuations(alignment, "\"'([{-", "\"'.,!?")
    assert [item.word for item in alignment] == expected
    assert sorted(t for item in alignment for t in item.tokens) == list(range(len(words)))
    assert all(bool(item.tokens) == bool(item.word) for item in alignment)


# -- words of a window ------------------------------------------------------------------------

TOKENIZER = get_tokenizer(True, language="en")


def _add(monkeypatch: pytest.MonkeyPatch, timings: list[tuple[str, float, float]], **given: Any):
    """The segments after their words came out as ``timings``; by default one from 0 to 10 s."""
    alignment = [WordTiming(w, TOKENIZER.encode(w), a, b, 0.9) for w, a, b in timings]
    monkeypatch.setitem(
        add_word_timestamps.__globals__, "find_alignment", lambda *_, **__: copy.deepcopy(alignment)
    )
    text = "".join(w for w, _, _ in timings)
    whole = {"seek": 0, "start": 0.0, "end": 10.0, "tokens": TOKENIZER.encode(text)}
    segments = given.pop("segments", [whole])
    add_word_timestamps(
        segments=segments,
        model=None,
        tokenizer=TOKENIZER,
        mel=torch.zeros(80, 3000),
        num_frames=1000,
        last_speech_timestamp=given.pop("last_speech", 0.0),
    )
    return segments


def _times(segment: dict[str, Any]) -> list[tuple[str, float, float]]:
    return [(word["word"], word["start"], word["end"]) for word in segment["words"]]


def test_words_are_dealt_to_their_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    segments = [
        {"seek": 200, "start": 2.0, "end": 3.2, "tokens": [50364, *TOKENIZER.encode(" one two")]},
        {"seek": 200, "start": 3.2, "end": 4.0, "tokens": [*TOKENIZER.encode(" three."), 50464]},
    ]
    words = [(" one", 0.1, 0.4), (" two", 0.4, 0.9), (" three", 1.3, 1.7), (".", 1.7, 1.7)]
    first, second = _add(monkeypatch, words, segments=segments, last_speech=2.0)
    assert _times(first) == [(" one", 2.1, 2.4), (" two", 2.4, 2.9)]
    assert _times(second) == [(" three.", 3.3, 3.7)]
    assert (first["start"], first["end"]) == (2.1, 2.9)
    assert (second["start"], second["end"]) == (3.3, 3.7)


def test_pause_is_taken_out_of_a_full_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    words = [(" one", 0, 0.5), (" two", 0.5, 1), (".", 1, 4), (" three", 4, 4.5)]
    (segment,) = _add(monkeypatch, words)
    assert _times(segment) == [(" one", 0, 0.5), (" two.", 0.5, 1), (" three", 4, 4.5)]


def test_pause_is_taken_out_of_the_word_after_a_full_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    words = [(" one", 0, 0.5), (".", 0.5, 0.5), (" two", 0.5, 4.5), (" six", 4.5, 5)]
    (segment,) = _add(monkeypatch, words)
    assert _times(segment)[1] == (" two", 3.5, 4.5)


def test_pause_before_a_segment_is_taken_out_of_its_first_word(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    words = [(" one", 0, 5), (" two", 5, 5.5), (" three", 5.5, 6)]
    (segment,) = _add(monkeypatch, words)
    assert _times(segment)[0] == (" one", 4, 5)
    assert segment["start"] == 4


def test_pause_over_two_words(monkeypatch: pytest.MonkeyPatch) -> None:
    words = [(" one", 0, 3), (" two", 3, 7), (" six", 7, 7.5), (" ten", 7.5, 8), (".", 8, 8.5)]
    (segment,) = _add(monkeypatch, words)
    assert _times(segment)[:2] == [(" one", 5, 6), (" two", 6, 7)]


def test_segment_that_starts_late_or_ends_early_limits_its_words(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    words = [(" one", 1, 2.25), (" two", 2.25, 3), (" three", 3, 5)]
    tokens = TOKENIZER.encode(" one two three")
    segments = [{"seek": 0, "start": 2.0, "end": 4.0, "tokens": tokens}]
    (segment,) = _add(monkeypatch, words, segments=segments, last_speech=1.0)
    assert _times(segment) == [(" one", 1.55, 2.25), (" two", 2.25, 3), (" three", 3, 4)]
    assert (segment["start"], segment["end"]) == (2.0, 4.0)


def test_nothing_to_time() -> None:
    nothing: list[dict[str, Any]] = []
    arguments: dict[str, Any] = dict(model=None, tokenizer=TOKENIZER, mel=None, num_frames=1)
    add_word_timestamps(segments=nothing, last_speech_timestamp=0.0, **arguments)
    assert nothing == []
    silent = [{"seek": 0, "start": 0.0, "end": 1.0, "tokens": [50364, 50414]}]
    add_word_timestamps(segments=silent, last_speech_timestamp=0.0, **arguments)
    assert silent[0]["words"] == []
    assert (silent[0]["start"], silent[0]["end"]) == (0.0, 1.0)


# -- on a network -----------------------------------------------------------------------------


def test_alignment_covers_every_token(tiny_model) -> None:
    tokens = TOKENIZER.encode(" four five six, seven")
    words = find_alignment(tiny_model, TOKENIZER, tokens, torch.randn(80, 3000), 500)
    assert [t for word in words for t in word.tokens] == tokens
    assert all(0 <= w.start <= w.end <= 5.0 and 0 <= w.probability <= 1 for w in words)
    assert all(a.end == b.start for a, b in pairwise(words))
    assert find_alignment(tiny_model, TOKENIZER, [], torch.randn(80, 3000), 500) == []


def test_encoded_audio_saves_encoding(tiny_model) -> None:
    mel, tokens = torch.randn(80, 3000), TOKENIZER.encode(" four five six")
    with torch.no_grad():
        features = tiny_model.encoder(mel[None])[0]
    given = find_alignment(tiny_model, TOKENIZER, tokens, mel, 900, audio_features=features)
    assert given == find_alignment(tiny_model, TOKENIZER, tokens, mel, 900)


def test_matrix_has_a_row_for_each_token_and_the_end(tiny_model) -> None:
    tokens = TOKENIZER.encode(" four five six")
    with torch.no_grad():
        features = tiny_model.encoder(torch.randn(1, 80, 1200))[0]
    matrix, odds = alignment_matrix(tiny_model, TOKENIZER, tokens, features, 1100)
    assert matrix.shape == (len(tokens) + 1, 550)
    assert len(odds) == len(tokens)
    assert matrix.isfinite().all()


@pytest.mark.parametrize("frames", [1, 2, 3])
def test_window_of_next_to_nothing(tiny_model, frames: int) -> None:
    """30 ms of audio have one frame of 20 ms, or none; times stay inside the recording."""
    tokens = TOKENIZER.encode(" four five")
    segments = [{"seek": 0, "start": 0.0, "end": 0.5, "tokens": tokens}]
    add_word_timestamps(
        segments=segments,
        model=tiny_model,
        tokenizer=TOKENIZER,
        mel=torch.randn(80, 3000),
        num_frames=frames,
        last_speech_timestamp=0.0,
    )
    assert [word["word"] for word in segments[0]["words"]] == [" four", " five"]
    assert all(0 <= word["start"] <= word["end"] <= 0.5 for word in segments[0]["words"])


def test_a_text_longer_than_the_decoder_is_timed_as_far_as_it_goes(tiny_model) -> None:
    """Without timestamps a loop may fill the whole context; start and end need places too."""
    tokenizer = get_tokenizer(True, language="en", task="transcribe")
    tokens = tokenizer.encode(" one two" * 223)
    found = find_alignment(tiny_model, tokenizer, tokens[:445], torch.randn(80, 200), 200)
    assert sum(len(item.tokens) for item in found) == 448 - 5
    short = find_alignment(tiny_model, tokenizer, tokens[:443], torch.randn(80, 200), 200)
    assert sum(len(item.tokens) for item in short) == 443
