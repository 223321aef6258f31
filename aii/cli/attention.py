"""``aii attention``: a picture of what the decoder attends to."""

from __future__ import annotations

import argparse
from typing import Any


def add_parser(subparsers: Any) -> None:
    """Add the command ``attention``."""
    parser = subparsers.add_parser(
        "attention",
        help="draw where in the audio the model looks for each word",
        description="Transcribe up to 30 s of a recording and draw the decoder's cross-attention "
        "as a PNG picture: words down, seconds across. Needs matplotlib (the extra plot).",
    )
    add = parser.add_argument
    add("file", metavar="FILE", help="a recording, as for aii transcribe")
    add("--output", "-o", metavar="PNG", required=True, help="picture to write")
    add("--model", default="embedded", help="name or path of a model (default: embedded)")
    add("--model_dir", "--model-dir", metavar="DIR", help="folder of downloaded models")
    add("--device", help="where to compute (default: cuda if there is one, else cpu)")
    add("--language", help="code or name of the language spoken (default: detect it)")
    add(
        "--start",
        type=float,
        default=0.0,
        metavar="SECONDS",
        help="where in the recording to begin (default: 0)",
    )


def run(args: argparse.Namespace) -> int:
    """Draw the picture and say what is in it."""
    from aii.attention_plot import draw, word_attention
    from aii.checkpoints import load_model
    from aii.cli.transcribe import announce
    from aii.decoding import DecodingOptions
    from aii.windows import WindowOptions, default_audio_context

    announce(args.model)
    model = load_model(args.model, device=args.device, download_root=args.model_dir)
    language = args.language or model.metadata.get("language")
    options = WindowOptions(
        decoding=DecodingOptions(language=language, fp16=model.device.type != "cpu"),
        audio_context=default_audio_context(model),
    )
    attention = word_attention(model, args.file, options, start=args.start)
    width, height = draw(attention, args.output)
    print(f"{args.output}: {len(attention.words)} words, {width} x {height} pixels")
    return 0
