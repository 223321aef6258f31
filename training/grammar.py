"""Sentences of the domain: expands the templates of ``grammar.txt``.

Everything is written as the model writes it: lower case, numbers as words, no punctuation but the
apostrophe. Only letters that are spelled out come in upper case, so that a synthesiser can tell "A"
from "a"; a transcript is the sentence in lower case. A :class:`Grammar` is deterministic for a
given :class:`random.Random`.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from pathlib import Path

GRAMMAR_FILE = Path(__file__).with_name("grammar.txt")

DIGITS = "zero one two three four five six seven eight nine".split()
TEENS = "ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen".split()
TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
ORDINALS = (
    "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth "
    "fourteenth fifteenth sixteenth seventeenth eighteenth nineteenth twentieth"
).split()
SPELLING = (
    "alpha bravo charlie delta echo foxtrot golf hotel india juliet kilo lima mike november oscar "
    "papa quebec romeo sierra tango uniform victor whiskey xray yankee zulu"
).split()
LETTERS = "A B C D E F G H I J K L M N O P Q R S T U V W X Y Z".split()
MONTHS = (
    "january february march april may june july august september october november december"
).split()

_SLOT = re.compile(r"<(\w+)>")


def number_words(value: int) -> str:
    """0 to 9999 in words: 342 -> "three hundred and forty two"."""
    if value < 10:
        return DIGITS[value]
    if value < 20:
        return TEENS[value - 10]
    if value < 100:
        tens, rest = divmod(value, 10)
        return TENS[tens - 2] + (f" {DIGITS[rest]}" if rest else "")
    if value < 1000:
        hundreds, rest = divmod(value, 100)
        return f"{DIGITS[hundreds]} hundred" + (f" and {number_words(rest)}" if rest else "")
    thousands, rest = divmod(value, 1000)
    joint = " and " if 0 < rest < 100 else " "
    return f"{number_words(thousands)} thousand" + (joint + number_words(rest) if rest else "")


def ordinal_words(value: int) -> str:
    """1 to 31 as an ordinal: 23 -> "twenty third"."""
    if value <= 20:
        return ORDINALS[value - 1]
    if value == 30:
        return "thirtieth"
    return f"{TENS[value // 10 - 2]} {ORDINALS[value % 10 - 1]}"


def digit_words(rng: random.Random, length: int, *, plain: bool = False) -> str:
    """``length`` digits as people say them; unless ``plain``, with oh, double and triple."""
    words: list[str] = []
    while length > 0:
        digit = rng.choice(DIGITS)
        if not plain and digit == "zero" and rng.random() < 0.5:
            digit = "oh"
        repeat = 1
        if not plain and length >= 2 and rng.random() < 0.07:
            repeat = 3 if length >= 3 and rng.random() < 0.3 else 2
            words.append("double" if repeat == 2 else "triple")
        words.append(digit)
        length -= repeat
    return " ".join(words)


def time_words(rng: random.Random) -> str:
    """A time of day."""
    hour = number_words(rng.randint(1, 12))
    kind = rng.randrange(6)
    if kind == 0:
        return f"{hour} o'clock"
    if kind == 1:
        return f"half past {hour}"
    if kind == 2:
        return f"quarter {rng.choice(['past', 'to'])} {hour}"
    if kind == 3:
        return f"{hour} {rng.choice(['A M', 'P M'])}"
    if kind == 4:
        return f"{hour} {number_words(rng.randrange(10, 60, 5))}"
    return rng.choice(["noon", "midnight", f"{hour} thirty", hour])


def date_words(rng: random.Random) -> str:
    """A day of the year, sometimes with the year."""
    month, day = rng.choice(MONTHS), ordinal_words(rng.randint(1, 31))
    text = f"{month} {day}" if rng.random() < 0.5 else f"the {day} of {month}"
    kind = rng.random()
    if kind < 0.15:
        text += f" nineteen {number_words(rng.randint(40, 99))}"
    elif kind < 0.3:
        text += f" twenty {number_words(rng.randint(10, 30))}"
    return text


def money_words(rng: random.Random) -> str:
    """An amount."""
    unit, cent = rng.choice([("dollars", "cents"), ("euros", "cents"), ("pounds", "pence")])
    whole = number_words(rng.choice([rng.randint(2, 99), rng.randint(100, 2000)]))
    if rng.random() < 0.3:
        return f"{whole} {unit} and {number_words(rng.randint(2, 99))} {cent}"
    return f"{whole} {unit}" if rng.random() < 0.8 else f"{number_words(rng.randint(2, 99))} {cent}"


def postcode_words(rng: random.Random) -> str:
    """Letters or spelling words mixed with digits."""
    source = rng.choice([SPELLING, LETTERS])
    parts = [rng.choice(source) if rng.random() < 0.5 else rng.choice(DIGITS) for _ in range(5)]
    return " ".join(parts[: rng.randint(3, 5)])


def _number(rng: random.Random) -> str:
    top = rng.choice([20, 99, 99, 999, 9999])
    return number_words(rng.randint(0, top))


MADE: dict[str, Callable[[random.Random], str]] = {
    "digits": lambda rng: digit_words(rng, rng.randint(1, 5)),
    "account": lambda rng: digit_words(rng, rng.randint(3, 9)),
    "number": _number,
    "ordinal": lambda rng: ordinal_words(rng.randint(1, 31)),
    "money": money_words,
    "time": time_words,
    "date": date_words,
    "spelling": lambda rng: " ".join(rng.choices(SPELLING, k=rng.randint(2, 5))),
    "letters": lambda rng: " ".join(rng.choices(LETTERS, k=rng.randint(2, 5))),
    "postcode": postcode_words,
}


class Grammar:
    """The templates and slots of a grammar file.

    Attributes:
        slots: slot name -> its values.
        templates: those that training sentences are made from.
        held_out: those kept for evaluation.
    """

    def __init__(self, path: Path = GRAMMAR_FILE) -> None:
        self.slots: dict[str, list[str]] = {}
        self.templates: list[str] = []
        self.held_out: list[str] = []
        section = ""
        for line in path.read_text(encoding="utf-8").splitlines():
            line = line.strip()
            if not line or line.startswith("#"):
                continue
            if line.startswith("["):
                section = line.strip("[]")
            elif section == "slots":
                name, _, values = line.partition(":")
                self.slots[name.strip()] = [value.strip() for value in values.split("|")]
            elif line.startswith("*"):
                self.held_out.append(line[1:])
            else:
                self.templates.append(line)

    def expand(self, template: str, rng: random.Random) -> str:
        """One sentence of ``template``."""

        def fill(match: re.Match[str]) -> str:
            name = match.group(1)
            return MADE[name](rng) if name in MADE else rng.choice(self.slots[name])

        return _SLOT.sub(fill, template)

    def sentence(self, rng: random.Random, *, held_out: bool = False) -> str:
        """One sentence of a random template."""
        templates = self.held_out if held_out else self.templates
        return self.expand(rng.choice(templates), rng)

    def jumble(self, rng: random.Random) -> str:
        """Pieces of sentences and single words in no order: to be heard, it cannot be guessed.

        Letters to spell stay in upper case.
        """
        known = self.words()
        pieces: list[str] = []
        for _ in range(rng.randint(1, 5)):
            if rng.random() < 0.4:
                pieces += rng.choices(known, k=rng.randint(1, 2))
                continue
            words = self.sentence(rng).split()
            start = rng.randrange(len(words))
            pieces += words[start : start + rng.randint(1, 4)]
        return " ".join(piece.upper() if len(piece) == 1 else piece for piece in pieces)

    def words(self) -> list[str]:
        """Every word that a training sentence can hold, sorted."""
        found: set[str] = set()
        fixed = [*self.templates, *(value for values in self.slots.values() for value in values)]
        for text in fixed:
            found.update(_SLOT.sub(" ", text).split())
        for words in (DIGITS, TEENS, TENS, ORDINALS, SPELLING, MONTHS):
            found.update(words)
        found.update(letter.lower() for letter in LETTERS)
        found.update("oh double triple hundred thousand and half past quarter to o'clock".split())
        found.update("noon midnight dollars euros pounds cents pence the of thirtieth p m".split())
        return sorted(found)
