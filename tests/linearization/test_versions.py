"""The warning about versions that were not tested."""

import warnings

import keras
import pytest

from hvp.linearization import versions


@pytest.mark.parametrize("found", ["3.4.1", "3.16.0", "4.0.0rc1"])
def test_a_version_that_was_not_tested_is_named(monkeypatch, found):
    monkeypatch.setattr(keras, "__version__", found)
    with pytest.warns(UserWarning, match=rf"keras >=3\.\d+,<3\.16, got {found}"):
        versions.warn_if_untested.__wrapped__()


def test_the_versions_installed_give_no_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        versions.warn_if_untested.__wrapped__()
