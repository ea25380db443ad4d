"""The main job: the spectra of H, G and R = H - G side by side, whole and layer by layer."""

from __future__ import annotations

import importlib.metadata
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import scipy.linalg

from hvp.certificate import certify, in_float64
from hvp.comparison.chain_rule import chain_rule, whole_name
from hvp.comparison.results import Comparison, Part
from hvp.comparison.sampling_errors import sampling_errors, share_with_sampling_errors
from hvp.comparison.spectrum import Spectrum, spectrum
from hvp.errors import InputError
from hvp.linalg.layer_traces import LayerShares, LayerTraces, layer_shares, layer_traces
from hvp.linalg.noise_floor import Noise, noise_floor
from hvp.linalg.wasserstein import distance
from hvp.operators import Curvature, GaussNewton, Hessian, Residual

PACKAGES = ("hvp", "tensorflow", "keras", "numpy", "scipy")
# R and single layers get this fraction (one half) of the probes and steps of the densities.
REDUCTION_FACTOR = 2
# The noise floor compares products with float64 along this many top eigenvectors.
NUM_TOP_VECTORS_CHECKED = 3
# This many probes of the whole network's densities also estimate sampling errors.
NUM_RESAMPLED_PROBES = 2
OPERATORS: dict[str, type[Hessian | GaussNewton | Residual]] = {
    "H": Hessian,
    "G": GaussNewton,
    "R": Residual,
}


def compare(
    lin: Curvature,
    k: int = 10,
    *,
    tol: float = 2e-4,
    num_probes: int = 10,
    num_steps: int = 80,
    layers: bool = True,
    seed: int = 0,
    title: str = "",
    command: str = "",
    progress: Callable[[str, int], None] | None = None,
) -> Comparison:
    """Compare the spectra of H, G and R, of the whole network and of each layer's own block.

    Hv is tested by differences of the gradient, the gradient by those of the loss, and vᵀGv by
    those of the outputs: see `Comparison.certificate`.

    Args:
        lin: a `Linearization` whose loss is a function of outputs.
        k: number of eigenvalues at each end; a layer of P <= k parameters gives P - 1.
        tol: largest error ‖Av - λv‖ of an eigenpair, relative to ‖H‖ of the part.
        num_probes, num_steps: of the densities, see `hvp.density`; R and each layer take half
            of them.
        layers: whether each layer's own block is a part. Without them the job takes a fraction of
            the time; the chain rule, the traces and the shares of R are by layer in any case.
        seed: of all starting vectors and probes.
        title: the name of what is compared, for the page and the figures.
        command: the command that repeats the comparison; empty for this call.
        progress: called with a label of what is being computed and its products so far.

    Raises:
        InputError: k below 1 or beyond P - 1, or a loss that is not a function of outputs.
        ConvergenceError: an eigenpair did not reach its tolerance.

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
    report_progress = progress or (lambda label, count: None)
    table = chain_rule(lin)
    blocks = lin.blocks() if layers else {}
    whole = whole_name(lin)

    def compare_part(name: str, part: Curvature, factor: int) -> Part:
        """Compare one part with the probes and steps divided by this factor."""
        return _part(
            name,
            part,
            k,
            report_progress,
            tol=tol,
            num_probes=_reduced(num_probes, factor),
            num_steps=_reduced(num_steps, factor),
            num_resampled=_reduced(min(NUM_RESAMPLED_PROBES, num_probes), factor),
            seed=seed,
        )

    parts = {whole: compare_part(whole, lin, 1)}
    for name, block in blocks.items():
        if len(blocks) == 1:
            parts[name] = replace(parts[whole], name=name)
        else:
            parts[name] = compare_part(name, block, REDUCTION_FACTOR)
    spectra = {id(s): s for part in parts.values() for s in (part.H, part.G, part.R)}
    cost = sum(s.num_products for s in spectra.values()) + 3 * len(table)
    scale = parts[whole].H.norm
    traces = {name: _traces(name, lin, scale, seed, report_progress) for name in OPERATORS}
    exact = in_float64(lin)
    noise = _noise(lin, None if exact is lin else exact, parts[whole], seed)
    certificate = certify(lin, exact=exact, seed=seed)
    cost += certificate.num_directions + (certificate.G is not None)
    cost += sum(found.num_products for found in traces.values())
    cost += sum(found.num_products for found in noise.values())
    return Comparison(
        title=title,
        loss_name=lin.loss_name,
        layers=tuple(lin.layout.layers),
        parts=parts,
        chain_rule=table,
        traces=traces,
        shares=_shares(traces, parts),
        noise=noise,
        certificate=certificate,
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
        findings=(*map(str, lin.findings), *_missed_eigenvalues(parts)),
        data_sha256=lin.data_digest,
        weights_sha256=lin.weights_digest,
        versions=_versions(),
        num_products=cost,
        seconds=time.perf_counter() - begun,
        command=command
        or f"hvp.compare(lin, k={k}, tol={tol:g}, num_probes={num_probes}, num_steps={num_steps}, "
        f"{'' if layers else 'layers=False, '}seed={seed})",
    )


def _part(
    name: str,
    lin: Curvature,
    k: int,
    progress: Callable[[str, int], None],
    *,
    tol: float,
    num_probes: int,
    num_steps: int,
    num_resampled: int,
    seed: int,
) -> Part:
    k = min(k, max(lin.size - 1, 1))

    def run(letter: str, scale: float | None) -> Spectrum:
        factor = REDUCTION_FACTOR if letter == "R" else 1
        return spectrum(
            OPERATORS[letter](lin),
            k,
            tol=tol,
            scale=scale,
            num_probes=_reduced(num_probes, factor),
            num_steps=_reduced(num_steps, factor),
            num_resampled=_reduced(num_resampled, factor) if lin.num_batches > 1 else 0,
            seed=seed,
            progress=lambda count: progress(f"{name} {letter}", count),
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
            letter: sampling_errors(lin, letter, found, seed)
            for letter, found in (("H", H), ("G", G), ("R", R))
        },
        angles_by_count=_angles(H.largest.vectors, G.largest.vectors),
        distance=distance(H.density, G.density),
        eps=float(np.finfo(lin.dtype).eps),
    )


def _traces(
    letter: str, lin: Curvature, scale: float, seed: int, progress: Callable[[str, int], None]
) -> LayerTraces:
    def count_products(count: int) -> None:
        progress(f"traces of {letter}", count)

    return layer_traces(
        OPERATORS[letter](lin), lin, scale=scale, seed=seed, progress=count_products
    )


def _shares(traces: Mapping[str, LayerTraces], parts: Mapping[str, Part]) -> LayerShares:
    """The shares of R in the traces and norms of H, layer by layer, with all their errors."""
    found, of = layer_shares(traces["R"], traces["H"]), traces["H"]
    layers = {
        name: share_with_sampling_errors(share, parts[name].sampling, of.layers[name].trace.value)
        if name in parts
        else share
        for name, share in found.layers.items()
    }
    whole = next(iter(parts.values()))
    return LayerShares(
        layers, share_with_sampling_errors(found.whole, whole.sampling, of.whole.trace.value)
    )


def _reduced(count: int, factor: int) -> int:
    """The count divided by the factor, rounded up."""
    return -(-count // factor)


def _angles(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, ...]:
    """Principal angles in radians between the spaces of the last i columns, for every i."""
    counts = range(1, first.shape[1] + 1)
    angles = [scipy.linalg.subspace_angles(first[:, -i:], second[:, -i:]) for i in counts]
    return tuple(np.sort(a).astype(np.float64) for a in angles)


def _noise(lin: Curvature, exact: Curvature | None, part: Part, seed: int) -> dict[str, Noise]:
    """The noise of products with H and G; compared with those in float64, if there are such."""
    return {
        letter: noise_floor(
            OPERATORS[letter](lin),
            None if exact is None else OPERATORS[letter](exact),
            vectors=getattr(part, letter).largest.vectors[:, -NUM_TOP_VECTORS_CHECKED:],
            seed=seed,
        )
        for letter in "HG"
    }


def _missed_eigenvalues(parts: Mapping[str, Part]) -> list[str]:
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
