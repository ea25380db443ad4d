"""A backend whose products are kept in a journal, as `hvp.operators` and `hvp.comparison` take."""

from __future__ import annotations

from typing import Any, cast

from hvp.operators import Curvature
from hvp.resuming.journal import Journal

# The methods that take long, and whose results their arguments determine.
KEPT = frozenset({
    "loss", "gradient", "loss_and_gradient", "outputs", "loss_gradients", "hvp", "gnvp",
    "residual_vp", "jvp", "vjp", "batch_forms", "batch_grams",
})  # fmt: skip


def kept(lin: Curvature, journal: Journal | None, name: str = "") -> Curvature:
    """The backend with its products in the journal, under a name; as it is without a journal."""
    return lin if journal is None else cast(Curvature, _Kept(lin, journal, name))


class _Kept:
    """A backend with the methods of `KEPT` in a journal, and all else as it is."""

    def __init__(self, lin: Curvature, journal: Journal, name: str):
        self._lin, self._journal, self._name = lin, journal, name

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._lin, name)
        if name not in KEPT:
            return found

        def method(*arguments: Any) -> Any:
            call = f"{self._name}: {name}"
            return self._journal.call(call, arguments, lambda: found(*arguments))

        return method
