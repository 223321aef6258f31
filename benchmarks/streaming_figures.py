"""From what was shown during calls to figures: errors, latency, stability, times of words.

Latency is counted per word that was said and came out right: from the word's end in the audio to
the first time it stands on the screen, and to the moment from which on it cannot change. Which
word is which follows from the alignment with the fewest errors; of several, the earliest.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from aii.evaluation import WordErrors, align, words_of
from aii.types import Word
from benchmarks.common import percentile
from benchmarks.simulated_call import Shown
from benchmarks.spoken_calls import SpokenCall


def pairs(reference: Sequence[str], found: Sequence[str], *, open_end: bool = False) -> list[int]:
    """For each word of ``found`` the index of the equal word of ``reference`` that it stands for,
    or -1, by the alignment with the fewest errors.

    Args:
        open_end: words of ``reference`` behind the last one found cost nothing.
    """
    rows = [list(range(len(reference) + 1))]
    for i, word in enumerate(found, start=1):
        above, row = rows[-1], [i]
        for j, expected in enumerate(reference, start=1):
            row.append(min(above[j - 1] + (word != expected), above[j] + 1, row[j - 1] + 1))
        rows.append(row)
    last = rows[-1]
    j = min(range(len(last)), key=lambda at: (last[at], at)) if open_end else len(reference)
    matched, i = [-1] * len(found), len(found)
    while i > 0 and j > 0:
        same = found[i - 1] == reference[j - 1]
        if rows[i][j] == rows[i - 1][j - 1] + (not same):
            i, j = i - 1, j - 1
            if same:
                matched[i] = j
        elif rows[i][j] == rows[i - 1][j] + 1:
            i -= 1
        else:
            j -= 1
    return matched


@dataclass
class Figures:
    """Sums over calls.

    Attributes:
        errors: of the transcript against what was said.
        first: seconds from the end of a word to its first appearance, one per word.
        last: seconds from the end of a word to its final.
        shown: words shown in partials, each time that they were shown.
        changed: those of them that the transcript does not have there.
        erased: words that had to be taken back from the screen, summed over all updates.
        words: words of the transcripts.
        starts: seconds by which a word's start is given too late (too early: below 0).
        ends: the same of its end.
    """

    errors: WordErrors = field(default_factory=WordErrors)
    first: list[float] = field(default_factory=list)
    last: list[float] = field(default_factory=list)
    shown: int = 0
    changed: int = 0
    erased: int = 0
    words: int = 0
    starts: list[float] = field(default_factory=list)
    ends: list[float] = field(default_factory=list)

    def add(self, call: SpokenCall, shown: Sequence[Shown]) -> None:
        """Count one call."""
        appeared, settled, found = self._follow(shown)
        said = [word for word in call.words if words_of(word.text)]
        reference = [words_of(word.text)[0] for word in said]
        self.errors += align(reference, found)
        self.words += len(found)
        for index, place in enumerate(pairs(reference, found)):
            if place < 0 or math.isnan(said[place].end):
                continue
            self.first.append(appeared[index] - said[place].end)
            self.last.append(settled[index] - said[place].end)

    def add_times(self, call: SpokenCall, words: Sequence[Word]) -> None:
        """Count the times of a call's words, of those that came out right."""
        said = [word for word in call.words if words_of(word.text)]
        placed = [word for word in words if words_of(word.text)]
        reference, found = ([words_of(word.text)[0] for word in some] for some in (said, placed))
        for word, place in zip(placed, pairs(reference, found), strict=True):
            if place >= 0 and not math.isnan(said[place].end):
                self.starts.append(word.start - said[place].start)
                self.ends.append(word.end - said[place].end)

    def _follow(self, shown: Sequence[Shown]) -> tuple[list[float], list[float], list[str]]:
        """For each word of the transcript when it appeared and when it was final; the words."""
        found = words_of(shown[-1].final) if shown else []
        appeared, settled = [math.inf] * len(found), [math.inf] * len(found)
        before: list[str] = []
        for moment in shown:
            fixed = len(words_of(moment.final))
            for index in range(fixed):
                settled[index] = min(settled[index], moment.time)
                appeared[index] = min(appeared[index], moment.time)
            partial = words_of(moment.partial)
            ahead = found[fixed : fixed + 2 * len(partial) + 8]
            for place in pairs(ahead, partial, open_end=True):
                if place >= 0:
                    at = fixed + place
                    appeared[at] = min(appeared[at], moment.time)
                else:
                    self.changed += 1
            self.shown += len(partial)
            now = words_of(f"{moment.final} {moment.partial}")
            self.erased += len(before) - _common(before, now)
            before = now
        return appeared, settled, found

    @property
    def unstable(self) -> float:
        """The share of words shown in partials that changed later."""
        return self.changed / self.shown if self.shown else 0.0

    @property
    def erasure(self) -> float:
        """Words taken back per word of the transcript (normalised erasure, arXiv 1912.03393)."""
        return self.erased / self.words if self.words else 0.0


def spread(values: Iterable[float]) -> dict[str, float]:
    """Mean, median and 95th percentile."""
    every = list(values)
    mean = sum(every) / len(every) if every else math.nan
    return {"mean": mean, "p50": percentile(every, 0.5), "p95": percentile(every, 0.95)}


def _common(a: Sequence[str], b: Sequence[str]) -> int:
    """Length of the common beginning."""
    count = 0
    for x, y in zip(a, b, strict=False):
        if x != y:
            break
        count += 1
    return count
