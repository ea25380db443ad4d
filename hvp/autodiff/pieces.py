"""A loss with the pieces that its operations take at one point, kept around the point.

A program runs in four lanes: at its parameters, a small step to both sides of them, and at moved
parameters. What its operations take at the parameters and not on both sides is kept in the last
lane. Loops and branches run in the four lanes at once, so that each iteration is compared with
itself.
"""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import tensorflow as tf

from hvp.autodiff.extremes import NUM_REACHING
from hvp.autodiff.op_types import op_type
from hvp.autodiff.precision import EPSILON
from hvp.autodiff.program import Node, Program, leaves
from hvp.autodiff.replay import apply, loop

Tensors = Sequence[tf.Tensor]
# Kinks cancel where their sum is smaller than their sizes by as many small steps.
CANCELLED = 30.0
# Of two entries, so many rounding steps of one long, this share is equal by chance.
CHANCES = 64.0
# The result of a test of floating-point numbers that is taken for one at a point.
TESTS = {"IsFinite": False, "IsInf": True, "IsNan": True}

# exp(-|x|) f(x) -> f(x), which has its value and its derivatives, as products take them, at zero.
SCALED = {"BesselI0e": tf.math.bessel_i0, "BesselI1e": tf.math.bessel_i1}


@dataclass(frozen=True)
class Choice:
    """An operation that takes a piece where some of its inputs are zero, or are equal.

    Attributes:
        node: the operation.
        compared: the numbers of these inputs.
        with_zero: whether they are compared with zero, not with each other.
    """

    node: Node
    compared: tuple[int, ...]
    with_zero: bool

    @property
    def moving(self) -> tuple[int, ...]:
        """Those of which one has to depend on the parameters: 0ᵖ is 1 at p = 0 alone."""
        return self.compared[1:] if self.node.op.type == "Pow" else self.compared

    def is_tied(self, values: Mapping[int, tf.Tensor]) -> tf.Tensor:
        """Where the piece is taken, by entries of the result."""
        kind, result = self.node.op.type, values[self.node.outputs[0]]
        inputs = [values[n] for n in self.compared]
        if kind in TESTS:
            return tf.equal(result, TESTS[kind])
        if kind in NUM_REACHING:
            given = [values[n] for n in self.node.inputs]
            return NUM_REACHING[kind](self.node.op, given, result) > 1
        if kind == "Relu6":
            tied = tf.equal(inputs[0], 0) | tf.equal(inputs[0], 6)
        elif kind == "Xlog1py":
            tied = tf.equal(inputs[0], 0) & tf.equal(inputs[1], -1)
        elif self.with_zero:
            tied = functools.reduce(tf.logical_and, [tf.equal(x, 0) for x in inputs])
        else:
            tied = tf.equal(*inputs)
        return tf.broadcast_to(tied, result.shape)

    def num_tied(self, tied: tf.Tensor) -> tf.Tensor:
        """How many entries are tied, zero where rounding makes as many of them equal by chance."""
        count = tf.math.count_nonzero(tied, dtype=tf.int32)
        if self.with_zero or self.node.op.type in TESTS:
            return count
        share = CHANCES * EPSILON.get(self.node.op.inputs[0].dtype, 0.0)
        by_chance = tf.cast(share * tf.cast(tf.size(tied), tf.float64), tf.int32)
        return tf.where(count > by_chance, count, 0)

    def piece(self, inputs: Tensors, values: Mapping[int, tf.Tensor]) -> tf.Tensor:
        """What TensorFlow differentiates there, with these inputs; `values` are those there."""
        op, at = self.node.op, values[self.node.outputs[0]]
        if op.type in NUM_REACHING:
            return _linearised(self.node, [values[n] for n in self.node.inputs], inputs[0])
        if op.type in ("Elu", "Maximum", "Minimum", "Xdivy"):
            return tf.broadcast_to(inputs[0], at.shape)
        if op.type in SCALED:
            return SCALED[op.type](inputs[0])
        if op.type == "LeakyRelu":
            return inputs[0] * tf.constant(op.get_attr("alpha"), inputs[0].dtype)
        return at


class Pieces:
    """The loss of a program with the pieces that it takes at its parameters, and as it is.

    Args:
        program: the loss.
        families: those of its operations, and of those in its loops and branches.
        params: the positions of its parameters among its inputs.
        nearby: a step at which values that are not constant have changed.
    """

    def __init__(
        self,
        program: Program,
        families: Sequence[Sequence[Choice]],
        params: Collection[int],
        nearby: float,
    ):
        self._program, self._params, self._nearby = program, tuple(params), nearby
        self._count = len(families)
        self._choices = {each.node: (i, each) for i, f in enumerate(families) for each in f}

    def counts(self, inputs: Tensors) -> tf.Tensor:
        """For each family the number of entries at which a piece is taken at this point alone."""
        found = [n for n in self._program.nodes if n in self._choices or self._is_holder(n)]
        part = self._program.part(self._program.inputs, [n for f in found for n in f.outputs])
        none = tf.zeros([self._count], tf.bool)
        _, counts = self._run(part, [*self._around(inputs), inputs], none)
        return counts

    def losses(
        self,
        step: tf.Tensor,
        direction: tf.Tensor,
        kept: tf.Tensor,
        inputs: Tensors,
        *,
        cancelling: bool = False,
    ) -> tf.Tensor:
        """The loss a step away, as it is and with the pieces of families that are kept.

        With `cancelling`, pieces are kept only where the kinks of a family cancel.
        """
        moved = self._moved(inputs, step, direction)
        whole = self._program.replay(*moved)
        around = self._around(inputs)
        only = self._cancelling(around) if cancelling else {}
        lanes, _ = self._run(self._program, [*around, moved], kept, only)
        pieces = [lanes[-1][n] for n in leaves(self._program.outputs)]
        return tf.stack([tf.cast(tf.add_n(each), tf.float64) for each in (whole, pieces)])

    def _cancelling(self, lanes: Sequence[Tensors]) -> dict[Node, tf.Tensor]:
        """For each operation the entries at which the kinks of its family cancel to first order.

        An entry deviates from its piece on both sides; times the slope of the loss in it, these
        are changes of the loss. Of a smooth one those on both sides, and of all operations of the
        family that have this entry, add up to zero.
        """
        at, *sides = [self._program.values(lane) for lane in lanes]
        groups: dict[tuple[int, tuple[int, ...]], list[Choice]] = defaultdict(list)
        for node in self._program.nodes:
            if node in self._choices and at[node.outputs[0]].dtype.is_floating:
                i, choice = self._choices[node]
                groups[i, tuple(at[node.outputs[0]].shape)].append(choice)
        choices = [choice for group in groups.values() for choice in group]
        found = self._slopes(lanes[0], [choice.node for choice in choices])
        slopes = dict(zip(choices, found, strict=True))

        def is_cancelled(group: Sequence[Choice]) -> tf.Tensor:
            changes = [
                slopes[choice] * (side[choice.node.outputs[0]] - choice.piece(given, at))
                for choice in group
                for side in sides
                for given in [[side[n] for n in choice.node.inputs]]
            ]
            size = tf.add_n([tf.abs(change) for change in changes])
            return tf.abs(tf.add_n(changes)) <= CANCELLED * self._nearby * size

        masks = [(group, is_cancelled(group)) for group in groups.values()]
        return {choice.node: mask for group, mask in masks for choice in group}

    def _slopes(self, inputs: Tensors, nodes: Sequence[Node]) -> list[tf.Tensor]:
        """The derivatives of the loss in the first results of operations."""
        watched: dict[int, tf.Tensor] = {}
        with tf.GradientTape(watch_accessed_variables=False) as tape:

            def run(node: Node, arguments: Tensors) -> list[tf.Tensor]:
                results = apply(node, arguments)
                if node in nodes:
                    watched[nodes.index(node)] = results[0]
                    tape.watch(results[0])
                return results

            values = self._program.values(inputs, run)
            loss = tf.add_n([values[n] for n in leaves(self._program.outputs)])
        found = tape.gradient(loss, watched, unconnected_gradients="zero")
        return [tf.convert_to_tensor(found[i]) for i in range(len(nodes))]

    def _run(
        self,
        program: Program,
        lanes: Sequence[Tensors],
        kept: tf.Tensor,
        only: Mapping[Node, tf.Tensor] | None = None,
    ) -> tuple[list[dict[int, tf.Tensor]], tf.Tensor]:
        """The values in each lane, with pieces in the last, and the counts.

        The pieces of operations in `only` are taken at these of their entries alone.
        """
        at, *sides = [program.values(lane) for lane in lanes[:-1]]
        counts = tf.zeros([self._count], tf.int32)

        def run(node: Node, arguments: Tensors) -> list[tf.Tensor]:
            nonlocal counts
            if self._is_holder(node):
                others = [[values[n] for n in node.inputs] for values in (at, *sides)]
                run_body = self._loop if node.is_loop else self._branch
                results, more = run_body(node, [*others, arguments], kept)
                counts += more
                return results
            results = apply(node, arguments)
            if node not in self._choices:
                return results
            i, choice = self._choices[node]
            mask = choice.is_tied(at) & ~choice.is_tied(sides[0]) & ~choice.is_tied(sides[1])
            counts += tf.one_hot(i, self._count, dtype=tf.int32) * choice.num_tied(mask)
            if only and node in only:
                mask &= only[node]
            mask &= kept[i]

            def with_pieces(result: tf.Tensor = results[0]) -> tf.Tensor:
                return tf.where(mask, choice.piece(arguments, at), result)

            first = tf.cond(tf.reduce_any(mask), with_pieces, lambda: results[0])
            return [first, *results[1:]]

        moved = program.values(lanes[-1], run)
        return [at, *sides, moved], counts

    def _loop(
        self, node: Node, lanes: Sequence[Tensors], kept: tf.Tensor
    ) -> tuple[list[tf.Tensor], tf.Tensor]:
        """The results of a loop in the last lane, and the counts of all iterations."""
        body = node.bodies[1]

        def step(
            states: list[list[tf.Tensor]], carried: list[tf.Tensor]
        ) -> tuple[list[list[tf.Tensor]], list[tf.Tensor]]:
            after, counts = self._run(body, states, kept)
            outputs = [[values[n] for n in body.outputs] for values in after]
            return outputs, [carried[0] + counts]

        results, (counts,) = loop(node, lanes, step, [tf.zeros([self._count], tf.int32)])
        return results[-1], counts

    def _branch(
        self, node: Node, lanes: Sequence[Tensors], kept: tf.Tensor
    ) -> tuple[list[tf.Tensor], tf.Tensor]:
        """The results of a branch in the last lane; lanes that choose others are not compared."""
        chosen = [lane[0] for lane in lanes]

        def branch(body: Program) -> tuple[list[tf.Tensor], tf.Tensor]:
            values, counts = self._run(body, [lane[1:] for lane in lanes], kept)
            return [values[-1][n] for n in body.outputs], counts

        def together() -> tuple[list[tf.Tensor], tf.Tensor]:
            bodies = [functools.partial(branch, body) for body in node.bodies]
            if op_type(node.op.type).is_switch:
                return tf.switch_case(chosen[0], bodies)
            return tf.cond(tf.cast(chosen[0], tf.bool), *bodies)

        def apart() -> tuple[list[tf.Tensor], tf.Tensor]:
            return apply(node, lanes[-1]), tf.zeros([self._count], tf.int32)

        return tf.cond(tf.reduce_all(tf.equal(chosen[0], tf.stack(chosen))), together, apart)

    def _is_holder(self, node: Node) -> bool:
        """Whether it is a loop or branch with a choice inside."""
        return any(
            inner in self._choices or self._is_holder(inner)
            for body in node.bodies
            for inner in body.nodes
        )

    def _around(self, inputs: Tensors) -> list[Tensors]:
        """The inputs at the point, and a small step to both sides."""
        steps = [tf.constant(s * self._nearby) for s in (1.0, -1.0)]
        return [inputs, *(self._moved(inputs, step) for step in steps)]

    def _moved(
        self, inputs: Tensors, step: tf.Tensor, direction: tf.Tensor | float = 0.0
    ) -> list[tf.Tensor]:
        """The inputs, with the parameters moved by a step relative to their sizes."""
        moved = list(inputs)
        for position in self._params:
            x = inputs[position]
            size = tf.sqrt(tf.reduce_mean(tf.square(x)))
            size = tf.where(size > 0, size, tf.ones_like(size))
            angles = (tf.range(tf.cast(tf.size(x), tf.float32)) + position + 1) * (direction + 1.3)
            numbers = tf.sign(tf.sin(angles)) + tf.cos(1.7 * angles) / 2
            change = tf.cast(tf.reshape(numbers, tf.shape(x)), x.dtype)
            moved[position] = x + tf.cast(step, x.dtype) * size * change
        return moved


def _linearised(node: Node, inputs: Tensors, moved: tf.Tensor) -> tf.Tensor:
    """The first result, with its derivative at these inputs, where the first input is `moved`."""
    x, *others = inputs
    change = tf.where(tf.math.is_finite(moved - x), moved - x, tf.zeros_like(x))
    with tf.GradientTape() as outer:
        with tf.GradientTape() as inner:
            inner.watch(x)
            result = apply(node, [x, *others])[0]
        # Jᵀu is linear in u, and its gradient in u along the change is the change of the result.
        u = tf.ones_like(result)
        outer.watch(u)
        pulled = inner.gradient(result, x, output_gradients=u)
    return result + outer.gradient(pulled, u, output_gradients=change)
