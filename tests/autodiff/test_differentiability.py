"""A missing derivative is proved zero or refused by name."""

import types

import keras
import numpy as np
import pytest
import tensorflow as tf
from support.operations import OPERATIONS
from support.oracles import (
    along,
    differenced_hessian,
    examples,
    gradient,
    hessian_along,
    moments_are_falsified,
    relative,
    sequential,
    squared_loss,
    variables_of,
)
from support.sweep import sweep
from tensorflow.python.framework import function
from tensorflow.python.ops import functional_ops

import hvp
from hvp.autodiff.op_types import OP_TYPES, op_type

layers = keras.layers
W = np.linspace(0.21, 0.83, 6)


def image(w):
    return tf.reshape(tf.tile(w, [8]), [1, 4, 4, 3])


REFUSED = {
    "IgammaGradA": lambda w: tf.math.igamma(w, w),
    "Zeta": lambda w: tf.math.zeta(w + 2, w),
    "Betainc": lambda w: tf.math.betainc(w, w, tf.fill([6], np.float64(0.3))),
    "TruncateMod": lambda w: tf.truncatemod(3 * w, w),
    "ExtractGlimpse": lambda w: tf.image.extract_glimpse(
        tf.cast(image(w), tf.float32), [3, 3], [[0.1, 0.1]]
    ),
    "SparseReduceMax": lambda w: tf.sparse.reduce_max(
        tf.sparse.SparseTensor([[i] for i in range(6)], tf.reshape(w, [-1]), [6])
    ),
    "RandomGammaGrad": lambda w: tf.random.stateless_gamma([5], [1, 2], w[0], dtype=tf.float64),
    "Lu": lambda w: tf.linalg.lu(tf.linalg.diag(w))[0],
    "MatrixSolveLs": lambda w: tf.linalg.lstsq(tf.linalg.diag(w), w[:, None], fast=False),
    "SparseReduceSumSparse": lambda w: (
        tf.sparse.reduce_sum(
            tf.sparse.SparseTensor([[i] for i in range(6)], tf.reshape(w, [-1]), [6]),
            output_is_sparse=True,
        ).values
    ),
    "Dilation2D": lambda w: tf.nn.dilation2d(
        image(w), tf.ones([2, 2, 3], w.dtype), [1] * 4, "SAME", "NHWC", [1] * 4
    ),
}


@pytest.mark.parametrize(
    ("op", "instead"),
    [
        ("ExtractGlimpse", "use tf.image.crop_and_resize in its place"),
        ("Dilation2D", "use tf.image.extract_patches, .* in its place"),
        ("Zeta", "use a sum of terms .* in its place"),
        ("SparseReduceMax", "use tf.sparse.to_dense .* in its place"),
        ("SparseReduceSumSparse", "use tf.sparse.to_dense .* in its place"),
        ("TruncateMod", "use tf.math.floormod in its place"),
        ("IgammaGradA", "use a quadrature .* in its place"),
        ("Lu", "use tf.linalg.solve .* in its place"),
        ("MatrixSolveLs", r"use tf.linalg.lstsq\(..., fast=True\) in its place"),
    ],
)
def test_a_refusal_says_what_can_be_put_in_place(op, instead):
    with pytest.raises(hvp.InputError, match=instead):
        hvp.linearize_function(lambda w: tf.reduce_sum(REFUSED[op](tf.sigmoid(w)) ** 2), W)


SEQUENCE = {
    "labels_indices": np.array([[0, 0]], np.int64),
    "labels_values": np.array([1], np.int32),
    "sequence_length": np.array([3], np.int32),
}


def _loop_of_old_functions(w):
    """Functions such as those of TensorFlow's own CTC, whose operations cannot be read."""
    old = function.Defun(tf.float64)
    return functional_ops.While([w], old(lambda x: x[0] < 5), old(lambda x: 2 * x))[0]


@pytest.mark.parametrize(
    ("function", "text"),
    [
        (
            lambda w: tf.py_function(tf.sin, [w], tf.float64),
            "stateful operation EagerPyFunc in .*; use operations of TensorFlow in place of Python",
        ),
        (
            lambda w: (
                tf.raw_ops.CTCLoss(
                    inputs=tf.reshape(w, [3, 1, 2]), ctc_merge_repeated=False, **SEQUENCE
                ).loss
            ),
            "CTC that merges repeated classes, .* got 'CTCLoss' with other options; leave",
        ),
        (
            _loop_of_old_functions,
            "a function in .* does not expose; write its loop with tf.while_loop",
        ),
    ],
    ids=["Python", "options of CTC", "old functions"],
)
def test_a_refusal_says_what_to_change(function, text):
    with pytest.raises(hvp.InputError, match=text):
        hvp.linearize_function(lambda w: tf.cast(tf.reduce_sum(function(w)), w.dtype), W)


def _if(w):
    return w**2 if w[0] > 0 else w


def _while(w):
    while tf.reduce_sum(w) < 9:
        w = 2 * w
    return w**2


def _for(w):
    total = tf.zeros([], w.dtype)
    for x in w:
        total += x**2
    return total


def _for_range(w):
    for _ in range(tf.cast(10 * w[0], tf.int32)):
        w = 2 * w
    return w**2


@pytest.mark.parametrize(
    ("function", "factor"), [(_if, 1), (_while, 16), (_for, 1), (_for_range, 16)]
)
def test_python_control_flow_over_tensors_is_refused_with_advice(function, factor):
    def loss(w):
        return tf.reduce_sum(function(w))

    with pytest.raises(hvp.InputError, match=r"^expected if, for .*; decorate .* @tf\.function.*$"):
        hvp.linearize_function(loss, W)
    lin = hvp.linearize_function(tf.function(loss), W)
    np.testing.assert_allclose(lin.hvp(np.ones(6)), 2 * factor * np.ones(6))


def test_python_control_flow_of_a_layer_is_refused_with_advice():
    class Chosen(layers.Layer):
        def call(self, x):
            return _if(tf.reduce_sum(x, 0))

    class Free(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense, self.chosen = layers.Dense(2), Chosen()

        def call(self, x):
            return self.chosen(self.dense(x))[None] + 0 * self.dense(x)

    model, x = Free(), np.ones((3, 4), "float32")
    model(x)
    with pytest.raises(hvp.InputError, match=r"decorate .* @tf\.function"):
        hvp.linearize(model, (x, np.zeros((3, 2))), "mse")


def test_numbers_whose_gradient_is_right_on_average_alone_are_refused():
    def drawn(w):
        return tf.random.stateless_parameterized_truncated_normal([5], [1, 2], *tf.unstack(w))

    with pytest.raises(hvp.InputError, match=r"numbers it draws; use mean \+ stddev"):
        hvp.linearize_function(lambda w: tf.reduce_sum(drawn(w) ** 2), np.array([0.3, 1.2, -1, 2]))


@pytest.mark.parametrize("op", REFUSED)
def test_an_operation_without_a_second_derivative_is_refused_by_name(op):
    def loss(w):
        return tf.reduce_sum(REFUSED[op](tf.sigmoid(w)) ** 2)

    with pytest.raises(hvp.InputError, match=f"twice differentiable in .*, got {op}.*cannot"):
        hvp.linearize_function(loss, W)


def test_an_input_without_derivative_is_refused_though_another_input_has_one():
    # Betainc has a derivative in x alone, and x is a function of the very tensor that a is.
    with pytest.raises(hvp.InputError, match="got Betainc"):
        hvp.linearize_function(lambda w: tf.reduce_sum(tf.math.betainc(w, w, w / 2)), W)


PROVED = [
    (kind, i)
    for kind, (_, inputs) in OPERATIONS.items()
    for i in op_type(kind).linear_inputs(len(inputs))
    if inputs[i].dtype in (np.float32, np.float64)
]


@pytest.mark.parametrize(
    ("kind", "place"), [(k, i) for k, i in PROVED if not op_type(k).without_gradient], ids=str
)
def test_a_linear_operation_has_a_gradient_where_it_is_taken_to_have_one(kind, place):
    function, inputs = OPERATIONS[kind]
    x = tf.Variable(inputs[place])
    with tf.GradientTape() as tape:
        given = [x.value() if i == place else tf.constant(v) for i, v in enumerate(inputs)]
        values = function(*given)
    assert tape.gradient(values, x) is not None


@pytest.mark.parametrize(
    ("kind", "place"), [(k, i) for k, i in PROVED if op_type(k).without_gradient], ids=str
)
def test_a_linear_operation_without_a_gradient_has_one_here(kind, place):
    """‖Ax + b‖² has the Hessian 2AᵀA, with the columns of A from the values of the operation."""
    function, inputs = OPERATIONS[kind]

    def values(x):
        given = [x if i == place else tf.constant(v) for i, v in enumerate(inputs)]
        return tf.reshape(function(*given), [-1])

    x = np.zeros_like(inputs[place])
    columns = np.eye(x.size, dtype=x.dtype).reshape(x.size, *x.shape)
    a = np.stack([values(tf.constant(e)) - values(tf.constant(x)) for e in columns], 1)
    lin = hvp.linearize_function(lambda x: tf.reduce_sum(values(x) ** 2), inputs[place])
    expected = 2 * a.T @ a
    np.testing.assert_allclose(lin.hvp(np.eye(x.size)), expected, rtol=1e-5, atol=1e-6)


def test_a_defect_of_this_package_is_not_taken_for_a_refusal_by_tensorflow(monkeypatch):
    ours = types.ModuleType("hvp.ours")
    exec("def gradients(*args, **options): raise TypeError('a defect')", vars(ours))
    monkeypatch.setattr(tf, "gradients", ours.gradients)
    with pytest.raises(TypeError, match="a defect"):
        hvp.linearize_function(lambda w: tf.reduce_sum(tf.sin(w)), W)


def test_the_layer_of_the_operation_is_named():
    zeta = layers.Lambda(lambda x: tf.math.zeta(x**2 + 2, x**2), dtype="float64", name="culprit")
    model = sequential((4,), layers.Dense(3, dtype="float64"), zeta)
    with pytest.raises(hvp.InputError, match=r"Zeta.* in '.*culprit"):
        hvp.linearize(model, (examples((4,)), np.zeros((7, 3))), "mse")


def test_a_layer_is_named_however_often_and_wherever_it_is_called():
    rounded = layers.Lambda(straight_through, name="dense_1")
    inner = sequential((4,), layers.Dense(4, name="dense"), rounded)
    inner.name = "inner"
    inputs = keras.Input((4,))
    model = keras.Model(
        inputs, layers.Dense(3, name="dense_1_1")(inner(inner(inputs))), name="dense"
    )
    lin = hvp.linearize(model, (examples((4,), dtype="float32"), np.zeros((7, 3))), "mse")
    assert [f.layer for f in lin.findings] == ["inner/dense_1"]


def test_an_operation_that_no_parameter_reaches_is_not_refused():
    lin = hvp.linearize_function(
        lambda w, batch: tf.reduce_sum(w**2 * tf.nn.softsign(batch[0])), W, (np.ones(6),)
    )
    assert np.allclose(lin.hvp(np.ones(6)), 1.0, rtol=1e-14)


ALLOWED = {
    "round": lambda w: tf.round(10 * w) * w**2,
    "sign": lambda w: tf.sign(w - 0.5) * w**3,
    "floor": lambda w: tf.floor(10 * w) * w**3,
    "a comparison": lambda w: tf.where(w > 0.5, w**3, w**2),
    "an argmax": lambda w: tf.cast(tf.argmax(w), w.dtype) * w**3,
    "clipping": lambda w: tf.clip_by_value(w**2, 0.1, 0.5) ** 2,
    "gather": lambda w: tf.gather(w, [1, 1, 3]) ** 3,
    "scatter": lambda w: tf.scatter_nd([[0, 1], [1, 1], [0, 1]], w[:3], [2, 2]) ** 3,
    "sorting": lambda w: tf.sort(w) ** 3 * W,
    "cholesky": lambda w: tf.linalg.cholesky(tf.tensordot(w, w, 0) + tf.eye(6, dtype=w.dtype)),
    "pooling": lambda w: tf.nn.max_pool2d(image(w), 3, 2, "VALID") ** 3,
    "pooling to the same shape": lambda w: tf.nn.max_pool2d(image(w), 2, 1, "SAME") ** 3,
    "complex numbers": lambda w: tf.abs(tf.signal.rfft(w)) ** 3,
    "complex numbers beside real": lambda w: w**2 * tf.reduce_sum(tf.abs(tf.signal.rfft(w)) ** 3),
    "softmax": lambda w: tf.nn.softmax(w) ** 2,
    "logits": lambda w: tf.nn.sigmoid_cross_entropy_with_logits(w, w**2),
    "special": lambda w: tf.math.lgamma(w) * tf.math.erf(w) * tf.math.xlogy(w, w),
}


@pytest.mark.parametrize(
    "name", sweep(ALLOWED, {"round", "a comparison", "gather", "softmax", "pooling", "special"})
)
def test_an_operation_that_is_let_through_is_right(name):
    function = ALLOWED[name]

    def loss(w):
        return tf.reduce_sum(function(w)) * tf.exp(-w[0])

    variable = tf.Variable(W)
    expected = differenced_hessian(lambda: loss(variable), [variable])
    lin = hvp.linearize_function(loss, W)
    assert relative(lin.hvp(np.eye(6)), expected) < 1e-8


# --- parameters that do not reach the loss ---


def names_of_unreached(lin):
    return {f.layer for f in lin.findings if "does not reach the loss" in f.message}


def test_a_parameter_that_does_not_reach_the_loss_is_named_and_gives_zeros():
    lin = hvp.linearize_function(lambda p: tf.reduce_sum(p[0] ** 3), [np.ones(2), np.ones(3)])
    assert names_of_unreached(lin) == {"param1"}
    assert lin.gradient().tolist() == [3, 3, 0, 0, 0]
    assert lin.hvp(np.ones(5)).tolist() == [6, 6, 0, 0, 0]


@pytest.mark.parametrize(
    "use",
    [
        tf.stop_gradient,
        tf.round,
        lambda w: tf.cast(tf.argmax(w), w.dtype),
        lambda w: tf.cast(w > 0, w.dtype),
    ],
    ids=["stopped", "rounded", "argmax", "compared"],
)
def test_a_parameter_that_reaches_the_loss_through_constants_alone_is_named(use):
    lin = hvp.linearize_function(
        lambda p: tf.reduce_sum(p[0] ** 2) * tf.reduce_sum(1 + use(p[1])), [np.ones(2), np.ones(3)]
    )
    assert names_of_unreached(lin) == {"param1"}
    assert not lin.hvp(np.ones(5))[2:].any()


def test_a_parameter_that_reaches_the_loss_linearly_or_through_complex_numbers_is_not_named():
    def loss(p):
        return tf.reduce_sum(p[0]) + tf.reduce_sum(tf.abs(tf.signal.rfft(p[1])) ** 2)

    lin = hvp.linearize_function(loss, [np.ones(2), np.ones(4)])
    assert lin.gradient().tolist() == [1, 1, 8, 8, 8, 8]
    assert not names_of_unreached(lin)


def test_a_layer_of_a_model_that_does_not_reach_the_loss_is_named():
    class Idle(keras.Model):
        def __init__(self):
            super().__init__()
            self.used = layers.Dense(2, dtype="float64", name="used")
            self.idle = layers.Dense(2, dtype="float64", name="idle")

        def call(self, x):
            self.idle(x)
            return self.used(x)

    model, x = Idle(), examples((4,))
    model(x)
    lin = hvp.linearize(model, (x, np.zeros((7, 2))), "mse")
    assert names_of_unreached(lin) == {"idle/kernel", "idle/bias"}
    assert not lin.block("idle").hvp(np.ones(10)).any()
    assert lin.block("used").hvp(np.ones(10)).any()


@pytest.mark.parametrize(
    "loss",
    [
        lambda w: tf.constant(1.0),
        lambda w: tf.reduce_sum(tf.stop_gradient(w)),
        lambda w: tf.reduce_sum(tf.cast(tf.cast(w, tf.int32), tf.float64)),
        lambda w: 3.0,
    ],
)
def test_a_loss_that_no_parameter_reaches_is_refused(loss):
    with pytest.raises(hvp.InputError, match="depends on its parameters, got one that no param"):
        hvp.linearize_function(loss, W)


# --- findings ---


@tf.custom_gradient
def straight_through(x):
    return tf.round(x) + x**2, lambda upstream: upstream


@tf.custom_gradient
def honest(x):
    return x**3, lambda upstream: 3 * x**2 * upstream


def test_a_custom_gradient_that_is_not_the_derivative_is_a_finding():
    lin = hvp.linearize_function(lambda w: tf.reduce_sum(straight_through(w) ** 2), W)
    (finding,) = lin.findings
    assert finding.severity == "different"
    assert "products are those of the function" in finding.message


def test_a_custom_gradient_that_is_the_derivative_is_none():
    lin = hvp.linearize_function(lambda w: tf.reduce_sum(honest(w)), W)
    assert lin.findings == ()
    assert np.allclose(lin.hvp(np.ones(6)), 6 * W, rtol=1e-14)


class Recomputed(layers.Layer):
    """A dense layer with a normalisation, whose values are computed again for the gradient."""

    def __init__(self, recompute):
        super().__init__(dtype="float64")
        self.recompute = recompute
        self.dense = layers.Dense(3, "tanh", dtype="float64")
        self.norm = layers.LayerNormalization(dtype="float64")

    def build(self, shape):
        self.dense.build(shape)
        self.norm.build((*shape[:-1], 3))

    def call(self, x):
        return self.recompute(lambda t: self.norm(self.dense(t)))(x)


@pytest.mark.parametrize("recompute", [tf.recompute_grad, keras.remat], ids=["tf", "keras"])
def test_recomputed_layers_are_no_finding(recompute):
    model = sequential((4,), Recomputed(recompute), layers.Dense(2, dtype="float64"))
    x, y = examples((4,)), examples((2,))
    lin = hvp.linearize(model, (x, y), keras.losses.MeanSquaredError(dtype="float64"))
    assert not [f for f in lin.findings if f.severity == "different"]
    v = examples((lin.size,), 1)[0]
    expected = hessian_along(lambda: squared_loss(y, model(x)), variables_of(model), v)
    assert relative(lin.hvp(v), expected) < 1e-8


def recomputed(w):
    return tf.reduce_sum(tf.recompute_grad(lambda t: tf.sin(t * w) * w)(tf.constant(W)))


def test_recomputation_is_a_finding_where_its_gradient_is_lost():
    # Of a variable that its function reads TensorFlow gives the gradient, of a tensor none.
    assert hvp.linearize_function(recomputed, tf.Variable(W)).findings == ()
    (finding,) = hvp.linearize_function(recomputed, W).findings
    assert finding.severity == "different"
    assert "products are those of the function" in finding.message


def test_an_image_transform_whose_gradient_is_wrong_in_tensorflow_is_a_finding():
    turn = tf.constant([[1.0, 0.2, 0.3, 0.1, 0.9, -0.2, 0.01, 0.002]])
    images = np.random.default_rng(0).normal(size=(1, 4, 5, 2))
    lin = hvp.linearize_function(
        lambda w: tf.reduce_sum(keras.ops.image.affine_transform(w, turn) ** 2), images
    )
    (finding,) = [f for f in lin.findings if f.severity == "different"]
    assert "TensorFlow's gradient of ImageProjectiveTransformV3 is not" in finding.message


def test_a_layer_that_computes_in_less_precision_is_named():
    tanh = layers.Activation("tanh", dtype="float32", name="half")
    model = sequential((4,), layers.Dense(4, dtype="float64"), tanh)
    lin = hvp.linearize(model, (examples((4,)), np.zeros((7, 4))), "mse")
    found = [f for f in lin.findings if "computes in float32" in f.message]
    assert [f.layer for f in found] == ["half"]
    assert {f.severity for f in found} == {"different"}


def test_a_plain_network_has_no_findings():
    model = sequential((4,), layers.Dense(3, "tanh", dtype="float64"))
    assert hvp.linearize(model, (examples((4,)), np.zeros((7, 3))), "mse").findings == ()


def test_layers_that_do_less_than_in_fit_are_noted():
    stack = (
        layers.Dense(3, dtype="float64"),
        layers.BatchNormalization(dtype="float64", name="norm"),
        layers.Dropout(0.5, dtype="float64", name="drop"),
        layers.Dropout(0.0, dtype="float64", name="idle"),
    )
    model, data = sequential((4,), *stack), [(examples((4,)), np.zeros((7, 3)))]
    found = {
        finding.layer: finding.message for finding in hvp.linearize(model, data, "mse").findings
    }
    assert "moving statistics" in found["norm"]
    assert "drops nothing" in found["drop"]
    assert "idle" not in found
    trained = hvp.linearize(model, data, "mse", training=True).findings
    found = [(finding.layer, finding.op) for finding in trained]
    assert found == [("drop", ""), *[("norm", "StopGradient")] * moments_are_falsified()]
    assert "every product keeps what its seed gives" in trained[0].message


def test_a_difference_from_a_gradient_that_is_zero_is_relative_to_the_other():
    @tf.custom_gradient
    def without_slope(w):
        return tf.reduce_sum(w**2), lambda upstream: 0 * upstream * w

    lin = hvp.linearize_function(without_slope, np.array([1.0, 2.0]))
    assert lin.gradient().tolist() == [2, 4]
    (finding,) = lin.findings
    assert "the gradients differ by 1.0e+00 of their size" in finding.message


def test_a_stopped_gradient_that_is_zero_differs_from_another_by_its_size():
    lin = hvp.linearize_function(
        lambda w: tf.reduce_sum(tf.stop_gradient(w) + 0 * w), np.array([1.0, 2.0])
    )
    (finding,) = lin.findings
    assert "differs by 1.0e+00 of its size without it" in finding.message


COMPLEX = {
    "Cumprod": tf.math.cumprod,
    "MatrixSquareRoot": tf.linalg.sqrtm,
    "MulNoNan": lambda z: tf.math.multiply_no_nan(z, z**2),
    "SegmentProd": lambda z: tf.math.segment_prod(z, [0, 0, 1]),
    "SquaredDifference": lambda z: tf.math.squared_difference(z, z**2),
    "TridiagonalSolve": lambda z: tf.linalg.tridiagonal_solve(
        tf.stack([z[0], z[1] + 5, z[2]]), z[2], partial_pivoting=False
    ),
    "UnsortedSegmentProd": lambda z: tf.math.unsorted_segment_prod(z, [0, 0, 1], 2),
    "Xdivy": lambda z: tf.math.xdivy(z, z + 2),
    "Xlog1py": lambda z: tf.math.xlog1py(z, z + 2),
    "Xlogy": lambda z: tf.math.xlogy(z, z + 2),
}
PLANE = np.random.default_rng(0).standard_normal((2, 3, 3))


def part_of(function, weights):
    """A real function of a real matrix, with complex numbers inside."""

    def value(w):
        z = function(tf.complex(w, w**2 + PLANE[0]))
        return tf.reduce_sum(tf.math.real(z * tf.cast(weights, z.dtype)))

    return value


@pytest.mark.parametrize(
    "kind", sorted(kind for kind, row in OP_TYPES.items() if row.wrong_if_complex)
)
def test_what_tensorflow_has_wrong_for_complex_numbers_is_refused_by_name(kind):
    loss, variable = part_of(COMPLEX[kind], 1 + 0.5j), tf.Variable(PLANE[1])
    # Once TensorFlow has it right it need not be refused.
    v = np.random.default_rng(1).standard_normal((3, 3))
    wrong = np.sum(gradient(lambda: loss(variable), [variable]) * v.ravel())
    right = along(lambda: loss(variable).numpy(), [variable], v.ravel())
    assert abs(wrong - right) > 1e-3 * abs(right)
    with pytest.raises(hvp.InputError, match=f"got {kind} in .* wrong for complex numbers"):
        hvp.linearize_function(loss, PLANE[1])


def test_a_quantised_layer_is_refused_by_name():
    model = sequential((4,), layers.Dense(3, name="small"), layers.Dense(2), dtype="float32")
    model.layers[0].quantize("int8")
    with pytest.raises(hvp.InputError, match="got 'small' quantised to int8"):
        hvp.linearize(model, (examples((4,)), np.zeros((7, 2))), "mse")


def test_a_normalisation_over_several_machines_is_refused_by_name():
    norm = layers.BatchNormalization(synchronized=True, name="sync")
    model = sequential((4,), layers.Dense(3), norm, dtype="float32")
    with pytest.raises(hvp.InputError, match="got 'sync' with synchronized=True"):
        hvp.linearize(model, (examples((4,)), np.zeros((7, 3))), "mse")
