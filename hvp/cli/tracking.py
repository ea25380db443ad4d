"""The work of `hvp track`: the files of checkpoints, and their measurements one by one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hvp.errors import ConvergenceError, InputError

if TYPE_CHECKING:
    from hvp.comparison.track import Tracking
    from hvp.report.terminal import Terminal


def checkpoints(given: Sequence[Path]) -> list[Path]:
    """The files of checkpoints, in order. Raises InputError for files of another kind.

    It needs no TensorFlow, so that a wrong file is reported at once.
    """
    from hvp.comparison import checkpoints
    from hvp.objective import files

    if not given:
        expected = "--weights with checkpoints, as there is nothing to track without"
        raise InputError(expected, "none", "give files or a directory")
    paths = checkpoints.checkpoints(given)
    for path in paths:
        if path.name.endswith(checkpoints.SUFFIXES[0]):
            files.check_weights(path)
        else:
            files.check_model(path)
    return paths


def model_of(model: Path | None, paths: Sequence[Path]) -> Path:
    """The file of the model that checkpoints are of: the first that is a whole model by default."""
    found = model or next((path for path in paths if path.suffix != ".h5"), None)
    if found is None:
        raise InputError(
            "--model MODEL.keras, as weights alone are no model", "none", "give the file"
        )
    return found


def tracked(
    tracking: Tracking, points: Mapping[str, Path], width: int, terminal: Terminal
) -> InputError | ConvergenceError | None:
    """Measure the points one after the other, and print a line for each.

    Returns the error that ended the work after the first point, None where there was none. Raises
    it, or KeyboardInterrupt, where no point was done.
    """
    from hvp.report.track_table import Lines

    lines = None
    for name, path in points.items():
        try:
            found = tracking.add(name, path)
        except (KeyboardInterrupt, InputError, ConvergenceError) as error:
            if not tracking.points:
                raise
            if not isinstance(error, KeyboardInterrupt):
                return error
            terminal.stop()
            return None
        if lines is None:
            lines = Lines(list(points), found, tracking.matrix, width)
            terminal.say_line(lines.heading())
        terminal.say_line(lines.of(found))
        terminal.advance()
    return None
