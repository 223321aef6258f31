"""One recording: what is to be said, its samples as they are kept, and the file of all of them."""

from __future__ import annotations

import io
import json
import random
import wave
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from training.grammar import digit_words

RATE = 16_000


@dataclass(frozen=True)
class Job:
    """One recording to make."""

    text: str
    group: str
    engine: str
    voice: str
    options: tuple[str, ...] = ()


def spoken(text: str) -> str:
    """The text as a synthesiser reads it best."""
    words = [{"A": "ay", "xray": "x-ray"}.get(word, word) for word in text.split()]
    return " ".join(words)


def read_wav(data: bytes) -> tuple[np.ndarray, int]:
    """Samples (N,) float32 and rate of a mono 16-bit WAV, also one whose header lies on length."""
    with wave.open(io.BytesIO(data)) as file:
        rate = file.getframerate()
    body = data[44 : 44 + (len(data) - 44) // 2 * 2]
    return np.frombuffer(body, "<i2").astype(np.float32) / 32768, rate


def resample(samples: np.ndarray, rate: int, target: int = RATE) -> np.ndarray:
    """(N,) at ``rate`` to ``target`` Hz by cutting or extending the spectrum."""
    if rate == target:
        return samples
    divisor = int(np.gcd(rate, target))
    unit = rate // divisor
    padded = np.pad(samples, (0, -len(samples) % unit + unit))
    size = len(padded) // unit * (target // divisor)
    spectrum = np.fft.rfft(padded)
    wanted = np.zeros(size // 2 + 1, complex)
    shared = min(len(spectrum), len(wanted))
    wanted[:shared] = spectrum[:shared]
    whole = np.fft.irfft(wanted, size) * (size / len(padded))
    return whole[: round(len(samples) * target / rate)].astype(np.float32)


def loud_part(samples: np.ndarray, below_peak_db: float = 36.0, keep: int = 320) -> tuple[int, int]:
    """First and last sample + 1 of all but the ends that are quieter than the loudest 10 ms by
    ``below_peak_db``."""
    frames = len(samples) // 160
    if frames < 3:
        return 0, len(samples)
    energy = (samples[: frames * 160].reshape(frames, 160) ** 2).mean(1)
    loud = np.flatnonzero(energy > energy.max() * 10 ** (-below_peak_db / 10))
    start, end = max(0, int(loud[0]) * 160 - keep), (int(loud[-1]) + 1) * 160 + keep
    return start, min(end, len(samples))


def trim(samples: np.ndarray, below_peak_db: float = 36.0, keep: int = 320) -> np.ndarray:
    """The samples of :func:`loud_part`."""
    first, last = loud_part(samples, below_peak_db, keep)
    return samples[first:last]


@dataclass(frozen=True)
class Recorded:
    """16-bit samples (N,) at 16 kHz and, where they are known, the sample behind each word."""

    pcm: np.ndarray
    ends: tuple[int, ...] = ()


def normal(samples: np.ndarray, ends: Sequence[float] = ()) -> Recorded:
    """Without silence at the ends, peak at 0.7; ``ends`` of words in seconds."""
    samples = samples - samples.mean()
    first, last = loud_part(samples)
    kept = samples[first:last]
    peak = float(np.abs(kept).max()) if len(kept) else 0.0
    pcm = (kept * (0.7 / max(peak, 1e-4)) * 32767).astype(np.int16)
    places = [min(max(round(end * RATE) - first, 0), len(pcm)) for end in ends]
    return Recorded(pcm, (*places[:-1], len(pcm)) if places else ())


def digit_string(rng: random.Random) -> str:
    """2 to 8 digits in text form, sometimes in groups with a pause between them."""
    words = digit_words(rng, rng.randint(2, 8), plain=rng.random() < 0.7).split()
    if rng.random() < 0.4 and len(words) > 3:
        cut = rng.randint(2, len(words) - 1)
        words[cut - 1] += ","
    return " ".join(words)


class Store:
    """Writes the recordings and their index."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.file = (folder / "audio.i16").open("wb")
        self.entries: list[dict[str, object]] = []
        self.offset = 0

    def add(self, job: Job, made: Recorded) -> None:
        """Append one recording."""
        pcm = made.pcm
        text = job.text.replace(",", "").lower()
        voice = " ".join([job.engine, job.voice, *job.options])
        entry = {"offset": self.offset, "samples": len(pcm), "text": text}
        entry |= {"group": job.group, "voice": voice}
        if made.ends and len(made.ends) == len(text.split()):
            entry["ends"] = list(made.ends)
        self.entries.append(entry)
        self.file.write(pcm.tobytes())
        self.offset += len(pcm)

    def close(self) -> None:
        """Write the index."""
        self.file.close()
        (self.folder / "index.json").write_text(json.dumps(self.entries), encoding="utf-8")
