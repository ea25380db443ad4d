"""Quiet TensorFlow before anything imports it, mark tests, validate documents."""

import os

import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

ZOO = ("test_layers.py", "test_whole_models.py")


def pytest_collection_modifyitems(items):
    for item in items:
        if item.path.name in ZOO:
            item.add_marker(pytest.mark.zoo)


@pytest.fixture(autouse=True, scope="session")
def _documents_follow_their_schemas():
    """Every compare.json and track.json that a test makes in this process fits its schema."""
    from support.documents import validated

    from hvp.report import json_document, track_document

    with pytest.MonkeyPatch.context() as patch:
        for module, name in ((json_document, "compare"), (track_document, "track")):
            function = "comparison_as_dict" if name == "compare" else "track_as_dict"
            patch.setattr(module, function, validated(getattr(module, function), name))
        yield
