"""Images resized, projected and cropped: values of TensorFlow, derivatives by differences."""

import numpy as np
import pytest
import tensorflow as tf
from support.derivatives import (
    assert_penalty_on_gradient,
)
from support.images import COLOURS, GREY, assert_same_values

from hvp.autodiff.tracing import trace


@pytest.mark.parametrize("method", ["bilinear", "bicubic", "nearest"])
@pytest.mark.parametrize("size", [(3, 4), (7, 9), (5, 6)], ids=str)
def test_resizing_is_what_tensorflow_computes(method, size):
    images = np.random.default_rng(0).standard_normal((2, 5, 6, 3)).astype(np.float32)
    for function in (tf.image.resize, tf.compat.v1.image.resize):
        program = trace(
            lambda x, resize=function: resize(x, size, method), tf.TensorSpec(images.shape)
        )
        expected = function(images, size, method)
        assert np.allclose(program.replay(tf.constant(images)), expected, atol=1e-6)


def resized_for_penalty(method, antialias=False):
    """Resized in single precision, the only one that all kernels have."""

    def resized(x):
        image = tf.image.resize(tf.cast(x, tf.float32), [7, 4], method, antialias=antialias)
        return tf.cast(image, x.dtype)

    return resized


RESIZED = {
    **{method: resized_for_penalty(method) for method in ("bilinear", "bicubic", "nearest")},
    "antialiased": resized_for_penalty("bicubic", antialias=True),
}


@pytest.mark.parametrize("resized", RESIZED.values(), ids=RESIZED)
def test_a_penalty_on_a_gradient_of_resizing_has_second_derivatives(resized):
    assert_penalty_on_gradient(resized)


BOXES = np.array([[-0.1, 0.0, 0.7, 1.2], [0.9, 0.1, 0.2, 0.8], [0.0, 0.0, 1.0, 1.0]], np.float32)

TURNS = np.array(
    [[1.3, 0.4, -2.3, -0.5, 0.8, 3.1, 0.02, -0.1], [0.2, -1.7, 9.0, 2.2, 0.3, -7.0, -0.25, 0.0]],
    np.float32,
)


def projective(name, interpolation, fill_mode, count=2):
    fill = {"fill_value": 0.3} if name.endswith("V3") else {}
    return lambda x, turns: getattr(tf.raw_ops, name)(
        images=x,
        transforms=turns[:count],
        output_shape=[7, 8],
        interpolation=interpolation,
        fill_mode=fill_mode,
        **fill,
    )


def cropped(size, method):
    return lambda x, boxes: tf.image.crop_and_resize(x, boxes, [1, 0, 1], size, method, 0.7)


KERNELS = {
    **{
        f"{name}, {mode}, {how}, {count}": (projective(name, how, mode, count), TURNS)
        for name, count in (("ImageProjectiveTransformV2", 2), ("ImageProjectiveTransformV3", 1))
        for mode in ("CONSTANT", "NEAREST", "REFLECT", "WRAP")
        for how in ("BILINEAR", "NEAREST")
    },
    **{
        f"crops {size} {how}": (cropped(size, how), BOXES)
        for size in ((4, 3), (1, 1))
        for how in ("bilinear", "nearest")
    },
}


@pytest.mark.parametrize("images", [COLOURS, GREY], ids=["colours", "grey"])
@pytest.mark.parametrize(("function", "given"), KERNELS.values(), ids=KERNELS)
def test_projections_and_crops_are_what_tensorflow_computes(function, given, images):
    assert_same_values(function, images, given)
