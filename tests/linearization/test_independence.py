"""What comes later changes no result: new weights, written arrays, other products, threads."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from support.batched_products import GIVEN, layers, vector
from support.oracles import examples, relative, sequential
from support.threads import at_once

import hvp


def large_net():
    """181,200 parameters, 1.4 MB in float64: results are not copied."""
    return sequential(
        (300,),
        layers.Dense(600, "tanh", dtype="float64", name="wide"),
        layers.Dense(1, dtype="float64", name="last"),
    )


LARGE_DATA = examples((300,), 5) / 10, examples((1,), 5)


@pytest.fixture(scope="module")
def large():
    return hvp.linearize(large_net(), LARGE_DATA, "mse", batch_size=3, **GIVEN)


@pytest.mark.sweep
@pytest.mark.parametrize("cache", [0, "auto"])
def test_weights_changed_later_change_nothing(cache):
    model = large_net()
    model.compile(keras.optimizers.SGD(0.1), "mse")
    early, late = (
        hvp.linearize(model, LARGE_DATA, batch_size=3, cache=cache, **GIVEN) for _ in range(2)
    )
    names = ["hvp", "gnvp"]
    v = vector(early, "hvp")
    before = [getattr(early, name)(v) for name in names]
    theta = early.theta
    model.optimizer.build(model.trainable_variables)
    model.optimizer.apply([tf.ones(w.shape, w.dtype) for w in model.trainable_variables])
    for variable in model.trainable_variables:
        variable.assign_add(tf.ones_like(variable))
    model.set_weights([0 * w for w in model.get_weights()])
    del model
    for lin in (early, late):
        for name, value in zip(names, before, strict=True):
            assert (getattr(lin, name)(v) == value).all()
        assert (lin.theta == theta).all()


def aligned(shape, dtype=float):
    """An array that begins where TensorFlow reads memory instead of copying it."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    memory = np.zeros(size + 64, np.uint8)
    start = -memory.ctypes.data % 64
    return memory[start : start + size].view(dtype).reshape(shape)


@pytest.mark.parametrize("cache", [0, "auto"])
def test_arrays_overwritten_later_change_nothing(cache):
    x, y, w = aligned((64, 300)), aligned((64, 1)), aligned((300, 600))
    x[:], y[:], w[:] = examples((300,), 64), examples((1,), 64), examples((600,), 300) / 20

    def linearize():
        return hvp.linearize_function(
            lambda z, batch: tf.reduce_mean((z - batch[1]) ** 2),
            w,
            (x, y),
            outputs=lambda w, batch: tf.reduce_sum(tf.tanh(batch[0] @ w), 1, keepdims=True),
            cache=cache,
            **GIVEN,
        )

    early, late = linearize(), linearize()
    v = vector(early, "hvp")
    before, theta = early.hvp(v), early.theta
    for array in (x, y, w):
        array[:] = 0
    assert (early.theta == theta).all()
    assert (early.hvp(v) == before).all()
    assert (late.hvp(v) == before).all()


@pytest.mark.parametrize("cache", [0, "auto"])
@pytest.mark.parametrize("name", ["hvp", "gnvp", "residual_vp"])
def test_later_products_leave_earlier_results_alone(name, cache):
    lin = hvp.linearize(large_net(), LARGE_DATA, "mse", batch_size=3, cache=cache, **GIVEN)
    multiply = getattr(lin, name)
    vectors = [vector(lin, name, seed=seed) for seed in range(3)]
    results = [multiply(v) for v in vectors]
    copies = [result.copy() for result in results]
    blocks = [multiply(np.stack(vectors, axis=1)) for _ in range(2)]
    for result, copy in zip(results, copies, strict=True):
        assert (result == copy).all()
        result += 1
    assert relative(blocks[0], np.stack(copies, axis=1)) < 1e-13
    blocks[0][:] = 7
    assert relative(blocks[1], np.stack(copies, axis=1)) < 1e-13
    for v, copy in zip(vectors, copies, strict=True):
        assert (multiply(v) == copy).all()
        assert (vectors[0] == vector(lin, name, seed=0)).all()


def identity(w, batch):
    return w


def product(w, batch):
    return batch @ w


def half_square(z, batch):
    return tf.reduce_sum(z**2) / 2


def total(z, batch):
    return tf.reduce_sum(z)


def may_be_written(name, outputs, loss, factor, columns):
    """A product that multiplies by one number, a large one: its results are the caller's own."""
    lin = hvp.linearize_function(
        loss, examples((400,), 400), np.ones((2, 400)), outputs=outputs, **GIVEN
    )
    multiply, v = getattr(lin, name), vector(lin, name, *columns)
    before = v.copy()
    first, second = multiply(v), multiply(2 * v)
    assert np.allclose(first, factor * v, rtol=1e-14)
    first += 1
    assert np.allclose(second, 2 * factor * v, rtol=1e-14)
    second[:] = 3
    assert (v == before).all()
    assert np.allclose(multiply(v), factor * v, rtol=1e-14)
    assert np.allclose(first, factor * v + 1, rtol=1e-14)
    assert (second == 3).all()


@pytest.mark.parametrize("columns", [(), (2,)], ids=str)
@pytest.mark.parametrize("name", ["hvp", "gnvp", "jvp", "vjp"])
def test_products_that_are_the_vector_itself_may_be_written(name, columns):
    may_be_written(name, identity, half_square, 1, columns)


ZEROS = {
    "R of a linear network": ("residual_vp", product, half_square),
    "R of the weights themselves": ("residual_vp", identity, half_square),
    "H of a linear loss": ("hvp", product, total),
    "G of a linear loss": ("gnvp", product, total),
}


@pytest.mark.parametrize("columns", [(), (2,)], ids=str)
@pytest.mark.parametrize(("name", "outputs", "loss"), ZEROS.values(), ids=ZEROS)
def test_products_that_are_zero_may_be_written(name, outputs, loss, columns):
    may_be_written(name, outputs, loss, 0, columns)


@pytest.mark.sweep
@pytest.mark.parametrize("cache", [0, "auto"])
def test_threads_that_multiply_at_once_get_their_own_results(large, cache):
    lin = hvp.linearize(large_net(), LARGE_DATA, "mse", batch_size=3, cache=cache, **GIVEN)
    tasks = [("hvp", 0), ("gnvp", 1), ("hvp", 2)]
    expected = {
        (name, seed): getattr(large, name)(vector(large, name, seed=seed)) for name, seed in tasks
    }

    def work(name, seed):
        v = vector(lin, name, seed=seed)
        for _ in range(15):
            assert (getattr(lin, name)(v) == expected[name, seed]).all()

    at_once(*(lambda task=task: work(*task) for task in tasks))


def test_threads_that_multiply_blocks_at_once_get_their_own_results(large):
    lin = hvp.linearize(large_net(), LARGE_DATA, "mse", batch_size=3, **GIVEN)
    blocks = [vector(large, "hvp", columns, seed=columns) for columns in (2, 3)]
    expected = [large.hvp(V) for V in blocks]

    def work(V, result):
        for _ in range(4):
            assert relative(lin.hvp(V), result) < 1e-13

    at_once(*(lambda p=pair: work(*p) for pair in zip(blocks, expected, strict=True)))
