"""The peers on JAX: `jvp(grad)`, `linearize`, and matfree's Lanczos on top of `linearize`."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse.linalg
from jax import Array

from bench.backends.implementation import LARGEST, TOLERANCE, Call, Forms, Implementation
from bench.measurements.problems import (
    EPSILON,
    Conv,
    Dense,
    Encoder,
    GlobalAverage,
    Layer,
    MaxPool,
    Problem,
    data,
    layer_weights,
    values,
)

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "tanh": jnp.tanh,
    "relu": jax.nn.relu,
    "linear": lambda x: x,
}

# The known part (all that does not depend on v), and a pure function (known part, v) -> product.
Linear = tuple[Any, Callable[[Any, Array], Array]]


class _JaxImplementation(Implementation):
    """What all peers on JAX share: pure functions, weights, data and gradient.

    Weights, data and known parts are arguments of compiled functions, because XLA would evaluate
    constants at compile time.
    """

    def __init__(self, problem: Problem):
        super().__init__(problem)
        self._problem = problem
        x, y = data(problem)
        self._w = [jnp.asarray(array) for array in values(problem)]
        self._x, self._y = jnp.asarray(x), jnp.asarray(y)

    def forms(self, figure: str) -> Forms:
        match figure:
            case "hvp" | "gnvp":
                return {"jit": lambda: self._call(figure)}
            case "hvp_block" | "gnvp_block":
                kind = figure.removesuffix("_block")
                return {"vmap": lambda: self._block(kind), "loop": lambda: self._loop(kind)}
            case "gradient":
                return {"jit": self._gradient}
        return {}

    def linear(self, figure: str) -> Linear:
        """The known part and the linear function of a product, "hvp" or "gnvp"."""
        raise NotImplementedError

    def _call(self, figure: str) -> Call:
        known, product = self.linear(figure)
        compiled = jax.jit(product)
        return lambda v: np.asarray(compiled(known, v))

    def _block(self, figure: str) -> Call:
        known, product = self.linear(figure)
        compiled = jax.jit(jax.vmap(product, in_axes=(None, 1), out_axes=1))
        return lambda V: np.asarray(compiled(known, V))

    def _loop(self, figure: str) -> Call:
        call = self._call(figure)
        return lambda V: np.stack([call(v) for v in np.ascontiguousarray(V.T)], axis=1)

    def _gradient(self) -> Call:
        compiled = jax.jit(lambda w, x, y: _join(jax.grad(self.loss)(w, x, y)))
        return lambda _: np.asarray(compiled(self._w, self._x, self._y))

    def loss(self, w: list[Array], x: Array, y: Array) -> Array:
        return _cross_entropy(self.outputs(w, x), y)

    def outputs(self, w: list[Array], x: Array) -> Array:
        """The logits (N, classes)."""
        weights = iter(w)
        for layer in self._problem.layers:
            x = _apply(layer, [next(weights) for _ in layer_weights(layer)], x)
        return x

    def split(self, v: Array) -> list[Array]:
        ends = np.cumsum([weight.size for weight in self._problem.weights])[:-1]
        shapes = [weight.shape for weight in self._problem.weights]
        return [part.reshape(s) for part, s in zip(jnp.split(v, ends), shapes, strict=True)]


class JvpGrad(_JaxImplementation):
    """Forward over reverse, compiled as one function: nothing is kept between products."""

    def linear(self, figure: str) -> Linear:
        return (self._w, self._x, self._y), (self._hvp if figure == "hvp" else self._gnvp)

    def _hvp(self, known: Any, v: Array) -> Array:
        w, x, y = known
        return _join(jax.jvp(lambda w: jax.grad(self.loss)(w, x, y), (w,), (self.split(v),))[1])

    def _gnvp(self, known: Any, v: Array) -> Array:
        w, x, y = known
        z, jv = jax.jvp(lambda w: self.outputs(w, x), (w,), (self.split(v),))
        _, pull = jax.vjp(lambda w: self.outputs(w, x), w)
        return _join(pull(_loss_hessian_product(z, y, jv))[0])


class Linearize(_JaxImplementation):
    """`jax.linearize` of the gradient or of the outputs; its linear function is compiled."""

    def linear(self, figure: str) -> Linear:
        return self._hessian() if figure == "hvp" else self._gauss_newton()

    def _hessian(self) -> Linear:
        @jax.jit
        def known(w: list[Array], x: Array, y: Array) -> Any:
            return jax.linearize(lambda w: jax.grad(self.loss)(w, x, y), w)[1]

        return known(self._w, self._x, self._y), lambda push, v: _join(push(self.split(v)))

    def _gauss_newton(self) -> Linear:
        @jax.jit
        def known(w: list[Array], x: Array) -> Any:
            z, push = jax.linearize(lambda w: self.outputs(w, x), w)
            return z, push, jax.vjp(lambda w: self.outputs(w, x), w)[1]

        def product(known: Any, v: Array) -> Array:
            z, push, pull, y = known
            return _join(pull(_loss_hessian_product(z, y, push(self.split(v))))[0])

        return (*known(self._w, self._x), self._y), product

    def largest(self, figure: str, steps: int | None) -> np.ndarray:
        start = np.random.default_rng(0).standard_normal(self._problem.size, dtype=np.float32)
        operator = scipy.sparse.linalg.LinearOperator(
            (start.size, start.size), matvec=self._call(figure), dtype=start.dtype
        )
        _, vectors = scipy.sparse.linalg.eigsh(
            operator, LARGEST, which="LA", tol=TOLERANCE, v0=start
        )
        return vectors


class Matfree(Linearize):
    """matfree's Lanczos without restarts, on the products of `jax.linearize`."""

    def forms(self, figure: str) -> Forms:
        return {}

    def largest(self, figure: str, steps: int | None) -> np.ndarray:
        from matfree import decomp, eig

        assert steps is not None
        start = np.random.default_rng(0).standard_normal(self._problem.size, dtype=np.float32)
        known, product = self.linear(figure)
        lanczos = eig.eigh_partial(decomp.tridiag_sym(steps, reortho="full"))
        values_, rows = jax.jit(
            lambda start, known: lanczos(lambda v, known: product(known, v), start, known)
        )(start, known)
        return np.asarray(rows)[np.argsort(np.asarray(values_))[-LARGEST:]].T


def _loss_hessian_product(z: Array, y: Array, jv: Array) -> Array:
    """The Hessian of the loss in the outputs, times Jv."""
    return jax.jvp(jax.grad(lambda z: _cross_entropy(z, y)), (z,), (jv,))[1]


def _cross_entropy(z: Array, y: Array) -> Array:
    chosen = jnp.take_along_axis(jax.nn.log_softmax(z), y[:, None], axis=1)
    return -chosen.mean()


def _join(arrays: list[Array]) -> Array:
    return jnp.concatenate([array.ravel() for array in arrays])


def _apply(layer: Layer, w: list[Array], x: Array) -> Array:
    match layer:
        case Dense():
            return ACTIVATIONS[layer.activation](x @ w[0] + w[1])
        case Conv():
            names = ("NHWC", "HWIO", "NHWC")
            z = jax.lax.conv_general_dilated(x, w[0], (1, 1), "SAME", dimension_numbers=names)
            return ACTIVATIONS[layer.activation](z + w[1])
        case MaxPool():
            window = (1, 2, 2, 1)
            return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, window, window, "VALID")
        case GlobalAverage():
            return x.mean(axis=tuple(range(1, x.ndim - 1)))
        case Encoder():
            return _encoder(w, x)


def _encoder(w: list[Array], x: Array) -> Array:
    x = x + _attention(w[2:10], _layer_norm(x, *w[:2]))
    hidden = jax.nn.gelu(_layer_norm(x, *w[10:12]) @ w[12] + w[13], approximate=False)
    return x + hidden @ w[14] + w[15]


def _attention(w: list[Array], x: Array) -> Array:
    query, key, value = (jnp.einsum("blw,whd->blhd", x, w[i]) + w[i + 1] for i in (0, 2, 4))
    scores = jnp.einsum("blhd,bmhd->bhlm", query, key) / math.sqrt(query.shape[-1])
    mixed = jnp.einsum("bhlm,bmhd->blhd", jax.nn.softmax(scores), value)
    return jnp.einsum("blhd,hdw->blw", mixed, w[6]) + w[7]


def _layer_norm(x: Array, scale: Array, shift: Array) -> Array:
    mean = x.mean(axis=-1, keepdims=True)
    variance = ((x - mean) ** 2).mean(axis=-1, keepdims=True)
    return (x - mean) / jnp.sqrt(variance + EPSILON) * scale + shift
