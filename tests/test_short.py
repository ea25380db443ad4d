"""The short set, for other versions of Python and of the libraries: `pytest -m short`."""

import json

import numpy as np
import pytest
from support.oracles import CASES, gradient, relative, softmax_loss, variables_of
from support.sweep import sweep

import hvp
from hvp import examples, testing

pytestmark = pytest.mark.short

CASE = CASES[1]  # tanh, cross-entropy, batches of unequal sizes, float64
PRODUCTS = {
    "H": hvp.Hessian,
    "G": hvp.GaussNewton,
    "R": hvp.Residual,
    "F": hvp.Fisher,
    "E": hvp.EmpiricalFisher,
    "J": hvp.Jacobian,
}


def dense(letter):
    """The matrix from TensorFlow's own derivatives, one row after the other."""
    if letter == "F":  # equal to G: softmax is the canonical link of the cross-entropy
        return CASE.matrix("G")
    if letter != "E":
        return CASE.matrix(letter)
    x, y = CASE.data
    variables = variables_of(CASE.model)
    gradients = np.stack([
        gradient(lambda i=i: softmax_loss(y[i : i + 1], CASE.model(x[i : i + 1])), variables)
        for i in range(len(x))
    ])  # fmt: skip
    return gradients.T @ gradients / len(x)


@pytest.fixture(scope="module")
def lin():
    return hvp.linearize(CASE.model, CASE.batches, CASE.loss)


@pytest.mark.parametrize("letter", PRODUCTS)
def test_each_product_is_the_dense_matrix(lin, letter):
    A = PRODUCTS[letter](lin)
    testing.dot_test(A)
    assert relative(A @ np.eye(lin.size), dense(letter)) < 1e-11


def test_eigenvalues_density_and_trace_agree_with_dense_algebra(lin):
    H = CASE.matrix("H")
    pairs = hvp.eigsh(hvp.Hessian(lin), 3)
    np.testing.assert_allclose(np.sort(pairs.values), np.linalg.eigvalsh(H)[-3:], rtol=1e-6)
    trace = hvp.trace(hvp.Hessian(lin))
    assert abs(trace.value - np.trace(H)) <= 5 * trace.stderr + 1e-10
    density = hvp.density(hvp.Hessian(lin), num_probes=4, num_steps=10)
    assert np.isfinite(density.count_above(0.1).value)


@pytest.mark.parametrize("activation", sweep(examples.ACTIVATIONS, {"relu"}))
def test_the_main_job_on_few_digits(activation, tmp_path):
    x, y = (array[::25] for array in examples.mnist())
    model = examples.network(activation)
    model.fit(x, y, epochs=2, batch_size=50, verbose=0)
    lin = hvp.linearize(model, (x, y))
    comparison = hvp.compare(lin, 3, num_probes=2, num_steps=10)
    comparison.save(tmp_path)
    names = ("compare.html", "compare.json", "compare.npz", "compare.png", "compare.svg")
    assert sorted(path.name for path in tmp_path.iterdir()) == list(names)
    written = json.loads((tmp_path / "compare.json").read_text(encoding="utf-8"))
    for row in hvp.chain_rule(lin):
        assert row.vHv == pytest.approx(row.vGv + row.vRv, rel=1e-4, abs=1e-6)
    assert set(comparison.parts) == {"whole network", "dense1", "dense2", "dense3"}
    assert written["parts"].keys() == comparison.parts.keys()
