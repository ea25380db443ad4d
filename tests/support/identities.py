"""Programs after the identities, and Hessians of losses that need them."""

import numpy as np
import tensorflow as tf

import hvp
from hvp.autodiff import identities, tracing


def hessian(loss, w, **options):
    return hvp.linearize_function(loss, w, **options).hvp(np.eye(np.size(w)))


def kinds(function, *shape):
    """The types of operations of a function with the identities, and the places rewritten."""
    program = tracing.trace(function, tf.TensorSpec(shape, tf.float64))
    program, places = identities.apply_identities(program)
    return [node.op.type for node in program.nodes], places
