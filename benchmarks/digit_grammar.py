"""What a grammar is worth: word error rate of noisy digit strings, with it and without.

    python -m benchmarks.digit_grammar [--model embedded] [--strings 200] [--quick]

Strings of real, single spoken digits (Free Spoken Digit Dataset, one speaker who is in no training
data) go through the telephone's band, some with mu-law or pink noise, and are decoded in five ways:

* ``open``: as the server decodes a final, with the open vocabulary;
* ``question``: as it decodes the answer to "digits, at most 4" (``aii.streaming.collect``);
* ``question, no grammar``: likewise, but with the open vocabulary: what the grammar alone is worth
  is the difference to this;
* ``question, count known``: likewise, but asked for exactly as many digits as were said;
* ``question, greedy with times``: likewise, but with timestamps and the likeliest token at each
  step, as ``open`` does it.

Errors are counted on digits, so that "4" and "four" are the same word.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
import tarfile
import wave
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from aii.audio.pcm import float_to_ulaw, ulaw_to_float
from aii.audio.resampler import Resampler
from aii.checkpoints import load_model
from aii.engine.hearing import hear
from aii.evaluation import total_word_errors
from aii.grammar import Grammar
from aii.question import Question
from aii.spoken_digits import digit_words
from aii.streaming.collect import Collector
from aii.streaming.vocabulary import Vocabulary
from aii.types import SAMPLE_RATE, DecodeRequest
from benchmarks.common import note, result

RECORDINGS = "fsdd_5speakers.tar.gz"
SPEAKER = "jackson"
CONDITIONS: dict[str, float | None] = {
    "no noise": None,
    "mu-law": None,
    "10 dB": 10.0,
    "5 dB": 5.0,
    "0 dB": 0.0,
}
"""Decibels of the speech above the noise; None is no noise."""

WAYS = (
    "open",
    "question, no grammar",
    "question",
    "question, count known",
    "question, greedy with times",
)

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def digits(folder: Path, speaker: str) -> dict[int, list[np.ndarray]]:
    """A speaker's recordings, (N,) float32 at 16 kHz, by digit.

    Raises:
        SystemExit: they are not there.
    """
    path = folder / RECORDINGS
    if not path.is_file():
        raise SystemExit(f"{path} is missing; set AII_TEST_DATA to the folder that has it")
    found: dict[int, list[np.ndarray]] = {digit: [] for digit in range(10)}
    with tarfile.open(path) as archive:
        for member in archive.getmembers():
            digit, who, _ = Path(member.name).stem.split("_")
            file = archive.extractfile(member)
            if who != speaker or file is None:
                continue
            with wave.open(io.BytesIO(file.read())) as recording:
                rate = recording.getframerate()
                data = recording.readframes(recording.getnframes())
            samples = np.frombuffer(data, "<i2").astype(np.float32) / 32768
            resampler = Resampler(rate, SAMPLE_RATE)
            found[int(digit)].append(np.concatenate([resampler.feed(samples), resampler.flush()]))
    return found


def strings(
    recordings: Mapping[int, list[np.ndarray]], count: int, most: int, seed: int
) -> list[tuple[np.ndarray, str]]:
    """``count`` strings of 1 to ``most`` digits, pauses up to 0.4 s, and what they say."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        said = [int(d) for d in rng.integers(0, 10, int(rng.integers(1, most + 1)))]
        pieces = [np.zeros(int(rng.uniform(0.2, 0.5) * SAMPLE_RATE), np.float32)]
        for digit in said:
            takes = recordings[digit]
            samples = takes[int(rng.integers(len(takes)))]
            pause = np.zeros(int(rng.uniform(0.05, 0.4) * SAMPLE_RATE), np.float32)
            pieces += [samples * (0.3 / max(float(np.abs(samples).max()), 1e-3)), pause]
        made.append((np.concatenate(pieces), "".join(str(d) for d in said)))
    return made


def telephone(samples: np.ndarray, level: float | None, rng: np.random.Generator) -> np.ndarray:
    """300 to 3400 Hz, with pink noise ``level`` dB below the mean power of the speech."""
    if level is not None:
        power = float((samples[np.abs(samples) > 0] ** 2).mean())
        samples = samples + pink(len(samples), rng) * np.sqrt(power * 10 ** (-level / 10))
    spectrum = np.fft.rfft(samples)
    frequencies = np.fft.rfftfreq(len(samples), 1 / SAMPLE_RATE)
    spectrum[(frequencies < 300) | (frequencies > 3400)] = 0
    made = np.fft.irfft(spectrum, len(samples))
    return (made / max(1.0, float(np.abs(made).max()))).astype(np.float32)


def mu_law(samples: np.ndarray) -> np.ndarray:
    """Samples at 16 kHz as a line with 8 kHz and G.711 mu-law leaves them."""
    down, up = Resampler(SAMPLE_RATE, 8000), Resampler(8000, SAMPLE_RATE)
    narrow = np.concatenate([down.feed(samples), down.flush()])
    narrow = ulaw_to_float(float_to_ulaw(narrow))
    return np.concatenate([up.feed(narrow), up.flush()])


def line(samples: np.ndarray, condition: str, rng: np.random.Generator) -> np.ndarray:
    """Samples at 16 kHz as they come out of a line in one of ``CONDITIONS``."""
    heard = telephone(samples, CONDITIONS[condition], rng)
    return mu_law(heard) if condition == "mu-law" else heard


def pink(samples: int, rng: np.random.Generator) -> np.ndarray:
    """Noise of unit power whose power falls as 1 / frequency."""
    spectrum = np.fft.rfft(rng.standard_normal(samples))
    spectrum /= np.sqrt(np.maximum(np.arange(len(spectrum)), 1))
    made = np.fft.irfft(spectrum, samples)
    return made / made.std()


def written(text: str) -> str:
    """Digits as words with spaces between, whatever way they were written."""
    words = digit_words("en")
    out: list[str] = []
    for word in text.lower().replace("-", " ").replace(",", " ").replace(".", " ").split():
        if word.isdigit():
            out += (NAMES[int(char)] for char in word)
        else:
            out.append(NAMES[words[word]] if word in words else "zero" if word == "oh" else word)
    return " ".join(out)


def transcript(model: Any, samples: np.ndarray, way: str, most: int, count: int) -> str:
    """What the server's engine hears in a window."""
    defaults = {"audio_context": model.metadata.get("audio_context", "full")}
    request = DecodeRequest(1, "bench", samples, language="en", options={"keep_tail": True})
    if way != "open":
        known = way.endswith("count known")
        question = Question(Grammar.digits(count, count) if known else Grammar.digits(1, most))
        vocabulary = Vocabulary(model.is_multilingual, model.num_languages)
        request = Collector(question, 0.0, vocabulary, voiced=True).constrain(request)
    options = dict(request.options)
    if way.endswith("no grammar"):
        del options["constraint"]
    if way.endswith("greedy with times"):
        options |= {"beam_size": None, "without_timestamps": False}
    request = replace(request, options=options)
    return "".join(segment.text for segment in hear(model, request, defaults)["segments"])


def measure(model: Any, clips: list[tuple[np.ndarray, str]], most: int) -> dict[str, list[Any]]:
    """For each way to decode the pairs (said, heard)."""
    ways: dict[str, list[Any]] = {way: [] for way in WAYS}
    for samples, said in clips:
        reference = written(" ".join(said))
        for way, pairs in ways.items():
            heard = transcript(model, samples, way, most, len(said))
            pairs.append((reference, written(heard)))
    return ways


def main(argv: list[str] | None = None) -> int:
    """Print one line per condition and way to decode."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--strings", type=int, default=200, help="of each kind")
    parser.add_argument("--most", type=int, default=4, help="digits in a string")
    parser.add_argument("--speaker", default=SPEAKER)
    parser.add_argument("--quick", action="store_true", help="few strings, one condition")
    args = parser.parse_args(argv)
    folder = Path(os.environ.get("AII_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))
    model = load_model(args.model, device="cpu")
    count = 3 if args.quick else args.strings
    clips = strings(digits(folder, args.speaker), count, args.most, seed=7)
    for name in ["5 dB"] if args.quick else CONDITIONS:
        rng = np.random.default_rng(11)
        noisy = [(line(samples, name, rng), said) for samples, said in clips]
        rates: dict[str, float] = {}
        for way, pairs in measure(model, noisy, args.most).items():
            errors = total_word_errors(pairs)
            right = sum(said == heard for said, heard in pairs) / len(pairs)
            rates[way] = 100 * errors.rate
            case = f"up to {args.most} digits, {name}, {way}"
            compared: dict[str, Any] = {}
            if way != "open":
                compared = {"rival": "open", "ratio": rates["open"] / max(rates[way], 1e-9)}
            result("digit_grammar", case, "word error rate", rates[way], "%", **compared)
            result("digit_grammar", case, "whole strings right", 100 * right, "%")
            note(f"{case}: {[pair for pair in pairs if pair[0] != pair[1]][:3]}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
