"""`Linearization`: the products of a loss at one point, NumPy arrays in and NumPy arrays out.

A product is a sum over the batches. The part of it that does not depend on the vector, the known
part, runs once a batch, and its results are saved as long as they fit into the memory budget. The
linear part runs for each vector.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import ArrayLike

from hvp.certificate import Certificate
from hvp.errors import Finding, InputError, shown
from hvp.linearization import transfer
from hvp.linearization.batch_sharpness import batch_sharpness
from hvp.linearization.batch_sum import BatchSum
from hvp.linearization.by_batch import ByBatch
from hvp.linearization.cache import SavedTensorCache
from hvp.linearization.closed import Closed
from hvp.linearization.evaluation import Evaluator
from hvp.linearization.forecast import Forecast, forecast
from hvp.linearization.memory import Memory
from hvp.linearization.multiplication import Multiplication
from hvp.linearization.points import point_of
from hvp.linearization.products import (
    EMPIRICAL,
    FISHER,
    HGR,
    JT,
    G,
    H,
    J,
    Product,
    R,
    by_letter,
    prepared,
)
from hvp.linearization.scipy_functions import ScipyFunctions, scipy_functions
from hvp.linearization.snapshot import Snapshot
from hvp.linearization.traced_products import Choice
from hvp.linearization.traces import Traces
from hvp.objective.parameters import Layout
from hvp.operators import Cost
from hvp.randomness import DEFAULT_SEED, NOT_GIVEN, RNG, seed_of
from hvp.sampling_error import BatchForms, BatchGrams
from hvp.tables import Table


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
        traces: Traces | None = None,
        whole: BatchSum | None = None,
    ):
        self._snapshot = snapshot
        self._chosen = tuple(chosen)
        self._cache = cache
        self._ad = ad
        self._jit = jit
        traced_loss = snapshot.traced_loss
        self.layout: Layout = traced_loss.layout.restrict(self._chosen)
        self._traces = traces or Traces(traced_loss, ad=ad, jit=jit)
        traced = self._traces.products(self._chosen)
        self._sums = BatchSum(snapshot, cache, traced, whole=whole)
        self._multiplication = Multiplication(self._sums, traced_loss, self.layout)
        self._by_batch = self._multiplication.by_batch
        self._evaluator = Evaluator(snapshot, self._chosen, self._traces.functions)
        self.size: int = self.layout.size
        self.dtype: np.dtype = self.layout.dtype
        self.names: tuple[str, ...] = self.layout.names
        self.num_examples: int = traced_loss.num_examples
        self.num_batches: int = traced_loss.num_batches
        self.data_digest: str = traced_loss.data_digest
        self.loss_name: str = traced_loss.objective.loss_name
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
        return self._evaluator.theta

    @property
    def accuracy(self) -> float | None:
        """The share of examples whose predicted class is right, None without classes."""
        return self._snapshot.accuracy

    @property
    def weights_digest(self) -> str:
        """SHA-256 of all that the loss depends on besides the data."""
        return self._snapshot.weights_digest

    @property
    def objective_digest(self) -> str:
        """SHA-256 of the operations that compute the loss, whatever their names and batch sizes.

        Another version of TensorFlow may compute the same loss by other operations.
        """
        return self._snapshot.traced_loss.objective_digest

    @property
    def has_outputs(self) -> bool:
        """Whether the loss is a function of outputs, so that J, G and R are defined."""
        return self._snapshot.traced_loss.has_outputs

    @property
    def is_convex(self) -> bool:
        """Whether the loss was found convex in the outputs, so that G is positive semidefinite."""
        return self._snapshot.is_convex

    @property
    def num_outputs(self) -> int:
        """M, the number of entries of the outputs of all N examples: the rows of J.

        What `add_loss` and activity penalties add to the loss of a batch is one entry more of each.

        Raises InputError where the loss is not a function of outputs.
        """
        self._snapshot.traced_loss.require_outputs()
        return self._snapshot.traced_loss.num_outputs

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What the audit and the products made so far have found, each once."""
        found = [*self._snapshot.traced_loss.findings, *self._sums.traced.notes]
        memory = self.memory
        found += memory.findings if memory.batches else self.forecast.findings(memory.budget)
        if self.has_outputs and not self.is_convex:
            message = "not convex in the outputs at this point: G may have negative eigenvalues"
            found.append(Finding("note", "the loss", message))
        return tuple(found)

    @functools.cached_property
    def forecast(self) -> Forecast:
        """The time and the memory that a product with H is expected to take, see `Forecast`."""
        return forecast(self._snapshot)

    @property
    def choices(self) -> tuple[Choice, ...]:
        """How each product made so far runs, see `Choice`."""
        return tuple(self._sums.traced.choices)

    @property
    def memory(self) -> Memory:
        """The memory of the products made so far, see `Memory`."""
        return self._sums.memory

    def loss(self, theta: ArrayLike | None = None) -> float:
        """L, the loss of all the data with its penalties, at w or at other parameters (P,).

        >>> import hvp
        >>> lin = hvp.linearize_function(lambda w: w[0] ** 3, np.array([2.0]))
        >>> lin.loss(), lin.loss(np.array([3.0]))
        (8.0, 27.0)
        """
        if theta is None:
            return self._snapshot.loss
        return self._evaluator.loss(theta)

    def gradient(self, theta: ArrayLike | None = None) -> np.ndarray:
        """∇L, (P,), at w or at other parameters `theta` (P,).

        Raises NotFiniteError where it is NaN or infinite though the loss is finite.
        """
        return self._evaluator.gradient(theta)

    def loss_and_gradient(self, theta: ArrayLike) -> tuple[float, np.ndarray]:
        """L and ∇L, (P,), at other parameters `theta` (P,), for less than one after the other.

        >>> import hvp
        >>> lin = hvp.linearize_function(lambda w: w[0] ** 3, np.array([2.0]))
        >>> loss, gradient = lin.loss_and_gradient(np.array([3.0]))
        >>> loss, gradient.tolist()
        (27.0, [27.0])
        """
        return self._evaluator.loss_and_gradient(theta)

    def outputs(self, theta: ArrayLike | None = None) -> np.ndarray:
        """The outputs z, (M,), in the order of the rows of J, at w or at other parameters `theta`.

        The outputs of a batch are flattened one after the other, and the batches concatenated.

        Raises InputError where the loss is not a function of outputs.
        """
        self._snapshot.traced_loss.require_outputs()
        return self._evaluator.outputs(theta)

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
        self._snapshot.traced_loss.require_outputs()
        return self._evaluator.loss_gradients(z, theta)

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
        return self._multiply(G, v)

    def residual_vp(self, v: ArrayLike) -> np.ndarray:
        """Rv = d/dε J(w + εv)ᵀ(∂ℓ/∂z) with ∂ℓ/∂z held constant, of the shape of v; R = H - G.

        Raises InputError where the loss is not a function of outputs.
        """
        return self._multiply(R, v)

    def fisher_vp(
        self,
        v: ArrayLike,
        num_samples: int | None = None,
        seed: int = DEFAULT_SEED,
        *,
        rng: RNG = NOT_GIVEN,
    ) -> np.ndarray:
        """Fv = Jᵀ E_y[∂²ℓ(z, y)/∂z²] Jv, of the shape of v: the Fisher matrix without penalties.

        The targets y are distributed as the outputs z predict (Martens 2020, section 5). The
        expectation is exact by default. With `num_samples` it is the mean of gᵢgᵢᵀ, gᵢ = ∂ℓᵢ/∂z,
        over that many draws of every target; the same `seed` gives the same draws. `rng` is in its
        place what `numpy.random.default_rng` takes (SPEC 7); from a generator each call draws anew.

        Raises InputError for a loss that is not a cross-entropy or the mean of squares.
        """
        self._snapshot.traced_loss.require_likelihood(known=True)
        seed = seed_of(seed, rng)
        if num_samples is None:
            return self._multiply(FISHER, v)
        return self._multiply(self._traces.sampled_fisher(num_samples, seed), v)

    def empirical_fisher_vp(self, v: ArrayLike) -> np.ndarray:
        """Ev = Σᵢ fᵢ ∇ℓᵢ ∇ℓᵢᵀv over the loss values ℓᵢ, with fᵢ = ∂L/∂ℓᵢ, of the shape of v.

        Penalties are not part of E. Raises InputError for a loss that is not made of loss values.
        """
        self._snapshot.traced_loss.require_likelihood(known=False)
        return self._multiply(EMPIRICAL, v)

    def products(self, v: ArrayLike) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Hv, Gv and Rv, each of the shape of v, with their common parts computed once.

        Hv is computed as such and not as Gv + Rv, so that H = G + R can be tested.
        Raises InputError where the loss is not a function of outputs.
        """
        Hv, Gv, Rv = np.split(self._multiply(HGR, v), 3)
        return Hv, Gv, Rv

    def jvp(self, v: ArrayLike) -> np.ndarray:
        """Jv, (M,) or (M, K), for v (P,) or (P, K): the derivative of `outputs` along v.

        Raises InputError where the loss is not a function of outputs.
        """
        return self._multiply(J, v)

    def vjp(self, u: ArrayLike) -> np.ndarray:
        """Jᵀu, (P,) or (P, K), for u (M,) or (M, K).

        Raises InputError where the loss is not a function of outputs.
        """
        return self._multiply(JT, u)

    def cost(self, matrix: str = "H", count: int = 1) -> Cost:
        """What products with "H", "G" or "R" cost, see `Cost`; they are traced, unless they were.

        Time is measured on the first batch, and over all batches where that is short. The
        multiply-adds and bytes of the known part and of the linear part are counted over all
        batches: `Cost.known`, `Cost.linear` and `Cost.rows`.

        Args:
            matrix: its letter.
            count: the number of vectors in a block, for `Cost.in_block`.

        >>> import hvp, numpy as np, tensorflow as tf
        >>> w = np.ones((4, 4), np.float32)
        >>> lin = hvp.linearize_function(lambda w: tf.reduce_sum((w @ w) ** 2), w)
        >>> lin.cost("H").linear.multiply_adds  # six products of 4 x 4 matrices
        384
        """
        return self._multiplication.cost(self._product(matrix), count)

    def prepare(self, *matrices: str, columns: int | Iterable[int] = 1) -> Linearization:
        """Trace, compile and choose now, so that later products only multiply; returns itself.

        Saved tensors of all batches are computed too, as far as they are kept. What is otherwise
        decided after many products is decided now: whether columns of a block are multiplied at
        once, by XLA or as a graph, and whether batches are joined.

        Args:
            matrices: of "H", "G", "R", "F", "E", "J" (also its transpose) and "HGR" (of
                `products`). By default H, and G where the loss is a function of outputs.
            columns: the numbers of vectors in the blocks that will be multiplied; 1 is a vector.

        Raises InputError for another name, for no columns, and as the products do.

        >>> import hvp
        >>> lin = hvp.linearize_function(lambda w: w[0] ** 3, np.array([2.0])).prepare("H")
        >>> lin.hvp([1.0]).tolist()  # makes no trace
        [12.0]
        """
        counts = [columns] if isinstance(columns, int) else list(columns)
        if min(counts, default=0) < 1:
            raise InputError("columns of at least 1", columns, "leave columns out for one vector")
        names = matrices or (("H", "G") if self.has_outputs else ("H",))
        products = [product for name in names for product in prepared(name)]
        for product in products:
            self._multiplication.prepare(product, counts)
        return self

    def batch_forms(self, v: ArrayLike, matrix: str = "H") -> BatchForms:
        """vᵀAv of each batch's share A of "H", "G" or "R", for v (P,) or each column of (P, K).

        `BatchForms.stderr` is the sampling error of their sums. Raises InputError for another
        matrix, and for G and R where the loss is not a function of outputs.
        """
        return self._by_batch.forms(self._product(matrix), self._as_block(v))

    def batch_grams(self, V: ArrayLike, matrix: str = "H") -> BatchGrams:
        """VᵀAV, (K, K), of each batch's share A of "H", "G" or "R", for a block V (P, K).

        Raises InputError as `batch_forms` does.
        """
        return self._by_batch.grams(self._product(matrix), self._as_block(V))

    def batch_sharpness(self) -> np.ndarray:
        """gᵀHg / ‖g‖², (B,), for each batch's own loss, with its gradient g and its Hessian H.

        The loss of a batch is the one that `fit` takes a step with: a mean is over its examples
        alone, and penalties count in full. The mean over random batches is the batch sharpness of
        Andreyev and Beneventano 2024 (arXiv 2412.20553, definition 3); the batches are those of
        the data, in `linearize` of at most `batch_size` examples. NaN where g is zero.

        Raises InputError where a batch has no weight, or another one in each term of the loss.

        >>> import hvp, tensorflow as tf
        >>> lin = hvp.linearize_function(
        ...     lambda w, x: tf.reduce_mean(tf.linalg.matvec(x, w) ** 2), np.ones(2),
        ...     np.diag([1.0, 3.0]), reduction="mean", batch_size=1)
        >>> lin.batch_sharpness().tolist()
        [2.0, 18.0]
        """
        return batch_sharpness(self._snapshot, self._evaluator, self._sums)

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
        return self.restricted(self.layout.select(layer))

    def blocks(self) -> dict[str, Linearization]:
        """Layer name -> `block` of that layer, in the order of the layout."""
        return {name: self.restricted(inside) for name, inside in self.layout.layers.items()}

    def at(self, point: Any) -> Linearization:
        """The same loss and data at other parameters; nothing is traced or compiled again.

        Products, gradient and outputs are, to the last bit, those of a new `linearize` with the
        same `ad` and ``jit`` given. Findings are those of the audit at the first point; what the
        audit refuses at a point is checked at each one. This linearization stays as it is.

        Args:
            point: a vector (P,) or a list of arrays of the parameters, in the order of `names`. Or
                a Keras model of the same architecture, or its ``.keras`` or ``.weights.h5`` file:
                then frozen weights and moving statistics are taken from it too.

        Raises:
            InputError: parameters of other shapes or not finite, a model of another architecture, a
                file without weights, or a point at which an operation has no second derivatives.

        >>> import hvp
        >>> lin = hvp.linearize_function(lambda w: w[0] ** 3, np.array([2.0]))
        >>> there = lin.at(np.array([5.0]))
        >>> lin.hvp([1.0]).tolist(), there.hvp([1.0]).tolist(), there.loss()
        ([12.0], [30.0], 125.0)
        """
        loss, here = self._snapshot.traced_loss, self._snapshot.here
        there = point_of(point, loss.objective, loss.layout, here, self._chosen)
        snapshot = self._snapshot.at(there)
        return Linearization(
            snapshot, self._chosen, self._cache, ad=self._ad, jit=self._jit, traces=self._traces
        )

    def scipy_functions(self, matrix: str = "H") -> ScipyFunctions:
        """``fun``, ``jac`` and ``hessp`` for `scipy.optimize.minimize`, traced once for all points.

        `matrix` is "H" or, for Gauss-Newton methods, "G".

        >>> import hvp
        >>> from scipy.optimize import minimize
        >>> lin = hvp.linearize_function(lambda w: (w[0] - 3.0) ** 2 + 1.0, np.array([0.0]))
        >>> fun, jac, hessp = lin.scipy_functions()
        >>> minimize(fun, lin.theta, jac=jac, hessp=hessp, method="Newton-CG").x.round(6).tolist()
        [3.0]
        """
        return scipy_functions(self, matrix)

    def close(self) -> None:
        """Free the memory of this point; products and evaluations then raise InputError.

        Other points stay, and what is traced for all of them stays as long as there is one.

        >>> import hvp
        >>> with hvp.linearize_function(lambda w: w[0] ** 3, np.array([2.0])) as lin:
        ...     lin.hvp([1.0]).tolist()
        [12.0]
        >>> lin.hvp([1.0])
        Traceback (most recent call last):
        hvp.errors.InputError: expected an open linearization, got one that was closed; make another
        """
        self._cache.drop(self._snapshot)
        self._snapshot = cast(Snapshot, Closed())
        self._multiplication = cast(Multiplication, self._snapshot)
        self._evaluator = cast(Evaluator, self._snapshot)
        self._by_batch = cast(ByBatch, self._snapshot)
        self._sums = cast(BatchSum, self._snapshot)
        self._traces = cast(Traces, self._snapshot)

    def __enter__(self) -> Linearization:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __reduce__(self) -> tuple[object, ...]:
        raise InputError(
            "what can be pickled or copied",
            "a Linearization, or an operator with one, which holds traced programs",
            "keep the model, the data and theta, and linearize again",
        )

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

    def restricted(self, inside: Sequence[int]) -> Linearization:
        """The same loss as a function of the parameters with these positions in `names`."""
        chosen = [self._chosen[i] for i in inside]
        return Linearization(
            self._snapshot,
            chosen,
            self._cache,
            ad=self._ad,
            jit=self._jit,
            traces=self._traces,
            whole=self._sums,
        )

    def _as_block(self, v: ArrayLike) -> np.ndarray:
        return transfer.as_columns(transfer.check_array(v, self.size, self.dtype))

    def _product(self, matrix: str) -> Product:
        product = by_letter(matrix)
        if product.needs_outputs:
            self._snapshot.traced_loss.require_outputs()
        return product

    def _multiply(self, product: Product, v: ArrayLike) -> np.ndarray:
        """The product with a vector (n,) or a block (n, K), n being the dimension of its domain."""
        return self._multiplication.multiply(product, v)
