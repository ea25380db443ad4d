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


def load_arrays(path: str | Path) -> tuple[np.ndarray, np.ndarray]:
    """The numeric arrays ``x`` and ``y`` of an ``.npz`` file, with one first axis.

    Pickled objects are never read. Raises InputError for any other file.
    """
    path = Path(path)
    remedy = "write it with np.savez(file, x=..., y=...)"
    if not path.is_file():
        raise InputError("an .npz file", f"no file {str(path)!r}", "check the path")
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            raise InputError("an .npz file", f"a single array in {str(path)!r}", remedy)
        with loaded as arrays:
            missing = {"x", "y"} - set(arrays)
            if missing:
                raise InputError("arrays x and y", f"{sorted(arrays)} in {str(path)!r}", remedy)
            x, y = arrays["x"], arrays["y"]
    except InputError:
        raise
    except ValueError as error:
        raise InputError(
            "numeric arrays", f"pickled objects or no arrays in {str(path)!r}", remedy
        ) from error
    except Exception as error:  # zip, zlib and NumPy raise many kinds
        raise InputError("an .npz file", f"{str(path)!r} unreadable", remedy) from error
    for name, array in (("x", x), ("y", y)):
        if array.dtype.kind not in "iuf":
            raise InputError(f"a numeric array {name}", f"dtype {array.dtype}", remedy)
    check_arrays((x, y))
    return x, y
