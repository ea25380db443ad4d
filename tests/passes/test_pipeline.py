"""The switch of all passes; `linearization/test_layers.py` uses it for the products of layers."""

import threading

import numpy as np
import pytest
from support.oracles import dense_net, examples

import hvp
from hvp.passes import pipeline

PRODUCTS = ["hvp", "gnvp", "residual_vp", "jvp", "vjp"]


def network(**options):
    rng = np.random.default_rng(3)
    data = examples((4,)), rng.standard_normal((7, 3))
    return hvp.linearize(dense_net(), data, "mse", batch_size=4, jit=False, **options)


def test_blocks_without_passes_are_the_same_to_rounding():
    lin = network()
    V = np.random.default_rng(4).standard_normal((lin.size, 5))
    with pipeline.without_passes():
        plain = lin.forced()
        for found, expected in zip(lin.products(V), plain.products(V), strict=True):
            assert np.allclose(found, expected, rtol=1e-12, atol=1e-14)


def types(lin):
    """The operations that run for each vector."""
    return [node.op.type for m in lin._sums.traced.maps.values() for node in m._linear.nodes]


def test_the_switch_turns_all_passes_off():
    lin = network()
    v = np.ones(lin.size)
    lin.hvp(v)
    with pipeline.without_passes():
        plain = lin.forced()
        plain.hvp(v)
    assert "Tanh" in types(plain)
    assert "Tanh" not in types(lin)
    assert len(types(lin)) < len(types(plain)) / 2
    assert pipeline.is_enabled()


def test_the_switch_is_turned_back_after_an_error():
    with pytest.raises(KeyError), pipeline.without_passes():
        raise KeyError
    assert pipeline.is_enabled()


def test_the_switch_holds_for_its_thread_alone():
    seen = []
    with pipeline.without_passes():
        thread = threading.Thread(target=lambda: seen.append(pipeline.is_enabled()))
        thread.start()
        thread.join()
        assert not pipeline.is_enabled()
    assert seen == [True]
