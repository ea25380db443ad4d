"""Bytes that a program takes beside its inputs, estimated from shapes before it runs."""

from __future__ import annotations

from collections import Counter

from hvp.autodiff.program import Program


def branch_bytes(program: Program) -> int:
    """The most bytes that taken branches leave among the outputs of a program.

    TensorFlow hands them over as optional values, whose size no tensor reports.
    """

    def inside(branch: Program, number: int) -> int:
        makers = (node for node in branch.nodes if number in node.outputs)
        return sum(branch.nbytes(n.inputs) for n in makers if n.op.type == "OptionalFromValue")

    return sum(
        max(inside(branch, branch.outputs[i]) for branch in node.bodies)
        for node in program.nodes
        if node.bodies and not node.is_loop
        for i, number in enumerate(node.outputs)
        if number in program.outputs
    )


def working_bytes(program: Program) -> int:
    """The peak, in bytes, of computed values that are still needed, when nodes run in order."""
    last_use = {n: i for i, node in enumerate(program.nodes) for n in node.inputs}
    alive: Counter[int] = Counter()
    peak = 0
    for i, node in enumerate(program.nodes):
        alive.update({n: program.nbytes([n]) for n in node.outputs})
        peak = max(peak, alive.total())
        for n in node.inputs:
            if last_use[n] == i:
                alive.pop(n, None)
    return peak
