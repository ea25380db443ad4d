"""Curvature of a Keras model on the workers of a Ray cluster: `hvp.cluster.linearize`.

Each worker holds a share of the batches, what is traced for it and the saved tensors. One process
runs SciPy and adds what the workers answer. Ray is needed: ``pip install 'hvp[ray]'``.
"""

from hvp.cluster.linearization import ClusterLinearization
from hvp.cluster.linearize import linearize
from hvp.cluster.state import WorkerState

__all__ = ["ClusterLinearization", "WorkerState", "linearize"]
