"""Measure a checkpoint the way the product decodes and print the table of the model card.

    python -m training.evaluate assets/embedded.pt --data training/data --json figures.json

Every clip goes through ``aii.transcribe.transcribe`` with its defaults (timestamps, temperature
fallback, no-speech rejection) and the shortened audio context, unless a line says "30 s".
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch

from aii.checkpoints import load_model
from aii.evaluation import total_word_errors
from aii.model import Whisper
from aii.transcribe import transcribe
from training.augment import telephone_band, through_telephone
from training.scoring import digit_strings, sentences
from training.sounds import KINDS, coloured_noise, no_speech
from training.windows import RATE, Recordings

FIRST_STAMP = 50_364
Clip = tuple[np.ndarray, str]
Change = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def clean(samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """As recorded."""
    return samples


def telephone(samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """300 to 3400 Hz, 8 kHz, mu-law."""
    row = torch.from_numpy(np.pad(samples, (0, len(samples) % 2)))[None]
    return through_telephone(telephone_band(row))[0, : len(samples)].numpy()


def noisy(samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Pink noise 10 dB below the speech (both as mean power over the clip)."""
    level = np.sqrt((samples**2).mean()) * 10.0 ** (-10.0 / 20.0)
    made = samples + coloured_noise(rng, len(samples), 1.0) * level
    return (made / max(1.0, np.abs(made).max())).astype(np.float32)


CONDITIONS: dict[str, Change] = {"clean": clean, "telephone": telephone, "noise 10 dB": noisy}


class Judge:
    """Transcribes as the product does and counts errors."""

    def __init__(self, model: Whisper) -> None:
        self.model = model

    def hear(self, samples: np.ndarray, context: str = "auto") -> dict[str, Any]:
        """``transcribe``'s result for (N,) float32 samples."""
        torch.manual_seed(0)  # the fallback draws at random
        return transcribe(self.model, samples, language="en", fp16=False, audio_context=context)

    def rate(
        self, clips: Iterable[Clip], change: Change = clean, context: str = "auto"
    ) -> tuple[float, list[tuple[str, str]]]:
        """Word error rate in percent, and the (reference, hypothesis) pairs that differ."""
        rng = np.random.default_rng(3)
        pairs = [(text, self.hear(change(x, rng), context)["text"].strip()) for x, text in clips]
        wrong = [pair for pair in pairs if pair[0] != pair[1]]
        return round(100.0 * total_word_errors(pairs).rate, 2), wrong


def word_error_rates(judge: Judge, clips: list[Clip]) -> dict[str, Any]:
    """Rates of one set in every condition; clean also padded to 30 s; some errors for reading."""
    row: dict[str, Any] = {"clips": len(clips), "words": sum(len(t.split()) for _, t in clips)}
    for condition, change in CONDITIONS.items():
        row[condition], wrong = judge.rate(clips, change)
        row[f"errors {condition}"] = wrong[:12]
    row["clean, 30 s"], _ = judge.rate(clips, clean, "full")
    return row


def written_times(segment: dict[str, Any]) -> list[float]:
    """The timestamps that the model wrote in a segment, in seconds.

    ``transcribe`` itself starts a window's only segment at 0, as OpenAI's does.
    """
    tokens = [token - FIRST_STAMP for token in segment["tokens"] if token >= FIRST_STAMP]
    return [segment["seek"] / 100.0 + token * 0.02 for token in tokens]


def timestamp_errors(judge: Judge, recordings: Recordings, count: int) -> dict[str, float]:
    """Distance of segment edges from the truth in windows of one to three utterances (ms)."""
    rng = np.random.default_rng(11)
    pool = digit_strings(recordings, "eval-seen", 80, 21)
    pool += digit_strings(recordings, "eval-unheard", 80, 22)
    pool += sentences(recordings, "eval-voice", 120)
    errors: list[float] = []
    counted = 0
    for _ in range(count):
        at = 0.0
        parts: list[np.ndarray] = []
        truth: list[float] = []
        for _ in range(int(rng.integers(1, 4))):
            samples = pool[int(rng.integers(len(pool)))][0]
            loud = np.flatnonzero(np.abs(samples) > 0)  # clips carry exact silence around
            start, end = loud[0] / RATE, (loud[-1] + 1) / RATE
            pause = float(rng.uniform(0.5, 1.5))
            truth += [at + start, at + end]
            parts += [samples, np.zeros(int(pause * RATE), np.float32)]
            at += (len(samples) + len(parts[-1])) / RATE
        found = judge.hear(np.concatenate(parts))["segments"]
        edges = [time for segment in found for time in written_times(segment)]
        if len(edges) == len(truth):
            counted += 1
            errors += [abs(a - b) * 1000.0 for a, b in zip(edges, truth, strict=True)]
    middle, late = np.percentile(errors, [50, 90]) if errors else (float("nan"), float("nan"))
    return {
        "windows": count,
        "windows with the right number of segments": counted,
        "median ms": round(float(middle), 1),
        "90th percentile ms": round(float(late), 1),
    }


def false_words(judge: Judge, minutes: float) -> dict[str, Any]:
    """Words written per minute where nobody speaks, by kind, in pieces of 5 s and of 30 s."""
    rng = np.random.default_rng(5)
    result: dict[str, Any] = {}
    total_words = total_minutes = 0.0
    for kind in KINDS:
        words, seconds, heard = 0, 0.0, []
        while seconds < minutes * 60.0 / len(KINDS):
            length = 5.0 if rng.random() < 0.8 else 30.0
            gain = 10.0 ** (rng.uniform(-30.0, 0.0) / 20.0)
            samples = no_speech(rng, int(length * RATE), kind) * np.float32(gain)
            text = judge.hear(np.round(samples * 32768.0).astype(np.float32) / 32768.0)["text"]
            words += len(text.split())
            seconds += length
            heard += [text.strip()] if text.strip() else []
        result[kind] = round(words / (seconds / 60.0), 2)
        result[f"heard in {kind}"] = heard[:5]
        total_words, total_minutes = total_words + words, total_minutes + seconds / 60.0
    result["all"] = round(total_words / total_minutes, 2)
    result["minutes"] = round(total_minutes, 1)
    return result


def test_sets(recordings: Recordings, share: float) -> dict[str, list[Clip]]:
    """Everything that training never hears."""
    voices = recordings.by_group["eval-voice"]
    is_flite = [recordings.entries[i]["voice"].startswith("flite") for i in voices]
    spoken = sentences(recordings, "eval-voice", len(voices))
    sets = {
        "held-out speaker, digit strings": digit_strings(recordings, "eval-unheard", 300, 100),
        "seen speakers, unseen recordings": digit_strings(recordings, "eval-seen", 200, 101),
        "held-out espeak-ng voices": [c for c, f in zip(spoken, is_flite, strict=True) if not f],
        "held-out flite voice": [c for c, f in zip(spoken, is_flite, strict=True) if f],
        "held-out templates": sentences(recordings, "eval-template", 240),
    }
    return {name: clips[: max(1, int(len(clips) * share))] for name, clips in sets.items()}


def markdown(figures: dict[str, Any]) -> str:
    """The figures as they stand in the model card."""
    columns = [*CONDITIONS, "clean, 30 s"]
    lines = ["| word error rate, % | clips | " + " | ".join(columns) + " |"]
    lines.append("| --- |" + " ---: |" * (len(columns) + 1))
    for name, row in figures["word error rates"].items():
        cells = " | ".join(f"{row[column]:.1f}" for column in columns)
        lines.append(f"| {name} | {row['clips']} | {cells} |")
    times, false = figures["timestamps"], figures["false words per minute"]
    lines += [
        "",
        f"Segment times: median error {times['median ms']:.0f} ms, 90th percentile "
        f"{times['90th percentile ms']:.0f} ms ({times['windows']} windows of one to three "
        f"utterances; {times['windows with the right number of segments']} with the right number "
        "of segments).",
        "",
        f"False words per minute over {false['minutes']:.0f} min without speech: "
        f"{false['all']:.2f} (" + ", ".join(f"{kind} {false[kind]:.2f}" for kind in KINDS) + ").",
    ]
    return "\n".join(lines)


def measure(task: str, args: argparse.Namespace) -> Any:
    """One row of the table, or one of the other figures; each in a process of its own."""
    torch.set_num_threads(1)
    recordings, judge = Recordings(args.data), Judge(load_model(args.model, device="cpu"))
    if task == "timestamps":
        return timestamp_errors(judge, recordings, max(3, int(150 * args.share)))
    if task == "false words per minute":
        return false_words(judge, args.minutes)
    return word_error_rates(judge, test_sets(recordings, args.share)[task])


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure a checkpoint.")
    parser.add_argument("model", help="path, or a name that load_model knows")
    parser.add_argument("--data", type=Path, default=Path("training/data"))
    parser.add_argument("--share", type=float, default=1.0, help="share of the test clips")
    parser.add_argument("--minutes", type=float, default=10.0, help="of sound without speech")
    parser.add_argument("--json", type=Path, help="write all figures and some errors here")
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    args = parser.parse_args()
    began = time.monotonic()
    names = list(test_sets(Recordings(args.data), 0.01))
    others = ["timestamps", "false words per minute"]
    figures: dict[str, Any] = {"word error rates": {}}
    with ProcessPoolExecutor(args.jobs, get_context("spawn")) as pool:
        running = {name: pool.submit(measure, name, args) for name in [*names, *others]}
        for name, future in running.items():
            if name in others:
                figures[name] = future.result()
            else:
                figures["word error rates"][name] = future.result()
            print(f"{name}: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    figures["seconds taken"] = round(time.monotonic() - began)
    if args.json:
        args.json.write_text(json.dumps(figures, indent=1), encoding="utf-8")
    print(markdown(figures))


if __name__ == "__main__":
    main()
