"""One comparison of a small network, for all tests that look at one."""

import pytest
from support.comparisons import FEW, REPEATABLE, TOL, K, examples, network

import hvp


@pytest.fixture(scope="session")
def model():
    return network()


@pytest.fixture(scope="session")
def lin(model):
    return hvp.linearize(model, examples(), batch_size=17, **REPEATABLE)


@pytest.fixture(scope="session")
def comparison(lin):
    return hvp.compare(lin, K, tol=TOL, seed=3, title="a small network", **FEW)
