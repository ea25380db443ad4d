"""The products as written in plain TensorFlow, and the calls that serve as units of time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from bench.backends import keras_models
from bench.backends.implementation import Call, Forms, Implementation
from bench.measurements.flops import matrix_products
from bench.measurements.problems import Problem, data


class NaiveTensorflow(Implementation):
    """A `ForwardAccumulator` in a `tf.function`; also gradient, empty call and matrix products."""

    def __init__(self, problem: Problem):
        x, y = data(problem)
        self._problem = problem
        self._model = keras_models.build(problem)
        self._x, self._y = tf.constant(x), tf.constant(y)
        self._loss = keras_models.loss()
        # A ForwardAccumulator needs the TensorFlow variables inside the Keras variables.
        self._w = [variable.value for variable in self._model.trainable_variables]
        self._work: dict[str, float] = {}

    def forms(self, figure: str) -> Forms:
        match figure:
            case "hvp":
                return {"tf.function": lambda: _numpy(tf.function(self._hvp))}
            case "gnvp":
                return {"tf.function": lambda: _numpy(tf.function(self._gnvp))}
            case "hvp_block":
                return {"loop": lambda: _loop(_numpy(tf.function(self._hvp)))}
            case "gnvp_block":
                return {"loop": lambda: _loop(_numpy(tf.function(self._gnvp)))}
            case "gradient":
                return _graph_and_xla(lambda compiled: _ignoring_vector(compiled(self._gradient)))
            case "empty":
                return _graph_and_xla(lambda compiled: _numpy(compiled(tf.identity)))
            case "matmul":
                return self._matrix_products()
        return {}

    def work(self, form: str) -> float:
        return self._work.get(form, 1.0)

    def _objective(self) -> tf.Tensor:
        return self._loss(self._y, self._model(self._x))

    def _gradient(self) -> tf.Tensor:
        with tf.GradientTape() as tape:
            loss = self._objective()
        return _join(tape.gradient(loss, self._w))

    def _hvp(self, v: tf.Tensor) -> tf.Tensor:
        with tf.autodiff.ForwardAccumulator(self._w, self._split(v)) as forward:
            with tf.GradientTape() as tape:
                loss = self._objective()
            gradients = tape.gradient(loss, self._w)
        return _join([forward.jvp(gradient) for gradient in gradients])

    def _gnvp(self, v: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as outputs:
            with tf.autodiff.ForwardAccumulator(self._w, self._split(v)) as forward:
                z = self._model(self._x)
            jv = forward.jvp(z)
        with tf.autodiff.ForwardAccumulator(z, jv) as forward:
            with tf.GradientTape() as tape:
                tape.watch(z)
                loss = self._loss(self._y, z)
            slope = tape.gradient(loss, z)
        return _join(outputs.gradient(z, self._w, output_gradients=forward.jvp(slope)))

    def _split(self, v: tf.Tensor) -> list[tf.Tensor]:
        parts = tf.split(v, [w.shape.num_elements() for w in self._w])
        return [tf.reshape(part, w.shape) for part, w in zip(parts, self._w, strict=True)]

    def _matrix_products(self) -> Forms:
        forms: Forms = {}
        rng = np.random.default_rng(0)
        for rows, inner, columns in matrix_products(self._problem):
            a = rng.standard_normal((rows, inner), dtype=np.float32)
            b = rng.standard_normal((inner, columns), dtype=np.float32)
            shape = f"({rows}, {inner}) @ ({inner}, {columns})"
            forms[f"NumPy {shape}"] = _product(np.matmul, a, b)
            forms[f"TensorFlow {shape}"] = _product(tf.matmul, tf.constant(a), tf.constant(b))
            for library in ("NumPy", "TensorFlow"):
                self._work[f"{library} {shape}"] = rows * inner * columns
        return forms


def _product(multiply: Callable[..., Any], a: Any, b: Any) -> Callable[[], Call]:
    return lambda: lambda _: np.asarray(multiply(a, b))


def _graph_and_xla(call: Callable[[Any], Call]) -> Forms:
    """The forms of a call as a graph and compiled by XLA."""
    return {
        "graph": lambda: call(tf.function),
        "XLA": lambda: call(lambda function: tf.function(function, jit_compile=True)),
    }


def _numpy(function: Callable[[tf.Tensor], tf.Tensor]) -> Call:
    return lambda v: function(tf.convert_to_tensor(v)).numpy()


def _ignoring_vector(function: Callable[[], tf.Tensor]) -> Call:
    return lambda _: function().numpy()


def _loop(product: Call) -> Call:
    return lambda V: np.stack([product(v) for v in np.ascontiguousarray(V.T)], axis=1)


def _join(tensors: list[tf.Tensor]) -> tf.Tensor:
    return tf.concat([tf.reshape(tensor, [-1]) for tensor in tensors], axis=0)
