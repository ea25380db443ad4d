"""What a program can be differentiated in, asked of each operation before any work.

TensorFlow gives None both for a derivative that is zero and for one that it does not have. Here
the two are told apart: on every path from the parameters to the results each operation is
asked for its gradient, so that afterwards a missing derivative is a proven zero.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NoReturn

import tensorflow as tf

from hvp.autodiff.op_types import linear_inputs
from hvp.autodiff.program import Node, Program
from hvp.errors import Finding, InputError

# Piecewise constant functions of floating-point inputs: TensorFlow gives None, the derivative is 0.
LOCALLY_CONSTANT = {
    "Ceil", "Floor", "FloorDiv", "OnesLike", "Rint", "Round", "Sign", "StopGradient", "ZerosLike",
}  # fmt: skip
# Linear operations for which TensorFlow has no gradient. It has one for all others of
# `hvp.linearity`, as the tests ask, so that they are not asked each time.
WITHOUT_GRADIENT = {"ResizeNearestNeighborGrad", "SoftsignGrad"}
# Inputs with which TensorFlow's registered gradient leaves second derivatives out.
INCOMPLETE = {"SoftmaxCrossEntropyWithLogits": 1}
# Operations whose registered gradient is not that of complex numbers, by differences (2.21).
WRONG_IF_COMPLEX = {
    "Cumprod", "LogMatrixDeterminant", "MatrixDeterminant", "MatrixSquareRoot",
    "MulNoNan", "SegmentProd", "SquaredDifference", "TridiagonalSolve", "UnsortedSegmentProd",
    "Xdivy", "Xlog1py", "Xlogy",
}  # fmt: skip


def differentiable_paths(program: Program, sources: Collection[int]) -> set[int]:
    """The values through which the derivatives with respect to the values `sources` flow.

    Raises InputError, naming operation and layer, where an operation on such a path has no gradient
    or silently leaves it out.
    """
    active = set(sources)
    asked: dict[tuple[str, tuple[int, ...]], Node] = {}
    for node in program.nodes:
        types = {n: program.specs[n].dtype for n in (*node.inputs, *node.outputs)}
        flows = [i for i, n in enumerate(node.inputs) if n in active]
        results = [n for n in node.outputs if _is_continuous(types[n])]
        if not flows or not results or node.op.type in LOCALLY_CONSTANT:
            continue
        if node.bodies:
            results = _through(node, flows)
        elif tf.variant not in types.values():
            kind = node.op.type
            if kind in WRONG_IF_COMPLEX and any(types[n].is_complex for n in node.inputs):
                _refuse(node, "whose derivative TensorFlow has wrong for complex numbers")
            known = () if kind in WITHOUT_GRADIENT else linear_inputs(kind, len(node.inputs))
            doubtful = tuple(i for i in flows if i not in known)
            if doubtful:
                asked.setdefault((kind, doubtful), node)
        active.update(results)
    if asked:
        _judge(program, [(node, positions) for (_, positions), node in asked.items()])
    return active


def _through(node: Node, flows: Collection[int]) -> list[int]:
    """The results of a loop or a branch that derivatives reach from the inputs at `flows`."""
    if not node.is_loop:
        reached = [_reached(body, {i - 1 for i in flows if i > 0}) for body in node.bodies]
        return [node.outputs[i] for i in set().union(*reached)]
    positions, before = set(flows), set[int]()
    while positions != before:  # a loop hands its results to its next round
        before = positions
        positions = before | _reached(node.bodies[1], before)
    return [node.outputs[i] for i in positions]


def _reached(body: Program, positions: Collection[int]) -> set[int]:
    """The positions of a body's results that derivatives reach from those of its inputs."""
    active = differentiable_paths(body, [body.inputs[i] for i in positions])
    return {i for i, number in enumerate(body.outputs) if number in active}


def unreached(program: Program, sources: Collection[int], active: Collection[int]) -> set[int]:
    """The `sources` from which no differentiable path leads to the outputs."""
    outputs = set(tf.nest.flatten(program.outputs))
    useful = outputs & set(active)
    for node in reversed(program.nodes):
        if useful & set(node.outputs):
            useful.update(set(node.inputs) & set(active))
    return set(sources) - useful


def stop_findings(program: Program, active: Collection[int]) -> list[Finding]:
    """A finding for each StopGradient on the path: the layer's function has other derivatives."""
    message = "stop_gradient: what it holds is a constant for H and G, as for the gradient"
    remedy = "take it out where it should be differentiated"
    return [
        Finding("different", node.place, message, node.op.type, remedy)
        for node in program.nodes
        if node.op.type == "StopGradient" and node.inputs[0] in active
    ]


def loop_findings(program: Program, active: Collection[int]) -> list[Finding]:
    """A note for each loop and branch on the path, or each list of tensors where there is none."""
    how = "differentiated by reverse-over-reverse, vectors taken one by one"
    looped = [n for n in program.nodes if program.is_looped(n) and set(active) & set(n.outputs)]
    loops = [node for node in looped if node.bodies]
    what = "a loop or branch" if loops else "a list of tensors"
    return [Finding("note", n.place, f"{what}: {how}", n.op.type) for n in loops or looped]


def lower_precisions(
    program: Program, active: Collection[int], dtype: tf.DType
) -> dict[str, tf.DType]:
    """Place -> precision, where it computes on the path in less than `dtype`."""
    lower: dict[str, tf.DType] = {}
    for node in program.nodes:
        for body in node.bodies:
            lower |= lower_precisions(body, body.specs, dtype)
        for kind in (program.specs[n].dtype for n in node.outputs if n in active):
            if kind.is_floating and kind.size < dtype.size:
                lower.setdefault(node.place, kind)
    return lower


def _is_continuous(dtype: tf.DType) -> bool:
    """Whether a tensor of this type can carry derivatives; lists of tensors may."""
    return dtype.is_floating or dtype.is_complex or dtype == tf.variant


def _judge(program: Program, nodes: Sequence[tuple[Node, Collection[int]]]) -> None:
    """Ask operations, each made anew by itself, for their gradients in the inputs at positions."""
    alone = [
        program.part(
            dict.fromkeys(n for n in node.inputs if n not in program.literals), node.outputs
        )
        for node, _ in nodes
    ]

    def ask(*inputs: list[tf.Tensor]) -> None:
        for (node, flows), one, given in zip(nodes, alone, inputs, strict=True):
            tensors = one.values(given)
            for position in flows:
                _require_gradient(node, position, tensors)

    # The operations exist while it is traced.
    specs = [[one.specs[number] for number in one.inputs] for one in alone]
    tf.function(ask, autograph=False).get_concrete_function(*specs)


def _require_gradient(node: Node, position: int, tensors: dict[int, tf.Tensor]) -> None:
    results = [tensors[n] for n in node.outputs if _is_continuous(tensors[n].dtype)]
    inputs = [tensors[number] for number in node.inputs]
    ones = [tf.ones_like(tensor) for tensor in results]
    why = f"which TensorFlow cannot differentiate in its input {position}"
    try:
        (found,) = tf.gradients(results, [inputs[position]], grad_ys=ones, stop_gradients=inputs)
    except (LookupError, NotImplementedError, ValueError, TypeError) as error:
        _refuse(node, why, error)
    if found is None or INCOMPLETE.get(node.op.type) == position:
        _refuse(node, why)


def _refuse(node: Node, why: str, error: Exception | None = None) -> NoReturn:
    raise InputError(
        "a loss that is twice differentiable in its parameters",
        f"{node}, {why}",
        "replace the operation, or leave the parameters before it out of variables=",
    ) from error
