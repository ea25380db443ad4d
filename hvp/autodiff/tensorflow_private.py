"""All that is used of private TensorFlow: function bodies by name, and the execution of functions.

The body of a called function is found by ``FuncGraph._get_function``; compiled functions are run
by ``eager.execute`` under the attributes that the eager context gives to calls. Known to hold for
TensorFlow 2.20 and 2.21.
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
    """The function, compiled, from the list of its tensors to the list of its results.

    The runtime is called as it is: the public call spends most of a short call's time in Python.
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


def body_of(graph: Any, name: str, place: str) -> Any:
    """The graph of a function by its name. Raises InputError where TensorFlow does not tell it."""
    while graph is not None and hasattr(graph, "_get_function"):
        body = getattr(graph._get_function(name), "graph", None)
        if body is not None:
            return body
        # The gradient of a loop is wrapped in a function that does not hold what it calls.
        graph = getattr(graph, "outer_graph", None)
    raise InputError(
        "operations that TensorFlow differentiates twice",
        f"a closed function in {place!r}",
        "replace the operation",
    )
