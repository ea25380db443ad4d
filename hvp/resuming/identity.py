"""What tells an operator from another: the digests of its loss, a name, or a product."""

from __future__ import annotations

import hashlib
import importlib.metadata
import platform

import numpy as np
from scipy.sparse.linalg import LinearOperator

from hvp.operators import Curvature

PACKAGES = ("hvp", "tensorflow", "keras", "numpy", "scipy")
# Products of the same operator differ by so many roundings at most, where threads add up in another
# order.
PROBE_ROUNDINGS = 256
PROBE_SEED = 0


def package_versions() -> dict[str, str]:
    """The versions that a result depends on, by package."""
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        versions[package] = importlib.metadata.version(package)
    return versions


def of_loss(lin: Curvature) -> dict[str, str]:
    """The digests of a loss at a point; that of the objective is "" where a backend has none."""
    layout = lin.layout
    tensors = [
        (name, tuple(shape)) for name, shape in zip(layout.names, layout.shapes, strict=True)
    ]
    return {
        "data": lin.data_digest,
        "weights": lin.weights_digest,
        "objective": getattr(lin, "objective_digest", ""),
        "parameters": hashlib.sha256(repr(tensors).encode()).hexdigest(),
        "precision": str(lin.dtype),
        "batches": str(lin.num_batches),
        "versions": repr(package_versions()),
    }


def of_operator(A: LinearOperator, key: str | None) -> dict[str, str]:
    """What is known of an operator without a product.

    "name" is missing where nothing is known but shape and dtype.
    """
    found = {"shape": str(A.shape), "precision": str(A.dtype)}
    if key is not None:
        return {**found, "key": key}
    lin = getattr(A, "lin", None)
    of_lin = {} if lin is None else of_loss(lin)
    if not of_lin.get("objective"):
        return found
    samples = (getattr(A, "num_samples", None), getattr(A, "seed", None))
    return {**found, **of_lin, "name": f"{type(A).__name__} {samples}"}


def probe(A: LinearOperator) -> np.ndarray:
    """The product with a random vector that is always the same."""
    rng = np.random.default_rng(PROBE_SEED)
    v = rng.standard_normal(A.shape[1]).astype(A.dtype)
    return np.asarray(A.matvec(v))


def is_same(product: np.ndarray, before: np.ndarray) -> bool:
    """Whether two products are the same but for rounding."""
    if product.shape != before.shape or product.dtype != before.dtype:
        return False
    allowed = PROBE_ROUNDINGS * np.finfo(product.dtype).eps * np.linalg.norm(before)
    return bool(np.linalg.norm(product - before) <= allowed)
