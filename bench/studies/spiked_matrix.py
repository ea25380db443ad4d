"""Three outliers of a 2000 × 2000 matrix: found, counted and projected out.

Papyan 2020, "Traces of class/cross-class structure pervade deep learning spectra", figure 15a:
Y = X + ZZᵀ/n with X = diag(3, 4, 5, 0, …) and Z standard normal, n = 2000. Its density is estimated
with 10 probes of 128 Lanczos steps, before and after the top pairs are projected out. The result is
known: the bulk follows the Marchenko-Pastur law on [0, 4], and a spike θ > 2 gives an eigenvalue
θ + θ/(θ - 1) whose eigenvector has the share 1 - 1/(θ - 1)² on the spike (Benaych-Georges and
Nadakuditi 2011, theorems 2.1 and 2.2, with the Cauchy transform of that law).

Numbers agree if they differ by at most three standard deviations. The derivative of λ = uᵀYu in Z
is (2/n) u uᵀZ, so that the variance of λ is at most 4 uᵀ(ZZᵀ/n)u / n (Poincaré's inequality for
Gaussian variables). For the shares the standard deviation is taken as 1/√n, its order of size.
"""

import numpy as np

import hvp
from bench.studies import study
from bench.studies.study import Row, Study

SPIKES = np.array([3.0, 4.0, 5.0])
# Between the edge of the bulk and the first outlier.
THRESHOLD = 4.25


def run(quick: bool) -> Study:
    n, num_probes, num_steps = (400, 5, 40) if quick else (2000, 10, 128)
    Z = np.random.default_rng(0).standard_normal((n, n))
    Y = Z @ Z.T / n
    Y[np.diag_indices(3)] += SPIKES
    exact = np.linalg.eigvalsh(Y)
    pairs = hvp.eigsh(Y, 3, tol=1e-10)
    densities = {
        f"{name} deflation": hvp.density(Y, num_probes=num_probes, num_steps=num_steps, pairs=known)
        for name, known in (("before", None), ("after", pairs))
    }
    rows = _outliers(pairs, exact, n)
    for name, density in densities.items():
        count = density.count_above(THRESHOLD)
        is_right = abs(count.value - 3) <= 3 * count.stderr + count.depth + 1e-9
        rows.append(Row(f"eigenvalues above {THRESHOLD}, {name}", "3", str(count), is_right))
    before, after = (_area(density, exact) for density in densities.values())
    areas = f"{before:.4f} before, {after:.4f} after"
    claim = "mean distance of eigenvalues from the true ones"
    rows.append(Row(claim, "less after deflation", areas, after < before))
    remarks = (
        f"n = {n}, {num_probes} probes of {num_steps} Lanczos steps, seed 0, float64.",
        "The spikes are no eigenvalues of Y: the noise pushes each up by θ/(θ - 1).",
    )
    return Study(
        "Spiked matrix (Papyan 2020, figure 15a)", tuple(rows), _figure(exact, densities), remarks
    )


def _outliers(pairs: hvp.Eigenpairs, exact: np.ndarray, n: int) -> list[Row]:
    """Outliers, spikes and shares of the vectors, compared with theory; all ascending."""
    found, shares = pairs.values, pairs.vectors[:3] ** 2  # (spikes, outliers)
    theory, slopes = SPIKES + SPIKES / (SPIKES - 1), 1 - 1 / (SPIKES - 1) ** 2
    spikes = 2 / (1 - np.sqrt(1 - 4 / found))
    deviations = 2 * np.sqrt((found - SPIKES @ shares) / n)
    off, allowed = np.abs(found - exact[-3:]).max(), pairs.errors.max() + 1e-14 * n
    return [
        _row("outliers, θ + θ/(θ - 1)", theory, found, deviations),
        _row("spikes θ, from the outliers", SPIKES, spikes, deviations / slopes),
        _row("shares of the vectors on the spikes", slopes, np.diag(shares), np.full(3, n**-0.5)),
        Row("outliers beside LAPACK's", f"≤ {allowed:.1e}", f"{off:.1e}", bool(off <= allowed)),
    ]


def _row(claim: str, published: np.ndarray, here: np.ndarray, sd: np.ndarray) -> Row:
    found = ", ".join(f"{x:.3f} ± {s:.3f}" for x, s in zip(here, sd, strict=True))
    holds = bool((np.abs(here - published) <= 3 * sd).all())
    return Row(claim, ", ".join(f"{x:.3f}" for x in published), found, holds)


def _area(density: hvp.Density, exact: np.ndarray) -> float:
    """∫ |F - F_exact| of the cumulative spectra."""
    x = np.linspace(exact[0] - 0.5, exact[-1] + 0.5, 20_001)
    steps = np.searchsorted(exact, x, "right") / len(exact)
    return float(np.trapezoid(np.abs(density.cumulative(x)[0] - steps), x))


def _figure(exact: np.ndarray, densities: dict[str, hvp.Density]) -> study.Figure:
    canvas = study.figure("The spectrum, and where theory puts its outliers", height=4.0)
    panels = canvas.subplots(1, 2, sharex=True, sharey=True)
    for panel, (name, density) in zip(panels, densities.items(), strict=True):
        x = density.grid()
        values, stderrs = density.curve(x)
        panel.hist(exact, 150, density=True, color="0.8", label="all eigenvalues, LAPACK")
        low, high = np.maximum(values - 2 * stderrs, 1e-12), values + 2 * stderrs
        panel.fill_between(x, low, high, color=study.BLUE, alpha=0.3, linewidth=0)
        panel.plot(x, values, color=study.BLUE, label="hvp.density ± 2 stderr")
        theory = SPIKES + SPIKES / (SPIKES - 1)
        panel.plot(theory, np.full(3, 0.06), "v", color=study.VERMILION, label="θ + θ/(θ - 1)")
        panel.set(title=name, xlabel="eigenvalue", yscale="log", ylim=(1e-4, 10))
    panels[0].set_ylabel("density")
    panels[1].legend(frameon=False, loc="upper right")
    return canvas
