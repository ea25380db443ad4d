"""Where the examples of a command come from: files, folders of images, Keras's data sets, or code.

What a text means is decided before TensorFlow is imported, to report a wrong file at once.
"""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hvp.errors import InputError, shown
from hvp.objective import files
from hvp.objective.file_kinds import DIRECTORY, MISSING, NPY, kind_of
from hvp.objective.files import Arrays
from hvp.objective.shapes import check_shapes

if TYPE_CHECKING:
    import keras

# Data sets of Keras, and the file or folder that Keras keeps of each under ~/.keras/datasets.
KERAS_DATA_SETS = {
    "boston_housing": "boston_housing.npz",
    "california_housing": "california_housing.npz",
    "cifar10": "cifar-10-batches-py",
    "cifar100": "cifar-100-python",
    "fashion_mnist": "fashion-mnist/train-images-idx3-ubyte.gz",
    "mnist": "mnist.npz",
}
# A function of a module.
CODE = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")

# Reads the examples for a model.
Reader = Callable[["keras.Model"], tuple[Arrays, ...]]


def reader(source: str) -> Reader:
    """What reads the examples that a text names, for a model. Files are read at once.

    - ``FILE.npz``: see `hvp.objective.files.load_arrays`.
    - ``X.npy,Y.npy`` or ``X.npy,Y.npy,WEIGHTS.npy``: arrays, mapped into memory.
    - a folder: images in a folder for each class, of the size that the model takes, in the order of
      their names, with values from 0 to 255.
    - ``mnist`` and other data sets of Keras that it has in its cache: the training examples.
    - ``module:function``: a function without arguments that gives ``(x, y)`` or yields batches. It
      runs that code.

    Raises:
        InputError: the text names none of these, or a file that is something else.
    """
    path = Path(source).expanduser()
    kind = kind_of(path)
    if "," in source and kind == MISSING:
        arrays = _mapped([Path(part.strip()).expanduser() for part in source.split(",")])
        return lambda model: arrays
    if kind == DIRECTORY and path.suffix != ".npz":
        return lambda model: _images(path, model)
    if source in KERAS_DATA_SETS and kind == MISSING:
        return lambda model: _keras_data_set(source)
    if CODE.fullmatch(source) and kind == MISSING:
        return lambda model: _called(source)
    found = files.read_arrays(path)
    return lambda model: found


def _mapped(paths: list[Path]) -> tuple[np.ndarray, ...]:
    """The arrays of .npy files, mapped into memory."""
    if not 2 <= len(paths) <= 3:
        raise InputError("X.npy,Y.npy", f"{len(paths)} files", "give x and y")
    found = []
    for path, name in zip(paths, files.KINDS, strict=False):
        kind = kind_of(path)
        if kind != NPY:
            raise files.other_kind(
                NPY.rstrip(","), kind, path, "write it with np.save(file, array)"
            )
        try:
            array = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            got = f"{str(path)!r}: {files.first_line(error)}"
            raise InputError("a numeric .npy file", got, "write it again") from error
        files.check_dtype(name, array.dtype)
        found.append(array)
    check_shapes([array.shape for array in found])
    return tuple(found)


def _images(folder: Path, model: keras.Model) -> tuple[np.ndarray, ...]:
    """The images of a folder as float32 from 0 to 255, and the numbers of their classes."""
    import keras

    shape = model.input_shape
    if not isinstance(shape, tuple) or len(shape) != 4 or None in shape[1:]:
        raise InputError(
            "a model that takes images of one size for a folder of images",
            f"inputs of shape {shape}",
            "give its x and y in an .npz file",
        )
    modes = {1: "grayscale", 3: "rgb", 4: "rgba"}
    if shape[3] not in modes:
        raise InputError(
            "a model of images with 1, 3 or 4 channels last", f"{shape[3]}", "give an .npz file"
        )
    try:
        data = keras.utils.image_dataset_from_directory(
            folder,
            image_size=shape[1:3],
            color_mode=modes[shape[3]],
            batch_size=None,
            shuffle=False,
            verbose=False,
        )
    except ValueError as error:
        got = f"{str(folder)!r}: {files.first_line(error)}"
        remedy = "put the images of each class into a folder of its own"
        raise InputError("a folder with a folder of images for each class", got, remedy) from error
    x, y = zip(*data.as_numpy_iterator(), strict=True)
    return np.stack(x), np.array(y)


def _keras_data_set(name: str) -> tuple[np.ndarray, ...]:
    """The training examples of a data set in Keras's cache; nothing is downloaded."""
    import keras

    home = Path(os.environ.get("KERAS_HOME", "~/.keras")).expanduser()
    cached = home / "datasets" / KERAS_DATA_SETS[name]
    candidates = (cached, cached.with_name(f"{cached.name}-target"))
    if not any(path.exists() for path in candidates):
        raise InputError(
            f"Keras's data set {name} in its cache",
            f"no {str(cached)!r}",
            f"run keras.datasets.{name}.load_data() once in Python, which downloads it",
        )
    (x, y), _ = getattr(keras.datasets, name).load_data()
    return x, y


def _called(source: str) -> tuple[Arrays, ...]:
    """The examples that a function of a module gives, its batches joined."""
    module_name, _, name = source.partition(":")
    try:
        function = getattr(importlib.import_module(module_name), name, None)
    except ImportError as error:
        got = f"{module_name!r}: {files.first_line(error)}"
        raise InputError("a module that can be imported", got, "check its name") from error
    if not callable(function):
        raise InputError(f"a function {name} in {module_name}", shown(function), "check its name")
    found = function()
    if isinstance(found, tuple) and all(hasattr(part, "shape") for part in found):
        return tuple(np.asarray(part) for part in found)
    return _joined(source, found)


def _joined(source: str, batches: Any) -> tuple[Arrays, ...]:
    import keras

    expected = "a function that gives (x, y) or yields batches (x, y)"
    if not isinstance(batches, Iterable):
        raise InputError(expected, f"{source} with {shown(batches)}", "return or yield arrays")
    every = list(batches)
    if not every or not all(isinstance(batch, tuple | list) for batch in every):
        got = f"{source} with {shown(every[0]) if every else 'no batch'}"
        raise InputError(expected, got, "yield tuples of arrays")
    try:
        joined = keras.tree.map_structure(
            lambda *parts: np.concatenate([np.asarray(part) for part in parts]), *map(tuple, every)
        )
    except ValueError as error:
        got = f"{source}: {files.first_line(error)}"
        raise InputError("batches of one structure and shape", got, "yield them alike") from error
    return tuple(joined)
