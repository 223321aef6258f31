"""What is to be delivered, on disk until it is: a bounded queue that outlives the process.

One SQLite file per receiver. What is put in is on the disk when ``put`` returns (writes are
synchronous), and has an id that stays the same however often it is sent.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import logging
import os
import secrets
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

log = logging.getLogger(__name__)

LIMIT = 256 << 20
"""Bytes of what waits, as a rule: some 400 hours of speech with word times."""

OVERHEAD = 200
"""Bytes that an entry takes besides its body."""

_TABLES = """
CREATE TABLE IF NOT EXISTS deliveries (
    row INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL, call TEXT NOT NULL,
    droppable INTEGER NOT NULL, created REAL NOT NULL, body BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS parts (
    row INTEGER PRIMARY KEY AUTOINCREMENT, call TEXT NOT NULL, body BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS parts_of_call ON parts (call);
CREATE TABLE IF NOT EXISTS rejected (
    row INTEGER PRIMARY KEY, id TEXT NOT NULL, call TEXT NOT NULL, why TEXT NOT NULL,
    created REAL NOT NULL, body BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS notes (name TEXT PRIMARY KEY, value TEXT NOT NULL);
"""


@dataclass(frozen=True)
class Entry:
    """Something to be delivered for a call; ``droppable`` if the next one makes it needless."""

    call: str
    body: bytes
    droppable: bool = False

    @property
    def size(self) -> int:
        """Bytes that it counts for."""
        return len(self.body) + OVERHEAD


@dataclass(frozen=True)
class Stored:
    """A delivery that waits: its place, the id it is sent under, its call."""

    row: int
    id: str
    call: str
    body: bytes
    created: float


class Spool:
    """A queue on disk; from any thread.

    Args:
        folder: where the spools are; made if it is not there.
        name: the receiver, as for the log and to find the spool again.
        limit: bytes that may wait; see ``put``.

    Raises:
        OSError: the folder cannot be made or written.
    """

    def __init__(self, folder: str | Path, name: str, *, limit: int = LIMIT) -> None:
        self.folder, self._lock_file = _claim(Path(folder), name)
        self._limit = limit
        self._lock = threading.Lock()
        self._data = _opened(self.folder / "queue.sqlite")
        with self._data:
            self._data.execute("INSERT OR REPLACE INTO notes VALUES ('name', ?)", (name,))
        self._held = self._count()

    def _count(self) -> int:
        sums = (
            f"SELECT COALESCE(SUM(LENGTH(body) + {OVERHEAD}), 0) FROM {table}"
            for table in ("deliveries", "parts", "rejected")
        )
        return sum(self._data.execute(line).fetchone()[0] for line in sums)

    @property
    def held(self) -> int:
        """Bytes on disk."""
        return self._held

    def put(self, entries: Iterable[Entry]) -> tuple[list[tuple[int, Entry]], list[Entry]]:
        """Store entries in their order.

        Beyond ``limit`` droppable entries are refused first (at half of it), then all: what is
        stored stays, what is new is lost.

        Returns:
            Row and entry of those that are stored, and the entries that found no room.

        Raises:
            OSError: the disk took nothing; nothing is stored.
        """
        stored: list[tuple[int, Entry]] = []
        refused: list[Entry] = []
        now = time.time()
        with self._lock, self._transaction():
            held = self._held
            for entry in entries:
                limit = self._limit // 2 if entry.droppable else self._limit
                if held + entry.size > limit:
                    refused.append(entry)
                    continue
                values = (_new_id(), entry.call, int(entry.droppable), now, entry.body)
                done = self._data.execute(
                    "INSERT INTO deliveries (id, call, droppable, created, body) "
                    "VALUES (?, ?, ?, ?, ?)",
                    values,
                )
                stored.append((int(done.lastrowid or 0), entry))
                held += entry.size
        self._held = held
        return stored, refused

    def waiting(self) -> list[tuple[int, str, bool]]:
        """Row, call and whether it is droppable of all that waits, in order."""
        with self._lock:
            lines = self._data.execute("SELECT row, call, droppable FROM deliveries ORDER BY row")
            return [(row, call, bool(droppable)) for row, call, droppable in lines]

    def get(self, row: int) -> Stored | None:
        """A delivery, or None where it is gone."""
        with self._lock:
            found = self._data.execute(
                "SELECT row, id, call, body, created FROM deliveries WHERE row = ?", (row,)
            ).fetchone()
        return None if found is None else Stored(*found)

    def done(self, rows: Iterable[int]) -> None:
        """Forget deliveries.

        Raises:
            OSError: the disk took nothing; they are still there.
        """
        with self._lock, self._transaction():
            for row in rows:
                self._forget("deliveries", "row", row)
        self._held = max(self._held, 0)

    def reject(self, row: int, why: str) -> None:
        """Put a delivery aside that is never accepted; it is kept, but not sent again.

        What was put aside takes at most a quarter of the spool; beyond that the oldest goes.

        Raises:
            OSError: as for ``done``.
        """
        with self._lock, self._transaction():
            self._data.execute(
                "INSERT OR REPLACE INTO rejected "
                "SELECT row, id, call, ?, created, body FROM deliveries WHERE row = ?",
                (why, row),
            )
            self._data.execute("DELETE FROM deliveries WHERE row = ?", (row,))
            sizes = list(
                self._data.execute(
                    f"SELECT row, LENGTH(body) + {OVERHEAD} FROM rejected ORDER BY row DESC"
                )
            )
            total = 0
            for old, size in sizes:
                total += size
                if total > self._limit // 4:
                    self._forget("rejected", "row", old)

    def rejected(self) -> list[tuple[str, str]]:
        """Id and reason of what was put aside."""
        with self._lock:
            return list(self._data.execute("SELECT id, why FROM rejected ORDER BY row"))

    # -- what a delivery is made of ---------------------------------------------------------------

    def keep(self, entries: Iterable[Entry]) -> list[Entry]:
        """Store parts of calls that are delivered whole; those that found no room.

        Raises:
            OSError: as for ``put``.
        """
        refused = []
        with self._lock, self._transaction():
            held = self._held
            for entry in entries:
                if held + entry.size > self._limit:
                    refused.append(entry)
                    continue
                self._data.execute(
                    "INSERT INTO parts (call, body) VALUES (?, ?)", (entry.call, entry.body)
                )
                held += entry.size
        self._held = held
        return refused

    def parts(self, call: str) -> list[bytes]:
        """The parts of a call, in order."""
        with self._lock:
            lines = self._data.execute(
                "SELECT body FROM parts WHERE call = ? ORDER BY row", (call,)
            )
            return [body for (body,) in lines]

    def calls(self) -> list[str]:
        """The calls that have parts."""
        with self._lock:
            lines = self._data.execute("SELECT call FROM parts GROUP BY call ORDER BY MIN(row)")
            return [call for (call,) in lines]

    def join(self, entry: Entry) -> int:
        """Store a delivery in place of its call's parts; it always has room. The row.

        Raises:
            OSError: as for ``put``.
        """
        with self._lock, self._transaction():
            self._forget("parts", "call", entry.call)
            done = self._data.execute(
                "INSERT INTO deliveries (id, call, droppable, created, body) "
                "VALUES (?, ?, 0, ?, ?)",
                (_new_id(), entry.call, time.time(), entry.body),
            )
            self._held += entry.size
        return int(done.lastrowid or 0)

    def _forget(self, table: str, column: str, value: object) -> None:
        size = self._data.execute(
            f"SELECT COALESCE(SUM(LENGTH(body) + {OVERHEAD}), 0) FROM {table} WHERE {column} = ?",
            (value,),
        ).fetchone()[0]
        self._data.execute(f"DELETE FROM {table} WHERE {column} = ?", (value,))
        self._held -= size

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        """All or nothing; whatever SQLite says is an OSError."""
        before = self._held
        try:
            with self._data:
                yield
        except sqlite3.Error as error:
            self._held = before
            raise OSError(f"{self.folder}: {error}") from error

    def close(self) -> None:
        """Let go of the file; what waits stays in it. A second time changes nothing."""
        with self._lock:
            self._data.close()
            if self._lock_file >= 0:
                os.close(self._lock_file)
            self._lock_file = -1


def _new_id() -> str:
    return "evt_" + secrets.token_hex(12)


def folder_name(name: str) -> str:
    """The folder of the spool of this receiver."""
    return "webhook-" + hashlib.sha256(name.encode()).hexdigest()[:16]


def left_behind(folder: str | Path) -> list[str]:
    """The names of receivers for whom something waits in spools that no process has open."""
    found = []
    for path in sorted(Path(folder).glob("webhook-*")):
        lock = _locked(path)
        if lock is None:
            continue
        try:
            with contextlib.closing(_opened(path / "queue.sqlite")) as data:
                name = data.execute("SELECT value FROM notes WHERE name = 'name'").fetchone()
                waits = data.execute(
                    "SELECT EXISTS(SELECT 1 FROM deliveries) OR EXISTS(SELECT 1 FROM parts)"
                ).fetchone()[0]
            if name and waits and name[0] not in found:
                found.append(name[0])
        finally:
            os.close(lock)
    return found


def _claim(folder: Path, name: str) -> tuple[Path, int]:
    """The spool folder of ``name`` that no other process has, and its lock."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    for number in range(1, 1000):
        path = folder / (folder_name(name) + (f".{number}" if number > 1 else ""))
        path.mkdir(exist_ok=True, mode=0o700)
        lock = _locked(path)
        if lock is not None:
            return path, lock
    raise OSError(f"all spools for {name} in {folder} are in use")


def _locked(path: Path) -> int | None:
    """The descriptor of a lock on the folder, or None where somebody has it."""
    lock = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        return None
    return lock


def _opened(path: Path) -> sqlite3.Connection:
    """The database; one that is damaged is put aside, for a new one can be filled at once.

    Raises:
        OSError: it can be neither read nor made.
    """
    for attempt in (1, 2):
        data = None
        try:
            data = sqlite3.connect(path, check_same_thread=False, timeout=5.0)
            data.execute("PRAGMA auto_vacuum = FULL")
            data.execute("PRAGMA journal_mode = WAL")
            data.execute("PRAGMA synchronous = FULL")
            data.executescript(_TABLES)
            return data
        except sqlite3.DatabaseError as error:
            if data is not None:
                data.close()
            if attempt == 2 or isinstance(error, sqlite3.OperationalError):
                raise OSError(f"{path}: {error}") from error
            aside = path.with_name(f"damaged-{int(time.time())}.sqlite")
            log.error("%s is damaged (%s); it is put aside as %s", path, error, aside.name)
            os.replace(path, aside)
    raise AssertionError("unreachable")
