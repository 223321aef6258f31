"""The rules of the house: sizes, the way of imports, and documents that tell the truth."""

from __future__ import annotations

import argparse
import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from aii.cli import build_parser

ROOT = Path(__file__).resolve().parent.parent
MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60
SKIPPED = {"build", "dist", "__pycache__"}
LIGHT = (
    "aii.cli",
    "aii.client",
    "aii.config",
    "aii.audio.pcm",
    "aii.audio.files",
    "aii.engine.api",
    "aii.hub",
    "aii.protocols",
    "aii.servers.tcp",
    "aii.sinks.jsonl",
    "aii.streaming.session",
    "aii.tokenizer",
    "aii.writers",
)


def python_files() -> list[Path]:
    """Every Python file of the project, relative to its root."""
    found = (path.relative_to(ROOT) for path in ROOT.rglob("*.py"))
    return sorted(
        path
        for path in found
        if not any(part in SKIPPED or part.startswith(".") for part in path.parts)
    )


def functions(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Name and number of lines, decorators not counted, of each function."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            yield node.name, node.end_lineno - node.lineno + 1


def test_there_is_something_to_check() -> None:
    assert {Path("aii_server.py"), Path("aii/model.py")} <= set(python_files())


@pytest.mark.parametrize("path", python_files(), ids=str)
def test_sizes(path: Path) -> None:
    text = (ROOT / path).read_text("utf-8")
    assert len(text.splitlines()) < MAX_FILE_LINES
    long = [f for f in functions(ast.parse(text)) if f[1] >= MAX_FUNCTION_LINES]
    assert long == []


@pytest.mark.parametrize(
    "path", [p for p in python_files() if p.parts[0] in ("aii", "scripts", "training")], ids=str
)
def test_every_module_says_what_it_is(path: Path) -> None:
    assert ast.get_docstring(ast.parse((ROOT / path).read_text("utf-8")))


def test_imports_go_one_way() -> None:
    lint = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run(
        [str(lint), "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


def test_light_modules_do_not_load_torch() -> None:
    for module in LIGHT:
        probe = f"import sys, {module}; print('torch' in sys.modules)"
        done = subprocess.run(
            [sys.executable, "-c", probe], cwd=ROOT, capture_output=True, text=True, check=True
        )
        assert done.stdout.strip() == "False", module


def test_the_server_script_only_starts_the_command() -> None:
    tree = ast.parse((ROOT / "aii_server.py").read_text("utf-8"))
    imported = {n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    assert imported <= {"__future__", "aii.cli.serve"}


def named_in_the_tree() -> list[Path]:
    """The paths that the tree names; a folder stands at its name, files are indented."""
    block = (ROOT / "docs/tree.md").read_text("utf-8").split("```")[1]
    paths: list[Path] = []
    folders: list[str] = []
    for line in block.splitlines()[1:]:
        name = re.match(r"( *)(\S+)", line)
        if name is None:
            continue
        depth = len(name[1]) // 2
        folders[depth:] = [name[2]]
        paths.append(Path(*folders[: depth + 1]))
    return paths


def test_the_tree_in_the_documents_is_the_tree() -> None:
    named = named_in_the_tree()
    assert len(named) == len(set(named))
    missing = [str(path) for path in named if not (ROOT / path).exists()]
    assert missing == [], "named in docs/tree.md, but not there"
    wanted = {p for p in python_files() if p.parts[0] in ("aii", "scripts")}
    wanted -= {p for p in wanted if p.name == "__init__.py" and p.parent != Path("aii/cli")}
    unnamed = sorted(str(path) for path in wanted - set(named))
    assert unnamed == [], "there, but not named in docs/tree.md"


DOCUMENTS = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"]
DOCUMENTS += [f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_documents_name_files_that_exist(document: str) -> None:
    text = (ROOT / document).read_text("utf-8")
    named = re.findall(r"`((?:aii|assets|tests|scripts|training|\.ci)/[\w./-]*)`", text)
    assert [name for name in named if not (ROOT / name).exists()] == []
    folder = (ROOT / document).parent
    linked = re.findall(r"\]\((?!https?:|#)([^)#]+)", text)
    assert [name for name in linked if not (folder / name).exists()] == []
    headings = [
        re.sub(r"[^\w -]", "", line.lower()).strip() for line in re.findall(r"(?m)^#+ (.+)$", text)
    ]
    anchors = set(re.findall(r"\]\(#([^)]+)\)", text))
    assert anchors <= {heading.replace(" ", "-") for heading in headings}


def test_the_readme_leads_to_every_document() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    linked = set(re.findall(r"\]\(([^)#]+)\)", text))
    assert {name for name in DOCUMENTS if name.startswith("docs/")} <= linked
    first_screen = text.splitlines()[:22]
    assert any(line.startswith("make demo") for line in first_screen)
    assert any(line.startswith("nc -N 127.0.0.1 8300 <") for line in first_screen)


def test_flags_in_the_readme_exist() -> None:
    """Each ``--flag`` that the documents name is a flag of one of our commands."""
    known = {"--help", "--version", "--extra-index-url"}
    for parser in subparsers(build_parser()):
        known |= {flag for action in parser._actions for flag in action.option_strings}
    text = "".join((ROOT / name).read_text("utf-8") for name in ["README.md", *DOCUMENTS[3:]])
    assert {
        flag for flag in re.findall(r"(?<![\w-])--[a-z][\w-]+", text) if flag not in known
    } == set()


def subparsers(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """The parser and, below it, those of its commands."""
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                yield from subparsers(below)


def test_python_in_the_readme_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    text = (ROOT / "README.md").read_text("utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(blocks) == 1
    names: dict[str, object] = {}
    exec(compile(blocks[0], "README.md", "exec"), names)  # noqa: S102
    assert isinstance(names["result"], dict)
    assert set(names["result"]) == {"text", "segments", "language"}
