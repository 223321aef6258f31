"""A decode without a KV cache: the slow twin of every other, with the same result in float32.

Nothing of one step is kept for the next: the audio's keys and values are computed again, and all
tokens so far are read again, for each token. It is what a plain loop around the network does, and
is here to be compared with. Types that round do so differently for passes of other shapes: there, a
token may be another one where two were nearly as likely.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypeVar

from torch import Tensor

from .steps import Answer, Ask, Attach, Encode, Steps

T = TypeVar("T")


def uncached(steps: Steps[T]) -> Steps[T]:
    """``steps`` as steps that lean on nothing that was computed before."""
    features: Tensor | None = None
    rows: list[list[int]] = []
    capacity: int | None = None
    answer: Any = None
    try:
        while True:
            step = next(steps) if answer is None else steps.send(answer)
            if isinstance(step, Encode | Attach):
                features = answer = yield step
                continue
            if features is not None:
                yield Attach(features)
            rows, capacity = _continued(rows, step), step.capacity if step.fresh else capacity
            answer = yield _whole(step, rows, capacity)
            if step.attention and answer.attention is not None:
                answer = _of_the_new(answer, len(step.tokens[0]))
            rows = [list(row) for row in rows for _ in range(step.copies)]
    except StopIteration as end:
        result: T = end.value
        return result
    finally:
        steps.close()


def _continued(rows: Sequence[Sequence[int]], step: Ask) -> list[list[int]]:
    """All tokens of each row once a step is made."""
    before = [] if step.fresh else list(rows)
    if step.sources is not None:
        before = [before[source] for source in step.sources]
    if not before:
        before = [[] for _ in step.tokens]
    return [[*old[: step.keep], *new] for old, new in zip(before, step.tokens, strict=True)]


def _whole(step: Ask, rows: Sequence[Sequence[int]], capacity: int | None) -> Ask:
    """The step that reads whole rows instead of what is new in them."""
    probe = step.probe
    if probe is not None:
        place, ids = probe
        known = len(rows[0]) - len(step.tokens[0])
        probe = (place + known if place >= 0 else place), ids
    return replace(
        step, tokens=rows, fresh=True, sources=None, keep=None, capacity=capacity, probe=probe
    )


def _of_the_new(answer: Answer, count: int) -> Answer:
    """The answer with the attention of the last ``count`` tokens alone."""
    assert answer.attention is not None
    return replace(answer, attention=answer.attention[:, :, -count:])
