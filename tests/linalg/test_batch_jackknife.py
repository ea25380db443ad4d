"""What other examples would have changed of a density, against matrices made anew."""

import numpy as np
import pytest
from scipy.sparse.linalg import LinearOperator

import hvp
from hvp.linalg.wasserstein import distance
from hvp.sampling_error import BatchGrams, jackknife

P = 12


class Batches(LinearOperator):
    """Σ_b n_b/N A_b + a penalty, and what it would be without each batch."""

    def __init__(self, means, examples, penalty=0.0):
        self.examples = np.asarray(examples)
        weights = self.examples / self.examples.sum()
        self.shares = weights[:, None, None] * means
        self.penalty = penalty * np.eye(means.shape[1])
        self.matrix = self.shares.sum(axis=0) + self.penalty
        self.taken = []
        super().__init__(np.float64, self.matrix.shape)

    def _matmat(self, V):
        return self.matrix @ V

    def _matvec(self, v):
        return self.matrix @ v

    def batch_grams(self, V):
        self.taken.append(V.copy())
        return BatchGrams(V.T @ self.shares @ V, V.T @ self.penalty @ V, self.examples)

    def without(self, b):
        """The weighted mean of the others, made anew."""
        kept = np.delete(np.arange(len(self.examples)), b)
        weights = self.examples[kept] / self.examples[kept].sum()
        means = self.shares[kept] * (self.examples.sum() / self.examples[kept])[:, None, None]
        return np.tensordot(weights, means, 1) + self.penalty


def wishart(rng, examples, size=P):
    """Batches of xxᵀ for x with variances from 0.1 to 2."""
    scales = np.sqrt(np.linspace(0.1, 2.0, size))
    rows = [scales * rng.standard_normal((n, size)) for n in examples]
    return Batches(np.stack([X.T @ X / len(X) for X in rows]), examples)


@pytest.fixture
def whole():
    rng = np.random.default_rng(0)
    means = rng.standard_normal((4, P, P))
    return Batches(means + means.transpose(0, 2, 1), [5, 5, 3, 8], penalty=0.25)


def test_at_full_depth_the_nodes_are_the_eigenvalues_without_each_batch(whole):
    d = hvp.density(whole, num_probes=3, num_resampled=2)
    left, block = d.left_out, whole.taken[1]  # behind the pairs
    assert left.examples.tolist() == [5, 5, 3, 8]
    for b in range(4):
        values, vectors = np.linalg.eigh(whole.without(b))
        assert np.allclose(left.nodes[b], values, atol=1e-12)
        # The weights are the squares of the probe's entries in the basis of eigenvectors.
        assert np.allclose(left.weights[b, 0], (block[:, 0] @ vectors) ** 2, atol=1e-12)


def test_the_sampling_error_is_the_jackknife_of_the_forms(whole):
    d = hvp.density(whole, num_probes=2, num_resampled=2)
    probes = np.stack([block[:, 0] for block in whole.taken[1:3]])
    forms = [[P * v @ whole.without(b) @ whole.without(b) @ v for v in probes] for b in range(4)]
    expected = jackknife(np.array(forms), whole.examples)
    assert np.isclose(d.integral(np.square).sampling, expected, rtol=1e-10)
    assert np.isclose(d.moment(2).sampling, expected / P, rtol=1e-10)


def test_outliers_without_a_batch_are_its_quadratic_forms(whole):
    pairs = hvp.eigsh(whole, 2)
    d = hvp.density(whole, num_probes=2, num_resampled=1, pairs=pairs)
    forms = [np.diag(pairs.vectors.T @ whole.without(b) @ pairs.vectors) for b in range(4)]
    assert np.allclose(d.left_out.outliers, forms, atol=1e-12)
    assert d.left_out.nodes.shape == (4, 1, P - 2)
    # With all of the bulk's space and the pairs' own, the trace is right to the last digits.
    traces = [d.left_out.outliers[b].sum() + d.left_out.nodes[b, 0].sum() for b in range(4)]
    assert np.allclose(traces, [np.trace(whole.without(b)) for b in range(4)], atol=1e-10)


def test_sampling_errors_are_those_of_new_data():
    """Within a third over 150 draws of all data: a bound that a factor of two would break."""
    figures = {
        "trace": lambda d: d.integral(lambda x: x),
        "squared norm": lambda d: d.integral(np.square),
        "log det": lambda d: d.integral(np.log1p),
        "count": lambda d: d.count_above(1.0, floor=0.0),
    }
    rng = np.random.default_rng(3)
    drawn = [wishart(rng, [50] * 10, 60) for _ in range(150)]
    found = {name: [] for name in figures}
    for A in drawn[:20]:
        d = hvp.density(A, num_probes=20, num_steps=30, num_resampled=20)
        for name, figure in figures.items():
            found[name].append(figure(d).sampling)
    spectra = np.array([np.linalg.eigvalsh(A.matrix) for A in drawn])
    truth = {
        "trace": spectra.sum(axis=1).std(),
        "squared norm": (spectra**2).sum(axis=1).std(),
        "log det": np.log1p(spectra).sum(axis=1).std(),
        "count": (spectra > 1.0).sum(axis=1).std(),
    }
    for name, errors in found.items():
        ratio = np.sqrt(np.mean(np.square(errors))) / truth[name]
        low, high = (0.3, 3.0) if name == "count" else (0.75, 1.33)
        assert low < ratio < high, (name, ratio)


def test_curves_and_distances_have_sampling_errors():
    A = wishart(np.random.default_rng(4), [50] * 10)
    B = Batches(A.shares * 10 + 0.5 * np.eye(P), A.examples)
    first, second = (hvp.density(each, num_probes=4, num_resampled=4) for each in (A, B))
    x, t = first.grid(), first.log_grid()
    values, _ = first.curve(x)
    error = first.curve_sampling(x)
    assert np.isfinite(error).all()
    # Shifted by a matrix that all batches share, a spectrum is moved, and as uncertain.
    assert np.allclose(second.curve_sampling(x + 0.5, first.width), error, atol=1e-9 * error.max())
    assert np.abs(np.trapezoid(values, x) - 1) < 0.01
    assert np.isfinite(first.log_curve_sampling(t)).all()
    apart = distance(first, second)
    assert np.isclose(apart.value, 0.5)
    assert apart.sampling < 1e-9
    assert distance(first, hvp.density(2 * np.eye(P), num_probes=4)).sampling is not None


@pytest.mark.parametrize("pairs", [0, 2])
def test_a_single_batch_has_no_sampling_error(pairs):
    A = wishart(np.random.default_rng(6), [50])
    found = hvp.eigsh(A, pairs) if pairs else None
    d = hvp.density(A, num_resampled=2, pairs=found)
    assert d.left_out is None
    assert np.isnan(d.moment(1).sampling)


def test_there_is_no_sampling_error_unless_asked_for(whole):
    d = hvp.density(whole)
    assert d.left_out is None
    assert whole.taken == []
    assert np.isnan(d.moment(1).sampling)
    assert np.isnan(d.curve_sampling(d.grid())).all()
    with pytest.raises(hvp.InputError, match="give density num_resampled"):
        d.without_batches(np.square)
    asked = hvp.density(whole, num_resampled=1)
    assert asked.num_products == d.num_products + P


@pytest.mark.parametrize(
    ("operator", "options", "message"),
    [
        (np.eye(3), {}, r"expected Hessian\(lin\).*got ndarray"),
        ("whole", {"num_probes": 1, "num_resampled": 2}, "at most num_probes.*got 2 of 1"),
        ("whole", {"reorthogonalise": False}, "got 1 of 10, without"),
        ("whole", {"num_resampled": -1}, "whole num_resampled of at least 0, got -1"),
    ],
    ids=str,
)
def test_operators_without_batches_are_refused(whole, operator, options, message):
    A = whole if isinstance(operator, str) else operator
    with pytest.raises(hvp.InputError, match=message):
        hvp.density(A, **{"num_resampled": 1, **options})
