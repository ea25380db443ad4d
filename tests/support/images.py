"""Images, and the values of their transforms in TensorFlow."""

import numpy as np
import tensorflow as tf

from hvp.autodiff.tracing import trace

COLOURS = np.random.default_rng(4).uniform(size=(2, 5, 6, 3)).astype(np.float32)
GREY = np.concatenate([np.full((2, 5, 3, 3), 0.4), np.zeros((2, 5, 3, 3))], 2).astype(np.float32)


def assert_same_values(function, images, given):
    """Require a replay to have the values of a function of images and parameters."""
    specs = [tf.TensorSpec(t.shape, tf.float32) for t in (images, given)]
    program = trace(function, *specs)
    found = program.replay(tf.constant(images), tf.constant(given))
    assert np.allclose(found, function(images, given), atol=2e-5)
