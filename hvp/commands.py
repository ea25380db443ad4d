"""The commands of the command line. TensorFlow is imported when a command needs it."""

from __future__ import annotations

import contextlib
import math
import os
import re
import shlex
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from hvp import jobs
from hvp.errors import ConvergenceError, InputError

if TYPE_CHECKING:
    from hvp.comparison.results import Comparison
    from hvp.report.terminal import Terminal

# What a command line raises that no command can take: its class has no public name in Typer.
UsageError: type[Any] = typer.BadParameter.__bases__[0]


class _OneLineErrors(TyperGroup):
    """Commands whose errors are one line on standard error."""

    def main(self, *args: Any, **options: Any) -> None:
        with _one_line_errors():
            sys.exit(super().main(*args, **{**options, "standalone_mode": False}))


app = typer.Typer(
    cls=_OneLineErrors, add_completion=False, pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)  # fmt: skip


ACTIVATIONS = ("relu", "tanh", "both")
MAX_SEED = 2**32 - 1
TIME_UNITS = {"s": 1, "m": 60, "min": 60, "h": 3600, "": 60}
SIZE_UNITS = {"M": 10**6, "G": 10**9}
# Of the memory that is free, the process may take this share.
MEMORY_SHARE = 0.6


@app.callback(invoke_without_command=True)
def hvp(
    context: typer.Context,
    show_version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.")
    ] = False,
) -> None:
    """Matrix-free curvature of Keras models: H, the Gauss-Newton matrix G, and R = H - G."""
    if show_version:
        version()
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
        raise typer.Exit(2)


@app.command()
def version() -> None:
    """Print the version."""
    from hvp import __version__

    with _named("standard output"):
        typer.echo(__version__)


def _whole_number(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise typer.BadParameter(f"expected a whole number, got {text!r}") from None


def _path(text: str) -> Path:
    """A path, with ~ for the home directory, which a shell leaves as it is after ``--out=``."""
    if not str(text):
        raise typer.BadParameter("expected a path, got ''")
    return Path(os.path.expanduser(text))


def _source(text: str) -> str:
    """A source of examples. Modules are looked for in the current directory, too."""
    from hvp.objective.data_sources import CODE

    if not str(text):
        raise typer.BadParameter("expected a file, a folder, a data set or code, got ''")
    if CODE.fullmatch(text) and "" not in sys.path:
        sys.path.insert(0, "")
    return text


def _number(help_text: str, *names: str) -> Any:
    """An option that takes a whole number."""
    return typer.Option(*names, parser=_whole_number, metavar="<int>", help=help_text)


ModelOption = Annotated[
    Path | None,
    typer.Option(
        parser=_path, metavar="<path>", help="A .keras file instead of the built-in network."
    ),
]
ModelsArgument = Annotated[
    list[Path] | None,
    typer.Argument(
        parser=_path,
        metavar="[MODEL.keras]...",
        help="One or more .keras files instead of the built-in networks, all on the same --data. "
        "Several get a directory each and a page that compares them.",
        show_default=False,
    ),
]
DataOption = Annotated[
    str | None,
    typer.Option(
        parser=_source,
        metavar="<source>",
        help="Examples for the model: an .npz file with arrays x, y and, if examples have weights, "
        "sample_weight (x.NAME, y.NAME, sample_weight.NAME for several inputs and outputs); "
        "X.npy,Y.npy; a folder with a folder of images for each class; mnist, cifar10 or another "
        "data set in Keras's cache; or module:function, whose code is run, for (x, y) or batches.",
    ),
]
LossOption = Annotated[
    str | None, typer.Option(help="Name of a Keras loss to use instead of the compiled one.")
]
LayersOption = Annotated[
    list[str] | None,
    typer.Option(
        help="Use only the parameters of these layers: names or patterns, separated by commas."
    ),
]
BatchSizeOption = Annotated[
    int | None,
    _number(
        "Examples in a batch. The default gives about ten batches, for sampling errors; if "
        "the loss mixes examples, all are one batch."
    ),
]
SeedOption = Annotated[
    int,
    _number("Seed of weights, training and random vectors."),
]
RescaleOption = Annotated[
    bool, typer.Option("--rescale", help="Divide images x from 0 to 255 by 255, as for training.")
]
DtypeOption = Annotated[
    str | None,
    typer.Option(help="float64: double precision, whatever the model has."),
]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")]


@app.command()
def compare(
    context: typer.Context,
    models: ModelsArgument = None,
    activation: Annotated[
        str | None,
        typer.Option(help="Activation of the built-in network: relu, tanh or both (the default)."),
    ] = None,
    model: ModelOption = None,
    data: DataOption = None,
    loss: LossOption = None,
    layers: LayersOption = None,
    batch_size: BatchSizeOption = None,
    k: Annotated[
        int,
        _number("Number of eigenvalues at each end.", "-k"),
    ] = 10,
    probes: Annotated[
        int,
        _number("Random probes of a density; R and single layers take half of them."),
    ] = 10,
    steps: Annotated[
        int,
        _number("Lanczos steps of each probe; R and single layers take half of them."),
    ] = 80,
    no_layers: Annotated[
        bool, typer.Option("--no-layers", help="Leave out the spectra of single layers.")
    ] = False,
    matrices: Annotated[
        str,
        typer.Option(
            metavar="<list>", help="Which of H, G and R to compare, such as H,G; R needs H."
        ),
    ] = "H,G,R",
    parts: Annotated[
        str,
        typer.Option(
            metavar="<list>",
            help="Which results to compute: chain-rule, ends, density, traces. The density and the "
            "traces bring the ends with them; the chain rule needs H, G and R.",
        ),
    ] = "chain-rule,ends,density,traces",
    examples: Annotated[
        int | None,
        _number("Take so many of the examples, chosen at random."),
    ] = None,
    budget: Annotated[
        str,
        typer.Option(
            metavar="<time>",
            help="The time that a network may take, such as 90s, 10m or 2h: where more is "
            "expected, less is computed. none computes everything.",
        ),
    ] = "10m",
    memory: Annotated[
        str | None,
        typer.Option(
            metavar="<size>",
            help="The most memory of the process, such as 500M or 6G; the default is 0.6 of what "
            "is free.",
        ),
    ] = None,
    rescale: RescaleOption = False,
    dtype: DtypeOption = None,
    seed: SeedOption = 0,
    out: Annotated[
        Path, typer.Option(parser=_path, metavar="<path>", help="Directory for the results.")
    ] = Path("hvp-compare"),
    quiet: QuietOption = False,
) -> None:
    """Compare the spectra of H, G and R = H - G, whole and layer by layer.

    Without arguments it trains a network with 24,790 parameters on 5,000 embedded MNIST digits,
    once with ReLU and once with tanh. Several models get a directory each, and compare.html above
    them is a page that compares them. Exits with 1 if the derivatives disagree with finite
    differences; the results are written nevertheless.
    """
    start = time.perf_counter()
    from hvp.comparison.forecast import Limits
    from hvp.comparison.plan import Effort
    from hvp.report.save import save, save_several  # a missing package shows before any work
    from hvp.report.terminal import Terminal

    terminal = Terminal(quiet)
    with _signals(terminal), terminal.running():
        _check_choice("--activation", activation, ACTIVATIONS)
        _check_choice("--dtype", dtype, ("float64",))
        chosen_models = _chosen_models(models, model)
        _check_usage(activation, chosen_models, data, k, seed, batch_size, rescale)
        _check_effort(probes, steps, examples)
        limits = Limits(_seconds(budget), _bytes(memory))
        options = jobs.Options(loss, layers, dtype, batch_size, jobs.cache_bytes(limits))
        chosen = Effort.chosen_matrices(matrices)
        effort = Effort(
            k=k,
            num_probes=probes,
            num_steps=steps,
            layers=not no_layers,
            matrices=chosen,
            results=Effort.chosen_results(parts, chosen),
        )
        files = jobs.models_by_name(chosen_models)
        builtin = ["relu", "tanh"] if activation in (None, "both") else [str(activation)]
        names = list(files) or builtin
        several = len(names) > 1
        directories = [out / name for name in names] if several else []
        with _directories([*directories, out]):
            readers = [jobs.data_reader(path, data) for path in files.values()]
            terminal.start("importing TensorFlow")
            _import_tensorflow(seed)
            if files:
                work = [
                    jobs.load_job(path, read, options, rescale)
                    for path, read in zip(files.values(), readers, strict=True)
                ]
            else:
                work = [jobs.builtin_job(name, seed, terminal) for name in names]
            command = _command(context)
            if examples is not None:
                work = [jobs.with_some_examples(job, examples, seed, terminal) for job in work]
            results, failure = jobs.all_compared(
                work, options, effort, limits, seed, command, terminal
            )
            terminal.start("writing")
            with _named(out):
                if several:
                    written = save_several(results, out, missing=names[len(results) :])
                else:
                    written = save(next(iter(results.values())), out)
    for comparison in results.values():
        terminal.show(comparison)
    for path in written:
        terminal.say_path(path)
    terminal.say(
        f"{time.perf_counter() - start:.1f} s in total, including the import of TensorFlow"
    )
    terminal.raise_if_not_shown()
    if failure is not None:
        raise failure
    _exit_if_not_certified(list(results.values()))
    if terminal.stopped_by:
        _fail_interrupted(terminal.stopped_by)


@app.command()
def check(
    model: ModelOption = None,
    data: DataOption = None,
    loss: LossOption = None,
    layers: LayersOption = None,
    batch_size: BatchSizeOption = None,
    rescale: RescaleOption = False,
    dtype: DtypeOption = None,
    seed: SeedOption = 0,
    quiet: QuietOption = False,
) -> None:
    """Check the products of a model against central differences and algebraic laws.

    Exits with 1 if a check fails.
    """
    from hvp.report.terminal import Terminal

    terminal = Terminal(quiet)
    with _signals(terminal), terminal.running():
        _check_choice("--dtype", dtype, ("float64",))
        _check_usage(None, [] if model is None else [model], data, 1, seed, batch_size, rescale)
        options = jobs.Options(loss, layers, dtype, batch_size)
        read = None if model is None else jobs.data_reader(model, data)
        terminal.start("importing TensorFlow")
        _import_tensorflow(seed)
        job = (
            jobs.builtin_job("tanh", seed, terminal)
            if model is None
            else jobs.load_job(model, read, options, rescale)
        )
        from hvp.testing.finite_differences import check as run

        lin = jobs.linearized(job, options, terminal)
        terminal.start(f"{job.title}: checking")
        report = run(lin, seed=seed)
    for finding in lin.findings:
        terminal.say(str(finding))
    terminal.show_checks(report.rows())
    terminal.raise_if_not_shown()
    if not report.passed:
        raise typer.Exit(1)


def _exit_if_not_certified(results: Sequence[Comparison]) -> None:
    from hvp.report import summary

    failed = [result for result in results if not result.passed]
    for result in failed:
        typer.echo(f"hvp: {result.title}: {summary.certificate(result)}", err=True)
    if failed:
        raise typer.Exit(1)


def _command(context: typer.Context) -> str:
    """The command as typed, without options that change no number, quoted for a shell."""
    words = ["hvp", str(context.info_name)]
    for option in context.command.params:
        source = context.get_parameter_source(str(option.name))
        if source is None or source.name != "COMMANDLINE" or option.name in ("out", "quiet"):
            continue
        value = context.params[str(option.name)]
        for one in value if isinstance(value, list | tuple) else [value]:
            if option.param_type_name == "argument":
                words.append(os.path.join(".", one) if str(one).startswith("-") else str(one))
            else:
                words += [option.opts[0]] if one is True else [option.opts[0], str(one)]
    return shlex.join(words)


def _chosen_models(models: list[Path] | None, model: Path | None) -> list[Path]:
    """The files of the models, without names for the built-in networks."""
    if models and model is not None:
        raise InputError("models by their names or by --model", "both", "leave --model out")
    return models or ([] if model is None else [model])


def _check_choice(option: str, value: str | None, choices: tuple[str, ...]) -> None:
    if value is not None and value not in choices:
        raise InputError(
            f"{option} {' or '.join(choices)}", repr(value), "choose from these or leave it out"
        )


def _seconds(budget: str) -> float:
    """The seconds of a time such as 90s, 10m or 2h; a number alone is minutes."""
    if budget == "none":
        return math.inf
    found = re.fullmatch(r"(\d+\.?\d*|\.\d+)(s|m|min|h|)", budget)
    seconds = float(found[1]) * TIME_UNITS[found[2]] if found else 0.0
    if not 0 < seconds < math.inf:
        raise InputError("a --budget such as 90s, 10m, 2h or none", repr(budget), "write it so")
    return seconds


def _bytes(memory: str | None) -> float:
    """The bytes of a size such as 500M or 6G; None is a share of what is free."""
    if memory is None:
        import psutil

        return MEMORY_SHARE * psutil.virtual_memory().available
    found = re.fullmatch(r"(\d+\.?\d*|\.\d+)(M|G)(B|iB|)", memory)
    size = float(found[1]) * SIZE_UNITS[found[2]] if found else 0.0
    if not 0 < size < math.inf:
        raise InputError("a --memory such as 500M or 6G", repr(memory), "write it so")
    return size


def _check_effort(probes: int, steps: int, examples: int | None) -> None:
    for option, value, least in (
        ("--probes", probes, 1),
        ("--steps", steps, 2),
        ("--examples", examples, 1),
    ):
        if value is not None and value < least:
            raise InputError(f"{option} of at least {least}", value, "leave it out")


def _check_usage(
    activation: str | None,
    models: Sequence[Path],
    data: str | None,
    k: int,
    seed: int,
    batch_size: int | None,
    rescale: bool,
) -> None:
    if models and activation is not None:
        raise InputError("--model or --activation", "both", "leave one out")
    if data is not None and not models:
        remedy = "the built-in network has its own digits"
        raise InputError("--model with --data", "--data alone", remedy)
    if rescale and data is None:
        remedy = "leave it out: the built-in digits are from 0 to 1"
        raise InputError("--data with --rescale", "--rescale alone", remedy)
    if k < 1:
        raise InputError("a -k of at least 1", k, "leave it out for 10")
    if batch_size is not None and batch_size < 1:
        raise InputError("a --batch-size of at least 1", batch_size, "leave it out")
    if not 0 <= seed <= MAX_SEED:
        raise InputError(f"a --seed from 0 to {MAX_SEED}", seed, "choose another")


@contextlib.contextmanager
def _directories(wanted: list[Path]) -> Iterator[None]:
    """Create the directories before any work, and remove the new ones that stay empty."""
    made: list[Path] = []
    try:
        for directory in wanted:
            for path in reversed((directory, *directory.parents)):
                if not path.exists():
                    path.mkdir()
                    made.append(path)
            blocked = any(map(Path.is_dir, directory.glob("compare.*")))
            if blocked or not directory.is_dir() or not os.access(directory, os.W_OK | os.X_OK):
                raise PermissionError("cannot be written to")
    except OSError as error:
        _remove_empty(made)
        reason = error.strerror or str(error)
        raise InputError(
            "a directory to write to", f"{str(directory)!r}: {reason}", "choose another --out"
        ) from error
    try:
        yield
    finally:
        _remove_empty(made)


def _remove_empty(directories: list[Path]) -> None:
    for directory in reversed(directories):
        with contextlib.suppress(OSError):
            directory.rmdir()


def _import_tensorflow(seed: int) -> None:
    """Import TensorFlow without its start-up messages, which C++ writes to descriptor 2."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with _standard_error_captured():
        import keras
        import tensorflow as tf

        tf.constant(0.0)
    import absl.logging

    absl.logging.set_verbosity(absl.logging.ERROR)
    tf.get_logger().setLevel("ERROR")
    tf.config.experimental.enable_op_determinism()
    keras.utils.set_random_seed(seed)


@contextlib.contextmanager
def _standard_error_captured() -> Iterator[None]:
    """Capture what is written to standard error, and write it out if the block fails."""
    sys.stderr.flush()
    original = os.dup(2)
    with tempfile.TemporaryFile() as captured:
        os.dup2(captured.fileno(), 2)
        try:
            yield
        except Exception:
            captured.seek(0)
            os.write(original, captured.read())
            raise
        finally:
            sys.stderr.flush()
            os.dup2(original, 2)
            os.close(original)


@contextlib.contextmanager
def _signals(terminal: Terminal) -> Iterator[None]:
    """Turn Ctrl-C and the signal to terminate into an interruption, which removes what was made."""
    before = {
        number: signal.signal(number, terminal.interrupt)
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    except KeyboardInterrupt:
        _fail_interrupted(terminal.interrupted_by or signal.SIGINT)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _fail_interrupted(number: int) -> NoReturn:
    _fail("terminated" if number == signal.SIGTERM else "interrupted", 128 + number)


@contextlib.contextmanager
def _named(place: str | Path) -> Iterator[None]:
    """Name the place in an error of the system, which that of a full disk does not."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(place)) from error


@contextlib.contextmanager
def _one_line_errors() -> Iterator[None]:
    """Print an error as one line and exit: 1 no convergence or no output, 2 bad input."""
    try:
        yield
    except InputError as error:
        _fail(jobs.message(error), 2)
    except ConvergenceError as error:
        _fail(jobs.message(error), 1)
    except UsageError as error:
        message = error.format_message().rstrip(".")
        command = error.ctx.command_path if error.ctx else "hvp"
        message = jobs.shortened(f"{message[:1].lower()}{message[1:]}", jobs.MAX_MESSAGE_LENGTH)
        _fail(f"{message}; see {command} --help", 2)
    except OSError as error:
        name = "" if error.filename is None else str(error.filename)
        place = f"{jobs.shortened(name, jobs.MAX_MESSAGE_LENGTH // 2)}: " if name else ""
        _fail(f"{place}{error.strerror or error}", 1)


def _fail(message: str, code: int) -> NoReturn:
    typer.echo(" ".join(f"hvp: {message}".split()), err=True)
    raise SystemExit(code)
