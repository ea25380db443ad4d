"""That each operation with a substitute is tested, and those that are a line each."""

import numpy as np
import pytest
import tensorflow as tf
from support.derivatives import assert_penalty_on_gradient, derivatives_agree, program_of
from support.programs import drawn, types
from support.special_points import SPECIAL_POINTS

from hvp.autodiff.decompositions import SUBSTITUTES

CHOICES = {
    "entries": lambda x: x > 0,
    "rows": lambda x: x[:, 0] > 0,
}


@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize("name", CHOICES)
def test_a_choice_between_arrays(name, swapped):
    x, other = drawn(4, 3), drawn(4, 3, seed=1)
    condition = CHOICES[name](x)

    def function(x):
        a, b = (other, x) if swapped else (x, other)
        return tf.raw_ops.Select(condition=condition, x=a, y=b)

    def oracle(x):
        whole = condition.reshape(4, -1)
        return np.where(whole, other, x) if swapped else np.where(whole, x, other)

    program, folded = program_of(function, (4, 3))
    assert types(folded) == ["SelectV2" if name == "entries" else "Select"]
    for each in (program, folded):
        derivatives_agree(each, oracle, x)


def test_every_substitute_is_tested():
    here = {
        "AvgPool3D",
        "BatchMatMulV2",
        "BiasAdd",
        "BiasAddGrad",
        "Cholesky",
        "Conv2D",
        "Conv2DBackpropFilter",
        "Conv2DBackpropInput",
        "Conv3D",
        "Conv3DBackpropFilterV2",
        "Conv3DBackpropInputV2",
        "DenseBincount",
        "Einsum",
        "Elu",
        "LogMatrixDeterminant",
        "MatMul",
        "MaxPool",
        "MaxPool3D",
        "OneHot",
        "SparseAdd",
        "SparseSoftmax",
        "XlaDynamicUpdateSlice",
        "AvgPool3DGrad",
        "MaxPool3DGrad",
        "ResizeBicubic",
        "ResizeBilinear",
        "ResizeNearestNeighbor",
        "Select",
        "Softsign",
        "SoftsignGrad",
        "ResizeBicubicGrad",
        "ResizeBilinearGrad",
        "ResizeNearestNeighborGrad",
        "ScaleAndTranslateGrad",
        "AdjustHue",
        "AdjustSaturation",
        "ImageProjectiveTransformV2",
        "RFFT",
        "RFFT2D",
        "RFFT3D",
        "IRFFT",
        "IRFFT2D",
        "IRFFT3D",
        "FakeQuantWithMinMaxArgs",
        "FakeQuantWithMinMaxVars",
        "FakeQuantWithMinMaxVarsPerChannel",
        "QuantizeAndDequantizeV4",
    }
    assert set(SUBSTITUTES) == here | SPECIAL_POINTS


def test_a_penalty_on_the_gradient_of_softsign_has_second_derivatives():
    assert_penalty_on_gradient(tf.nn.softsign)
