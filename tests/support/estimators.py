"""Matrices for estimators by random probes, and the test that an estimator is unbiased."""

from types import SimpleNamespace

import numpy as np
import pytest
from support.spectra import with_spectrum

import hvp

P = 150
SEEDS = range(200)
# Eigenvalues of both signs.
BOTH = np.r_[-np.geomspace(0.5, 8.0, 12), np.geomspace(0.2, 9.0, 12)]
SPECTRA = {
    "flat": np.linspace(1.0, 3.0, P),
    "slowly decaying": np.arange(1.0, P + 1) ** -1,
    "fast decaying": 0.8 ** np.arange(P),
    "spiked": np.r_[5.0, 4.0, 3.0, np.ones(7), np.geomspace(0.1, 1e-4, P - 10)],
    "indefinite": np.linspace(-1.0, 1.2, P),
    "low rank, not reached": np.r_[np.ones(30), np.zeros(P - 30)],
}

MATRICES = {name: with_spectrum(values) for name, values in SPECTRA.items()}
MATRICES["diagonal"] = np.diag(np.arange(1.0, P + 1) ** -1)
# Function -> the same by dense algebra.
FUNCTIONS = {
    hvp.trace: np.trace,
    hvp.squared_frobenius_norm: lambda A: np.sum(A**2),
    hvp.frobenius_norm: np.linalg.norm,
    hvp.diagonal: np.diag,
}
functions = pytest.mark.parametrize("function", FUNCTIONS, ids=lambda f: f.__name__)


def assert_unbiased(estimates, truth, *, z=4.0, once=(0.62, 1.0), twice=0.9):
    """The mean over seeds is the truth, and errors are as large as the standard errors say.

    Args:
        estimates: one per seed.
        truth: a number or an array.
        z: the largest bias, in standard errors of the mean over seeds.
        once: the least and largest share of errors within one standard error.
        twice: the least share within two.
    """
    errors = np.array([e.value for e in estimates]) - truth
    stderrs = np.array([e.stderr for e in estimates])
    bias, spread = errors.mean(axis=0), errors.std(axis=0) / np.sqrt(len(errors))
    assert (np.abs(bias) <= z * spread + 1e-14 * np.abs(truth).max()).all()
    assert once[0] <= np.mean(np.abs(errors) <= stderrs) <= once[1]
    assert np.mean(np.abs(errors) <= 2 * stderrs) >= twice


def one_layer(size):
    """Stands for a `Linearization` with a single layer of `size` parameters."""
    layout = SimpleNamespace(slices=(slice(0, size),), layers={"all": (0,)})
    return SimpleNamespace(layout=layout)


def exact_pairs(values, Q, chosen):
    return hvp.Eigenpairs(values[chosen], Q[:, chosen], np.zeros(len(chosen)), 0)


def coverage(estimates, truth):
    """How often the truth lies within the 95 % interval."""
    return np.mean([abs(e.value - truth) <= 1.96 * e.stderr for e in estimates])
