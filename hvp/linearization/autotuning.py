"""How a product runs: by which order of differentiation, as a graph or by XLA; found by trying.

What is tried may cost the time of ten products over all the data, no more. To build another way
costs about what the first did: short products run the first way, and nothing is lost by it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import tensorflow as tf

from hvp.autodiff.tensorflow_errors import REFUSALS, raise_own, reason
from hvp.linearization.compilation import GAIN
from hvp.linearization.linear_map import LinearMap

PRODUCTS = 10


@dataclass(frozen=True)
class Choice:
    """How the product of one batch shape runs.

    Attributes:
        product: "H", "G", "R", "J", "Jᵀ", "H, G and R", or one of these of the penalty.
        order: of differentiation.
        way: "graph" or "XLA".
        seconds: of a batch's product by each order and way that was tried.
    """

    product: str
    order: str
    way: str
    seconds: dict[str, float]


def choose(
    product: str,
    makers: Mapping[str, Callable[[], LinearMap]],
    batch: Sequence[tf.Tensor],
    *,
    jit: str | bool,
    num_batches: int,
) -> tuple[LinearMap, Choice, list[str]]:
    """The linear map to use of those that `makers` make, by order, and what there is to note.

    Nothing is tried, and no time decides, where there is one maker and `jit` is True or False.
    """
    remaining, notes = dict(makers), list[str]()
    begun = time.perf_counter()
    order, best = _first(remaining, notes)
    trial = time.perf_counter() - begun
    found = {order: best}
    if remaining or jit == "auto":
        left = PRODUCTS * num_batches * _measure(best, batch)
        for name, make in remaining.items():
            left -= trial
            if left < 0:
                break
            try:
                found[name] = make()
            except REFUSALS as error:
                raise_own(error)
                notes.append(f"no {name}: {reason(error)}")
            else:
                if _measure(found[name], batch) < GAIN * _measure(best, batch):
                    order, best = name, found[name]
        if jit == "auto" and left >= trial:
            best.single.compile_where_faster([best.probe(), *best.frontier(batch)])
    if jit is True:
        best.single.compile()
    if best.single.refusal is not None:
        notes.append(f"runs as a graph, not by XLA: {best.single.refusal}")
    seconds = {f"{o}, {way}": t for o, m in found.items() for way, t in m.single.seconds.items()}
    return best, Choice(product, order, best.single.way, seconds), notes


def _first(
    remaining: dict[str, Callable[[], LinearMap]], notes: list[str]
) -> tuple[str, LinearMap]:
    """The first that TensorFlow can build, taken off the list with those before it."""
    while True:
        order = next(iter(remaining))
        try:
            return order, remaining.pop(order)()
        except REFUSALS as error:
            raise_own(error)
            if not remaining:
                raise
            notes.append(f"no {order}: {reason(error)}")


def _measure(linear_map: LinearMap, batch: Sequence[tf.Tensor]) -> float:
    return linear_map.single.measure([linear_map.probe(), *linear_map.frontier(batch)])
