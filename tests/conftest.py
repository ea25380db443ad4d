"""Quiet TensorFlow before anything imports it, and mark the tests of every layer."""

import os

import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

ZOO = ("test_layers.py", "test_whole_models.py")


def pytest_collection_modifyitems(items):
    for item in items:
        if item.path.name in ZOO:
            item.add_marker(pytest.mark.zoo)
