"""A journal of work: calls and their results are found again by content, stages by name."""

from __future__ import annotations

import os
import shutil
import sqlite3
import threading
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

from hvp.errors import InputError
from hvp.resuming import encoding
from hvp.resuming.journal_file import PRODUCTS, RESULTS, DamagedRecordError, JournalFile, files

Result = TypeVar("Result")
# A journal takes at most this share of what is free on its disk, if no limit is given.
DISK_SHARE = 0.25


class Journal:
    """Products and the results of stages, in a file that survives the process.

    A product is found by the digest of its input. One operator has one product with one vector, so
    it does not matter when the vector comes. What is in the file when the process is killed is
    found by the next one; the product in flight is not in it.

    Where something cannot be kept, since the disk or `max_bytes` is full, it is said once, and the
    work goes on without; what was kept stays. Records that are damaged are said, left out and
    computed anew.

    Attributes:
        path: of the file.
        num_found: the products that were there when it was opened.
        num_replayed: those of them that were used.

    Args:
        path: of the file, which is made where there is none.
        owner: what tells this work from other work, by name.
        max_bytes: of products and results; None for a quarter of what is free on the disk.
        fresh: whether to empty a journal that is there.
        classes: the dataclasses that results may consist of.
        say: what one line is said with; None for a warning.

    Raises:
        JournalError: the file cannot be used, see there.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        owner: Mapping[str, str],
        *,
        max_bytes: float | None = None,
        fresh: bool = False,
        classes: Iterable[type] = (),
        say: Callable[[str], None] | None = None,
    ):
        self.path = Path(path)
        if max_bytes is not None and not max_bytes >= 0:
            raise InputError("max_bytes of at least 0", max_bytes, "leave it out")
        self._say = say or (lambda line: warnings.warn(line, stacklevel=4))
        self._classes = encoding.known(classes)
        self._file = JournalFile(self.path, owner, fresh=fresh)
        self._max_bytes = (
            self._file.num_bytes + DISK_SHARE * shutil.disk_usage(self.path.parent).free
            if max_bytes is None
            else max_bytes
        )
        self._unused = set(self._file.names(PRODUCTS))
        self.num_found, self.num_replayed = len(self._unused), 0
        self._said: set[str] = set()
        self._is_writing = True
        self._lock, self._process = threading.RLock(), os.getpid()

    def call(self, name: str, arguments: Sequence[Any], compute: Callable[[], Result]) -> Result:
        """What `compute` returns, from the journal where this call is in it.

        Args:
            name: what is computed.
            arguments: arrays, numbers and texts that determine it, together with the owner.
            compute: returns numbers, arrays, or dataclasses of the journal's classes.
        """
        if os.getpid() != self._process:  # a fork must not touch the parent's connection
            return compute()
        with self._lock:
            key = encoding.digest(name, arguments)
            if key in self._file.names(PRODUCTS):
                try:
                    found = self._file.read(PRODUCTS, key, self._classes)
                except DamagedRecordError:
                    self._file.forget(PRODUCTS, key)
                    self._say_once("a product is damaged: it is computed anew")
                else:
                    self.num_replayed += key in self._unused
                    self._unused.discard(key)
                    return cast(Result, found)
            elif self._unused:
                self._say_once(
                    f"{len(self._unused):,} of {self.num_found:,} products are of another start or "
                    "another solver: they are not used"
                )
                self._unused.clear()
            value = cast(Result, encoding.settled(compute()))
            self._keep(PRODUCTS, key, value)
            return value

    def stage(self, name: str, compute: Callable[[], Result]) -> Result:
        """The result of a stage: from the journal, or by `compute`.

        When it is computed, it is kept, and all products are deleted, in one step. Where there is
        no room for it, the products stay.
        """
        if self.has(name):
            try:
                return cast(Result, self._file.read(RESULTS, name.encode(), self._classes))
            except DamagedRecordError:
                self._file.forget(RESULTS, name.encode())
                self._say_once(f"the result {name!r} is damaged: it is computed anew")
        value = cast(Result, encoding.settled(compute()))
        self.keep(name, value)
        return value

    def keep(self, name: str, value: Any) -> None:
        """Keep a result in place of an earlier one of this name, and of all products."""
        with self._lock:
            self._keep(RESULTS, name.encode(), value)

    def clear(self) -> None:
        """Delete all products and results."""
        with self._lock:
            self._file.clear()
            self._unused.clear()
            self.num_found = 0

    def has(self, name: str) -> bool:
        """Whether the result of a stage is there."""
        return name.encode() in self._file.names(RESULTS)

    @property
    def num_products(self) -> int:
        """The products that are there now."""
        return len(self._file.names(PRODUCTS))

    @property
    def stages(self) -> tuple[str, ...]:
        """The names of the stages that are done, in order."""
        return tuple(name.decode() for name in self._file.names(RESULTS))

    def _keep(self, table: str, key: bytes, value: Any) -> None:
        text, arrays = encoding.encode(value, self._classes)
        size = sum(array.nbytes for array in arrays)
        if not self._is_writing:
            return
        if self._file.num_bytes + size > self._max_bytes:
            limit = f"{self._max_bytes / 1e6:,.0f} MB"
            self._say_once(f"the limit of {limit} is reached: what follows is not kept")
            return
        try:
            self._file.put(table, key, text, arrays, instead_of_products=table == RESULTS)
        except sqlite3.Error as error:
            self._is_writing = False
            self._say_once(f"{error}: what follows is not kept, the work goes on")
        else:
            if table == RESULTS:
                self._unused.clear()

    def _say_once(self, line: str) -> None:
        if line not in self._said:
            self._said.add(line)
            self._say(f"{self.path}: {line}")

    def close(self) -> None:
        """Close the file, which stays. Later calls do nothing."""
        self._file.close()

    def remove(self) -> None:
        """Close the file and delete it: the work is done."""
        self.close()
        for each in files(self.path):
            each.unlink(missing_ok=True)
