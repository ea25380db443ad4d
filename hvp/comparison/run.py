"""A comparison as it is computed: stage after stage, with results at any time."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import scipy.linalg

from hvp.certificate import Certificate, certify, in_float64
from hvp.comparison.chain_rule import QuadraticForms, chain_rule, whole_name
from hvp.comparison.loss_slice import LossSlice, slices_at_ends
from hvp.comparison.part import Part
from hvp.comparison.plan import Effort
from hvp.comparison.results import Comparison
from hvp.comparison.sampling_errors import (
    SamplingErrors,
    sampling_errors,
    share_with_sampling_errors,
    with_norms,
)
from hvp.comparison.spectrum import Spectrum, ends, of_ends, with_density
from hvp.comparison.start import Start, shapes
from hvp.linalg.layer_shares import LayerShares, layer_shares
from hvp.linalg.layer_traces import LayerTraces, layer_traces
from hvp.linalg.noise_floor import Noise, noise_floor
from hvp.linalg.wasserstein import distance
from hvp.operators import Curvature, GaussNewton, Hessian, Residual
from hvp.progress import LabelledHook, Progress, ProgressHook, by_stage
from hvp.resuming.curvature import kept
from hvp.resuming.identity import package_versions
from hvp.resuming.journal import Journal

# The noise floor compares products with float64 along this many top eigenvectors.
NUM_TOP_VECTORS_CHECKED = 3
OPERATORS: dict[str, type[Hessian | GaussNewton | Residual]] = {
    "H": Hessian,
    "G": GaussNewton,
    "R": Residual,
}


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


class Run:
    """Computes a comparison of a linearization, a stage at a time.

    With a journal, stages that are done in it are taken from there, and so are the products of one
    that was begun.

    Attributes:
        pending: the stages that are not done, in order.
        table: the chain rule; empty until it is done.
        spectra: by part and letter, those whose ends are done.
        traces: by letter.
        certificate: None until it is done.
        slices: the loss along two eigenvectors of H; None until it is done.
    """

    def __init__(
        self,
        lin: Curvature,
        effort: Effort,
        *,
        seed: int = 0,
        progress: ProgressHook | LabelledHook | None = None,
        start: Start | None = None,
        journal: Journal | None = None,
    ):
        if start is not None:
            start.check(lin)
        self._start = start
        self._begun = time.perf_counter()
        self._journal, self.effort, self._seed = journal, effort, seed
        self._progress = by_stage(progress)
        self._whole = whole_name(lin)
        self.lin = kept(lin, journal)
        blocks = lin.blocks() if effort.layers else {}
        self._blocks = {name: kept(block, journal, name) for name, block in blocks.items()}
        self._findings: tuple[str, ...] = ()
        self._has_computed = False
        self.table: tuple[QuadraticForms, ...] = ()
        self.spectra: dict[tuple[str, str], Spectrum] = {}
        self._sampling: dict[tuple[str, str], SamplingErrors] = {}
        self.traces: dict[str, LayerTraces] = {}
        self._noise: dict[str, Noise] = {}
        self.certificate: Certificate | None = None
        self.slices: LossSlice | None = None
        self.pending = deque(stages(lin, effort))

    @property
    def has_results(self) -> bool:
        """Whether a comparison would show anything of what was asked for."""
        return bool(self.spectra or ("ends" not in self.effort.results and self.table))

    @property
    def parts(self) -> dict[str, Curvature]:
        """The whole, and the layers where they are several."""
        layers = self._blocks if len(self._blocks) > 1 else {}
        return {self._whole: self.lin, **layers}

    def step(self) -> Stage:
        """Compute the next stage. It stays pending where it is interrupted."""
        stage = self.pending[0]
        compute, take = {
            "chain rule": (self._chain_rule, self._take_chain_rule),
            "ends": (self._ends, self._take_ends),
            "noise floor": (self._noise_floor, self._take_noise),
            "certificate": (self._certify, self._take_certificate),
            "loss slices": (self._slices, self._take_slices),
            "density": (self._density, self._take_density),
            "traces": (self._traces, self._take_traces),
        }[stage.kind]

        def progress(done: Progress) -> None:
            self._progress(done.labelled(stage.label))

        progress(Progress(0, 0))

        def result() -> dict[str, Any]:
            self._has_computed = True
            found = compute(stage, progress)
            return {"found": found, "findings": self._known_findings()}

        done = result() if self._journal is None else self._journal.stage(stage.label, result)
        take(stage, done["found"])
        self._findings = done["findings"]
        return self.pending.popleft()

    def _known_findings(self) -> tuple[str, ...]:
        """Those of the stages that are done, and of this process if it has computed anything."""
        here = map(str, self.lin.findings) if self._has_computed or not self._findings else ()
        return tuple(dict.fromkeys((*self._findings, *here)))

    def _operator(self, stage: Stage) -> Hessian | GaussNewton | Residual:
        return OPERATORS[stage.letter](self.parts[stage.part])

    def _scale(self, stage: Stage) -> float | None:
        """‖H‖ of the part, which the errors of G and R are relative to."""
        found = self.spectra.get((stage.part, "H"))
        return None if found is None or stage.letter == "H" else found.norm

    def _chain_rule(self, stage: Stage, progress: ProgressHook) -> Any:
        found = chain_rule(self.lin)
        count = 3 * len(found)
        progress(Progress(count, count, count))
        return found

    def _take_chain_rule(self, stage: Stage, found: Any) -> None:
        self.table = found

    def _ends(self, stage: Stage, progress: ProgressHook) -> Any:
        part, key = self.parts[stage.part], (stage.part, stage.letter)
        found = ends(
            self._operator(stage),
            min(self.effort.k, max(part.size - 1, 1)),
            tol=self.effort.tol,
            scale=self._scale(stage),
            seed=self._seed,
            progress=progress,
            ncv=self.effort.basis(part.size),
            v0=None if self._start is None else self._start.vector(*key, part, self._seed),
        )
        sampling = sampling_errors(part, stage.letter, found, self._seed)
        # Both ends are views of one array, which is kept once.
        smallest = found.smallest if found.pairs is found.largest else None
        return found.pairs, smallest, found.num_products, found.seconds, sampling

    def _take_ends(self, stage: Stage, found: Any) -> None:
        *of_spectrum, sampling = found
        self.spectra[stage.part, stage.letter] = of_ends(*of_spectrum)
        self._sampling[stage.part, stage.letter] = sampling

    def _density(self, stage: Stage, progress: ProgressHook) -> Any:
        part = self.parts[stage.part]
        probes, steps, resampled = self.effort.resolution(stage.letter, part is not self.lin)
        found = with_density(
            self.spectra[stage.part, stage.letter],
            self._operator(stage),
            scale=self._scale(stage),
            num_probes=probes,
            num_steps=steps,
            num_resampled=resampled if part.num_batches > 1 else 0,
            seed=self._seed,
            progress=progress,
        )
        return found.density, found.num_products, found.seconds

    def _take_density(self, stage: Stage, found: Any) -> None:
        key, (density, num_products, seconds) = (stage.part, stage.letter), found
        self._sampling[key] = with_norms(self._sampling[key], density)
        self.spectra[key] = replace(
            self.spectra[key], density=density, num_products=num_products, seconds=seconds
        )

    def _traces(self, stage: Stage, progress: ProgressHook) -> Any:
        H = self.spectra.get((self._whole, "H"))
        return layer_traces(
            self._operator(stage),
            self.lin,
            scale=None if H is None else H.norm,
            seed=self._seed,
            progress=progress,
        )

    def _take_traces(self, stage: Stage, found: Any) -> None:
        self.traces[stage.letter] = found

    @cached_property
    def _exact(self) -> Curvature:
        """The linearization in float64, where the model allows it; dropped after its last use."""
        exact = in_float64(self.lin) if self.effort.float64 else self.lin
        return exact if exact is self.lin else kept(exact, self._journal, "float64")

    def _noise_floor(self, stage: Stage, progress: ProgressHook) -> Any:
        found = {}
        for letter in self.effort.matrices:
            if letter == "R":
                continue
            vectors = self.spectra[self._whole, letter].largest.vectors
            exact = None if self._exact is self.lin else OPERATORS[letter](self._exact)
            found[letter] = noise_floor(
                OPERATORS[letter](self.lin),
                exact,
                vectors=vectors[:, -NUM_TOP_VECTORS_CHECKED:],
                seed=self._seed,
            )
        return found

    def _take_noise(self, stage: Stage, found: Any) -> None:
        self._noise = found

    def _certify(self, stage: Stage, progress: ProgressHook) -> Any:
        found = certify(self.lin, exact=self._exact, seed=self._seed)
        del self._exact
        return found

    def _take_certificate(self, stage: Stage, found: Any) -> None:
        self.certificate = found

    def _slices(self, stage: Stage, progress: ProgressHook) -> Any:
        return slices_at_ends(self.lin, self.spectra[self._whole, "H"], progress)

    def _take_slices(self, stage: Stage, found: Any) -> None:
        self.slices = found

    def _part(self, name: str, lin: Curvature) -> Part | None:
        spectra = {
            letter: self.spectra[name, letter]
            for letter in self.effort.matrices
            if (name, letter) in self.spectra
        }
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
            sampling={letter: self._sampling[name, letter] for letter in spectra},
            angles_by_count=angles,
            distance=apart,
            eps=float(np.finfo(lin.dtype).eps),
        )

    def _parts(self) -> dict[str, Part]:
        """The parts of which something is known."""
        found = {name: self._part(name, lin) for name, lin in self.parts.items()}
        parts = {name: part for name, part in found.items() if part is not None}
        if len(self._blocks) == 1 and parts:
            (name,) = self._blocks
            parts[name] = replace(parts[self._whole], name=name)
        return parts

    def comparison(self, *, title: str = "", command: str = "") -> Comparison:
        """What is known so far."""
        lin, parts = self.lin, self._parts()
        cost = sum(found.num_products for found in self.spectra.values()) + 3 * len(self.table)
        cost += sum(found.num_products for found in self.traces.values())
        cost += sum(found.num_products for found in self._noise.values())
        if self.certificate is not None:
            cost += self.certificate.num_directions + (self.certificate.G is not None)
        if self.slices is not None:
            cost += len(self.slices.names)
        return Comparison(
            title=title,
            loss_name=lin.loss_name,
            layers=tuple(lin.layout.layers),
            shapes=shapes(lin),
            parts=parts,
            chain_rule=self.table,
            traces=self.traces,
            shares=_shares(self.traces, parts),
            noise=self._noise,
            certificate=self.certificate,
            slices=self.slices,
            rank_bound=min(lin.size, lin.num_outputs) if "G" in self.effort.matrices else lin.size,
            loss=lin.loss(),
            gradient_norm=float(np.linalg.norm(lin.gradient().astype(np.float64))),
            accuracy=lin.accuracy,
            num_examples=lin.num_examples,
            num_batches=lin.num_batches,
            size=lin.size,
            dtype=str(lin.dtype),
            k=self.effort.k,
            tol=self.effort.tol,
            seed=self._seed,
            matrices=self.effort.matrices,
            unfinished=tuple(stage.label for stage in self.pending),
            findings=(*self._known_findings(), *_missed_eigenvalues(parts)),
            data_sha256=lin.data_digest,
            weights_sha256=lin.weights_digest,
            versions=package_versions(),
            num_products=cost,
            seconds=time.perf_counter() - self._begun,
            command=command,
        )


def _shares(traces: Mapping[str, LayerTraces], parts: Mapping[str, Part]) -> LayerShares | None:
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
    angles = [scipy.linalg.subspace_angles(first[:, -i:], second[:, -i:]) for i in counts]
    return tuple(np.sort(a).astype(np.float64) for a in angles)


def _missed_eigenvalues(parts: Mapping[str, Part]) -> list[str]:
    return [
        f"different: {name}: an eigenvalue of {letter} among its {found.largest.values.size} "
        f"{end} was missed, as of a multiple one; raise k"
        for name, part in parts.items()
        for letter, found in part.spectra.items()
        for end in found.unseen
    ]
