"""Which words two transcripts of the same growing audio agree on (LocalAgreement-2).

Macháček et al., "Turning Whisper into Real-Time Transcription System" (arXiv 2307.14743). Words are
compared without regard to case and punctuation, and taken with the times of the newer transcript.

A transcript of the buffer begins with words that were committed before. Where they end in it is
found by comparing both word for word and by time together, so that a word that is spoken twice
("five five") counts twice, and one whose times moved a little counts once. A model that hears a
long buffer says some of it twice: what repeats the last words has to have a time of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from aii.streaming.guards import bare
from aii.types import Word

FAR = 0.3
"""Seconds on the wrong side of the last commit that weigh as much as a wrong word."""

FARTHEST = 3.0
"""Wrong words that a word weighs at most for its time."""

REPEATED = 5
"""Words at most that are taken for a repetition."""

LATER = 0.1
"""Seconds by which words said again end at least behind the words before."""


class Agreement:
    """The committed words that are still in the buffer, and the tail that waits to be confirmed.

    Attributes:
        committed: words that are final and whose audio has not been dropped, in order.
        tail: words of the last transcript that are not final.
        said: end of the last committed word, in seconds from the start of the call.
    """

    def __init__(self) -> None:
        self.committed: list[Word] = []
        self.tail: list[Word] = []
        self.said = 0.0

    def begin(self, time: float) -> None:
        """A new utterance begins at ``time``."""
        self.committed, self.tail, self.said = [], [], time

    def update(self, words: Sequence[Word]) -> list[Word]:
        """Take a new transcript of the buffer; the words that have become final by it."""
        new = self._new(words)
        agreed = 0
        for before, now in zip(self.tail, new, strict=False):
            if bare(before.text) != bare(now.text):
                break
            agreed += 1
        self.tail = new
        return self.commit(agreed)

    def commit(self, count: int) -> list[Word]:
        """Make the first ``count`` words of the tail final."""
        done, self.tail = self.tail[:count], self.tail[count:]
        self.committed += done
        if done:
            self.said = done[-1].end
        return done

    def commit_until(self, time: float) -> list[Word]:
        """Make the words of the tail final that end at ``time`` at the latest."""
        count = sum(1 for word in self.tail if word.end <= time)
        return self.commit(count)  # ends never go back, so these are the first

    def drop_to(self, time: float) -> list[Word]:
        """The audio before ``time`` leaves the buffer; the committed words that go with it."""
        gone = [word for word in self.committed if (word.start + word.end) / 2 < time]
        self.committed = self.committed[len(gone) :]
        return gone

    def _new(self, words: Sequence[Word]) -> list[Word]:
        """The words behind the committed ones, with times that do not go back."""
        new: list[Word] = []
        time = self.said
        old = behind(self.committed, words, self.said)
        for word in words[old + repeated(self.committed, words[old:], self.said) :]:
            start = max(word.start, time)
            time = max(word.end, start)
            new.append(replace(word, start=start, end=time))
        return new


def behind(committed: Sequence[Word], words: Sequence[Word], said: float) -> int:
    """How many of ``words`` say again what is committed.

    It is the number k for which the edit distance between the committed words and the first k
    words, and what lies on the wrong side of ``said`` (seconds) by it, are least together. At a tie
    as few as possible.
    """
    distances = list(range(len(words) + 1))  # from no committed word to the first k words
    for i, old in enumerate(committed, start=1):
        above, distances[0] = distances[0], i
        for k, word in enumerate(words, start=1):
            differs = bare(old.text) != bare(word.text)
            best = min(above + differs, distances[k] + 1, distances[k - 1] + 1)
            above, distances[k] = distances[k], best
    offsets = [((word.start + word.end) / 2 - said) / FAR for word in words]
    wrong = sum(min(max(-offset, 0.0), FARTHEST) for offset in offsets)  # all of them new
    costs = [distances[0] + wrong]
    for offset, distance in zip(offsets, distances[1:], strict=True):
        wrong += min(
            max(offset, -FARTHEST), FARTHEST
        )  # one more is old: late ones count, early ones do not
        costs.append(distance + wrong)
    return min(range(len(costs)), key=lambda k: (round(costs[k], 6), k))


def repeated(committed: Sequence[Word], words: Sequence[Word], said: float) -> int:
    """How many words at the beginning of ``words`` only repeat the last committed ones.

    They have no time of their own: they end where those ended, at ``said`` (seconds).
    """
    for count in range(min(len(committed), len(words), REPEATED), 0, -1):
        if words[count - 1].end > said + LATER:
            continue
        pairs = zip(committed[-count:], words, strict=False)
        if all(bare(old.text) == bare(new.text) for old, new in pairs):
            return count
    return 0
