"""Fetch the data tables that every Whisper checkpoint depends on, out of OpenAI's package.

Writes ``gpt2.tiktoken``, ``multilingual.tiktoken`` and ``english_spellings.json`` to ``assets/``,
from the wheel or source archive of ``openai-whisper`` (MIT licence; see ``assets/NOTICE``). Only
these three members are read; nothing of the package is run. A table whose SHA-256 is not the one
stated here is refused.

    python scripts/fetch_vocabularies.py [--from ARCHIVE_OR_FOLDER] [--output FOLDER] [--check]

Without ``--from`` the tables come from the installed package if there is one, else pip downloads
the package into a temporary folder. ``--check`` only verifies the files that are there.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath

PACKAGE = "openai-whisper==20250625"
ASSETS = Path(__file__).resolve().parent.parent / "assets"

TABLES = {
    "gpt2.tiktoken": (
        "whisper/assets/gpt2.tiktoken",
        "306cd27f03c1a714eca7108e03d66b7dc042abe8c258b44c199a7ed9838dd930",
    ),
    "multilingual.tiktoken": (
        "whisper/assets/multilingual.tiktoken",
        "b34b360dbb493e781e479794586d661700670d65564001f23024971d1f2fa126",
    ),
    "english_spellings.json": (
        "whisper/normalizers/english.json",
        "6607f948be9824d2e1b2fa2223cd94c06c45afa4e05ea0e3d5e1f2bdffde2465",
    ),
}
"""Name here -> (path inside the package, SHA-256)."""


class FetchError(Exception):
    """A table is missing or not what it should be."""


def verify(name: str, data: bytes) -> bytes:
    """``data`` if it is the table ``name``, byte for byte; else FetchError."""
    found = hashlib.sha256(data).hexdigest()
    if found != TABLES[name][1]:
        raise FetchError(f"{name} has SHA-256 {found}, expected {TABLES[name][1]}")
    return data


def reader(source: Path) -> Callable[[str], bytes]:
    """A function that reads a member of ``source``: a folder, a wheel, or a source archive."""
    if source.is_dir():
        return lambda member: (source / member).read_bytes()
    if zipfile.is_zipfile(source):
        return lambda member: zipfile.ZipFile(source).read(member)

    def from_tar(member: str) -> bytes:
        with tarfile.open(source) as archive:
            for entry in archive:
                # The first part of the path is the archive's own folder.
                if entry.isfile() and PurePosixPath(*PurePosixPath(entry.name).parts[1:]) == (
                    PurePosixPath(member)
                ):
                    data = archive.extractfile(entry)
                    return data.read() if data else b""
        raise FetchError(f"{source.name} has no {member}")

    return from_tar


def copy_tables(source: Path, output: Path) -> None:
    """Write every table from ``source`` to ``output``, all verified before the first is written."""
    read = reader(source)
    tables = {name: verify(name, read(member)) for name, (member, _) in TABLES.items()}
    output.mkdir(parents=True, exist_ok=True)
    for name, data in tables.items():
        (output / name).write_bytes(data)
        print(f"wrote {output / name} ({len(data)} bytes)")


def installed_package() -> Path | None:
    """The folder that holds the installed package ``whisper``, found without importing it."""
    spec = importlib.util.find_spec("whisper")
    return Path(spec.origin).parent.parent if spec and spec.origin else None


def download(folder: Path) -> Path:
    """Have pip download the package, without its dependencies, into ``folder``."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    # A source archive is built just to read its metadata; that needs no package installed here.
    subprocess.run([*command, "--dest", str(folder), PACKAGE], check=True)
    return next(path for path in folder.iterdir() if path.suffix in (".whl", ".gz"))


def main(arguments: Sequence[str] | None = None) -> int:
    """Fetch or check the tables; 0 if all are right."""
    parser = argparse.ArgumentParser(description="Fetch Whisper's vocabularies into assets/.")
    parser.add_argument("--from", dest="source", type=Path, help="wheel, source archive or folder")
    parser.add_argument("--output", type=Path, default=ASSETS, help="folder to write to")
    parser.add_argument("--check", action="store_true", help="only verify what is there")
    options = parser.parse_args(arguments)
    try:
        if options.check:
            for name in TABLES:
                verify(name, (options.output / name).read_bytes())
                print(f"{name}: right")
        elif source := options.source or installed_package():
            copy_tables(source, options.output)
        else:
            with tempfile.TemporaryDirectory() as folder:
                copy_tables(download(Path(folder)), options.output)
    except (
        FetchError,
        OSError,
        KeyError,
        tarfile.TarError,
        subprocess.CalledProcessError,
    ) as error:
        print(f"fetch_vocabularies: error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
