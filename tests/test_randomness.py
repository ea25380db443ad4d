"""`seed=` and `rng=`: what each means, and that every public function takes both."""

import inspect

import keras
import numpy as np
import pytest

import hvp
from hvp.randomness import DEFAULT_SEED, NOT_GIVEN, generator_of, seed_of

A = np.diag(np.r_[np.linspace(-1.0, 1.0, 590), 2.0, 3.0, 4.0])
MODEL = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1, kernel_initializer="ones")])
LIN = hvp.linearize(MODEL, (np.eye(3), np.ones((3, 1))), "mse", dtype="float64")
DRAWS = {
    "eigsh": lambda **given: hvp.eigsh(A, 1, **given).vectors,
    "density": lambda **given: hvp.density(A, num_probes=2, num_steps=4, **given).nodes,
    "trace": lambda **given: hvp.trace(A, num_products=8, **given).value,
    "diagonal": lambda **given: hvp.diagonal(A, num_products=8, **given).value,
    "frobenius_norm": lambda **given: hvp.frobenius_norm(A, num_products=8, **given).value,
    "squared_frobenius_norm": lambda **given: (
        hvp.squared_frobenius_norm(A, num_products=8, **given).value
    ),
    "layer_traces": lambda **given: (
        hvp.layer_traces(A, Layers, num_products=8, **given).whole.trace.value
    ),
    "low_rank": lambda **given: hvp.low_rank(A @ A, 3, **given).vectors,
    "noise_floor": lambda **given: hvp.noise_floor(A, A + 1e-9 * A @ A, **given).shadow,
    "Fisher": lambda **given: hvp.Fisher(LIN, 1, **given) @ np.ones(4),
    "Linearization.fisher_vp": lambda **given: LIN.fisher_vp(np.ones(4), 1, **given),
    "compare": lambda **given: hvp.compare(LIN, 1, **given).seed,
    "track": lambda **given: hvp.track(LIN, [LIN.theta], num_products=2, **given).seed,
    "callbacks.Curvature": lambda **given: hvp.callbacks.Curvature(None, **given)._seed,
    "testing.linear_regression": lambda **given: hvp.testing.linear_regression(**given).H,
}
BITS = (np.random.PCG64, np.random.Philox)


class Layers:
    class layout:  # noqa: N801
        slices, layers = (slice(0, 593),), {"all": (0,)}


def public():
    """All public callables by name, and the methods of the classes."""
    found = {}
    for place, module in (("", hvp), ("testing.", hvp.testing), ("callbacks.", hvp.callbacks)):
        for name in module.__all__:
            value = getattr(module, name)
            if inspect.ismodule(value):
                continue
            found[place + name] = value
            if inspect.isclass(value):
                methods = inspect.getmembers(value, inspect.isfunction)
                found |= {f"{place}{name}.{m}": f for m, f in methods if not m.startswith("_")}
    laws = hvp.testing.operator_laws, hvp.testing.closed_forms
    for module in laws:
        functions = inspect.getmembers(module, inspect.isfunction)
        found |= {f"{module.__name__}.{name}": f for name, f in functions if name[0] != "_"}
    return found


def test_every_public_function_with_a_seed_takes_rng_too():
    signatures = {
        name: inspect.signature(value).parameters
        for name, value in public().items()
        if not (inspect.isclass(value) and issubclass(value, Exception))
    }
    # Results tell their seed; they draw nothing.
    drawing = {
        name: found
        for name, found in signatures.items()
        if "seed" in found and found["seed"].default is not inspect.Parameter.empty
    }
    assert set(DRAWS) <= set(drawing)
    assert len(drawing) > 30
    for name, found in drawing.items():
        assert found["seed"].default is DEFAULT_SEED, name
        assert found["rng"].default is NOT_GIVEN, name
        assert found["rng"].kind is inspect.Parameter.KEYWORD_ONLY, name


@pytest.mark.parametrize("name", sorted(DRAWS))
def test_a_whole_number_means_the_same_as_seed_and_as_rng(name):
    draw = DRAWS[name]
    assert np.array_equal(draw(), draw(seed=0))
    assert np.array_equal(draw(seed=5), draw(rng=5))
    assert not np.array_equal(draw(seed=5), draw(seed=6))


@pytest.mark.parametrize("name", sorted(DRAWS))
def test_a_generator_draws_anew_at_each_call_and_repeats_it_all(name):
    draw = DRAWS[name]
    rng, again = np.random.default_rng(7), np.random.default_rng(7)
    found = [draw(rng=rng), draw(rng=rng)]
    assert not np.array_equal(*found)
    assert np.array_equal(found[0], draw(rng=again))
    assert np.array_equal(found[1], draw(rng=again))


@pytest.mark.parametrize("name", sorted(DRAWS))
def test_both_are_an_error_even_where_the_seed_is_the_default(name):
    with pytest.raises(hvp.InputError, match="expected seed or rng, got both"):
        DRAWS[name](seed=0, rng=0)


def test_the_bits_of_a_seed_are_those_of_numpy():
    expected = np.random.default_rng(5).standard_normal(3)
    assert np.array_equal(generator_of(5, NOT_GIVEN).standard_normal(3), expected)
    assert np.array_equal(generator_of(DEFAULT_SEED, 5).standard_normal(3), expected)


def test_all_that_numpy_takes_is_taken():
    sequence = np.random.SeedSequence(3)
    child = sequence.spawn(1)[0]
    for first, second in ((sequence, child), ([1, 2], [1, 3]), *[(b(1), b(2)) for b in BITS]):
        assert seed_of(DEFAULT_SEED, first) != seed_of(DEFAULT_SEED, second)
    assert seed_of(DEFAULT_SEED, sequence) == seed_of(DEFAULT_SEED, np.random.SeedSequence(3))
    assert seed_of(DEFAULT_SEED, np.int64(3)) == 3
    assert type(seed_of(np.int64(3), NOT_GIVEN)) is int


def test_none_is_fresh_entropy():
    assert seed_of(DEFAULT_SEED, None) != seed_of(DEFAULT_SEED, None)


@pytest.mark.parametrize("wrong", [-1, 1.5, True, None, "1", np.random.default_rng(0)])
def test_what_is_no_seed_is_refused(wrong):
    with pytest.raises(hvp.InputError, match="expected a seed that is a whole number"):
        seed_of(wrong, NOT_GIVEN)


@pytest.mark.parametrize(
    ("wrong", "message"), [(-1, "whole number"), ("x", "NumPy"), ({}, "NumPy")]
)
def test_what_is_no_generator_is_refused(wrong, message):
    with pytest.raises(hvp.InputError, match=message):
        seed_of(DEFAULT_SEED, wrong)


def test_a_result_tells_the_seed_that_repeats_it():
    drawn = hvp.density(A, num_probes=2, num_steps=4, rng=np.random.default_rng(1))
    again = hvp.density(A, num_probes=2, num_steps=4, seed=drawn.seed)
    assert np.array_equal(drawn.nodes, again.nodes)
    assert 0 <= drawn.seed < 2**53
