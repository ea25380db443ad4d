"""Points at which TensorFlow's second derivatives of an operation are wrong: found from the data.

TensorFlow differentiates a decomposition by reciprocals of differences of its values, and takes
1/0 to be zero: where two values are equal the result is wrong without a sign of it. Such an
operation is refused at such a point. Everywhere else its derivatives are right.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from hvp.autodiff.program import Node, Program, leaves
from hvp.errors import InputError

Tensors = Sequence[tf.Tensor]


@dataclass(frozen=True)
class SingularPoint:
    """Where an operation has no second derivative that TensorFlow gets right.

    Attributes:
        distance: of its inputs and its results, how far it is from such a point: a number that is
            compared with the square root of the precision, or with `MIN_DISTANCE`.
        at: what is true at such a point.
        remedy: what to do there.
        is_rare: whether it is taken as regular inside a loop or branch, where its inputs are not
            known; others are refused there.
    """

    distance: Callable[[Tensors, Tensors], tf.Tensor]
    at: str
    remedy: str
    is_rare: bool = False


# Nearer points are refused in float64; in lower precisions those within the root of the precision.
MIN_DISTANCE = 1e-6


def refuse_in_loops(program: Program, active: Collection[int]) -> None:
    """Raise InputError for an operation inside a loop or branch, whose points are not known."""
    for outer in program.nodes:
        if not outer.bodies or not set(outer.inputs) & set(active):
            continue
        for body in outer.bodies:
            refuse_in_loops(body, body.specs)
            for node in body.nodes:
                point = SINGULAR_POINTS.get(node.op.type)
                if point is not None and not point.is_rare:
                    raise InputError(
                        "decompositions outside of loops and branches",
                        f"{node}, in a loop or branch",
                        "call it once for a batch of matrices",
                    )


def checked_nodes(program: Program, active: Collection[int]) -> list[Node]:
    """The operations to check that lie on a path of derivatives to the outputs."""
    useful = set(leaves(program.outputs)) & set(active)
    found = []
    for node in reversed(program.nodes):
        if useful & set(node.outputs):
            reached = set(node.inputs) & set(active)
            useful.update(reached)
            if reached and node.op.type in SINGULAR_POINTS:
                found.append(node)
    return found[::-1]


def distances(program: Program, nodes: Sequence[Node], inputs: Tensors) -> list[tf.Tensor]:
    """How far each operation is from its singular points, with these inputs of the program."""
    needed = [n for node in nodes for n in (*node.inputs, *node.outputs)]
    values = program.part(program.inputs, needed).values(inputs)
    return [
        SINGULAR_POINTS[node.op.type].distance(
            [values[n] for n in node.inputs], [values[n] for n in node.outputs]
        )
        for node in nodes
    ]


def require_regular(node: Node, distance: float, eps: float, where: str) -> None:
    """Raise InputError where an operation is at a singular point, in the batch `where`."""
    if distance > max(MIN_DISTANCE, float(np.sqrt(eps))):
        return
    point = SINGULAR_POINTS[node.op.type]
    near = f" (to {distance:.0e} of the largest)" if distance else ""
    raise InputError(
        "operations whose derivatives TensorFlow has right at this point",
        f"{node} with {point.at}{near}, in {where}",
        point.remedy,
    )


def _gap(values: tf.Tensor) -> tf.Tensor:
    """The smallest difference of two values (…, n) in a row, by the largest value."""
    order = tf.sort(tf.math.real(values), axis=-1)
    largest = tf.reduce_max(tf.abs(values), -1, keepdims=True)
    return _smallest(tf.math.divide_no_nan(order[..., 1:] - order[..., :-1], largest))


def _smallest(values: tf.Tensor) -> tf.Tensor:
    flat = tf.cast(tf.reshape(values, [-1]), tf.float64)
    return tf.reduce_min(tf.concat([flat, tf.ones([1], tf.float64)], 0))


def _eigenvalues(inputs: Tensors, outputs: Tensors) -> tf.Tensor:
    return _gap(outputs[0])


def _singular_values(inputs: Tensors, outputs: Tensors) -> tf.Tensor:
    """The gap of the squares, and of the smallest value to zero."""
    squares = outputs[0] ** 2
    largest = tf.reduce_max(outputs[0], -1, keepdims=True)
    return tf.minimum(_gap(squares), _smallest(tf.math.divide_no_nan(outputs[0], largest)))


def _complex_eigenvalues(inputs: Tensors, outputs: Tensors) -> tf.Tensor:
    values = outputs[0]
    count = tf.shape(values)[-1]
    size = tf.abs(values[..., :, None] - values[..., None, :])
    largest = tf.reduce_max(tf.abs(values), -1, keepdims=True)[..., None]
    relative = tf.math.divide_no_nan(size, largest)
    return _smallest(relative + tf.eye(count, dtype=size.dtype))


def _jump(inputs: Tensors, outputs: Tensors) -> tf.Tensor:
    """One minus the change of R under a small change of A, by the size of R."""
    (a,) = inputs
    r = outputs[1]
    size = tf.reduce_max(tf.abs(a))
    step = tf.cast(tf.sqrt(tf.constant(np.finfo(a.dtype.real_dtype.as_numpy_dtype).eps)), a.dtype)
    count = tf.size(a)
    noise = tf.reshape(tf.sin(tf.cast(tf.range(1, count + 1), size.dtype)), tf.shape(a))
    _, moved = tf.linalg.qr(a + step * tf.cast(size * noise, a.dtype))
    rows = tf.shape(moved)[-2]
    change = tf.reduce_max(tf.abs(moved - r[..., :rows, :])) / size
    diagonal = _smallest(tf.abs(tf.linalg.diag_part(r)) / size)
    return tf.where(change > 0.01, tf.zeros([], tf.float64), diagonal)


def _repeated_in_lists(inputs: Tensors, outputs: Tensors) -> tf.Tensor:
    """0 where an index stands twice in the first half of the inputs, else 1."""
    lists = inputs[: len(inputs) // 2]
    return _repeated(tf.concat([tf.reshape(indices, [-1, 1]) for indices in lists], 0))


def _repeated_rows(inputs: Tensors, outputs: Tensors) -> tf.Tensor:
    """0 where a row of the second input stands twice, else 1."""
    indices = inputs[1]
    return _repeated(tf.reshape(indices, [-1, indices.shape[-1]]))


def _repeated(rows: tf.Tensor) -> tf.Tensor:
    kept = tf.raw_ops.UniqueV2(x=rows, axis=[0]).y
    return tf.cast(tf.equal(tf.shape(kept)[0], tf.shape(rows)[0]), tf.float64)


_ONCE = "give each index once: of values at the same place, TensorFlow counts all in the gradient"
_VALUES = (
    "write a sum over the eigenvalues as a function of the matrix A, which has derivatives there: "
    "tf.linalg.logdet(A) for that of their logarithms, tf.linalg.trace(A @ A) for that of their "
    "squares, the trace of tf.linalg.expm(A), sqrtm(A) or inv(A)"
)
_SINGULAR_VALUES = (
    "write a sum over the singular values as a function of the matrix A: tf.reduce_sum(A**2) for "
    "that of their squares; tf.linalg.trace(tf.linalg.sqrtm(AᵀA)) for their own, which has "
    "derivatives where none of them is zero"
)
SINGULAR_POINTS = {
    "DynamicStitch": SingularPoint(_repeated_in_lists, "an index given twice", _ONCE, is_rare=True),
    "Eig": SingularPoint(_complex_eigenvalues, "two equal eigenvalues", _VALUES),
    "ParallelDynamicStitch": SingularPoint(
        _repeated_in_lists, "an index given twice", _ONCE, is_rare=True
    ),
    "SelfAdjointEigV2": SingularPoint(_eigenvalues, "two equal eigenvalues", _VALUES),
    "TensorScatterUpdate": SingularPoint(
        _repeated_rows, "an index given twice", _ONCE, is_rare=True
    ),
    "Svd": SingularPoint(
        _singular_values, "two equal singular values or one of zero", _SINGULAR_VALUES
    ),
    "Qr": SingularPoint(
        _jump, "dependent columns or columns whose signs jump", "use tf.linalg.cholesky of AᵀA"
    ),
}
