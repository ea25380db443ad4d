"""`ClusterLinearization`: what a `Linearization` gives, summed over the workers of a cluster."""

from __future__ import annotations

import functools
import itertools
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import tensorflow as tf
from numpy.typing import ArrayLike

from hvp.certificate import Certificate
from hvp.cluster.state import Call, Description, Place, WorkerState
from hvp.errors import Finding, InputError, shown
from hvp.linearization import transfer, work
from hvp.linearization.by_batch import not_finite
from hvp.linearization.closed import Closed
from hvp.linearization.forecast import Forecast
from hvp.linearization.linearization import Linearization
from hvp.linearization.memory import Memory
from hvp.linearization.points import point_of
from hvp.linearization.products import HGR, JT, G, H, Product, R, sampled_fisher
from hvp.linearization.scipy_functions import ScipyFunctions, scipy_functions
from hvp.linearization.totals import Totals
from hvp.linearization.traced_loss import LossValue
from hvp.linearization.traced_products import Choice
from hvp.objective.objective import Objective, Point
from hvp.objective.parameters import Layout
from hvp.operators import Cost
from hvp.sampling_error import BatchForms, BatchGrams

if TYPE_CHECKING:
    from hvp.cluster.workers import Workers

# Findings that each worker has of its own, with its own numbers.
OF_EACH_WORKER = ("memory", "products")
# Products that take less are measured with their way to the workers and back.
SHORT_SECONDS = 1.0


@dataclass(frozen=True)
class SharedLoss:
    """What all places and blocks of a loss on a cluster share.

    Attributes:
        objective: the model and its loss in this process.
        layout: of all parameters, whatever is chosen.
        chosen: the positions of those that `variables` named.
        data_digest: SHA-256 of the data.
        numbers: of the places.
    """

    objective: Objective
    layout: Layout
    chosen: tuple[int, ...]
    data_digest: str
    numbers: itertools.count[int]


def joined(descriptions: Sequence[Description]) -> Totals:
    """The sums over the batches of all workers."""
    return functools.reduce(Totals.plus, [each.totals for each in descriptions])


class ClusterLinearization:
    """What `hvp.Linearization` gives, for a model whose data are divided among workers.

    Its members mean and raise what those of `hvp.Linearization` do. A product goes to all workers;
    each multiplies by the share of its batches, and the results are added by pairs, in the order of
    the workers and in float64. It is the same to the last bit each time, for the same number of
    workers, threads and batches.

    Make one by `hvp.cluster.linearize`, and close it, or use it in a ``with`` block. Other points
    and blocks share its workers.

    Attributes:
        num_workers: the number of workers.
        workers: what is known of each, see `WorkerState`.
        restarts: how often a worker that had died was found to have been started again.
    """

    def __init__(
        self,
        workers: Workers,
        shared: SharedLoss,
        place: Place,
        here: Point,
        descriptions: Sequence[Description],
        *,
        dtype: np.dtype,
        inside: tuple[int, ...] | None = None,
        value: LossValue | None = None,
        is_first: bool = False,
    ):
        self._workers, self._shared, self._place = workers, shared, place
        self._here, self._inside, self._is_first = here, inside, is_first
        self._descriptions, self._given_value = tuple(descriptions), value
        old = shared.layout
        self._every = Layout(old.names, old.shapes, dtype, old.channel_axes)
        whole = self._every.restrict(shared.chosen)
        self._chosen = tuple(
            shared.chosen if inside is None else [shared.chosen[i] for i in inside]
        )
        self.layout = whole if inside is None else whole.restrict(inside)
        self._rows = [each.totals.num_outputs for each in descriptions]
        self.num_workers: int = workers.count
        self.size: int = self.layout.size
        self.dtype: np.dtype = self.layout.dtype
        self.names: tuple[str, ...] = self.layout.names
        totals = joined(descriptions)
        self.num_examples: int = totals.num_examples
        self.num_batches: int = totals.num_batches
        self.data_digest: str = shared.data_digest
        self.loss_name: str = shared.objective.loss_name
        self.certificate: Certificate | None = None
        self.is_whole: bool = len(self._chosen) == len(old.names)

    def __repr__(self) -> str:
        return (
            f"ClusterLinearization(size={self.size}, dtype={self.dtype}, "
            f"num_examples={self.num_examples}, num_workers={self.num_workers}, "
            f"layers={shown(list(self.layout.layers))})"
        )

    @property
    def workers(self) -> tuple[WorkerState, ...]:
        """What is known of each worker."""
        return self._workers.states

    @property
    def restarts(self) -> int:
        """How often a worker that had died was found to have been started again."""
        return sum(state.restarts for state in self.workers)

    @property
    def theta(self) -> np.ndarray:
        """The parameters w as a flat vector (P,)."""
        tensors = [tf.cast(self._here.values[i], self.dtype) for i in self._chosen]
        return self.layout.join(tensors).numpy()

    @property
    def accuracy(self) -> float | None:
        """The share of examples whose predicted class is right, None without classes."""
        return self._value.accuracy

    @functools.cached_property
    def weights_digest(self) -> str:
        """SHA-256 of all that the loss depends on besides the data."""
        return self._workers.gather(Call("weights_digest", self._place.number))[0]

    @property
    def objective_digest(self) -> str:
        """SHA-256 of the operations that compute the loss, as the first worker has them."""
        return self._descriptions[0].objective_digest

    @property
    def has_outputs(self) -> bool:
        """Whether the loss is a function of outputs, so that J, G and R are defined."""
        return sum(self._rows) > 0

    @functools.cached_property
    def is_convex(self) -> bool:
        """Whether every worker finds the loss convex in the outputs."""
        return all(self._gather("is_convex"))

    @property
    def num_outputs(self) -> int:
        """M, the number of entries of the outputs of all N examples."""
        if not self.has_outputs:
            self._gather("num_outputs")  # raises
        return sum(self._rows)

    @property
    def findings(self) -> tuple[Finding, ...]:
        """Those of all workers, each once, and of the workers themselves."""
        found: dict[Finding, None] = {}
        for number, findings in enumerate(self._gather("findings"), 1):
            of = f" of worker {number} of {self.num_workers}"
            for finding in findings:
                own = finding.layer in OF_EACH_WORKER
                found[replace(finding, layer=finding.layer + of) if own else finding] = None
        return (*found, *self._workers.findings)

    @functools.cached_property
    def forecast(self) -> Forecast:
        """The time of the slowest worker, and the memory of all."""
        found: list[Forecast] = self._gather("forecast")
        return Forecast(max(f.seconds for f in found), sum(f.kept for f in found))

    @property
    def choices(self) -> tuple[Choice, ...]:
        """How each product made so far runs, worker by worker."""
        return tuple(itertools.chain(*self._gather("choices")))

    @property
    def memory(self) -> Memory:
        """The memory of all workers together; `product` is that of one of them."""
        found: list[Memory] = self._gather("memory")
        return Memory(
            budget=sum(m.budget for m in found),
            kept=sum(m.kept for m in found),
            kept_batches=sum(m.kept_batches for m in found),
            batches=sum(m.batches for m in found),
            product=max(m.product for m in found),
        )

    def loss(self, theta: ArrayLike | None = None) -> float:
        """L, at w or at other parameters (P,)."""
        if theta is None:
            return self._value.loss
        return sum(self._gather("loss", self._vector(theta)))

    def gradient(self, theta: ArrayLike | None = None) -> np.ndarray:
        """∇L, (P,), at w or at other parameters (P,)."""
        return self._total("gradient", None if theta is None else self._vector(theta))

    def loss_and_gradient(self, theta: ArrayLike) -> tuple[float, np.ndarray]:
        """L and ∇L, (P,), at other parameters (P,)."""
        both = self._total("loss_and_gradient", self._vector(theta), np.dtype(np.float64))
        return float(both[0]), both[1:].astype(self.dtype)

    def outputs(self, theta: ArrayLike | None = None) -> np.ndarray:
        """The outputs z, (M,), at w or at other parameters (P,)."""
        return np.concatenate(
            self._gather("outputs", None if theta is None else self._vector(theta))
        )

    def loss_gradients(self, z: ArrayLike, theta: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
        """The gradients of the loss in its outputs z, (M,), and of its penalties, (P,)."""
        given = transfer.check_vector(z, self.num_outputs, self.dtype)
        found = self._gather("loss_gradients", given, self._vector(theta), slices=self._slices)
        return np.concatenate([of_z for of_z, _ in found]), found[0][1].copy()

    def hvp(self, v: ArrayLike) -> np.ndarray:
        """Hv, of the shape of v: (P,) or (P, K)."""
        return self._multiply(H, "hvp", v)

    def gnvp(self, v: ArrayLike) -> np.ndarray:
        """Gv, of the shape of v."""
        return self._multiply(G, "gnvp", v)

    def residual_vp(self, v: ArrayLike) -> np.ndarray:
        """Rv, of the shape of v."""
        return self._multiply(R, "residual_vp", v)

    def fisher_vp(self, v: ArrayLike, num_samples: int | None = None, seed: int = 0) -> np.ndarray:
        """Fv, of the shape of v; the draws are those of `hvp.Linearization`."""
        if num_samples is not None:
            sampled_fisher(num_samples, seed)  # checks them
        return self._multiply(G, "fisher_vp", v, num_samples, seed)

    def empirical_fisher_vp(self, v: ArrayLike) -> np.ndarray:
        """Ev, of the shape of v."""
        return self._multiply(G, "empirical_fisher_vp", v)

    def products(self, v: ArrayLike) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Hv, Gv and Rv, each of the shape of v."""
        Hv, Gv, Rv = np.split(self._multiply(HGR, "products", v), 3)
        return Hv, Gv, Rv

    def jvp(self, v: ArrayLike) -> np.ndarray:
        """Jv, (M,) or (M, K)."""
        given = transfer.check_array(v, self.size, self.dtype)
        return np.concatenate(self._gather("jvp", given))

    def vjp(self, u: ArrayLike) -> np.ndarray:
        """Jᵀu, (P,) or (P, K)."""
        given = transfer.check_array(u, self.num_outputs, self.dtype)
        return self._finite(JT, self._total("vjp", given, slices=self._slices))

    def cost(self, matrix: str = "H", count: int = 1) -> Cost:
        """What products cost: the time of the slowest worker, and the memory of all."""
        found: list[Cost] = self._gather("cost", None, matrix, count)
        cost = Cost(
            first=max(c.first for c in found),
            alone=max(c.alone for c in found),
            in_block=max(c.in_block for c in found),
            width=min(c.width for c in found),
            saved=sum(c.saved for c in found),
            kept=sum(c.kept for c in found),
            budget=sum(c.budget for c in found),
            working=max(c.working for c in found),
            matrix=matrix,
            size=self.size,
            num_batches=self.num_batches,
            known=work.total(c.known for c in found if c.known),
            linear=work.total(c.linear for c in found if c.linear),
        )
        if cost.first + count * cost.alone > SHORT_SECONDS:
            return cost
        products: dict[str, Callable[[ArrayLike], np.ndarray]] = {
            "H": self.hvp,
            "G": self.gnvp,
            "R": self.residual_vp,
        }
        block = np.zeros((self.size, count), self.dtype)
        alone, in_block = (_seconds(products[matrix], v) for v in (block[:, 0], block))
        return replace(cost, alone=alone, in_block=in_block / count)

    def prepare(self, *matrices: str, columns: int | Iterable[int] = 1) -> ClusterLinearization:
        """Trace, compile and choose now, in all workers; returns itself."""
        counts = columns if isinstance(columns, int) else list(columns)
        self._gather("prepare", None, counts, *matrices)
        return self

    def batch_forms(self, v: ArrayLike, matrix: str = "H") -> BatchForms:
        """vᵀAv of each batch's share A of "H", "G" or "R"."""
        found: list[BatchForms] = self._gather("batch_forms", self._block(v), matrix)
        return BatchForms(
            np.concatenate([f.shares for f in found]),
            np.sum([f.penalty for f in found], axis=0),
            np.concatenate([f.examples for f in found]),
        )

    def batch_grams(self, V: ArrayLike, matrix: str = "H") -> BatchGrams:
        """VᵀAV, (K, K), of each batch's share A of "H", "G" or "R"."""
        found: list[BatchGrams] = self._gather("batch_grams", self._block(V), matrix)
        return BatchGrams(
            np.concatenate([f.shares for f in found]),
            np.sum([f.penalty for f in found], axis=0),
            np.concatenate([f.examples for f in found]),
        )

    def batch_sharpness(self) -> np.ndarray:
        """gᵀHg / ‖g‖², (B,), for each batch's own loss."""
        return np.concatenate(self._gather("batch_sharpness"))

    def source_of_nan(self, v: ArrayLike) -> str:
        """The first batch whose share is not finite, see `hvp.Linearization.source_of_nan`."""
        found = [each for each in self._gather("source_of_nan", self._block(v)) if each]
        # The penalty, which the first worker adds, comes after all batches.
        return next(iter(sorted(found, key=lambda source: source.endswith("the penalty"))), "")

    def block(self, layer: str | Sequence[str]) -> ClusterLinearization:
        """The same loss as a function of some parameters."""
        return self.restricted(self.layout.select(layer))

    def blocks(self) -> dict[str, ClusterLinearization]:
        """Layer name -> `block` of that layer, in the order of the layout."""
        return {name: self.restricted(inside) for name, inside in self.layout.layers.items()}

    def restricted(self, inside: Sequence[int]) -> ClusterLinearization:
        """The same loss as a function of the parameters with these positions in `names`."""
        before = range(len(self._shared.chosen)) if self._inside is None else self._inside
        return self._other(self._place, inside=tuple(before[i] for i in inside))

    def at(self, point: Any) -> ClusterLinearization:
        """The same loss and data at other parameters; nothing is traced or compiled again."""
        there = point_of(point, self._shared.objective, self._every, self._here, self._chosen)
        has_state = any(a is not b for a, b in zip(there.state, self._here.state, strict=True))
        arrays = [np.asarray(value) for value in there.values]
        state = [np.asarray(value) for value in there.state] if has_state else None
        place = self._step("at", self._workers.store((arrays, state)))
        try:
            self._workers.gather(Call("check", place.number))
        except InputError:
            self._workers.forget(place.number)
            raise
        found = self._other(place, here=there, inside=self._inside)
        if any(each.has_own_divisors for each in self._descriptions):
            found._totals.require_divisors(divisors_of(self._place))
        return found

    def scipy_functions(self, matrix: str = "H") -> ScipyFunctions:
        """``fun``, ``jac`` and ``hessp`` for `scipy.optimize.minimize`."""
        return scipy_functions(cast(Linearization, self), matrix)

    def in_float64(self) -> ClusterLinearization:
        """The same loss at the same parameters, evaluated in float64 despite any casts in it."""
        place, descriptions, value = described(self._workers, self._step("in_float64"))
        here = Point([tf.cast(v, tf.float64) for v in self._here.values], self._here.state)
        return self._other(
            place,
            here=here,
            inside=self._inside,
            descriptions=descriptions,
            value=value,
            dtype=np.dtype(np.float64),
        )

    def forced(
        self, *, ad: str | None = None, jit: str | bool | None = None
    ) -> ClusterLinearization:
        """The same loss with another `ad` or `jit` of `linearize`; None keeps the one it has."""
        place = self._step("forced", ad, jit)
        return self._other(place, inside=self._inside, value=self._given_value)

    def close(self) -> None:
        """Free the memory of this point; the first linearization stops the workers.

        It also stops the cluster if it was started for them. Products then raise InputError.
        """
        if self._is_first:
            self._workers.close()
        else:
            self._workers.forget(self._place.number)
            self._workers = cast("Workers", Closed())

    def __enter__(self) -> ClusterLinearization:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @functools.cached_property
    def _totals(self) -> Totals:
        """The sums over all batches here."""
        return functools.reduce(Totals.plus, [totals for totals, _ in self._found_totals])

    @functools.cached_property
    def _found_totals(self) -> list[tuple[Totals, float]]:
        return self._workers.gather(Call("totals", self._place.number))

    @functools.cached_property
    def _value(self) -> LossValue:
        if self._given_value is not None:
            return self._given_value
        return LossValue.of(self._totals, sum(penalty for _, penalty in self._found_totals))

    @property
    def _slices(self) -> tuple[slice, ...]:
        """The rows of the outputs that belong to each worker."""
        stops = list(itertools.accumulate(self._rows))
        return tuple(slice(stop - n, stop) for stop, n in zip(stops, self._rows, strict=True))

    def _step(self, step: str, *arguments: Any) -> Place:
        """A place that is reached from this one."""
        number = next(self._shared.numbers)
        place = Place(number, self._place.division, self._place, step, arguments)
        self._workers.add_place(place)
        return place

    def _other(
        self,
        place: Place,
        *,
        here: Point | None = None,
        inside: tuple[int, ...] | None = None,
        descriptions: Sequence[Description] | None = None,
        value: LossValue | None = None,
        dtype: np.dtype | None = None,
    ) -> ClusterLinearization:
        """Another place or other parameters of the same loss."""
        is_same_place = place is self._place
        return ClusterLinearization(
            self._workers,
            self._shared,
            place,
            here or self._here,
            descriptions or self._descriptions,
            dtype=dtype or self.dtype,
            inside=inside,
            value=self._given_value if is_same_place else value,
        )

    def _call(self, task: str, arguments: Sequence[Any], slices: Any = None) -> Call:
        return Call(task, self._place.number, self._inside, tuple(arguments), slices)

    def _gather(
        self, task: str, array: np.ndarray | None = None, *arguments: Any, slices: Any = None
    ) -> list[Any]:
        """The answers of all workers, in their order."""
        return self._workers.gather(self._call(task, arguments, slices), array)

    def _total(
        self,
        task: str,
        array: np.ndarray | None,
        dtype: np.dtype | None = None,
        arguments: Sequence[Any] = (),
        slices: Any = None,
    ) -> np.ndarray:
        """The sum of the answers of all workers."""
        call = self._call(task, arguments, slices)
        return self._workers.total(call, array, dtype or self.dtype)

    def _multiply(self, product: Product, task: str, v: ArrayLike, *arguments: Any) -> np.ndarray:
        given = transfer.check_array(v, self.size, self.dtype)
        return self._finite(product, self._total(task, given, arguments=arguments))

    def _finite(self, product: Product, result: np.ndarray) -> np.ndarray:
        """The result. Raises NotFiniteError where the sum of finite answers overflows."""
        if not transfer.is_finite(result):
            raise not_finite(product, "")
        return result

    def _vector(self, theta: ArrayLike) -> np.ndarray:
        return transfer.check_vector(theta, self.size, self.dtype)

    def _block(self, v: ArrayLike) -> np.ndarray:
        return transfer.as_columns(transfer.check_array(v, self.size, self.dtype))


def described(workers: Workers, place: Place) -> tuple[Place, list[Description], LossValue]:
    """A new place with its divisors, what the workers found there, and the loss."""
    workers.add_place(place)
    descriptions: list[Description] = workers.gather(Call("describe", place.number))
    totals = joined(descriptions)
    value = LossValue.of(totals, sum(each.penalty for each in descriptions))
    place = replace(place, divisors=tuple(totals.divisors))
    workers.add_place(place)
    return place, descriptions, value


def divisors_of(place: Place) -> tuple[float, ...]:
    """What the terms of the loss are divided by at a place."""
    while place.divisors is None:
        assert place.parent is not None
        place = place.parent
    return place.divisors


def _seconds(product: Callable[[ArrayLike], np.ndarray], v: np.ndarray) -> float:
    """Seconds of a product, after a first."""
    product(v)
    begun = time.perf_counter()
    product(v)
    return time.perf_counter() - begun
