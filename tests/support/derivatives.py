"""Values and derivatives of programs against functions of arrays and differences."""

import numpy as np
import pytest
import tensorflow as tf
from support.oracles import relative
from support.programs import drawn, run, spec

import hvp
from hvp.autodiff import precision
from hvp.autodiff.tracing import trace
from hvp.passes.simplify import simplify as fold

TINY, STEP = 1e-30, 1e-4


def slope(function, x, weights):
    """The gradient of Σ weights · sin f(x) in the replay."""
    with tf.GradientTape() as tape:
        tape.watch(x)
        value = tf.reduce_sum(weights * tf.sin(function(x)))
    return tape.gradient(value, x)


def differences(function, x, v, step=1e-3):
    """The derivative along v to fourth order."""

    def at(distance):
        return function(x + distance * step * v)

    return (8 * (at(1) - at(-1)) - (at(2) - at(-2))) / (12 * step)


def derivatives_agree(program, oracle, x, *, rtol=1e-9):
    """Value, first and second derivative of a program against a function of arrays."""
    expected = oracle(x)
    (got,) = run(program, x)
    assert got.shape == expected.shape
    assert np.abs(got - expected).max() <= 1e-12 * max(np.abs(expected).max(), 1)
    weights, v = drawn(*expected.shape, seed=5), drawn(*x.shape, seed=6)

    def gradient(x):
        return slope(program.replay, tf.constant(x), weights).numpy()

    first = differences(lambda x: np.sum(weights * np.sin(oracle(x))), x, v)
    assert abs(np.sum(gradient(x) * v) - first) <= rtol * max(abs(first), 1)
    second = differences(gradient, x, v)
    with tf.autodiff.ForwardAccumulator(point := tf.constant(x), tf.constant(v)) as forward:
        forward_over_reverse = slope(program.replay, point, weights)
    with tf.GradientTape() as tape:
        tape.watch(point)
        along = tf.reduce_sum(slope(program.replay, point, weights) * v)
    for got in (forward.jvp(forward_over_reverse), tape.gradient(along, point)):
        got = np.zeros(x.shape) if got is None else got.numpy()
        assert np.abs(got - second).max() <= rtol * max(np.abs(second).max(), 1)


def program_of(function, shape):
    """The program, and the folded one in which substitutes have been written."""
    program = trace(function, spec(*shape))
    return program, fold(program)


def hessian(loss, w):
    """(P, P) central differences of gradients by complex steps, to fourth order."""
    basis = np.eye(w.size).reshape(w.size, *w.shape)

    def gradient(at):
        return np.array([loss(at + 1j * TINY * e).imag / TINY for e in basis])

    def along(e):
        ahead, behind = (gradient(w + STEP * e), gradient(w - STEP * e))
        further = gradient(w + 2 * STEP * e) - gradient(w - 2 * STEP * e)
        return (8 * (ahead - behind) - further) / (12 * STEP)

    return np.stack([along(e) for e in basis], 1)


def assert_twice_differentiable(function, oracle, w):
    """Σ a sin f(w) in hvp and, with f in NumPy, by differences."""
    value = oracle(w)
    weights = 1.0 + np.arange(value.size).reshape(value.shape) % 3
    got = trace(function, spec(*w.shape)).replay(tf.constant(w))
    assert relative(got.numpy(), value) < 1e-12
    lin = hvp.linearize_function(lambda w: tf.reduce_sum(weights * tf.sin(function(w))), w)
    expected = hessian(lambda w: np.sum(weights * np.sin(oracle(w))), w)
    assert relative(lin.hvp(np.eye(w.size)), expected) < 1e-8


def assert_penalty_on_gradient(function):
    """Σ (∂/∂w Σ sin f(w))³, which holds a gradient, has the derivatives of central differences.

    Their errors are of order h², and of rounding over h².
    """
    x, v = np.random.default_rng(0).normal(size=(2, 1, 5, 6, 1))

    def loss(w):
        with tf.GradientTape() as tape:
            tape.watch(w)
            value = tf.reduce_sum(tf.sin(function(w)))
        return tf.reduce_sum(tf.cast(tape.gradient(value, w), w.dtype) ** 3)

    lin = hvp.linearize_function(loss, x, dtype="float64")
    at = precision.promote(trace(loss, spec(*x.shape)), tf.float64)
    h = 1e-3
    high, middle, low = (float(at.replay(tf.constant(x + step * v))) for step in (h, 0, -h))
    assert lin.loss() == pytest.approx(float(loss(tf.constant(x))), rel=1e-5)
    first, second = (high - low) / (2 * h), (high - 2 * middle + low) / h**2
    assert lin.gradient() @ v.ravel() == pytest.approx(first, rel=1e-4)
    assert lin.hvp(v.ravel()) @ v.ravel() == pytest.approx(second, rel=1e-4)
