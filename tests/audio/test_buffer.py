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
        assert np.array_equal(buffer.read(position, position + 3), ramp(3, position))
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
    assert np.asarray(buffer.read(BLOCK, BLOCK + 10)).tolist() == ramp(10, 7).tolist()


def test_what_is_read_is_a_copy():
    buffer = AudioBuffer()
    samples = ramp(10)
    buffer.append(samples)
    samples[:] = -1
    np.asarray(buffer.read(0, 10))[:] = -1
    assert np.asarray(buffer.read(0, 10)).tolist() == ramp(10).tolist()


def test_what_is_read_stays_as_it_was():
    buffer = AudioBuffer()
    buffer.append(ramp(2 * BLOCK + 100))
    taken = buffer.read(BLOCK - 5, 2 * BLOCK + 90)
    buffer.append(ramp(3 * BLOCK, 50_000))
    buffer.drop_to(buffer.end)
    buffer.append(ramp(3 * BLOCK, 90_000))
    assert len(taken) == BLOCK + 95
    assert np.array_equal(np.asarray(taken), ramp(BLOCK + 95, BLOCK - 5))
    assert taken[:3].tolist() == [BLOCK - 5, BLOCK - 4, BLOCK - 3]
    assert np.asarray(taken) is np.asarray(taken)  # put together once
    assert np.array(taken, np.float64).dtype == np.float64


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
