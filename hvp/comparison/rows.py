"""A comparison as rows of numbers, one for each part and matrix, as pandas takes them."""

from __future__ import annotations

from collections.abc import Mapping

from hvp.comparison.part import Part
from hvp.linalg.eigenpairs import Eigenpairs
from hvp.linalg.layer_traces import BlockTraces, LayerTraces

Row = dict[str, float | str]


def rows(parts: Mapping[str, Part], traces: Mapping[str, LayerTraces]) -> list[Row]:
    """See `Comparison.rows`: `parts` with the whole first, `traces` by "H", "G" and "R"."""
    return [
        {
            "part": part.name,
            "matrix": letter,
            "size": int(part.size),
            **_end("largest", found.largest, -1),
            **_end("smallest", found.smallest, 0),
            **(_traces(_block(traces[letter], part, is_whole=i == 0)) if letter in traces else {}),
        }
        for i, part in enumerate(parts.values())
        for letter, found in part.spectra.items()
    ]


def _end(name: str, pairs: Eigenpairs, i: int) -> Row:
    return {
        name: float(pairs.values[i]),
        f"{name}_error": float(pairs.errors[i]),
        f"{name}_kind": "separate" if pairs.separate[i] else "bound",
    }


def _block(traces: LayerTraces, part: Part, *, is_whole: bool) -> BlockTraces:
    return traces.whole if is_whole else traces.layers[part.name]


def _traces(block: BlockTraces) -> Row:
    return {
        "trace": float(block.trace.value),
        "trace_stderr": float(block.trace.stderr),
        "squared_norm": float(block.squared_norm.value),
        "squared_norm_stderr": float(block.squared_norm.stderr),
    }
