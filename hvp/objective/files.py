"""Read Keras models and arrays of examples from files, without running code from the files.

Only `load_model` and `load_arrays` import TensorFlow, so that a wrong file is reported at once.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import psutil

from hvp.errors import InputError
from hvp.objective.file_kinds import HDF5, KERAS, MISSING, NPZ, PIPE, UNREADABLE, kind_of
from hvp.objective.shapes import check_shapes

if TYPE_CHECKING:
    import keras

# What stands in a configuration for a function that is kept as Python code.
LAMBDA = "__lambda__"
HDF5_SUFFIXES = (".h5", ".hdf5")


def check_model(path: str | Path) -> None:
    """Raise InputError for a file that is no Keras model, without loading it."""
    path = Path(path)
    kind = kind_of(path)
    remedy = "save the model by model.save('NAME.keras')"
    if kind == KERAS and path.suffix != ".keras":
        raise InputError("a file named NAME.keras", repr(str(path)), "rename it")
    if kind == HDF5 and path.suffix == ".keras":
        remedy = f"rename it to {path.with_suffix('.h5').name!r} if it holds a model"
    if kind != KERAS and not (kind == HDF5 and path.suffix in HDF5_SUFFIXES):
        raise other_kind(KERAS, kind, path, remedy)


def load_model(path: str | Path, *, compiled: bool = True) -> keras.Model:
    """The model of a ``.keras`` file, loaded in safe mode; without its loss unless `compiled`.

    Raises InputError where there is no such file or Keras cannot load it; in safe mode Keras
    refuses layers with Python code.
    """
    import keras

    path = Path(path)
    check_model(path)
    try:
        return keras.models.load_model(path, compile=compiled)
    except Exception as error:  # Keras and its file formats raise many kinds
        foreign = list(_foreign(_configuration(path), ""))
        if foreign:
            raise _needs_python(path, foreign) from error
        if not compiled:
            raise InputError(
                "a .keras file that Keras can load",
                f"{str(path)!r}: {first_line(error)}",
                "save it by model.save",
            ) from error
    return _with_its_loss(path)


def _with_its_loss(path: Path) -> keras.Model:
    """The model compiled with its loss alone, where Keras does not know what else it needs."""
    model = load_model(path, compiled=False)
    try:
        config = _configuration(path)["compile_config"]
        model.compile_from_config({key: config[key] for key in ("loss", "loss_weights")})
    except Exception as error:  # Keras raises many kinds
        reason = first_line(error).partition(". ")[0]
        raise InputError(
            "a compiled loss that Keras knows", f"{str(path)!r}: {reason}", "pass loss="
        ) from error
    return model


def check_weights(path: Path) -> None:
    """Raise InputError for a file that holds no weights, without reading them."""
    kind = kind_of(path)
    if kind != HDF5:
        raise other_kind(HDF5, kind, path, "save them by model.save_weights('NAME.weights.h5')")


def num_weights(path: Path) -> int:
    """How many arrays ``save_weights`` wrote, those of the optimiser left out."""
    import h5py  # type: ignore[import-untyped]

    found: list[str] = []

    def visit(name: str, item: object) -> None:
        if isinstance(item, h5py.Dataset) and not name.startswith("optimizer/"):
            found.append(name)

    with h5py.File(path, "r") as file:
        file.visititems(visit)
    return len(found)


class Foreign(NamedTuple):
    """A class or a function that is not Keras's own, and the layer that has it."""

    layer: str
    name: str

    def __str__(self) -> str:
        if self.name == LAMBDA:
            return f"the layer {self.layer!r} with a lambda, which is code"
        name = self.name if self.name.isidentifier() else repr(self.name)
        return f"{name} in {f'the layer {self.layer!r}' if self.layer else 'the model'}"


def _needs_python(path: Path, foreign: list[Foreign]) -> InputError:
    # Another name is not from Keras, and could bring a stranger's code into the line to run.
    names = sorted({found.name for found in foreign if found.name.isidentifier()} - {LAMBDA})
    has_code = any(found.name == LAMBDA for found in foreign)
    arguments = ["safe_mode=False"] if has_code else []
    if names:
        given = ", ".join(f"{name!r}: {name}" for name in names)
        arguments.append(f"custom_objects={{{given}}}")
    return InputError(
        "a .keras file of Keras's own classes and functions",
        foreign[0],
        f"{'if you trust the file, ' if has_code else ''}in Python: "
        f"model = keras.models.load_model({', '.join([repr(str(path)), *arguments])}); "
        "hvp.compare(hvp.linearize(model, (x, y))).save('hvp-compare')",
    )


def _configuration(path: Path) -> Any:
    try:
        with zipfile.ZipFile(path) as archive:
            return json.loads(archive.read("config.json"))
    except Exception:  # an HDF5 file, or a damaged one
        return None


def _foreign(config: Any, layer: str) -> Iterator[Foreign]:
    """What a model's configuration names that is not Keras's own, without what compiles it."""
    if isinstance(config, list):
        for part in config:
            yield from _foreign(part, layer)
    if not isinstance(config, dict):
        return
    name, inner = str(config.get("class_name", "")), config.get("config")
    layer = str(inner.get("name", layer)) if isinstance(inner, dict) else layer
    if name == LAMBDA:
        yield Foreign(layer, name)
    elif name == "function":
        yield Foreign(layer, str(inner))
    elif name and not name.startswith("__") and not str(config.get("module")).startswith("keras"):
        yield Foreign(layer, name)
    for key, part in config.items():
        if key != "compile_config":
            yield from _foreign(part, layer)


def first_line(error: Exception) -> str:
    """The first line of an error, or its type."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def other_kind(expected: str, kind: str, path: Path, remedy: str) -> InputError:
    """The error for a file of another kind."""
    if kind == MISSING:
        remedy = "check the path"
    elif kind == PIPE:
        remedy = "write it to a file first"
    elif kind.startswith(UNREADABLE):
        remedy = "check its name and its permissions"
    return InputError(expected, f"{kind} {str(path)!r}", remedy)


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
    from hvp.objective.batches import check_arrays

    data = read_arrays(path)
    check_arrays(data)
    return data


def read_arrays(path: str | Path) -> tuple[Arrays, ...]:
    """As `load_arrays`, but NaN and infinity are not looked for, which needs TensorFlow.

    Names, types and lengths are read from the headers, before any array is decompressed.
    """
    path = Path(path)
    kind = kind_of(path)
    if kind != NPZ:
        raise other_kind(NPZ, kind, path, REMEDY)
    try:
        headers = dict(_headers(path))
        _check_headers(headers, path)
        with np.load(path, allow_pickle=False) as arrays:
            found = {name: arrays[name] for name in arrays}
    except InputError:
        raise
    except Exception as error:  # zip, zlib and NumPy raise many kinds
        raise InputError(
            NPZ, f"a damaged one, {str(path)!r}: {first_line(error)}", "write it again"
        ) from error
    parts = [_of_kind(found, kind) for kind in KINDS]
    return tuple(part for part in parts if part is not None)


class Header(NamedTuple):
    """The shape and the dtype of an array in a file."""

    shape: tuple[int, ...]
    dtype: np.dtype

    @property
    def num_bytes(self) -> int:
        return int(np.prod(self.shape, dtype=object)) * self.dtype.itemsize


def _headers(path: Path) -> Iterator[tuple[str, Header]]:
    """The name and the header of each array in the archive."""
    readers = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
        # Version 3 differs in the encoding of the names of fields alone, and fields are refused.
        (3, 0): np.lib.format.read_array_header_2_0,
    }
    with zipfile.ZipFile(path) as archive:
        for member in archive.namelist():
            with archive.open(member) as file:
                shape, _, dtype = readers[np.lib.format.read_magic(file)](file)
            yield member.removesuffix(".npy"), Header(shape, dtype)


def _check_headers(headers: dict[str, Header], path: Path) -> None:
    """Raise InputError for other names, types or lengths, and for more than fits into memory."""
    _check_names(list(headers), path)
    for name, (_, dtype) in headers.items():
        check_dtype(name, dtype)
    check_shapes([header.shape for header in headers.values()])
    needed = sum(header.num_bytes for header in headers.values())
    free = psutil.virtual_memory().available
    if needed > free:
        sizes = " and ".join(f"{name} of shape {h.shape}" for name, h in headers.items())
        got = f"{sizes}: {needed / 2**30:,.1f} GiB of {free / 2**30:,.1f}"
        raise InputError("arrays that fit into the free memory", got, "take fewer examples")


def check_dtype(name: str, dtype: np.dtype) -> None:
    """Raise InputError for an array that holds no numbers."""
    if dtype.kind not in "biuf":
        raise InputError(f"a numeric array {name}", *_not_numeric(name, dtype))


def _not_numeric(name: str, dtype: np.dtype) -> tuple[str, str]:
    """What an array holds instead of numbers, and what to do."""
    if dtype.hasobject:
        remedy = f"make it one array of numbers, np.asarray({name}, float): equal rows, no None"
        return "Python objects (dtype object)", remedy
    if dtype.kind in "US":
        return f"text (dtype {dtype})", "replace text by numbers, such as class numbers from 0"
    return f"dtype {dtype}", REMEDY


def _check_names(names: list[str], path: Path) -> None:
    got = f"{sorted(names)} in {str(path)!r}"
    kinds = {name: name.partition(".")[0] for name in names}
    if not {"x", "y"} <= set(kinds.values()):
        raise InputError("arrays x and y", got, REMEDY)
    unknown = [name for name, kind in kinds.items() if kind not in KINDS or name.endswith(".")]
    mixed = [kind for kind in KINDS if kind in names and list(kinds.values()).count(kind) > 1]
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
