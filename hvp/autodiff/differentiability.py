"""Checks, before any product, that a program can be differentiated.

TensorFlow gives None both for a derivative that is zero and for one that it does not have. This
module separates the two: it asks TensorFlow for the gradient of each operation on the paths from
the parameters to the results, and refuses an operation without one. Afterwards every derivative
that TensorFlow gives as None is known to be zero.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NoReturn

import tensorflow as tf

from hvp.autodiff.kinks import ORDERS
from hvp.autodiff.op_types import op_type
from hvp.autodiff.precision import EPSILON
from hvp.autodiff.program import Node, Program
from hvp.autodiff.tensorflow_errors import raise_own
from hvp.errors import Finding, InputError


def differentiable_paths(program: Program, sources: Collection[int]) -> set[int]:
    """The values through which derivatives with respect to the values `sources` flow.

    Raises InputError, which names the operation and the layer, where an operation on such a path
    has no gradient, or one that TensorFlow is known to have incomplete or wrong.
    """
    active = set(sources)
    unproved: dict[tuple[str, tuple[int, ...]], Node] = {}
    for node in program.nodes:
        known = op_type(node.op.type)
        types = {n: program.specs[n].dtype for n in (*node.inputs, *node.outputs)}
        used = [i for i in range(len(node.inputs)) if i not in known.ignores]
        positions = [i for i in used if node.inputs[i] in active]
        results = [n for n in node.outputs if _is_continuous(types[n])]
        if not positions or not results or known.locally_constant:
            continue
        if node.bodies:
            results = _reached_results(node, positions)
        elif tf.variant not in types.values():
            if known.is_drawn:
                why = "whose gradient in TensorFlow is not the derivative of the numbers it draws"
                _refuse(node, why)
            if any(types[n].is_complex for n in node.inputs):
                _refuse_wrong_if_complex(node)
            linear = () if known.without_gradient else known.linear_inputs(len(node.inputs))
            others = tuple(i for i in positions if i not in linear)
            if others:
                unproved.setdefault((node.op.type, others), node)
        active.update(results)
    if unproved:
        _require_gradients(program, [(node, others) for (_, others), node in unproved.items()])
    return active


def _refuse_wrong_if_complex(node: Node) -> None:
    known = op_type(node.op.type)
    if known.wrong_if_complex:
        _refuse(node, "whose derivative TensorFlow has wrong for complex numbers")
    if known.twice_wrong_if_complex:
        _refuse(node, "whose second derivative TensorFlow has wrong for complex numbers")


def _reached_results(node: Node, positions: Collection[int]) -> list[int]:
    """The results of a loop or a branch that derivatives reach from the inputs at `positions`."""
    if not node.is_loop:
        inputs = {i - 1 for i in positions if i > 0}  # input 0 chooses the branch
        reached = [_reached_positions(body, inputs) for body in node.bodies]
        return [node.outputs[i] for i in set().union(*reached)]
    found, before = set(positions), set[int]()
    while found != before:  # the results of one iteration are the inputs of the next
        before = found
        found = before | _reached_positions(node.bodies[1], before)
    return [node.outputs[i] for i in found]


def _reached_positions(body: Program, positions: Collection[int]) -> set[int]:
    """The positions of a body's results that derivatives reach from its inputs at `positions`."""
    active = differentiable_paths(body, [body.inputs[i] for i in positions])
    return {i for i, number in enumerate(body.outputs) if number in active}


def unreached(program: Program, sources: Collection[int], active: Collection[int]) -> set[int]:
    """Those of the `sources` from which no differentiable path leads to the outputs."""
    outputs = set(tf.nest.flatten(program.outputs))
    useful = outputs & set(active)
    for node in reversed(program.nodes):
        if useful & set(node.outputs):
            useful.update(set(node.inputs) & set(active))
    return set(sources) - useful


def stops(program: Program, active: Collection[int], traced: int) -> list[Node]:
    """The StopGradients on the path, among the first `traced` values, which the user wrote."""
    return [
        node
        for node in program.nodes
        if node.op.type == "StopGradient" and node.inputs[0] in active and node.outputs[0] < traced
    ]


def wrong_gradients(program: Program, active: Collection[int]) -> list[Node]:
    """Operations on the path whose gradient in TensorFlow may differ from their derivative."""
    return [
        node
        for node in program.nodes
        if op_type(node.op.type).gradient_may_be_wrong and set(node.inputs) & set(active)
    ]


def rounding_findings(program: Program, active: Collection[int]) -> list[Finding]:
    """A finding for each operation on the path that rounds, and whose gradient does not."""
    message = (
        "its values are those of steps: H and G, as the gradient, take it for the identity within "
        "its range (straight through)"
    )
    return [
        Finding("different", node.place, f"{node.op.type}: {message}", node.op.type)
        for node in program.nodes
        if op_type(node.op.type).is_straight_through and set(node.inputs) & set(active)
    ]


def loop_findings(program: Program, active: Collection[int]) -> list[Finding]:
    """A note for each loop and branch on the path; without any, for each list of tensors.

    They name the operation: several of one place would read the same.
    """
    how = "differentiated by reverse-over-reverse, one vector at a time"
    looped = [n for n in program.nodes if program.is_looped(n) and set(active) & set(n.outputs)]
    loops = [node for node in looped if node.bodies]
    what = "a loop or branch" if loops else "a list of tensors"
    return [
        Finding("note", n.place, f"{what} ({n.op.type}): {how}", n.op.type) for n in loops or looped
    ]


def comparing_loop(program: Program, sources: Collection[int]) -> Node | None:
    """A loop that compares numbers which depend on the values `sources`, None if there is none.

    Such a loop may choose its result, as bisection does, whose derivatives are not those of the
    number that it finds.
    """
    reached = program.reach(sources)
    for node in program.nodes:
        for body in node.bodies[1:] if node.is_loop else node.bodies:
            inside = node.reached_in(body, reached)
            found = comparing_loop(body, inside)
            if found is not None or (node.is_loop and _compares(body, inside)):
                return found or node
    return None


def _compares(body: Program, reached: set[int]) -> bool:
    """Whether an operation of a body, or of one inside of it, compares numbers among `reached`."""
    return any(
        (
            node.op.type in ORDERS
            and bool(reached & set(node.inputs))
            and body.specs[node.inputs[0]].dtype.is_floating
        )
        or any(_compares(inner, node.reached_in(inner, reached)) for inner in node.bodies)
        for node in body.nodes
    )


def lower_precisions(
    program: Program, active: Collection[int], dtype: tf.DType
) -> dict[str, tuple[tf.DType, Node]]:
    """Place -> precision and first operation, where the path computes in less than `dtype`."""
    lower: dict[str, tuple[tf.DType, Node]] = {}
    for node in program.nodes:
        for body in node.bodies:
            lower |= lower_precisions(body, body.specs, dtype)
        for found in (program.specs[n].dtype for n in node.outputs if n in active):
            if found.is_floating and found.size < dtype.size:
                lower.setdefault(node.place, (found, node))
    return lower


def lowest_epsilon(program: Program, active: Collection[int], dtype: tf.DType) -> float:
    """The machine epsilon of the lowest precision on the path from parameters of type `dtype`."""
    lower = lower_precisions(program, active, dtype).values()
    return max(EPSILON[each] for each in (dtype, *(found for found, _ in lower)))


def _is_continuous(dtype: tf.DType) -> bool:
    """Whether tensors of this type can have derivatives, as lists of tensors may."""
    return dtype.is_floating or dtype.is_complex or dtype == tf.variant


def _require_gradients(program: Program, nodes: Sequence[tuple[Node, Collection[int]]]) -> None:
    """Raise InputError unless TensorFlow has the gradients of nodes in their inputs at positions.

    Each operation is created alone, in a graph that is traced but not run.
    """
    parts = [
        program.part(
            dict.fromkeys(n for n in node.inputs if n not in program.literals), node.outputs
        )
        for node, _ in nodes
    ]

    def differentiate(*inputs: list[tf.Tensor]) -> None:
        for (node, positions), part, given in zip(nodes, parts, inputs, strict=True):
            tensors = part.values(given)
            for position in positions:
                _require_gradient(node, position, tensors)

    specs = [[part.specs[number] for number in part.inputs] for part in parts]
    tf.function(differentiate, autograph=False).get_concrete_function(*specs)


def _require_gradient(node: Node, position: int, tensors: dict[int, tf.Tensor]) -> None:
    results = [tensors[n] for n in node.outputs if _is_continuous(tensors[n].dtype)]
    inputs = [tensors[number] for number in node.inputs]
    ones = [tf.ones_like(tensor) for tensor in results]
    why = f"which TensorFlow cannot differentiate in its input {position}"
    try:
        (found,) = tf.gradients(results, [inputs[position]], grad_ys=ones, stop_gradients=inputs)
    except (LookupError, NotImplementedError, ValueError, TypeError) as error:
        raise_own(error)
        _refuse(node, why, error)
    if found is None:
        _refuse(node, why)


def _refuse(node: Node, why: str, error: Exception | None = None) -> NoReturn:
    other = op_type(node.op.type).instead or "other operations"
    raise InputError(
        "a loss that is twice differentiable in its parameters",
        f"{node}, {why}",
        f"use {other} in its place, or leave the parameters before it out of variables=",
    ) from error
