"""Telling invented words from spoken ones by their timing, and skipping the silence they sit in.

A model that hears nothing tends to write something. Such words are unlikely, very short or very
long. The rules and numbers are those of openai-whisper's ``hallucination_silence_threshold``.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from aii.mel import FRAMES_PER_SECOND, HOP_LENGTH, SAMPLE_RATE
from aii.timing import APPEND_PUNCTUATIONS, PREPEND_PUNCTUATIONS

_PUNCTUATION = PREPEND_PUNCTUATIONS + APPEND_PUNCTUATIONS
_WORDS_JUDGED = 8
_UNLIKELY = 0.15  # probability
_SHORT, _LONG = 0.133, 2.0  # seconds
_EDGE = 2.0  # seconds from the window's edge in which silence is assumed beyond it

Segment = dict[str, Any]


def seconds(frames: int) -> float:
    """Seconds of a number of frames of 10 ms."""
    return float(frames * HOP_LENGTH / SAMPLE_RATE)


def last_end(segments: list[Segment]) -> float | None:
    """Where the last word ends, or the last segment if there are no words."""
    for segment in reversed(segments):
        if segment["words"]:
            return segment["words"][-1]["end"]
    return segments[-1]["end"] if segments else None


def first_with_words(segments: Iterable[Segment]) -> Segment | None:
    """The first segment that has words."""
    return next((segment for segment in segments if segment["words"]), None)


def word_anomaly_score(word: dict[str, Any]) -> float:
    """How odd a word is: 0 is normal; 1 for an unlikely one, more by being too short or long."""
    duration = word["end"] - word["start"]
    score = 1.0 if word.get("probability", 0.0) < _UNLIKELY else 0.0
    if duration < _SHORT:
        score += (_SHORT - duration) * 15
    if duration > _LONG:
        score += duration - _LONG
    return score


def is_segment_anomaly(segment: Segment | None) -> bool:
    """Whether a segment's first eight words look invented."""
    if segment is None or not segment["words"]:
        return False
    words = [word for word in segment["words"] if word["word"] not in _PUNCTUATION]
    words = words[:_WORDS_JUDGED]
    score = sum(word_anomaly_score(word) for word in words)
    return score >= 3 or score + 0.01 >= len(words)


@dataclass(frozen=True)
class Place:
    """Where a window lies in the recording, in frames of 10 ms.

    Attributes:
        seek: its first frame.
        size: its frames of audio.
        capacity: how many frames a window can have.
        content: frames of the whole recording.
    """

    seek: int
    size: int
    capacity: int
    content: int


def after_last_word(segments: list[Segment], place: Place) -> int | None:
    """The frame at which the last word ends, if that lies within or behind the window."""
    end = last_end(segments)
    if end is None or end <= seconds(place.seek):
        return None
    return round(end * FRAMES_PER_SECOND)


def skip_hallucinations(
    segments: list[Segment],
    place: Place,
    next_seek: int,
    *,
    threshold: float,
    last_speech: float,
    closed: bool,
) -> tuple[list[Segment] | None, int]:
    """Drop what is probably invented amid silence longer than ``threshold`` seconds.

    Args:
        segments: the window's, with words.
        place: where the window lies.
        next_seek: where the next window would begin.
        threshold: seconds of silence.
        last_speech: where the last word before the window ended, in seconds.
        closed: the window ended with a single timestamp.

    Returns:
        The segments to keep, or None to forget the window, and the frame to go on from.
    """
    offset = seconds(place.seek)
    window_end = seconds(place.seek + place.capacity)
    word_end = after_last_word(segments, place)
    if not closed and word_end is not None:
        silence_left = window_end - (last_end(segments) or 0.0) > threshold
        next_seek = word_end if silence_left else place.seek + place.size
    first = first_with_words(segments)
    if first is not None and is_segment_anomaly(first):
        gap = first["start"] - offset
        if gap > threshold:  # begin again behind the silence
            return None, place.seek + round(gap * FRAMES_PER_SECOND)
    before = last_speech
    for i, segment in enumerate(segments):
        if not segment["words"]:
            continue
        if is_segment_anomaly(segment):
            following = first_with_words(segments[i + 1 :])
            limit = offset + place.size * HOP_LENGTH / SAMPLE_RATE
            after = following["words"][0]["start"] if following else limit
            silence_before = (
                segment["start"] - before > threshold
                or segment["start"] < threshold
                or segment["start"] - offset < _EDGE
            )
            silence_after = (
                after - segment["end"] > threshold
                or is_segment_anomaly(following)
                or window_end - segment["end"] < _EDGE
            )
            if silence_before and silence_after:
                next_seek = round(max(offset + 1, segment["start"]) * FRAMES_PER_SECOND)
                if seconds(place.content) - segment["end"] < threshold:
                    next_seek = place.content
                return segments[:i], next_seek
        before = segment["end"]
    return segments, next_seek
