"""One recording: what is to be said, its samples as they are kept, and the file of all of them."""

from __future__ import annotations

import io
import json
import random
import wave
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


def trim(samples: np.ndarray, below_peak_db: float = 36.0, keep: int = 320) -> np.ndarray:
    """Cut what is quieter than the loudest 10 ms by ``below_peak_db`` off both ends."""
    frames = len(samples) // 160
    if frames < 3:
        return samples
    energy = (samples[: frames * 160].reshape(frames, 160) ** 2).mean(1)
    loud = np.flatnonzero(energy > energy.max() * 10 ** (-below_peak_db / 10))
    start, end = max(0, loud[0] * 160 - keep), (loud[-1] + 1) * 160 + keep
    return samples[start:end]


def normal(samples: np.ndarray) -> np.ndarray:
    """Trimmed, peak at 0.7, as 16-bit integers."""
    samples = trim(samples - samples.mean())
    peak = float(np.abs(samples).max()) if len(samples) else 0.0
    return (samples * (0.7 / max(peak, 1e-4)) * 32767).astype(np.int16)


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

    def add(self, job: Job, pcm: np.ndarray) -> None:
        """Append one recording."""
        text = job.text.replace(",", "").lower()
        voice = " ".join([job.engine, job.voice, *job.options])
        entry = {"offset": self.offset, "samples": len(pcm), "text": text}
        self.entries.append({**entry, "group": job.group, "voice": voice})
        self.file.write(pcm.tobytes())
        self.offset += len(pcm)

    def close(self) -> None:
        """Write the index."""
        self.file.close()
        (self.folder / "index.json").write_text(json.dumps(self.entries), encoding="utf-8")
