"""Models and their examples: from files, or the built-in networks and digits."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hvp.cli.unfinished import BEFORE
from hvp.errors import InputError

if TYPE_CHECKING:
    from hvp.comparison.start import Start
    from hvp.objective.data_sources import Reader
    from hvp.report.terminal import Terminal
    from hvp.resuming.journal import Journal


@dataclasses.dataclass(frozen=True)
class Job:
    """A model, the arrays of its examples, the title of the results, and where they start."""

    title: str
    model: Any
    data: tuple[Any, ...]
    is_digits: bool = False
    start: Start | None = None


def data_reader(model: Path, source: str | None) -> Reader | None:
    """What reads the examples, None for the digits. Raises InputError for a wrong file of either.

    It needs no TensorFlow, so that a wrong file is reported at once.
    """
    from hvp.objective import data_sources, files

    files.check_model(model)
    return None if source is None else data_sources.reader(source)


def models_by_name(paths: Sequence[Path]) -> dict[str, Path]:
    """Models by the names of their results.

    Raises InputError where two names are the same, or one is that of a directory above.
    """
    found: dict[str, Path] = {}
    for path in paths:
        if not path.stem.strip("."):
            raise InputError(
                "a model with a name, as results have it", repr(path.name), "rename it"
            )
        other = next((found[name] for name in found if name.lower() == path.stem.lower()), None)
        if other is not None:
            expected = "models with different names, as results are named after them"
            raise InputError(expected, f"{str(other)!r} and {str(path)!r}", "rename one")
        found[path.stem] = path
    return found


def load_job(model: Path, read: Reader | None, loss: str | None, rescale: bool = False) -> Job:
    """The model of a file, with the examples that are read for it, or with the digits.

    `loss` is the name of a Keras loss to use instead of the compiled one.
    """
    from hvp import examples
    from hvp.objective import files

    loaded = files.load_model(model, compiled=loss is None)
    if read is None:
        return Job(model.stem, loaded, examples.mnist(), is_digits=True)
    x, *others = read(loaded)
    return Job(model.stem, loaded, (_rescaled(x) if rescale else x, *others))


def _rescaled(x: Any) -> Any:
    """Images with values from 0 to 255, or a dict of them, as float32 from 0 to 1."""
    if isinstance(x, dict):
        return {name: _rescaled(array) for name, array in x.items()}
    is_byte = x.dtype == "uint8" or (x.dtype.kind == "f" and x.min() >= 0 and 1 < x.max() <= 255)
    if not is_byte:
        got = f"x of {x.dtype}"
        raise InputError("images of uint8 for --rescale", got, "leave --rescale out")
    return x.astype("float32") / 255


def builtin_job(name: str, seed: int, terminal: Terminal, journal: Journal | None = None) -> Job:
    """The built-in network, trained on the digits, or as it is in the journal."""
    import keras

    from hvp import examples

    x, y = examples.mnist()
    model = examples.network(name, seed=seed)
    x = x.astype(model.compute_dtype)
    terminal.start(f"{name}: training", examples.EPOCHS)
    report = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: terminal.advance())

    def weights() -> Any:
        examples.train(model, x, y, seed=seed, callbacks=[report])
        return model.get_weights()

    if journal is None:
        weights()
    else:
        model.set_weights(journal.stage(f"{BEFORE}weights", weights))
    return Job(name, model, (x, y))


def with_some_examples(job: Job, count: int, seed: int, terminal: Terminal) -> Job:
    """The job on a random subset of its examples, in their order."""
    import keras
    import numpy as np

    from hvp.objective.batches import num_examples

    total = num_examples(job.data[0])
    if count >= total:
        return job
    terminal.say(f"{job.title}: {count:,} of {total:,} examples, chosen at random")
    rows = np.sort(np.random.default_rng(seed).choice(total, count, replace=False))
    data = keras.tree.map_structure(lambda array: array[rows], job.data)
    return dataclasses.replace(job, data=data)
