"""The stages of a comparison: what is computed, in order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from hvp.comparison.chain_rule import whole_name
from hvp.comparison.plan import Effort
from hvp.operators import Curvature


@dataclass(frozen=True)
class Stage:
    """A step of a comparison.

    Attributes:
        kind: "chain rule", "ends", "noise floor", "certificate", "loss slices", "density" or
            "traces".
        part: the name of the part.
        letter: "H", "G" or "R"; empty where a stage is about several.
    """

    kind: str
    part: str
    letter: str = ""

    @property
    def label(self) -> str:
        if self.kind in ("ends", "density"):
            return f"{self.part}: {self.kind} of {self.letter}"
        return f"{self.kind} of {self.letter}" if self.letter else self.kind


def stages(lin: Curvature, effort: Effort) -> Iterator[Stage]:
    """The stages of a comparison: the most important first, the whole before its layers."""
    results, matrices, whole = effort.results, effort.matrices, whole_name(lin)
    layers = list(lin.layout.layers) if effort.layers and len(lin.layout.layers) > 1 else []
    if "chain-rule" in results:
        yield Stage("chain rule", whole)
    if "ends" in results:
        yield from (Stage("ends", whole, letter) for letter in matrices)
        yield Stage("noise floor", whole)
    yield Stage("certificate", whole)
    if "ends" in results and "H" in matrices:
        yield Stage("loss slices", whole)
    if "density" in results:
        yield from (Stage("density", whole, letter) for letter in matrices)
    if "traces" in results:
        yield from (Stage("traces", whole, letter) for letter in matrices)
    for kind in ("ends", "density"):
        if kind in results:
            yield from (Stage(kind, name, letter) for name in layers for letter in matrices)
