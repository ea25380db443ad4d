"""Traces and Frobenius norms of the own blocks of layers, tensors or channels, all at once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from hvp.linalg.blocks import few_threads, float64_sum, gram, squared_lengths
from hvp.linalg.counted_operator import CountedOperator, Operator, check_num_products
from hvp.linalg.deflation import Deflated, deflate
from hvp.linalg.estimate import (
    DEFLATED,
    HUTCHINSON,
    UNIT_VECTORS,
    Estimate,
    standard_error_of_mean,
    student_factor,
)
from hvp.linalg.hutchinson import squared_norm_error, trace_error
from hvp.linalg.parameter_groups import Group, parameter_groups
from hvp.operators import Curvature
from hvp.progress import ProgressHook
from hvp.randomness import DEFAULT_SEED, NOT_GIVEN, RNG, seed_of
from hvp.tables import ShownAsTable, Table

# Products with an operator, by default.
NUM_PRODUCTS = 96
# The standard error of a mean over pairs uses pairs of disjoint pairs, which need four probes.
MIN_PROBES = 4
# The least error of a squared norm from 4 probes, relative to the mean of g_bc²; from s probes it
# is (4/s)² times that, no more than the spread of the pairs from about 30 on. Few pairs g_bc g_cb
# are skewed to small values: where one eigenvalue is most of E, their spread says little.
PAIRS_FACTOR = 4.0
# `BlockTraces.name` of the whole operator.
WHOLE = "whole"
# Its heading.
SQUARED_NORM = "‖·‖² (Frobenius)"


@dataclass(frozen=True, eq=False, repr=False)
class BlockTraces(ShownAsTable):
    """Trace and squared Frobenius norm of one group's own block A_ll, or of the whole operator.

    Attributes:
        name: of the layer, the tensor, or the channel, such as ``conv/kernel[3]``.
        size: the number of parameters of the block.
        trace: tr A_ll.
        squared_norm: ‖A_ll‖²_F.
        traces: (s,) one sample of the trace per probe; the estimate is their mean.
        squared_norms: (s, s) one sample of the squared norm per pair of different probes; zero on
            the diagonal. Both arrays are empty where nothing is random.
        layer, tensor: to which the group belongs; empty where there are several.
        channel: the number of the output channel; -1 where there are several.
    """

    name: str
    size: int
    trace: Estimate[float]
    squared_norm: Estimate[float]
    traces: np.ndarray
    squared_norms: np.ndarray
    layer: str = ""
    tensor: str = ""
    channel: int = -1

    def _table(self) -> Table:
        rows = [("trace", str(self.trace)), (SQUARED_NORM, str(self.squared_norm))]
        return Table(f"Block of {self.name}, P = {self.size:,}", (), rows)


@dataclass(frozen=True, eq=False, repr=False)
class LayerTraces(ShownAsTable):
    """One `BlockTraces` per layer, tensor or channel, in order, and that of the whole operator.

    Attributes:
        layers: name of a layer, or of a tensor or channel -> its block.
        whole: the same of the whole operator.
        num_products: products with the operator, all of them.
        seed: of the probes.
        groups: what the blocks are: "layers", "tensors" or "channels".
    """

    layers: Mapping[str, BlockTraces]
    whole: BlockTraces
    num_products: int
    seed: int
    groups: str = "layers"

    def rows(self) -> list[dict[str, float | str]]:
        """A dict for each block, as `pandas.DataFrame` takes them, and a last one for the whole.

        It names the layer; tensors and channels have a column `tensor` besides, and channels the
        number of the `channel`, -1 for the whole.

        >>> from types import SimpleNamespace
        >>> lin = SimpleNamespace(layout=SimpleNamespace(slices=(slice(0, 2),), layers={"a": (0,)}))
        >>> layer_traces(np.diag([1.0, 2.0]), lin).rows()[0]  # doctest: +NORMALIZE_WHITESPACE
        {'layer': 'a', 'size': 2, 'trace': 3.0, 'trace_stderr': 0.0,
         'squared_norm': 5.0, 'squared_norm_stderr': 0.0}
        """
        return [
            {
                **self._named(block),
                "size": int(block.size),
                "trace": float(block.trace.value),
                "trace_stderr": float(block.trace.stderr),
                "squared_norm": float(block.squared_norm.value),
                "squared_norm_stderr": float(block.squared_norm.stderr),
            }
            for block in (*self.layers.values(), self.whole)
        ]

    def _named(self, block: BlockTraces) -> dict[str, float | str]:
        """The columns of a row that say which block it is."""
        named: dict[str, float | str] = {
            "layer": WHOLE if block is self.whole else block.layer or block.name,
            "tensor": block.tensor,
            "channel": block.channel,
        }
        shown = {"layers": 1, "tensors": 2, "channels": 3}[self.groups]
        return dict(list(named.items())[:shown])

    def _table(self) -> Table:
        return Table(
            f"Traces of {len(self.layers):,} {self.groups}, {self.num_products:,} products",
            (self.groups[:-1], "P", "trace", SQUARED_NORM),
            [
                (block.name, f"{block.size:,}", str(block.trace), str(block.squared_norm))
                for block in (*self.layers.values(), self.whole)
            ],
        )


def layer_traces(
    A: Operator,
    lin: Curvature,
    *,
    groups: str = "layers",
    num_products: int = NUM_PRODUCTS,
    scale: float | None = None,
    seed: int = DEFAULT_SEED,
    rng: RNG = NOT_GIVEN,
    progress: ProgressHook | None = None,
) -> LayerTraces:
    """tr A_ll and ‖A_ll‖²_F of the own block of every layer, all from the same products with A.

    Or of every tensor, or of every output channel of every tensor, as those who quantise a network
    need them (HAWQ-V2, Dong et al. 2020): these are then the groups l, in place of the layers.

    Two thirds of the products find an orthonormal basis Q (P, q) of the range of A on random signs,
    and AQ. They split A = K + E. With Π = QQᵀ, K = ΠA + AΠ - ΠAΠ is known exactly, and
    E = (I - Π)A(I - Π) is a small remainder. The other products estimate E with s independent
    probes ω_b of random signs, each for all layers at once. With ω_b,l the entries of layer l and
    g_bc = ω_b,lᵀ(Eω_c)_l ::

        tr A_ll    = tr K_ll + mean over b of g_bb
        ‖A_ll‖²_F  = ‖K_ll‖² + 2 mean over b of ω_b,lᵀK_ll(Eω_b)_l + mean over b ≠ c of g_bc g_cb

    All is unbiased, given Q; without Q, a squared norm may come out below zero. Proof: the mean of
    ω_b,l' ω_b,lᵀ is the identity for l' = l and zero otherwise, so that the mean of (Eω_b)_l ω_b,lᵀ
    is E_ll. For b ≠ c, which are independent, the mean of
    g_bc g_cb = tr((Eω_b)_l ω_b,lᵀ (Eω_c)_l ω_c,lᵀ) is tr E_ll² = ‖E_ll‖²_F, although g_bc also
    contains blocks across layers. Standard errors are those of U-statistics of the s probes. The
    split is that of Hutch++ (Meyer, Musco, Musco and Woodruff 2021), on both sides. From P products
    or more, all results are those of the matrix itself; from fewer than 6, there is no basis.

    The alternative is a product for each of the L layers alone, with a probe that is zero
    elsewhere; L or more patterns of orthogonal signs over the layers are equivalent. A_ll ω_l is
    then exact, but each layer has L times fewer of them. With 120 products on H and G of small
    trained networks, the root mean square errors of the traces were 1.3 to 3 times as large with
    3 layers and 9 to 16 times with 10; those of the squared norms 0.4 to 2 and 12 to 18 times. The
    alternative is better for few layers with flat spectra, as those of R.

    Args:
        A: a symmetric SciPy LinearOperator or matrix of shape (P, P), such as ``Hessian(lin)``.
        lin: a `Linearization`, or anything else that has its `layout`.
        groups: "layers", "tensors" or "channels". The output channels of a Keras layer are the last
            axis of dense and convolutional kernels, the last two of depthwise kernels (input
            channel and multiplier), the last but one of transposed convolutions, the output axes of
            an `EinsumDense`, and rows of embeddings; of each other tensor the last axis.
        num_products: products with A, at most; 4 or more. About 1.1 times as many vectors are in
            memory.
        scale: norm against which asymmetry is measured: ‖H‖ for R = H - G, as for `hvp.density`.
        seed: of the probes. The same seed gives the same probes to several operators, so that the
            errors of their `layer_shares` are small.
        rng: in place of `seed`, what `numpy.random.default_rng` takes (SPEC 7).
        progress: called with the number of products so far, a `hvp.Progress`.

    Raises:
        InputError: A is not symmetric, a product is not finite, the layout has another size, there
            are no such groups, or there are fewer than 4 products.

    >>> from types import SimpleNamespace
    >>> layout = SimpleNamespace(slices=(slice(0, 1), slice(1, 3)), layers={"a": (0,), "b": (1,)})
    >>> found = layer_traces(np.diag([1.0, 2.0, 3.0]), SimpleNamespace(layout=layout))
    >>> print(found.layers["b"].trace, "and", found.whole.squared_norm)
    5 ± 0 and 14 ± 0
    """
    seed = seed_of(seed, rng)
    counted = CountedOperator(A, progress, scale)
    counted.total = min(num_products, counted.shape[0])
    size = counted.shape[0]
    found = parameter_groups(lin, groups, size)
    is_exact = num_products >= size
    check_num_products(num_products, 1 if is_exact else MIN_PROBES)
    with few_threads(size):
        if is_exact:
            blocks, whole = _exact(counted, found)
        else:
            split = deflate(counted, num_products, np.random.default_rng(seed), MIN_PROBES)
            blocks = {group.name: _block(group, split, counted.count) for group in found}
            whole = _whole(split, counted.count)
        return LayerTraces(blocks, whole, counted.count, seed, groups)


def _block(group: Group, split: Deflated, num_products: int) -> BlockTraces:
    parts = [split.rows(part) for part in group.rows]

    def inner(first: str, second: str) -> np.ndarray:
        return np.sum([gram(getattr(part, first), getattr(part, second)) for part in parts], axis=0)

    forms, cross = inner("probes", "remainder"), inner("Q", "F")
    variance = sum(_entry_variance(part.probes, part.remainder) for part in parts)
    known = 2 * np.sum(inner("Q", "Q") * inner("F", "F")) + 2 * np.sum(cross * cross.T)
    along = (
        (inner("Q", "probes"), inner("F", "probes")),
        (inner("F", "remainder"), inner("Q", "remainder")),
    )
    mixed = sum((np.sum(u * v, axis=0) for u, v in zip(*along, strict=True)), np.zeros(len(forms)))
    pairs = known + mixed[:, None] + mixed + forms * forms.T
    traces = 2 * np.trace(cross) + np.diag(forms)
    s = len(forms)
    size_of_pairs = (np.sum(forms**2) - np.sum(np.diag(forms) ** 2)) / (s * (s - 1))
    pairs_error = student_factor(s - 1) * size_of_pairs * PAIRS_FACTOR * (MIN_PROBES / s) ** 2
    # The factors of the mixed term vary independently, to first order. Their products are skewed,
    # for which their variance is doubled.
    spread = sum(
        np.sum(np.mean(u**2, axis=1) * np.mean(v**2, axis=1)) for u, v in zip(*along, strict=True)
    )
    errors = trace_error(variance, s), float(np.hypot(pairs_error, trace_error(4 * spread, s)))
    found = _estimated(group.name, group.size, traces, pairs, errors, split, num_products)
    return _of_group(group, found)


def _entry_variance(probes: np.ndarray, remainder: np.ndarray) -> float:
    """The sum of the variances of the entries of ω ∘ Eω over the probes ω."""
    return float64_sum(
        lambda v, product: np.var(v * product, axis=1, ddof=1).sum(), probes, remainder
    )


def _whole(split: Deflated, num_products: int) -> BlockTraces:
    """As `_block`, but ⟨K, E⟩ = 0, and ‖Eω‖² has less variance than the form of two probes."""
    cross, squares = gram(split.Q, split.F), squared_lengths(split.remainder)
    known = 2 * np.trace(gram(split.F, split.F)) + 2 * np.sum(cross * cross.T)
    pairs = known + (squares[:, None] + squares) / 2
    forms = np.einsum("ps,ps->s", split.probes, split.remainder, dtype=np.float64)
    traces = 2 * np.trace(cross) + forms
    inner = gram(split.remainder, split.remainder)
    inner_squares = inner[~np.eye(len(inner), dtype=bool)] ** 2
    errors = (
        trace_error(_entry_variance(split.probes, split.remainder), len(squares)),
        squared_norm_error(squares, inner_squares, len(split.Q)),
    )
    return _estimated(WHOLE, len(split.Q), traces, pairs, errors, split, num_products)


def _estimated(
    name: str,
    size: int,
    traces: np.ndarray,
    pairs: np.ndarray,
    min_errors: tuple[float, float],
    split: Deflated,
    num_products: int,
) -> BlockTraces:
    method = DEFLATED if split.Q.shape[1] else HUTCHINSON
    np.fill_diagonal(pairs, 0.0)
    trace = float(traces.mean())
    stderr = max(float(standard_error_of_mean(traces)), min_errors[0])
    norm = float(pairs.sum() / (len(pairs) * (len(pairs) - 1)))
    norm_error = max(standard_error_of_pairs(pairs), min_errors[1])
    return BlockTraces(
        name,
        size,
        Estimate(trace, stderr, num_products, method=method),
        Estimate(norm, norm_error, num_products, method=method),
        traces,
        pairs,
    )


def _exact(
    A: CountedOperator, groups: Iterable[Group]
) -> tuple[dict[str, BlockTraces], BlockTraces]:
    """The blocks of the matrix itself, and the whole."""
    matrix = A.dense().astype(np.float64)

    def block(group: Group) -> BlockTraces:
        index = np.concatenate([np.arange(len(matrix))[part] for part in group.rows])
        own = matrix[np.ix_(index, index)]
        trace, norm = (
            Estimate(float(value), 0.0, A.count, method=UNIT_VECTORS)
            for value in (np.trace(own), np.sum(own**2))
        )
        nothing = np.empty(0), np.empty((0, 0))
        return _of_group(group, BlockTraces(group.name, len(own), trace, norm, *nothing))

    whole = Group(WHOLE, "", "", -1, (slice(0, len(matrix)),))
    return {group.name: block(group) for group in groups}, block(whole)


def _of_group(group: Group, block: BlockTraces) -> BlockTraces:
    return replace(block, layer=group.layer, tensor=group.tensor, channel=group.channel)


def standard_error_of_pairs(h: np.ndarray) -> float:
    """The standard error of U, the mean of h_bc (s, s) over pairs b ≠ c of s independent probes.

    It is √v times `student_factor`, with v the largest of three variances.

    - Var U = (4(s - 2) ζ₁ + 2 ζ₂) / s(s - 1), with ζ₁ the covariance of pairs that share a probe
      and ζ₂ the variance of a pair (Hoeffding 1948, section 5). Both are estimated without bias,
      from means over triples, pairs and pairs of disjoint pairs; an estimate below zero is set to
      zero.
    - The jackknife, which leaves out a probe at a time. It is never too small in the mean (Efron
      and Stein 1981).
    - 16/s² of the largest possible, 2 ζ₂/s, because ζ₁ ≤ ζ₂/2: from few probes, the first two may
      vanish by chance. From 16 probes on, it is below the first.
    """
    s = len(h)
    if s == 0:
        return 0.0
    h = h - h.sum() / (s * (s - 1))
    np.fill_diagonal(h, 0.0)
    sums, squares = h.sum(axis=1), np.sum(h**2)
    row_squares = np.sum(sums**2)
    disjoint = (2 * squares - 4 * row_squares) / (s * (s - 1) * (s - 2) * (s - 3))
    covariance = (row_squares - squares) / (s * (s - 1) * (s - 2)) - disjoint
    variance = squares / (s * (s - 1)) - disjoint
    unbiased = (4 * (s - 2) * max(covariance, 0.0) + 2 * max(variance, 0.0)) / (s * (s - 1))
    left_out = -2 * sums / ((s - 1) * (s - 2))
    jackknife = (s - 1) / s * np.sum(left_out**2)
    largest = 2 * squares / (s * (s - 1)) / s
    return student_factor(s - 1) * float(np.sqrt(max(unbiased, jackknife, 16 / s**2 * largest)))
