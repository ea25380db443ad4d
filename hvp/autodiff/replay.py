"""One operation of a program created anew on other tensors, through `tf.raw_ops`."""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import tensorflow as tf

from hvp.errors import InputError

if TYPE_CHECKING:
    from hvp.autodiff.program import Node
from hvp.autodiff.decompositions import substitute


def apply(node: Node, inputs: Sequence[tf.Tensor]) -> list[tf.Tensor]:
    """The operation created anew on other tensors; one of a sum's may be fewer than it had."""
    op = node.op
    scope, _, name = op.name.rpartition("/")
    # Entered anew, so that gradient operations carry it too and are told by their layer.
    with tf.name_scope(f"{scope}/") if scope else contextlib.nullcontext():
        if node.bodies:
            return (_loop if node.is_loop else _branch)(node, inputs)
        results = substitute(op, inputs)
        if results is None:
            results = _original(node, inputs, name)
        kinds = [promoted(before.dtype, node.dtype) for before in op.outputs]
        return [_of_kind(tensor, kind) for tensor, kind in zip(results, kinds, strict=True)]


def _loop(node: Node, inputs: Sequence[tf.Tensor]) -> list[tf.Tensor]:
    """A loop that TensorFlow can differentiate; what it leaves as it is stays outside."""
    condition, body = node.bodies
    made = list(zip(body.inputs, body.outputs, strict=True))
    varying = [i for i, (before, after) in enumerate(made) if before != after]

    def invariant(before: int, after: int) -> tf.TensorShape:
        return body.specs[before].shape.most_specific_compatible_shape(body.specs[after].shape)

    def state(values: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        full = list(inputs)
        for i, value in zip(varying, values, strict=True):
            full[i] = value
        return full

    def step(*values: tf.Tensor) -> list[tf.Tensor]:
        after = body.replay(*state(values))
        return [after[i] for i in varying]

    return state(
        tf.while_loop(
            lambda *values: condition.replay(*state(values))[0],
            step,
            [inputs[i] for i in varying],
            shape_invariants=[invariant(*made[i]) for i in varying],
            parallel_iterations=node.op.get_attr("parallel_iterations"),
        )
    )


def _branch(node: Node, inputs: Sequence[tf.Tensor]) -> list[tf.Tensor]:
    chosen, *rest = inputs
    branches = [functools.partial(body.replay, *rest) for body in node.bodies]
    if "Case" in node.op.type:
        return tf.switch_case(chosen, branches)
    return tf.cond(tf.cast(chosen, tf.bool), *branches)


def promoted(kind: tf.DType, dtype: tf.DType | None) -> tf.DType:
    """What becomes of a type in a program in the floating-point `dtype`, None for its own."""
    if dtype is not None and kind.is_floating:
        return dtype
    if dtype is not None and kind.is_complex:
        return tf.complex128 if dtype == tf.float64 else tf.complex64
    return kind


def _of_kind(tensor: tf.Tensor, kind: tf.DType) -> tf.Tensor:
    """The tensor in another precision of its kind of number."""
    is_number = tensor.dtype.is_floating or tensor.dtype.is_complex
    return tf.cast(tensor, kind) if is_number and tensor.dtype != kind else tensor


def _original(node: Node, inputs: Sequence[tf.Tensor], name: str) -> list[tf.Tensor]:
    op = node.op
    call = getattr(tf.raw_ops, op.type)
    # Other random numbers would come in another precision.
    is_random = "Random" in op.type or "TruncatedNormal" in op.type
    remaining = list(inputs)
    if is_random:
        remaining = [_of_kind(t, x.dtype) for t, x in zip(inputs, op.inputs, strict=True)]
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
            elif attribute.type == "type" and not is_random:
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

    Some differ from the operation's own (ExpandDims takes `axis` for `dim`); the order among the
    renamed is the same.
    """
    public = _parameters(call)
    unclaimed = iter([name for name in public if name not in arguments])
    return {name if name in public else next(unclaimed): value for name, value in arguments.items()}


@functools.cache
def _parameters(call: Callable[..., Any]) -> tuple[str, ...]:
    return tuple(name for name in inspect.signature(call).parameters if name != "name")
