"""The StopGradient that `tf.nn.moments` puts on the mean inside the variance, and its removal.

It stands as mean((x - stop(m))²) with m = mean(x) over the same axes, where ∂/∂m is
-2 mean(x - m) = 0. The gradient is the same without it, but only without it are the second
derivatives those of the function: with it Hv of a LayerNormalization is wrong by a tenth. Every
other StopGradient is the user's and stays.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace

import numpy as np

from hvp.autodiff.program import Node, Program, leaves


def free(program: Program) -> tuple[Program, tuple[str, ...]]:
    """The program without these StopGradients, and the places where they stood."""
    wiring = _Wiring(program)
    freed = {node.outputs[0]: node for node in program.nodes if wiring.is_moment(node)}

    def through(number: int) -> int:
        return freed[number].inputs[0] if number in freed else number

    nodes = [
        replace(node, inputs=tuple(map(through, node.inputs)))
        for node in program.nodes
        if not freed.keys() & set(node.outputs)
    ]
    places = [node.place for node in freed.values()]
    for i, node in enumerate(nodes):
        inside = [free(body) for body in node.bodies]
        nodes[i] = replace(node, bodies=tuple(body for body, _ in inside))
        places += [place for _, found in inside for place in found]
    return replace(program, nodes=tuple(nodes)), tuple(places)


class _Wiring:
    """Who makes and who uses each value."""

    def __init__(self, program: Program):
        self._literals = program.literals
        self._results = set(leaves(program.outputs))
        self._makers = {number: node for node in program.nodes for number in node.outputs}
        self._users: dict[int, list[Node]] = defaultdict(list)
        for node in program.nodes:
            for number in node.inputs:
                self._users[number].append(node)

    def is_moment(self, node: Node) -> bool:
        """Whether this is stop(mean(x)), used as mean((x - stop(mean(x)))²) and nowhere else."""
        if node.op.type != "StopGradient" or node.outputs[0] in self._results:
            return False
        mean = self._makers.get(node.inputs[0])
        if mean is None or mean.op.type != "Mean" or not mean.op.get_attr("keep_dims"):
            return False
        axes, centred = self._axes(mean), {mean.inputs[0], node.outputs[0]}
        return axes is not None and all(
            user.op.type == "SquaredDifference"
            and set(user.inputs) == centred
            and self._is_averaged(user.outputs[0], axes)
            for user in self._users[node.outputs[0]]
        )

    def _is_averaged(self, number: int, axes: frozenset[int]) -> bool:
        """Whether all that is done with a value is to average it over these axes."""
        return number not in self._results and all(
            user.op.type == "Mean" and self._axes(user) == axes for user in self._users[number]
        )

    def _axes(self, mean: Node) -> frozenset[int] | None:
        listed, rank = self._literals.get(mean.inputs[1]), mean.op.inputs[0].shape.rank
        if listed is None or rank is None:
            return None
        return frozenset(int(axis) % rank for axis in np.atleast_1d(listed))
