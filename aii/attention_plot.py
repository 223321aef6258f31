"""A picture of what the decoder attends to: words down, seconds across.

Each row is a word; bright is where the model looked in the audio when it wrote that word. The white
bars are the times that ``aii.timing`` reads off it.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass

import numpy as np

from aii.audio.files import load_audio
from aii.errors import InputError, MissingExtraError
from aii.mel import HOP_LENGTH, N_FFT, SAMPLE_RATE, log_mel_spectrogram, pad_or_trim
from aii.model import Whisper
from aii.timing import (
    APPEND_PUNCTUATIONS,
    PREPEND_PUNCTUATIONS,
    WordTiming,
    alignment_matrix,
    find_alignment,
    merge_punctuations,
)
from aii.tokenizer import get_tokenizer
from aii.windows import WindowOptions, audio_context_frames, transcribe_window, window_frames

DPI = 100
_WIDTH = 12.0  # inches
_ROW = 0.22  # inches
_SHORTEST, _TALLEST = 3.0, 60.0  # inches


@dataclass(frozen=True, eq=False)
class WordAttention:
    """One window's words and where in the audio the model looked for them.

    Attributes:
        words: with start and end in seconds from the window's start.
        matrix: (words, frames of 20 ms) attention as a z-score over the window's tokens, smoothed.
        start: where the window begins in the recording, in seconds.
    """

    words: list[WordTiming]
    matrix: np.ndarray
    start: float

    @property
    def duration(self) -> float:
        """Seconds of audio in the window."""
        return self.matrix.shape[1] * 2 * HOP_LENGTH / SAMPLE_RATE


def word_attention(
    model: Whisper,
    audio: str | os.PathLike[str] | np.ndarray,
    options: WindowOptions,
    *,
    start: float = 0.0,
) -> WordAttention:
    """Transcribe the window that begins at ``start`` seconds and look at its attention.

    Args:
        audio: a path, or float samples (N,) at 16 kHz.
        options: how to transcribe.

    Raises:
        AudioError: the recording cannot be read.
        InputError: nothing is said there, or the recording ends before ``start``.
    """
    samples = audio if isinstance(audio, np.ndarray) else load_audio(audio)
    first = round(start * SAMPLE_RATE) if 0 <= start < math.inf else len(samples)
    samples = samples[first : first + window_frames(model) * HOP_LENGTH]
    if len(samples) < 4 * HOP_LENGTH:
        raise InputError(f"the recording has no audio at {start:g} s; choose another --start")
    window = transcribe_window(model, samples, options)
    tokenizer = get_tokenizer(
        model.is_multilingual,
        num_languages=model.num_languages,
        language=window.result.language,
        task=options.decoding.task,
    )
    tokens = [t for segment in window.segments for t in segment["tokens"] if t < tokenizer.eot]
    if not tokens:
        raise InputError(f"the model hears no words in the 30 s from {start:g} s on")
    frames = len(samples) // HOP_LENGTH
    features = window.result.audio_features
    mel = log_mel_spectrogram(samples, model.dims.n_mels, padding=2 * N_FFT)[:, :frames]
    padded = pad_or_trim(mel, audio_context_frames(model, len(samples), options.audio_context))
    words = find_alignment(model, tokenizer, tokens, padded, frames, audio_features=features)
    merge_punctuations(words, PREPEND_PUNCTUATIONS, APPEND_PUNCTUATIONS)
    words = [word for word in words if word.word]
    rows, _ = alignment_matrix(model, tokenizer, tokens, features, frames)
    ends = np.cumsum([len(word.tokens) for word in words])
    of_words = [group.mean(axis=0) for group in np.split(rows.cpu().numpy(), ends)[: len(words)]]
    return WordAttention(words, np.stack(of_words), start)


def draw(attention: WordAttention, path: str | os.PathLike[str]) -> tuple[int, int]:
    """Write the picture to ``path`` as PNG and return its width and height in pixels.

    Raises:
        MissingExtraError: matplotlib is not installed.
        InputError: the file cannot be written.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingExtraError("matplotlib", "plot") from None
    count = len(attention.words)
    height = min(_TALLEST, max(_SHORTEST, 1.5 + _ROW * count))
    figure = Figure(figsize=(_WIDTH, height), dpi=DPI, layout="constrained")
    axes = figure.add_subplot()
    begin, end = attention.start, attention.start + attention.duration
    image = axes.imshow(
        np.clip(attention.matrix, 0, None),
        aspect="auto",
        interpolation="nearest",
        cmap="viridis",
        extent=(begin, end, count - 0.5, -0.5),
    )
    starts = [begin + word.start for word in attention.words]
    ends = [begin + word.end for word in attention.words]
    axes.hlines(range(count), starts, ends, colors="white", linewidth=1.2)
    axes.set_yticks(range(count), [_plain(word.word) for word in attention.words])
    axes.set_xlabel("seconds")
    axes.set_title("Cross-attention by word (z-score); white: word times", fontsize=10)
    figure.colorbar(image, ax=axes)
    try:
        figure.savefig(path, format="png")
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from error
    return round(_WIDTH * DPI), round(height * DPI)


def _plain(word: str) -> str:
    """A label that matplotlib does not read as mathematics."""
    return word.strip().replace("$", r"\$")
