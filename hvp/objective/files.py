"""Read Keras models and arrays of examples from files, without running code from the files."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np

from hvp.errors import InputError
from hvp.objective.batches import check_arrays


def load_model(path: str | Path) -> keras.Model:
    """The model of a ``.keras`` file, loaded in safe mode.

    Raises InputError where there is no such file or Keras cannot load it; in safe mode Keras
    refuses layers with Python code.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError("a .keras file", f"no file {str(path)!r}", "check the path")
    try:
        return keras.models.load_model(path)
    except Exception as error:  # Keras and its file formats raise many kinds
        reason = _first_line(error)
        raise InputError(
            "a .keras file that Keras can load",
            f"{str(path)!r}: {reason}",
            "save it with model.save",
        ) from error


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


Arrays = np.ndarray | dict[str, np.ndarray]
# What an .npz file may hold, in the order of `linearize`'s data.
KINDS = ("x", "y", "sample_weight")
REMEDY = "write it with np.savez(file, x=..., y=...)"


def load_arrays(path: str | Path) -> tuple[Arrays, ...]:
    """``(x, y)`` or ``(x, y, sample_weight)``: the numeric arrays of an ``.npz`` file.

    Where a model has several inputs or outputs, their arrays are named ``x.NAME``, ``y.NAME`` and
    ``sample_weight.NAME``, and come as dicts by NAME. All have one first axis. Pickled objects are
    never read. Raises InputError for any other file, and for arrays with other names.
    """
    path = Path(path)
    found = _read(path)
    _check_names(found, path)
    for name, array in found.items():
        if array.dtype.kind not in "biuf":
            raise InputError(f"a numeric array {name}", f"dtype {array.dtype}", REMEDY)
    parts = [_of_kind(found, kind) for kind in KINDS]
    data = tuple(part for part in parts if part is not None)
    check_arrays(data)
    return data


def _read(path: Path) -> dict[str, np.ndarray]:
    """The arrays of the file by name."""
    if not path.is_file():
        raise InputError("an .npz file", f"no file {str(path)!r}", "check the path")
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            raise InputError("an .npz file", f"a single array in {str(path)!r}", REMEDY)
        with loaded as arrays:
            return {name: arrays[name] for name in arrays}
    except InputError:
        raise
    except ValueError as error:
        raise InputError(
            "numeric arrays", f"pickled objects or no arrays in {str(path)!r}", REMEDY
        ) from error
    except Exception as error:  # zip, zlib and NumPy raise many kinds
        raise InputError("an .npz file", f"{str(path)!r} unreadable", REMEDY) from error


def _check_names(found: dict[str, np.ndarray], path: Path) -> None:
    got = f"{sorted(found)} in {str(path)!r}"
    kinds = {name: name.partition(".")[0] for name in found}
    if not {"x", "y"} <= set(kinds.values()):
        raise InputError("arrays x and y", got, REMEDY)
    unknown = [name for name, kind in kinds.items() if kind not in KINDS or name.endswith(".")]
    mixed = [kind for kind in KINDS if kind in found and list(kinds.values()).count(kind) > 1]
    if unknown or mixed:
        raise InputError(
            "arrays x, y and sample_weight, or x.NAME, y.NAME and sample_weight.NAME for several "
            "inputs and outputs",
            got,
            f"rename or leave out {', '.join(unknown or mixed)}",
        )


def _of_kind(found: dict[str, np.ndarray], kind: str) -> Arrays | None:
    """The array of this name, or the arrays by the NAME behind it; None where there is none."""
    if kind in found:
        return found[kind]
    prefix = f"{kind}."
    named = {
        name.removeprefix(prefix): array for name, array in found.items() if name.startswith(prefix)
    }
    return named or None
