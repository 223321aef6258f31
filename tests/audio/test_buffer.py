from __future__ import annotations

import numpy as np
import pytest

from aii.audio.buffer import BLOCK, AudioBuffer


def ramp(count: int, start: int = 0) -> np.ndarray:
    return np.arange(start, start + count, dtype=np.float32)


def test_any_pieces_give_the_same_samples():
    chance = np.random.default_rng(0)
    whole = ramp(5 * BLOCK + 17)
    buffer, done = AudioBuffer(), 0
    while done < len(whole):
        count = int(chance.integers(0, 3 * BLOCK))
        buffer.append(whole[done : done + count])
        done = min(done + count, len(whole))
        assert buffer.end == done
    assert np.array_equal(buffer.read(0, len(whole)), whole)
    assert np.array_equal(buffer.read(BLOCK - 1, 2 * BLOCK + 1), whole[BLOCK - 1 : 2 * BLOCK + 1])


def test_positions_stay_absolute_when_the_front_goes():
    buffer = AudioBuffer()
    buffer.append(ramp(4 * BLOCK))
    for position in (1, BLOCK, BLOCK + 5, 3 * BLOCK + 9):
        buffer.drop_to(position)
        assert (buffer.start, len(buffer)) == (position, 4 * BLOCK - position)
        assert buffer.read(position, position + 3).tolist() == ramp(3, position).tolist()
    assert buffer.seconds == pytest.approx((BLOCK - 9) / 16000)


def test_memory_is_what_is_kept():
    buffer = AudioBuffer()
    for second in range(2000):
        buffer.append(ramp(BLOCK, second))
        buffer.drop_to(max(0, buffer.end - 2 * BLOCK))
    assert len(buffer._blocks) <= 3
    assert buffer.end == 2000 * BLOCK


def test_dropping_everything_and_going_on():
    buffer = AudioBuffer()
    buffer.append(ramp(BLOCK))
    buffer.drop_to(BLOCK)
    assert len(buffer) == 0
    assert len(buffer.read(BLOCK, BLOCK)) == 0
    buffer.append(ramp(10, 7))
    assert buffer.read(BLOCK, BLOCK + 10).tolist() == ramp(10, 7).tolist()


def test_what_is_read_is_a_copy():
    buffer = AudioBuffer()
    samples = ramp(10)
    buffer.append(samples)
    samples[:] = -1
    buffer.read(0, 10)[:] = -1
    assert buffer.read(0, 10).tolist() == ramp(10).tolist()


def test_positions_outside_are_refused():
    buffer = AudioBuffer()
    buffer.append(ramp(100))
    buffer.drop_to(10)
    for start, end in ((0, 20), (50, 101), (60, 50)):
        with pytest.raises(ValueError, match="not in the buffer"):
            buffer.read(start, end)
    for position in (9, 101):
        with pytest.raises(ValueError, match="not in the buffer"):
            buffer.drop_to(position)
