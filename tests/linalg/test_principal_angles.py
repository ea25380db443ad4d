"""Principal angles, against SciPy's and closed forms."""

import numpy as np
import pytest
import scipy.linalg

from hvp.linalg.principal_angles import principal_angles


@pytest.mark.parametrize(("k", "m"), [(1, 1), (3, 3), (2, 5), (5, 2)])
@pytest.mark.parametrize("apart", [1.0, 1e-3, 1e-9], ids=["far", "near", "nearly the same"])
def test_they_are_those_of_scipy(k, m, apart):
    rng = np.random.default_rng(0)
    W = rng.standard_normal((200, max(k, m)))
    U, V = W[:, :k], W[:, :m] + apart * rng.standard_normal((200, m))
    expected = np.sort(scipy.linalg.subspace_angles(U, V))
    np.testing.assert_allclose(principal_angles(U, V), expected, rtol=1e-6, atol=1e-14)


def test_equal_and_orthogonal_spaces():
    Q = scipy.linalg.qr(np.random.default_rng(0).standard_normal((50, 50)))[0]
    np.testing.assert_allclose(principal_angles(Q[:, :3], Q[:, [2, 0, 1]]), 0, atol=1e-14)
    np.testing.assert_allclose(principal_angles(Q[:, :3], Q[:, 3:6]), np.pi / 2, rtol=1e-14)
    np.testing.assert_allclose(
        principal_angles(Q[:, :2], Q[:, 1:3]), [0, np.pi / 2], rtol=1e-14, atol=1e-14
    )


def test_a_long_float32_space_is_no_rounding():
    """P times the precision is above one: SciPy finds no angle at all there."""
    size = 9_000_000
    u, v = (np.zeros((size, 1), np.float32) for _ in range(2))
    u[::2] = v[::3] = 1
    cosine = np.sqrt(2 * 3) / 6
    assert size * np.finfo(np.float32).eps > 1
    np.testing.assert_allclose(principal_angles(u, v), [np.arccos(cosine)], rtol=1e-7)
