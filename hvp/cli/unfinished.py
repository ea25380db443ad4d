"""The unfinished work of a command that was killed: a journal in the directory of its results."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from hvp.cli import linearizing
from hvp.errors import InputError

if TYPE_CHECKING:
    import typer

    from hvp.cli.loading import Job
    from hvp.linearization.linearization import Linearization
    from hvp.report.terminal import Terminal
    from hvp.resuming.journal import Journal

# Results that take little time, for which alone no journal stays.
BEFORE = "before the work: "
LOSS, BATCH_SIZE, EFFORT = f"{BEFORE}loss", f"{BEFORE}batch size", f"{BEFORE}effort"
# Options that change no number, and those whose content has digests.
NOT_COMPARED = {
    "out",
    "quiet",
    "fresh",
    "model",
    "models",
    "data",
    "weights",
    "start_from",
    "address",
}


@contextlib.contextmanager
def journals(
    context: typer.Context, directories: Mapping[str, Path], terminal: Terminal
) -> Iterator[dict[str, Journal]]:
    """A journal for the work of each title, open within the block.

    Work with other options is not used, which is said. Raises InputError where a journal cannot be
    written, or another process has it open.
    """
    found: dict[str, Journal] = {}
    try:
        for title, directory in directories.items():
            path = directory / f"{context.info_name}.journal"
            found[title] = _opened(path, {"title": title, **_options(context)}, context, terminal)
        yield found
    finally:
        for journal in found.values():
            if journal.num_products or num_stages(journal):
                journal.close()
            else:
                journal.remove()


def num_stages(journal: Journal) -> int:
    """How many stages of the work itself are done."""
    return sum(not stage.startswith(BEFORE) for stage in journal.stages)


def _options(context: typer.Context) -> dict[str, str]:
    """What the work depends on, besides data and models."""
    from hvp.resuming import identity

    options = {
        option.opts[0]: repr(context.params[str(option.name)])
        for option in context.command.params
        if option.name in context.params and option.name not in NOT_COMPARED
    }
    start = context.params.get("start_from")
    if start is not None:
        options["--start-from"] = _digest(Path(start))
    return {**options, "versions": repr(identity.package_versions())}


def _digest(path: Path) -> str:
    """That of the vectors beside an earlier compare.json, or below its directory."""
    above = path if path.is_dir() else path.parent
    files = sorted(above.rglob("compare.npz"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def _opened(
    path: Path, owner: Mapping[str, str], context: typer.Context, terminal: Terminal
) -> Journal:
    from hvp.comparison.kept_results import CLASSES
    from hvp.resuming.journal import Journal
    from hvp.resuming.journal_file import JournalError

    def journal(is_fresh: bool) -> Journal:
        return Journal(path, owner, classes=CLASSES, fresh=is_fresh, say=terminal.say_line)

    try:
        return journal(bool(context.params["fresh"]))
    except JournalError as error:
        if error.reason not in ("other", "damaged"):
            remedy = "wait for it to end" if error.reason == "in use" else "choose another --out"
            raise InputError(error.expected, error.got, remedy) from error
        terminal.say_line(f"unfinished work is not used: {error.got}")
        return journal(True)


def linearized(
    job: Job, options: linearizing.Options, journal: Journal, terminal: Terminal, part: str = ""
) -> Linearization:
    """The loss of a job, in the batches of the unfinished work.

    Where that is of another loss, it is said, and the journal is emptied.
    """
    from hvp.resuming import identity

    before = options
    if journal.has(BATCH_SIZE + part):
        size = journal.stage(BATCH_SIZE + part, lambda: options.batch_size)
        before = dataclasses.replace(options, batch_size=size)
    try:
        lin, size = linearizing.with_batch_size(job, before, terminal)
    except InputError:
        if before is options:
            raise
        lin, size = linearizing.with_batch_size(job, options, terminal)
    here = identity.of_loss(lin)
    there = journal.stage(LOSS + part, lambda: here)
    if there != here:
        names = " and ".join(name for name in here if here[name] != there.get(name))
        terminal.say_line(f"{job.title}: unfinished work is not used: it is of other {names}")
        journal.clear()
        if before is not options:
            lin.close()
            lin, size = linearizing.with_batch_size(job, options, terminal)
        journal.keep(LOSS + part, identity.of_loss(lin))
    journal.stage(BATCH_SIZE + part, lambda: size)
    return lin
