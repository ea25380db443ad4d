"""A comparison as it is computed: stage after stage, with results at any time."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np

from hvp.certificate import certify, in_float64
from hvp.comparison.chain_rule import chain_rule, whole_name
from hvp.comparison.loss_slice import slices_at_ends
from hvp.comparison.part import Part
from hvp.comparison.plan import Effort
from hvp.comparison.results import Comparison
from hvp.comparison.sampling_errors import (
    sampling_errors,
)
from hvp.comparison.spectrum import ends, with_density
from hvp.comparison.stage_results import StageResults, missed_eigenvalues, shares
from hvp.comparison.stages import Stage, stages
from hvp.comparison.start import Start, shapes
from hvp.linalg.layer_traces import layer_traces
from hvp.linalg.noise_floor import noise_floor
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


class Run:
    """Computes a comparison of a linearization, a stage at a time.

    With a journal, stages that are done in it are taken from there, and so are the products of one
    that was begun.

    Attributes:
        pending: the stages that are not done, in order.
        done: what the others have found.
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
        self.done = StageResults()
        self.pending = deque(stages(lin, effort))

    @property
    def has_results(self) -> bool:
        """Whether a comparison would show anything of what was asked for."""
        return bool(
            self.done.spectra or ("ends" not in self.effort.results and self.done.chain_rule)
        )

    @property
    def parts(self) -> dict[str, Curvature]:
        """The whole, and the layers where they are several."""
        layers = self._blocks if len(self._blocks) > 1 else {}
        return {self._whole: self.lin, **layers}

    def step(self) -> Stage:
        """Compute the next stage. It stays pending where it is interrupted."""
        stage = self.pending[0]
        compute = {
            "chain rule": self._chain_rule,
            "ends": self._ends,
            "noise floor": self._noise_floor,
            "certificate": self._certify,
            "loss slices": self._slices,
            "density": self._density,
            "traces": self._traces,
        }[stage.kind]

        def progress(done: Progress) -> None:
            self._progress(done.labelled(stage.label))

        progress(Progress(0, 0))

        def result() -> dict[str, Any]:
            self._has_computed = True
            found = compute(stage, progress)
            return {"found": found, "findings": self._known_findings()}

        given = result() if self._journal is None else self._journal.stage(stage.label, result)
        self.done.add(stage, given["found"])
        self._findings = given["findings"]
        return self.pending.popleft()

    def _known_findings(self) -> tuple[str, ...]:
        """Those of the stages that are done, and of this process if it has computed anything."""
        here = map(str, self.lin.findings) if self._has_computed or not self._findings else ()
        return tuple(dict.fromkeys((*self._findings, *here)))

    def _operator(self, stage: Stage) -> Hessian | GaussNewton | Residual:
        return OPERATORS[stage.letter](self.parts[stage.part])

    def _scale(self, stage: Stage) -> float | None:
        """‖H‖ of the part, which the errors of G and R are relative to."""
        found = self.done.spectra.get((stage.part, "H"))
        return None if found is None or stage.letter == "H" else found.norm

    # What each kind of stage computes, in the form that a journal keeps: see `StageResults.add`.

    def _chain_rule(self, stage: Stage, progress: ProgressHook) -> Any:
        found = chain_rule(self.lin)
        count = 3 * len(found)
        progress(Progress(count, count, count))
        return found

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

    def _density(self, stage: Stage, progress: ProgressHook) -> Any:
        part = self.parts[stage.part]
        probes, steps, resampled = self.effort.resolution(stage.letter, part is not self.lin)
        found = with_density(
            self.done.spectra[stage.part, stage.letter],
            self._operator(stage),
            scale=self._scale(stage),
            num_probes=probes,
            num_steps=steps,
            num_resampled=resampled if part.num_batches > 1 else 0,
            seed=self._seed,
            progress=progress,
        )
        return found.density, found.num_products, found.seconds

    def _traces(self, stage: Stage, progress: ProgressHook) -> Any:
        H = self.done.spectra.get((self._whole, "H"))
        return layer_traces(
            self._operator(stage),
            self.lin,
            scale=None if H is None else H.norm,
            seed=self._seed,
            progress=progress,
        )

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
            vectors = self.done.spectra[self._whole, letter].largest.vectors
            exact = None if self._exact is self.lin else OPERATORS[letter](self._exact)
            found[letter] = noise_floor(
                OPERATORS[letter](self.lin),
                exact,
                vectors=vectors[:, -NUM_TOP_VECTORS_CHECKED:],
                seed=self._seed,
            )
        return found

    def _certify(self, stage: Stage, progress: ProgressHook) -> Any:
        found = certify(self.lin, exact=self._exact, seed=self._seed)
        del self._exact
        return found

    def _slices(self, stage: Stage, progress: ProgressHook) -> Any:
        return slices_at_ends(self.lin, self.done.spectra[self._whole, "H"], progress)

    def _parts(self) -> dict[str, Part]:
        """The parts of which something is known."""
        found = {name: self.done.part(name, lin) for name, lin in self.parts.items()}
        parts = {name: part for name, part in found.items() if part is not None}
        if len(self._blocks) == 1 and parts:
            (name,) = self._blocks
            parts[name] = replace(parts[self._whole], name=name)
        return parts

    def comparison(self, *, title: str = "", command: str = "") -> Comparison:
        """What is known so far."""
        lin, done, parts = self.lin, self.done, self._parts()
        return Comparison(
            title=title,
            loss_name=lin.loss_name,
            layers=tuple(lin.layout.layers),
            shapes=shapes(lin),
            parts=parts,
            chain_rule=done.chain_rule,
            traces=done.traces,
            shares=shares(done.traces, parts),
            noise=done.noise,
            certificate=done.certificate,
            slices=done.slices,
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
            findings=(*self._known_findings(), *missed_eigenvalues(parts)),
            data_sha256=lin.data_digest,
            weights_sha256=lin.weights_digest,
            versions=package_versions(),
            num_products=done.num_products,
            seconds=time.perf_counter() - self._begun,
            command=command,
        )
