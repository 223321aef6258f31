"""Long strings of digits are masked before anybody outside can see them.

Every event of a call goes through its redactor on the way out of the session, so each sink, each
socket and each page gets the same masked words. What counts is how many digits follow one another
(:mod:`aii.spoken_digits`), across the borders of words, segments and finals:

* In a final, strings of at least ``least`` digits become ``[digits]``. Digits at its end that are
  still too few are held back, with their times, for the next final, where it is decided; they come
  out unmasked once it is known that ``HOLD`` seconds without a further word have followed.
* In a partial the digits at its end are masked however few they are, for more may follow, and all
  digits are masked when together they are enough.
* Keys of the telephone are written as ``x``: each is told when it is pressed, and nobody knows then
  how many will follow.
* An answer is masked like a final of its own.

Masked segments lose their tokens, for those spell the digits too.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from aii.spoken_digits import BREAK, Piece, Run, pieces, runs
from aii.streaming.events import Answer, CallEnded, Dtmf, Event, Final, Heard, Partial
from aii.types import Segment, Word

MASK = "[digits]"
KEY = "x"
"""What stands for a key."""

HOLD = 5.0
"""Seconds of the call: digits that follow one another after a longer pause are two strings."""


@dataclass(frozen=True)
class _Held:
    """Digits at the end of a final that are too few so far, and when they end."""

    segments: tuple[Segment, ...]
    language: str | None
    end: float


class Redactor:
    """Masks the events of one call (of one leg).

    Args:
        least: digits that make a string worth masking, at least 1.
        hold: see ``HOLD``.
    """

    def __init__(self, least: int, *, hold: float = HOLD) -> None:
        self._least = least
        self._hold = hold
        self._held: _Held | None = None
        self._inside: float | None = None  # end of a masked string that may go on

    def __call__(self, events: Sequence[Event]) -> list[Event]:
        """The events as they may be seen; with the call's last event nothing is held any more."""
        out: list[Event] = []
        for place, event in enumerate(events):
            if isinstance(event, Final):
                out.append(self._final(event, last=_ends(events[place + 1 :])))
            elif isinstance(event, Partial):
                out.append(self._partial(event))
            elif isinstance(event, Dtmf):
                out.append(replace(event, digit=KEY) if event.digit.isdigit() else event)
            elif isinstance(event, Answer):
                out.append(self._answer(event))
            elif isinstance(event, CallEnded):
                out += [*self._let_go(), event]
            else:
                out.append(event)
        return out

    def due(self, position: float) -> list[Event]:
        """What was held long enough when all is decided before ``position`` (seconds)."""
        if self._held is None or position - self._held.end < self._hold:
            return []
        return self._let_go()

    def _let_go(self) -> list[Event]:
        held, self._held = self._held, None
        if held is None:
            return []
        start, end = held.segments[0].start, held.segments[-1].end
        return [Final(start=start, end=end, segments=held.segments, language=held.language,
                      reason="held")]  # fmt: skip

    # -- events ---------------------------------------------------------------------------------

    def _final(self, event: Final, *, last: bool) -> Final:
        text = self._text(event)
        tail = None if last else text.tail
        undecided = tail is not None and not text.is_long(tail, self._least)
        if text.parts:
            self._inside = event.end if tail is not None and not undecided else None
        else:  # nobody spoke: an open string stays open for a while
            self._inside = self._still_inside(event.end)
        found = text.long_runs(self._least)
        seen, held = text.masked(found, tail.first if tail is not None and undecided else None)
        self._held = _Held(held, event.language, held[-1].end) if held else None
        start = text.start(event)
        end = min(max(held[0].start, start), event.end) if held else event.end
        return replace(event, start=start, end=end, segments=seen, removed=_bare(event))

    def _partial(self, event: Partial) -> Partial:
        text = self._text(event)
        found = text.runs
        spans = text.long_runs(self._least)
        if sum(run.digits for run in found) >= self._least:
            spans = found
        elif found and found[-1].open:
            spans = [*spans, found[-1]]
        segments, _ = text.masked(spans)
        return replace(event, start=text.start(event), segments=segments, removed=_bare(event))

    def _answer(self, event: Answer) -> Answer:
        digits = sum(char.isdigit() for char in event.value or "")
        long = sum(run.digits for run in runs(pieces(event.text, event.language)))
        if max(digits, long) < self._least:
            return event
        return replace(event, value=MASK if digits >= self._least else event.value, text=MASK)

    def _text(self, event: Heard) -> _Text:
        """What is held and what the event adds, as one text."""
        spoken = next((s.start for s in event.segments if s.text.strip()), event.end)
        held: tuple[Segment, ...] = ()
        apart = False
        if self._held is not None:
            held = self._held.segments
            apart = spoken - self._held.end >= self._hold
        inside = not held and self._still_inside(spoken) is not None
        return _Text((*held, *event.segments), event.language, len(held) if apart else 0, inside)

    def _still_inside(self, position: float) -> float | None:
        """The end of the masked string that goes on at ``position``, if one does."""
        if self._inside is None or position - self._inside >= self._hold:
            return None
        return self._inside


class _Text:
    """Segments as one text: where its digits are, and how to mask and cut it.

    Args:
        segments: in order.
        language: of the words.
        apart: how many segments at the beginning are apart from the others; 0: none.
        inside: the text begins inside a string that is masked already.
    """

    def __init__(
        self, segments: tuple[Segment, ...], language: str | None, apart: int, inside: bool
    ) -> None:
        self.segments = segments
        self.parts: list[tuple[int, Piece]] = []
        for number, segment in enumerate(segments):
            if apart and number == apart:
                self.parts.append((number, BREAK))
            self.parts += [(number, piece) for piece in pieces(segment.text, language)]
        if apart and apart == len(segments):
            self.parts.append((apart, BREAK))
        self._inside = inside
        self.runs = runs([piece for _, piece in self.parts], inside=inside)

    @property
    def tail(self) -> Run | None:
        """The run that may go on behind the text."""
        return self.runs[-1] if self.runs and self.runs[-1].open else None

    def is_long(self, run: Run, least: int) -> bool:
        """Whether a run is to be masked: long enough, or the rest of one that was."""
        return run.digits >= least or (self._inside and run.leading)

    def long_runs(self, least: int) -> list[Run]:
        """The runs that are to be masked."""
        return [run for run in self.runs if self.is_long(run, least)]

    def start(self, event: Heard) -> float:
        """Where an event with this text begins: what was held comes from before it."""
        return min(event.start, *(s.start for s in self.segments)) if self.segments else event.start

    def masked(
        self, found: Sequence[Run], cut: int | None = None
    ) -> tuple[tuple[Segment, ...], tuple[Segment, ...]]:
        """The segments up to piece ``cut`` with these runs masked, and those from there as is."""
        spans: dict[int, list[tuple[int, int]]] = {}
        for run in found:
            members = self.parts[run.first : run.last + 1]
            for number, group in itertools.groupby(members, key=lambda part: part[0]):
                inside = [piece for _, piece in group]
                spans.setdefault(number, []).append((inside[0].start, inside[-1].end))
        segments, held = list(self.segments), []
        if cut is not None:
            number, piece = self.parts[cut]
            head, tail = _split(segments[number], piece.start)
            held = [tail, *segments[number + 1 :]]
            segments[number:] = [head] if head.text.strip() else []
        seen = (_mask(s, spans[i]) if i in spans else s for i, s in enumerate(segments))
        return tuple(seen), tuple(held)


def _bare(event: Heard) -> tuple[str, ...]:
    """What guards removed, without any digits said in it: nobody knows what they belonged to."""
    return tuple(_without_digits(line, event.language) for line in event.removed)


def _without_digits(line: str, language: str | None) -> str:
    parts = pieces(line, language)
    for run in reversed(runs(parts)):
        line = line[: parts[run.first].start] + MASK + line[parts[run.last].end :]
    return line


def _ends(events: Sequence[Event]) -> bool:
    """Whether the call ends here: no further final comes."""
    over = any(isinstance(event, CallEnded) for event in events)
    return over and not any(isinstance(event, Final) for event in events)


def _word_spans(segment: Segment) -> list[tuple[int, int, Word]]:
    """The segment's words and where they stand in its text; none where they do not spell it."""
    ends = list(itertools.accumulate(len(word.text) for word in segment.words))
    if "".join(word.text for word in segment.words) != segment.text:
        return []
    return list(zip([0, *ends], ends, segment.words, strict=False))


def _split(segment: Segment, place: int) -> tuple[Segment, Segment]:
    """The segment before and from ``place`` in its text on; spaces go with what follows them."""
    text = segment.text
    at = len(text[:place].rstrip())
    words = _word_spans(segment)
    share = at / len(text) if text else 0.0
    moment = segment.start + share * (segment.end - segment.start)
    moment = next((word.start for _, end, word in words if end > at), moment)
    return (
        Segment(segment.start, moment, text[:at], words=_words_in(words, 0, at)),
        Segment(moment, segment.end, text[at:], words=_words_in(words, at, len(text))),
    )


def _words_in(words: Sequence[tuple[int, int, Word]], start: int, end: int) -> tuple[Word, ...]:
    """The words of ``start:end``; one that stands across its edge is shortened."""
    return tuple(
        word
        if start <= a and b <= end
        else replace(word, text=word.text[max(start - a, 0) : max(end - a, 0)])
        for a, b, word in words
        if a < end and b > start
    )


def _mask(segment: Segment, spans: Sequence[tuple[int, int]]) -> Segment:
    """The segment with these parts of its text masked, and without its tokens."""
    text = segment.text
    edges = [0, *itertools.chain.from_iterable(spans), len(text)]
    plain = [text[a:b] for a, b in zip(edges[::2], edges[1::2], strict=True)]
    words = tuple(_masked_words(_word_spans(segment), spans))
    return replace(segment, text=MASK.join(plain), tokens=(), words=words)


def _masked_words(
    words: Sequence[tuple[int, int, Word]], spans: Sequence[tuple[int, int]]
) -> Iterator[Word]:
    """All words that touch the same part become one."""
    for span, group in itertools.groupby(words, key=lambda word: _touched(word, spans)):
        members = list(group)
        if span is None:
            yield from (word for _, _, word in members)
            continue
        first, last = members[0], members[-1]
        before = first[2].text[: max(span[0] - first[0], 0)]
        after = last[2].text[span[1] - last[0] :] if span[1] < last[1] else ""
        yield Word(before + MASK + after, first[2].start, last[2].end)


def _touched(
    word: tuple[int, int, Word], spans: Sequence[tuple[int, int]]
) -> tuple[int, int] | None:
    return next((span for span in spans if word[0] < span[1] and span[0] < word[1]), None)
