"""Random networks, sounds and options, put to openai-whisper and to us: what comes out is the same.

``python tests/random_parity.py FIRST COUNT`` tries many seeds; the tests try some. A seed says
everything. Where two tokens are as likely as each other the smallest rounding decides, so a
difference is only ours if openai-whisper agrees with itself when it rounds differently (its
attention written out instead of fused).
"""

from __future__ import annotations

import contextlib
import copy
import io
import json
import math
import random
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numba
import numpy as np
import torch
import whisper

import aii
from aii.audio.pcm import slin_to_float
from aii.model import ModelDimensions, Whisper
from aii.resources import asset

RATE = 16_000
WIDTHS = ((12, 1), (12, 3), (20, 4), (30, 5), (42, 7), (48, 2), (64, 4), (66, 11), (96, 6))
TEXTS = ("four five six", " Grüße, Zoë! ", "数字は四です。", "1-2-3 (go)", "", "nine " * 60)
LANGUAGES = ("en", "de", "ja", "th", "zh", "fr", "Spanish", "castilian", "haw", "ar")
LISTED = ("-1", "", None, "-1,300,400", "11,13", [290, -1, 291], [], [50_000])

Case = tuple[str, Callable[[Any, Any], Any]]
"""What is compared, and how to have it of a package and its network."""


class Parity:
    """One seed: two networks that share their weights, and questions for both."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.chance = random.Random(seed)
        self.torch = torch.Generator().manual_seed(seed)
        self.dims = self._dims()
        self.theirs = whisper.model.Whisper(whisper.model.ModelDimensions(**self.dims)).eval()
        self._weights()
        self.ours = Whisper(ModelDimensions(**self.dims)).eval()
        self.ours.load_state_dict(self.theirs.state_dict())

    # -- networks -----------------------------------------------------------------------------

    def _dims(self) -> dict[str, int]:
        chance = self.chance
        state, audio_heads = chance.choice(WIDTHS)
        text_heads = chance.choice([h for h in (1, 2, 3, 4, 6) if state % h == 0])
        return {
            "n_mels": chance.choice([80, 128]),
            "n_audio_ctx": chance.choice([1500] * 4 + [1, 7, 50, 333, 750]),
            "n_audio_state": state,
            "n_audio_head": audio_heads,
            "n_audio_layer": chance.randint(1, 3),
            "n_vocab": chance.choice([51864, 51865, 51866]),
            "n_text_ctx": chance.choice([448] * 3 + [60, 101]),
            "n_text_state": state,
            "n_text_head": text_heads,
            "n_text_layer": chance.randint(1, 3),
        }

    @torch.no_grad()
    def _weights(self) -> None:
        """Weights that write words, times and ends in any order."""
        chance, model = self.chance, self.theirs
        spread = chance.uniform(0.05, 0.2)
        for weight in model.parameters():
            noise = torch.randn(weight.shape, generator=self.torch)
            weight.copy_(noise * (spread if weight.ndim > 1 else 0.1))
        for module in model.modules():
            if isinstance(module, torch.nn.LayerNorm):
                module.weight.add_(1.0)
        decoder, dims = model.decoder, self.dims
        width = dims["n_text_state"]
        time, end = torch.nn.functional.normalize(torch.randn(2, width, generator=self.torch))
        wish = torch.rand(dims["n_text_ctx"], 1, generator=self.torch)  # of each position
        rate, often = chance.uniform(0.3, 0.8), chance.uniform(0.9, 0.99)
        decoder.positional_embedding += torch.where(wish < rate, -0.6, 1.2) * time
        decoder.positional_embedding += torch.where(wish < often, -0.6, 1.8) * end
        decoder.token_embedding.weight[-1501:] += chance.uniform(0, 2) * time
        multilingual = dims["n_vocab"] > 51864
        decoder.token_embedding.weight[50257 if multilingual else 50256] += 4 * end
        if chance.random() < 0.3:  # nobody speaks
            decoder.token_embedding.weight[-1503] += chance.uniform(0, 2) * time

    @property
    def whole(self) -> bool:
        """Whether the encoder takes 30 s: else openai-whisper cannot transcribe, only decode."""
        return self.dims["n_audio_ctx"] == 1500

    # -- sounds -------------------------------------------------------------------------------

    def audio(self, longest: float) -> np.ndarray:
        chance = self.chance
        length = round(chance.choice([0, 0.01, 0.5, 5, 29.99, 30, 30.01, longest]) * RATE)
        if chance.random() < 0.7:
            length = round(chance.uniform(0, longest) * RATE)
        noise = np.random.default_rng(chance.randrange(1 << 30))
        time = np.arange(length) / RATE
        kind = chance.choice(["noise", "tones", "call", "call", "silence"])
        if kind == "noise":
            found = noise.normal(0, chance.choice([1e-4, 0.1, 2.0]), length)
        elif kind == "tones":
            found = sum(np.sin(6.283 * noise.uniform(50, 4000) * time) for _ in range(4)) * 0.2
            found = found * (np.sin(6.283 * noise.uniform(0.1, 2) * time) > 0)
        elif kind == "call":
            call = slin_to_float(asset("sample_call.slin").read_bytes())
            start = chance.randrange(len(call))
            found = np.tile(call, 1 + (length + start) // len(call))[start : start + length]
        else:
            found = np.zeros(length)
        return found.astype(np.float32)

    def mel(self, rows: int) -> torch.Tensor:
        """(rows, mels, frames) of what the encoder takes."""
        frames = 2 * self.dims["n_audio_ctx"]
        if self.chance.random() < 0.3:
            return torch.randn(rows, self.dims["n_mels"], frames, generator=self.torch)
        found = []
        for _ in range(rows):
            mel = aii.log_mel_spectrogram(self.audio(12), self.dims["n_mels"], padding=480_000)
            found.append(aii.pad_or_trim(mel, frames))
        return torch.stack(found)

    # -- options ------------------------------------------------------------------------------

    def _tokens(self) -> str | list[int] | None:
        chance = self.chance
        if chance.random() < 0.4:
            return None
        if chance.random() < 0.6:
            return chance.choice(TEXTS)
        return [chance.randrange(50_000) for _ in range(chance.choice([1, 3, 40, 300]))]

    def _common(self) -> dict[str, Any]:
        """What ``decode`` and ``transcribe`` both take."""
        chance = self.chance
        languages = (*LANGUAGES, None, None) if self.dims["n_vocab"] > 51864 else ("en", "English")
        found: dict[str, Any] = {
            "task": chance.choice(["transcribe", "transcribe", "translate"]),
            "language": chance.choice(languages),
            "sample_len": chance.choice([5, 13, 25]),
            "suppress_tokens": chance.choice(LISTED),
            "suppress_blank": chance.random() < 0.8,
            "without_timestamps": chance.random() < 0.25,
            "max_initial_timestamp": chance.choice([1.0, 1.0, None, 0, 0.1, 29.0]),
            "length_penalty": chance.choice([None, None, 0.0, 0.3, 1.0]),
            "fp16": False,
        }
        if chance.random() < 0.4:
            found["beam_size"] = chance.choice([1, 2, 3, 5])
            found["patience"] = chance.choice([None, 0.5, 1.0, 2.0])
        return {name: found[name] for name in found if name == "fp16" or chance.random() < 0.8}

    def decode_options(self) -> dict[str, Any]:
        chance, found = self.chance, self._common()
        found["language"] = found.get("language", "en")
        if self.dims["n_vocab"] < 51865:
            found["language"] = "en"
        elif found["language"] in ("Spanish", "castilian") and chance.random() < 0.5:
            found["language"] = "es"
        if "beam_size" not in found:
            found.pop("patience", None)
            found["temperature"] = chance.choice([0, 0, 0, 0.3, 1.0])
            if found["temperature"] and chance.random() < 0.5:
                found["best_of"] = chance.choice([1, 2, 4])
        if chance.random() < 0.1 and self.dims["n_text_ctx"] < 448:
            found.pop("sample_len", None)
        if chance.random() < 0.1 and self.dims["n_text_ctx"] < 448:
            found["sample_len"] = self.dims["n_text_ctx"] // 2 + 4
        found["prompt"], found["prefix"] = self._tokens(), self._tokens()
        return found

    def transcribe_options(self, samples: int) -> dict[str, Any]:
        chance, found = self.chance, self._common()
        if "patience" in found and "beam_size" not in found:
            del found["patience"]
        maybe: dict[str, Any] = {
            "temperature": chance.choice([0, 0.0, 0.4, (0.0, 0.5), (0, 0.2, 1.0)]),
            "compression_ratio_threshold": chance.choice([2.4, None, 1.0, 0.8]),
            "logprob_threshold": chance.choice([-1.0, None, -3.0, -8.0]),
            "no_speech_threshold": chance.choice([0.6, None, 0.0, 1e-5, 1e-3]),
            "condition_on_previous_text": chance.random() < 0.6,
            "initial_prompt": chance.choice([None, *TEXTS]),
            "carry_initial_prompt": chance.random() < 0.5,
            "word_timestamps": chance.random() < 0.6,
            "prepend_punctuations": chance.choice(["", "\"'“¿([{-", "$"]),
            "append_punctuations": chance.choice(["", "\"'.。,，!！?？:：”)]}、", " a"]),
            "clip_timestamps": self._clips(samples // 160 / 100),
            "hallucination_silence_threshold": chance.choice([None, 0.1, 1.0, 4.0]),
            "best_of": chance.choice([None, 1, 2]),
            "prefix": chance.choice([None, "so", [1000, 1001]]),
        }
        found |= {name: maybe[name] for name in maybe if chance.random() < 0.6}
        found.setdefault("temperature", (0.0, 0.7))
        found.setdefault("sample_len", 20)
        found["verbose"] = chance.choice([None, None, True, False])
        return found

    def _clips(self, seconds: float) -> str | list[float]:
        """Within the recording: openai-whisper's loop need not end behind it."""
        chance = self.chance
        points = sorted(round(chance.uniform(0, seconds), 3) for _ in range(chance.randrange(5)))
        if chance.random() < 0.2:
            chance.shuffle(points)
        return ",".join(map(str, points)) if chance.random() < 0.5 else points

    # -- questions ----------------------------------------------------------------------------

    def cases(self) -> Iterator[Case]:
        rows = self.chance.choice([1, 1, 2])
        options = self.decode_options()
        if options.get("beam_size") or options.get("best_of"):
            rows = 1  # theirs takes one audio then
        mel = self.mel(rows)
        yield (
            f"decode {rows} {options}",
            lambda package, model: _rows(
                model.decode(
                    mel, package.DecodingOptions(**copy.deepcopy(options))
                )  # theirs adds to it
            ),
        )
        if self.dims["n_vocab"] > 51864:
            yield "detect", lambda package, model: _odds(model.detect_language(mel))
        if self.whole:
            audio = self.audio(65)
            more = self.transcribe_options(len(audio))
            yield (
                f"transcribe {len(audio)} {more}",
                lambda package, model: _said(
                    lambda: package.transcribe(model, audio, **copy.deepcopy(more))
                ),
            )

    def ask(self, package: Any, model: Any, question: Callable[[Any, Any], Any]) -> Any:
        torch.manual_seed(self.seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return question(package, model)

    def differences(self) -> list[str]:
        """What differs and is no tie."""
        found = []
        for name, question in self.cases():
            try:
                expected = self.ask(whisper, self.theirs, question)
            except Exception as error:
                found += self._refusal(name, question, error)
                continue
            try:
                got = self.ask(aii, self.ours, question)
                place = difference(expected, got)
            except Exception:
                place = traceback.format_exc()
            if place is None:
                continue
            with whisper.model.disable_sdpa():
                again = difference(expected, self.ask(whisper, self.theirs, question))
            verdict = f"tie ({again})" if again else "DIFFERENT"
            found.append(f"seed {self.seed}: {verdict}: {place}\n    {name}\n    {self.dims}")
        return found

    def _refusal(self, name: str, question: Callable[[Any, Any], Any], error: Exception) -> list:
        """Theirs fails: does ours?"""
        kind = f"{type(error).__name__}: {error}"
        try:
            self.ask(aii, self.ours, question)
        except Exception as other:
            if isinstance(other, ValueError | TypeError | RuntimeError):
                return []
            return [f"seed {self.seed}: DIFFERENT: {kind} / {type(other).__name__}: {other} {name}"]
        return [f"seed {self.seed}: only theirs fails: {kind}\n    {name}"]


def _rows(results: Any) -> list[dict[str, Any]]:
    names = (
        "tokens text language temperature avg_logprob no_speech_prob compression_ratio "
        "language_probs"
    )
    return [{name: getattr(result, name) for name in names.split()} for result in results]


def _said(transcribe: Callable[[], dict[str, Any]]) -> list[Any]:
    """A result, and what was printed meanwhile; progress bars, on standard error, are another's."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(io.StringIO()):
        result = transcribe()
    return [result, {"printed": printed.getvalue()}]


def _odds(found: Any) -> list[Any]:
    tokens, odds = found
    return [tokens.tolist(), [sorted(row.items()) for row in odds]]  # theirs are in any order


def difference(expected: Any, found: Any, name: str = "") -> str | None:
    """The first place in which two results differ."""
    if isinstance(expected, dict):
        if list(found) != list(expected):
            return f"{name}: {list(found)} for {list(expected)}"
        parts = [(expected[key], found[key], f"{name}.{key}") for key in expected]
    elif isinstance(expected, list | tuple):
        if expected and isinstance(expected[0], int):
            return None if found == expected else f"{name}: {found} for {expected}"
        if len(found) != len(expected):
            return f"{name}: {len(found)} for {len(expected)}: {found} for {expected}"
        both = zip(expected, found, strict=True)
        parts = [(one, other, f"{name}[{i}]") for i, (one, other) in enumerate(both)]
    elif isinstance(expected, float) and isinstance(found, float):
        if name.endswith((".start", ".end")) and expected < 0:
            expected = (
                0.0  # theirs begins before the recording where a window has no frame of 20 ms
            )
        near = math.isclose(found, expected, rel_tol=1e-5, abs_tol=1e-4)
        same = near or (math.isnan(found) and math.isnan(expected))
        return None if same else f"{name}: {found} for {expected}"
    else:
        return None if found == expected else f"{name}: {found!r} for {expected!r}"
    return next((place for part in parts if (place := difference(*part)) is not None), None)


@contextlib.contextmanager
def numba_apart() -> Iterator[None]:
    """openai-whisper's path search would set PyTorch's number of threads anew through OpenMP."""
    before = numba.config.THREADING_LAYER
    numba.config.THREADING_LAYER = "workqueue"
    try:
        yield
    finally:
        numba.config.THREADING_LAYER = before


def main(first: int, count: int) -> None:
    torch.set_num_threads(1)
    with numba_apart():
        for seed in range(first, first + count):
            try:
                lines = Parity(seed).differences()
            except Exception:
                lines = [f"seed {seed}: {traceback.format_exc()}"]
            for line in lines:
                print(line, flush=True)
            if seed % 50 == 49:
                print(json.dumps({"done": seed + 1 - first}), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
