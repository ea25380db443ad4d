"""What is computed once and kept; threads, budgets and later calls do not change results."""

import dataclasses
import gc
import json
import os
import subprocess
import sys
import weakref
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy.sparse.linalg import lobpcg
from support.oracles import (
    CASES,
    LABELS,
    conv_net,
    cut,
    dense_net,
    examples,
    hessian,
    relative,
    sequential,
    squared_loss,
    variables_of,
)
from support.threads import at_once

import hvp
from hvp.autodiff import curvature, tensorflow_private, tracing
from hvp.linearization import compilation, linear_map, linearization, products
from hvp.linearization.compilation import CompiledFunction
from hvp.linearization.linear_map import LinearMap
from hvp.linearization.products import FORWARD, REVERSE
from hvp.passes import pipeline

layers = keras.layers
ROOT = Path(__file__).parents[2]
GIVEN = {"ad": FORWARD, "jit": False}
PRODUCTS = ["hvp", "gnvp", "residual_vp", "jvp", "vjp"]
SPARSE = CASES[1].loss
X, Y = examples((4,)), np.random.default_rng(8).standard_normal((7, 3))
SIZES = (2, 2, 2, 1)


def ragged(**options):
    """Four batches of two shapes."""
    data = cut((X, LABELS), SIZES)
    return hvp.linearize(dense_net(), data, SPARSE, **{**GIVEN, **options})


def even(**options):
    """Three batches of one shape."""
    data = cut((X[:6], LABELS[:6]), (2, 2, 2))
    return hvp.linearize(dense_net(), data, SPARSE, **{**GIVEN, **options})


def vector(lin, name, *columns, seed=0):
    rows = lin.num_outputs if name == "vjp" else lin.size
    return np.random.default_rng(seed).standard_normal((rows, *columns))


def every_product(lin):
    """With a vector and with a block."""
    return {
        (name, *columns): getattr(lin, name)(vector(lin, name, *columns))
        for name in PRODUCTS
        for columns in ((), (3,))
    }


def same(got, expected, tolerance=1e-13):
    assert got.keys() == expected.keys()
    for key, value in got.items():
        assert value.shape == expected[key].shape
        assert relative(value, expected[key]) < tolerance


# --- traced once ---


@pytest.fixture
def traces(monkeypatch):
    """Grows with every program that is traced."""
    calls, original = [], tracing.trace

    def counting(*arguments, **options):
        calls.append(arguments)
        return original(*arguments, **options)

    monkeypatch.setattr(tracing, "trace", counting)
    return calls


@pytest.mark.parametrize(
    ("name", "options"),
    [*((name, {}) for name in PRODUCTS), ("hvp", {"cache": 0}), ("gnvp", {"jit": True})],
    ids=str,
)
def test_a_product_is_traced_once_a_batch_shape(traces, name, options):
    lin = ragged(**options)
    traces.clear()
    for seed in range(3):
        getattr(lin, name)(vector(lin, name, seed=seed))
        getattr(lin, name)(vector(lin, name, 2, seed=seed))
        getattr(lin, name)(vector(lin, name, 3, seed=seed))
    assert len(traces) == len(set(SIZES)) == 2


def test_nothing_is_traced_before_it_is_used_and_then_one_order(traces):
    lin = ragged(ad="auto")
    traces.clear()
    _ = lin.theta, lin.loss(), lin.choices, lin.memory, lin.findings
    assert traces == []
    for _ in range(3):
        lin.hvp(np.ones(lin.size))
    assert len(traces) == 2
    assert {choice.order for choice in lin.choices} == {FORWARD}


def test_a_penalty_is_a_shape_of_its_own(traces):
    model = dense_net(kernel_regularizer="l2")
    lin = hvp.linearize(model, (X, Y), "mse", batch_size=4, **GIVEN)
    traces.clear()
    for _ in range(3):
        lin.hvp(np.ones(lin.size))
        lin.residual_vp(np.ones(lin.size))
    # Batches of 4 and 3 and the penalty for H; R has none.
    assert len(traces) == 3 + 2


# --- the known part runs once a batch ---


@pytest.fixture
def known(monkeypatch):
    """Grows whenever the known part of a product runs."""
    runs, original = [], tensorflow_private.compiled

    def counting(function, specs):
        run = original(function, specs)
        if getattr(function, "__name__", None) != "replay":
            return run
        return lambda tensors: runs.append(function) or run(tensors)

    monkeypatch.setattr(tensorflow_private, "compiled", counting)
    return runs


@pytest.mark.parametrize("name", PRODUCTS)
def test_the_known_part_runs_once_a_batch(known, name):
    lin = ragged()
    for seed in range(3):
        getattr(lin, name)(vector(lin, name, seed=seed))
        getattr(lin, name)(vector(lin, name, 3, seed=seed))
    assert len(known) == len(SIZES)
    getattr(lin, name)(vector(lin, name))
    assert len(known) == len(SIZES)


def test_the_known_part_of_a_block_of_columns_runs_once_a_batch(known):
    lin = ragged()
    lin.hvp(vector(lin, "hvp", 7))
    # The first batch once more, to find how many columns fit.
    assert len(known) <= len(SIZES) + 1


def test_products_keep_known_parts_of_their_own(known):
    lin = ragged()
    for _ in range(2):
        for name in PRODUCTS:
            getattr(lin, name)(vector(lin, name))
    assert len(known) == len(PRODUCTS) * len(SIZES)


@pytest.mark.parametrize("name", PRODUCTS)
def test_without_a_cache_the_known_part_runs_each_time(known, name):
    lin = ragged(cache=0)
    for repetition in range(1, 4):
        getattr(lin, name)(vector(lin, name))
        # Jᵀ and J of the last layer alone need nothing but what the batch holds.
        assert len(known) == repetition * len(SIZES)
    assert lin.memory.kept == 0


@pytest.mark.parametrize("columns", [1, 5, 16])
def test_without_a_cache_the_known_part_runs_once_for_all_columns(known, columns):
    lin = ragged(cache=0)
    lin.hvp(vector(lin, "hvp"))
    known.clear()
    lin.hvp(vector(lin, "hvp", columns))
    # The first batch once more, to find how many columns fit.
    assert len(known) <= len(SIZES) + 1


def test_blocks_of_layers_share_what_is_saved(known):
    lin = ragged()
    first, last = lin.block("dense1"), lin.block("dense3")
    for _ in range(2):
        for each in (lin, first, last):
            each.hvp(np.ones(each.size))
    # The blocks take what the whole product has saved.
    assert len(known) == len(SIZES)
    kept = [each.memory.kept for each in (lin, first, last)]
    assert kept[0] == kept[1] == kept[2] > 0
    assert {each.memory.kept_batches for each in (lin, first, last)} == {4}


# --- budgets ---


@pytest.fixture(scope="module")
def expected():
    return every_product(ragged())


@pytest.mark.parametrize("cache", [0, 2000, 5000])
def test_products_are_the_same_within_any_budget(expected, cache):
    lin = ragged(cache=cache)
    for _ in range(2):
        same(every_product(lin), expected)
        memory = lin.memory
        assert memory.kept <= memory.budget
    assert memory.budget == cache


def test_a_middling_budget_keeps_some(known):
    lin = ragged()
    before = lin.hvp(np.ones(lin.size))
    whole = lin.memory
    assert whole.kept_batches == whole.batches == 4
    for share in (0.3, 0.6, 0.9):
        tight = ragged(cache=int(share * whole.kept))
        assert relative(tight.hvp(np.ones(lin.size)), before) < 1e-13
        memory = tight.memory
        assert 0 < memory.kept_batches < memory.batches == 4
        assert 0 < memory.kept <= memory.budget < whole.kept
        known.clear()
        assert relative(tight.hvp(np.ones(lin.size)), before) < 1e-13
        # Those that are kept do not run again.
        assert len(known) == memory.batches - memory.kept_batches


def test_a_datasets_batches_are_counted_where_they_are_kept():
    data = X[:6], Y[:6]

    def linearize(batches, **options):
        return hvp.linearize_function(
            lambda z, batch: tf.reduce_mean(z**2),
            examples((4,), 4),
            batches,
            outputs=lambda w, batch: tf.tanh(batch[0] @ w),
            reduction="mean",
            batch_size=3,
            **GIVEN,
            **options,
        )

    dataset = tf.data.Dataset.from_tensor_slices(data).batch(3)
    streamed, held, tight = linearize(dataset), linearize(data), linearize(dataset, cache=0)
    v = vector(held, "hvp")
    assert relative(streamed.hvp(v), held.hvp(v)) < 1e-13
    assert relative(tight.hvp(v), held.hvp(v)) < 1e-13
    # The linear part multiplies by the examples themselves.
    assert streamed.memory.kept - held.memory.kept == data[0].nbytes
    assert tight.memory.kept == 0


def test_memory_reports_the_bytes_in_use():
    lin = ragged(cache=10**6)
    before = lin.memory
    assert (before.budget, before.kept, before.kept_batches) == (10**6, 0, 0)
    assert before.batches == before.product == 0
    lin.hvp(np.ones(lin.size))
    after = lin.memory
    assert (after.kept_batches, after.batches) == (4, 4)
    assert 0 < after.kept < 10**6
    # A few activations of two examples: float64, at most four units and three layers.
    assert 0 < after.product < 50 * 8 * lin.size
    lin.gnvp(np.ones(lin.size))
    assert lin.memory.batches == 8
    assert lin.memory.kept > after.kept
    assert lin.memory.product >= after.product


def test_what_a_product_takes_grows_with_the_batch_and_what_is_kept_with_the_data():
    def memory(count, size):
        lin = hvp.linearize(
            dense_net(),
            (examples((4,), count), examples((3,), count)),
            "mse",
            batch_size=size,
            **GIVEN,
        )
        lin.hvp(np.ones(lin.size))
        return lin.memory

    small, large, many = memory(100, 100), memory(1000, 1000), memory(1000, 100)
    assert large.product > 5 * small.product
    assert many.product < 2 * small.product
    assert large.kept > 5 * small.kept
    assert 0.5 * large.kept < many.kept < 2 * large.kept


# --- a snapshot, also where nothing is kept ---


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


# --- results are the caller's ---


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


# --- threads ---


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


def test_a_product_is_traced_once_by_threads_that_want_it_at_once(traces):
    lin = ragged()
    traces.clear()
    at_once(*[lambda: lin.hvp(np.ones(lin.size))] * 4)
    assert len(traces) == 2
    assert lin.memory.kept_batches == lin.memory.batches == 4


# --- blocks of vectors ---

LAYOUTS = {
    "rows": np.ascontiguousarray,
    "columns": np.asfortranarray,
    "every other column": lambda V: np.repeat(V, 2, axis=1)[:, ::2],
    "every other row": lambda V: np.repeat(V, 2, axis=0)[::2],
    "backwards": lambda V: V[::-1, ::-1].copy()[::-1, ::-1],
}


@pytest.fixture(scope="module")
def wide():
    model = conv_net()
    x = examples(model.input_shape[1:])
    return hvp.linearize(model, (x, LABELS), SPARSE, batch_size=4, **GIVEN)


@pytest.mark.parametrize("columns", [1, 2, 3, 7, 16, 33])
@pytest.mark.parametrize("name", PRODUCTS)
def test_a_block_is_its_columns_however_it_lies(wide, name, columns):
    multiply, V = getattr(wide, name), vector(wide, name, columns)
    expected = np.stack([multiply(v) for v in V.T], axis=1)
    for lay in LAYOUTS.values() if name == "hvp" else [np.asarray]:
        block = lay(V)
        got = multiply(block)
        assert got.shape == expected.shape
        assert relative(got, expected) < 1e-13
        assert (block == V).all()
        got += 1


@pytest.mark.parametrize("options", [{"jit": True}, {"jit": "auto"}, {"cache": 0}], ids=str)
def test_a_block_is_its_columns_whatever_is_chosen(options):
    lin = even(**options)
    V = vector(lin, "hvp", 5)
    columns = np.stack([lin.hvp(v) for v in V.T], axis=1)
    assert relative(lin.hvp(V), columns) < 1e-12
    assert relative(columns, even().hvp(V)) < 1e-12


def test_products_of_columns_are_let_go_one_by_one(monkeypatch):
    lin = even()
    V = vector(lin, "hvp", 6)
    expected = lin.hvp(V)
    multiplication = lin._multiplication
    multiply, made, alive = multiplication._in_one_call, [], []

    def multiplied(*arguments):
        alive.append(sum(result() is not None for result in made))
        results = multiply(*arguments)
        made.extend(map(weakref.ref, results))
        return results

    monkeypatch.setattr(multiplication, "_in_one_call", multiplied)
    monkeypatch.setattr(LinearMap, "width", lambda *arguments: 1)
    assert relative(lin.hvp(V), expected) < 1e-13
    assert alive == [0] * 6


def test_a_block_without_columns_is_empty(wide):
    for name in PRODUCTS:
        for _ in range(2):
            V = vector(wide, name, 0)
            result = getattr(wide, name)(V)
            assert result.shape == (wide.num_outputs if name == "jvp" else wide.size, 0)
            assert result.dtype == wide.dtype
    fresh = ragged(cache=0)
    assert fresh.hvp(np.zeros((fresh.size, 0))).shape == (fresh.size, 0)


def test_a_bad_column_is_found(wide):
    V = np.ones((wide.size, 5))
    for column in range(5):
        V[-1, column] = np.nan
        with pytest.raises(hvp.InputError, match="expected a finite vector"):
            wide.hvp(V)
        V[-1, column] = 1


def test_scipys_block_solver_finds_the_largest_eigenvalues():
    model = dense_net()
    lin = hvp.linearize(model, (X, Y), "mse", **GIVEN)
    H = hessian(lambda: squared_loss(Y, model(X)), variables_of(model))
    start = np.random.default_rng(0).standard_normal((lin.size, 4))
    values, vectors = lobpcg(hvp.Hessian(lin), start, largest=True, tol=1e-9, maxiter=200)
    assert np.allclose(np.sort(values), np.linalg.eigvalsh(H)[-4:], rtol=1e-8)
    assert np.abs(H @ vectors - vectors * values).max() < 1e-6


def test_three_products_at_once_are_those_alone():
    model = dense_net(kernel_regularizer="l2")
    lin = hvp.linearize(model, (X, Y), "mse", batch_size=4, **GIVEN)
    for columns in ((), (3,)):
        v = vector(lin, "hvp", *columns)
        got = dict(zip(PRODUCTS, lin.products(v), strict=False))
        same(got, {name: getattr(lin, name)(v) for name in got})
        for result in got.values():
            result += 1


# --- how it runs ---


@pytest.mark.parametrize("order", [FORWARD, REVERSE])
@pytest.mark.parametrize(("jit", "way"), [(False, "graph"), (True, "XLA")])
def test_what_is_forced_shows(order, jit, way):
    lin = even(ad=order, jit=jit)
    assert lin.choices == ()
    for _ in range(2):
        lin.hvp(np.ones(lin.size))
        lin.jvp(np.ones(lin.size))
    assert [(c.product, c.way) for c in lin.choices] == [("H", way), ("J", way)]
    assert lin.choices[0].order == order
    assert all(choice.seconds == {} for choice in lin.choices)
    assert lin.findings == ()


def test_what_is_measured_for_blocks_shows(monkeypatch):
    lin = even(ad="auto", jit="auto")
    lin.hvp(np.ones(lin.size))
    (choice,) = lin.choices
    assert (choice.order, choice.way, choice.seconds) == (FORWARD, "graph", {})
    lin.hvp(np.ones((lin.size, 4)))
    (choice,) = lin.choices
    assert choice.seconds.keys() == {f"{FORWARD}, graph"}
    monkeypatch.setattr(linear_map, "SECONDS_PER_BLOCK_OPERATION", 0.0)
    lin.hvp(np.ones((lin.size, 4)))
    (choice,) = lin.choices
    assert choice.seconds.keys() == {f"{FORWARD}, graph", f"{FORWARD}, 4 columns, graph"}
    assert all(0 < seconds < 10 for seconds in choice.seconds.values())


@pytest.mark.parametrize(("cost", "columns"), [(1.0, {1}), (1e-7, {1, 4})])
def test_a_block_is_tried_when_its_columns_have_taken_as_long_as_the_trial(
    monkeypatch, cost, columns
):
    monkeypatch.setattr(linear_map, "SECONDS_PER_BLOCK_OPERATION", cost)
    lin = even(ad="auto", jit="auto")
    for _ in range(3):
        lin.hvp(np.ones((lin.size, 4)))
    assert len(blocks_of(lin)) == len(columns) - 1


def refuse(*arguments):
    raise tf.errors.InvalidArgumentError(None, None, "no kernel for XLA_CPU_JIT")


@pytest.fixture
def hasty(monkeypatch):
    """Blocks that run at once however long they take, by XLA from the second call if it agrees."""
    monkeypatch.setattr(linear_map, "SECONDS_PER_BLOCK_OPERATION", 0.0)
    monkeypatch.setattr(linear_map, "CALLS_BEFORE_XLA", 2)
    monkeypatch.setattr(linear_map, "SHORT_SECONDS", 1e9)
    monkeypatch.setattr(linear_map, "MAX_TIME_RATIO", 1e9)
    monkeypatch.setattr(compilation, "MAX_TIME_RATIO", 1e9)


def blocks_of(lin):
    return [block for m in lin._sums.traced.maps.values() for block in m._blocks.values()]


def products_of_blocks(lin):
    return [lin.gnvp(vector(lin, "gnvp", 2)) for _ in range(3)]


def test_blocks_are_tried_by_xla_after_some_calls(hasty):
    lin, plain = ragged(jit="auto"), ragged()
    for product in products_of_blocks(lin):
        assert relative(product, plain.gnvp(vector(lin, "gnvp", 2))) < 1e-13
    assert {block.backend for block in blocks_of(lin)} == {"XLA"}
    assert {choice.way for choice in lin.choices} == {"graph"}
    assert any("2 columns, XLA" in name for c in lin.choices for name in c.seconds)


def test_few_blocks_are_not_tried_by_xla():
    lin = ragged(jit="auto")
    products_of_blocks(lin)
    assert {block.backend for block in blocks_of(lin)} <= {"graph"}


@pytest.mark.sweep
@pytest.mark.parametrize("when", ["traced", "called"])
def test_blocks_that_xla_refuses_run_as_a_graph(monkeypatch, hasty, when):
    original = CompiledFunction.compile

    def compile_(self):
        original(self)
        self._run = refuse

    monkeypatch.setattr(CompiledFunction, "compile", refuse if when == "traced" else compile_)
    lin, plain = ragged(jit="auto"), ragged()
    for product in products_of_blocks(lin):
        assert relative(product, plain.gnvp(vector(lin, "gnvp", 2))) < 1e-13
    assert {block.backend for block in blocks_of(lin)} == {"graph"}


def test_xla_is_not_used_where_its_result_differs(monkeypatch, hasty):
    original = CompiledFunction.compile

    def compile_(self):
        original(self)
        run = self._run
        self._run = lambda tensors: [1.001 * result for result in run(tensors)]

    monkeypatch.setattr(CompiledFunction, "compile", compile_)
    lin, plain = ragged(jit="auto"), ragged()
    for product in products_of_blocks(lin):
        assert relative(product, plain.gnvp(vector(lin, "gnvp", 2))) < 1e-13
    assert {block.backend for block in blocks_of(lin)} == {"graph"}


def test_an_order_that_tensorflow_cannot_build_is_noted_and_the_other_taken(monkeypatch):
    def refused(*arguments):
        refuse()

    forward = curvature.Mode(refused, refused)
    product = dataclasses.replace(
        products.H, modes={FORWARD: forward, REVERSE: curvature.REVERSE_MODE}
    )
    monkeypatch.setattr(linearization, "H", product)
    lin, expected = ragged(ad="auto"), ragged(ad=REVERSE)
    v = vector(lin, "hvp")
    assert relative(lin.hvp(v), expected.hvp(v)) < 1e-13
    assert {choice.order for choice in lin.choices} == {REVERSE}
    (note,) = lin.findings
    assert f"no {FORWARD}: no kernel for XLA_CPU_JIT" in note.message
    with pytest.raises(hvp.InputError, match="no kernel"):
        ragged(ad=FORWARD).hvp(v)


def test_operations_without_a_rule_are_not_traced_once_a_column(monkeypatch):
    def outputs(w, batch):
        return tf.math.cumulative_logsumexp(tf.tanh(batch @ w), axis=0)

    def loss(z, batch):
        return tf.reduce_sum(z**2)

    lin = hvp.linearize_function(loss, examples((4,), 3), examples((3,)), outputs=outputs)
    v = vector(lin, "hvp", 20)
    assert relative(lin.hvp(v), np.stack([lin.hvp(c) for c in v.T], axis=1)) < 1e-13
    assert blocks_of(lin) == []


def test_a_defect_of_our_own_is_not_reported_as_a_refusal(monkeypatch):
    lin = ragged(jit="auto")
    monkeypatch.setattr(pipeline, "fuse_elementwise", lambda program, count: None)
    with pytest.raises(AttributeError, match="NoneType"):
        lin.hvp(np.ones(lin.size))


def test_xla_that_is_forced_and_refuses_is_one_clear_line(monkeypatch):
    monkeypatch.setattr(CompiledFunction, "compile", refuse)
    lin = ragged(jit=True)
    with pytest.raises(hvp.InputError, match="no kernel for XLA_CPU_JIT"):
        lin.hvp(np.ones(lin.size))


# --- many linearizations in one process ---

TURNS, EACH = 4, 10
KEPT = 4 << 20  # what each keeps, at the least


def resident() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS"))


def measure() -> dict[str, float]:
    x = np.random.default_rng(0).standard_normal((8192, 64))
    w = np.random.default_rng(1).standard_normal((64, 64)) / 8

    def use() -> int:
        lin = hvp.linearize_function(
            lambda w, batch: tf.reduce_mean(tf.sin(batch @ w)), w, x, **GIVEN
        )
        lin.hvp(np.ones(lin.size))
        return lin.memory.kept

    def many() -> int:
        kept = []
        for i in range(EACH):
            kept.append(use())
            # Traced programs hold themselves until then.
            if i % 5 == 4:
                gc.collect()
        return min(kept)

    # What is lost grows in every turn; an arena of the allocator grows in one.
    kept, after = [], []
    for _ in range(TURNS):
        kept.append(many())
        after.append(resident())
    return {"kept": min(kept), "grown": int(np.diff(after).min())}


@pytest.mark.sweep
def test_no_turn_of_ten_linearizations_leaves_their_memory():
    run = subprocess.run(
        [sys.executable, __file__],
        capture_output=True,
        text=True,
        env={
            **os.environ,
            "TF_CPP_MIN_LOG_LEVEL": "3",
            "PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "tests"))),
        },
        check=True,
    )
    found = json.loads(run.stdout.splitlines()[-1])
    assert found["kept"] >= KEPT
    # All that ten of them keep is 40 MiB and more.
    assert found["grown"] < EACH * KEPT / 4


def test_a_block_that_is_refused_leaves_no_finding():
    lin = ragged()
    with pytest.raises(hvp.InputError, match="expected a finite vector"):
        lin.hvp(np.full((lin.size, 3), np.nan))
    assert lin.findings == ()


if __name__ == "__main__":
    print(json.dumps(measure()))
