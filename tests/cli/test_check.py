"""`hvp check`: failed checks, and models of half precision."""

import keras
from support.command_line import assert_refused, model, run

layers = keras.layers


@keras.saving.register_keras_serializable("tests")
class Root(layers.Layer):
    """Square roots of weights that are zero: their derivative is infinite."""

    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1],), initializer="zeros", name="kernel")

    def call(self, x):
        return x + keras.ops.sqrt(self.kernel)


def test_a_check_of_products_that_are_not_finite_is_a_failed_line(inputs):
    net = keras.Sequential([keras.Input((4,)), layers.Dense(3), Root(name="root")])
    net.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    net.save("net.keras")
    result = run("check", *inputs)
    assert (result.exit_code, result.stderr) == (1, "")
    (line,) = [line for line in result.stdout.splitlines() if "all products are finite" in line]
    assert "failed" in line


def test_a_model_of_half_precision_is_checked_in_double(inputs):
    model(dtype="float16").save("net.keras")
    assert_refused(run("check", *inputs), "got float16; cast them before, or give --dtype float64")
    result = run("check", *inputs, "--dtype", "float64", "--layers", "last")
    assert (result.exit_code, result.stderr) == (0, "")
