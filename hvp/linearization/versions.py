"""The versions of TensorFlow and Keras that the tests were run with; a warning about others."""

from __future__ import annotations

import functools
import warnings

import keras
import tensorflow as tf

# The first version tested, and the first one beyond those tested.
TESTED = {"tensorflow": ((2, 20), (2, 22)), "keras": ((3, 10), (3, 16))}


@functools.cache
def warn_if_untested() -> None:
    """Warn, once in a process, about a version of TensorFlow or Keras that was not tested."""
    for name, found in (("tensorflow", tf.__version__), ("keras", keras.__version__)):
        first, end = TESTED[name]
        if not first <= tuple(map(int, found.split(".")[:2])) < end:
            expected = f">={'.'.join(map(str, first))},<{'.'.join(map(str, end))}"
            warnings.warn(
                f"hvp was tested with {name} {expected}, got {found}; compare your model with "
                "central differences: hvp.testing.check(lin)",
                stacklevel=3,
            )
