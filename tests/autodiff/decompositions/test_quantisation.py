"""Steps are taken for the identity, as TensorFlow's gradient does."""

import numpy as np
import pytest
import tensorflow as tf

import hvp

RANGE = {"input_min": np.float64(-1), "input_max": np.float64(1)}

CHANNELS = (np.float32([-1, -0.5, -0.2]), np.float32([1, 0.5, 0.2]))

STRAIGHT_THROUGH = {
    "FakeQuantWithMinMaxArgs": lambda x: tf.quantization.fake_quant_with_min_max_args(
        tf.cast(x, tf.float32), -1, 1
    ),
    "FakeQuantWithMinMaxVars": lambda x: tf.quantization.fake_quant_with_min_max_vars(
        tf.cast(x, tf.float32), -1.0, 1.0
    ),
    "FakeQuantWithMinMaxVarsPerChannel": lambda x: (
        tf.quantization.fake_quant_with_min_max_vars_per_channel(tf.cast(x, tf.float32), *CHANNELS)
    ),
    "QuantizeAndDequantizeV4": lambda x: tf.raw_ops.QuantizeAndDequantizeV4(
        input=x, range_given=True, **RANGE
    ),
}

KEPT = {
    "QuantizeAndDequantizeV2": lambda x: tf.quantization.quantize_and_dequantize(x, -1, 1),
    "QuantizeAndDequantizeV3": lambda x: tf.raw_ops.QuantizeAndDequantizeV3(
        input=x, num_bits=8, **RANGE
    ),
}

STEPPED = np.array([[-1.7, -0.4, 0.1], [0.6, 0.35, 1.3]])


@pytest.mark.parametrize("name", [*STRAIGHT_THROUGH, *KEPT])
def test_steps_are_passed_straight_through_and_found(name):
    """For a loss f of the steps q(x), H is f″(q) where q has a slope in TensorFlow."""
    quantise = (STRAIGHT_THROUGH | KEPT)[name]

    def loss(x):
        return tf.reduce_sum(tf.sin(tf.cast(quantise(x), tf.float64)))

    variable = tf.Variable(STEPPED)
    with tf.GradientTape(persistent=True) as tape:
        q = tf.cast(quantise(variable), tf.float64)
        value, total = tf.reduce_sum(tf.sin(q)), tf.reduce_sum(q)
    slopes = tape.gradient(total, variable).numpy().ravel()
    lin = hvp.linearize_function(loss, STEPPED)
    assert lin.loss() == pytest.approx(float(value), rel=1e-6)
    assert np.allclose(lin.gradient(), tape.gradient(value, variable).numpy().ravel(), atol=1e-6)
    assert np.allclose(lin.hvp(np.eye(6)), np.diag(-np.sin(np.ravel(q)) * slopes), atol=1e-6)
    assert name in [f.op for f in lin.findings if f.severity == "different"]


@pytest.mark.parametrize("channels", [True, False])
def test_the_ends_of_a_range_are_differentiated_as_tensorflow_does(channels):
    def quantise(x, low, high):
        if not channels:
            low, high = low[0], high[0]
        function = "fake_quant_with_min_max_vars" + "_per_channel" * channels
        return getattr(tf.quantization, function)(x, low, high)

    def loss(params):
        return tf.reduce_sum(tf.sin(quantise(*params)))

    point = [STEPPED.astype(np.float32), *CHANNELS]
    variables = [tf.Variable(p) for p in point]
    with tf.GradientTape() as tape:
        value = loss(variables)
    expected = np.concatenate([np.ravel(g) for g in tape.gradient(value, variables)])
    lin = hvp.linearize_function(loss, point)
    assert np.allclose(lin.gradient(), expected, atol=1e-6)
    outside = np.abs(lin.hvp(np.eye(12, dtype=np.float32))[6:, 6:]).sum()
    assert outside > 0.1
