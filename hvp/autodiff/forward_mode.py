"""Forward mode: tangents are pushed through the traced graph, operation by operation.

TensorFlow's own forward mode differentiates every operation twice in reverse mode and calls the
result as a function. Here an operation that is known to be linear in an input is its own derivative
in that input; every other operation is differentiated twice in reverse mode, and inputs without a
tangent cost nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import tensorflow as tf

from hvp.autodiff.op_types import OpType, op_type
from hvp.autodiff.program import Node
from hvp.autodiff.replay import apply

Tangent: TypeAlias = "tf.Tensor | None"


def push(
    results: Sequence[tf.Tensor], inputs: Sequence[tf.Tensor], tangents: Sequence[tf.Tensor]
) -> list[Tangent]:
    """The tangents of the results from those of the inputs, in the graph that is being traced.

    A result that does not depend on the inputs, or whose derivative TensorFlow gives as None, has
    the tangent None. Raises LookupError for an operation without a gradient on the way from inputs
    to results, and NotImplementedError for a loop, a branch or a list of tensors.
    """
    known = {x.ref(): t for x, t in zip(inputs, tangents, strict=True)}
    for op in _between(inputs, results):
        given = [known.get(x.ref()) for x in op.inputs]
        if any(t is not None for t in given):
            pushed = zip(op.outputs, _pushed(op, given), strict=True)
            known.update((y.ref(), t) for y, t in pushed if t is not None)
    return [known.get(y.ref()) for y in results]


def _between(inputs: Sequence[tf.Tensor], results: Sequence[tf.Tensor]) -> list[tf.Operation]:
    """The operations that compute the results from the inputs, in the order of the graph."""
    sources, needed = {x.op for x in inputs}, set[tf.Operation]()
    waiting = [y.op for y in results]
    while waiting:
        op = waiting.pop()
        if op not in needed and op not in sources:
            needed.add(op)
            waiting += [x.op for x in op.inputs]
    return [op for op in tf.compat.v1.get_default_graph().get_operations() if op in needed]


def _pushed(op: tf.Operation, given: Sequence[Tangent]) -> list[Tangent]:
    """The tangents of an operation's results from those of its inputs."""
    known = op_type(op.type)
    has_list = any(x.dtype == tf.variant for x in (*op.inputs, *op.outputs))
    if known.bodies or has_list:
        raise NotImplementedError(f"forward mode through the loop, branch or list {op.name}")
    if not any(_is_continuous(y) for y in op.outputs):
        return [None] * len(op.outputs)
    if known.jointly_linear_in is not None:
        return _jointly_linear(op, known, given)
    present = {i: t for i, t in enumerate(given) if t is not None}
    terms = [_replaced(op, {i: t}) for i, t in present.items() if i in known.linear_in]
    others = {i: t for i, t in present.items() if i not in known.linear_in}
    if others:
        terms.append(_differentiated(op, others))
    return [_added(found) for found in zip(*terms, strict=True)]


def _jointly_linear(op: tf.Operation, known: OpType, given: Sequence[Tangent]) -> list[Tangent]:
    """The operation on the tangents of all inputs in which it is jointly linear."""
    present = [t for t in given if t is not None]
    (y,) = op.outputs
    if op.type == "AddN" and len(present) > 1:
        return apply(_node(op), present)
    if known.is_sum and len(present) == 1 and y.shape.is_fully_defined():
        (t,) = present
        t = tf.broadcast_to(t, y.shape) if t.shape != y.shape else t
        return [-t if op.type == "Sub" and given[0] is None else t]
    filled = [tf.zeros_like(x) if t is None else t for x, t in zip(op.inputs, given, strict=True)]
    return _replaced(op, {i: filled[i] for i in known.linear_inputs(len(given))})


def _replaced(op: tf.Operation, others: Mapping[int, Tangent]) -> list[Tangent]:
    """The operation with the inputs at these positions replaced."""
    return apply(_node(op), [others.get(i, x) for i, x in enumerate(op.inputs)])


def _differentiated(op: tf.Operation, given: Mapping[int, tf.Tensor]) -> list[Tangent]:
    """Jt by reverse mode, twice: Jᵀu is linear in u, and the gradient of (Jᵀu)ᵀt in u is Jt."""
    # Copies, since one tensor may be several inputs, as x in x/x.
    copies = {i: tf.identity(op.inputs[i]) for i in given}
    inputs = list(copies.values())
    with tf.GradientTape(watch_accessed_variables=False) as outer:
        with tf.GradientTape(watch_accessed_variables=False) as inner:
            inner.watch(inputs)
            results = _replaced(op, copies)
            continuous = [y for y in results if _is_continuous(y)]
        # Any u serves but zeros: TensorFlow would leave out the terms that they multiply.
        cotangents = [tf.ones_like(y) for y in continuous]
        outer.watch(cotangents)
        found = inner.gradient(continuous, inputs, output_gradients=cotangents)
        pairs = [
            (tf.convert_to_tensor(pulled), t)
            for pulled, t in zip(found, given.values(), strict=True)
            if pulled is not None
        ]
    if not pairs:
        return [None] * len(results)
    pulled, tangents = zip(*pairs, strict=True)
    # Of looked-up rows TensorFlow gives IndexedSlices, which are no tensors.
    pushed = iter(
        None if t is None else tf.convert_to_tensor(t)
        for t in outer.gradient(pulled, cotangents, output_gradients=tangents)
    )
    return [next(pushed) if _is_continuous(y) else None for y in results]


def _added(terms: Sequence[Tangent]) -> Tangent:
    present = [t for t in terms if t is not None]
    return tf.add_n(present) if len(present) > 1 else next(iter(present), None)


def _node(op: tf.Operation) -> Node:
    return Node(op, (), ())


def _is_continuous(tensor: tf.Tensor) -> bool:
    return tensor.dtype.is_floating or tensor.dtype.is_complex
