"""What ``progress=`` is called with: how far a computation is."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TypeAlias, cast


class Progress(int):
    """The products so far: a whole number that also tells what it counts.

    Every function with ``progress=`` calls it with one of these, after each product or block. Its
    one argument fits tqdm, rich and Keras alike, and is an int, for who wants to print it.

    Attributes:
        step: how many of them are new. The steps of all calls add up, over all stages.
        total: how many there will be at most in this stage, None where that is not known before,
            as in iterations that end by their tolerance.
        label: the stage, such as "whole network: ends of H" in `hvp.compare`, which counts anew at
            each; empty where there is but one.

    >>> import numpy as np, hvp
    >>> A, told = np.diag(np.arange(1.0, 1001.0)), []
    >>> _ = hvp.trace(A, num_products=40, progress=told.append)
    >>> told[-1], told[-1].total, sum(done.step for done in told)
    (40, 40, 40)

    tqdm counts the steps:

    >>> from tqdm import tqdm
    >>> with tqdm(total=40) as bar:
    ...     _ = hvp.trace(A, num_products=40, progress=lambda done: bar.update(done.step))
    >>> bar.n
    40

    rich has a line for each label, with its total:

    >>> from rich.progress import Progress
    >>> with Progress(transient=True, disable=True) as bars:
    ...     task = bars.add_task("density", total=None)
    ...     _ = hvp.density(A, num_steps=20, progress=lambda done: bars.update(
    ...         task, completed=done, total=done.total, description=done.label or "density"))
    >>> bars.tasks[0].completed, bars.tasks[0].total
    (200, 200)

    Keras's takes the number itself, or its steps:

    >>> import keras
    >>> bar = keras.utils.Progbar(None, verbose=0)
    >>> _ = hvp.eigsh(A, 2, progress=lambda done: bar.add(done.step))
    >>> _ = hvp.eigsh(A, 2, progress=keras.utils.Progbar(None, verbose=0).update)
    """

    step: int
    total: int | None
    label: str

    def __new__(
        cls, count: int, step: int = 1, total: int | None = None, label: str = ""
    ) -> Progress:
        found = super().__new__(cls, count)
        found.step, found.total, found.label = step, total, label
        return found

    def labelled(self, label: str) -> Progress:
        """The same, of a stage with this label."""
        return Progress(self, self.step, self.total, label)

    def __reduce__(self) -> tuple[object, ...]:
        return Progress, (int(self), self.step, self.total, self.label)


ProgressHook: TypeAlias = Callable[[Progress], object]
# That of functions with several stages before `Progress` had a label: of the label and the number.
LabelledHook: TypeAlias = Callable[[str, int], object]


def by_stage(hook: ProgressHook | LabelledHook | None) -> ProgressHook:
    """The hook of a function with several stages, which may be one of (label, count).

    That is one that needs two arguments.
    """
    if hook is None:
        return lambda done: None
    if _num_required(hook) == 2:
        labelled = cast(LabelledHook, hook)
        return lambda done: labelled(done.label, int(done))
    return cast(ProgressHook, hook)


def _num_required(hook: Callable[..., object]) -> int:
    """How many arguments a call by position needs; 1 where Python does not tell."""
    try:
        parameters = inspect.signature(hook).parameters.values()
    except (TypeError, ValueError):
        return 1
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(p.kind in positional and p.default is inspect.Parameter.empty for p in parameters)
