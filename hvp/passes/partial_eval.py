"""Partial evaluation: a program is split into a known part and a part linear in its first inputs.

The program of a product with v is linear in v. The known part does not depend on v: it runs once a
batch. The tensors that it gives, the saved tensors, serve for every v.
"""

from __future__ import annotations

from dataclasses import dataclass

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
