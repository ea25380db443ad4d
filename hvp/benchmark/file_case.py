"""A model and its examples from files, as a case."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hvp.benchmark.layer_cases import Loaded
from hvp.errors import InputError
from hvp.objective import data_sources, files


@dataclass(frozen=True)
class FileCase:
    """A ``.keras`` file and a source of examples, see `hvp.objective.data_sources`.

    Attributes:
        path: of the model.
        source: of the examples, which are one batch.
        loss: the name of a Keras loss, None for the compiled one.
        batch: take only so many first examples; None takes all.
        jit: see `LayerCase`.
    """

    path: Path
    source: str
    loss: str | None = None
    batch: int | None = None
    jit: str = "auto"

    @property
    def title(self) -> str:
        return self.path.stem if self.batch is None else f"{self.path.stem}, batch {self.batch}"

    @property
    def name(self) -> str:
        return self.path.stem if self.batch is None else f"{self.path.stem}-batch-{self.batch}"

    def load(self) -> Loaded:
        """The model with its first examples. Raises InputError for wrong files or too few."""
        import keras

        model = files.load_model(self.path, compiled=self.loss is None)
        given = data_sources.reader(self.source)(model)
        num_examples = len(keras.tree.flatten(given)[0])
        if self.batch is not None and self.batch > num_examples:
            raise InputError(f"--batch up to {num_examples}", self.batch, "leave it out for all")
        data: tuple[Any, ...] = keras.tree.map_structure(lambda array: array[: self.batch], given)
        return Loaded(model, data, self.loss)


def of_files(model: Path, source: str, **options: Any) -> FileCase:
    """The case of files that are there. Raises InputError for a wrong one, without TensorFlow."""
    files.check_model(model)
    data_sources.reader(source)
    return dataclasses.replace(FileCase(model.resolve(), _absolute(source)), **options)


def _absolute(source: str) -> str:
    paths = source.split(",")
    return ",".join(str(Path(path).resolve()) if Path(path).exists() else path for path in paths)
