"""Rules that forbid tokens before one is chosen.

Each filter is called with the logits of all rows and with what every row has sampled so far, and
sets forbidden logits to minus infinity in place. Rules and their order follow Radford et al.,
"Robust Speech Recognition via Large-Scale Weak Supervision" (arXiv 2212.04356), section 4.5.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from .errors import InputError

Filter = Callable[[Tensor, Sequence[Sequence[int]]], None]
"""``filter(logits, sampled)``: (rows, vocabulary), changed in place, and each row's new tokens."""


class Constraint(Protocol):
    """What a caller allows a transcript to say: phrases of a grammar, commands, digits.

    It travels with a request, so it should be a plain, hashable, picklable value, and it is asked
    by several rows in any order: it must not remember.
    """

    def allowed(self, text: Sequence[int]) -> Collection[int] | None:
        """The tokens that may follow ``text``, the text tokens sampled so far (no timestamps).

        Numbers of text tokens, and that of the end of text where the transcript may end; None
        allows everything. Timestamps follow their own rules and are neither asked nor told here.
        """


@runtime_checkable
class Weighing(Constraint, Protocol):
    """A constraint that also knows where an end is unlikely, before anything is heard."""

    def ending(self, text: Sequence[int]) -> float:
        """What is added to the log-probability of the end behind ``text``, 0 or less."""


class Constrain:
    """Keep a transcript to what a :class:`Constraint` allows.

    What is left keeps the log-probability that it has in the open vocabulary, so that a search can
    tell what the network would have said anyway from what it was forced to: renewed sums would give
    the only way on a probability of 1, however unlikely it was, and prefer the ways with the fewest
    choices.

    Args:
        constraint: the rule.
        eot: the token that ends a transcript; all before it are text.
        end: tokens from here on (timestamps) are not its business.
        before: tokens with which the transcript begins, before those that are sampled.
    """

    def __init__(
        self, constraint: Constraint, eot: int, end: int, before: Sequence[int] = ()
    ) -> None:
        self._constraint = constraint
        self._eot = eot
        self._end = end
        self._before = [token for token in before if token < eot]

    def __call__(self, logits: Tensor, sampled: Sequence[Sequence[int]]) -> None:
        # All rows are asked for first: a constraint that raises has changed nothing.
        texts = [[*self._before, *(t for t in row if t < self._eot)] for row in sampled]
        rows = [self._allowed(text, logits) for text in texts]
        ends = [0.0] * len(texts)
        if isinstance(self._constraint, Weighing):
            ends = [self._constraint.ending(text) for text in texts]
        logits -= logits.logsumexp(dim=-1, keepdim=True)
        for row, ids in enumerate(rows):
            logits[row, self._eot] += ends[row]
            if ids is None:
                continue
            kept = logits[row, ids]
            logits[row, : self._end] = -math.inf
            logits[row, ids] = kept

    def _allowed(self, text: Sequence[int], logits: Tensor) -> Tensor | None:
        allowed = self._constraint.allowed(text)
        if allowed is None:
            return None
        ids = sorted(allowed)
        if ids and not 0 <= ids[0] <= ids[-1] < logits.shape[-1]:
            raise InputError(
                f"a constraint allows tokens {ids[0]} to {ids[-1]}; the vocabulary has "
                f"{logits.shape[-1]}: it was made for another model"
            )
        return torch.tensor(ids, dtype=torch.long, device=logits.device)


class SuppressBlank:
    """Keep a transcript from starting with a space alone, or from ending before it started."""

    def __init__(self, blank: Sequence[int], eot: int) -> None:
        self._tokens = [*blank, eot]

    def __call__(self, logits: Tensor, sampled: Sequence[Sequence[int]]) -> None:
        for row, tokens in enumerate(sampled):
            if not tokens:
                logits[row, self._tokens] = -math.inf


class SuppressTokens:
    """Never choose some tokens."""

    def __init__(self, tokens: Sequence[int]) -> None:
        self.tokens = sorted(set(tokens))
        self._tokens = torch.tensor(self.tokens, dtype=torch.long)

    def __call__(self, logits: Tensor, sampled: Sequence[Sequence[int]]) -> None:
        tokens = self._tokens
        if tokens.device != logits.device:  # engines on other devices may share this filter
            self._tokens = tokens = tokens.to(logits.device)
        logits.index_fill_(1, tokens, -math.inf)


class TimestampRules:
    """Keep timestamps in pairs and in order, and prefer one where they are likely together.

    Args:
        begin: the token of 0.00 s; all from there on are timestamps.
        eot: the end of the text; all before it are text.
        no_timestamps: the token that switches timestamps off, None where there is none.
        latest_first: the greatest timestamp, in steps, that may come first (None: any).
    """

    def __init__(
        self, begin: int, eot: int, no_timestamps: int | None, latest_first: int | None
    ) -> None:
        self._begin = begin
        self._eot = eot
        self._no_timestamps = no_timestamps
        self.latest_first = latest_first

    def __call__(self, logits: Tensor, sampled: Sequence[Sequence[int]]) -> None:
        if self._no_timestamps is not None:
            logits[:, self._no_timestamps] = -math.inf
        for row, tokens in enumerate(sampled):
            self._order(logits[row], tokens)
        # Softmax divides both sides by the same sum, so the bare logits compare as well.
        any_time = logits[:, self._begin :].logsumexp(dim=-1)
        best_text = logits[:, : self._begin].amax(dim=-1)
        for row in (any_time > best_text).nonzero().flatten().tolist():
            logits[row, : self._begin] = -math.inf

    def _order(self, logits: Tensor, tokens: Sequence[int]) -> None:
        begin = self._begin
        if not tokens:  # a transcript starts with a time
            logits[:begin] = -math.inf
            if self.latest_first is not None:
                logits[begin + self.latest_first + 1 :] = -math.inf
            return
        after_time = tokens[-1] >= begin
        after_pair = after_time and (len(tokens) < 2 or tokens[-2] >= begin)
        if after_pair:  # an opened segment needs text
            logits[begin:] = -math.inf
        elif after_time:  # a closed segment needs the next one's start, or the end
            logits[: self._eot] = -math.inf
        last = next((token for token in reversed(tokens) if token >= begin), None)
        if last is not None:
            # The next segment may start where this one ended, but none may end where it started.
            earliest = last if after_time and not after_pair else last + 1
            logits[begin:earliest] = -math.inf
