"""The loss, its gradient and the outputs of the network at any parameters, batch after batch."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import tensorflow as tf
from numpy.typing import ArrayLike

from hvp.autodiff import curvature, tensorflow_private, tracing
from hvp.errors import InputError, NotFiniteError
from hvp.linearization import transfer
from hvp.linearization.batch_functions import BatchFunctions
from hvp.linearization.batch_programs import BatchPrograms
from hvp.linearization.refusals import refusals_as_input_errors
from hvp.linearization.snapshot import Snapshot

# A function of the programs, a vector and the tensors of one batch: one tensor or several.
BatchFunction = Callable[..., tf.Tensor | list[tf.Tensor]]
# The name of such a function, the parameters chosen, and the programs.
Key = tuple[str, tuple[int, ...], BatchPrograms]


class Evaluator:
    """Evaluates a loss on all batches, at values (P,) of its chosen parameters.

    Each function is compiled at the first batch of each shape, and kept in `functions`, which all
    points share.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        chosen: Sequence[int],
        functions: dict[Key, Callable[..., list[tf.Tensor]]],
    ):
        self._snapshot, self._chosen, self._compiled = snapshot, tuple(chosen), functions
        self._traced_loss = snapshot.traced_loss
        self._layout = snapshot.traced_loss.layout.restrict(chosen)

    @property
    def theta(self) -> np.ndarray:
        """The chosen parameters of the snapshot as a flat vector (P,)."""
        return self._layout.join([self._snapshot.values[i] for i in self._chosen]).numpy()

    @refusals_as_input_errors
    def loss(self, theta: ArrayLike) -> float:
        """L, the sum over the batches and the penalty."""
        return sum(float(loss) for (loss,) in self._at_each_batch(self._loss, theta))

    def gradient(self, theta: ArrayLike | None = None) -> np.ndarray:
        """∇L, (P,), at `theta`, or at the parameters of the snapshot."""
        return self.loss_and_gradient(theta)[1]

    def shares(self) -> Iterator[np.ndarray]:
        """The gradient (P,) of each batch's share in L, and of the penalty if there is one."""
        found = self._at_each_batch(self._gradient_and_loss, None)
        for number, (gradient, loss) in enumerate(found, 1):
            self._require_finite(gradient, loss, number, None)
            yield gradient

    @refusals_as_input_errors
    def loss_and_gradient(self, theta: ArrayLike | None = None) -> tuple[float, np.ndarray]:
        """L and ∇L, (P,), at `theta`, or at the parameters of the snapshot."""
        total, of_all = 0.0, np.zeros(self._layout.size, self._layout.dtype)
        found = self._at_each_batch(self._gradient_and_loss, theta)
        for number, (gradient, loss) in enumerate(found, 1):
            self._require_finite(gradient, loss, number, theta)
            total, of_all = total + float(loss), np.add(of_all, gradient, out=of_all)
        return total, of_all

    @refusals_as_input_errors
    def outputs(self, theta: ArrayLike | None = None) -> np.ndarray:
        """z, (M,), at `theta`, or at the parameters of the snapshot: those of all batches."""
        found = self._at_each_batch(self._outputs, theta, penalty=False)
        return np.concatenate([outputs for (outputs,) in found])

    @refusals_as_input_errors
    def loss_gradients(self, z: ArrayLike, theta: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
        """The gradients of the loss in the outputs z, (M,), and of the penalty in `theta`, (P,)."""
        given, count = np.asarray(z, self._layout.dtype), self._traced_loss.num_outputs
        if given.shape != (count,):
            raise InputError(f"outputs of shape ({count},)", given.shape, "as outputs()")
        params = self._parameters(theta)
        of_outputs, of_penalty, start = list[np.ndarray](), np.zeros_like(params), 0
        for programs, batch in self._snapshot.pieces(penalty=True):
            if programs.network is None:
                of_penalty, _ = self._run(self._gradient_and_loss, programs, params, batch)
                continue
            stop = start + programs.network.rows
            of_outputs += self._run(self._gradient_in_outputs, programs, given[start:stop], batch)
            start = stop
        return np.concatenate(of_outputs), of_penalty

    def _require_finite(
        self, gradient: np.ndarray, loss: np.ndarray, number: int, theta: ArrayLike | None
    ) -> None:
        """Raise NotFiniteError where the loss of a batch, counted from 1, is finite without it.

        A loss that is not finite says so itself: the steps of an optimiser may lead there.
        """
        if np.isfinite(gradient).all() or not np.isfinite(loss):
            return
        traced_loss = self._traced_loss
        place = traced_loss.share.place(number, traced_loss.num_batches)
        raise NotFiniteError(
            "a finite gradient of a finite loss",
            f"NaN or infinity{self._source_of_nan(number, theta)}, in {place}",
            "the loss has no derivative there, or its numbers overflow: change the parameters, "
            "the data or the operation, and mask NaN in the data before they are computed with",
        )

    def _source_of_nan(self, number: int, theta: ArrayLike | None) -> str:
        """The operation that first gives NaN or infinity in the gradient of a batch, in words."""
        pieces = self._snapshot.pieces(penalty=True)
        programs, batch = next(itertools.islice(pieces, number - 1, None))
        tensors = [tf.constant(self._parameters(theta)), *self._snapshot.values, *batch]
        program = tracing.trace(
            functools.partial(self._gradient_and_loss, programs),
            *map(tf.TensorSpec.from_tensor, tensors),
            layers=self._traced_loss.objective.layers,
        )
        node = program.first_not_finite(tensors)
        return "" if node is None else f" from {node}"

    def _at_each_batch(
        self, function: BatchFunction, theta: ArrayLike | None, *, penalty: bool = True
    ) -> Iterator[list[np.ndarray]]:
        """The results of each batch, and of the penalty if it is wanted, one after another."""
        params = tf.constant(self._parameters(theta))
        for programs, batch in self._snapshot.pieces(penalty=penalty):
            yield self._run(function, programs, params, batch)

    def _parameters(self, theta: ArrayLike | None) -> np.ndarray:
        """A vector (P,). Raises InputError for another shape."""
        if theta is None:
            return self.theta
        return transfer.check_vector(theta, self._layout.size, self._layout.dtype)

    def _run(
        self,
        function: BatchFunction,
        programs: BatchPrograms,
        vector: np.ndarray | tf.Tensor,
        batch: Sequence[tf.Tensor],
    ) -> list[np.ndarray]:
        """The results of a function of a vector on a batch, compiled at the first call."""
        tensors = [tf.convert_to_tensor(vector), *self._snapshot.values, *batch]
        key = function.__name__, self._chosen, programs
        compiled = self._compiled.get(key)
        if compiled is None:
            specs = list(map(tf.TensorSpec.from_tensor, tensors))
            compiled = tensorflow_private.compiled(functools.partial(function, programs), specs)
            self._compiled[key] = compiled
        return [result.numpy() for result in compiled(tensors)]

    def _loss(self, programs: BatchPrograms, theta: tf.Tensor, *tensors: tf.Tensor) -> tf.Tensor:
        functions = self._functions(programs, theta, tensors)
        return functions.loss(functions.params)

    def _gradient_and_loss(
        self, programs: BatchPrograms, theta: tf.Tensor, *tensors: tf.Tensor
    ) -> list[tf.Tensor]:
        functions, losses = self._functions(programs, theta, tensors), list[tf.Tensor]()

        def loss(params: Sequence[tf.Tensor]) -> tf.Tensor:
            losses.append(functions.loss(params))
            return losses[-1]

        gradients = curvature.gradient(loss, functions.params)
        return [self._layout.join(gradients), *losses]

    def _outputs(self, programs: BatchPrograms, theta: tf.Tensor, *tensors: tf.Tensor) -> tf.Tensor:
        functions = self._functions(programs, theta, tensors)
        return self._flat(functions.outputs(functions.params))

    def _gradient_in_outputs(
        self, programs: BatchPrograms, z: tf.Tensor, *tensors: tf.Tensor
    ) -> tf.Tensor:
        network = programs.network
        assert network is not None
        parts = tf.split(z, [math.prod(shape) for shape in network.shapes])
        specs = [network.loss_of.specs[number] for number in network.loss_of.inputs[: len(parts)]]
        outputs = [
            tf.reshape(tf.cast(part, spec.dtype), spec.shape)
            for part, spec in zip(parts, specs, strict=True)
        ]
        functions = self._batch(programs, tensors)
        return self._flat(curvature.gradient(functions.loss_of, outputs))

    def _functions(
        self, programs: BatchPrograms, theta: tf.Tensor, tensors: Sequence[tf.Tensor]
    ) -> BatchFunctions:
        """The functions of a batch, with the chosen parameters taken from the vector."""
        given = list(tensors)
        for position, param in zip(self._chosen, self._layout.split(theta), strict=True):
            given[position] = param
        return self._batch(programs, given)

    def _batch(self, programs: BatchPrograms, tensors: Sequence[tf.Tensor]) -> BatchFunctions:
        count, divisors = len(self._snapshot.values), self._traced_loss.divisors_of(programs)
        return BatchFunctions(programs, divisors, self._chosen, tensors[:count], tensors[count:])

    def _flat(self, outputs: Sequence[tf.Tensor]) -> tf.Tensor:
        """The outputs, or what belongs to them, as one vector in the dtype of the parameters."""
        dtype = self._layout.dtype
        return tf.concat([tf.reshape(tf.cast(t, dtype), [-1]) for t in outputs], axis=0)
