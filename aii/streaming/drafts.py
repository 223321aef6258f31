"""What the next answer will probably say: the one before, moved along with its audio.

Successive windows of a call hold mostly the same speech. The engine checks a draft in one pass of
the decoder and takes of it what it would have decoded anyway, so drafts change how long an answer
takes and never what it says.
"""

from __future__ import annotations

from collections.abc import Sequence

from aii.streaming.vocabulary import STEP, Vocabulary

NEAR = 25
"""Steps of 20 ms that a segment may begin before the audio and still count as within it."""


class Draft:
    """The last answer's tokens and where its audio began.

    Args:
        vocabulary: whose tokens they are.
        used: False gives no drafts at all, and nothing is looked up either.
    """

    def __init__(self, vocabulary: Vocabulary, *, used: bool = True) -> None:
        self._vocabulary = vocabulary
        self._used = used
        self._tokens: tuple[int, ...] = ()
        self._start = 0

    def keep(self, tokens: Sequence[int], start: int) -> None:
        """Remember the ``tokens`` of audio that began at position ``start``."""
        if self._used:
            self._tokens, self._start = tuple(tokens), start

    def at(self, start: int) -> tuple[int, ...] | None:
        """The draft for audio that begins at position ``start``; () where there is none, None where
        none is wanted."""
        if not self._used:
            return None
        steps = round((start - self._start) / STEP)
        if steps == 0 or not self._tokens:
            return self._tokens
        if steps < 0:
            return ()
        begin = self._vocabulary.timestamp_begin
        first = self._first(begin, begin + steps - NEAR)
        return tuple(
            token if token < begin else max(token - steps, begin) for token in self._tokens[first:]
        )

    def _first(self, begin: int, earliest: int) -> int:
        """Index of the first segment's time that is not before ``earliest``."""
        tokens = self._tokens
        for i, token in enumerate(tokens):
            if token < begin or token < earliest:
                continue
            closes = i > 0 and tokens[i - 1] < begin  # behind text it ends a segment
            if not closes:
                return i
        return len(tokens)
