"""Hutchinson's estimator, for few products or large operators."""

import numpy as np
import pytest
from support.estimators import FUNCTIONS, MATRICES, SEEDS, P, assert_unbiased, functions

import hvp
from hvp.linalg import hutchinson


@pytest.mark.parametrize("count", [2, 3, 7])
@pytest.mark.parametrize("name", ["flat", "indefinite"])
def test_hutchinson_is_unbiased_and_its_errors_right(name, count, monkeypatch):
    monkeypatch.setattr(hutchinson, "MAX_BYTES", 0)
    A = MATRICES[name]
    for function in (hvp.trace, hvp.squared_frobenius_norm):
        estimates = [function(A, num_products=count, seed=seed) for seed in SEEDS]
        assert {e.method for e in estimates} == {"Hutchinson"}
        assert_unbiased(estimates, FUNCTIONS[function](A))
    estimates = [hvp.diagonal(A, num_products=count, seed=seed) for seed in SEEDS]
    assert_unbiased(estimates, np.diag(A), z=5.0)


@functions
def test_a_single_product_has_no_standard_error(function):
    found = function(MATRICES["flat"], num_products=1)
    assert found.num_products == 1
    assert np.isfinite(found.value).all()
    assert np.isnan(found.stderr).all()


def test_the_method_depends_on_the_size_of_the_vectors(monkeypatch):
    A = MATRICES["flat"]
    monkeypatch.setattr(hutchinson, "MAX_BYTES", 20 * P * 8)
    assert hvp.trace(A, num_products=20).method == "XTrace"
    assert hvp.trace(A, num_products=21).method == "Hutchinson"
    assert hvp.diagonal(A, num_products=20).method == "Hutchinson beside a basis"
    assert hvp.diagonal(A, num_products=21).method == "Hutchinson"
