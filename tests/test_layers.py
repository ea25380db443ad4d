"""Every layer: products against differences of first derivatives, in float64.

TensorFlow's first derivatives are trusted here, its second ones are not: Hv is held against central
differences of the gradient, Gv against Jᵀ applied to central differences of the outputs.
"""

import numpy as np
import pytest
import tensorflow as tf
from layer_cases import CASES
from oracles import along, flat, gradient, kept_precision, relative, variables_of

import hvp


@pytest.fixture(autouse=True)
def precision(case):
    with kept_precision(case.floatx):
        yield


class Network:
    """A case's network with its loss, the mean of squares; seeds start anew at each call."""

    def __init__(self, case):
        self.case, self.model, self.x = case, case.model(), case.inputs()
        self.variables = variables_of(self.model)
        self._state = [v.numpy() for v in self.model.non_trainable_variables]
        self.y = np.random.default_rng(5).standard_normal(self.outputs().shape).astype(case.floatx)

    def _reset(self):
        for variable, value in zip(self.model.non_trainable_variables, self._state, strict=True):
            variable.assign(value)

    def outputs(self):
        self._reset()
        return self.model(self.x, training=self.case.training)

    def slope(self):
        return gradient(lambda: tf.reduce_mean((self.outputs() - self.y) ** 2), self.variables)

    def pulled(self, u):
        with tf.GradientTape() as tape:
            z = tf.reshape(self.outputs(), [-1])
        grads = tape.gradient(z, self.variables, u, unconnected_gradients="zero")
        return flat([tf.convert_to_tensor(g) for g in grads])

    def linearize(self, **options):
        self._reset()
        data, training = [(self.x, self.y)], self.case.training
        return hvp.linearize(self.model, data, "mse", training=training, jit=False, **options)


def close(got, expected, beside, tolerance=1e-7):
    """Agreement relative to the largest entry of `expected` or, where it is smaller, `beside`."""
    size = max(np.abs(expected).max(), np.abs(beside).max())
    return np.abs(got - expected).max() < tolerance * size


def direction(lin):
    return np.random.default_rng(6).standard_normal(lin.size) + 0.5


@pytest.mark.parametrize("case", [c for c in CASES if not (c.lower or c.refused)], ids=str)
def test_products_are_those_of_differences(case):
    net = Network(case)
    lin = net.linearize()
    v, slope = direction(lin), net.slope()
    assert relative(lin.gradient(), slope) < 1e-10
    Hv = along(net.slope, net.variables, v)
    assert close(lin.hvp(v), Hv, slope)
    Jv = along(lambda: net.outputs().numpy().ravel(), net.variables, v)
    assert relative(lin.jvp(v), Jv) < 1e-7
    Gv = net.pulled(2 / Jv.size * Jv)
    assert relative(lin.gnvp(v), Gv) < 1e-7
    assert close(lin.residual_vp(v), Hv - Gv, Hv)
    other = net.linearize(ad="reverse-over-reverse")
    assert close(other.hvp(v), lin.hvp(v), slope, 1e-12)


@pytest.mark.parametrize("case", [c for c in CASES if c.lower], ids=str)
def test_what_tensorflow_computes_in_float32_alone_is_right_in_float64(case):
    net = Network(case)
    lin = net.linearize(dtype="float64")
    v, slope = direction(lin), net.slope()
    assert relative(lin.gradient(), slope) < 1e-5
    variables = net.variables

    def exact_slope():
        return net.linearize(dtype="float64").gradient()

    if case.floatx == "float32":
        # Steps that float32 weights take without rounding, and are then larger.
        v = np.round(v * 64) / 64
        Hv = along(exact_slope, variables, v, step=2.0**-12 * np.linalg.norm(v))
        assert close(lin.hvp(v), Hv, slope, 1e-4)
    else:
        assert close(lin.hvp(v), along(exact_slope, variables, v), slope)
    assert close(lin.gnvp(v) + lin.residual_vp(v), lin.hvp(v), slope, 1e-12)


@pytest.mark.parametrize("case", [c for c in CASES if c.refused], ids=str)
def test_what_is_refused_is_named(case):
    with pytest.raises(hvp.InputError, match=case.refused):
        Network(case).linearize()
