"""What a transcript probably says next, guessed from a draft of it. Pure.

Successive windows of a call hear mostly the same speech, so what the last one said is a draft of
what the next one will say. A guess is only ever verified, never believed: a wrong one costs the
reading of a few tokens in a pass that is made anyway.
"""

from __future__ import annotations

from collections.abc import Sequence

SHORT = 4
"""Tokens guessed at once while it is unsure where in the draft the transcript is."""

REACH = 24
"""Tokens of the draft in which one that comes unexpectedly is looked for."""

MISSES = 2
"""Short guesses that may fail in a row; then nothing is guessed until the draft is met again."""


class Draft:
    """A draft, and where in it the transcript has come to.

    Args:
        tokens: the draft.
        timestamps: the number of the first timestamp; all from there on are timestamps.
    """

    def __init__(self, tokens: Sequence[int], timestamps: int) -> None:
        self._draft = list(tokens)
        self._timestamps = timestamps
        self._at = 0  # the draft's token that is expected next
        self._read = 0  # tokens of the transcript that were looked at
        self._sure = True
        self._misses = 0
        self._shift: tuple[int, int] | None = None  # a timestamp of the draft, and what it became

    def ahead(self, sampled: Sequence[int], room: int) -> list[int]:
        """At most ``room`` tokens that probably come behind ``sampled``.

        ``sampled`` only ever grows from one call to the next.
        """
        for place in range(self._read, len(sampled)):
            self._follow(sampled, place)
        self._read = len(sampled)
        if room <= 0 or not (self._sure or self._misses <= MISSES):
            return []
        most = room if self._sure else min(room, SHORT)
        guess = self._draft[self._at : self._at + most]
        if guess and self._shift is not None and guess[0] == self._shift[0]:
            guess[0] = self._shift[1]  # a segment's end moved, and the next one starts there
        return guess

    def _follow(self, sampled: Sequence[int], place: int) -> None:
        """Move on by the transcript's token at ``place``."""
        token = sampled[place]
        expected = self._draft[self._at] if self._at < len(self._draft) else None
        moved = self._shift
        self._shift = None
        if token == expected or (moved is not None and (expected, token) == moved):
            self._at += 1
            self._misses = 0
            if place and self._at > 1 and self._meets(sampled, place, self._at):
                self._sure = True
            return
        if expected is not None and min(token, expected) >= self._timestamps:
            self._shift = (expected, token)
            self._at += 1
            return
        found = self._find(sampled, place)
        self._sure = found is not None and self._meets(sampled, place, found)
        self._misses += 1
        # Not in the draft: one token took the place of another, until more is known.
        self._at = min(self._at + 1, len(self._draft)) if found is None else found

    def _find(self, sampled: Sequence[int], place: int) -> int | None:
        """The position behind the nearest place in the draft where this token fits, best by two."""
        for i in range(max(self._at - SHORT, 0), len(self._draft)):
            if self._draft[i] == sampled[place] and self._meets(sampled, place, i + 1):
                return i + 1
        # The one just passed, too: the token before this one may have been an extra one.
        for i in range(max(self._at - 1, 0), min(self._at + REACH, len(self._draft))):
            if self._draft[i] == sampled[place]:
                return i + 1
        return None

    def _meets(self, sampled: Sequence[int], place: int, at: int) -> bool:
        """Whether the transcript's last two tokens are the draft's two before ``at``."""
        if place < 1 or at < 2:
            return False
        return list(sampled[place - 1 : place + 1]) == self._draft[at - 2 : at]
