"""``aii transcribe``: recordings to text, with the options of the ``whisper`` command."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from aii.errors import AiiError, ConfigError, InputError
from aii.hub import EMBEDDED
from aii.languages import language_code

if TYPE_CHECKING:
    from aii.model import Whisper

FORMATS = ("txt", "vtt", "srt", "tsv", "json", "all")
_DESCRIPTION = """\
Write down what is said in recordings: WAV and raw SLIN directly, anything else through ffmpeg.

By default the text goes to standard output, a line for each segment. With --output_format or
--output_dir, files are written instead, named like the recordings, and the segments are printed
with their times as they come (--verbose False: not printed).
"""
_EPILOG = """\
The options are those of OpenAI's whisper command; each may be spelled with hyphens, too. What
differs unless it is asked for: text goes to standard output, the model is the small one that comes
with aii, the audio context is the model's, and decoding is the server's, so that a file and a call
give the same words: greedy, one candidate (OpenAI's default: --beam_size 5 --best_of 5), and drawn
from a fixed seed (--seed None: at random).
An option that may be None takes that word. Exit code 0: all files done; 2: a file or option is bad
(the other files are done); 1: something of ours failed.
"""


def _truth(text: str) -> bool:
    try:
        return {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}[
            text.lower()
        ]
    except KeyError:
        raise argparse.ArgumentTypeError(f"expected True or False, not {text!r}") from None


def _optional(kind: Callable[[str], Any]) -> Callable[[str], Any]:
    def parse(text: str) -> Any:
        return None if text == "None" else kind(text)

    parse.__name__ = kind.__name__  # argparse shows it: "invalid int value"
    return parse


def _increment(text: str) -> float | str | None:
    return "model" if text == "model" else _optional(float)(text)


_increment.__name__ = "float"


def _language(text: str) -> str | None:
    try:
        return None if text == "None" else language_code(text)
    except InputError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _truth_or_model(text: str) -> bool | str:
    return text if text == "model" else _truth(text)


class _Option(NamedTuple):
    """One option: its name in Python and, with hyphens as well, on the command line."""

    name: str
    kind: Callable[[str], Any]
    default: Any
    help: str
    choices: tuple[str, ...] | None = None


_MODEL = (
    _Option("model", str, EMBEDDED, "name (see aii models) or path of a model"),
    _Option("model_dir", str, None, "folder of downloaded models (default: ~/.cache/whisper)"),
    _Option("device", str, None, "where to compute (default: cuda if there is one, else cpu)"),
    _Option("threads", _optional(int), 0, "CPU threads; 0 leaves it to PyTorch"),
    _Option("fp16", _truth, None, "compute in half precision (default: True except on a CPU)"),
    _Option(
        "audio_context",
        str,
        "model",
        "how much the encoder sees: full (30 s, exact), auto (what is there), seconds, or model: "
        "what the weights were trained for",
    ),
)
_OUTPUT = (
    _Option("output_dir", str, None, "folder for files (default, with --output_format: here)"),
    _Option("output_format", str, None, "format of files (with --output_dir: all)", FORMATS),
    _Option("verbose", _truth, None, "print segments as they come (True) or progress (False)"),
    _Option("word_timestamps", _truth, False, "find out when each word is spoken"),
    _Option("prepend_punctuations", str, "\"'“¿([{-", "marks that belong to the next word"),
    _Option(
        "append_punctuations",
        str,
        "\"'.。,，!！?？:：”)]}、",
        "marks that belong to the word before",
    ),
    _Option("highlight_words", _truth, False, "underline each word in srt and vtt as it is spoken"),
    _Option("max_line_width", _optional(int), None, "characters in a line of a subtitle"),
    _Option("max_line_count", _optional(int), None, "lines in a subtitle"),
    _Option("max_words_per_line", _optional(int), None, "words in a subtitle"),
)
_WHAT = (
    _Option("task", str, "transcribe", "or into English", ("transcribe", "translate")),
    _Option("language", _language, None, "code or name of the language (default: detect it)"),
    _Option("initial_prompt", str, None, "text to begin with as prompt: names, spelling, style"),
    _Option("carry_initial_prompt", _truth, False, "put it before every window's prompt"),
    _Option(
        "condition_on_previous_text",
        _truth_or_model,
        "model",
        "prompt each window with the text so far; model: as its notes say",
    ),
    _Option("clip_timestamps", str, "0", "parts to transcribe: start,end,start,end,... (seconds)"),
)
_HOW = (
    _Option("temperature", float, 0.0, "sampling temperature to begin with"),
    _Option(
        "temperature_increment_on_fallback",
        _increment,
        "model",
        "how much hotter to try again, up to 1, when text looks wrong; None: do not; model: "
        "0.2, or None where the weights ask for that",
    ),
    _Option("best_of", _optional(int), None, "candidates at temperatures above 0; None is one"),
    _Option("beam_size", _optional(int), None, "beams at temperature 0; None is greedy"),
    _Option("patience", _optional(float), None, "beams to wait for, times beam_size"),
    _Option("seed", _optional(int), 0, "where drawing at temperatures above 0 begins"),
    _Option("length_penalty", _optional(float), None, "0 to 1; None divides by the length"),
    _Option("suppress_tokens", str, "-1", "tokens never to write; -1: those that are no speech"),
    _Option(
        "compression_ratio_threshold",
        _optional(float),
        2.4,
        "text that is more repetitive looks wrong",
    ),
    _Option("logprob_threshold", _optional(float), -1.0, "less likely text looks wrong"),
    _Option(
        "no_speech_threshold",
        _optional(float),
        0.6,
        "above it, if the text looks wrong too, nobody speaks",
    ),
    _Option(
        "hallucination_silence_threshold",
        _optional(float),
        None,
        "with word times: leave out what seems invented in longer silences (seconds)",
    ),
)
_WHISPERS = (
    *("--model", "turbo", "--output_format", "all", "--verbose", "True", "--audio_context", "full"),
    *("--beam_size", "5", "--best_of", "5", "--temperature_increment_on_fallback", "0.2"),
    *("--seed", "None", "--condition_on_previous_text", "True"),
)
_LAYOUT = ("highlight_words", "max_line_width", "max_line_count", "max_words_per_line")
_SHORT = {"output_dir": ("-o",), "output_format": ("-f",)}
_GROUPS = {"model": _MODEL, "output": _OUTPUT, "what is heard": _WHAT, "decoding": _HOW}
_NOT_DECODING = {*(o.name for o in _MODEL), "output_dir", "output_format", "verbose", *_LAYOUT}


def add_parser(subparsers: Any) -> None:
    """Add the command ``transcribe``."""
    parser = subparsers.add_parser(
        "transcribe",
        help="recordings to text",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("files", nargs="+", metavar="FILE", help="recordings")
    for title, options in _GROUPS.items():
        group = parser.add_argument_group(title)
        for option in options:
            spelling = f"--{option.name.replace('_', '-')}"
            settings: dict[str, Any] = {
                "dest": option.name,
                "type": option.kind,
                "choices": option.choices,
                "metavar": None if option.choices else _metavar(option),
            }
            shown = "" if option.default is None else f" (default: {option.default})"
            group.add_argument(
                f"--{option.name}",
                *_SHORT.get(option.name, ()),
                default=option.default,
                help=(option.help + shown).replace("%", "%%"),
                **settings,
            )
            if "_" in option.name:
                hidden = argparse.SUPPRESS
                group.add_argument(spelling, default=hidden, help=hidden, **settings)


def _metavar(option: _Option) -> str:
    kinds = {"_truth": "BOOL", "int": "N", "float": "NUMBER", "_language": "LANGUAGE"}
    names = {"model": "NAME", "model_dir": "DIR", "output_dir": "DIR", "device": "DEVICE"}
    return names.get(option.name) or kinds.get(option.kind.__name__, "TEXT")


def announce(name: str) -> None:
    """Say on standard error what the built-in model is good for, when it is the one chosen."""
    if name == EMBEDDED:
        print(
            "aii: the built-in model knows digits and telephone phrases only; for anything else "
            "choose one of OpenAI's: --model small",
            file=sys.stderr,
        )


def cli(arguments: Sequence[str] | None = None) -> None:
    """openai-whisper's command, with that one's defaults: files in every format, turbo, 5 beams.

    Args:
        arguments: those of the command line if None.

    Raises:
        SystemExit: always, with the exit code of ``aii transcribe``.
    """
    from aii.cli import main

    raise SystemExit(
        main(["transcribe", *_WHISPERS, *(sys.argv[1:] if arguments is None else arguments)])
    )


def run(args: argparse.Namespace) -> int:
    """Transcribe every file; a bad one does not keep the others from being done."""
    options = _options(args)
    to_files = args.output_dir is not None or args.output_format is not None
    from aii.checkpoints import load_model
    from aii.writers import get_writer

    folder = args.output_dir or "."
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot make the folder {folder}: {error.strerror}") from error
    _set_threads(args.threads)
    announce(args.model)
    model = load_model(args.model, device=args.device, download_root=args.model_dir)
    options.update(_for_model(model, args))
    writer = get_writer(args.output_format or "all", folder)
    layout = {name: getattr(args, name) for name in _LAYOUT}
    code = 0
    for path in args.files:
        try:
            if to_files:
                writer(_transcribe(model, path, options, args.verbose is not False), path, **layout)
            else:
                _to_stdout(model, path, options, args)
        except (AiiError, OSError) as error:
            if isinstance(error, BrokenPipeError):
                raise
            code = max(code, 2 if isinstance(error, InputError) else 1)
            line = " ".join(str(error).split())
            named = line if path in line else f"{path}: {line}"
            print(f"aii: error: {named}", file=sys.stderr)
    return code


def _transcribe(
    model: Whisper, path: str, options: dict[str, Any], verbose: bool
) -> dict[str, Any]:
    from aii.transcribe import transcribe

    return transcribe(model, path, verbose=verbose, **options)


def _to_stdout(
    model: Whisper, path: str, options: dict[str, Any], args: argparse.Namespace
) -> None:
    """Print the text; anything else that there is to say goes to standard error."""
    if args.verbose:
        _transcribe(model, path, options, True)
        return
    with contextlib.redirect_stdout(sys.stderr):
        result = _transcribe(model, path, options, False)
    if len(args.files) > 1:
        print(f"==> {path} <==")
    for segment in result["segments"]:
        if text := segment["text"].strip():
            print(text, flush=True)


def _options(args: argparse.Namespace) -> dict[str, Any]:
    """The keywords of ``transcribe`` that do not depend on the model."""
    names = [o.name for group in _GROUPS.values() for o in group if o.name not in _NOT_DECODING]
    options = {name: getattr(args, name) for name in names}
    increment = options.pop("temperature_increment_on_fallback")
    options["temperature"] = _temperatures(args.temperature, increment)
    if not args.word_timestamps and (given := [n for n in _LAYOUT if getattr(args, n)]):
        raise ConfigError(f"--{given[0]} needs --word_timestamps True")
    if args.max_line_count and not args.max_line_width:
        _warn("--max_line_count has no effect without --max_line_width")
    if args.max_words_per_line and args.max_line_width:
        _warn("--max_words_per_line has no effect with --max_line_width")
    return options


def _temperatures(first: float, increment: float | str | None) -> tuple[float, ...]:
    """``first`` and the hotter ones to fall back to, up to 1."""
    import numpy as np

    if increment == "model":
        increment = 0.2
    assert not isinstance(increment, str)
    if not 0 <= first < 100:
        raise ConfigError(f"--temperature must be 0 or more, such as 0.2, not {first}")
    if increment is None:
        return (first,)
    if not 0.001 <= increment <= 1:
        raise ConfigError(
            f"--temperature_increment_on_fallback must be 0.001 to 1 or None, not {increment}"
        )
    return tuple(float(t) for t in np.arange(first, 1.0 + 1e-6, increment)) or (first,)


def _for_model(model: Whisper, args: argparse.Namespace) -> dict[str, Any]:
    """The keywords of ``transcribe`` whose defaults are the model's to say."""
    from aii.fallback import default_condition, default_temperatures
    from aii.windows import default_audio_context, parse_audio_context

    if args.audio_context == "model":
        context = default_audio_context(model)
    else:
        context = parse_audio_context(args.audio_context)
    language = args.language or model.metadata.get("language")
    if not model.is_multilingual:
        if language not in (None, "en"):
            _warn(f"{args.model} knows English only; taking {language} for English")
        language = "en"
    half = model.device.type != "cpu" if args.fp16 is None else args.fp16
    found = {"audio_context": context, "language": language, "fp16": half}
    if args.temperature_increment_on_fallback == "model" and default_temperatures(model) == (0.0,):
        found["temperature"] = (args.temperature,)
    if args.condition_on_previous_text == "model":
        found["condition_on_previous_text"] = default_condition(model)
    return found


def _warn(line: str) -> None:
    print(f"aii: warning: {line}", file=sys.stderr)


def _set_threads(threads: int | None) -> None:
    if threads is not None and threads < 0:
        raise ConfigError(f"--threads must be 0 or more, not {threads}")
    if threads:
        import torch

        torch.set_num_threads(threads)
