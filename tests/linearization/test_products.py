"""The recipe "add an operator": a new product, its method and its operator, and nothing else."""

import keras
import numpy as np
import pytest
from support.oracles import relative

import hvp
from hvp.linearization import products
from hvp.linearization.products import H, Product


def _twice_the_hessian(mode, batch, tangents):
    return [2 * t for t in mode.hessian(batch.loss, batch.params, tangents)]


TWICE = Product(
    name="2H",
    build=_twice_the_hessian,
    modes=H.modes,
    loop_modes=H.loop_modes,
    has_penalty=True,
)


class TwiceTheHessian(hvp.Hessian):
    def _matvec(self, v):
        return self.lin._multiply(TWICE, v)


@pytest.fixture(scope="module")
def lin():
    """A network with a penalty on its weights, on batches of two shapes."""
    keras.utils.set_random_seed(0)
    dense = keras.layers.Dense
    penalty = keras.regularizers.L2(0.5)
    model = keras.Sequential(
        [
            keras.Input((3,), dtype="float64"),
            dense(4, "tanh", kernel_regularizer=penalty, dtype="float64"),
            dense(2, dtype="float64"),
        ]
    )
    rng = np.random.default_rng(0)
    data = rng.standard_normal((5, 3)), rng.standard_normal((5, 2))
    return hvp.linearize(model, data, "mse", batch_size=3)


def dense_hessian(lin, step=1e-5):
    """H by central differences of the gradient, which has the penalty in it."""
    w = lin.theta
    shifts = step * np.eye(lin.size)
    return np.stack([(lin.gradient(w + s) - lin.gradient(w - s)) / (2 * step) for s in shifts])


def test_an_operator_made_by_the_recipe_has_the_penalty_in_it(lin):
    expected = 2 * dense_hessian(lin)
    assert relative(TwiceTheHessian(lin) @ np.eye(lin.size), expected) < 1e-8


def test_a_new_product_must_say_whether_it_has_the_penalty():
    with pytest.raises(TypeError, match="has_penalty"):
        Product(name="2H", build=_twice_the_hessian, modes=H.modes, loop_modes=H.loop_modes)


def test_the_penalty_is_a_part_of_h_and_g_alone():
    named = [p for p in vars(products).values() if isinstance(p, Product)]
    assert {p.name for p in named if p.has_penalty} == {"H", "G", "H, G and R"}
