"""Curvature along the points of a training: both ends of a spectrum and its trace at each."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from hvp.certificate import Certificate, certify
from hvp.comparison.checkpoints import checkpoints, short_names
from hvp.comparison.run import OPERATORS
from hvp.comparison.track_results import Track, TrackedPoint
from hvp.errors import ConvergenceError, InputError, shown
from hvp.linalg.eigenpairs import Eigenpairs
from hvp.linalg.eigsh import eigsh
from hvp.linalg.trace import trace
from hvp.operators import Curvature
from hvp.progress import LabelledHook, ProgressHook, by_stage
from hvp.randomness import DEFAULT_SEED, NOT_GIVEN, RNG, seed_of
from hvp.resuming.curvature import kept
from hvp.resuming.identity import package_versions
from hvp.resuming.journal import Journal

TOL, NUM_PRODUCTS = 2e-4, 96
# The result of a journal that holds the points that are done.
KEPT = "track"


class CurvatureAt(Curvature, Protocol):
    """What `track` needs of a backend: that it can be had at other points, and closed."""

    def at(self, point: Any) -> CurvatureAt: ...
    def close(self) -> None: ...


class Tracking:
    """Computes a track, a point at a time. Each point starts from the vectors of the one before.

    With a journal, points that are done in it are taken from there, and so are the products of one
    that was begun. All points must then be checked in order before the first is added.

    Attributes:
        matrix: "H", "G" or "R".
        points: those that are done.
        num_kept: how many of the points that were checked are in the journal.
    """

    def __init__(
        self,
        lin: CurvatureAt,
        *,
        matrix: str = "H",
        tol: float = TOL,
        num_products: int = NUM_PRODUCTS,
        seed: int = 0,
        progress: ProgressHook | LabelledHook | None = None,
        journal: Journal | None = None,
    ):
        if not hasattr(lin, "at"):
            raise InputError("a Linearization", type(lin).__name__, "call hvp.linearize first")
        if matrix not in OPERATORS:
            raise InputError(f"one of {', '.join(OPERATORS)}", shown(matrix), "choose a letter")
        self._lin, self.matrix, self._tol = lin, matrix, tol
        self._num_products, self._seed = num_products, seed
        self._progress = by_stage(progress)
        self._largest: Eigenpairs | None = None
        self._smallest: Eigenpairs | None = None
        self._certificate: Certificate | None = None
        self.points: list[TrackedPoint] = []
        self._journal = journal
        self._digests: list[str] = []
        is_begun = journal is not None and journal.has(KEPT)
        self._kept: dict[str, Any] = journal.stage(KEPT, dict) if journal and is_begun else {}
        self._findings: tuple[str, ...] = ()

    def check(self, name: str, point: Any) -> None:
        """Raise InputError for what is no point of the loss, without any product."""
        with _at(self._lin, name, point) as there:
            self._digests.append(there.weights_digest)

    @property
    def num_kept(self) -> int:
        digests = self._kept.get("digests", [])
        return len(digests) if digests == self._digests[: len(digests)] else 0

    def add(self, name: str, point: Any) -> TrackedPoint:
        """Measure the curvature at the next point. Nothing changes where that is interrupted."""
        if len(self.points) < self.num_kept:
            tracked: TrackedPoint = self._kept["points"][len(self.points)]
            self._largest, self._smallest = self._kept["largest"], self._kept["smallest"]
            self._certificate, self._findings = self._kept["certificate"], self._kept["findings"]
        else:
            tracked = self._measure(name, point)
            if self._journal is not None:
                done = [*self.points, tracked]
                now = {
                    "digests": self._digests[: len(done)],
                    "points": done,
                    "largest": self._largest,
                    "smallest": self._smallest,
                    "certificate": self._certificate,
                    "findings": self._known_findings(),
                }
                self._journal.keep(KEPT, now)
        self.points.append(tracked)
        return tracked

    def _known_findings(self) -> tuple[str, ...]:
        """Those of the points from the journal, and of this process if it has measured any."""
        has_measured = len(self.points) > self.num_kept or not self._findings
        here = map(str, self._lin.findings) if has_measured else ()
        return tuple(dict.fromkeys((*self._findings, *here)))

    def _measure(self, name: str, point: Any) -> TrackedPoint:
        begun = time.perf_counter()
        with _at(self._lin, name, point) as at_point:
            there = kept(at_point, self._journal, f"{len(self.points)}")
            if self._certificate is None:
                self._certificate = certify(there, seed=self._seed)
            A = OPERATORS[self.matrix](there)
            largest = self._end(A, name, "LA", self._largest, None)
            smallest = self._end(A, name, "SA", self._smallest, largest.scale)
            found = trace(
                A,
                num_products=self._num_products,
                seed=self._seed,
                progress=lambda done: self._progress(done.labelled(f"{name}: trace")),
            )
            tracked = TrackedPoint(
                name,
                float(there.loss()),
                float(np.linalg.norm(there.gradient().astype(np.float64))),
                there.accuracy,
                float(largest.values[0]),
                float(largest.errors[0]),
                float(smallest.values[0]),
                float(smallest.errors[0]),
                found,
                largest.num_products + smallest.num_products + found.num_products,
                time.perf_counter() - begun,
            )
        self._largest, self._smallest = largest, smallest
        return tracked

    def _end(
        self,
        A: Any,
        name: str,
        which: str,
        start: Eigenpairs | None,
        scale: float | None,
    ) -> Eigenpairs:
        """The outermost eigenpair of an end, λ_max ("LA") or λ_min ("SA")."""
        label = f"{name}: {'largest' if which == 'LA' else 'smallest'} eigenvalue"
        return eigsh(
            A,
            1,
            which=which,
            tol=self._tol,
            scale=scale,
            start=start,
            seed=self._seed,
            progress=lambda done: self._progress(done.labelled(label)),
        )

    def track(self, *, title: str = "", command: str = "", unfinished: Iterable[str] = ()) -> Track:
        """What is known so far. At least one point must be done."""
        lin = self._lin
        assert self._certificate is not None
        return Track(
            title=title,
            matrix=self.matrix,
            points=tuple(self.points),
            loss_name=lin.loss_name,
            size=lin.size,
            num_examples=lin.num_examples,
            dtype=str(lin.dtype),
            tol=self._tol,
            num_probe_products=self._num_products,
            seed=self._seed,
            certificate=self._certificate,
            findings=self._known_findings(),
            data_sha256=lin.data_digest,
            versions=package_versions(),
            command=command,
            unfinished=tuple(unfinished),
        )


def track(
    lin: CurvatureAt,
    points: Any,
    *,
    matrix: str = "H",
    tol: float = TOL,
    num_products: int = NUM_PRODUCTS,
    seed: int = DEFAULT_SEED,
    rng: RNG = NOT_GIVEN,
    title: str = "",
    command: str = "",
    progress: ProgressHook | LabelledHook | None = None,
) -> Track:
    """λ_max, λ_min and the trace of a matrix, with the loss, at several points of one loss.

    Nothing is traced again from point to point (`Linearization.at`), and each end of the spectrum
    starts from the vector that the point before had there (``eigsh(..., start=)``). The derivatives
    at the first point are tested by differences: see `Track.certificate`.

    Args:
        lin: a `Linearization`.
        points: what `Linearization.at` takes, several of it: vectors, lists of arrays, models, or
            ``.weights.h5`` and ``.keras`` files. A mapping gives them names. A directory stands for
            its files in natural order, epoch-2 before epoch-10. Points are taken one after the
            other, so that they may come from a generator.
        matrix: "H", "G" or "R".
        tol: largest error ‖Av - λv‖ of an eigenpair, relative to the norm of the matrix.
        num_products: products of a trace, see `hvp.trace`. The probes are the same at each point,
            so that differences between points are more accurate than the traces themselves.
        seed: of starting vectors and probes.
        rng: in place of `seed`, what `numpy.random.default_rng` takes (SPEC 7).
        title: the name of what is tracked, for tables and figures.
        command: the command that repeats it.
        progress: called with the products so far of each stage, a `hvp.Progress`; one that needs
            two arguments gets the label of the stage and the number.

    Returns:
        a `Track`, whose `rows` are by point.

    Raises:
        InputError: no points, or one that is not of this loss, by its name.
        ConvergenceError: an eigenpair did not reach its tolerance; the line names the point.

    >>> import hvp
    >>> lin = hvp.linearize_function(lambda w: (w[0] ** 4 + w[1] ** 2), np.array([1.0, 1.0]))
    >>> found = hvp.track(lin, {"start": [1.0, 1.0], "end": [0.5, 0.0]})
    >>> [(row["point"], row["largest"], row["trace"]) for row in found.rows()]
    [('start', 12.0, 14.0), ('end', 3.0, 5.0)]
    """
    seed = seed_of(seed, rng)
    tracking = Tracking(
        lin, matrix=matrix, tol=tol, num_products=num_products, seed=seed, progress=progress
    )
    for name, point in _named(points):
        tracking.add(name, point)
    if not tracking.points:
        raise InputError("at least one point", "none", "pass weights, models or their files")
    return tracking.track(title=title, command=command)


def _named(points: Any) -> Iterator[tuple[str, Any]]:
    """The points with their names: numbers for those that have none."""
    if isinstance(points, str | Path):
        points = [points]
    if isinstance(points, Mapping):
        yield from ((str(name), point) for name, point in points.items())
        return
    if isinstance(points, list | tuple) and all(isinstance(each, str | Path) for each in points):
        paths = checkpoints(points)
        yield from zip(short_names(paths), paths, strict=True)
        return
    if not isinstance(points, Iterable):
        raise InputError("several points", shown(points), "pass a list of them")
    yield from ((str(number), point) for number, point in enumerate(points))


@contextlib.contextmanager
def _at(lin: CurvatureAt, name: str, point: Any) -> Iterator[CurvatureAt]:
    """The loss at a point within the block. What is refused there is named."""
    is_file = isinstance(point, str | Path)
    try:
        there = lin.at(point)
        try:
            yield there
        finally:
            there.close()
    except InputError as error:
        if is_file and str(point) in str(error):
            raise
        got = error.got if isinstance(error.got, str) else shown(error.got)
        place = repr(str(point)) if is_file else f"point {name!r}"
        raise InputError(error.expected, f"{got} at {place}", error.remedy) from error
    except ConvergenceError as error:
        raise ConvergenceError(
            f"{str(error).partition('; ')[0]} at {name}; raise tol, or linearise in float64"
        ) from error
