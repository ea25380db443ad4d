"""With all passes off, every product of every layer is the same to rounding."""

import threading

import numpy as np
import pytest
from support.layer_cases import CASES
from support.oracles import dense_net, examples, kept_precision

import hvp
from hvp.passes import pipeline

PRODUCTS = ["hvp", "gnvp", "residual_vp", "jvp", "vjp"]


def linearized(case):
    model, x = case.model(), case.inputs()
    y = np.random.default_rng(5).standard_normal((len(x), *model.output_shape[1:]))
    dtype = "float64" if case.lower else None
    data = [(x, y.astype(case.floatx))]
    return hvp.linearize(model, data, "mse", training=case.training, jit=False, dtype=dtype)


def every_product(lin):
    """H, G, R, J and Jᵀ times the same vectors."""
    rng = np.random.default_rng(6)
    v, u = rng.standard_normal(lin.size) + 0.5, rng.standard_normal(lin.num_outputs)
    return {name: getattr(lin, name)(u if name == "vjp" else v) for name in PRODUCTS}


@pytest.mark.zoo
@pytest.mark.parametrize("case", [c for c in CASES if not c.refused], ids=str)
def test_products_without_passes_are_the_same_to_rounding(case):
    with kept_precision(case.floatx):
        lin = linearized(case)
        found = every_product(lin)
        with pipeline.without_passes():
            plain = every_product(lin.forced())
    curvature = max(np.abs(plain[name]).max() for name in ("hvp", "gnvp", "residual_vp"))
    for name, product in found.items():
        is_first_order = name in ("jvp", "vjp")
        size = np.abs(plain[name]).max() if is_first_order else curvature
        size = max(size, np.abs(lin.gradient()).max())
        assert np.abs(product - plain[name]).max() < 1e-12 * size, name


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
    return [node.op.type for m in lin._sums.maps.values() for node in m._linear.nodes]


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
