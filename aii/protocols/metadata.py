"""What is said about a call, cleaned: names made one, values printable, all of it bounded.

It comes from URI parameters, JSON of a telephone system or of the call registry, in as many
spellings as there are systems. What is meant for us gets one name; the rest stays as it is.
"""

from __future__ import annotations

from collections.abc import Mapping

from aii.protocols.frames import Metadata

LONGEST_NAME = 64
"""Characters; values with longer names are left out."""

LONGEST_VALUE = 2000
"""Characters; longer values are cut."""

MOST_VALUES = 64
"""Values of one call; further ones are left out."""

NAMES = {
    "call_id": ("call_id", "callid", "call", "uuid", "uniqueid", "session_id", "sessionid"),
    "caller": (
        "caller",
        "from",
        "ani",
        "caller_id",
        "callerid",
        "caller_number",
        "caller_id_number",
    ),
    "callee": ("callee", "to", "dnis", "called", "destination", "destination_number"),
    "language": ("language", "lang", "lan"),
    "prompt": ("prompt", "prompt_words", "phrases", "phrase_list", "hints"),
    "rate": ("rate", "sample_rate", "samplerate", "sampling_rate", "sampling"),
    "codec": ("codec", "format", "encoding"),
    "channels": ("channels", "mix", "mix_type", "mixtype"),
    "leg": ("leg", "channel_role", "side"),
}
"""Our name of what systems call by the names behind it, in lower case with ``-`` as ``_``."""

SECRET = ("token", "access_token", "api_key", "password")
"""What gives access and must not go where events go."""

_KNOWN = {alias: name for name, aliases in NAMES.items() for alias in aliases}


def text_of(value: object) -> str | None:
    """A plain value as one line of text; a list of them with commas between; None for the rest."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return f"{value:g}" if isinstance(value, float) else str(value)
    if isinstance(value, str):
        return " ".join("".join(c if c.isprintable() else " " for c in value).split())
    if isinstance(value, list | tuple):
        parts = [text_of(item) for item in value[:MOST_VALUES]]
        return ", ".join(part for part in parts if part) if None not in parts else None
    return None


def metadata(values: Mapping[str, object]) -> Metadata:
    """``values`` with our names for what we know; the first of several spellings counts.

    What is empty, nested, secret, or beyond the bounds is left out.
    """
    found: dict[str, str] = {}
    for name, value in values.items():
        key = name.strip().lower().replace("-", "_")
        key = _KNOWN.get(key, key)
        text = text_of(value)
        if key in SECRET or not text or not 0 < len(key) <= LONGEST_NAME or not key.isprintable():
            continue
        if len(found) >= MOST_VALUES:
            break
        found.setdefault(key, text[:LONGEST_VALUE])
    return Metadata(found)


def sample_rate(text: str | None) -> int | None:
    """Samples per second of ``8000``, ``8000.0``, ``8k``, ``16k``; None where it makes no sense."""
    if text is None:
        return None
    number, thousands = (text[:-1], 1000) if text[-1:] in ("k", "K") else (text, 1)
    try:
        rate = float(number) * thousands
    except ValueError:
        return None
    return round(rate) if 4_000 <= rate <= 192_000 and rate == round(rate) else None
