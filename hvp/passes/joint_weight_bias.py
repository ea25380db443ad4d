"""A layer's kernel and its bias, which follow each other in a vector, become one matrix.

``hV + 1bᵀ`` is ``[h 1] A`` with the rows of A those of V and then b, and the gradients hᵀδ and 1ᵀδ
are the rows of ``[h 1]ᵀδ``. The matrix is a slice of the vector, and the gradient is a slice of the
result: no tensor is copied to cut the vector, to add the bias, or to join the result.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from functools import reduce
from itertools import permutations

import tensorflow as tf

from hvp.autodiff.program import Node, Program, leaves
from hvp.autodiff.rewriting import Rewriter
from hvp.passes.packing import Packing, Slot


def join_weight_and_bias(
    program: Program, source: Packing, target: Packing
) -> tuple[Program, Packing, Packing]:
    """The program, linear in the tensors of `source`, with kernels and biases joined.

    Also returns where its new inputs lie in the vector, and where its outputs, a list, lie in the
    product.
    """
    joiner = _Joiner(program, source)
    for node in program.nodes:
        joiner.visit(node)
    outputs, slots = joiner.outputs(target.slots)
    written = joiner.program(outputs)
    used = {n for node in written.nodes for n in node.inputs} | set(outputs)
    tangents = [n for n in joiner.tangents if n in used] or list(joiner.tangents)[:1]
    written = replace(written, inputs=(*tangents, *program.inputs[len(source.slots) :]))
    source = replace(source, slots=tuple(joiner.tangents[n] for n in tangents))
    return written, source, replace(target, slots=tuple(slots))


class _Joiner(Rewriter):
    """Visits the nodes in order. `tangents` maps values to their slots in the vector."""

    def __init__(self, program: Program, source: Packing):
        super().__init__(program)
        count = len(source.slots)
        self.tangents = dict(zip(program.inputs[:count], source.slots, strict=True))
        self._dtype = source.dtype
        self._outputs = leaves(program.outputs)
        self._uses = Counter(n for node in program.nodes for n in node.inputs)
        self._uses.update(self._outputs)
        self._makers = {n: node for node in program.nodes for n in node.outputs}
        self._linear = program.reach(self.tangents)
        self._with_ones: dict[int, int] = {}

    def visit(self, node: Node) -> None:
        node = replace(node, inputs=tuple(map(self.resolved, node.inputs)))
        merged = self._affine(node) if node.op.type in ("AddN", "AddV2") else None
        if merged is None:
            self.nodes.append(node)
        else:
            self.replace(node.outputs[0], merged)

    def _affine(self, node: Node) -> int | None:
        """A sum hV + b + … written as [h 1] A + …, None where there is no such kernel and bias."""
        terms = [term for number in node.inputs for term in self._terms(number)]
        for product, bias in permutations(terms, 2):
            factors = self._factors(product, transposed=False)
            place = factors and self._matrix(factors[1], self._row(bias))
            if factors and place and self._uses[product] == 1:
                tangent = self.value(tf.TensorSpec(place.shape, self._dtype))
                self.tangents[tangent] = place
                merged = self.write(tf.matmul, self._extended(factors[0]), tangent)
                terms.remove(product)
                terms.remove(bias)
                return self.write(lambda *terms: reduce(tf.add, terms), merged, *terms)
        return None

    def outputs(self, slots: tuple[Slot, ...]) -> tuple[list[int], list[Slot]]:
        """The outputs and their slots, with the gradients of kernel and bias joined."""
        found, at = [], []
        rest = [(self.resolved(n), p) for n, p in zip(self._outputs, slots, strict=True)]
        while rest:
            (number, place), *rest = rest
            factors = self._factors(number, transposed=True)
            if factors and rest and self._summed(rest[0][0]) == factors[1]:
                matrix = _with_bias(place, rest[0][1])
                if matrix is not None:
                    number = self._gradient(*factors)
                    place, rest = matrix, rest[1:]
            found.append(number)
            at.append(place)
        return found, at

    def _terms(self, number: int) -> list[int]:
        maker = self._makers.get(number)
        if maker is None or maker.op.type != "AddN" or self._uses[number] > 1:
            return [number]
        return list(map(self.resolved, maker.inputs))

    def _factors(self, number: int, *, transposed: bool) -> tuple[int, int] | None:
        """The factors of a matrix product, None where the first one or its shape is not known."""
        maker = self._makers.get(number)
        if maker is None or maker.op.type != "MatMul" or maker.inputs[0] in self._linear:
            return None
        if not self.specs[self.resolved(maker.inputs[0])].shape.is_fully_defined():
            return None
        flags = maker.op.get_attr("transpose_a"), maker.op.get_attr("transpose_b")
        if flags != (transposed, False):
            return None
        h, other = map(self.resolved, maker.inputs)
        return h, other

    def _unshaped(self, number: int) -> int:
        """The value before a reshape."""
        maker = self._makers.get(number)
        return number if maker is None or maker.op.type != "Reshape" else maker.inputs[0]

    def _row(self, number: int) -> int | None:
        """The vector added to every row of a matrix where `number` is added to it."""
        return self._unshaped(number) if self._rows(number) in ((), (1,)) else None

    def _summed(self, number: int) -> int | None:
        """The matrix whose rows a value sums."""
        number = self._unshaped(number)
        maker = self._makers.get(number)
        if maker is not None and maker.op.type == "Sum":
            axes = self.literals.get(maker.inputs[1])
            rows = axes is not None and axes.reshape(-1).tolist() == [0]
            return self.resolved(maker.inputs[0]) if rows else None
        return number if self._rows(number) == (1,) else None

    def _rows(self, number: int) -> tuple[int | None, ...] | None:
        """The shape of a value without its last axis, None where the rank is not known."""
        shape = self.specs[number].shape
        return None if shape.rank is None else tuple(shape[:-1])

    def _matrix(self, kernel: int, bias: int | None) -> Slot | None:
        """The slot of the joint matrix of two tangents."""
        if kernel not in self.tangents or bias not in self.tangents:
            return None
        return _with_bias(self.tangents[kernel], self.tangents[bias])

    def _gradient(self, h: int, delta: int) -> int:
        return self.write(
            lambda h, delta: tf.matmul(h, delta, transpose_a=True), self._extended(h), delta
        )

    def _extended(self, h: int) -> int:
        """[h 1]"""
        if h not in self._with_ones:
            self._with_ones[h] = self.write(
                lambda h: tf.concat([h, tf.ones([h.shape[0], 1], h.dtype)], axis=1), h
            )
        return self._with_ones[h]


def _with_bias(kernel: Slot, bias: Slot) -> Slot | None:
    """The slot of a kernel with the bias that follows it, None if the two are no such pair."""
    if len(kernel.shape) != 2 or bias.shape != kernel.shape[1:]:
        return None
    if bias.start != kernel.start + kernel.size:
        return None
    return Slot(kernel.start, (kernel.shape[0] + 1, kernel.shape[1]))
