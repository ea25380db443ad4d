"""`hvp.density` on matrices made from chosen eigenvalues, judged by dense algebra."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse
import scipy.stats
from scipy.sparse.linalg import LinearOperator
from support.estimators import BOTH, coverage, exact_pairs
from support.spectra import SPECTRA, Counting, P, with_spectrum

from hvp import Eigenpairs, InputError, density, eigsh
from hvp.linalg.smoothing import to_log
from hvp.linalg.wasserstein import distance

SEEDS = 200
# Twice as large as P, and decades wide.
DECADES = np.r_[np.zeros(60), np.geomspace(1e-6, 1.0, 60)]


def probe(size, seed, count, dtype="float64"):
    """(P, S) the probes, as the seed draws them."""
    V = np.random.default_rng(seed).standard_normal((count, size), dtype=dtype).T
    return V / np.linalg.norm(V, axis=0)


def steps_at(values, x):
    """The cumulative spectrum of chosen eigenvalues."""
    return np.searchsorted(np.sort(values), x, "right") / len(values)


# --- nodes and weights ---


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", ["simple", "indefinite", "negative", "tiny", "huge"])
def test_at_full_depth_nodes_are_the_eigenvalues_and_weights_the_squares(name, seed):
    matrix = with_spectrum(SPECTRA[name])
    values, vectors = np.linalg.eigh(matrix)
    d = density(matrix, num_probes=2, num_steps=P, seed=seed)
    scale = np.abs(values).max()
    for s, v in enumerate(probe(P, seed, 2).T):
        np.testing.assert_allclose(d.nodes[s], values, atol=1e-13 * scale)
        np.testing.assert_allclose(d.weights[s], (vectors.T @ v) ** 2, atol=1e-10)
    assert d.errors.max() < 1e-12 * scale
    assert d.notes == ()


@pytest.mark.parametrize("name", SPECTRA)
def test_every_spectrum_is_recovered_at_full_depth(name):
    values = SPECTRA[name]
    d = density(with_spectrum(values), num_probes=20, num_steps=P)
    between = (np.unique(values.round(15))[1:] + np.unique(values.round(15))[:-1]) / 2
    scale = np.abs(values).max() or 1.0
    points = np.r_[values.min() - scale, between, values.max() + scale]
    shares, stderrs = d.cumulative(points)
    assert (np.abs(shares - steps_at(values, points)) <= 4.5 * stderrs + 1e-12).all()
    assert stderrs.max() < 0.06


@pytest.mark.parametrize("name", SPECTRA)
def test_moments_are_the_exact_ones_of_the_probes_to_the_order_of_a_gauss_rule(name):
    values, m = SPECTRA[name], 4
    matrix = with_spectrum(values)
    d = density(matrix, num_probes=3, num_steps=m, seed=5)
    V = probe(P, 5, 3)
    scale = np.abs(values).max() or 1.0
    for k in range(2 * m):
        expected = np.sum(V * (np.linalg.matrix_power(matrix / scale, k) @ V), axis=0).mean()
        moment = d.moment(k)
        np.testing.assert_allclose(moment.value, expected * scale**k, rtol=1e-9, atol=1e-300)
        if k < m:
            assert moment.depth <= 1e-9 * scale**k


def test_every_row_of_weights_sums_to_one_and_nodes_ascend():
    d = density(with_spectrum(SPECTRA["spiked"]), num_steps=20)
    np.testing.assert_allclose(d.weights.sum(axis=1), 1.0, rtol=1e-12)
    assert (np.diff(d.nodes, axis=1) >= 0).all()
    assert d.nodes.shape == d.weights.shape == d.errors.shape == (10, 20)
    assert d.half_nodes.shape == (10, 20)
    assert np.count_nonzero(d.half_weights, axis=1).tolist() == [10] * 10


@pytest.mark.parametrize("num_steps", [3, 10, 30])
def test_an_eigenvalue_lies_within_the_error_of_every_node(num_steps):
    for name, values in SPECTRA.items():
        d = density(with_spectrum(values), num_probes=4, num_steps=num_steps)
        gaps = np.abs(d.nodes[..., None] - values).min(axis=-1)
        assert (gaps <= d.errors + d.floor).all(), name


# --- small, zero and degenerate matrices ---


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("num_probes", [1, 2, 5])
@pytest.mark.parametrize(
    "values",
    [[3.0], [0.0], [-2.0, 5.0], [1.0, 1.0], np.zeros(9), np.ones(9), [0.0, 0, 0, 0, 0, 7]],
    ids=["P 1", "P 1 zero", "P 2", "P 2 identity", "zero", "identity", "rank one"],
)
def test_small_and_degenerate_matrices(values, num_probes, dtype):
    values = np.asarray(values)
    matrix = with_spectrum(values).astype(dtype)
    d = density(matrix, num_probes=num_probes)
    distinct = np.unique(values)
    assert d.nodes.shape == (num_probes, len(distinct))
    np.testing.assert_allclose(d.nodes, np.tile(distinct, (num_probes, 1)), atol=1e-5)
    if num_probes > 1:
        mean = d.moment(1)
        assert abs(mean.value - values.mean()) <= 5 * mean.stderr + 1e-5
        assert mean.depth == 0
    else:
        assert np.isnan(d.moment(1).stderr)
    x = d.grid()
    assert np.trapezoid(d.curve(x)[0], x) == pytest.approx(1, abs=1e-3)
    t = d.log_grid()
    assert np.trapezoid(d.log_curve(t)[0], t) == pytest.approx(1, abs=1e-3)
    assert d.notes == (f"num_steps cut from 80 to {len(values)}, the dimension of the space",)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("num_steps", [10, P])
def test_a_null_space_has_no_eigenvalues_below_zero_and_none_above(num_steps, dtype):
    values = SPECTRA["rank deficient"]
    d = density(with_spectrum(values).astype(dtype), num_probes=40, num_steps=num_steps)
    assert d.nodes.min() < 0 or dtype == "float64"
    assert d.mass_below().value == 0
    rank = d.count_above(0.0)
    assert abs(rank.value - 5) < 4 * rank.stderr
    assert d.cumulative(np.zeros(1))[0][0] == pytest.approx(1 - rank.value / P)
    # Without the floor the noise is counted.
    some = d.mass_below(floor=0.0).value + d.count_above(0.0, floor=0.0).value / P
    assert some > rank.value / P


def test_counts_and_masses_see_outliers_and_negative_eigenvalues():
    values = SPECTRA["indefinite"]
    matrix = with_spectrum(values)
    d = density(matrix, num_probes=60, num_steps=P)
    below = d.mass_below()
    assert abs(below.value - 0.5) < 4 * below.stderr < 0.06
    for threshold in (-3.0, 0.0, 2.0):
        count = d.count_above(threshold)
        assert abs(count.value - np.sum(values > threshold)) < 4 * count.stderr
        assert count.num_products == d.num_products == 60 * P
    assert d.count_above(-np.inf).value == pytest.approx(P)


# --- errors ---


@pytest.fixture(scope="module")
def runs():
    """Densities of one matrix over seeds, at full depth, where probes are all the error."""
    matrix = np.diag(BOTH)
    return [density(matrix, num_probes=12, num_steps=len(BOTH), seed=seed) for seed in range(SEEDS)]


@pytest.mark.sweep
@pytest.mark.parametrize(
    ("estimate", "truth"),
    [
        (lambda d: d.moment(1), np.mean(BOTH)),
        (lambda d: d.moment(2), np.mean(BOTH**2)),
        (lambda d: d.integral(np.abs), np.sum(np.abs(BOTH))),
        (lambda d: d.mass_below(), 0.5),
        (lambda d: d.count_above(1.0), np.sum(BOTH > 1.0)),
        (lambda d: d.count_below(-1.0), np.sum(BOTH < -1.0)),
    ],
    ids=["mean", "square", "nuclear norm", "mass", "above", "below"],
)
def test_standard_errors_cover_as_they_should(runs, estimate, truth):
    estimates = [estimate(d) for d in runs]
    assert 0.92 <= coverage(estimates, truth) <= 1.0
    spread = np.std([e.value for e in estimates])
    typical = np.sqrt(np.mean([e.stderr**2 for e in estimates]))
    # Of 12 probes, Student's t is 1.12 that of a normal variable; two estimates are compared.
    assert 1.0 < typical / spread < 1.4


def test_the_variance_of_a_probe_is_that_of_the_spectrum_over_half_the_size(runs):
    values = BOTH
    expected = np.sqrt(2 / (len(BOTH) + 2) * np.var(values) / 12)
    assert np.std([d.moment(1).value for d in runs]) == pytest.approx(expected, rel=0.15)


def test_standard_errors_of_curves_cover_at_every_point(runs):
    values, width, x = BOTH, 0.5, np.linspace(-8, 9, 25)
    truth = scipy.stats.norm.pdf(x[:, None], values, width).mean(axis=1)
    bound = 1.96
    curves = [d.curve(x, width) for d in runs]
    hits = np.mean([np.abs(c - truth) <= bound * e for c, e in curves], axis=0)
    assert hits.min() > 0.8  # one eigenvalue alone is seen by few, and by some a lot
    assert 0.90 <= hits.mean() <= 0.98
    t = to_log(x, 0.1)
    truth = scipy.stats.norm.pdf(t[:, None], to_log(values, 0.1), 0.3).mean(axis=1)
    curves = [d.log_curve(t, origin=0.1, width=0.3) for d in runs]
    hits = np.mean([np.abs(c - truth) <= bound * e for c, e in curves], axis=0)
    assert 0.90 <= hits.mean() <= 0.98


@pytest.mark.parametrize("num_steps", [8, 16, 32])
@pytest.mark.parametrize(
    "f",
    [lambda x: np.log(x + 1e-3), lambda x: x / (x + 1e-2), np.sqrt, lambda x: x],
    ids=["log", "effective dimension", "root", "trace"],
)
def test_the_depth_is_at_least_what_the_rule_misses(f, num_steps):
    def safe(x):
        return f(np.maximum(x, 0.0)).astype(float)

    matrix = with_spectrum(DECADES)
    values, vectors = np.linalg.eigh(matrix)
    V = probe(len(DECADES), 3, 10)
    exact = np.sum(safe(values)[:, None] * (vectors.T @ V) ** 2) / 10 * len(DECADES)
    estimate = density(matrix, num_steps=num_steps, seed=3).integral(safe)
    assert abs(estimate.value - exact) <= estimate.depth + 1e-9


@pytest.mark.parametrize("threshold", [-1e-3, 1e-6, 1e-4, 1e-2, 0.5])
@pytest.mark.parametrize("num_steps", [1, 4, 8, 16, 32, 60])
def test_the_depth_of_a_count_is_at_least_what_may_be_on_the_other_side(num_steps, threshold):
    matrix = with_spectrum(DECADES)
    values, vectors = np.linalg.eigh(matrix)
    V = probe(len(DECADES), 3, 10)
    exact = np.sum((values > threshold)[:, None] * (vectors.T @ V) ** 2) * 12
    d = density(matrix, num_steps=num_steps, seed=3)
    count, below = d.count_above(threshold), d.mass_below(threshold)
    if num_steps > 1:
        assert abs(count.value - exact) <= count.depth + 1e-9
        assert below.depth == pytest.approx(count.depth / 120)
    else:
        assert np.isnan(count.depth)


def test_the_depth_goes_down_with_the_steps():
    matrix = with_spectrum(DECADES)
    smooth = [density(matrix, num_steps=m).integral(np.exp).depth for m in (4, 8, 16)]
    assert smooth[0] > 1e3 * smooth[1] > 1e3 * smooth[2]
    apart = [density(matrix, num_steps=m).count_above(1e-2).depth for m in (4, 16, 60)]
    assert apart[0] > apart[1] > 10 * apart[2]


def test_a_single_probe_has_no_standard_error_and_a_single_step_no_depth():
    d = density(np.diag(SPECTRA["simple"]), num_probes=1, num_steps=1)
    logdet = d.integral(np.log)
    assert np.isnan(logdet.stderr)
    assert np.isnan(logdet.depth)
    assert np.isnan(d.curve(np.ones(2))[1]).all()
    assert np.isnan(d.cumulative(np.ones(2))[1]).all()


# --- outliers projected out ---


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_outliers_come_back_exactly_and_the_bulk_is_free_of_them(dtype):
    values = SPECTRA["spiked"]
    matrix = with_spectrum(values).astype(dtype)
    pairs = eigsh(matrix, 3)
    d = density(matrix, num_probes=60, num_steps=25, pairs=pairs)
    np.testing.assert_allclose(d.outliers, [30.0, 40.0, 50.0], rtol=1e-5)
    assert d.nodes.min() > -1e-4
    assert d.nodes.max() < 1 + 1e-4
    count = d.count_above(20.0)
    assert (count.value, count.stderr) == (pytest.approx(3), 0)
    trace = d.integral(lambda x: x)
    assert abs(trace.value - values.sum()) < 4 * trace.stderr < 2.0
    assert d.count_above(-np.inf).value == pytest.approx(P)
    assert d.cumulative(np.array([-1.0, 1.01, 35.0, 60.0]))[0] == pytest.approx(
        [0.0, 57 / 60, 58 / 60, 1.0], abs=1e-6
    )


def test_what_is_projected_out_stays_out_however_long_the_recurrence():
    values = np.r_[np.linspace(0.0, 1.0, 296), 1e4 * np.arange(1, 5)]
    matrix = with_spectrum(values).astype(np.float32)
    d = density(matrix, num_probes=2, num_steps=100, pairs=eigsh(matrix, 4))
    assert d.nodes.max() < 1 + d.floor


def test_outliers_projected_out_smear_the_bulk_no_more():
    values = np.r_[np.linspace(0.0, 1.0, 296), 100.0 + np.arange(4)]
    matrix = with_spectrum(values)
    plain = density(matrix, num_steps=12)
    apart = density(matrix, num_steps=12, pairs=eigsh(matrix, 4))
    assert apart.width < plain.width
    bulk = [d.integral(lambda x: np.sqrt(np.abs(x))).depth for d in (plain, apart)]
    assert bulk[1] < bulk[0] / 2


def test_all_but_one_may_be_projected_out():
    values, Q = np.linalg.eigh(with_spectrum(np.arange(1.0, 6.0)))
    d = density(Q * values @ Q.T, num_probes=2, pairs=exact_pairs(values, Q, [0, 1, 3, 4]))
    np.testing.assert_allclose(d.nodes, 3.0)
    assert d.integral(lambda x: x).value == pytest.approx(15)
    assert "cut from 80 to 1" in d.notes[0]


def test_the_same_seed_draws_the_same_bits():
    matrix = with_spectrum(SPECTRA["simple"])
    first, again, other = (density(matrix, num_steps=9, seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(first.nodes, again.nodes)
    assert np.array_equal(first.weights, again.weights)
    assert not np.array_equal(first.nodes, other.nodes)


# --- without reorthogonalisation ---


def test_two_vectors_give_the_same_integrals_and_say_so():
    values = SPECTRA["spiked"]
    matrix = with_spectrum(values)
    kept = density(matrix, num_steps=50)
    two = density(matrix, num_steps=50, reorthogonalise=False)
    assert two.notes == (
        "no reorthogonalisation: eigenvalues that converged come up as several nodes",
    )
    assert np.sum(two.nodes > 49) > np.sum(kept.nodes > 49) == 10
    for f in (np.exp, lambda x: np.log(x + 1.0)):
        assert two.integral(f).value == pytest.approx(kept.integral(f).value, rel=1e-6)
    assert two.count_above(20.0).value == pytest.approx(kept.count_above(20.0).value, rel=1e-6)


# --- products ---


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("num_probes", "widths"), [(4, [4] * 6), (1, [2, 1, 1, 1, 1, 1])])
def test_probes_are_multiplied_in_blocks_and_counted(num_probes, widths, dtype):
    A, reported = Counting(with_spectrum(SPECTRA["simple"]).astype(dtype)), []
    d = density(A, num_probes=num_probes, num_steps=6, progress=reported.append)
    assert A.widths == widths
    assert d.num_products == sum(widths) == reported[-1]
    assert d.steps.tolist() == [6] * num_probes


@pytest.mark.parametrize("num_probes", [1, 3])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_an_operator_that_is_not_symmetric_is_refused_by_its_asymmetry(num_probes, dtype):
    rng = np.random.default_rng(0)
    A = Counting(rng.standard_normal((P, P)).astype(dtype))
    with pytest.raises(InputError, match=r"a symmetric operator.*a relative difference of \d"):
        density(A, num_probes=num_probes)
    assert len(A.widths) == 1


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_products_that_are_not_finite_are_refused(bad):
    with pytest.raises(InputError, match="expected finite products, got NaN or infinity"):
        density(np.diag([1.0, bad, 2.0]))


def pairs_of(size, k, scale=1.0):
    return Eigenpairs(np.ones(k), scale * np.eye(size)[:, :k], np.zeros(k), 0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_probes": 0}, "expected a whole num_probes of at least 1, got 0"),
        ({"num_probes": 2.5}, "expected a whole num_probes of at least 1, got 2.5"),
        ({"num_steps": 0}, "expected a whole num_steps of at least 1, got 0"),
        ({"seed": None}, "expected a seed that is a whole number of at least 0, got None"),
        ({"pairs": pairs_of(4, 2)}, r"expected fewer than 5 pairs of 5 entries, got .*\(4, 2\)"),
        ({"pairs": pairs_of(5, 5)}, r"expected fewer than 5 pairs of 5 entries, got .*\(5, 5\)"),
        ({"pairs": pairs_of(5, 2, 2.0)}, r"orthonormal vectors of pairs, got UᵀU - I of 3.0e\+00"),
    ],
)
def test_bad_arguments_are_refused_in_one_line(options, message):
    with pytest.raises(InputError, match=message) as caught:
        density(np.eye(5), **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda d: d.integral(np.log), "finite values of f at all nodes.* got infinity or NaN"),
        (lambda d: d.integral(lambda x: 1.0), r"finite values of f at all nodes.* got shape \(\)"),
        (lambda d: d.moment(-1), "finite values of f"),
        (lambda d: d.curve(np.ones((2, 2))), r"finite points of shape \(n,\), got shape \(2, 2\)"),
        (lambda d: d.cumulative(np.array([np.nan])), "finite points"),
        (lambda d: d.curve(np.ones(2), -1.0), "a finite positive width, got -1.0"),
        (lambda d: d.curve(np.ones(2), 0.0), "a finite positive width, got 0.0"),
        (lambda d: d.log_curve(np.ones(2), origin=0.0), "a finite positive origin, got 0.0"),
        (lambda d: d.log_grid(width=-1.0), "a finite positive width, got -1.0"),
        (lambda d: d.grid(1), "num_points of at least 2, got 1"),
        (lambda d: d.mass_below(np.nan), "a threshold that is a number, got nan"),
        (lambda d: d.count_above(0.0, floor=-1.0), "a finite positive floor, got -1.0"),
        (lambda d: distance(d, density(np.eye(3), seed=1)), "densities with common probes"),
        (lambda d: distance(d, density(np.eye(2))), "densities with common probes"),
    ],
)
def test_bad_questions_are_refused(call, message):
    with pytest.raises(InputError, match=message):
        call(density(np.diag([0.0, 0.0, 1.0]), num_probes=2))


# --- memory, in a fresh process ---

ROOT = Path(__file__).parents[2]
SIZE, PROBES, STEPS = 1_000_000, 2, 12


def peak():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def measure(reorthogonalise):
    """The peak over what was held before, in vectors a probe."""

    def diagonal(size):
        values = np.linspace(0.0, 1.0, size, dtype=np.float32)

        def product(V):
            return np.multiply(values[:, None], V, out=np.empty_like(V, order="F"))

        return LinearOperator((size, size), matvec=product, matmat=product, dtype=np.float32)

    A = diagonal(SIZE)
    density(diagonal(100), num_probes=PROBES, num_steps=STEPS)
    held = peak()
    density(A, num_probes=PROBES, num_steps=STEPS, reorthogonalise=reorthogonalise)
    return (peak() - held) / (4 * SIZE * PROBES)


@pytest.mark.sweep
@pytest.mark.parametrize(("reorthogonalise", "most"), [(1, STEPS + 2), (0, 3.25)])
def test_a_probe_takes_as_many_vectors_as_steps_and_a_few(reorthogonalise, most):
    run = subprocess.run(
        (sys.executable, __file__, str(reorthogonalise)),
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])},
        check=True,
    )
    assert most - 2 < float(run.stdout) < most


if __name__ == "__main__":
    print(measure(bool(int(sys.argv[1]))))
