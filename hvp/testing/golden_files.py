"""Golden files: the curvature of a loss, written once and held against later."""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hvp.certificate import in_float64
from hvp.errors import InputError, shown
from hvp.operators import Curvature, check_curvature
from hvp.randomness import DEFAULT_SEED, NOT_GIVEN, RNG, seed_of
from hvp.testing.golden_numbers import Number, measured
from hvp.testing.json_schema import first_violation
from hvp.testing.mismatches import table

if TYPE_CHECKING:
    from hvp.linearization.linearization import Linearization

FORMAT, FORMAT_VERSION = "hvp golden file", 1
SCHEMA = Path(__file__).with_name("golden.schema.json")
MAX_SHOWN = 8
PROPER_NAMES = {
    "hvp": "hvp", "tensorflow": "TensorFlow", "keras": "Keras", "numpy": "NumPy", "scipy": "SciPy",
}  # fmt: skip


def record(
    lin: Linearization,
    path: str | os.PathLike[str],
    *,
    seed: int = DEFAULT_SEED,
    rng: RNG = NOT_GIVEN,
) -> None:
    """Write a golden file: the curvature of a loss, for `compare_to` to compare with.

    It holds the loss, ‖∇L‖, λmax of H, and vᵀHv, vᵀGv and vᵀRv for two seeded unit vectors v of
    each layer and of the whole network; digests of data, weights and objective; and versions. Each
    number has a tolerance: ten times its error against float64, where the model has it, at least
    ten roundings of its precision and 1,000 of float64. The file is JSON, of the schema
    ``hvp/testing/golden.schema.json``, and appears whole or not at all.

    Args:
        lin: the loss at a point.
        path: the file; one that exists is replaced.
        seed: of the vectors v and of the Lanczos iteration.
        rng: in place of `seed`, what `numpy.random.default_rng` takes (SPEC 7).

    Raises:
        InputError: `lin` is no linearization, no file can be written there, or `seed` is no whole
            number of at least 0.

    >>> import tempfile, hvp
    >>> lin = hvp.testing.linear_regression().lin
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     record(lin, f"{directory}/golden.json")
    ...     print(compare_to(f"{directory}/golden.json", lin))
    9 numbers are as recorded
    """
    check_curvature(lin)
    path = check_writable(path)
    document = _document(lin, seed_of(seed, rng), in_float64(lin))
    text = json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        draft.write_text(text + "\n", encoding="utf-8")
        draft.replace(path)
    except OSError as error:
        raise _unwritable(path, error.strerror or str(error)) from error
    finally:
        draft.unlink(missing_ok=True)


def compare_to(path: str | os.PathLike[str], lin: Linearization) -> GoldenReport:
    """Compare a loss with a golden file that `record` has written.

    Numbers within their tolerances are as recorded, even where a digest or a version is another:
    the report then says which.

    Returns:
        The `GoldenReport`, where all numbers are as recorded.

    Raises:
        AssertionError: with the numbers that have changed most, and with what else has changed:
            data, weights, objective, versions; or, where all of these are the same, the curvature.
        InputError: the file is no golden file, or `lin` no linearization.
    """
    report = golden_report(path, lin)
    report.raise_if_changed()
    return report


def golden_report(path: str | os.PathLike[str], lin: Linearization) -> GoldenReport:
    """What `compare_to` compares, without raising where numbers have changed."""
    check_curvature(lin)
    recorded = load(path)
    # The tolerances are those of the file, so that float64 is not needed.
    return _compared(recorded, _document(lin, recorded["seed"], lin), os.fspath(path))


def load(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The document of a golden file. Raises InputError for what is no such file."""
    expected, remedy = "a golden file of hvp", "write one by hvp.testing.record"
    name = repr(os.fspath(path))
    try:
        document = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(
            expected, f"no file {name}", "check the path, or write it first"
        ) from error
    except OSError as error:
        raise InputError(expected, f"{name}: {error.strerror}", "check the path") from error
    except (ValueError, RecursionError) as error:
        raise InputError(expected, f"{name}, which is no JSON", remedy) from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise InputError(expected, f"{name}, which is another file", remedy)
    if document.get("format_version") != FORMAT_VERSION:
        version = shown(document.get("format_version"))
        raise InputError(f"format version {FORMAT_VERSION}", f"{version} in {name}", remedy)
    wrong = first_violation(document, json.loads(SCHEMA.read_text(encoding="utf-8")))
    if wrong:
        raise InputError(expected, f"{name} with {wrong}", remedy)
    return document


def check_writable(path: str | os.PathLike[str]) -> Path:
    """The path. Raises InputError where no file can be written there."""
    path = Path(path)
    if path.is_dir():
        problem = "a directory"
    elif not path.parent.is_dir():
        problem = "no directory above it"
    elif not os.access(path.parent, os.W_OK | os.X_OK):
        problem = "a directory that cannot be written to"
    else:
        return path
    raise _unwritable(path, problem)


def _unwritable(path: Path, problem: str) -> InputError:
    return InputError("a file to write", f"{str(path)!r}: {problem}", "choose another path")


@dataclass(frozen=True)
class GoldenReport:
    """What a comparison with a golden file found.

    Attributes:
        path: of the file.
        changed: pairs (number as recorded, number now) beyond the tolerance, the worst first.
        count: how many numbers were compared.
        causes: what else is another than when it was recorded, such as "data" or
            "TensorFlow's version, 2.21.0, recorded with 2.20.0".
        other_shape: why numbers could not be compared, "" where they could.
    """

    path: str
    changed: tuple[tuple[Number, Number], ...]
    count: int
    causes: tuple[str, ...]
    other_shape: str = ""

    @property
    def passed(self) -> bool:
        """Whether all numbers are as recorded, within their tolerances."""
        return not self.changed and not self.other_shape

    def raise_if_changed(self) -> None:
        """Raise AssertionError where numbers have changed."""
        if not self.passed:
            raise AssertionError(str(self))

    def __str__(self) -> str:
        causes = "; ".join(self.causes)
        if self.passed:
            also = f", though these have changed: {causes}" if causes else ""
            return f"{self.count} numbers are as recorded{also}"
        if self.other_shape:
            return f"{self.path}: {self.other_shape}; changed: {causes or 'the parameters'}"
        what = causes or "the curvature itself; data, weights, objective and versions are the same"
        lines = [
            f"{self.path}: {len(self.changed)} of {self.count} numbers are not as recorded",
            f"changed: {what}",
        ]
        return "\n".join([*lines, *_rows(self.changed)])


def _rows(changed: tuple[tuple[Number, Number], ...]) -> list[str]:
    some = changed[:MAX_SHOWN]
    rows = [
        (old.label, new.value, old.value, abs(new.value - old.value), old.tolerance)
        for old, new in some
    ]
    lines = table("number", rows, expected="recorded")
    hidden = len(changed) - len(some)
    return [*lines, f"and {hidden} more"] if hidden else lines


def _document(lin: Linearization, seed: int, exact: Curvature) -> dict[str, Any]:
    floor, numbers = measured(lin, seed, exact)
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "seed": seed,
        "dtype": str(lin.dtype),
        "num_parameters": lin.size,
        "num_examples": lin.num_examples,
        "loss_name": lin.loss_name,
        "versions": {name: str(importlib.import_module(name).__version__) for name in PROPER_NAMES},
        "digests": {
            "data": lin.data_digest,
            "weights": lin.weights_digest,
            "objective": lin.objective_digest,
        },
        "noise_floor": floor,
        "numbers": [asdict(number) for number in numbers],
    }


def _compared(recorded: Mapping[str, Any], found: Mapping[str, Any], path: str) -> GoldenReport:
    old, new = ([Number(**each) for each in document["numbers"]] for document in (recorded, found))
    causes = tuple(_causes(recorded, found))
    if [_kind(number) for number in old] != [_kind(number) for number in new]:
        sizes = [document["num_parameters"] for document in (found, recorded)]
        shape = f"{sizes[0]:,} parameters where {sizes[1]:,} were recorded"
        if sizes[0] == sizes[1]:
            shape = "the parameters are divided into other layers than recorded"
        return GoldenReport(path, (), len(old), causes, shape)
    pairs = [pair for pair in zip(old, new, strict=True) if not _excess(*pair) <= 1]
    pairs.sort(key=lambda pair: -_excess(*pair))
    return GoldenReport(path, tuple(pairs), len(old), causes)


def _kind(number: Number) -> tuple[str, int, int | None]:
    """What a number is, whatever the layer is called: Keras numbers the layers of a process."""
    return number.name, number.size, number.direction


def _excess(old: Number, new: Number) -> float:
    """The change in units of the tolerance."""
    if new.value == old.value:
        return 0.0
    excess = abs(new.value - old.value) / old.tolerance if old.tolerance else np.inf
    return np.inf if np.isnan(excess) else excess


def _causes(recorded: Mapping[str, Any], found: Mapping[str, Any]) -> Iterator[str]:
    is_same_precision = recorded["dtype"] == found["dtype"]
    for name in ("data", "weights", "objective"):
        if recorded["digests"][name] != found["digests"][name]:
            is_sure = is_same_precision or name != "weights"
            yield name if is_sure else "weights, or only their precision"
    for name, version in found["versions"].items():
        before = recorded["versions"].get(name, "none")
        if version != before:
            yield f"{PROPER_NAMES.get(name, name)}'s version, {version}, recorded with {before}"
    if not is_same_precision:
        yield f"the precision, {found['dtype']}, recorded in {recorded['dtype']}"
