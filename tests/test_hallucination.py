"""What is taken for invented, and which silence is skipped."""

from __future__ import annotations

from typing import Any

import pytest

from aii.hallucination import (
    Place,
    after_last_word,
    is_segment_anomaly,
    last_end,
    skip_hallucinations,
    word_anomaly_score,
)


def _words(*times: tuple[float, float], odds: float = 0.9) -> list[dict[str, Any]]:
    return [{"word": " w", "start": a, "end": b, "probability": odds} for a, b in times]


def _segment(*times: tuple[float, float], odds: float = 0.9) -> dict[str, Any]:
    return {"start": times[0][0], "end": times[-1][1], "words": _words(*times, odds=odds)}


@pytest.mark.parametrize(
    "start, end, odds, score",
    [(0, 0.5, 0.9, 0), (0, 0.5, 0.1, 1), (0, 0.033, 0.9, 1.5), (0, 4.5, 0.9, 2.5), (0, 3, 0, 2)],
)
def test_odd_words(start: float, end: float, odds: float, score: float) -> None:
    (word,) = _words((start, end), odds=odds)
    assert word_anomaly_score(word) == pytest.approx(score)


def test_odd_segments() -> None:
    assert not is_segment_anomaly(None)
    assert not is_segment_anomaly({"words": []})
    assert not is_segment_anomaly(_segment((0, 0.4), (0.4, 0.9)))
    assert is_segment_anomaly(_segment((0, 0.4), (0.4, 0.9), odds=0.05))
    late = _segment(*[(i, i + 0.4) for i in range(8)], (8, 30))
    assert not is_segment_anomaly(late)  # the ninth word does not count


def test_where_words_end() -> None:
    place = Place(seek=1000, size=3000, capacity=3000, content=9000)
    found = [_segment((11, 12.004)), {"start": 13, "end": 14, "words": []}]
    assert last_end(found) == 12.004
    assert last_end(found[1:]) == 14
    assert last_end([]) is None
    assert after_last_word(found, place) == 1200
    assert after_last_word([_segment((9, 10))], place) is None


PLACE = Place(seek=0, size=3000, capacity=3000, content=6000)


def _skip(found: list[dict[str, Any]], next_seek: int = 3000, **given: Any):
    settings = dict(threshold=2.0, last_speech=0.0, closed=True)
    return skip_hallucinations(found, PLACE, next_seek, **{**settings, **given})


def test_good_segments_are_kept() -> None:
    found = [_segment((1, 1.5), (2, 2.5))]
    assert _skip(found) == (found, 3000)
    assert _skip(found, closed=False) == (found, 250)  # silence follows: go on behind the word
    full = [_segment((1, 1.5), (28.5, 29))]
    assert _skip(full, closed=False) == (full, 3000)  # hardly any: the window is done


def test_silence_before_an_invented_start_is_skipped() -> None:
    assert _skip([_segment((5, 5.4), odds=0.05)]) == (None, 500)


def test_invented_text_in_silence_is_dropped() -> None:
    good, invented, more = (
        _segment((0.5, 1)),
        _segment((10, 10.4), odds=0.05),
        _segment((20, 20.5)),
    )
    assert _skip([good, invented, more]) == ([good], 1000)
    near = _segment((1.2, 1.6), odds=0.05)
    close = _segment((1.8, 2.4))
    assert _skip([good, near, close]) == ([good, near, close], 3000)  # not in silence


def test_invented_text_at_the_end_of_the_recording_ends_it() -> None:
    place = Place(seek=3000, size=1000, capacity=1000, content=4000)
    found = [_segment((31, 31.5)), _segment((38, 39.5), odds=0.01)]
    kept = skip_hallucinations(found, place, 4000, threshold=2.0, last_speech=29, closed=True)
    assert kept == (found[:1], 4000)
