"""What a comparison computes: which matrices, which results, and how finely."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

import numpy as np

from hvp.errors import InputError, shown
from hvp.linalg.eigsh import DENSE_SIZE

MATRICES = ("H", "G", "R")
RESULTS = ("chain-rule", "ends", "density", "traces")
# R and single layers get this fraction (one half) of the probes and steps of the densities, but no
# fewer probes than these, which are one block of products.
REDUCTION_FACTOR, FEWEST_PROBES = 2, 4
# This many probes of a density also estimate sampling errors.
NUM_RESAMPLED_PROBES = 1


@dataclass(frozen=True)
class Effort:
    """How much of a comparison is computed.

    Attributes:
        k: number of eigenvalues at each end.
        tol: largest error ‖Av - λv‖ of an eigenpair, relative to ‖H‖ of the part.
        num_probes, num_steps: of the densities of H and G of the whole; R and each layer take half,
            but no fewer than four probes.
        layers: whether each layer's own block is a part.
        matrices: of "H", "G" and "R". R needs H, whose norm its errors are measured against.
        results: of "chain-rule", "ends", "density" and "traces". The density and the traces need
            the ends, which are then computed too. The chain rule needs all matrices.
        float64: whether the noise floor and the certificate compare with products in float64, where
            the model allows it.
        short_basis: whether the iterations for the ends keep about half as many vectors, which
            takes about twice as many products.
    """

    k: int = 10
    tol: float = 2e-4
    num_probes: int = 4
    num_steps: int = 80
    layers: bool = True
    matrices: tuple[str, ...] = MATRICES
    results: frozenset[str] = field(default_factory=lambda: frozenset(RESULTS))
    float64: bool = True
    short_basis: bool = False

    @staticmethod
    def chosen_matrices(given: str | Collection[str]) -> tuple[str, ...]:
        """The matrices in their order. Raises InputError for others, none, or R without H."""
        chosen = _chosen("matrices", given, MATRICES)
        if "R" in chosen and "H" not in chosen:
            raise InputError(
                "H beside R, whose errors are relative to ‖H‖", "R without H", "add H to matrices"
            )
        return chosen

    @staticmethod
    def chosen_results(given: str | Collection[str], matrices: Collection[str]) -> frozenset[str]:
        """The results, with the ends where others need them; without what needs other matrices."""
        chosen = set(_chosen("results", given, RESULTS))
        if chosen & {"density", "traces"}:
            chosen.add("ends")
        if set(matrices) != set(MATRICES):
            chosen.discard("chain-rule")
        if not chosen:
            raise InputError(
                "H, G and R for the chain rule", ", ".join(matrices), "leave matrices out"
            )
        return frozenset(chosen)

    def resolution(self, letter: str, of_layer: bool) -> tuple[int, int, int]:
        """Probes, steps and resampled probes of the density of a matrix."""
        factor = (REDUCTION_FACTOR if letter == "R" else 1) * (REDUCTION_FACTOR if of_layer else 1)
        probes, steps = (-(-count // factor) for count in (self.num_probes, self.num_steps))
        return max(probes, min(FEWEST_PROBES, self.num_probes)), steps, NUM_RESAMPLED_PROBES

    def basis(self, size: int) -> int | None:
        """Vectors of the Krylov basis for the ends of so many parameters, None for the default."""
        is_short = self.short_basis and 2 * self.k < size > DENSE_SIZE
        return min(2 * self.k + 5, size) if is_short else None

    def check_k(self, size: int) -> None:
        """Raise InputError where k is out of range for so many parameters."""
        most = max(size - 1, 1)
        if not isinstance(self.k, int | np.integer) or not 1 <= self.k <= most:
            raise InputError(f"k from 1 to {most} for {size} parameters", self.k, "lower it")


def _chosen(name: str, given: str | Collection[str], known: tuple[str, ...]) -> tuple[str, ...]:
    """Those of the known words that are given, in their order; a text is cut at commas."""
    is_letters = isinstance(given, str) and "," not in given and all(len(w) == 1 for w in known)
    words = list(given) if is_letters or not isinstance(given, str) else given.split(",")
    words = [word.strip() if isinstance(word, str) else word for word in words]
    unknown = [word for word in words if word not in known]
    if unknown or not words:
        got = shown(unknown[0]) if unknown else "none"
        raise InputError(f"{name} among {', '.join(known)}", got, "choose from these")
    return tuple(word for word in known if word in words)
