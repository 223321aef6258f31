"""Which tokens may come next: text 0-9, end 10, no-timestamps 15, times from 20 on."""

from __future__ import annotations

import math

import pytest
import torch

from aii.logit_filters import SuppressBlank, SuppressTokens, TimestampRules

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
