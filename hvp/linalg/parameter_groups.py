"""Groups of parameters whose own blocks are looked at: layers, tensors or output channels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from hvp.errors import InputError, shown
from hvp.operators import Curvature, Layout

GROUPS = ("layers", "tensors", "channels")


@dataclass(frozen=True, eq=False)
class Group:
    """Some of the P parameters.

    Attributes:
        name: of the group.
        layer: its layer.
        tensor: its tensor; empty for a whole layer.
        channel: the number of its output channel; -1 for all.
        rows: the entries in a vector (P,), part after part.
    """

    name: str
    layer: str
    tensor: str
    channel: int
    rows: tuple[slice | np.ndarray, ...]

    @property
    def size(self) -> int:
        """The number of parameters."""
        return sum(
            part.stop - part.start if isinstance(part, slice) else len(part) for part in self.rows
        )


def parameter_groups(lin: Curvature, kind: str, size: int) -> Iterator[Group]:
    """The layers, tensors or channels of `size` parameters, in order.

    Raises InputError for another kind, a layout of another size, or one that lacks what is needed.
    """
    if not hasattr(lin, "layout"):
        raise InputError("a Linearization", type(lin).__name__, "call hvp.linearize first")
    if kind not in GROUPS:
        raise InputError(f"groups among {', '.join(GROUPS)}", shown(kind), "choose one of these")
    layout = lin.layout
    needed = {"layers": (), "tensors": ("names",), "channels": ("names", "shapes", "channel_axes")}
    for name in needed[kind]:
        if not hasattr(layout, name):
            raise InputError(f"a layout with {name}", type(layout).__name__, "add it")
    parts = (layout.slices[i] for positions in layout.layers.values() for i in positions)
    covered = sum(part.stop - part.start for part in parts)
    if covered != size:
        raise InputError(
            f"layers of {size} parameters together, as the operator has",
            covered,
            "pass its own lin",
        )
    return _groups(layout, kind)


def _groups(layout: Layout, kind: str) -> Iterator[Group]:
    for layer, positions in layout.layers.items():
        if kind == "layers":
            yield Group(layer, layer, "", -1, tuple(layout.slices[i] for i in positions))
            continue
        for i in positions:
            tensor = layout.names[i]
            if kind == "tensors":
                yield Group(tensor, layer, tensor, -1, (layout.slices[i],))
                continue
            for channel, rows in enumerate(_channels(layout, i)):
                yield Group(f"{tensor}[{channel}]", layer, tensor, channel, (rows,))


def _channels(layout: Layout, i: int) -> np.ndarray:
    """(C, n) the entries of each channel of a tensor in a vector (P,)."""
    shape, axes = layout.shapes[i], layout.channel_axes[i]
    entries = np.arange(layout.slices[i].start, layout.slices[i].stop).reshape(shape)
    first = np.moveaxis(entries, axes, range(len(axes)))
    return first.reshape(int(np.prod([shape[axis] for axis in axes])), -1)
