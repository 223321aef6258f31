"""``aii models``: which models there are, fetching them, and checking their files."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from aii.download import file_sha256
from aii.errors import CheckpointError, InputError
from aii.hub import EMBEDDED, MODELS, cache_folder, local_file, resolve


def add_parser(subparsers: Any) -> None:
    """Add the command ``models`` with its actions."""
    parser = subparsers.add_parser(
        "models",
        help="list, download and verify models",
        description="Which models there are, which of them are on this machine, and where.",
    )
    parser.add_argument(
        "--model_dir",
        "--model-dir",
        metavar="DIR",
        help="folder of downloaded models (default: $XDG_CACHE_HOME/whisper or ~/.cache/whisper)",
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION")
    actions.add_parser("list", help="name, size, whether it is here, path (the default)")
    fetch = actions.add_parser("download", help="fetch published models; goes on where it stopped")
    fetch.add_argument("names", nargs="+", metavar="NAME", help="for example small, or turbo")
    verify = actions.add_parser("verify", help="check files by SHA-256, or a checkpoint by content")
    verify.add_argument("names", nargs="+", metavar="NAME|PATH")


def run(args: argparse.Namespace) -> int:
    """Do what ``args.action`` says."""
    if args.action == "download":
        for name in args.names:
            _require_published(name)
        for name in args.names:
            print(f"{name}: {resolve(name, args.model_dir)}")
        return 0
    if args.action == "verify":
        sound = [_report(name, args.model_dir) for name in args.names]
        return 0 if all(sound) else 2
    _list(args.model_dir)
    return 0


def _list(model_dir: str | None) -> None:
    row = "{:<16} {:>10} {:<10} {}"
    print(row.format("NAME", "WEIGHTS", "HERE", "PATH"))
    embedded = resolve(EMBEDDED)
    print(row.format(EMBEDDED, "built in", _megabytes(embedded), embedded))
    for name, model in MODELS.items():
        path = local_file(name, model_dir)
        here = _megabytes(path) if path.is_file() else "no"
        print(row.format(name, f"{model.parameters} M", here, path if path.is_file() else ""))


def _report(name: str, model_dir: str | None) -> bool:
    """Say whether one file is sound; a bad one does not keep the others from being looked at."""
    try:
        print(f"{name}: {_verify(name, model_dir)}", flush=True)
    except InputError as error:
        print(f"aii: error: {name}: {' '.join(str(error).split())}", file=sys.stderr)
        return False
    return True


def _verify(name: str, model_dir: str | None) -> str:
    """One line that says the file is sound.

    Raises:
        CheckpointError: it is not, or it is not here.
    """
    if name not in MODELS:
        from aii.checkpoints import describe, load_model  # torch, a second to import

        path = resolve(name)
        load_model(str(path), device="cpu")  # reads and checks every weight
        found = describe(path)
        return f"sound, {found.parameters / 1e6:.1f} M weights in {found.dtype}, {path}"
    path = local_file(name, model_dir)
    if not path.is_file():
        raise CheckpointError(
            f"{name} is not in {cache_folder(model_dir)}; run: aii models download {name}"
        )
    if file_sha256(path) != MODELS[name].sha256:
        raise CheckpointError(f"{path} has a wrong SHA-256; run: aii models download {name}")
    return f"sound, SHA-256 {MODELS[name].sha256[:16]}..., {path}"


def _require_published(name: str) -> None:
    if name not in MODELS:
        raise CheckpointError(f"{name} is not a published model; choose from {', '.join(MODELS)}")


def _megabytes(path: Path) -> str:
    return f"{path.stat().st_size / 1e6:.0f} MB"
