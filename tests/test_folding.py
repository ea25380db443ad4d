"""Constants, zeros and idle operations are folded away, and the values stay."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from programs import SHAPE, cooked, drawn, few, heavy, recipes, run, seeds, spec, traced, types

from hvp import autodiff, graph
from hvp.folding import LINEAR, RESHAPES, VANISHING, fold
from hvp.split import split

raw = tf.raw_ops

# --- every operation of the tables, run by TensorFlow itself ---

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
ROWS = {
    **{f"{kind} at {i}": (kind, [i]) for kind, places in VANISHING.items() for i in places},
    **{
        f"{kind} at all": (kind, [*range(len(OPERATIONS[kind][1]))[where]])
        for kind, where in LINEAR.items()
    },
}


def arguments(kind, zeros=()):
    inputs = OPERATIONS[kind][1]
    return [np.zeros_like(x) if i in zeros else x for i, x in enumerate(inputs)]


def values(kind, inputs):
    results = OPERATIONS[kind][0](*map(tf.constant, inputs))
    return [tensor.numpy() for tensor in graph.leaves(results)]


def floats(inputs):
    return [i for i, x in enumerate(inputs) if x.dtype != np.int32]


def traced_row(kind, literal):
    """The program of the operation with some inputs written into it."""
    inputs = arguments(kind, literal)
    open_ = [i for i in floats(inputs) if i not in literal]

    def function(*given):
        taken = dict(zip(open_, given, strict=True))
        return OPERATIONS[kind][0](*(taken.get(i, tf.constant(x)) for i, x in enumerate(inputs)))

    specs = [tf.TensorSpec(inputs[i].shape, inputs[i].dtype) for i in open_]
    return graph.trace(function, *specs), [inputs[i] for i in open_]


@pytest.mark.parametrize(("kind", "places"), ROWS.values(), ids=ROWS)
def test_tensorflow_gives_zero_where_the_tables_say_so(kind, places):
    assert all(value.any() for value in values(kind, arguments(kind)))
    assert not any(value.any() for value in values(kind, arguments(kind, places)))


@pytest.mark.parametrize("kind", LINEAR)
def test_what_is_linear_in_all_takes_more_than_one_zero(kind):
    places = ROWS[f"{kind} at all"][1]
    assert len(places) > 1
    for place in places:
        assert any(value.any() for value in values(kind, arguments(kind, [place])))


@pytest.mark.parametrize(("kind", "places"), ROWS.values(), ids=ROWS)
def test_zeros_cost_nothing(kind, places):
    program, given = traced_row(kind, places)
    folded = fold(program)
    assert types(program) == [kind]
    assert folded.nodes == ()
    assert folded.literals.keys() == set(graph.leaves(folded.outputs))
    for got, expected in zip(run(folded, *given), run(program, *given), strict=True):
        assert got.shape == expected.shape
        assert got.dtype == expected.dtype
        assert not got.any()


@pytest.mark.parametrize("kind", OPERATIONS)
def test_operations_without_zeros_are_kept_and_give_the_same(kind):
    program, given = traced_row(kind, [])
    folded = fold(program)
    assert len(folded.nodes) >= 1
    for got, replayed, direct in zip(
        run(folded, *given), run(program, *given), values(kind, arguments(kind)), strict=True
    ):
        assert got.tobytes() == replayed.tobytes()
        assert np.allclose(got, direct, rtol=1e-6 if got.dtype == np.float32 else 1e-13)


@pytest.mark.parametrize("kind", LINEAR)
def test_one_zero_of_several_stays(kind):
    for place in ROWS[f"{kind} at all"][1]:
        program, given = traced_row(kind, [place])
        for got, expected in zip(run(fold(program), *given), run(program, *given), strict=True):
            assert got.tobytes() == expected.tobytes()


# --- what is known from shapes, and what does nothing ---


def idle(function, shape=SHAPE):
    program = fold(graph.trace(function, spec(*shape)))
    return program.nodes == () and program.outputs == program.inputs[0]


IDLE = {
    "reshape": lambda x: raw.Reshape(tensor=x, shape=[2, -1]),
    "broadcast": lambda x: raw.BroadcastTo(input=x, shape=[2, 3]),
    "a whole slice": lambda x: raw.Slice(input=x, begin=[0, 0], size=[-1, 3]),
    "tile once": lambda x: raw.Tile(input=x, multiples=[1, 1]),
    "transpose in order": lambda x: raw.Transpose(x=x, perm=[0, 1]),
    "sum over no axes": lambda x: raw.Sum(input=x, axis=np.zeros(0, np.int32)),
    "mean over no axes": lambda x: raw.Mean(input=x, axis=np.zeros(0, np.int32)),
    "minus zero": lambda x: raw.Sub(x=x, y=tf.zeros([2, 3], x.dtype)),
    "minus a zero that broadcasts": lambda x: x - tf.zeros([3], x.dtype),
    "plus zero": lambda x: raw.AddV2(x=x, y=tf.zeros([], x.dtype)),
    "zero plus": lambda x: raw.AddV2(x=tf.zeros([1, 3], x.dtype), y=x),
    "plus zero, the old": lambda x: raw.Add(x=x, y=tf.zeros([3], x.dtype)),
    "times one": lambda x: x * tf.ones([2, 1], x.dtype),
    "one times": lambda x: tf.ones([2, 3], x.dtype) * x,
    "divided by one": lambda x: x / tf.ones([3], x.dtype),
    "a sum of one and zeros": lambda x: tf.add_n([tf.zeros_like(x), x, tf.zeros([2, 3], x.dtype)]),
    "a sum of one": lambda x: raw.AddN(inputs=[x]),
    "a product of ones and zeros": lambda x: x * tf.ones_like(x) + x * tf.zeros_like(x),
    "there and back": lambda x: tf.reshape(tf.reshape(x, [2, 3]), tf.shape(x)),
}


@pytest.mark.parametrize("function", IDLE.values(), ids=IDLE)
def test_what_does_nothing_is_not_done(function):
    assert idle(function)


NOT_IDLE = {
    "zero minus": lambda x: tf.zeros([2, 3], x.dtype) - x,
    "one divided by": lambda x: tf.ones([2, 3], x.dtype) / x,
    "times minus one": lambda x: x * -1.0,
    "plus a larger zero": lambda x: x + tf.zeros([4, 2, 3], x.dtype),
    "a larger zero plus": lambda x: tf.zeros([4, 2, 3], x.dtype) + x,
    "times a larger one": lambda x: x * tf.ones([4, 2, 3], x.dtype),
    "divided by a larger one": lambda x: x / tf.ones([4, 2, 3], x.dtype),
    "transpose": lambda x: tf.transpose(tf.reshape(x, [1, 2, 3]), [0, 2, 1]),
    "a square transpose": lambda x: tf.transpose(x[:, :2]),
    "sum over an axis": lambda x: tf.reduce_sum(x, 0),
    "sum over an axis of one": lambda x: tf.reduce_sum(x[:1], 0),
    "mean over an axis": lambda x: tf.reduce_mean(x, 1, keepdims=True),
    "reverse": lambda x: tf.reverse(x, [0]),
    "tile": lambda x: tf.tile(x, [1, 2]),
    "a slice": lambda x: tf.slice(x, [1, 0], [1, 3]),
    "reshape": lambda x: tf.reshape(x, [3, 2]),
    "squeeze": lambda x: tf.squeeze(x[:1]),
    "a strided slice to the same shape": lambda x: x[::-1],
    "ones of a part": lambda x: tf.concat([tf.ones([2, 3], x.dtype), x], 0) * x[0],
    "zeros and ones": lambda x: x + tf.constant([0.0, 0.0, 1.0], x.dtype),
    "select": lambda x: tf.where([True, False, True], x, tf.zeros([3], x.dtype)),
    "a product by halves zero": lambda x: x * tf.constant([0.0, 0.0, 1.0], x.dtype),
    "more than once the same": lambda x: tf.add_n([x, x, tf.zeros_like(x)]),
}


@pytest.mark.parametrize("function", NOT_IDLE.values(), ids=NOT_IDLE)
def test_what_does_something_is_done(function):
    program = graph.trace(function, spec(*SHAPE))
    x = drawn(*SHAPE)
    assert run(fold(program), x)[0].tobytes() == function(tf.constant(x)).numpy().tobytes()
    assert not idle(function)


MEASURES = {
    "shape": (lambda x: raw.Shape(input=x), [2, 3]),
    "shape, long": (lambda x: raw.Shape(input=x, out_type=tf.int64), [2, 3]),
    "shapes": (lambda x: raw.ShapeN(input=[x, tf.reshape(x, [6])])[1], [6]),
    "size": (lambda x: raw.Size(input=x), 6),
    "rank": (lambda x: raw.Rank(input=x), 2),
    "arithmetic": (lambda x: tf.range(tf.shape(x)[1]) * tf.rank(x), [0, 2, 4]),
    "zeros": (lambda x: raw.ZerosLike(x=tf.sin(x)), np.zeros(SHAPE)),
    "ones": (lambda x: raw.OnesLike(x=tf.sin(x)), np.ones(SHAPE)),
    "filled": (lambda x: tf.fill(tf.shape(x), 7.0), np.full(SHAPE, 7.0)),
    "zero times": (lambda x: tf.sin(x) * 0, np.zeros(SHAPE)),
}


@pytest.mark.parametrize(("function", "expected"), MEASURES.values(), ids=MEASURES)
def test_what_shapes_tell_is_a_literal(function, expected):
    program = graph.trace(function, spec(*SHAPE))
    folded = fold(program)
    assert folded.nodes == ()
    (got,) = run(folded, drawn(*SHAPE))
    assert got.tolist() == np.asarray(expected).tolist()
    assert got.dtype == run(program, drawn(*SHAPE))[0].dtype


def test_operations_on_constants_are_done_beforehand():
    program = fold(
        graph.trace(lambda x: x * tf.cumsum(tf.sin(tf.constant([1.0, 2, 3], x.dtype))), spec(3))
    )
    assert types(program) == ["Mul"]
    assert np.allclose(run(program, np.ones(3))[0], np.cumsum(np.sin([1.0, 2, 3])), rtol=1e-15)


def test_large_results_of_constants_are_made_when_it_runs_and_large_zeros_take_no_memory():
    def function(x):
        large = tf.sin(tf.fill([300, 300], tf.constant(2.0, x.dtype)))
        zeros = tf.transpose(tf.reshape(tf.zeros([90_000, 1], x.dtype), [300, 300]))
        return x * large, zeros * x

    program = fold(graph.trace(function, spec(1)))
    assert "Sin" in types(program)
    zeros = program.literals[program.outputs[1]]
    assert zeros.shape == (300, 300)
    assert not any(zeros.strides)
    assert run(program, np.ones(1))[0][0, 0] == np.sin(2.0)


def test_unknown_shapes_become_known():
    @tf.function(input_signature=[tf.TensorSpec(None, tf.float64)])
    def inner(x):
        flat = tf.reshape(x, [-1])
        return tf.tile(flat, [2]) * tf.ones(tf.shape(flat) * 2, x.dtype) + tf.zeros_like(x[0, 0])

    program = graph.trace(lambda x: inner(tf.sin(x)), spec(*SHAPE))
    folded = fold(program)
    assert not program.specs[program.outputs].shape.is_fully_defined()
    assert folded.specs[folded.outputs].shape == [12]
    assert types(folded) == ["Sin", "Reshape", "Tile"]
    x = drawn(*SHAPE)
    assert run(folded, x)[0].tobytes() == run(program, x)[0].tobytes()


def test_shapes_become_known_by_an_operations_own_inputs_and_constants():
    @tf.function(input_signature=[tf.TensorSpec(None, tf.float64)])
    def inner(x):
        return tf.reshape(x, [2, -1]), tf.reshape(x, [-1, 3]), tf.concat([x, x], 0)

    folded = fold(graph.trace(lambda x, y: [*inner(x), *inner(y)], spec(6), spec(12)))
    shapes = [tuple(folded.specs[n].shape) for n in tf.nest.flatten(folded.outputs)]
    assert shapes == [(2, 3), (2, 3), (12,), (2, 6), (4, 3), (24,)]


def test_shapes_that_stay_unknown_do_no_harm():
    program = graph.trace(lambda x: tf.boolean_mask(x, x > 0) * 0 + 1, spec(*SHAPE))
    x = drawn(*SHAPE)
    assert run(fold(program), x)[0].tobytes() == run(program, x)[0].tobytes()


def test_zero_times_infinity_is_zero():
    program = graph.trace(
        lambda x: (x * tf.zeros_like(x), x @ tf.zeros([2, 2], x.dtype)), spec(2, 2)
    )
    x = np.full((2, 2), np.inf)
    assert all(np.isnan(value).all() for value in run(program, x))
    assert all((value == 0).all() for value in run(fold(program), x))


def test_folding_twice_changes_nothing_more():
    program = fold(traced(lambda x: tf.nn.softmax(x) * tf.reduce_mean(x, 0)))
    assert types(fold(program)) == types(program)


# --- the zeros of differentiation ---


def idles(program):
    """Operations that are zero, constant or without effect."""
    literals, shape = program.literals, lambda n: program.specs[n].shape
    for node in program.nodes:
        kind, inputs = node.op.type, node.inputs
        at = VANISHING.get(kind, ())
        zero = [n in literals and not literals[n].any() for n in inputs]
        if any(zero[i] for i in at) or (kind == "AddN" and any(zero)):
            yield str(node)
        if literals.keys() >= set(inputs) and "Random" not in kind:
            yield str(node)
        if kind in RESHAPES and shape(inputs[0]) == shape(node.outputs[0]):
            yield str(node)


@few
@given(recipes, seeds)
def test_random_programs_keep_their_values_and_lose_their_idle_operations(recipe, seed):
    v, x = np.random.default_rng(seed).uniform(0.1, 1, (2, *SHAPE))
    program = traced(cooked(recipe))
    folded = fold(program)
    assert run(folded, v, x)[0].tobytes() == run(program, v, x)[0].tobytes()
    assert list(idles(folded)) == []


def test_an_input_without_a_tangent_costs_no_product():
    def product(v, x, w):
        with tf.autodiff.ForwardAccumulator(x, v) as forward:
            y = tf.tanh(tf.matmul(tf.matmul(x, w), w))
        return forward.jvp(y)

    program = graph.trace(product, spec(3, 3), spec(3, 3), spec(3, 3))
    folded = fold(program)
    # The values take two products, and so do their tangents; forward mode also multiplies the
    # zeros that w has for a tangent.
    assert heavy(program) == 6
    assert heavy(folded) == 4
    assert heavy(split(folded).linear) == 2


def dense_loss(weights):
    h = tf.constant(drawn(5, 4))
    for w in weights[:-1]:
        h = tf.tanh(tf.matmul(h, w))
    return tf.reduce_sum(tf.exp(tf.matmul(h, weights[-1])))


def conv_loss(weights):
    first, second, kernel = weights
    h = tf.constant(drawn(2, 8, 8, 1))
    h = tf.nn.avg_pool2d(tf.tanh(tf.nn.conv2d(h, first, 1, "SAME")), 2, 2, "VALID")
    h = tf.tanh(tf.nn.conv2d(h, second, 1, "VALID"))
    return tf.reduce_sum(tf.exp(tf.matmul(tf.reshape(h, [2, -1]), kernel)))


NETS = {
    "dense, 2 layers": (dense_loss, [(4, 6), (6, 3)]),
    "dense, 4 layers": (dense_loss, [(4, 6), (6, 6), (6, 5), (5, 3)]),
    "convolutions": (conv_loss, [(3, 3, 1, 2), (2, 2, 2, 3), (27, 3)]),
}
ORDERS = [autodiff.forward_over_reverse, autodiff.reverse_over_reverse]


@pytest.mark.parametrize("order", ORDERS, ids=lambda order: order.__name__)
@pytest.mark.parametrize(("loss", "shapes"), NETS.values(), ids=NETS)
def test_a_hessian_takes_the_products_that_it_must_in_either_order(loss, shapes, order):
    weights = [tf.constant(0.3 * drawn(*shape)) for shape in shapes]

    def product(tangents):
        return order(loss, [tf.identity(w) for w in weights], tangents)

    program = graph.trace(product, [spec(*shape) for shape in shapes])
    folded = fold(program)
    count = len(shapes)
    # Each layer but the first: V h, W ḣ, δ Vᵀ, δ̇ Wᵀ, hᵀδ̇, ḣᵀδ; the first: V h and hᵀδ̇.
    assert heavy(split(folded, count).linear) == 6 * count - 4
    vectors = [drawn(*shape, seed=1) for shape in shapes]
    for got, expected in zip(run(folded, *vectors), run(program, *vectors), strict=True):
        assert got.tobytes() == expected.tobytes()


def test_sums_over_no_axis_are_dropped_where_shapes_are_known_late():
    """Forward mode traces an operation anew without shapes once it has seen enough of them."""

    def function(x, shape):
        axes = tf.raw_ops.BroadcastGradientArgs(s0=shape, s1=tf.shape(x))
        return tf.reduce_sum(x, axes[0]) * 2

    @tf.function(reduce_retracing=True)
    def inner(x):
        return function(x, tf.shape(x))

    for shape in ((2,), (3,), (2, 2)):
        inner(tf.ones(shape, tf.float64))
    program = graph.trace(inner, tf.TensorSpec([2, 3], tf.float64))
    assert [node.op.type for node in fold(program).nodes] == ["Mul"]
