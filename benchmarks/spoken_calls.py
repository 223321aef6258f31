"""Calls whose every word is known with its time: real recordings and synthetic voices.

``digits``
    FSDD: people saying digits, one recording per word, of the recordings numbered 0 to 4, which
    the embedded model was never trained on.
``stranger``
    the same of the one speaker that the model has never heard.
``phrases``
    espeak-ng, variants of the voice and templates of the grammar that are held out of training.
``jfk``
    11 s of a speech of 1961, without times of words; for models that know English.

Utterances follow each other with pauses, over the faint noise of a line. Everything depends on the
seed alone.
"""

from __future__ import annotations

import io
import random
import tarfile
import wave
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from aii.types import SAMPLE_RATE
from benchmarks.espeak import Espeak
from training.grammar import DIGITS, Grammar
from training.recordings import resample, spoken, trim
from training.synthesise import HELD_OUT_SPEAKER, HELD_OUT_VARIANTS

NOISE = 10 ** (-65 / 20)
"""Standard deviation of the line's noise: 65 dB below full scale."""

LEVEL = 10 ** (-26 / 20)
"""Root mean square of each utterance: -26 dBov, as ITU-T P.56 has telephone speech."""

UNSEEN = 5
"""Recordings numbered below this were not trained on."""


@dataclass(frozen=True)
class SpokenWord:
    """A word and when it is said, in seconds from the start of the call; nan: not known."""

    text: str
    start: float
    end: float


@dataclass(frozen=True, eq=False)
class SpokenCall:
    """A call: samples (N,) float32 at 16 kHz and what is said in them."""

    name: str
    samples: np.ndarray
    words: tuple[SpokenWord, ...]

    @property
    def text(self) -> str:
        """All words."""
        return " ".join(word.text for word in self.words)

    @property
    def seconds(self) -> float:
        """How long it lasts."""
        return len(self.samples) / SAMPLE_RATE


Utterance = tuple[np.ndarray, list[SpokenWord]]


def assemble(
    name: str, utterances: Iterator[Utterance], seconds: float, chance: np.random.Generator
) -> SpokenCall:
    """A call of at least ``seconds``: utterances with pauses of 0.4 to 2.5 s, 1.2 s at the end."""
    parts: list[np.ndarray] = []
    words: list[SpokenWord] = []
    position = 0

    def add(samples: np.ndarray) -> None:
        nonlocal position
        parts.append(samples)
        position += len(samples)

    while position < seconds * SAMPLE_RATE:
        add(np.zeros(int(chance.uniform(0.4, 2.5) * SAMPLE_RATE), np.float32))
        samples, said = next(utterances)
        at = position / SAMPLE_RATE
        words += [SpokenWord(w.text, at + w.start, at + w.end) for w in said]
        level = float(np.sqrt(np.square(samples).mean()))
        add(samples * (LEVEL / max(level, 1e-4)))
    add(np.zeros(round(1.2 * SAMPLE_RATE), np.float32))
    line = np.concatenate(parts)
    line = line + (chance.standard_normal(len(line)) * NOISE).astype(np.float32)
    # As it comes from a telephone: 16-bit samples.
    pcm = np.clip(np.rint(line * 32768), -32768, 32767)
    return SpokenCall(name, (pcm / 32768).astype(np.float32), tuple(words))


def digit_calls(
    archive: Path, count: int, seconds: float, *, stranger: bool = False, seed: int = 1
) -> list[SpokenCall]:
    """Calls of one speaker each, out of ``fsdd_5speakers.tar.gz``."""
    voices = recordings(archive)
    names = sorted(name for name in voices if (name == HELD_OUT_SPEAKER) == stranger)
    kind = "stranger" if stranger else "digits"
    calls = []
    for number in range(count):
        chance = np.random.default_rng([seed, number])
        voice = voices[names[number % len(names)]]
        calls.append(assemble(f"{kind} {number + 1}", _strings(voice, chance), seconds, chance))
    return calls


def phrase_calls(count: int, seconds: float, *, seed: int = 2) -> list[SpokenCall]:
    """Calls of one synthetic voice each.

    Raises:
        OSError: espeak-ng is not installed.
    """
    espeak, grammar, calls = Espeak(), Grammar(), []
    for number in range(count):
        chance = np.random.default_rng([seed, number])
        variant = HELD_OUT_VARIANTS[number % len(HELD_OUT_VARIANTS)]
        accent = ("en-us", "en")[number // 2 % 2]  # "en" is British
        said = _phrases(espeak, grammar, f"{accent}+{variant}", random.Random(seed * 1000 + number))
        calls.append(assemble(f"phrases {number + 1}", said, seconds, chance))
    return calls


def jfk_call(path: Path) -> SpokenCall:
    """The recording as it is; its words carry no times."""
    from aii.audio.files import load_audio

    text = (
        "and so my fellow americans ask not what your country can do for you ask what you can do "
        "for your country"
    )
    unknown = float("nan")
    words = tuple(SpokenWord(word, unknown, unknown) for word in text.split())
    return SpokenCall("jfk", load_audio(str(path)), words)


def recordings(archive: Path) -> dict[str, dict[str, list[np.ndarray]]]:
    """speaker -> digit -> recordings (float32 at 16 kHz), silence at their ends cut off."""
    found: dict[str, dict[str, list[np.ndarray]]] = defaultdict(lambda: defaultdict(list))
    with tarfile.open(archive) as tar:
        members = sorted((m for m in tar if m.name.endswith(".wav")), key=lambda m: m.name)
        for member in members:
            digit, speaker, number = Path(member.name).stem.split("_")
            file = tar.extractfile(member)
            if int(number) >= UNSEEN or file is None:
                continue
            with wave.open(io.BytesIO(file.read())) as recording:
                data = recording.readframes(recording.getnframes())
                samples = np.frombuffer(data, "<i2").astype(np.float32) / 32768
                wide = resample(samples, recording.getframerate())
            found[speaker][DIGITS[int(digit)]].append(trim(wide, keep=0))
    return found


def _strings(
    voice: dict[str, list[np.ndarray]], chance: np.random.Generator
) -> Iterator[Utterance]:
    """Strings of 2 to 8 digits with gaps of 50 to 300 ms."""
    while True:
        parts: list[np.ndarray] = []
        words: list[SpokenWord] = []
        position = 0
        for word in chance.choice(sorted(voice), int(chance.integers(2, 9))):
            if parts:
                gap = np.zeros(int(chance.uniform(0.05, 0.3) * SAMPLE_RATE), np.float32)
                parts.append(gap)
                position += len(gap)
            takes = voice[str(word)]
            samples = takes[int(chance.integers(len(takes)))]
            start, position = position, position + len(samples)
            words.append(SpokenWord(str(word), start / SAMPLE_RATE, position / SAMPLE_RATE))
            parts.append(samples)
        yield np.concatenate(parts), words


def _phrases(
    espeak: Espeak, grammar: Grammar, voice: str, chance: random.Random
) -> Iterator[Utterance]:
    """Sentences, half of them of templates that are held out."""
    while True:
        text = grammar.sentence(chance, held_out=chance.random() < 0.5)
        speed, pitch = chance.randint(130, 190), chance.randint(30, 70)
        samples, said = espeak.say(spoken(text), voice, speed=speed, pitch=pitch)
        words = [
            SpokenWord(written.lower(), word.start, word.end)
            for written, word in zip(text.split(), said, strict=True)
        ]
        samples = resample(samples, espeak.rate)
        loudest = np.flatnonzero(np.abs(samples) > 1e-3)
        yield samples[: loudest[-1] + 1 if len(loudest) else None], words
