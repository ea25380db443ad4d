"""Hue, saturation and contrast of images: values of TensorFlow."""

import numpy as np
import pytest
import tensorflow as tf
from support.images import COLOURS, GREY, assert_same_values

KERNELS = {
    **{f"hue {d}": (tf.image.adjust_hue, np.float32(d)) for d in (-0.7, 0.1, 0.9)},
    **{f"saturation {d}": (tf.image.adjust_saturation, np.float32(d)) for d in (0.0, 0.5, 3.0)},
    "contrast": (tf.image.adjust_contrast, np.float32(1.7)),
    "hue to colours": (lambda x, _: tf.image.hsv_to_rgb(x), np.float32(0)),
}


@pytest.mark.parametrize("images", [COLOURS, GREY], ids=["colours", "grey"])
@pytest.mark.parametrize(("function", "given"), KERNELS.values(), ids=KERNELS)
def test_transforms_of_colours_are_what_tensorflow_computes(function, given, images):
    assert_same_values(function, images, given)
