"""Everything that uses private TensorFlow: the bodies of functions, and fast calls.

``FuncGraph._get_function`` gives the body of a called function. ``Graph._create_op_internal`` makes
an operation with the attributes of another. The registry of gradients gives the Python function of
a custom gradient, whose module and name say which it is. ``eager.execute`` runs a compiled function
with the attributes that the eager context gives to every call. Tested with TensorFlow 2.20 and
2.21.
"""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import tensorflow as tf
from tensorflow.python import eager
from tensorflow.python.framework import ops


def compiled(
    function: Callable[..., Any], specs: Iterable[tf.TensorSpec]
) -> Callable[[Sequence[tf.Tensor]], list[tf.Tensor]]:
    """The function, compiled, from a list of tensors to the list of its results.

    The runtime is called directly, since in a short call the public interface spends most of the
    time in Python.
    """
    concrete = tf.function(function, autograph=False).get_concrete_function(*specs)
    captured, count = concrete.captured_inputs, len(concrete.outputs)
    context = eager.context.context()
    options = context.function_call_options.as_attrs().items()
    attributes = tuple(itertools.chain.from_iterable(options))

    def call(tensors: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        inputs = [*tensors, *captured]
        return eager.execute.execute(concrete.name, count, inputs, attributes, context)

    return call


def created_again(op: tf.Operation, inputs: Sequence[tf.Tensor], name: str) -> list[tf.Tensor]:
    """The results of the operation, created in the default graph on tensors of the same types.

    ``tf.raw_ops`` does the same, but spends most of its time on finding the attributes anew. Tapes
    record the operation, as they do there.
    """
    names = [attribute.name for attribute in op.op_def.attr]
    before = op.node_def.attr
    created = ops.get_default_graph()._create_op_internal(
        op.type,
        list(inputs),
        name=name,
        attrs={each: before[each] for each in names if each in before},
        op_def=op.op_def,
    )
    results = created.outputs
    if eager.execute.must_record_gradient():
        values = tuple(itertools.chain.from_iterable((n, created.get_attr(n)) for n in names))
        eager.execute.record_gradient(op.type, created.inputs, values, results)
    return list(results)


def function_body(graph: Any, name: str) -> Any:
    """The graph of the function that `graph` calls by this name, None if it is not exposed."""
    while graph is not None and hasattr(graph, "_get_function"):
        body = getattr(graph._get_function(name), "graph", None)
        if body is not None:
            return body
        # TensorFlow wraps the gradient of a loop in a graph without the functions that it calls.
        graph = getattr(graph, "outer_graph", None)
    return None


def custom_gradient(op: tf.Operation) -> str | None:
    """The module and name of the function that computes the custom gradient of an operation.

    `tf.custom_gradient` registers a function that calls it two calls further in. None for an
    operation without a custom gradient, and for one that was registered in another way.
    """
    if "_gradient_op_type" not in op.node_def.attr:
        return None
    name = op.get_attr("_gradient_op_type").decode()
    if name not in ops.gradient_registry.list():
        return None
    function = ops.gradient_registry.lookup(name)
    for inner in ("tape_grad_fn", "grad_fn"):
        held = inspect.getclosurevars(function).nonlocals if inspect.isfunction(function) else {}
        function = held.get(inner)
    found = inspect.isfunction(function)
    return f"{function.__module__}.{function.__qualname__}" if found else None
