"""The main numbers of a comparison by name, as the key of its page and the overview show them."""

from __future__ import annotations

from dataclasses import dataclass

from hvp.comparison.results import Comparison
from hvp.report import counts_and_dimensions, entries, number_format
from hvp.report.number_format import NONE, typeset

STABLE_RATE = "2/λ_max, largest stable rate"
OVERLAP = "overlap of the top spaces"
DISTANCE = "distance of H and G"
# All names of `key` and `others`, in the order of a table.
NAMES = (
    "λ_max of H",
    "λ_max of G",
    "λ_max of R",
    "λ_min of H",
    *counts_and_dimensions.COUNTS,
    STABLE_RATE,
    "trace of H",
    "share of R in the trace",
    OVERLAP,
    *counts_and_dimensions.DIMENSIONS,
    DISTANCE,
)


@dataclass(frozen=True)
class MainNumber:
    """A value as text, with its error or a note where there is one."""

    value: str
    error: str = ""

    @classmethod
    def split(cls, text: str, note: str = "") -> MainNumber:
        """From a text with its error after ±, and a note that follows the error.

        >>> MainNumber.split("80.9 ± 0.9 %")
        MainNumber(value='80.9\\xa0%', error='±\\xa00.9\\xa0%')
        """
        value, _, error = text.partition(" ± ")
        unit = " %" if error.endswith(" %") else ""
        notes = [f"± {error}"] * bool(error) + [note] * bool(note)
        return cls(typeset(value + unit), typeset(", ".join(notes)))


def size(c: Comparison) -> dict[str, str]:
    """What was compared: the numbers of parameters and examples, the loss and the accuracy."""
    accuracy = {} if c.accuracy is None else {"accuracy": f"{c.accuracy:.1%}".replace("%", " %")}
    return {
        "parameters": f"{c.size:,}",
        "examples": f"{c.num_examples:,}",
        "loss": typeset(f"{c.loss:.4g}"),
        **{name: typeset(text) for name, text in accuracy.items()},
    }


def loss_name(c: Comparison) -> str:
    """The name of the loss in words."""
    return c.loss_name.replace("_", " ")


def key(c: Comparison) -> dict[str, MainNumber]:
    """The numbers at the top of the page, as far as they were computed."""
    if not c.parts:
        return {}
    found = {}
    for letter in c.whole.spectra:
        found[f"λ_max of {letter}"] = entries.eigenvalue(c, c.whole, letter, "largest").text()
    if "H" in c.whole.spectra:
        found["λ_min of H"] = entries.eigenvalue(c, c.whole, "H", "smallest").text()
        found[STABLE_RATE] = entries.stable_rate(c) or NONE
    if "H" in c.traces:
        found["trace of H"] = number_format.estimated(c.traces["H"].whole.trace)
    if c.shares is not None:
        found["share of R in the trace"] = number_format.shared(c.shares.whole.trace)
    if c.whole.angles_by_count:
        found[OVERLAP] = entries.overlap(c.whole)
    numbers = {name: MainNumber.split(text) for name, text in found.items()}
    for name, (text, note) in counts_and_dimensions.cells(c).items():
        numbers[name] = MainNumber.split(text, note)
    return {name: numbers[name] for name in NAMES if name in numbers}


def others(c: Comparison) -> dict[str, MainNumber]:
    """Numbers that have a section of their own on the page, as far as they were computed."""
    if not c.parts:
        return {}
    found = {}
    if c.whole.distance is not None:
        found[DISTANCE] = entries.distance(c, c.whole)[0]
    return {name: MainNumber.split(text) for name, text in found.items()}


def certificate(c: Comparison) -> str:
    """Whether differences confirm the derivatives, in a word."""
    if c.certificate is None:
        return NONE
    return "passed" if c.certificate.passed else "failed"
