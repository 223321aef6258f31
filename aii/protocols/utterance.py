"""Finals that come in pieces, put together to what is said between two pauses.

A policy that makes words final as soon as they are certain gives several finals for one sentence;
a client of Asterisk's or Vosk's protocol wants the sentence.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

PIECES = ("agreement",)
"""Reasons of finals after which the same sentence may go on."""


def one_line(text: object) -> str:
    """A transcript's text without the spaces around it and line ends within."""
    return " ".join(str(text or "").split())


class Utterance:
    """What was said since the last whole utterance.

    Attributes:
        words: of the finals so far, as ``Event.to_dict`` gives them.
    """

    def __init__(self) -> None:
        self.words: list[Mapping[str, Any]] = []
        self._text = ""
        self._partial = ""

    @property
    def text(self) -> str:
        """The finals so far."""
        return one_line(self._text)

    @property
    def so_far(self) -> str:
        """The finals so far and what may follow."""
        return one_line(self._text + self._partial)

    def take(self, event: Mapping[str, Any]) -> bool:
        """Take an event; whether with it an utterance with text is whole. Then ``clear``."""
        if event.get("type") == "partial":
            self._partial = str(event.get("text") or "")
        if event.get("type") != "final":
            return False
        self._partial = ""
        self._text += str(event.get("text") or "")
        self.words += event.get("words") or ()
        return event.get("reason") not in PIECES and self.text != ""

    def clear(self) -> None:
        """Begin the next one."""
        self.words = []
        self._text = ""
