"""A linear map of one batch shape: split, compiled and measured; a flat vector in and one out.

The known part gives the frontier of a batch; the linear part takes a vector and the frontier. How
the linear part runs is found by trying: as a TensorFlow graph or compiled by XLA, and a block of
vectors one by one or several at once.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from hvp import columns, graph
from hvp.errors import reason
from hvp.folding import fold
from hvp.fusing import fuse
from hvp.graph import Program
from hvp.split import split

Frontier = list[tf.Tensor]
# XLA's last bits differ from the graph's: it is taken where it gains more than this.
GAIN = 0.9
MOST_AT_ONCE = 64


@dataclass(frozen=True)
class Ends:
    """How a flat vector is cut into tensors, or joined from them."""

    shapes: tuple[tuple[int, ...], ...]
    dtype: tf.DType

    @property
    def size(self) -> int:
        return sum(self._sizes)

    @property
    def _sizes(self) -> list[int]:
        return [int(np.prod(shape)) for shape in self.shapes]

    def split(self, vector: tf.Tensor) -> list[tf.Tensor]:
        """The tensors of a vector (size,), or of the columns of a block (size, K)."""
        starts, behind = np.cumsum([0, *self._sizes]), vector.shape[1:].as_list()
        # Unlike a part of tf.split, a slice whose edges are aligned is no copy.
        parts = [
            tf.slice(vector, [start, *[0] * len(behind)], [size, *behind])
            for start, size in zip(starts, self._sizes, strict=False)
        ]
        return [tf.reshape(p, [*s, *behind]) for p, s in zip(parts, self.shapes, strict=True)]

    def join(self, tensors: Sequence[tf.Tensor]) -> tf.Tensor:
        """The vector, or the columns of a block, that such tensors make."""
        flat = [
            tf.reshape(t, [size, *t.shape[len(s) :]])
            for t, s, size in zip(tensors, self.shapes, self._sizes, strict=True)
        ]
        return flat[0] if len(flat) == 1 else tf.concat(flat, axis=0)


class LinearMap:
    """The map of a program that is linear in its first inputs; its other inputs are a batch.

    Attributes:
        frontier_bytes: what the frontier of a batch takes beside the batch itself.
        batch_bytes: what the linear part takes of the batch.
        product_bytes: what a product takes beside frontier, vector and result, at the most.
        way: "graph" or "XLA", how the linear part runs.
        seconds: of a product by each way that was tried.
        refusal: why XLA does not run it, None where it does or was not tried.
    """

    def __init__(self, program: Program, source: Ends, target: Ends):
        count = len(source.shapes)
        parts = split(fold(fuse(fold(program), count)), count)
        specs = parts.linear.specs
        frontier, batch = parts.linear.inputs[count:], parts.known.inputs
        computed = [number for number in frontier if number not in batch]
        known = parts.known.part(batch, computed)
        self.source, self._target, self._linear = source, target, parts.linear
        self._known = graph.compiled(known.replay, [specs[n] for n in batch])
        # Places in the batch and, past its end, in what is computed.
        self._places = [(*batch, *computed).index(n) for n in frontier]
        self._specs = [specs[n] for n in frontier]
        self.frontier_bytes = sum(_bytes(specs[n]) for n in computed)
        self.batch_bytes = sum(_bytes(specs[n]) for n in frontier if n in batch)
        self.product_bytes = _working_bytes(parts.linear)
        self.way = "graph"
        self.seconds: dict[str, float] = {}
        self.refusal: str | None = None
        self._run = self._compiled(jit=False)
        self._blocks: dict[int, Callable[[list[tf.Tensor]], tf.Tensor]] = {}
        self._gains: dict[int, bool] = {}

    def frontier(self, batch: Sequence[tf.Tensor]) -> Frontier:
        """What the linear part needs of a batch."""
        tensors = [*batch, *self._known(list(batch))]
        return [tensors[place] for place in self._places]

    def multiply(self, vector: tf.Tensor, frontier: Frontier) -> tf.Tensor:
        """The product with a vector (size,), or with the columns of a block (size, K) at once."""
        if len(vector.shape) == 1:
            return self._run([vector, *frontier])
        return self._together(int(vector.shape[1]))([vector, *frontier])

    def width(self, count: int, budget: float, frontier: Frontier | None) -> int:
        """How many of `count` columns to multiply at once, a power of two.

        It is what fits into `budget`, or one where trying with the frontier given shows no gain.
        Calls cost a + b·columns: what gains for four gains for more.
        """
        fitting = int(min(count, MOST_AT_ONCE, budget // max(self.product_bytes, 1)))
        width = 1 << max(fitting.bit_length() - 1, 0)
        probed = min(width, 4)
        if width == 1 or frontier is None:
            return width
        if probed not in self._gains:
            probes = self._probes(probed)
            together = _seconds(lambda: self.multiply(probes, frontier), repeats=1)
            self._gains[probed] = together < GAIN * probed * self.measure(frontier)
        return width if self._gains[probed] else 1

    def measure(self, frontier: Frontier) -> float:
        """Seconds of a product the way it runs."""
        if self.way not in self.seconds:
            probe = self._probes()
            self.seconds[self.way] = _seconds(lambda: self.multiply(probe, frontier))
        return self.seconds[self.way]

    def compile(self) -> None:
        """Let XLA run the linear part from now on."""
        self._run, self.way = self._compiled(jit=True), "XLA"

    def compile_where_faster(self, frontier: Frontier) -> None:
        """Let XLA run the linear part if it can, agrees and gains; `refusal` says why it cannot."""
        graphed, before = self._run, self.measure(frontier)
        probe = self._probes()
        expected = self.multiply(probe, frontier)
        try:
            self.compile()
            error = float(tf.norm(self.multiply(probe, frontier) - expected) / tf.norm(expected))
            after = self.measure(frontier)
        except graph.REFUSALS as refusal:
            self.refusal = reason(refusal)
        else:
            if error > np.sqrt(np.finfo(self.source.dtype.as_numpy_dtype).eps):
                self.refusal = f"its result differs by {error:.0e}"
            elif after < GAIN * before:
                return
        self._run, self.way = graphed, "graph"

    def _compiled(self, *, jit: bool) -> Callable[[list[tf.Tensor]], tf.Tensor]:
        # XLA is slow at joining tensors, which therefore stays outside.
        core = self._linear.replay
        if jit:
            core = tf.function(core, autograph=False, jit_compile=True)

        def product(vector: tf.Tensor, *frontier: tf.Tensor) -> tf.Tensor:
            return self._target.join(core(*self.source.split(vector), *frontier))

        vector = tf.TensorSpec([self.source.size], self.source.dtype)
        return graph.compiled(product, [vector, *self._specs])

    def _together(self, count: int) -> Callable[[list[tf.Tensor]], tf.Tensor]:
        """The product with `count` columns at once."""
        if count not in self._blocks:

            def products(block: tf.Tensor, *frontier: tf.Tensor) -> tf.Tensor:
                results = columns.replay(self._linear, self.source.split(block), frontier)
                return self._target.join(results)

            block = tf.TensorSpec([self.source.size, count], self.source.dtype)
            self._blocks[count] = graph.compiled(products, [block, *self._specs])
        return self._blocks[count]

    def _probes(self, *count: int) -> tf.Tensor:
        shape = [self.source.size, *count]
        return tf.random.stateless_normal(shape, seed=[0, 0], dtype=self.source.dtype)


def _seconds(run: Callable[[], tf.Tensor], repeats: int = 2) -> float:
    """The least time of a few runs after a first."""
    run()
    times = []
    for _ in range(repeats):
        begun = time.perf_counter()
        run()
        times.append(time.perf_counter() - begun)
    return min(times)


def _bytes(spec: tf.TensorSpec) -> int:
    return (spec.shape.num_elements() or 0) * spec.dtype.size


def _working_bytes(program: Program) -> int:
    """The most bytes of values that are made and still used at any time of a run in order."""
    last = {n: i for i, node in enumerate(program.nodes) for n in node.inputs}
    alive: Counter[int] = Counter()
    most = 0
    for i, node in enumerate(program.nodes):
        alive.update({n: _bytes(program.specs[n]) for n in node.outputs})
        most = max(most, alive.total())
        for n in node.inputs:
            if last[n] == i:
                alive.pop(n, None)
    return most
