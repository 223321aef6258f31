from __future__ import annotations

from aii.protocols.hold import Hold


def test_gives_back_reads_with_their_pauses() -> None:
    hold = Hold()
    hold.add(b"abc", 5.0)
    hold.add(b"d", 0.25)
    hold.add(b"ef", 0.5)
    assert (bytes(hold.data), len(hold)) == (b"abcdef", 6)
    assert hold.pieces(skip=2) == [(b"c", 5.0), (b"d", 0.25), (b"ef", 0.5)]
    assert (len(hold), hold.pieces()) == (0, [])


def test_reads_that_are_skipped_whole_are_gone() -> None:
    hold = Hold()
    hold.add(b"abc", 0.0)
    hold.add(b"de", 0.1)
    assert hold.pieces(skip=3) == [(b"de", 0.1)]
