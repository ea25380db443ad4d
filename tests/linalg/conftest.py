"""One thread of BLAS for all tests here."""

import pytest
import threadpoolctl


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    """On matrices this small threads only wait for each other."""
    with threadpoolctl.threadpool_limits(1, "blas"):
        yield
