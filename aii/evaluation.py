"""How well a transcript agrees with a reference: the word error rate.

WER = (substitutions + deletions + insertions) / words of the reference, for the alignment with the
fewest of these (Levenshtein distance over words). Texts are compared in lower case without
punctuation, but with apostrophes, as is usual for telephone speech.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class WordErrors:
    """Counts of one comparison, or the sum over many.

    Attributes:
        substitutions: words that came out as others.
        deletions: words of the reference that did not come out.
        insertions: words that nobody said.
        words: words of the reference.
    """

    substitutions: int = 0
    deletions: int = 0
    insertions: int = 0
    words: int = 0

    @property
    def errors(self) -> int:
        """All errors together."""
        return self.substitutions + self.deletions + self.insertions

    @property
    def rate(self) -> float:
        """The word error rate, 0.0 is perfect; it can exceed 1. An empty reference gives 0.0
        for an empty transcript and infinity for any other."""
        if self.words == 0:
            return float("inf") if self.errors else 0.0
        return self.errors / self.words

    def __add__(self, other: WordErrors) -> WordErrors:
        return WordErrors(
            self.substitutions + other.substitutions,
            self.deletions + other.deletions,
            self.insertions + other.insertions,
            self.words + other.words,
        )

    def __str__(self) -> str:
        return (
            f"word error rate {self.rate:.1%} ({self.words} words: {self.substitutions} replaced, "
            f"{self.deletions} missing, {self.insertions} invented)"
        )


def words_of(text: str) -> list[str]:
    """The words as they are compared: "It's ON-line." -> ["it's", "on", "line"]."""
    kept = (
        character if character == "'" or unicodedata.category(character)[0] in "LMN" else " "
        for character in text.lower().replace("\u2019", "'")
    )
    return [word for word in (w.strip("'") for w in "".join(kept).split()) if word]


def word_errors(reference: str, hypothesis: str) -> WordErrors:
    """Compare one transcript with its reference."""
    return align(words_of(reference), words_of(hypothesis))


def total_word_errors(pairs: Iterable[tuple[str, str]]) -> WordErrors:
    """Sum over (reference, hypothesis) pairs: the rate of a whole test set."""
    return sum((word_errors(*pair) for pair in pairs), WordErrors())


def align(reference: Sequence[str], hypothesis: Sequence[str]) -> WordErrors:
    """Fewest errors that turn ``reference`` into ``hypothesis``.

    Time is the product of the lengths; memory is one row.
    """
    # Each cell is (errors, substitutions, deletions, insertions) for the prefixes so far.
    row = [(j, 0, 0, j) for j in range(len(hypothesis) + 1)]
    for i, expected in enumerate(reference, start=1):
        diagonal, row[0] = row[0], (i, 0, i, 0)
        for j, found in enumerate(hypothesis, start=1):
            above = row[j]
            if expected == found:
                row[j] = diagonal
            else:
                row[j] = min(
                    (diagonal[0] + 1, diagonal[1] + 1, diagonal[2], diagonal[3]),
                    (above[0] + 1, above[1], above[2] + 1, above[3]),
                    (row[j - 1][0] + 1, *row[j - 1][1:3], row[j - 1][3] + 1),
                )
            diagonal = above
    _, substitutions, deletions, insertions = row[-1]
    return WordErrors(substitutions, deletions, insertions, len(reference))
