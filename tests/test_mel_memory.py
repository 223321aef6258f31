"""Windows out of the memory equal windows that are transformed whole."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from aii.audio.pcm import slin_to_float
from aii.mel_memory import MelMemory
from aii.resources import asset
from aii.windows import window_mel

RATE = 16_000


@pytest.fixture(scope="module")
def call() -> np.ndarray:
    """12 s, with a loud moment and digital silence in it."""
    samples = slin_to_float(asset("sample_call.slin").read_bytes())[: 12 * RATE].copy()
    samples[5 * RATE : 5 * RATE + 40] = 0.9
    samples[7 * RATE : 8 * RATE] = 0
    return samples


def check(memory, model, call, begin, end, call_id="c") -> int:
    """Compare one window; how many of its frames were known."""
    before = memory.reused
    piece = call[begin:end]
    found = memory.window(call_id, piece, begin / RATE)
    expected = window_mel(model, piece)
    assert found.shape == expected.shape
    assert torch.allclose(found, expected, atol=2e-6)
    return memory.reused - before


def test_a_buffer_that_grows(tiny_model, call) -> None:
    memory = MelMemory(80)
    for number, end in enumerate((3000, 3001, 8000, 16_000, 16_007, 40_000, 80_000, 96_123)):
        known = check(memory, tiny_model, call, 0, end)
        assert (known > 0) == (number > 0)
    assert memory.reused > 0.5 * memory.frames


def test_a_buffer_whose_beginning_moves(tiny_model, call) -> None:
    memory = MelMemory(80)
    check(memory, tiny_model, call, 0, 80_000)
    assert check(memory, tiny_model, call, 160, 80_160) > 450
    assert check(memory, tiny_model, call, 48_000, 96_000) > 150
    assert check(memory, tiny_model, call, 95_840, 112_000) == 0  # nothing whole in common
    assert check(memory, tiny_model, call, 96_000, 160_000) > 80


def test_what_is_not_known_is_transformed_anew(tiny_model, call) -> None:
    memory = MelMemory(80)
    check(memory, tiny_model, call, 1600, 80_000)
    assert check(memory, tiny_model, call, 1601, 80_000) == 0  # between frames
    assert check(memory, tiny_model, call, 0, 80_000) == 0  # before what is known
    assert check(memory, tiny_model, call, 0, 80_000, "other") == 0
    assert check(memory, tiny_model, call, 0, 300) < 2
    other = call.copy()
    other[20_001] += 1e-4
    assert check(memory, tiny_model, other, 0, 80_000, "other") == 0  # another call of that name
    assert check(memory, tiny_model, other, 0, 90_000, "other") > 400


@pytest.mark.parametrize("count", [0, 1, 159, 160, 199, 200, 201, 320, 399, 561])
def test_short_windows(tiny_model, call, count) -> None:
    memory = MelMemory(80)
    for end in (count, count + 100, count + 161, count):
        check(memory, tiny_model, call, 0, end)


def test_random_windows(tiny_model, call) -> None:
    chance, memory = np.random.default_rng(1), MelMemory(80)
    begin = 0
    for _ in range(60):
        begin = min(begin + int(chance.choice([0, 0, 160, 800, 3200, 77])), len(call) - 400)
        end = min(begin + int(chance.integers(1, 40_000)), len(call))
        check(memory, tiny_model, call, begin, end)
    assert memory.reused > 0


def test_memory_is_bounded(call) -> None:
    memory = MelMemory(80, limit=1_000_000)
    for number in range(40):
        memory.window(f"call-{number}", call[: 4 * RATE], 0.0)
        assert memory.nbytes <= 1_000_000
        assert memory.nbytes == sum(one.nbytes for one in memory._kept.values())
    assert list(memory._kept) == [f"call-{n}" for n in range(40 - len(memory._kept), 40)]
    assert len(memory._kept) > 3


def test_pieces_are_known_by_more_than_their_sums(tiny_model) -> None:
    """Clicks of one loudness at other places, as in a call that has the id of the one before."""
    memory = MelMemory(80)
    call, other = np.zeros(2 * RATE, np.float32), np.zeros(2 * RATE, np.float32)
    call[7::160], other[120::160] = 0.5, 0.5
    check(memory, tiny_model, call, 0, len(call))
    assert check(memory, tiny_model, other, 0, len(other)) == 0
    assert check(memory, tiny_model, other, 0, len(other)) > 150


def test_calls_that_are_over_leave_nothing(tiny_model, call) -> None:
    now = 0.0
    memory = MelMemory(80, clock=lambda: now)
    for number in range(100):
        check(memory, tiny_model, call, 0, 3200, f"call-{number}")
        now += 1.0
    assert len(memory._kept) == 61
    held = memory.nbytes
    assert held == sum(kept.nbytes for kept in memory._kept.values())
    now += 58.0
    assert check(memory, tiny_model, call, 0, 4800, "call-99") > 0
    assert list(memory._kept) == ["call-98", "call-99"]
    now += 61.0
    check(memory, tiny_model, call, 0, 3200, "another")
    assert list(memory._kept) == ["another"]
