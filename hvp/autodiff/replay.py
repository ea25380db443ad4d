"""One operation of a program, created again on other tensors through `tf.raw_ops`."""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import tensorflow as tf

from hvp.autodiff.decompositions import substitute
from hvp.autodiff.op_types import op_type
from hvp.autodiff.tensorflow_private import created_again
from hvp.errors import InputError

if TYPE_CHECKING:
    from hvp.autodiff.program import Node

# A list of tensors for each lane.
Tensors = list[list[tf.Tensor]]


def apply(node: Node, inputs: Sequence[tf.Tensor]) -> list[tf.Tensor]:
    """The results of the operation, created again on these tensors.

    An AddN may get fewer tensors than it had when it was traced.
    """
    op = node.op
    scope, _, name = op.name.rpartition("/")
    # The name scope is entered again, so that errors in gradient operations name the layer.
    with tf.name_scope(f"{scope}/") if scope else contextlib.nullcontext():
        if node.bodies:
            return (_loop if node.is_loop else _branch)(node, inputs)
        results = substitute(op, inputs)
        if results is None:
            results = _original(node, inputs, name)
        dtypes = [promoted(before.dtype, node.dtype) for before in op.outputs]
        return [_cast(tensor, dtype) for tensor, dtype in zip(results, dtypes, strict=True)]


def _loop(node: Node, inputs: Sequence[tf.Tensor]) -> list[tf.Tensor]:
    """The loop as a `tf.while_loop`, which TensorFlow can differentiate."""
    body = node.bodies[1]
    (results,), _ = loop(node, [inputs], lambda states, _: ([body.replay(*states[0])], []))
    return results


def loop(
    node: Node,
    lanes: Sequence[Sequence[tf.Tensor]],
    step: Callable[[Tensors, list[tf.Tensor]], tuple[Tensors, list[tf.Tensor]]],
    carried: Sequence[tf.Tensor] = (),
) -> tuple[Tensors, list[tf.Tensor]]:
    """The results of a loop on several lists of inputs at once, and of tensors carried along.

    Args:
        node: the loop. All lanes run as often as the first.
        lanes: the inputs in each lane.
        step: one iteration, from the states of all lanes and the carried tensors to the next.
        carried: their first values.

    Only inputs that the body changes are loop variables; the others are captured.
    """
    condition, body = node.bodies
    pairs = list(zip(body.inputs, body.outputs, strict=True))
    varying = [i for i, (before, after) in enumerate(pairs) if before != after]

    def invariant(before: int, after: int) -> tf.TensorShape:
        return body.specs[before].shape.most_specific_compatible_shape(body.specs[after].shape)

    def varied(states: Tensors) -> Tensors:
        return [[state[i] for i in varying] for state in states]

    def full(values: Tensors) -> Tensors:
        states = [list(lane) for lane in lanes]
        for state, changed in zip(states, values, strict=True):
            for i, value in zip(varying, changed, strict=True):
                state[i] = value
        return states

    def iteration(values: Tensors, carried: list[tf.Tensor]) -> tuple[Tensors, list[tf.Tensor]]:
        after, carried = step(full(values), carried)
        return varied(after), carried

    values, results = tf.while_loop(
        lambda values, _: condition.replay(*full(values)[0])[0],
        iteration,
        (varied([list(lane) for lane in lanes]), list(carried)),
        shape_invariants=(
            [[invariant(*pairs[i]) for i in varying] for _ in lanes],
            [tensor.shape for tensor in carried],
        ),
        parallel_iterations=node.op.get_attr("parallel_iterations"),
    )
    return full(values), results


def _branch(node: Node, inputs: Sequence[tf.Tensor]) -> list[tf.Tensor]:
    chosen, *rest = inputs
    branches = [functools.partial(body.replay, *rest) for body in node.bodies]
    if op_type(node.op.type).is_switch:
        return tf.switch_case(chosen, branches)
    return tf.cond(tf.cast(chosen, tf.bool), *branches)


def promoted(traced: tf.DType, dtype: tf.DType | None) -> tf.DType:
    """The type that replaces `traced` in a program of the floating-point `dtype`.

    With None every type stays. Complex numbers get parts of this precision.
    """
    if dtype is not None and traced.is_floating:
        return dtype
    if dtype is not None and traced.is_complex:
        return tf.complex128 if dtype == tf.float64 else tf.complex64
    return traced


def _cast(tensor: tf.Tensor, dtype: tf.DType) -> tf.Tensor:
    """The tensor in another precision, if it holds floating-point or complex numbers."""
    is_number = tensor.dtype.is_floating or tensor.dtype.is_complex
    return tf.cast(tensor, dtype) if is_number and tensor.dtype != dtype else tensor


def _keeps_precision(op: tf.Operation) -> bool:
    """Whether in another precision its results would be others, not the same with other rounding.

    So it is with bits, and with a stateless generator of random numbers, which takes a seed or a
    counter.
    """
    is_random = any(argument.name in ("seed", "counter") for argument in op.op_def.input_arg)
    return is_random or op.type == "Bitcast"


def _has_same_types(op: tf.Operation, inputs: Sequence[tf.Tensor]) -> bool:
    """Whether the tensors are as many as its inputs and of the same types: attributes stay."""
    before = op.inputs
    return len(before) == len(inputs) and all(
        isinstance(t, tf.Tensor) and x.dtype == t.dtype for x, t in zip(before, inputs, strict=True)
    )


def _original(node: Node, inputs: Sequence[tf.Tensor], name: str) -> list[tf.Tensor]:
    op = node.op
    if node.dtype is None and _has_same_types(op, inputs) and not tf.executing_eagerly():
        return created_again(op, inputs, name)
    call = getattr(tf.raw_ops, op.type)
    is_as_traced = _keeps_precision(op)
    remaining = list(inputs)
    if is_as_traced:
        remaining = [_cast(t, x.dtype) for t, x in zip(inputs, op.inputs, strict=True)]
    arguments: dict[str, Any] = {}
    inferred = set()
    for argument in op.op_def.input_arg:
        inferred |= {argument.type_attr, argument.number_attr, argument.type_list_attr}
        if op.type == "AddN":
            arguments[argument.name], remaining = remaining, []
        elif argument.number_attr or argument.type_list_attr:
            length = op.get_attr(argument.number_attr or argument.type_list_attr)
            count = length if argument.number_attr else len(length)
            arguments[argument.name], remaining = remaining[:count], remaining[count:]
        else:
            arguments[argument.name], *remaining = remaining
    for attribute in op.op_def.attr:
        if attribute.name not in inferred:
            value = op.get_attr(attribute.name)
            if attribute.type == "shape":
                value = tf.TensorShape(value)
            elif attribute.type == "type" and not is_as_traced:
                value = promoted(value, node.dtype)
            arguments[attribute.name] = value
    try:
        return tf.nest.flatten(call(**_publicly_named(call, arguments), name=name))
    except (TypeError, ValueError) as error:
        if node.dtype is None:
            raise
        raise InputError(
            f"operations that TensorFlow has in {node.dtype.name}", str(node), "leave dtype= out"
        ) from error


def _publicly_named(call: Callable[..., Any], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments under the names that `tf.raw_ops` gives them.

    Some differ from those in the operation's definition: ExpandDims has `dim`, `tf.raw_ops` has
    `axis`. Renamed arguments are in the same order in both.
    """
    public = _parameters(call)
    renamed = iter([name for name in public if name not in arguments])
    return {name if name in public else next(renamed): value for name, value in arguments.items()}


@functools.cache
def _parameters(call: Callable[..., Any]) -> tuple[str, ...]:
    return tuple(name for name in inspect.signature(call).parameters if name != "name")
