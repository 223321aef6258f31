"""Sounds that are no speech: noises, telephone tones and simple music."""

from __future__ import annotations

import numpy as np

RATE = 16_000
KINDS = ("silence", "noise", "ringing", "dial", "busy", "dtmf", "music")


def coloured_noise(rng: np.random.Generator, samples: int, exponent: float) -> np.ndarray:
    """(samples,) float32 of unit power whose spectrum falls as 1 / f ** exponent."""
    spectrum = rng.standard_normal(samples // 2 + 1) + 1j * rng.standard_normal(samples // 2 + 1)
    spectrum *= np.maximum(np.arange(samples // 2 + 1), 20 * samples / RATE) ** (-exponent / 2)
    noise = np.fft.irfft(spectrum, samples)
    return (noise / noise.std()).astype(np.float32)


def noise(rng: np.random.Generator, samples: int) -> np.ndarray:
    """Coloured noise, at times swelling, with clicks or mains hum."""
    track = coloured_noise(rng, max(samples, 400), rng.uniform(-0.3, 2.2))[:samples]
    time = np.arange(samples) / RATE
    if rng.random() < 0.4:
        track *= 1.0 + 0.9 * np.sin(2 * np.pi * rng.uniform(0.1, 5.0) * time + rng.uniform(0, 6))
    if rng.random() < 0.25:
        clicks = rng.integers(0, samples, max(1, samples // 8000))
        track[clicks] += rng.uniform(3.0, 15.0)
    if rng.random() < 0.25:
        mains = float(rng.choice([50.0, 60.0]))
        for harmonic in (1, 2, 3, 5):
            track += rng.uniform(0, 1) * np.sin(2 * np.pi * mains * harmonic * time)
    return track.astype(np.float32)


def babble(rng: np.random.Generator, speech: list[np.ndarray], samples: int) -> np.ndarray:
    """Many voices at once, unit power; used below speech, never alone."""
    total = np.zeros(samples, np.float32)
    for piece in speech:
        start = int(rng.integers(0, max(1, samples - len(piece))))
        part = piece[: samples - start]
        total[start : start + len(part)] += part
    return total / max(float(total.std()), 1e-4)


def tones(rng: np.random.Generator, samples: int, kind: str) -> np.ndarray:
    """Telephone signals (ITU-T E.180 supplement: North America, Britain, continental Europe)."""
    plans: dict[str, list[tuple[tuple[float, ...], tuple[float, ...]]]] = {
        "ringing": [
            ((440, 480), (2, 4)), ((400, 450), (0.4, 0.2, 0.4, 2)), ((425,), (1, 4)),
            ((425,), (1, 3)),
        ],
        "dial": [((350, 440), (99, 0)), ((425,), (99, 0)), ((350, 450), (99, 0))],
        "busy": [
            ((480, 620), (0.5, 0.5)), ((425,), (0.48, 0.48)), ((400,), (0.375, 0.375)),
            ((480, 620), (0.25, 0.25)), ((425,), (0.25, 0.25)),
        ],
    }  # fmt: skip
    frequencies, pattern = plans[kind][rng.integers(len(plans[kind]))]
    time = np.arange(samples) / RATE
    signal = np.zeros(samples)
    for frequency in frequencies:
        detune = rng.uniform(0.985, 1.015)
        signal += np.sin(2 * np.pi * frequency * detune * time + rng.uniform(0, 6.28))
    place = (time + rng.uniform(0, sum(pattern))) % sum(pattern)
    edges = np.cumsum(pattern)
    return (signal * (np.searchsorted(edges, place, side="right") % 2 == 0)).astype(np.float32)


def dtmf(rng: np.random.Generator, samples: int) -> np.ndarray:
    """Keys pressed now and then."""
    signal = np.zeros(samples, np.float32)
    at = int(rng.uniform(0, 0.5) * RATE)
    while at < samples:
        length = int(rng.uniform(0.05, 0.4) * RATE)
        time = np.arange(min(length, samples - at)) / RATE
        low, high = rng.choice([697, 770, 852, 941]), rng.choice([1209, 1336, 1477])
        both = np.sin(2 * np.pi * low * time) + np.sin(2 * np.pi * high * time)
        signal[at : at + len(time)] = both
        at += length + int(rng.uniform(0.05, 0.8) * RATE)
    return signal


def music(rng: np.random.Generator, samples: int) -> np.ndarray:
    """Chords and a melody of decaying harmonics over a beat: music on hold."""
    signal = np.zeros(samples, np.float32)
    beat = rng.uniform(0.15, 0.6)
    root = rng.uniform(80.0, 320.0)
    scale = np.array([0, 2, 4, 5, 7, 9, 11, 12, 14, 16])
    harmonics = rng.integers(1, 9)
    vibrato = rng.uniform(0, 0.01)
    at = 0.0
    while at * RATE < samples:
        notes = rng.choice(scale, rng.integers(1, 4), replace=False)
        start = int(at * RATE)
        size = min(int(rng.uniform(0.8, 3.0) * beat * RATE), samples - start)
        time = np.arange(size) / RATE
        envelope = np.exp(-time * rng.uniform(0.5, 6.0)) * np.minimum(1.0, time * 50)
        for note in notes:
            pitch = root * 2 ** (note / 12) * (1 + vibrato * np.sin(2 * np.pi * 5.5 * time))
            phase = 2 * np.pi * np.cumsum(pitch) / RATE
            for harmonic in range(1, harmonics + 1):
                signal[start : start + size] += envelope * np.sin(harmonic * phase) / harmonic
        if rng.random() < 0.3:
            hit = rng.standard_normal(size) * np.exp(-time * 40) * 2
            signal[start : start + size] += hit
        at += beat * rng.choice([0.5, 1, 1, 2])
    return signal


def no_speech(rng: np.random.Generator, samples: int, kind: str | None = None) -> np.ndarray:
    """(samples,) float32, peak at most 0.7, of a kind in ``KINDS`` (a random one by default)."""
    kind = kind or str(rng.choice(KINDS))
    if kind == "silence":
        quiet = rng.choice([0.0, 1e-4, 5e-4])
        return (quiet * rng.standard_normal(samples)).astype(np.float32)
    if kind == "noise":
        signal = noise(rng, samples)
    elif kind == "dtmf":
        signal = dtmf(rng, samples)
    elif kind == "music":
        signal = music(rng, samples)
    else:
        signal = tones(rng, samples, kind)
    return signal * np.float32(0.7 / max(float(np.abs(signal).max()), 1e-3))
