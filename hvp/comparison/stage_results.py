"""What the stages of a comparison have found so far, put together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from hvp.certificate import Certificate
from hvp.comparison.chain_rule import QuadraticForms
from hvp.comparison.loss_slice import LossSlice
from hvp.comparison.part import Part
from hvp.comparison.sampling_errors import (
    SamplingErrors,
    share_with_sampling_errors,
    with_norms,
)
from hvp.comparison.spectrum import Spectrum, of_ends
from hvp.comparison.stages import Stage
from hvp.linalg.layer_shares import LayerShares, layer_shares
from hvp.linalg.layer_traces import LayerTraces
from hvp.linalg.noise_floor import Noise
from hvp.linalg.principal_angles import principal_angles
from hvp.linalg.wasserstein import distance
from hvp.operators import Curvature


class StageResults:
    """What the stages that are done have found.

    Attributes:
        chain_rule: the quadratic forms by layer; empty until they are known.
        spectra: by part and letter, those whose ends are known.
        sampling: their sampling errors.
        traces: by letter.
        noise: the noise floors by letter.
        certificate: None until it is known.
        slices: the loss along two eigenvectors of H; None until it is known.
    """

    def __init__(self) -> None:
        self.chain_rule: tuple[QuadraticForms, ...] = ()
        self.spectra: dict[tuple[str, str], Spectrum] = {}
        self.sampling: dict[tuple[str, str], SamplingErrors] = {}
        self.traces: dict[str, LayerTraces] = {}
        self.noise: dict[str, Noise] = {}
        self.certificate: Certificate | None = None
        self.slices: LossSlice | None = None

    def add(self, stage: Stage, found: Any) -> None:
        """Add what a stage found, in the form that a journal keeps."""
        key = stage.part, stage.letter
        match stage.kind:
            case "chain rule":
                self.chain_rule = found
            case "ends":
                *of_spectrum, self.sampling[key] = found
                self.spectra[key] = of_ends(*of_spectrum)
            case "noise floor":
                self.noise = found
            case "certificate":
                self.certificate = found
            case "loss slices":
                self.slices = found
            case "density":
                density, num_products, seconds = found
                self.sampling[key] = with_norms(self.sampling[key], density)
                self.spectra[key] = replace(
                    self.spectra[key], density=density, num_products=num_products, seconds=seconds
                )
            case "traces":
                self.traces[stage.letter] = found

    @property
    def num_products(self) -> int:
        """What they took."""
        count = 3 * len(self.chain_rule)
        count += sum(spectrum.num_products for spectrum in self.spectra.values())
        count += sum(traces.num_products for traces in self.traces.values())
        count += sum(noise.num_products for noise in self.noise.values())
        if self.certificate is not None:
            count += self.certificate.num_directions + (self.certificate.G is not None)
        return count + (len(self.slices.names) if self.slices is not None else 0)

    def part(self, name: str, lin: Curvature) -> Part | None:
        """What is known of the whole or of a layer; None where its ends are not."""
        spectra = {letter: found for (part, letter), found in self.spectra.items() if part == name}
        if not spectra:
            return None
        angles: tuple[np.ndarray, ...] = ()
        apart = None
        if {"H", "G"} <= spectra.keys():
            H, G = spectra["H"], spectra["G"]
            angles = _angles(H.largest.vectors, G.largest.vectors)
            if H.density is not None and G.density is not None:
                apart = distance(H.density, G.density)
        return Part(
            name=name,
            size=lin.size,
            spectra=spectra,
            sampling={letter: self.sampling[name, letter] for letter in spectra},
            angles_by_count=angles,
            distance=apart,
            eps=float(np.finfo(lin.dtype).eps),
        )


def shares(traces: Mapping[str, LayerTraces], parts: Mapping[str, Part]) -> LayerShares | None:
    """The shares of R in the traces and norms of H, layer by layer, with all their errors."""
    if not {"R", "H"} <= traces.keys():
        return None
    found, of = layer_shares(traces["R"], traces["H"]), traces["H"]
    layers = {
        name: share_with_sampling_errors(share, parts[name].sampling, of.layers[name].trace.value)
        if name in parts and {"R", "H"} <= parts[name].sampling.keys()
        else share
        for name, share in found.layers.items()
    }
    whole = next(iter(parts.values()))
    return LayerShares(
        layers, share_with_sampling_errors(found.whole, whole.sampling, of.whole.trace.value)
    )


def _angles(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, ...]:
    """Principal angles in radians between the spaces of the last i columns, for every i."""
    counts = range(1, first.shape[1] + 1)
    return tuple(principal_angles(first[:, -i:], second[:, -i:]) for i in counts)


def missed_eigenvalues(parts: Mapping[str, Part]) -> list[str]:
    """A finding for each end of a spectrum whose density shows an eigenvalue that it lacks."""
    return [
        f"different: {name}: an eigenvalue of {letter} among its {found.largest.values.size} "
        f"{end} was missed, as of a multiple one; raise k"
        for name, part in parts.items()
        for letter, found in part.spectra.items()
        for end in found.unseen
    ]
