"""Test sets, and a quick greedy decoder to watch the training with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from aii.evaluation import total_word_errors
from aii.model import Whisper
from aii.tokenizer import get_tokenizer
from training.augment import log_mel
from training.vocabulary import Vocabulary
from training.windows import RATE, Recordings, join_words


def digit_strings(
    recordings: Recordings, group: str, count: int, seed: int
) -> list[tuple[np.ndarray, str]]:
    """Strings of 2 to 8 digits out of single recordings of one speaker each, pauses up to 0.4 s."""
    rng = np.random.default_rng(seed)
    speakers = list(recordings.speakers(group).values())
    made = []
    for i in range(count):
        voice = speakers[i % len(speakers)]
        words = [str(w) for w in rng.choice(sorted(voice), int(rng.integers(2, 9)))]
        pieces = [recordings.samples(int(rng.choice(voice[word]))) for word in words]
        lead = np.zeros(int(rng.uniform(0.1, 0.5) * RATE), np.float32)
        samples = np.concatenate([lead, join_words(rng, pieces, words, 0.4).samples, lead])
        made.append((samples, " ".join(words)))
    return made


def sentences(recordings: Recordings, group: str, count: int) -> list[tuple[np.ndarray, str]]:
    """Up to ``count`` recordings of a group, with 0.2 s of silence around."""
    indices = recordings.by_group[group][:count]
    margin = np.zeros(RATE // 5, np.float32)
    return [
        (np.concatenate([margin, recordings.samples(i), margin]), recordings.entries[i]["text"])
        for i in indices
    ]


def long_windows(
    recordings: Recordings, count: int, seconds: float, seed: int
) -> list[tuple[np.ndarray, str]]:
    """Windows of up to ``seconds``, full of held-out voices' and seen speakers' utterances."""
    rng = np.random.default_rng(seed)
    pool = digit_strings(recordings, "eval-seen", 40, seed)
    pool += sentences(recordings, "eval-voice", 120)
    made = []
    for _ in range(count):
        pieces: list[np.ndarray] = []
        texts: list[str] = []
        total = 0
        while True:
            samples, text = pool[rng.integers(len(pool))]
            total += len(samples) + RATE // 2
            if total > seconds * RATE:
                break
            pieces += [samples, np.zeros(int(rng.uniform(0.1, 0.5) * RATE), np.float32)]
            texts.append(text)
        made.append((np.concatenate(pieces), " ".join(texts)))
    return made


class QuickCheck:
    """Word error rates of small sets with plain greedy decoding on the compact vocabulary."""

    def __init__(self, folder: Path, vocabulary: Vocabulary, count: int = 40) -> None:
        recordings = Recordings(folder)
        self.vocabulary = vocabulary
        self.tokenizer = get_tokenizer(True, language="en", task="transcribe")
        self.sets = {
            "unheard": digit_strings(recordings, "eval-unheard", count, 7),
            "seen": digit_strings(recordings, "eval-seen", count, 8),
            "voice": sentences(recordings, "eval-voice", count),
            "template": sentences(recordings, "eval-template", count),
            "long": long_windows(recordings, 12, 22.0, 9),
        }

    @torch.inference_mode()
    def transcribe(self, model: Whisper, clips: Sequence[np.ndarray]) -> list[str]:
        """Texts of clips (N,) float32, decoded together."""
        longest = max(len(clip) for clip in clips)
        frames = min(3000, max(150, -(-(longest // 160 + 100) // 50) * 50))
        samples = torch.zeros(len(clips), frames * 160)
        for row, clip in enumerate(clips):
            samples[row, : len(clip)] = torch.from_numpy(clip)
        xa = model.encoder(log_mel(samples).bfloat16())
        t = self.tokenizer
        prompt = [t.sot, t.to_language_token("en"), t.transcribe, t.no_timestamps]
        tokens = torch.tensor([[self.vocabulary.compact(x) for x in prompt]] * len(clips))
        eot = self.vocabulary.compact(t.eot)
        for _ in range(180):
            tail = model.decoder(tokens, xa)[:, -1].argmax(-1)
            tail[(tokens == eot).any(1)] = eot
            tokens = torch.cat([tokens, tail[:, None]], 1)
            if bool((tail == eot).all()):
                break
        return [self._text(row[len(prompt) :]) for row in tokens]

    def _text(self, row: Tensor) -> str:
        numbers = [self.vocabulary.used[i] for i in row.tolist() if i < len(self.vocabulary.used)]
        return self.tokenizer.decode([n for n in numbers if n < self.tokenizer.eot])

    def __call__(self, model: Whisper) -> dict[str, float]:
        """Word error rate in percent of each set."""
        rates = {}
        for name, pairs in self.sets.items():
            order = sorted(range(len(pairs)), key=lambda i: len(pairs[i][0]))
            compared: list[tuple[str, str]] = []
            for start in range(0, len(order), 20):
                part = [pairs[i] for i in order[start : start + 20]]
                texts = self.transcribe(model, [samples for samples, _ in part])
                compared += [(pair[1], text) for pair, text in zip(part, texts, strict=True)]
            rates[name] = round(100.0 * total_word_errors(compared).rate, 2)
        return rates
