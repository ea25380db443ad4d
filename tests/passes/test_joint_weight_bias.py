"""Kernel and bias as one matrix: what is merged, what is not, and that values stay."""

from collections import Counter

import numpy as np
import pytest
import tensorflow as tf
from support.programs import drawn, spec, types

import hvp
from hvp.autodiff.program import leaves
from hvp.autodiff.tracing import trace
from hvp.passes.elementwise_fusion import fuse_elementwise
from hvp.passes.joint_weight_bias import join_weight_and_bias
from hvp.passes.packing import Packing
from hvp.passes.simplify import simplify

DENSE = [(3, 3), (3,)]
X = (3, 3)


def merged(product, shapes, *given, results=None):
    """The program before and after, and the ends after: tangents of `shapes` in, `results` out."""
    source = Packing.of(shapes, tf.float64)
    target = Packing.of(results or shapes, tf.float64)
    traced = trace(product, source.specs, *map(spec_of, given))
    program = simplify(fuse_elementwise(simplify(traced), len(shapes)))
    return program, source, target, join_weight_and_bias(program, source, target)


def spec_of(array):
    return spec(*array.shape)


def check(product, shapes, *given, results=None):
    """The merged program, whose values are those of the product."""
    _, source, target, (written, inside, outside) = merged(product, shapes, *given, results=results)
    vector = tf.constant(drawn(source.size))
    tensors = list(map(tf.constant, given))
    expected = target.join(leaves(product(source.split(vector), *tensors)))
    found = outside.join(leaves(written.replay(*inside.split(vector), *tensors)))
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)
    assert inside.size == source.size
    assert outside.size == target.size
    return written


def test_a_layers_tangent_is_one_matrix_product():
    written = check(lambda v, x: [x @ v[0] + v[1]], DENSE, drawn(*X), results=[X])
    kinds = Counter(types(written))
    assert kinds["MatMul"] == 1
    assert not {"AddV2", "AddN"} & set(kinds)
    assert [tuple(written.specs[n].shape) for n in written.inputs] == [(4, 3), X]


def test_a_layers_gradient_is_one_matrix_product():
    def product(v, x, y):
        delta = (x @ v[0] + v[1]) * y
        return [tf.matmul(x, delta, transpose_a=True), tf.reduce_sum(delta, 0)]

    written = check(product, DENSE, drawn(*X), drawn(*X, seed=1))
    kinds = Counter(types(written))
    assert kinds["MatMul"] == 2
    assert not {"AddV2", "AddN", "Sum"} & set(kinds)
    assert len(leaves(written.outputs)) == 1


def test_another_term_is_added():
    written = check(
        lambda v, x: [x @ v[0] + x @ v[2] + v[1]], [*DENSE, (3, 3)], drawn(*X), results=[X]
    )
    assert types(written).count("MatMul") == 2


PRODUCTS = {
    "a bias along the rows": (lambda v, x: [x @ v[0] + tf.reshape(v[1], [3, 1])], DENSE),
    "a bias of a row": (lambda v, x: [x @ v[0] + tf.reshape(v[1], [1, 3])], DENSE),
    "two biases": (lambda v, x: [x @ v[0] + (v[1] + v[2])], [*DENSE, (3,)]),
    "a bias added twice": (lambda v, x: [x @ v[0] + v[1] + v[1]], DENSE),
    "a bias and then a sum of three": (
        lambda v, x: [tf.add_n([x @ v[0], x @ v[2], x]) + v[1]],
        [*DENSE, (3, 3)],
    ),
    "the bias first": (lambda v, x: [x @ v[1] + v[0]], [(3,), (3, 3)]),
    "the bias elsewhere": (lambda v, x: [x @ v[0] + v[2]], [(3, 3), (2,), (3,)]),
    "a bias used twice": (lambda v, x: [x @ v[0] + v[1], x * v[1]], DENSE),
    "a kernel used twice": (lambda v, x: [x @ v[0] + v[1], v[0] @ x], DENSE),
    "a layer used twice": (lambda v, x: [x @ v[0] + v[1], (x + 1) @ v[0] + v[1]], DENSE),
    "a product used twice": (lambda v, x: [x @ v[0] + v[1], x @ v[0]], DENSE),
    "a bias taken away": (lambda v, x: [x @ v[0] - v[1]], DENSE),
    "a scaled bias": (lambda v, x: [x @ v[0] + 2 * v[1]], DENSE),
    "a scaled kernel": (lambda v, x: [x @ (v[0] * x) + v[1]], DENSE),
    "a transposed kernel": (lambda v, x: [tf.matmul(x, v[0], transpose_b=True) + v[1]], DENSE),
    "the kernel in front": (lambda v, x: [v[0] @ x + v[1]], DENSE),
    "a bias alone": (lambda v, x: [x + v[1]], DENSE),
    "no bias": (lambda v, x: [x @ v[0]], [(3, 3)]),
    "nothing of the vector": (lambda v, x: [tf.identity(x)], DENSE),
}


@pytest.mark.parametrize(("product", "shapes"), PRODUCTS.values(), ids=PRODUCTS)
def test_the_values_stay(product, shapes):
    count = len(product([tf.zeros(shape, tf.float64) for shape in shapes], tf.zeros(X, tf.float64)))
    check(product, shapes, drawn(*X), results=[X] * count)


GRADIENTS = {
    "sums of another matrix": lambda x, delta: [
        tf.matmul(x, delta, transpose_a=True),
        tf.reduce_sum(2 * delta * x, 0),
    ],
    "sums along the rows": lambda x, delta: [
        tf.matmul(x, delta, transpose_a=True),
        tf.reduce_sum(delta, 1),
    ],
    "the kernel's alone": lambda x, delta: [
        tf.matmul(x, delta, transpose_a=True),
        tf.zeros([3], tf.float64),
    ],
    "the bias's alone": lambda x, delta: [tf.zeros([3, 3], tf.float64), tf.reduce_sum(delta, 0)],
    "another order of factors": lambda x, delta: [
        tf.matmul(delta, x, transpose_a=True),
        tf.reduce_sum(delta, 0),
    ],
}


@pytest.mark.parametrize("gradients", GRADIENTS.values(), ids=GRADIENTS)
def test_the_gradients_stay(gradients):
    check(lambda v, x: gradients(x, x @ v[0] + v[1]), DENSE, drawn(*X))


@pytest.mark.parametrize("batch", [1, 2, 3])
def test_networks_of_any_batch(batch):
    """Two layers, forward and back; the columns of the identity against the products by hand."""
    x, y = drawn(batch, 3), drawn(batch, 3, seed=1)
    shapes = [(3, 3), (3,), (3, 3), (3,)]

    def product(v, x, y):
        first = (x @ v[0] + v[1]) * y
        second = first @ tf.constant(drawn(3, 3)) + y @ v[2] + v[3]
        back = tf.matmul(second, tf.constant(drawn(3, 3)), transpose_b=True) * y
        return [
            tf.matmul(x, back, transpose_a=True),
            tf.reduce_sum(back, 0),
            tf.matmul(y, second, transpose_a=True),
            tf.reduce_sum(second, 0),
        ]

    written = check(product, shapes, x, y)
    # Of six matrix products none is alone with a sum or a bias.
    assert types(written).count("MatMul") == 6
    assert "Sum" not in types(written)
    assert len(leaves(written.outputs)) == 2


def test_a_bias_along_the_rows_in_a_hessian():
    """L = Σ (xW + b 1ᵀ)⁴: the Hessian by central differences of the gradient by hand."""
    x, w, b = drawn(3, 3), drawn(3, 3, seed=1), drawn(3, seed=2)

    def gradient(theta):
        slope = 4 * (x @ theta[:9].reshape(3, 3) + theta[9:, None]) ** 3
        return np.concatenate([(x.T @ slope).reshape(-1), slope.sum(1)])

    lin = hvp.linearize_function(
        lambda params: tf.reduce_sum((x @ params[0] + params[1][:, None]) ** 4), [w, b]
    )
    v, step = drawn(12), 1e-6
    expected = (gradient(lin.theta + step * v) - gradient(lin.theta - step * v)) / (2 * step)
    np.testing.assert_allclose(lin.hvp(v), expected, rtol=1e-6, atol=1e-6)


def test_rows_whose_number_is_known_only_when_it_runs():
    """L = Σ (xW + b)⁴ over the rows that a mask keeps, against the rows chosen by hand."""
    x, w, b = drawn(6, 3), drawn(3, 2, seed=1), drawn(2, seed=2)

    def linearized(x, rows):
        def loss(params, batch):
            return tf.reduce_sum((rows(batch) @ params[0] + params[1]) ** 4)

        return hvp.linearize_function(loss, [w, b], x, reduction="sum")

    masked = linearized(x, lambda batch: tf.boolean_mask(batch, batch[:, 0] > 0))
    chosen, V = linearized(x[x[:, 0] > 0], lambda batch: batch), drawn(8, 3, seed=3)
    np.testing.assert_allclose(masked.hvp(V), chosen.hvp(V), rtol=1e-12, atol=1e-12)
