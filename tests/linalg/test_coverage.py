"""Every stated error covers the truth as often as it says, from three probes up."""

from types import SimpleNamespace

import numpy as np
import pytest
from support.spectra import with_spectrum
from support.sweep import sweep

import hvp
from hvp.linalg import hutchinson

P, SEEDS = 60, 200
SPECTRA = {
    "power law": np.arange(1.0, P + 1) ** -2,
    "exponential": 0.8 ** np.arange(P),
    "rank three": np.r_[1.0, 1.0, 1.0, np.zeros(P - 3)],
    "rank eight": np.r_[np.geomspace(10.0, 0.1, 8), np.zeros(P - 8)],
    "eight equal": np.r_[np.ones(8), np.zeros(P - 8)],
    "clusters": np.r_[np.ones(P // 2), np.full(P // 2 - 5, 2.0), np.full(5, 30.0)],
    "one huge": np.r_[5e4, np.linspace(0.5, 1.5, P - 1)],
    "identity plus three": np.r_[5.0, 7.0, 10.0, np.ones(P - 3)],
    "indefinite": np.linspace(-1.0, 1.2, P),
    "network": np.r_[
        np.geomspace(20, 1, 9), np.geomspace(0.3, 1e-5, 30), -np.geomspace(0.05, 1e-6, 21)
    ],
}
SOME_OFTEN = sweep(SPECTRA, {"rank three", "one huge", "indefinite", "network"})
MATRICES = {name: with_spectrum(values) for name, values in SPECTRA.items()}
# Layers of a third and two thirds.
LAYOUT = SimpleNamespace(slices=(slice(0, 20), slice(20, P)), layers={"a": (0,), "b": (1,)})
LIN = SimpleNamespace(layout=LAYOUT)

# Name -> (the estimates by matrix and seed, the truth, products or probes).
ESTIMATES = {
    "trace": (hvp.trace, np.trace, (6, 16)),
    "square": (hvp.squared_frobenius_norm, lambda A: np.sum(A**2), (6,)),
    "norm": (hvp.frobenius_norm, np.linalg.norm, (6,)),
    "diagonal": (hvp.diagonal, np.diag, (8,)),
}


def coverage(estimates, truth):
    """The shares of errors within one and within two standard errors, with those of depth."""
    errors = np.abs(np.array([e.value for e in estimates]) - truth)
    depths = np.reshape([e.depth for e in estimates], (-1, *(1,) * np.ndim(truth)))
    stated = np.array([e.stderr for e in estimates])
    rounding = 1e-12 * np.abs(truth).max()
    return [np.mean(errors <= n * stated + depths + rounding) for n in (1, 2)]


def assert_covered(estimates, truth, least=0.90):
    once, twice = coverage(estimates, truth)
    assert once >= 0.62, once
    assert twice >= least, twice


@pytest.mark.parametrize("spectrum", SOME_OFTEN)
@pytest.mark.parametrize("name", ESTIMATES)
def test_errors_of_traces_norms_and_diagonals(name, spectrum):
    function, truth, counts = ESTIMATES[name]
    A = MATRICES[spectrum]
    for count in counts:
        estimates = [function(A, num_products=count, seed=seed) for seed in range(SEEDS)]
        assert_covered(estimates, truth(A))


@pytest.mark.parametrize("spectrum", SOME_OFTEN)
@pytest.mark.parametrize("name", ESTIMATES)
def test_errors_of_hutchinsons_means(name, spectrum, monkeypatch):
    monkeypatch.setattr(hutchinson, "MAX_BYTES", 0)
    function, truth, _ = ESTIMATES[name]
    A = MATRICES[spectrum]
    estimates = [function(A, num_products=3, seed=seed) for seed in range(SEEDS)]
    assert_covered(estimates, truth(A))


@pytest.mark.parametrize("spectrum", SOME_OFTEN)
@pytest.mark.parametrize("num_probes", [3])
def test_errors_of_integrals_and_counts_of_a_density(num_probes, spectrum):
    values = SPECTRA[spectrum]
    A = np.diag(values)
    runs = [hvp.density(A, num_probes=num_probes, num_steps=8, seed=s) for s in range(SEEDS)]
    middle = (np.sort(values)[P // 3] + np.sort(values)[P // 3 + 1]) / 2
    middle += 1e-3 * np.abs(values).max()
    for estimate, truth in (
        (lambda d: d.moment(1), values.mean()),
        (lambda d: d.moment(2), np.mean(values**2)),
        (lambda d: d.integral(np.abs), np.sum(np.abs(values))),
        (lambda d: d.count_above(middle), np.sum(values > middle)),
    ):
        assert_covered([estimate(d) for d in runs], truth)


@pytest.mark.parametrize("spectrum", SOME_OFTEN)
@pytest.mark.parametrize("num_products", [4, 12])
def test_errors_of_layers(num_products, spectrum):
    A = MATRICES[spectrum]
    runs = [hvp.layer_traces(A, LIN, num_products=num_products, seed=s) for s in range(SEEDS)]
    # The one huge eigenvalue is projected out, but not from a single layer's block.
    least = 0.83 if (spectrum, num_products) == ("one huge", 12) else 0.90
    for block, name in ((A, "whole"), (A[:20, :20], "a"), (A[20:, 20:], "b")):
        found = [run.layers.get(name, run.whole) for run in runs]
        assert_covered([f.trace for f in found], np.trace(block))
        assert_covered([f.squared_norm for f in found], np.sum(block**2), least)
