"""XTrace: the trace of a matrix from probes, each tested on the range of all the others.

Source: Epperly, Tropp and Webber 2024, *XTrace: making the most of every sample in stochastic
trace estimation*, sections 2.1 to 2.4.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.linalg

from hvp.linalg.blocks import chunks, gram, multiply
from hvp.linalg.counted_operator import CountedOperator
from hvp.linalg.estimate import student_factor

# Columns of a block that a symmetry check uses.
CHECKED_COLUMNS = 4
# The correlation of the samples is hard to estimate. It raises a standard error by this factor at
# most.
MAX_RAISE = 3.0
# Standard errors are raised by this for the dependence of the samples.
DEPENDENCE_FACTOR = 1.15


@dataclass(frozen=True, eq=False)
class Sketch:
    """An orthonormal basis Q of AΩ for probes Ω (P, s), and of AΩ without any one probe.

    The basis Q₍ᵢ₎ of the products without the i-th has Q₍ᵢ₎Q₍ᵢ₎ᵀ = Q(I - sᵢsᵢᵀ)Qᵀ. Here sᵢ is the
    unit vector orthogonal to all columns of QᵀAΩ but the i-th: a normalised column of the inverse
    transpose (section 2.2), or zero where the other products span the same space.

    Attributes:
        Q: (P, r) orthonormal columns, r the rank of AΩ.
        products: (r, s) QᵀAΩ.
        probes: (r, s) QᵀΩ.
        left_out: (r, s) the sᵢ.
    """

    Q: np.ndarray
    products: np.ndarray
    probes: np.ndarray
    left_out: np.ndarray

    @property
    def ranks(self) -> np.ndarray:
        """(s,) the dimensions of the Q₍ᵢ₎."""
        return np.where(self.left_out.any(axis=0), len(self.left_out) - 1, len(self.left_out))


@dataclass(frozen=True, eq=False)
class SketchedMatrix:
    """A symmetric B (P, P) whose trace is wanted, in the basis Q of a sketch by probes ωᵢ.

    Attributes:
        inner: (r, r) QᵀBQ.
        images: (r, s) QᵀBωᵢ.
        forms: (s,) ωᵢᵀBωᵢ.
        squared_lengths: (s,) ‖ωᵢ‖².
    """

    inner: np.ndarray
    images: np.ndarray
    forms: np.ndarray
    squared_lengths: np.ndarray


def sketch(A: CountedOperator, probes: np.ndarray) -> Sketch:
    """Multiply the probes (P, s) by A and orthonormalise the products.

    At most two blocks of their size are in memory. Raises InputError if A is not symmetric.
    """
    Y = multiply(A, probes)
    A.check_symmetry(probes[:, :CHECKED_COLUMNS].astype(A.dtype), Y[:, :CHECKED_COLUMNS])
    Q, R = scipy.linalg.qr(Y, mode="economic", overwrite_a=True, check_finite=False)
    U, sizes, Vt = np.linalg.svd(R.astype(np.float64))
    eps = float(np.finfo(A.dtype).eps)
    rank = int(np.sum(sizes > len(sizes) * eps * sizes[0]))
    U, sizes, Vt = U[:, :rank], sizes[:rank], Vt[:rank]
    for rows in chunks(len(Q)):
        Q[rows, :rank] = Q[rows] @ U.astype(Q.dtype)
    Q = Q[:, :rank]
    inverse = Vt / sizes[:, None]
    # The span needs the i-th column where its leverage, an entry of the diagonal of VVᵀ, is one.
    is_needed = np.sum(Vt**2, axis=0) > 1 - np.sqrt(eps)
    lengths = np.linalg.norm(inverse, axis=0)
    left_out = np.divide(inverse, lengths, out=np.zeros_like(inverse), where=is_needed)
    return Sketch(Q, sizes[:, None] * Vt, gram(Q, probes), left_out)


def leave_one_out(basis: Sketch, B: SketchedMatrix) -> np.ndarray:
    """(s,) xᵢ = tr(Q₍ᵢ₎ᵀBQ₍ᵢ₎) + (P - rᵢ) uᵀBu/uᵀu, u = (I - Q₍ᵢ₎Q₍ᵢ₎ᵀ)ωᵢ, each unbiased.

    The length of a Gaussian vector is independent of its direction, so that u is normalised
    (section 2.4).
    """
    traces, forms, squared_lengths, _ = _leave_one_out_terms(basis, B)
    return traces + (len(basis.Q) - basis.ranks) * forms / squared_lengths


def leave_two_out(basis: Sketch, B: SketchedMatrix) -> np.ndarray:
    """(s, s) xᵢⱼ, as xᵢ but without the range of the j-th probe too; only i ≠ j has a meaning.

    The projection then also loses t = (sⱼ - c sᵢ)/√(1 - c²), c = sᵢᵀsⱼ, which u gains.
    """
    S = basis.left_out
    traces, forms, squared_lengths, u_images = _leave_one_out_terms(basis, B)
    cosines = S.T @ S
    np.fill_diagonal(cosines, 0.0)
    sines = np.sqrt(np.maximum(1 - cosines**2, np.finfo(float).eps))

    def along_t(V: np.ndarray) -> np.ndarray:  # tᵀvᵢ
        inner = V.T @ S
        return (inner - cosines * np.diag(inner)[:, None]) / sines

    sBs = S.T @ B.inner @ S
    diagonal = np.diag(sBs)
    tBt = (diagonal - 2 * cosines * sBs + cosines**2 * diagonal[:, None]) / sines**2
    gained = along_t(basis.probes)
    forms = forms[:, None] + 2 * gained * along_t(u_images) + gained**2 * tBt
    squared_lengths = squared_lengths[:, None] + gained**2
    dimensions = len(basis.Q) - basis.ranks[:, None] + S.any(axis=0)
    return traces[:, None] - tBt + dimensions * forms / squared_lengths


def standard_error(one: np.ndarray, two: np.ndarray) -> float:
    """The standard error of the mean T of the xᵢ (s,), which have probes in common.

    It is √v times `student_factor`, with v the largest of three variances.

    - Σ(xᵢ - T)²/s(s - 1) holds for independent xᵢ. It is too small where each probe matters to the
      others: by a quarter on the Hessian of a network, by two thirds where s is about the rank.
    - Given the other probes, xᵢⱼ and xⱼᵢ are independent and unbiased; hence
      -E(xᵢⱼ - T)(xⱼᵢ - T) = 2 Cov(xᵢⱼ, T) - Var T. That is Var T where no multiple of xᵢⱼ - T would
      improve T, as for the best estimate.
    - The mean of (xᵢⱼ - T)²/s, over i ≠ j, is that of samples with one probe fewer. Where s is
      equal to the rank, all xᵢ may be near each other by chance; the xᵢⱼ are not.

    For independent samples the three are about equal. The result is raised by a tenth and a half,
    because dependent samples have fewer degrees of freedom than s - 1.

    Args:
        one: (s,) the xᵢ.
        two: (s, s) the xᵢⱼ.
    """
    count, mean = len(one), one.mean()
    independent = one.var(ddof=1) / count
    deviations = two - mean
    np.fill_diagonal(deviations, 0.0)
    num_pairs = count * (count - 1)
    paired = 0.0 - np.sum(deviations * deviations.T) / num_pairs
    fewer = np.sum(deviations**2) / num_pairs / count
    variance = max(np.clip(paired, independent, MAX_RAISE**2 * independent), fewer)
    return DEPENDENCE_FACTOR * student_factor(count - 1) * float(np.sqrt(variance))


def _leave_one_out_terms(
    basis: Sketch, B: SketchedMatrix
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """tr(Q₍ᵢ₎ᵀBQ₍ᵢ₎) (s,), uᵀBu (s,), uᵀu (s,) and QᵀBu (r, s)."""
    S = basis.left_out
    projected = basis.probes - S * np.sum(S * basis.probes, axis=0)
    u_images = B.images - B.inner @ projected
    forms = B.forms - np.sum(projected * (B.images + u_images), axis=0)
    traces = np.trace(B.inner) - np.sum(S * (B.inner @ S), axis=0)
    return traces, forms, B.squared_lengths - np.sum(projected**2, axis=0), u_images
