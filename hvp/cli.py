"""The entry point of the command ``hvp``, which imports without the packages of its extra."""

from __future__ import annotations

import sys
import warnings

# The extra "report" of pyproject.toml.
REPORT_PACKAGES = ("jinja2", "markupsafe", "matplotlib", "plotly", "rich", "typer")


def main() -> None:
    """Run the command line; a missing package is one line on standard error and exit code 2."""
    warnings.filterwarnings("ignore", module="keras")
    sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]
    try:
        from hvp.commands import app

        app()
    except ModuleNotFoundError as error:
        if str(error.name).split(".")[0] not in REPORT_PACKAGES:
            raise
        from hvp.comparison.results import missing_report_package

        print(f"hvp: {missing_report_package(error)}", file=sys.stderr)
        raise SystemExit(2) from None
