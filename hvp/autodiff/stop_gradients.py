"""Removes the StopGradient that `tf.nn.moments` puts on the mean inside the variance.

`tf.nn.moments` computes the variance as mean((x - stop_gradient(m))²) with m = mean(x) over the
same axes. The derivative with respect to m, -2 mean(x - m), is zero, so that the gradient is the
same without the StopGradient. The second derivatives are right only without it: with it, the Hv of
a network with a LayerNormalization was wrong by 10 %. A gradient tape inside the
loss (a gradient penalty, a step of an inner optimiser) differentiates the variance as
2 (x - stop_gradient(m)) / n: there TensorFlow's own gradient is wrong too. Every other StopGradient
stays. It changes nothing where the loss does not depend on its value, as log Σ exp(x - s) + s does
not depend on s; `varied` is for finding that out.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import tensorflow as tf

from hvp.autodiff.program import Node, Program, leaves, map_nest
from hvp.autodiff.replay import apply


def remove_from_moments(program: Program) -> tuple[Program, tuple[str, ...]]:
    """The program without these StopGradients, and the places where they were."""
    pattern = _MomentsPattern(program)
    removed = {node.outputs[0]: node for node in program.nodes if pattern.matches(node)}

    nodes = list(_without(program, removed).nodes)
    places = [node.place for node in removed.values()]
    for i, node in enumerate(nodes):
        bodies = [remove_from_moments(body) for body in node.bodies]
        nodes[i] = replace(node, bodies=tuple(body for body, _ in bodies))
        places += [place for _, found in bodies for place in found]
    return replace(program, nodes=tuple(nodes)), tuple(places)


def differentiated_moments(program: Program) -> tuple[str, ...]:
    """The places where the loss itself holds a derivative of `tf.nn.moments`."""
    pattern = _MomentsPattern(program)
    return tuple(
        node.place
        for node in program.nodes
        if pattern.matches(node) and pattern.is_differentiated(node)
    )


def in_bodies(program: Program, active: Collection[int]) -> list[Node]:
    """The loops and branches on the path that hold a StopGradient."""
    return [n for n in program.nodes if set(active) & set(n.outputs) and any(map(_holds, n.bodies))]


def without_those_of(program: Program, node: Node) -> Program:
    """The program without the StopGradients in the bodies of a node."""
    bodies = tuple(map(_without_all, node.bodies))
    nodes = [replace(n, bodies=bodies) if n is node else n for n in program.nodes]
    return replace(program, nodes=tuple(nodes))


def _holds(body: Program) -> bool:
    return any(n.op.type == "StopGradient" or any(map(_holds, n.bodies)) for n in body.nodes)


def _without_all(body: Program) -> Program:
    found = {n.outputs[0]: n for n in body.nodes if n.op.type == "StopGradient"}
    inner = _without(body, found)
    nodes = [replace(n, bodies=tuple(map(_without_all, n.bodies))) for n in inner.nodes]
    return replace(inner, nodes=tuple(nodes))


def _without(program: Program, removed: Mapping[int, Node]) -> Program:
    """The program where the input of each of these nodes stands for its output."""

    def source(number: int) -> int:
        while number in removed:
            number = removed[number].inputs[0]
        return number

    nodes = [
        replace(node, inputs=tuple(map(source, node.inputs)))
        for node in program.nodes
        if not removed.keys() & set(node.outputs)
    ]
    outputs = map_nest(source, program.outputs)
    return replace(program, nodes=tuple(nodes), outputs=outputs)


def varied(
    program: Program,
    inputs: Sequence[tf.Tensor],
    stops: Sequence[Node],
    shifts: tf.Tensor,
    passed: tf.Tensor,
) -> Any:
    """The outputs with StopGradients changed.

    Each of `stops` adds its entry of `shifts`, times another factor for each entry of its value,
    and lets derivatives pass where its entry of `passed` is positive.
    """
    positions = {node.outputs[0]: i for i, node in enumerate(stops)}

    def run(node: Node, arguments: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        results = apply(node, arguments)
        i = positions.get(node.outputs[0]) if node.outputs else None
        if i is None:
            return results
        (x,), (stopped,) = arguments, results
        factors = 1 + tf.cos(tf.range(tf.cast(tf.size(x), tf.float64))) / 2
        shift = tf.reshape(shifts[i] * tf.cast(factors, shifts.dtype), tf.shape(x))
        return [tf.where(passed[i] > 0, x, stopped) + tf.cast(shift, x.dtype)]

    values = program.values(inputs, run)
    return map_nest(values.__getitem__, program.outputs)


class _MomentsPattern:
    """Finds the pattern of `tf.nn.moments` by the operations that compute and use each value."""

    def __init__(self, program: Program):
        self._literals = program.literals
        self._results = set(leaves(program.outputs))
        self._makers = {number: node for node in program.nodes for number in node.outputs}
        self._users: dict[int, list[Node]] = defaultdict(list)
        for node in program.nodes:
            for number in node.inputs:
                self._users[number].append(node)

    def matches(self, node: Node) -> bool:
        """Whether it is stop(mean(x)) in mean((x - stop(mean(x)))²), or in derivatives of that."""
        if node.op.type != "StopGradient" or node.outputs[0] in self._results:
            return False
        mean = self._makers.get(node.inputs[0])
        if mean is None or mean.op.type != "Mean" or not mean.op.get_attr("keep_dims"):
            return False
        axes, centred = self._axes(mean), {mean.inputs[0], node.outputs[0]}
        users = self._users[node.outputs[0]]
        squares = [user for user in users if user.op.type == "SquaredDifference"]
        # A derivative of the variance in x inside the loss is x - stop(mean(x)), times a number.
        differences = [user for user in users if user.op.type == "Sub"]
        return (
            axes is not None
            and bool(squares)
            and len(squares) + len(differences) == len(users)
            and all(set(user.inputs) == centred for user in users)
            and all(self._is_averaged(user.outputs[0], axes) for user in squares)
        )

    def is_differentiated(self, node: Node) -> bool:
        """Whether a match is used in a derivative too."""
        return any(user.op.type == "Sub" for user in self._users[node.outputs[0]])

    def _is_averaged(self, number: int, axes: frozenset[int]) -> bool:
        """Whether every use of a value is its mean over these axes."""
        return number not in self._results and all(
            user.op.type == "Mean" and self._axes(user) == axes for user in self._users[number]
        )

    def _axes(self, mean: Node) -> frozenset[int] | None:
        """The axes of a mean, None where they are not known."""
        axes, rank = self._literals.get(mean.inputs[1]), mean.op.inputs[0].shape.rank
        if axes is None or rank is None:
            return None
        return frozenset(int(axis) % rank for axis in np.atleast_1d(axes))
