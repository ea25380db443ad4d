"""A comparison as plain dictionaries and lists: the content of ``compare.json``."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from hvp.certificate import Certificate
from hvp.comparison.loss_slice import LossSlice
from hvp.comparison.part import Part
from hvp.comparison.results import Comparison
from hvp.errors import InputError, shown
from hvp.linalg.density import Density
from hvp.linalg.eigenpairs import Eigenpairs
from hvp.linalg.estimate import Estimate
from hvp.report import summary

Known = TypeVar("Known")
SCHEMA = 7
ABOUT = {
    "null": "a number that is not known, such as the sampling error from a single batch, or a "
    "result that was not computed",
    "matrices": "those compared, of H, G and R",
    "unfinished": "the stages that an interruption left out; empty where all were done",
    "units": "eigenvalues, errors, noise and distance in units of the loss per squared weight",
    "parts": "whole network or selected layers, then each layer's own block; size is P",
    "largest, smallest": "eigenvalues in ascending order, each with its error |Av - lambda v|",
    "separate": "whether value ± error overlaps no other; if not, the value bounds a cluster",
    "sampling": "standard errors over the choice of examples, from vᵀAv of each batch",
    "unseen": "ends beyond which another start found an eigenvalue that was missed",
    "density": "stochastic Lanczos quadrature: a row of nodes and weights for each probe; "
    "outliers, the eigenvalues projected out beforehand, have weight 1/P each; errors are those of "
    "the nodes, values below floor may be zero, width is that of the Gaussians that smooth it",
    "value, stderr, depth, sampling": "an estimate, its standard error over random probes, its "
    "change over the last half of the Lanczos steps, and its standard error over the choice of "
    "examples",
    "tol": "requested error, relative to the largest eigenvalue of H in magnitude",
    "principal_angles": "radians, between the spaces of the i largest eigenvalues of H and of G, "
    "for i from 1 to k",
    "overlap": "mean squared cosine of the principal angles for i = k",
    "distance": "area between the cumulative spectra of H and of G",
    "traces": "trace and squared Frobenius norm of every layer's own block and of the whole; "
    "shares are those of R over those of H",
    "noise": "measured errors of products with unit vectors; eigenvalues below floor may be zero",
    "certificate": "Hv compared with differences of the gradient, the gradient with those of the "
    "loss, and vᵀGv with those of the outputs: relative errors and their bounds; if a check has "
    "not passed, do not trust the numbers; error is null where it could not be measured",
    "negative": "the number of eigenvalues of H below minus the noise floor",
    "rank": "the number of eigenvalues of G above the noise floor; rank_bound: its upper bound",
    "brackets": "bounds of the numbers of eigenvalues of H below a threshold, and of G above one, "
    "certain but for the standard error over the probes: first at the noise floor, then at the "
    "smallest multiple of it whose bounds are within a factor of two",
    "headline": "the main results in sentences",
    "shapes": "those of the parameters of each layer",
    "counts": "the least and the most eigenvalues above epsilon (threshold), below -epsilon and, "
    "null, between the two, with two standard errors of the probes; epsilon is the smallest "
    "multiple of the noise floor for which they are close",
    "stable_rank": "squared Frobenius norm over squared spectral norm",
    "effective_dimension": "sum of lambda/(lambda + damping) over the eigenvalues of G; the "
    "damping is its largest eigenvalue divided by divisor; depth is half the width of its bracket",
    "condition": "bounds of the largest eigenvalue over the smallest one above floor",
    "stable_learning_rate": "2 over the largest eigenvalue of H: above it gradient descent is "
    "unstable; null where no eigenvalue is certainly positive",
    "command": "repeats the comparison, given the same weights and data",
    "slices": "the loss at w + t v for eigenvectors v of H of length 1, beside the parabola loss + "
    "slope t + curvature t²/2; measured: the second derivative by differences of the losses alone, "
    "with its error; order: the power of t by which the losses and the parabola part, at least 3 "
    "where H is right, null where they part by rounding alone",
    "chain_rule": "vᵀHv, vᵀGv and vᵀRv for the kernels v of each layer; rounding: their error",
}
CONVERTED_FIELDS = ("parts", "chain_rule", "traces", "shares", "noise", "certificate", "slices")
FILE, AGAIN = "compare.json", "save the comparison again"
# What a document holds at least.
KEYS = {field.name for field in dataclasses.fields(Comparison)} - {"shares"} | {
    "schema", "about", "negative", "rank", "brackets", "headline", "counts", "stable_rank",
    "effective_dimension", "condition", "stable_learning_rate",
}  # fmt: skip


def comparison_as_dict(comparison: Comparison) -> dict[str, Any]:
    """The numbers of a comparison, `schema` first; vectors are left out."""
    plain = {
        field.name: getattr(comparison, field.name)
        for field in dataclasses.fields(comparison)
        if field.name not in CONVERTED_FIELDS
    }
    return nan_as_null(
        {
            "schema": SCHEMA,
            "about": ABOUT,
            "headline": list(summary.headline(comparison)),
            **plain,
            **_sizes_of_curvature(comparison),
            "certificate": _if_known(certificate_as_dict, comparison.certificate),
            "negative": _if_known(_estimate, comparison.negative),
            "rank": _if_known(_estimate, comparison.rank),
            "brackets": {
                "negative": [vars(found) for found in comparison.negative_brackets],
                "rank": [vars(found) for found in comparison.rank_brackets],
            },
            "noise": {
                name: {**vars(noise), "floor": noise.floor}
                for name, noise in comparison.noise.items()
            },
            "chain_rule": [
                {**vars(row), "relative_difference": row.difference}
                for row in comparison.chain_rule
            ],
            "traces": _traces(comparison),
            "slices": _if_known(_slices, comparison.slices),
            "parts": {name: _part(part) for name, part in comparison.parts.items()},
        }
    )


def _sizes_of_curvature(c: Comparison) -> dict[str, Any]:
    """How many eigenvalues are large, and how many directions matter."""
    return {
        "counts": {letter: vars(found) for letter, found in c.counts.items()},
        "stable_rank": {letter: _estimate(rank) for letter, rank in c.stable_ranks.items()},
        "effective_dimension": [
            {"damping": each.damping, "divisor": each.divisor, **_estimate(each.estimate)}
            for each in c.effective_dimensions
        ],
        "condition": {letter: vars(found) for letter, found in c.conditions.items()},
        "stable_learning_rate": c.stable_learning_rate,
    }


def load(path: str | Path) -> dict[str, Any]:
    """The numbers that `Comparison.save` wrote, as `Comparison.to_json` gives them.

    The entry "about" explains the others. A number that is not known is None. The text is read as
    JSON: nothing in it is run.

    Args:
        path: of a ``compare.json``, or of the directory that it is in.

    Raises:
        InputError: there is no such file, it is no JSON or cut off, no comparison, or one that
            another version wrote with another schema.

    >>> import tempfile, hvp, numpy as np
    >>> lin = hvp.linearize_function(
    ...     lambda z: z**2, [np.array(1.0), np.array(2.0)], outputs=lambda w: w[0] * w[1])
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     _ = hvp.compare(lin, k=1, title="a product").save(directory)
    ...     found = hvp.load(directory)
    >>> found["title"], round(found["parts"]["whole network"]["G"]["largest"]["values"][0], 6)
    ('a product', 10.0)
    """
    if not isinstance(path, str | Path):
        raise InputError(f"the path of a {FILE}", shown(path), "pass a text or a pathlib.Path")
    path = Path(path) / FILE if Path(path).is_dir() else Path(path)
    name = shown(str(path))
    document = _parsed(path, name)
    if not isinstance(document, dict) or "schema" not in document:
        got = f"{name}, JSON without a schema"
        raise InputError(f"a {FILE}", got, "pass the file that Comparison.save wrote")
    if document["schema"] != SCHEMA:
        schema = f"schema {shown(document['schema'])}"
        raise InputError(f"schema {SCHEMA} in {name}", schema, "compare again with this version")
    missing = sorted(KEYS - document.keys())
    if missing:
        raise InputError(f"a whole {FILE}", f"{name} without {', '.join(missing)}", AGAIN)
    return document


def _parsed(path: Path, name: str) -> Any:
    """The JSON of a file, whose name is shown where it holds none."""
    if not path.is_file():
        raise InputError(f"a {FILE}", f"no file {name}", "check the path")
    try:
        return json.loads(path.read_bytes())
    except json.JSONDecodeError as error:
        got = f"{name}, no JSON or cut off: {error.msg} in line {error.lineno}"
        raise InputError(f"a {FILE}", got, AGAIN) from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"a {FILE}", f"{name}, which is no JSON", AGAIN) from error


def nan_as_null(plain: Any) -> Any:
    """Replace NaN with null. Infinities are refused when the file is written."""
    if isinstance(plain, dict):
        return {key: nan_as_null(value) for key, value in plain.items()}
    if isinstance(plain, list | tuple):
        return [nan_as_null(value) for value in plain]
    return None if isinstance(plain, float) and math.isnan(plain) else plain


def _if_known(convert: Callable[[Known], Any], found: Known | None) -> Any:
    """A result as a dictionary, None where it was not computed."""
    return None if found is None else convert(found)


def certificate_as_dict(certificate: Certificate) -> dict[str, Any]:
    """Its checks with their errors, bounds and outcomes."""
    return {
        "passed": certificate.passed,
        "dtype": certificate.dtype,
        "num_directions": certificate.num_directions,
        "checks": [{**vars(check), "passed": check.passed} for check in certificate.checks],
    }


def _slices(found: LossSlice) -> list[dict[str, Any]]:
    return [
        {
            "direction": name,
            "slope": float(found.slopes[i]),
            "curvature": float(found.curvatures[i]),
            "measured": float(found.measured[i]),
            "measured_error": float(found.measured_errors[i]),
            "order": float(found.orders[i]),
            "t": found.steps[i].tolist(),
            "losses": found.losses[i].tolist(),
        }
        for i, name in enumerate(found.names)
    ]


def _traces(comparison: Comparison) -> dict[str, Any]:
    def row(name: str) -> dict[str, Any]:
        part = comparison.parts.get(name or comparison.whole.name)
        blocks = {
            letter: found.layers[name] if name else found.whole
            for letter, found in comparison.traces.items()
        }
        measures = ("trace", "squared_norm")
        return {
            **{
                letter: {
                    measure: {
                        **_estimate(getattr(block, measure)),
                        "sampling": getattr(part.sampling[letter], measure)
                        if part is not None and letter in part.sampling
                        else math.nan,
                    }
                    for measure in measures
                }
                for letter, block in blocks.items()
            },
            **share_of_residual(name, measures),
        }

    def share_of_residual(name: str, measures: tuple[str, ...]) -> dict[str, Any]:
        shares = comparison.shares
        if shares is None:
            return {}
        share = shares.layers[name] if name else shares.whole
        return {"share of R": {measure: _estimate(getattr(share, measure)) for measure in measures}}

    if not comparison.traces:
        return {}
    layers = next(iter(comparison.traces.values())).layers
    return {"whole": row(""), "layers": {name: row(name) for name in layers}}


def _part(part: Part) -> dict[str, Any]:
    return {
        "size": part.size,
        **{letter: _spectrum(part, letter) for letter in part.spectra},
        "principal_angles": [angles.tolist() for angles in part.angles_by_count],
        "overlap": part.overlap,
        "distance": _if_known(_estimate, part.distance),
    }


def _spectrum(part: Part, letter: str) -> dict[str, Any]:
    found, sampling = part.spectra[letter], part.sampling[letter]
    return {
        "largest": _pairs(found.largest, sampling.largest),
        "smallest": _pairs(found.smallest, sampling.smallest),
        "unseen": list(found.unseen),
        "density": _if_known(_density, found.density),
        "num_products": found.num_products,
        "seconds": found.seconds,
    }


def _pairs(pairs: Eigenpairs, sampling: np.ndarray) -> dict[str, list[float]]:
    return {
        "values": pairs.values.tolist(),
        "errors": pairs.errors.tolist(),
        "sampling": sampling.tolist(),
        "separate": pairs.separate.tolist(),
    }


def _density(d: Density) -> dict[str, Any]:
    return {
        "nodes": d.nodes.tolist(),
        "weights": d.weights.tolist(),
        "errors": d.errors.tolist(),
        "outliers": d.outliers.tolist(),
        "width": d.width,
        "floor": d.floor,
        "seed": d.seed,
        "notes": list(d.notes),
    }


def _estimate(estimate: Estimate[float]) -> dict[str, float]:
    return {name: getattr(estimate, name) for name in ("value", "stderr", "depth", "sampling")}
