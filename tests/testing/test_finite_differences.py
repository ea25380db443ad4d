"""`check` passes what is right and names what is not."""

import numpy as np
import pytest
import tensorflow as tf
from support.oracles import (
    LABELS,
    dense_net,
    examples,
    moments_are_falsified,
    norm_net,
    relative,
)
from support.special_points import CASES, ROWS, mixed
from support.sweep import sweep

import hvp
from hvp.autodiff import decompositions, identities, stop_gradients
from hvp.certificate import certify
from hvp.errors import InputError, NotFiniteError
from hvp.linearization import traced_loss
from hvp.testing import (
    check,
    deep_linear,
    linear_regression,
    quadratic,
    softmax_regression,
)

X = examples((4,), dtype="float32")
CLOSED_FORMS = [quadratic, linear_regression, softmax_regression, deep_linear]


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("problem", CLOSED_FORMS, ids=lambda p: p.__name__)
def test_problems_of_known_answers_have_them(problem, seed):
    found = problem(seed=seed)
    V = np.eye(found.lin.size)
    assert relative(found.lin.hvp(V), found.H) < 1e-13
    assert relative(found.lin.gnvp(V), found.G) < 1e-13
    assert relative(found.lin.gradient(), found.gradient) < 1e-13


def test_their_sizes_can_be_chosen():
    assert quadratic(3).lin.size == 3
    assert linear_regression(5, 2).lin.num_examples == 5
    assert softmax_regression(5, 2, 4).lin.size == 8
    assert deep_linear(5, 2).H.shape == (8, 8)


def linearized(net=dense_net, **options):
    loss = "mse" if net is norm_net else "sparse_categorical_crossentropy"
    y = np.eye(3)[LABELS] if net is norm_net else LABELS
    last = {} if net is norm_net else {"last": "softmax"}
    return hvp.linearize(net(dtype="float32", **last), (X, y), loss, batch_size=3, **options)


def outcomes(report):
    return {c.name: c.passed for c in report.checks}


@pytest.mark.parametrize("net", [dense_net, pytest.param(norm_net, marks=pytest.mark.sweep)])
def test_what_is_right_passes(net):
    report = check(linearized(net))
    assert report.passed, str(report)
    measured = {c.name: c.error for c in report.checks}
    assert measured["Hv by differences of the gradient"] < 1e-8
    assert 1e-9 < measured["digits of Hv"] < 1e-5


@pytest.mark.sweep
def test_a_mean_that_is_stopped_inside_a_variance_is_found(monkeypatch):
    monkeypatch.setattr(stop_gradients, "remove_from_moments", lambda program: (program, ()))
    found = outcomes(check(linearized(norm_net)))
    assert found["Hv by differences of the gradient"] != moments_are_falsified()
    assert found["symmetry of H"]
    assert found["forward-over-reverse against reverse-over-reverse"]


def without_decomposition(op):
    return lambda patch: patch.delitem(decompositions.SUBSTITUTES, op)


def without_identities(patch):
    patch.setattr(identities, "IDENTITIES", ())


def without_removal_of_stops(patch):
    patch.setattr(stop_gradients, "remove_from_moments", lambda program: (program, ()))


def normalised(w):
    return mixed(tf.tanh((w - tf.nn.moments(w, [1], keepdims=True)[0]) * variance(w) ** -0.5))


def variance(w):
    return 1 + tf.nn.moments(w, [1], keepdims=True)[1]


# Later releases of TensorFlow than this have some of these derivatives right.
IS_LATER = tuple(map(int, tf.__version__.split(".")[:2])) > (2, 21)
# What puts a derivative right, by functions of which TensorFlow 2.21 has another one without it.
MENDED = {
    "product with two zeros": without_decomposition("Prod"),
    "prefix products": without_decomposition("Cumprod"),
    "products of unsorted segments": without_decomposition("UnsortedSegmentProd"),
    "x log y at x = 0": without_decomposition("Xlogy"),
    "x log(1 + y) at x = 0": without_decomposition("Xlog1py"),
    "x/y at x = 0": without_decomposition("Xdivy"),
    "cross-entropy of several labels": without_decomposition("SoftmaxCrossEntropyWithLogits"),
    "slopes of max pooling to the same shape": without_decomposition("MaxPoolGrad"),
    "prefix logsumexp": without_decomposition("CumulativeLogsumexp"),
    "Spence's function": without_decomposition("Spence"),
    "squared absolute values": without_identities,
    "logaddexp": without_identities,
    "weighted cross-entropy": without_identities,
    "softplus by relu": without_identities,
    "log of a sigmoid by minimum": without_identities,
    "log cosh": without_identities,
    "variances": without_removal_of_stops,
}
QUICK = {"product with two zeros", "x log y at x = 0", "variances"}


@pytest.mark.parametrize("name", sweep(MENDED, QUICK))
def test_a_derivative_is_found_wrong_without_its_mend_if_it_is(monkeypatch, name):
    """The certificate tests one order of differentiation, `check` compares both."""
    function, point = {**CASES, "variances": (normalised, ROWS)}[name]
    v = np.random.default_rng(0).standard_normal(np.size(point))

    def judged():
        try:
            lin = hvp.linearize_function(function, point)
        except InputError:  # kinks at an isolated point are refused
            return False, False
        return check(lin, num_directions=1).passed, certify(lin).passed

    def product(ad):
        try:
            return hvp.linearize_function(function, point, ad=ad).hvp(v)
        except (InputError, NotFiniteError):
            return np.full(v.shape, np.nan)

    orders = "forward-over-reverse", "reverse-over-reverse"
    assert judged() == (True, True)
    expected = product(orders[0])
    MENDED[name](monkeypatch)
    first, second = (relative(product(ad), expected) < 1e-7 for ad in orders)
    assert judged() == (first and second, first)
    assert not (first and second) or IS_LATER


@pytest.mark.parametrize("name", ["square of a root", "unchosen logarithm"])
def test_products_that_are_not_finite_without_their_mend_are_refused(monkeypatch, name):
    function, point = CASES[name]
    without_identities(monkeypatch)
    lin = hvp.linearize_function(function, point)
    assert not check(lin, num_directions=1).passed
    with pytest.raises(NotFiniteError):
        certify(lin)


def test_means_of_empty_segments_are_found_without_their_mend(monkeypatch):
    """TensorFlow divides by the number of rows, 0."""

    def function(w):
        return tf.reduce_sum(tf.exp(tf.math.segment_mean(w, [1, 1, 3, 3]) * w[0]))

    assert check(hvp.linearize_function(function, ROWS), num_directions=1).passed
    monkeypatch.delitem(decompositions.SUBSTITUTES, "SegmentMean")
    report = check(hvp.linearize_function(function, ROWS), num_directions=1)
    assert not report.passed


BROKEN = {
    "hvp": ("Hv by differences of the gradient", lambda self, v, product: product + 1e-3 * v),
    "jvp": ("Jv by differences of the outputs", lambda self, v, product: 1.001 * product),
    "residual_vp": ("H = G + R", lambda self, v, product: 1.001 * product),
    "gnvp": ("symmetry of G", lambda self, v, product: product + np.roll(v, 1, axis=0)),
}


@pytest.mark.sweep
@pytest.mark.parametrize("name", sweep(BROKEN, {"hvp", "gnvp"}))
def test_a_product_that_is_wrong_is_named(monkeypatch, name):
    law, spoil = BROKEN[name]
    original = getattr(hvp.Linearization, name)
    monkeypatch.setattr(hvp.Linearization, name, lambda self, v: spoil(self, v, original(self, v)))
    report = check(linearized(), num_directions=1)
    assert not outcomes(report)[law]
    assert f"{law} " in str(report)
    assert "failed" in str(report)


def test_a_loss_without_outputs_is_held_by_what_there_is():
    lin = hvp.linearize_function(lambda w: (w[0] * w[1]) ** 2, np.array([1.0, 2.0]))
    report = check(lin)
    assert report.passed
    assert not any(c.name.endswith(("of G", "of R", "of J")) for c in report.checks)


def test_where_the_loss_is_not_convex_g_is_not_asked_to_be_positive():
    lin = hvp.linearize_function(lambda z: -(z**2), np.array([1.0, 2.0]), outputs=lambda w: w[0])
    assert not lin.is_convex
    assert any("not convex in the outputs" in f.message for f in lin.findings)
    report = check(lin)
    assert report.passed
    assert "not measured: the loss is not convex in the outputs" in str(report)


@pytest.mark.parametrize("residual", [3.0, 30.0, 300.0])
def test_a_loss_that_flattens_out_is_not_convex_there(residual):
    """log(1 + z²) bends down beyond z = 1, ever less."""
    lin = hvp.linearize_function(
        lambda z: tf.math.log1p(z**2), np.array([residual], np.float32), outputs=lambda w: w[0]
    )
    assert not lin.is_convex


@pytest.mark.parametrize("scale", [1.0, 10.0, 30.0, 100.0, 1000.0])
def test_a_softmax_that_is_certain_stays_convex(scale):
    """Its curvature is below the rounding of what cancels in it."""
    rng = np.random.default_rng(0)
    w, x = (rng.standard_normal(shape).astype(np.float32) for shape in ((4, 10), (200, 4)))
    lin = hvp.linearize_function(
        lambda z, batch: tf.reduce_mean(
            tf.nn.sparse_softmax_cross_entropy_with_logits(batch[1], z)
        ),
        scale * w,
        (x, rng.integers(0, 10, 200)),
        outputs=lambda w, batch: batch[0] @ w,
    )
    assert lin.is_convex
    assert not [f for f in lin.findings if "not convex" in f.message]


def rectified(distance):
    """A loss with a kink at this distance from the point."""
    return hvp.linearize_function(
        lambda w: tf.nn.relu(w[0] - 1 + distance) * w[1] ** 2 + w[0] * w[1] ** 3,
        np.array([1.0, 2.0]),
    )


@pytest.mark.parametrize("distance", [1e-3, 1e-5, 1e-7])
def test_a_kink_nearby_is_stepped_around(distance):
    report = check(rectified(distance))
    (found,) = (c for c in report.checks if c.name == "Hv by differences of the gradient")
    assert report.passed, str(report)
    assert found.error is not None
    assert found.bound < 1e-5


def test_at_a_kink_there_is_nothing_to_measure():
    report = check(rectified(0.0))
    assert report.passed, str(report)
    assert "not measured" in str(report)
    assert "kinks" in str(report)


@pytest.mark.sweep
def test_the_order_that_is_taken_anyway_is_not_traced_again(monkeypatch):
    forced, original = [], hvp.Linearization.forced

    def noted(self, **options):
        forced.append(options["ad"])
        return original(self, **options)

    monkeypatch.setattr(hvp.Linearization, "forced", noted)
    assert check(linearized(jit=False)).passed
    assert forced == ["reverse-over-reverse"]


def test_a_report_has_a_row_a_check():
    report = check(quadratic().lin)
    rows = list(report.rows())
    assert len(rows) == len(report.checks)
    assert [outcome for *_, outcome in rows].count("passed") > 5


def test_no_direction_is_refused():
    with pytest.raises(hvp.InputError, match="at least one direction, got 0"):
        check(quadratic().lin, num_directions=0)


def test_a_penalty_is_part_of_what_is_checked():
    net = dense_net(dtype="float32", kernel_regularizer="l2")
    assert check(hvp.linearize(net, (X, np.eye(3)[LABELS]), "mse")).passed


def test_float64_leaves_the_linearization_as_it_was():
    lin = linearized()
    before = lin.hvp(np.ones(lin.size))
    exact = lin.in_float64()
    assert exact.dtype == np.float64
    assert exact.loss() == pytest.approx(lin.loss(), rel=1e-6)
    assert exact.loss() != lin.loss()
    assert exact.num_batches == lin.num_batches == 3
    assert (lin.hvp(np.ones(lin.size)) == before).all()
    assert exact.block("dense1").size == lin.block("dense1").size


@pytest.mark.parametrize("bad", [np.ones(3), np.ones((47, 2))])
def test_a_gradient_at_parameters_of_another_shape_is_refused(bad):
    with pytest.raises(hvp.InputError, match="shape"):
        linearized().gradient(bad)


def test_gradient_and_outputs_at_other_parameters():
    lin = linear_regression().lin
    moved = lin.theta + 1.0
    V = np.eye(lin.size)
    assert np.allclose(lin.gradient(moved), lin.gradient() + lin.hvp(np.ones(lin.size)))
    assert np.allclose(lin.outputs(moved) - lin.outputs(), lin.jvp(V) @ np.ones(lin.size))


def test_a_bisection_is_found_without_the_test_of_loops(monkeypatch):
    def halve(i, low, high, w):
        middle = (low + high) / 2
        is_below = middle**2 < w
        low, high = tf.where(is_below, middle, low), tf.where(is_below, high, middle)
        return i + 1, low, high, w

    def root(w):
        start = [0, tf.zeros_like(w), 1.0 + w, w]
        return tf.reduce_sum(tf.while_loop(lambda i, *_: i < 40, halve, start)[1])

    monkeypatch.setattr(traced_loss, "comparing_loop", lambda *_: None)
    lin = hvp.linearize_function(root, np.array([2.0]))
    assert not check(lin, num_directions=1).passed
