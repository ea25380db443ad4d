"""The Gauss-Radau rule of a Lanczos recurrence: its Gauss rule with one more node, prescribed."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from hvp.linalg.blocks import few_threads
from hvp.linalg.measure import SpectralMeasure

TINY = float(np.finfo(np.float64).tiny)


def radau_rule(
    nodes: np.ndarray, weights: np.ndarray, errors: np.ndarray, end: float
) -> tuple[np.ndarray, np.ndarray]:
    """The m + 1 nodes and weights of the rule with a node at `end`, from the Gauss rule (m,).

    T (m, m) gets one more row, with β_m beside the diagonal and on it the ω that makes `end` an
    eigenvalue. In the basis of T's eigenvectors y this matrix has the nodes on the diagonal, and
    ± `errors`, β_m times the last entries of the y, in its last row. The first and the last entry
    of y have the same sign for the largest node and alternate from there.

    Args:
        nodes: ascending.
        weights: the squares of the first entries of the y.
        errors: |β_m y_m|.
        end: anywhere; the new node is the one closest to it.

    Source: Golub 1973, *Some modified matrix eigenvalue problems*, section 7.

    >>> radau_rule(np.array([1.0]), np.array([1.0]), np.array([1.0]), 0.0)
    (array([0., 2.]), array([0.5, 0.5]))
    """
    m = len(nodes)
    border = errors * (-1.0) ** np.arange(m)
    matrix = np.zeros((m + 1, m + 1))
    matrix[range(m), range(m)] = nodes
    matrix[m, :m] = matrix[:m, m] = border
    distances = nodes - end
    distances = np.where(np.abs(distances) < TINY, TINY, distances)
    matrix[m, m] = end + np.sum(border**2 / distances)
    values, vectors = np.linalg.eigh(matrix)
    return values, (np.sqrt(weights) @ vectors[:m]) ** 2


def radau_rules(measure: SpectralMeasure, end: float) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The rule of each probe with a node at `end`: nodes and weights (m + 1,)."""
    rows = zip(measure.nodes, measure.weights, measure.errors, measure.steps, strict=True)
    for nodes, weights, errors, n in rows:
        with few_threads(n):  # the matrices are small
            rule = radau_rule(nodes[:n], weights[:n], errors[:n], end)
        yield rule


def padded_radau_rules(measure: SpectralMeasure, end: float) -> tuple[np.ndarray, np.ndarray]:
    """The same as two arrays (S, m + 1): the last node is repeated, with weight zero."""
    rules = list(radau_rules(measure, end))
    length = max(len(nodes) for nodes, _ in rules)
    return (
        np.stack([np.pad(nodes, (0, length - len(nodes)), "edge") for nodes, _ in rules]),
        np.stack([np.pad(weights, (0, length - len(weights))) for _, weights in rules]),
    )
