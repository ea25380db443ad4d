"""What a backend offers, and H, G, R, F, E and J as SciPy operators on top of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
from scipy.sparse.linalg import LinearOperator

from hvp.errors import Finding, InputError
from hvp.sampling_error import BatchForms, BatchGrams


class Layout(Protocol):
    """Which slices of a vector of P parameters belong to which parameter tensor and which layer.

    Attributes:
        layers: layer -> the positions of its tensors.
        slices: where each tensor lies in a vector.
        shapes: of the tensors.
    """

    @property
    def layers(self) -> Mapping[str, tuple[int, ...]]: ...
    @property
    def slices(self) -> Sequence[slice]: ...
    @property
    def shapes(self) -> Sequence[tuple[int, ...]]: ...


class Curvature(Protocol):
    """What a backend offers: the products of a loss at one point, arrays in and arrays out.

    `hvp.Linearization` is one. The operators below, `hvp.compare` and `hvp.layer_traces` take any
    object that has these members, whatever computes its products.

    Attributes:
        size: P, the number of parameters.
        dtype: of every product.
        layout: which parameters belong to which layer.
        is_whole: whether all parameters of the loss are among the P.
        num_examples, num_batches: N, and how many batches they come in.
        accuracy: share of examples classified rightly, None where there are no classes.
        data_digest, weights_digest: SHA-256 of the data and of the weights.
        loss_name: of the loss.
    """

    size: int
    dtype: np.dtype
    is_whole: bool
    num_examples: int
    num_batches: int
    accuracy: float | None
    data_digest: str
    weights_digest: str
    loss_name: str

    @property
    def layout(self) -> Layout: ...
    @property
    def theta(self) -> np.ndarray: ...
    @property
    def num_outputs(self) -> int: ...
    @property
    def findings(self) -> tuple[Finding, ...]: ...
    def loss(self) -> float: ...
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


def _check(lin: Curvature) -> None:
    if not hasattr(lin, "gnvp"):
        raise InputError("a Linearization", type(lin).__name__, "call hvp.linearize first")


class _Symmetric(LinearOperator):
    """A symmetric operator of shape (P, P) on the parameters of a linearization."""

    def __init__(self, lin: Curvature):
        _check(lin)
        super().__init__(lin.dtype, (lin.size, lin.size))
        self.lin = lin

    def _matmat(self, V: np.ndarray) -> np.ndarray:
        return self._matvec(V)

    def _adjoint(self) -> _Symmetric:
        return self

    def source_of_nan(self, v: np.ndarray) -> str:
        """The batch whose share of the product with v (P,) or (P, K) is not finite."""
        return self.lin.source_of_nan(v)


class _Summed(_Symmetric):
    """One of H, G and R, whose shares of the batches are known."""

    letter: str

    def batch_grams(self, V: np.ndarray) -> BatchGrams:
        """VᵀAV of each batch's share A, for a block V (P, K)."""
        return self.lin.batch_grams(V, self.letter)


class Hessian(_Summed):
    """H = ∇²L, (P, P): the exact Hessian of the loss.

    >>> import hvp, numpy as np
    >>> quartic = hvp.linearize_function(lambda w: (w[0] * w[1]) ** 2, np.array([1.0, 2.0]))
    >>> (hvp.Hessian(quartic) @ np.eye(2)).tolist()
    [[8.0, 8.0], [8.0, 2.0]]
    """

    letter = "H"

    def _matvec(self, v: np.ndarray) -> np.ndarray:
        return self.lin.hvp(v)


class GaussNewton(_Summed):
    """G = JᵀΛJ, (P, P): the first derivatives of the network around the loss's own Hessian Λ.

    Positive semidefinite where the loss is convex in the outputs (Schraudolph 2002, section 3).
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


class Residual(_Summed):
    """R = H - G, (P, P): the network's second derivatives, weighted with the loss's slope.

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


class Fisher(_Symmetric):
    """F = Jᵀ E_y[∇²ℓ(z, y)] J, (P, P): the Fisher matrix of the distribution that the outputs tell.

    The expectation is over targets y drawn as the network predicts them: exact by default, or a
    mean of score products over `num_samples` draws of every target. Equal to the Gauss-Newton
    matrix for cross-entropies from logits and for squares (Martens 2020, section 9.2). Products
    raise InputError for losses that are no cross-entropy and no mean of squares.

    >>> import hvp, keras, numpy as np
    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    >>> lin = hvp.linearize(model, (np.eye(2), np.ones((2, 1))), "mse")
    >>> bool(np.allclose(hvp.Fisher(lin) @ np.eye(3), hvp.GaussNewton(lin) @ np.eye(3)))
    True
    """

    def __init__(self, lin: Curvature, num_samples: int | None = None, seed: int = 0):
        super().__init__(lin)
        self.num_samples, self.seed = num_samples, seed

    def _matvec(self, v: np.ndarray) -> np.ndarray:
        return self.lin.fisher_vp(v, self.num_samples, self.seed)


class EmpiricalFisher(_Symmetric):
    """E = Σᵢ fᵢ ∇ℓᵢ ∇ℓᵢᵀ, (P, P): products of the gradients of the loss values with themselves.

    fᵢ is what the loss value ℓᵢ counts for in the loss: 1/N in a plain mean. Not the Fisher matrix,
    since the targets are those of the data (Kunstner, Hennig and Balles 2019).

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
    """J = ∂z/∂w, (M, P): the outputs of all examples, in order and flattened, by the parameters.

    Products raise InputError where the loss is not a function of outputs.

    >>> import hvp, numpy as np
    >>> lin = hvp.linearize_function(
    ...     lambda z: z**2, np.array([1.0, 2.0]), outputs=lambda w: w[0] * w[1])
    >>> hvp.Jacobian(lin).shape, (hvp.Jacobian(lin) @ np.eye(2)).tolist()
    ((1, 2), [[2.0, 1.0]])
    """

    def __init__(self, lin: Curvature):
        _check(lin)
        super().__init__(lin.dtype, (lin.num_outputs, lin.size))
        self.lin = lin

    def _matvec(self, v: np.ndarray) -> np.ndarray:
        return self.lin.jvp(v)

    def _matmat(self, V: np.ndarray) -> np.ndarray:
        return self.lin.jvp(V)

    def _adjoint(self) -> _JacobianAdjoint:
        return _JacobianAdjoint(self)


class _JacobianAdjoint(LinearOperator):
    """Jᵀ, (P, M)."""

    def __init__(self, jacobian: Jacobian):
        super().__init__(jacobian.dtype, jacobian.shape[::-1])
        self.jacobian = jacobian

    def _matvec(self, u: np.ndarray) -> np.ndarray:
        return self.jacobian.lin.vjp(u)

    def _matmat(self, U: np.ndarray) -> np.ndarray:
        return self.jacobian.lin.vjp(U)

    def _adjoint(self) -> Jacobian:
        return self.jacobian
