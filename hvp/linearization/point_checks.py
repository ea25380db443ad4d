"""What the numbers of each batch refuse: operations at points where their derivatives are wrong."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import tensorflow as tf

from hvp.autodiff import differentiability, isolated_points, precision, singular_points
from hvp.autodiff.isolated_points import Family
from hvp.autodiff.piece_differences import Losses, near_step
from hvp.autodiff.pieces import Pieces
from hvp.autodiff.program import Node, Program
from hvp.autodiff.tensorflow_private import compiled
from hvp.errors import Finding, InputError

Tensors = Sequence[tf.Tensor]
Check = Callable[[Tensors, str], Iterable[Finding]]


class PointChecks:
    """The checks of a loss at its parameters.

    Args:
        loss: the program that products differentiate.
        chosen: the positions of its parameters among its inputs.
        inputs: its inputs, for their shapes and types.
    """

    def __init__(self, loss: Program, chosen: Sequence[int], inputs: Tensors):
        params = [loss.inputs[i] for i in chosen]
        specs = [tf.TensorSpec(t.shape, t.dtype) for t in inputs]
        active = differentiability.differentiable_paths(loss, params)
        self._checks: list[Check] = []
        singular_points.refuse_in_loops(loss, active)
        if nodes := singular_points.checked_nodes(loss, active):
            self._checks.append(_Distances(loss, nodes, specs))
        if families := isolated_points.families(loss, params):
            epsilon = max(
                differentiability.lowest_epsilon(loss, active, inputs[i].dtype) for i in chosen
            )
            self._checks.append(_IsolatedPoints(loss, families, chosen, epsilon, specs))

    @property
    def is_needed(self) -> bool:
        """Whether anything is checked."""
        return bool(self._checks)

    def check(self, inputs: Tensors, where: str) -> list[Finding]:
        """The findings for these inputs, of the batch `where`.

        Raises InputError where a derivative is wrong.
        """
        return [finding for check in self._checks for finding in check(inputs, where)]


class _Distances:
    """That operations are far from their singular points."""

    def __init__(self, loss: Program, nodes: Sequence[Node], specs: Sequence[tf.TensorSpec]):
        self._nodes = nodes
        self._run = compiled(lambda *given: singular_points.distances(loss, nodes, given), specs)

    def __call__(self, inputs: Tensors, where: str) -> Iterable[Finding]:
        for node, distance in zip(self._nodes, self._run(inputs), strict=True):
            eps = float(np.finfo(node.op.outputs[0].dtype.real_dtype.as_numpy_dtype).eps)
            singular_points.require_regular(node, float(distance), eps, where)
        return ()


class _IsolatedPoints:
    """That the pieces which a loss takes at a point alone have the derivatives of the loss."""

    def __init__(
        self,
        loss: Program,
        families: Sequence[Family],
        chosen: Sequence[int],
        epsilon: float,
        specs: Sequence[tf.TensorSpec],
    ):
        self._loss, self._families, self._chosen = loss, families, chosen
        self._epsilon, self._specs = epsilon, specs
        pieces = self._pieces(loss, families, epsilon)
        self._losses = _Losses(pieces, len(families), specs)
        self._counts = compiled(lambda *inputs: [pieces.counts(inputs)], specs)

    def __call__(self, inputs: Tensors, where: str) -> Iterator[Finding]:
        (counts,) = self._counts(inputs)
        for i in np.flatnonzero(counts.numpy()).tolist():
            if self._is_kink(i, inputs, where):
                yield from isolated_points.findings(self._families[i], where)

    def _is_kink(self, i: int, inputs: Tensors, where: str) -> bool:
        """Whether the loss has a kink where the operations of family i take other pieces.

        Raises InputError where it has none and their pieces are not the loss.
        """
        if self._require(i, self._losses, inputs, self._epsilon, where):
            return True
        if self._exact is None:
            return False
        exactly = [precision.cast(tensor, tf.float64) for tensor in inputs]
        return self._require(i, self._exact, exactly, precision.EPSILON[tf.float64], where)

    def _require(
        self, i: int, losses: _Losses, inputs: Tensors, epsilon: float, where: str
    ) -> bool:
        """The same in one precision. Beside kinks those that cancel are compared by themselves."""
        family, require = self._families[i], isolated_points.require_no_point
        is_kink = require(family, losses.of(i, inputs), epsilon, where)
        if is_kink:
            require(family, losses.of(i, inputs, cancelling=True), epsilon, where)
        return is_kink

    @functools.cached_property
    def _exact(self) -> _Losses | None:
        """The losses in float64, which have digits that theirs lack, if there are any."""
        epsilon = precision.EPSILON[tf.float64]
        if self._epsilon == epsilon:
            return None
        loss = precision.promote(self._loss, tf.float64)
        families = isolated_points.in_copy(self._families, self._loss, loss)
        specs = [loss.specs[n] for n in loss.inputs]
        losses = _Losses(self._pieces(loss, families, epsilon), len(families), specs)
        return losses if losses.exist else None

    def _pieces(self, loss: Program, families: Sequence[Family], epsilon: float) -> Pieces:
        nearby = near_step(epsilon)
        return Pieces(loss, [family.choices for family in families], self._chosen, nearby)


class _Losses:
    """A loss and its pieces around a point, compiled once there is such a point."""

    def __init__(self, pieces: Pieces, count: int, specs: Sequence[tf.TensorSpec]):
        self._pieces, self._count, self._specs = pieces, count, specs
        self._compiled: dict[bool, Callable[[Tensors], list[tf.Tensor]]] = {}

    @property
    def exist(self) -> bool:
        """Whether TensorFlow has all its operations in this precision."""
        try:
            return self._run(cancelling=False) is not None
        except InputError:
            return False

    def of(self, family: int, inputs: Tensors, *, cancelling: bool = False) -> Losses:
        """As functions of a step and a direction, with the pieces of one family.

        With `cancelling`, these are kept only where its kinks cancel.
        """
        kept = tf.constant(np.arange(self._count) == family)
        run = self._run(cancelling=cancelling)

        def losses(h: float, way: int) -> tuple[float, float]:
            step, direction = (tf.constant(x, tf.float32) for x in (h, way))
            (found,) = run([step, direction, kept, *inputs])
            return float(found[0]), float(found[1])

        return losses

    def _run(self, *, cancelling: bool) -> Callable[[Tensors], list[tf.Tensor]]:
        if cancelling not in self._compiled:
            losses = functools.partial(self._pieces.losses, cancelling=cancelling)
            number = tf.TensorSpec([], tf.float32)
            kept = tf.TensorSpec([self._count], tf.bool)
            self._compiled[cancelling] = compiled(
                lambda step, way, kept, *inputs: [losses(step, way, kept, inputs)],
                [number, number, kept, *self._specs],
            )
        return self._compiled[cancelling]
