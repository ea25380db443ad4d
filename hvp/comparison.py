"""The main job: the spectra of H, G and R = H - G side by side, whole and layer by layer."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import scipy.linalg

from hvp import plot
from hvp.eigenpairs import Eigenpairs, eigsh
from hvp.errors import InputError
from hvp.forms import Forms, Layered, chain_rule, whole_name
from hvp.operators import GaussNewton, Hessian, Residual

SCHEMA = 1
ABOUT = {
    "parts": "whole network or selected layers, then each layer's own block; size is P",
    "largest, smallest": "eigenvalues in ascending order, each with its error |Av - lambda v|",
    "separate": "whether value ± error meets no other: else the value bounds a cluster",
    "tol": "error asked for, relative to the largest eigenvalue of H in magnitude",
    "principal_angles": "radians, between the spaces of the k largest eigenvalues of H and of G",
    "overlap": "mean squared cosine of the principal angles",
    "chain_rule": "forms of each layer's kernels v; rounding is what |v| |Hv| loses in this dtype",
}
PACKAGES = ("hvp", "tensorflow", "keras", "numpy", "scipy")


class Comparable(Layered, Protocol):
    """What a comparison needs of `hvp.Linearization`."""

    num_examples: int
    accuracy: float | None
    data_digest: str
    weights_digest: str
    loss_name: str

    @property
    def findings(self) -> tuple[Any, ...]: ...
    def loss(self) -> float: ...
    def gradient(self) -> np.ndarray: ...
    def blocks(self) -> Mapping[str, Comparable]: ...


@dataclass(frozen=True, eq=False)
class Ends:
    """The k largest and the k smallest eigenpairs of one operator, each in ascending order."""

    largest: Eigenpairs
    smallest: Eigenpairs
    num_products: int
    seconds: float


@dataclass(frozen=True, eq=False)
class Part:
    """The network or one layer: the ends of H, G and R, and the angles between top spaces.

    `angles` are the principal angles in radians between the spaces of H's and of G's k largest
    eigenvalues, in ascending order (Björck and Golub 1973).
    """

    name: str
    size: int
    H: Ends
    G: Ends
    R: Ends
    angles: np.ndarray
    eps: float

    @property
    def overlap(self) -> float:
        """Mean squared cosine of the angles: the share of H's top space that lies in G's."""
        return float(np.mean(np.cos(self.angles) ** 2))

    @property
    def agrees(self) -> bool:
        """Whether R vanishes here: its eigenvalues are below a thousand roundings of H's."""
        R, H = (max(abs(e.largest.values[-1]), abs(e.smallest.values[0])) for e in (self.R, self.H))
        return bool(1000 * self.eps * H >= R)


@dataclass(frozen=True, eq=False)
class Comparison:
    """What `compare` found; `save` writes it.

    `parts` begins with "whole network" ("selected layers" where only some were taken) and goes on
    with one entry a layer; `chain_rule` has one row a layer and a last one for all together.

    >>> from hvp import linearize_function
    >>> lin = linearize_function(
    ...     lambda z: z**2, [np.array(1.0), np.array(2.0)], outputs=lambda w: w[0] * w[1])
    >>> comparison = compare(lin, k=1)
    >>> list(comparison.parts), comparison.parts["param0"].agrees
    (['whole network', 'param0', 'param1'], True)
    """

    title: str
    loss_name: str
    layers: tuple[str, ...]
    parts: Mapping[str, Part]
    chain_rule: tuple[Forms, ...]
    loss: float
    gradient_norm: float
    accuracy: float | None
    num_examples: int
    size: int
    dtype: str
    k: int
    tol: float
    seed: int
    findings: tuple[str, ...]
    data_sha256: str
    weights_sha256: str
    versions: Mapping[str, str]
    num_products: int
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """The numbers as plain dictionaries and lists, `schema` first; vectors are left out."""
        plain = {
            name: getattr(self, name)
            for name in self.__dataclass_fields__
            if name not in ("parts", "chain_rule")
        }
        return {
            "schema": SCHEMA,
            "about": ABOUT,
            **plain,
            "chain_rule": [
                {**vars(row), "relative_difference": row.difference} for row in self.chain_rule
            ],
            "parts": {name: _part_json(part) for name, part in self.parts.items()},
        }

    def save(self, directory: str | Path) -> tuple[Path, Path]:
        """Write ``compare.json`` and ``compare.png`` there; each appears whole or not at all."""
        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        targets = directory / "compare.json", directory / "compare.png"
        drafts = [target.with_suffix(f".{os.getpid()}{target.suffix}") for target in targets]
        try:
            text = json.dumps(self.to_json(), indent=1, allow_nan=False)
            drafts[0].write_text(text + "\n", encoding="utf-8")
            plot.save_comparison(self, drafts[1])
            for draft, target in zip(drafts, targets, strict=True):
                draft.replace(target)
        finally:
            for draft in drafts:
                draft.unlink(missing_ok=True)
        return targets


def compare(
    lin: Comparable,
    k: int = 10,
    *,
    tol: float = 2e-4,
    seed: int = 0,
    title: str = "",
    progress: Callable[[str, int], None] | None = None,
) -> Comparison:
    """The ends of the spectra of H, G and R, of the whole network and of each layer's own block.

    Args:
        lin: a `Linearization` whose loss is a function of outputs.
        k: how many eigenvalues at each end; a layer of P <= k parameters gives P - 1.
        tol: error of a pair relative to ‖H‖ of the part; the errors reached are reported.
        seed: of Lanczos's starting vectors.
        title: what the comparison is of, for the picture.
        progress: called with what is being computed and the number of products it took so far.

    Raises:
        InputError: k below 1 or beyond P - 1, or a loss that is not a function of outputs.
        ConvergenceError: a pair that did not reach its tolerance.

    >>> import numpy as np, tensorflow as tf
    >>> from hvp import linearize_function
    >>> lin = linearize_function(
    ...     lambda z, batch: tf.reduce_sum((z - batch[1]) ** 2), np.ones((3, 1)),
    ...     (np.eye(3), np.zeros((3, 1))), outputs=lambda w, batch: batch[0] @ w, reduction="sum")
    >>> compare(lin, k=2).parts["whole network"].H.largest.values.round(6).tolist()
    [2.0, 2.0]
    """
    begun = time.perf_counter()
    if not hasattr(lin, "gnvp"):
        raise InputError("a Linearization", type(lin).__name__, "call hvp.linearize first")
    if not isinstance(k, int | np.integer) or not 1 <= k < max(lin.size, 2):
        raise InputError(
            f"k from 1 to {max(lin.size - 1, 1)} for {lin.size} parameters", k, "lower it"
        )
    table = chain_rule(lin)
    blocks = lin.blocks()
    report = progress or (lambda label, count: None)
    whole = whole_name(lin)
    parts = {whole: _part(whole, lin, k, tol, seed, report)}
    for name, block in blocks.items():
        if len(blocks) == 1:
            parts[name] = replace(parts[whole], name=name)
        else:
            parts[name] = _part(name, block, k, tol, seed, report)
    made = {id(end): end for part in parts.values() for end in (part.H, part.G, part.R)}
    return Comparison(
        title=title,
        loss_name=lin.loss_name,
        layers=tuple(blocks),
        parts=parts,
        chain_rule=table,
        loss=lin.loss(),
        gradient_norm=float(np.linalg.norm(lin.gradient().astype(np.float64))),
        accuracy=lin.accuracy,
        num_examples=lin.num_examples,
        size=lin.size,
        dtype=str(lin.dtype),
        k=k,
        tol=tol,
        seed=seed,
        findings=tuple(map(str, lin.findings)),
        data_sha256=lin.data_digest,
        weights_sha256=lin.weights_digest,
        versions=_versions(),
        num_products=sum(end.num_products for end in made.values()) + 3 * len(table),
        seconds=time.perf_counter() - begun,
    )


def _part(
    name: str,
    lin: Comparable,
    k: int,
    tol: float,
    seed: int,
    report: Callable[[str, int], None],
) -> Part:
    k = min(k, max(lin.size - 1, 1))
    H = _ends(Hessian(lin), k, tol, None, seed, lambda n: report(f"{name} H", n))
    scale = float(np.abs([H.largest.values[-1], H.smallest.values[0]]).max())
    G = _ends(GaussNewton(lin), k, tol, scale, seed, lambda n: report(f"{name} G", n))
    R = _ends(Residual(lin), k, tol, scale, seed, lambda n: report(f"{name} R", n))
    angles = scipy.linalg.subspace_angles(H.largest.vectors, G.largest.vectors)
    eps = float(np.finfo(lin.dtype).eps)
    return Part(name, lin.size, H, G, R, np.sort(angles).astype(np.float64), eps)


def _ends(
    A: Any,
    k: int,
    tol: float,
    scale: float | None,
    seed: int,
    report: Callable[[int], None],
) -> Ends:
    """Both ends, from one run where they do not meet."""
    begun = time.perf_counter()

    def run(count: int, which: str) -> Eigenpairs:
        return eigsh(A, count, which=which, tol=tol, scale=scale, seed=seed, progress=report)

    if 2 * k < A.shape[0]:
        both = run(2 * k, "BE")
        largest, smallest, cost = _slice(both, k, 2 * k), _slice(both, 0, k), both.num_products
    else:
        largest, smallest = run(k, "LA"), run(k, "SA")
        cost = largest.num_products + smallest.num_products
    return Ends(largest, smallest, cost, time.perf_counter() - begun)


def _slice(pairs: Eigenpairs, start: int, stop: int) -> Eigenpairs:
    return Eigenpairs(
        pairs.values[start:stop],
        pairs.vectors[:, start:stop],
        pairs.errors[start:stop],
        pairs.num_products,
    )


def _part_json(part: Part) -> dict[str, Any]:
    return {
        "size": part.size,
        **{name: _ends_json(getattr(part, name)) for name in "HGR"},
        "principal_angles": part.angles.tolist(),
        "overlap": part.overlap,
    }


def _ends_json(ends: Ends) -> dict[str, Any]:
    return {
        "largest": _pairs_json(ends.largest),
        "smallest": _pairs_json(ends.smallest),
        "num_products": ends.num_products,
        "seconds": ends.seconds,
    }


def _pairs_json(pairs: Eigenpairs) -> dict[str, list[float]]:
    return {
        "values": pairs.values.tolist(),
        "errors": pairs.errors.tolist(),
        "separate": pairs.separate.tolist(),
    }


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        versions[package] = importlib.metadata.version(package)
    return versions
