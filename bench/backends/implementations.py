"""The table of implementations: names, modules, and the packages that they need."""

from __future__ import annotations

from dataclasses import dataclass

from hvp import InputError
from hvp.benchmark import entries

SERVER = "bench.harness.server:Server"


@dataclass(frozen=True)
class Entry(entries.Entry):
    """An implementation by name; its process answers the requests of spectra too.

    Attributes:
        has_products: whether single products are timed.
        has_largest: whether its ten largest eigenvalues are timed.
        has_density: whether its spectral density is timed.
    """

    server: str = SERVER
    has_products: bool = True
    has_largest: bool = False
    has_density: bool = False


_JAX = {"jax": "jax", "jaxlib": "jaxlib"}
_TORCH = {"torch": "torch"}

OURS = Entry(
    entries.OURS.name,
    entries.OURS.title,
    "bench.backends.ours:Ours",
    entries.TENSORFLOW,
    has_largest=True,
    has_density=True,
)
NAIVE = Entry(entries.NAIVE.name, entries.NAIVE.title, entries.NAIVE.home, entries.TENSORFLOW)
PEERS = {
    entry.name: entry
    for entry in (
        Entry("pytorch", "PyTorch, graph kept", "bench.backends.peers_torch:Torch", _TORCH),
        Entry(
            "curvlinops",
            "curvlinops",
            "bench.backends.peers_torch:Curvlinops",
            {**_TORCH, "curvlinops": "curvlinops-for-pytorch"},
            has_largest=True,
            has_density=True,
        ),
        Entry(
            "hessian-eigenthings",
            "hessian-eigenthings",
            "bench.backends.peers_torch:HessianEigenthings",
            {**_TORCH, "hessian_eigenthings": "hessian-eigenthings"},
            has_density=True,
        ),
        Entry(
            "pyhessian",
            "PyHessian",
            "bench.backends.peers_torch:PyHessian",
            {**_TORCH, "pyhessian": "pyhessian"},
            has_products=False,
            has_density=True,
        ),
        Entry("jax-jvp-grad", "JAX jvp(grad)", "bench.backends.peers_jax:JvpGrad", _JAX),
        Entry(
            "jax-linearize",
            "JAX linearize",
            "bench.backends.peers_jax:Linearize",
            _JAX,
            has_largest=True,
        ),
        Entry(
            "matfree",
            "matfree",
            "bench.backends.peers_jax:Matfree",
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
