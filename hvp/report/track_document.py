"""A track as plain dictionaries and lists: the content of ``track.json``."""

from __future__ import annotations

import dataclasses
from typing import Any

from hvp.comparison.track_results import Track
from hvp.report.json_document import certificate_as_dict, nan_as_null

SCHEMA = 1
ABOUT = {
    "null": "a number that is not known",
    "matrix": "H, the Gauss-Newton matrix G, or R = H - G",
    "points": "in order; largest and smallest are the ends of the spectrum, each with its error "
    "|Av - lambda v|; trace_stderr is the standard error over random probes, which are the same at "
    "each point",
    "units": "eigenvalues, errors and traces in units of the loss per squared weight",
    "unfinished": "the points that an interruption left out",
    "tol": "requested error of an eigenvalue, relative to the norm of the matrix",
    "num_probe_products": "products of each trace, at most",
    "certificate": "Hv compared with differences of the gradient, the gradient with those of the "
    "loss, and vᵀGv with those of the outputs, at the first point: relative errors and their "
    "bounds; if a check has not passed, do not trust the numbers",
    "command": "repeats the track, given the same weights and data",
}


def track_as_dict(track: Track) -> dict[str, Any]:
    """The numbers of a track, `schema` first."""
    plain = {field.name: getattr(track, field.name) for field in dataclasses.fields(track)}
    document: dict[str, Any] = nan_as_null(
        {
            "schema": SCHEMA,
            "about": ABOUT,
            **plain,
            "points": track.rows(),
            "certificate": certificate_as_dict(track.certificate),
        }
    )
    return document
