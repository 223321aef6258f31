"""Digits in a transcript, however they were written: figures, words, or both.

A text is cut into pieces, and pieces that follow one another make runs: "it's four two, seven oh
nine" holds one run of five digits. Counting errs on the long side ("two hundred and six" counts as
three digits, "two thousand five hundred" as six), because what counts here is never to overlook a
long number.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

BRIDGES = 3
"""Words such as "and" or "uh" that may stand between two digits of one run."""

_SPOKEN = {  # a language's words for 0 to 9
    "en": "zero|nought|naught one two three four five six seven eight nine|niner",
    "de": "null eins|ein zwei|zwo drei vier fünf sechs sieben acht neun",
    "es": "cero uno|una|un dos tres cuatro cinco seis siete ocho nueve",
    "fr": "zéro un|une deux trois quatre cinq six sept huit neuf",
    "it": "zero uno|una|un due tre quattro cinque sei sette otto nove",
    "nl": "nul een|één twee drie vier vijf zes zeven acht negen",
    "pt": "zero um|uma dois|duas três quatro cinco seis|meia sete oito nove",
}
_UNITS = {
    code: {word: value for value, words in enumerate(listed.split()) for word in words.split("|")}
    for code, listed in _SPOKEN.items()
}
_PLURALS = frozenset(word + s for word in _UNITS["en"] for s in ("s", "es"))
_TEENS = {
    "en": "ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen".split(),
    "de": "zehn elf zwölf dreizehn vierzehn fünfzehn sechzehn siebzehn achtzehn neunzehn".split(),
    "es": "diez once doce trece catorce quince dieciséis diecisiete dieciocho diecinueve".split(),
    "fr": "dix onze douze treize quatorze quinze seize".split(),
    "it": "dieci undici dodici tredici quattordici quindici sedici diciassette diciotto "
    "diciannove".split(),
    "nl": "tien elf twaalf dertien veertien vijftien zestien zeventien achttien negentien".split(),
    "pt": "dez onze doze treze quatorze catorze quinze dezasseis dezesseis dezassete dezessete "
    "dezoito dezanove dezenove".split(),
}
_TENS = {
    "en": "twenty thirty forty fourty fifty sixty seventy eighty ninety".split(),
    "de": "zwanzig dreißig dreissig vierzig fünfzig sechzig siebzig achtzig neunzig".split(),
    "es": "veinte treinta cuarenta cincuenta sesenta setenta ochenta noventa".split(),
    "fr": "vingt vingts trente quarante cinquante soixante septante huitante nonante".split(),
    "it": "venti trenta quaranta cinquanta sessanta settanta ottanta novanta".split(),
    "nl": "twintig dertig veertig vijftig zestig zeventig tachtig negentig".split(),
    "pt": "vinte trinta quarenta cinquenta sessenta setenta oitenta noventa".split(),
}
_SCALES = {
    **dict.fromkeys("hundred hundert cien ciento cent cento honderd cem".split(), 2),
    **dict.fromkeys("thousand tausend mil mille mila duizend".split(), 3),
    **dict.fromkeys("million millionen millón milione miljoen milhão".split(), 6),
}
_COMPOUND = {  # "zweiundvierzig", "tweeënveertig", "veintidós", "ventuno": one word for two digits
    "de": re.compile(r"\w+und(?:zwanzig|drei(?:ß|ss)ig|(?:vier|fünf|sech|sieb|acht|neun)zig)"),
    "nl": re.compile(r"\w+(?:en|ën)(?:twin|der|veer|vijf|zes|zeven|tach|negen)tig"),
    "es": re.compile(r"veinti\w+"),
    "it": re.compile(r"(?:vent|trent|quarant|cinquant|sessant|settant|ottant|novant)[aiu]?\w+"),
}
_REPEATS = {
    **dict.fromkeys("double doble doppelt doppio dubbel duplo".split(), 1),
    **dict.fromkeys("triple treble triplo dreifach".split(), 2),
}
_BETWEEN = frozenset(
    (
        "and then dash hyphen minus space point dot slash comma uh um uhm er erm hmm ah eh plus "
        "und dann strich bindestrich leerzeichen äh ähm y luego guion punto espacio et puis tiret "
        "espace euh e poi trattino spazio en dan streepje spatie então traço"
    ).split()
)
_NEAR = frozenset(("oh", "o", "ohs"))  # a digit beside one
_ALIKE = frozenset("for fore to too ate won tree sex sicks".split())  # misheard between two

_CHINESE = "〇零一二三四五六七八九"
_WORD = re.compile(rf"[{_CHINESE}]|[^\W{_CHINESE}]+(?:['’][^\W\d{_CHINESE}]+)*")


@dataclass(frozen=True)
class Piece:
    """A word of a text at ``start:end``.

    Attributes:
        kind: "unit", "teen", "ten", "scale", "figures" (these are digits), "between" (may stand
            inside a run), "repeat" (double, triple), "near" and "alike" (see the module), "word".
        digits: how many digits it stands for on its own.
    """

    start: int
    end: int
    kind: str = "word"
    digits: int = 0

    @property
    def sure(self) -> bool:
        """Whether it is a digit whatever stands beside it."""
        return self.kind in ("unit", "teen", "ten", "scale", "figures")


BREAK = Piece(0, 0)
"""Stands between two runs and belongs to neither."""


@dataclass(frozen=True)
class Run:
    """Pieces ``first`` to ``last`` (both included) hold ``digits`` digits.

    ``open`` says that nothing but bridges follows, so that the run may go on behind the text;
    ``leading`` that nothing but bridges precedes, so that it may have begun before it.
    """

    first: int
    last: int
    digits: int
    open: bool
    leading: bool


def digit_words(language: str | None) -> dict[str, int]:
    """The words for 0 to 9 in a language (a code); the English ones where we do not know it."""
    return dict(_UNITS.get(language or "en", _UNITS["en"]))


def repeat_words(language: str | None) -> dict[str, int]:
    """The words that say a digit several times, and how often; known for English only."""
    return {"double": 2, "triple": 3, "treble": 3} if language in (None, "en") else {}


def pieces(text: str, language: str | None = None) -> list[Piece]:
    """The words of ``text``, told apart for ``language`` (a code; English always counts)."""
    return [
        Piece(found.start(), found.end(), *_kind(found[0].casefold(), language))
        for found in _WORD.finditer(text)
    ]


def _kind(word: str, language: str | None) -> tuple[str, int]:
    figures = sum(char.isdigit() for char in word)
    if figures:
        return "figures", figures
    if word in _CHINESE:
        return "unit", 1
    for code in ("en",) if language in (None, "en") else ("en", language):
        compound = _COMPOUND.get(code)
        if word in _UNITS.get(code, ()) or (code == "en" and word in _PLURALS):
            return "unit", 1
        if word in _TEENS.get(code, ()) or (compound and compound.fullmatch(word)):
            return "teen", 2
        if word in _TENS.get(code, ()):
            return "ten", 2
    if word in _SCALES:
        return "scale", _SCALES[word]
    if word in _REPEATS:
        return "repeat", _REPEATS[word]
    if word in _BETWEEN:
        return "between", 0
    if word in _NEAR:
        return "near", 1
    return ("alike", 1) if word in _ALIKE else ("word", 0)


def runs(parts: Sequence[Piece], *, inside: bool = False) -> list[Run]:
    """The runs of digits among ``parts``; ``inside`` says that one goes on from before them."""
    settled = _settle(parts, inside)
    found: list[Run] = []
    first = last = None
    for place, piece in enumerate([*settled, BREAK]):
        if piece.sure:
            first = place if first is None else first
            last = place
        elif piece.kind == "word" or _too_far(settled, last, place):
            if first is not None and last is not None:
                found.append(_run(settled, first, last, open=place == len(settled)))
            first = last = None
    return found


def _too_far(settled: Sequence[Piece], last: int | None, place: int) -> bool:
    """Whether more bridges than allowed stand between piece ``last`` and ``place``."""
    return last is not None and place - last > BRIDGES


def _run(settled: Sequence[Piece], first: int, last: int, *, open: bool) -> Run:
    if first and settled[first - 1].kind == "repeat":
        first -= 1
    leading = first <= BRIDGES and all(p.kind in ("between", "repeat") for p in settled[:first])
    return Run(first, last, _count(settled[first : last + 1]), open, leading)


def _count(parts: Sequence[Piece]) -> int:
    """Digits of a run; a unit takes the place of the zero of "twenty", as in "twenty one"."""
    total, previous = 0, ""
    for piece in parts:
        taken = piece.kind == "unit" and previous == "ten"
        total += 0 if taken else piece.digits
        previous = piece.kind
    return total


def _settle(parts: Sequence[Piece], inside: bool) -> list[Piece]:
    """``parts`` with every "near" and "alike" piece made a digit or none."""
    settled = list(parts)
    for place, piece in enumerate(settled):
        if piece.kind == "near":
            before = settled[place - 1].sure if place else inside
            kind = "unit" if before or _ahead(parts, place) else "word"
            settled[place] = replace(piece, kind=kind)
    for place, piece in enumerate(settled):
        if piece.kind == "alike":
            before = settled[place - 1].sure if place else inside
            last = place == len(settled) - 1
            after = not last and settled[place + 1].sure
            kind = "unit" if before and after else "between" if before and last else "word"
            settled[place] = replace(piece, kind=kind, digits=int(kind == "unit"))
    return settled


def _ahead(parts: Sequence[Piece], place: int) -> bool:
    """Whether the next piece that is not "near" is a digit."""
    after = next((piece for piece in parts[place:] if piece.kind != "near"), BREAK)
    return after.sure
