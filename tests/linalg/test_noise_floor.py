"""The noise floor is what was put in."""

import numpy as np
import pytest
from scipy.sparse.linalg import LinearOperator
from support.oracles import LABELS, dense_net, examples

import hvp

RNG = np.random.default_rng(0)
A = np.diag(np.arange(1.0, 41.0))


def test_an_exact_operator_has_none():
    noise = hvp.noise_floor(A, A)
    assert noise.floor < 1e-14 * 40
    assert noise.num_products == 6


def test_asymmetry_is_seen():
    skew = np.zeros((40, 40))
    skew[0, 1], skew[1, 0] = 1e-3, -1e-3
    noise = hvp.noise_floor(A + skew, vectors=np.eye(40)[:, :2])
    assert noise.asymmetry == pytest.approx(2e-3, rel=1e-6)
    assert np.isnan(noise.shadow)
    assert noise.floor == noise.asymmetry


def test_products_that_do_not_repeat_are_seen():
    rng = np.random.default_rng(1)
    noisy = LinearOperator(
        (40, 40), matvec=lambda v: A @ v.ravel() + 1e-4 * rng.random(40), dtype=float
    )
    assert 1e-5 < hvp.noise_floor(noisy).repeatability < 1e-3


def test_the_shadow_is_that_of_the_directions_given():
    rough = A.copy()
    rough[39, 39] += 0.25
    assert hvp.noise_floor(rough, A, vectors=np.eye(40)[:, 39:]).shadow == pytest.approx(0.25)
    assert hvp.noise_floor(rough, A).shadow < 0.25


def test_the_floor_of_a_network_is_some_roundings_of_its_norm():
    lin = hvp.linearize(
        dense_net(dtype="float32"), (examples((4,), dtype="float32"), np.eye(3)[LABELS]), "mse"
    )
    H, exact = hvp.Hessian(lin), hvp.Hessian(lin.in_float64())
    top = hvp.eigsh(H, 1)
    noise = hvp.noise_floor(H, exact, vectors=top.vectors)
    norm = top.values[0]
    assert 1e-9 * norm < noise.shadow < 1e-5 * norm
    true = np.linalg.eigvalsh(exact @ np.eye(lin.size))[-1]
    assert abs(true - norm) < noise.floor + top.errors[0]


def test_a_single_direction_and_another_shape_are_refused():
    with pytest.raises(hvp.InputError, match="at least two directions, got 1"):
        hvp.noise_floor(A, num_directions=1)
    with pytest.raises(hvp.InputError, match=r"exact= of shape \(40, 40\), got \(3, 3\)"):
        hvp.noise_floor(A, np.eye(3))
