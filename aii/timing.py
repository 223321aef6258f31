"""When each word was spoken, read off the decoder's attention to the audio.

Some heads of the decoder look at the place in the audio that the next token comes from. Their
attention, sharpened and averaged, is a matrix of tokens by frames of 20 ms; the cheapest monotone
path through it (dynamic time warping, Sakoe and Chiba 1978) says where each token begins.

    tokens -> cross-attention -> softmax, z-score, median -> path -> words -> tidied word times

The results are those of openai-whisper 20250625. Attention is collected by an
:class:`~aii.attention.AttentionRecorder` that belongs to one call, so calls never see each other's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from aii.attention import AttentionRecorder
from aii.errors import InputError
from aii.mel import HOP_LENGTH, SAMPLE_RATE, TOKENS_PER_SECOND
from aii.tokenizer import Tokenizer

if TYPE_CHECKING:
    from aii.model import Whisper

PREPEND_PUNCTUATIONS = "\"'“¿([{-"
"""Marks that belong to the word after them."""
APPEND_PUNCTUATIONS = "\"'.。,，!！?？:：”)]}、"
"""Marks that belong to the word before them."""

_SENTENCE_ENDS = ".。!！?？"
_LONGEST_TYPICAL_WORD = 0.7  # seconds; a median above it says more about pauses than about words
_DIAGONAL, _DOWN, _RIGHT = 0, 1, 2  # which way a path came to a cell


# -- numbers ----------------------------------------------------------------------------------


def median_filter(x: Tensor, filter_width: int) -> Tensor:
    """Median over ``filter_width`` neighbours on the last axis, mirrored at the edges.

    Args:
        x: any shape (..., N). If N is at most half the width it comes back as it is.
        filter_width: an odd number.

    Raises:
        InputError: ``filter_width`` is even or not positive.
    """
    length, reach = x.shape[-1], filter_width // 2
    if length <= reach:
        return x
    if filter_width < 1 or filter_width % 2 == 0:
        raise InputError(f"filter_width must be a positive odd number, not {filter_width}")
    places = torch.arange(-reach, length + reach, device=x.device).abs()
    places = torch.where(places < length, places, 2 * (length - 1) - places)
    neighbours = x[..., places].unfold(-1, filter_width, 1)
    return neighbours.sort(dim=-1).values[..., reach]


def dtw_cpu(x: np.ndarray) -> np.ndarray:
    """The cheapest path from the first to the last cell of a cost matrix.

    A path moves down, right or diagonally. All cells of an anti-diagonal depend only on the two
    before it, so each is computed at once.

    Args:
        x: costs (N, M).

    Returns:
        (2, L) integers: row and column of each cell of the path, from (0, 0) to (N-1, M-1). At a
        tie between the ways to a cell, the path comes from the left.
    """
    rows, columns = x.shape
    mirrored = np.fliplr(np.asarray(x, np.float64))
    steps = np.full((rows + columns + 1, rows + 1), _RIGHT, np.int8)  # by diagonal, then by row
    before = np.full(rows + 1, np.inf)
    last = before.copy()
    before[0] = 0.0  # the corner outside the matrix, where every path begins
    for diagonal in range(2, rows + columns + 1):
        low, high = max(1, diagonal - columns), min(rows, diagonal - 1) + 1
        came = (before[low - 1 : high - 1], last[low - 1 : high - 1], last[low:high])
        corner, above, left = came
        step = np.where((above < corner) & (above < left), _DOWN, _RIGHT)
        step[(corner < above) & (corner < left)] = _DIAGONAL
        cost = np.full(rows + 1, np.inf)
        cost[low:high] = mirrored.diagonal(columns + 1 - diagonal) + np.choose(step, came)
        steps[diagonal, low:high] = step
        before, last = last, cost
    row, column = np.indices((rows + 1, columns + 1))
    return backtrace(steps[row + column, row])


def backtrace(trace: np.ndarray) -> np.ndarray:
    """The path to the last cell, by which way it came to each cell.

    Args:
        trace: (N + 1, M + 1), counted from 1: 0 for diagonally, 1 for from above, 2 for from the
            left. What is in row and column 0 does not count: the path follows them to the corner.

    Returns:
        (2, L) as :func:`dtw_cpu`.
    """
    row, column = trace.shape[0] - 1, trace.shape[1] - 1
    path = []
    while row > 0 or column > 0:
        path.append((row - 1, column - 1))
        step = _RIGHT if row == 0 else _DOWN if column == 0 else trace[row, column]
        row -= step != _RIGHT
        column -= step != _DOWN
    return np.array(path[::-1], dtype=np.int64).reshape(-1, 2).T


def dtw_cuda(x: Tensor, BLOCK_SIZE: int = 1024) -> np.ndarray:  # noqa: N803
    """:func:`dtw_cpu` of a tensor (N, M) on an accelerator; the path is found on the CPU.

    Args:
        BLOCK_SIZE: of openai-whisper's kernel; without meaning here, there is no limit.
    """
    return dtw(x)


def dtw(x: Tensor) -> np.ndarray:
    """:func:`dtw_cpu` of a tensor (N, M) on any device."""
    return dtw_cpu(x.detach().double().cpu().numpy())


# -- words ------------------------------------------------------------------------------------


@dataclass
class WordTiming:
    """A word, its tokens, start and end in seconds from the window's start, and probability."""

    word: str
    tokens: list[int]
    start: float
    end: float
    probability: float


@torch.no_grad()
def alignment_matrix(
    model: Whisper,
    tokenizer: Tokenizer,
    text_tokens: Sequence[int],
    audio_features: Tensor,
    num_frames: int,
    *,
    medfilt_width: int = 7,
    qk_scale: float = 1.0,
) -> tuple[Tensor, list[float]]:
    """How strongly each token of a text is tied to each 20 ms of audio.

    The attention of the alignment heads becomes each frame's z-score over the tokens, smoothed
    over frames and averaged over heads.

    Args:
        text_tokens: T tokens of text, without timestamps.
        audio_features: (S, D) encoded audio.
        num_frames: frames of 10 ms of it that are audio rather than padding.
        medfilt_width: width of the median filter over frames.
        qk_scale: factor on the attention scores.

    Returns:
        (T + 1, num_frames // 2), the last row being the end of the text, and the probability of
        each of the T tokens.
    """
    before = [*tokenizer.sot_sequence, tokenizer.no_timestamps]
    tokens = torch.tensor([*before, *text_tokens, tokenizer.eot], device=model.device)
    recorder = AttentionRecorder()
    logits = model.decoder(tokens[None], audio_features[None], recorder=recorder)[0]
    odds = logits[len(before) - 1 : -2, : tokenizer.eot].softmax(dim=-1)
    chosen = odds.gather(1, tokens[len(before) : -1, None])[:, 0]
    scores = recorder.heads(model.alignment_heads)[0, :, :, : num_frames // 2]
    weights = (scores * qk_scale).softmax(dim=-1)
    if weights.shape[-1] > 0:
        std, mean = torch.std_mean(weights, dim=-2, keepdim=True, unbiased=False)
        weights = median_filter((weights - mean) / std, medfilt_width)
    matrix = weights.mean(dim=0)
    return matrix[len(before) - 1 : -1], chosen.tolist()  # a row tells of the token behind its own


def find_alignment(
    model: Whisper,
    tokenizer: Tokenizer,
    text_tokens: list[int],
    mel: Tensor,
    num_frames: int,
    *,
    medfilt_width: int = 7,
    qk_scale: float = 1.0,
    audio_features: Tensor | None = None,
) -> list[WordTiming]:
    """When the words of a window were spoken.

    Args:
        text_tokens: the window's tokens without timestamps.
        mel: (mels, frames) the window's log-mel, padded.
        num_frames: how many of its frames are audio rather than padding.
        medfilt_width: see :func:`alignment_matrix`.
        qk_scale: see :func:`alignment_matrix`.
        audio_features: (S, D) the window as encoded before, which saves doing it again.

    Returns:
        One item per word, punctuation being words of its own; empty when there is no text.
    """
    if not text_tokens:
        return []
    # Start, end and the text must fit the decoder; what a loop says beyond has no times.
    text_tokens = text_tokens[: model.dims.n_text_ctx - len(tokenizer.sot_sequence) - 2]
    if audio_features is None:
        with torch.no_grad():
            audio_features = model.encoder(mel[None])[0]
    matrix, odds = alignment_matrix(
        model,
        tokenizer,
        text_tokens,
        audio_features,
        num_frames,
        medfilt_width=medfilt_width,
        qk_scale=qk_scale,
    )
    rows, frames = dtw(-matrix)
    words, word_tokens = tokenizer.split_to_word_tokens([*text_tokens, tokenizer.eot])
    if len(word_tokens) <= 1:
        return []
    begins = np.diff(rows, prepend=rows[0] - 1) != 0  # where the path enters a row
    entered = frames[begins] / TOKENS_PER_SECOND
    edges = np.cumsum([0, *(len(tokens) for tokens in word_tokens[:-1])])
    return [
        WordTiming(word, tokens, float(entered[a]), float(entered[b]), float(np.mean(odds[a:b])))
        for word, tokens, a, b in zip(words, word_tokens, edges, edges[1:], strict=False)
    ]


def merge_punctuations(alignment: list[WordTiming], prepended: str, appended: str) -> None:
    """Join punctuation to its word, in place: what was joined stays in the list, but empty."""
    following = alignment[-1] if alignment else None
    for item in reversed(alignment[:-1]):
        if following and item.word.startswith(" ") and item.word.strip() in prepended:
            following.word, item.word = item.word + following.word, ""
            following.tokens, item.tokens = item.tokens + following.tokens, []
        else:
            following = item
    previous = alignment[0] if alignment else None
    for item in alignment[1:]:
        if previous and not previous.word.endswith(" ") and item.word in appended:
            previous.word, item.word = previous.word + item.word, ""
            previous.tokens, item.tokens = previous.tokens + item.tokens, []
        else:
            previous = item


# -- segments ---------------------------------------------------------------------------------


def add_word_timestamps(
    *,
    segments: list[dict[str, Any]],
    model: Whisper,
    tokenizer: Tokenizer,
    mel: Tensor,
    num_frames: int,
    prepend_punctuations: str = PREPEND_PUNCTUATIONS,
    append_punctuations: str = APPEND_PUNCTUATIONS,
    last_speech_timestamp: float,
    **kwargs: Any,
) -> None:
    """Give each segment of one window its ``words``, and fit its start and end to them, in place.

    Words are dictionaries with ``word``, ``start``, ``end`` (seconds, as the segments count them)
    and ``probability``.

    Args:
        segments: as :func:`aii.transcribe.segments` makes them, all of one window.
        mel: (mels, frames) the window's log-mel, padded.
        num_frames: how many of its frames are audio.
        last_speech_timestamp: where the last word before this window ended, in seconds.
        **kwargs: passed to :func:`find_alignment`.
    """
    if not segments:
        return
    texts = [[t for t in segment["tokens"] if t < tokenizer.eot] for segment in segments]
    tokens = list(chain.from_iterable(texts))
    alignment = find_alignment(model, tokenizer, tokens, mel, num_frames, **kwargs)
    typical = _typical_duration(alignment)
    if typical is None:
        typical = 0.0
    else:
        _shorten_at_sentence_ends(alignment, 2 * typical)
    merge_punctuations(alignment, prepend_punctuations, append_punctuations)
    offset = segments[0]["seek"] * HOP_LENGTH / SAMPLE_RATE
    timings = iter(alignment)
    for segment, text in zip(segments, texts, strict=True):
        words: list[dict[str, Any]] = []
        taken = 0
        while taken < len(text) and (timing := next(timings, None)):
            taken += len(timing.tokens)
            if timing.word:
                words.append(_word(timing, offset))
        if words:
            _shorten_after_pause(words, typical, last_speech_timestamp)
            _fit_start(segment, words[0], typical)
            _fit_end(segment, words[-1], typical)
            last_speech_timestamp = segment["end"]
        segment["words"] = words


def _word(timing: WordTiming, offset: float) -> dict[str, Any]:
    return {
        "word": timing.word,
        "start": max(0.0, round(offset + timing.start, 2)),  # a window of 30 ms has no frame
        "end": max(0.0, round(offset + timing.end, 2)),
        "probability": timing.probability,
    }


def _typical_duration(alignment: list[WordTiming]) -> float | None:
    """Median duration of the words that have one, at most 0.7 s; None when no word has."""
    durations = [d for item in alignment if (d := item.end - item.start) != 0]
    return min(_LONGEST_TYPICAL_WORD, float(np.median(durations))) if durations else None


def _shorten_at_sentence_ends(alignment: list[WordTiming], longest: float) -> None:
    """Take the pause between two sentences out of the mark and the word beside it."""
    for previous, item in pairwise(alignment):
        if item.end - item.start > longest:
            if item.word in _SENTENCE_ENDS:
                item.end = item.start + longest
            elif previous.word in _SENTENCE_ENDS:
                item.start = item.end - longest


def _shorten_after_pause(
    words: list[dict[str, Any]], typical: float, last_speech_timestamp: float
) -> None:
    """Take a pause before a segment out of its first two words, when they are too long."""
    first = words[0]
    second = words[1] if len(words) > 1 else None
    longest = 2 * typical
    if first["end"] - last_speech_timestamp <= 4 * typical:
        return
    alone = first["end"] - first["start"] > longest
    together = second is not None and second["end"] - first["start"] > 2 * longest
    if not alone and not together:
        return
    if second is not None and second["end"] - second["start"] > longest:
        first["end"] = second["start"] = max(second["end"] / 2, second["end"] - longest)
    first["start"] = max(0, first["end"] - longest)


def _fit_start(segment: dict[str, Any], word: dict[str, Any], typical: float) -> None:
    """Start the segment with its first word, or the word with the segment if that is far later."""
    start = segment["start"]
    if start < word["end"] and start - 0.5 > word["start"]:
        word["start"] = max(0, min(word["end"] - typical, start))
    else:
        segment["start"] = word["start"]


def _fit_end(segment: dict[str, Any], word: dict[str, Any], typical: float) -> None:
    """End the segment with its last word, or the word with the segment if that is far earlier."""
    end = segment["end"]
    if end > word["start"] and end + 0.5 < word["end"]:
        word["end"] = max(word["start"] + typical, end)
    else:
        segment["end"] = word["end"]
