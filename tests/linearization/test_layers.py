"""Every layer: products against differences of first derivatives, in float64, and without passes.

TensorFlow's first derivatives are trusted here, its second ones are not: Hv is held against central
differences of the gradient, Gv against Jᵀ applied to central differences of the outputs.
"""

import inspect

import keras
import numpy as np
import pytest
import tensorflow as tf
from support.layer_cases import ACTIVATIONS, CASES, NO_SUBJECT
from support.oracles import along, flat, gradient, kept_precision, relative, variables_of

import hvp
from hvp.passes import pipeline


@pytest.fixture(autouse=True)
def precision(request):
    case = request.node.callspec.params["case"] if hasattr(request.node, "callspec") else None
    with kept_precision("float64" if case is None else case.floatx):
        yield


class OutputSplit:
    """A case's network with its loss, the mean of squares; seeds start anew at each call."""

    def __init__(self, case):
        self.case, self.model, self.x = case, case.model(), case.inputs()
        self.variables = variables_of(self.model)
        self._state = [v.numpy() for v in self.model.non_trainable_variables]
        self.y = np.random.default_rng(5).standard_normal(self.outputs().shape).astype(case.floatx)

    def _reset(self):
        for variable, value in zip(self.model.non_trainable_variables, self._state, strict=True):
            variable.assign(value)
        for layer in self.model.layers:
            if getattr(layer, "stateful", False):
                layer.reset_state()

    def outputs(self):
        self._reset()
        return self.model(self.x, training=self.case.training)

    def loss(self):
        return tf.add_n([tf.reduce_mean((self.outputs() - self.y) ** 2), *self.model.losses])

    def slope(self):
        return gradient(self.loss, self.variables)

    def seen(self):
        """All that the loss is a function of: the outputs, and what layers add to it themselves."""
        z = tf.reshape(self.outputs(), [-1])
        return tf.concat([z, [tf.add_n(self.model.losses)]], 0) if self.model.losses else z

    def pulled(self, u):
        with tf.GradientTape() as tape:
            z = self.seen()
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


def unchanged_without_passes(lin, v, slope):
    """With all passes off, H, G, R, J and Jᵀ are the same to rounding."""
    u = np.random.default_rng(7).standard_normal(lin.num_outputs)
    found = [lin.hvp(v), lin.gnvp(v), lin.residual_vp(v), lin.jvp(v), lin.vjp(u)]
    with pipeline.without_passes():
        plain = lin.forced()
        expected = [*plain.products(v), plain.jvp(v), plain.vjp(u)]
    size = max(np.abs(product).max() for product in (*expected[:3], slope))
    for got, one in zip(found, expected, strict=True):
        assert close(got, one, size if one is not expected[3] else one, 1e-12)


def direction(lin):
    return np.random.default_rng(6).standard_normal(lin.size) + 0.5


@pytest.mark.parametrize("case", [c for c in CASES if not (c.lower or c.refused)], ids=str)
def test_products_are_those_of_differences(case):
    net = OutputSplit(case)
    lin = net.linearize()
    v, slope = direction(lin), net.slope()
    assert relative(lin.gradient(), slope) < 1e-10
    expected = along(net.slope, net.variables, v)
    Hv, Gv, Rv = lin.hvp(v), lin.gnvp(v), lin.residual_vp(v)
    assert close(Hv, expected, slope)
    Jv = along(lambda: net.seen().numpy(), net.variables, v)
    assert relative(lin.jvp(v), Jv) < 1e-7
    curved = 2 / net.y.size * Jv
    curved[net.y.size :] = 0
    assert relative(Gv, net.pulled(curved)) < 1e-7
    assert close(Rv, expected - Gv, expected)
    unchanged_without_passes(lin, v, slope)


@pytest.mark.parametrize("case", [c for c in CASES if c.lower], ids=str)
def test_what_tensorflow_computes_in_float32_alone_is_right_in_float64(case):
    net = OutputSplit(case)
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
    unchanged_without_passes(lin, v, slope)


@pytest.mark.parametrize("case", [c for c in CASES if c.refused], ids=str)
def test_what_is_refused_is_named(case):
    with pytest.raises(hvp.InputError, match=case.refused):
        OutputSplit(case).linearize()


def test_every_layer_of_keras_is_in_the_table():
    def public(name):
        found = getattr(keras.layers, name)
        return isinstance(found, type) and issubclass(found, keras.Layer)

    classes = {getattr(keras.layers, name) for name in dir(keras.layers) if public(name)}
    without = {
        getattr(keras.layers, name) for names in NO_SUBJECT.values() for name in names.split()
    }
    used = {type(part) for case in CASES for part in _parts(case)}
    assert without & used == {keras.layers.InputLayer}  # which every network has
    assert {found.__name__ for found in classes - used - without} == set()


def _parts(case):
    """The layers of a case's network, and those and the cells inside of them."""
    with kept_precision(case.floatx):
        waiting = list(case.model()._flatten_layers())
    while waiting:
        part = waiting.pop()
        yield part
        cell = getattr(part, "cell", None)
        waiting += [cell] if cell is not None else []
        waiting += getattr(part, "cells", [])


def test_every_activation_of_keras_is_in_the_table():
    functions = {
        found
        for _, found in inspect.getmembers(keras.activations, callable)
        if found not in (keras.activations.deserialize, keras.activations.get)
        and found is not keras.activations.serialize
    }
    assert {keras.activations.get(name) for name in ACTIVATIONS} == functions
