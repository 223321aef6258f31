"""Bytes that are held until it is clear what they are, with the pauses in which they came."""

from __future__ import annotations

DECIDE = 0.2
"""Seconds without bytes after which what is held is taken for the framing that it shows ..."""

PATIENCE = 2.0
"""... and after which, if it shows none, it is raw audio. A client may stall within a call id or a
641-byte frame, and taking its half for audio would spoil its whole call; audio does not suffer,
for at most 2.6 kB are held. Bytes that keep coming, one by one even, are never cut short."""


class Hold:
    """Reads in the order they came; ``data`` joins them, ``pieces`` gives them back one by one."""

    def __init__(self) -> None:
        self.data = bytearray()
        self._reads: list[tuple[int, float]] = []

    def __len__(self) -> int:
        return len(self.data)

    def add(self, data: bytes, idle: float) -> None:
        """Hold a read that came ``idle`` seconds after the one before."""
        self._reads.append((len(data), idle))
        self.data += data

    def pieces(self, skip: int = 0) -> list[tuple[bytes, float]]:
        """The reads with their pauses, without the first ``skip`` bytes; nothing is held after."""
        pieces = []
        start = 0
        for length, idle in self._reads:
            piece = bytes(self.data[max(start, skip) : start + length])
            if piece:
                pieces.append((piece, idle))
            start += length
        self.data = bytearray()
        self._reads = []
        return pieces
