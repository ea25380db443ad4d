"""Entries that a mask, a slice or a gather leaves out."""

import numpy as np
import pytest
import tensorflow as tf
from support.identities import hessian, kinds

import hvp

TARGETS = np.array([1.0, np.nan, 2.0, np.nan, 0.0, 1.0])


THERE = np.isfinite(TARGETS)


SELECTIONS = {
    "boolean_mask": lambda squares, y: tf.boolean_mask(squares, ~tf.math.is_nan(y)),
    "of a matrix": lambda squares, y: tf.boolean_mask(
        tf.reshape(squares, [3, 2]), tf.reshape(~tf.math.is_nan(y), [3, 2])
    ),
    "gather": lambda squares, y: tf.gather(squares, np.flatnonzero(THERE)),
    "gather_nd": lambda squares, y: tf.gather_nd(squares, np.argwhere(THERE)),
    "slices": lambda squares, y: tf.concat([squares[:1], squares[2:3], squares[-2:]], 0),
}


@pytest.mark.parametrize("data", [None, TARGETS], ids=["a constant", "a batch"])
@pytest.mark.parametrize("select", SELECTIONS.values(), ids=SELECTIONS)
def test_targets_that_a_selection_leaves_out_may_be_missing(select, data):
    """The root of the mean of squares over what is there, in closed form."""
    w = np.array([0.3, 0.1, -0.5, 0.2, 0.9, -1.0])

    def loss(w, y=None):
        y = tf.constant(TARGETS) if y is None else y
        return tf.sqrt(tf.reduce_mean(select((w - y) ** 2, y)))

    lin = hvp.linearize_function(loss, w, data, jit=False)
    r = np.where(THERE, w - np.nan_to_num(TARGETS), 0)
    size = np.sqrt((r**2).sum() / 4)
    expected = np.diag(THERE / (4 * size)) - np.outer(r, r) / (16 * size**3)
    np.testing.assert_allclose(lin.hvp(np.eye(6)), expected, rtol=1e-13, atol=1e-16)
    np.testing.assert_allclose(lin.gradient(), r / (4 * size), rtol=1e-14)


@pytest.mark.parametrize(
    "select",
    [
        lambda x: x[1:],
        lambda x: tf.gather(x, [1, 2]),
        lambda x: tf.boolean_mask(x, [False, True, True]),
        lambda x: tf.math.multiply_no_nan(x, tf.constant([0.0, 1.0, 1.0], tf.float64)),
    ],
    ids=["slice", "gather", "mask", "multiply_no_nan"],
)
def test_an_infinite_entry_that_is_left_out_has_no_part(select):
    """log(w)/w beside its pole, with a divisor that is broadcast; TensorFlow's gradient is NaN."""
    w = np.array([0.0, 0.5, 2.0])

    def loss(w):
        return tf.reduce_sum(select(tf.math.log(w) / (w * tf.ones([1], w.dtype))))

    lin = hvp.linearize_function(loss, w, jit=False)
    np.testing.assert_allclose(
        lin.hvp(np.eye(3)),
        np.diag([0, *(2 * np.log(w[1:]) - 3) / w[1:] ** 3]),
        rtol=1e-13,
    )
    (finding,) = [f for f in lin.findings if f.severity == "different"]
    assert "gradients are NaN" in finding.message


def test_an_infinite_entry_that_is_selected_is_refused():
    with pytest.raises(hvp.InputError, match="a finite loss, got -inf"):
        hessian(lambda w: tf.reduce_sum(tf.math.log(w)[:2]), np.array([0.0, 0.5, 2.0]))
    with pytest.raises(
        hvp.InputError, match=r"NaN or infinity from .* mask NaN in the data before"
    ):
        hessian(lambda w: tf.reduce_sum(tf.sqrt(w)[:2]), np.array([0.0, 0.5, 2.0]))


def test_an_expression_that_uses_its_values_twice_is_read_once():
    """A walk along each of its 3^20 paths would not end."""

    def unrolled(x):
        for _ in range(20):
            x += 0.1 * x * tf.tanh(x)
        return tf.exp(x)[1:]

    found, places = kinds(unrolled, 3)
    assert found.count("Tanh") == 20
    assert set(places.values()) == {"Exp"}


def test_steps_on_a_grid_do_not_grow_without_end():
    """Each step takes three selections of the step before."""

    def steps(x):
        for _ in range(12):
            x = tf.exp(-x[1:-1]) + x[2:] * x[:-2]
        return x

    found, _ = kinds(steps, 40)
    assert len(found) < 3000


PARTITIONS = {
    "unstack": lambda x: tf.stack(tf.unstack(x)[1:]),
    "split": lambda x: tf.concat(tf.split(x, 3)[1:], 0),
    "split by sizes": lambda x: tf.split(x, [1, 2])[1],
    "split of a matrix": lambda x: tf.split(tf.reshape(x, [3, 1]), [1, 2])[1],
    "dynamic_partition": lambda x: tf.dynamic_partition(x, [0, 1, 1], 2)[1],
}


@pytest.mark.parametrize("select", PARTITIONS.values(), ids=PARTITIONS)
def test_parts_that_are_not_used_are_not_computed(select):
    """log(w)/w and √w at 0 in parts that no one uses: TensorFlow's gradient is NaN."""
    w = np.array([0.0, 0.5, 2.0])
    lin = hvp.linearize_function(
        lambda w: tf.reduce_sum(select(tf.math.log(w) / (w * tf.ones([1], w.dtype)))), w
    )
    u = w[1:]
    np.testing.assert_allclose(lin.gradient()[1:], (1 - np.log(u)) / u**2, rtol=1e-13)
    np.testing.assert_allclose(
        np.diag(lin.hvp(np.eye(3)))[1:], (2 * np.log(u) - 3) / u**3, rtol=1e-13
    )
    assert not lin.gradient()[0]
    assert not lin.hvp(np.eye(3))[0].any()


def test_parts_of_data_that_are_not_used_may_be_missing():
    """Targets of two tasks in the columns of an array, of which one is not trained."""
    w, y = np.array([0.5, -1.0]), np.array([[1.0, np.nan], [2.0, 0.0]])

    def loss(w, y):
        first, _ = tf.unstack((w - y) ** 2, axis=1)
        return tf.reduce_sum(first)

    lin = hvp.linearize_function(loss, w, y, reduction="sum")
    np.testing.assert_allclose(lin.gradient(), [-4.0, 0.0])
    np.testing.assert_array_equal(lin.hvp(np.eye(2)), [[4.0, 0.0], [0.0, 0.0]])
