"""benchmarks.bounds: the search for the greatest number that holds."""

from __future__ import annotations

import pytest

from benchmarks.bounds import Search


@pytest.mark.parametrize("most", [0, 1, 2, 7, 40, 59, 60, 61, 333])
@pytest.mark.parametrize("first", [1, 3, 60])
@pytest.mark.parametrize("cpu", [0.0, 0.004, 1.0])
def test_it_comes_to_the_number_in_few_trials(most: int, first: int, cpu: float) -> None:
    """``cpu``: cores that a call says it uses, whatever holds in truth."""
    search = Search(first)
    for _ in range(20):
        if search.done:
            break
        assert search.count >= 1
        assert search.low < search.count
        assert search.high is None or search.count < search.high
        search.learn(search.count <= most, cpu * search.count, 2)
    assert search.done
    assert search.high is not None
    assert search.low <= most < search.high
    assert search.high - search.low <= max(1, 0.07 * search.low)


def test_a_first_trial_foretells_where_to_look() -> None:
    search = Search(60)
    search.learn(True, cpu=0.6, cores=2)
    assert search.count == 180  # 0.9 of what would fill two cores, at most three times as many
    search.learn(False, cpu=2.0, cores=2)
    assert (search.low, search.high, search.count) == (60, 180, 104)
