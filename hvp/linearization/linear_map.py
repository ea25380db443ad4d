"""One product of one batch shape, as a linear map from a flat vector to a flat vector.

The known part gives the saved tensors of a batch; the linear part takes a vector and the saved
tensors. Columns of a block are multiplied one by one, or several at once where that is faster.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import tensorflow as tf

from hvp.autodiff.program import Program, leaves, uniform
from hvp.linearization import transfer
from hvp.linearization.compilation import MAX_TIME_RATIO, XLA, CompiledFunction, Function, Run
from hvp.linearization.known_part import KnownPart, SavedTensors
from hvp.linearization.work import of_program
from hvp.operators import Work
from hvp.passes import batching, memory_estimate, pipeline
from hvp.passes.packing import Packing
from hvp.passes.simplify import simplify

MAX_COLUMNS = 64
# Batches multiplied in one call, at most, and the bytes that they may take together. Where each
# batch is much work, the cost of a call does not matter.
MAX_JOINED_BATCHES, MAX_JOINED_BYTES = 8, 1 << 24
# Below so many seconds the calls themselves are a large part of a product.
SHORT_SECONDS = 2e-3
# Programs of more operations take more than a second to trace for several columns, and were never
# faster than one by one on the benchmark: a net of seven dense layers has as many.
MAX_BLOCK_OPERATIONS = 100
# Time to trace an operation for several columns: 2 to 4 ms on two cores of 2026.
SECONDS_PER_BLOCK_OPERATION = 3e-3
# Calls with a block before XLA is tried: it takes a second, and wins a millisecond a call.
CALLS_BEFORE_XLA = 100
# So many that every trial pays.
MANY_COLUMNS = 1 << 40


class LinearMap:
    """A map that is linear in a vector, given the saved tensors of a batch.

    Args:
        known: gives the saved tensors.
        linear: takes the tensors of `source` and the saved tensors.
        source: where these tensors lie in the vector.
        target: where the outputs lie in the product.
        tries_xla: whether XLA may be tried for blocks of vectors.
        used: the positions of the saved tensors that it takes among those of `known`; None for all.

    Attributes:
        product_bytes: the most that a product takes besides saved tensors, vector and result.
        single: the product with one vector, compiled.
    """

    def __init__(
        self,
        known: KnownPart,
        linear: Program,
        source: Packing,
        target: Packing,
        *,
        tries_xla: bool,
        used: Sequence[int] | None = None,
    ):
        count = len(source.slots)
        self.known, self.source, self._target, self._linear = known, source, target, linear
        self._used = used
        self._specs = [linear.specs[n] for n in linear.inputs[count:]]
        self.product_bytes = memory_estimate.working_bytes(linear)
        tangents = set(linear.inputs[:count])
        outputs = leaves(linear.outputs)
        # The compiled function of a map that is zero would return the same memory at each call. A
        # result that depends on no tangent and is not zero is NaN.
        literals = linear.literals
        self._is_zero = not linear.reach(tangents) & set(outputs) and all(
            number in literals and not np.any(literals[number]) for number in outputs
        )
        self._has_loops = linear.loops(tangents)
        self._is_unbatched = (
            self._has_loops or linear.has_unknown_shapes() or not pipeline.is_enabled()
        )
        self._tries_xla = tries_xla
        self.single = self._compile_single()
        self._blocks: dict[int, CompiledFunction] = {}
        self._block_calls: dict[int, int] = {}
        self._block_wins: dict[int, bool] = {}
        self._xla_tried: set[int] = set()
        self._calls_before_xla, self._num_columns = CALLS_BEFORE_XLA, 0
        self._sums: dict[tuple[int, ...], Run] = {}

    @classmethod
    def of(
        cls,
        program: Program,
        source: Packing,
        target: Packing,
        *,
        num_values: int = 0,
        tries_xla: bool = False,
    ) -> LinearMap:
        """The map of a program that is linear in its first inputs.

        Its other inputs are `num_values` values of the point, and the tensors of a batch.
        """
        parts, source, target = pipeline.prepare(program, source, target)
        known = KnownPart(parts, len(source.slots), num_values)
        return cls(known, parts.linear, source, target, tries_xla=tries_xla)

    def restricted(
        self, rows: Sequence[slice] | None, target_rows: Sequence[slice] | None
    ) -> LinearMap | None:
        """The map from some rows of the vector to some rows of the product; None stands for all.

        It takes the same saved tensors, and leaves out the operations on other rows. The result is
        None where rows share a tensor with others, or where the map has loops, which run whole.
        """
        if self._has_loops or not pipeline.is_enabled():
            return None
        inside = self.source.restricted(rows)
        outside = self._target.restricted(target_rows)
        if inside is None or outside is None:
            return None
        (sources, source), (targets, target) = inside, outside
        count = len(self.source.slots)
        tangents, saved = self._linear.inputs[:count], self._linear.inputs[count:]
        outputs = leaves(self._linear.outputs)
        zeros = {
            n: uniform(np.zeros((), spec.dtype.as_numpy_dtype), spec.shape)
            for i, n in enumerate(tangents)
            if i not in sources
            for spec in [self._linear.specs[n]]
        }
        program = simplify(
            replace(
                self._linear,
                inputs=(*(tangents[i] for i in sources), *saved),
                outputs=[outputs[i] for i in targets],
                literals={**self._linear.literals, **zeros},
            )
        )
        needed = {n for node in program.nodes for n in node.inputs} | set(leaves(program.outputs))
        used = [i for i, n in enumerate(saved) if n in needed]
        inputs = [*program.inputs[: len(sources)], *(saved[i] for i in used)]
        return LinearMap(
            self.known,
            program.part(inputs, program.outputs),
            source,
            target,
            tries_xla=self._tries_xla,
            used=used if self._used is None else [self._used[i] for i in used],
        )

    def taken(self, saved: SavedTensors) -> SavedTensors:
        """What this map takes of the saved tensors that `known` gives."""
        return saved if self._used is None else [saved[i] for i in self._used]

    def multiply(self, vector: tf.Tensor, saved: SavedTensors) -> tf.Tensor:
        """The product with a vector (size,), or with the columns of a block (size, K) at once."""
        if self._is_zero:
            return tf.zeros([self._target.size, *vector.shape[1:]], self._target.dtype)
        if len(vector.shape) == 1:
            return self.single([vector, *saved])
        count = int(vector.shape[1])
        block = self._block(count)
        self._block_calls[count] = self._block_calls.get(count, 0) + 1
        if self._block_calls[count] >= self._calls_before_xla and count not in self._xla_tried:
            self._xla_tried.add(count)
            self._try_xla(block, [vector, *saved])
        return block([vector, *saved])

    def measure(self, count: int, saved: SavedTensors) -> float:
        """Seconds of a product with so many columns at once, with one batch."""
        if count == 1:
            return self.single.measure([self._random(), *saved])
        return self._block(count).measure([self._random(count), *saved])

    def source_of_nan(self, vector: tf.Tensor, inputs: Sequence[tf.Tensor]) -> str:
        """The operation that first gives NaN or infinity in a product with a vector (size,)."""
        node = self.known.first_not_finite(inputs)
        if node is None:
            saved = self.taken(self.known(inputs))
            node = self._linear.first_not_finite([*self.source.split(vector), *saved])
        return "" if node is None else str(node)

    def multiply_all(self, vector: tf.Tensor, batches: Sequence[SavedTensors]) -> tf.Tensor:
        """The sum of the products with several batches, given by their saved tensors, in a call."""
        if self._is_zero or len(batches) == 1:
            return self.multiply(vector, batches[0])
        key = (len(batches), *vector.shape[1:])
        if key not in self._sums:
            one = self.single if len(vector.shape) == 1 else self._block(int(vector.shape[1]))
            self._sums[key] = one.summed(len(batches))
        return self._sums[key]([vector, *itertools.chain.from_iterable(batches)])[0]

    def batches_per_call(self, count: int) -> int:
        """How many of `count` batches to multiply in one call: parts as equal as possible."""
        each = self.product_bytes + self._target.size * self._target.dtype.size
        most = min(MAX_JOINED_BATCHES, max(MAX_JOINED_BYTES // max(each, 1), 1))
        return math.ceil(count / math.ceil(count / most))

    def width(
        self,
        count: int,
        budget: float,
        saved: Callable[[], SavedTensors] | None,
        num_batches: int,
    ) -> int:
        """How many of `count` columns to multiply at once: a power of two that fits `budget` bytes.

        It is one where a trial with the saved tensors of one of the batches, which are computed for
        it if a way is given, shows no gain.
        """
        if self._is_unbatched:
            return 1
        most = int(min(count, MAX_COLUMNS, budget // max(self.product_bytes, 1)))
        width = 1 << max(most.bit_length() - 1, 0)
        if width == 1:
            return 1
        if width not in self._block_wins:
            operations = batching.num_operations(self._linear, width)
            if operations > MAX_BLOCK_OPERATIONS:
                self._block_wins[width] = False
            elif saved is None:
                return width
            elif self._is_trial_worth(count, operations, saved, num_batches):
                self._block_wins[width] = self._is_block_faster(width, saved(), num_batches)
            else:
                return 1
        return width if self._block_wins[width] else 1

    def _is_trial_worth(
        self, count: int, operations: int, saved: Callable[[], SavedTensors], num_batches: int
    ) -> bool:
        """Whether all columns so far, with `count` more, take as long one by one as a trial.

        So a trial at most doubles the time of a job.
        """
        self._num_columns += count
        single = self.single
        one = single.seconds.get(single.backend) or self.measure(1, saved())
        return self._num_columns * num_batches * one > operations * SECONDS_PER_BLOCK_OPERATION

    @property
    def widest(self) -> int:
        """The most columns that were traced together, and not found slower than one by one."""
        return max(
            (width for width in self._blocks if self._block_wins.get(width, True)), default=1
        )

    @property
    def seconds(self) -> dict[str, float]:
        """Time of one call by columns and backend, for what was measured."""
        found = dict(self.single.seconds)
        for count, block in self._blocks.items():
            found |= {f"{count} columns, {name}": t for name, t in block.seconds.items()}
        return found

    @functools.cached_property
    def work(self) -> Work:
        """The work of a product with a vector and one batch."""
        return of_program(self._linear, self.known.program)

    def expect_many(self) -> None:
        """Make at the next products the trials that pay after many."""
        self._calls_before_xla, self._num_columns = 1, MANY_COLUMNS

    def compile(self) -> None:
        """Let XLA compile all products from now on."""
        self.single.compile()

    def _is_block_faster(self, width: int, saved: SavedTensors, num_batches: int) -> bool:
        """Whether so many columns at once take less time than one after the other.

        For one after the other each column is cut out of the block once for all batches.
        """
        one = self.measure(1, saved)
        # A call costs a + b·columns: if four columns gain, more of them gain too.
        tried = width if one < SHORT_SECONDS else min(width, 4)
        dtype = self.source.dtype.as_numpy_dtype
        one += transfer.seconds_per_column(self.source.size, width, dtype) / num_batches
        seconds = self.measure(tried, saved)
        return seconds < MAX_TIME_RATIO * tried * one

    def _try_xla(self, block: CompiledFunction, tensors: list[tf.Tensor]) -> None:
        """Use XLA for a block if it may be, products are short and it is faster."""
        vector, *saved = tensors
        if self._tries_xla and self.single.measure([vector[:, 0], *saved]) < SHORT_SECONDS:
            block.compile_if_faster(tensors)

    def _random(self, *count: int) -> tf.Tensor:
        """A random vector, or a block of so many columns."""
        shape = [self.source.size, *count]
        return tf.random.stateless_uniform(shape, [0, 0], -1, 1, self.source.dtype)

    def _compile_single(self) -> CompiledFunction:
        def build(jit: bool) -> Function:
            # XLA is slow at joining vectors, which therefore stays outside.
            core = self._linear.replay
            if jit:
                core = tf.function(core, autograph=False, jit_compile=True)
            return lambda vector, *saved: self._target.join(
                core(*self.source.split(vector), *saved)
            )

        vector = tf.TensorSpec([self.source.size], self.source.dtype)
        return CompiledFunction(build, [vector, *self._specs])

    def _block(self, count: int) -> CompiledFunction:
        """The product with `count` columns at once, compiled."""
        if count not in self._blocks:

            def multiply(block: tf.Tensor, *saved: tf.Tensor) -> tf.Tensor:
                results = batching.replay(self._linear, self.source.split(block), saved)
                return self._target.join(results)

            def build(jit: bool) -> Function:
                return tf.function(multiply, autograph=False, jit_compile=True) if jit else multiply

            block = tf.TensorSpec([self.source.size, count], self.source.dtype)
            self._blocks[count] = CompiledFunction(build, [block, *self._specs])
            if self.single.backend == XLA:
                self._blocks[count].compile()
        return self._blocks[count]
