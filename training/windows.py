"""What a window is made of: recorded utterances, silence, and what its edges leave of words."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from training.sounds import no_speech

RATE = 16_000
CUT = 0.3
"""Share of the first, and of the last, utterances of a window that its edge goes through."""


class Recordings:
    """The recordings that ``synthesise.py`` made; samples stay on disk until they are used."""

    def __init__(self, folder: Path) -> None:
        self.entries: list[dict[str, Any]] = json.loads((folder / "index.json").read_text())
        self.audio = np.memmap(folder / "audio.i16", np.int16, "r")
        self.by_group: dict[str, list[int]] = defaultdict(list)
        for i, entry in enumerate(self.entries):
            self.by_group[entry["group"]].append(i)

    def samples(self, index: int) -> np.ndarray:
        """(N,) float32."""
        entry = self.entries[index]
        part = self.audio[entry["offset"] : entry["offset"] + entry["samples"]]
        return part.astype(np.float32) / 32768.0

    def utterance(self, index: int) -> Utterance:
        """What is said in a recording, with the places of its words where they are known."""
        entry = self.entries[index]
        text, ends = entry["text"], entry.get("ends", [])
        begins = [0, *ends][: len(ends)]
        marks = list(zip(begins, ends, text.split() if ends else [], strict=True))
        return Utterance(self.samples(index), text, marks)

    def speakers(self, group: str) -> dict[str, dict[str, list[int]]]:
        """voice -> word -> recordings, for single words."""
        found: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
        for i in self.by_group[group]:
            entry = self.entries[i]
            found[entry["voice"]][entry["text"]].append(i)
        return {voice: dict(words) for voice, words in found.items()}


@dataclass
class Utterance:
    """Samples (N,) float32 and what is said in them.

    Attributes:
        marks: (first sample, end, text) of each word, where it is known.
    """

    samples: np.ndarray
    text: str
    marks: list[tuple[int, int, str]] = field(default_factory=list)

    def faster(self, factor: float) -> Utterance:
        """Played ``factor`` times as fast."""
        marks = [(int(a / factor), int(b / factor), text) for a, b, text in self.marks]
        return Utterance(change_speed(self.samples, factor), self.text, marks)

    def without_start(self, lost: int) -> Utterance:
        """All but the first ``lost`` samples, with all the words."""
        marks = [(max(0, a - lost), max(0, b - lost), text) for a, b, text in self.marks]
        return Utterance(self.samples[lost:], self.text, marks)


@dataclass
class Window:
    """What the model hears at once: samples and (start, end, text) in seconds.

    Attributes:
        words: of each segment the words that it consists of, likewise; none where their places
            are not known.
    """

    samples: np.ndarray
    segments: list[tuple[float, float, str]]
    words: list[list[tuple[float, float, str]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.words += [[] for _ in self.segments[len(self.words) :]]

    def add(self, speech: Utterance, at: int) -> None:
        """A segment whose samples begin at ``at``."""
        begin, end = at / RATE, (at + len(speech.samples)) / RATE
        self.segments.append((begin, end, speech.text))
        self.words.append([((at + a) / RATE, (at + b) / RATE, t) for a, b, t in speech.marks])


def change_speed(samples: np.ndarray, factor: float) -> np.ndarray:
    """Play ``factor`` times as fast: pitch, formants and speed change together."""
    size = max(2, int(len(samples) / factor))
    return np.interp(np.arange(size) * factor, np.arange(len(samples)), samples).astype(np.float32)


def join_words(
    rng: np.random.Generator, pieces: list[np.ndarray], texts: list[str], gap: float
) -> Utterance:
    """Words behind one another with pauses of 0 to ``gap`` seconds and unequal loudness."""
    parts: list[np.ndarray] = []
    marks: list[tuple[int, int, str]] = []
    at = 0
    for i, (piece, text) in enumerate(zip(pieces, texts, strict=True)):
        if i:
            pause = rng.uniform(0.0, gap) * rng.uniform(0.3, 1.0)
            parts.append(np.zeros(int(pause * RATE), np.float32))
            at += len(parts[-1])
        parts.append(piece * np.float32(rng.uniform(0.5, 1.0)))
        marks.append((at, at + len(piece), text))
        at += len(piece)
    return Utterance(np.concatenate(parts), " ".join(texts), marks)


def join(rng: np.random.Generator, said: list[Utterance], gap: float) -> Utterance:
    """Utterances behind one another as one, pauses and loudness as ``join_words`` makes them."""
    whole = join_words(rng, [s.samples for s in said], [s.text for s in said], gap)
    marks = [
        (at + a, at + b, text)
        for (at, _, _), speech in zip(whole.marks, said, strict=True)
        for a, b, text in speech.marks
    ]
    known = all(speech.marks for speech in said)
    return Utterance(whole.samples, whole.text, marks if known else [])


def cut_off(rng: np.random.Generator, speech: Utterance, *, end: bool) -> Utterance:
    """What a window's edge leaves of an utterance: it goes through one of its words.

    A word of which 85 % are left is written, one of which at most 40 % are is not; no cut is made
    in between. Unchanged where the words' places are not known.
    """
    if len(speech.marks) < 2:
        return speech
    chosen = int(rng.integers(1, len(speech.marks)))
    word = speech.marks[chosen if end else chosen - 1]
    share = rng.uniform(0.0, 0.4) if rng.random() < 0.6 else rng.uniform(0.85, 1.0)
    size = word[1] - word[0]
    if end:
        kept = speech.marks[: chosen + (share > 0.8)]
        samples = speech.samples[: word[0] + int(share * size)]
        marks = [(a, min(b, len(samples)), text) for a, b, text in kept]
    else:
        kept = speech.marks[chosen - (share > 0.8) :]
        first = word[1] - int(share * size)
        samples = speech.samples[first:]
        marks = [(max(0, a - first), b - first, text) for a, b, text in kept]
    return Utterance(samples, " ".join(text for _, _, text in marks), marks)


class Composer:
    """Makes windows out of recordings."""

    def __init__(self, recordings: Recordings) -> None:
        self.recordings = recordings
        self.people = list(recordings.speakers("person").values())
        words = recordings.speakers("word")
        self.digit_voices = [w for w in words.values() if len(w) >= 10]
        self.words = recordings.by_group["word"]
        self.sorted = {}
        for group in ("phrase", "jumble", "string"):
            indices = recordings.by_group[group]
            sizes = np.array([recordings.entries[i]["samples"] for i in indices])
            order = np.argsort(sizes, kind="stable")
            self.sorted[group] = (np.array(indices)[order], sizes[order])
        self.openings: dict[str, list[int]] = defaultdict(list)
        for i in recordings.by_group["phrase"]:
            self.openings[self._opening(recordings.entries[i]["text"])].append(i)

    @staticmethod
    def _opening(text: str) -> str:
        """What phrases share that are easily taken for one another: their first two words."""
        return " ".join(text.split()[:2])

    def spoken_words(
        self, rng: np.random.Generator, voice: dict[str, list[int]], budget: float, speed: float
    ) -> Utterance:
        """A string of random words of one voice, at most ``budget`` seconds long."""
        gap = float(rng.choice([0.02, 0.15, 0.4, 0.4]))
        known = list(voice)
        pieces: list[np.ndarray] = []
        texts: list[str] = []
        total, wanted = 0.0, int(rng.integers(1, 11))
        while len(pieces) < wanted:
            word = known[rng.integers(len(known))]
            takes = voice[word]
            piece = self.recordings.samples(takes[rng.integers(len(takes))])
            piece = change_speed(piece, speed * rng.uniform(0.95, 1.05))
            total += len(piece) / RATE + gap * 0.5
            if total > budget and pieces:
                break
            pieces.append(piece)
            texts.append(word)
        return join_words(rng, pieces, texts, gap)

    def _continuous(self, rng: np.random.Generator, group: str, budget: float) -> Utterance:
        indices, sizes = self.sorted[group]
        fitting = int(np.searchsorted(sizes, budget * RATE))
        index = int(indices[rng.integers(0, max(1, fitting))])
        speech = self.recordings.utterance(index)
        if rng.random() < 0.5:
            speech = speech.faster(rng.uniform(0.9, 1.12))
        return speech

    def _salad(self, rng: np.random.Generator, budget: float) -> Utterance:
        """Random words by random voices."""
        picks = [self.words[i] for i in rng.integers(0, len(self.words), rng.integers(1, 5))]
        pieces: list[np.ndarray] = []
        texts: list[str] = []
        total = 0.0
        for index in picks:
            total += self.recordings.entries[index]["samples"] / RATE + 0.1
            if total > budget and pieces:
                break
            pieces.append(self.recordings.samples(index))
            texts.append(self.recordings.entries[index]["text"])
        return join_words(rng, pieces, texts, 0.3)

    def _scrap(self, rng: np.random.Generator, *, end: bool) -> np.ndarray:
        """What is left of a word that a window's edge cut through: at most its last, or first,
        quarter. It is no word any more and is not written."""
        group = "person" if rng.random() < 0.5 else "word"
        known = self.recordings.by_group[group]
        samples = self.recordings.samples(known[rng.integers(len(known))])
        size = int(len(samples) * rng.uniform(0.05, 0.25))
        return samples[-size:] if end else samples[:size]

    @staticmethod
    def _pause(rng: np.random.Generator, seconds: float) -> float:
        """Seconds between two utterances: hardly any, a breath, or while the other side speaks."""
        kind = rng.random()
        if kind < 0.08 and seconds > 6.0:
            return float(rng.uniform(1.3, 5.0))
        return float(rng.uniform(0.12, 0.55) if kind < 0.5 else rng.uniform(0.55, 1.3))

    def utterance(self, rng: np.random.Generator, budget: float) -> Utterance:
        """Something said in at most about ``budget`` seconds."""
        kind = rng.random()
        if kind < 0.26:
            person = self.people[rng.integers(len(self.people))]
            speech = self.spoken_words(rng, person, budget, rng.uniform(0.82, 1.25))
            if rng.random() < 0.12 and budget > 2.0:
                carrier = self._continuous(rng, "phrase", budget / 2)
                return join(rng, [carrier, speech], 0.3)
            return speech
        if kind < 0.34:
            voice = self.digit_voices[rng.integers(len(self.digit_voices))]
            return self.spoken_words(rng, voice, budget, rng.uniform(0.85, 1.2))
        if kind < 0.42:
            return self._continuous(rng, "string", budget)
        if kind < 0.65:
            return self._continuous(rng, "jumble", budget)
        if kind < 0.94:
            return self._continuous(rng, "phrase", budget)
        return self._salad(rng, budget)

    def again(
        self, rng: np.random.Generator, said: list[Utterance], budget: float
    ) -> Utterance | None:
        """Something that the window has heard before: the same, or what begins in the same way.

        A decoder that finds its place in the audio by the last words alone goes wrong there.
        ``None`` where nothing fits in ``budget`` seconds.
        """
        before = said[rng.integers(len(said))]
        kind = rng.random()
        if kind < 0.5:
            found = self.openings.get(self._opening(before.text), [])
            for i in rng.integers(0, len(found), 8) if found else ():
                if self.recordings.entries[found[i]]["samples"] <= budget * RATE:
                    return self.recordings.utterance(found[i])
        if len(before.samples) > budget * RATE:
            return None
        # The same words, for the most part not the same samples.
        same = before.faster(rng.uniform(0.88, 1.14)) if kind < 0.8 else before
        return replace(same, samples=same.samples * np.float32(rng.uniform(0.5, 1.0)))

    def window(self, rng: np.random.Generator, seconds: float) -> Window:
        """Up to about ``seconds`` of audio: silence, utterances, silence; or no speech at all."""
        if rng.random() < 0.07:
            length = int(rng.uniform(0.3, max(0.5, seconds)) * RATE)
            return Window(no_speech(rng, length), [])
        lead = rng.uniform(0.0, min(1.0, seconds * 0.2)) * (rng.random() < 0.8)
        if seconds > 6.0 and rng.random() < 0.15:
            lead = rng.uniform(1.0, seconds / 2)
        parts = [np.zeros(int(lead * RATE), np.float32)]
        if lead > 0.1 and rng.random() < 0.2:
            scrap = self._scrap(rng, end=True)[: len(parts[0])]
            parts[0][: len(scrap)] = scrap
        window = Window(np.zeros(0, np.float32), [])
        at = len(parts[0])
        several = rng.random() < (0.5 if seconds < 3.0 else 0.85)
        repeats = rng.choice([0.0, 0.3, 0.6])
        said: list[Utterance] = []
        while True:
            budget = max(0.4, seconds - at / RATE)
            speech = None
            if said and rng.random() < repeats:
                speech = self.again(rng, said, budget)
            if speech is None:
                speech = self.utterance(rng, budget)
                if not said and lead < 0.1 and rng.random() < CUT:
                    speech = cut_off(rng, speech, end=False)
            said.append(speech)
            if rng.random() < 0.15:
                speech = speech.without_start(int(rng.uniform(0, 0.05) * RATE))
            pause = self._pause(rng, seconds)
            last = not several or at / RATE + pause + 0.8 > seconds
            whole = len(speech.samples)
            if last and rng.random() < CUT:
                speech = cut_off(rng, speech, end=True)
            window.add(speech, at)
            parts.append(speech.samples)
            at += len(speech.samples)
            if last:
                break
            parts.append(np.zeros(int(pause * RATE), np.float32))
            at += len(parts[-1])
        if len(speech.samples) == whole:
            left = max(0.0, seconds - at / RATE)
            trail = rng.uniform(0.0, min(1.0, left)) * (rng.random() < 0.5)
            parts.append(np.zeros(int(trail * RATE), np.float32))
            if trail > 0.1 and rng.random() < 0.2:
                scrap = self._scrap(rng, end=False)[: len(parts[-1])]
                parts[-1][len(parts[-1]) - len(scrap) :] = scrap
        window.samples = np.concatenate(parts)
        return window
