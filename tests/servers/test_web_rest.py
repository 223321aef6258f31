"""OpenAI's REST interface, asked by OpenAI's own client."""

from __future__ import annotations

import contextlib
import gc
import http.client
import io
import json
import shutil
import subprocess
import threading
import warnings
import wave
import weakref

import numpy as np
import pytest
from fake_engine import speech, spoken
from server_rig import WAIT, wait_until
from web_rig import WebRig, call_beside, refused

from aii.audio.files import load_slin

openai = pytest.importorskip("openai")

SPOKEN = speech(70, seed=3, longest=2.0)


@pytest.fixture(scope="module")
def rig():
    with WebRig(token="a-token-of-ours") as rig:
        yield rig


def client_of(rig: WebRig, key: str = "a-token-of-ours"):
    return openai.OpenAI(api_key=key, base_url=rig.url + "/v1", max_retries=0, timeout=WAIT)


@pytest.fixture(scope="module")
def client(rig):
    with client_of(rig) as client:
        yield client


def wav(samples: np.ndarray) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(16_000)
        writer.writeframes(samples.astype("<i2").tobytes())
    return file.getvalue()


FILE = ("talk.wav", wav(SPOKEN))


def ask(client, file=FILE, **options):
    return client.audio.transcriptions.create(model="whisper-1", file=file, **options)


def test_json(client):
    found = ask(client)
    assert found.text.split() == spoken(SPOKEN).split()
    assert found.usage.type == "duration"
    assert found.usage.seconds == 70


def test_text(client):
    assert ask(client, response_format="text").split() == spoken(SPOKEN).split()


def test_srt_and_vtt(client):
    srt, vtt = (ask(client, response_format=kind) for kind in ("srt", "vtt"))
    assert srt.startswith("1\n00:00:00,000 --> 00:00:")
    assert vtt.startswith("WEBVTT\n\n00:00.000 --> 00:")
    for text in (srt, vtt):
        lines = [line for line in text.splitlines() if line.startswith("w")]
        assert lines == spoken(SPOKEN).split()


def test_verbose_json_has_segments_and_words(client):
    found = ask(
        client,
        response_format="verbose_json",
        timestamp_granularities=["word", "segment"],
        language="en",
    )
    assert found.duration == 70.0
    assert found.language == "english"
    words = spoken(SPOKEN).split()
    assert [segment.text.strip() for segment in found.segments] == words
    assert [word.word for word in found.words] == words
    assert [segment.id for segment in found.segments] == list(range(len(words)))
    ends = [segment.end for segment in found.segments]
    assert ends == sorted(ends)
    assert ends[-1] <= 70
    assert found.segments[-1].seek > 3000  # it is of a later window
    assert found.segments[0].avg_logprob <= 0
    assert found.words[3].start == found.segments[3].start


@pytest.mark.parametrize("granularity", ["word", "segment"])
def test_granularities_say_what_is_wanted(client, granularity):
    found = ask(
        client, response_format="verbose_json", timestamp_granularities=[granularity]
    ).to_dict()
    assert ("words" in found) == (granularity == "word")
    assert ("segments" in found) == (granularity == "segment")


def test_a_stream_comes_in_pieces(client):
    text, done = "", None
    for event in ask(client, stream=True):
        assert done is None
        if event.type == "transcript.text.delta":
            text += event.delta
        else:
            done = event
    assert done.type == "transcript.text.done"
    assert done.text == text
    assert text.split() == spoken(SPOKEN).split()


def test_what_is_asked_for_reaches_the_engine():
    with WebRig() as rig, client_of(rig) as client:
        ask(client, language="de", prompt="Meier, Fritz!Box", temperature=0.4)
        request = rig.engine.requests[0]
        assert request.language == "de"
        assert request.options["temperatures"] == (0.4,)
        assert "Fritz!Box" in str(request.options["initial_prompt"])
        with warnings.catch_warnings():  # the client says that it will drop translations
            warnings.simplefilter("ignore", DeprecationWarning)
            client.audio.translations.create(model="fake", file=FILE)
        assert rig.engine.requests[-1].task == "translate"
        assert rig.listener.ended(2)[0].reason == "eof"  # a recording is a call like others


def test_live_calls_go_before_recordings():
    with WebRig() as rig, client_of(rig) as client, call_beside(rig):
        ask(client)
        requests = list(rig.engine.requests)
        first = next(r for r in requests if r.call_id == "beside")
        later = [r for r in requests if r.call_id != "beside"]
        assert all(r.deadline > first.deadline + 5 for r in later)


@pytest.mark.parametrize(
    "options, param, said",
    [
        ({"response_format": "xml"}, "response_format", "response_format is 'xml'"),
        ({"language": "klingon"}, "language", "klingon"),
        ({"temperature": 3}, "temperature", "temperature is a number from 0 to 1"),
        (
            {"timestamp_granularities": ["word"]},
            "timestamp_granularities[]",
            "need response_format verbose_json",
        ),
        (
            {"response_format": "vtt", "timestamp_granularities": ["word", "segment"]},
            "timestamp_granularities[]",
            "need response_format verbose_json",
        ),
        ({"response_format": "srt", "stream": True}, "response_format", "a stream has response_f"),
        ({"file": ("a.wav", b"")}, "file", "a.wav is empty"),
        ({"file": ("a.wav", b"words, no audio")}, "file", "cannot decode a.wav"),
        ({"file": ("a.mp3", b"no sound at all")}, "file", "cannot decode a.mp3"),
        ({"file": ("a.m3u8", b"#EXTM3U\nfile:///etc/passwd\n")}, "file", "cannot decode a.m3u8"),
    ],
)
def test_what_makes_no_sense_is_told(client, options, param, said):
    with pytest.raises(openai.APIStatusError) as info:
        ask(client, **options)
    assert info.value.status_code == 400
    assert said in info.value.message
    assert info.value.param == param
    assert "/tmp" not in info.value.message


def test_a_model_that_is_not_in_service_is_not_found(client):
    with pytest.raises(openai.NotFoundError) as info:
        client.audio.transcriptions.create(model="large-v9", file=FILE)
    assert info.value.code == "model_not_found"
    assert "fake is" in info.value.message
    assert [model.id for model in client.models.list()] == ["fake", "whisper-1"]
    assert client.models.retrieve("whisper-1").owned_by == "aii"


def test_without_a_file_it_is_told_what_is_missing(rig):
    answer = rig.ask("POST", "/v1/audio/transcriptions?token=a-token-of-ours", b"")
    assert answer.status == 400
    assert json.loads(answer.content)["error"]["message"] == "file: Field required"


def test_a_wrong_key_is_refused(rig):
    with client_of(rig, "wrong") as client, pytest.raises(openai.AuthenticationError) as info:
        ask(client)
    assert (info.value.type, info.value.code) == ("invalid_request_error", "invalid_api_key")


def test_a_recording_that_is_too_long_is_refused():
    said = pytest.raises(openai.BadRequestError, match="longer than 60 s; send it in parts")
    with WebRig(max_recording=60.0) as rig, client_of(rig) as client, said:
        ask(client)


def test_a_window_that_fails_fails_the_request():
    with WebRig() as rig, client_of(rig) as client:
        rig.engine.gate.clear()
        found: list = []
        thread = threading.Thread(target=lambda: found.append(failure(client)))
        thread.start()
        wait_until(lambda: len(rig.engine.requests) > 0)
        rig.engine.broken.add(rig.engine.requests[0].call_id)
        rig.engine.gate.set()
        thread.join(WAIT)
    assert found[0].status_code == 503
    assert "could not be decoded: the decoder broke" in found[0].message


def failure(client):
    try:
        return ask(client)
    except openai.APIStatusError as error:
        return error


@pytest.mark.parametrize("kind", ["json", "text", "srt", "vtt", "verbose_json"])
def test_a_recording_of_a_moment(client, kind):
    found = ask(client, file=("a.slin", bytes(1600)), response_format=kind)
    assert getattr(found, "text", found).strip() in ("", "WEBVTT")


@pytest.fixture
def read(monkeypatch):
    """The samples of recordings that were read, as long as anybody holds them; nobody collects."""
    found = []

    def load(*args, **options):
        samples = load_slin(*args, **options)
        found.append(weakref.ref(samples))
        return samples

    monkeypatch.setattr("aii.servers.web.rest.load_slin", load)
    gc.collect()
    gc.disable()
    yield found
    gc.enable()


@pytest.mark.parametrize("stream", [False, True])
def test_what_was_sent_is_gone_with_its_answer(client, read, stream):
    """Its space on the disk is free again, whenever Python comes to collect its garbage."""
    found = ask(client, stream=stream)
    assert (list(found)[-1] if stream else found).text
    wait_until(lambda: [samples() for samples in read] == [None])


@pytest.mark.parametrize("stream", [b"false", b"true"])
def test_a_client_that_leaves_takes_its_work_along(stream, caplog):
    """It is its own decision, and no trouble of the server's."""
    with WebRig() as rig:
        rig.engine.gate.clear()
        part = b'--b\r\nContent-Disposition: form-data; name="%b"%b\r\n\r\n%b\r\n'
        body = part % (b"file", b'; filename="talk.wav"', FILE[1]) + part % (b"model", b"", b"fake")
        body += part % (b"stream", b"", stream)
        client = http.client.HTTPConnection(*rig.address, timeout=WAIT)
        with contextlib.closing(client):
            kind = {"Content-Type": "multipart/form-data; boundary=b"}
            client.request("POST", "/v1/audio/transcriptions", body + b"--b--\r\n", kind)
            wait_until(lambda: rig.engine.requests)  # its work is under way
        (end,) = rig.listener.ended()
        assert end.reason == "left"
        assert rig.engine.cancelled == [end.call_id]
        rig.engine.gate.set()
        wait_until(lambda: rig.web.recordings == len(rig.web.hearing) == 0)
        assert rig.services.budget.total == 0
    assert not [r.getMessage() for r in caplog.records if r.levelname == "ERROR"]


def test_a_missing_file_is_named_as_the_parameter():
    with WebRig() as rig:
        answer = rig.ask("POST", "/v1/audio/transcriptions")
        assert answer.status == 400
        assert json.loads(answer.content)["error"]["param"] == "file"


def test_only_so_many_recordings_are_in_work_at_once():
    with WebRig(max_recordings=1, max_sessions=1) as rig, client_of(rig) as client:
        rig.engine.gate.clear()
        found: list = []
        thread = threading.Thread(target=lambda: found.append(ask(client)))
        thread.start()
        wait_until(lambda: rig.engine.requests)
        with pytest.raises(openai.InternalServerError) as info:
            ask(client)
        assert info.value.status_code == 503
        assert info.value.response.headers["Retry-After"] == "10"
        assert info.value.type == "server_error"
        assert "too many recordings are in work; try again later" in info.value.message
        with rig.ws("/ws"):
            wait_until(lambda: rig.web.sessions == 1)  # a recording takes no call's place
        rig.engine.gate.set()
        thread.join(WAIT)
        assert found[0].text.split() == spoken(SPOKEN).split()
        wait_until(lambda: rig.web.recordings == 0)  # its file is closed behind the answer
        assert ask(client).text == found[0].text
        assert refused(rig)["recordings"] == 1


LOSSY = {
    "mp3": [],
    "mp4": ["-c:a", "aac"],
    "mpeg": ["-f", "mp3"],
    "mpga": ["-f", "mp3"],
    "m4a": [],
    "ogg": [],
    "opus": ["-c:a", "libopus"],
    "webm": ["-c:a", "libopus"],
}
"""The kinds of files that OpenAI's reference names, and what ffmpeg is told to write them."""


@pytest.mark.skipif(not shutil.which("ffmpeg"), reason="ffmpeg is not installed")
def test_every_kind_of_file_that_openai_takes(tmp_path):
    """The sound that reaches the engine is the one that was sent, whatever its file is."""
    tone = np.sin(2 * np.pi * 440 * np.arange(3 * 16_000) / 16_000)
    source = tmp_path / "tone.wav"
    source.write_bytes(wav(tone * 12_000))
    with WebRig() as rig, client_of(rig) as client:
        for kind, told in {**LOSSY, "flac": [], "wav": []}.items():
            path = tmp_path / f"sent.{kind}"
            command = ["ffmpeg", "-loglevel", "error", "-y", "-i", str(source), *told, str(path)]
            subprocess.run(command, check=True, timeout=WAIT)
            with path.open("rb") as file:
                found = client.audio.transcriptions.create(model="whisper-1", file=file)
            assert found.usage.seconds in (3, 4), kind  # some codecs pad
            heard = rig.engine.requests[-1].audio
            strength = np.abs(np.fft.rfft(heard))
            peak = np.argmax(strength) * 16_000 / len(heard)
            assert peak == pytest.approx(440, abs=1), kind
            assert np.sqrt(np.mean(heard**2)) == pytest.approx(0.26, abs=0.03), kind
