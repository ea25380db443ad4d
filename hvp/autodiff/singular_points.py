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

from hvp.autodiff.distinct_indices import Known, KnownValues
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
        indices: of the number of its inputs, those that are indices. With distinct ones it is
            regular, also inside a loop or branch; others are refused there.
    """

    distance: Callable[[Tensors, Tensors], tf.Tensor]
    at: str
    remedy: str
    indices: Callable[[int], range] | None = None

    @property
    def in_loops(self) -> str:
        """What is expected inside of a loop or branch, where no other values are known."""
        if self.indices is None:
            return "decompositions outside of loops and branches"
        return "indices that are distinct whatever the values in a loop or branch are"

    @property
    def remedy_in_loops(self) -> str:
        if self.indices is None:
            return "call it once for a batch of matrices"
        return "write one place in each iteration, constant places, or a range from any start"


# Nearer points are refused in float64; in lower precisions those within the root of the precision.
MIN_DISTANCE = 1e-6


def refuse_in_loops(program: Program, active: Collection[int]) -> None:
    """Raise InputError for an operation inside a loop or branch, whose points are not known."""
    _refuse_in_loops(program, active, KnownValues(program, {}))


def _refuse_in_loops(program: Program, active: Collection[int], known: KnownValues) -> None:
    for outer in program.nodes:
        if outer.bodies and set(outer.inputs) & set(active):
            given = known.of(outer.inputs)
            for body in outer.bodies[1:] if outer.is_loop else outer.bodies:
                _refuse_in_body(outer, body, active, given)


def _refuse_in_body(
    outer: Node, body: Program, active: Collection[int], given: Sequence[Known | None]
) -> None:
    arguments = dict(zip(body.inputs, given[len(given) - len(body.inputs) :], strict=True))
    if outer.is_loop:
        pairs = zip(body.inputs, body.outputs, strict=True)
        arguments |= dict.fromkeys(before for before, after in pairs if before != after)
    known = KnownValues(body, {n: each for n, each in arguments.items() if each is not None})
    reached = outer.reached_in(body, active)
    _refuse_in_loops(body, reached, known)
    for node in body.nodes:
        point = SINGULAR_POINTS.get(node.op.type)
        dtypes = [body.specs[n].dtype for n in node.inputs if n in reached]
        if point is None or not any(dtype.is_floating or dtype.is_complex for dtype in dtypes):
            continue
        count = len(node.inputs)
        indices = [] if point.indices is None else [node.inputs[i] for i in point.indices(count)]
        if not indices or not known.are_distinct(indices):
            raise InputError(point.in_loops, f"{node}, in a loop or branch", point.remedy_in_loops)


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
    lists = [tf.reshape(inputs[i], [-1, 1]) for i in _first_half(len(inputs))]
    return _repeated(tf.concat(lists, 0))


def _repeated_rows(inputs: Tensors, outputs: Tensors) -> tf.Tensor:
    """0 where a row of the second input stands twice, else 1."""
    indices = inputs[1]
    return _repeated(tf.reshape(indices, [-1, indices.shape[-1]]))


def _repeated(rows: tf.Tensor) -> tf.Tensor:
    kept = tf.raw_ops.UniqueV2(x=rows, axis=[0]).y
    return tf.cast(tf.equal(tf.shape(kept)[0], tf.shape(rows)[0]), tf.float64)


def _first_half(count: int) -> range:
    return range(count // 2)


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
    "DynamicStitch": SingularPoint(_repeated_in_lists, "an index given twice", _ONCE, _first_half),
    "Eig": SingularPoint(_complex_eigenvalues, "two equal eigenvalues", _VALUES),
    "ParallelDynamicStitch": SingularPoint(
        _repeated_in_lists, "an index given twice", _ONCE, _first_half
    ),
    "SelfAdjointEigV2": SingularPoint(_eigenvalues, "two equal eigenvalues", _VALUES),
    "TensorScatterUpdate": SingularPoint(
        _repeated_rows, "an index given twice", _ONCE, lambda count: range(1, 2)
    ),
    "Svd": SingularPoint(
        _singular_values, "two equal singular values or one of zero", _SINGULAR_VALUES
    ),
    "Qr": SingularPoint(
        _jump, "dependent columns or columns whose signs jump", "use tf.linalg.cholesky of AᵀA"
    ),
}
