"""`hvp.cluster.linearize`: the same tests as for one process, and workers that die or are slow."""

import contextlib
import os
import signal
import threading
import time

import keras
import numpy as np
import psutil
import pytest
import tensorflow as tf
from support.oracles import (
    LABELS,
    cut,
    dense_net,
    examples,
    gauss_newton,
    gradient,
    hessian,
    jacobian,
    relative,
    softmax_loss,
    variables_of,
)

import hvp
import hvp.cluster
from hvp.errors import MixedExamplesError, WorkerError

ray = pytest.importorskip("ray", reason="the extra 'ray' is not installed")

from hvp.cluster import workers as workers_module  # noqa: E402
from hvp.cluster.connection import LOOPBACK, Connection  # noqa: E402

# Starting a cluster takes half a minute.
pytestmark = pytest.mark.sweep
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
X, SIZES = examples((4,)), (2, 2, 2, 1)
BATCHES = cut((X, LABELS), SIZES)
MEBIBYTE = 2**20


def net():
    return dense_net(kernel_regularizer="l2")


@pytest.fixture(scope="module")
def ray_cluster():
    """One local cluster for all tests, on a machine that may be busy with others."""
    connection = Connection(None, 8, object_store_memory=200 * MEBIBYTE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(workers_module, "PATIENCE_SECONDS", 600.0)
        yield
    connection.close()
    assert not ray.is_initialized()


@pytest.fixture(scope="module")
def one_process():
    return hvp.linearize(net(), BATCHES, LOSS, jit=False)


@pytest.fixture(scope="module")
def on_cluster(ray_cluster):
    with hvp.cluster.linearize(net(), BATCHES, LOSS, num_workers=2) as lin:
        yield lin


@pytest.fixture(params=["one_process", "on_cluster"])
def lin(request):
    """What the tests of the protocol run with."""
    return request.getfixturevalue(request.param)


class Dense:
    """H, G, J and the gradient of the loss by tapes over the variables of the model."""

    def __init__(self):
        model = net()
        self.variables = variables_of(model)
        self.theta = np.concatenate([v.numpy().ravel() for v in self.variables])

        def penalty():
            return tf.add_n(model.losses)

        def outputs():
            return model(X)

        def loss():
            return softmax_loss(LABELS, outputs()) + penalty()

        self.loss = float(loss())
        self.gradient = gradient(loss, self.variables)
        self.z = np.ravel(outputs())
        self.J = jacobian(outputs, self.variables)
        self.H = hessian(loss, self.variables)
        self.G = gauss_newton(outputs, lambda z: softmax_loss(LABELS, z), self.variables)
        self.G += hessian(penalty, self.variables)
        self.R = self.H - self.G


@pytest.fixture(scope="module")
def dense():
    return Dense()


@pytest.fixture(scope="module")
def V():
    return np.random.default_rng(5).standard_normal((47, 3))


# --- the protocol: products, blocks, spectra, other points ---


def test_products_with_vectors_and_blocks(lin, dense, V):
    for name in "HGR":
        product = {"H": lin.hvp, "G": lin.gnvp, "R": lin.residual_vp}[name]
        assert relative(product(V[:, 0]), getattr(dense, name) @ V[:, 0]) < 1e-11
        assert relative(product(V), getattr(dense, name) @ V) < 1e-11
    for product, name in zip(lin.products(V), "HGR", strict=True):
        assert relative(product, getattr(dense, name) @ V) < 1e-11
    assert lin.hvp(np.empty((47, 0))).shape == (47, 0)


def test_the_jacobian_and_its_transpose(lin, dense, V):
    U = np.random.default_rng(6).standard_normal((lin.num_outputs, 2))
    assert relative(lin.jvp(V), dense.J @ V) < 1e-12
    assert relative(lin.jvp(V[:, 0]), dense.J @ V[:, 0]) < 1e-12
    assert relative(lin.vjp(U), dense.J.T @ U) < 1e-12
    assert relative(hvp.Jacobian(lin).T @ U[:, 0], dense.J.T @ U[:, 0]) < 1e-12


def test_loss_gradient_and_outputs(lin, dense):
    assert lin.loss() == pytest.approx(dense.loss, rel=1e-12)
    assert relative(lin.gradient(), dense.gradient) < 1e-12
    assert relative(lin.outputs(), dense.z) < 1e-12
    np.testing.assert_array_equal(lin.theta, dense.theta)
    loss, slope = lin.loss_and_gradient(dense.theta)
    assert loss == pytest.approx(dense.loss, rel=1e-12)
    assert relative(slope, dense.gradient) < 1e-12
    assert lin.loss(dense.theta) == pytest.approx(dense.loss, rel=1e-12)
    of_outputs, of_penalty = lin.loss_gradients(dense.z, dense.theta)
    assert relative(dense.J.T @ of_outputs + of_penalty, dense.gradient) < 1e-12


def test_blocks_of_layers(lin, dense):
    for name, block in lin.blocks().items():
        chosen = np.concatenate(
            [np.arange(47)[lin.layout.slices[i]] for i in lin.layout.layers[name]]
        )
        H = dense.H[np.ix_(chosen, chosen)]
        assert relative(block.hvp(np.eye(block.size)), H) < 1e-11
        assert relative(block.gradient(), dense.gradient[chosen]) < 1e-12
        assert not block.is_whole
    both = lin.block(["dense1", "dense3"]).block("dense3/bias")
    assert relative(both.hvp(np.eye(3)), dense.H[-3:, -3:]) < 1e-11


def test_spectra(lin, dense):
    values = np.linalg.eigvalsh(dense.H)
    found = hvp.eigsh(hvp.Hessian(lin), k=2)
    np.testing.assert_allclose(np.sort(found.values), values[-2:], rtol=1e-9)
    exact = hvp.trace(hvp.Hessian(lin), num_products=96)
    assert exact.value == pytest.approx(values.sum(), abs=5 * exact.stderr + 1e-9)
    density = hvp.density(hvp.Hessian(lin), num_steps=20, num_probes=4, seed=1)
    count = density.count_above(0.5)
    assert abs(count.value - np.sum(values > 0.5)) <= 5 * count.stderr + 1


def test_layer_traces(lin, dense):
    found = hvp.layer_traces(hvp.GaussNewton(lin), lin, seed=2).layers
    for name, positions in lin.layout.layers.items():
        exact = sum(np.trace(dense.G[s, s]) for s in (lin.layout.slices[i] for i in positions))
        trace = found[name].trace
        assert abs(trace.value - exact) <= 5 * trace.stderr + 1e-9


def test_another_point(lin, one_process, V):
    theta = 1.1 * lin.theta
    there = lin.at(theta)
    fresh = one_process.at(theta)
    assert relative(there.hvp(V), fresh.hvp(V)) < 1e-12
    assert there.loss() == pytest.approx(fresh.loss(), rel=1e-12)
    assert there.weights_digest == fresh.weights_digest != lin.weights_digest
    further = there.at(net())
    assert relative(further.hvp(V), lin.hvp(V)) < 1e-13
    there.close()
    with pytest.raises(hvp.InputError, match="an open linearization"):
        there.hvp(V)
    assert np.isfinite(lin.hvp(V)).all()


def test_minimisation_by_scipy(lin):
    from scipy.optimize import minimize

    fun, jac, hessp = lin.scipy_functions("G")
    found = minimize(
        fun, lin.theta, jac=jac, hessp=hessp, method="trust-ncg", options={"maxiter": 3}
    )
    assert found.fun < lin.loss()


def test_certificate(lin):
    assert hvp.testing.check(lin).passed


def test_inputs_are_refused_in_one_line(lin):
    with pytest.raises(hvp.InputError, match=r"47"):
        lin.hvp(np.ones(46))
    with pytest.raises(hvp.InputError, match="a finite vector, got NaN or infinity in v"):
        lin.hvp(np.full(47, np.nan))
    with pytest.raises(hvp.InputError, match="one of H, G and R"):
        lin.batch_forms(np.ones(47), "Q")
    with pytest.raises(hvp.InputError, match="a layer, a parameter or a glob"):
        lin.block("other")
    with pytest.raises(hvp.InputError, match="at least one sample"):
        lin.fisher_vp(np.ones(47), num_samples=0)
    with pytest.raises(hvp.InputError, match="finite parameters"):
        lin.at(np.full(47, np.inf))


def test_overflow_names_its_batch(lin):
    with pytest.raises(hvp.errors.NotFiniteError, match=r"batch \d of 4"):
        lin.hvp(np.full(47, 1e308))


# --- the same numbers as in one process ---


def test_all_else_is_as_in_one_process(on_cluster, one_process, V):
    def both(function):
        return function(on_cluster), function(one_process)

    for name in (
        "size", "dtype", "names", "num_examples", "num_batches", "num_outputs", "data_digest",
        "weights_digest", "objective_digest", "loss_name", "accuracy", "is_whole", "is_convex",
        "has_outputs", "certificate", "findings",
    ):  # fmt: skip
        found, expected = both(lambda lin, name=name: getattr(lin, name))
        assert found == expected, name
    for function in (
        lambda lin: lin.fisher_vp(V),
        lambda lin: lin.fisher_vp(V, num_samples=3, seed=1),
        lambda lin: lin.empirical_fisher_vp(V),
        lambda lin: lin.batch_forms(V).shares,
        lambda lin: lin.batch_forms(V).penalty,
        lambda lin: lin.batch_forms(V, "R").stderr,
        lambda lin: lin.batch_grams(V, "G").shares,
        lambda lin: lin.batch_grams(V, "G").penalty,
        lambda lin: lin.batch_sharpness(),
        lambda lin: lin.block("dense2").batch_sharpness(),
    ):
        assert relative(*both(function)) < 1e-11
    np.testing.assert_array_equal(on_cluster.batch_forms(V).examples, SIZES)
    assert on_cluster.memory.batches == one_process.memory.batches
    assert (
        on_cluster.cost("H", 4).linear.multiply_adds == one_process.cost("H").linear.multiply_adds
    )
    assert on_cluster.prepare("H", columns=[1, 4]) is on_cluster
    with pytest.raises(hvp.InputError, match="columns of at least 1"):
        on_cluster.prepare(columns=0)


def test_a_comparison_is_that_of_one_process(on_cluster, one_process):
    options = {"k": 2, "layers": False, "results": "ends"}
    found, expected = hvp.compare(on_cluster, **options), hvp.compare(one_process, **options)
    for name, part in expected.parts.items():
        for matrix, spectrum in part.spectra.items():
            np.testing.assert_allclose(
                found.parts[name].spectra[matrix].largest.values, spectrum.largest.values, rtol=1e-8
            )


def test_every_public_member_is_there():
    def names(kind):
        return {name for name in dir(kind) if not name.startswith("_")}

    assert names(hvp.Linearization) <= names(hvp.cluster.ClusterLinearization)


def test_a_product_repeats_to_the_last_bit(on_cluster, V):
    first = on_cluster.hvp(V)
    for _ in range(3):
        np.testing.assert_array_equal(on_cluster.hvp(V), first)


# --- workers that die, are late or are slow ---


def test_a_worker_that_died_starts_again_and_is_counted(on_cluster, V):
    before, state = on_cluster.hvp(V), on_cluster.workers[1]
    there = on_cluster.at(1.1 * on_cluster.theta)
    expected, restarts = there.gnvp(V), on_cluster.restarts
    os.kill(state.pid, signal.SIGKILL)
    np.testing.assert_array_equal(there.gnvp(V), expected)
    np.testing.assert_array_equal(on_cluster.hvp(V), before)
    assert on_cluster.restarts == restarts + 1
    assert on_cluster.workers[1].pid != state.pid
    found = [f for f in on_cluster.findings if "died and was started again" in f.message]
    assert [f.layer for f in found] == [f"worker 2 of 2 on {LOOPBACK}"]


def test_a_worker_that_is_late_is_named(on_cluster, V, monkeypatch):
    monkeypatch.setattr(workers_module, "PATIENCE_SECONDS", 0.5)
    monkeypatch.setattr(workers_module, "PATIENCE_FACTOR", 0.0)
    expected, pid = on_cluster.hvp(V), on_cluster.workers[0].pid
    os.kill(pid, signal.SIGSTOP)
    timer = threading.Timer(2.0, os.kill, (pid, signal.SIGCONT))
    timer.start()
    with pytest.warns(
        UserWarning, match=r"no answer for \d+ s from worker 1 of 2, batches 1 to 2 on"
    ):
        np.testing.assert_array_equal(on_cluster.hvp(V), expected)
    timer.join()


def test_a_slow_worker_is_a_finding(on_cluster, monkeypatch):
    monkeypatch.setattr(workers_module, "MIN_SECONDS", 0.0)
    pool = on_cluster._workers
    monkeypatch.setattr(pool, "_seconds", [[0.1] * 3, [0.9] * 3])
    found = [finding for finding in pool.findings if "slow" in finding.message]
    # Four examples against three: the first would take 0.675 s for those of the second.
    assert [finding.layer for finding in found] == [f"worker 2 of 2 on {LOOPBACK}"]
    assert "0.9 s where the others would take 0.075 s" in found[0].message


def test_functions_build_the_model_and_read_the_data_and_a_death_too_many_is_said(ray_cluster):
    x, y = X, LABELS

    class Own(keras.layers.Layer):
        def call(self, inputs):
            return 2 * inputs

    def build():
        stack = [keras.layers.Dense(5, "tanh"), Own(), keras.layers.Dense(3)]
        return keras.Sequential([keras.Input((4,)), *stack])

    def data(worker, workers):
        return [(x[worker::workers], y[worker::workers])]

    parts = [(x[i::3], y[i::3]) for i in range(3)]
    with hvp.cluster.linearize(build, data, LOSS, num_workers=3, max_restarts=0) as lin:
        model = build()
        model.set_weights(
            [
                np.reshape(w, s)
                for w, s in zip(
                    np.split(lin.theta, np.cumsum([20, 5, 15])),
                    [(4, 5), (5,), (5, 3), (3,)],
                    strict=True,
                )
            ]
        )
        alone = hvp.linearize(model, parts, LOSS, jit=False)
        V = np.random.default_rng(1).standard_normal((lin.size, 2))
        assert relative(lin.hvp(V), alone.hvp(V)) < 1e-5
        assert relative(lin.vjp(np.ones(21)), alone.vjp(np.ones(21))) < 1e-5
        os.kill(lin.workers[1].pid, signal.SIGKILL)
        with pytest.raises(WorkerError, match="worker 2 of 3, batches 2 to 2 on") as error:
            lin.hvp(V)
        assert "\n" not in str(error.value)
        assert "died 1 times" in str(error.value)
        pids = [state.pid for state in lin.workers]
    with pytest.raises(hvp.InputError, match="an open linearization"):
        lin.hvp(V)
    deadline = time.monotonic() + 20
    while any(map(psutil.pid_exists, pids)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(map(psutil.pid_exists, pids))


def test_what_a_worker_refuses_is_refused_here_in_the_same_words(ray_cluster):
    normalised = keras.Sequential(
        [keras.Input((4,)), keras.layers.BatchNormalization(), keras.layers.Dense(3)]
    )
    messages = []
    for linearize in (hvp.linearize, lambda *a, **k: hvp.cluster.linearize(*a, num_workers=1, **k)):
        with pytest.raises(MixedExamplesError) as error:
            linearize(normalised, BATCHES, LOSS, training=True)
        messages.append(str(error.value))
    assert messages[0] == messages[1]


def test_what_needs_no_worker_is_refused_at_once(ray_cluster):
    for options, expected in (
        ({"num_workers": 0}, "num_workers of at least 1"),
        ({"num_workers": 5}, "at least one batch for each of 5 workers, got 4"),
        ({"num_workers": 1000}, "a cluster with 1000 CPUs"),
        ({"num_workers": 2, "ad": "sideways"}, "ad among"),
        ({"num_workers": 2, "variables": "none"}, "a layer, a parameter or a glob"),
        ({"num_workers": 2, "address": "10.0.0.1:1"}, "one cluster for a process"),
    ):
        with pytest.raises(hvp.InputError, match=expected):
            hvp.cluster.linearize(net(), BATCHES, LOSS, **options)


# --- the cluster ---


def test_nothing_listens_beyond_the_loopback(on_cluster):
    assert on_cluster.workers[0].node == LOOPBACK
    ports = [
        (process.name(), connection.laddr.ip)
        for process in [psutil.Process(), *psutil.Process().children(recursive=True)]
        for connection in listening(process)
    ]
    assert len(ports) > 3
    assert {ip.removeprefix("::ffff:") for _, ip in ports} == {LOOPBACK}, ports


def listening(process):
    with contextlib.suppress(psutil.NoSuchProcess):
        return [c for c in process.net_connections() if c.status == psutil.CONN_LISTEN]
    return []
