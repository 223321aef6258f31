"""What a caller may answer: digits, or one of some words.

A grammar is a plain value that goes with a decode request. It says which bytes may follow one
another in a transcript (:class:`Machine`, a finite automaton over UTF-8), which
:mod:`aii.constraint` turns into which tokens may, and what a transcript in it means
(:meth:`Grammar.read`).

Transcripts write the same answer in many ways (" four two", " 42", " Four, two.", " 4-2"); the
automaton takes them all, so that a model may write as it was trained to.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from aii.errors import ConfigError
from aii.spoken_digits import digit_words, repeat_words

MOST_DIGITS = 40
MOST_PHRASES = 200
MOST_LETTERS = 100
"""Limits of what a call may ask, for an automaton takes memory."""

Standing = Literal["none", "part", "open", "whole"]

_MARKS = re.compile(r"[^\w'’]+")
_DIGIT = re.compile(r"\d")


@dataclass(frozen=True)
class Grammar:
    """Either digits (``phrases`` is empty), or one of the ``phrases``.

    Attributes:
        least: digits that make an answer.
        most: digits at most.
        phrases: words or several words each, as they are to be answered.
        keys: for each phrase the telephone key that means it too, or "".
        language: code of the language in which digits are spoken.
    """

    least: int = 1
    most: int = 1
    phrases: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    language: str = "en"

    @classmethod
    def digits(cls, least: int, most: int, *, language: str = "en") -> Grammar:
        """``least`` to ``most`` digits.

        Raises:
            ConfigError: there is no such number of digits.
        """
        if not 1 <= least <= most <= MOST_DIGITS:
            raise ConfigError(
                f"{least} to {most} digits cannot be asked for; wanted are 1 to {MOST_DIGITS}, the "
                "least first"
            )
        return cls(least, most, language=language)

    @classmethod
    def words(cls, phrases: Mapping[str, str] | Sequence[str]) -> Grammar:
        """One of the ``phrases``; a mapping gives each its telephone key, or "".

        Raises:
            ConfigError: there are none, too many, two alike, or one that cannot be spoken.
        """
        keys = tuple(phrases.values()) if isinstance(phrases, Mapping) else ("",) * len(phrases)
        listed = tuple(" ".join(phrase.split()) for phrase in phrases)
        if not 1 <= len(listed) <= MOST_PHRASES:
            raise ConfigError(f"wanted are 1 to {MOST_PHRASES} words to choose from")
        for phrase in listed:
            if not _plain(phrase) or len(phrase) > MOST_LETTERS:
                raise ConfigError(
                    f"{phrase[:40]!r} cannot be recognised; wanted are words of letters or digits, "
                    f"at most {MOST_LETTERS} characters"
                )
        if len({_plain(phrase) for phrase in listed}) < len(listed):
            raise ConfigError("two of the words to choose from are the same; leave one out")
        pressed = [key for key in keys if key]
        if len(set(pressed)) < len(pressed) or not all(re.fullmatch("[0-9*#]?", k) for k in keys):
            raise ConfigError("each word has at most one key, 0 to 9, * or #, of its own")
        return cls(1, 1, listed, keys)

    @classmethod
    def parse(cls, value: Mapping[str, Any] | str, language: str | None = None) -> Grammar:
        """A grammar as it is asked for outside.

        Args:
            value: ``{"digits": 4}``, ``{"digits": [1, 4]}``, ``{"words": ["yes", "no"]}``,
                ``{"words": {"sales": "1"}}``, or as text ``digits:4``, ``digits:1-4``,
                ``words:yes|no``, ``words:sales=1|support=2`` (what stands behind the colon may
                also be a mapping's value).
            language: code for digits.

        Raises:
            ConfigError: it is none of these.
        """
        if isinstance(value, str):
            kind, _, rest = value.partition(":")
            value = {kind: rest}
        if isinstance(value, Mapping):
            wanted: Any = value.get("digits")
            words: Any = value.get("words")
            if isinstance(wanted, str) and "-" in wanted:
                wanted = wanted.split("-")
            if isinstance(words, str):
                words = words.split("|")
                if any("=" in word for word in words):
                    words = dict(word.partition("=")[::2] for word in words)
            if wanted is not None and words is None:
                first, last = wanted if isinstance(wanted, list) and len(wanted) == 2 else (
                    (wanted, wanted)
                )  # fmt: skip
                if _is_count(first) and _is_count(last):
                    return cls.digits(int(first), int(last), language=language or "en")
            if wanted is None and _is_words(words):
                return cls.words(words)
        raise ConfigError(
            "what is asked for is not understood; wanted is digits with a number or two (least and "
            "most), or words with a list of them or with a key for each"
        )

    def __str__(self) -> str:
        """As :meth:`parse` takes it, without keys."""
        if self.phrases:
            return "words:" + "|".join(self.phrases)
        return (
            f"digits:{self.least}-{self.most}" if self.least < self.most else f"digits:{self.most}"
        )

    # -- what a transcript means ----------------------------------------------------------------

    def read(self, text: str) -> str | None:
        """What ``text`` answers: the phrase, or the digits (perhaps too few); None: neither."""
        return self._phrase(text) if self.phrases else self._digits(text)

    def standing(self, text: str) -> Standing:
        """How far ``text`` is: ``none`` of what may be answered, ``part`` of it, a whole answer
        that may go on (``open``), or one behind which nothing can follow (``whole``)."""
        value, plain = self.read(text), _plain(text)
        if not self.phrases:
            said = len(value or "")
            if not said:
                return "none"
            return "part" if said < self.least else "open" if said < self.most else "whole"
        longer = plain and any(_plain(phrase).startswith(f"{plain} ") for phrase in self.phrases)
        if value is None:
            return "part" if longer else "none"
        return "open" if longer else "whole"

    def rest(self, said: str) -> Grammar:
        """What may be said behind ``said``: fewer digits, the ends of phrases (or whole ones)."""
        if not self.phrases:
            count = len(self.read(said) or "")
            return replace(
                self, least=max(self.least - count, 1), most=max(self.most - count, 1)
            ) if count else self  # fmt: skip
        plain = _plain(said)
        ends = [
            _plain(phrase).removeprefix(f"{plain} ")
            for phrase in self.phrases
            if plain and _plain(phrase).startswith(f"{plain} ")
        ]
        ends = [end for end in dict.fromkeys(ends) if end not in self.phrases]
        keys = (*self.keys, *[""] * len(ends))
        return replace(self, phrases=(*self.phrases, *ends), keys=keys) if ends else self

    def _digits(self, text: str) -> str | None:
        words, repeats = digit_words(self.language), repeat_words(self.language)
        said, times = "", 1
        for word in _MARKS.split(text.casefold()):
            if word in repeats:
                times = repeats[word]
                continue
            if word in ("oh", "o") and self.language == "en":
                said += "0" * times
            elif word in words:
                said += str(words[word]) * times
            elif word and _DIGIT.sub("", word) == "":
                said += "".join(str(int(char)) for char in word)
            elif word:
                return None
            times = 1
        return said[: self.most] or None

    def _phrase(self, text: str) -> str | None:
        """The phrase that the text is, else the only one that stands in it."""
        plain = _plain(text)
        for phrase in self.phrases:
            if _plain(phrase) == plain:
                return phrase
        inside = [p for p in self.phrases if f" {_plain(p)} " in f" {plain} "]
        longest = [p for p in inside if not any(p != q and _plain(p) in _plain(q) for q in inside)]
        return longest[0] if len(longest) == 1 else None

    def pressed(self, key: str) -> str | None:
        """The phrase that ``key`` means, or None."""
        return self.phrases[self.keys.index(key)] if key and key in self.keys else None

    # -- what a transcript may be ---------------------------------------------------------------

    def machine(self) -> Machine:
        """The automaton over the UTF-8 of transcripts; an answer that is not complete ends too."""
        machine = Machine()
        (self._add_phrases if self.phrases else self._add_digits)(machine)
        return machine

    def _add_phrases(self, machine: Machine) -> None:
        end = machine.state(final=True)
        machine.final.add(machine.start)  # nothing was said
        for phrase in self.phrases:
            for spelling in sorted(_spellings(phrase)):
                machine.path(machine.start, " " + spelling, end)
        for mark in ".!?,":
            machine.path(end, mark, machine.state(final=True))

    def _add_digits(self, machine: Machine) -> None:
        """After each digit: the text ends, or a gap (space, hyphen, comma) and the next digit."""
        counts = range(self.most + 1)
        after = [machine.start, *(machine.state(final=True) for _ in counts[1:])]
        figure = [machine.state(final=count > 0) for count in counts]  # another one may be glued on
        gap = [machine.state() for _ in counts]
        end = machine.state(final=True)
        machine.final.add(machine.start)
        repeats = {1: [""], **{times: [] for times in repeat_words(self.language).values()}}
        for word, times in repeat_words(self.language).items():
            repeats[times] += sorted(_spellings(word))
        for count in counts[: self.most]:
            machine.path(after[count], " ", gap[count])
            if count:
                machine.path(after[count], "-", gap[count])
                machine.path(after[count], ", ", gap[count])
            for char in "0123456789":
                for start in (gap[count], figure[count]) if count else (gap[count],):
                    machine.path(start, char, after[count + 1])
                    machine.path(start, char, figure[count + 1])
            for times, words in repeats.items():
                if count + times > self.most:
                    continue
                start = gap[count]
                if words != [""]:
                    start = machine.state()
                    for word in words:
                        machine.path(gap[count], word + " ", start)
                for word in self._digit_words():
                    for spelling in sorted(_spellings(word)):
                        machine.path(start, spelling, after[count + times])
        for count in counts[1:]:
            machine.path(after[count], ".", end)

    def _digit_words(self) -> list[str]:
        return sorted([*digit_words(self.language), *(["oh"] if self.language == "en" else [])])


class Machine:
    """A nondeterministic finite automaton over bytes, read as a deterministic one (subsets).

    A set of its states that are all possible after some bytes is a *place*.
    """

    def __init__(self) -> None:
        self._steps: list[dict[int, set[int]]] = []
        self._inner: dict[tuple[int, int], int] = {}  # states inside of paths, which may share them
        self.final: set[int] = set()
        self.start = self.state()

    def state(self, *, final: bool = False) -> int:
        """A new state; a text may end in a ``final`` one."""
        self._steps.append({})
        if final:
            self.final.add(len(self._steps) - 1)
        return len(self._steps) - 1

    def path(self, start: int, text: str, end: int) -> None:
        """Let ``text``, at least one character, lead from ``start`` to ``end``.

        What begins alike shares its states, so that long lists stay small.
        """
        *first, last = text.encode()
        for byte in first:
            inner = self._inner.get((start, byte))
            if inner is None:
                inner = self._inner[start, byte] = self.state()
                self._steps[start].setdefault(byte, set()).add(inner)
            start = inner
        self._steps[start].setdefault(last, set()).add(end)

    @property
    def begin(self) -> frozenset[int]:
        """The place before any byte."""
        return frozenset((self.start,))

    def after(self, place: frozenset[int], byte: int) -> frozenset[int]:
        """The place behind ``byte``; an empty one where it may not come."""
        return frozenset(s for state in place for s in self._steps[state].get(byte, ()))

    def next_bytes(self, place: frozenset[int]) -> Iterator[int]:
        """The bytes that may come."""
        yield from sorted({byte for state in place for byte in self._steps[state]})

    def ends(self, place: frozenset[int]) -> bool:
        """Whether the text may end here."""
        return not place.isdisjoint(self.final)

    def __len__(self) -> int:
        """How many states there are."""
        return len(self._steps)


def _spellings(phrase: str) -> set[str]:
    return {phrase, phrase.lower(), phrase[:1].upper() + phrase[1:], phrase.title()}


def _plain(text: str) -> str:
    return " ".join(word for word in _MARKS.split(text.casefold()) if word)


def _is_count(value: Any) -> bool:
    return not isinstance(value, bool) and re.fullmatch(r"\d{1,4}", str(value)) is not None


def _is_words(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(isinstance(item, str) for pair in value.items() for item in pair)
    return isinstance(value, list | tuple) and all(isinstance(item, str) for item in value)
