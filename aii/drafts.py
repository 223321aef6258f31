"""What a transcript probably says next, looked up in what was said before. Pure.

Successive windows of a call hear mostly the same speech, so what the last one said is a draft of
what the next one will say; and what is new repeats words of the call, or the transcript itself. So
the last tokens are looked up in the draft, in the text before the window and in the transcript so
far (as in prompt lookup decoding, https://github.com/apoorvumang/prompt-lookup-decoding), and what
followed them there is guessed. Timestamps move from window to window, so any two count as equal.

A guess is only ever verified, never believed: a wrong one costs the reading of a few tokens in a
pass that is made anyway. So the less of the transcript fits, the less is guessed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

ANY_TIME = -1
"""Stands for every timestamp."""

LONGEST = 8
"""Tokens of the transcript that are compared at most."""

GUESSED = (2, 2, 4)
"""Tokens guessed where none, one or two in a row fit; where three fit, as many as there are."""


class Draft:
    """A draft with the text before it, and the transcript as far as it has come.

    Args:
        tokens: the draft; () where there is none.
        timestamps: the number of the first timestamp; all from there on are timestamps.
        context: tokens of the text before the transcript.
    """

    def __init__(self, tokens: Sequence[int], timestamps: int, context: Sequence[int] = ()) -> None:
        self._timestamps = timestamps
        self._own: list[int] = []
        self._sources = (list(tokens), list(context), self._own)
        self._plain = tuple([self._bare(token) for token in source] for source in self._sources)
        self._places: tuple[dict[int, list[int]], ...] = tuple(
            _places(source) for source in self._plain
        )
        self._at = 0  # the draft's token that is expected next

    def ahead(self, sampled: Sequence[int], room: int) -> list[int]:
        """At most ``room`` tokens that probably come behind ``sampled``.

        ``sampled`` only ever grows from one call to the next.
        """
        new = sampled[len(self._own) :]
        for token in new:
            self._read(token)
        if room <= 0:
            return []
        if not self._own:
            return self._sources[0][:room]
        expected = self._at + len(new)
        length, which, place = self._find(expected)
        self._at = place if which == 0 else expected
        most = GUESSED[length] if length < len(GUESSED) else room
        source = self._sources[which]
        guess = source[place : place + min(most, room)]
        if guess and place and guess[0] == source[place - 1] >= self._timestamps:
            guess[0] = self._own[-1]  # a segment's end moved, and the next one starts there
        return guess

    def _read(self, token: int) -> None:
        """One more token of the transcript."""
        plain, places = self._plain[2], self._places[2]
        self._own.append(token)
        plain.append(self._bare(token))
        places[plain[-1]].append(len(plain))

    def _find(self, expected: int) -> tuple[int, int, int]:
        """Where the transcript's end stands before: how many tokens of it, in which source, and
        the position behind. The longest counts, then the draft before the others, then the
        nearest to where it is ``expected``. Where it stands nowhere, one token took the place of
        another in the draft.
        """
        best, found = (0, 0, 0), (0, 0, min(expected, len(self._sources[0])))
        for which, (plain, places) in enumerate(zip(self._plain, self._places, strict=True)):
            for place in places.get(self._plain[2][-1], ()):
                if place == len(plain):
                    continue  # nothing follows
                length = self._fit(plain, place)
                key = length, -which, -abs(place - expected)
                if key > best:
                    best, found = key, (length, which, place)
        return found

    def _fit(self, plain: Sequence[int], place: int) -> int:
        """How many tokens at the transcript's end are those before ``place``."""
        own = self._plain[2]
        length = 1
        most = min(LONGEST, place, len(own))
        while length < most and plain[place - 1 - length] == own[-1 - length]:
            length += 1
        return length

    def _bare(self, token: int) -> int:
        return ANY_TIME if token >= self._timestamps else token


def _places(tokens: Sequence[int]) -> dict[int, list[int]]:
    """For each token the positions behind it."""
    places: dict[int, list[int]] = defaultdict(list)
    for place, token in enumerate(tokens, start=1):
        places[token].append(place)
    return places
