"""Traces, diagonals and norms on matrices with chosen eigenvalues, judged by dense algebra.

Every estimate is made with 200 seeds: its mean must be the truth, and the truth must lie within one
and within two standard errors as often as their number of samples lets expect.
"""

import itertools
import tracemalloc
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.sparse
import threadpoolctl
from scipy.sparse.linalg import LinearOperator

import hvp
from hvp import InputError
from hvp.linalg import blocks, layer_traces, xtrace
from hvp.linalg import trace as trace_module
from hvp.linalg.counted_operator import CountedOperator

P = 150
SEEDS = range(200)
SPECTRA = {
    "flat": np.linspace(1.0, 3.0, P),
    "slowly decaying": np.arange(1.0, P + 1) ** -1,
    "fast decaying": 0.8 ** np.arange(P),
    "spiked": np.r_[5.0, 4.0, 3.0, np.ones(7), np.geomspace(0.1, 1e-4, P - 10)],
    "indefinite": np.linspace(-1.0, 1.2, P),
    "low rank, not reached": np.r_[np.ones(30), np.zeros(P - 30)],
}
# Layers that do not lie together.
SLICES = (slice(0, 40), slice(40, 50), slice(50, 110), slice(110, 111), slice(111, P))
LAYERS = {"first": (0, 3), "second": (1, 2), "third": (4,)}
LIN = SimpleNamespace(layout=SimpleNamespace(slices=SLICES, layers=LAYERS))
INDEX = {name: np.concatenate([np.r_[SLICES[i]] for i in own]) for name, own in LAYERS.items()}


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    """On matrices this small threads only wait for each other."""
    with threadpoolctl.threadpool_limits(1, "blas"):
        yield


def with_spectrum(values, seed=0):
    rng = np.random.default_rng(seed)
    Q, _ = np.linalg.qr(rng.standard_normal((len(values), len(values))))
    matrix = (Q * values) @ Q.T
    return (matrix + matrix.T) / 2


MATRICES = {name: with_spectrum(values) for name, values in SPECTRA.items()}
MATRICES["diagonal"] = np.diag(np.arange(1.0, P + 1) ** -1)
FUNCTIONS = {
    hvp.trace: np.trace,
    hvp.squared_frobenius_norm: lambda A: np.sum(A**2),
    hvp.frobenius_norm: np.linalg.norm,
    hvp.diagonal: np.diag,
}
functions = pytest.mark.parametrize("function", FUNCTIONS, ids=lambda f: f.__name__)


def judge(estimates, truth, *, z=4.0, once=(0.55, 0.85), twice=0.85):
    """Estimates (seeds, ...) are right on average, and as far off as their errors say."""
    errors = np.array([e.value for e in estimates]) - truth
    stderrs = np.array([e.stderr for e in estimates])
    bias, spread = errors.mean(axis=0), errors.std(axis=0) / np.sqrt(len(errors))
    assert (np.abs(bias) <= z * spread + 1e-14 * np.abs(truth).max()).all()
    assert once[0] <= np.mean(np.abs(errors) <= stderrs) <= once[1]
    assert np.mean(np.abs(errors) <= 2 * stderrs) >= twice


# --- trace, norms, diagonal ---


@pytest.mark.parametrize("name", MATRICES)
@pytest.mark.parametrize("function", [hvp.trace, hvp.squared_frobenius_norm])
def test_estimates_are_unbiased_and_their_errors_right(function, name):
    A = MATRICES[name]
    judge([function(A, num_products=40, seed=seed) for seed in SEEDS], FUNCTIONS[function](A))


@pytest.mark.parametrize("name", MATRICES)
def test_every_entry_of_a_diagonal_is_unbiased_and_its_error_right(name):
    A = MATRICES[name]
    estimates = [hvp.diagonal(A, num_products=40, seed=seed) for seed in SEEDS]
    judge(estimates, np.diag(A), z=5.0, once=(0.62, 0.72), twice=0.9)


@pytest.mark.parametrize("name", ["flat", "spiked"])
def test_the_norm_is_the_root_of_its_square(name):
    A = MATRICES[name]
    square = hvp.squared_frobenius_norm(A, num_products=30)
    norm = hvp.frobenius_norm(A, num_products=30)
    assert norm.value == pytest.approx(square.value**0.5)
    assert norm.stderr == pytest.approx(square.stderr / (2 * norm.value))
    assert norm.num_products == square.num_products == 30
    judge([hvp.frobenius_norm(A, num_products=30, seed=seed) for seed in SEEDS], np.linalg.norm(A))


@pytest.mark.parametrize("count", [2, 3, 7])
@pytest.mark.parametrize("name", ["flat", "indefinite"])
def test_hutchinson_is_unbiased_and_its_errors_right(name, count, monkeypatch):
    monkeypatch.setattr(trace_module, "MOST_MEMORY", 0)
    A = MATRICES[name]
    # of two samples the spread is known as badly as Student's distribution says
    once, twice = {2: ((0.4, 0.6), 0.6), 3: ((0.48, 0.68), 0.74), 7: ((0.55, 0.75), 0.84)}[count]
    for function in (hvp.trace, hvp.squared_frobenius_norm):
        estimates = [function(A, num_products=count, seed=seed) for seed in SEEDS]
        assert {e.method for e in estimates} == {"Hutchinson"}
        judge(estimates, FUNCTIONS[function](A), once=once, twice=twice)
    estimates = [hvp.diagonal(A, num_products=count, seed=seed) for seed in SEEDS]
    judge(estimates, np.diag(A), z=5.0, once=once, twice=twice)


def test_xtrace_with_four_products_tells_an_error():
    A = MATRICES["flat"]
    estimates = [hvp.trace(A, num_products=4, seed=seed) for seed in SEEDS]
    assert {e.method for e in estimates} == {"XTrace"}
    judge(estimates, np.trace(A), once=(0.42, 0.68), twice=0.65)


@functions
def test_a_single_product_tells_no_error(function):
    found = function(MATRICES["flat"], num_products=1)
    assert found.num_products == 1
    assert np.isfinite(found.value).all()
    assert np.isnan(found.stderr).all()


@functions
@pytest.mark.parametrize("rank", [1, 5, 12])
def test_low_rank_is_exact_and_says_so(function, rank):
    values = np.r_[np.linspace(-1.0, 3.0, rank), np.zeros(P - rank)]
    A = with_spectrum(values, seed=3)
    found = function(A, num_products=40)
    scale = np.linalg.norm(A, 2)
    np.testing.assert_allclose(found.value, FUNCTIONS[function](A), atol=1e-13 * scale)
    assert np.max(found.stderr) <= 1e-14 * scale


def test_decay_is_used_where_hutchinson_does_not():
    A = MATRICES["fast decaying"]
    plain = np.mean(
        [(v @ A @ v - 5.0) ** 2 for v in np.random.default_rng(0).choice([-1, 1], (40, P))]
    )
    errors = [hvp.trace(A, num_products=40, seed=seed).value - np.trace(A) for seed in range(40)]
    assert np.mean(np.square(errors)) < plain / 40 / 25


@functions
@pytest.mark.parametrize("num_products", [10, 1000])
@pytest.mark.parametrize(
    "A",
    [
        np.zeros((P, P)),
        np.eye(P),
        np.outer(np.arange(P) / P, np.arange(P) / P),
        -2 * np.eye(P),
    ],
    ids=["zero", "identity", "rank one", "negative"],
)
def test_corners_are_exact(function, A, num_products):
    found = function(A, num_products=num_products)
    truth = FUNCTIONS[function](A)
    if function is hvp.diagonal and num_products < P and np.linalg.matrix_rank(A) == P:
        errors = np.abs(found.value - truth)  # a basis of random signs hides that A is diagonal
        assert 0.4 < np.mean(errors <= found.stderr) < 0.7
        return
    np.testing.assert_allclose(found.value, truth, rtol=1e-12, atol=1e-13)
    assert np.max(found.stderr) <= 1e-11


@functions
@pytest.mark.parametrize("values", [[3.0], [3.0, -1.0], [1.0, 2.0, 4.0]])
def test_one_two_and_three_parameters_are_taken_whole(function, values):
    A = with_spectrum(values)
    found = function(A)
    assert found.num_products == len(values)
    assert found.method == "unit vectors"
    np.testing.assert_allclose(found.value, FUNCTIONS[function](A), atol=1e-14)
    assert not np.any(found.stderr)


@functions
def test_products_beyond_the_size_are_not_made(function):
    for count in (P, P + 1, 10 * P):
        found = function(MATRICES["flat"], num_products=count)
        assert found.num_products == P
        np.testing.assert_allclose(found.value, FUNCTIONS[function](MATRICES["flat"]))


@functions
@pytest.mark.parametrize("count", [1, 3, 4, 5, 21, 40])
def test_no_more_products_are_made_than_allowed_and_all_reported(function, count):
    reported = []
    found = function(MATRICES["flat"], num_products=count, progress=reported.append)
    assert reported == sorted(set(reported))
    assert found.num_products == reported[-1]
    assert count - 1 <= found.num_products <= count


@functions
def test_the_same_seed_gives_the_same_bits_and_another_seed_others(function):
    first, again, other = (
        function(MATRICES["flat"], num_products=20, seed=seed) for seed in (1, 1, 2)
    )
    assert np.array_equal(first.value, again.value)
    assert np.array_equal(first.stderr, again.stderr)
    assert not np.array_equal(first.value, other.value)


@functions
def test_float32_operators_get_float32_vectors_only(function):
    A = with_spectrum(np.r_[np.linspace(1.0, 2.0, 8), np.zeros(P - 8)]).astype(np.float32)
    seen = set()

    def product(V):
        seen.add(V.dtype)
        return A @ V

    operator = LinearOperator(A.shape, matvec=product, matmat=product, dtype=np.float32)
    for count in (3, 40, 1000):
        found = function(operator, num_products=count)
        assert found.value.dtype == np.float64 if function is hvp.diagonal else True
    assert seen == {np.dtype(np.float32)}
    found = function(operator, num_products=40)
    np.testing.assert_allclose(found.value, FUNCTIONS[function](A.astype(float)), atol=2e-5)
    assert np.max(found.stderr) < 2e-5


@functions
def test_sparse_matrices_are_taken(function):
    A = scipy.sparse.diags_array(np.arange(50.0)).tocsr()
    found = function(A, num_products=20)
    truth = FUNCTIONS[function](A.toarray())
    assert (np.abs(found.value - truth) <= 6 * found.stderr + 1e-12).all()


@functions
@pytest.mark.parametrize("num_products", [3, 20, 1000])
def test_what_is_not_symmetric_is_refused_with_its_asymmetry(function, num_products):
    A = np.random.default_rng(0).standard_normal((P, P))
    with pytest.raises(InputError, match=r"a symmetric operator.*difference of \d\.\de-0[12]"):
        function(A, num_products=num_products)


@functions
@pytest.mark.parametrize("num_products", [3, 20, 1000])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_is_refused(function, num_products, value):
    operator = LinearOperator((P, P), matvec=lambda v: np.full(P, value), dtype=np.float64)
    with pytest.raises(InputError, match="finite products, got NaN or infinity in product"):
        function(operator, num_products=num_products)


@functions
@pytest.mark.parametrize("bad", [0, -1, 2.5])
def test_a_number_of_products_that_is_none_is_refused(function, bad):
    with pytest.raises(InputError, match=f"num_products of at least 1, got {bad}; raise it"):
        function(np.eye(4), num_products=bad)


def test_memory_decides_between_the_methods_and_not_the_machine(monkeypatch):
    A = MATRICES["flat"]
    monkeypatch.setattr(trace_module, "MOST_MEMORY", 20 * P * 8)
    assert hvp.trace(A, num_products=20).method == "XTrace"
    assert hvp.trace(A, num_products=21).method == "Hutchinson"
    assert hvp.diagonal(A, num_products=20).method == "Hutchinson beside a basis"
    assert hvp.diagonal(A, num_products=21).method == "Hutchinson"


@pytest.mark.parametrize(
    ("function", "limit"),
    [
        (hvp.trace, 60),
        (hvp.squared_frobenius_norm, 60),
        (hvp.diagonal, 66),
        (lambda A, **options: hvp.layer_traces(A, one_layer(A.shape[0]), **options), 66),
    ],
    ids=["trace", "norm", "diagonal", "layers"],
)
def test_vectors_held_are_as_many_as_products(function, limit):
    size, vectors = 100_000, 8 * 100_000
    scales = np.linspace(1.0, 2.0, size)[:, None]
    A = LinearOperator(
        (size, size), matvec=lambda v: scales[:, 0] * v, matmat=lambda V: scales * V, dtype=float
    )
    tracemalloc.start()
    function(A, num_products=60)
    peak = tracemalloc.get_traced_memory()[1] / vectors
    tracemalloc.stop()
    # a few blocks of columns while they are multiplied, and chunks of rows in float64
    assert peak <= limit + 4 * blocks.COLUMNS + 10


def one_layer(size):
    return SimpleNamespace(layout=SimpleNamespace(slices=(slice(0, size),), layers={"all": (0,)}))


# --- the exchangeable estimator against its definition ---


def parts_of(A, s, squared, seed=0):
    """A sketch of A by s Gaussian probes, the form whose trace is wanted, and the probes."""
    probes = np.random.default_rng(seed).standard_normal((len(A), s))
    basis = blocks.sketch(CountedOperator(A), probes)
    AQ, AV = A @ basis.Q, A @ probes
    if squared:
        inner, images, own = AQ.T @ AQ, AQ.T @ AV, np.sum(AV**2, axis=0)
    else:
        inner, images, own = basis.Q.T @ AQ, basis.Q.T @ AV, np.sum(probes * AV, axis=0)
    lengths = np.sum(probes**2, axis=0)
    return basis, xtrace.Form(inner, images, own, lengths), probes


def made_anew(A, B, probes, i, left_out):
    """The sample of tr B by the i-th probe, on the range of A times those that are not left out."""
    others = [j for j in range(probes.shape[1]) if j not in left_out]
    U, sizes, _ = np.linalg.svd(A @ probes[:, others], full_matrices=False)
    Q = U[:, sizes > 1e-10 * sizes.max()]
    u = probes[:, i] - Q @ (Q.T @ probes[:, i])
    return np.trace(Q.T @ B @ Q) + (len(A) - Q.shape[1]) * (u @ B @ u) / (u @ u)


@pytest.mark.parametrize("squared", [False, True], ids=["A", "A²"])
@pytest.mark.parametrize("name", ["flat", "spiked", "indefinite"])
def test_leaving_one_or_two_out_is_what_making_it_anew_is(name, squared):
    A = MATRICES[name]
    B = A @ A if squared else A
    basis, form, probes = parts_of(A, 6, squared)
    one = [made_anew(A, B, probes, i, {i}) for i in range(6)]
    np.testing.assert_allclose(xtrace.leave_one_out(basis, form), one, rtol=1e-10)
    found = xtrace.leave_two_out(basis, form)
    for i, j in itertools.permutations(range(6), 2):
        assert found[i, j] == pytest.approx(made_anew(A, B, probes, i, {i, j}), rel=1e-10)


def test_a_probe_that_alone_sees_a_direction_takes_it_along():
    A = np.diag(np.r_[4.0, 3.0, 2.0, np.zeros(5)])
    probes = np.eye(8)[:, [0, 1, 2, 1]] + np.eye(8)[:, [4, 5, 6, 7]]
    basis = blocks.sketch(CountedOperator(A), probes)
    assert basis.Q.shape == (8, 3)
    assert basis.ranks.tolist() == [2, 3, 2, 3]


def test_independent_samples_have_the_error_of_a_mean():
    samples = np.random.default_rng(0).standard_normal(9)
    pairs = np.repeat(samples[:, None], 9, axis=1)
    expected = samples.std(ddof=1) / 3
    assert xtrace.standard_error(samples, pairs) == pytest.approx(expected)


def test_samples_that_depend_on_each_other_raise_the_error():
    A = MATRICES["slowly decaying"]
    estimates, plain = [], []
    for seed in SEEDS:
        basis, form, _ = parts_of(A, 20, False, seed)
        samples = xtrace.leave_one_out(basis, form)
        estimates.append(samples.mean())
        plain.append(samples.var(ddof=1) / 20)
    right = np.mean((np.array(estimates) - np.trace(A)) ** 2)
    raised = [hvp.trace(A, num_products=40, seed=seed).stderr ** 2 for seed in SEEDS]
    assert np.mean(plain) < 0.75 * right
    assert 0.8 < np.mean(raised) / right < 1.4


# --- all layers from one run ---


def truths(A):
    blocks = {name: A[np.ix_(index, index)] for name, index in INDEX.items()}
    return {name: (np.trace(block), np.sum(block**2)) for name, block in blocks.items()}


@pytest.mark.parametrize("num_products", [16, 60])
@pytest.mark.parametrize("name", ["flat", "spiked", "indefinite", "fast decaying"])
def test_every_layer_is_unbiased_and_its_errors_right(name, num_products):
    A = MATRICES[name]
    runs = [hvp.layer_traces(A, LIN, num_products=num_products, seed=seed) for seed in SEEDS]
    expected = truths(A)
    twice = {16: 0.78, 60: 0.85}[num_products]  # of 6 samples, and of 20
    for layer in LAYERS:
        found = [run.layers[layer] for run in runs]
        assert (found[0].name, found[0].size) == (layer, len(INDEX[layer]))
        judge([f.trace for f in found], expected[layer][0], once=(0.52, 0.8), twice=twice)
        judge([f.squared_norm for f in found], expected[layer][1], once=(0.5, 0.85), twice=twice)
    judge([run.whole.trace for run in runs], np.trace(A), once=(0.5, 0.8), twice=twice)
    judge([run.whole.squared_norm for run in runs], np.sum(A**2), once=(0.5, 0.85), twice=twice)


def test_layers_add_up_to_the_whole():
    found = hvp.layer_traces(MATRICES["indefinite"], LIN, num_products=30)
    total = sum(block.traces for block in found.layers.values())
    np.testing.assert_allclose(total, found.whole.traces, rtol=1e-10)


def test_raw_values_are_those_of_the_estimates():
    found = hvp.layer_traces(MATRICES["indefinite"], LIN, num_products=30).layers["first"]
    s = len(found.traces)
    assert found.squared_norms.shape == (s, s) == (10, 10)
    assert found.trace.value == pytest.approx(found.traces.mean())
    assert found.trace.stderr == pytest.approx(found.traces.std(ddof=1) / np.sqrt(s))
    assert found.squared_norm.value == pytest.approx(found.squared_norms.sum() / (s * (s - 1)))


def test_low_rank_layers_are_exact():
    A = with_spectrum(np.r_[3.0, 2.0, -1.0, np.zeros(P - 3)])
    found = hvp.layer_traces(A, LIN, num_products=30)
    for layer, (trace, norm) in truths(A).items():
        block = found.layers[layer]
        assert block.trace.value == pytest.approx(trace, abs=1e-13)
        assert block.squared_norm.value == pytest.approx(norm, abs=1e-13)
        assert max(block.trace.stderr, block.squared_norm.stderr) < 1e-14


@pytest.mark.parametrize("num_products", [P, 10 * P])
def test_layers_are_exact_from_as_many_products_as_parameters(num_products):
    A = MATRICES["indefinite"]
    found = hvp.layer_traces(A, LIN, num_products=num_products)
    assert found.num_products == P
    for layer, (trace, norm) in truths(A).items():
        block = found.layers[layer]
        assert block.trace.value == pytest.approx(trace)
        assert block.squared_norm.value == pytest.approx(norm)
        assert block.trace.stderr == block.squared_norm.stderr == 0
        assert block.traces.size == block.squared_norms.size == 0
    assert found.whole.squared_norm.value == pytest.approx(np.sum(A**2))


@pytest.mark.parametrize("num_products", [4, 5, 6, 7, 8, 9, 10, 30])
def test_any_number_of_products_from_four_serves_layers(num_products):
    reported = []
    found = hvp.layer_traces(
        MATRICES["flat"], LIN, num_products=num_products, progress=reported.append
    )
    assert found.num_products == reported[-1] == num_products
    assert len(found.whole.traces) >= 4


def network_like(seed=0):
    """H, and an R that vanishes on the third layer's own block."""
    H = with_spectrum(SPECTRA["spiked"], seed)
    R = 0.3 * with_spectrum(SPECTRA["indefinite"], seed + 1)
    own = INDEX["third"]
    R[np.ix_(own, own)] = 0.0
    return H, R


def shares_of(R, H, seed):
    parts = (hvp.layer_traces(A, LIN, num_products=60, seed=seed) for A in (R, H))
    return hvp.layer_shares(*parts)


def test_shares_are_right_within_their_errors():
    H, R = network_like()
    runs = [shares_of(R, H, seed) for seed in SEEDS]
    for layer, expected in truths(R).items():
        whole = truths(H)[layer]
        found = [run.layers[layer] for run in runs]
        assert found[0].name == layer
        judge([f.trace for f in found], expected[0] / whole[0], once=(0.58, 0.78), twice=0.88)
        judge([f.squared_norm for f in found], expected[1] / whole[1], once=(0.55, 0.8), twice=0.87)
    judge([run.whole.trace for run in runs], np.trace(R) / np.trace(H))


def test_common_probes_cancel_in_a_share():
    H, R = network_like()
    near = H + 1e-3 * R
    common = shares_of(near, H, 0).layers["first"]
    parts = (hvp.layer_traces(A, LIN, num_products=60) for A in (near, H))
    apart = [part.layers["first"] for part in parts]
    independent = np.hypot(*(f.trace.stderr / f.trace.value for f in apart))
    assert common.trace.stderr < independent / 20
    assert abs(common.trace.value - truths(near)["first"][0] / truths(H)["first"][0]) < 1e-3


def test_an_operator_of_less_rank_has_the_same_probes():
    H = network_like()[0]
    nothing = shares_of(np.zeros_like(H), H, 0)
    for found in (*nothing.layers.values(), nothing.whole):
        assert found.trace.value == found.trace.stderr == found.squared_norm.value == 0


def test_a_share_of_nothing_cannot_be_told():
    H = network_like()[0]
    found = shares_of(H, np.zeros_like(H), 0).whole
    assert np.isnan([found.trace.value, found.trace.stderr, found.squared_norm.value]).all()


@pytest.mark.parametrize("options", [{"seed": 1}, {"num_products": 50}])
def test_shares_of_other_probes_are_refused(options):
    H = network_like()[0]
    with pytest.raises(InputError, match="the same layers from the same probes, got 3 layers"):
        hvp.layer_shares(hvp.layer_traces(H, LIN, **options), hvp.layer_traces(H, LIN))


def test_shares_of_other_layers_are_refused():
    H = network_like()[0]
    with pytest.raises(InputError, match=r"got 1 layers.*and 3 layers.*with the same lin"):
        hvp.layer_shares(hvp.layer_traces(H, one_layer(P)), hvp.layer_traces(H, LIN))


def test_bad_input_for_layers_is_refused():
    with pytest.raises(InputError, match="a Linearization, got ndarray; call hvp"):
        hvp.layer_traces(np.eye(P), np.eye(P))
    with pytest.raises(InputError, match=rf"layers of 3 parameters together.*got {P}; pass"):
        hvp.layer_traces(np.eye(3), LIN)
    with pytest.raises(InputError, match="num_products of at least 4, got 3"):
        hvp.layer_traces(np.eye(P), LIN, num_products=3)
    skew = np.triu(np.ones((P, P)))
    for count in (4, 30, 1000):
        with pytest.raises(InputError, match="a symmetric operator"):
            hvp.layer_traces(skew, LIN, num_products=count)


def test_layers_of_a_network():
    lin = hvp.linearize_function(
        lambda z: (z - 1) ** 2,
        [np.array([0.5, -1.0]), np.array([2.0, 0.3])],
        outputs=lambda w: (w[0][0] ** 3 + w[0][1]) * (w[1][0] + w[1][1]),
    )
    H, R = (A(lin) for A in (hvp.Hessian, hvp.Residual))
    found = hvp.layer_traces(H, lin)
    assert found.layers["param0"].trace.value == pytest.approx(np.trace((H @ np.eye(4))[:2, :2]))
    shares = hvp.layer_shares(hvp.layer_traces(R, lin), found)
    assert shares.layers["param0"].trace.value != 0
    assert shares.layers["param1"].trace.value == pytest.approx(0, abs=1e-12)  # the last layer


# --- the error of a mean over pairs ---


def test_the_error_of_a_mean_over_pairs_is_its_definition():
    h = np.random.default_rng(0).standard_normal((7, 7))
    h = h + h.T
    np.fill_diagonal(h, 0.0)
    n = range(7)
    apart = np.mean(
        [h[a, b] * h[c, d] for a in n for b in n for c in n for d in n if len({a, b, c, d}) == 4]
    )
    shared = np.mean([h[a, b] * h[a, c] for a in n for b in n for c in n if len({a, b, c}) == 3])
    own = np.mean([h[a, b] ** 2 for a in n for b in n if a != b])
    variance = (4 * 5 * max(shared - apart, 0) + 2 * (own - apart)) / (7 * 6)
    assert layer_traces._pairs_error(h.copy()) == pytest.approx(np.sqrt(variance))


@pytest.mark.parametrize(("mean", "most"), [(0.0, 2.1), (3.0, 1.15)])
def test_the_error_of_a_mean_over_pairs_is_right(mean, most):
    found, values = [], []
    for seed in range(2000):
        x = mean + np.random.default_rng(seed).standard_normal(8)
        h = np.outer(x, x)
        np.fill_diagonal(h, 0.0)
        values.append(h.sum() / 56)
        found.append(layer_traces._pairs_error(h) ** 2)
    assert 0.85 < np.mean(found) / np.var(values) < most


# --- sums over a spectrum ---


class Known:
    """A density by dense algebra: every integral is exact."""

    def __init__(self, matrix):
        self.values = np.linalg.eigvalsh(matrix)

    def integral(self, f):
        return hvp.Estimate(float(f(self.values).sum()), 0.0, len(self.values))


@pytest.mark.parametrize("shift", [1e-3, 1.0, 50.0])
@pytest.mark.parametrize("name", ["flat", "spiked", "low rank, not reached"])
def test_log_determinant_and_effective_dimension_agree_with_dense_algebra(name, shift):
    A = MATRICES[name]
    shifted = A + shift * np.eye(P)
    found = hvp.log_determinant(Known(A), shift)
    assert found.value == pytest.approx(np.linalg.slogdet(shifted)[1])
    assert found.num_products == P
    dimension = np.trace(np.linalg.solve(shifted, A))
    assert hvp.effective_dimension(Known(A), shift).value == pytest.approx(dimension)


def test_effective_dimension_goes_from_nothing_to_the_rank():
    A = Known(MATRICES["low rank, not reached"])
    assert hvp.effective_dimension(A, 1e-9).value == pytest.approx(30, rel=1e-6)
    assert hvp.effective_dimension(A, 1e9).value == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("function", [hvp.log_determinant, hvp.effective_dimension])
def test_rounding_below_zero_is_taken_for_zero(function):
    exact, rounded = (Known(np.diag([low, 1.0, 2.0])) for low in (0.0, -1e-7))
    assert function(rounded, 1e-9).value == function(exact, 1e-9).value


@pytest.mark.parametrize("function", [hvp.log_determinant, hvp.effective_dimension])
def test_bad_input_for_sums_over_a_spectrum_is_refused(function):
    words = r"a positive semidefinite operator, got an eigenvalue of about -1; take G instead of H"
    with pytest.raises(InputError, match=words):
        function(Known(MATRICES["indefinite"]), 5.0)
    for shift in (0.0, -1.0, np.nan, np.inf):
        with pytest.raises(InputError, match=f"a finite shift above zero, got {shift}"):
            function(Known(np.eye(2)), shift)


# --- how an estimate reads ---


def test_an_array_of_estimates_is_read_by_its_ends():
    found = hvp.Estimate(np.array([3.0, 1.0, 2.0]), np.array([0.1, 0.25, 0.2]))
    assert str(found) == "3 values from 1 to 3, ± 0.25 at most"


def test_nothing_has_no_negative_zero_for_an_error():
    assert str(hvp.squared_frobenius_norm(np.zeros((200, 200)), num_products=20)) == "0 ± 0"
