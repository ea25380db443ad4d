"""`Linearization`: the products of a loss at one point, NumPy in and NumPy out.

What of a product does not depend on the vector runs once a batch and is kept while it fits; the
rest is linear and runs for each vector. Products are sums over the batches.
"""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import tensorflow as tf
from numpy.typing import ArrayLike, DTypeLike

from hvp.autodiff import curvature, tensorflow_private
from hvp.autodiff.tensorflow_errors import REFUSALS, raise_own, reason
from hvp.errors import Finding, InputError
from hvp.linearization import transfer
from hvp.linearization.batch_programs import BatchPrograms
from hvp.linearization.batch_sum import BatchSum, Choice
from hvp.linearization.cache import SavedTensorCache
from hvp.linearization.forecast import LONG, Forecast, forecast
from hvp.linearization.products import (
    EMPIRICAL,
    FISHER,
    HGR,
    JT,
    Batch,
    G,
    H,
    J,
    Product,
    R,
    sampled_fisher,
)
from hvp.linearization.snapshot import Snapshot
from hvp.objective.parameters import Layout
from hvp.sampling_error import BatchForms, BatchGrams

Result = TypeVar("Result")


def _told_in_a_line(method: Callable[..., Result]) -> Callable[..., Result]:
    """What TensorFlow refuses in a product, as an InputError."""

    @functools.wraps(method)
    def told(*arguments: Any) -> Result:
        try:
            return method(*arguments)
        except InputError:
            raise
        except REFUSALS as error:
            raise_own(error)
            raise InputError(
                "operations that TensorFlow differentiates and runs on this machine",
                repr(reason(error)),
                'try ad="reverse-over-reverse", the other jit= or float32, or another operation',
            ) from error

    return told


@dataclass(frozen=True)
class Memory:
    """Bytes of the products made so far.

    Attributes:
        budget: the most that may be kept between products, for all blocks together.
        kept: what is kept now.
        kept_batches, batches: frontiers kept, and those that there are.
        product: what one product takes beside frontier, vector and result, at the most; batches
            that run in one call because they are small may take 16 MiB together.
    """

    budget: int
    kept: int
    kept_batches: int
    batches: int
    product: int


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
        findings: what the audit saw, see `hvp.errors.Finding`; products may add to it.
        choices: how each product runs and what else was tried, see `Choice`.
        memory: what is kept between products and what they take, see `Memory`.
        forecast: time and memory of a product, estimated before the first, see `Forecast`.
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

    def __init__(
        self,
        snapshot: Snapshot,
        chosen: Sequence[int],
        frontiers: SavedTensorCache,
        *,
        ad: str,
        jit: str | bool,
    ):
        self._snapshot = snapshot
        self._chosen = tuple(chosen)
        self._frontiers = frontiers
        self._ad = ad
        self._jit = jit
        self.layout: Layout = snapshot.layout.restrict(self._chosen)
        self._staging = transfer.TransferBuffers()
        self._lock = threading.RLock()
        self._sums = BatchSum(snapshot, self._chosen, frontiers, ad=ad, jit=jit)
        self._functions: dict[tuple[str, BatchPrograms], Callable[..., list[tf.Tensor]]] = {}
        self._draws: dict[tuple[int, int], Product] = {}
        self.size: int = self.layout.size
        self.dtype: np.dtype = self.layout.dtype
        self.names: tuple[str, ...] = self.layout.names
        self.num_examples: int = snapshot.num_examples
        self.num_batches: int = snapshot.num_batches
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
    @_told_in_a_line
    def is_convex(self) -> bool:
        """Whether the loss was found convex in the outputs, so that G is positive semidefinite."""
        return self.has_outputs and self._snapshot.is_convex

    @property
    def num_outputs(self) -> int:
        """M: the number of entries of the outputs of all examples together, the rows of J."""
        self._require_outputs()
        return self._snapshot.num_outputs

    def loss(self) -> float:
        """L(w)."""
        return self._snapshot.loss

    @property
    def findings(self) -> tuple[Finding, ...]:
        found = [*self._snapshot.findings, *self._sums.notes, *self._memory_findings()]
        if self.has_outputs and not self.is_convex:
            message = "not convex in the outputs at this point: G may have negative eigenvalues"
            found.append(Finding("note", "the loss", message))
        return tuple(found)

    @functools.cached_property
    def forecast(self) -> Forecast:
        """What a product with H will take, see `Forecast`."""
        return forecast(self._snapshot)

    def _memory_findings(self) -> list[Finding]:
        memory = self.memory
        if not memory.batches:
            return self._forecast_findings()
        if memory.kept_batches == memory.batches:
            return []
        message = (
            f"what {memory.kept_batches} of {memory.batches} batches leave for later products is "
            f"kept, {_mib(memory.kept)} in a budget of {_mib(memory.budget)}; the others are "
            f"computed anew. A product takes {_mib(memory.product)} beside its vectors"
        )
        return [Finding("note", "memory", message, remedy="raise cache= where there is room")]

    def _forecast_findings(self) -> list[Finding]:
        told = self.forecast
        if told.seconds < LONG and told.kept <= self._frontiers.budget:
            return []
        remedy = "take fewer examples, or layers by variables=, where that is too long"
        if told.kept > self._frontiers.budget:
            remedy = f"what is beyond the budget of {_mib(self._frontiers.budget)} is computed anew"
        return [Finding("note", "products", str(told), remedy=remedy)]

    @property
    def choices(self) -> tuple[Choice, ...]:
        return tuple(self._sums.choices)

    @property
    def memory(self) -> Memory:
        maps = list(self._sums.maps.values())
        return Memory(
            budget=self._frontiers.budget,
            kept=self._frontiers.bytes,
            kept_batches=self._frontiers.count(maps),
            batches=self._sums.num_terms,
            product=max((linear_map.product_bytes for linear_map in maps), default=0),
        )

    def gradient(self, theta: ArrayLike | None = None) -> np.ndarray:
        """∇L, (P,), at w or at other parameters `theta` (P,)."""
        return functools.reduce(np.add, self._at(theta, "gradient"))

    def outputs(self, theta: ArrayLike | None = None) -> np.ndarray:
        """The outputs z, (M,), in the order of the rows of J, at w or at other parameters `theta`.

        Raises InputError where the loss is not a function of outputs.
        """
        self._require_outputs()
        return np.concatenate(self._at(theta, "outputs"))

    @_told_in_a_line
    def _at(self, theta: ArrayLike | None, what: str) -> list[np.ndarray]:
        """Gradients or outputs of the batches at some parameters."""
        at = self.theta if theta is None else _checked(theta, self.size, self.dtype)
        if at.ndim != 1:
            raise InputError(f"parameters of shape ({self.size},)", at.shape, "pass one vector")
        vector = tf.constant(at)
        pieces = self._sums.pieces(H if what == "gradient" else J)
        return [self._function(what, p, batch)([vector, *batch])[0].numpy() for p, batch in pieces]

    def _function(
        self, what: str, programs: BatchPrograms, batch: Sequence[tf.Tensor]
    ) -> Callable[[list[tf.Tensor]], list[tf.Tensor]]:
        """Gradients or outputs as a compiled function of parameters and batch."""

        def gradient(theta: tf.Tensor, *tensors: tf.Tensor) -> tf.Tensor:
            functions = Batch(self._snapshot, self._chosen, programs, tensors)
            grads = curvature.gradient(functions.loss, self.layout.split(theta))
            return self.layout.join(grads)

        def outputs(theta: tf.Tensor, *tensors: tf.Tensor) -> tf.Tensor:
            functions = Batch(self._snapshot, self._chosen, programs, tensors)
            z = functions.outputs(self.layout.split(theta))
            return tf.concat([tf.reshape(tf.cast(t, self.dtype), [-1]) for t in z], axis=0)

        with self._lock:
            if (what, programs) not in self._functions:
                specs = [tf.TensorSpec(t.shape, t.dtype) for t in batch]
                theta = tf.TensorSpec([self.size], self.dtype)
                function = gradient if what == "gradient" else outputs
                self._functions[what, programs] = tensorflow_private.compiled(
                    function, [theta, *specs]
                )
            return self._functions[what, programs]

    def hvp(self, v: ArrayLike) -> np.ndarray:
        """Hv = d/dε ∇L(w + εv), of the shape of v: (P,) or (P, K).

        Raises InputError for a v of another length or with NaN or infinity, as all products do.
        """
        return self._product(H, v)

    def gnvp(self, v: ArrayLike) -> np.ndarray:
        """Gv = JᵀΛJv, of the shape of v: (P,) or (P, K).

        Raises InputError where the loss is not a function of outputs.
        """
        self._require_outputs()
        return self._product(G, v)

    def residual_vp(self, v: ArrayLike) -> np.ndarray:
        """Rv = Hv - Gv, of the shape of v: the tangent of Jᵀ∇ℓ with ∇ℓ held fixed.

        Raises InputError where the loss is not a function of outputs.
        """
        self._require_outputs()
        return self._product(R, v)

    def fisher_vp(self, v: ArrayLike, num_samples: int | None = None, seed: int = 0) -> np.ndarray:
        """Fv = Jᵀ E_y[∇²ℓ(z, y)] Jv with y as the outputs say, of the shape of v.

        With `num_samples` the expectation is a mean over so many draws of every target. Penalties
        are no part of it. Raises InputError where the loss is not known as a likelihood: it has to
        be a cross-entropy or the mean of squares.
        """
        self._require_likelihood(known=True)
        if num_samples is None:
            return self._product(FISHER, v)
        whole = isinstance(num_samples, int | np.integer) and isinstance(seed, int | np.integer)
        if not whole or num_samples < 1 or seed < 0:
            raise InputError(
                "at least one sample and a seed from 0", (num_samples, seed), "draw more"
            )
        with self._lock:
            key = num_samples, seed
            product = self._draws.setdefault(key, sampled_fisher(num_samples, seed))
        return self._product(product, v)

    def empirical_fisher_vp(self, v: ArrayLike) -> np.ndarray:
        """Σᵢ fᵢ ∇ℓᵢ ∇ℓᵢᵀv over the loss values ℓᵢ, fᵢ being what ℓᵢ counts for in the loss.

        Penalties are no part of it. Raises InputError where there are no loss values.
        """
        self._require_likelihood(known=False)
        return self._product(EMPIRICAL, v)

    def products(self, v: ArrayLike) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Hv, Gv and Rv, each of the shape of v, with what they share computed once.

        They are three products all the same: H is not the sum of the others.
        Raises InputError where the loss is not a function of outputs.
        """
        self._require_outputs()
        Hv, Gv, Rv = np.split(self._product(HGR, v), 3)
        return Hv, Gv, Rv

    def batch_forms(self, v: ArrayLike, matrix: str = "H") -> BatchForms:
        """vᵀAv of each batch's share A of H, G or R, for a v of shape (P,) or each of (P, K).

        What other data would have given is their `stderr`. Raises InputError for another matrix,
        and where G or R is asked for and the loss is not a function of outputs.
        """
        product, block = self._named(matrix), self._as_block(v)

        def forms(shares: np.ndarray, columns: np.ndarray) -> np.ndarray:
            return np.einsum("pk,pk->k", shares, columns, dtype=np.float64)

        found = np.concatenate(self._by_batch(product, block, forms), axis=1)
        shares, penalty = np.split(found, [self.num_batches])
        return BatchForms(shares, penalty.sum(axis=0), self._snapshot.examples)

    def batch_grams(self, V: ArrayLike, matrix: str = "H") -> BatchGrams:
        """VᵀAV of each batch's share A of H, G or R, for a block V (P, K); as `batch_forms`."""
        product, block = self._named(matrix), self._as_block(V)

        def grams(shares: np.ndarray, columns: np.ndarray) -> np.ndarray:
            return (block.T @ shares).astype(np.float64)

        found = np.concatenate(self._by_batch(product, block, grams), axis=2)
        found = (found + found.transpose(0, 2, 1)) / 2
        shares, penalty = np.split(found, [self.num_batches])
        return BatchGrams(shares, penalty.sum(axis=0), self._snapshot.examples)

    def _as_block(self, v: ArrayLike) -> np.ndarray:
        return _checked(v, self.size, self.dtype).reshape(self.size, -1)

    def _named(self, matrix: str) -> Product:
        products = {"H": H, "G": G, "R": R}
        if matrix not in products:
            raise InputError("one of H, G and R", matrix, "name it by its letter")
        if matrix != "H":
            self._require_outputs()
        return products[matrix]

    @_told_in_a_line
    def _by_batch(
        self,
        product: Product,
        block: np.ndarray,
        told: Callable[[np.ndarray, np.ndarray], np.ndarray],
    ) -> list[np.ndarray]:
        """What is told of the products of each term of a sum, by part of the block."""
        if block.shape[1] == 0:
            return [np.zeros((self.num_batches, *told(block, block).shape))]
        # Each number of columns is traced anew: as many at once as were before, or one by one.
        width = self._sums.widest(product)
        whole = block.shape[1] - block.shape[1] % width if width > 1 else 0
        parts = [block[:, i : i + width] for i in range(0, whole, width)]
        parts.extend(transfer.columns(block[:, whole:]))

        def by_term(group: list[np.ndarray]) -> Iterator[list[np.ndarray]]:
            with self._staged(group) as staged:
                for linear_map, frontier in self._sums.terms(product):
                    yield [
                        told(_columns(linear_map.multiply(part, frontier)), _columns(buffer))
                        for part, buffer in staged
                    ]

        found = []
        for group in self._groups(product, parts):
            found += [np.stack(each) for each in zip(*by_term(group), strict=True)]
        return found

    @_told_in_a_line
    def source_of_nan(self, v: ArrayLike) -> str:
        """The first batch, counted from 1, with a share of Hv, Gv or Rv that is not finite."""
        block = self._as_block(v)
        product = HGR if self.has_outputs else H
        with self._staged(list(block.T)) as staged:
            for number, (linear_map, frontier) in enumerate(self._sums.terms(product), 1):
                shares = [linear_map.multiply(column, frontier).numpy() for column, _ in staged]
                if not np.isfinite(shares).all():
                    is_batch = number <= self.num_batches
                    return f"batch {number} of {self.num_batches}" if is_batch else "the penalty"
        return ""

    def jvp(self, v: ArrayLike) -> np.ndarray:
        """Jv, (M,) or (M, K), not divided by N: the outputs, batch by batch and flattened."""
        self._require_outputs()
        return self._product(J, v)

    def vjp(self, u: ArrayLike) -> np.ndarray:
        """Jᵀu, (P,) or (P, K), for u of M rows."""
        self._require_outputs()
        return self._product(JT, u)

    def block(self, layer: str | Sequence[str]) -> Linearization:
        """The same loss over some of the parameters, the others being constants.

        `layer` is a layer name, a parameter name, a glob, or several. Only what lies between these
        parameters and the loss is differentiated.
        """
        return self._restricted(self.layout.select(layer))

    def blocks(self) -> dict[str, Linearization]:
        """Layer name -> the linearization of that layer alone."""
        return {name: self._restricted(inside) for name, inside in self.layout.layers.items()}

    def forced(self, *, ad: str | None = None, jit: str | bool | None = None) -> Linearization:
        """The same loss by another order of differentiation `ad` or another way `jit`."""
        return Linearization(
            self._snapshot,
            self._chosen,
            self._frontiers,
            ad=self._ad if ad is None else ad,
            jit=self._jit if jit is None else jit,
        )

    def in_float64(self) -> Linearization:
        """The same loss at the same parameters, evaluated in float64 whatever casts it holds."""
        snapshot = self._snapshot.in_float64()
        frontiers = SavedTensorCache(self._frontiers.budget, batches_in_memory=snapshot.in_memory)
        return Linearization(snapshot, self._chosen, frontiers, ad=self._ad, jit=False)

    def _restricted(self, inside: Sequence[int]) -> Linearization:
        chosen = [self._chosen[i] for i in inside]
        return Linearization(self._snapshot, chosen, self._frontiers, ad=self._ad, jit=self._jit)

    def _product(self, product: Product, v: ArrayLike) -> np.ndarray:
        """The product with a vector, or with a block of which some columns are taken at once."""
        array = _checked(v, self.num_outputs if product is JT else self.size, self.dtype)
        if array.ndim == 1:
            return self._multiplied(product, [array])[0]
        if array.shape[1] == 0:
            rows = self.num_outputs if product is J else self.size * product.count
            return np.empty((rows, 0), self.dtype)
        groups = self._groups(product, self._parts(product, array))
        return _joined(map(functools.partial(self._multiplied, product), groups), array.shape[1])

    def _groups(self, product: Product, parts: list[np.ndarray]) -> list[list[np.ndarray]]:
        """The parts by call: where known parts are not kept each runs once a call, for all."""
        return [[part] for part in parts] if self._sums.keeps(product) else [parts]

    @_told_in_a_line
    def _parts(self, product: Product, block: np.ndarray) -> list[np.ndarray]:
        """Columns of a block, as vectors or as blocks of as many as are multiplied at once."""
        count, width = block.shape[1], 1
        if count > 1:
            width = self._sums.width(product, count)
        if width == 1:
            return list(transfer.columns(block))
        parts, start = [], 0
        while start < count:
            # By powers of two, since each number of columns is traced anew.
            taken = min(width, 1 << ((count - start).bit_length() - 1))
            part = block[:, start : start + taken]
            parts.append(part if taken > 1 else part[:, 0])
            start += taken
        return parts

    @_told_in_a_line
    def _multiplied(self, product: Product, parts: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The products with vectors or blocks, from NumPy and back to it."""
        with self._staged(parts) as staged:
            results = self._sums.multiply(product, [tensor for tensor, _ in staged])
            return [
                transfer.shared(result, apart_from=buffer)
                for result, (_, buffer) in zip(results, staged, strict=True)
            ]

    @contextlib.contextmanager
    def _staged(self, parts: Sequence[np.ndarray]) -> Iterator[list[transfer.Staged]]:
        """Arrays where TensorFlow reads them, checked to be finite."""
        try:
            staged = self._staging.take(parts)
        except FloatingPointError:
            raise InputError(
                "a finite vector", "NaN or infinity in v", "check where it comes from"
            ) from None
        try:
            yield staged
        finally:
            self._staging.give_back(staged)

    def _require_likelihood(self, *, known: bool) -> None:
        self._require_outputs()
        if not self._snapshot.has_scores or (known and not self._snapshot.has_distributions):
            raise InputError(
                "a Keras loss of the outputs that is a cross-entropy or the mean of squares"
                if known
                else "a Keras loss whose values depend on their own part of the outputs each",
                self.loss_name,
                "use GaussNewton, which is defined for any loss",
            )

    def _require_outputs(self) -> None:
        if not self.has_outputs:
            raise InputError(
                "a loss that is a function of outputs (J, G and R need them)",
                "a loss that sees its parameters another way",
                "give linearize_function outputs=",
            )


def _mib(size: int) -> str:
    return f"{size / 2**20:.1f} MiB"


def _joined(groups: Iterable[list[np.ndarray]], count: int) -> np.ndarray:
    """Vectors and blocks as one block of so many columns, each let go of before the next is made.

    Its columns lie one behind the other, as most that take a block will read them.
    """
    rows, start = None, 0
    for group in groups:
        while group:
            result = group.pop(0)
            if result.shape[1:] == (count,):
                return result
            if rows is None:
                rows = np.empty((count, len(result)), result.dtype)
            stop = start + (1 if result.ndim == 1 else result.shape[1])
            transfer.write_columns(result.reshape(len(result), -1), rows[start:stop])
            start = stop
            del result
    assert rows is not None
    return rows.T


def _columns(vectors: Any) -> np.ndarray:
    """A vector, or several, as a block."""
    return np.asarray(vectors).reshape(len(vectors), -1)


def _checked(v: ArrayLike, rows: int, dtype: DTypeLike) -> np.ndarray:
    """A vector or block of the right length, in the right precision."""
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
        return block.astype(dtype, copy=False)
