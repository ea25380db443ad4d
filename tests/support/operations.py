"""Every linear operation of the table `op_types` and some others, run by TensorFlow itself."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import numpy as np
import tensorflow as tf
from support.programs import drawn

from hvp.autodiff import op_types

raw = tf.raw_ops

IMAGE, VOLUME, FILTERS = (1, 4, 4, 2), (1, 4, 4, 4, 1), (2, 2, 2, 3)
POOL = {"ksize": [1, 2, 2, 1], "strides": [1, 2, 2, 1], "padding": "VALID"}
POOL3D = {"ksize": [1, 2, 2, 2, 1], "strides": [1, 2, 2, 2, 1], "padding": "VALID"}
CONV = {"strides": [1, 1, 1, 1], "padding": "VALID"}
CONV3D = {"strides": [1, 1, 1, 1, 1], "padding": "VALID"}
CORNER = [[0, 0], [1, 1], [1, 1], [0, 0]]


def single(*shape, seed=0):
    """Numbers in single precision, the only one that pooling of volumes has."""
    return drawn(*shape, seed=seed).astype(np.float32)


def highest(image, axes):
    """The largest of each window of two along the axes."""
    for axis in axes:
        image = np.maximum(*(image.take(range(i, 4, 2), axis) for i in (0, 1)))
    return image


def integers(values):
    return np.array(values, np.int32)


def call(name, *names, **attributes):
    """The raw operation as a function of its inputs in order."""
    operation = getattr(raw, name)
    return lambda *inputs: operation(**dict(zip(names, inputs, strict=True)), **attributes)


def gradient_of(name, *names):
    return call(name, *names), [drawn(3), drawn(3, seed=1)]


# By operation: it as a function of its inputs, and inputs none of which is zero.
OPERATIONS = {
    "AddN": (lambda *xs: raw.AddN(inputs=xs), [drawn(3), drawn(3, seed=1), drawn(3, seed=2)]),
    "AvgPool": (call("AvgPool", "value", **POOL), [drawn(*IMAGE)]),
    "AvgPool3D": (call("AvgPool3D", "input", **POOL3D), [single(*VOLUME)]),
    "AvgPool3DGrad": (
        call("AvgPool3DGrad", "orig_input_shape", "grad", **POOL3D),
        [integers(VOLUME), single(1, 2, 2, 2, 1)],
    ),
    "AvgPoolGrad": (
        call("AvgPoolGrad", "orig_input_shape", "grad", **POOL),
        [integers(IMAGE), drawn(1, 2, 2, 2)],
    ),
    "BatchMatMulV2": (call("BatchMatMulV2", "x", "y"), [drawn(2, 3, 4), drawn(2, 4, 5)]),
    "BatchToSpaceND": (
        call("BatchToSpaceND", "input", "block_shape", "crops"),
        [drawn(4, 2, 2, 1), integers([2, 2]), integers([[0, 0], [0, 0]])],
    ),
    "BiasAdd": (call("BiasAdd", "value", "bias"), [drawn(2, 3), drawn(3)]),
    "BiasAddGrad": (call("BiasAddGrad", "out_backprop"), [drawn(2, 3)]),
    "BroadcastTo": (call("BroadcastTo", "input", "shape"), [drawn(3), integers([2, 3])]),
    "Cast": (call("Cast", "x", DstT=tf.float32), [drawn(3)]),
    "ConcatV2": (
        lambda *inputs: raw.ConcatV2(values=inputs[:-1], axis=inputs[-1]),
        [drawn(2, 3), drawn(2, 4), integers(1)],
    ),
    "Conv2D": (call("Conv2D", "input", "filter", **CONV), [drawn(*IMAGE), drawn(*FILTERS)]),
    "Conv2DBackpropFilter": (
        call("Conv2DBackpropFilter", "input", "filter_sizes", "out_backprop", **CONV),
        [drawn(*IMAGE), integers(FILTERS), drawn(1, 3, 3, 3)],
    ),
    "Conv2DBackpropInput": (
        call("Conv2DBackpropInput", "input_sizes", "filter", "out_backprop", **CONV),
        [integers(IMAGE), drawn(*FILTERS), drawn(1, 3, 3, 3)],
    ),
    "Conv3D": (
        call("Conv3D", "input", "filter", **CONV3D),
        [drawn(*VOLUME), drawn(2, 2, 2, 1, 2)],
    ),
    "Conv3DBackpropFilterV2": (
        call("Conv3DBackpropFilterV2", "input", "filter_sizes", "out_backprop", **CONV3D),
        [drawn(*VOLUME), integers([2, 2, 2, 1, 2]), drawn(1, 3, 3, 3, 2)],
    ),
    "Conv3DBackpropInputV2": (
        call("Conv3DBackpropInputV2", "input_sizes", "filter", "out_backprop", **CONV3D),
        [integers(VOLUME), drawn(2, 2, 2, 1, 2), drawn(1, 3, 3, 3, 2)],
    ),
    "Cumsum": (call("Cumsum", "x", "axis"), [drawn(2, 3), integers(1)]),
    "DepthToSpace": (call("DepthToSpace", "input", block_size=2), [drawn(1, 2, 2, 4)]),
    "DepthwiseConv2dNative": (
        call("DepthwiseConv2dNative", "input", "filter", **CONV),
        [drawn(*IMAGE), drawn(2, 2, 2, 1)],
    ),
    "DepthwiseConv2dNativeBackpropFilter": (
        call(
            "DepthwiseConv2dNativeBackpropFilter", "input", "filter_sizes", "out_backprop", **CONV
        ),
        [drawn(*IMAGE), integers([2, 2, 2, 1]), drawn(1, 3, 3, 2)],
    ),
    "DepthwiseConv2dNativeBackpropInput": (
        call("DepthwiseConv2dNativeBackpropInput", "input_sizes", "filter", "out_backprop", **CONV),
        [integers(IMAGE), drawn(2, 2, 2, 1), drawn(1, 3, 3, 2)],
    ),
    "Einsum": (
        lambda *inputs: raw.Einsum(inputs=inputs, equation="abc,cd->abd"),
        [drawn(2, 3, 4), drawn(4, 5)],
    ),
    "EluGrad": gradient_of("EluGrad", "gradients", "outputs"),
    "ExpandDims": (call("ExpandDims", "input", "axis"), [drawn(3), integers(0)]),
    "GatherNd": (call("GatherNd", "params", "indices"), [drawn(3, 4), integers([[0, 1], [2, 3]])]),
    "GatherV2": (
        call("GatherV2", "params", "indices", "axis"),
        [drawn(3, 4), integers([2, 0]), integers(1)],
    ),
    "LeakyReluGrad": gradient_of("LeakyReluGrad", "gradients", "features"),
    "MatMul": (call("MatMul", "a", "b"), [drawn(3, 4), drawn(4, 5)]),
    "MatrixBandPart": (
        call("MatrixBandPart", "input", "num_lower", "num_upper"),
        [drawn(4, 4), integers(1), integers(0)],
    ),
    "MaxPool": (call("MaxPool", "input", **POOL), [drawn(*IMAGE)]),
    "MaxPool3DGrad": (
        call("MaxPool3DGrad", "orig_input", "orig_output", "grad", **POOL3D),
        [single(*VOLUME), highest(single(*VOLUME), (1, 2, 3)), single(1, 2, 2, 2, 1)],
    ),
    "MaxPool3DGradGrad": (
        call("MaxPool3DGradGrad", "orig_input", "orig_output", "grad", **POOL3D),
        [single(*VOLUME), highest(single(*VOLUME), (1, 2, 3)), single(*VOLUME, seed=1)],
    ),
    "MaxPoolGrad": (
        call("MaxPoolGrad", "orig_input", "orig_output", "grad", **POOL),
        [drawn(*IMAGE), highest(drawn(*IMAGE), (1, 2)), drawn(1, 2, 2, 2)],
    ),
    "MaxPoolGradGrad": (
        call("MaxPoolGradGrad", "orig_input", "orig_output", "grad", **POOL),
        [drawn(*IMAGE), highest(drawn(*IMAGE), (1, 2)), drawn(*IMAGE, seed=1)],
    ),
    "Mean": (call("Mean", "input", "axis"), [drawn(2, 3), integers([0])]),
    "MirrorPad": (
        call("MirrorPad", "input", "paddings", mode="REFLECT"),
        [drawn(*IMAGE), integers(CORNER)],
    ),
    "MirrorPadGrad": (
        call("MirrorPadGrad", "input", "paddings", mode="REFLECT"),
        [drawn(*IMAGE), integers(CORNER)],
    ),
    "Mul": (call("Mul", "x", "y"), [drawn(2, 3), drawn(3)]),
    "MulNoNan": (call("MulNoNan", "x", "y"), [drawn(2, 3), drawn(3)]),
    "Neg": (call("Neg", "x"), [drawn(3)]),
    "Pack": (lambda *xs: raw.Pack(values=xs), [drawn(3), drawn(3, seed=1)]),
    "Pad": (call("Pad", "input", "paddings"), [drawn(*IMAGE), integers(CORNER)]),
    "RealDiv": (call("RealDiv", "x", "y"), [drawn(3), drawn(3, seed=1)]),
    "ReciprocalGrad": gradient_of("ReciprocalGrad", "y", "dy"),
    "Relu6Grad": gradient_of("Relu6Grad", "gradients", "features"),
    "ReluGrad": gradient_of("ReluGrad", "gradients", "features"),
    "Reshape": (call("Reshape", "tensor", "shape"), [drawn(2, 3), integers([3, 2])]),
    "ResizeNearestNeighbor": (
        call("ResizeNearestNeighbor", "images", "size"),
        [drawn(*IMAGE), integers([8, 8])],
    ),
    "ResizeNearestNeighborGrad": (
        call("ResizeNearestNeighborGrad", "grads", "size"),
        [drawn(*IMAGE), integers([2, 2])],
    ),
    "ReverseV2": (call("ReverseV2", "tensor", "axis"), [drawn(2, 3), integers([1])]),
    "RsqrtGrad": gradient_of("RsqrtGrad", "y", "dy"),
    "ScatterNd": (
        call("ScatterNd", "indices", "updates", "shape"),
        [integers([[2], [0]]), drawn(2), integers([4])],
    ),
    "Select": (
        call("Select", "condition", "x", "y"),
        [np.array([True, False, True]), drawn(3), drawn(3, seed=1)],
    ),
    "SelectV2": (
        call("SelectV2", "condition", "t", "e"),
        [np.array([True, False, True]), drawn(3), drawn(2, 3)],
    ),
    "SeluGrad": gradient_of("SeluGrad", "gradients", "outputs"),
    "SigmoidGrad": gradient_of("SigmoidGrad", "y", "dy"),
    "Slice": (
        call("Slice", "input", "begin", "size"),
        [drawn(4, 3), integers([1, 0]), integers([2, 3])],
    ),
    "SoftplusGrad": gradient_of("SoftplusGrad", "gradients", "features"),
    "SoftsignGrad": gradient_of("SoftsignGrad", "gradients", "features"),
    "SpaceToBatchND": (
        call("SpaceToBatchND", "input", "block_shape", "paddings"),
        [drawn(*IMAGE), integers([2, 2]), integers([[0, 0], [0, 0]])],
    ),
    "SpaceToDepth": (call("SpaceToDepth", "input", block_size=2), [drawn(*IMAGE)]),
    "Split": (call("Split", "axis", "value", num_split=2), [integers(0), drawn(4)]),
    "SplitV": (
        call("SplitV", "value", "size_splits", "axis", num_split=2),
        [drawn(4), integers([1, 3]), integers(0)],
    ),
    "SqrtGrad": gradient_of("SqrtGrad", "y", "dy"),
    "Squeeze": (call("Squeeze", "input", axis=[0]), [drawn(1, 3)]),
    "StopGradient": (call("StopGradient", "input"), [drawn(3)]),
    "StridedSlice": (
        call("StridedSlice", "input", "begin", "end", "strides"),
        [drawn(6), integers([1]), integers([5]), integers([2])],
    ),
    "StridedSliceGrad": (
        call("StridedSliceGrad", "shape", "begin", "end", "strides", "dy"),
        [integers([6]), integers([1]), integers([5]), integers([2]), drawn(2)],
    ),
    "Sum": (call("Sum", "input", "axis"), [drawn(2, 3), integers([0])]),
    "TanhGrad": gradient_of("TanhGrad", "y", "dy"),
    "Tile": (call("Tile", "input", "multiples"), [drawn(2, 3), integers([2, 1])]),
    "Transpose": (call("Transpose", "x", "perm"), [drawn(2, 3), integers([1, 0])]),
    "Unpack": (call("Unpack", "value", num=2), [drawn(2, 3)]),
    "UnsortedSegmentSum": (
        call("UnsortedSegmentSum", "data", "segment_ids", "num_segments"),
        [drawn(4), integers([1, 0, 1, 2]), integers(3)],
    ),
    **{name: (call(name, "x", "y"), [drawn(2, 3), drawn(3)]) for name in ("Add", "AddV2", "Sub")},
}


@contextlib.contextmanager
def without_rows(*kinds: str) -> Iterator[None]:
    """The table of operation facts without these rows, as if TensorFlow had renamed them.

    The tables by fact that `op_types` derives from it lack them too.
    """
    tables = [
        table
        for name, table in vars(op_types).items()
        if name.isupper() and isinstance(table, dict | set)
    ]
    copies = [table.copy() for table in tables]
    for table in tables:
        for kind in kinds:
            table.pop(kind, None) if isinstance(table, dict) else table.discard(kind)
    try:
        yield
    finally:
        for table, copy in zip(tables, copies, strict=True):
            table.clear()
            table.update(copy)
