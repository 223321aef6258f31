"""A small vocabulary to train with, and the way back to the full one.

Of Whisper's 51,865 tokens the domain uses about two thousand. Training keeps one embedding row for
each of those and a single row that stands for all others; its logit gets the logarithm of their
number added, so the loss is exactly that of the full vocabulary with all unused rows alike. The
shipped file has that row in every unused place.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from aii.tokenizer import get_tokenizer
from training.grammar import Grammar

FULL = 51_865


@dataclass(frozen=True)
class Vocabulary:
    """The tokens in use, ascending. The compact number behind the last one means "any other"."""

    used: tuple[int, ...]

    @classmethod
    def of_grammar(cls, grammar: Grammar | None = None) -> Vocabulary:
        """All tokens that sentences of the grammar, its labels and the product's prompts need."""
        tokenizer = get_tokenizer(True, language="en", task="transcribe")
        found = {
            token for w in (grammar or Grammar()).words() for token in tokenizer.encode(f" {w}")
        }
        found |= {tokenizer.eot, *tokenizer.sot_sequence, tokenizer.no_speech, tokenizer.sot_prev}
        found |= {tokenizer.no_timestamps}
        found |= set(range(tokenizer.timestamp_begin, tokenizer.timestamp_begin + 1501))
        return cls(tuple(sorted(found)))

    @property
    def size(self) -> int:
        """Rows of the compact embedding."""
        return len(self.used) + 1

    @property
    def texts(self) -> int:
        """How many of the compact numbers, the first ones, are text and no special tokens."""
        return sum(token < 50_257 for token in self.used)

    @property
    def unused(self) -> int:
        """How many tokens the last row stands for."""
        return FULL - len(self.used)

    def compact(self, token: int) -> int:
        """Compact number of a token; unused and negative ones give the last row."""
        return self._numbers().get(token, len(self.used))

    def _numbers(self) -> dict[int, int]:
        cached = _NUMBERS.get(self.used)
        if cached is None:
            cached = _NUMBERS[self.used] = {token: i for i, token in enumerate(self.used)}
        return cached

    def logit_bias(self) -> Tensor:
        """(size,) to add to compact logits before a softmax."""
        bias = torch.zeros(self.size)
        bias[-1] = math.log(self.unused)
        return bias

    def expand(self, embedding: Tensor) -> Tensor:
        """(size, D) to (51865, D)."""
        index = torch.full((FULL,), len(self.used))
        index[torch.tensor(self.used)] = torch.arange(len(self.used))
        return embedding[index]


_NUMBERS: dict[tuple[int, ...], dict[int, int]] = {}
