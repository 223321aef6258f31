"""What a PBX is told of a call: the variables that its dialplan can read.

AII_FINAL            the last final's text
AII_TRANSCRIPT       the finals so far, the last of them if all are too long
AII_ANSWER           what was answered to a question, "" where nothing fits
AII_ANSWER_SOURCE    speech or keys
AII_ANSWER_STATUS    match, short, nomatch, timeout... set last: once it is there, all is
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from aii.streaming.events import Answer, CallEnded, CallStarted, Event, Final

LONGEST = 900
"""Bytes of a value: Asterisk reads lines of up to 1,024 bytes, and dialplans buffers of 4,096."""

CALLS = 10_000


@dataclass
class Channel:
    """A leg's channel in the PBX ("" where nobody has named it), and its transcript so far."""

    name: str = ""
    text: str = ""


class Channels:
    """The channels of the calls that run, and what is to be set on them.

    Args:
        prefix: of the variables' names.
    """

    def __init__(self, prefix: str = "AII") -> None:
        self._prefix = prefix
        self._channels: OrderedDict[tuple[str, str], Channel] = OrderedDict()

    def follow(self, event: Event) -> Channel:
        """The channel that an event belongs to; call it once for each event, in order."""
        key = (event.call_id, event.leg)
        channel = self._channels.get(key)
        if channel is None or isinstance(event, CallStarted):
            details = getattr(event, "details", None) or {}
            channel = self._channels[key] = Channel(str(details.get("channel", "")))
            self._channels.move_to_end(key)
            if len(self._channels) > CALLS:
                self._channels.popitem(last=False)
        if isinstance(event, Final):
            channel.text = (channel.text + event.text)[-4 * LONGEST :]
        if isinstance(event, CallEnded):
            self._channels.pop(key, None)
        return channel

    def variables(self, event: Event, channel: Channel) -> list[tuple[str, str]]:
        """Names and values to set because of an event, in order."""
        prefix = self._prefix
        if isinstance(event, Final) and event.text.strip():
            return [
                (f"{prefix}_FINAL", first_bytes(one_line(event.text))),
                (f"{prefix}_TRANSCRIPT", last_bytes(one_line(channel.text))),
            ]
        if isinstance(event, Answer):
            return [
                (f"{prefix}_ANSWER", first_bytes(one_line(event.value or ""))),
                (f"{prefix}_ANSWER_SOURCE", event.source),
                (f"{prefix}_ANSWER_STATUS", event.status),
            ]
        return []


def one_line(text: str) -> str:
    """``text`` on one line and without control characters: a protocol of lines must not break."""
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())


def first_bytes(text: str, most: int = LONGEST) -> str:
    """The beginning of ``text``, at most so many bytes of UTF-8, no character cut."""
    return text.encode("utf-8", "replace")[:most].decode("utf-8", "ignore")


def last_bytes(text: str, most: int = LONGEST) -> str:
    """The end of ``text``, likewise, from the beginning of a word on where it is cut."""
    data = text.encode("utf-8", "replace")
    if len(data) <= most:
        return text
    return data[-most:].decode("utf-8", "ignore").partition(" ")[2]


def pieces(text: str, most: int = LONGEST) -> list[str]:
    """``text`` in pieces of at most so many bytes, cut between words where there are any."""
    left, found = text, []
    while left:
        piece = first_bytes(left, most)
        within = len(piece) < len(left) and not left[len(piece)].isspace()
        if within and " " in piece.strip():
            piece = piece[: piece.rindex(" ")]
        found.append(piece.strip())
        left = left[len(piece) :].lstrip()
    return found
