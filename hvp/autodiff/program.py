"""A traced TensorFlow function as a flat program: operations over numbered values, replayed anew.

A `Program` is a list of operations over numbered values. Replaying it inside a `tf.function` builds
the operations anew through `tf.raw_ops`, so tapes and forward mode see each of them: what is
differentiated is the program, never the Python that made it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import tensorflow as tf

from hvp.autodiff.op_types import LOOPS
from hvp.autodiff.replay import apply

# Constants above so many bytes are kept once, instead of being written into every graph.
LARGE = 1024


@dataclass(frozen=True, eq=False)
class Node:
    """One operation, applied to the values `inputs` and giving the values `outputs`.

    `place` tells where in the model it stands. `bodies` are the programs (`Program`) of a
    loop, its condition and its body, or of branches. With a `dtype` floating-point results are in
    this precision, whichever they were traced in.
    """

    op: tf.Operation
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    place: str = ""
    bodies: tuple[Any, ...] = ()
    dtype: tf.DType | None = None

    @property
    def is_loop(self) -> bool:
        return self.op.type in LOOPS

    def __str__(self) -> str:
        return f"{self.op.type} in {self.place!r}"


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
        return map_nest(values.__getitem__, self.outputs)

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


def leaves(nest: Any) -> list[Any]:
    """The leaves of a nest that are not None."""
    return [leaf for leaf in tf.nest.flatten(nest) if leaf is not None]


def map_nest(function: Callable[[Any], Any], nest: Any) -> Any:
    return tf.nest.map_structure(lambda leaf: None if leaf is None else function(leaf), nest)


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
