"""Output channels of the weights of Keras layers: those whose outputs they change."""

import keras
import numpy as np
import pytest

import hvp
from hvp.objective.output_channels import channel_axes

L = keras.layers
IMAGES, LINES = (6, 6, 2), (6, 2)
# A layer, its input, its weight, and the axes that number the channels. The first axes are found
# by experiment: a change of one channel of the weight changes one feature of the outputs.
CASES = {
    "Dense": (lambda: L.Dense(3), (4,), "kernel", (1,)),
    "Conv1D": (lambda: L.Conv1D(3, 2), LINES, "kernel", (2,)),
    "Conv2D": (lambda: L.Conv2D(3, 2), IMAGES, "kernel", (3,)),
    "Conv2D, grouped": (lambda: L.Conv2D(4, 2, groups=2), IMAGES, "kernel", (3,)),
    "Conv1DTranspose": (lambda: L.Conv1DTranspose(3, 2), LINES, "kernel", (1,)),
    "Conv2DTranspose": (lambda: L.Conv2DTranspose(3, 2), IMAGES, "kernel", (2,)),
    "DepthwiseConv1D": (lambda: L.DepthwiseConv1D(2, depth_multiplier=3), LINES, "kernel", (1, 2)),
    "DepthwiseConv2D": (lambda: L.DepthwiseConv2D(2, depth_multiplier=3), IMAGES, "kernel", (2, 3)),
    "SeparableConv2D": (lambda: L.SeparableConv2D(3, 2), IMAGES, "pointwise_kernel", (3,)),
    "EinsumDense": (
        lambda: L.EinsumDense("abc,cde->abde", (None, 2, 3)), LINES, "kernel", (1, 2),
    ),
    "EinsumDense, last": (lambda: L.EinsumDense("abc,bcd->ad", 3), LINES, "kernel", (2,)),
    "EinsumDense, bias": (
        lambda: L.EinsumDense("abc,cde->abde", (None, 2, 3), bias_axes="de"), LINES, "bias", (0, 1),
    ),
    "BatchNormalization": (lambda: L.BatchNormalization(), IMAGES, "gamma", (0,)),
}  # fmt: skip


@pytest.mark.parametrize(("make", "shape", "weight", "axes"), CASES.values(), ids=CASES)
def test_a_channel_of_a_weight_changes_one_feature_of_the_outputs(make, shape, weight, axes):
    layer = make()
    model = keras.Sequential([keras.Input(shape), layer])
    x = np.random.default_rng(0).standard_normal((2, *shape)).astype("float32")
    variable = next(v for v in layer.weights if v.name == weight)
    (found,) = channel_axes(list(model.layers), [variable])
    assert found == axes
    value = np.array(keras.ops.convert_to_numpy(variable))
    channels = np.moveaxis(np.arange(value.size).reshape(value.shape), axes, range(len(axes)))
    channels = channels.reshape(int(np.prod([value.shape[axis] for axis in axes])), -1)
    before = np.array(model(x))
    num_features = 2 if weight == "bias" or "de" in getattr(layer, "equation", "") else 1
    features = np.prod(before.shape[-num_features:])
    assert len(channels) == features
    seen = []
    for rows in channels:
        changed = value.copy()
        changed.ravel()[rows] += 1.0
        variable.assign(changed)
        different = (np.array(model(x)) != before).reshape(-1, features).any(axis=0)
        seen.append(np.flatnonzero(different).tolist())
    assert seen == [[i] for i in range(features)]


def test_words_are_the_channels_of_an_embedding():
    layer = L.Embedding(5, 3)
    layer.build()
    assert channel_axes([layer], layer.weights) == [(0,)]


def test_each_input_channel_has_its_own_depthwise_channels():
    layer = L.SeparableConv1D(3, 2, depth_multiplier=4)
    layer.build((None, *LINES))
    depthwise = next(v for v in layer.weights if v.name == "depthwise_kernel")
    assert channel_axes([layer], [depthwise]) == [(1, 2)]


def network():
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((4, 4, 1)),
            L.Conv2D(3, 2, activation="tanh", name="conv"),
            L.DepthwiseConv2D(2, activation="tanh", name="depthwise"),
            L.Flatten(),
            L.Dense(2, name="last"),
        ]
    )


def test_channels_of_a_network_are_the_blocks_of_its_dense_hessian():
    model, rng = network(), np.random.default_rng(0)
    x, y = rng.standard_normal((5, 4, 4, 1)), rng.standard_normal((5, 2))
    lin = hvp.linearize(model, (x, y), "mse", dtype="float64", jit=False)
    H = lin.hvp(np.eye(lin.size))
    found = hvp.layer_traces(hvp.Hessian(lin), lin, groups="channels", num_products=lin.size)
    start = 0
    for variable, name in zip(model.trainable_variables, lin.names, strict=True):
        shape = tuple(variable.shape)
        entries = start + np.arange(np.prod(shape)).reshape(shape)
        start += entries.size
        channels = (
            entries.reshape(-1, 3).T if "depthwise" in name else entries.reshape(-1, shape[-1]).T
        )
        for channel, own in enumerate(channels):
            block = found.layers[f"{name}[{channel}]"]
            assert block.layer == name.split("/")[0]
            expected = np.trace(H[np.ix_(own, own)]), np.sum(H[np.ix_(own, own)] ** 2)
            assert (block.trace.value, block.squared_norm.value) == pytest.approx(expected)
    assert sum(block.size for block in found.layers.values()) == lin.size
    conv = hvp.layer_traces(hvp.Hessian(lin.block("conv")), lin.block("conv"), groups="channels")
    assert list(conv.layers) == [f"conv/{w}[{i}]" for w in ("kernel", "bias") for i in range(3)]
    assert lin.in_float64().layout.channel_axes == lin.layout.channel_axes
