"""Everything that uses private TensorFlow: the bodies of functions, and fast calls.

``FuncGraph._get_function`` gives the body of a called function. ``eager.execute`` runs a compiled
function with the attributes that the eager context gives to every call. Tested with TensorFlow 2.20
and 2.21.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import tensorflow as tf
from tensorflow.python import eager

from hvp.errors import InputError


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


def function_body(graph: Any, name: str, place: str) -> Any:
    """The graph of the function that `graph` calls by this name.

    Raises InputError, which names `place`, for a function whose graph TensorFlow does not expose.
    """
    while graph is not None and hasattr(graph, "_get_function"):
        body = getattr(graph._get_function(name), "graph", None)
        if body is not None:
            return body
        # TensorFlow wraps the gradient of a loop in a graph without the functions that it calls.
        graph = getattr(graph, "outer_graph", None)
    raise InputError(
        "operations that TensorFlow differentiates twice",
        f"a function in {place!r} whose operations TensorFlow does not expose",
        "write its loop with tf.while_loop, tf.scan or Python; call tf.nn.ctc_loss without name=",
    )
