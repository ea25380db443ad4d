"""The products: what each computes on one batch, and in which orders it can be differentiated.

All that depends on a product is a field of `Product`: no other module asks which one it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum

import numpy as np
import tensorflow as tf

from hvp.autodiff import curvature
from hvp.autodiff.curvature import Mode, Tensors
from hvp.errors import InputError
from hvp.linearization.batch_functions import BatchFunctions

Build = Callable[[Mode, BatchFunctions, list[tf.Tensor]], list[tf.Tensor]]


def _hessian(mode: Mode, batch: BatchFunctions, tangents: list[tf.Tensor]) -> list[tf.Tensor]:
    return mode.hessian(batch.loss, batch.params, tangents)


def _gauss_newton(mode: Mode, batch: BatchFunctions, tangents: list[tf.Tensor]) -> list[tf.Tensor]:
    if batch.network is None:
        # A penalty is a function of the parameters alone: G takes its Hessian whole.
        return _hessian(mode, batch, tangents)
    return curvature.gauss_newton(batch.outputs, batch.loss_of, batch.params, tangents, mode)


def _fisher(mode: Mode, batch: BatchFunctions, tangents: list[tf.Tensor]) -> list[tf.Tensor]:
    def curve(z: Tensors, u: Tensors) -> list[tf.Tensor]:
        return mode.hessian(batch.expected_of, z, u)

    return curvature.sandwich(batch.outputs, curve, batch.params, tangents, mode)


def _empirical(mode: Mode, batch: BatchFunctions, tangents: list[tf.Tensor]) -> list[tf.Tensor]:
    return curvature.sandwich(batch.outputs, batch.outer, batch.params, tangents, mode)


def _residual(mode: Mode, batch: BatchFunctions, tangents: list[tf.Tensor]) -> list[tf.Tensor]:
    return curvature.residual(batch.outputs, batch.loss_of, batch.params, tangents, mode)


def _all_three(mode: Mode, batch: BatchFunctions, tangents: list[tf.Tensor]) -> list[tf.Tensor]:
    if batch.network is None:
        curved = _hessian(mode, batch, tangents)
        return [*curved, *curved, *(tf.zeros_like(t) for t in tangents)]
    parts = (_hessian, _gauss_newton, _residual)
    return [tensor for part in parts for tensor in part(mode, batch, tangents)]


def _jvp(mode: Mode, batch: BatchFunctions, tangents: list[tf.Tensor]) -> list[tf.Tensor]:
    _, jv = mode.jvp(batch.outputs, batch.params, tangents)
    return [tf.cast(t, tangents[0].dtype) for t in jv]


def _vjp(mode: Mode, batch: BatchFunctions, cotangents: list[tf.Tensor]) -> list[tf.Tensor]:
    return curvature.vjp(batch.outputs, batch.params, cotangents)


class Space(Enum):
    """A vector space that products map from or to."""

    PARAMETERS = "parameters"  # of dimension P
    OUTPUTS = "outputs"  # of dimension M, the entries of the outputs of all examples


@dataclass(frozen=True, eq=False, kw_only=True)
class Product:
    """A linear map of one batch, and all that depends on which map it is.

    A product into the parameters is summed over the batches; one into the outputs is concatenated.

    Attributes:
        name: what findings and `Choice` call it.
        build: gives the product with the tangents on a batch, differentiated in a mode.
        modes: order of differentiation -> the mode to build it in.
        loop_modes: the same for programs whose loops or branches depend on the parameters.
        has_penalty: whether the penalties on weights are a term of the sum, as in H and G. Then
            `build` is called for them too, with a batch whose `network` is None.
        needs_outputs: whether it is defined only where the loss is a function of outputs.
        domain, codomain: the spaces of the vector and of the product.
        count: how many products into the codomain it gives, one after the other.
        seed: of the random numbers of each batch, None where there are none.
    """

    name: str
    build: Build
    modes: Mapping[str, Mode]
    loop_modes: Mapping[str, Mode]
    has_penalty: bool
    needs_outputs: bool = True
    domain: Space = Space.PARAMETERS
    codomain: Space = Space.PARAMETERS
    count: int = 1
    seed: int | None = None


# Orders of differentiation, as the argument `ad` names them.
FORWARD, REVERSE = "forward-over-reverse", "reverse-over-reverse"
ORDERS = ("auto", FORWARD, REVERSE)

_FORWARD_ONLY = {FORWARD: curvature.FORWARD_MODE}
_REVERSE_ONLY = {REVERSE: curvature.REVERSE_MODE}
# JᵀΛJ: Jv, then Λ times it, then Jᵀ times that.
_SANDWICH = {"forward, then reverse": curvature.FORWARD_MODE}
_SANDWICH_WITH_LOOPS = {"reverse, twice, then reverse": curvature.REVERSE_MODE}
_TRANSPOSED = {"reverse": curvature.REVERSE_MODE}

H = Product(
    name="H",
    build=_hessian,
    modes=_FORWARD_ONLY | _REVERSE_ONLY,
    loop_modes=_REVERSE_ONLY,
    has_penalty=True,
    needs_outputs=False,
)
G = Product(
    name="G",
    build=_gauss_newton,
    modes=_SANDWICH,
    loop_modes=_SANDWICH_WITH_LOOPS,
    has_penalty=True,
)
R = Product(
    name="R",
    build=_residual,
    modes=_FORWARD_ONLY,
    loop_modes=_REVERSE_ONLY,
    has_penalty=False,
)
HGR = Product(
    name="H, G and R",
    build=_all_three,
    modes=_FORWARD_ONLY,
    loop_modes=_REVERSE_ONLY,
    has_penalty=True,
    count=3,
)
FISHER = Product(
    name="F",
    build=_fisher,
    modes=_SANDWICH,
    loop_modes=_SANDWICH_WITH_LOOPS,
    has_penalty=False,
)
EMPIRICAL = Product(
    name="E",
    build=_empirical,
    modes=_SANDWICH,
    loop_modes=_SANDWICH_WITH_LOOPS,
    has_penalty=False,
)
J = Product(
    name="J",
    build=_jvp,
    modes={"forward": curvature.FORWARD_MODE},
    loop_modes={"reverse, twice": curvature.REVERSE_MODE},
    has_penalty=False,
    codomain=Space.OUTPUTS,
)
JT = Product(
    name="Jᵀ",
    build=_vjp,
    modes=_TRANSPOSED,
    loop_modes=_TRANSPOSED,
    has_penalty=False,
    domain=Space.OUTPUTS,
)


# Name -> products, as operators and `products` use them.
PREPARED = {
    **{product.name: (product,) for product in (H, G, R)},
    "HGR": (HGR,),
    "F": (FISHER,),
    "E": (EMPIRICAL,),
    "J": (J, JT),
}


def by_letter(matrix: str) -> Product:
    """The product with "H", "G" or "R". Raises InputError for another letter."""
    products = {product.name: product for product in (H, G, R)}
    if matrix not in products:
        raise InputError("one of H, G and R", matrix, "name it by its letter")
    return products[matrix]


def prepared(name: str) -> tuple[Product, ...]:
    """What `Linearization.prepare` prepares by this name. Raises InputError for another name."""
    if not isinstance(name, str) or name not in PREPARED:
        raise InputError(f"one of {', '.join(PREPARED)}", name, "name products by letters")
    return PREPARED[name]


def sampled_fisher(num_samples: int, seed: int) -> Product:
    """The Fisher matrix with its expectation replaced by a mean over draws of every target.

    Raises InputError for no samples, and for a seed that is not a whole number from 0.
    """
    are_whole = all(isinstance(number, int | np.integer) for number in (num_samples, seed))
    if not are_whole or num_samples < 1 or seed < 0:
        raise InputError("at least one sample and a seed from 0", (num_samples, seed), "draw more")

    def build(mode: Mode, batch: BatchFunctions, tangents: list[tf.Tensor]) -> list[tf.Tensor]:
        def curve(z: Tensors, u: Tensors) -> list[tf.Tensor]:
            return batch.outer_of_draws(z, u, num_samples)

        return curvature.sandwich(batch.outputs, curve, batch.params, tangents, mode)

    return Product(
        name=f"F of {num_samples} draws",
        build=build,
        modes=_SANDWICH,
        loop_modes=_SANDWICH_WITH_LOOPS,
        has_penalty=False,
        seed=seed,
    )
