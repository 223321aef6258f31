from __future__ import annotations

import json
import os
import random
from pathlib import Path

import pytest

from aii.sinks import files
from aii.sinks.files import CallFolder, RotatingFile, file_stem, open_new
from aii.sinks.jsonl import JsonlSink
from aii.streaming.events import CallEnded, CallStarted, Final, Partial

DAY = 86_400.0
NOON = 1_700_000_000.0


class Clock:
    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(
    "call_id, stem",
    [
        ("call-42", "call-42"),
        ("1700000000.123", "1700000000.123"),
        ("../../etc/passwd", "%2E.%2F..%2Fetc%2Fpasswd"),
        (".hidden", "%2Ehidden"),
        ("a/b\\c:d*e", "a%2Fb%5Cc%3Ad%2Ae"),
        ("grüße", "gr%C3%BC%C3%9Fe"),
        ("a\0b\nc", "a%00b%0Ac"),
        ("", "call"),
    ],
)
def test_call_ids_as_file_names(call_id: str, stem: str):
    assert file_stem(call_id) == stem


def test_long_call_ids_are_cut_and_stay_apart():
    one, other = file_stem("x" * 500), file_stem("x" * 501)
    assert one != other
    assert len(one) < 150


def test_a_name_that_is_taken_gets_a_number(tmp_path):
    for name in ("a.wav", "a~2.wav", "a~3.wav"):
        path, file = open_new(tmp_path, "a", "wav")
        file.close()
        assert path.name == name


def lines_of(folder: Path) -> list[str]:
    return [line for path in sorted(folder.iterdir()) for line in path.read_text().splitlines()]


def write(output, data: bytes) -> None:
    while data:
        data = data[output.write(data) :]


def test_a_file_is_put_aside_when_it_is_large(tmp_path):
    clock = Clock()
    output = RotatingFile(tmp_path / "calls.jsonl", rotate=100, clock=clock)
    for number in range(30):
        clock.now += 1
        write(output, f"line {number:04}\n".encode() * 2)
    output.close()
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names[-1] == "calls.jsonl"
    assert len(names) == 6
    assert all(name.startswith("calls.2023-11-14T") for name in names[:-1])
    assert all(path.stat().st_size <= 100 for path in tmp_path.iterdir())
    order = [
        *sorted(p for p in tmp_path.iterdir() if p.name != "calls.jsonl"),
        tmp_path / "calls.jsonl",
    ]
    lines = [line for path in order for line in path.read_text().splitlines()]
    assert lines == [f"line {n:04}" for n in range(30) for _ in (0, 1)]


def test_many_lines_at_once_are_spread_over_files_and_a_long_one_stays_whole(tmp_path):
    output = RotatingFile(tmp_path / "f", rotate=50)
    write(output, b"".join(b"%03d %s\n" % (n, b"x" * 9) for n in range(20)) + b"y" * 200 + b"\nz\n")
    output.close()
    lines = lines_of(tmp_path)
    assert sorted(lines)[:20] == [f"{n:03} xxxxxxxxx" for n in range(20)]
    assert "y" * 200 in lines
    assert "z" in lines


def test_only_so_many_files_are_kept(tmp_path):
    clock = Clock()
    (tmp_path / "calls.other.jsonl").write_text("not ours")
    output = RotatingFile(tmp_path / "calls.jsonl", rotate=10, keep=2, clock=clock)
    for number in range(6):
        clock.now += number % 2  # some in the same second
        write(output, b"line %04d\n" % number)
    output.close()
    names = sorted(path.name for path in tmp_path.iterdir())
    assert len(names) == 4
    assert "calls.other.jsonl" in names
    left = "".join(path.read_text() for path in tmp_path.iterdir() if "other" not in path.name)
    assert sorted(left.split()[1::2]) == ["0003", "0004", "0005"]


def test_a_file_is_put_aside_when_a_day_is_over(tmp_path):
    clock = Clock()
    path = tmp_path / "calls.jsonl"
    output = RotatingFile(path, rotate="day", clock=clock)
    write(output, b"one\n")
    write(output, b"two\n")
    assert len(list(tmp_path.iterdir())) == 1
    clock.now += DAY
    write(output, b"three\n")
    output.close()
    assert path.read_text() == "three\n"
    os.utime(path, (NOON, NOON))  # it is found again by a later process
    clock.now = NOON + 2 * DAY
    output = RotatingFile(path, rotate="day", clock=clock)
    write(output, b"four\n")
    output.close()
    assert path.read_text() == "four\n"
    assert len(list(tmp_path.iterdir())) == 3


def test_a_file_that_was_moved_away_is_opened_anew(tmp_path):
    path = tmp_path / "calls.jsonl"
    output = RotatingFile(path)
    write(output, b"one\n")
    path.rename(tmp_path / "calls.jsonl.1")
    write(output, b"two\n")
    assert path.read_text() == "two\n"
    path.unlink()
    write(output, b"three\n")
    assert path.read_text() == "three\n"
    output.close()


def test_a_line_is_never_torn_by_a_disk_that_takes_half(tmp_path, monkeypatch):
    output = RotatingFile(tmp_path / "f", rotate=30)
    chance = random.Random(1)

    class Half:
        def __init__(self, file) -> None:
            self._file = file

        def write(self, data: bytes) -> int:
            return self._file.write(data[: chance.randint(1, 7)])

        def __getattr__(self, name: str):
            return getattr(self._file, name)

    opened = output._open

    def reopen() -> None:
        opened()
        output._file = Half(output._file)  # type: ignore[assignment]

    monkeypatch.setattr(output, "_open", reopen)
    output.close()
    reopen()
    write(output, b"".join(b"line %04d\n" % n for n in range(20)))
    output.close()
    assert sorted(lines_of(tmp_path)) == [f"line {n:04}" for n in range(20)]


def test_a_folder_that_forbids_renaming_costs_no_line(tmp_path, monkeypatch, caplog):
    output = RotatingFile(tmp_path / "f", rotate=10)
    monkeypatch.setattr(
        files.os, "rename", lambda *args: (_ for _ in ()).throw(PermissionError(1, "no"))
    )
    write(output, b"line 0001\nline 0002\nline 0003\n")
    output.close()
    assert len((tmp_path / "f").read_text().splitlines()) == 3
    assert caplog.text.count("cannot be put aside: no; it grows on") == 1


def call_events(call_id: str, text: str, leg: str = "") -> list:
    return [
        CallStarted(call_id, 1, leg=leg),
        Partial(call_id, 2, leg=leg),
        Final(call_id, 3, error=text, leg=leg),
        CallEnded(call_id, 4, "eof", leg=leg),
    ]


def test_a_file_per_call(tmp_path):
    sink = JsonlSink.to_folder(str(tmp_path / "calls"), partials=False)
    mixed = [event for pair in zip(call_events("a", "1"), call_events("b/c", "2"), strict=True)
             for event in pair]  # fmt: skip
    for event in mixed:
        sink.emit(event)
    for event in call_events("a", "again"):
        sink.emit(event)
    assert sink.close(10)
    names = sorted(path.name for path in (tmp_path / "calls").iterdir())
    assert names == ["a.jsonl", "a~2.jsonl", "b%2Fc.jsonl"]
    events = [json.loads(x) for x in (tmp_path / "calls" / "a~2.jsonl").read_text().splitlines()]
    assert [event["type"] for event in events] == ["started", "final", "ended"]
    assert events[1]["error"] == "again"


def test_legs_of_a_call_share_its_file(tmp_path):
    sink = JsonlSink.to_folder(str(tmp_path))
    one, other = call_events("a", "1", "caller"), call_events("a", "2", "callee")
    for event in [one[0], *other, *one[1:]]:
        sink.emit(event)
    assert sink.close(10)
    assert [path.name for path in tmp_path.iterdir()] == ["a.jsonl"]
    assert len(lines_of(tmp_path)) == 8


def test_a_folder_per_day(tmp_path):
    clock = Clock()
    output = CallFolder(tmp_path, daily=True, clock=clock)
    write(output, b"+\ta\tone\n")
    clock.now += DAY
    write(output, b"\ta\ttwo\n-\ta\tthree\n+\ta\tfour\n")
    found = {str(p.relative_to(tmp_path)): p.read_text() for p in tmp_path.rglob("*.jsonl")}
    assert found == {
        "2023-11-14/a.jsonl": "one\ntwo\nthree\n",
        "2023-11-15/a.jsonl": "four\n",
    }


def test_a_folder_goes_on_where_a_full_disk_stopped(tmp_path, monkeypatch):
    output = CallFolder(tmp_path)
    output.write(b"+\ta\tone\n")
    real, failing = open, [True]

    class Full:
        def __init__(self, *args, **kwargs) -> None:
            self._file = real(*args, **kwargs)

        def __enter__(self):
            return self

        def __exit__(self, *error) -> None:
            self._file.close()

        def write(self, data: bytes) -> int:
            return self._file.write(data[:2]) if failing[0] else self._file.write(data)

    monkeypatch.setattr(files, "open", Full, raising=False)
    with pytest.raises(OSError, match="half a line"):
        output.write(b"\ta\tlonger line\n")
    failing[0] = False
    assert output.write(b"\ta\tlonger line\nrest") == len(b"\ta\tlonger line\n")
    assert (tmp_path / "a.jsonl").read_text() == "one\nlonger line\n"


def test_calls_that_are_forgotten_go_on_in_a_new_file(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "OPEN_CALLS", 2)
    output = CallFolder(tmp_path)
    write(output, b"+\ta\t1\n+\tb\t1\n+\tc\t1\n\ta\t2\n")
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "a.jsonl",
        "a~2.jsonl",
        "b.jsonl",
        "c.jsonl",
    ]


def test_a_folder_that_cannot_be_written_is_told_at_once(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        JsonlSink.to_folder(str(tmp_path / "file" / "x"))
