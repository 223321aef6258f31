"""What the long call's benchmark says of a call's events."""

from __future__ import annotations

import pytest

from benchmarks.long_call import Told, covered


def told(*spans: tuple[str, float, float]) -> Told:
    events = [
        {"type": kind, "start": start, "end": end, "reason": "silence"}
        for kind, start, end in spans
    ]
    return Told([(0.0, event) for event in events])


def test_a_call_without_gap_and_overlap() -> None:
    call = told(("skipped", 0, 1), ("final", 1, 4.5), ("final", 4.5, 4.5), ("skipped", 4.5, 6))
    assert covered(call, 6.0) == (0, 0)


@pytest.mark.parametrize(
    ("spans", "missing", "twice"),
    [
        ([("final", 0, 2), ("final", 2.5, 6)], 0.5, 0),
        ([("final", 0, 2), ("final", 1.5, 6)], 0, 0.5),
        ([("final", 0.25, 6)], 0.25, 0),
        ([("final", 0, 5)], 1, 0),
        ([("final", 0, 6), ("final", 1, 3)], 0, 2),
    ],
)
def test_gaps_and_overlaps_are_counted(spans, missing, twice) -> None:
    found = covered(told(*spans), 6.0)
    assert found == pytest.approx((missing, twice), abs=0.02)
