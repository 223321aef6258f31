from __future__ import annotations

import dataclasses

import pytest

from aii.protocols import Audio, CallId, Notice


@pytest.mark.parametrize(
    "given, kept",
    [
        ("call-7", "call-7"),
        ("a b\x1b[31m\n", "a?b?[31m?"),
        ("naïve", "na?ve"),
        ("x" * 200, "x" * 128),
        ("", ""),
    ],
)
def test_a_call_id_is_printable_by_construction(given: str, kept: str) -> None:
    assert CallId(given).id == kept


def test_a_notice_is_one_printable_line() -> None:
    text = Notice("bad\r\nline \x07" + "x" * 400).text
    assert text.startswith("bad??line ?")
    assert len(text) == 300


def test_frames_are_frozen_values() -> None:
    frame = Audio(b"ab")
    assert frame == Audio(b"ab")
    with pytest.raises(dataclasses.FrozenInstanceError):
        frame.payload = b""  # type: ignore[misc]
