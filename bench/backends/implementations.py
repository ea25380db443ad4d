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
        name: on the command line and in the results.
        title: in the tables.
        home: module and class in `bench`.
        packages: what it imports -> the distribution that brings it.
        has_products: whether single products are timed.
        has_largest: whether it takes part in the ten eigenvalues.
        has_density: whether it takes part in the densities.
    """

    name: str
    title: str
    home: tuple[str, str]
    packages: dict[str, str]
    has_products: bool = True
    has_largest: bool = False
    has_density: bool = False

    def missing(self) -> str | None:
        """What is not installed, as a line; None where all is there."""
        absent = [dist for name, dist in self.packages.items() if not _is_there(name)]
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
    """The implementation of that name, ours and naive TensorFlow included."""
    return {OURS.name: OURS, NAIVE.name: NAIVE, **PEERS}[name]


def select(wanted: str) -> list[Entry]:
    """The peers of a list with commas between; "all", "none". InputError for an unknown one."""
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
    """Distribution -> version, of all that takes part and is installed."""
    wanted = {dist for entry in (OURS, *entries) for dist in entry.packages.values()}
    found = {}
    for dist in sorted(wanted | {"hvp", "numpy", "scipy"}):
        try:
            found[dist] = importlib.metadata.version(dist)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _is_there(package: str) -> bool:
    return importlib.util.find_spec(package) is not None
