"""The chain rule H = G + R in quadratic forms, layer by layer."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hvp.errors import InputError, shown
from hvp.linalg.blocks import chunks, columns_within
from hvp.operators import Curvature

# A block of vectors takes at most this; its products with H, G and R as much again each.
MAX_BLOCK_BYTES = 256 << 20
NETWORK = "whole network"
SELECTION = "selected layers"


@dataclass(frozen=True)
class QuadraticForms:
    """One row of the chain rule: the quadratic forms of one layer's vector v.

    `rounding` is eps·‖v‖·‖Hv‖, with eps of the precision of the products.
    """

    layer: str
    vHv: float
    vGv: float
    vRv: float
    rounding: float

    @property
    def difference(self) -> float:
        """|vᵀHv - vᵀGv| relative to the larger of the two; 0 if both are 0."""
        gap = abs(self.vHv - self.vGv)
        return gap / max(abs(self.vHv), abs(self.vGv)) if gap else 0.0

    @property
    def equal(self) -> bool:
        """Whether vᵀHv and vᵀGv agree within 100 times `rounding`."""
        return abs(self.vHv - self.vGv) <= 100 * self.rounding


def chain_rule(lin: Curvature, v: np.ndarray | None = None) -> tuple[QuadraticForms, ...]:
    """The forms vᵀHv, vᵀGv and vᵀRv layer by layer, and of the whole network in a last row.

    The vector of a layer is v on that layer and zero elsewhere, so its form sees the layer's own
    block only. With piecewise linear activations R vanishes on every such block, and so it does on
    the last layer with any activation; across layers it does not, which the last row shows.

    Args:
        lin: a `Linearization` whose loss is a function of outputs.
        v: (P,), None for the layers' own weights: the kernels, or all of a layer that has none.

    Returns:
        One `QuadraticForms` a layer, in order. Where there are several, one more for all together:
        "whole network", or "selected layers" where only some were taken.

    Raises:
        InputError: a v of another shape or with NaN, or a loss that is not a function of outputs.

    >>> import numpy as np
    >>> from hvp import linearize_function
    >>> lin = linearize_function(
    ...     lambda z: z**2, [np.array(3.0), np.array(2.0)], outputs=lambda w: w[0] * w[1])
    >>> [(row.vHv, row.vGv, row.vRv) for row in chain_rule(lin)]
    [(72.0, 72.0, 0.0), (72.0, 72.0, 0.0), (432.0, 288.0, 144.0)]
    """
    layers = lin.layout.layers
    try:
        own = np.asarray(v, dtype=lin.dtype) if v is not None else _kernels(lin)
    except (TypeError, ValueError) as error:
        raise InputError("a vector of numbers", shown(v), "make it an array") from error
    if own.shape != (lin.size,):
        raise InputError(
            f"a vector of shape ({lin.size},)", own.shape, "give one entry a parameter"
        )
    parts = dict(layers)
    if len(layers) > 1:
        parts[whole_name(lin)] = tuple(range(len(lin.layout.slices)))
    names, found = list(parts), []
    for chunk in chunks(len(names), columns_at_once(lin)):
        V = np.zeros((lin.size, len(names[chunk])), lin.dtype)
        for column, name in zip(V.T, names[chunk], strict=True):
            for position in parts[name]:
                entries = lin.layout.slices[position]
                column[entries] = own[entries]
        products = [multiply(V) for multiply in (lin.hvp, lin.gnvp, lin.residual_vp)]
        forms = [np.einsum("pk,pk->k", V, A, dtype=np.float64) for A in products]
        sizes = np.linalg.norm(V, axis=0) * np.linalg.norm(products[0], axis=0)
        forms.append(np.finfo(lin.dtype).eps * sizes)
        found += [
            QuadraticForms(name, *map(float, row))
            for name, *row in zip(names[chunk], *forms, strict=True)
        ]
    return tuple(found)


def columns_at_once(lin: Curvature) -> int:
    """How many rows of the chain rule are computed in one block of vectors."""
    return columns_within(MAX_BLOCK_BYTES, lin.size, lin.dtype.itemsize)


def whole_name(lin: Curvature) -> str:
    """The name of the part that holds all parameters of a linearization."""
    return NETWORK if lin.is_whole else SELECTION


def _kernels(lin: Curvature) -> np.ndarray:
    """The weights, without the biases of layers that have kernels."""
    own = lin.theta.copy()
    for positions in lin.layout.layers.values():
        ranks = [len(lin.layout.shapes[i]) for i in positions]
        for position, rank in zip(positions, ranks, strict=True):
            if rank < 2 <= max(ranks):
                own[lin.layout.slices[position]] = 0
    return own
