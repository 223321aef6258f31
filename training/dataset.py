"""Batches to train on: windows (``windows.py``), changed at random, with their tokens.

Batch ``i`` depends on the seed and ``i`` alone, so a resumed run goes on exactly where it was.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import IterableDataset

from aii.tokenizer import get_tokenizer
from training.augment import HOPS, Augmenter
from training.sounds import babble, no_speech, noise
from training.vocabulary import Vocabulary
from training.windows import RATE, Composer, Recordings, Window

IGNORED = -100


@dataclass(frozen=True)
class Stage:
    """How long the windows of a batch are.

    Attributes:
        seconds: longest audio in a window, before its margin.
        rows: windows in a batch.
        full: pad to 30 s.
        easy: hardly changed, to learn to align with.
        far: share of the batches that are placed later than at the start of the 30 s: the same
            work as for short windows teaches all positions and times.
    """

    seconds: float
    rows: int
    full: bool = False
    easy: bool = False
    far: float = 0.0


class Batch(NamedTuple):
    """(B, 80, frames) bfloat16 mel, (B, T) tokens, (B, T) targets, (B, T, 2) frames of the
    encoder's output (20 ms) between which each target's word lies (0, 0: not known), and the
    one at which the audio begins."""

    mel: torch.Tensor
    tokens: torch.Tensor
    targets: torch.Tensor
    places: torch.Tensor
    offset: int = 0


class Labelled(NamedTuple):
    """Of one window: input tokens, targets and their places, as in :class:`Batch`."""

    inputs: list[int]
    targets: list[int]
    places: list[tuple[int, int]]


class Labels:
    """Turns windows into token sequences and targets."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.vocabulary = vocabulary
        self.tokenizer = get_tokenizer(True, language="en", task="transcribe")

    def _prompt(self, rng: np.random.Generator, texts: list[str], longest: int) -> list[int]:
        kind = rng.random()
        if kind > 0.25 or not texts:
            return []
        wanted = int(rng.integers(1, longest))
        tokens: list[int] = []
        while len(tokens) < wanted:
            tokens += self.tokenizer.encode(" " + texts[rng.integers(len(texts))])
        tokens = tokens[-wanted:]
        if rng.random() < 0.2:  # words that the model does not know
            tokens = [t if rng.random() < 0.7 else -1 for t in tokens]
        return [self.tokenizer.sot_prev, *tokens]

    def _misheard(self, rng: np.random.Generator, tokens: list[int]) -> list[int]:
        """Half of the sequences get a tenth of their words' tokens wrong.

        What comes next must be heard, not guessed from the words before.
        """
        if rng.random() < 0.5:
            return tokens
        texts, eot = self.vocabulary.used[: self.vocabulary.texts], self.tokenizer.eot
        wrong = rng.random(len(tokens)) < 0.1
        picks = rng.integers(0, len(texts), len(tokens))
        return [
            texts[pick] if bad and token < eot else token
            for token, bad, pick in zip(tokens, wrong, picks, strict=True)
        ]

    def sequence(
        self,
        rng: np.random.Generator,
        window: Window,
        time_scale: float,
        others: list[str],
        longest_prompt: int,
        shift: int = 0,
    ) -> Labelled:
        """Input tokens and targets (``IGNORED`` where nothing is learned), compact numbers.

        ``time_scale`` is what the times of the window are multiplied by, ``shift`` how many steps
        of 20 ms they are later then.
        """
        t = self.tokenizer
        prompt = self._prompt(rng, others, longest_prompt)
        stamps = rng.random() < 0.6
        tokens = [t.sot, t.to_language_token("en"), t.transcribe]
        if not stamps:
            tokens.append(t.no_timestamps)
        if stamps and not window.segments:
            tokens.append(t.timestamp_begin)
        places = [(0, 0)] * len(tokens)
        for number, (begin, end, text) in enumerate(window.segments):
            words = t.encode(" " + text)
            origin = t.timestamp_begin + shift
            first, last = (origin + round(x * time_scale / 0.02) for x in (begin, end))
            tokens += [first, *words, min(last, t.timestamp_begin + 1500)] if stamps else words
            where = self._places(window.words[number], len(words), time_scale)
            places += [(0, 0), *where, (0, 0)] if stamps else where
        tokens.append(t.eot)
        targets = list(tokens)
        if not window.segments:
            targets[1] = t.no_speech
            targets[2] = -2
            if not stamps:
                targets[3] = -2
        inputs = [*prompt, *self._misheard(rng, tokens[:-1])]
        wanted = [-2] * len(prompt) + targets[1:]
        compact = self.vocabulary.compact
        return Labelled(
            [compact(x) for x in inputs],
            [IGNORED if x == -2 else compact(x) for x in wanted],
            [(0, 0)] * len(prompt) + places[1:] + [(0, 0)],
        )

    def _places(
        self, words: list[tuple[float, float, str]], count: int, time_scale: float
    ) -> list[tuple[int, int]]:
        """Where each of a segment's ``count`` tokens lies, in frames of 20 ms."""
        found = []
        for begin, end, text in words:
            first, last = round(begin * time_scale / 0.02), round(end * time_scale / 0.02)
            found += [(first, max(last, first + 2))] * len(self.tokenizer.encode(" " + text))
        return found if len(found) == count else [(0, 0)] * count


class Batches(IterableDataset):
    """Endless batches from ``start`` on."""

    def __init__(self, folder: Path, plan: Any, seed: int, start: int = 0) -> None:
        super().__init__()
        self.folder, self.plan, self.seed, self.start = folder, plan, seed, start

    def _prepare(self) -> None:
        torch.set_num_threads(1)
        self.recordings = Recordings(self.folder)
        self.composer = Composer(self.recordings)
        self.labels = Labels(Vocabulary.of_grammar())
        rng = np.random.default_rng(self.seed)
        tracks = [noise(rng, 90 * RATE) for _ in range(24)]
        for _ in range(8):
            picks = rng.choice(self.recordings.by_group["phrase"], 300)
            tracks.append(babble(rng, [self.recordings.samples(int(i)) for i in picks], 90 * RATE))
        for _ in range(3):
            tracks.append(no_speech(rng, 90 * RATE, "music") * 4)
        self.augmenter = Augmenter(np.stack(tracks))
        phrases = self.recordings.by_group["phrase"][:4000]
        self.texts = [self.recordings.entries[i]["text"] for i in phrases]

    def batch(self, number: int) -> Batch:
        """The batch of this number."""
        rng = np.random.default_rng([self.seed, number])
        torch.manual_seed(self.seed * 1_000_003 + number)
        stage: Stage = self.plan(number, rng)
        hop = 160 if stage.easy else int(rng.choice(HOPS))
        # With another hop the audio plays slower or faster: keep its length in frames.
        seconds = stage.seconds * hop / 160
        lengths_s = [
            seconds * (rng.uniform(0.05, 1.0) if stage.full else 1.0) for _ in range(stage.rows)
        ]
        windows = [self.composer.window(rng, length) for length in lengths_s]
        longest = max(len(w.samples) for w in windows)
        frames = -(-(longest // hop + 100) // 50) * 50 + 50 * int(rng.random() < 0.3)
        frames = 3000 if stage.full else int(np.clip(frames, 150, 3000))
        samples = np.zeros((stage.rows, frames * hop), np.float32)
        lengths = np.zeros(stage.rows, np.int64)
        for row, window in enumerate(windows):
            lengths[row] = min(len(window.samples), frames * hop)
            samples[row, : lengths[row]] = window.samples[: lengths[row]]
        mel = self.augmenter(rng, samples, lengths, hop, easy=stage.easy)
        prompt = 200 if stage.seconds > 8.0 and rng.random() < 0.2 else 12
        offset = int(rng.integers(0, 1501 - frames // 2)) if rng.random() < stage.far else 0
        made = [
            self.labels.sequence(rng, w, 160 / hop, self.texts, prompt, offset) for w in windows
        ]
        width = max(len(labelled.inputs) for labelled in made)
        tokens = torch.zeros(stage.rows, width, dtype=torch.long)
        targets = torch.full((stage.rows, width), IGNORED)
        places = torch.zeros(stage.rows, width, 2, dtype=torch.long)
        for row, labelled in enumerate(made):
            size = len(labelled.inputs)
            tokens[row, :size] = torch.tensor(labelled.inputs)
            targets[row, :size] = torch.tensor(labelled.targets)
            places[row, :size] = torch.tensor(labelled.places)
        return Batch(mel.bfloat16(), tokens, targets, places, offset)

    def __iter__(self) -> Iterator[Batch]:
        self._prepare()
        number = self.start
        while True:
            yield self.batch(number)
            number += 1
