"""Traces and Frobenius norms of every layer's own block, from products with the whole operator."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from hvp.errors import InputError
from hvp.linalg.blocks import Deflated, check_budget, dense, gram, parted, squares
from hvp.linalg.counted_operator import CountedOperator
from hvp.linalg.estimate import Estimate
from hvp.linalg.threads import few_threads
from hvp.operators import Curvature

# Pairs of pairs, which the standard error of a mean over pairs takes, need four probes.
FEWEST = 4
EXACT, PLAIN, BASIS = "unit vectors", "Hutchinson", "Hutchinson beside a basis"
WHOLE = "whole"

Rows = tuple[slice, ...]


@dataclass(frozen=True, eq=False)
class BlockTraces:
    """Trace and squared Frobenius norm of one layer's own block A_ll, or of the whole operator.

    Attributes:
        name: of the layer.
        size: P of the block.
        trace: tr A_ll.
        squared_norm: ‖A_ll‖²_F.
        traces: (s,) what each probe tells of the trace; the estimate is their mean.
        squared_norms: (s, s) what each pair of different probes tells of the squared norm; zero on
            the diagonal, which is no pair. Both are empty where nothing is random.
    """

    name: str
    size: int
    trace: Estimate[float]
    squared_norm: Estimate[float]
    traces: np.ndarray
    squared_norms: np.ndarray


@dataclass(frozen=True, eq=False)
class LayerTraces:
    """One `BlockTraces` a layer, in order, and that of the whole operator."""

    layers: Mapping[str, BlockTraces]
    whole: BlockTraces
    num_products: int
    seed: int


@dataclass(frozen=True, eq=False)
class Share:
    """What part of tr A_ll and of ‖A_ll‖²_F of a layer another operator has."""

    name: str
    trace: Estimate[float]
    squared_norm: Estimate[float]


@dataclass(frozen=True, eq=False)
class LayerShares:
    """One `Share` a layer, in order, and that of the whole operator."""

    layers: Mapping[str, Share]
    whole: Share


def layer_traces(
    A: Any,
    lin: Curvature,
    *,
    num_products: int = 96,
    scale: float | None = None,
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
) -> LayerTraces:
    """tr A_ll and ‖A_ll‖²_F of every layer's own block, all from the same products with A.

    Two thirds of the products find an orthonormal basis Q (P, q) of the range of A on random signs,
    and AQ. That splits A = K + E with K = PA + AP - PAP, P = QQᵀ, whose blocks are known exactly,
    and a small rest E = (I - P)A(I - P). The other products estimate the rest with s independent
    probes ω_b of random signs, each for all layers at once: with ω_b,l the entries of layer l and
    g_bc = ω_b,lᵀ(Eω_c)_l ::

        tr A_ll    = tr K_ll + mean over b of g_bb
        ‖A_ll‖²_F  = ‖K_ll‖² + 2 mean over b of ω_b,lᵀK_ll(Eω_b)_l + mean over b ≠ c of g_bc g_cb

    All is unbiased, given Q; where there is none, a norm may come out below zero. Proof: the mean
    of ω_b,l' ω_b,lᵀ is the identity for l' = l and zero otherwise, so that of (Eω_b)_l ω_b,lᵀ is
    E_ll; for b ≠ c, which are independent, that of g_bc g_cb = tr((Eω_b)_l ω_b,lᵀ (Eω_c)_l ω_c,lᵀ)
    is tr E_ll² = ‖E_ll‖²_F, although g_bc also has the blocks across layers in it. Standard errors
    are those of U-statistics of the s probes. The parting is that of Hutch++ (Meyer, Musco, Musco
    and Woodruff 2021), on both sides. From P products or more all is taken from the matrix, from
    fewer than 6 without a basis.

    The other way is a product for each layer alone, by a probe that is zero elsewhere or, which is
    the same, by L or more patterns of orthogonal signs over the L layers: A_ll ω_l is then exact,
    but there are L times fewer of them. With 120 products on H and G of small networks, trained,
    `trace` of every layer so had root mean square errors 1.3 to 3 times as large with 3 layers and
    9 to 16 times with 10; squared norms 0.4 to 2 and 12 to 18 times. It is better where few layers
    have flat spectra, as those of R.

    Args:
        A: a symmetric SciPy LinearOperator or matrix of shape (P, P), such as ``Hessian(lin)``.
        lin: a `Linearization`, or anything else that has its `layout`.
        num_products: products with A, at most; 4 or more. About 1.1 times as many vectors are held.
        scale: size of the numbers that matter: ‖H‖ for R = H - G, as for `hvp.density`.
        seed: of the probes. The same seed gives the same probes to several operators, so that the
            noise of their `layer_shares` is small.
        progress: called with the number of products so far.

    Raises:
        InputError: no symmetric operator, a product that is not finite, a layout of another size,
            fewer than 4 products.

    >>> from types import SimpleNamespace
    >>> layout = SimpleNamespace(slices=(slice(0, 1), slice(1, 3)), layers={"a": (0,), "b": (1,)})
    >>> found = layer_traces(np.diag([1.0, 2.0, 3.0]), SimpleNamespace(layout=layout))
    >>> print(found.layers["b"].trace, "and", found.whole.squared_norm)
    5 ± 0 and 14 ± 0
    """
    counted = CountedOperator(A, progress, scale)
    size = counted.shape[0]
    layers = _layers(lin, size)
    exact = num_products >= size
    check_budget(num_products, 1 if exact else FEWEST)
    with few_threads(counted.shape[0]):
        if exact:
            return _exact(counted, layers, seed)
        parts = parted(counted, num_products, np.random.default_rng(seed), FEWEST)
        found = {name: _block(name, rows, parts, counted.count) for name, rows in layers.items()}
        return LayerTraces(found, _whole(parts, counted.count), counted.count, seed)


def layer_shares(part: LayerTraces, of: LayerTraces) -> LayerShares:
    """tr B_ll / tr A_ll and ‖B_ll‖²_F / ‖A_ll‖²_F, layer by layer, with standard errors.

    Both of `part`, B, and `of`, A, must come from `layer_traces` with the same seed and number of
    products: then the same probes made both, and what these have in common cancels in the samples
    of B - ratio · A, which the errors are of (the delta method). NaN where a denominator is zero.

    Raises:
        InputError: other layers, or other probes.

    >>> from types import SimpleNamespace
    >>> layout = SimpleNamespace(slices=(slice(0, 1), slice(1, 3)), layers={"a": (0,), "b": (1,)})
    >>> A, lin = np.diag([1.0, 2.0, 3.0]), SimpleNamespace(layout=layout)
    >>> print(layer_shares(layer_traces(A / 4, lin), layer_traces(A, lin)).layers["b"].trace)
    0.25 ± 0
    """
    if _origin(part) != _origin(of):
        raise InputError(
            "traces of the same layers from the same probes",
            " and ".join(
                f"{len(found.layers)} layers, {len(found.whole.traces)} probes, seed {found.seed}"
                for found in (part, of)
            ),
            "call layer_traces with the same lin, num_products and seed",
        )
    found = {name: _share(part.layers[name], of.layers[name]) for name in of.layers}
    return LayerShares(found, _share(part.whole, of.whole))


def _origin(found: LayerTraces) -> tuple[Any, ...]:
    sizes = tuple((block.name, block.size) for block in found.layers.values())
    return sizes, found.seed, len(found.whole.traces)


def _share(part: BlockTraces, of: BlockTraces) -> Share:
    cost = part.trace.num_products + of.trace.num_products
    trace = _ratio(part.trace, of.trace, part.traces, of.traces, _mean_error, cost)
    pairs = part.squared_norms, of.squared_norms
    norm = _ratio(part.squared_norm, of.squared_norm, *pairs, _pairs_error, cost)
    return Share(part.name, trace, norm)


def _ratio(
    part: Estimate[float],
    of: Estimate[float],
    samples: np.ndarray,
    others: np.ndarray,
    error: Callable[[np.ndarray], float],
    cost: int,
) -> Estimate[float]:
    if of.value == 0:
        return Estimate(np.nan, np.nan, cost)
    ratio = part.value / of.value
    return Estimate(ratio, error(samples - ratio * others) / abs(of.value), cost)


def _layers(lin: Curvature, size: int) -> dict[str, Rows]:
    """The slices of every layer."""
    if not hasattr(lin, "layout"):
        raise InputError("a Linearization", type(lin).__name__, "call hvp.linearize first")
    layout = lin.layout
    found = {
        name: tuple(layout.slices[i] for i in positions)
        for name, positions in layout.layers.items()
    }
    covered = sum(_length(rows) for rows in found.values())
    if covered != size:
        raise InputError(
            f"layers of {size} parameters together, as the operator has",
            covered,
            "pass its own lin",
        )
    return found


def _length(rows: Rows) -> int:
    return sum(s.stop - s.start for s in rows)


def _block(name: str, rows: Rows, parts: Deflated, num_products: int) -> BlockTraces:
    def inner(U: np.ndarray, V: np.ndarray) -> np.ndarray:
        return sum((gram(U[part], V[part]) for part in rows), np.zeros((U.shape[1], V.shape[1])))

    Q, F, probes, rest = parts.Q, parts.F, parts.probes, parts.rest
    forms, cross = inner(probes, rest), inner(Q, F)
    known = 2 * np.sum(inner(Q, Q) * inner(F, F)) + 2 * np.sum(cross * cross.T)
    mixed = np.sum(inner(Q, probes) * inner(F, rest) + inner(F, probes) * inner(Q, rest), axis=0)
    pairs = known + mixed[:, None] + mixed + forms * forms.T
    traces = 2 * np.trace(cross) + np.diag(forms)
    return _estimated(name, _length(rows), traces, pairs, parts, num_products)


def _whole(parts: Deflated, num_products: int) -> BlockTraces:
    """As a block, but ⟨K, E⟩ = 0, and ‖Eω‖² has less variance than a form of two probes."""
    cross, lengths = gram(parts.Q, parts.F), squares(parts.rest)
    known = 2 * np.trace(gram(parts.F, parts.F)) + 2 * np.sum(cross * cross.T)
    pairs = known + (lengths[:, None] + lengths) / 2
    forms = np.einsum("ps,ps->s", parts.probes, parts.rest, dtype=np.float64)
    traces = 2 * np.trace(cross) + forms
    return _estimated(WHOLE, len(parts.Q), traces, pairs, parts, num_products)


def _estimated(
    name: str,
    size: int,
    traces: np.ndarray,
    pairs: np.ndarray,
    parts: Deflated,
    num_products: int,
) -> BlockTraces:
    method = BASIS if parts.Q.shape[1] else PLAIN
    np.fill_diagonal(pairs, 0.0)
    norm = float(pairs.sum() / (len(pairs) * (len(pairs) - 1)))
    return BlockTraces(
        name,
        size,
        Estimate(float(traces.mean()), _mean_error(traces), num_products, method=method),
        Estimate(norm, _pairs_error(pairs), num_products, method=method),
        traces,
        pairs,
    )


def _exact(A: CountedOperator, layers: Mapping[str, Rows], seed: int) -> LayerTraces:
    matrix = dense(A).astype(np.float64)

    def block(name: str, rows: Rows) -> BlockTraces:
        index = np.concatenate([np.arange(len(matrix))[part] for part in rows])
        own = matrix[np.ix_(index, index)]
        trace, norm = (
            Estimate(float(value), 0.0, A.count, method=EXACT)
            for value in (np.trace(own), np.sum(own**2))
        )
        return BlockTraces(name, len(own), trace, norm, np.empty(0), np.empty((0, 0)))

    found = {name: block(name, rows) for name, rows in layers.items()}
    return LayerTraces(found, block(WHOLE, (slice(0, len(matrix)),)), A.count, seed)


def _mean_error(samples: np.ndarray) -> float:
    """The standard error of the mean of independent samples."""
    count = len(samples)
    return float(samples.std(ddof=1) / np.sqrt(count)) if count else 0.0


def _pairs_error(h: np.ndarray) -> float:
    """The standard error of U, the mean of h_bc over pairs of s independent probes.

    Var U = (4(s - 2) ζ₁ + 2 ζ₂) / s(s - 1), with ζ₁ the covariance of pairs that share a probe and
    ζ₂ the variance of a pair (Hoeffding 1948, section 5). Both are estimated without bias, from
    means over triples, pairs, and pairs of pairs without a common probe, and put to zero where that
    comes out below it: where single probes tell nothing, the error is up to √2 times too large.
    """
    s = len(h)
    if s == 0:
        return 0.0
    h = h - h.sum() / (s * (s - 1))
    np.fill_diagonal(h, 0.0)
    once, pairs = np.sum(h.sum(axis=1) ** 2), np.sum(h**2)
    apart = (2 * pairs - 4 * once) / (s * (s - 1) * (s - 2) * (s - 3))
    shared = (once - pairs) / (s * (s - 1) * (s - 2)) - apart
    own = pairs / (s * (s - 1)) - apart
    variance = (4 * (s - 2) * max(shared, 0.0) + 2 * max(own, 0.0)) / (s * (s - 1))
    return float(np.sqrt(variance))
