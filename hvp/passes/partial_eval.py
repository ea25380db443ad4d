"""Partial evaluation: a program is split into a known part and a part linear in its first inputs.

The program of a product with v is linear in v. The known part does not depend on v: it runs once a
batch. The tensors that it gives, the saved tensors, serve for every v. What depends on no input at
all is computed once for all batches.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import tensorflow as tf

from hvp.autodiff import tensorflow_private
from hvp.autodiff.program import Program, leaves


@dataclass(frozen=True, eq=False)
class Split:
    """``program(v, *rest) = linear(v, *known(*rest))``.

    Attributes:
        known: takes the other inputs and gives the saved tensors, a list.
        linear: takes v and the saved tensors. Inputs of the program that it uses are among these,
            unchanged.
    """

    known: Program
    linear: Program


def partially_evaluate(program: Program, count: int = 1) -> Split:
    """Split a program that is linear in its first `count` inputs.

    Constants go to the part that uses them, operations without use to neither.
    """
    program = program.part(program.inputs, program.outputs)
    varying, rest = program.inputs[:count], program.inputs[count:]
    dependent = program.reach(varying)
    used = set(leaves(program.outputs))
    for node in program.nodes:
        if dependent & set(node.outputs):
            used.update(node.inputs)
    saved = sorted(used - dependent - program.captures.keys() - program.literals.keys())
    return Split(
        known=program.part(rest, saved),
        linear=program.part((*varying, *saved), program.outputs),
    )


def evaluate_constants(parts: Split, max_bytes: float) -> tuple[Split, int]:
    """The parts with the saved tensors that depend on no input computed now, and their bytes.

    An example are weights cast to another precision. Where they take more than `max_bytes`, the
    parts stay as they are.
    """
    known, linear = parts.known, parts.linear
    dependent = known.reach(known.inputs)
    constant = [
        n for n in known.outputs if n not in dependent and known.specs[n].dtype != tf.variant
    ]
    size = known.nbytes(constant)
    if not constant or size > max_bytes:
        return parts, 0
    tensors = tensorflow_private.compiled(known.part((), constant).replay, [])([])
    captures = {**linear.captures, **dict(zip(constant, tensors, strict=True))}
    known = known.part(known.inputs, [n for n in known.outputs if n not in constant])
    linear = replace(linear, captures=captures).part(
        [n for n in linear.inputs if n not in constant], linear.outputs
    )
    return Split(known, linear), size
