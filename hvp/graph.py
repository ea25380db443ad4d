"""A traced TensorFlow function as a flat program: traced once, calls inlined, rewritten, replayed.

A `Program` is a list of operations over numbered values. Replaying it inside a `tf.function` builds
the operations anew through `tf.raw_ops`, so tapes and forward accumulators see each of them: what
is differentiated is the program, never the Python that made it.

Private TensorFlow: the body of a called function is found by ``FuncGraph._get_function``, a custom
gradient by the attribute ``_gradient_op_type``. Known to hold for TensorFlow 2.20 and 2.21.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import tensorflow as tf

from hvp.errors import InputError

CALLS = {"PartitionedCall", "StatefulPartitionedCall"}
ALIASES = {"CheckNumerics", "Identity", "IdentityN"}
# Constants above so many bytes are kept once, instead of being written into every graph.
LARGE = 1024


@dataclass(frozen=True, eq=False)
class Node:
    """One operation, applied to the values `inputs` and giving the values `outputs`."""

    op: tf.Operation
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]

    @property
    def place(self) -> str:
        return _place(self.op)

    def __str__(self) -> str:
        return f"{self.op.type} in {self.place!r}"


@dataclass(frozen=True, eq=False)
class Program:
    """A pure function of tensors: `nodes` lead from `inputs` and `captures` to `outputs`.

    `outputs` is a nest of value numbers, `specs` tells every value's shape and type. `captures`
    holds the tensors that the traced function closed over; variables among them were read when it
    was traced, so later assignments do not leak in. `custom_gradients` names the places where a
    gradient rule other than the body's own was dropped; `handles` are those of the variables read.
    """

    inputs: tuple[int, ...]
    outputs: Any
    nodes: tuple[Node, ...]
    captures: Mapping[int, tf.Tensor]
    specs: Mapping[int, tf.TensorSpec]
    custom_gradients: tuple[str, ...] = ()
    handles: tuple[tf.Tensor, ...] = ()

    def replay(self, *inputs: tf.Tensor) -> Any:
        """The outputs, in their nest, from operations created anew."""
        values = self.values(inputs)
        return _map(values.__getitem__, self.outputs)

    def values(self, inputs: Sequence[tf.Tensor]) -> dict[int, tf.Tensor]:
        """Every value of a replay by its number."""
        values = dict(self.captures)
        values.update(zip(self.inputs, inputs, strict=True))
        for node in self.nodes:
            values.update(zip(node.outputs, _apply(node.op, node.inputs, values), strict=True))
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
        captures = {number: t for number, t in self.captures.items() if number in needed}
        nodes = tuple(reversed(kept))
        return replace(self, inputs=inputs, outputs=outputs, nodes=nodes, captures=captures)

    def free(self) -> set[int]:
        """The values it uses that it neither takes, captures nor makes."""
        made = {*self.inputs, *self.captures}
        used = set(leaves(self.outputs))
        for node in self.nodes:
            used.update(node.inputs)
            made.update(node.outputs)
        return used - made


def trace(function: Callable[..., Any], *specs: Any) -> Program:
    """The flat program of ``function(*specs)``, `specs` being nests of `tf.TensorSpec`.

    Calls are inlined and variables become their present values. Raises InputError, naming the
    layer, for loops and branches, for random or otherwise stateful operations, for assignments and
    for operations that cannot be replayed.
    """
    concrete = tf.function(function, autograph=False).get_concrete_function(*specs)
    flattener = _Flattener()
    graph = concrete.graph
    arguments = graph.inputs[: len(graph.inputs) - len(graph.captures)]
    inputs = tuple(flattener.number(tensor) for tensor in arguments)
    for external, placeholder in graph.captures:
        flattener.captures[flattener.number(placeholder)] = external
    flattener.inline(graph)
    outputs = _map(flattener.number, concrete.structured_outputs)
    flat = Program(
        inputs,
        outputs,
        tuple(flattener.nodes),
        flattener.captures,
        flattener.specs,
        tuple(flattener.custom_gradients),
        tuple(flattener.handles),
    )
    program = flat.part(inputs, outputs)
    for node in program.nodes:
        _refuse_unreplayable(node)
    return program


def leaves(nest: Any) -> list[Any]:
    """The leaves of a nest that are not None."""
    return [leaf for leaf in tf.nest.flatten(nest) if leaf is not None]


def _map(function: Callable[[Any], Any], nest: Any) -> Any:
    return tf.nest.map_structure(lambda leaf: None if leaf is None else function(leaf), nest)


class _Flattener:
    """Numbers tensors and collects nodes while it walks a graph and the bodies of its calls."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.captures: dict[int, tf.Tensor] = {}
        self.specs: dict[int, tf.TensorSpec] = {}
        self.custom_gradients: list[str] = []
        self.handles: list[tf.Tensor] = []
        self._numbers: dict[Any, int] = {}

    def number(self, tensor: tf.Tensor) -> int:
        reference = tensor.ref()
        if reference not in self._numbers:
            number = self._numbers[reference] = len(self.specs)
            self.specs[number] = tf.TensorSpec(tensor.shape, tensor.dtype)
        return self._numbers[reference]

    def inline(self, graph: Any) -> None:
        for op in graph.get_operations():
            if op.type == "Placeholder":
                continue
            inputs = tuple(self.number(tensor) for tensor in op.inputs)
            if "_gradient_op_type" in op.node_def.attr:
                self.custom_gradients.append(_place(op))
            if op.type in ALIASES:
                self._numbers.update((t.ref(), n) for t, n in zip(op.outputs, inputs, strict=True))
            elif op.type in CALLS:
                self._call(op, inputs, graph)
            elif op.type.startswith("Assign") and op.type.endswith("VariableOp"):
                raise InputError(
                    "a loss without side effects",
                    f"{op.type} in {_place(op)!r}",
                    "return what it computes and assign nothing",
                )
            elif op.type == "ReadVariableOp" and inputs[0] in self.captures:
                handle = self.captures[inputs[0]]
                self.handles.append(handle)
                value = tf.raw_ops.ReadVariableOp(resource=handle, dtype=op.get_attr("dtype"))
                self.captures[self.number(op.outputs[0])] = value
            elif op.type == "Const" and op.node_def.ByteSize() > LARGE:
                self.captures[self.number(op.outputs[0])] = _constant(op)
            else:
                self.nodes.append(Node(op, inputs, tuple(map(self.number, op.outputs))))

    def _call(self, op: tf.Operation, inputs: Sequence[int], graph: Any) -> None:
        body = graph._get_function(op.get_attr("f").name).graph
        outer = self._numbers
        # A body called twice is walked twice, each time with numbers of its own.
        self._numbers = {t.ref(): n for t, n in zip(body.inputs, inputs, strict=True)}
        self.inline(body)
        results = [self.number(tensor) for tensor in body.outputs]
        self._numbers = outer
        self._numbers.update((t.ref(), n) for t, n in zip(op.outputs, results, strict=True))


def _place(op: tf.Operation) -> str:
    """Where an operation stands in the model, as name scopes tell it: ``sequential/dense``."""
    return op.name.removeprefix("gradient_tape/").rpartition("/")[0] or "the function"


def _apply(
    op: tf.Operation, inputs: Sequence[int], values: Mapping[int, tf.Tensor]
) -> list[tf.Tensor]:
    """The operation created anew on other tensors."""
    if op.type == "Const":
        return [_constant(op)]
    if op.type in ("MaxPool", "MaxPool3D") and op.inputs[0].shape == op.outputs[0].shape:
        return [_max_pool(op, values[inputs[0]])]
    call = getattr(tf.raw_ops, op.type)
    remaining = [values[number] for number in inputs]
    arguments: dict[str, Any] = {}
    inferred = set()
    for argument in op.op_def.input_arg:
        inferred |= {argument.type_attr, argument.number_attr, argument.type_list_attr}
        if argument.number_attr or argument.type_list_attr:
            length = op.get_attr(argument.number_attr or argument.type_list_attr)
            count = length if argument.number_attr else len(length)
            arguments[argument.name], remaining = remaining[:count], remaining[count:]
        else:
            arguments[argument.name], *remaining = remaining
    for attribute in op.op_def.attr:
        if attribute.name not in inferred:
            value = op.get_attr(attribute.name)
            arguments[attribute.name] = (
                tf.TensorShape(value) if attribute.type == "shape" else value
            )
    scope, _, name = op.name.rpartition("/")
    # Entered anew, so that gradient operations carry it too and are told by their layer.
    with tf.name_scope(f"{scope}/") if scope else contextlib.nullcontext():
        return tf.nest.flatten(call(**_publicly_named(call, arguments), name=name))


def _constant(op: tf.Operation) -> tf.Tensor:
    return tf.constant(tf.make_ndarray(op.get_attr("value")), op.get_attr("dtype"))


def _max_pool(op: tf.Operation, x: tf.Tensor) -> tf.Tensor:
    """Max pooling to the same shape as a padding and a pooling that makes it smaller.

    The kernels MaxPoolGradGrad and MaxPool3DGradGrad work in place where the shapes agree, and read
    what they have already overwritten (TensorFlow 2.21): Hv through such a layer is wrong by half.
    """
    sizes = op.get_attr("ksize")
    if max(sizes) == 1:
        return x
    paddings = [[(size - 1) // 2, size // 2] for size in sizes]
    if op.get_attr("padding") == b"EXPLICIT":
        paddings = np.reshape(op.get_attr("explicit_paddings"), (-1, 2)).tolist()
    return getattr(tf.raw_ops, op.type)(
        input=tf.pad(x, paddings, constant_values=x.dtype.min),
        ksize=sizes,
        strides=op.get_attr("strides"),
        padding="VALID",
        data_format=op.get_attr("data_format"),
        name=op.name,
    )


def _publicly_named(call: Callable[..., Any], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments under the names that `tf.raw_ops` gives them.

    Some differ from the operation's own (ExpandDims takes `axis` for `dim`); the order among the
    renamed is the same.
    """
    public = [name for name in inspect.signature(call).parameters if name != "name"]
    unclaimed = iter([name for name in public if name not in arguments])
    return {name if name in public else next(unclaimed): value for name, value in arguments.items()}


def _refuse_unreplayable(node: Node) -> None:
    functional = any(attribute.type == "func" for attribute in node.op.op_def.attr)
    if functional or node.op.type.startswith("TensorList"):
        raise InputError(
            "a loss without loops and branches inside the graph",
            node,
            "unroll loops (recurrent layers take unroll=True) and write branches with tf.where",
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
