"""The main job: the spectra of H, G and R = H - G side by side, whole and layer by layer."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import scipy.linalg

from hvp.comparison.chain_rule import QuadraticForms, chain_rule, whole_name
from hvp.comparison.sampling_errors import SamplingErrors, resampled, sampled
from hvp.comparison.spectrum import Spectrum, spectrum
from hvp.errors import InputError
from hvp.linalg.estimate import Estimate
from hvp.linalg.layer_traces import LayerShares, LayerTraces, layer_shares, layer_traces
from hvp.linalg.noise_floor import Noise, noise_floor
from hvp.linalg.wasserstein import distance
from hvp.operators import Curvature, GaussNewton, Hessian, Residual

PACKAGES = ("hvp", "tensorflow", "keras", "numpy", "scipy")
# What the densities of R and of layers take of the probes and steps of the whole network's.
SHARE = 2
# Top eigenvectors along which products are held against float64, and probes of the whole network's
# densities that tell their sampling errors.
SHADOWED, RESAMPLED = 3, 2
KINDS = ("json", "html", "png", "svg")
OPERATORS: dict[str, Any] = {"H": Hessian, "G": GaussNewton, "R": Residual}


@dataclass(frozen=True, eq=False)
class Part:
    """The network or one layer: the spectra of H, G and R, and what tells them apart.

    Attributes:
        name, size: of the part; P.
        H, G, R: their spectra.
        sampling: "H", "G", "R" -> the standard errors that the choice of the data makes; NaN where
            there is a single batch.
        angles_by_count: the principal angles in radians, ascending, between the spaces of H's and
            of G's i largest eigenvalues, for i from 1 to k (Björck and Golub 1973).
        distance: between the cumulative spectra of H and of G, see `hvp.linalg.wasserstein`.
        eps: the rounding of the products.
    """

    name: str
    size: int
    H: Spectrum
    G: Spectrum
    R: Spectrum
    sampling: Mapping[str, SamplingErrors]
    angles_by_count: tuple[np.ndarray, ...]
    distance: Estimate
    eps: float

    @property
    def angles(self) -> np.ndarray:
        """(k,) between the spaces of all k."""
        return self.angles_by_count[-1]

    @property
    def overlap(self) -> float:
        """Mean squared cosine of the angles: the share of H's top space that lies in G's."""
        return float(np.mean(np.cos(self.angles) ** 2))

    @property
    def agrees(self) -> bool:
        """Whether R vanishes here: its eigenvalues are below a thousand roundings of H's."""
        return bool(1000 * self.eps * self.H.norm >= self.R.norm)


@dataclass(frozen=True, eq=False)
class Comparison:
    """What `compare` found; `save` writes it.

    `parts` begins with "whole network" ("selected layers" where only some were taken) and goes on
    with one entry a layer; `chain_rule` has one row a layer and a last one for all together.
    `traces` has the traces and squared Frobenius norms of H, G and R, `shares` what part of those
    of H is R's, layer by layer. `noise` is that of the products with H and G, in units of λ.
    `command` repeats it, given the same weights and data.

    >>> from hvp import linearize_function
    >>> lin = linearize_function(
    ...     lambda z: z**2, [np.array(1.0), np.array(2.0)], outputs=lambda w: w[0] * w[1])
    >>> comparison = compare(lin, k=1)
    >>> list(comparison.parts), comparison.parts["param0"].agrees
    (['whole network', 'param0', 'param1'], True)
    """

    title: str
    loss_name: str
    layers: tuple[str, ...]
    parts: Mapping[str, Part]
    chain_rule: tuple[QuadraticForms, ...]
    traces: Mapping[str, LayerTraces]
    shares: LayerShares
    noise: Mapping[str, Noise]
    rank_bound: int
    loss: float
    gradient_norm: float
    accuracy: float | None
    num_examples: int
    num_batches: int
    size: int
    dtype: str
    k: int
    tol: float
    seed: int
    findings: tuple[str, ...]
    data_sha256: str
    weights_sha256: str
    versions: Mapping[str, str]
    num_products: int
    seconds: float
    command: str = ""

    @property
    def whole(self) -> Part:
        """The part of all parameters."""
        return next(iter(self.parts.values()))

    @property
    def floor(self) -> float:
        """What the noise of the products with H leaves of an eigenvalue: what is below is none."""
        return max(noise.floor for noise in self.noise.values())

    @property
    def negative(self) -> Estimate:
        """The number of negative eigenvalues of H."""
        return self.whole.H.negative(self.floor)

    @property
    def rank(self) -> Estimate:
        """The rank of G, at most `rank_bound`: the number of outputs, or of parameters."""
        return self.whole.G.rank(self.floor)

    def to_json(self) -> dict[str, Any]:
        """The numbers as plain dictionaries and lists, `schema` first; vectors are left out."""
        from hvp.report import json_document

        return json_document.of(self)

    def save(self, directory: str | Path) -> tuple[Path, ...]:
        """Write ``compare.json``, ``.html``, ``.png`` and ``.svg`` there.

        The numbers, the page that people look at, and figures for papers: each appears whole or
        not at all, and none before all are made.
        """
        from hvp.report import html_page, matplotlib_figure

        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        targets = tuple(directory / f"compare.{kind}" for kind in KINDS)
        drafts = [target.with_suffix(f".{os.getpid()}{target.suffix}") for target in targets]
        try:
            text = json.dumps(self.to_json(), indent=1, allow_nan=False)
            drafts[0].write_text(text + "\n", encoding="utf-8")
            html_page.save_page(self, drafts[1])
            matplotlib_figure.save_comparison(self, *drafts[2:])
            for draft, target in zip(drafts, targets, strict=True):
                draft.replace(target)
        finally:
            for draft in drafts:
                draft.unlink(missing_ok=True)
        return targets


def compare(
    lin: Curvature,
    k: int = 10,
    *,
    tol: float = 2e-4,
    num_probes: int = 10,
    num_steps: int = 80,
    seed: int = 0,
    title: str = "",
    command: str = "",
    progress: Callable[[str, int], None] | None = None,
) -> Comparison:
    """The ends of the spectra of H, G and R, of the whole network and of each layer's own block.

    Args:
        lin: a `Linearization` whose loss is a function of outputs.
        k: how many eigenvalues at each end; a layer of P <= k parameters gives P - 1.
        tol: error of a pair relative to ‖H‖ of the part; the errors reached are reported.
        num_probes, num_steps: of the densities, see `hvp.density`; R, which is not held against
            another, takes half of each, and so do layers.
        seed: of all starting vectors and probes.
        title: what the comparison is of, for the page and the picture.
        command: what repeats it, where that is not this call.
        progress: called with what is being computed and the number of products it took so far.

    Raises:
        InputError: k below 1 or beyond P - 1, or a loss that is not a function of outputs.
        ConvergenceError: a pair that did not reach its tolerance.

    >>> import numpy as np, tensorflow as tf
    >>> from hvp import linearize_function
    >>> lin = linearize_function(
    ...     lambda z, batch: tf.reduce_sum((z - batch[1]) ** 2), np.ones((3, 1)),
    ...     (np.eye(3), np.zeros((3, 1))), outputs=lambda w, batch: batch[0] @ w, reduction="sum")
    >>> compare(lin, k=2).parts["whole network"].H.largest.values.round(6).tolist()
    [2.0, 2.0]
    """
    begun = time.perf_counter()
    if not hasattr(lin, "gnvp"):
        raise InputError("a Linearization", type(lin).__name__, "call hvp.linearize first")
    if not isinstance(k, int | np.integer) or not 1 <= k < max(lin.size, 2):
        raise InputError(
            f"k from 1 to {max(lin.size - 1, 1)} for {lin.size} parameters", k, "lower it"
        )
    tell = progress or (lambda label, count: None)
    table = chain_rule(lin)
    blocks = lin.blocks()
    whole = whole_name(lin)

    def part(name: str, part: Curvature, share: int) -> Part:
        """A part with this share of the probes and steps."""
        return _part(
            name,
            part,
            k,
            tell,
            tol=tol,
            num_probes=_shared(num_probes, share),
            num_steps=_shared(num_steps, share),
            num_resampled=_shared(min(RESAMPLED, num_probes), share),
            seed=seed,
        )

    parts = {whole: part(whole, lin, 1)}
    for name, block in blocks.items():
        if len(blocks) == 1:
            parts[name] = replace(parts[whole], name=name)
        else:
            parts[name] = part(name, block, SHARE)
    spectra = {id(s): s for part in parts.values() for s in (part.H, part.G, part.R)}
    cost = sum(s.num_products for s in spectra.values()) + 3 * len(table)
    scale = parts[whole].H.norm
    traces = {name: _traces(name, lin, scale, seed, tell) for name in OPERATORS}
    noise = _noise(lin, parts[whole], seed)
    cost += sum(found.num_products for found in traces.values())
    cost += sum(found.num_products for found in noise.values())
    return Comparison(
        title=title,
        loss_name=lin.loss_name,
        layers=tuple(blocks),
        parts=parts,
        chain_rule=table,
        traces=traces,
        shares=_shares(traces, parts),
        noise=noise,
        rank_bound=min(lin.size, lin.num_outputs),
        loss=lin.loss(),
        gradient_norm=float(np.linalg.norm(lin.gradient().astype(np.float64))),
        accuracy=lin.accuracy,
        num_examples=lin.num_examples,
        num_batches=lin.num_batches,
        size=lin.size,
        dtype=str(lin.dtype),
        k=k,
        tol=tol,
        seed=seed,
        findings=(*map(str, lin.findings), *_alarms(parts)),
        data_sha256=lin.data_digest,
        weights_sha256=lin.weights_digest,
        versions=_versions(),
        num_products=cost,
        seconds=time.perf_counter() - begun,
        command=command
        or f"hvp.compare(lin, k={k}, tol={tol:g}, num_probes={num_probes}, num_steps={num_steps}, "
        f"seed={seed})",
    )


def _part(
    name: str,
    lin: Curvature,
    k: int,
    tell: Callable[[str, int], None],
    *,
    tol: float,
    num_probes: int,
    num_steps: int,
    num_resampled: int,
    seed: int,
) -> Part:
    k = min(k, max(lin.size - 1, 1))

    def run(letter: str, scale: float | None) -> Spectrum:
        share = SHARE if letter == "R" else 1
        return spectrum(
            OPERATORS[letter](lin),
            k,
            tol=tol,
            scale=scale,
            num_probes=_shared(num_probes, share),
            num_steps=_shared(num_steps, share),
            num_resampled=_shared(num_resampled, share) if lin.num_batches > 1 else 0,
            seed=seed,
            report=lambda count: tell(f"{name} {letter}", count),
        )

    H = run("H", None)
    G, R = run("G", H.norm), run("R", H.norm)
    return Part(
        name=name,
        size=lin.size,
        H=H,
        G=G,
        R=R,
        sampling={
            letter: sampled(lin, letter, found, seed)
            for letter, found in (("H", H), ("G", G), ("R", R))
        },
        angles_by_count=_angles(H.largest.vectors, G.largest.vectors),
        distance=distance(H.density, G.density),
        eps=float(np.finfo(lin.dtype).eps),
    )


def _traces(
    letter: str, lin: Curvature, scale: float, seed: int, report: Callable[[str, int], None]
) -> LayerTraces:
    def told(count: int) -> None:
        report(f"traces of {letter}", count)

    return layer_traces(OPERATORS[letter](lin), lin, scale=scale, seed=seed, progress=told)


def _shares(traces: Mapping[str, LayerTraces], parts: Mapping[str, Part]) -> LayerShares:
    """What R has of H, layer by layer, with all errors."""
    found, of = layer_shares(traces["R"], traces["H"]), traces["H"]
    layers = {
        name: resampled(share, parts[name].sampling, of.layers[name].trace.value)
        for name, share in found.layers.items()
    }
    whole = next(iter(parts.values()))
    return LayerShares(layers, resampled(found.whole, whole.sampling, of.whole.trace.value))


def _shared(count: int, share: int) -> int:
    return -(-count // share)


def _angles(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, ...]:
    """Principal angles between the spaces of the last i columns, for every i."""
    counts = range(1, first.shape[1] + 1)
    angles = [scipy.linalg.subspace_angles(first[:, -i:], second[:, -i:]) for i in counts]
    return tuple(np.sort(a).astype(np.float64) for a in angles)


def _noise(lin: Curvature, part: Part, seed: int) -> dict[str, Noise]:
    """Of products with H and G, beside float64 where they are in less, along top vectors too."""
    exact = None if lin.dtype == np.float64 else lin.in_float64()
    return {
        letter: noise_floor(
            OPERATORS[letter](lin),
            None if exact is None else OPERATORS[letter](exact),
            vectors=getattr(part, letter).largest.vectors[:, -SHADOWED:],
            seed=seed,
        )
        for letter in "HG"
    }


def _alarms(parts: Mapping[str, Part]) -> list[str]:
    return [
        f"different: {name}: an eigenvalue of {letter} among its {part.H.largest.values.size} "
        f"{end} was missed, as of a multiple one; raise k"
        for name, part in parts.items()
        for letter in OPERATORS
        for end in getattr(part, letter).unseen
    ]


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        versions[package] = importlib.metadata.version(package)
    return versions
