"""The trace of a form from probes of which each is tested on the range of all the others."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hvp.linalg.blocks import Sketch

# The correlation of the samples is hard to tell; it raises a standard error so many times at most.
MOST_RAISED = 3.0


@dataclass(frozen=True, eq=False)
class Form:
    """A symmetric B of which tr B is wanted, in the basis Q of a sketch by probes ω_i.

    Attributes:
        inner: (r, r) QᵀBQ.
        images: (r, s) QᵀBω_i.
        own: (s,) ω_iᵀBω_i.
        lengths: (s,) ‖ω_i‖².
    """

    inner: np.ndarray
    images: np.ndarray
    own: np.ndarray
    lengths: np.ndarray


def leave_one_out(basis: Sketch, form: Form) -> np.ndarray:
    """(s,) x_i = tr(Q₍ᵢ₎ᵀBQ₍ᵢ₎) + (P - rᵢ) uᵀBu/uᵀu, u = (I - Q₍ᵢ₎Q₍ᵢ₎ᵀ)ωᵢ, each unbiased.

    Of a Gaussian vector the length tells nothing of the direction: its mean square takes its place
    (Epperly, Tropp and Webber 2024, section 2.4).
    """
    low, forms, remaining, _ = _parts(basis, form)
    return low + (len(basis.Q) - basis.ranks) * forms / remaining


def leave_two_out(basis: Sketch, form: Form) -> np.ndarray:
    """(s, s) x_ij, as x_i but without the range of the j-th probe too; only i ≠ j means anything.

    The projection then also loses t = (s_j - c s_i)/√(1 - c²), c = s_iᵀs_j, which u gains.
    """
    S = basis.left_out
    low, forms, remaining, residual_images = _parts(basis, form)
    cosines = S.T @ S
    np.fill_diagonal(cosines, 0.0)
    sines = np.sqrt(np.maximum(1 - cosines**2, np.finfo(float).eps))

    def along(V: np.ndarray) -> np.ndarray:  # tᵀv_i
        inner = V.T @ S
        return (inner - cosines * np.diag(inner)[:, None]) / sines

    curved = S.T @ form.inner @ S
    own = np.diag(curved)
    lost = (own - 2 * cosines * curved + cosines**2 * own[:, None]) / sines**2
    gained = along(basis.probes)
    forms = forms[:, None] + 2 * gained * along(residual_images) + gained**2 * lost
    remaining = remaining[:, None] + gained**2
    dimensions = len(basis.Q) - basis.ranks[:, None] + S.any(axis=0)
    return low[:, None] - lost + dimensions * forms / remaining


def standard_error(one: np.ndarray, two: np.ndarray) -> float:
    """The standard error of the mean T of the x_i, which have probes in common.

    √(Σ(x_i - T)²/s(s - 1)) takes them for independent, and is low where each probe matters to the
    others: by a quarter on a network's Hessian, by two thirds where s is about the rank. Given the
    other probes x_ij and x_ji are independent and unbiased, hence -E(x_ij - T)(x_ji - T) =
    2 Cov(x_ij, T) - Var T, which is Var T where no multiple of x_ij - T would improve T, as of the
    best estimate none does. The larger of the two is taken; of independent samples they are equal.
    """
    count, mean = len(one), one.mean()
    independent = one.var(ddof=1) / count
    products = (two - mean) * (two.T - mean)
    np.fill_diagonal(products, 0.0)
    paired = 0.0 - products.sum() / (count * (count - 1))
    return float(np.sqrt(np.clip(paired, independent, MOST_RAISED**2 * independent)))


def _parts(basis: Sketch, form: Form) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """tr(Q₍ᵢ₎ᵀBQ₍ᵢ₎), uᵀBu, uᵀu and QᵀBu."""
    S = basis.left_out
    projected = basis.probes - S * np.sum(S * basis.probes, axis=0)
    residual_images = form.images - form.inner @ projected
    forms = form.own - np.sum(projected * (form.images + residual_images), axis=0)
    low = np.trace(form.inner) - np.sum(S * (form.inner @ S), axis=0)
    return low, forms, form.lengths - np.sum(projected**2, axis=0), residual_images
