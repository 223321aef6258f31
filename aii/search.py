"""Ways to choose the next tokens: the likeliest, by chance, or several beams at once.

A search holds what each row has sampled. It is asked once per decoder pass, by :meth:`choose`, and
keeps all that belongs to the decode; the decoder's cache is moved by whoever runs the loop.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from .compiled import kernels
from .errors import InputError, ServiceError

NO_TOKEN = "the network's scores are not finite numbers, or the rules leave no token"
"""What is wrong where there is nothing to choose."""


@dataclass(frozen=True)
class Candidate:
    """One finished transcript: its tokens without the end, and the sum of their log-probabilities.

    The sum includes the end token where the row reached it.
    """

    tokens: tuple[int, ...]
    logprob: float


class Search(Protocol):
    """How the decoding loop sees a search.

    Attributes:
        done: nothing more is to be chosen.
        greedy: every row takes its likeliest token, so :meth:`take` may do for ``choose``.
    """

    done: bool
    greedy: bool

    @property
    def sampled(self) -> list[list[int]]:
        """What each row has sampled so far."""

    def choose(self, logits: Tensor) -> tuple[list[int], list[int] | None]:
        """Take one token for every row from filtered logits (rows, vocabulary).

        Returns:
            The chosen tokens, and, where rows continue other rows, which one each continues.
        """

    def take(self, tokens: list[int], logprobs: list[float]) -> tuple[list[int], None]:
        """Take tokens that were picked already; only where ``greedy``."""

    def candidates(self) -> list[list[Candidate]]:
        """The transcripts found for each audio."""


def likeliest(logits: Tensor) -> tuple[list[int], list[float]]:
    """The likeliest token of each row (rows, vocabulary) and its log-probability.

    Of equal ones the first.
    """
    plain = logits.device.type == "cpu" and logits.dtype == torch.float32
    if plain and (loops := kernels()) is not None:
        places, shares = np.empty(len(logits), np.int64), np.empty(len(logits), np.float32)
        loops.likeliest(logits.detach().contiguous().numpy(), places, shares)
        return places.tolist(), shares.tolist()
    picked = _argmax(logits).tolist()
    if logits.device.type != "cpu":
        logprobs = logits.log_softmax(dim=-1)
        return picked, logprobs[range(len(picked)), picked].tolist()
    # Row by row, what comes in between stays in the processor's cache.
    return picked, [float(row.log_softmax(0)[i]) for row, i in zip(logits, picked, strict=True)]


_BLOCK = 512


def _argmax(logits: Tensor) -> Tensor:
    """``logits.argmax(-1)`` of (rows, vocabulary).

    On a CPU PyTorch finds a maximum many times as fast as its place: so first the block, then the
    place in it.
    """
    rows, size = logits.shape
    whole = size - size % _BLOCK
    if whole < 2 * _BLOCK or logits.device.type != "cpu":
        return logits.argmax(dim=-1)
    split = logits[:, :whole].unflatten(1, (-1, _BLOCK))
    highest = split.amax(dim=-1)
    block = highest.argmax(dim=-1)
    picked = block * _BLOCK + split[torch.arange(rows), block].argmax(dim=-1)
    if whole == size:
        return picked
    best, place = logits[:, whole:].max(dim=-1)
    return torch.where(best > highest.amax(dim=-1), place + whole, picked)


class RowSearch:
    """Every row goes its own way: the likeliest token at temperature 0, else a random draw.

    Args:
        rows: number of rows, the samples of an audio side by side.
        group: rows per audio.
        eot: the token that ends a transcript.
        temperature: divides the logits before drawing; 0 takes the maximum.
        generator: what draws, None for torch's global one.
    """

    def __init__(
        self,
        rows: int,
        *,
        group: int,
        eot: int,
        temperature: float,
        generator: torch.Generator | None = None,
    ) -> None:
        self.sampled: list[list[int]] = [[] for _ in range(rows)]
        self.done = False
        self.greedy = temperature == 0
        self._group = group
        self._eot = eot
        self._temperature = temperature
        self._generator = generator
        self._sums = [0.0] * rows
        self._ended = [False] * rows

    def choose(self, logits: Tensor) -> tuple[list[int], list[int] | None]:
        """Take each row's next token; no row ever continues another."""
        if self.greedy:
            return self.take(*likeliest(logits))
        logits = self._open(logits)
        odds = (logits / self._temperature).softmax(dim=-1)
        picked = torch.multinomial(odds, 1, True, generator=self._generator)[:, 0]
        chosen = logits.gather(1, picked[:, None])[:, 0] - logits.logsumexp(dim=-1)
        return self.take(picked.tolist(), chosen.tolist())

    def _open(self, logits: Tensor) -> Tensor:
        """``logits``, once the rules leave a token to every row that has not ended."""
        closed = ~logits.amax(dim=-1).isfinite()
        if not bool(closed.any()):
            return logits
        if not all(self._ended[row] for row in closed.nonzero().flatten().tolist()):
            raise ServiceError(NO_TOKEN)
        return logits.masked_fill(closed[:, None], 0.0)

    def take(self, tokens: list[int], logprobs: list[float]) -> tuple[list[int], None]:
        """Take tokens that were picked already, one for each row, and their log-probabilities."""
        tokens = list(tokens)
        for row, (token, logprob) in enumerate(zip(tokens, logprobs, strict=True)):
            if self._ended[row]:
                tokens[row] = self._eot
                continue
            self._sums[row] += logprob
            self._ended[row] = token == self._eot
            if not self._ended[row]:
                self.sampled[row].append(token)
        self.done = all(self._ended)
        return tokens, None

    def candidates(self) -> list[list[Candidate]]:
        """Each audio's rows, ended or not."""
        every = [Candidate(tuple(t), s) for t, s in zip(self.sampled, self._sums, strict=True)]
        return [every[i : i + self._group] for i in range(0, len(every), self._group)]


@dataclass
class _Beams:
    """The beams of one audio: open ones side by side, and those that have ended, best first."""

    tokens: list[tuple[int, ...]]
    sums: list[float]
    finished: dict[tuple[int, ...], float] = field(default_factory=dict)


class BeamSearch:
    """Beam search with patience (Kasai et al., arXiv 2204.05424).

    Args:
        audios: number of audios; each has ``size`` rows side by side.
        size: open beams per audio.
        eot: the token that ends a transcript.
        patience: an audio is done when it has ``round(size * patience)`` finished beams.
        weighed: the logits are log-probabilities already, of which rules have taken some away
            (:class:`aii.logit_filters.Constrain`); what they have taken counts against a beam.

    Raises:
        InputError: ``size`` and ``patience`` give no beam at all.
    """

    def __init__(
        self,
        audios: int,
        *,
        size: int,
        eot: int,
        patience: float | None,
        weighed: bool = False,
    ) -> None:
        self._weighed = weighed
        self._wanted = round(size * (patience or 1.0))
        if size < 1 or self._wanted < 1:
            raise InputError(f"beam_size {size} with patience {patience} leaves no beam")
        self.done = False
        self.greedy = False
        self._size = size
        self._eot = eot
        self._audios = [_Beams([()] * size, [0.0] * size) for _ in range(audios)]
        self._frozen: list[bool] = [False] * audios

    @property
    def sums(self) -> list[float]:
        """The log-probability of each open beam of the first audio."""
        return list(self._audios[0].sums)

    @property
    def open_sums(self) -> list[float]:
        """The log-probability of each open beam of all audios."""
        return [total for beams in self._audios for total in beams.sums]

    def stand(self, tokens: list[list[int]], sums: list[float]) -> None:
        """Go on from these open beams, all of all audios, whatever they were before."""
        for number, beams in enumerate(self._audios):
            rows = slice(number * self._size, (number + 1) * self._size)
            beams.tokens, beams.sums = [tuple(row) for row in tokens[rows]], sums[rows]

    @property
    def finished(self) -> dict[tuple[int, ...], float]:
        """The ended beams of the first audio and their log-probabilities, the end included."""
        return dict(self._audios[0].finished)

    def take(self, tokens: list[int], logprobs: list[float]) -> tuple[list[int], None]:
        """Never asked for: beams need all scores."""
        raise NotImplementedError("beams need all scores")

    @property
    def sampled(self) -> list[list[int]]:
        """What each row has sampled so far."""
        return [list(tokens) for beams in self._audios for tokens in beams.tokens]

    def choose(self, logits: Tensor) -> tuple[list[int], list[int] | None]:
        """Grow every beam, keep the best; return their tokens and the rows they continue."""
        logprobs = logits if self._weighed else logits.log_softmax(dim=-1)
        best, tokens = logprobs.topk(self._size + 1, dim=-1)
        # Summed in float32, as openai-whisper does: candidates can be that close.
        sums = torch.tensor(self.open_sums)
        total_rows, token_rows = (sums[:, None] + best.cpu()).tolist(), tokens.tolist()
        chosen: list[int] = []
        sources: list[int] = []
        for number, beams in enumerate(self._audios):
            first = number * self._size
            if self._frozen[number]:
                chosen += [self._eot] * self._size
                sources += range(first, first + self._size)
                continue
            rows = slice(first, first + self._size)
            for token, source in self._grow(beams, total_rows[rows], token_rows[rows]):
                chosen.append(token)
                sources.append(first + source)
            self._frozen[number] = len(beams.finished) >= self._wanted
        self.done = all(self._frozen)
        return chosen, sources

    def _grow(
        self, beams: _Beams, totals: list[list[float]], tokens: list[list[int]]
    ) -> list[tuple[int, int]]:
        """Move one audio a token on; return each open beam's (token, beam it continues)."""
        grown: dict[tuple[int, ...], tuple[float, int]] = {}
        for beam, prefix in enumerate(beams.tokens):
            for total, token in zip(totals[beam], tokens[beam], strict=True):
                grown[prefix + (token,)] = (total, beam)
        kept: list[tuple[tuple[int, ...], float, int]] = []
        ended: list[tuple[tuple[int, ...], float]] = []
        for sequence in sorted(grown, key=lambda s: grown[s][0], reverse=True):
            total, beam = grown[sequence]
            if sequence[-1] == self._eot:
                ended.append((sequence[:-1], total))
                continue
            kept.append((sequence, total, beam))
            if len(kept) == self._size:
                break
        room = self._wanted - len(beams.finished)
        for sequence, total in ended[:room]:
            beams.finished[sequence] = total
        beams.tokens = [sequence for sequence, _, _ in kept]
        beams.sums = [total for _, total, _ in kept]
        return [(sequence[-1], beam) for sequence, _, beam in kept]

    def candidates(self) -> list[list[Candidate]]:
        """Each audio's ended beams, filled up with its best open ones."""
        found = []
        for beams in self._audios:
            finished = dict(beams.finished)
            # Too few ended: the best open ones stand in, as far as they are needed.
            order = sorted(range(self._size), key=lambda i: beams.sums[i], reverse=True)
            for i in order:
                if len(finished) >= self._size:
                    break
                finished[beams.tokens[i]] = beams.sums[i]
            found.append([Candidate(tokens, total) for tokens, total in finished.items()])
        return found


def score(logprob: float, length: int, length_penalty: float | None) -> float:
    """A log-probability for its length, so that short texts and long ones can be compared.

    Without a penalty the sum is divided by the number of tokens; with one by
    ``((5 + length) / 6) ** penalty`` (Wu et al., arXiv 1609.08144, equation 14).
    """
    if length_penalty is None:
        return logprob / max(length, 1)
    return float(logprob / ((5 + length) / 6) ** length_penalty)


def best_candidate(candidates: list[Candidate], length_penalty: float | None) -> Candidate:
    """The candidate of the highest :func:`score`; of equal ones the first.

    Raises:
        ServiceError: none of them has a probability: the rules left no token at some place.
    """
    best = max(candidates, key=lambda one: score(one.logprob, len(one.tokens), length_penalty))
    if not math.isfinite(best.logprob):
        raise ServiceError(NO_TOKEN)
    return best
