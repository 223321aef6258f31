"""From the scores of a pass to what each decode is told: rules and choices, many at a time."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from .errors import ServiceError
from .plan import Part
from .search import NO_TOKEN, likeliest
from .steps import Answer, Ask

Ruled = Tensor | tuple[list[int], list[float]] | Exception


def answers(
    asks: Sequence[Ask], parts: Sequence[Part], scores: Tensor, probes: Tensor
) -> list[Answer | Exception]:
    """What a pass says to each decode, or why it cannot.

    Args:
        asks: what was asked; neighbours with the same rules are ruled together.
        parts: the same as the decoder saw it, with the attention that it found.
        scores: (places wanted, vocabulary) of all asks, row by row; changed in place.
        probes: (rows, vocabulary) of those asks that have a probe.
    """
    odds = iter(_odds(asks, probes))
    found: list[Answer | Exception] = []
    first = 0
    for _, group in itertools.groupby(asks, key=lambda ask: (id(ask.filters), ask.copies > 1)):
        together = list(group)
        for ask, ruled in zip(together, _rule(together, scores, first), strict=True):
            probe = next(odds) if ask.probe is not None else []
            part = parts[len(found)]
            attention = torch.cat(part.scores, dim=1) if ask.attention else None
            if isinstance(ruled, Exception):
                found.append(ruled)
            elif isinstance(ruled, Tensor):
                found.append(Answer(logits=ruled, probe=probe, attention=attention))
            else:
                found.append(Answer(*ruled, probe=probe, attention=attention))
        first += sum(map(_places, together))
    return found


def unsound(hidden: Tensor, parts: Sequence[Part]) -> list[Exception | None]:
    """For each part, the error of one whose hidden states, among (M, D), are not all numbers.

    What it has left in its rows would spoil the next decode there, so it must not go on, however it
    chooses its tokens.
    """
    if hidden.device.type == "cpu":  # many times as fast, for few rows
        sound = np.isfinite(hidden.detach().float().numpy()).all(axis=-1).tolist()
    else:
        sound = hidden.isfinite().all(dim=-1).tolist()
    if all(sound):
        return [None] * len(parts)
    found: list[Exception | None] = []
    first = 0
    for part in parts:
        end = first + len(part.rows) * part.width
        found.append(None if all(sound[first:end]) else ServiceError(NO_TOKEN))
        first = end
    return found


def _places(ask: Ask) -> int:
    return ask.wanted * len(ask.tokens)


def _odds(asks: Sequence[Ask], probes: Tensor) -> Iterator[list[list[float]]]:
    """The probabilities that each probe asks for."""
    first = 0
    for ask in asks:
        if ask.probe is not None:
            rows = probes[first : first + len(ask.tokens)].softmax(dim=-1)
            first += len(ask.tokens)
            yield rows[:, list(ask.probe[1])].tolist()


def _rule(asks: Sequence[Ask], scores: Tensor, first: int) -> list[Ruled]:
    """Apply the rules that ``asks`` share to their scores, and pick where that is wanted."""
    sizes = list(map(_places, asks))
    slab = scores[first : first + sum(sizes)]
    if asks[0].copies > 1:
        return [
            _rule_one(ask, _copied(ask, own))
            for ask, own in zip(asks, slab.split(sizes), strict=True)
        ]
    try:
        for forbid in asks[0].filters:
            forbid(slab, list(itertools.chain.from_iterable(ask.sampled for ask in asks)))
    except Exception:  # of one of them; forbidding the others' tokens once more changes nothing
        return [_rule_one(ask, own) for ask, own in zip(asks, slab.split(sizes), strict=True)]
    if not all(ask.pick for ask in asks):
        pieces = zip(asks, slab.split(sizes), strict=True)
        return [_picked(*likeliest(own)) if ask.pick else own for ask, own in pieces]
    tokens, logprobs = likeliest(slab)
    ends = list(itertools.accumulate(sizes))
    return [
        _picked(tokens[end - size : end], logprobs[end - size : end])
        for size, end in zip(sizes, ends, strict=True)
    ]


def _copied(ask: Ask, scores: Tensor) -> Tensor:
    """The scores of each row as often as the row is there from now on."""
    rows = scores.unflatten(0, (-1, ask.wanted))
    return rows.repeat_interleave(ask.copies, dim=0).flatten(0, 1)


def _rule_one(ask: Ask, scores: Tensor) -> Ruled:
    try:
        for forbid in ask.filters:
            forbid(scores, ask.sampled)
    except Exception as error:
        return error
    return _picked(*likeliest(scores)) if ask.pick else scores


def _picked(tokens: list[int], logprobs: list[float]) -> Ruled:
    if all(map(math.isfinite, logprobs)):
        return tokens, logprobs
    return ServiceError(NO_TOKEN)
