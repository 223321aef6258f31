"""Long recordings to text: windows of 30 s, moved along by the timestamps that the model writes.

    audio -> log-mel of the whole -> [window -> transcribe_mel -> segments -> next window] -> dict

Radford et al., "Robust Speech Recognition via Large-Scale Weak Supervision" (arXiv 2212.04356),
section 4.5. Results are those of openai-whisper 20250625 on the same weights. What happens to one
window is in ``aii.windows``, which calls go through as well; its functions are here by name too.

What :func:`transcribe` takes:

    model                        from ``aii.load_model``
    audio                        a path, float samples (N,) at 16 kHz as array or tensor, or SLIN
                                 bytes at 16 kHz
    verbose                      True prints each segment as it comes, False draws a progress bar,
                                 None neither
    temperature                  one, or several to try in turn while a window's text looks wrong
    compression_ratio_threshold  text more repetitive than this looks wrong
    logprob_threshold            text with a lower mean log-probability looks wrong
    no_speech_threshold          above this probability, and with text that looks wrong, nobody
                                 speaks
    condition_on_previous_text   give each window the text before it as prompt
    initial_prompt               text to begin with as prompt: names, spelling, style
    carry_initial_prompt         put it before every window's prompt, not only the first one's
    word_timestamps              add ``words`` to each segment
    prepend_punctuations         marks that belong to the word after them
    append_punctuations          marks that belong to the word before them
    clip_timestamps              "start,end,start,end,..." in seconds, or a list of them: the parts
                                 to transcribe; without a last end, up to the recording's
    hallucination_silence_threshold
                                 with word times: leave out what was probably invented in silences
                                 longer than this (seconds)
    audio_context                how much the encoder sees: "full" (exact), or "auto" or seconds,
                                 faster, for models trained so (``audio_context_frames``); seconds
                                 also shorten the windows to that
    seed                         draw at temperatures above 0 as from this seed in every window, so
                                 that results can be repeated; None: PyTorch's global generator
    **decode_options             fields of ``DecodingOptions``: language, task, beam_size, fp16, ...
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from importlib import import_module
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from aii.decoding import DecodingOptions, detect_language
from aii.errors import AudioError, InputError
from aii.hallucination import Place, after_last_word, last_end, skip_hallucinations
from aii.languages import LANGUAGES
from aii.mel import (
    FRAMES_PER_SECOND,
    HOP_LENGTH,
    N_FRAMES,
    N_SAMPLES,
    AudioInput,
    log_mel_spectrogram,
    pad_or_trim,
)
from aii.progress import ProgressBar
from aii.timing import APPEND_PUNCTUATIONS, PREPEND_PUNCTUATIONS
from aii.tokenizer import Tokenizer, get_tokenizer
from aii.windows import (
    TEMPERATURES,
    Window,
    WindowOptions,
    audio_context_frames,
    decode_with_fallback,
    default_audio_context,
    new_segment,
    parse_audio_context,
    segments,
    transcribe_mel,
    transcribe_window,
    window_frames,
)
from aii.writers import format_timestamp

if TYPE_CHECKING:
    from aii.model import Whisper

__all__ = [
    "Window",
    "WindowOptions",
    "audio_context_frames",
    "decode_with_fallback",
    "default_audio_context",
    "new_segment",
    "parse_audio_context",
    "segments",
    "transcribe",
    "transcribe_mel",
    "transcribe_window",
]

_ELSEWHERE = {
    "aii.checkpoints": "load_model",
    "aii.cli.transcribe": "cli",
    "aii.decoding": "DecodingResult",
    "aii.mel": "SAMPLE_RATE",
    "aii.timing": "add_word_timestamps",
    "aii.tokenizer": "TO_LANGUAGE_CODE",
    "aii.utils": "exact_div get_end get_writer make_safe optional_float optional_int str2bool",
}
"""Further names of openai-whisper's module and where they are at home, some of that above here."""


def __getattr__(name: str) -> Any:
    for home, names in _ELSEWHERE.items():
        if name in names.split():
            return getattr(import_module(home), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


_FORGET_ABOVE = 0.5  # text decoded at a higher temperature is no prompt for the next window


def transcribe(
    model: Whisper,
    audio: AudioInput,
    *,
    verbose: bool | None = None,
    temperature: float | Sequence[float] = TEMPERATURES,
    compression_ratio_threshold: float | None = 2.4,
    logprob_threshold: float | None = -1.0,
    no_speech_threshold: float | None = 0.6,
    condition_on_previous_text: bool = True,
    initial_prompt: str | None = None,
    carry_initial_prompt: bool = False,
    word_timestamps: bool = False,
    prepend_punctuations: str = PREPEND_PUNCTUATIONS,
    append_punctuations: str = APPEND_PUNCTUATIONS,
    clip_timestamps: str | Sequence[float] = "0",
    hallucination_silence_threshold: float | None = None,
    audio_context: str | float = "full",
    seed: int | None = None,
    **decode_options: Any,
) -> dict[str, Any]:
    """Transcribe a recording of any length; the arguments are explained at the module's top.

    Returns:
        ``text``, ``language``, and ``segments``: dictionaries with id, seek, start, end, text,
        tokens, temperature, avg_logprob, compression_ratio, no_speech_prob, and words if wanted.

    Raises:
        AudioError: the recording cannot be read.
        InputError: options that contradict each other or do not fit the model.
    """
    decoding = _decoding_options(model, decode_options)
    mel = log_mel_spectrogram(audio, model.dims.n_mels, padding=N_SAMPLES)
    if mel.ndim != 2:
        raise AudioError(f"audio must be one row of samples, not {mel.ndim - 1} dimensions of them")
    options = WindowOptions(
        decoding=decoding,
        temperatures=[temperature] if isinstance(temperature, (int, float)) else temperature,
        compression_ratio_threshold=compression_ratio_threshold,
        logprob_threshold=logprob_threshold,
        no_speech_threshold=no_speech_threshold,
        word_timestamps=word_timestamps,
        prepend_punctuations=prepend_punctuations,
        append_punctuations=append_punctuations,
        audio_context=parse_audio_context(audio_context),
        seed=seed,
    )
    clips = _clips(clip_timestamps, mel.shape[-1] - N_FRAMES)
    language = decoding.language or _language(model, mel, options, verbose)
    options = replace(options, decoding=replace(decoding, language=language))
    if word_timestamps and decoding.task == "translate":
        warnings.warn("word times of a translation may be far off", stacklevel=2)
    recording = _Recording(model, mel, options, initial_prompt, carry_initial_prompt)
    recording.condition = condition_on_previous_text
    if word_timestamps:
        recording.silence_threshold = hallucination_silence_threshold
    recording.run(clips, verbose)
    return {"text": recording.text, "segments": recording.segments, "language": language}


# -- what is asked for ------------------------------------------------------------------------


def _decoding_options(model: Whisper, given: dict[str, Any]) -> DecodingOptions:
    """Check the decoding options; half precision only where the device has it."""
    if unknown := sorted(set(given) - set(DecodingOptions.__dataclass_fields__)):
        raise TypeError(f"transcribe() got an unexpected keyword argument {unknown[0]!r}")
    options = DecodingOptions(**given)
    if model.device.type == "cpu":
        if torch.cuda.is_available():
            warnings.warn("Performing inference on CPU when CUDA is available", stacklevel=3)
        if options.fp16:
            warnings.warn("FP16 is not supported on CPU; using FP32 instead", stacklevel=3)
            options = replace(options, fp16=False)
    return options


def _language(model: Whisper, mel: Tensor, options: WindowOptions, verbose: bool | None) -> str:
    """The language of the first 30 s of padded log-mel (mels, frames)."""
    if not model.is_multilingual:
        return "en"
    if verbose:
        print(
            "Detecting language using up to the first 30 seconds. "
            "Use `--language` to specify the language"
        )
    samples = (mel.shape[-1] - N_FRAMES) * HOP_LENGTH
    context = audio_context_frames(model, samples, options.audio_context)
    dtype = model.input_dtype(options.decoding.fp16)
    _, probs = detect_language(model, pad_or_trim(mel, context).to(model.device, dtype))
    language = max(probs, key=probs.__getitem__)
    if verbose is not None:
        print(f"Detected language: {LANGUAGES[language].title()}")
    return language


def _clips(timestamps: str | Sequence[float], content: int) -> list[tuple[int, int]]:
    """Start and end, in frames of 10 ms, of the parts to transcribe of ``content`` frames."""
    try:
        if isinstance(timestamps, str):
            timestamps = [float(t) for t in timestamps.split(",")] if timestamps else []
        points = [round(t * FRAMES_PER_SECOND) for t in timestamps]
    except (ValueError, TypeError, OverflowError):
        points = [-1]
    if any(point < 0 for point in points):
        raise InputError(
            "clip_timestamps must be seconds as start,end,start,end,... such as 0,12.5,60, "
            f"not {timestamps!r}"
        )
    points = points or [0]
    if len(points) % 2:
        points.append(content)
    return [(a, min(b, content)) for a, b in zip(points[::2], points[1::2], strict=True)]


# -- the windows of one recording -------------------------------------------------------------


class _Recording:
    """The state of one transcription.

    Attributes:
        condition: give windows the text before them as prompt.
        silence_threshold: skip what was invented in longer silences (seconds); None keeps it.
        segments: those found so far.
        tokens: the initial prompt's tokens, then those of the text so far.
    """

    condition = True
    silence_threshold: float | None = None

    def __init__(
        self,
        model: Whisper,
        mel: Tensor,
        options: WindowOptions,
        initial_prompt: str | None,
        carry_initial_prompt: bool,
    ) -> None:
        self.model = model
        self.mel = mel
        self.content = mel.shape[-1] - N_FRAMES
        self.options = options
        self.tokenizer = _tokenizer(model, options)
        self.carry = carry_initial_prompt
        self.verbose: bool | None = None
        self.segments: list[dict[str, Any]] = []
        self.initial: list[int] = []
        if initial_prompt is not None:
            self.initial = self.tokenizer.encode(" " + initial_prompt.strip())
        self.tokens = list(self.initial)
        self.prompt_since = 0  # older tokens are no prompt any more
        self.last_speech = 0.0  # seconds
        self.capacity = window_frames(model)
        if not isinstance(options.audio_context, str):
            seconds_asked = round(options.audio_context * FRAMES_PER_SECOND)
            self.capacity = max(1, min(self.capacity, seconds_asked))

    @property
    def text(self) -> str:
        """All text so far."""
        return self.tokenizer.decode(self.tokens[len(self.initial) :])

    def run(self, clips: list[tuple[int, int]], verbose: bool | None = None) -> None:
        """Transcribe the parts of the recording, window by window."""
        self.verbose = verbose
        bar: AbstractContextManager[ProgressBar | None] = nullcontext()
        if verbose is False:
            bar = ProgressBar("transcribing", self.content, unit="s", scale=FRAMES_PER_SECOND)
        with bar as progress:
            for start, end in clips:
                seek = start
                while seek < end:
                    following = self._window(seek, min(self.capacity, end - seek))
                    # No progress would mean the same window for ever: skip it then.
                    seek = following if following > seek else seek + self.capacity
                    if progress is not None:
                        progress.update(min(seek, self.content))

    def _prompt(self) -> list[int]:
        """The tokens of the text before the next window."""
        if not self.carry:
            return self.tokens[self.prompt_since :]
        room = self.model.dims.n_text_ctx // 2 - 1 - len(self.initial)
        since = max(len(self.initial), self.prompt_since)
        return self.initial + self.tokens[since:][-room:]

    def _window(self, seek: int, size: int) -> int:
        """Transcribe ``size`` frames from frame ``seek`` on; return where to go on."""
        window = transcribe_mel(
            self.model,
            self.mel[:, seek : seek + size],
            self.options,
            prompt=self._prompt(),
            seek=seek,
            last_speech=self.last_speech,
        )
        if window.silent:
            return seek + size
        found: list[dict[str, Any]] | None = window.segments
        following = seek + window.advance
        if self.options.word_timestamps:
            found, following = self._by_words(
                window, Place(seek, size, self.capacity, self.content)
            )
        if found is not None:
            self._keep(found, window.result.temperature)
        return following

    def _by_words(self, window: Window, place: Place) -> tuple[list[dict[str, Any]] | None, int]:
        """What to keep and where to go on, now that the words' times are known."""
        found: list[dict[str, Any]] | None = window.segments
        following = place.seek + window.advance
        if not window.closed:
            word_end = after_last_word(window.segments, place)
            following = following if word_end is None else word_end
        if self.silence_threshold is not None:
            found, following = skip_hallucinations(
                window.segments,
                place,
                following,
                threshold=self.silence_threshold,
                last_speech=self.last_speech,
                closed=window.closed,
            )
        if found is not None and (end := last_end(found)) is not None:
            self.last_speech = end
        return found, following

    def _keep(self, found: list[dict[str, Any]], temperature: float) -> None:
        """Add a window's segments; those that say nothing or take no time are emptied."""
        for segment in found:
            if self.verbose:
                _say(segment)
            if segment["start"] == segment["end"] or not segment["text"].strip():
                segment["text"] = ""
                segment["tokens"] = []
                segment["words"] = []
            self.segments.append({"id": len(self.segments), **segment})
            self.tokens.extend(segment["tokens"])
        if not self.condition or temperature > _FORGET_ABOVE:
            self.prompt_since = len(self.tokens)


def _tokenizer(model: Whisper, options: WindowOptions) -> Tokenizer:
    return get_tokenizer(
        model.is_multilingual,
        num_languages=model.num_languages,
        language=options.decoding.language,
        task=options.decoding.task,
    )


def _say(segment: dict[str, Any]) -> None:
    """Print a segment with its times, whatever the terminal's encoding can show of it."""
    start, end = (format_timestamp(segment[key]) for key in ("start", "end"))
    line = f"[{start} --> {end}] {segment['text']}"
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    print(line.encode(encoding, errors="replace").decode(encoding))
