"""The numbers of a golden file: the curvature of a loss at one point, with what rounding allows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hvp.comparison.chain_rule import whole_name
from hvp.linalg.blocks import chunks, columns_within
from hvp.linalg.eigenpairs import Eigenpairs
from hvp.linalg.eigsh import eigsh
from hvp.linalg.noise_floor import Noise, noise_floor
from hvp.operators import Curvature, Hessian

if TYPE_CHECKING:
    from hvp.linearization.linearization import Linearization

NUM_DIRECTIONS = 2
# A number may change by so many times the error that was measured, or by so many roundings of the
# precision of the products; and never by less than so many roundings of float64.
SAFETY, ROUNDINGS, ROUNDINGS64 = 10, 10, 1000
MAX_BLOCK_BYTES = 256 << 20
MATRICES = ("H", "G", "R")


@dataclass(frozen=True)
class Number:
    """A number of a golden file.

    Attributes:
        name: "loss", "gradient norm", "λmax H", "vᵀHv", "vᵀGv" or "vᵀRv".
        part: the layer that v is of, or the whole network.
        size: parameters of the part.
        direction: which unit vector v of the part; None where there is none.
        value: the number.
        tolerance: the largest change that rounding explains.
    """

    name: str
    part: str
    size: int
    direction: int | None
    value: float
    tolerance: float

    @property
    def label(self) -> str:
        """What it is, in one line."""
        place = self.part if self.direction is None else f"{self.part}, v{self.direction}"
        return f"{self.name} ({place})"


@dataclass(frozen=True)
class Column:
    """A direction: a unit vector (P,) that is zero outside of a part."""

    part: str
    size: int
    direction: int
    slices: Sequence[slice]


def measured(lin: Linearization, seed: int, exact: Curvature) -> tuple[float, list[Number]]:
    """The noise floor of H, and the loss, the gradient's norm, λmax and all forms.

    `exact` is the same loss in float64, for the tolerances; `lin` itself where they do not matter.
    """
    pairs = eigsh(Hessian(lin), min(2, lin.size), seed=seed)
    noise = noise_floor(
        Hessian(lin),
        None if exact is lin else Hessian(exact),
        vectors=pairs.vectors[:, -1:],
        seed=seed,
    )
    whole = whole_name(lin)
    numbers = [
        _scalar("loss", whole, lin, lin.loss(), exact.loss()),
        _gradient_norm(whole, lin, exact),
        Number("λmax H", whole, lin.size, None, float(pairs.values[-1]), _slack(pairs, noise, lin)),
    ]
    return noise.floor, [*numbers, *_forms(lin, exact, noise, seed)]


def directions(lin: Curvature) -> list[Column]:
    """The directions of a loss: some for each layer, and for all together where there are more."""
    layout = lin.layout
    parts = dict(layout.layers)
    if len(parts) > 1:
        parts[whole_name(lin)] = tuple(range(len(layout.slices)))
    found = []
    for part, positions in parts.items():
        slices = [layout.slices[i] for i in positions]
        size = sum(each.stop - each.start for each in slices)
        found += [Column(part, size, number, slices) for number in range(NUM_DIRECTIONS)]
    return found


def vectors(columns: Sequence[Column], normal: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """(P, K): for each column the part of its normal vector, (directions, P), of unit length."""
    V = np.zeros((normal.shape[1], len(columns)))
    for v, column in zip(V.T, columns, strict=True):
        for entries in column.slices:
            v[entries] = normal[column.direction, entries]
        v /= np.linalg.norm(v)
    return V.astype(dtype)


def _forms(lin: Linearization, exact: Curvature, noise: Noise, seed: int) -> Iterator[Number]:
    normal = np.random.default_rng(seed).standard_normal((NUM_DIRECTIONS, lin.size))
    columns = directions(lin)
    at_once = columns_within(MAX_BLOCK_BYTES, lin.size, 8)
    for chunk in chunks(len(columns), at_once):
        some = columns[chunk]
        V = vectors(some, normal, lin.dtype)
        products = _products(lin, V)
        exactly = products if exact is lin else _products(exact, V.astype(np.float64))
        for position, column in enumerate(some):
            largest = max(float(np.linalg.norm(AV[:, position])) for AV in products)
            for matrix, AV, AV64 in zip(MATRICES, products, exactly, strict=False):
                v = V[:, position].astype(np.float64)
                error = float(np.linalg.norm(AV[:, position] - AV64[:, position]))
                yield Number(
                    f"vᵀ{matrix}v",
                    column.part,
                    column.size,
                    column.direction,
                    float(v @ AV[:, position].astype(np.float64)),
                    _tolerance(max(error, noise.repeatability), largest, lin),
                )


def _products(lin: Curvature, V: np.ndarray) -> Sequence[np.ndarray]:
    """HV, and GV and RV where the loss is a function of outputs."""
    return lin.products(V) if getattr(lin, "has_outputs", True) else (lin.hvp(V),)


def _scalar(
    name: str, part: str, lin: Linearization, value: float, exactly: float, size: float = 0.0
) -> Number:
    scale = max(abs(value), size)
    return Number(
        name, part, lin.size, None, float(value), _tolerance(abs(value - exactly), scale, lin)
    )


def _gradient_norm(part: str, lin: Linearization, exact: Curvature) -> Number:
    gradient, exactly = lin.gradient().astype(np.float64), exact.gradient()
    norm, error = float(np.linalg.norm(gradient)), float(np.linalg.norm(gradient - exactly))
    return Number("gradient norm", part, lin.size, None, norm, _tolerance(error, norm, lin))


def _slack(pairs: Eigenpairs, noise: Noise, lin: Linearization) -> float:
    """The tolerance of λmax: rounding, and what Lanczos left, err²/gap (Parlett 1998, 11.7.1)."""
    error, value = float(pairs.errors[-1]), float(pairs.values[-1])
    gap = value - float(pairs.values[0]) - float(pairs.errors.sum())
    left = min(error, error**2 / gap) if gap > 0 else error
    return _tolerance(max(noise.floor, left), abs(value), lin)


def _tolerance(error: float, size: float, lin: Linearization) -> float:
    eps, eps64 = float(np.finfo(lin.dtype).eps), float(np.finfo(np.float64).eps)
    return max(SAFETY * error, ROUNDINGS * eps * size, ROUNDINGS64 * eps64 * size)
