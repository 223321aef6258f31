from __future__ import annotations

from aii.protocols.utterance import Utterance, one_line


def final(text: str, reason: str, *words: str) -> dict:
    spoken = [{"text": w, "start": 0.0, "end": 1.0, "probability": 0.5} for w in words]
    return {"type": "final", "text": text, "reason": reason, "words": spoken}


def test_pieces_are_joined_until_the_pause() -> None:
    utterance = Utterance()
    assert not utterance.take({"type": "partial", "text": " so"})
    assert utterance.so_far == "so"
    assert not utterance.take(final(" so far", "agreement", " so", " far"))
    assert not utterance.take({"type": "partial", "text": " away"})
    assert (utterance.text, utterance.so_far) == ("so far", "so far away")
    assert not utterance.take({"type": "dtmf", "digit": "1"})
    assert utterance.take(final(" away.", "endpoint", " away."))
    assert utterance.so_far == utterance.text == "so far away."
    assert [word["text"] for word in utterance.words] == [" so", " far", " away."]
    utterance.clear()
    assert (utterance.text, utterance.so_far, utterance.words) == ("", "", [])


def test_silence_is_no_utterance_and_ends_one() -> None:
    utterance = Utterance()
    assert not utterance.take(final("", "endpoint"))
    assert not utterance.take(final(" yes", "agreement"))
    assert utterance.take(final(" ", "endpoint"))
    assert utterance.text == "yes"


def test_one_line() -> None:
    assert one_line("  a\n b\t") == "a b"
    assert one_line(None) == ""
