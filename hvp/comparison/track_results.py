"""What `track` returns: the curvature at each point of a training, and all of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hvp.certificate import Certificate
from hvp.errors import report_packages
from hvp.linalg.estimate import Estimate
from hvp.tables import ShownAsTable, Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class TrackedPoint:
    """The curvature at one point.

    Attributes:
        name: of the point, such as that of a file.
        loss: L, with its penalties.
        gradient_norm: ‖∇L‖.
        accuracy: the share of examples whose predicted class is right, None without classes.
        largest, smallest: λ_max and λ_min.
        largest_error, smallest_error: ‖Av - λv‖; an eigenvalue is within this distance.
        trace: with its standard error over the random probes, which are the same at each point.
        num_products: what all this took.
        seconds: the time of it.
    """

    name: str
    loss: float
    gradient_norm: float
    accuracy: float | None
    largest: float
    largest_error: float
    smallest: float
    smallest_error: float
    trace: Estimate[float]
    num_products: int
    seconds: float

    def row(self) -> dict[str, float | str]:
        """The numbers by name; an accuracy that is not known is NaN."""
        return {
            "point": self.name,
            "loss": self.loss,
            "gradient_norm": self.gradient_norm,
            "accuracy": math.nan if self.accuracy is None else float(self.accuracy),
            "largest": self.largest,
            "largest_error": self.largest_error,
            "smallest": self.smallest,
            "smallest_error": self.smallest_error,
            "trace": float(self.trace.value),
            "trace_stderr": float(self.trace.stderr),
            "num_products": self.num_products,
            "seconds": self.seconds,
        }


@dataclass(frozen=True, eq=False, repr=False)
class Track(ShownAsTable):
    """What `track` found: a row for each point, in order.

    `matrix` is the letter of the matrix whose ends and trace these are. `certificate` says whether
    the derivatives at the first point agree with differences. `unfinished` names the points that an
    interruption left out.

    >>> import hvp
    >>> import numpy as np
    >>> lin = hvp.linearize_function(lambda w: w[0] ** 3, np.array([1.0]))
    >>> found = hvp.track(lin, [np.array([1.0]), np.array([2.0])], title="a cube")
    >>> print(repr(found).splitlines()[0])
    a cube: H at 2 points, 1 parameters, 1 examples, <lambda>, float64
    >>> [point.largest for point in found.points]
    [6.0, 12.0]
    """

    title: str
    matrix: str
    points: tuple[TrackedPoint, ...]
    loss_name: str
    size: int
    num_examples: int
    dtype: str
    tol: float
    num_probe_products: int
    seed: int
    certificate: Certificate
    findings: tuple[str, ...]
    data_sha256: str
    versions: Mapping[str, str]
    command: str = ""
    unfinished: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether no check of the certificate failed."""
        return self.certificate.passed

    def rows(self) -> list[dict[str, float | str]]:
        """A dict for each point, as `pandas.DataFrame` takes them.

        λ_max is `largest`, λ_min `smallest`; their errors are ‖Av - λv‖, that of the trace is
        `trace_stderr`. `accuracy` is NaN without classes.
        """
        return [point.row() for point in self.points]

    def _table(self) -> Table:
        from hvp.report import track_table

        columns = track_table.columns(self.points, self.matrix)
        rows = [[column.cell(point) for column in columns] for point in self.points]
        headings = [column.heading for column in columns]
        return Table(track_table.title(self), headings, rows, track_table.notes(self))

    def plot(self) -> Figure:
        """The figure of ``track.png`` as one of pyplot: both ends, trace and loss along the points.

        Raises InputError where the packages of the extra "report" are not installed.
        """
        with report_packages():
            from hvp.report.plots import plot_track
        return plot_track(self)

    def to_json(self) -> dict[str, Any]:
        """The numbers as plain dictionaries and lists, `schema` first."""
        from hvp.report.track_document import track_as_dict

        return track_as_dict(self)

    def save(self, directory: str | Path) -> tuple[Path, ...]:
        """Write ``track.json``, ``.png`` and ``.svg`` there, complete or not at all.

        Raises InputError where the packages of the extra "report" are not installed.
        """
        with report_packages():
            from hvp.report.save import save_track
        return save_track(self, Path(directory))
