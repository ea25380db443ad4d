"""The table of implementations: names, modules, and the packages that they need."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass

from bench.backends.implementation import Implementation
from hvp import InputError


@dataclass(frozen=True)
class Entry:
    """An implementation by name.

    Attributes:
        name: its name on the command line and in the results.
        title: its name in the tables.
        home: its module in `bench.backends`, and its class.
        packages: imported package -> the distribution that contains it.
        has_products: whether single products are timed.
        has_largest: whether its ten largest eigenvalues are timed.
        has_density: whether its spectral density is timed.
    """

    name: str
    title: str
    home: tuple[str, str]
    packages: dict[str, str]
    has_products: bool = True
    has_largest: bool = False
    has_density: bool = False

    def missing(self) -> str | None:
        """The distributions that are not installed, in one line; None if all are installed."""
        absent = [dist for name, dist in self.packages.items() if not _is_installed(name)]
        return f"{', '.join(absent)} not installed" if absent else None

    def load(self) -> type[Implementation]:
        module, attribute = self.home
        return getattr(importlib.import_module(f"bench.backends.{module}"), attribute)


_TENSORFLOW = {"tensorflow": "tensorflow", "keras": "keras"}
_JAX = {"jax": "jax", "jaxlib": "jaxlib"}
_TORCH = {"torch": "torch"}

OURS = Entry("hvp", "hvp", ("ours", "Ours"), _TENSORFLOW, has_largest=True, has_density=True)
NAIVE = Entry(
    "tensorflow", "naive TensorFlow", ("naive_tensorflow", "NaiveTensorflow"), _TENSORFLOW
)
PEERS = {
    entry.name: entry
    for entry in (
        Entry("pytorch", "PyTorch, graph kept", ("peers_torch", "Torch"), _TORCH),
        Entry(
            "curvlinops",
            "curvlinops",
            ("peers_torch", "Curvlinops"),
            {**_TORCH, "curvlinops": "curvlinops-for-pytorch"},
            has_largest=True,
            has_density=True,
        ),
        Entry(
            "hessian-eigenthings",
            "hessian-eigenthings",
            ("peers_torch", "HessianEigenthings"),
            {**_TORCH, "hessian_eigenthings": "hessian-eigenthings"},
            has_density=True,
        ),
        Entry(
            "pyhessian",
            "PyHessian",
            ("peers_torch", "PyHessian"),
            {**_TORCH, "pyhessian": "pyhessian"},
            has_products=False,
            has_density=True,
        ),
        Entry("jax-jvp-grad", "JAX jvp(grad)", ("peers_jax", "JvpGrad"), _JAX),
        Entry("jax-linearize", "JAX linearize", ("peers_jax", "Linearize"), _JAX, has_largest=True),
        Entry(
            "matfree",
            "matfree",
            ("peers_jax", "Matfree"),
            {**_JAX, "matfree": "matfree"},
            has_products=False,
            has_largest=True,
        ),
    )
}


def find(name: str) -> Entry:
    """The implementation with this name, among hvp, naive TensorFlow and the peers."""
    return {OURS.name: OURS, NAIVE.name: NAIVE, **PEERS}[name]


def select(wanted: str) -> list[Entry]:
    """The peers in a comma-separated list, or "all" or "none". InputError for an unknown name."""
    if wanted == "all":
        return list(PEERS.values())
    names = [] if wanted == "none" else [name.strip() for name in wanted.split(",")]
    for name in names:
        if name not in PEERS:
            raise InputError(
                f"--peers all, none or among {', '.join(PEERS)}", repr(name), "choose these"
            )
    return [PEERS[name] for name in dict.fromkeys(names)]


def versions(entries: Sequence[Entry]) -> dict[str, str]:
    """Distribution -> version, for all installed distributions that are measured."""
    wanted = {dist for entry in (OURS, *entries) for dist in entry.packages.values()}
    found = {}
    for dist in sorted(wanted | {"hvp", "numpy", "scipy"}):
        try:
            found[dist] = importlib.metadata.version(dist)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _is_installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None
