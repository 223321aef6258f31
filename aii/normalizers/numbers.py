"""English number words into digits.

Words are read one by one into the number that is being built. It is an ``int`` while the words add
up ("two hundred and thirty"), and becomes a string of digits once they are read out one after
another ("one oh one", "twenty twenty four"). Signs and currencies are written before it, whether
they were spoken before or after.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fractions import Fraction

_UNITS = (
    *("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"),
    *("eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen"),
    *("eighteen", "nineteen"),
)
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_SCALES = (
    *("thousand", "million", "billion", "trillion", "quadrillion", "quintillion"),
    *("sextillion", "septillion", "octillion", "nonillion", "decillion"),
)
_ORDINALS = {
    "one": ("first", "st"),
    "two": ("second", "nd"),
    "three": ("third", "rd"),
    "five": ("fifth", "th"),
    "eight": ("eighth", "th"),
    "twelve": ("twelfth", "th"),
}
_SIGNS = {"minus": "-", "negative": "-", "plus": "+", "positive": "+"}
_CURRENCIES = {"pound": "£", "euro": "€", "dollar": "$", "cent": "¢"}
_SYMBOLS = frozenset((*_SIGNS.values(), *_CURRENCIES.values()))

_NUMERAL = re.compile(r"\d+(\.\d+)?")
_AND_A_HALF = re.compile(r"\band\s+a\s+half\b")
_LETTER_DIGIT = re.compile(r"(?<=[a-z])(?=[0-9])")
_DIGIT_LETTER = re.compile(r"(?<=[0-9])(?=[a-z])")
_LOOSE_SUFFIX = re.compile(r"(?<=[0-9])\s+(?=(?:st|nd|rd|th|s)\b)")
_WITH_CENTS = re.compile(r"([€£$][0-9]+) (?:and )?¢([0-9]{1,2})\b")
_ONLY_CENTS = re.compile(r"[€£$]0.([0-9]{1,2})\b")
_LONE_ONE = re.compile(r"\b1(s?)\b")


@dataclass(frozen=True)
class _Entry:
    """What a word means: its kind (a handler's name), its number, and a suffix or symbol."""

    kind: str
    number: int = 0
    text: str = ""


def _lexicon() -> dict[str, _Entry]:
    """Every word that can be part of a number."""
    words = {word: _Entry("zero") for word in ("o", "oh", "zero")}
    words["zeroth"] = _Entry("unit", 0, "th")
    for number, word in enumerate(_UNITS, start=1):
        ordinal, suffix = _ORDINALS.get(word, (word + "th", "th"))
        words[word] = _Entry("unit", number)
        words["sixes" if word == "six" else word + "s"] = _Entry("unit", number, "s")
        words[ordinal] = _Entry("unit", number, suffix)
    for number, word in enumerate(_TENS, start=2):
        stem = word[:-1]
        words[word] = _Entry("ten", number * 10)
        words[stem + "ies"] = _Entry("ten", number * 10, "s")
        words[stem + "ieth"] = _Entry("ten", number * 10, "th")
    scales = {"hundred": 100, **{word: 1000**i for i, word in enumerate(_SCALES, start=1)}}
    for word, number in scales.items():
        for suffix in ("", "s", "th"):
            words[word + suffix] = _Entry("scale", number, suffix)
    for word, symbol in _CURRENCIES.items():
        words[word] = words[word + "s"] = _Entry("currency", text=symbol)
    words.update({word: _Entry("sign", text=symbol) for word, symbol in _SIGNS.items()})
    words.update(
        {
            "per": _Entry("per"),
            "percent": _Entry("percent"),
            "and": _Entry("and"),
            "point": _Entry("point"),
            "double": _Entry("repeat", 2),
            "triple": _Entry("repeat", 3),
        }
    )
    return words


_WORDS = _lexicon()


def _is(word: str | None, *kinds: str) -> bool:
    """Whether ``word`` is a plain number word (no plural or ordinal) of one of the kinds."""
    entry = _WORDS.get(word) if word is not None else None
    return entry is not None and entry.kind in kinds and not entry.text


def _is_numeral(word: str | None) -> bool:
    return word is not None and _NUMERAL.fullmatch(word) is not None


def _fraction(value: int | str) -> Fraction | None:
    try:
        return Fraction(value)
    except ValueError:
        return None


class _Reader:
    """Reads one text's words; ``result`` collects words and finished numbers."""

    def __init__(self) -> None:
        self.result: list[str] = []
        self._prefix = ""
        self._value: int | str | None = None

    def read(self, words: list[str]) -> list[str]:
        """Take all words; each handler says how many words it has used."""
        place = 0
        while place < len(words):
            before = words[place - 1] if place else None
            after = words[place + 1] if place + 1 < len(words) else None
            place += self._word(words[place], before, after)
        self._close()
        return self.result

    def _word(self, word: str, before: str | None, after: str | None) -> int:
        if _is_numeral(word.removeprefix(word[0]) if word[0] in _SYMBOLS else word):
            return self._numeral(word)
        entry = _WORDS.get(word)
        if entry is None:
            return self._plain(word)
        return _HANDLERS[entry.kind](self, entry, word, before, after)

    # -- writing ------------------------------------------------------------------------------

    def _put(self, text: int | str) -> None:
        """Write ``text`` with the prefix that waits for it; the number begins anew."""
        self.result.append(f"{self._prefix}{text}")
        self._prefix = ""
        self._value = None

    def _close(self) -> None:
        """Write the number, if one is being built."""
        if self._value is not None:
            self._put(self._value)

    def _plain(self, word: str) -> int:
        """A word that is no part of a number here."""
        self._close()
        self._put(word)
        return 1

    def _digits(self) -> str:
        """The number so far, to append digits to; none or zero is nothing."""
        return str(self._value or "")

    # -- handlers -----------------------------------------------------------------------------

    def _numeral(self, word: str) -> int:
        """Digits, perhaps with a symbol before and decimals after."""
        if isinstance(self._value, str) and self._value.endswith("."):
            self._value += word
            return 1
        self._close()
        if word[0] in _SYMBOLS:
            self._prefix, word = word[0], word[1:]
        exact = _fraction(word)
        self._value = exact.numerator if exact is not None and exact.denominator == 1 else word
        return 1

    def _zero(self, entry: _Entry, word: str, before: str | None, after: str | None) -> int:
        self._value = self._digits() + "0"
        return 1

    def _unit(self, entry: _Entry, word: str, before: str | None, after: str | None) -> int:
        """One to nineteen: added where there is room for it, else read out."""
        value, number = self._value, entry.number
        if value is None:
            value = number
        elif isinstance(value, str) or _is(before, "unit"):
            value = str(value)
            if _is(before, "ten") and number < 10:
                value = value[:-1]
            value += str(number)
        elif value % (10 if number < 10 else 100) == 0:
            value += number
        else:
            value = f"{value}{number}"
        return self._built(value, entry.text)

    def _ten(self, entry: _Entry, word: str, before: str | None, after: str | None) -> int:
        """Twenty to ninety."""
        value = self._value
        if value is None:
            value = entry.number
        elif isinstance(value, int) and value % 100 == 0:
            value += entry.number
        else:
            value = f"{value}{entry.number}"
        return self._built(value, entry.text)

    def _scale(self, entry: _Entry, word: str, before: str | None, after: str | None) -> int:
        """Hundred and upwards: multiplies what was said since the last thousand."""
        value: int | str | None = self._value
        if value is None:
            value = entry.number
        elif isinstance(value, int) and (value != 0 or entry.text):
            value += value % 1000 * (entry.number - 1)
        else:
            exact = _fraction(value)
            product = exact * entry.number if exact is not None else None
            if product is not None and product.denominator == 1:
                value = product.numerator
            else:
                self._put(value)
                value = entry.number
        return self._built(value, entry.text)

    def _built(self, value: int | str, suffix: str) -> int:
        """Go on with ``value``; a plural or ordinal ends it."""
        self._value = value
        if suffix:
            self._put(f"{value}{suffix}")
        return 1

    def _sign(self, entry: _Entry, word: str, before: str | None, after: str | None) -> int:
        if after not in _WORDS and not _is_numeral(after):
            return self._plain(word)
        self._close()
        self._prefix = entry.text
        return 1

    def _currency(self, entry: _Entry, word: str, before: str | None, after: str | None) -> int:
        if self._value is None:
            return self._plain(word)
        self._prefix = entry.text
        self._close()
        return 1

    def _percent(self, entry: _Entry, word: str, before: str | None, after: str | None) -> int:
        if self._value is None:
            return self._plain(word)
        self._put(f"{self._value}%")
        return 1

    def _per(self, entry: _Entry, word: str, before: str | None, after: str | None) -> int:
        if self._value is None or after != "cent":
            return self._plain(word)
        self._put(f"{self._value}%")
        return 2

    def _and(self, entry: _Entry, word: str, before: str | None, after: str | None) -> int:
        """Said within a number after hundred, thousand...; else a word."""
        within = _is(before, "scale") and (after in _WORDS or _is_numeral(after))
        return 1 if within else self._plain(word)

    def _repeat(self, entry: _Entry, word: str, before: str | None, after: str | None) -> int:
        """Double and triple, before a digit."""
        if after is None or not _is(after, "unit", "zero"):
            return self._plain(word)
        self._value = self._digits() + str(_WORDS[after].number) * entry.number
        return 2

    def _point(self, entry: _Entry, word: str, before: str | None, after: str | None) -> int:
        """A decimal point; left out where another kind of number word follows."""
        if _is(after, "unit", "ten", "zero") or _is_numeral(after):
            self._value = self._digits() + "."
        elif after not in _WORDS:
            return self._plain(word)
        return 1


_HANDLERS: dict[str, Callable[[_Reader, _Entry, str, str | None, str | None], int]] = {
    "zero": _Reader._zero,
    "unit": _Reader._unit,
    "ten": _Reader._ten,
    "scale": _Reader._scale,
    "sign": _Reader._sign,
    "currency": _Reader._currency,
    "percent": _Reader._percent,
    "per": _Reader._per,
    "and": _Reader._and,
    "repeat": _Reader._repeat,
    "point": _Reader._point,
}


class EnglishNumberNormalizer:
    """Writes spoken numbers in digits.

    Suffixes stay (1960s, 32nd), currencies go before ("twenty million dollars" is $20000000),
    digits said one by one are joined ("one oh one" is 101), and a lone one stays a word.
    """

    def __call__(self, s: str) -> str:
        """``s``, in lower case, with its numbers in digits; words are separated by one space."""
        return self.postprocess(" ".join(self.process_words(self.preprocess(s).split())))

    def preprocess(self, s: str) -> str:
        """``s`` with "point five" for "and a half", and numerals apart from letters."""
        *halved, last = _AND_A_HALF.split(s)
        parts: list[str] = []
        for part in halved:
            if part.strip():
                number = _is(part.split()[-1], "zero", "unit", "ten", "scale")
                parts += (part, "point five" if number else "and a half")
        if last.strip():
            parts.append(last)
        apart = _DIGIT_LETTER.sub(" ", _LETTER_DIGIT.sub(" ", " ".join(parts)))
        return _LOOSE_SUFFIX.sub("", apart)

    def process_words(self, words: Iterable[str]) -> list[str]:
        """The words with digits for number words."""
        return _Reader().read(list(words))

    def postprocess(self, s: str) -> str:
        """``s`` with cents as decimals of their currency, and "one" and "ones" for 1 and 1s."""
        s = _WITH_CENTS.sub(lambda found: f"{found[1]}.{int(found[2]):02d}", s)
        s = _ONLY_CENTS.sub(lambda found: f"¢{int(found[1])}", s)
        return _LONE_ONE.sub(r"one\1", s)
