"""`Linearization`: the products of a loss at one point, NumPy in and NumPy out.

The one place where arrays meet tensors. Products are summed over examples and divided once; each is
compiled once a batch shape.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import ArrayLike, DTypeLike

from hvp import autodiff
from hvp.audit import Finding
from hvp.errors import InputError
from hvp.params import Layout
from hvp.snapshot import UNTRACEABLE, Network, Programs, Snapshot, reason

Build = Callable[["_Batch", tf.Tensor], tf.Tensor]


class Linearization:
    """Products with H, G, R and J over the parameters chosen, at the point of a snapshot.

    ``H = G + R``: G = JᵀΛJ with J the Jacobian of the outputs and Λ the Hessian of the loss in the
    outputs, R the network's second derivatives weighted with the loss's slope. Penalties on weights
    are functions of the parameters themselves and belong to H and G alike.

    Every product takes a column ``(P,)`` or a block ``(P, K)`` and returns the same shape in
    `dtype`. Build one with `linearize` or `linearize_function`.

    Attributes:
        size: P, the number of parameters chosen.
        dtype: of the parameters and of every product, float32 or float64.
        names: ``layer/weight``, one a parameter tensor.
        layout: where each of them lies in a vector of P entries.
        num_examples: N, over all batches.
        num_batches: how many batches the data come in.
        findings: what the audit saw, see `hvp.audit.Finding`.
        accuracy: share of examples classified rightly, None where there are no classes.
        data_digest: SHA-256 of the data, the same however they are batched.
        weights_digest: SHA-256 of all that the loss was computed from beside the data: parameters,
            frozen weights, statistics.
        loss_name: of the loss.
        is_whole: whether all parameters of the loss are taken.

    >>> import hvp
    >>> lin = hvp.linearize_function(
    ...     lambda z: z**2, [np.array(1.0), np.array(2.0)], outputs=lambda w: w[0] * w[1])
    >>> v = np.array([1.0, 0.0])
    >>> lin.hvp(v).tolist(), lin.gnvp(v).tolist(), lin.residual_vp(v).tolist()
    ([8.0, 8.0], [8.0, 4.0], [0.0, 4.0])
    >>> lin.block("param1").hvp(np.array([1.0])).tolist()
    [2.0]
    """

    def __init__(self, snapshot: Snapshot, chosen: Sequence[int], *, ad: str, jit: bool):
        self._snapshot = snapshot
        self._chosen = tuple(chosen)
        self._ad = ad
        self._jit = jit
        self.layout: Layout = snapshot.layout.restrict(self._chosen)
        self._compiled: dict[Any, Callable[..., tf.Tensor]] = {}
        self.size: int = self.layout.size
        self.dtype: np.dtype = self.layout.dtype
        self.names: tuple[str, ...] = self.layout.names
        self.num_examples: int = snapshot.num_examples
        self.num_batches: int = snapshot.num_batches
        self.findings: tuple[Finding, ...] = snapshot.findings
        self.accuracy: float | None = snapshot.accuracy
        self.data_digest: str = snapshot.data_digest
        self.weights_digest: str = snapshot.weights_digest
        self.loss_name: str = snapshot.objective.loss_name
        self.is_whole: bool = len(self._chosen) == len(snapshot.values)

    def __repr__(self) -> str:
        return (
            f"Linearization(size={self.size}, dtype={self.dtype}, "
            f"num_examples={self.num_examples}, layers={list(self.layout.layers)})"
        )

    @property
    def theta(self) -> np.ndarray:
        """The parameters w as a flat vector (P,)."""
        return self.layout.join([self._snapshot.values[i] for i in self._chosen]).numpy()

    @property
    def has_outputs(self) -> bool:
        """Whether the loss is a function of outputs, so that J, G and R exist."""
        return self._snapshot.num_outputs > 0

    @property
    def num_outputs(self) -> int:
        """M: the number of entries of the outputs of all examples together, the rows of J."""
        self._require_outputs()
        return self._snapshot.num_outputs

    def loss(self) -> float:
        """L(w)."""
        return self._snapshot.loss

    def gradient(self) -> np.ndarray:
        """∇L(w), (P,)."""
        return self._summed(_gradient, tf.zeros([self.size], self.dtype))

    def hvp(self, v: ArrayLike) -> np.ndarray:
        """Hv = d/dε ∇L(w + εv), of the shape of v: (P,) or (P, K).

        Raises InputError for a v of another length or with NaN or infinity, as all products do.
        """
        return self._columns(v, lambda tangent: self._summed(ORDERS[self._ad], tangent))

    def gnvp(self, v: ArrayLike) -> np.ndarray:
        """Gv = JᵀΛJv, of the shape of v: (P,) or (P, K).

        Raises InputError where the loss is not a function of outputs.
        """
        self._require_outputs()
        return self._columns(v, lambda tangent: self._summed(_gauss_newton, tangent))

    def residual_vp(self, v: ArrayLike) -> np.ndarray:
        """Rv = Hv - Gv, of the shape of v: the tangent of Jᵀ∇ℓ with ∇ℓ held fixed.

        Raises InputError where the loss is not a function of outputs.
        """
        self._require_outputs()
        return self._columns(v, lambda tangent: self._summed(_residual, tangent))

    def jvp(self, v: ArrayLike) -> np.ndarray:
        """Jv, (M,) or (M, K): the outputs of all examples in order, flattened; not divided by N."""
        self._require_outputs()

        def column(tangent: tf.Tensor) -> np.ndarray:
            parts = [
                self._function(_jvp, batch)(tangent, *batch) for batch in self._snapshot.batches()
            ]
            return tf.concat(parts, axis=0).numpy()

        return self._columns(v, column)

    def vjp(self, u: ArrayLike) -> np.ndarray:
        """Jᵀu, (P,) or (P, K), for u of M rows."""
        self._require_outputs()

        def column(cotangent: tf.Tensor) -> np.ndarray:
            total, start = tf.zeros([self.size], self.dtype), 0
            for batch in self._snapshot.batches():
                rows = self._network(batch).rows
                part = cotangent[start : start + rows]
                total += self._function(_vjp, batch)(part, *batch)
                start += rows
            return total.numpy()

        return self._columns(u, column, rows=self.num_outputs)

    def block(self, layer: str | Sequence[str]) -> Linearization:
        """The same loss over some of the parameters, the others being constants.

        `layer` is a layer name, a parameter name, a glob, or several. Only what lies between these
        parameters and the loss is differentiated.
        """
        inside = self.layout.select(layer)
        chosen = [self._chosen[i] for i in inside]
        return Linearization(self._snapshot, chosen, ad=self._ad, jit=self._jit)

    def blocks(self) -> dict[str, Linearization]:
        """Layer name -> the linearization of that layer alone."""
        return {
            layer: Linearization(
                self._snapshot, [self._chosen[i] for i in inside], ad=self._ad, jit=self._jit
            )
            for layer, inside in self.layout.layers.items()
        }

    def _columns(
        self, v: ArrayLike, product: Callable[[tf.Tensor], np.ndarray], rows: int | None = None
    ) -> np.ndarray:
        """The product for a column, or for each column of a block."""
        block = _checked(v, self.size if rows is None else rows, self.dtype)
        if block.ndim == 1:
            return product(tf.convert_to_tensor(block))
        columns = [
            product(tf.convert_to_tensor(column)) for column in np.ascontiguousarray(block.T)
        ]
        if not columns:
            return np.empty((len(product(tf.zeros(len(block), self.dtype))), 0), self.dtype)
        return np.stack(columns, axis=1)

    def _summed(self, build: Build, tangent: tf.Tensor) -> np.ndarray:
        """Σ_b (product of batch b) / divisor + product of the penalty."""
        parts = (
            self._function(build, batch)(tangent, *batch) for batch in self._snapshot.batches()
        )
        result = functools.reduce(tf.add, parts).numpy() / self._snapshot.divisor
        if self._snapshot.penalty is not None and build is not _residual:
            result += self._penalty_function(build)(tangent).numpy()
        return result.astype(self.dtype, copy=False)

    def _function(self, build: Build, batch: Sequence[tf.Tensor]) -> Callable[..., tf.Tensor]:
        """The compiled product of one batch shape: flat vector and batch in, flat vector out."""
        programs = self._snapshot.programs(batch)
        key = (build, programs)
        if key not in self._compiled:
            rows = self._network(batch).rows if build is _vjp else self.size
            self._compiled[key] = self._compile(build, programs, rows, batch)
        return self._compiled[key]

    def _penalty_function(self, build: Build) -> Callable[..., tf.Tensor]:
        # The penalty is its own output: its Gauss-Newton matrix is its Hessian.
        build = ORDERS[self._ad] if build is _gauss_newton else build
        programs = self._snapshot.penalty
        assert programs is not None
        key = (build, programs)
        if key not in self._compiled:
            self._compiled[key] = self._compile(build, programs, self.size, [])
        return self._compiled[key]

    def _compile(
        self, build: Build, programs: Programs, rows: int, batch: Sequence[tf.Tensor]
    ) -> Callable[..., tf.Tensor]:
        def product(vector: tf.Tensor, *batch: tf.Tensor) -> tf.Tensor:
            return build(_Batch(self, programs, batch), vector)

        compiled = tf.function(product, autograph=False, jit_compile=self._jit)
        specs = [tf.TensorSpec(tensor.shape, tensor.dtype) for tensor in batch]
        with _told_in_a_line(UNTRACEABLE):
            concrete = compiled.get_concrete_function(tf.TensorSpec([rows], self.dtype), *specs)

        def call(vector: tf.Tensor, *batch: tf.Tensor) -> tf.Tensor:
            with _told_in_a_line((tf.errors.OpError,)):
                return concrete(vector, *batch)

        return call

    def _network(self, batch: Sequence[tf.Tensor]) -> Network:
        network = self._snapshot.programs(batch).network
        assert network is not None  # _require_outputs has looked
        return network

    def _require_outputs(self) -> None:
        if not self.has_outputs:
            raise InputError(
                "a loss that is a function of outputs (J, G and R need them)",
                "a loss that sees its parameters another way",
                "give linearize_function outputs=",
            )


class _Batch:
    """The functions of one batch over the chosen parameters, the others being constants."""

    def __init__(self, lin: Linearization, programs: Programs, batch: Sequence[tf.Tensor]):
        self._values = lin._snapshot.values
        self._chosen = lin._chosen
        self._programs = programs
        self._batch = batch
        self.split = lin.layout.split
        self.join = lin.layout.join
        self.params = [tf.identity(self._values[i]) for i in self._chosen]

    def loss(self, params: autodiff.Tensors) -> tf.Tensor:
        return self._programs.loss.replay(*self._all(params), *self._batch)

    @property
    def network(self) -> Network:
        assert self._programs.network is not None
        return self._programs.network

    def outputs(self, params: autodiff.Tensors) -> tf.Tensor:
        return self.network.outputs.replay(*self._all(params), *self._batch)

    def loss_of(self, z: tf.Tensor) -> tf.Tensor:
        return self.network.loss_of.replay(z, *self._batch)

    def _all(self, params: autodiff.Tensors) -> list[tf.Tensor]:
        values = list(self._values)
        for position, param in zip(self._chosen, params, strict=True):
            values[position] = param
        return values


def _gradient(batch: _Batch, _: tf.Tensor) -> tf.Tensor:
    return batch.join(autodiff.gradient(batch.loss, batch.params))


def _forward_over_reverse(batch: _Batch, v: tf.Tensor) -> tf.Tensor:
    return batch.join(autodiff.forward_over_reverse(batch.loss, batch.params, batch.split(v)))


def _reverse_over_reverse(batch: _Batch, v: tf.Tensor) -> tf.Tensor:
    return batch.join(autodiff.reverse_over_reverse(batch.loss, batch.params, batch.split(v)))


def _gauss_newton(batch: _Batch, v: tf.Tensor) -> tf.Tensor:
    return batch.join(
        autodiff.gauss_newton(batch.outputs, batch.loss_of, batch.params, batch.split(v))
    )


def _residual(batch: _Batch, v: tf.Tensor) -> tf.Tensor:
    return batch.join(autodiff.residual(batch.outputs, batch.loss_of, batch.params, batch.split(v)))


def _jvp(batch: _Batch, v: tf.Tensor) -> tf.Tensor:
    _, jv = autodiff.jvp(batch.outputs, batch.params, batch.split(v))
    return tf.cast(tf.reshape(jv, [-1]), v.dtype)


def _vjp(batch: _Batch, u: tf.Tensor) -> tf.Tensor:
    cotangent = tf.reshape(u, batch.network.shape)
    return batch.join(autodiff.vjp(batch.outputs, batch.params, cotangent))


ORDERS: dict[str, Build] = {
    "auto": _forward_over_reverse,
    "forward-over-reverse": _forward_over_reverse,
    "reverse-over-reverse": _reverse_over_reverse,
}


@contextlib.contextmanager
def _told_in_a_line(kinds: tuple[type[Exception], ...]) -> Iterator[None]:
    """What TensorFlow refuses in a product, as an InputError."""
    try:
        yield
    except InputError:
        raise
    except kinds as error:
        raise InputError(
            "operations that TensorFlow differentiates and runs on this machine",
            repr(reason(error)),
            'try ad="reverse-over-reverse", the other jit= or float32, or replace the operation',
        ) from error


def _checked(v: ArrayLike, rows: int, dtype: DTypeLike) -> np.ndarray:
    """A vector or block of the right length and precision, finite."""
    try:
        block = np.asarray(v)
    except ValueError as error:
        raise InputError("a vector or a block", "a ragged list", "make it an array") from error
    if block.ndim not in (1, 2) or block.shape[0] != rows:
        raise InputError(
            f"a vector of shape ({rows},) or a block ({rows}, K)", block.shape, "check its length"
        )
    if not np.issubdtype(block.dtype, np.number) or np.iscomplexobj(block):
        raise InputError("a real vector", f"dtype {block.dtype}", "take its real part")
    with np.errstate(over="ignore"):  # what overflows is not finite
        block = block.astype(dtype, copy=False)
    if not np.isfinite(block).all():
        raise InputError("a finite vector", "NaN or infinity in v", "check where it comes from")
    return block
