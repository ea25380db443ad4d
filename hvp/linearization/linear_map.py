"""A linear map of one batch shape: split, compiled and measured; a flat vector in and one out.

The known part gives the frontier of a batch; the linear part takes a vector and the frontier. How
the linear part runs is found by trying: as a TensorFlow graph or compiled by XLA, and a block of
vectors one by one or several at once.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import tensorflow as tf

from hvp.autodiff import tensorflow_private
from hvp.autodiff.program import Program, leaves
from hvp.linearization.compilation import GAIN, CompiledFunction, Function, Run
from hvp.passes import batching, memory_estimate, pipeline
from hvp.passes.packing import Packing

SavedTensors = list[tf.Tensor]
MOST_AT_ONCE = 64
# Batches of one call, and what they may take together: where each is much, a call costs little.
MOST_BATCHES, JOINED_BYTES = 8, 1 << 24
# Calls that take less are worth compiling for several columns: the calls themselves cost time.
SHORT = 2e-3


class LinearMap:
    """The map of a program that is linear in its first inputs; its other inputs are a batch.

    Attributes:
        frontier_bytes: what the frontier of a batch takes beside the batch itself.
        batch_bytes: what the linear part takes of the batch.
        hidden_bytes: what of a frontier its tensors do not tell, at the most: what branches leave.
        shared_bytes: what is kept that no batch tells, such as weights in another precision, if
            there is `room` for it.
        product_bytes: what a product takes beside frontier, vector and result, at the most.
        single: the product with one vector, compiled.
    """

    def __init__(
        self, program: Program, source: Packing, target: Packing, *, room: float = math.inf
    ):
        parts, source, target, self.shared_bytes = pipeline.prepare(
            program, source, target, max_bytes=room
        )
        count = len(source.places)
        specs = parts.linear.specs
        frontier, batch = parts.linear.inputs[count:], parts.known.inputs
        computed = [number for number in frontier if number not in batch]
        known = parts.known.part(batch, computed)
        self.source, self._target, self._linear = source, target, parts.linear
        self._known = tensorflow_private.compiled(known.replay, [specs[n] for n in batch])
        # Places in the batch and, past its end, in what is computed.
        self._places = [(*batch, *computed).index(n) for n in frontier]
        self._specs = [specs[n] for n in frontier]
        self.frontier_bytes = parts.linear.nbytes(computed)
        self.batch_bytes = parts.linear.nbytes(set(frontier) & set(batch))
        self.hidden_bytes = memory_estimate.branch_bytes(known)
        self.product_bytes = memory_estimate.working_bytes(parts.linear)
        # A linear map that does not see its vector is zero; the compiled one would give the same
        # memory each time.
        made = {n for node in parts.linear.nodes for n in node.outputs}
        tangents = set(parts.linear.inputs[:count])
        self._vanishes = not (made | tangents) & set(leaves(parts.linear.outputs))
        self.single = self._compiled()
        # Loops take their columns one by one.
        self._one_by_one = parts.linear.loops(tangents) or not pipeline.is_enabled()
        self._blocks: dict[int, CompiledFunction] = {}
        self._gains: dict[int, bool] = {}
        self._sums: dict[tuple[int, ...], Run] = {}

    def frontier(self, batch: Sequence[tf.Tensor]) -> SavedTensors:
        """What the linear part needs of a batch."""
        tensors = [*batch, *self._known(list(batch))]
        return [tensors[place] for place in self._places]

    def multiply(self, vector: tf.Tensor, frontier: SavedTensors) -> tf.Tensor:
        """The product with a vector (size,), or with the columns of a block (size, K) at once."""
        if self._vanishes:
            return tf.zeros([self._target.size, *vector.shape[1:]], self._target.dtype)
        if len(vector.shape) == 1:
            return self.single([vector, *frontier])
        return self._together(int(vector.shape[1]))([vector, *frontier])

    def multiply_all(self, vector: tf.Tensor, frontiers: Sequence[SavedTensors]) -> tf.Tensor:
        """The sum of the products with several batches, in one call."""
        if self._vanishes or len(frontiers) == 1:
            return self.multiply(vector, frontiers[0])
        key = (len(frontiers), *vector.shape[1:])
        if key not in self._sums:
            one = self.single if len(vector.shape) == 1 else self._together(int(vector.shape[1]))
            self._sums[key] = one.summed(len(frontiers))
        return self._sums[key]([vector, *itertools.chain.from_iterable(frontiers)])[0]

    def most_batches(self, count: int) -> int:
        """How many of `count` batches to multiply in one call: evenly, as many as are short."""
        each = self.product_bytes + self._target.size * self._target.dtype.size
        fitting = min(MOST_BATCHES, max(JOINED_BYTES // max(each, 1), 1))
        return math.ceil(count / math.ceil(count / fitting))

    def width(self, count: int, budget: float, frontier: SavedTensors | None) -> int:
        """How many of `count` columns to multiply at once, a power of two.

        It is what fits into `budget`, or one where trying with the frontier given shows no gain.
        """
        if self._one_by_one:
            return 1
        fitting = int(min(count, MOST_AT_ONCE, budget // max(self.product_bytes, 1)))
        width = 1 << max(fitting.bit_length() - 1, 0)
        if width == 1 or frontier is None:
            return width
        if width not in self._gains:
            self._gains[width] = self._gains_by(width, frontier)
        return width if self._gains[width] else 1

    @property
    def widest(self) -> int:
        """The most columns that were traced together, and not found slower than one by one."""
        return max((width for width in self._blocks if self._gains.get(width, True)), default=1)

    def _gains_by(self, width: int, frontier: SavedTensors) -> bool:
        """Whether so many columns at once take less time than one after the other."""
        one = self.single.measure([self.probe(), *frontier])
        # Calls cost a + b·columns: what gains for four gains for more.
        tried = width if one < SHORT else min(width, 4)
        together = self._together(tried)
        probes = [self.probe(tried), *frontier]
        if one < SHORT:
            together.compile_where_faster(probes)
        return together.measure(probes) < GAIN * tried * one

    def probe(self, *count: int) -> tf.Tensor:
        """A random vector, or a block of so many columns."""
        shape = [self.source.size, *count]
        return tf.random.stateless_uniform(shape, [0, 0], -1, 1, self.source.dtype)

    def _compiled(self) -> CompiledFunction:
        def build(jit: bool) -> Function:
            # XLA is slow at joining vectors, which therefore stays outside.
            core = self._linear.replay
            if jit:
                core = tf.function(core, autograph=False, jit_compile=True)
            return lambda vector, *frontier: self._target.join(
                core(*self.source.split(vector), *frontier)
            )

        vector = tf.TensorSpec([self.source.size], self.source.dtype)
        return CompiledFunction(build, [vector, *self._specs])

    def _together(self, count: int) -> CompiledFunction:
        """The product with `count` columns at once."""
        if count not in self._blocks:

            def products(block: tf.Tensor, *frontier: tf.Tensor) -> tf.Tensor:
                results = batching.replay(self._linear, self.source.split(block), frontier)
                return self._target.join(results)

            def build(jit: bool) -> Function:
                return tf.function(products, autograph=False, jit_compile=True) if jit else products

            block = tf.TensorSpec([self.source.size, count], self.source.dtype)
            self._blocks[count] = CompiledFunction(build, [block, *self._specs])
            if self.single.way == "XLA":
                self._blocks[count].compile()
        return self._blocks[count]
