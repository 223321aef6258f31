from __future__ import annotations

import json

from aii.streaming.events import (
    CallEnded,
    CallStarted,
    Dtmf,
    Final,
    NoSpeech,
    Partial,
    Skipped,
    SpeechEnded,
    SpeechStarted,
    Work,
)
from aii.types import Segment, Word

SEGMENTS = (
    Segment(0.0, 1.2, " four", (1,), (Word(" four", 0.1, 1.2, 0.98765),)),
    Segment(1.2, 2.0, " five.", (2,), (Word(" five.", 1.3, 2.0),)),
)


def test_a_final_as_a_dictionary():
    event = Final("c9", 3, 0.0, 2.00049, SEGMENTS, "en", Work(0.25, 0.0, 5.0, 7), reason="reset")
    assert event.to_dict() == {
        "type": "final",
        "call_id": "c9",
        "seq": 3,
        "start": 0.0,
        "end": 2.0,
        "text": " four five.",
        "words": [
            {"text": " four", "start": 0.1, "end": 1.2, "probability": 0.988},
            {"text": " five.", "start": 1.3, "end": 2.0, "probability": None},
        ],
        "segments": [
            {"start": 0.0, "end": 1.2, "text": " four"},
            {"start": 1.2, "end": 2.0, "text": " five."},
        ],
        "language": "en",
        "work": {"decode": 0.25, "queued": 0.0, "buffered": 5.0, "bytes": 160_000, "passes": 7},
        "reason": "reset",
    }


def test_a_failed_final_says_why():
    assert Final("c", 1, reason="error", error="bad").to_dict()["error"] == "bad"


def test_every_event_has_type_call_id_and_seq_and_goes_through_json():
    events = {
        CallStarted("c", 1, "1.2.3.4:5"): {"caller": "1.2.3.4:5"},
        Dtmf("c", 2, "#", 2.0): {"digit": "#", "start": 2.0},
        Skipped("c", 3, 0.0, 5.0, "behind", 1): {
            "start": 0.0, "end": 5.0, "reason": "behind", "windows": 1, "lost": False,
        },
        SpeechStarted("c", 4, 1.25, 1.5): {"start": 1.25, "decided": 1.5},
        SpeechEnded("c", 5, 1.25, 2.0, 2.5): {"start": 1.25, "end": 2.0, "decided": 2.5},
        NoSpeech("c", 6, 2.0, 7.0): {"start": 2.0, "end": 7.0},
        CallEnded("c", 7, "eof", 9.5): {"reason": "eof", "end": 9.5},
    }  # fmt: skip
    types = [
        "started", "dtmf", "skipped", "speech_started", "speech_ended", "no_speech", "ended",
    ]  # fmt: skip
    for number, (event, body) in enumerate(events.items(), start=1):
        written = json.loads(json.dumps(event.to_dict()))
        assert written == {"type": types[number - 1], "call_id": "c", "seq": number, **body}


def test_what_is_not_always_there_is_left_out():
    assert "leg" not in CallEnded("c", 1).to_dict()
    assert CallEnded("c", 1, leg="caller").to_dict()["leg"] == "caller"
    assert "removed" not in Partial("c", 1).to_dict()
    assert Partial("c", 1, removed=("loop: no no",)).to_dict()["removed"] == ["loop: no no"]
    known = CallStarted("c", 1, "1", callee="2", details={"queue": "sales"}).to_dict()
    assert (known["callee"], known["details"]) == ("2", {"queue": "sales"})


def test_texts_and_words_come_from_the_segments():
    event = Partial("c", 1, segments=SEGMENTS)
    assert event.text == " four five."
    assert [word.text for word in event.words] == [" four", " five."]
    assert Partial("c", 1).words == ()
