"""Identities, applied to a traced program before it is differentiated: equal values, derivatives
that exist.

An operation may have no derivative at a point where the function that holds it has one: √s at
s = 0 in (√s)², |x - y| at a tie in log(eˣ + eʸ), 1/x at x = 0 in a branch that is not chosen. The
derivative of such an operation alone is 0·∞ or one-sided, so it is written together with its
neighbours:

- `hypotenuses`: those of Keras as roots of sums of squares,
- `roots`: powers of roots as powers of what is under them,
- `ties`: maxima and absolute values whose kinks cancel, by one condition,
- `quotients`: sin(u)/u and others, chosen where u is not zero, as one smooth function,
- `selections`: entries that a mask or a slice leaves out, not computed,
- `branches`: operations inside an unchosen branch, computed where they are finite,
- `rectifiers`: functions that are singular at zero, constant where relu(x) is,
- `empty_sums`: logarithms of sums of exponentials, constant where no entry is in the sum.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from hvp.autodiff.identities import (
    branches,
    empty_sums,
    hypotenuses,
    quotients,
    rectifiers,
    roots,
    selections,
    ties,
)
from hvp.autodiff.identities.identity import Identity
from hvp.autodiff.program import Program

IDENTITIES: tuple[type[Identity], ...] = (
    hypotenuses.Hypotenuses,
    roots.Roots,
    ties.Ties,
    quotients.Quotients,
    selections.Selections,
    branches.Branches,
    rectifiers.Rectifiers,
    empty_sums.EmptySums,
)


def apply_identities(
    program: Program, params: Collection[int] | None = None
) -> tuple[Program, dict[str, str]]:
    """The program with all identities, and by place the operation that was rewritten.

    `params` are the inputs in which it is differentiated, all by default.
    """
    places: dict[str, str] = {}
    params = program.inputs if params is None else params
    reached = program.reach(params)
    for i, node in enumerate(program.nodes):
        if node.bodies:
            inside = [node.reached_in(body, reached) for body in node.bodies]
            found = [
                apply_identities(body, values & set(body.inputs))
                for body, values in zip(node.bodies, inside, strict=True)
            ]
            nodes = list(program.nodes)
            nodes[i] = replace(node, bodies=tuple(body for body, _ in found))
            program = replace(program, nodes=tuple(nodes))
            for _, rewritten in found:
                places |= rewritten
    for identity in IDENTITIES:
        program, rewritten = identity.applied(program, params)
        places = rewritten | places
    return program, places
