"""No product is NaN or infinite: what would be is refused, by operation, layer and batch."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import hvp

BATCHES = [(np.ones((2, 2)), np.zeros((2, 1))), (np.zeros((2, 2)), np.zeros((2, 1)))]


class Norm(keras.layers.Layer):
    """‖x‖, whose derivatives at zero are 0/0."""

    def call(self, x):
        return tf.norm(x, axis=-1, keepdims=True)


def root_of_squares():
    """√(xᵀw)² in a layer: the second batch is at its kink."""
    inputs = keras.Input((2,), dtype="float64")
    hidden = keras.layers.Dense(2, use_bias=False, dtype="float64")(inputs)
    return keras.Model(inputs, Norm(dtype="float64", name="kink")(hidden))


@pytest.mark.parametrize("shape", [(4,), (4, 3)], ids=["column", "block"])
def test_a_product_with_nan_names_operation_layer_and_batch(shape):
    lin = hvp.linearize(root_of_squares(), BATCHES, "mse")
    with pytest.raises(hvp.InputError, match=r"NaN or infinity from \w+ in '.*kink.*batch 2 of 2"):
        lin.hvp(np.ones(shape))


def test_a_form_with_nan_is_refused_too():
    lin = hvp.linearize(root_of_squares(), BATCHES, "mse")
    with pytest.raises(hvp.InputError, match="finite products with H"):
        lin.batch_forms(np.ones(4))


@pytest.mark.parametrize(
    "gradient",
    [
        lambda lin: lin.gradient(),
        lambda lin: lin.gradient(lin.theta),
        lambda lin: lin.loss_and_gradient(lin.theta),
        lambda lin: lin.scipy_functions()[1](lin.theta),
    ],
    ids=["here", "at parameters", "with the loss", "for SciPy"],
)
def test_a_gradient_with_nan_of_a_finite_loss_is_refused(gradient):
    """log(0) in a column of the second batch that the loss leaves out after a sum over rows."""

    def loss(w, x):
        return tf.reduce_sum(tf.math.log(w * x), 0)[1]

    batches = [np.ones((2, 2)), np.array([[0.0, 1.0], [0.0, 2.0]])]
    lin = hvp.linearize_function(loss, np.array([1.0, 2.0]), batches, reduction="sum")
    assert np.isfinite(lin.loss())
    with pytest.raises(hvp.errors.NotFiniteError, match=r"finite gradient.*in batch 2 of 2"):
        gradient(lin)


def test_where_the_loss_is_infinite_the_gradient_may_be():
    """The line search of an optimiser tries such points, and turns back."""
    lin = hvp.linearize_function(lambda w: tf.reduce_sum(tf.exp(w)), np.zeros(2))
    loss, gradient = lin.loss_and_gradient(np.array([0.0, 1000.0]))
    assert (loss, gradient[1]) == (np.inf, np.inf)


def test_a_check_of_products_with_nan_fails():
    report = hvp.testing.check(hvp.linearize(root_of_squares(), BATCHES, "mse"))
    assert not report.passed
    assert "batch 2 of 2" in str(report)


def test_a_product_that_overflows_is_refused():
    lin = hvp.linearize_function(lambda w: 1e30 * tf.reduce_sum(w**2), np.ones(2, np.float32))
    assert lin.hvp(np.ones(2)).tolist() == pytest.approx([2e30, 2e30])
    with pytest.raises(hvp.InputError, match="NaN or infinity"):
        lin.hvp(np.full(2, 1e20))


def test_shapes_that_are_known_only_at_run_time_take_columns_one_by_one():
    def loss(w):
        kept = tf.boolean_mask(w, w > 0)
        return tf.reduce_sum(kept**3)

    lin = hvp.linearize_function(loss, np.array([1.0, -2.0, 3.0]))
    np.testing.assert_allclose(lin.hvp(np.eye(3)), np.diag([6.0, 0.0, 18.0]))
    assert hvp.eigsh(hvp.Hessian(lin), 1).values.tolist() == pytest.approx([18.0])


def test_a_gradient_with_nan_names_the_operation_and_its_layer():
    class Distance(keras.layers.Layer):
        def call(self, pair):
            return keras.ops.norm(pair[0] - pair[1], axis=-1, keepdims=True)

    a, b = keras.Input((4,)), keras.Input((4,))
    embed = keras.layers.Dense(2)
    model = keras.Model([a, b], Distance(name="distance")([embed(a), embed(b)]))
    x = np.ones((3, 4))
    lin = hvp.linearize(model, ([x, x], np.ones((3, 1))), "mse")
    with pytest.raises(hvp.InputError, match=r"gradient.*from SqrtGrad in 'distance', in batch 1"):
        lin.gradient()


@pytest.mark.parametrize(
    ("loss", "reduction"),
    [(tf.reduce_sum, "mean"), (tf.reduce_mean, "sum"), (lambda z: tf.reduce_sum(z) ** 2, "sum")],
)
def test_a_reduction_that_a_loss_does_not_have_is_refused(loss, reduction):
    x = np.arange(1.0, 7)

    def total(w, batch):
        return loss((w * batch) ** 2)

    with pytest.raises(hvp.InputError, match="a sum or a mean over examples, as declared"):
        hvp.linearize_function(total, np.array(2.0), x, reduction=reduction, batch_size=3)
