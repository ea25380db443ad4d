"""A Python function, traced to a flat `Program`: calls inlined, variables read, places named."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from hvp.autodiff import constants
from hvp.autodiff.decompositions import SUBSTITUTES, custom_function
from hvp.autodiff.op_types import op_type
from hvp.autodiff.program import MAX_INLINE_BYTES, Node, Program, literal, map_nest
from hvp.autodiff.tensorflow_private import function_body
from hvp.errors import InputError


def trace(
    function: Callable[..., Any],
    *specs: Any,
    variables: Sequence[tf.Variable | None] = (),
    layers: Collection[str] = (),
) -> Program:
    """The flat program of ``function(*specs)``, where `specs` are nests of `tf.TensorSpec`.

    Calls are inlined, and a variable becomes its present value. The first inputs replace
    `variables` wherever the function reads them. `layers` are the names of the model and of its
    layers, which places are named after. Raises InputError, with the name of the layer, for random
    or otherwise stateful operations, for assignments and for operations that cannot be replayed.
    """

    def named(*arguments: Any) -> Any:
        try:
            return function(*arguments)
        except Exception:
            # A result of Python has no shape, so that what follows may fail without naming it.
            _refuse_python_without_shape(tf.compat.v1.get_default_graph(), layers)
            raise

    concrete = tf.function(named, autograph=False).get_concrete_function(*specs)
    flattener = Flattener(layers=layers)
    graph = concrete.graph
    arguments = graph.inputs[: len(graph.inputs) - len(graph.captures)]
    inputs = tuple(flattener.number(tensor) for tensor in arguments)
    # A list, since `variables` may hold a variable twice.
    pairs = zip(variables, inputs, strict=False)
    flattener.replaced = [(v.handle, number) for v, number in pairs if v is not None]
    for external, placeholder in graph.captures:
        flattener.captures[flattener.number(placeholder)] = external
    flattener.inline(graph)
    outputs = map_nest(flattener.number, concrete.structured_outputs)
    program = flattener.program(inputs, outputs)
    for node in program.nodes:
        _refuse_unreplayable(node)
    return program


class Flattener:
    """Numbers tensors and collects nodes from a graph and the bodies of its calls.

    `captures`, `literals` and `specs` are those of a program that is extended in place.
    """

    def __init__(
        self,
        layers: Collection[str] = (),
        captures: dict[int, tf.Tensor] | None = None,
        literals: dict[int, np.ndarray] | None = None,
        specs: dict[int, tf.TensorSpec] | None = None,
    ) -> None:
        self.nodes: list[Node] = []
        self.captures: dict[int, tf.Tensor] = {} if captures is None else captures
        self.literals: dict[int, np.ndarray] = {} if literals is None else literals
        self.specs: dict[int, tf.TensorSpec] = {} if specs is None else specs
        self.custom_gradients: list[str] = []
        self.handles: list[tf.Tensor] = []
        # The handles of variables, and the inputs that replace them.
        self.replaced: list[tuple[tf.Tensor, int]] = []
        self._layers = layers
        # Values that are made of literals alone.
        self._constants: set[int] = set()
        self._numbers: dict[Any, int] = {}

    def program(self, inputs: tuple[int, ...], outputs: Any) -> Program:
        """The program of the nodes so far, from the values `inputs` to a nest of others."""
        return self._whole(inputs, outputs).part(inputs, outputs)

    def _whole(self, inputs: tuple[int, ...], outputs: Any) -> Program:
        """The same with nodes that the outputs do not need."""
        return Program(
            inputs,
            outputs,
            tuple(self.nodes),
            self.captures,
            self.literals,
            self.specs,
            tuple(self.custom_gradients),
            tuple(self.handles),
        )

    def assign(self, tensor: tf.Tensor, number: int) -> None:
        """Let a tensor be the value of this number, which exists already."""
        self._numbers[tensor.ref()] = number

    def number(self, tensor: tf.Tensor) -> int:
        """The number of a tensor, a new one for a tensor that was not seen before."""
        reference = tensor.ref()
        if reference not in self._numbers:
            number = self._numbers[reference] = len(self.specs)
            self.specs[number] = tf.TensorSpec(tensor.shape, tensor.dtype)
        return self._numbers[reference]

    def inline(self, graph: tf.Graph, done: int = 0) -> None:
        """Add the operations of a graph; the first `done` of them were added before."""
        for op in _in_order(graph.get_operations(), done):
            known = op_type(op.type)
            if op.type == "Placeholder":
                continue
            inputs = tuple(self.number(tensor) for tensor in op.inputs)
            is_custom = "_gradient_op_type" in op.node_def.attr
            written = custom_function(op)
            if is_custom:
                self.custom_gradients.append(self._place(op))
            if written is not None:
                self._write_out(op, inputs, written)
            elif known.is_alias:
                self._numbers.update((t.ref(), n) for t, n in zip(op.outputs, inputs, strict=True))
            elif known.is_call:
                self._call(op, inputs, graph)
            elif op.type.startswith("Assign") and op.type.endswith("VariableOp"):
                raise InputError(
                    "a loss without side effects",
                    f"{op.type} in {self._place(op)!r}",
                    "return what it computes and assign nothing; give a whole number as the seed "
                    "of keras.random, whose generators count",
                )
            elif known.bodies and not known.is_loop and inputs[0] in self.literals:
                self._branch(op, inputs, graph)
            elif known.bodies:
                self._add(op, inputs, self._bodies(op, inputs, graph))
            elif op.type == "ReadVariableOp" and inputs[0] in self.captures:
                handle = self.captures[inputs[0]]
                numbers = [number for replaced, number in self.replaced if replaced is handle]
                if numbers:
                    self.assign(op.outputs[0], numbers[0])
                    continue
                self.handles.append(handle)
                value = tf.raw_ops.ReadVariableOp(resource=handle, dtype=op.get_attr("dtype"))
                self.captures[self.number(op.outputs[0])] = value
            elif op.type == "Const" and op.node_def.ByteSize() > MAX_INLINE_BYTES:
                value = tf.make_ndarray(op.get_attr("value"))
                self.captures[self.number(op.outputs[0])] = tf.constant(value, op.get_attr("dtype"))
            elif op.type == "Const":
                value = tf.make_ndarray(op.get_attr("value"))
                self.literals[self.number(op.outputs[0])] = literal(value)
            else:
                self._add(op, inputs)

    def _add(
        self, op: tf.Operation, inputs: tuple[int, ...], bodies: tuple[Program, ...] = ()
    ) -> None:
        results = tuple(map(self.number, op.outputs))
        node = Node(op, inputs, results, self._place(op), bodies)
        self.nodes.append(node)
        arrays = constants.of_shape(node, self.specs)
        known = all(n in self.literals or n in self._constants for n in inputs)
        if inputs and known and not op.op_def.is_stateful:
            self._constants.update(results)
            arrays = constants.of_constants(node, self._whole((), ()))
        if arrays is not None:
            self.nodes.pop()
            for number, array in zip(results, arrays, strict=True):
                self.literals[number] = literal(array)
                self.specs[number] = tf.TensorSpec(array.shape, self.specs[number].dtype)

    def _place(self, op: tf.Operation) -> str:
        return place_of(op, self._layers)

    def _bodies(
        self, op: tf.Operation, inputs: Sequence[int], graph: tf.Graph
    ) -> tuple[Program, ...]:
        """The programs of a loop or branch; none where TensorFlow does not expose their graphs.

        Such a loop is refused only if it is needed: those of functions that are written out are
        not.
        """
        bodies = [function_body(graph, name) for name in _body_names(op)]
        return () if None in bodies else tuple(self._body(body, inputs) for body in bodies)

    def _branch(self, op: tf.Operation, inputs: Sequence[int], graph: tf.Graph) -> None:
        """Add the branch that a constant chooses."""
        names, (chosen, *rest) = _body_names(op), inputs
        position = constants.chosen_branch(
            op_type(op.type).is_switch, self.literals[chosen], len(names)
        )
        body = function_body(graph, names[position])
        if body is None:
            raise _not_exposed(self._place(op))
        results = self._inlined(body, rest)
        self._numbers.update((t.ref(), n) for t, n in zip(op.outputs, results, strict=True))

    def _body(self, body: Any, inputs: Sequence[int]) -> Program:
        """The program of a loop or branch, which reads variables by their handles."""
        flattener = Flattener(layers=self._layers)
        flattener.custom_gradients, flattener.handles = self.custom_gradients, self.handles
        numbers = tuple(map(flattener.number, body.inputs))
        arguments = inputs[len(inputs) - len(numbers) :]
        handles = {
            n: self.captures[i]
            for n, i in zip(numbers, arguments, strict=True)
            if i in self.captures and self.captures[i].dtype == tf.resource
        }
        flattener.captures.update(handles)
        flattener.inline(body)
        outputs = [flattener.number(tensor) for tensor in body.outputs]
        return flattener.program(numbers, outputs)

    def _write_out(
        self, op: tf.Operation, inputs: Sequence[int], function: Callable[..., tf.Tensor]
    ) -> None:
        """Add what computes the first result of a custom gradient from all its tensors."""
        scope = op.name.rpartition("/")[0]

        def in_scope(*tensors: tf.Tensor) -> tf.Tensor:
            with tf.name_scope(f"{scope}/"):
                return function(*tensors)

        specs = [tf.TensorSpec(t.shape, t.dtype) for t in op.inputs]
        graph = tf.function(in_scope, autograph=False).get_concrete_function(*specs).graph
        (result,) = self._inlined(graph, inputs)
        numbers = [result, *inputs[1:]]
        self._numbers.update((t.ref(), n) for t, n in zip(op.outputs, numbers, strict=True))

    def _call(self, op: tf.Operation, inputs: Sequence[int], graph: tf.Graph) -> None:
        body = function_body(graph, op.get_attr("f").name)
        if body is None:
            raise _not_exposed(self._place(op))
        # Where the function was differentiated, its body has more outputs than the call.
        results = self._inlined(body, inputs)[: len(op.outputs)]
        self._numbers.update((t.ref(), n) for t, n in zip(op.outputs, results, strict=True))

    def _inlined(self, body: Any, inputs: Sequence[int]) -> list[int]:
        """The numbers of the results of a graph on the values `inputs`."""
        outer = self._numbers
        # A function that is called twice is added twice, each time with new numbers.
        self._numbers = {t.ref(): n for t, n in zip(body.inputs, inputs, strict=True)}
        self.inline(body)
        results = [self.number(tensor) for tensor in body.outputs]
        self._numbers = outer
        return results


def _in_order(operations: Sequence[tf.Operation], done: int) -> Iterator[tf.Operation]:
    """The operations after the first `done`, each after those whose results it uses.

    To differentiate a loop, TensorFlow adds inputs to it that are created later than the loop.
    """
    passed = set(operations[:done])
    for last in operations[done:]:
        waiting = [last]
        while waiting:
            op = waiting[-1]
            before = [t.op for t in op.inputs if t.op not in passed]
            if op not in passed and not before:
                passed.add(op)
                yield op
            if not before:
                waiting.pop()
            waiting += before


def _body_names(op: tf.Operation) -> list[str]:
    """The names of the functions that a loop or a branch runs."""
    functions = [op.get_attr(attribute) for attribute in op_type(op.type).bodies]
    return [function.name for function in tf.nest.flatten(functions)]


def place_of(op: tf.Operation, layers: Collection[str] = ()) -> str:
    """The layer of a model that an operation belongs to, or else its name scope.

    Keras opens the name scope of a layer twice for a call, first to build the layer, so that the
    operations of the call are in a scope with a number after the layer's name. The name of the
    model is left out of the names of its layers.
    """
    scope = op.name.removeprefix("gradient_tape/").rpartition("/")[0]
    numbered = [name.rpartition("_") for name in scope.split("/")]
    found = [name for name, _, number in numbered if name in layers and number.isdigit()]
    return "/".join(found[1:] or found) or scope or "the function"


def _refuse_python_without_shape(graph: tf.Graph, layers: Collection[str]) -> None:
    """Raise InputError for an operation that calls Python and has a result of unknown shape."""
    for op in graph.get_operations():
        if op_type(op.type).is_call:
            body = function_body(graph, op.get_attr("f").name)
            if body is not None:
                _refuse_python_without_shape(body, layers)
        elif op_type(op.type).calls_python and any(t.shape.rank is None for t in op.outputs):
            raise InputError(
                "a loss of TensorFlow operations",
                f"{op.type} in {place_of(op, layers)!r}, which calls Python or NumPy",
                f"use {op_type(op.type).instead}",
            )


def _not_exposed(place: str) -> InputError:
    return InputError(
        "operations that TensorFlow differentiates twice",
        f"a function in {place!r} whose operations TensorFlow does not expose",
        "write its loop with tf.while_loop, tf.scan or Python",
    )


def _refuse_unreplayable(node: Node) -> None:
    for body in node.bodies:
        for inner in body.nodes:
            _refuse_unreplayable(inner)
    if node.bodies:
        return
    if op_type(node.op.type).bodies:
        raise _not_exposed(node.place)
    if any(attribute.type == "func" for attribute in node.op.op_def.attr):
        raise InputError(
            "a loss of operations, loops and branches",
            f"{node}, which calls functions",
            "write it with TensorFlow operations",
        )
    if node.op.op_def.is_stateful and not op_type(node.op.type).reads_table:
        raise InputError(
            "a loss that is a function of its parameters and data alone",
            f"the stateful operation {node}",
            f"use {op_type(node.op.type).instead}"
            if op_type(node.op.type).instead
            else "use tf.random.stateless_* for randomness and keep variables out of the loss",
        )
    if not hasattr(tf.raw_ops, node.op.type) and node.op.type not in SUBSTITUTES:
        raise InputError(
            "operations of TensorFlow itself", str(node), "write it with TensorFlow operations"
        )
