"""How one option of a configuration is written outside, and parsers of its values.

A parser turns text into a value; what it raises ends the sentence "--port is 'x'; ...".
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

DAY = 86_400.0
"""Seconds; the longest time that can be set for anything that waits."""


@dataclass(frozen=True)
class Option:
    """How one field is written outside.

    Attributes:
        about: one sentence for ``--help``.
        parse: text to value; raises ValueError with the end of the sentence "PORT is 'x', ...".
        metavar: what stands for the value in ``--help``.
        aliases: further environment variables that set it, after ``AII_<NAME>``.
        switch: the flag alone, without a value, means true.
        secret: the value is not told, not even where it is wrong.
        repeated: the flag may be given several times, the variable may hold several values (as a
            shell's words); the field is a tuple of them.
    """

    about: str
    parse: Callable[[str], Any]
    metavar: str | None = None
    aliases: tuple[str, ...] = ()
    switch: bool = False
    repeated: bool = False
    secret: bool = False


def text(text: str) -> str:
    """Any text."""
    return text


def number(least: float, most: float, unit: str = "") -> Callable[[str], float]:
    """Parser of a number in ``least``..``most``; refuses nan."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not least <= value <= most:
            limit = f"of at least {least:g}" if math.isinf(most) else f"from {least:g} to {most:g}"
            raise ValueError(f"wanted is a number {limit}{unit and ' '}{unit}")
        return value

    return parse


def whole(least: int, most: int) -> Callable[[str], int]:
    """Parser of a whole number in ``least``..``most``."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if not least <= value <= most:
            raise ValueError(f"wanted is a whole number from {least} to {most}")
        return value

    return parse


def one_of(*choices: str) -> Callable[[str], str]:
    """Parser of one of the ``choices``."""

    def parse(text: str) -> str:
        if text not in choices:
            raise ValueError(f"wanted is one of {', '.join(choices)}{did_you_mean(text, choices)}")
        return text

    return parse


def truth(text: str) -> bool:
    """true or false, in several spellings."""
    value = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
    if text.lower() not in value:
        raise ValueError("wanted is true or false")
    return value[text.lower()]


def truth_or_model(text: str) -> bool | str:
    """true, false, or model: what its notes say."""
    if text.lower() == "model":
        return "model"
    try:
        return truth(text)
    except ValueError:
        raise ValueError("wanted is true, false or model") from None


def rate(text: str) -> int:
    """Samples per second of a telephone line."""
    if text not in ("8000", "16000"):
        raise ValueError("wanted is 8000 or 16000 (samples per second)")
    return int(text)


def language(text: str) -> str | None:
    """A language's code or name; None to detect it."""
    return None if text.lower() == "auto" else text


def device(text: str) -> str | None:
    """Where torch computes; None leaves the choice to us."""
    if text.lower() == "auto":
        return None
    if not re.fullmatch(r"(cpu|cuda|mps|xpu)(:\d{1,3})?", text):
        raise ValueError("wanted is auto, cpu, cuda, or one of several as in cuda:1")
    return text


def context(text: str) -> str | float:
    """How much audio the encoder sees."""
    if text in ("model", "auto", "full"):
        return text
    try:
        return number(1.5, 30)(text)
    except ValueError:
        raise ValueError("wanted is model, auto, full, or seconds from 1.5 to 30") from None


def temperatures(text: str) -> tuple[float, ...] | str:
    """Sampling temperatures with commas between, or "model" where it is the model's to say."""
    if text == "model":
        return text
    try:
        values = tuple(number(0, 2)(part) for part in text.split(","))
    except ValueError:
        raise ValueError("wanted are model, or numbers from 0 to 2 with commas between") from None
    return values


def optional_whole(least: int, most: int) -> Callable[[str], int | None]:
    """Parser of a whole number in ``least``..``most``, or of none."""

    def parse(text: str) -> int | None:
        return None if text == "none" else whole(least, most)(text)

    return parse


def option(
    default: Any,
    about: str,
    parse: Callable[[str], Any] = text,
    *,
    metavar: str | None = None,
    aliases: tuple[str, ...] = (),
    switch: bool = False,
    repeated: bool = False,
    secret: bool = False,
) -> Any:
    """A dataclass field with its default and how it is written outside."""
    option = Option(about, parse, metavar, aliases, switch, repeated, secret)
    return field(default=default, metadata={"option": option})


def did_you_mean(text: str, choices: Sequence[str], prefix: str = "") -> str:
    """A guess that is nearly right; ``prefix``, which all share, says nothing about that."""
    bare = [choice.removeprefix(prefix) for choice in choices]
    close = difflib.get_close_matches(text.removeprefix(prefix), bare, n=1, cutoff=0.75)
    return f"; did you mean {prefix}{close[0]}?" if close else ""
