"""Multiply-adds are those that NumPy and TensorFlow do."""

import math

import numpy as np
import pytest

from bench.backends.reference import DenseNet
from bench.measurements import flops, problems

DENSE, CONVNET, TRANSFORMER = problems.TINY.values()


class Counting(np.ndarray):
    """Arrays that count the multiply-adds of their matrix products."""

    total = 0

    def __array_ufunc__(self, ufunc, method, *inputs, **kwargs):
        plain = [np.asarray(array) for array in inputs]
        if ufunc is np.matmul:
            Counting.total += plain[0].size * plain[1].shape[-1]
        result = getattr(ufunc, method)(*plain, **kwargs)
        return result.view(Counting) if isinstance(result, np.ndarray) else result


def counting(net, product):
    for name in ("_a", "_kernels", "_deltas"):
        setattr(net, name, [array.view(Counting) for array in getattr(net, name)])
    Counting.total = 0
    product(np.ones(net.gradient.size))
    return Counting.total


@pytest.mark.parametrize("problem", [DENSE, problems.PROBLEMS["small-256"]])
def test_the_linear_part_of_a_dense_net_does_as_many_multiply_adds_as_counted(problem):
    counted, net = flops.count(problem), DenseNet(problem)
    assert counting(net, net.hvp) == counted.hvp
    assert counting(net, net.gnvp) == counted.gnvp


def of_operation(operation):
    """Multiply-adds of one operation of a TensorFlow graph."""
    shapes = [tuple(tensor.shape) for tensor in operation.inputs]
    (out,) = (tuple(tensor.shape) for tensor in operation.outputs)
    match operation.type:
        case "MatMul":
            inner = shapes[0][0 if operation.get_attr("transpose_a") else 1]
            return inner * math.prod(out)
        case "BatchMatMulV2":
            return shapes[0][-2 if operation.get_attr("adj_x") else -1] * math.prod(out)
        case "Einsum":
            terms = operation.get_attr("equation").decode().split("->")[0].split(",")
            if len(terms) < 2:
                return 0
            extents = {}
            for term, shape in zip(terms, shapes, strict=True):
                extents |= dict(zip(term, shape, strict=True))
            return math.prod(extents.values())
        case "Conv2D":
            return math.prod(out) * math.prod(shapes[1][:3])
        case "Conv2DBackpropFilter":
            return math.prod(shapes[2]) * math.prod(out[:3])
        case "Conv2DBackpropInput":
            return math.prod(shapes[2]) * math.prod(shapes[1][:3])
    assert "Conv" not in operation.type
    assert "MatMul" not in operation.type
    return 0


@pytest.mark.parametrize("problem", [DENSE, CONVNET, TRANSFORMER], ids=lambda p: p.name)
def test_tensorflows_gradient_does_as_many_multiply_adds_as_counted(problem):
    import tensorflow as tf

    from bench.backends import keras_models

    model, loss = keras_models.build(problem), keras_models.loss()
    x, y = problems.data(problem)

    @tf.function(autograph=False)
    def gradient(x):
        values = [variable.value for variable in model.trainable_variables]
        with tf.GradientTape() as tape:
            objective = loss(y, model(x))
        return tape.gradient(objective, values)

    graph = gradient.get_concrete_function(tf.constant(x)).graph
    # The gradient in the inputs is in the graph, but nothing asks for it.
    used = [op for op in graph.get_operations() if any(out.consumers() for out in op.outputs)]
    found = sum(of_operation(op) for op in used if len(op.outputs) == 1)
    assert found == flops.count(problem).gradient


def test_the_sizes_are_those_of_the_tables():
    sizes = {name: problem.size for name, problem in problems.PROBLEMS.items()}
    assert sizes["small-1"] == sizes["small-256"] == 24_790
    assert sizes["dense-8192"] == 8192 * 8193
    assert flops.count(problems.PROBLEMS["dense-8192"]).hvp == 2 * 8192 * 8192 * 128
