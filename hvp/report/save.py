"""Write a comparison as files: JSON, HTML page, PNG and SVG."""

from __future__ import annotations

import json
import os
from pathlib import Path

from hvp.comparison.results import Comparison
from hvp.report import html_page, json_document, matplotlib_figure

SUFFIXES = ("json", "html", "png", "svg")


def save(comparison: Comparison, directory: Path) -> tuple[Path, ...]:
    """Write ``compare.json``, ``.html``, ``.png`` and ``.svg`` and return their paths.

    All four are first written under temporary names, then renamed, so that no reader sees a half
    of one and a failure leaves the old files as they were.
    """
    directory.mkdir(parents=True, exist_ok=True)
    targets = tuple(directory / f"compare.{suffix}" for suffix in SUFFIXES)
    drafts = [target.with_suffix(f".{os.getpid()}{target.suffix}") for target in targets]
    try:
        document = json_document.comparison_as_dict(comparison)
        text = json.dumps(document, indent=1, allow_nan=False)
        drafts[0].write_text(text + "\n", encoding="utf-8")
        html_page.save_page(comparison, drafts[1])
        matplotlib_figure.save_comparison(comparison, *drafts[2:])
        for draft, target in zip(drafts, targets, strict=True):
            draft.replace(target)
    finally:
        for draft in drafts:
            draft.unlink(missing_ok=True)
    return targets
