"""Normalising text of any language: case, brackets, symbols, accents."""

from __future__ import annotations

import re
import unicodedata

import regex  # type: ignore[import-untyped]

ADDITIONAL_DIACRITICS = {
    "œ": "oe",
    "Œ": "OE",
    "æ": "ae",
    "Æ": "AE",
    "ß": "ss",
    "ẞ": "SS",
    "ø": "o",
    "Ø": "O",
    "đ": "d",
    "Đ": "D",
    "ð": "d",
    "Ð": "D",
    "ł": "l",
    "Ł": "L",
    "þ": "th",
    "Þ": "th",
}
"""Letters that are one letter and its mark to a reader but not to Unicode."""

_ANGLED = re.compile(r"[<\[][^>\]]*[>\]]")
_PARENTHESISED = re.compile(r"\([^)]+?\)")
_SPACE = re.compile(r"\s+")


class _Table(dict[int, str]):
    """For ``str.translate``: what becomes of each character, worked out when it is first met."""

    def __init__(self, *, plain: bool) -> None:
        super().__init__(
            {ord(letter): spelled for letter, spelled in ADDITIONAL_DIACRITICS.items()}
            if plain
            else {}
        )
        self._plain = plain

    def __missing__(self, code: int) -> str:
        category = unicodedata.category(chr(code))
        if self._plain and category == "Mn":
            result = ""
        else:
            result = " " if category[0] in "MSP" else chr(code)
        self[code] = result
        return result


_MARKED = _Table(plain=False)
_PLAIN = _Table(plain=True)


def remove_symbols(s: str) -> str:
    """``s`` with a space for every mark, symbol and punctuation; accented letters stay."""
    return unicodedata.normalize("NFKC", s).translate(_MARKED)


def remove_symbols_and_diacritics(s: str, keep: str = "") -> str:
    """``s`` with plain letters for accented ones and a space for every symbol not in ``keep``."""
    plain = unicodedata.normalize("NFKD", s)
    if not keep:
        return plain.translate(_PLAIN)
    return "".join(c if c in keep else c.translate(_PLAIN) for c in plain)


def remove_bracketed(s: str) -> str:
    """``s`` without what stands in <angle>, [square] or (round) brackets: sounds, speakers."""
    return _PARENTHESISED.sub("", _ANGLED.sub("", s))


def single_spaces(s: str) -> str:
    """``s`` with one space for every run of white space."""
    return _SPACE.sub(" ", s)


class BasicTextNormalizer:
    """Lower case, without bracketed text, punctuation and symbols.

    Args:
        remove_diacritics: write accented letters without their marks.
        split_letters: put a space between all letters, for languages written without spaces.
    """

    def __init__(self, remove_diacritics: bool = False, split_letters: bool = False) -> None:
        self.clean = remove_symbols_and_diacritics if remove_diacritics else remove_symbols
        self.split_letters = split_letters

    def __call__(self, s: str) -> str:
        """``s`` normalised."""
        s = self.clean(remove_bracketed(s.lower())).lower()
        if self.split_letters:
            s = " ".join(regex.findall(r"\X", s))
        return single_spaces(s)
