from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aii.protocols.metadata import (
    LONGEST_NAME,
    LONGEST_VALUE,
    MOST_VALUES,
    metadata,
    sample_rate,
    text_of,
)


def test_one_name_for_many_spellings() -> None:
    said = {
        "UUID": "abc",
        "from": "+49 30 1",
        "Destination-Number": 100,
        "lang": "de",
        "phrase_list": ["Meier", "Fritz!Box", ""],
        "sampling_rate": 8000,
        "mixType": "stereo",
        "dialog": "x",
    }
    assert metadata(said).values == {
        "call_id": "abc",
        "caller": "+49 30 1",
        "callee": "100",
        "language": "de",
        "prompt": "Meier, Fritz!Box",
        "rate": "8000",
        "channels": "stereo",
        "dialog": "x",
    }


def test_the_first_of_several_spellings_counts() -> None:
    assert metadata({"caller": "1", "from": "2"}).values == {"caller": "1"}
    assert metadata({"caller": "", "from": "2"}).values == {"caller": "2"}


def test_what_is_left_out() -> None:
    said = {"token": "s3cret", "Password": "x", "a": "", "b": {"c": 1}, "d": None, "": "e"}
    said |= {"x" * (LONGEST_NAME + 1): "1", "bad\nname": "1", "f": [1, {"g": 2}]}
    assert metadata(said).values == {}


def test_values_are_one_printable_line_within_bounds() -> None:
    said = {"a": "x\r\ny\0\x1b[2J \ud800z", "b": "1" * 5000, "c": True, "d": 1.5, "e": float("nan")}
    values = metadata(said).values
    assert values["a"] == "x y [2J z"
    assert len(values["b"]) == LONGEST_VALUE
    assert (values["c"], values["d"], values["e"]) == ("true", "1.5", "nan")
    assert len(metadata({f"n{i}": "x" for i in range(1000)}).values) == MOST_VALUES


@settings(max_examples=100, deadline=None)
@given(
    st.dictionaries(
        st.text(max_size=80),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=2000),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner),
            max_leaves=5,
        ),
        max_size=100,
    )
)
def test_anything_becomes_bounded_text(said) -> None:
    values = metadata(said).values
    assert len(values) <= MOST_VALUES
    for name, value in values.items():
        assert 0 < len(name) <= LONGEST_NAME
        assert 0 < len(value) <= LONGEST_VALUE
        assert (name + value).isprintable()
        (name + value).encode()


@pytest.mark.parametrize(
    "text, rate",
    [
        ("8000", 8000),
        ("8000.0", 8000),
        ("16k", 16000),
        ("44100", 44100),
        ("4000", 4000),
        ("3999", None),
        ("192001", None),
        ("8000.5", None),
        ("nan", None),
        ("inf", None),
        ("-8000", None),
        ("k", None),
        ("", None),
        (None, None),
    ],
)
def test_sample_rates(text, rate) -> None:
    assert sample_rate(text) == rate


def test_text_of_long_lists_is_cut() -> None:
    assert len(text_of(["x"] * 1000).split(", ")) == MOST_VALUES
