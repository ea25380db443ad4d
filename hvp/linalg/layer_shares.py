"""The shares of an operator in the traces and norms of another, layer by layer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from hvp.errors import InputError
from hvp.linalg.estimate import Estimate, standard_error_of_mean
from hvp.linalg.layer_traces import (
    SQUARED_NORM,
    BlockTraces,
    LayerTraces,
    standard_error_of_pairs,
)
from hvp.tables import ShownAsTable, Table


@dataclass(frozen=True, eq=False, repr=False)
class Share(ShownAsTable):
    """The ratios tr B_ll / tr A_ll and ‖B_ll‖²_F / ‖A_ll‖²_F of one layer, or of the whole."""

    name: str
    trace: Estimate[float]
    squared_norm: Estimate[float]

    def _table(self) -> Table:
        rows = [("trace", str(self.trace)), (SQUARED_NORM, str(self.squared_norm))]
        return Table(f"Share in {self.name}", (), rows)


@dataclass(frozen=True, eq=False, repr=False)
class LayerShares(ShownAsTable):
    """One `Share` per layer, in order, and that of the whole operators."""

    layers: Mapping[str, Share]
    whole: Share

    def rows(self) -> list[dict[str, float | str]]:
        """A dict for each block, as `pandas.DataFrame` takes them, and a last one for the whole."""
        return [
            {
                "layer": share.name,
                "trace": float(share.trace.value),
                "trace_stderr": float(share.trace.stderr),
                "squared_norm": float(share.squared_norm.value),
                "squared_norm_stderr": float(share.squared_norm.stderr),
            }
            for share in (*self.layers.values(), self.whole)
        ]

    def _table(self) -> Table:
        rows = [
            (share.name, str(share.trace), str(share.squared_norm))
            for share in (*self.layers.values(), self.whole)
        ]
        headings = ("layer", "trace", SQUARED_NORM)
        return Table(f"Shares in {len(self.layers):,} layers", headings, rows)


def layer_shares(part: LayerTraces, of: LayerTraces) -> LayerShares:
    """tr B_ll / tr A_ll and ‖B_ll‖²_F / ‖A_ll‖²_F, layer by layer, with standard errors.

    Both `part`, of B, and `of`, of A, must come from `layer_traces` with the same seed and number
    of products. Then both have the same probes, and the errors that they have in common cancel in
    the samples of B - ratio · A, whose standard errors these are (the delta method). NaN where a
    denominator is zero.

    Raises:
        InputError: these are no results of `layer_traces`, or their layers or probes differ.

    >>> from types import SimpleNamespace
    >>> from hvp import layer_traces
    >>> layout = SimpleNamespace(slices=(slice(0, 1), slice(1, 3)), layers={"a": (0,), "b": (1,)})
    >>> A, lin = np.diag([1.0, 2.0, 3.0]), SimpleNamespace(layout=layout)
    >>> print(layer_shares(layer_traces(A / 4, lin), layer_traces(A, lin)).layers["b"].trace)
    0.25 ± 0
    """
    for found in (part, of):
        if not isinstance(found, LayerTraces):
            raise InputError(
                "the traces of two operators",
                type(found).__name__,
                "pass hvp.layer_traces(hvp.GaussNewton(lin), lin), say",
            )
    if _layers_and_probes(part) != _layers_and_probes(of):
        raise InputError(
            "traces of the same layers from the same probes",
            " and ".join(
                f"{len(found.layers)} layers, {len(found.whole.traces)} probes, seed {found.seed}"
                for found in (part, of)
            ),
            "call layer_traces with the same lin, num_products and seed",
        )
    shares = {name: _share(part.layers[name], of.layers[name]) for name in of.layers}
    return LayerShares(shares, _share(part.whole, of.whole))


def _layers_and_probes(found: LayerTraces) -> tuple[Any, ...]:
    sizes = tuple((block.name, block.size) for block in found.layers.values())
    return sizes, found.seed, len(found.whole.traces)


def _share(part: BlockTraces, of: BlockTraces) -> Share:
    trace = _ratio(part.trace, of.trace, part.traces, of.traces, standard_error_of_mean)
    pairs = part.squared_norms, of.squared_norms
    norm = _ratio(part.squared_norm, of.squared_norm, *pairs, standard_error_of_pairs)
    return Share(part.name, trace, norm)


def _ratio(
    part: Estimate[float],
    of: Estimate[float],
    part_samples: np.ndarray,
    of_samples: np.ndarray,
    standard_error: Callable[[np.ndarray], Any],
) -> Estimate[float]:
    num_products = part.num_products + of.num_products
    if of.value == 0:
        return Estimate(np.nan, np.nan, num_products)
    ratio = part.value / of.value
    stderr = float(standard_error(part_samples - ratio * of_samples))
    return Estimate(ratio, stderr / abs(of.value), num_products)
