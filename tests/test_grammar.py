from __future__ import annotations

import itertools
import pickle

import pytest

from aii.errors import ConfigError
from aii.grammar import MOST_DIGITS, MOST_PHRASES, Grammar, Machine

CITIES = Grammar.words(["new york", "New York City", "boston"])


def accepts(grammar: Grammar, text: str) -> bool:
    machine = grammar.machine()
    place = machine.begin
    for byte in text.encode():
        place = machine.after(place, byte)
    return machine.ends(place)


@pytest.mark.parametrize(
    "text, value",
    [
        (" four two", "42"), (" 42", "42"), (" 4 2", "42"), (" Four, two.", "42"), (" 4-2", "42"),
        (" four-two", "42"), (" 4, 2", "42"), (" Four Two", "42"), (" oh two", "02"),
        (" double four", "44"), (" Triple four", "444"), (" four 2", "42"), (" 4 two.", "42"),
        (" nought", "0"), (" 4271", "4271"),
    ],
)  # fmt: skip
def test_digits_in_all_the_ways_they_are_written(text: str, value: str):
    grammar = Grammar.digits(1, 4)
    assert accepts(grammar, text)
    assert grammar.read(text) == value


@pytest.mark.parametrize(
    "text",
    [" four two seven one nine", " 42719", " fourteen", " hello", "four", " four  two", " four,two",
     " double double", " double", " triple four two one", " 4.2"],
)  # fmt: skip
def test_what_is_no_answer_of_up_to_four_digits(text: str):
    assert not accepts(Grammar.digits(1, 4), text)


def test_nothing_and_the_beginning_of_an_answer_are_accepted():
    grammar = Grammar.digits(4, 4)
    assert accepts(grammar, "")
    assert accepts(grammar, " four")
    assert grammar.read("") is None
    assert accepts(Grammar.words(["yes"]), "")


def test_every_string_of_digits_is_accepted_however_it_is_mixed():
    grammar = Grammar.digits(1, 3)
    spellings = {"7": (" seven", " 7", " Seven", "7"), "0": (" oh", " zero", " 0", "0")}
    for digits in ("7", "70", "007"):
        for text in map("".join, itertools.product(*(spellings[d] for d in digits))):
            glued = any(a.isalpha() and b.isdigit() for a, b in itertools.pairwise(text))
            assert accepts(grammar, text) == (text[0] == " " and not glued), text
            if accepts(grammar, text):
                assert grammar.read(text) == digits


def test_words_in_the_spellings_of_a_sentence():
    grammar = Grammar.words(["yes", "customer service", "McDonald"])
    for text in (" yes", " Yes.", " YES", " customer service", " Customer Service!", " McDonald,"):
        assert accepts(grammar, text) == (text != " YES")
    assert not accepts(grammar, " yes no")
    assert not accepts(grammar, " customer")
    assert not accepts(grammar, " customers service")


def test_what_words_mean():
    grammar = Grammar.words(["yes", "no", "customer service", "service"])
    assert grammar.read(" Yes.") == "yes"
    assert grammar.read(" customer service, please") == "customer service"
    assert grammar.read(" yes please") == "yes"
    assert grammar.read(" yes no") is None
    assert grammar.read(" bananas") is None
    assert grammar.read(" yesterday") is None


def test_what_digits_mean():
    grammar = Grammar.digits(1, 4)
    assert grammar.read("four two seven one nine") == "4271"  # no more than were asked for
    assert grammar.read("my pin is four") is None
    assert grammar.read("٤٢") == "42"
    assert Grammar.digits(1, 4, language="de").read("vier zwo null") == "420"
    assert Grammar.digits(1, 4, language="de").read("oh eins") is None
    assert accepts(Grammar.digits(1, 4, language="de"), " fünf")


def test_keys():
    grammar = Grammar.words({"sales": "1", "support": "2", "operator": ""})
    assert grammar.pressed("1") == "sales"
    assert grammar.pressed("3") is None
    assert grammar.pressed("") is None


@pytest.mark.parametrize(
    "value, grammar",
    [
        ({"digits": 4}, Grammar.digits(4, 4)),
        ({"digits": "4"}, Grammar.digits(4, 4)),
        ({"digits": [1, 4]}, Grammar.digits(1, 4)),
        ({"digits": "1-4"}, Grammar.digits(1, 4)),
        ("digits:1-4", Grammar.digits(1, 4)),
        ("digits:16", Grammar.digits(16, 16)),
        ({"words": ["yes", "no"]}, Grammar.words(["yes", "no"])),
        ({"words": "yes|no"}, Grammar.words(["yes", "no"])),
        ("words:yes|no", Grammar.words(["yes", "no"])),
        ("words:sales=1|support=2", Grammar.words({"sales": "1", "support": "2"})),
        ({"words": {"sales": "1"}}, Grammar.words({"sales": "1"})),
        ({"words": [" new   york "]}, Grammar.words(["new york"])),
    ],
)
def test_how_a_grammar_is_asked_for(value, grammar: Grammar):
    assert Grammar.parse(value) == grammar


@pytest.mark.parametrize("text", ["digits:4", "digits:1-4", "words:yes|no"])
def test_a_grammar_as_text(text: str):
    assert str(Grammar.parse(text)) == text


@pytest.mark.parametrize(
    "value",
    [{}, "", "digits", "digits:", "digits:x", "letters:3", {"digits": 0}, {"digits": [4, 1]},
     {"digits": [1, 2, 3]}, {"digits": True}, {"digits": 1.5}, {"digits": MOST_DIGITS + 1},
     {"digits": 1, "words": ["a"]}, {"words": []}, {"words": [""]}, {"words": ["!!"]},
     {"words": [1]}, {"words": ["a", "A."]}, {"words": {"a": "1", "b": "1"}},
     {"words": {"a": "12"}}, {"words": ["x" * 101]}, {"words": ["a"] * (MOST_PHRASES + 1)},
     {"words": {"a": 1}}, 4, None, ["digits"]],
)  # fmt: skip
def test_what_cannot_be_asked_for_is_one_line(value):
    with pytest.raises(ConfigError) as info:
        Grammar.parse(value)
    assert "\n" not in str(info.value)


def test_a_grammar_is_a_value():
    grammar = Grammar.words({"sales": "1"})
    assert pickle.loads(pickle.dumps(grammar)) == grammar  # noqa: S301
    assert len({grammar, Grammar.words({"sales": "1"})}) == 1


def test_a_machine_keeps_paths_apart_that_begin_alike():
    machine = Machine()
    first, second = machine.state(final=True), machine.state()
    machine.path(machine.start, "ab", first)
    machine.path(machine.start, "ac", second)
    place = machine.after(machine.begin, ord("a"))
    assert list(machine.next_bytes(place)) == [ord("b"), ord("c")]
    assert machine.ends(machine.after(place, ord("b")))
    assert not machine.ends(machine.after(place, ord("c")))
    assert machine.after(place, ord("d")) == frozenset()
    assert not machine.ends(frozenset())


def test_long_digits_take_little_memory():
    assert len(Grammar.digits(1, MOST_DIGITS).machine()) < 12_000


@pytest.mark.parametrize(
    "grammar, text, standing",
    [
        (Grammar.digits(4, 8), "", "none"),
        (Grammar.digits(4, 8), "sales", "none"),
        (Grammar.digits(4, 8), "four two", "part"),
        (Grammar.digits(4, 8), "four double two one", "open"),
        (Grammar.digits(4, 8), "42714271", "whole"),
        (Grammar.digits(4, 4), "42714271", "whole"),
        (CITIES, "", "none"),
        (CITIES, "York", "none"),
        (CITIES, "new", "part"),
        (CITIES, "New York.", "open"),
        (CITIES, "new york city", "whole"),
        (CITIES, "new york please", "whole"),
        (CITIES, "boston", "whole"),
    ],
)
def test_how_far_an_answer_is(grammar: Grammar, text: str, standing: str) -> None:
    assert grammar.standing(text) == standing


@pytest.mark.parametrize(
    "grammar, said, rest",
    [
        (Grammar.digits(4, 8), "", Grammar.digits(4, 8)),
        (Grammar.digits(4, 8), "four two", Grammar.digits(2, 6)),
        (Grammar.digits(4, 8), "four two seven one nine", Grammar.digits(1, 3)),
        (Grammar.digits(4, 4), "42719", Grammar.digits(1, 1)),
        (CITIES, "", CITIES),
        (CITIES, "boston", CITIES),
        (CITIES, "new", Grammar.words([*CITIES.phrases, "york", "york city"])),
        (CITIES, "New York.", Grammar.words([*CITIES.phrases, "city"])),
    ],
)
def test_what_may_follow_what_was_said(grammar: Grammar, said: str, rest: Grammar) -> None:
    assert grammar.rest(said) == rest
