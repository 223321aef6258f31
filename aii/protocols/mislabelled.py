"""G.711 that a sender has marked as SLIN, known by its bytes.

Of SLIN's two bytes the lower one is nearly random and the upper one mostly near silence; the bytes
of G.711 are all alike. That tells them apart at any level but for noise of full scale, in whose
case neither law makes a smoother signal of it. (Of 1,500 spoken digits, noise and tones, the
distributions of lower and upper bytes differed by 0.31 and more in SLIN, by 0.16 at most in G.711.)
"""

from __future__ import annotations

import numpy as np

from aii.audio.pcm import alaw_to_float, slin_to_float, ulaw_to_float

LAWS = {"ulaw": "G.711 mu-law", "alaw": "G.711 A-law"}

GATHERED = 16_000
"""Bytes that are judged together: one second of 8 kHz SLIN, two of G.711."""

TRIES = 30
"""How often that is done where there is not enough sound in them."""

_BLOCK = 320
_LOUD = 1000 / 32768
"""As SLIN, G.711 is loud wherever there is any sound in it; softer blocks tell nothing."""

_LEAST = 8_000
"""Bytes with sound in them that are enough."""

_ALIKE = 0.25
_SMOOTHER = 0.95


class Doubt:
    """Listens to what is marked as 8 kHz SLIN until it is known what it is, or for a minute."""

    def __init__(self) -> None:
        self._held = bytearray()
        self._tries = 0

    @property
    def over(self) -> bool:
        """Whether nothing more is wanted."""
        return self._tries >= TRIES

    def hear(self, payload: bytes) -> str:
        """Take a message's payload; the law that it is written in (``LAWS``), else ""."""
        if self.over or len(payload) % 2:
            return ""
        self._held += payload
        if len(self._held) < GATHERED:
            return ""
        data, self._held = bytes(self._held[:GATHERED]), bytearray()
        loud = _loud(data)
        if len(loud) < _LEAST:
            self._tries += 1
            return ""
        self._tries = TRIES
        return law_of(loud)


def law_of(data: bytes) -> str:
    """The law (``LAWS``) that 2 * N bytes with sound in them are written in; "": none."""
    pairs = np.frombuffer(data, np.uint8).reshape(-1, 2)
    lower, upper = (np.bincount(pairs[:, side], minlength=256) for side in (0, 1))
    if np.abs(lower - upper).sum() / (2 * len(pairs)) > _ALIKE:
        return ""
    views = {"ulaw": ulaw_to_float(data), "alaw": alaw_to_float(data)}
    law = min(views, key=lambda name: _roughness(views[name]))
    return law if _roughness(views[law]) < _SMOOTHER * _roughness(slin_to_float(data)) else ""


def _loud(data: bytes) -> bytes:
    """The blocks of ``data`` that have sound in them."""
    whole = len(data) // _BLOCK * _BLOCK
    blocks = slin_to_float(data[:whole]).reshape(-1, _BLOCK // 2)
    level = np.abs(blocks - blocks.mean(axis=1, keepdims=True)).mean(axis=1)
    found = np.frombuffer(data[:whole], np.uint8).reshape(-1, _BLOCK)[level >= _LOUD]
    return found.tobytes()


def _roughness(samples: np.ndarray) -> float:
    """How far apart neighbours are, as a share of the mean level."""
    return float(np.abs(np.diff(samples)).sum() / max(np.abs(samples).sum(), 1e-9))
