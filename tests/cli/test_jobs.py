"""Jobs of the command line: the names that results get from the files of models."""

from pathlib import Path

import pytest

from hvp import InputError
from hvp.cli import jobs


@pytest.mark.parametrize("name", ["..keras", "...keras"])
def test_results_never_go_above_their_directory(name):
    with pytest.raises(InputError, match="expected a model with a name"):
        jobs.models_by_name([Path("a.keras"), Path("models", name)])
