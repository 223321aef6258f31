"""Which tokens may come next: text 0-9, end 10, no-timestamps 15, times from 20 on."""

from __future__ import annotations

import math

import pytest
import torch

from aii.errors import InputError
from aii.logit_filters import Constrain, SuppressBlank, SuppressTokens, TimestampRules

TEXT, EOT, NO_TIMES, BEGIN, SIZE = range(10), 10, 15, 20, 30


def allowed(rules, sampled: list[int], logits: torch.Tensor | None = None) -> set[int]:
    row = torch.zeros(1, SIZE) if logits is None else logits.clone()[None]
    rules(row, [sampled])
    return {i for i in range(SIZE) if row[0, i] > -math.inf}


def rules(latest_first: int | None = None) -> TimestampRules:
    return TimestampRules(BEGIN, EOT, NO_TIMES, latest_first)


def text_likely() -> torch.Tensor:
    logits = torch.zeros(SIZE)
    logits[:BEGIN] = 10.0
    return logits


TIMES = set(range(BEGIN, SIZE))
BEFORE = set(range(BEGIN)) - {NO_TIMES}


@pytest.mark.parametrize(
    ("sampled", "expected"),
    [
        ([], TIMES),
        ([22], BEFORE),  # an opened segment needs text
        ([22, 5], BEFORE | {t for t in TIMES if t > 22}),  # it may not end where it started
        ([22, 5, 25], {EOT, *range(EOT, BEGIN)} - {NO_TIMES} | {t for t in TIMES if t >= 25}),
        ([22, 5, 25, 25], BEFORE),
        ([22, 5, 25, 25, 6], BEFORE | {t for t in TIMES if t > 25}),
        ([3], BEFORE | TIMES),
        ([3, 22], {EOT, *range(EOT, BEGIN)} - {NO_TIMES} | {t for t in TIMES if t >= 22}),
    ],
)
def test_order_of_timestamps(sampled: list[int], expected: set[int]) -> None:
    assert allowed(rules(), sampled, text_likely()) == expected


def test_latest_first_timestamp() -> None:
    assert allowed(rules(3), []) == {20, 21, 22, 23}


def test_times_that_are_likely_together_win() -> None:
    logits = torch.zeros(SIZE)
    logits[5] = 1.9  # e^1.9 = 6.7 is less than seven times e^0
    assert allowed(rules(), [22, 4], logits) == {t for t in TIMES if t > 22}
    logits[5] = 3.0
    assert 5 in allowed(rules(), [22, 4], logits)


def test_rows_do_not_share_their_rules() -> None:
    logits = text_likely().repeat(2, 1)
    rules()(logits, [[], [22, 5]])
    assert logits[0, 0] == -math.inf
    assert logits[1, 0] == 10.0


def test_blank_and_listed() -> None:
    blank = SuppressBlank([7], EOT)
    assert allowed(blank, []) == set(range(SIZE)) - {7, EOT}
    assert allowed(blank, [1]) == set(range(SIZE))
    assert allowed(SuppressTokens([4, 4, 9]), [1]) == set(range(SIZE)) - {4, 9}


class Only:
    """Allows some tokens behind a text that is not too long; any at first."""

    def allowed(self, text):
        if len(text) > 2:
            raise ValueError("too long")
        return {4, EOT} if text else None


def test_what_a_constraint_leaves_is_as_likely_as_before() -> None:
    logits = torch.randn(2, SIZE, generator=torch.Generator().manual_seed(1))
    before = logits.log_softmax(dim=-1)
    Constrain(Only(), EOT, BEGIN)(logits, [[], [BEGIN + 2, 1]])
    assert torch.allclose(logits[0], before[0], atol=1e-6)
    kept = [4, EOT, *TIMES]  # which it is not asked about
    assert torch.allclose(logits[1, kept], before[1, kept], atol=1e-6)
    assert set(torch.isfinite(logits[1]).nonzero().flatten().tolist()) == set(kept)


class Reluctant(Only):
    """Does not like to end behind one token."""

    def ending(self, text):
        return -2.0 if len(text) == 1 else 0.0


def test_a_constraint_may_doubt_an_end() -> None:
    logits = torch.randn(2, SIZE, generator=torch.Generator().manual_seed(1))
    before = logits.log_softmax(dim=-1)
    Constrain(Reluctant(), EOT, BEGIN)(logits, [[1], [1, BEGIN + 2, 1]])
    assert float(logits[0, EOT]) == pytest.approx(float(before[0, EOT]) - 2.0, abs=1e-6)
    assert float(logits[0, 4]) == pytest.approx(float(before[0, 4]), abs=1e-6)
    assert float(logits[1, EOT]) == pytest.approx(float(before[1, EOT]), abs=1e-6)


def test_a_constraint_that_fails_has_changed_nothing() -> None:
    """The others of its pass are ruled again after that."""
    logits = torch.zeros(2, SIZE)
    with pytest.raises(ValueError, match="too long"):
        Constrain(Only(), EOT, BEGIN)(logits, [[1], [1, 1, 1]])
    assert torch.equal(logits, torch.zeros(2, SIZE))


class FromElsewhere:
    """Allows, behind a text, a token that the vocabulary does not have."""

    def allowed(self, text: list[int]) -> set[int] | None:
        return {3, SIZE} if text else {3, 4}

    def ending(self, text: list[int]) -> float:
        return -1.0


def test_a_constraint_for_another_vocabulary_changes_nothing() -> None:
    """Rows are ruled together, and the others once more alone where one of them fails."""
    logits = torch.randn(2, SIZE, generator=torch.Generator().manual_seed(0))
    before = logits.clone()
    with pytest.raises(InputError, match="made for another model"):
        Constrain(FromElsewhere(), EOT, SIZE)(logits, [[], [5]])
    assert torch.equal(logits, before)
