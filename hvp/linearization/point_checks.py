"""What the numbers of each batch refuse: operations at points where their derivatives are wrong."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from hvp.autodiff import differentiability, isolated_points, precision, singular_points
from hvp.autodiff.isolated_points import Family, Pieces
from hvp.autodiff.program import Node, Program
from hvp.autodiff.tensorflow_private import compiled

Tensors = Sequence[tf.Tensor]
Check = Callable[[Tensors, str], None]


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
            dtypes = [inputs[i].dtype for i in chosen]
            lower = differentiability.lower_precisions(loss, active, dtypes[0])
            dtypes += [dtype for dtype, _ in lower.values()]
            epsilon = max(precision.EPSILON[dtype] for dtype in dtypes)
            pieces = Pieces(loss, families, chosen, isolated_points.near_step(epsilon))
            self._checks.append(_IsolatedPoints(pieces, families, epsilon, specs))

    @property
    def is_needed(self) -> bool:
        """Whether anything is checked."""
        return bool(self._checks)

    def check(self, inputs: Tensors, where: str) -> None:
        """Raise InputError where a derivative is wrong for these inputs, of the batch `where`."""
        for check in self._checks:
            check(inputs, where)


class _Distances:
    """That operations are far from their singular points."""

    def __init__(self, loss: Program, nodes: Sequence[Node], specs: Sequence[tf.TensorSpec]):
        self._nodes = nodes
        self._run = compiled(lambda *given: singular_points.distances(loss, nodes, given), specs)

    def __call__(self, inputs: Tensors, where: str) -> None:
        for node, distance in zip(self._nodes, self._run(inputs), strict=True):
            eps = float(np.finfo(node.op.outputs[0].dtype.real_dtype.as_numpy_dtype).eps)
            singular_points.require_regular(node, float(distance), eps, where)


class _IsolatedPoints:
    """That the pieces which a loss takes at a point alone have the derivatives of the loss."""

    def __init__(
        self,
        pieces: Pieces,
        families: Sequence[Family],
        epsilon: float,
        specs: Sequence[tf.TensorSpec],
    ):
        self._pieces, self._families, self._epsilon = pieces, families, epsilon
        self._specs = specs
        self._counts = compiled(lambda *inputs: [pieces.counts(inputs)], specs)

    def __call__(self, inputs: Tensors, where: str) -> None:
        (counts,) = self._counts(inputs)
        for i in np.flatnonzero(counts.numpy()).tolist():
            kept = tf.constant(np.arange(len(self._families)) == i)

            def losses(h: float, way: int, kept: tf.Tensor = kept) -> tuple[float, float]:
                step, direction = (tf.constant(x, tf.float32) for x in (h, way))
                (found,) = self._losses([step, direction, kept, *inputs])
                return float(found[0]), float(found[1])

            isolated_points.require_no_point(self._families[i], losses, self._epsilon, where)

    @functools.cached_property
    def _losses(self) -> Callable[[Tensors], list[tf.Tensor]]:
        """Compiled once there is such a point."""
        pieces = self._pieces
        number = tf.TensorSpec([], tf.float32)
        kept = tf.TensorSpec([len(self._families)], tf.bool)
        return compiled(
            lambda step, way, kept, *inputs: [pieces.losses(step, way, kept, inputs)],
            [number, number, kept, *self._specs],
        )
