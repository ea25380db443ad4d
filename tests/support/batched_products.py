"""Small networks in batches of one shape and of two, and all their products."""

import keras
import numpy as np
from support.oracles import CASES, LABELS, cut, dense_net, examples, relative

import hvp
from hvp.linearization.products import FORWARD

layers = keras.layers
GIVEN = {"ad": FORWARD, "jit": False}
PRODUCTS = ["hvp", "gnvp", "residual_vp", "jvp", "vjp"]
SPARSE = CASES[1].loss
X, Y = examples((4,)), np.random.default_rng(8).standard_normal((7, 3))
SIZES = (2, 2, 2, 1)


def ragged(**options):
    """Four batches of two shapes."""
    data = cut((X, LABELS), SIZES)
    return hvp.linearize(dense_net(), data, SPARSE, **{**GIVEN, **options})


def even(**options):
    """Three batches of one shape."""
    data = cut((X[:6], LABELS[:6]), (2, 2, 2))
    return hvp.linearize(dense_net(), data, SPARSE, **{**GIVEN, **options})


def vector(lin, name, *columns, seed=0):
    rows = lin.num_outputs if name == "vjp" else lin.size
    return np.random.default_rng(seed).standard_normal((rows, *columns))


def every_product(lin):
    """With a vector and with a block."""
    return {
        (name, *columns): getattr(lin, name)(vector(lin, name, *columns))
        for name in PRODUCTS
        for columns in ((), (3,))
    }


def same(got, expected, tolerance=1e-13):
    assert got.keys() == expected.keys()
    for key, value in got.items():
        assert value.shape == expected[key].shape
        assert relative(value, expected[key]) < tolerance


def blocks_of(lin):
    return [block for m in lin._sums.traced.maps.values() for block in m._blocks.values()]
