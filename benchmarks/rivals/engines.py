"""Each engine behind one call: a window of samples in, the tokens of a greedy decode out.

Every engine does all of the work of a window: log-mel, encoder, decoder. English, no timestamps, no
fallback, a fixed number of tokens; what an engine suppresses by itself it goes on suppressing.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np

SAMPLE_RATE = 16_000


class Engine(Protocol):
    """An engine with a model in it."""

    def window(self, samples: np.ndarray, tokens: int) -> list[int] | None:
        """Decode so many tokens from samples (N,) float32; None where it only gives text."""


class Ours:
    """aii.

    Args:
        folder: holds ``openai.pt``, or is a checkpoint itself.
        threads: CPU threads.
        compute_type: "float32" or another that aii knows.
        context: "full" or "auto".
        device: "cpu" or "cuda".
    """

    def __init__(
        self,
        folder: Path,
        threads: int,
        compute_type: str = "float32",
        context: str = "full",
        *,
        device: str = "cpu",
    ) -> None:
        import torch

        from aii.checkpoints import load_model

        torch.set_num_threads(threads)
        path = folder / "openai.pt" if folder.is_dir() else folder
        self._model = load_model(str(path), device=device, compute_type=compute_type)
        self._context = context

    def window(self, samples: np.ndarray, tokens: int) -> list[int]:
        """See :class:`Engine`."""
        from aii.audio_context import audio_context_frames
        from aii.decoding import DecodingOptions, decode_features, encode
        from aii.mel import pad_or_trim
        from aii.windows import window_mel

        model = self._model
        mel = window_mel(model, samples)
        mel = pad_or_trim(mel, audio_context_frames(model, len(samples), self._context))
        options = DecodingOptions(
            language="en", without_timestamps=True, sample_len=tokens, fp16=False
        )
        features = encode(model, mel[None])
        return decode_features(model, features, options)[0].tokens


class OpenAiWhisper:
    """openai-whisper, in float32 as it does on every CPU, or in float16."""

    def __init__(
        self, folder: Path, threads: int, compute_type: str = "float32", *, device: str = "cpu"
    ) -> None:
        import torch
        import whisper

        torch.set_num_threads(threads)
        self._whisper = whisper
        path = folder / "openai.pt" if folder.is_dir() else folder
        self._model = whisper.load_model(str(path), device=device)
        self._half = compute_type == "float16"

    def window(self, samples: np.ndarray, tokens: int) -> list[int]:
        """See :class:`Engine`."""
        whisper, model = self._whisper, self._model
        audio = whisper.pad_or_trim(samples)
        mel = whisper.log_mel_spectrogram(audio, model.dims.n_mels).to(model.device)
        options = whisper.DecodingOptions(
            language="en", without_timestamps=True, sample_len=tokens, fp16=self._half
        )
        return list(whisper.decode(model, mel, options).tokens)


class Transformers:
    """Hugging Face's transformers, in float32 or a half precision."""

    def __init__(
        self, folder: Path, threads: int, compute_type: str = "float32", *, device: str = "cpu"
    ) -> None:
        import torch
        import transformers

        torch.set_num_threads(threads)
        transformers.logging.set_verbosity_error()
        self._torch = torch
        self._dtype = getattr(torch, compute_type)
        hf = str(folder / "hf")
        self._features = transformers.WhisperFeatureExtractor.from_pretrained(hf)
        model = transformers.WhisperForConditionalGeneration.from_pretrained(
            hf, dtype=self._dtype, attn_implementation="sdpa"
        )
        model.generation_config.max_length = None
        self._model = model.eval().to(device)

    def window(self, samples: np.ndarray, tokens: int) -> list[int]:
        """See :class:`Engine`."""
        features = self._features(samples, sampling_rate=SAMPLE_RATE, return_tensors="pt")
        with self._torch.inference_mode():
            rows = self._model.generate(
                features.input_features.to(self._model.device, self._dtype),
                language="en",
                task="transcribe",
                max_new_tokens=tokens,
                do_sample=False,
                return_timestamps=False,
            )
        return [int(token) for token in rows[0].tolist()][-tokens:]


class FasterWhisper:
    """faster-whisper on CTranslate2: its features, encoder and generation."""

    def __init__(
        self, folder: Path, threads: int, compute_type: str = "float32", *, device: str = "cpu"
    ) -> None:
        from faster_whisper import WhisperModel
        from faster_whisper.tokenizer import Tokenizer

        self._model = WhisperModel(
            str(folder / "ctranslate2"), device=device, compute_type=compute_type,
            cpu_threads=threads,
        )  # fmt: skip
        model = self._model
        tokenizer = Tokenizer(
            model.hf_tokenizer, model.model.is_multilingual, task="transcribe", language="en"
        )
        self._prompt = [*tokenizer.sot_sequence, tokenizer.no_timestamps]

    def window(self, samples: np.ndarray, tokens: int) -> list[int]:
        """See :class:`Engine`."""
        from faster_whisper.audio import pad_or_trim

        model = self._model
        features = pad_or_trim(model.feature_extractor(samples))
        encoded = model.encode(features)
        found = model.model.generate(
            encoded,
            [self._prompt],
            beam_size=1,
            max_length=2 * tokens,  # of which it gives half to new tokens
            return_scores=True,
            return_no_speech_prob=True,
            suppress_blank=True,
        )
        return [int(token) for token in found[0].sequences_ids[0]]


class WhisperCpp:
    """whisper.cpp through pywhispercpp, with matrices in float16, which its convolutions need.

    Raises:
        ValueError: for a GPU, which its wheels are not built for.
    """

    def __init__(
        self, folder: Path, threads: int, compute_type: str = "float16", *, device: str = "cpu"
    ) -> None:
        if device != "cpu":
            raise ValueError("whisper.cpp's wheels are for CPUs")
        from pywhispercpp.model import Model

        self._model = Model(
            str(folder / "ggml-f16.bin"),
            redirect_whispercpp_logs_to=None,
            n_threads=threads,
            language="en",
            no_timestamps=True,
            single_segment=True,
            temperature_inc=0.0,
            no_context=True,
            print_progress=False,
            print_realtime=False,
            context_params={"use_gpu": False},
        )

    def window(self, samples: np.ndarray, tokens: int) -> list[int] | None:
        """See :class:`Engine`. Its seconds after the window's end are padding, as with the others;
        the token that reaches its limit is counted by it and not given."""
        import _pywhispercpp as pw

        model = self._model
        model.transcribe(samples, max_tokens=tokens - 1)
        rows = range(pw.whisper_full_n_segments(model._ctx))
        return [
            int(pw.whisper_full_get_token_id(model._ctx, row, number))
            for row in rows
            for number in range(pw.whisper_full_n_tokens(model._ctx, row))
        ]


ENGINES: dict[str, Callable[..., Any]] = {
    "aii": Ours,
    "openai-whisper": OpenAiWhisper,
    "transformers": Transformers,
    "faster-whisper": FasterWhisper,
    "whisper.cpp": WhisperCpp,
}


def noise(seconds: float, *, seed: int = 0) -> np.ndarray:
    """Samples (N,) float32 that no engine takes for silence: noise that swells like syllables."""
    chance = np.random.default_rng(seed)
    count = round(seconds * SAMPLE_RATE)
    swell = 0.5 + 0.5 * np.sin(np.arange(count) * (2 * math.pi * 3 / SAMPLE_RATE))
    return (chance.normal(0, 0.1, count) * swell).astype(np.float32)


def speech(seconds: float) -> np.ndarray:
    """The first samples (N,) float32 of the sample call."""
    from aii.resources import asset

    slin = np.frombuffer(asset("sample_call.slin").read_bytes(), "<i2")
    return (slin[: round(seconds * SAMPLE_RATE)] / 32768).astype(np.float32)
