"""aii.cli: the parser, exit codes, one-line errors and a quick start."""

from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from aii import cli
from aii.errors import ConfigError, DownloadError


def aii(*args: str, **more: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "aii", *args]
    return subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)


@pytest.fixture
def behave(monkeypatch: pytest.MonkeyPatch) -> Callable[[object], None]:
    """Make ``aii models`` do what the test wants."""

    def install(run: object) -> None:
        import aii.cli.models as module

        monkeypatch.setattr(module, "run", run)

    return install


def _raise(error: BaseException) -> Callable[[object], int]:
    def run(args: object) -> int:
        raise error

    return run


def test_help_names_every_command_and_loads_no_torch() -> None:
    probe = (
        "import sys; from aii.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "print('torch' in sys.modules, 'numpy' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", probe], capture_output=True, text=True, timeout=200, check=True
    )
    for name in cli.COMMANDS:
        assert f"\n    {name}" in done.stdout
    assert done.stdout.splitlines()[-1].startswith("False")


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_each_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        cli.main([command, "--help"])
    assert exit_.value.code == 0
    assert f"usage: aii {command}" in capsys.readouterr().out


def test_version_and_wrong_usage() -> None:
    assert aii("--version").stdout == f"aii {cli.version()}\n"
    wrong = aii("nonsense")
    assert wrong.returncode == 2
    assert "invalid choice: 'nonsense'" in wrong.stderr
    assert aii().returncode == 2


@pytest.mark.parametrize(
    "error, code, line",
    [
        (ConfigError("--port is 70000;\nat most 65535"), 2, "--port is 70000; at most 65535"),
        (DownloadError("no network"), 1, "no network"),
    ],
)
def test_errors_are_one_line_and_a_code(
    behave: Callable[[object], None],
    capsys: pytest.CaptureFixture[str],
    error: Exception,
    code: int,
    line: str,
) -> None:
    behave(_raise(error))
    assert cli.main(["models"]) == code
    assert capsys.readouterr() == ("", f"aii: error: {line}\n")


def test_interrupt(behave: Callable[[object], None], capsys: pytest.CaptureFixture[str]) -> None:
    behave(_raise(KeyboardInterrupt()))
    assert cli.main(["models"]) == 130
    assert capsys.readouterr().err == "aii: interrupted\n"


def test_the_result_is_the_exit_code(behave: Callable[[object], None]) -> None:
    behave(lambda args: 3)
    assert cli.main(["models"]) == 3


def test_bugs_are_not_hidden(behave: Callable[[object], None]) -> None:
    behave(_raise(ZeroDivisionError()))
    with pytest.raises(ZeroDivisionError):
        cli.main(["models"])


def test_warnings_are_one_line(
    behave: Callable[[object], None], capsys: pytest.CaptureFixture[str]
) -> None:
    def run(args: object) -> int:
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.warn("a file is odd", stacklevel=1)
        return 0

    behave(run)
    assert cli.main(["models"]) == 0
    assert capsys.readouterr().err == "aii: warning: a file is odd\n"


def test_a_reader_that_has_seen_enough() -> None:
    """``aii models | true``: no traceback, whether or not the pipe broke in time."""
    script = f"{sys.executable} -m aii models list | true; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, timeout=200, check=True
    )
    assert done.stdout.strip() in {"0", "1"}
    assert done.stderr == ""


def test_broken_pipe_is_code_one(
    behave: Callable[[object], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[int, int]] = []
    monkeypatch.setattr(cli.sys, "stdout", SimpleNamespace(fileno=lambda: 99))
    monkeypatch.setattr(cli.os, "dup2", lambda a, b: calls.append((a, b)))
    behave(_raise(BrokenPipeError()))
    assert cli.main(["models"]) == 1
    assert calls[0][1] == 99


def test_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise cli.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(cli.metadata, "version", missing)
    assert cli.version() == "0 (not installed)"


@pytest.mark.parametrize("argv", [["frob"], ["serve", "--bogus"], ["transcribe"], []])
def test_a_wrong_command_line_is_one_line(
    argv: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main(argv)
    assert stopped.value.code == 2
    out, err = capsys.readouterr()
    assert not out
    assert len(err.splitlines()) == 1
    assert err.startswith("aii: error: ")
    assert "--help" in err
