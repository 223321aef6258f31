from __future__ import annotations

import random
import sqlite3

import pytest

from aii.sinks import spool as module
from aii.sinks.schedule import Schedule
from aii.sinks.spool import OVERHEAD, Entry, Spool, folder_name, left_behind


def entries(*names: str) -> list[Entry]:
    return [Entry(name[0], name.encode()) for name in names]


def test_what_is_put_in_is_there_for_the_next_process(tmp_path):
    spool = Spool(tmp_path, "r")
    stored, refused = spool.put(entries("a1", "b1", "a2"))
    assert refused == []
    before = [spool.get(row) for row, _ in stored]
    spool.done([stored[1][0]])
    spool.close()
    spool = Spool(tmp_path, "r")
    after = [spool.get(row) for row, _, _ in spool.waiting()]
    assert after == [before[0], before[2]]
    assert [item.body for item in after if item] == [b"a1", b"a2"]
    assert len({item.id for item in before if item}) == 3
    assert spool.held == 2 * (2 + OVERHEAD)
    assert spool.get(99) is None
    spool.close()


def test_beyond_its_limit_new_entries_are_refused_and_droppable_ones_first(tmp_path):
    size = 2 + OVERHEAD
    spool = Spool(tmp_path, "r", limit=4 * size)
    stored, refused = spool.put([Entry("a", b"p%d" % n, droppable=True) for n in range(4)])
    assert (len(stored), len(refused)) == (2, 2)
    stored, refused = spool.put(entries("f1", "f2", "f3"))
    assert [entry.body for entry in refused] == [b"f3"]
    spool.done([stored[0][0]])
    assert spool.put(entries("f4"))[1] == []
    assert spool.held == 4 * size
    spool.close()


def test_two_processes_have_spools_of_their_own(tmp_path):
    one, other = Spool(tmp_path, "r"), Spool(tmp_path, "r")
    assert one.folder != other.folder
    other.put(entries("a1"))
    assert left_behind(tmp_path) == []
    other.close()
    assert left_behind(tmp_path) == ["r"]
    one.close()
    assert left_behind(tmp_path / "no") == []


def test_what_is_rejected_is_kept_but_does_not_wait(tmp_path, monkeypatch):
    size = 2 + OVERHEAD
    spool = Spool(tmp_path, "r", limit=12 * size)
    stored, _ = spool.put(entries("a1", "a2", "a3", "a4", "a5"))
    for row, _ in stored[:4]:
        spool.reject(row, "400 Bad Request")
    assert [row for row, _, _ in spool.waiting()] == [stored[4][0]]
    assert [why for _, why in spool.rejected()] == ["400 Bad Request"] * 3  # a quarter of the spool
    assert spool.held == 4 * size
    spool.close()
    assert Spool(tmp_path, "r").held == 4 * size


def test_parts_become_one_delivery(tmp_path):
    spool = Spool(tmp_path, "r", limit=10_000)
    assert spool.keep(entries("a1", "b1", "a2")) == []
    assert spool.calls() == ["a", "b"]
    assert spool.parts("a") == [b"a1", b"a2"]
    row = spool.join(Entry("a", b"whole"))
    assert spool.calls() == ["b"]
    assert spool.get(row).body == b"whole"
    assert spool.held == 5 + 2 + 2 * OVERHEAD
    refused = spool.keep([Entry("c", b"x" * 20_000)])
    assert len(refused) == 1
    spool.close()


def test_a_damaged_file_is_put_aside(tmp_path, caplog):
    Spool(tmp_path, "r").close()
    path = tmp_path / folder_name("r") / "queue.sqlite"
    path.write_bytes(b"this is no database" * 100)
    spool = Spool(tmp_path, "r")
    spool.put(entries("a1"))
    spool.close()
    assert "is damaged" in caplog.text
    assert len(list(path.parent.glob("damaged-*.sqlite"))) == 1


def test_a_full_disk_is_an_error_that_changes_nothing(tmp_path):
    spool = Spool(tmp_path, "r")
    spool.put(entries("a1"))
    held = spool.held
    spool._data.execute("PRAGMA max_page_count = 1")
    with pytest.raises(OSError, match="full"):
        spool.put([Entry("a", b"x" * 100_000)])
    with pytest.raises(OSError, match="full"):
        spool.keep([Entry("a", b"x" * 100_000)])
    assert spool.held == held
    assert len(spool.waiting()) == 1
    spool._data.execute("PRAGMA max_page_count = 100000")
    spool.put(entries("a2"))
    assert len(spool.waiting()) == 2
    spool.close()


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        Spool(tmp_path / "file", "r")

    def broken(*args, **kwargs):
        raise sqlite3.OperationalError("unable to open database file")

    monkeypatch.setattr(module.sqlite3, "connect", broken)
    with pytest.raises(OSError, match="unable to open"):
        Spool(tmp_path / "other", "r")


def test_in_order_within_a_call_and_calls_beside_one_another():
    schedule = Schedule()
    for row, call in enumerate("aabca"):
        schedule.add(row, call)
    assert [schedule.take(0.0) for _ in range(4)] == [(0, "a"), (2, "b"), (3, "c"), None]
    schedule.done("b")
    assert schedule.take(0.0) is None
    schedule.done("a")
    assert schedule.take(0.0) == (1, "a")
    assert len(schedule) == 3


def test_a_call_that_waits_holds_up_no_other():
    schedule = Schedule()
    schedule.add(1, "a")
    schedule.add(2, "b")
    assert schedule.take(0.0) == (1, "a")
    assert schedule.wait("a", 5.0) == 1
    assert schedule.take(0.0) == (2, "b")
    schedule.done("b")
    assert schedule.take(4.9) is None
    assert schedule.next_at == 5.0
    assert schedule.take(5.0) == (1, "a")
    assert schedule.failures("a") == 1
    schedule.done("a")
    assert (len(schedule), schedule.next_at) == (0, None)
    schedule.add(3, "a")
    assert schedule.take(0.0) == (3, "a")
    assert schedule.failures("a") == 0


def test_what_is_overtaken_is_not_sent():
    schedule = Schedule()
    assert schedule.add(1, "a", droppable=True) == []
    assert schedule.take(0.0) == (1, "a")  # on its way
    assert schedule.add(2, "a", droppable=True) == []
    assert schedule.add(3, "a", droppable=True) == [2]
    assert schedule.add(4, "b", droppable=True) == []
    assert schedule.add(5, "a") == [3]
    schedule.done("a")
    assert schedule.take(0.0) == (4, "b")
    assert schedule.take(0.0) == (5, "a")
    assert len(schedule) == 2


@pytest.mark.parametrize("seed", range(20))
def test_nothing_is_lost_or_doubled_in_any_order_of_things(seed: int):
    chance, schedule = random.Random(seed), Schedule()
    added: dict[str, list[int]] = {}
    sent: dict[str, list[int]] = {}
    busy: list[tuple[int, str]] = []
    needless: set[int] = set()
    now, row = 0.0, 0
    while row < 200 or len(schedule):
        now += chance.random()
        if row < 200 and chance.random() < 0.6:
            row += 1
            call = chance.choice("abcde")
            added.setdefault(call, []).append(row)
            needless |= set(schedule.add(row, call, droppable=chance.random() < 0.3))
        if (taken := schedule.take(now)) is not None:
            assert taken[1] not in {call for _, call in busy}
            busy.append(taken)
        if busy and chance.random() < 0.7:
            place, call = busy.pop(chance.randrange(len(busy)))
            if chance.random() < 0.3:
                schedule.wait(call, now + chance.random() * 3)
            else:
                schedule.done(call)
                sent.setdefault(call, []).append(place)
    for call, rows in added.items():
        assert sent[call] == [n for n in rows if n not in needless]
