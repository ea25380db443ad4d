"""The main job: the spectra of H, G and R = H - G side by side, whole and layer by layer."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from hvp.comparison.plan import MATRICES, RESULTS, Effort
from hvp.comparison.results import Comparison
from hvp.comparison.run import Run
from hvp.comparison.start import Start
from hvp.operators import Curvature, check_curvature
from hvp.progress import LabelledHook, ProgressHook
from hvp.randomness import DEFAULT_SEED, NOT_GIVEN, RNG, seed_of


def compare(
    lin: Curvature,
    k: int = 10,
    *,
    tol: float = 2e-4,
    num_probes: int = 4,
    num_steps: int = 80,
    layers: bool = True,
    matrices: str | Collection[str] = MATRICES,
    results: str | Collection[str] = RESULTS,
    seed: int = DEFAULT_SEED,
    rng: RNG = NOT_GIVEN,
    title: str = "",
    command: str = "",
    progress: ProgressHook | LabelledHook | None = None,
    start: Comparison | str | Path | None = None,
) -> Comparison:
    """Compare the spectra of H, G and R, of the whole network and of each layer's own block.

    Hv is tested by differences of the gradient, the gradient by those of the loss, and vᵀGv by
    those of the outputs: see `Comparison.certificate`.

    Args:
        lin: a `Linearization` whose loss is a function of outputs.
        k: number of eigenvalues at each end; a layer of P <= k parameters gives P - 1.
        tol: largest error ‖Av - λv‖ of an eigenpair, relative to ‖H‖ of the part.
        num_probes, num_steps: of the densities, see `hvp.density`; R and each layer take half
            of them, but four probes at least.
        layers: whether each layer's own block is a part. Without them the job takes a fraction of
            the time; the chain rule, the traces and the shares of R are by layer in any case.
        matrices: which of "H", "G" and "R"; R needs H, against whose norm its errors are measured.
        results: which of "chain-rule", "ends", "density" and "traces". The density and the traces
            bring the ends with them, and the ends of H the loss along two of its eigenvectors
            (`hvp.loss_slice`); the chain rule needs all three matrices.
        seed: of all starting vectors and probes.
        rng: in place of `seed`, what `numpy.random.default_rng` takes (SPEC 7).
        title: the name of what is compared, for the page and the figures.
        command: the command that repeats the comparison; empty for this call.
        progress: called with the products so far of each stage, a `hvp.Progress`; one that needs
            two arguments gets the label of the stage and the number.
        start: an earlier comparison of the same network at other weights or on other data, or the
            ``compare.json`` that it wrote, with ``compare.npz`` beside it. The eigenvalues at the
            ends start from its eigenvectors. For networks some steps apart that takes a quarter to
            a half fewer products with k=1, a tenth fewer or none with k=10. What is found is the
            same within the errors.

    Raises:
        InputError: k below 1 or beyond P - 1, a loss that is not a function of outputs, or matrices
            or results that do not exist, or a start with other parameters.
        ConvergenceError: an eigenpair did not reach its tolerance.

    >>> import numpy as np, tensorflow as tf
    >>> from hvp import linearize_function
    >>> lin = linearize_function(
    ...     lambda z, batch: tf.reduce_sum((z - batch[1]) ** 2), np.ones((3, 1)),
    ...     (np.eye(3), np.zeros((3, 1))), outputs=lambda w, batch: batch[0] @ w, reduction="sum")
    >>> compare(lin, k=2).parts["whole network"].H.largest.values.round(6).tolist()
    [2.0, 2.0]
    """
    seed = seed_of(seed, rng)
    check_curvature(lin)
    chosen = Effort.chosen_matrices(matrices)
    effort = Effort(
        k, tol, num_probes, num_steps, layers, chosen, Effort.chosen_results(results, chosen)
    )
    effort.check_k(lin.size)
    run = Run(lin, effort, seed=seed, progress=progress, start=_start(start))
    while run.pending:
        run.step()
    return run.comparison(title=title, command=command or _call(effort, seed))


def _start(given: Comparison | str | Path | None) -> Start | None:
    """The vectors of an earlier comparison."""
    if given is None:
        return None
    if isinstance(given, Comparison):
        return Start.of(given)
    from hvp.report.start_file import load

    return load(given)


def _call(effort: Effort, seed: int) -> str:
    """The call that repeats a comparison."""
    chosen = ""
    if not effort.layers:
        chosen += "layers=False, "
    if effort.matrices != MATRICES:
        chosen += f"matrices={''.join(effort.matrices)!r}, "
    if effort.results != frozenset(RESULTS):
        names = ",".join(name for name in RESULTS if name in effort.results)
        chosen += f"results={names!r}, "
    return (
        f"hvp.compare(lin, k={effort.k}, tol={effort.tol:g}, num_probes={effort.num_probes}, "
        f"num_steps={effort.num_steps}, {chosen}seed={seed})"
    )
