"""Normalising English: contractions, titles, numbers, British and American spelling."""

from __future__ import annotations

import json
import re

from aii.normalizers.basic import remove_bracketed, remove_symbols_and_diacritics, single_spaces
from aii.normalizers.numbers import EnglishNumberNormalizer
from aii.resources import asset

__all__ = ["EnglishNumberNormalizer", "EnglishSpellingNormalizer", "EnglishTextNormalizer"]

_CONTRACTIONS = {
    "won't": "will not",
    "can't": "can not",
    "let's": "let us",
    "ain't": "aint",
    "y'all": "you all",
    "wanna": "want to",
    "gotta": "got to",
    "gonna": "going to",
    "i'ma": "i am going to",
    "imma": "i am going to",
    "woulda": "would have",
    "coulda": "could have",
    "shoulda": "should have",
    "ma'am": "madam",
}
_TITLES = {
    "mr": "mister",
    "mrs": "missus",
    "st": "saint",
    "dr": "doctor",
    "prof": "professor",
    "capt": "captain",
    "gov": "governor",
    "ald": "alderman",
    "gen": "general",
    "sen": "senator",
    "rep": "representative",
    "pres": "president",
    "rev": "reverend",
    "hon": "honorable",
    "asst": "assistant",
    "assoc": "associate",
    "lt": "lieutenant",
    "col": "colonel",
    "jr": "junior",
    "sr": "senior",
    "esq": "esquire",
}
# 'd and 's are "had" and "has" before these, and "would" and "is" elsewhere.
_PERFECT = {
    "'d been": " had been",
    "'d gone": " had gone",
    "'d done": " had done",
    "'s been": " has been",
    "'s gone": " has gone",
    "'s got": " has got",
}
_ENDINGS = {
    "'re": " are",
    "'s": " is",
    "'d": " would",
    "'ll": " will",
    "'t": " not",
    "'ve": " have",
    "'m": " am",
}

_FILLERS = re.compile(r"\b(?:hmm|mm|mhm|mmm|uh|um)\b")
_LOOSE_APOSTROPHE = re.compile(r"\s+(?=')")
_THOUSANDS = re.compile(r"(\d),(\d)")
# These take the character beside the symbol with them, so that of two symbols only one goes.
_FULL_STOP = re.compile(r"\.([^0-9]|$)")
_LOOSE_SYMBOL = re.compile(r"[.$¢€£]([^0-9])")
_LOOSE_PERCENT = re.compile(r"([^0-9])%")


class _Replacer:
    """Replaces the phrases of a table, in one pass."""

    def __init__(self, table: dict[str, str], *, whole_words: bool = False) -> None:
        start = r"\b" if whole_words else ""
        self._table = table
        self._pattern = re.compile(f"{start}(?:{'|'.join(map(re.escape, table))})\\b")

    def __call__(self, s: str) -> str:
        return self._pattern.sub(lambda found: self._table[found[0]], s)


# In this order: a later pass sees what an earlier one has written.
_REPLACERS = (
    _Replacer(
        {**_CONTRACTIONS, **{short: f"{title} " for short, title in _TITLES.items()}},
        whole_words=True,
    ),
    _Replacer(_PERFECT),
    _Replacer({"n't": " not"}),
    _Replacer(_ENDINGS),
)


class EnglishSpellingNormalizer:
    """Writes British spellings the American way."""

    def __init__(self) -> None:
        path = asset("english_spellings.json")
        self.mapping: dict[str, str] = json.loads(path.read_text(encoding="utf-8"))

    def __call__(self, s: str) -> str:
        """``s`` with the words of the table replaced, separated by one space."""
        return " ".join(self.mapping.get(word, word) for word in s.split())


class EnglishTextNormalizer:
    """All that makes two transcripts of the same English speech look alike."""

    def __init__(self) -> None:
        self.standardize_numbers = EnglishNumberNormalizer()
        self.standardize_spellings = EnglishSpellingNormalizer()

    def __call__(self, s: str) -> str:
        """``s`` normalised."""
        s = _FILLERS.sub("", remove_bracketed(s.lower()))
        s = _LOOSE_APOSTROPHE.sub("", s)
        for replace in _REPLACERS:
            s = replace(s)
        s = _FULL_STOP.sub(r" \1", _THOUSANDS.sub(r"\1\2", s))
        s = remove_symbols_and_diacritics(s, keep=".%$¢€£")
        s = self.standardize_spellings(self.standardize_numbers(s))
        # What is left of these has no number beside it.
        s = _LOOSE_PERCENT.sub(r"\1 ", _LOOSE_SYMBOL.sub(r" \1", s))
        return single_spaces(s)
