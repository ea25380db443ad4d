"""`Linearization`: the products of a loss at one point, NumPy arrays in and NumPy arrays out.

A product is a sum over the batches. The part of it that does not depend on the vector, the known
part, runs once a batch, and its results are saved as long as they fit into the memory budget. The
linear part runs for each vector.
"""

from __future__ import annotations

import functools
import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import ParamSpec, TypeVar

import numpy as np
import tensorflow as tf
from numpy.typing import ArrayLike

from hvp.autodiff import curvature, tensorflow_private
from hvp.autodiff.tensorflow_errors import REFUSALS, raise_own, reason
from hvp.certificate import Certificate
from hvp.errors import Finding, InputError, shown
from hvp.linearization import transfer
from hvp.linearization.batch_programs import BatchPrograms
from hvp.linearization.batch_sum import BatchSum, Choice
from hvp.linearization.by_batch import ByBatch, not_finite
from hvp.linearization.cache import SavedTensorCache
from hvp.linearization.forecast import LONG_SECONDS, Forecast, forecast
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
    Space,
    sampled_fisher,
)
from hvp.linearization.snapshot import Snapshot
from hvp.objective.parameters import Layout
from hvp.operators import Cost
from hvp.sampling_error import BatchForms, BatchGrams
from hvp.tables import Table

# Products of a block that take less are measured over all batches.
SHORT_SECONDS = 1.0
Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def _refusals_as_input_errors(
    method: Callable[Arguments, Result],
) -> Callable[Arguments, Result]:
    """The method, with what TensorFlow refuses to differentiate or to run as an InputError."""

    @functools.wraps(method)
    def wrapped(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        try:
            return method(*args, **kwargs)
        except InputError:
            raise
        except REFUSALS as error:
            raise_own(error)
            raise InputError(
                "operations that TensorFlow differentiates and runs on this machine",
                repr(reason(error)),
                'try ad="reverse-over-reverse", the other jit= or float32, or another operation',
            ) from error

    return wrapped


@dataclass(frozen=True)
class Memory:
    """The memory of the products made so far, in bytes.

    Attributes:
        budget: the most that may be saved between products, for all layers together.
        kept: what is saved now.
        kept_batches: how many batches have their tensors saved, counted for each product.
        batches: how many batches there are, counted likewise.
        product: the most that one product takes, without saved tensors, vector and result. Small
            batches that run in one call may take 16 MiB together.
    """

    budget: int
    kept: int
    kept_batches: int
    batches: int
    product: int


class Linearization:
    """Products with the matrices of a loss L at one point w of P parameters.

    ::

        H = G + R,    G = JᵀΛJ,    J = ∂z/∂w (M, P),    Λ = ∂²ℓ/∂z² (M, M)

    H is the Hessian, G the Gauss-Newton matrix, J the Jacobian of the network's outputs z, and Λ
    the Hessian of the loss ℓ(z) in the outputs. R holds the second derivatives of the network,
    weighted with ∂ℓ/∂z. Penalties on the weights are functions of the parameters alone and are part
    of H and of G (Schraudolph 2002, https://doi.org/10.1162/08997660260028683).

    Every product takes a vector ``(P,)`` or a block ``(P, K)`` of K vectors and returns a new array
    of the same shape in `dtype`. No matrix is formed. Products raise InputError for another shape
    and for entries that are NaN or infinite. They may be called from several threads.

    Build one with `hvp.linearize` or `hvp.linearize_function`.

    Attributes:
        size: P, the number of parameters.
        dtype: of the parameters and of every product, float32 or float64.
        names: ``layer/weight``, one for each parameter tensor.
        layout: which slice of a vector (P,) belongs to which parameter tensor and layer.
        num_examples: N, the number of examples in all batches together.
        num_batches: the number of batches.
        findings: what the audit found, see `hvp.errors.Finding`. Products may add to it.
        choices: how each product runs and what else was tried, see `Choice`.
        memory: the memory that products take and save, in bytes, see `Memory`.
        forecast: time and memory of a product, estimated before the first one, see `Forecast`.
        accuracy: share of examples whose predicted class is right, None without classes.
        data_digest: SHA-256 of the data. It does not depend on the batch size.
        weights_digest: SHA-256 of all else that the loss depends on: parameters, frozen weights,
            moving statistics.
        loss_name: the name of the loss.
        is_whole: whether all parameters of the loss are chosen.
        certificate: what ``verify=True`` of `linearize` found, else None.

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
        cache: SavedTensorCache,
        *,
        ad: str,
        jit: str | bool,
        whole: BatchSum | None = None,
    ):
        self._snapshot = snapshot
        self._chosen = tuple(chosen)
        self._cache = cache
        self._ad = ad
        self._jit = jit
        self.layout: Layout = snapshot.layout.restrict(self._chosen)
        self._buffers = transfer.TransferBuffers()
        self._lock = threading.RLock()
        self._sums = BatchSum(snapshot, self._chosen, cache, ad=ad, jit=jit, whole=whole)
        self._by_batch = ByBatch(self._sums, self._buffers, snapshot.examples)
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
        self.certificate: Certificate | None = None
        self.is_whole: bool = len(self._chosen) == len(snapshot.values)

    def __repr__(self) -> str:
        return (
            f"Linearization(size={self.size}, dtype={self.dtype}, "
            f"num_examples={self.num_examples}, layers={shown(list(self.layout.layers))})"
        )

    def _repr_html_(self) -> str:
        """What a notebook shows: a row for each layer."""
        layout = self.layout
        rows = [
            (
                layer,
                f"{sum(layout.sizes[i] for i in positions):,}",
                ", ".join(
                    f"{layout.names[i].split('/')[-1]} {layout.shapes[i]}" for i in positions
                ),
            )
            for layer, positions in layout.layers.items()
        ]
        batches = "1 batch" if self.num_batches == 1 else f"{self.num_batches:,} batches"
        title = (
            f"Linearization of {self.loss_name}: {self.size:,} parameters ({self.dtype}), "
            f"{self.num_examples:,} examples in {batches}"
        )
        return Table(title, ("layer", "P", "parameters"), rows).html()

    @property
    def theta(self) -> np.ndarray:
        """The parameters w as a flat vector (P,)."""
        return self.layout.join([self._snapshot.values[i] for i in self._chosen]).numpy()

    @property
    def has_outputs(self) -> bool:
        """Whether the loss is a function of outputs, so that J, G and R are defined."""
        return self._snapshot.num_outputs > 0

    @property
    @_refusals_as_input_errors
    def is_convex(self) -> bool:
        """Whether the loss was found convex in the outputs, so that G is positive semidefinite."""
        return self.has_outputs and self._snapshot.is_convex

    @property
    def num_outputs(self) -> int:
        """M, the number of entries of the outputs of all N examples: the rows of J.

        What `add_loss` and activity penalties add to the loss of a batch is one entry more of each.

        Raises InputError where the loss is not a function of outputs.
        """
        self._require_outputs()
        return self._snapshot.num_outputs

    def loss(self, theta: ArrayLike | None = None) -> float:
        """L, the loss of all the data with its penalties, at w or at other parameters (P,).

        >>> import hvp
        >>> lin = hvp.linearize_function(lambda w: w[0] ** 3, np.array([2.0]))
        >>> lin.loss(), lin.loss(np.array([3.0]))
        (8.0, 27.0)
        """
        if theta is None:
            return self._snapshot.loss
        return sum(float(loss) for (loss,) in self._evaluate("loss", theta))

    def loss_and_gradient(self, theta: ArrayLike) -> tuple[float, np.ndarray]:
        """L and ∇L, (P,), at other parameters `theta` (P,), for less than one after the other.

        >>> import hvp
        >>> lin = hvp.linearize_function(lambda w: w[0] ** 3, np.array([2.0]))
        >>> loss, gradient = lin.loss_and_gradient(np.array([3.0]))
        >>> loss, gradient.tolist()
        (27.0, [27.0])
        """
        gradients, losses = zip(*self._evaluate("gradient", theta), strict=True)
        return sum(map(float, losses)), functools.reduce(np.add, gradients)

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What the audit and the products made so far have found, each once."""
        found = [*self._snapshot.findings, *self._sums.notes, *self._memory_findings()]
        if self.has_outputs and not self.is_convex:
            message = "not convex in the outputs at this point: G may have negative eigenvalues"
            found.append(Finding("note", "the loss", message))
        return tuple(found)

    @functools.cached_property
    def forecast(self) -> Forecast:
        """The time and the memory that a product with H is expected to take, see `Forecast`."""
        return forecast(self._snapshot)

    def _memory_findings(self) -> list[Finding]:
        memory = self.memory
        if not memory.batches:
            return self._forecast_findings()
        if memory.kept_batches == memory.batches:
            return []
        message = (
            f"the tensors of {memory.kept_batches} of {memory.batches} batches are saved for later "
            f"products, {_mib(memory.kept)} of a budget of {_mib(memory.budget)}; those of the "
            f"others are computed anew. A product takes {_mib(memory.product)} without its vectors"
        )
        return [Finding("note", "memory", message, remedy="raise cache= if memory allows")]

    def _forecast_findings(self) -> list[Finding]:
        expected = self.forecast
        if expected.seconds < LONG_SECONDS and expected.kept <= self._cache.budget:
            return []
        remedy = "take fewer examples, or layers by variables=, if that is too long"
        if expected.kept > self._cache.budget:
            remedy = f"what exceeds the budget of {_mib(self._cache.budget)} is computed anew"
        return [Finding("note", "products", str(expected), remedy=remedy)]

    @property
    def choices(self) -> tuple[Choice, ...]:
        """How each product made so far runs, see `Choice`."""
        return tuple(self._sums.choices)

    @property
    def memory(self) -> Memory:
        """The memory of the products made so far, see `Memory`."""
        maps = list(self._sums.maps.values())
        return Memory(
            budget=self._cache.budget,
            kept=self._cache.bytes,
            kept_batches=self._cache.count([linear_map.known for linear_map in maps]),
            batches=self._sums.num_terms,
            product=max((linear_map.product_bytes for linear_map in maps), default=0),
        )

    def gradient(self, theta: ArrayLike | None = None) -> np.ndarray:
        """∇L, (P,), at w or at other parameters `theta` (P,)."""
        return functools.reduce(np.add, [found for found, _ in self._evaluate("gradient", theta)])

    def outputs(self, theta: ArrayLike | None = None) -> np.ndarray:
        """The outputs z, (M,), in the order of the rows of J, at w or at other parameters `theta`.

        The outputs of a batch are flattened one after the other, and the batches concatenated.

        Raises InputError where the loss is not a function of outputs.
        """
        self._require_outputs()
        return np.concatenate([found for (found,) in self._evaluate("outputs", theta)])

    @_refusals_as_input_errors
    def loss_gradients(self, z: ArrayLike, theta: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
        """The gradients of the loss in its outputs z, (M,), and of its penalties in `theta`, (P,).

        L(w) = ℓ(z(w)) + penalty(w): these are ∇ℓ at z, in the order of `outputs`, and ∇penalty.

        Raises InputError where the loss is not a function of outputs.

        >>> import hvp
        >>> lin = hvp.linearize_function(
        ...     lambda z: z**2, np.array([1.0, 2.0]), outputs=lambda w: w[0] * w[1])
        >>> [found.tolist() for found in lin.loss_gradients([3.0], lin.theta)]
        [[6.0], [0.0, 0.0]]
        """
        self._require_outputs()
        given, params = np.asarray(z, self.dtype), self._array(theta)
        if given.shape != (self.num_outputs,):
            raise InputError(f"outputs of shape ({self.num_outputs},)", given.shape, "as outputs()")
        of_outputs, of_penalty, first = list[np.ndarray](), np.zeros_like(params), 0
        for programs, batch in self._sums.pieces(H):
            if programs.network is None:
                penalty, _ = self._function("gradient", programs, [])([tf.constant(params)])
                of_penalty = penalty.numpy()
                continue
            part = given[first : first + programs.network.rows]
            (found,) = self._function("of outputs", programs, batch)([tf.constant(part), *batch])
            of_outputs.append(found.numpy())
            first += len(part)
        return np.concatenate(of_outputs), of_penalty

    @_refusals_as_input_errors
    def _evaluate(self, what: str, theta: ArrayLike | None) -> list[list[np.ndarray]]:
        """The "loss", "gradient" (and loss) or "outputs" of each batch at some parameters (P,)."""
        params = self.theta if theta is None else self._array(theta)
        if params.ndim != 1:
            raise InputError(f"parameters of shape ({self.size},)", params.shape, "pass one vector")
        vector = tf.constant(params)
        pieces = self._sums.pieces(J if what == "outputs" else H)
        return [
            [found.numpy() for found in self._function(what, programs, batch)([vector, *batch])]
            for programs, batch in pieces
        ]

    def _function(
        self, what: str, programs: BatchPrograms, batch: Sequence[tf.Tensor]
    ) -> Callable[[list[tf.Tensor]], list[tf.Tensor]]:
        """One of what `_evaluate` gives, compiled, as a function of parameters and batch."""

        def at(theta: tf.Tensor, tensors: Sequence[tf.Tensor]) -> Batch:
            params = self.layout.split(theta)
            return Batch(self._snapshot, self._chosen, programs, params, tensors)

        def loss(theta: tf.Tensor, *tensors: tf.Tensor) -> tf.Tensor:
            functions = at(theta, tensors)
            return functions.loss(functions.params)

        def gradient(theta: tf.Tensor, *tensors: tf.Tensor) -> list[tf.Tensor]:
            functions = at(theta, tensors)
            losses = list[tf.Tensor]()

            def loss(params: Sequence[tf.Tensor]) -> tf.Tensor:
                losses.append(functions.loss(params))
                return losses[-1]

            grads = curvature.gradient(loss, functions.params)
            return [self.layout.join(grads), *losses]

        def outputs(theta: tf.Tensor, *tensors: tf.Tensor) -> tf.Tensor:
            functions = at(theta, tensors)
            z = functions.outputs(functions.params)
            return tf.concat([tf.reshape(tf.cast(t, self.dtype), [-1]) for t in z], axis=0)

        def of_outputs(z: tf.Tensor, *tensors: tf.Tensor) -> tf.Tensor:
            network = programs.network
            assert network is not None
            sizes = [math.prod(shape) for shape in network.shapes]
            pairs = zip(tf.split(z, sizes), network.loss_of.inputs, strict=False)
            specs = network.loss_of.specs
            parts = [tf.reshape(tf.cast(t, specs[n].dtype), specs[n].shape) for t, n in pairs]
            functions = Batch(self._snapshot, self._chosen, programs, [], tensors)
            found = curvature.gradient(functions.loss_of, parts)
            return tf.concat([tf.reshape(tf.cast(t, self.dtype), [-1]) for t in found], axis=0)

        with self._lock:
            if (what, programs) not in self._functions:
                specs = [tf.TensorSpec(t.shape, t.dtype) for t in batch]
                makers = {"loss": loss, "gradient": gradient, "outputs": outputs}
                function = makers.get(what, of_outputs)
                network = programs.network if function is of_outputs else None
                given = tf.TensorSpec([network.rows if network else self.size], self.dtype)
                self._functions[what, programs] = tensorflow_private.compiled(
                    function, [given, *specs]
                )
            return self._functions[what, programs]

    def hvp(self, v: ArrayLike) -> np.ndarray:
        """Hv = d/dε ∇L(w + εv) at ε = 0, of the shape of v: (P,) or (P, K) (Pearlmutter 1994).

        >>> import hvp
        >>> lin = hvp.linearize_function(lambda w: w[0] ** 3 + w[0] * w[1], np.array([2.0, 1.0]))
        >>> lin.hvp(np.array([1.0, 0.0])).tolist()
        [12.0, 1.0]
        """
        return self._multiply(H, v)

    def gnvp(self, v: ArrayLike) -> np.ndarray:
        """Gv = JᵀΛJv, of the shape of v: (P,) or (P, K).

        Raises InputError where the loss is not a function of outputs.
        """
        self._require_outputs()
        return self._multiply(G, v)

    def residual_vp(self, v: ArrayLike) -> np.ndarray:
        """Rv = d/dε J(w + εv)ᵀ(∂ℓ/∂z) with ∂ℓ/∂z held constant, of the shape of v; R = H - G.

        Raises InputError where the loss is not a function of outputs.
        """
        self._require_outputs()
        return self._multiply(R, v)

    def fisher_vp(self, v: ArrayLike, num_samples: int | None = None, seed: int = 0) -> np.ndarray:
        """Fv = Jᵀ E_y[∂²ℓ(z, y)/∂z²] Jv, of the shape of v: the Fisher matrix without penalties.

        The targets y are distributed as the outputs z predict (Martens 2020, section 5). The
        expectation is exact by default. With `num_samples` it is the mean of gᵢgᵢᵀ, gᵢ = ∂ℓᵢ/∂z,
        over that many draws of every target; the same `seed` gives the same draws.

        Raises InputError for a loss that is not a cross-entropy or the mean of squares.
        """
        self._require_likelihood(known=True)
        if num_samples is None:
            return self._multiply(FISHER, v)
        is_whole = isinstance(num_samples, int | np.integer) and isinstance(seed, int | np.integer)
        if not is_whole or num_samples < 1 or seed < 0:
            raise InputError(
                "at least one sample and a seed from 0", (num_samples, seed), "draw more"
            )
        with self._lock:
            key = num_samples, seed
            product = self._draws.setdefault(key, sampled_fisher(num_samples, seed))
        return self._multiply(product, v)

    def empirical_fisher_vp(self, v: ArrayLike) -> np.ndarray:
        """Ev = Σᵢ fᵢ ∇ℓᵢ ∇ℓᵢᵀv over the loss values ℓᵢ, with fᵢ = ∂L/∂ℓᵢ, of the shape of v.

        Penalties are not part of E. Raises InputError for a loss that is not made of loss values.
        """
        self._require_likelihood(known=False)
        return self._multiply(EMPIRICAL, v)

    def products(self, v: ArrayLike) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Hv, Gv and Rv, each of the shape of v, with their common parts computed once.

        Hv is computed as such and not as Gv + Rv, so that H = G + R can be tested.
        Raises InputError where the loss is not a function of outputs.
        """
        self._require_outputs()
        Hv, Gv, Rv = np.split(self._multiply(HGR, v), 3)
        return Hv, Gv, Rv

    def jvp(self, v: ArrayLike) -> np.ndarray:
        """Jv, (M,) or (M, K), for v (P,) or (P, K): the derivative of `outputs` along v.

        Raises InputError where the loss is not a function of outputs.
        """
        self._require_outputs()
        return self._multiply(J, v)

    def vjp(self, u: ArrayLike) -> np.ndarray:
        """Jᵀu, (P,) or (P, K), for u (M,) or (M, K).

        Raises InputError where the loss is not a function of outputs.
        """
        self._require_outputs()
        return self._multiply(JT, u)

    @_refusals_as_input_errors
    def cost(self, matrix: str = "H", count: int = 1) -> Cost:
        """What products with "H", "G" or "R" cost, see `Cost`; they are traced, unless they were.

        They are measured on the first batch, and over all batches where that is short.

        Args:
            matrix: its letter.
            count: the number of vectors in a block, for `Cost.in_block`.
        """
        product = self._product_by_letter(matrix)
        cost = self._sums.cost(product, count)
        if cost.first + count * cost.alone > SHORT_SECONDS:
            return cost
        block = np.zeros((self.size, count), self.dtype)
        alone, in_block = (self._seconds(product, v) for v in (block[:, 0], block))
        return replace(cost, alone=alone, in_block=in_block / count)

    def _seconds(self, product: Product, v: np.ndarray) -> float:
        """Seconds of a product, after a first."""
        self._multiply(product, v)
        begun = time.perf_counter()
        self._multiply(product, v)
        return time.perf_counter() - begun

    @_refusals_as_input_errors
    def batch_forms(self, v: ArrayLike, matrix: str = "H") -> BatchForms:
        """vᵀAv of each batch's share A of "H", "G" or "R", for v (P,) or each column of (P, K).

        `BatchForms.stderr` is the sampling error of their sums. Raises InputError for another
        matrix, and for G and R where the loss is not a function of outputs.
        """
        return self._by_batch.forms(self._product_by_letter(matrix), self._as_block(v))

    @_refusals_as_input_errors
    def batch_grams(self, V: ArrayLike, matrix: str = "H") -> BatchGrams:
        """VᵀAV, (K, K), of each batch's share A of "H", "G" or "R", for a block V (P, K).

        Raises InputError as `batch_forms` does.
        """
        return self._by_batch.grams(self._product_by_letter(matrix), self._as_block(V))

    @_refusals_as_input_errors
    def source_of_nan(self, v: ArrayLike) -> str:
        """The first batch whose share of Hv, Gv or Rv is not finite, such as "batch 2 of 5".

        "the penalty" if it is that of the weights, and an empty string if all are finite.
        """
        return self._by_batch.source_of_nan(HGR if self.has_outputs else H, self._as_block(v))

    def block(self, layer: str | Sequence[str]) -> Linearization:
        """The same loss as a function of some parameters; the others are constants.

        `layer` is a layer name, a parameter name, a glob, or a list of these. Products cost less
        than those of all parameters: only the operations that depend on the chosen ones are
        differentiated. A product that was made before with all parameters, and whose tensors are
        saved, is not traced again: the block takes its part of it.

        Raises InputError for a name that no parameter has.

        >>> import hvp
        >>> lin = hvp.linearize_function(lambda w: w[0] ** 2 * w[1], [np.array(3.0), np.array(5.0)])
        >>> lin.block("param0").hvp(np.array([1.0])).tolist()
        [10.0]
        """
        return self._restricted(self.layout.select(layer))

    def blocks(self) -> dict[str, Linearization]:
        """Layer name -> `block` of that layer, in the order of the layout."""
        return {name: self._restricted(inside) for name, inside in self.layout.layers.items()}

    def forced(self, *, ad: str | None = None, jit: str | bool | None = None) -> Linearization:
        """The same loss with another `ad` or `jit` of `linearize`; None keeps the one it has."""
        return Linearization(
            self._snapshot,
            self._chosen,
            self._cache,
            ad=self._ad if ad is None else ad,
            jit=self._jit if jit is None else jit,
        )

    def in_float64(self) -> Linearization:
        """The same loss at the same parameters, evaluated in float64 despite any casts in it.

        The budget for what is saved between products is that of both together.
        """
        snapshot = self._snapshot.in_float64()
        return Linearization(snapshot, self._chosen, self._cache, ad=self._ad, jit=False)

    def _restricted(self, inside: Sequence[int]) -> Linearization:
        chosen = [self._chosen[i] for i in inside]
        return Linearization(
            self._snapshot, chosen, self._cache, ad=self._ad, jit=self._jit, whole=self._sums
        )

    def _array(self, v: ArrayLike) -> np.ndarray:
        return transfer.check_array(v, self.size, self.dtype)

    def _as_block(self, v: ArrayLike) -> np.ndarray:
        return transfer.as_columns(self._array(v))

    def _product_by_letter(self, matrix: str) -> Product:
        products = {product.name: product for product in (H, G, R)}
        if matrix not in products:
            raise InputError("one of H, G and R", matrix, "name it by its letter")
        if matrix != H.name:
            self._require_outputs()
        return products[matrix]

    def _dimension(self, space: Space) -> int:
        return self.num_outputs if space is Space.OUTPUTS else self.size

    def _multiply(self, product: Product, v: ArrayLike) -> np.ndarray:
        """The product with a vector (n,) or a block (n, K), n being the dimension of its domain."""
        array = transfer.check_array(v, self._dimension(product.domain), self.dtype)
        if array.ndim == 1:
            return self._multiplied(product, [array])[0]
        count = array.shape[1]
        if count == 0:
            return np.empty((self._dimension(product.codomain) * product.count, 0), self.dtype)
        parts = transfer.partition(array, self._width(product, count))
        groups = transfer.group_by_call(parts, saved=self._sums.keeps(product))
        return transfer.concatenate((self._multiplied(product, group) for group in groups), count)

    @_refusals_as_input_errors
    def _width(self, product: Product, count: int) -> int:
        """How many of `count` columns to multiply at once."""
        return self._sums.width(product, count) if count > 1 else 1

    @_refusals_as_input_errors
    def _multiplied(self, product: Product, parts: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The products with several vectors or blocks in one call."""
        with self._buffers.lend(parts) as lent:
            results = self._sums.multiply(product, [tensor for tensor, _ in lent])
            arrays = [
                transfer.shared(result, apart_from=buffer)
                for result, (_, buffer) in zip(results, lent, strict=True)
            ]
        if not all(map(transfer.is_finite, arrays)):
            columns = np.concatenate([transfer.as_columns(part) for part in parts], axis=1)
            raise not_finite(product, self._by_batch.source_of_nan(product, columns))
        return arrays

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
