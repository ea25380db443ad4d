"""A traced TensorFlow function as a flat program: traced once, calls inlined, rewritten, replayed.

A `Program` is a list of operations over numbered values. Replaying it inside a `tf.function` builds
the operations anew through `tf.raw_ops`, so tapes and forward mode see each of them: what is
differentiated is the program, never the Python that made it.

Private TensorFlow: the body of a called function is found by ``FuncGraph._get_function``, a custom
gradient by the attribute ``_gradient_op_type``; compiled functions are run by ``eager.execute``
under the attributes that the eager context gives to calls. Known to hold for TensorFlow 2.20 and
2.21.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.python import eager

from hvp.errors import InputError
from hvp.replaying import BODIES, Node, apply, place_of

CALLS = {"PartitionedCall", "StatefulPartitionedCall"}
ALIASES = {"CheckNumerics", "Identity", "IdentityN"}
# What TensorFlow raises where it cannot trace, differentiate, compile or run a function.
REFUSALS = (
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
    NotImplementedError,
    tf.errors.OpError,
)
# Constants above so many bytes are kept once, instead of being written into every graph.
LARGE = 1024


@dataclass(frozen=True, eq=False)
class Program:
    """A pure function of tensors: `nodes` lead from inputs, captures and literals to `outputs`.

    `outputs` is a nest of value numbers, `specs` tells every value's shape and type. `captures`
    holds the tensors that the traced function closed over; variables among them were read when it
    was traced, so later assignments do not leak in. `literals` are the constants; those of one
    number throughout are arrays broadcast from it, so that a large zero takes no memory.
    `custom_gradients` names the places where a gradient rule other than the body's own was dropped;
    `handles` are those of the variables read.
    """

    inputs: tuple[int, ...]
    outputs: Any
    nodes: tuple[Node, ...]
    captures: Mapping[int, tf.Tensor]
    literals: Mapping[int, np.ndarray]
    specs: Mapping[int, tf.TensorSpec]
    custom_gradients: tuple[str, ...] = ()
    handles: tuple[tf.Tensor, ...] = ()

    def replay(self, *inputs: tf.Tensor) -> Any:
        """The outputs, in their nest, from operations created anew."""
        values = self.values(inputs)
        return _map(values.__getitem__, self.outputs)

    def values(self, inputs: Sequence[tf.Tensor]) -> dict[int, tf.Tensor]:
        """Every value of a replay by its number."""
        values = self.given(inputs)
        for node in self.nodes:
            arguments = [values[number] for number in node.inputs]
            for number, tensor in zip(node.outputs, apply(node, arguments), strict=True):
                if not tensor.shape.is_fully_defined():
                    # What lists hold has a shape that is known only where they were made.
                    tensor.set_shape(self.specs[number].shape)
                values[number] = tensor
        return values

    def given(self, inputs: Sequence[tf.Tensor]) -> dict[int, tf.Tensor]:
        """The values that no operation makes."""
        values = dict(self.captures)
        values.update(zip(self.inputs, inputs, strict=True))
        for number, literal in self.literals.items():
            values[number] = _constant(literal, self.specs[number].dtype)
        return values

    def part(self, inputs: Iterable[int], outputs: Any) -> Program:
        """The program from the values `inputs` to the values `outputs`, without dead operations."""
        inputs = tuple(inputs)
        needed = set(leaves(outputs))
        kept = []
        for node in reversed(self.nodes):
            if needed & (set(node.outputs) - set(inputs)):
                kept.append(node)
                needed.update(node.inputs)
        return replace(
            self,
            inputs=inputs,
            outputs=outputs,
            nodes=tuple(reversed(kept)),
            captures={n: tensor for n, tensor in self.captures.items() if n in needed},
            literals={n: literal for n, literal in self.literals.items() if n in needed},
        )

    def reach(self, sources: Iterable[int]) -> set[int]:
        """The values that depend on the values `sources`, which are among them."""
        reached = set(sources)
        for node in self.nodes:
            if reached & set(node.inputs):
                reached.update(node.outputs)
        return reached

    def loops(self, sources: Iterable[int]) -> bool:
        """Whether loops, branches or lists of tensors depend on the values `sources`."""
        reached = self.reach(sources)
        return any(reached & set(n.inputs) and self.is_looped(n) for n in self.nodes)

    def is_looped(self, node: Node) -> bool:
        """Whether it is a loop or a branch, or works on a list of tensors as loops stack them."""
        values = (*node.inputs, *node.outputs)
        return bool(node.bodies) or any(self.specs[n].dtype == tf.variant for n in values)

    def nbytes(self, numbers: Iterable[int]) -> int:
        """The bytes of some values, without those of lists of tensors."""
        specs = [self.specs[number] for number in numbers]
        return sum(
            (s.shape.num_elements() or 0) * s.dtype.size for s in specs if s.dtype != tf.variant
        )

    def free(self) -> set[int]:
        """The values it uses that it neither takes, captures nor makes."""
        made = {*self.inputs, *self.captures, *self.literals}
        used = set(leaves(self.outputs))
        for node in self.nodes:
            used.update(node.inputs)
            made.update(node.outputs)
        return used - made


class Writer:
    """A program being written: the values of another, and new ones made from them.

    Attributes:
        nodes: what has been written so far.
        captures, literals, specs: as a program's.
    """

    def __init__(self, program: Program):
        self.nodes: list[Node] = []
        self.captures = dict(program.captures)
        self.literals = dict(program.literals)
        self.specs = dict(program.specs)
        self._program = program
        self._same: dict[int, int] = {}
        # Where functions are called to see which operations they are.
        self._graph = tf.Graph()
        self._tensors: dict[int, tf.Tensor] = {}
        self._flattener = _Flattener(written=self)

    def resolved(self, number: int) -> int:
        """The value that stands for one of the other program."""
        return self._same.get(number, number)

    def replace(self, number: int, other: int) -> None:
        """Let another value stand for one."""
        self._same[number] = self.resolved(other)

    def expanded(self, function: Callable[..., Any], *inputs: int) -> tuple[list[Node], list[int]]:
        """What operations a function of values is, not written yet, and the values it gives.

        A function that returns None gives none.
        """
        flattener, written = self._flattener, len(self._flattener.nodes)
        begun = len(self._graph.get_operations())
        with self._graph.as_default():
            results = function(*map(self._tensor, inputs))
        flattener.inline(self._graph, begun)
        return flattener.nodes[written:], [flattener.number(tensor) for tensor in leaves(results)]

    def _tensor(self, number: int) -> tf.Tensor:
        """What stands for a value where functions are called."""
        spec = self.specs[number]
        if number not in self._tensors or self._tensors[number].shape != spec.shape:
            tensor = self._tensors[number] = tf.compat.v1.placeholder(spec.dtype, spec.shape)
            self._flattener.is_called(tensor, number)
        return self._tensors[number]

    def write(self, function: Callable[..., tf.Tensor], *inputs: int) -> int:
        """The value that a function makes of others."""
        nodes, (value,) = self.expanded(function, *inputs)
        self.nodes += nodes
        return value

    def literal(self, array: np.ndarray) -> int:
        number = self.value(tf.TensorSpec(array.shape, array.dtype))
        self.literals[number] = array
        return number

    def value(self, spec: tf.TensorSpec) -> int:
        """A new value, to be given from outside."""
        number = len(self.specs)
        self.specs[number] = spec
        return number

    def program(self, outputs: Any = None) -> Program:
        """The other program as it is written now, without dead operations."""
        if outputs is None:
            outputs = _map(self.resolved, self._program.outputs)
        written = replace(
            self._program,
            nodes=tuple(self.nodes),
            captures=self.captures,
            literals=self.literals,
            specs=self.specs,
        )
        return written.part(self._program.inputs, outputs)


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
    flattener = _Flattener(layers=layers)
    graph = concrete.graph
    arguments = graph.inputs[: len(graph.inputs) - len(graph.captures)]
    inputs = tuple(flattener.number(tensor) for tensor in arguments)
    # One of several variables may be given more than once.
    flattener.given = [(v.handle, number) for v, number in zip(variables, inputs, strict=False)]
    for external, placeholder in graph.captures:
        flattener.captures[flattener.number(placeholder)] = external
    flattener.inline(graph)
    outputs = _map(flattener.number, concrete.structured_outputs)
    program = flattener.program(inputs, outputs)
    for node in program.nodes:
        _refuse_unreplayable(node)
    return program


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


def leaves(nest: Any) -> list[Any]:
    """The leaves of a nest that are not None."""
    return [leaf for leaf in tf.nest.flatten(nest) if leaf is not None]


def _map(function: Callable[[Any], Any], nest: Any) -> Any:
    return tf.nest.map_structure(lambda leaf: None if leaf is None else function(leaf), nest)


class _Flattener:
    """Numbers tensors and collects nodes while it walks a graph and the bodies of its calls."""

    def __init__(self, layers: Collection[str] = (), written: Writer | None = None) -> None:
        self.nodes: list[Node] = []
        self.captures: dict[int, tf.Tensor] = {} if written is None else written.captures
        self.literals: dict[int, np.ndarray] = {} if written is None else written.literals
        self.specs: dict[int, tf.TensorSpec] = {} if written is None else written.specs
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
        body = _body_of(graph, name, self._place(op))
        flattener = _Flattener(layers=self._layers)
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
        body = _body_of(graph, op.get_attr("f").name, self._place(op))
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


def _body_of(graph: Any, name: str, place: str) -> Any:
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


def _functions(op: tf.Operation) -> list[str]:
    """The names of the functions that a loop or a branch runs."""
    found = [op.get_attr(attribute) for attribute in BODIES[op.type]]
    return [function.name for function in tf.nest.flatten(found)]


def literal(array: np.ndarray) -> np.ndarray:
    """The array as a literal: broadcast from one number where it is the same throughout."""
    array = np.asarray(array)
    if array.size > 0 and array.dtype != object:
        # Bit by bit, since 0.0 is not -0.0.
        entries = np.ascontiguousarray(array).reshape(-1, 1).view(np.uint8)
        if (entries == entries[0]).all():
            return uniform(array.flat[0], array.shape)
    return array


def uniform(value: Any, shape: Sequence[int]) -> np.ndarray:
    """A literal of one number throughout."""
    return np.broadcast_to(np.asarray(value), tuple(shape))


def is_uniform(array: np.ndarray, value: float | None = None) -> bool:
    """Whether a literal is one number throughout, and that number if given."""
    if array.dtype == object or array.size == 0 or any(array.strides):
        return False
    return value is None or bool(array.flat[0] == value)


def _constant(literal: np.ndarray, dtype: tf.DType) -> tf.Tensor:
    # Small ones are written out: of filled crops the graph optimiser infers wrong shapes of
    # BatchToSpaceND, and leaves out a Squeeze behind it (TensorFlow 2.21).
    if literal.nbytes > LARGE and is_uniform(literal):
        return tf.fill(literal.shape, tf.constant(literal.flat[0], dtype))
    return tf.constant(literal, dtype)


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
