from __future__ import annotations

import argparse
import dataclasses

import pytest

from aii.config import ServerConfig
from aii.errors import ConfigError
from aii.protocols import FRAMINGS


def load(*argv: str, environ: dict[str, str] | None = None, **extra) -> ServerConfig:
    parser = argparse.ArgumentParser()
    ServerConfig.add_arguments(parser)
    return ServerConfig.load(vars(parser.parse_args(list(argv))), environ or {}, **extra)


def test_defaults_are_those_of_the_dataclass():
    config = load()
    assert config == ServerConfig()
    assert (config.host, config.port, config.window, config.reset_seconds) == (
        "127.0.0.1", 8300, 5.0, 30.0,
    )  # fmt: skip
    assert config.reply == "auto"


GOOD = {
    "host": ("::1", "::1"),
    "port": ("0", 0),
    "model": ("small", "small"),
    "device": ("cuda:1", "cuda:1"),
    "compute_type": ("int8", "int8"),
    "cuda_graphs": ("false", False),
    "language": ("German", "German"),
    "task": ("translate", "translate"),
    "window": ("2.5", 2.5),
    "reset_seconds": ("20", 20.0),
    "reset": ("hard", "hard"),
    "framing": ("cr641", "cr641"),
    "rate": ("8000", 8000),
    "reply": ("jsonl", "jsonl"),
    "audio_context": ("10", 10.0),
    "prompt": ("Ms. Nguyen", "Ms. Nguyen"),
    "condition_on_previous_text": ("No", False),
    "beam_size": ("5", 5),
    "temperature": ("0,0.4", (0.0, 0.4)),
    "words": ("all", "all"),
    "jsonl": ("-", "-"),
    "sink": ("jsonl:a.jsonl", ("jsonl:a.jsonl",)),
    "allow_sink": ("webhook:https://crm.example/", ("webhook:https://crm.example/",)),
    "spool": ("/var/spool/aii", "/var/spool/aii"),
    "redact": ("digits", "digits"),
    "redact_length": ("4", 4),
    "web": ("true", True),
    "web_port": ("0", 0),
    "web_host": ("0.0.0.0", "0.0.0.0"),
    "token": ("a-secret-token", "a-secret-token"),
    "tls_cert": ("cert.pem", "cert.pem"),
    "tls_key": ("key.pem", "key.pem"),
    "tls": ("web", "web"),
    "hosts": ("pbx.example.org, aii", ("pbx.example.org", "aii")),
    "origins": ("https://a.example, http://b:81", ("https://a.example", "http://b:81")),
    "trusted_proxies": ("10.0.0.0/8", ("10.0.0.0/8",)),
    "max_sessions": ("5", 5),
    "max_watchers": ("4", 4),
    "max_recordings": ("3", 3),
    "max_per_address": ("6", 6),
    "rate_limit": ("none", None),
    "session_seconds": ("60", 60.0),
    "max_message": ("0.5", 0.5),
    "max_upload": ("25", 25.0),
    "max_recording": ("600", 600.0),
    "slow_reader": ("5", 5.0),
    "ping": ("0", 0.0),
    "audiosocket_port": ("9092", 9092),
    "audiosocket_payload": ("slin16", "slin16"),
    "audiosocket_keepalive": ("1", 1.0),
    "policy": ("alignatt", "alignatt"),
    "agreement_step": ("2", 2.0),
    "alignatt_step": ("0.25", 0.25),
    "alignatt_threshold": ("20", 20),
    "alignatt_beams": ("5", 5),
    "guards": ("rate,loop", ("rate", "loop")),
    "drafts": ("no", False),
    "max_calls": ("7", 7),
    "when_full": ("refuse", "refuse"),
    "max_backlog": ("90", 90.0),
    "max_backlog_total": ("900", 900.0),
    "first_byte_timeout": ("0", 0.0),
    "idle_timeout": ("30", 30.0),
    "shutdown_deadline": ("3", 3.0),
    "objective": ("0.5", 0.5),
    "queue_size": ("9", 9),
    "threads": ("2", 2),
    "log_level": ("DEBUG", "debug"),
    "vad": ("energy", "energy"),
    "vad_threshold": ("0.6", 0.6),
    "vad_release": ("0.2", 0.2),
    "vad_gate": ("none", None),
    "min_silence": ("0.8", 0.8),
    "min_speech": ("0.1", 0.1),
    "backdate": ("0.2", 0.2),
    "speech_pad": ("0", 0.0),
    "keep": ("2", 2.0),
    "no_speech_timeout": ("0", 0.0),
    "longest_utterance": ("60", 60.0),
}


def test_the_table_of_good_values_is_complete():
    assert set(GOOD) == {field.name for field in dataclasses.fields(ServerConfig)}


@pytest.mark.parametrize("name", GOOD)
def test_flag_and_variable_give_the_same_value(name):
    text, value = GOOD[name]
    flag, variable = "--" + name.replace("_", "-"), "AII_" + name.upper()
    assert getattr(load(f"{flag}={text}"), name) == value
    assert getattr(load(environ={variable: text}), name) == value


def test_temperatures_may_be_left_to_the_model():
    assert load("--temperature=model").temperature == "model"
    assert load().temperature == "model"


BAD = {
    "port": ("70000", "-1", "http", "1.5"),
    "task": ("sing",),
    "window": ("0", "31", "nan", "x"),
    "reset_seconds": ("0", "31", "inf"),
    "framing": ("cr640",),
    "rate": ("44100", "8k"),
    "audio_context": ("half", "1", "99"),
    "condition_on_previous_text": ("maybe",),
    "beam_size": ("0", "x"),
    "temperature": ("hot", "0,,1", "3"),
    "max_calls": ("0",),
    "when_full": ("maybe",),
    "max_backlog": ("1",),
    "idle_timeout": ("3000000", "inf", "-1"),
    "first_byte_timeout": ("86401",),
    "device": ("tpu", "cuda:", "cuda:x"),
    "compute_type": ("int4", "fp32"),
    "cuda_graphs": ("maybe",),
    "web": ("maybe",),
    "web_port": ("-1", "some"),
    "token": ("short", "with space", "a" * 257),
    "hosts": ("http://aii", "aii:8000", "*"),
    "origins": ("example.org", "https://a.example/path", "ftp://a"),
    "trusted_proxies": ("proxy", "10.0.0.0/99"),
    "tls": ("udp",),
    "max_message": ("0", "x"),
    "log_level": ("loud",),
}


@pytest.mark.parametrize("name, text", [(n, t) for n, texts in BAD.items() for t in texts])
def test_a_bad_value_is_one_line_that_names_its_source(name, text):
    flag, variable = "--" + name.replace("_", "-"), "AII_" + name.upper()
    for source, call in (
        (flag, lambda: load(f"{flag}={text}")),
        (variable, lambda: load(environ={variable: text})),
    ):
        with pytest.raises(ConfigError) as info:
            call()
        line = str(info.value)
        shown = "no token" if name == "token" else repr(text)  # a secret is not told
        assert line.startswith(f"{source} is {shown}; wanted ")
        assert "\n" not in line


def test_what_may_be_given_several_times():
    two = ("console", "jsonl:my calls.jsonl")
    assert load("--sink", two[0], "--sink", two[1]).sink == two
    assert load(environ={"AII_SINK": "console 'jsonl:my calls.jsonl'"}).sink == two
    assert load("--sink", "none", environ={"AII_SINK": "console"}).sink == ("none",)
    assert load().sink == ()
    with pytest.raises(ConfigError, match="AII_SINK is"):
        load(environ={"AII_SINK": "console 'jsonl"})


def test_a_flag_goes_before_a_variable_and_a_variable_before_an_alias():
    environ = {"AII_MODEL": "base", "WHISPER_MODEL_PATH": "turbo.pt"}
    assert load("--model", "tiny", environ=environ).model == "tiny"
    assert load(environ=environ).model == "base"
    del environ["AII_MODEL"]
    assert load(environ=environ).model == "turbo.pt"


def test_the_older_names_of_variables():
    environ = {"WHISPER_LAN": "en", "WHISPER_LOG_LEVEL": "WARNING"}
    config = load(environ=environ)
    assert (config.language, config.log_level) == ("en", "warning")


def test_an_unknown_variable_is_an_error_with_a_guess():
    with pytest.raises(ConfigError, match=r"AII_MAX_CALL is unknown; did you mean AII_MAX_CALLS\?"):
        load(environ={"AII_MAX_CALL": "1"})
    with pytest.raises(ConfigError, match="AII_ZZZZZZ is unknown; unset it"):
        load(environ={"AII_ZZZZZZ": "1"})
    assert load(environ={"AII_CACHE": "x", "OTHER": "1"}, other_variables=["AII_CACHE"])


@pytest.mark.parametrize("name", GOOD)
@pytest.mark.parametrize("text", ["", "  "])
def test_an_empty_value_is_an_error_for_every_option(name, text):
    flag, variable = "--" + name.replace("_", "-"), "AII_" + name.upper()
    with pytest.raises(ConfigError, match=f"^{flag} is empty; give it a value or leave it out$"):
        load(f"{flag}={text}")
    with pytest.raises(ConfigError, match=f"^{variable} is empty; give it a value or unset it$"):
        load(environ={variable: text})


def test_a_far_guess_is_no_guess():
    for variable in ("AII_SECRET", "AII_WORKER", "AII_LANG"):
        with pytest.raises(ConfigError, match=f"{variable} is unknown; unset it$"):
            load(environ={variable: "1"})


def test_a_choice_that_is_nearly_right_gets_a_guess():
    with pytest.raises(ConfigError, match="did you mean jsonl"):
        load("--reply", "json")


def test_a_window_cannot_be_longer_than_the_reset():
    with pytest.raises(ConfigError, match="--window is 20 s, longer than --reset-seconds"):
        load("--window", "20", "--reset-seconds", "10")


def test_auto_and_none_stand_for_no_choice():
    config = load("--language", "auto", "--device", "auto", "--beam-size", "none")
    assert (config.language, config.device, config.beam_size) == (None, None, None)


def test_help_names_flag_default_and_variables():
    parser = argparse.ArgumentParser()
    ServerConfig.add_arguments(parser)
    text = " ".join(parser.format_help().split())
    assert "--max-backlog SECONDS" in text
    assert "(default: 8300; environment: AII_PORT)" in text
    assert "AII_LANGUAGE, WHISPER_LAN" in text
    assert "weights do best with (default: model; environment: AII_TEMPERATURE)" in text


def test_framings_are_those_that_the_protocols_know():
    for name in FRAMINGS:
        assert load("--framing", name).framing == name


def test_a_switch_needs_no_value():
    assert load("--web").web is True
    assert load("--web", "--port", "1").port == 1
    assert load("--web", "false").web is False
    assert load("--web", "auto").web is None


def test_whether_there_is_a_web_listener():
    for argv, by_command, by_script in (
        ((), None, False),  # None: if it is installed
        (("--web",), True, True),
        (("--web", "false"), False, False),
        (("--web-port", "9000"), True, True),
        (("--web-port", "none"), False, False),
    ):
        config = load(*argv)
        assert (config.wants_web(True), config.wants_web(False)) == (by_command, by_script)
    assert load().port_of_web == 8000
    assert load("--web-port", "9000").port_of_web == 9000


@pytest.mark.parametrize(
    "argv, said",
    [
        (("--web", "true", "--web-port", "none"), "contradict each other"),
    ],
)
def test_web_options_that_contradict_each_other(argv, said):
    with pytest.raises(ConfigError, match=said):
        load(*argv)


def test_sizes_are_given_in_megabytes():
    config = load("--max-message", "2", "--max-upload", "3")
    assert (config.max_message_bytes, config.max_upload_bytes) == (2 << 20, 3 << 20)


def test_either_listener_alone():
    assert load("--port", "none").port is None
    assert load("--port", "none", "--web").wants_web(False) is True
