"""Sampling errors are the same however many vectors are multiplied at once."""

import numpy as np
import tensorflow as tf

import hvp
from hvp.comparison import sampling_errors


def test_vectors_a_few_at_once_have_the_same_errors(monkeypatch):
    rng = np.random.default_rng(0)
    lin = hvp.linearize_function(
        lambda z, batch: tf.reduce_sum(z**2),
        rng.normal(size=(3, 4)),
        (rng.normal(size=(20, 3)),),
        outputs=lambda w, batch: tf.tanh(batch[0] @ w),
        reduction="sum",
        batch_size=5,
    )

    def errors():
        return hvp.compare(lin, 3, matrices="H", results="ends").whole.sampling["H"]

    found = errors()
    monkeypatch.setattr(sampling_errors, "MAX_BLOCK_BYTES", 2 * lin.size * lin.dtype.itemsize)
    again = errors()
    assert found.largest.shape == again.largest.shape == (3,)
    for name in ("largest", "smallest", "traces", "examples"):
        assert np.allclose(getattr(found, name), getattr(again, name), rtol=1e-10, atol=1e-14)
