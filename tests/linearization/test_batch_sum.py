"""Batches in one call: to the same bits, as many calls fewer, only where all are kept and short."""

import keras
import numpy as np
import pytest
from support.oracles import LABELS, cut, dense_net, examples, relative

import hvp
from hvp.linearization import batch_sum, linear_map
from hvp.linearization.compilation import CompiledFunction

PRODUCTS = ["hvp", "gnvp", "residual_vp", "fisher_vp", "vjp", "jvp"]
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    """Batches are joined at the third product."""
    monkeypatch.setattr(batch_sum, "PRODUCTS_BEFORE_JOINING", 2)


@pytest.fixture
def joined(monkeypatch):
    """The numbers of batches for which a call was compiled."""
    counts, original = [], CompiledFunction.summed

    def counting(self, count):
        counts.append(count)
        return original(self, count)

    monkeypatch.setattr(CompiledFunction, "summed", counting)
    return counts


def net(sizes, *, width=3, dtype="float64", **options):
    """Batches of these sizes of a net with a penalty, a term of its own."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((width,), dtype=dtype),
            keras.layers.Dense(4, "tanh", dtype=dtype, kernel_regularizer="l2"),
            keras.layers.Dense(3, dtype=dtype),
        ]
    )
    rng = np.random.default_rng(1)
    x = rng.standard_normal((sum(sizes), width)).astype(dtype)
    data = cut((x, rng.integers(0, 3, sum(sizes))), sizes)
    return hvp.linearize(model, data, LOSS, ad="forward-over-reverse", jit=False, **options)


@pytest.mark.sweep
@pytest.mark.parametrize("columns", [(), (3,)], ids=["vector", "block"])
@pytest.mark.parametrize("name", PRODUCTS)
def test_joined_batches_give_the_same_bits(name, columns):
    lin = net((40,) * 11 + (17,), width=784, dtype="float32")
    rows = lin.num_outputs if name == "vjp" else lin.size
    v = np.random.default_rng(2).standard_normal((rows, *columns))
    first, *later = (getattr(lin, name)(v) for _ in range(5))
    assert all(np.array_equal(first, product) for product in later)


@pytest.mark.sweep
def test_what_is_joined_is_right(joined):
    whole, parts = net((24,)), net((2,) * 10 + (3, 1))
    V = np.random.default_rng(3).standard_normal((whole.size, 4))
    for v in V.T:
        assert relative(parts.hvp(v), whole.hvp(v)) < 1e-13
    assert joined == [6, 4]


def test_groups_are_even_and_of_one_shape(joined):
    lin = net((2,) * 9 + (1, 2, 2))
    for _ in range(4):
        lin.hvp(np.ones(lin.size))
    # Twelve batches go by sixes; the shape that differs parts the second six.
    assert joined == [6, 3, 2]


def test_blocks_and_vectors_are_joined_each_on_its_own(joined):
    lin = net((2, 2, 2))
    for _ in range(3):
        lin.hvp(np.ones(lin.size))
        lin.hvp(np.ones((lin.size, 2)))
    assert joined == [3, 3]


@pytest.mark.parametrize("share", [0, 2], ids=["nothing kept", "some kept"])
def test_batches_that_are_not_all_kept_are_not_joined(joined, share):
    whole = net((2, 2, 2))
    whole.hvp(np.ones(whole.size))
    lin = net((2, 2, 2), cache=whole.memory.kept * share // 3)
    for _ in range(5):
        lin.hvp(np.ones(lin.size))
    assert lin.memory.kept_batches < lin.memory.batches
    assert joined == []


def test_large_batches_are_not_joined(joined, monkeypatch):
    monkeypatch.setattr(linear_map, "MAX_JOINED_BYTES", 100)
    lin = net((2, 2, 2))
    for _ in range(5):
        lin.hvp(np.ones(lin.size))
    assert joined == []


def test_few_products_do_not_wait_for_it(joined):
    lin = net((2, 2, 2))
    for _ in range(2):
        lin.hvp(np.ones(lin.size))
    assert joined == []


def test_a_product_by_xla_is_joined_too(joined):
    data = cut((examples((4,))[:6], LABELS[:6]), (2, 2, 2))
    lin = hvp.linearize(dense_net(), data, LOSS, ad="forward-over-reverse", jit=True)
    v = np.random.default_rng(4).standard_normal(lin.size)
    first, *later = (lin.hvp(v) for _ in range(4))
    assert all(np.array_equal(first, product) for product in later)
    assert joined == [3]
