"""Write comparisons as files: JSON, page, figures, vectors to start from; several: an overview.

Tracks as JSON and figures.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hvp.comparison.results import Comparison
from hvp.comparison.track_results import Track
from hvp.report import (
    html_page,
    json_document,
    matplotlib_figure,
    overview_page,
    start_file,
    track_document,
    track_figure,
)

SUFFIXES = ("json", "html", "png", "svg", "npz")
TRACK_SUFFIXES = ("json", "png", "svg")
OVERVIEW = "compare.html"


def save(comparison: Comparison, directory: Path) -> tuple[Path, ...]:
    """Write ``compare.json``, ``.html``, ``.png``, ``.svg`` and ``.npz`` and return their paths.

    All are first written under temporary names, then renamed, so that no reader sees a half
    of one and a failure leaves the old files as they were.
    """
    targets = _targets(directory)
    with _drafts(targets) as drafts:
        _write(comparison, drafts)
    return targets


def save_several(
    comparisons: Mapping[str, Comparison], directory: Path, *, missing: Sequence[str] = ()
) -> tuple[Path, ...]:
    """Write each comparison to the directory of its name, and ``compare.html``, their overview.

    None of the files appears before all are made. A single comparison needs no overview. `missing`
    names the models that were not compared.
    """
    targets = [path for name in comparisons for path in _targets(directory / name)]
    if len(comparisons) > 1:
        targets.append(directory / OVERVIEW)
    with _drafts(targets) as drafts:
        remaining = iter(drafts)
        for comparison in comparisons.values():
            own = [next(remaining) for _ in SUFFIXES]
            _write(comparison, own, num_models=len(comparisons))
        for draft in remaining:
            overview_page.save_page(comparisons, draft, missing=missing)
    return tuple(targets)


def save_track(track: Track, directory: Path) -> tuple[Path, ...]:
    """Write ``track.json``, ``.png`` and ``.svg`` and return their paths, as `save` does."""
    targets = tuple(directory / f"track.{suffix}" for suffix in TRACK_SUFFIXES)
    with _drafts(targets) as drafts:
        _write_json(track_document.track_as_dict(track), drafts[0])
        track_figure.save_figure(track, *drafts[1:])
    return targets


def _targets(directory: Path) -> tuple[Path, ...]:
    return tuple(directory / f"compare.{suffix}" for suffix in SUFFIXES)


@contextlib.contextmanager
def _drafts(targets: Sequence[Path]) -> Iterator[list[Path]]:
    """Temporary names beside the targets, which get their names where the block succeeds."""
    drafts = [target.with_suffix(f".{os.getpid()}{target.suffix}") for target in targets]
    for target in targets:
        target.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield drafts
        for draft, target in zip(drafts, targets, strict=True):
            draft.replace(target)
    finally:
        for draft in drafts:
            draft.unlink(missing_ok=True)


def _write(comparison: Comparison, paths: Sequence[Path], *, num_models: int = 1) -> None:
    _write_json(json_document.comparison_as_dict(comparison), paths[0])
    html_page.save_page(comparison, paths[1], num_models=num_models)
    matplotlib_figure.save_comparison(comparison, *paths[2:4])
    start_file.save(comparison, paths[4])


def _write_json(document: Mapping[str, Any], path: Path) -> None:
    text = json.dumps(document, indent=1, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8")
