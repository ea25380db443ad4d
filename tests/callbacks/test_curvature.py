"""`Curvature` in `fit`: its numbers against dense matrices, its logs, and what it leaves alone."""

import csv
import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
from support import oracles
from support.oracles import dense_net, examples, softmax_loss

import hvp
from hvp.autodiff import tensorflow_private, tracing
from hvp.callbacks import Curvature, curvature, measurements
from hvp.callbacks.time_budget import TimeBudget
from hvp.linearization.audit import Auditor

LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True, dtype="float64")
X, Y = examples((4,), 12), np.arange(12) % 3
ALL = (
    "sharpness", "gauss_newton_sharpness", "trace", "step_curvature", "batch_sharpness", "edge",
)  # fmt: skip


class Weights(keras.callbacks.Callback):
    """Records the weights after each step."""

    def on_train_begin(self, logs=None):
        self.found = [self.model.get_weights()]

    def on_train_batch_end(self, batch, logs=None):
        self.found.append(self.model.get_weights())


def compiled(optimizer, **options):
    model = dense_net(**options)
    model.compile(optimizer, LOSS, run_eagerly=True)
    return model


def small(optimizer="sgd", **options):
    """Four weights, whose Hessian takes little time."""
    initial = keras.initializers.GlorotUniform(seed=0)
    layer = keras.layers.Dense(
        1, "tanh", use_bias=False, kernel_initializer=initial, dtype="float64", name="dense"
    )
    model = keras.Sequential([keras.Input((4,), dtype="float64"), layer])
    model.compile(optimizer, "mse", **({"run_eagerly": True} | options))
    return model


def fit(model, *callbacks, **options):
    given = {"epochs": 2, "batch_size": 4, "verbose": 0, "shuffle": False} | options
    return model.fit(X, Y, callbacks=list(callbacks), **given)


@pytest.fixture(scope="module")
def trained():
    """Two epochs with all quantities: the callback, the history, the model, its weights by step."""
    model = compiled(keras.optimizers.SGD(0.25, momentum=0.5))
    callback = Curvature((X, Y), measure=ALL, batch_size=4, tol=1e-10)
    weights = Weights()
    history = fit(model, callback, weights).history
    return callback, history, model, weights.found


def loss_on(model, chosen=slice(None)):
    return lambda: softmax_loss(Y[chosen], model(X[chosen]))


def hessian(model):
    return oracles.hessian(loss_on(model), oracles.variables_of(model))


@pytest.fixture(scope="module")
def at_epochs(trained):
    """The dense H after each epoch."""
    _, _, model, weights = trained
    found = []
    for step in (3, 6):
        model.set_weights(weights[step])
        found.append(hessian(model))
    return found


def test_sharpness_and_trace_are_those_of_the_dense_hessian(trained, at_epochs):
    history = trained[1]
    tops = [np.linalg.eigvalsh(H)[-1] for H in at_epochs]
    np.testing.assert_allclose(history["sharpness"], tops, rtol=1e-9)
    # Of 47 parameters 32 products are too few for the exact trace.
    errors = [row["trace_error"] for row in trained[0].rows()]
    assert min(errors) > 0
    traces = np.array([np.trace(H) for H in at_epochs])
    assert (np.abs(history["trace"] - traces) < 4 * np.array(errors)).all()


def test_gauss_newton_sharpness_is_that_of_the_dense_matrix(trained):
    _, history, model, weights = trained
    model.set_weights(weights[6])
    G = oracles.gauss_newton(
        lambda: model(X), lambda z: softmax_loss(Y, z), oracles.variables_of(model)
    )
    top = np.linalg.eigvalsh(G)[-1]
    assert history["gauss_newton_sharpness"][1] == pytest.approx(top, rel=1e-9)
    assert abs(top - history["sharpness"][1]) > 1e-3


def test_step_curvature_is_along_the_last_step_at_its_end(trained, at_epochs):
    _, history, _, weights = trained
    for epoch, (H, last) in enumerate(zip(at_epochs, (3, 6), strict=True)):
        d = oracles.flat(weights[last]) - oracles.flat(weights[last - 1])
        assert history["step_curvature"][epoch] == pytest.approx(d @ H @ d / (d @ d), rel=1e-9)


def test_batch_sharpness_is_the_mean_over_the_batches(trained):
    callback, history, model, weights = trained
    model.set_weights(weights[6])
    variables, found = oracles.variables_of(model), []
    for start in (0, 4, 8):
        loss = loss_on(model, slice(start, start + 4))
        g = oracles.gradient(loss, variables)
        found.append(g @ oracles.hessian_along(loss, variables, g) / (g @ g))
    assert history["batch_sharpness"][1] == pytest.approx(np.mean(found), rel=1e-7)
    error = callback.rows()[1]["batch_sharpness_error"]
    assert error == pytest.approx(np.std(found, ddof=1) / np.sqrt(3), rel=1e-6)


def test_logs_and_rows_hold_plain_floats(trained):
    callback, history, _, _ = trained
    assert set(history) == {"loss", *ALL}
    assert {type(value) for name in ALL for value in history[name]} == {float}
    rows = callback.rows()
    assert [(row["epoch"], row["step"]) for row in rows] == [(1, 3), (2, 6)]
    assert [row["sharpness"] for row in rows] == history["sharpness"]
    assert all(row["sharpness_error"] < 1e-8 for row in rows)
    assert history["edge"] == pytest.approx([12, 12])
    assert 0 < callback.share < 1


def test_adam_has_the_sharpness_of_its_preconditioned_hessian():
    model = compiled(keras.optimizers.AdamW(0.01, beta_2=0.9, weight_decay=0.1))
    history = fit(model, Curvature((X, Y), tol=1e-10), epochs=1).history
    v = model.optimizer.variables
    squares = oracles.flat([each for each in v if each.name.endswith("velocity")])
    P = (np.sqrt(squares) + 1e-7) * (1 - 0.9**3) / np.sqrt(1 - 0.9**3)
    top = np.linalg.eigvalsh(hessian(model) / np.sqrt(np.outer(P, P)))[-1]
    assert history["preconditioned_sharpness"] == pytest.approx([top], rel=1e-8)
    assert history["edge"] == pytest.approx([38 / 0.01 * (1 - 0.01 * 0.1 / 2)], rel=1e-6)


def weights_and_noise(*callbacks):
    """What a training with dropout and moving statistics ends in, and random numbers after it."""
    keras.utils.set_random_seed(3)
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(5, "tanh"),
            layers.Dropout(0.4),
            layers.BatchNormalization(),
            layers.Dense(3),
        ]
    )
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    fit(model, *callbacks, shuffle=True, epochs=3)
    noise = tf.random.normal([3]), keras.random.normal([3]), np.random.random(3)
    return [*model.get_weights(), *(v.numpy() for v in model.optimizer.variables), *noise]


@pytest.mark.sweep
@pytest.mark.parametrize(
    "options",
    [
        {
            "measure": ("sharpness", "trace", "step_curvature", "batch_sharpness", "edge"),
            "batch_size": 4,
            "unit": "step",
        },
        pytest.param({"training": True}, marks=pytest.mark.sweep),
    ],
    ids=["all", "training"],
)
def test_training_is_the_same_to_the_last_bit(options):
    callback = Curvature((X.astype("float32"), Y), **options)
    assert all(map(np.array_equal, weights_and_noise(callback), weights_and_noise()))
    assert np.isfinite([row["sharpness"] for row in callback.rows()]).all()


def test_nothing_is_traced_after_the_first_measurement(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("traced again")

    class Refuse(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 1:
                monkeypatch.setattr(tracing, "trace", refuse)
                monkeypatch.setattr(tensorflow_private, "compiled", refuse)
                monkeypatch.setattr(tf, "function", refuse)
                monkeypatch.setattr(Auditor, "audit", refuse)

    model = small("adam")
    callback = Curvature((X, Y), measure=ALL, batch_size=4)
    fit(model, Refuse(), callback, epochs=3)
    assert len(callback.rows()) == 3
    with pytest.raises(AssertionError, match="traced again"):
        fit(model, Curvature((X, Y)))


def test_moving_statistics_are_those_of_the_measurement():
    model = keras.Sequential(
        [keras.Input((4,)), keras.layers.BatchNormalization(), keras.layers.Dense(3)]
    )
    model.compile("sgd", "mse", run_eagerly=True)
    x, y = X.astype("float32"), np.eye(3, dtype="float32")[Y]
    history = model.fit(
        x, y, epochs=3, verbose=0, callbacks=[Curvature((x, y), measure="sharpness", tol=1e-5)]
    ).history
    fresh = hvp.linearize(model, (x, y))
    assert history["sharpness"][-1] == pytest.approx(np.linalg.eigvalsh(fresh.hvp(np.eye(23)))[-1])
    assert history["sharpness"][0] != pytest.approx(history["sharpness"][-1], rel=1e-2)


@pytest.mark.parametrize(("every", "measured"), [(1, [1, 2, 3, 4, 5, 6]), (4, [1, 4])])
def test_steps_are_measured_at_multiples_and_at_the_first(every, measured):
    model = small(keras.optimizers.SGD(0.1))
    seen = {}

    class Reader(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if "sharpness" in logs:
                seen[int(self.model.optimizer.iterations)] = logs["sharpness"]

    callback = Curvature((X, Y), measure=("sharpness", "step_curvature"), every=every, unit="step")
    history = fit(model, callback, Reader()).history
    rows = callback.rows()
    assert [row["step"] for row in rows] == measured
    assert seen == {row["step"]: row["sharpness"] for row in rows}
    assert np.isfinite([row["step_curvature"] for row in rows]).all()
    by_epoch = {row["epoch"]: row["sharpness"] for row in rows}
    assert history["sharpness"] == [by_epoch[1], by_epoch[2]]


@pytest.mark.sweep
def test_steps_that_run_together_are_one():
    model = small(run_eagerly=False, steps_per_execution=2)
    callback = Curvature((X, Y), measure=("trace", "step_curvature"), every=3, unit="step")
    fit(model, callback, batch_size=3)
    assert [row["step"] for row in callback.rows()] == [2, 4, 6]
    assert np.isfinite([row["step_curvature"] for row in callback.rows()]).all()


def test_readers_of_logs_have_the_same_columns_in_every_epoch(tmp_path):
    """History, CSVLogger and EarlyStopping, with epochs that are not measured."""
    model = small(keras.optimizers.SGD(0.0))
    path = tmp_path / "log.csv"
    stopping = keras.callbacks.EarlyStopping("trace", patience=4, mode="min")
    callback = Curvature(
        tf.data.Dataset.from_tensor_slices((X, Y)).batch(6), measure="trace", every=3
    )
    history = fit(model, callback, keras.callbacks.CSVLogger(path), stopping, epochs=9).history
    # The first is the best: four epochs without improvement follow.
    is_nan = [False, True, False, True, True]
    assert np.isnan(history["trace"]).tolist() == is_nan
    rows = list(csv.DictReader(path.open()))
    assert [row["trace"] == "nan" for row in rows] == is_nan
    assert float(rows[2]["trace"]) == history["trace"][2]
    assert [row["epoch"] for row in callback.rows()] == [1, 3]


def test_a_resumed_training_measures_the_same_epochs(tmp_path):
    class Stop(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if epoch == 2:
                raise InterruptedError

    def trained(*others):
        model = small(keras.optimizers.SGD(0.1, momentum=0.5))
        callback = Curvature((X, Y), every=2, unit="epoch")
        restore = keras.callbacks.BackupAndRestore(tmp_path / "backup")
        try:
            fit(model, callback, *others, *([restore] if others else []), epochs=6)
        except InterruptedError:
            resumed = small(keras.optimizers.SGD(0.1, momentum=0.5))
            again = Curvature((X, Y), every=2)
            fit(resumed, again, restore, epochs=6)
            return callback.rows() + again.rows()
        return callback.rows()

    whole, parts = trained(), trained(Stop())
    assert [row["epoch"] for row in whole] == [1, 2, 4, 6]
    assert [row["epoch"] for row in parts] == [1, 2, 3, 4, 6]
    values = {row["epoch"]: row["sharpness"] for row in parts}
    assert [values[row["epoch"]] for row in whole] == pytest.approx(
        [row["sharpness"] for row in whole], rel=1e-6
    )


def test_measurements_beyond_the_budget_are_skipped_and_said(monkeypatch):
    now = [0.0]

    class Clock(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            now[0] += 10.0

    original = hvp.Linearization.at

    def at(self, point):
        now[0] += 2.0
        return original(self, point)

    monkeypatch.setattr(hvp.Linearization, "at", at)
    clocked = functools.partial(TimeBudget, clock=lambda: now[0])
    monkeypatch.setattr(curvature, "TimeBudget", clocked)
    callback = Curvature((X, Y), measure="trace", budget=0.1)
    model = small()
    with pytest.warns(UserWarning, match="of 7 measurements of curvature 4 skipped for budget=0.1"):
        history = fit(model, callback, Clock(), epochs=7).history
    # The first takes 2 of 12 s; the second would end at 24 s, or at 34 s: 4 s are too much of both.
    assert np.isfinite(history["trace"]).tolist() == [True, False, False, True, False, True, False]
    assert callback.num_skipped == 4
    assert callback.share == pytest.approx(6 / 76)


def test_eigenvalues_start_from_those_before(monkeypatch):
    original, calls = measurements.eigsh, []

    def spied(matrix, k, *, start, **options):
        found = original(matrix, k, start=start, **options)
        calls.append((start, found))
        return found

    monkeypatch.setattr(measurements, "eigsh", spied)
    fit(small("adam"), Curvature((X, Y), measure=("sharpness", "edge")))
    starts, found = zip(*calls, strict=True)
    # Those of H and of P⁻¹ᐟ²HP⁻¹ᐟ² take turns.
    assert starts == (None, None, found[0], found[1])


def test_eigenvalues_that_do_not_converge_are_nan_and_said(monkeypatch):
    def fail(*args, **kwargs):
        raise hvp.ConvergenceError("no")

    monkeypatch.setattr(measurements, "eigsh", fail)
    with pytest.warns(UserWarning, match="of 2 measurements of curvature 2 eigenvalues not conv"):
        history = fit(small(), Curvature((X, Y), measure=("sharpness", "trace"))).history
    assert np.isnan(history["sharpness"]).all()
    assert np.isfinite(history["trace"]).all()


def test_event_files_hold_the_numbers_without_tensorboard(tmp_path):
    callback = Curvature((X, Y), log_dir=tmp_path)
    history = fit(small(keras.optimizers.SGD(0.25)), callback).history
    (file,) = tmp_path.iterdir()
    found = []
    for record in tf.data.TFRecordDataset(str(file)):
        event = tf.compat.v1.Event.FromString(record.numpy())
        for value in event.summary.value:
            number = float(tf.make_ndarray(value.tensor))
            found.append((value.tag, event.step, number, value.metadata.plugin_data.plugin_name))
    expected = [
        (f"curvature/{name}", 3 * epoch, np.float32(history[name][epoch - 1]), "scalars")
        for epoch in (1, 2)
        for name in ("sharpness", "edge")
    ]
    assert found == expected


def test_the_edge_of_adam_is_nan_before_its_first_step():
    model = small(keras.optimizers.Adam(gradient_accumulation_steps=4))
    history = fit(model, Curvature((X, Y)), epochs=2).history
    for name in ("edge", "preconditioned_sharpness"):
        assert np.isnan(history[name]).tolist() == [True, False]


def test_an_unknown_edge_is_said_and_nan(tmp_path):
    model = small(keras.optimizers.SGD(0.1, clipnorm=1.0))
    callback = Curvature((X, Y), measure=("trace", "edge"), log_dir=tmp_path)
    with pytest.warns(UserWarning, match="the edge is NaN in the logs: .* got SGD with clipnorm"):
        history = fit(model, callback, epochs=1).history
    assert np.isnan(history["edge"]).all()
    assert np.isfinite(history["trace"]).all()


class Poison(keras.callbacks.Callback):
    """Makes a weight NaN after the first step."""

    def on_train_batch_end(self, batch, logs=None):
        if batch == 0:
            self.model.layers[0].kernel.assign(np.full((4, 1), np.nan))


def test_weights_that_are_not_finite_are_refused():
    with pytest.raises(
        hvp.InputError, match=r"finite weights, got NaN or infinity in .*dense/kernel in epoch 1"
    ):
        fit(small(), Poison(), Curvature((X, Y)))
    stopped = fit(small(), Poison(), keras.callbacks.TerminateOnNaN(), Curvature((X, Y)))
    assert np.isnan(stopped.history["sharpness"]).tolist() == [True]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"measure": "sharpnes"}, "measure= among sharpness, .*, got 'sharpnes'"),
        ({"measure": ()}, "measure= with names"),
        ({"measure": 3}, "measure= with names"),
        ({"every": 0}, "every= as a number of 1 or more, got 0"),
        ({"every": 1.5}, "every= as a number"),
        ({"every": True}, "every= as a number"),
        ({"unit": "batch"}, "unit= among epoch, step, got 'batch'"),
        ({"budget": 0}, "budget= between 0 and 1, got 0"),
        ({"budget": 1.5}, "budget= between 0 and 1, got 1.5"),
        ({"budget": "a tenth"}, "budget= between 0 and 1"),
        ({"tol": 0}, "tol= between 0 and 1"),
        ({"measure": "batch_sharpness"}, "batch_size= for batch_sharpness, got none"),
    ],
)
def test_unknown_options_are_refused_at_once(options, message):
    with pytest.raises(hvp.InputError, match=message):
        Curvature((X, Y), **options)


def test_a_linearization_in_place_of_data_is_refused_at_once():
    lin = hvp.linearize_function(lambda w: w[0] ** 2, np.ones(1))
    with pytest.raises(hvp.InputError, match="the callback linearizes by itself"):
        Curvature(lin)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ((X[:, :3], Y), r"x of shape \(N, 4\), .*, got \(N, 3\)"),
        ((X, Y[:5]), "the same length|same"),
        ((X * np.nan, Y), "finite data"),
        (X, "targets"),
        (3.0, "arrays, a tf.data.Dataset, an iterable"),
    ],
)
def test_other_data_are_refused_before_the_first_step(data, message):
    model = small()
    before = model.get_weights()
    with pytest.raises(hvp.InputError, match=message):
        fit(model, Curvature(data))
    assert all(map(np.array_equal, model.get_weights(), before))


def test_a_model_that_is_not_ready_is_refused():
    callback = Curvature((X, Y))
    with pytest.raises(hvp.InputError, match="a compiled model, got none"):
        callback.on_train_begin()
    callback.set_model(dense_net())
    with pytest.raises(hvp.InputError, match="a compiled model, got 'net', not compiled"):
        callback.on_train_begin()
    unbuilt = keras.Sequential([keras.layers.Dense(3)])
    unbuilt.compile("sgd", LOSS)
    callback.set_model(unbuilt)
    with pytest.raises(hvp.InputError, match="a built model, got"):
        callback.on_train_begin()
