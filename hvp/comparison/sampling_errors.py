"""Sampling errors of a spectrum: of its extreme eigenvalues, its trace and its norm."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from hvp.comparison.spectrum import Spectrum
from hvp.linalg.blocks import chunks, columns_within, signs
from hvp.linalg.density import Density
from hvp.linalg.layer_shares import Share
from hvp.operators import Curvature
from hvp.sampling_error import BatchForms, jackknife, sampling_error

# Random sign vectors for the sampling error of the trace.
NUM_SIGN_VECTORS = 10
# Vectors that are multiplied at once take at most this.
MAX_BLOCK_BYTES = 512 << 20


@dataclass(frozen=True, eq=False)
class SamplingErrors:
    """Standard errors over the choice of examples: see `hvp.sampling_error`.

    The one of the trace is estimated with random sign vectors, the one of the squared Frobenius
    norm with the first probes of the density. Both include some of the error of these probes.

    Attributes:
        largest, smallest: (k,) the sampling errors of the eigenvalues.
        traces: (B, 1) the part of each batch in the trace.
        squared_norms: (B, S) the squared norm with one batch left out, for each of S probes; a
            column of NaN without a density.
        examples: (B,) the number of examples in each batch.
        group_examples: the number of examples in each group of batches that is left out for
            `squared_norms`: many batches are left out in fewer groups.
    """

    largest: np.ndarray
    smallest: np.ndarray
    traces: np.ndarray
    squared_norms: np.ndarray
    examples: np.ndarray
    group_examples: np.ndarray

    @property
    def trace(self) -> float:
        return float(sampling_error(self.traces, self.examples)[0])

    @property
    def squared_norm(self) -> float:
        return float(jackknife(self.squared_norms, self.group_examples))


def sampling_errors(lin: Curvature, matrix: str, s: Spectrum, seed: int) -> SamplingErrors:
    """The sampling errors of the ends of "H", "G" or "R" and of its trace: see `with_norms`.

    They are NaN with a single batch.
    """
    if lin.num_batches < 2:
        unknown, nothing = np.full(len(s.largest.values), np.nan), np.full((1, 1), np.nan)
        one = np.array([lin.num_examples])
        return SamplingErrors(unknown, unknown, nothing, nothing, one, one)
    largest, smallest = (_forms(lin, end.vectors, matrix).stderr for end in (s.largest, s.smallest))
    probes = signs(np.random.default_rng(seed), lin.size, NUM_SIGN_VECTORS)
    sign_forms = _forms(lin, probes, matrix)
    means = sign_forms.shares.mean(axis=1, keepdims=True)
    unknown = np.full_like(means, np.nan)
    examples = sign_forms.examples
    return SamplingErrors(largest, smallest, means, unknown, examples, examples)


def _forms(lin: Curvature, V: np.ndarray, matrix: str) -> BatchForms:
    """vᵀAv of each batch for the columns of V (P, K), a few at once."""
    columns = columns_within(MAX_BLOCK_BYTES, lin.size, lin.dtype.itemsize)
    found = [lin.batch_forms(V[:, some], matrix) for some in chunks(V.shape[1], columns)]
    shares = np.concatenate([forms.shares for forms in found], axis=1)
    penalty = np.concatenate([forms.penalty for forms in found])
    return BatchForms(shares, penalty, found[0].examples)


def with_norms(found: SamplingErrors, density: Density) -> SamplingErrors:
    """The sampling errors with that of the squared norm, from the probes of the density."""
    if density.left_out is None:
        return found
    return replace(
        found,
        squared_norms=density.without_batches(np.square),
        group_examples=density.left_out.examples,
    )


def share_with_sampling_errors(
    share: Share, sampling: Mapping[str, SamplingErrors], trace: float
) -> Share:
    """R's share of H, whose trace is given, with sampling errors: delta method and jackknife."""
    R, H = sampling["R"], sampling["H"]
    probes = min(R.squared_norms.shape[1], H.squared_norms.shape[1])
    with np.errstate(all="ignore"):
        trace_error = sampling_error(R.traces - share.trace.value * H.traces, H.examples)[0] / abs(
            trace
        )
        ratios = R.squared_norms[:, :probes] / H.squared_norms[:, :probes]
    return Share(
        share.name,
        replace(share.trace, sampling=float(trace_error)),
        replace(share.squared_norm, sampling=float(jackknife(ratios, H.group_examples))),
    )
