"""Pooling of images: values and derivatives against loops in NumPy and differences."""

import math

import numpy as np
import pytest
import tensorflow as tf
from support.derivatives import derivatives_agree, program_of, slope
from support.pooled import pooled, same, tied
from support.programs import spec, types

import hvp
from hvp.autodiff.tracing import trace
from hvp.passes.simplify import simplify as fold

POOLS = {
    "tiles": ((2, 6, 4, 2), (2, 2), (2, 2), "VALID", [(0, 0)] * 2),
    "oblong tiles": ((1, 6, 6, 1), (3, 1), (3, 1), "VALID", [(0, 0)] * 2),
    "tiles and a rest": ((1, 7, 5, 2), (2, 2), (2, 2), "VALID", [(0, 0)] * 2),
    "tiles, padded to fit": ((1, 6, 4, 1), (2, 2), (2, 2), "SAME", [(0, 0)] * 2),
    "padded": ((1, 7, 5, 2), (2, 2), (2, 2), "SAME", [(0, 1)] * 2),
    "overlapping": ((1, 7, 7, 1), (3, 3), (2, 2), "VALID", [(0, 0)] * 2),
    "with gaps": ((1, 7, 7, 1), (2, 2), (3, 3), "VALID", [(0, 0)] * 2),
    "to the same shape": ((1, 5, 5, 2), (3, 3), (1, 1), "SAME", [same(3)] * 2),
    "to the same shape, even": ((1, 5, 4, 1), (2, 4), (1, 1), "SAME", [same(2), same(4)]),
    "to the same shape, along one axis": ((1, 5, 5, 1), (3, 1), (1, 1), "SAME", [same(3), (0, 0)]),
    "of single cells": ((1, 4, 4, 2), (1, 1), (1, 1), "SAME", [(0, 0)] * 2),
    "of the whole": ((2, 4, 4, 1), (4, 4), (4, 4), "VALID", [(0, 0)] * 2),
}


@pytest.mark.parametrize(
    ("shape", "sizes", "strides", "padding", "paddings"), POOLS.values(), ids=POOLS
)
def test_max_pooling_of_images(shape, sizes, strides, padding, paddings):
    program, folded = program_of(lambda x: tf.nn.max_pool2d(x, sizes, strides, padding), shape)
    # All different by more than the differences step.
    x = np.random.default_rng(0).permutation(math.prod(shape)).reshape(shape) / 9
    for each in (program, folded):
        derivatives_agree(each, lambda x: pooled(x, sizes, strides, paddings), x)


def test_what_is_masked_by_minus_infinity_loses():
    masked = np.arange(24).reshape(1, 6, 4, 1) % 5 == 0

    def oracle(x):
        return pooled(np.where(masked, -np.inf, x), (2, 2), (2, 2), [(0, 0)] * 2)

    program, folded = program_of(
        lambda x: tf.nn.max_pool2d(tf.where(masked, tf.cast(-np.inf, x.dtype), x), 2, 2, "VALID"),
        masked.shape,
    )
    x = np.random.default_rng(0).permutation(24).reshape(masked.shape) / 9
    for each in (program, folded):
        derivatives_agree(each, oracle, x)


def test_max_pooling_with_padding_by_hand():
    paddings = [(1, 1), (0, 2)]
    program, folded = program_of(
        lambda x: tf.nn.max_pool2d(x, 3, 1, [[0, 0], *map(list, paddings), [0, 0]]), (1, 5, 5, 1)
    )
    x = np.random.default_rng(0).permutation(25).reshape(1, 5, 5, 1) / 9
    for each in (program, folded):
        derivatives_agree(each, lambda x: pooled(x, (3, 3), (1, 1), paddings), x)


TIES = {
    "tiles": ((1, 4, 4, 2), 2, 2, "VALID", [(0, 0)] * 2),
    "to the same shape": ((1, 4, 4, 2), 3, 1, "SAME", [same(3)] * 2),
    "overlapping": ((1, 5, 5, 1), 3, 2, "VALID", [(0, 0)] * 2),
}


@pytest.mark.parametrize(
    ("shape", "size", "stride", "padding", "paddings"), TIES.values(), ids=TIES
)
def test_of_equal_entries_the_one_that_tensorflow_takes_wins(
    shape, size, stride, padding, paddings
):
    def function(x):
        return tf.nn.max_pool2d(x, size, stride, padding)

    program = trace(function, spec(*shape))
    for x in tied(shape):
        x = tf.constant(x, tf.float64)
        gradients = []
        for pool in (function, program.replay, fold(program).replay):
            with tf.GradientTape() as tape:
                tape.watch(x)
                y = pool(x)
            assert (y.numpy() == pooled(x.numpy(), (size,) * 2, (stride,) * 2, paddings)).all()
            seed = np.arange(1.0, math.prod(y.shape) + 1).reshape(y.shape)
            gradients.append(tape.gradient(y, x, output_gradients=seed).numpy())
        assert (gradients[0] == gradients[1]).all()
        assert (gradients[0] == gradients[2]).all()
        # One winner a window.
        assert gradients[0].sum() == seed.sum()


def test_the_second_derivative_needs_no_kernel_of_its_own():
    def product(v, x):
        with tf.autodiff.ForwardAccumulator(x, v) as forward:
            gradient = slope(lambda x: program.replay(x), x, tf.ones([1, 2, 2, 1], tf.float64))
        return forward.jvp(gradient)

    program = trace(lambda x: tf.nn.max_pool2d(x, 2, 2, "VALID"), spec(1, 4, 4, 1))
    kinds = types(fold(trace(product, *[spec(1, 4, 4, 1)] * 2)))
    assert "MaxPoolGradGrad" not in kinds
    # The winners are found once.
    assert kinds.count("MaxPoolGrad") == 1


@pytest.mark.parametrize("overlapping", [True, False])
@pytest.mark.parametrize("pool", [tf.nn.fractional_max_pool, tf.nn.fractional_avg_pool])
def test_fractional_regions_are_those_that_tensorflow_draws(pool, overlapping):
    images = np.random.default_rng(0).normal(size=(2, 13, 11, 3))

    def pooled(x):
        return pool(x, [1, 1.44, 1.73, 1], False, overlapping, seed=7)[0]

    program = trace(pooled, tf.TensorSpec(images.shape, tf.float64))
    assert np.allclose(program.replay(tf.constant(images)), pooled(images), rtol=1e-12)


def test_fractional_regions_without_a_seed_are_refused():
    with pytest.raises(hvp.InputError, match="draws other regions each time; give it a seed"):
        hvp.linearize_function(
            lambda w: tf.reduce_sum(tf.nn.fractional_max_pool(w, [1, 1.4, 1.4, 1])[0] ** 2),
            np.ones((1, 6, 6, 1)),
        )
