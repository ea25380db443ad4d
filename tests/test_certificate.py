"""Differences confirm what is right, find what is wrong, and say where they measure nothing."""

import functools
import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from rich.console import Console
from support.dense_curvature import DenseCurvature
from support.matrices import network
from support.oracles import LABELS, dense_net, examples

import hvp
from hvp.certificate import certify, checks, in_float64
from hvp.certificate.checks import G_CHECK, GRADIENT_CHECK, HV_CHECK
from hvp.report import html_page, summary, terminal

X = examples((4,), dtype="float32")


def freshly_linearized(**options):
    net = dense_net(dtype="float32", last="softmax")
    return hvp.linearize(
        net, (X, LABELS), "sparse_categorical_crossentropy", batch_size=3, **options
    )


@functools.cache
def linearized(**options):
    """The same for all tests: what they spoil is the class."""
    return freshly_linearized(**options)


def errors(found):
    return {check.name: check.error for check in found.checks}


def spoiled(monkeypatch, name, change):
    original = getattr(hvp.Linearization, name)
    monkeypatch.setattr(
        hvp.Linearization, name, lambda self, theta=None: change(original(self, theta))
    )


WRONG = {
    HV_CHECK: ("hvp", lambda Hv: 1.001 * Hv),
    GRADIENT_CHECK: ("gradient", lambda gradient: 1.001 * gradient),
    G_CHECK: ("gnvp", lambda Gv: 1.001 * Gv),
}


@pytest.fixture(params=WRONG)
def wrong(request, monkeypatch):
    """The check that fails, with a product or a gradient that is wrong by a thousandth."""
    spoiled(monkeypatch, *WRONG[request.param])
    return request.param


def test_what_is_right_passes_in_float64():
    found = certify(linearized())
    assert found.passed, str(found)
    assert found.dtype == "float64"
    assert max(errors(found).values()) < 1e-8


def test_what_is_wrong_fails_and_the_other_check_passes(wrong):
    found = certify(linearized())
    assert not found.passed
    assert [check.name for check in found.checks if not check.passed] == [wrong]
    assert errors(found)[wrong] == pytest.approx(1e-3, rel=2)


def test_it_costs_two_products_and_five_to_nine_gradients(monkeypatch):
    lin = linearized(dtype="float64")
    calls = []
    for name in ("hvp", "gradient", "loss_and_gradient"):
        spoiled(monkeypatch, name, lambda found, name=name: [calls.append(name), found][1])
    certify(lin)
    assert sorted(calls) == ["gradient", "hvp", "hvp", *4 * ["loss_and_gradient"]]
    calls.clear()
    kinked = hvp.linearize_function(lambda w: tf.reduce_sum(tf.abs(w - 1e-7) * w**2), np.zeros(3))
    certify(kinked)
    assert sorted(calls) == ["gradient", "hvp", "hvp", *8 * ["loss_and_gradient"]]


def test_for_G_it_costs_a_product_and_at_most_nine_evaluations_of_the_network(monkeypatch):
    lin = linearized(dtype="float64")
    calls = []
    for name in ("gnvp", "outputs"):
        spoiled(monkeypatch, name, lambda found, name=name: [calls.append(name), found][1])
    assert certify(lin).G.passed
    assert calls.count("gnvp") == 1
    assert 5 <= calls.count("outputs") <= 9


@pytest.mark.sweep
def test_the_form_of_G_has_the_penalties_of_weights_and_not_those_of_activities():
    options = {"kernel_regularizer": "l2", "activity_regularizer": keras.regularizers.L2(0.3)}
    net = dense_net(dtype="float64", **options)
    lin = hvp.linearize(net, (X, np.eye(3)[LABELS]), "mse", batch_size=7)
    assert certify(lin).G.error < 1e-8
    with pytest.raises(hvp.InputError, match="outputs of shape"):
        lin.loss_gradients(lin.theta, lin.theta)


def test_a_stop_gradient_in_the_network_leaves_G_unmeasured():
    lin = hvp.linearize_function(
        lambda z: z**2, np.array([2.0, 1.0]), outputs=lambda w: w[0] * tf.stop_gradient(w[1] ** 2)
    )
    found = certify(lin)
    assert found.passed
    assert found.G.error is None
    assert "derivatives hold StopGradient" in found.G.note


def test_a_check_that_is_not_measured_says_what_to_do():
    note = checks._check("Hv", 1.0, 1.0, 1e-6).note
    assert "other parameters" in note
    assert "float64" in checks._check("Hv", 1.0, 1.0, 1e-3).note


def test_a_rectifier_at_exactly_zero_is_no_false_alarm():
    """Half of the units see zeros alone: their biases are at the kink, as on a black border."""
    lin = hvp.linearize_function(
        lambda z, batch: tf.reduce_mean((z - batch[1]) ** 2),
        [np.array([[1.0, -2.0], [0.5, 1.0]]), np.zeros(2)],
        (np.array([[0.0, 0.0], [1.0, 2.0]]), np.ones((2, 2))),
        outputs=lambda w, batch: tf.nn.relu(batch[0] @ w[0] + w[1]),
        reduction="mean",
    )
    found = certify(lin)
    assert found.passed, str(found)
    assert "not measured: differences of two step sizes " in str(found)


@pytest.mark.sweep
@pytest.mark.parametrize("activation", ["relu", "tanh", "elu", "gelu"])
def test_activations_are_no_false_alarm(activation):
    net = dense_net(dtype="float32", activation=activation)
    found = certify(hvp.linearize(net, (X, np.eye(3)[LABELS]), "mse"))
    assert found.passed, str(found)
    assert None not in errors(found).values()


def test_large_and_small_parameters_are_measured():
    for size in (1e-3, 1.0, 1e3):
        lin = hvp.linearize_function(
            lambda w, size=size: tf.reduce_sum(tf.sin(w / size)), size * np.array([0.3, 1.0, 2.0])
        )
        found = certify(lin)
        assert found.passed, str(found)
        assert errors(found)[HV_CHECK] is not None


def test_a_stop_gradient_of_the_users_is_named_and_not_measured():
    lin = hvp.linearize_function(lambda w: w[0] * tf.stop_gradient(w[0] ** 2), np.array([2.0, 1.0]))
    found = certify(lin)
    assert found.passed
    assert errors(found) == {HV_CHECK: None, GRADIENT_CHECK: None}
    assert "derivatives hold StopGradient" in str(found)


def test_where_the_model_has_no_float64_its_own_precision_is_taken(monkeypatch):
    def refuse(self):
        raise hvp.InputError("float64", "float32", "keep it")

    monkeypatch.setattr(hvp.Linearization, "in_float64", refuse)
    lin = linearized()
    assert in_float64(lin) is lin
    found = certify(lin)
    assert found.passed, str(found)
    assert found.dtype == "float32"
    assert min(check.bound for check in found.checks) >= np.sqrt(np.finfo(np.float32).eps)


def test_another_backend_is_certified_if_it_gives_gradients_elsewhere():
    backend = DenseCurvature.random()
    assert certify(backend).passed
    assert None not in errors(certify(backend)).values()
    backend.H = backend.H * 1.001
    assert not certify(backend).passed or errors(certify(backend))[HV_CHECK] < 1e-6
    known = certify(network())
    assert known.passed
    assert "not measured: Known has no loss_and_gradient" in str(known)
    assert known.num_directions == 0


def test_verify_keeps_the_certificate():
    assert linearized().certificate is None
    lin = freshly_linearized(verify=True)
    assert lin.certificate.passed
    assert None not in errors(lin.certificate).values()


@pytest.mark.sweep
def test_verify_refuses_what_is_wrong(wrong):
    with pytest.raises(hvp.InputError, match=f"derivatives that agree.*got {wrong}"):
        freshly_linearized(verify=True)
    with pytest.raises(hvp.InputError, match="derivatives that agree"):
        hvp.linearize_function(
            lambda z: tf.reduce_sum(tf.sin(z)),
            np.array([0.3, 1.0]),
            outputs=lambda w: w**2,
            verify=True,
        )


def test_the_loss_at_other_parameters():
    lin = linearized()
    other = lin.theta + np.float32(0.1)
    moved = hvp.linearize_function(
        lambda w, batch: tf.reduce_mean((batch[0] @ w - 1) ** 2),
        np.ones((4, 1)),
        (np.asarray(X, float),),
        reduction="mean",
        batch_size=2,
    )
    assert lin.loss(lin.theta) == pytest.approx(lin.loss(), rel=1e-6)
    loss, gradient = lin.loss_and_gradient(other)
    assert loss == pytest.approx(lin.loss(other), rel=1e-6)
    assert np.allclose(gradient, lin.gradient(other))
    w = np.array([0.5, -1.0, 2.0, 0.0])
    assert moved.loss(w) == pytest.approx(np.mean((X @ w - 1) ** 2), rel=1e-12)


def test_penalties_are_part_of_the_loss_at_other_parameters():
    net = dense_net(dtype="float64", kernel_regularizer="l2")
    lin = hvp.linearize(net, (X, np.eye(3)[LABELS]), "mse", batch_size=3)
    assert lin.loss(lin.theta) == pytest.approx(lin.loss(), rel=1e-13)
    assert certify(lin).passed


@pytest.mark.parametrize("bad", [np.ones(3), np.ones((47, 2))])
def test_a_loss_at_parameters_of_another_shape_is_refused(bad):
    with pytest.raises(hvp.InputError, match="shape"):
        linearized().loss(bad)


# --- in a comparison ---


def compared():
    return hvp.compare(linearized(variables="dense3"), k=1, num_probes=2, num_steps=4)


def shown(comparison):
    screen = terminal.Terminal(quiet=False)
    screen.console = Console(width=100, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    screen.show(comparison)
    return screen.console.export_text()


@pytest.mark.sweep
def test_a_comparison_shows_its_certificate_in_all_places(tmp_path):
    comparison = compared()
    assert comparison.certificate.passed
    text, page = shown(comparison), html_page.page(comparison)
    for name in (HV_CHECK, GRADIENT_CHECK, G_CHECK):
        assert name in text
        assert name in page
    assert 'role="alert"' not in page
    assert "The certificate failed" not in text
    written = comparison.to_json()["certificate"]
    assert written["passed"]
    assert (written["dtype"], written["num_directions"]) == ("float64", 2)
    assert [check["name"] for check in written["checks"]] == [
        HV_CHECK,
        GRADIENT_CHECK,
        G_CHECK,
    ]
    assert all(check["error"] < check["bound"] for check in written["checks"])


@pytest.mark.sweep
def test_a_comparison_marks_a_failed_certificate_in_all_places(wrong, tmp_path):
    comparison = compared()
    sentence = summary.certificate(comparison)
    assert sentence.startswith(f"The certificate failed: {wrong} is ")
    assert "The certificate failed" in " ".join(shown(comparison).split())
    page = html_page.page(comparison)
    assert page.index('role="alert"') < page.index('class="headline"')
    assert "The certificate failed" in page
    comparison.save(tmp_path)
    written = json.loads((tmp_path / "compare.json").read_text())["certificate"]
    assert not written["passed"]
    assert [check["name"] for check in written["checks"] if not check["passed"]] == [wrong]


@pytest.mark.sweep
def test_the_bounds_are_those_of_the_check():
    assert checks.MAX_DIFFERENCE_ERROR == 1e-6
    assert {check.name for check in hvp.testing.check(linearized(), num_directions=1).checks} >= {
        HV_CHECK,
        GRADIENT_CHECK,
    }
