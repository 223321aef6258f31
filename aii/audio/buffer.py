"""The audio of one call that is still needed: a rolling window of samples.

Positions are absolute: sample 0 is the first of the call, so what was dropped never changes the
meaning of a position. Memory is what is kept, in blocks; nothing is copied when the front goes.
"""

from __future__ import annotations

from collections import deque

import numpy as np

from aii.types import SAMPLE_RATE, Samples

BLOCK = SAMPLE_RATE // 2
"""Samples per block (half a second, 32 kB)."""


class AudioBuffer:
    """Samples ``start`` to ``end`` of a call, float32 at 16 kHz.

    Args:
        start: position of the first sample that will come.
    """

    def __init__(self, start: int = 0) -> None:
        self._blocks: deque[np.ndarray] = deque()
        self._origin = start  # position of the first sample of the first block
        self._start = start
        self._end = start

    @property
    def start(self) -> int:
        """Position of the first sample that is kept."""
        return self._start

    @property
    def end(self) -> int:
        """Position after the last sample; all samples that ever came in."""
        return self._end

    def __len__(self) -> int:
        """Samples kept."""
        return self._end - self._start

    @property
    def seconds(self) -> float:
        """Seconds of audio kept."""
        return len(self) / SAMPLE_RATE

    def append(self, samples: np.ndarray) -> None:
        """Add ``samples`` (N,) at the end; they are copied."""
        taken = 0
        while taken < len(samples):
            used = self._end - self._origin
            if used == len(self._blocks) * BLOCK:
                self._blocks.append(np.empty(BLOCK, dtype=np.float32))
            offset = used % BLOCK
            count = min(BLOCK - offset, len(samples) - taken)
            self._blocks[-1][offset : offset + count] = samples[taken : taken + count]
            taken += count
            self._end += count

    def read(self, start: int, end: int) -> Samples:
        """The samples from position ``start`` up to ``end``, also when they have left the buffer.

        Raises:
            ValueError: they are not all in the buffer.
        """
        if not self._start <= start <= end <= self._end:
            raise ValueError(
                f"samples {start} to {end} are not in the buffer ({self._start} to {self._end})"
            )
        # A block is written once, so that what is read stays as it is.
        blocks, done = [], start
        while done < end:
            index, offset = divmod(done - self._origin, BLOCK)
            count = min(BLOCK - offset, end - done)
            block = self._blocks[index]
            blocks.append(block if count == BLOCK else block[offset : offset + count])
            done += count
        return Samples(blocks)

    def drop_to(self, position: int) -> None:
        """Forget everything before ``position``.

        Raises:
            ValueError: ``position`` lies outside the buffer.
        """
        if not self._start <= position <= self._end:
            raise ValueError(
                f"position {position} is not in the buffer ({self._start} to {self._end})"
            )
        self._start = position
        while self._blocks and position - self._origin >= BLOCK:
            self._blocks.popleft()
            self._origin += BLOCK
