"""The server's configuration: one frozen dataclass, each option written once.

From the one list of fields come the command-line flags (``--max-calls``) and the environment
variables (``AII_MAX_CALLS``). A flag goes before a variable, a variable before the default. Unknown
``AII_*`` variables are errors: a misspelt setting must not be silently without effect.
"""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aii.config.options import DAY, Option
from aii.config.options import context as _context
from aii.config.options import device as _device
from aii.config.options import did_you_mean as _did_you_mean
from aii.config.options import language as _language
from aii.config.options import number as _number
from aii.config.options import one_of as _one_of
from aii.config.options import option as _option
from aii.config.options import optional_whole as _optional_whole
from aii.config.options import rate as _rate
from aii.config.options import temperatures as _temperatures
from aii.config.options import truth as _truth
from aii.config.options import truth_or_model as _truth_or_model
from aii.config.options import whole as _whole
from aii.config.sinks import SinkOptions
from aii.config.streaming import StreamingOptions
from aii.config.telephony import TelephonyOptions
from aii.config.voice import VoiceOptions
from aii.config.web import WebOptions
from aii.errors import ConfigError

PREFIX = "AII_"


@dataclass(frozen=True)
class ServerConfig(StreamingOptions, VoiceOptions, TelephonyOptions, SinkOptions, WebOptions):
    """Everything that can be set about the server; built by :meth:`load`.

    Raises (from ``load``):
        ConfigError: a bad value, an unknown variable, or two options that contradict each other.
    """

    host: str = _option("127.0.0.1", "address to listen on", metavar="ADDRESS")
    port: int | None = _option(
        8300, "TCP port to listen on; 0 picks a free one, none means no TCP listener",
        _optional_whole(0, 65535),
    )  # fmt: skip
    model: str = _option(
        "embedded",
        "name of a model, path of a .pt file or of a Hugging Face folder",
        aliases=("WHISPER_MODEL_PATH",),
    )
    device: str | None = _option(None, "where torch computes: auto, cpu, cuda, cuda:1", _device)
    compute_type: str = _option(
        "auto",
        "what the model computes in: float32 (exact), bfloat16, float16 (GPU), int8 (CPU), or what "
        "suits the device",
        _one_of("auto", "float32", "bfloat16", "float16", "int8"),
    )
    cuda_graphs: bool = _option(
        True, "on a GPU, record the decoder's steps as CUDA graphs and replay them: true or false",
        _truth,
    )  # fmt: skip
    language: str | None = _option(
        None, "language spoken, as code or name; auto detects it", _language,
        aliases=("WHISPER_LAN",),
    )  # fmt: skip
    task: str = _option(
        "transcribe", "transcribe, or translate into English", _one_of("transcribe", "translate")
    )
    window: float = _option(
        5.0, "seconds of new audio after which a call's text is shown again",
        _number(0.5, 30), metavar="SECONDS",
    )  # fmt: skip
    reset_seconds: float = _option(
        30.0, "seconds of audio after which the text is final", _number(1, 30), metavar="SECONDS"
    )
    reset: str = _option(
        "carry",
        "at a reset, carry the audio after the last whole segment over, or cut hard",
        _one_of("carry", "hard"),
    )
    framing: str = _option(
        "auto", "how calls are framed on the wire",
        _one_of("auto", "raw", "callid", "cr641", "audiosocket"),
    )  # fmt: skip
    rate: int = _option(16000, "samples per second of raw input: 8000 or 16000", _rate)
    reply: str = _option(
        "auto",
        "what is written back on the call's socket: text lines or jsonl as they come; auto: "
        "the text once the client has half-closed; none",
        _one_of("auto", "none", "text", "jsonl"),
    )
    audio_context: str | float = _option(
        "model",
        "seconds that the encoder sees of a short window: full (exact), auto (what is there), "
        "a number, or model (what the weights were trained for)",
        _context,
    )
    prompt: str = _option("", "text that tells the model names and spellings to expect")
    condition_on_previous_text: bool | str = _option(
        "model", "give the model the text before a window: true, false, or model: as its notes say",
        _truth_or_model,
    )  # fmt: skip
    beam_size: int | None = _option(None, "beams; none is greedy", _optional_whole(1, 64))
    temperature: tuple[float, ...] | str = _option(
        "model", "sampling temperatures, tried in this order; model: what its weights do best with",
        _temperatures, metavar="LIST",
    )  # fmt: skip
    words: str = _option(
        "final", "which results carry times of words", _one_of("none", "final", "all")
    )
    max_calls: int = _option(500, "calls at once; further ones are refused", _whole(1, 100_000))
    when_full: str = _option(
        "accept", "what becomes of further calls while the machine answers more than one window in "
        "twenty later than --objective for want of time, or would with one call more: accept "
        "(late, but whole) or refuse",
        _one_of("accept", "refuse"),
    )  # fmt: skip
    max_backlog: float = _option(
        300.0, "seconds of audio that a call may be ahead of the engine before the server stops "
        "reading from it", _number(60, math.inf), metavar="SECONDS",
    )  # fmt: skip
    max_backlog_total: float = _option(
        7200.0, "the same of all calls together: above it, calls that hold more than one window "
        "are not read from", _number(60, math.inf), metavar="SECONDS",
    )  # fmt: skip
    first_byte_timeout: float = _option(
        60.0, "seconds after which a connection that has sent nothing is closed; 0 is never",
        _number(0, DAY), metavar="SECONDS",
    )  # fmt: skip
    idle_timeout: float = _option(
        0.0, "seconds without a byte after which a call is ended; 0 is never",
        _number(0, DAY), metavar="SECONDS",
    )  # fmt: skip
    shutdown_deadline: float = _option(
        20.0, "seconds for the last words of open calls when the server stops", _number(0, 3600),
        metavar="SECONDS",
    )  # fmt: skip
    objective: float = _option(
        1.0, "seconds within which a window should be answered", _number(0.01, 60),
        metavar="SECONDS",
    )  # fmt: skip
    queue_size: int = _option(1024, "windows that may wait for the engine", _whole(1, 1_000_000))
    threads: int = _option(0, "CPU threads of torch; 0 leaves it to torch", _whole(0, 1024))
    log_level: str = _option(
        "info", "least important messages to log",
        lambda text: _one_of("debug", "info", "warning", "error")(text.lower()),
        aliases=("WHISPER_LOG_LEVEL",),
    )  # fmt: skip

    @classmethod
    def options(cls) -> dict[str, Option]:
        """Each field's name and how it is written outside: our own, then those of the bases."""
        found = {item.name: item.metadata["option"] for item in dataclasses.fields(cls)}
        own = [name for name in inspect.get_annotations(cls) if name in found]
        return {name: found[name] for name in (*own, *(n for n in found if n not in own))}

    @classmethod
    def add_arguments(cls, parser: argparse.ArgumentParser) -> None:
        """Add one flag per option; values stay text until :meth:`load`."""
        defaults = cls()
        for name, option in cls.options().items():
            value: dict[str, Any] = {"nargs": "?", "const": "true"} if option.switch else {}
            if option.repeated:
                value["action"] = "append"
            parser.add_argument(
                _flag(name),
                dest=name,
                default=argparse.SUPPRESS,
                **value,
                metavar=option.metavar or name.upper(),
                help=f"{option.about} (default: {_show(getattr(defaults, name))}; "
                f"environment: {', '.join(_variables(name, option))})".replace("%", "%%"),
            )

    @classmethod
    def load(
        cls,
        flags: Mapping[str, Any],
        environ: Mapping[str, str],
        *,
        other_variables: Sequence[str] = (),
    ) -> ServerConfig:
        """The configuration from parsed flags (text by field name) and the environment.

        Args:
            flags: ``vars()`` of what argparse returned; names that are no option are ignored.
            environ: as ``os.environ``.
            other_variables: further ``AII_*`` variables that mean something to other parts.
        """
        options = cls.options()
        _refuse_unknown(environ, options, other_variables)
        values: dict[str, Any] = {}
        for name, option in options.items():
            found = [v for v in _variables(name, option) if v in environ]
            if option.repeated and name in flags:
                values[name] = tuple(_parsed(_flag(name), text, option) for text in flags[name])
            elif option.repeated and found:
                values[name] = _listed(found[0], environ[found[0]], option)
            elif name in flags:
                values[name] = _parsed(_flag(name), str(flags[name]), option)
            elif found:
                values[name] = _parsed(found[0], environ[found[0]], option)
        config = cls(**values)
        config.check_web()
        if config.window > config.reset_seconds:
            raise ConfigError(
                f"--window is {config.window:g} s, longer than --reset-seconds "
                f"({config.reset_seconds:g} s); make it shorter"
            )
        return config


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _variables(name: str, option: Option) -> list[str]:
    return [PREFIX + name.upper(), *option.aliases]


def _show(value: Any) -> str:
    if isinstance(value, tuple):
        return ",".join(str(item) for item in map(_show, value)) or "none"
    if isinstance(value, float):
        return f"{value:g}"
    return {None: "none", True: "true", False: "false", "": "none"}.get(value, str(value))


def _parsed(source: str, text: str, option: Option) -> Any:
    if not text.strip():
        way = "leave it out" if source.startswith("-") else "unset it"
        raise ConfigError(f"{source} is empty; give it a value or {way}")
    try:
        return option.parse(text.strip())
    except ValueError as problem:
        value = "no token" if option.secret else repr(text)
        raise ConfigError(f"{source} is {value}; {problem}") from None


def _listed(source: str, text: str, option: Option) -> tuple[Any, ...]:
    """The values of a variable that holds several."""
    try:
        words = shlex.split(text) or [""]
    except ValueError as problem:
        raise ConfigError(f"{source} is {text!r}; {problem}") from None
    return tuple(_parsed(source, word, option) for word in words)


def _refuse_unknown(
    environ: Mapping[str, str], options: Mapping[str, Option], others: Sequence[str]
) -> None:
    known = [PREFIX + name.upper() for name in options] + list(others)
    for variable in sorted(environ):
        if variable.startswith(PREFIX) and variable not in known:
            raise ConfigError(
                f"environment variable {variable} is unknown"
                f"{_did_you_mean(variable, known, PREFIX) or '; unset it'}"
            )
