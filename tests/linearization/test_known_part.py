"""The known part runs once for each batch, within any budget, and its bytes are counted."""

import numpy as np
import pytest
import tensorflow as tf
from support.batched_products import (
    GIVEN,
    PRODUCTS,
    SIZES,
    X,
    Y,
    every_product,
    ragged,
    same,
    vector,
)
from support.oracles import dense_net, examples, relative
from support.sweep import sweep

import hvp
from hvp.autodiff import tensorflow_private


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


@pytest.mark.parametrize("name", sweep(PRODUCTS, {"hvp", "jvp"}))
def test_without_a_cache_the_known_part_runs_each_time(known, name):
    lin = ragged(cache=0)
    for repetition in range(1, 4):
        getattr(lin, name)(vector(lin, name))
        # Jᵀ and J of the last layer alone need nothing but what the batch holds.
        assert len(known) == repetition * len(SIZES)
    assert lin.memory.kept == 0


@pytest.mark.sweep
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


@pytest.fixture(scope="module")
def expected():
    return every_product(ragged())


@pytest.mark.sweep
@pytest.mark.parametrize("cache", [0, 2000, 5000])
def test_products_are_the_same_within_any_budget(expected, cache):
    lin = ragged(cache=cache)
    for _ in range(2):
        same(every_product(lin), expected)
        memory = lin.memory
        assert memory.kept <= memory.budget
    assert memory.budget == cache


@pytest.mark.sweep
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
