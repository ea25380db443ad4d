"""The order of the passes, and one switch that turns all of them off.

A pass changes how fast a product is, never its value but for rounding. Where a product seems wrong,
compare it with the same product inside of `without_passes`: if the two differ, a pass is wrong;
if they agree, look in `hvp.autodiff`.
"""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Iterator
from typing import NamedTuple

from hvp.autodiff.program import Program, leaves
from hvp.passes.elementwise_fusion import fuse_elementwise
from hvp.passes.joint_weight_bias import join_weight_and_bias
from hvp.passes.packing import Packing
from hvp.passes.partial_eval import Split, partially_evaluate
from hvp.passes.simplify import simplify

_enabled = contextvars.ContextVar("enabled", default=True)


class Prepared(NamedTuple):
    """A program after the passes.

    Attributes:
        parts: the known part and the linear part.
        source: where the first inputs of the linear part lie in a vector.
        target: where its outputs lie in the result.
    """

    parts: Split
    source: Packing
    target: Packing


def prepare(program: Program, source: Packing, target: Packing) -> Prepared:
    """Run the passes over a program that is linear in the tensors of `source`."""
    if not is_enabled():
        return Prepared(_unevaluated(program, len(source.slots)), source, target)
    program = simplify(program)
    program = fuse_elementwise(program, len(source.slots))
    program = simplify(program)
    program, source, target = join_weight_and_bias(program, source, target)
    return Prepared(partially_evaluate(program, len(source.slots)), source, target)


def is_enabled() -> bool:
    """Whether the passes run; batching of vectors asks for it too."""
    return _enabled.get()


@contextlib.contextmanager
def without_passes() -> Iterator[None]:
    """Turn off all passes, in this thread, for products that are traced inside.

    Each product then runs the traced operations as they are, known ones too, once for each vector.
    Products of a `Linearization` that were traced before stay as they are: take a new one.

    >>> import hvp, numpy as np, tensorflow as tf
    >>> lin = hvp.linearize_function(lambda w: tf.reduce_sum(tf.sin(w)), np.ones(2))
    >>> with without_passes():
    ...     plain = lin.forced().hvp(np.eye(2))
    >>> bool(np.allclose(plain, lin.hvp(np.eye(2)), rtol=1e-14))
    True
    """
    token = _enabled.set(False)
    try:
        yield
    finally:
        _enabled.reset(token)


def _unevaluated(program: Program, count: int) -> Split:
    """All of the program as its linear part; the inputs of a batch are the saved tensors."""
    batch = program.inputs[count:]
    outputs = leaves(program.outputs)
    return Split(
        known=program.part(batch, list(batch)), linear=program.part(program.inputs, outputs)
    )
