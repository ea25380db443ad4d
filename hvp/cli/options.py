"""The options of the commands: as Typer reads them, what their values may be, as typed."""

from __future__ import annotations

import math
import os
import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from hvp.errors import InputError

ACTIVATIONS = ("relu", "tanh", "both")
# Options that change no number.
UNTYPED = ("out", "quiet", "fresh")
MAX_SEED = 2**32 - 1
TIME_UNITS = {"s": 1, "m": 60, "min": 60, "h": 3600, "": 60}
SIZE_UNITS = {"M": 10**6, "G": 10**9}
# Of the memory that is free, the process may take this share.
MEMORY_SHARE = 0.6


def whole_number(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise typer.BadParameter(f"expected a whole number, got {text!r}") from None


def path(text: str) -> Path:
    """A path, with ~ for the home directory, which a shell leaves as it is after ``--out=``."""
    if not str(text):
        raise typer.BadParameter("expected a path, got ''")
    return Path(os.path.expanduser(text))


def source(text: str) -> str:
    """A source of examples. Modules are looked for in the current directory, too."""
    from hvp.objective.data_sources import CODE

    if not str(text):
        raise typer.BadParameter("expected a file, a folder, a data set or code, got ''")
    if CODE.fullmatch(text) and "" not in sys.path:
        sys.path.insert(0, "")
    return text


def number(help_text: str, *names: str) -> Any:
    """An option that takes a whole number."""
    return typer.Option(*names, parser=whole_number, metavar="<int>", help=help_text)


ModelOption = Annotated[
    Path | None,
    typer.Option(
        parser=path, metavar="<path>", help="A .keras file instead of the built-in network."
    ),
]
ModelsArgument = Annotated[
    list[Path] | None,
    typer.Argument(
        parser=path,
        metavar="MODEL.keras",
        help="One or more .keras files instead of the built-in networks, all on the same --data. "
        "Several get a directory each and a page that compares them.",
        show_default=False,
    ),
]
DataOption = Annotated[
    str | None,
    typer.Option(
        parser=source,
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
    number(
        "Examples in a batch. The default gives about ten batches, for sampling errors; if "
        "the loss mixes examples, all are one batch."
    ),
]
SeedOption = Annotated[
    int,
    number("Seed of weights, training and random vectors."),
]
ExamplesOption = Annotated[
    int | None, number("Use only this many of the examples, chosen at random.")
]
RescaleOption = Annotated[
    bool, typer.Option("--rescale", help="Divide images x from 0 to 255 by 255, as for training.")
]
DtypeOption = Annotated[
    str | None,
    typer.Option(help="float64: double precision, whatever the model has."),
]
WeightsOption = Annotated[
    list[Path] | None,
    typer.Option(
        parser=path,
        metavar="<path> ...",
        help="The checkpoints in order: .weights.h5 or .keras files, one or more. A directory "
        "stands for its .weights.h5 files, or its .keras files if it has none: epoch-2 before "
        "epoch-10.",
    ),
]
RecordOption = Annotated[
    Path | None,
    typer.Option(
        parser=path,
        metavar="<path>",
        help="Write the curvature to this golden file, if all checks pass: loss, λmax, and forms "
        "of H, G and R in seeded directions, each with what rounding may change.",
    ),
]
AgainstOption = Annotated[
    Path | None,
    typer.Option(
        parser=path,
        metavar="<path>",
        help="Compare the curvature with this golden file. Says which of data, weights, objective, "
        "versions or the curvature itself has changed.",
    ),
]
OutOption = Annotated[
    Path, typer.Option(parser=path, metavar="<path>", help="Directory for the results.")
]
FreshOption = Annotated[
    bool, typer.Option("--fresh", help="Begin anew, whatever unfinished work is in the directory.")
]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")]


class SeveralWeights(TyperCommand):
    """A command that takes ``--weights A B C`` as ``--weights A --weights B --weights C``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, repeated(args, "--weights"))


def repeated(words: Sequence[str], option: str) -> list[str]:
    """The words with the option before each value that follows it.

    >>> repeated(["-q", "--weights", "a", "b", "--seed", "1"], "--weights")
    ['-q', '--weights', 'a', '--weights', 'b', '--seed', '1']
    """
    found: list[str] = []
    is_first = is_value = False
    for word in words:
        is_value = is_first or (is_value and not word.startswith("-"))
        if is_value and not is_first:
            found.append(option)
        found.append(word)
        is_first = word == option
        is_value = is_value or word.startswith(f"{option}=")
    return found


def check_choice(option: str, value: str | None, choices: tuple[str, ...]) -> None:
    if value is not None and value not in choices:
        raise InputError(
            f"{option} {' or '.join(choices)}", repr(value), "choose from these or leave it out"
        )


def seconds(budget: str) -> float:
    """The seconds of a time such as 90s, 10m or 2h; a number alone is minutes."""
    if budget == "none":
        return math.inf
    found = re.fullmatch(r"(\d+\.?\d*|\.\d+)(s|m|min|h|)", budget)
    seconds = float(found[1]) * TIME_UNITS[found[2]] if found else 0.0
    if not 0 < seconds < math.inf:
        raise InputError("a --budget such as 90s, 10m, 2h or none", repr(budget), "write it so")
    return seconds


def size(memory: str | None) -> float:
    """The bytes of a size such as 500M or 6G; None is a share of what is free."""
    if memory is None:
        import psutil

        return MEMORY_SHARE * psutil.virtual_memory().available
    found = re.fullmatch(r"(\d+\.?\d*|\.\d+)(M|G)(B|iB|)", memory)
    size = float(found[1]) * SIZE_UNITS[found[2]] if found else 0.0
    if not 0 < size < math.inf:
        raise InputError("a --memory such as 500M or 6G", repr(memory), "write it so")
    return size


def check_effort(probes: int, steps: int, examples: int | None) -> None:
    check_least((("--probes", probes, 1), ("--steps", steps, 2), ("--examples", examples, 1)))


def check_least(numbers: Sequence[tuple[str, int | None, int]]) -> None:
    """Raise InputError where the value of an option is below the least that it takes."""
    for option, value, least in numbers:
        if value is not None and value < least:
            raise InputError(f"{option} of at least {least}", value, "leave it out")


def check_usage(
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


def check_workers(workers: int | None, address: str | None) -> None:
    if address is not None and workers is None:
        raise InputError("--workers with --address", "--address alone", "say how many workers")
    if workers is not None and workers < 1:
        raise InputError("at least one of --workers", workers, "leave it out for one process")


def typed_command(context: typer.Context) -> str:
    """The command as typed, without options that change no number, quoted for a shell."""
    words = ["hvp", str(context.info_name)]
    for option in context.command.params:
        source = context.get_parameter_source(str(option.name))
        if source is None or source.name != "COMMANDLINE" or option.name in UNTYPED:
            continue
        value = context.params[str(option.name)]
        for one in value if isinstance(value, list | tuple) else [value]:
            if option.param_type_name == "argument":
                words.append(os.path.join(".", one) if str(one).startswith("-") else str(one))
            else:
                words += [option.opts[0]] if one is True else [option.opts[0], str(one)]
    return shlex.join(words)
