"""The SQLite file of a journal: whose it is, who has it open, and its records with checksums.

It has a write-ahead log. A transaction is in it whole or not at all, whenever the process is
killed; where the power fails the last ones may be missing, too. A record is a JSON text and raw
bytes, in pieces of at most 64 MiB.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hvp.errors import InputError
from hvp.resuming import encoding

# "hvpj", by which a file is known as a journal, at this place in the header of SQLite.
APPLICATION_ID, ID_PLACE, MAGIC = 0x6876706A, slice(68, 72), b"SQLite format 3\0"
FORMAT = "1"
MAX_PIECE = 64 << 20
# The log goes into the file, which waits for the disk, whenever it has so many bytes.
LOG_BYTES, PAGE_BYTES = 64 << 20, 4096
PRODUCTS, RESULTS = "products", "results"


class JournalError(InputError):
    """A journal that cannot be used.

    `reason` is "path" (no file can be written there), "no journal" (another file is there), "in
    use", "damaged", or "other" (it is of other work).
    """

    def __init__(self, reason: str, expected: str, got: str, remedy: str):
        super().__init__(expected, got, remedy)
        self.reason = reason


class DamagedRecordError(Exception):
    """A record whose bytes are not those that were written."""


class JournalFile:
    """An open journal, which no other process can open.

    Args:
        path: of the file; it is made where there is none.
        owner: what tells the work from other work, by name.
        fresh: whether to empty a journal, be it damaged or of other work.

    Raises:
        JournalError: for each of its reasons. What is at `path` is then as it was.
    """

    def __init__(self, path: Path, owner: Mapping[str, str], *, fresh: bool = False):
        self.path = path
        _check_file(path)
        try:
            self._open(owner, fresh)
        except sqlite3.Error as error:
            self.close()
            if not (fresh and _is_damage(error)):
                raise self._error(error) from error
            for each in files(path):
                each.unlink(missing_ok=True)
            self._open(owner, fresh)
        except BaseException:
            self.close()
            raise

    def _open(self, owner: Mapping[str, str], fresh: bool) -> None:
        self._connection = sqlite3.connect(
            self.path, timeout=0, isolation_level=None, check_same_thread=False
        )
        run = self._connection.execute
        run("PRAGMA locking_mode = EXCLUSIVE")
        run(f"PRAGMA page_size = {PAGE_BYTES}")
        # Debian's SQLite overwrites with zeros what is deleted.
        run("PRAGMA secure_delete = OFF")
        owner = {"format": FORMAT, **owner}
        with self._transaction():
            if not run("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                run(f"PRAGMA application_id = {APPLICATION_ID}")
                run("CREATE TABLE owner (name TEXT PRIMARY KEY, value TEXT)")
                for table in (PRODUCTS, RESULTS):
                    columns = "id INTEGER PRIMARY KEY, name BLOB, text TEXT, data BLOB, crc INTEGER"
                    run(f"CREATE TABLE {table} ({columns})")
            found = dict(run("SELECT name, value FROM owner"))
            if fresh or not found:
                for table in ("owner", PRODUCTS, RESULTS):
                    run(f"DELETE FROM {table}")
                run_many = self._connection.executemany
                run_many("INSERT INTO owner VALUES (?, ?)", owner.items())
            elif found != owner:
                names = sorted(n for n in {*found, *owner} if found.get(n) != owner.get(n))
                got = f"{str(self.path)!r}, of other {' and '.join(names)}"
                remedy = "choose another path, or pass fresh=True to empty it"
                raise JournalError("other", "a journal of this work", got, remedy)
        run("PRAGMA journal_mode = WAL")
        run("PRAGMA synchronous = NORMAL")
        run(f"PRAGMA wal_autocheckpoint = {LOG_BYTES // PAGE_BYTES}")
        self._ids = {
            table: {bytes(name): id for id, name in run(_NAMES.format(table))}
            for table in (PRODUCTS, RESULTS)
        }
        self._next = {
            table: 1 + (run(f"SELECT max(id) FROM {table}").fetchone()[0] or 0)
            for table in (PRODUCTS, RESULTS)
        }
        self._forgotten: set[tuple[str, bytes]] = set()
        self.num_bytes = self._count_bytes()

    def names(self, table: str) -> Mapping[bytes, int]:
        """The names of the records of a table, in order."""
        return self._ids[table]

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        """A block whose changes are made whole or not at all."""
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise

    def put(
        self,
        table: str,
        name: bytes,
        text: str,
        arrays: Sequence[memoryview],
        *,
        instead_of_products: bool = False,
    ) -> None:
        """Write a record in place of one of the same name, if any.

        With `instead_of_products` all products are deleted in the same step.
        """
        first = self._next[table]
        pieces = list(_pieces(arrays)) or [memoryview(b"")]
        run = self._connection.execute
        with self._transaction():
            if name in self._ids[table] or (table, name) in self._forgotten:
                run(f"DELETE FROM {table} WHERE name = ?", (name,))
            for i, piece in enumerate(pieces):
                row = (first + i, name, None if i else text, piece)
                run(f"INSERT INTO {table} VALUES (?, ?, ?, ?, ?)", (*row, _checksum(*row)))
            if instead_of_products:
                run(f"DELETE FROM {PRODUCTS}")
        self._ids[table][name] = first
        self._next[table] = first + len(pieces)
        self.num_bytes += sum(piece.nbytes for piece in pieces)
        if instead_of_products:
            self._ids[PRODUCTS].clear()
            self.num_bytes = self._count_bytes()

    def clear(self) -> None:
        """Delete all records."""
        with self._transaction():
            for table in (PRODUCTS, RESULTS):
                self._connection.execute(f"DELETE FROM {table}")
                self._ids[table].clear()
        self.num_bytes = 0

    def read(self, table: str, name: bytes, classes: encoding.Classes) -> Any:
        """The value of a record. Raises DamagedRecordError."""
        first = self._ids[table][name]
        try:
            text = self._piece(table, first, name)[0]
            next_id = first

            def fill(target: memoryview) -> None:
                nonlocal next_id
                for piece in _pieces([target]):
                    data = self._piece(table, next_id, name)[1]
                    if len(data) != piece.nbytes:
                        raise DamagedRecordError
                    piece[:] = data
                    next_id += 1

            return encoding.decode(text, fill, classes)
        except (sqlite3.DatabaseError, ValueError, TypeError, KeyError) as error:
            raise DamagedRecordError from error

    def _piece(self, table: str, id: int, name: bytes) -> tuple[str, bytes]:
        query = f"SELECT name, text, data, crc FROM {table} WHERE id = ?"
        found = self._connection.execute(query, (id,)).fetchone()
        if found is None or found[0] != name or _checksum(id, *found[:3]) != found[3]:
            raise DamagedRecordError
        return found[1], found[2]

    def forget(self, table: str, name: bytes) -> None:
        """Leave a record out of what is found, such as a damaged one, until it is written anew."""
        del self._ids[table][name]
        self._forgotten.add((table, name))

    def _count_bytes(self) -> int:
        query = "SELECT coalesce(sum(length(data)), 0) FROM {}"
        found = [self._connection.execute(query.format(table)) for table in (PRODUCTS, RESULTS)]
        return sum(each.fetchone()[0] for each in found)

    def close(self) -> None:
        """Close the file. Later calls do nothing."""
        with contextlib.suppress(AttributeError):
            self._connection.close()

    def _error(self, error: sqlite3.Error) -> JournalError:
        """The error of opening, in words."""
        name = repr(str(self.path))
        if _code(error) in ("SQLITE_BUSY", "SQLITE_LOCKED"):
            got = f"{name}, which another process has open"
            return JournalError("in use", "a journal of one process", got, "wait for it to end")
        if _is_damage(error):
            remedy = "remove it, or pass fresh=True to begin anew"
            return JournalError("damaged", "a whole journal", f"{name}: {error}", remedy)
        got = f"{name}: {error}"
        return JournalError("path", "a file that can be written", got, "choose another path")


_NAMES = "SELECT min(id), name FROM {} GROUP BY name ORDER BY min(id)"


def files(path: Path) -> tuple[Path, ...]:
    """The file of a journal, and those that SQLite has beside it."""
    return tuple(path.with_name(path.name + end) for end in ("-wal", "-shm", "-journal", ""))


def _check_file(path: Path) -> None:
    """Raise JournalError where no journal can be, without touching what is there."""
    expected, remedy = "the path of a journal, or of no file", "choose another path"
    name = repr(str(path))
    if path.is_dir():
        raise JournalError("path", expected, f"{name}, a directory", remedy)
    if not path.parent.is_dir():
        raise JournalError("path", expected, f"{name}, in no directory", remedy)
    try:
        if not os.access(path if path.exists() else path.parent, os.W_OK):
            raise PermissionError(None, "cannot be written to")
        header = b""
        if path.exists():
            with path.open("rb") as file:
                header = file.read(ID_PLACE.stop)
    except OSError as error:
        got = f"{name}: {error.strerror or error}"
        raise JournalError("path", "a file that can be written", got, remedy) from error
    is_journal = header.startswith(MAGIC) and int.from_bytes(header[ID_PLACE]) == APPLICATION_ID
    if header and not is_journal:
        raise JournalError("no journal", expected, f"{name}, another file", remedy)


def _code(error: sqlite3.Error) -> str:
    """SQLite's name of an error, without what follows the main one."""
    return "_".join(getattr(error, "sqlite_errorname", "").split("_")[:2])


def _is_damage(error: sqlite3.Error) -> bool:
    return _code(error) in ("SQLITE_CORRUPT", "SQLITE_NOTADB") or "no such" in str(error)


def _pieces(arrays: Sequence[memoryview]) -> Iterator[memoryview]:
    for array in arrays:
        for start in range(0, max(array.nbytes, 1), MAX_PIECE):
            yield array[start : start + MAX_PIECE]


def _checksum(id: int, name: bytes, text: str | None, data: Any) -> int:
    return zlib.crc32(data, zlib.crc32(repr((id, name, text)).encode()))
