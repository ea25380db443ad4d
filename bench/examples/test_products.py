"""The same products for pytest-benchmark: ``pytest bench/examples/test_products.py -n 0``."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import hvp
from bench.examples.asv_products import linearization


@pytest.fixture(scope="module")
def lin() -> hvp.Linearization:
    """Prepared, so that nothing is traced while products are timed."""
    return linearization().prepare("H", "G", columns=(1, 16))


@pytest.mark.parametrize("columns", [1, 16])
@pytest.mark.parametrize("matrix", ["H", "G"])
def test_product(benchmark: Any, lin: hvp.Linearization, matrix: str, columns: int) -> None:
    """A product with a block of vectors, with its multiply-adds beside its time."""
    product = {"H": lin.hvp, "G": lin.gnvp}[matrix]
    shape = (lin.size, columns) if columns > 1 else (lin.size,)
    vectors = np.random.default_rng(1).standard_normal(shape, dtype=np.float32)
    found = benchmark(product, vectors)
    assert found.shape == shape
    work = lin.cost(matrix).linear
    assert work is not None
    benchmark.extra_info["multiply_adds"] = work.multiply_adds
    benchmark.extra_info["bytes"] = work.bytes
