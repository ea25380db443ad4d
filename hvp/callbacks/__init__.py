"""Curvature while Keras trains: a callback for ``model.fit``, and the optimisers' stability edges.

- `Curvature` measures sharpness, traces and more on data of your choice, and writes them to `logs`;
- `stability_edge` is the curvature up to which an optimiser is stable.
"""

from hvp.callbacks.curvature import Curvature
from hvp.callbacks.stability_edge import StabilityEdge, stability_edge

__all__ = ["Curvature", "StabilityEdge", "stability_edge"]
