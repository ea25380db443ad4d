"""Jobs of the command line: the names of results, and what is computed by default."""

import inspect
from pathlib import Path

import pytest

from hvp import InputError
from hvp.cli import commands, loading
from hvp.comparison.plan import Effort


@pytest.mark.parametrize("name", ["..keras", "...keras"])
def test_results_never_go_above_their_directory(name):
    with pytest.raises(InputError, match="expected a model with a name"):
        loading.models_by_name([Path("a.keras"), Path("models", name)])


def test_the_command_line_computes_by_default_what_the_function_does():
    given = inspect.signature(commands.compare.compare).parameters
    effort = Effort()
    assert given["probes"].default == effort.num_probes
    assert given["steps"].default == effort.num_steps
    assert given["k"].default == effort.k
