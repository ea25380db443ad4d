"""The protocol of a backend, and H, G, R, F, E and J as SciPy operators on top of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from scipy.sparse.linalg import LinearOperator

from hvp.errors import Finding, InputError
from hvp.randomness import DEFAULT_SEED, NOT_GIVEN, RNG, seed_of
from hvp.sampling_error import BatchForms, BatchGrams
from hvp.tables import ShownAsTable, Table


class Layout(Protocol):
    """Which slices of a vector (P,) belong to which parameter tensor and which layer.

    Attributes:
        layers: layer name -> the positions of its tensors in `slices` and `shapes`.
        slices: the entries of each tensor in a vector (P,), row by row.
        shapes: of the tensors.
        names: of the tensors.
        channel_axes: the axes of each tensor that number its output channels.
    """

    @property
    def layers(self) -> Mapping[str, tuple[int, ...]]: ...
    @property
    def slices(self) -> Sequence[slice]: ...
    @property
    def shapes(self) -> Sequence[tuple[int, ...]]: ...
    @property
    def names(self) -> Sequence[str]: ...
    @property
    def channel_axes(self) -> Sequence[tuple[int, ...]]: ...


@dataclass(frozen=True)
class Work:
    """What a part of a product computes, over all batches; it does not depend on the machine.

    Attributes:
        multiply_adds: those of its matrix products and convolutions, None where a loop runs as
            often as its data say. Other operations are not counted.
        bytes: of the arrays that it takes and gives: it reads and writes at least as many.
        largest: the rows, inner and columns of its largest matrix product, (0, 0, 0) without any.
    """

    multiply_adds: int | None
    bytes: int
    largest: tuple[int, int, int]


@dataclass(frozen=True, repr=False)
class Cost(ShownAsTable):
    """The measured time and memory of products with one matrix, and their counted work.

    The known part does not depend on the vector. It runs before the first product, and its results
    are saved; the linear part runs for each vector.

    Attributes:
        first: seconds before the first product: tracing, and saving tensors of all batches.
        alone: seconds of a product with one vector, over all batches.
        in_block: seconds for each vector of a block.
        width: how many vectors of a block are multiplied at once.
        saved: bytes of the saved tensors of all batches, as far as they will be kept.
        kept: bytes of saved tensors that are kept now, of all matrices.
        budget: the most bytes that may be saved, for all matrices together.
        working: bytes that a product with `width` vectors takes besides.
        matrix: "H", "G" or "R".
        size: P, the number of parameters.
        num_batches: the number of batches.
        known, linear: the work of the two parts, None for a backend that does not count it.

    >>> import hvp, numpy as np, tensorflow as tf
    >>> x = np.ones((50, 3), np.float32)
    >>> lin = hvp.linearize_function(
    ...     lambda z, x: tf.reduce_mean(z**2), np.ones((3, 2), np.float32), x,
    ...     outputs=lambda w, x: x @ w, reduction="mean")
    >>> lin.cost("G").linear  # Jv = x V, and its transpose: 50 · 3 · 2 multiply-adds each
    Work(multiply_adds=600, bytes=648, largest=(50, 3, 2))
    """

    first: float
    alone: float
    in_block: float
    width: int
    saved: int
    kept: int
    budget: int
    working: int
    matrix: str = ""
    size: int = 0
    num_batches: int = 1
    known: Work | None = None
    linear: Work | None = None

    def rows(self) -> list[dict[str, float | str | None]]:
        """A dict for each part, as `pandas.DataFrame` takes them.

        The seconds of the known part are `first`, those of the linear part are `alone`.
        """
        parts = (("known", self.known, self.first), ("linear", self.linear, self.alone))
        return [
            {
                "matrix": self.matrix,
                "part": name,
                "multiply_adds": work.multiply_adds,
                "bytes": work.bytes,
                "seconds": seconds,
            }
            for name, work, seconds in parts
            if work is not None
        ]

    def _table(self) -> Table:
        batches = "1 batch" if self.num_batches == 1 else f"{self.num_batches:,} batches"
        rows = [
            (
                f"{row['part']} part",
                "unknown" if row["multiply_adds"] is None else f"{row['multiply_adds']:,}",
                f"{row['bytes']:,}",
                f"{row['seconds']:.2g}",
            )
            for row in self.rows()
        ]
        return Table(
            f"Product with {self.matrix}: {self.size:,} parameters, {batches}",
            ("", "multiply-adds", "bytes", "seconds"),
            rows,
            [
                f"saved tensors: {self.saved:,} bytes; a product takes {self.working:,} besides",
                f"in blocks, {self.width} at once: {self.in_block:.2g} s a vector",
            ],
        )


class Curvature(Protocol):
    """The protocol of a backend: products of a loss at one point, NumPy arrays in and out.

    `hvp.Linearization` satisfies it. The operators of this module, `hvp.compare`,
    `hvp.chain_rule` and `hvp.layer_traces` take any object with these members. With a method
    ``loss_and_gradient(theta)`` besides, `hvp.compare` tests its derivatives. A vector is (P,), a
    block (P, K); a product has the shape of what it is given. ``loss(theta)`` is the loss at other
    parameters. See `hvp.Linearization` for what each
    method computes.

    Attributes:
        size: P, the number of parameters.
        dtype: of every product.
        layout: which parameters belong to which layer.
        is_whole: whether all parameters of the loss are among the P.
        num_examples: N, the number of examples.
        num_batches: the number of batches that they come in.
        accuracy: share of examples whose predicted class is right, None without classes.
        data_digest, weights_digest: SHA-256 of the data and of the weights.
        loss_name: the name of the loss.
    """

    size: int
    dtype: np.dtype
    is_whole: bool
    num_examples: int
    num_batches: int
    data_digest: str
    loss_name: str

    @property
    def accuracy(self) -> float | None: ...
    @property
    def weights_digest(self) -> str: ...
    @property
    def layout(self) -> Layout: ...
    @property
    def theta(self) -> np.ndarray: ...
    @property
    def num_outputs(self) -> int: ...
    @property
    def findings(self) -> tuple[Finding, ...]: ...
    def loss(self, theta: np.ndarray | None = None) -> float: ...
    def gradient(self) -> np.ndarray: ...
    def hvp(self, v: np.ndarray) -> np.ndarray: ...
    def gnvp(self, v: np.ndarray) -> np.ndarray: ...
    def residual_vp(self, v: np.ndarray) -> np.ndarray: ...
    def products(self, v: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]: ...
    def fisher_vp(
        self, v: np.ndarray, num_samples: int | None = None, seed: int = 0
    ) -> np.ndarray: ...
    def empirical_fisher_vp(self, v: np.ndarray) -> np.ndarray: ...
    def jvp(self, v: np.ndarray) -> np.ndarray: ...
    def vjp(self, u: np.ndarray) -> np.ndarray: ...
    def batch_forms(self, v: np.ndarray, matrix: str) -> BatchForms: ...
    def batch_grams(self, V: np.ndarray, matrix: str) -> BatchGrams: ...
    def source_of_nan(self, v: np.ndarray) -> str: ...
    def blocks(self) -> Mapping[str, Curvature]: ...
    def in_float64(self) -> Curvature: ...


def check_curvature(lin: Curvature) -> None:
    """Raise InputError for what is no backend, such as a model or an operator."""
    if not hasattr(lin, "gnvp"):
        raise InputError("a Linearization", type(lin).__name__, "call hvp.linearize first")


class _SymmetricCurvature(LinearOperator):
    """A symmetric operator (P, P) on the parameters of a backend."""

    def __init__(self, lin: Curvature):
        check_curvature(lin)
        super().__init__(lin.dtype, (lin.size, lin.size))
        self.lin = lin

    def _matmat(self, V: np.ndarray) -> np.ndarray:
        return self._matvec(V)

    def _adjoint(self) -> _SymmetricCurvature:
        return self

    def source_of_nan(self, v: np.ndarray) -> str:
        """The first batch whose product with v, (P,) or (P, K), is not finite, "" for none."""
        return self.lin.source_of_nan(v)


class _BatchedCurvature(_SymmetricCurvature):
    """One of H, G and R, which are sums over the batches."""

    letter: str

    def batch_grams(self, V: np.ndarray) -> BatchGrams:
        """VᵀAV, (K, K), for the share A of each batch and a block V (P, K)."""
        return self.lin.batch_grams(V, self.letter)


class Hessian(_BatchedCurvature):
    """H = ∇²L, (P, P): the exact Hessian of the loss in its parameters (Pearlmutter 1994).

    A SciPy operator, symmetric, with one Hessian-vector product for each vector.

    >>> import hvp, numpy as np
    >>> quartic = hvp.linearize_function(lambda w: (w[0] * w[1]) ** 2, np.array([1.0, 2.0]))
    >>> (hvp.Hessian(quartic) @ np.eye(2)).tolist()
    [[8.0, 8.0], [8.0, 2.0]]
    """

    letter = "H"

    def _matvec(self, v: np.ndarray) -> np.ndarray:
        return self.lin.hvp(v)


class GaussNewton(_BatchedCurvature):
    """G = JᵀΛJ, (P, P): the Gauss-Newton matrix, Λ being the Hessian of the loss in the outputs.

    It is positive semidefinite if the loss is convex in the outputs (Schraudolph 2002, section 3).
    Penalties on the weights (regularisers) add their Hessian to G, as to H, and nothing to R. Those
    on activities and `add_loss` are no functions of the outputs: their Hessian is in H and R alone.
    Products raise InputError where the loss is not a function of outputs.

    >>> import hvp, numpy as np
    >>> lin = hvp.linearize_function(
    ...     lambda z: z**2, np.array([1.0, 2.0]), outputs=lambda w: w[0] * w[1])
    >>> (hvp.GaussNewton(lin) @ np.eye(2)).tolist()
    [[8.0, 4.0], [4.0, 2.0]]
    """

    letter = "G"

    def _matvec(self, v: np.ndarray) -> np.ndarray:
        return self.lin.gnvp(v)


class Residual(_BatchedCurvature):
    """R = H - G = Σ_m (∂ℓ/∂z_m) ∇²z_m, (P, P): the residual, indefinite in general.

    It holds the second derivatives of the network's outputs z, weighted with the first derivatives
    of the loss, and the Hessian of penalties on activities (`GaussNewton`). It is zero where the
    outputs are linear in the parameters.
    Products raise InputError where the loss is not a function of outputs.

    >>> import hvp, numpy as np
    >>> lin = hvp.linearize_function(
    ...     lambda z: z**2, np.array([1.0, 2.0]), outputs=lambda w: w[0] * w[1])
    >>> (hvp.Residual(lin) @ np.eye(2)).tolist()
    [[0.0, 4.0], [4.0, 0.0]]
    """

    letter = "R"

    def _matvec(self, v: np.ndarray) -> np.ndarray:
        return self.lin.residual_vp(v)


class Fisher(_SymmetricCurvature):
    """F = Jᵀ E_y[∂²ℓ(z, y)/∂z²] J, (P, P): the Fisher matrix of the distribution of targets.

    The expectation is over targets y distributed as the outputs z predict. It is exact by default,
    or a mean over `num_samples` draws of every target from `seed`, or from `rng`, which takes what
    `numpy.random.default_rng` does (SPEC 7). Without penalties F equals G for cross-entropies from
    logits and for squares (Martens 2020, section 9.2). Products raise InputError for a loss that is
    not a cross-entropy or the mean of squares.

    >>> import hvp, keras, numpy as np
    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    >>> lin = hvp.linearize(model, (np.eye(2), np.ones((2, 1))), "mse")
    >>> bool(np.allclose(hvp.Fisher(lin) @ np.eye(3), hvp.GaussNewton(lin) @ np.eye(3)))
    True
    """

    def __init__(
        self,
        lin: Curvature,
        num_samples: int | None = None,
        seed: int = DEFAULT_SEED,
        *,
        rng: RNG = NOT_GIVEN,
    ):
        super().__init__(lin)
        self.num_samples, self.seed = num_samples, seed_of(seed, rng)

    def _matvec(self, v: np.ndarray) -> np.ndarray:
        return self.lin.fisher_vp(v, self.num_samples, self.seed)


class EmpiricalFisher(_SymmetricCurvature):
    """E = Σᵢ fᵢ ∇ℓᵢ ∇ℓᵢᵀ, (P, P): the empirical Fisher matrix, a sum over the loss values ℓᵢ.

    fᵢ = ∂L/∂ℓᵢ is the weight of ℓᵢ in the loss, 1/N in a plain mean. E is not the Fisher matrix:
    its targets are those of the data (Kunstner, Hennig and Balles 2019). Products raise InputError
    for a loss that is not made of loss values.

    >>> import hvp, keras, numpy as np
    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    >>> lin = hvp.linearize(model, (np.eye(2)[:1], np.ones((1, 1))), "mse")
    >>> g = lin.gradient()
    >>> bool(np.allclose(hvp.EmpiricalFisher(lin) @ np.eye(3), np.outer(g, g)))
    True
    """

    def _matvec(self, v: np.ndarray) -> np.ndarray:
        return self.lin.empirical_fisher_vp(v)


class Jacobian(LinearOperator):
    """J = ∂z/∂w, (M, P): the derivatives of the outputs z in the parameters.

    Its rows are the M entries of the outputs of all examples, flattened in the order of the data.
    Products raise InputError where the loss is not a function of outputs.

    >>> import hvp, numpy as np
    >>> lin = hvp.linearize_function(
    ...     lambda z: z**2, np.array([1.0, 2.0]), outputs=lambda w: w[0] * w[1])
    >>> hvp.Jacobian(lin).shape, (hvp.Jacobian(lin) @ np.eye(2)).tolist()
    ((1, 2), [[2.0, 1.0]])
    """

    def __init__(self, lin: Curvature):
        check_curvature(lin)
        super().__init__(lin.dtype, (lin.num_outputs, lin.size))
        self.lin = lin

    def _matvec(self, v: np.ndarray) -> np.ndarray:
        return self.lin.jvp(v)

    def _matmat(self, V: np.ndarray) -> np.ndarray:
        return self.lin.jvp(V)

    def _adjoint(self) -> _JacobianAdjoint:
        return _JacobianAdjoint(self)


class _JacobianAdjoint(LinearOperator):
    """Jᵀ, (P, M), the adjoint of `Jacobian`."""

    def __init__(self, jacobian: Jacobian):
        super().__init__(jacobian.dtype, jacobian.shape[::-1])
        self.jacobian = jacobian

    def _matvec(self, u: np.ndarray) -> np.ndarray:
        return self.jacobian.lin.vjp(u)

    def _matmat(self, U: np.ndarray) -> np.ndarray:
        return self.jacobian.lin.vjp(U)

    def _adjoint(self) -> Jacobian:
        return self.jacobian
