"""Speech of espeak-ng with the place of every word, from its library (no text goes to a shell).

The program writes audio only; the library also says, in samples, where each word and each phoneme
begins (speak_lib.h of espeak-ng: ``espeak_EVENT``), so the times are exact, not estimated.
"""

from __future__ import annotations

import ctypes
import re
from ctypes import (
    POINTER,
    Structure,
    c_char,
    c_char_p,
    c_int,
    c_short,
    c_ubyte,
    c_uint,
    c_void_p,
)
from dataclasses import dataclass

import numpy as np

LIBRARY = "libespeak-ng.so.1"
_WORD, _PHONEME = 1, 7
_SYNCHRONOUS = 2  # AUDIO_OUTPUT_SYNCHRONOUS: samples to the callback, none to a sound card
_PHONEME_EVENTS, _DONT_EXIT = 0x1, 0x8000
_UTF8, _END_PAUSE = 1, 0x1000
_RATE, _PITCH = 1, 3  # espeak_PARAMETER


class _Event(Structure):
    _fields_ = [
        ("type", c_int),
        ("unique", c_uint),
        ("text_position", c_int),
        ("length", c_int),
        ("audio_position", c_int),
        ("sample", c_int),
        ("user_data", c_void_p),
        ("id", c_char * 8),
    ]


class _Voice(Structure):
    _fields_ = [
        ("name", c_char_p),
        ("languages", c_char_p),
        ("identifier", c_char_p),
        ("gender", c_ubyte),
        ("age", c_ubyte),
        ("variant", c_ubyte),
        ("xx1", c_ubyte),
        ("score", c_int),
        ("spare", c_void_p),
    ]


_CALLBACK = ctypes.CFUNCTYPE(c_int, POINTER(c_short), c_int, POINTER(_Event))


@dataclass(frozen=True)
class Said:
    """A word of the text and its place in the audio, in seconds; (nan, nan) where espeak-ng took
    it together with the word before."""

    text: str
    start: float
    end: float


class Espeak:
    """The library, opened once per process.

    Raises:
        OSError: espeak-ng is not installed (Debian: apt install espeak-ng).
    """

    def __init__(self) -> None:
        try:
            self._library = ctypes.CDLL(LIBRARY)
        except OSError as error:
            raise OSError(f"{error}; run: apt install espeak-ng") from None
        self._library.espeak_GetCurrentVoice.restype = c_void_p
        self.rate: int = self._library.espeak_Initialize(
            _SYNCHRONOUS, 0, None, _PHONEME_EVENTS | _DONT_EXIT
        )
        if self.rate <= 0:
            raise OSError("espeak-ng is installed without its data; run: apt install espeak-ng")

    def say(
        self, text: str, voice: str, *, speed: int = 160, pitch: int = 50, pause: bool = False
    ) -> tuple[np.ndarray, list[Said]]:
        """``text`` as (N,) float32 at ``rate``, and its words.

        ``pause`` lets the pause follow that ends a sentence, as the program does.

        Raises:
            ValueError: there is no such voice.
        """
        library = self._library
        if library.espeak_SetVoiceByName(voice.encode()) != 0:
            self._by_language(voice)
        library.espeak_SetParameter(_RATE, speed, 0)
        library.espeak_SetParameter(_PITCH, pitch, 0)
        blocks: list[np.ndarray] = []
        events: list[tuple[int, int, int, bytes]] = []

        @_CALLBACK
        def take(samples, count, event):
            if samples and count:
                blocks.append(np.ctypeslib.as_array(samples, (count,)).copy())
            index = 0
            while event[index].type:
                one = event[index]
                events.append((one.type, one.text_position - 1, one.sample, one.id))
                index += 1
            return 0

        library.espeak_SetSynthCallback(take)
        data = text.encode()
        flags = _UTF8 | (_END_PAUSE if pause else 0)
        library.espeak_Synth(data, len(data) + 1, 0, 1, 0, flags, None, None)
        library.espeak_Synchronize()
        samples = np.concatenate(blocks).astype(np.float32) / 32768 if blocks else np.zeros(0)
        return samples.astype(np.float32), _words(text, events, len(samples), self.rate)

    def _by_language(self, voice: str) -> None:
        """The voice for a language, with the variant behind a plus sign, as the program chooses."""
        wanted = _Voice(languages=voice.encode())
        failed = self._library.espeak_SetVoiceByProperties(ctypes.byref(wanted)) != 0
        # For a language that it does not know it takes some other one.
        chosen = ctypes.cast(self._library.espeak_GetCurrentVoice(), POINTER(_Voice)).contents
        if failed or voice.partition("+")[0].encode() not in chosen.languages:
            raise ValueError(f"espeak-ng has no voice {voice!r}")


def _words(
    text: str, events: list[tuple[int, int, int, bytes]], length: int, rate: int
) -> list[Said]:
    """The words of ``text``, each from its event to the next word or pause."""
    begins: dict[int, int] = {}
    stops: list[int] = []  # where a word can end: at the next one, or at a pause
    for kind, position, sample, phoneme in events:
        if kind == _WORD:
            begins.setdefault(position, sample)
            stops.append(sample)
        elif kind == _PHONEME and phoneme.startswith(b"_"):
            stops.append(sample)
    said = []
    for match in re.finditer(r"\S+", text):
        inside = [begins[p] for p in range(*match.span()) if p in begins]
        if not inside:
            said.append(Said(match[0], float("nan"), float("nan")))
            continue
        later = [stop for stop in stops if stop > inside[-1]]
        end = min(later, default=length)
        said.append(Said(match[0], inside[0] / rate, end / rate))
    return said
