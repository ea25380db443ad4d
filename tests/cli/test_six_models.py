"""Six models of different kinds, from files through both commands, as a user runs them."""

import json
import re

import pytest
from support import six_models
from support.command_line import run

NAMES = list(six_models.MODELS)
# The residual network takes too long on all its images here; `bench/README.md` has that run.
FEW_IMAGES = 12


@pytest.fixture(scope="module", params=NAMES)
def inputs(request, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "residual":
            few = lambda: six_models.residual(FEW_IMAGES)  # noqa: E731
            patch.setitem(six_models.MODELS, "residual", few)
        model, data = six_models.write(request.param, tmp_path_factory.mktemp("six"))
    return request.param, ("--model", str(model), "--data", str(data))


@pytest.mark.sweep
def test_a_model_from_files_is_compared_within_its_budget(inputs, tmp_path):
    name, files = inputs
    result = run("compare", *files, "-k", 2, "--budget", "90s", "--out", tmp_path)
    assert (result.exit_code, result.exception) == (0, None)
    assert re.search(rf"^{name}: [\d,]+ parameters, [\d,]+ examples", result.stdout, re.M)
    found = json.loads((tmp_path / "compare.json").read_text())
    assert found["certificate"]["passed"]
    assert not found["unfinished"]
    whole = found["parts"]["whole network"]
    assert whole["H"]["largest"]["values"][-1] > 0
    page = (tmp_path / "compare.html").read_text()
    assert "nan" not in re.sub(r"<script.*?</script>|<style.*?</style>", "", page, flags=re.S)
    assert len(page.encode()) <= 1_500_000


@pytest.mark.sweep
def test_the_products_of_a_model_from_files_pass_every_check(inputs):
    _, files = inputs
    result = run("check", *files)
    assert result.exit_code == 0, result.stdout
    assert "failed" not in result.stdout
