"""A program divided by what an input reaches: the known part, and the part that depends on it.

For the program of a product with v the second part is linear in v, and the first is the same for
all v: it runs once, and what it hands over, the frontier, serves for many vectors.
"""

from __future__ import annotations

from dataclasses import dataclass

from hvp.autodiff.program import Program, leaves


@dataclass(frozen=True, eq=False)
class Split:
    """``program(v, *rest) = linear(v, *known(*rest))``.

    `known` takes the other inputs and gives the frontier, a list; `linear` takes v and the
    frontier. Inputs of the program that the linear part uses pass through the frontier as they are.
    """

    known: Program
    linear: Program


def split(program: Program, count: int = 1) -> Split:
    """Divide by the first `count` inputs; literals go to either side, dead operations nowhere."""
    program = program.part(program.inputs, program.outputs)
    varying, rest = program.inputs[:count], program.inputs[count:]
    reached = program.reach(varying)
    used = set(leaves(program.outputs))
    for node in program.nodes:
        if reached & set(node.outputs):
            used.update(node.inputs)
    elsewhere = reached | program.captures.keys() | program.literals.keys()
    frontier = sorted(used - elsewhere)
    return Split(
        known=program.part(rest, frontier),
        linear=program.part((*varying, *frontier), program.outputs),
    )
