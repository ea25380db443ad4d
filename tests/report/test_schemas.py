"""The published schemas: they fit the documents, and notice what has changed in one."""

import copy
import json

import jsonschema
import numpy as np
import pytest
from support.documents import validator
from support.matrices import network

import hvp
from hvp.report import json_document, track_document


@pytest.fixture(scope="module")
def documents():
    lin = hvp.linearize_function(lambda w: w[0] ** 3, np.array([1.0]))
    found = {
        "compare": hvp.compare(network(), 2).to_json(),
        "track": hvp.track(lin, [np.array([2.0])]).to_json(),
    }
    return {name: json.loads(json.dumps(document)) for name, document in found.items()}


@pytest.mark.parametrize(
    ("name", "module"), [("compare", json_document), ("track", track_document)]
)
def test_the_schema_is_that_of_this_version(documents, name, module):
    schema = validator(name).schema
    assert schema["properties"]["schema"] == {"const": module.SCHEMA}
    assert set(schema["required"]) == set(schema["properties"]) == set(documents[name])


def places(document, path=()):
    """Where the members of the objects in a document are, with one item of each list."""
    if isinstance(document, dict):
        for key, value in document.items():
            yield (*path, key)
            yield from places(value, (*path, key))
    elif isinstance(document, list) and document:
        yield from places(document[0], (*path, 0))


def without(document, path):
    changed = copy.deepcopy(document)
    *above, last = path
    inner = changed
    for key in above:
        inner = inner[key]
    del inner[last]
    return changed


# The members of these are names that a user chose, or letters that were left out.
BY_NAME = {"about", "versions", "parts", "shapes", "layers", "traces", "noise", "counts",
           "stable_rank", "condition"}  # fmt: skip
LETTERS = {"H", "G", "R", "share of R"}


@pytest.mark.parametrize("name", ["compare", "track"])
def test_what_is_left_out_is_noticed(documents, name):
    document, found = documents[name], 0
    for path in places(document):
        if len(path) > 1 and (path[-2] in BY_NAME or path[-1] in LETTERS):
            continue
        found += 1
        assert not validator(name).is_valid(without(document, path)), path
    assert found > 20


@pytest.mark.parametrize(
    "change",
    [
        {"schema": 1},
        {"loss": "0.5"},
        {"size": 0},
        {"dtype": "float16"},
        {"matrices": ["H", "F"]},
        {"seconds": None},
        {"new": 1},
    ],
    ids=str,
)
def test_a_wrong_member_is_noticed(documents, change):
    with pytest.raises(jsonschema.ValidationError):
        validator("compare").validate({**documents["compare"], **change})


def test_numbers_that_are_not_known_are_null():
    lin = hvp.linearize_function(lambda w: w[0] ** 2, np.array([1.0]))
    document = hvp.compare(lin, 1, results="ends", matrices="H").to_json()
    assert document["rank"] is None
    assert document["parts"]["whole network"]["H"]["density"] is None
