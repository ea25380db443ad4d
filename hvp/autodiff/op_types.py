"""The table of operation facts: one row for each type of operation, by its name in TensorFlow.

A fact permits a shortcut, refuses what TensorFlow is known to have wrong, or says how an operation
calls others. Of an operation without a row nothing is assumed: it is never taken for linear, zero
or constant, and TensorFlow differentiates it or it is refused. To add an operation, add a row; the
tests check the row on the inputs in `tests/support/operations.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class OpType:
    """What is known of an operation. Inputs are given by their positions.

    Attributes:
        linear_in: the operation is linear in each of these inputs while the others are fixed.
        jointly_linear_in: it is linear in these inputs together.
        is_sum: it is the sum of its inputs, up to signs.
        is_diagonal: it multiplies each entry of its one linear input by a number that the other
            inputs determine.
        zero_if_zero: besides `linear_in`, inputs that make the result zero where they are zero.
        rearranges: the input whose entries it rearranges or repeats, with no others in the result.
        is_reshape: it changes nothing where input 0 and the result have the same shape.
        is_repetition: it repeats the entries of input 0, as broadcasting does where it repeats
            axes of length one alone.
        gives_shape: its results depend on the shapes of its inputs alone.
        ignores: inputs that it does not depend on, of which it needs the shape alone, or in which
            it is constant between jumps.
        locally_constant: its derivative is zero, for which TensorFlow gives None.
        without_gradient: TensorFlow has no gradient for it, although it is linear. It has one for
            all other linear operations.
        wrong_if_complex: TensorFlow's gradient is wrong for complex numbers (measured by
            differences, TensorFlow 2.21).
        twice_wrong_if_complex: its gradient is right for complex numbers, the derivative of that is
            wrong (measured, TensorFlow 2.21).
        gradient_may_be_wrong: on some real inputs TensorFlow's gradient is not the derivative of
            the result. It is replaced in `decompositions`; `fit` follows TensorFlow's.
        is_straight_through: it rounds, and its gradient is that of the identity.
        is_drawn: its gradient in the parameters of a distribution is right on average over the
            draws, and is not the derivative of the numbers drawn.
        bodies: the attributes that name the functions which a loop or a branch runs.
        is_loop: it runs its second body as long as its first gives true.
        is_switch: input 0 is the number of the branch that it runs, not a condition.
        is_call: it calls one function, once, on its inputs.
        is_alias: its results are its inputs.
        calls_python: it calls a Python function, whose result has no shape.
        reads_table: it reads a table of constants, as vocabularies are.
        is_entrywise: each entry of its result depends on the same entries of its inputs alone,
            which are broadcast.
        finite_at: an entrywise operation that may be infinite, or have infinite derivatives, is
            finite with its derivatives where its inputs are this number.
        instead: what a user can put in its place where it is refused.
    """

    linear_in: tuple[int, ...] = ()
    jointly_linear_in: slice | None = None
    is_sum: bool = False
    is_diagonal: bool = False
    zero_if_zero: tuple[int, ...] = ()
    rearranges: int | None = None
    is_reshape: bool = False
    is_repetition: bool = False
    gives_shape: bool = False
    ignores: tuple[int, ...] = ()
    locally_constant: bool = False
    without_gradient: bool = False
    wrong_if_complex: bool = False
    twice_wrong_if_complex: bool = False
    gradient_may_be_wrong: bool = False
    is_straight_through: bool = False
    is_drawn: bool = False
    bodies: tuple[str, ...] = ()
    is_loop: bool = False
    is_switch: bool = False
    is_call: bool = False
    is_alias: bool = False
    calls_python: bool = False
    reads_table: bool = False
    is_entrywise: bool = False
    finite_at: float | None = None
    instead: str = ""

    def linear_inputs(self, count: int) -> Sequence[int]:
        """In which of its `count` inputs it is linear, each alone or all together."""
        if self.jointly_linear_in is not None:
            return range(count)[self.jointly_linear_in]
        return self.linear_in


ALL = slice(None)
PYTHON = "operations of TensorFlow in place of Python and NumPy"
TRANSFORM = (
    "tf.signal.fft3d, rfft3d and their inverses, or tf.signal.fft for one axis after another"
)
DILATION = "tf.image.extract_patches, the filter added, and tf.reduce_max"
OP_TYPES = {
    "Abs": OpType(is_entrywise=True),
    "Acos": OpType(is_entrywise=True, finite_at=0.5),
    "Acosh": OpType(is_entrywise=True, finite_at=2.0),
    "Add": OpType(jointly_linear_in=ALL, is_sum=True, is_entrywise=True),
    "AddN": OpType(jointly_linear_in=ALL, is_sum=True, is_entrywise=True),
    "AddV2": OpType(jointly_linear_in=ALL, is_sum=True, is_entrywise=True),
    "Asin": OpType(is_entrywise=True, finite_at=0.5),
    "Asinh": OpType(is_entrywise=True),
    "Atan": OpType(is_entrywise=True),
    "Atan2": OpType(is_entrywise=True, finite_at=0.5),
    "Atanh": OpType(is_entrywise=True, finite_at=0.5),
    "AvgPool": OpType(linear_in=(0,)),
    "AvgPool3D": OpType(linear_in=(0,)),
    "AvgPool3DGrad": OpType(linear_in=(1,)),
    "AvgPoolGrad": OpType(linear_in=(1,)),
    "BatchMatMulV2": OpType(linear_in=(0, 1)),
    "BatchToSpaceND": OpType(linear_in=(0,)),
    "BesselI1": OpType(gradient_may_be_wrong=True),
    "Betainc": OpType(instead="a quadrature of t^(a-1) (1-t)^(b-1), where a or b are parameters"),
    "BiasAdd": OpType(jointly_linear_in=ALL),
    "BiasAddGrad": OpType(linear_in=(0,)),
    "BroadcastTo": OpType(linear_in=(0,), rearranges=0, is_reshape=True, is_repetition=True),
    "Case": OpType(bodies=("branches",), is_switch=True),
    "Cast": OpType(linear_in=(0,), is_entrywise=True),
    "Ceil": OpType(locally_constant=True),
    "CheckNumerics": OpType(is_alias=True),
    "Cholesky": OpType(gradient_may_be_wrong=True),
    "ConcatV2": OpType(jointly_linear_in=slice(0, -1)),
    "Conv2D": OpType(linear_in=(0, 1)),
    "Conv2DBackpropFilter": OpType(linear_in=(0, 2)),
    "Conv2DBackpropInput": OpType(linear_in=(1, 2)),
    "Conv3D": OpType(linear_in=(0, 1)),
    "Conv3DBackpropFilterV2": OpType(linear_in=(0, 2)),
    "Conv3DBackpropInputV2": OpType(linear_in=(1, 2)),
    "Cos": OpType(is_entrywise=True),
    "Cosh": OpType(is_entrywise=True, finite_at=0.5),
    "Cumprod": OpType(wrong_if_complex=True, gradient_may_be_wrong=True),
    "Cumsum": OpType(linear_in=(0,)),
    "DepthToSpace": OpType(linear_in=(0,)),
    "DepthwiseConv2dNative": OpType(linear_in=(0, 1)),
    "DepthwiseConv2dNativeBackpropFilter": OpType(linear_in=(0, 2)),
    "DepthwiseConv2dNativeBackpropInput": OpType(linear_in=(1, 2)),
    "Digamma": OpType(is_entrywise=True, finite_at=0.5),
    "Dilation2DBackpropFilter": OpType(instead=DILATION),
    "Dilation2DBackpropInput": OpType(instead=DILATION),
    "DivNoNan": OpType(is_entrywise=True),
    "EagerPyFunc": OpType(calls_python=True, instead=PYTHON),
    "Einsum": OpType(linear_in=(0, 1)),
    "Elu": OpType(is_entrywise=True),
    "EluGrad": OpType(linear_in=(0,), is_diagonal=True, is_entrywise=True),
    "Erf": OpType(is_entrywise=True),
    "Erfc": OpType(is_entrywise=True),
    "Erfinv": OpType(is_entrywise=True, finite_at=0.5),
    "Exp": OpType(is_entrywise=True, finite_at=0.5),
    "ExpandDims": OpType(linear_in=(0,), rearranges=0, is_reshape=True),
    "Expm1": OpType(is_entrywise=True, finite_at=0.5),
    "ExtractGlimpseV2": OpType(instead="tf.image.crop_and_resize"),
    "FakeQuantWithMinMaxArgs": OpType(is_straight_through=True),
    "FakeQuantWithMinMaxVars": OpType(is_straight_through=True),
    "FakeQuantWithMinMaxVarsPerChannel": OpType(is_straight_through=True),
    "FFTND": OpType(instead=TRANSFORM),
    "Fill": OpType(rearranges=1),
    "Floor": OpType(locally_constant=True),
    "FloorDiv": OpType(locally_constant=True),
    "FusedBatchNormGradV3": OpType(ignores=(5,)),
    "GatherNd": OpType(linear_in=(0,)),
    "GatherV2": OpType(linear_in=(0,)),
    "IFFTND": OpType(instead=TRANSFORM),
    "IRFFTND": OpType(instead=TRANSFORM),
    "Identity": OpType(is_alias=True),
    "IdentityN": OpType(is_alias=True),
    "If": OpType(bodies=("then_branch", "else_branch")),
    "Igamma": OpType(is_entrywise=True, finite_at=0.5),
    "Igammac": OpType(is_entrywise=True, finite_at=0.5),
    "IgammaGradA": OpType(instead="a quadrature of t^(a-1) exp(-t)"),
    "ImageProjectiveTransformV2": OpType(gradient_may_be_wrong=True),
    "ImageProjectiveTransformV3": OpType(gradient_may_be_wrong=True),
    "LeakyRelu": OpType(is_entrywise=True),
    "LeakyReluGrad": OpType(linear_in=(0,), is_diagonal=True, is_entrywise=True),
    "Lgamma": OpType(is_entrywise=True, finite_at=0.5),
    "Log": OpType(is_entrywise=True, finite_at=0.5),
    "Log1p": OpType(is_entrywise=True, finite_at=0.5),
    "LookupTableFindV2": OpType(reads_table=True),
    "LookupTableSizeV2": OpType(reads_table=True),
    "Lu": OpType(instead="tf.linalg.solve for solutions, tf.linalg.slogdet for determinants"),
    "MatMul": OpType(linear_in=(0, 1)),
    "MatrixBandPart": OpType(linear_in=(0,)),
    "MatrixLogarithm": OpType(
        instead="tf.linalg.eigh, the logarithm of the eigenvalues, and the product with the vectors"
    ),
    "MatrixSolveLs": OpType(instead="tf.linalg.lstsq(..., fast=True)"),
    "MatrixSquareRoot": OpType(wrong_if_complex=True),
    "MaxPool": OpType(zero_if_zero=(0,)),
    "MaxPool3DGrad": OpType(linear_in=(2,), ignores=(0, 1)),
    "MaxPool3DGradGrad": OpType(linear_in=(2,)),
    "MaxPoolGrad": OpType(linear_in=(2,), ignores=(0, 1)),
    "MaxPoolGradGrad": OpType(linear_in=(2,)),
    "Maximum": OpType(is_entrywise=True),
    "Mean": OpType(linear_in=(0,)),
    "Minimum": OpType(is_entrywise=True),
    "MirrorPad": OpType(linear_in=(0,)),
    "MirrorPadGrad": OpType(linear_in=(0,)),
    "Mul": OpType(linear_in=(0, 1), is_entrywise=True),
    "MulNoNan": OpType(linear_in=(0,), is_diagonal=True, wrong_if_complex=True, is_entrywise=True),
    "Ndtri": OpType(is_entrywise=True, finite_at=0.5),
    "Neg": OpType(linear_in=(0,), is_diagonal=True, is_entrywise=True),
    "OnesLike": OpType(locally_constant=True),
    "Pack": OpType(jointly_linear_in=ALL),
    "Pad": OpType(linear_in=(0,)),
    "PartitionedCall": OpType(is_call=True),
    "Pow": OpType(is_entrywise=True, finite_at=0.5),
    "PyFunc": OpType(calls_python=True, instead=PYTHON),
    "PyFuncStateless": OpType(calls_python=True, instead=PYTHON),
    "QuantizeAndDequantizeV2": OpType(is_straight_through=True),
    "QuantizeAndDequantizeV3": OpType(is_straight_through=True),
    "QuantizeAndDequantizeV4": OpType(is_straight_through=True),
    "RFFTND": OpType(instead=TRANSFORM),
    "RaggedBincount": OpType(instead="tf.math.unsorted_segment_sum"),
    "RandomGammaGrad": OpType(instead="numbers that are drawn before"),
    "Rank": OpType(gives_shape=True),
    "RealDiv": OpType(linear_in=(0,), is_diagonal=True, is_entrywise=True, finite_at=0.5),
    "Reciprocal": OpType(is_entrywise=True, finite_at=0.5),
    "ReciprocalGrad": OpType(linear_in=(1,), is_diagonal=True, is_entrywise=True),
    "Relu": OpType(is_entrywise=True),
    "Relu6": OpType(is_entrywise=True),
    "Relu6Grad": OpType(linear_in=(0,), is_diagonal=True, is_entrywise=True),
    "ReluGrad": OpType(linear_in=(0,), is_diagonal=True, is_entrywise=True),
    "Reshape": OpType(linear_in=(0,), rearranges=0, is_reshape=True),
    "ResizeBicubicGrad": OpType(ignores=(1,)),
    "ResizeBilinearGrad": OpType(ignores=(1,)),
    "ResizeNearestNeighbor": OpType(linear_in=(0,)),
    "ResizeNearestNeighborGrad": OpType(linear_in=(0,), without_gradient=True),
    "ReverseV2": OpType(linear_in=(0,)),
    "Rint": OpType(locally_constant=True),
    "Round": OpType(locally_constant=True),
    "Rsqrt": OpType(is_entrywise=True, finite_at=0.5),
    "RsqrtGrad": OpType(linear_in=(1,), is_diagonal=True, is_entrywise=True, finite_at=0.5),
    "ScaleAndTranslateGrad": OpType(ignores=(1,)),
    "ScatterNd": OpType(linear_in=(1,)),
    "SegmentProd": OpType(wrong_if_complex=True),
    "Select": OpType(jointly_linear_in=slice(1, None)),
    "SelectV2": OpType(jointly_linear_in=slice(1, None), is_entrywise=True),
    "Selu": OpType(is_entrywise=True),
    "SeluGrad": OpType(linear_in=(0,), is_diagonal=True, is_entrywise=True),
    "Shape": OpType(gives_shape=True),
    "ShapeN": OpType(gives_shape=True),
    "Sigmoid": OpType(is_entrywise=True),
    "SigmoidGrad": OpType(linear_in=(1,), is_diagonal=True, is_entrywise=True),
    "Sign": OpType(locally_constant=True, is_entrywise=True),
    "Sin": OpType(is_entrywise=True),
    "Sinh": OpType(is_entrywise=True, finite_at=0.5),
    "Size": OpType(gives_shape=True),
    "Slice": OpType(linear_in=(0,), rearranges=0, is_reshape=True),
    "SoftmaxCrossEntropyWithLogits": OpType(gradient_may_be_wrong=True),
    "Softplus": OpType(is_entrywise=True),
    "SoftplusGrad": OpType(linear_in=(0,), is_diagonal=True, is_entrywise=True),
    "Softsign": OpType(is_entrywise=True),
    "SoftsignGrad": OpType(
        linear_in=(0,), is_diagonal=True, without_gradient=True, is_entrywise=True
    ),
    "SpaceToBatchND": OpType(linear_in=(0,)),
    "SpaceToDepth": OpType(linear_in=(0,)),
    "SparseBincount": OpType(instead="tf.math.unsorted_segment_sum"),
    "Split": OpType(linear_in=(1,)),
    "SplitV": OpType(linear_in=(0,)),
    "Sqrt": OpType(is_entrywise=True, finite_at=0.5),
    "SqrtGrad": OpType(linear_in=(1,), is_diagonal=True, is_entrywise=True, finite_at=0.5),
    "Square": OpType(is_entrywise=True),
    "SquaredDifference": OpType(wrong_if_complex=True, is_entrywise=True),
    "Squeeze": OpType(linear_in=(0,), rearranges=0, is_reshape=True),
    "StatefulPartitionedCall": OpType(is_call=True),
    "StatelessCase": OpType(bodies=("branches",), is_switch=True),
    "StatelessIf": OpType(bodies=("then_branch", "else_branch")),
    "StatelessParameterizedTruncatedNormal": OpType(
        is_drawn=True,
        instead="mean + stddev * tf.random.stateless_truncated_normal(shape, seed)",
    ),
    "StatelessWhile": OpType(bodies=("cond", "body"), is_loop=True),
    "StopGradient": OpType(zero_if_zero=(0,), locally_constant=True),
    "StridedSlice": OpType(linear_in=(0,), rearranges=0),
    "StridedSliceGrad": OpType(linear_in=(4,)),
    "Sub": OpType(jointly_linear_in=ALL, is_sum=True, is_entrywise=True),
    "Sum": OpType(linear_in=(0,)),
    "Svd": OpType(twice_wrong_if_complex=True),
    "Tan": OpType(is_entrywise=True, finite_at=0.5),
    "Tanh": OpType(is_entrywise=True),
    "TanhGrad": OpType(linear_in=(1,), is_diagonal=True, is_entrywise=True),
    "Tile": OpType(linear_in=(0,), rearranges=0, is_reshape=True, is_repetition=True),
    "Transpose": OpType(linear_in=(0,), rearranges=0),
    "TridiagonalSolve": OpType(wrong_if_complex=True),
    "TruncateMod": OpType(instead="tf.math.floormod"),
    "Unpack": OpType(linear_in=(0,)),
    "UnsortedSegmentProd": OpType(wrong_if_complex=True),
    "UnsortedSegmentSum": OpType(linear_in=(0,)),
    "While": OpType(bodies=("cond", "body"), is_loop=True),
    "Xdivy": OpType(
        wrong_if_complex=True, gradient_may_be_wrong=True, is_entrywise=True, finite_at=0.5
    ),
    "Xlog1py": OpType(
        wrong_if_complex=True, gradient_may_be_wrong=True, is_entrywise=True, finite_at=0.5
    ),
    "Xlogy": OpType(
        wrong_if_complex=True, gradient_may_be_wrong=True, is_entrywise=True, finite_at=0.5
    ),
    "ZerosLike": OpType(locally_constant=True),
    "Zeta": OpType(instead="a sum of terms (q + k)^(-s), where the exponent s is a parameter"),
}
UNKNOWN = OpType()
SPARSE = OpType(instead="tf.sparse.to_dense and operations on dense tensors")


def op_type(name: str) -> OpType:
    """The row of an operation; without one, a row that says nothing of its values."""
    return OP_TYPES.get(name, SPARSE if name.startswith("Sparse") else UNKNOWN)


# The same facts, one table for each, by name of operation.
MULTILINEAR = {name: row.linear_in for name, row in OP_TYPES.items() if row.linear_in}
JOINTLY = {
    name: row.jointly_linear_in
    for name, row in OP_TYPES.items()
    if row.jointly_linear_in is not None
}
SUMS = {name for name, row in OP_TYPES.items() if row.is_sum}
DIAGONAL = {name: row.linear_in[0] for name, row in OP_TYPES.items() if row.is_diagonal}
VANISHING = {
    name: row.linear_in + row.zero_if_zero
    for name, row in OP_TYPES.items()
    if row.linear_in + row.zero_if_zero
}
ARRANGEMENTS = {
    name: row.rearranges for name, row in OP_TYPES.items() if row.rearranges is not None
}
RESHAPES = {name for name, row in OP_TYPES.items() if row.is_reshape}
REPEATS = {name for name, row in OP_TYPES.items() if row.is_repetition}
SHAPES = {name for name, row in OP_TYPES.items() if row.gives_shape}
