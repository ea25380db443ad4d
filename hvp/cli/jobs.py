"""The jobs of the command line: from files and options to a loss at a point and its comparison."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hvp.cli import process
from hvp.errors import ConvergenceError, DataError, InputError, MixedExamplesError

if TYPE_CHECKING:
    from hvp.comparison.limits import Fit, Limits
    from hvp.comparison.plan import Effort
    from hvp.comparison.results import Comparison
    from hvp.comparison.start import Start
    from hvp.comparison.track import Tracking
    from hvp.linearization.linearization import Linearization
    from hvp.objective.data_sources import Reader
    from hvp.report.terminal import Terminal

# The values that a network computes on a batch take at most this fraction of the memory for saved
# tensors: a product saves two to five times as much, and as much again while it runs.
MAX_BATCH_FRACTION = 1 / 8
# TensorFlow and the programs of a network take about this; of the rest of a limit of memory, this
# share is for saved tensors.
PROCESS_BYTES, CACHE_SHARE = 900 << 20, 1 / 8
# The memory of a single batch is extrapolated from so many examples and twice as many.
FEW_EXAMPLES = 32


@dataclasses.dataclass(frozen=True)
class Job:
    """A model, the arrays of its examples, the title of the results, and where they start."""

    title: str
    model: Any
    data: tuple[Any, ...]
    is_digits: bool = False
    start: Start | None = None


@dataclasses.dataclass(frozen=True)
class Options:
    """What the user chose of a loss, and the bytes of saved tensors, None for a quarter of what is
    free.
    """

    loss: str | None
    layers: list[str] | None
    dtype: str | None
    batch_size: int | None
    cache: int | None = None


@dataclasses.dataclass(frozen=True)
class Request:
    """What the user asked for: how much is computed of which loss, within which limits.

    `command` is the line as it was typed.
    """

    options: Options
    effort: Effort
    limits: Limits
    seed: int
    command: str


def cache_bytes(limits: Limits) -> int:
    """What may be saved between products, so that a process stays within its limit of memory."""
    return int(CACHE_SHARE * max(limits.bytes - PROCESS_BYTES, 0))


def data_reader(model: Path, source: str | None) -> Reader | None:
    """What reads the examples, None for the digits. Raises InputError for a wrong file of either.

    It needs no TensorFlow, so that a wrong file is reported at once.
    """
    from hvp.objective import data_sources, files

    files.check_model(model)
    return None if source is None else data_sources.reader(source)


def checkpoints(given: Sequence[Path]) -> list[Path]:
    """The files of checkpoints, in order. Raises InputError for files of another kind.

    It needs no TensorFlow, so that a wrong file is told at once.
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


def starts(path: Path | None, names: Sequence[str]) -> list[Start | None]:
    """The earlier comparisons of models with these names, None for each without a path."""
    from hvp.report.start_file import load

    if path is None:
        return [None] * len(names)
    if len(names) == 1:
        return [load(path)]
    above = path if path.is_dir() else path.parent
    return [load(above / name / "compare.json") for name in names]


def load_job(model: Path, read: Reader | None, options: Options, rescale: bool = False) -> Job:
    """The model of a file, with the examples that are read for it, or with the digits."""
    from hvp import examples
    from hvp.objective import files

    loaded = files.load_model(model, compiled=options.loss is None)
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


def builtin_job(name: str, seed: int, terminal: Terminal) -> Job:
    """The built-in network, trained on the digits."""
    import keras

    from hvp import examples

    x, y = examples.mnist()
    model = examples.network(name, seed=seed)
    x = x.astype(model.compute_dtype)
    terminal.start(f"{name}: training", examples.EPOCHS)
    report = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: terminal.advance())
    examples.train(model, x, y, seed=seed, callbacks=[report])
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


def all_compared(
    work: Sequence[Job], request: Request, terminal: Terminal
) -> tuple[dict[str, Comparison], InputError | ConvergenceError | None]:
    """The comparisons by title, and the error that ended the work after the first of them.

    All jobs are linearised before any is compared, so that a wrong one is reported at once. An
    interruption or an error keeps the comparisons that are finished.
    """
    ready = [(job, linearized(job, request.options, terminal)) for job in work]
    found: dict[str, Comparison] = {}
    while ready and not terminal.stopped_by:
        job, lin = ready.pop(0)
        try:
            found[job.title] = compared(job, lin, request, terminal)
        except (KeyboardInterrupt, InputError, ConvergenceError) as error:
            if not found:
                raise
            if not isinstance(error, KeyboardInterrupt):
                return found, error
            terminal.stop()
    return found, None


def compared(job: Job, lin: Linearization, request: Request, terminal: Terminal) -> Comparison:
    """The comparison of H, G and R of a job at `lin`: what was computed until an interruption.

    Raises KeyboardInterrupt where nothing was computed before it.
    """
    from hvp.comparison.run import Run
    from hvp.report import summary

    if job.start is not None:
        job.start.check(lin)
    lin, found = fitted(job, lin, request, terminal)
    run = Run(
        lin,
        found.effort,
        seed=request.seed,
        progress=terminal.report_products,
        start=job.start,
    )
    terminal.start_stages(
        job.title, {stage.label: each for stage, each in found.cost.stages.items()}
    )
    try:
        while run.pending:
            stage = run.step()
            terminal.finish_stage(summary.of_stage(run, stage))
    except KeyboardInterrupt:
        if not run.has_results:
            raise
        terminal.stop()
    result = run.comparison(title=job.title, command=request.command)
    return dataclasses.replace(result, findings=tuple(map(process.in_options, result.findings)))


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


def fitted(
    job: Job, lin: Linearization, request: Request, terminal: Terminal
) -> tuple[Linearization, Fit]:
    """The loss and how much of its comparison fits the limits; what that takes is shown."""
    from hvp.comparison.costs import measured_costs
    from hvp.comparison.limits import fit, left_out

    k = _most(job, request.effort.k, lin.size, terminal)
    effort = dataclasses.replace(request.effort, k=k)
    terminal.start(f"{job.title}: measuring products")
    found = fit(lin, effort, measured_costs(lin, effort), request.limits)
    terminal.show_cost(job.title, found, left_out(effort, found))
    if found.num_examples < lin.num_examples:
        job = with_some_examples(job, found.num_examples, request.seed, terminal)
        lin = linearized(job, request.options, terminal)
    return lin, found


def _most(job: Job, k: int, size: int, terminal: Terminal) -> int:
    """k, or the most eigenvalues that so few parameters have at an end."""
    most = max(size - 1, 1)
    if k <= most:
        return k
    terminal.say(
        f"{job.title}: -k {most:,} instead of {k:,}, as it has {size:,} parameters"
        if size > 1
        else f"{job.title}: -k 1 instead of {k:,}, as it has one parameter"
    )
    return most


def linearized(job: Job, options: Options, terminal: Terminal) -> Linearization:
    """The loss of a job at its weights. Raises InputError where it cannot take the data."""
    try:
        return _batched(job, options, terminal)
    except DataError as error:
        if not job.is_digits:
            raise
        expected = "--data, as this model cannot take the built-in digits"
        raise InputError(expected, "none", "give its x and y by --data FILE.npz") from error


def _batched(job: Job, options: Options, terminal: Terminal) -> Linearization:
    """The loss in batches; in a single one, where it mixes examples and that fits into memory."""
    from hvp.objective.batches import batch_size_for_sampling_errors, num_examples

    terminal.start(f"{job.title}: linearising")
    if options.batch_size is not None:
        try:
            return _in_batches(job, options, job.data, options.batch_size)
        except MixedExamplesError as error:
            raise InputError(error.expected, error.got, "leave --batch-size out") from error
    try:
        batch_size = batch_size_for_sampling_errors(job.data[0])
        return _in_small_batches(job, options, _in_batches(job, options, job.data, batch_size))
    except MixedExamplesError as error:
        count = num_examples(job.data[0])
        needed, budget = _single_batch_bytes(job, options, count)
        if needed > budget:
            got = (
                f"{error.got}; one batch would save about {needed >> 20:,} MiB of {budget >> 20:,}"
            )
            raise InputError(error.expected, got, "take fewer examples") from error
    terminal.say(
        f"{job.title}: the loss mixes examples: all {count:,} are one batch, so sampling errors "
        "are not known"
    )
    return _in_batches(job, options, job.data, count)


def _in_small_batches(job: Job, options: Options, lin: Linearization) -> Linearization:
    """The loss as it is, or in smaller batches where the values of a batch take much memory."""
    of_batch = lin.forecast.kept / lin.num_batches
    most = MAX_BATCH_FRACTION * lin.memory.budget
    if of_batch <= most:
        return lin
    batch_size = int(lin.num_examples / lin.num_batches * most / of_batch)
    return _in_batches(job, options, job.data, max(batch_size, 1))


def _single_batch_bytes(job: Job, options: Options, count: int) -> tuple[int, int]:
    """What all examples in one batch would save, and the budget, in bytes.

    Extrapolated from few examples and twice as many: losses of pairs grow like the square.
    """
    import keras

    def saved(few: int) -> tuple[int, int]:
        part = keras.tree.map_structure(lambda array: array[:few], job.data)
        lin = _in_batches(job, options, part, few)
        return lin.forecast.kept, lin.memory.budget

    few = min(FEW_EXAMPLES, count)
    (once, _), (twice, budget) = saved(few), saved(min(2 * few, count))
    if count <= 2 * few:
        return twice, budget
    return int(twice * (twice / once) ** math.log2(count / (2 * few))), budget


def _in_batches(
    job: Job, options: Options, data: tuple[Any, ...], batch_size: int
) -> Linearization:
    from hvp.linearization.linearize import linearize

    chosen = [name for names in options.layers or [] for name in names.split(",")] or None
    # With order and backend given, no timing decides anything: equal input gives equal bits.
    return linearize(
        job.model,
        data,
        options.loss,
        variables=chosen,
        dtype=options.dtype,
        batch_size=batch_size,
        cache="auto" if options.cache is None else options.cache,
        ad="forward-over-reverse",
        jit=False,
    )
