"""A Python function traced to a flat `Program`: calls inlined, variables read, places named."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from hvp.autodiff.op_types import BODIES
from hvp.autodiff.program import LARGE, Node, Program, literal, map_nest
from hvp.autodiff.tensorflow_private import body_of
from hvp.errors import InputError

CALLS = {"PartitionedCall", "StatefulPartitionedCall"}
ALIASES = {"CheckNumerics", "Identity", "IdentityN"}


def trace(
    function: Callable[..., Any],
    *specs: Any,
    variables: Sequence[tf.Variable] = (),
    layers: Collection[str] = (),
) -> Program:
    """The flat program of ``function(*specs)``, `specs` being nests of `tf.TensorSpec`.

    Calls are inlined and variables become their present values; `variables` are those that the
    first inputs stand for, wherever they are read; `layers` are the names of a model's, and of the
    model, by which places are told. Raises InputError, naming the layer, for random
    or otherwise stateful operations, for assignments and for operations that cannot be replayed.
    """
    concrete = tf.function(function, autograph=False).get_concrete_function(*specs)
    flattener = Flattener(layers=layers)
    graph = concrete.graph
    arguments = graph.inputs[: len(graph.inputs) - len(graph.captures)]
    inputs = tuple(flattener.number(tensor) for tensor in arguments)
    # One of several variables may be given more than once.
    flattener.given = [(v.handle, number) for v, number in zip(variables, inputs, strict=False)]
    for external, placeholder in graph.captures:
        flattener.captures[flattener.number(placeholder)] = external
    flattener.inline(graph)
    outputs = map_nest(flattener.number, concrete.structured_outputs)
    program = flattener.program(inputs, outputs)
    for node in program.nodes:
        _refuse_unreplayable(node)
    return program


class Flattener:
    """Numbers tensors and collects nodes while it walks a graph and the bodies of its calls."""

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
        self.given: list[tuple[tf.Tensor, int]] = []
        self._layers = layers
        self._numbers: dict[Any, int] = {}

    def program(self, inputs: tuple[int, ...], outputs: Any) -> Program:
        """What was walked, from the values `inputs` to a nest of others."""
        flat = Program(
            inputs,
            outputs,
            tuple(self.nodes),
            self.captures,
            self.literals,
            self.specs,
            tuple(self.custom_gradients),
            tuple(self.handles),
        )
        return flat.part(inputs, outputs)

    def is_called(self, tensor: tf.Tensor, number: int) -> None:
        """Give a tensor the number of a value that there is."""
        self._numbers[tensor.ref()] = number

    def number(self, tensor: tf.Tensor) -> int:
        reference = tensor.ref()
        if reference not in self._numbers:
            number = self._numbers[reference] = len(self.specs)
            self.specs[number] = tf.TensorSpec(tensor.shape, tensor.dtype)
        return self._numbers[reference]

    def inline(self, graph: Any, begun: int = 0) -> None:
        """Walk the operations of a graph, those after the first `begun`."""
        for op in _in_order(graph.get_operations(), begun):
            if op.type == "Placeholder":
                continue
            inputs = tuple(self.number(tensor) for tensor in op.inputs)
            if "_gradient_op_type" in op.node_def.attr:
                self.custom_gradients.append(self._place(op))
            if op.type in ALIASES:
                self._numbers.update((t.ref(), n) for t, n in zip(op.outputs, inputs, strict=True))
            elif op.type in CALLS:
                self._call(op, inputs, graph)
            elif op.type.startswith("Assign") and op.type.endswith("VariableOp"):
                raise InputError(
                    "a loss without side effects",
                    f"{op.type} in {self._place(op)!r}",
                    "return what it computes and assign nothing",
                )
            elif op.type in BODIES:
                bodies = tuple(self._body(name, inputs, op, graph) for name in _functions(op))
                self._write(op, inputs, bodies)
            elif op.type == "ReadVariableOp" and inputs[0] in self.captures:
                handle = self.captures[inputs[0]]
                standing = [number for given, number in self.given if given is handle]
                if standing:
                    self._numbers[op.outputs[0].ref()] = standing[0]
                    continue
                self.handles.append(handle)
                value = tf.raw_ops.ReadVariableOp(resource=handle, dtype=op.get_attr("dtype"))
                self.captures[self.number(op.outputs[0])] = value
            elif op.type == "Const" and op.node_def.ByteSize() > LARGE:
                value = tf.make_ndarray(op.get_attr("value"))
                self.captures[self.number(op.outputs[0])] = tf.constant(value, op.get_attr("dtype"))
            elif op.type == "Const":
                value = tf.make_ndarray(op.get_attr("value"))
                self.literals[self.number(op.outputs[0])] = literal(value)
            else:
                self._write(op, inputs)

    def _write(
        self, op: tf.Operation, inputs: tuple[int, ...], bodies: tuple[Program, ...] = ()
    ) -> None:
        results = tuple(map(self.number, op.outputs))
        self.nodes.append(Node(op, inputs, results, self._place(op), bodies))

    def _place(self, op: tf.Operation) -> str:
        return place_of(op, self._layers)

    def _body(self, name: str, inputs: Sequence[int], op: tf.Operation, graph: Any) -> Program:
        """The program of a loop or branch; the variables that it is handed it reads itself."""
        body = body_of(graph, name, self._place(op))
        flattener = Flattener(layers=self._layers)
        flattener.custom_gradients, flattener.handles = self.custom_gradients, self.handles
        numbers = tuple(map(flattener.number, body.inputs))
        given = inputs[len(inputs) - len(numbers) :]
        held = {
            n: self.captures[i]
            for n, i in zip(numbers, given, strict=True)
            if i in self.captures and self.captures[i].dtype == tf.resource
        }
        flattener.captures.update(held)
        flattener.inline(body)
        outputs = [flattener.number(tensor) for tensor in body.outputs]
        return flattener.program(numbers, outputs)

    def _call(self, op: tf.Operation, inputs: Sequence[int], graph: Any) -> None:
        body = body_of(graph, op.get_attr("f").name, self._place(op))
        outer = self._numbers
        # A body called twice is walked twice, each time with numbers of its own.
        self._numbers = {t.ref(): n for t, n in zip(body.inputs, inputs, strict=True)}
        self.inline(body)
        # Differentiating a function appends intermediate results to the outputs of its body.
        results = [self.number(tensor) for tensor in body.outputs[: len(op.outputs)]]
        self._numbers = outer
        self._numbers.update((t.ref(), n) for t, n in zip(op.outputs, results, strict=True))


def _in_order(operations: Sequence[tf.Operation], begun: int) -> Iterator[tf.Operation]:
    """The operations from `begun` on, each after those whose results it takes.

    To differentiate a loop TensorFlow gives it more inputs, made later than it.
    """
    done = set(operations[:begun])
    for last in operations[begun:]:
        waiting = [last]
        while waiting:
            op = waiting[-1]
            before = [t.op for t in op.inputs if t.op not in done]
            if op not in done and not before:
                done.add(op)
                yield op
            if not before:
                waiting.pop()
            waiting += before


def _functions(op: tf.Operation) -> list[str]:
    """The names of the functions that a loop or a branch runs."""
    found = [op.get_attr(attribute) for attribute in BODIES[op.type]]
    return [function.name for function in tf.nest.flatten(found)]


def place_of(op: tf.Operation, layers: Collection[str] = ()) -> str:
    """Where an operation stands, as name scopes tell it: of a model with these layers, in which.

    Keras opens a layer's scope twice a call, first to build it, so that what it computes stands in
    a scope with a number behind the layer's name. The model's own name is left out of its layers'.
    """
    scope = op.name.removeprefix("gradient_tape/").rpartition("/")[0]
    called = [name.rpartition("_") for name in scope.split("/")]
    inside = [name for name, _, number in called if name in layers and number.isdigit()]
    return "/".join(inside[1:] or inside) or scope or "the function"


def _refuse_unreplayable(node: Node) -> None:
    for body in node.bodies:
        for inner in body.nodes:
            _refuse_unreplayable(inner)
    if node.bodies:
        return
    if any(attribute.type == "func" for attribute in node.op.op_def.attr):
        raise InputError(
            "a loss of operations, loops and branches",
            f"{node}, which calls functions of its own",
            "write it with TensorFlow operations",
        )
    if node.op.op_def.is_stateful:
        raise InputError(
            "a loss that is a function of its parameters and data alone",
            f"the stateful operation {node}",
            "use tf.random.stateless_* for randomness and keep variables out of the loss",
        )
    if not hasattr(tf.raw_ops, node.op.type):
        raise InputError(
            "operations of TensorFlow itself", str(node), "write it with TensorFlow operations"
        )
