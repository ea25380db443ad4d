"""What other data would have made of a spectrum: of its ends, its trace and its norm."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from hvp.comparison.spectrum import Spectrum
from hvp.linalg.blocks import signs
from hvp.linalg.layer_traces import Share
from hvp.operators import Curvature
from hvp.sampling_error import jackknife, sampling_error

# Random signs for the sampling error of the trace.
SIGNS = 10


@dataclass(frozen=True, eq=False)
class SamplingErrors:
    """Standard errors, had other examples been drawn: see `hvp.sampling`.

    Those of the trace, told by random signs, and of the squared Frobenius norm, told by the first
    probes of the density, include some of what these add to them.

    Attributes:
        largest, smallest: (k,) of the eigenvalues.
        traces: (B, 1) what each batch adds to the trace.
        squared_norms: (B, S) the squared norm without each batch, by probe.
        examples: (B,) how many each batch holds.
    """

    largest: np.ndarray
    smallest: np.ndarray
    traces: np.ndarray
    squared_norms: np.ndarray
    examples: np.ndarray

    @property
    def trace(self) -> float:
        return float(sampling_error(self.traces, self.examples)[0])

    @property
    def squared_norm(self) -> float:
        return float(jackknife(self.squared_norms, self.examples))


def sampled(lin: Curvature, matrix: str, s: Spectrum, seed: int) -> SamplingErrors:
    """The errors of the spectrum of "H", "G" or "R": NaN where there is a single batch."""
    if lin.num_batches < 2:
        unknown, nothing = np.full(len(s.largest.values), np.nan), np.full((1, 1), np.nan)
        return SamplingErrors(unknown, unknown, nothing, nothing, np.array([lin.num_examples]))
    vectors = np.concatenate([s.largest.vectors, s.smallest.vectors], axis=1)
    largest, smallest = np.split(lin.batch_forms(vectors, matrix).stderr, 2)
    traced = lin.batch_forms(signs(np.random.default_rng(seed), lin.size, SIGNS), matrix)
    means = traced.shares.mean(axis=1, keepdims=True)
    norms = s.density.without_batches(np.square)
    return SamplingErrors(largest, smallest, means, norms, traced.examples)


def resampled(share: Share, sampling: Mapping[str, SamplingErrors], trace: float) -> Share:
    """R's share of H, whose trace is given, with its errors: delta method and jackknife."""
    R, H = sampling["R"], sampling["H"]
    probes = min(R.squared_norms.shape[1], H.squared_norms.shape[1])
    with np.errstate(all="ignore"):
        moved = sampling_error(R.traces - share.trace.value * H.traces, H.examples)[0] / abs(trace)
        ratios = R.squared_norms[:, :probes] / H.squared_norms[:, :probes]
    return Share(
        share.name,
        replace(share.trace, sampling=float(moved)),
        replace(share.squared_norm, sampling=float(jackknife(ratios, H.examples))),
    )
