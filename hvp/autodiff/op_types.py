"""Which operations are linear, and in which of their inputs."""

from __future__ import annotations

from collections.abc import Collection

# Linear in each of the inputs named while the others are held: products, and linear functions.
MULTILINEAR = {
    **dict.fromkeys((
        "AvgPool", "AvgPool3D", "BatchToSpaceND", "BiasAddGrad", "BroadcastTo", "Cast", "Cumsum",
        "DepthToSpace", "EluGrad", "ExpandDims", "GatherNd", "GatherV2", "LeakyReluGrad",
        "MatrixBandPart", "Mean", "MirrorPad", "MirrorPadGrad", "MulNoNan", "Neg", "Pad", "RealDiv",
        "Relu6Grad", "ReluGrad", "Reshape", "ResizeNearestNeighbor", "ResizeNearestNeighborGrad",
        "ReverseV2", "SeluGrad", "Slice", "SoftplusGrad", "SoftsignGrad", "SpaceToBatchND",
        "SpaceToDepth", "SplitV", "Squeeze", "StridedSlice", "Sum", "Tile", "Transpose", "Unpack",
        "UnsortedSegmentSum",
    ), (0,)),
    **dict.fromkeys((
        "AvgPool3DGrad", "AvgPoolGrad", "ReciprocalGrad", "RsqrtGrad", "ScatterNd", "SigmoidGrad",
        "Split", "SqrtGrad", "TanhGrad",
    ), (1,)),
    **dict.fromkeys((
        "BatchMatMulV2", "Conv2D", "Conv3D", "DepthwiseConv2dNative", "Einsum", "MatMul", "Mul",
    ), (0, 1)),
    **dict.fromkeys((
        "MaxPool3DGrad", "MaxPool3DGradGrad", "MaxPoolGrad", "MaxPoolGradGrad",
    ), (2,)),
    **dict.fromkeys((
        "Conv2DBackpropInput", "Conv3DBackpropInputV2", "DepthwiseConv2dNativeBackpropInput",
    ), (1, 2)),
    **dict.fromkeys((
        "Conv2DBackpropFilter", "Conv3DBackpropFilterV2", "DepthwiseConv2dNativeBackpropFilter",
    ), (0, 2)),
    "StridedSliceGrad": (4,),
}  # fmt: skip
# Sums of their inputs, up to signs.
SUMS = ("Add", "AddN", "AddV2", "Sub")
# Linear in all of these inputs together.
JOINTLY = {
    **dict.fromkeys([*SUMS, "BiasAdd", "Pack"], slice(None)),
    "ConcatV2": slice(0, -1),
    **dict.fromkeys(["Select", "SelectV2"], slice(1, None)),
}

# Loops and branches, and the attributes that name the functions they run.
LOOPS = {"While", "StatelessWhile"}
BODIES = {
    **dict.fromkeys(LOOPS, ("cond", "body")),
    **dict.fromkeys(["If", "StatelessIf"], ("then_branch", "else_branch")),
    **dict.fromkeys(["Case", "StatelessCase"], ("branches",)),
}


def linear_inputs(kind: str, count: int) -> Collection[int]:
    """In which of its inputs, so many, an operation is linear, each or together."""
    if kind in JOINTLY:
        return range(count)[JOINTLY[kind]]
    return MULTILINEAR.get(kind, ())
