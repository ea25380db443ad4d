"""The work of the parts of products, counted from their programs."""

from __future__ import annotations

import math
from collections.abc import Iterable

from hvp.autodiff.program import Program, leaves
from hvp.operators import Work
from hvp.passes import operation_count


def of_program(program: Program, *before: Program) -> Work:
    """The work of one run. Programs that run `before` it say how long some of its loops are."""
    counts = operation_count.matrix_products(program, *before)
    nbytes = program.nbytes([*program.inputs, *leaves(program.outputs)])
    if counts is None:
        return Work(None, nbytes, (0, 0, 0))
    none = operation_count.MatrixProduct(0, 0, 0)
    largest = max(counts, key=lambda product: product.multiply_adds, default=none)
    shape = largest.rows, largest.inner, largest.columns
    return Work(operation_count.multiply_adds(counts), nbytes, shape)


def total(works: Iterable[Work]) -> Work:
    """The work of several runs, one after the other."""
    listed = list(works)
    counted = [work.multiply_adds for work in listed if work.multiply_adds is not None]
    return Work(
        sum(counted) if len(counted) == len(listed) else None,
        sum(work.bytes for work in listed),
        max((work.largest for work in listed), key=math.prod, default=(0, 0, 0)),
    )
