"""A traced TensorFlow function as a flat program: a list of operations over numbered values.

Replaying a program inside a `tf.function` creates its operations again through `tf.raw_ops`, so
that tapes and forward mode see each of them. The program is differentiated, never the Python code
that was traced.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import tensorflow as tf

from hvp.autodiff.op_types import op_type
from hvp.autodiff.replay import apply

# Larger constants are stored once; smaller ones are written into every graph.
MAX_INLINE_BYTES = 1024


@dataclass(frozen=True, eq=False)
class Node:
    """One operation, which computes the values `outputs` from the values `inputs`.

    Attributes:
        op: the traced operation, for its type and its attributes.
        inputs, outputs: numbers of values.
        place: the layer or the name scope in which it was created.
        bodies: the programs of a loop (its condition, its body) or of branches.
        dtype: the precision of floating-point results, None for the one that was traced.
    """

    op: tf.Operation
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    place: str = ""
    bodies: tuple[Program, ...] = ()
    dtype: tf.DType | None = None

    @property
    def is_loop(self) -> bool:
        return op_type(self.op.type).is_loop

    def reached_in(self, body: Program, reached: Collection[int]) -> set[int]:
        """The values of a body that depend on `reached` ones outside, in any iteration."""
        arguments = self.inputs[len(self.inputs) - len(body.inputs) :]
        found = {i for i, number in enumerate(arguments) if number in reached}
        before: set[int] = set()
        while self.is_loop and found != before:  # its results are the inputs of the next iteration
            before, step = found, self.bodies[1]
            inside = step.reach(step.inputs[i] for i in found)
            found = found | {i for i, number in enumerate(step.outputs) if number in inside}
        return body.reach(body.inputs[i] for i in found)

    def __str__(self) -> str:
        return f"{self.op.type} in {self.place!r}"


@dataclass(frozen=True, eq=False)
class Program:
    """A pure function of tensors: `nodes` compute `outputs` from inputs, captures and literals.

    Attributes:
        inputs: the numbers of the values that are passed in.
        outputs: a nest of value numbers.
        nodes: the operations, each after those whose results it uses.
        captures: number -> tensor that the traced function closed over. The value of a variable is
            that at the time of the trace; later assignments do not change it.
        literals: number -> constant. A constant whose entries are all equal is an array broadcast
            from one number, so that a large zero takes no memory.
        specs: number -> shape and type.
        custom_gradients: the places of `tf.custom_gradient` rules, which the program leaves out.
        handles: the handles of the variables that were read.
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
        """The outputs in their nest, computed by newly created operations."""
        values = self.values(inputs)
        return map_nest(values.__getitem__, self.outputs)

    def values(
        self,
        inputs: Sequence[tf.Tensor],
        run: Callable[[Node, Sequence[tf.Tensor]], list[tf.Tensor]] = apply,
    ) -> dict[int, tf.Tensor]:
        """Every value of a replay, by its number; `run` gives the results of one operation."""
        values = self.given(inputs)
        for node in self.nodes:
            arguments = [values[number] for number in node.inputs]
            for number, tensor in zip(node.outputs, run(node, arguments), strict=True):
                if not tensor.shape.is_fully_defined():
                    # TensorFlow forgets the shapes of tensors that were in a list.
                    tensor.set_shape(self.specs[number].shape)
                values[number] = tensor
        return values

    def given(self, inputs: Sequence[tf.Tensor]) -> dict[int, tf.Tensor]:
        """The values that no operation computes: captures, inputs and literals."""
        values = dict(self.captures)
        values.update(zip(self.inputs, inputs, strict=True))
        for number, literal in self.literals.items():
            values[number] = _constant(literal, self.specs[number].dtype)
        return values

    def part(self, inputs: Iterable[int], outputs: Any) -> Program:
        """The program from values `inputs` to values `outputs`, with the nodes in between."""
        inputs = tuple(inputs)
        needed = set(leaves(outputs))
        used = []
        for node in reversed(self.nodes):
            if needed & (set(node.outputs) - set(inputs)):
                used.append(node)
                needed.update(node.inputs)
        return replace(
            self,
            inputs=inputs,
            outputs=outputs,
            nodes=tuple(reversed(used)),
            captures={n: tensor for n, tensor in self.captures.items() if n in needed},
            literals={n: literal for n, literal in self.literals.items() if n in needed},
        )

    def reach(self, sources: Iterable[int]) -> set[int]:
        """The values `sources` and all values that depend on them."""
        reached = set(sources)
        for node in self.nodes:
            if reached & set(node.inputs):
                reached.update(node.outputs)
        return reached

    def loops(self, sources: Iterable[int]) -> bool:
        """Whether a loop, a branch or a list of tensors depends on the values `sources`."""
        reached = self.reach(sources)
        return any(reached & set(n.inputs) and self.is_looped(n) for n in self.nodes)

    def is_looped(self, node: Node) -> bool:
        """Whether it is a loop or a branch, or has a list of tensors as input or output."""
        values = (*node.inputs, *node.outputs)
        return bool(node.bodies) or any(self.specs[n].dtype == tf.variant for n in values)

    def has_unknown_shapes(self) -> bool:
        """Whether some shape is known only when it runs, as that of a boolean mask."""
        made = [self.specs[n] for node in self.nodes for n in node.outputs]
        return not all(s.shape.is_fully_defined() for s in made if s.dtype != tf.variant)

    def first_not_finite(self, inputs: Sequence[tf.Tensor]) -> Node | None:
        """The first operation that makes NaN, else infinity, from finite inputs; run one by one."""
        values = self.values(inputs)

        def is_bad(number: int, is_good: Callable[[tf.Tensor], tf.Tensor]) -> bool:
            tensor = values[number]
            kind = tensor.dtype
            if not (kind.is_floating or kind.is_complex):
                return False
            parts = [tf.math.real(tensor), tf.math.imag(tensor)] if kind.is_complex else [tensor]
            return not all(bool(tf.reduce_all(is_good(part))) for part in parts)

        for is_good in (lambda t: ~tf.math.is_nan(t), tf.math.is_finite):
            for node in self.nodes:
                before = any(is_bad(n, tf.math.is_finite) for n in node.inputs)
                if not before and any(is_bad(n, is_good) for n in node.outputs):
                    return node
        for node in self.nodes:
            if any(is_bad(n, lambda t: ~tf.math.is_nan(t)) for n in node.outputs):
                return node
        return None

    def nbytes(self, numbers: Iterable[int]) -> int:
        """The bytes of these values; lists of tensors are not counted."""
        specs = [self.specs[number] for number in numbers]
        return sum(
            (s.shape.num_elements() or 0) * s.dtype.size for s in specs if s.dtype != tf.variant
        )

    def unbound(self) -> set[int]:
        """The values that it uses but that are not inputs, captures, literals or results."""
        bound = {*self.inputs, *self.captures, *self.literals}
        used = set(leaves(self.outputs))
        for node in self.nodes:
            used.update(node.inputs)
            bound.update(node.outputs)
        return used - bound


def leaves(nest: Any) -> list[Any]:
    """The leaves of a nest, without those that are None."""
    return [leaf for leaf in tf.nest.flatten(nest) if leaf is not None]


def map_nest(function: Callable[[Any], Any], nest: Any) -> Any:
    return tf.nest.map_structure(lambda leaf: None if leaf is None else function(leaf), nest)


def literal(array: np.ndarray) -> np.ndarray:
    """The array as a literal: broadcast from one number if all its entries are equal."""
    array = np.asarray(array)
    if array.size > 0 and array.dtype != object:
        # The bytes are compared, since 0.0 and -0.0 are equal but are not the same.
        entries = np.ascontiguousarray(array).reshape(-1, 1).view(np.uint8)
        if (entries == entries[0]).all():
            return uniform(array.flat[0], array.shape)
    return array


def uniform(value: Any, shape: Sequence[int]) -> np.ndarray:
    """A literal with all entries equal to `value`."""
    return np.broadcast_to(np.asarray(value), tuple(shape))


def is_uniform(array: np.ndarray, value: float | None = None) -> bool:
    """Whether all entries of a literal are equal, and equal to `value` if given."""
    if array.dtype == object or array.size == 0 or any(array.strides):
        return False
    return value is None or bool(array.flat[0] == value)


def _constant(literal: np.ndarray, dtype: tf.DType) -> tf.Tensor:
    # Small constants are written out: where the crops of BatchToSpaceND come from Fill, the graph
    # optimiser of TensorFlow 2.21 infers a wrong shape and removes a Squeeze after it.
    if literal.nbytes > MAX_INLINE_BYTES and is_uniform(literal):
        return tf.fill(literal.shape, tf.constant(literal.flat[0], dtype))
    return tf.constant(literal, dtype)
