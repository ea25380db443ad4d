"""The table of implementations that are measured: names, classes, and the packages they need."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from hvp.benchmark.process import Worker

ALWAYS = ("hvp", "numpy", "scipy")


@dataclass(frozen=True)
class Entry:
    """An implementation by name.

    Attributes:
        name: its name on the command line and in the results.
        title: its name in the tables.
        home: its module and class, ``module:Class``.
        packages: imported package -> the distribution that contains it.
        server: the class of the server in its process.
    """

    name: str
    title: str
    home: str
    packages: dict[str, str] = field(default_factory=dict)
    server: str = "hvp.benchmark.server:Server"

    def missing(self) -> str | None:
        """The distributions that are not installed, in one line; None if all are installed."""
        absent = [dist for name, dist in self.packages.items() if not _is_installed(name)]
        return f"{', '.join(absent)} not installed" if absent else None

    def worker(self, *, checkout: Path | None = None, threads: int | None = None) -> Worker:
        """A new process of it."""
        return Worker(self.server, self.home, checkout=checkout, threads=threads)


TENSORFLOW = {"tensorflow": "tensorflow", "keras": "keras"}
OURS = Entry("hvp", "hvp", "hvp.benchmark.keras_products:Ours", TENSORFLOW)
NAIVE = Entry(
    "tensorflow",
    "naive TensorFlow",
    "hvp.benchmark.keras_products:NaiveTensorflow",
    TENSORFLOW,
)


def versions(entries: Iterable[Entry]) -> dict[str, str]:
    """Distribution -> version, for all installed distributions that are measured."""
    wanted = {dist for entry in (OURS, *entries) for dist in entry.packages.values()}
    found = {}
    for dist in sorted({*wanted, *ALWAYS}):
        try:
            found[dist] = importlib.metadata.version(dist)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _is_installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None
