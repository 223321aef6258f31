"""Random networks, sounds and options: what comes out is what openai-whisper gives.

``tests/random_parity.py`` tries as many further seeds as there is time for.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from random_parity import Parity, numba_apart

SEEDS = range(1_000, 1_016)


@pytest.fixture(autouse=True)
def _numba_apart() -> Iterator[None]:
    with numba_apart():
        yield


@pytest.mark.parametrize("seed", SEEDS)
def test_a_seed(seed: int) -> None:
    found = Parity(seed).differences()
    assert [line for line in found if "DIFFERENT" in line] == []


def test_a_difference_is_seen() -> None:
    pair = Parity(1_000)
    with torch.no_grad():
        pair.ours.decoder.token_embedding.weight.mul_(-1)
    found = pair.differences()
    assert found != []
    assert all("DIFFERENT" in line for line in found)
