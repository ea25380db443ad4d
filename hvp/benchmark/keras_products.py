"""A Keras model's products by hvp and by plain TensorFlow, and the calls that are units of time."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import hvp
from hvp.benchmark.implementation import Call, Forms, Implementation
from hvp.benchmark.layer_cases import JIT, Loaded

# hvp imports its public names at their first use; imports must not be timed.
_ = hvp.linearize, hvp.eigsh, hvp.Hessian, hvp.density
MATRICES = {"hvp": "H", "gnvp": "G"}


class Ours(Implementation):
    """`hvp.linearize`, called once, and its products."""

    def __init__(self, case: Any):
        self._loaded: Loaded = case.load()
        self._jit = JIT[case.jit]
        self.size = _size(self._loaded)
        self.num_examples = len(keras.tree.flatten(self._loaded.data[0])[0])

    @functools.cached_property
    def _lin(self) -> hvp.Linearization:
        return self._linearized()

    def _linearized(self, **options: Any) -> hvp.Linearization:
        given = self._loaded
        return hvp.linearize(given.model, given.data, given.loss, jit=self._jit, **options)

    def forms(self, figure: str) -> Forms:
        match figure:
            case "hvp" | "hvp_block":
                return {"linearize": lambda: self._lin.hvp}
            case "gnvp" | "gnvp_block":
                return {"linearize": lambda: self._lin.gnvp}
        return {}

    def counted(self, figure: str) -> tuple[int | None, tuple[int, int, int]]:
        work = self._lin.cost(MATRICES[figure]).linear
        assert work is not None
        return work.multiply_adds, work.largest

    def certified(self) -> str:
        certificate = self._linearized(verify=True).certificate
        assert certificate is not None
        return "" if certificate.passed else "the products do not agree with central differences"


class NaiveTensorflow(Implementation):
    """A `ForwardAccumulator` over a `GradientTape`, in a `tf.function`.

    Where TensorFlow cannot build that, as through loops, two tapes. It also has the gradient, an
    empty call and matrix products.
    """

    def __init__(self, case: Any):
        self._take(case.load())

    def _take(self, loaded: Loaded) -> None:
        self.size = _size(loaded)
        self._model = loaded.model
        x, y, *weights = loaded.data
        self.num_examples = len(keras.tree.flatten(x)[0])
        as_tensors = functools.partial(keras.tree.map_structure, tf.constant)
        self._x, self._y, self._weights = as_tensors(x), as_tensors(y), as_tensors(weights)
        self._loss = keras.losses.get(loaded.model.loss if loaded.loss is None else loaded.loss)
        # A ForwardAccumulator needs the TensorFlow variables inside the Keras variables.
        self._w = [variable.value for variable in self._model.trainable_variables]
        self._work: dict[str, float] = {}

    def forms(self, figure: str) -> Forms:
        match figure:
            case "hvp" | "hvp_block":
                return self._product(figure, {"forward over reverse": self._hvp})
            case "gnvp" | "gnvp_block":
                return self._product(figure, {"forward over reverse": self._gnvp})
            case "gradient":
                return _graph_and_xla(lambda compiled: _ignoring_vector(compiled(self._gradient)))
            case "empty":
                return _graph_and_xla(lambda compiled: _numpy(compiled(tf.identity)))
            case "matmul":
                return self._matrix_products()
        return {}

    def other_forms(self, figure: str) -> Forms:
        match figure:
            case "hvp" | "hvp_block":
                return self._product(figure, {"reverse over reverse": self._hvp_by_tapes})
            case "gnvp" | "gnvp_block":
                return self._product(figure, {"reverse, twice": self._gnvp_by_tapes})
        return {}

    def work(self, form: str) -> float:
        return self._work.get(form, 1.0)

    @staticmethod
    def _product(figure: str, functions: dict[str, Callable[[tf.Tensor], tf.Tensor]]) -> Forms:
        is_block = figure.endswith("_block")

        def built(function: Callable[[tf.Tensor], tf.Tensor]) -> Call:
            call = _numpy(tf.function(function))
            return _loop(call) if is_block else call

        return {name: functools.partial(built, function) for name, function in functions.items()}

    def _objective(self, z: Any = None) -> tf.Tensor:
        z = self._model(self._x) if z is None else z
        return tf.add_n([self._loss(self._y, z, *self._weights), *self._model.losses])

    def _gradient(self) -> tf.Tensor:
        with tf.GradientTape() as tape:
            loss = self._objective()
        return self._joined_gradient(tape, loss)

    def _joined_gradient(self, tape: tf.GradientTape, target: tf.Tensor, **options: Any) -> Any:
        zero = tf.UnconnectedGradients.ZERO
        return _join(tape.gradient(target, self._w, unconnected_gradients=zero, **options))

    def _hvp(self, v: tf.Tensor) -> tf.Tensor:
        with tf.autodiff.ForwardAccumulator(self._w, self._split(v)) as forward:
            with tf.GradientTape() as tape:
                loss = self._objective()
            gradients = tape.gradient(loss, self._w)
        return _join([forward.jvp(gradient) for gradient in gradients])

    def _hvp_by_tapes(self, v: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as outer:
            with tf.GradientTape() as tape:
                loss = self._objective()
            slope = tf.reduce_sum(self._joined_gradient(tape, loss) * v)
        return self._joined_gradient(outer, slope)

    def _gnvp(self, v: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as outputs:
            with tf.autodiff.ForwardAccumulator(self._w, self._split(v)) as forward:
                z = self._model(self._x)
            jv = forward.jvp(z)
        return self._pulled_back(outputs, z, jv)

    def _gnvp_by_tapes(self, v: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tangents, tf.GradientTape(persistent=True) as outputs:
            z = self._model(self._x)
            u = tf.zeros_like(z)
            tangents.watch(u)
            pulled = tf.reduce_sum(self._joined_gradient(outputs, z, output_gradients=u) * v)
        return self._pulled_back(outputs, z, tangents.gradient(pulled, u))

    def _pulled_back(self, outputs: tf.GradientTape, z: tf.Tensor, jv: tf.Tensor) -> tf.Tensor:
        """Jᵀ Λ Jv."""
        if self._model.losses:
            raise NotImplementedError("penalties, which count in G")
        with tf.autodiff.ForwardAccumulator(z, jv) as forward:
            with tf.GradientTape() as tape:
                tape.watch(z)
                loss = self._objective(z)
            slope = tape.gradient(loss, z)
        return self._joined_gradient(outputs, z, output_gradients=forward.jvp(slope))

    def _split(self, v: tf.Tensor) -> list[tf.Tensor]:
        parts = tf.split(v, [w.shape.num_elements() for w in self._w])
        return [tf.reshape(part, w.shape) for part, w in zip(parts, self._w, strict=True)]

    def _matrix_products(self) -> Forms:
        """The product of this shape, and those of its transposes."""
        forms: Forms = {}
        rng = np.random.default_rng(0)
        m, k, n = self.matrix_shape
        for rows, inner, columns in ((m, k, n), (m, n, k), (k, m, n)):
            a = rng.standard_normal((rows, inner), dtype=np.float32)
            b = rng.standard_normal((inner, columns), dtype=np.float32)
            shape = f"({rows}, {inner}) @ ({inner}, {columns})"
            forms[f"NumPy {shape}"] = _matmul(np.matmul, a, b)
            forms[f"TensorFlow {shape}"] = _matmul(tf.matmul, tf.constant(a), tf.constant(b))
            for library in ("NumPy", "TensorFlow"):
                self._work[f"{library} {shape}"] = rows * inner * columns
        return forms


def _size(loaded: Loaded) -> int:
    return sum(int(np.prod(w.shape)) for w in loaded.model.trainable_variables)


def _matmul(multiply: Callable[..., Any], a: Any, b: Any) -> Callable[[], Call]:
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
