"""The loss along directions, against losses whose derivatives are known."""

import numpy as np
import pytest
import tensorflow as tf
from support.dense_curvature import DenseCurvature
from support.matrices import network

import hvp
from hvp.comparison import taylor_remainder


class Quartic:
    """L(w) = 1 + gᵀw + wᵀAw/2 + b Σ w³/6 + c Σ w⁴/24 around w = 0, as a backend."""

    dtype, size = np.dtype(np.float64), 3
    A = np.array([[2.0, 1.0, 0.0], [1.0, -3.0, 0.5], [0.0, 0.5, 1.0]])
    g = np.array([0.5, -1.0, 0.25])

    def __init__(self, third=0.0, fourth=0.0, *, wrong_H=0.0, wrong_g=0.0):
        self.third, self.fourth = third, fourth
        self.wrong_H, self.wrong_g = wrong_H, wrong_g
        self.theta, self.num_losses = np.zeros(3), 0

    def loss(self, theta=None):
        w = self.theta if theta is None else theta
        self.num_losses += 1
        powers = self.third * np.sum(w**3) / 6 + self.fourth * np.sum(w**4) / 24
        return float(1 + self.g @ w + w @ self.A @ w / 2 + powers)

    def gradient(self):
        return self.g + self.wrong_g

    def hvp(self, v):
        return self.A @ v + self.wrong_H * v

    gnvp = hvp


V = np.array([[1.0, 0.0], [2.0, 0.0], [2.0, 5.0]])


def test_a_quadratic_loss_is_its_parabola():
    lin = Quartic()
    found = hvp.loss_slice(lin, V, radius=2.0)
    unit = V / [3.0, 5.0]
    np.testing.assert_allclose(found.slopes, lin.g @ unit)
    np.testing.assert_allclose(found.curvatures, np.diag(unit.T @ lin.A @ unit))
    np.testing.assert_allclose(found.losses, found.parabolas, atol=1e-13)
    np.testing.assert_allclose(found.measured, found.curvatures, atol=1e-12)
    assert (found.differences < 1e-12).all()
    assert np.isnan(found.orders).all()  # nothing but rounding


def test_steps_are_distances_from_the_parameters():
    found = hvp.loss_slice(Quartic(fourth=2.0), V, radius=[0.5, 3.0], num_points=9)
    np.testing.assert_allclose(found.steps, np.outer([0.5, 3.0], np.linspace(-1, 1, 9)))
    line = found.losses[1]
    w = np.array([0.0, 0.0, 3.0])  # the second direction has length five
    assert line[-1] == pytest.approx(Quartic(fourth=2.0).loss(w))
    assert line[4] == found.loss == 1.0


def test_the_remainder_of_a_quartic_is_known():
    third, fourth, t = 3.0, -2.0, np.linspace(-0.5, 0.5, 21)
    found = hvp.loss_slice(Quartic(third, fourth), np.eye(3), radius=0.5)
    expected = third * t**3 / 6 + fourth * t**4 / 24
    for line, parabola in zip(found.losses, found.parabolas, strict=True):
        np.testing.assert_allclose(line - parabola, expected, atol=1e-14)
    # Richardson's extrapolation is exact for polynomials of degree five.
    np.testing.assert_allclose(found.measured, found.curvatures, atol=1e-11)


@pytest.mark.parametrize(
    ("wrong", "order"),
    [({}, 3.0), ({"third": 0.0}, 4.0), ({"wrong_H": 0.3}, 2.0), ({"wrong_g": 0.3}, 1.0)],
    ids=["right", "right and even", "wrong H", "wrong gradient"],
)
def test_the_order_says_what_is_wrong(wrong, order):
    lin = Quartic(**{"third": 1.0, "fourth": 1.0, **wrong})
    found = hvp.loss_slice(lin, np.eye(3), radius=0.1)
    np.testing.assert_allclose(found.orders, order, atol=0.1)


def test_the_measured_curvature_does_not_follow_a_wrong_hessian():
    lin = Quartic(third=1.0, fourth=1.0, wrong_H=0.3)
    found = hvp.loss_slice(lin, np.eye(3), radius=0.1)
    np.testing.assert_allclose(found.measured, np.diag(lin.A), atol=1e-9)
    np.testing.assert_allclose(found.curvatures - found.measured, 0.3, atol=1e-9)
    sizes = np.maximum(np.abs(np.diag(lin.A)), np.abs(np.diag(lin.A) + 0.3))
    np.testing.assert_allclose(found.differences, 0.3 / sizes, rtol=1e-6)


def test_the_measured_curvature_is_right_within_its_error():
    # The second derivative of exp(2t) + sin(3t) at 0 is 4, with derivatives of all orders.
    steps = np.linspace(-1.0, 1.0, 21)[None] * np.array([[1.0], [0.1], [1e-3]])
    values = np.exp(2 * steps) + np.sin(3 * steps)
    value, error = taylor_remainder.second_derivatives(steps, values, 4e-16)
    assert (np.abs(value - 4) <= error).all()
    assert (error < [0.03, 1e-5, 1e-5]).all()
    noisy = values + 1e-6 * np.random.default_rng(0).uniform(-1, 1, values.shape)
    value, error = taylor_remainder.second_derivatives(steps, noisy, 1e-6)
    assert (np.abs(value - 4) <= error).all()
    assert error[1] < 2.0


def test_rounding_is_not_taken_for_a_remainder():
    steps = np.linspace(-1.0, 1.0, 21)[None]
    remainders = 1e-6 * np.abs(steps) ** 3 + 1e-8 * np.random.default_rng(0).uniform(size=21)
    assert taylor_remainder.orders(remainders, 1e-8)[0] == pytest.approx(3.0, abs=0.3)
    assert np.isnan(taylor_remainder.orders(1e-3 * remainders, 1e-8)[0])


def test_it_is_the_hessian_of_a_network():
    rng = np.random.default_rng(3)
    x, y = rng.standard_normal((20, 4)), rng.standard_normal((20, 1))
    lin = hvp.linearize_function(
        lambda z, batch: tf.reduce_mean((z - batch[1]) ** 2),
        [rng.standard_normal((4, 3)) / 2, rng.standard_normal((3, 1))], (x, y),
        outputs=lambda w, batch: tf.tanh(batch[0] @ w[0]) @ w[1], reduction="mean", batch_size=7,
        jit=False,
    )  # fmt: skip
    pairs = hvp.eigsh(hvp.Hessian(lin), 2, which="BE")
    found = hvp.loss_slice(lin, pairs, 0.2)
    assert found.names == ("eigenvector -1", "eigenvector 1")
    np.testing.assert_allclose(found.curvatures, pairs.values, atol=1e-10)
    assert (np.abs(found.measured - found.curvatures) <= found.measured_errors).all()
    assert (found.differences < 1e-3).all()
    np.testing.assert_allclose(found.orders, 3.0, atol=0.3)
    assert found.losses[0, 3] == pytest.approx(
        lin.loss(lin.theta + found.steps[0, 3] * pairs.vectors[:, 0])
    )


def test_without_a_radius_the_parabola_moves_by_half_of_the_loss():
    lin = DenseCurvature.random()
    found = hvp.loss_slice(lin, np.eye(lin.size)[:, :4])
    t = found.steps[:, -1]
    moved = np.abs(found.slopes) * t + np.abs(found.curvatures) * t**2 / 2
    expected = abs(lin.loss()) / 2
    length = np.linalg.norm(lin.theta)
    assert ((np.abs(moved - expected) < 1e-9 * expected) | (t == length)).all()
    assert (t <= length).all()
    flat = hvp.linearize_function(lambda w: tf.reduce_sum(w) * 0.0, np.zeros(2))
    assert hvp.loss_slice(flat, np.eye(2)).steps[:, -1].tolist() == [1.0, 1.0]


def test_each_loss_is_evaluated_once_and_counted():
    lin, reported = Quartic(third=1.0), []
    found = hvp.loss_slice(lin, V, radius=1.0, num_points=11, progress=reported.append)
    assert lin.num_losses == found.num_losses == reported[-1] == 1 + 2 * 10
    assert reported == list(range(1, 22))


def test_rows_are_the_points():
    found = hvp.loss_slice(Quartic(third=1.0), V, radius=1.0, num_points=9, names=["a", "b"])
    rows = found.rows()
    assert [row["direction"] for row in rows] == 9 * ["a"] + 9 * ["b"]
    assert [row["t"] for row in rows] == found.steps.ravel().tolist()
    assert [row["loss"] for row in rows] == found.losses.ravel().tolist()
    assert [row["parabola"] for row in rows] == found.parabolas.ravel().tolist()


def test_where_the_loss_is_not_finite_it_is_nan():
    lin = hvp.linearize_function(lambda w: tf.math.log(w[0]) * w[0], np.array([1.0]))
    found = hvp.loss_slice(lin, np.ones(1), radius=2.0)
    assert np.isnan(found.losses[0, :5]).all()
    assert np.isfinite(found.losses[0, 6:]).all()
    # Half a radius from w the loss is known, and so is its second derivative there: 1/w.
    near = hvp.loss_slice(lin, np.ones(1), radius=1.5)
    assert near.measured[0] == pytest.approx(1.0, abs=near.measured_errors[0])
    far = hvp.loss_slice(lin, np.ones(1), radius=20.0)
    assert np.isnan([far.measured[0], far.measured_errors[0], far.differences[0]]).all()


def test_a_table_says_what_was_found():
    found = hvp.loss_slice(Quartic(third=1.0), V, radius=0.5)
    lines = repr(found).splitlines()
    assert lines[0] == "Loss along 2 directions, 41 values"
    assert lines[2].split()[:3] == ["direction", "1", "0.5"]
    assert f"{found.curvatures[0]:.6g}" in lines[2]
    assert found._repr_html_().startswith("<table><caption>Loss along 2 directions")
    single = hvp.loss_slice(Quartic(third=1.0), V[:, :1], radius=0.5)
    assert repr(single).startswith("Loss along 1 direction, ")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"directions": np.ones(4)}, r"directions of shape \(3,\) or \(3, K\), got \(4,\)"),
        ({"directions": np.ones((3, 0))}, r"directions of shape \(3,\) or \(3, K\), got \(3, 0\)"),
        ({"directions": np.ones((3, 1, 1))}, r"directions of shape \(3,\)"),
        ({"directions": np.zeros(3)}, "directions that are finite and not zero"),
        ({"directions": [1.0, np.nan, 0.0]}, "directions that are finite and not zero"),
        ({"directions": "top"}, "Eigenpairs or an array of directions, got 'top'"),
        ({"directions": None}, r"Eigenpairs or an array|directions of shape"),
        ({"radius": 0.0}, "a radius above zero, got 0.0"),
        ({"radius": np.inf}, "a radius above zero, got inf"),
        ({"radius": [1.0, 2.0, 3.0]}, "a radius, or one for each of 2 directions"),
        ({"radius": "far"}, "a radius, or one for each of 2 directions, got 'far'"),
        ({"num_points": 20}, "an odd num_points of at least 9, got 20"),
        ({"num_points": 7}, "an odd num_points of at least 9, got 7"),
        ({"names": ["one"]}, "2 names, got"),
        ({"names": "ab"}, "2 names, got 'ab'"),
    ],
)
def test_bad_input_is_refused(arguments, words):
    with pytest.raises(hvp.InputError, match=words):
        hvp.loss_slice(Quartic(), **{"directions": V, **arguments})


def test_another_object_or_point_is_refused():
    with pytest.raises(hvp.InputError, match=r"a Linearization, got ndarray; call hvp\.linearize"):
        hvp.loss_slice(np.eye(3), np.ones(3))

    class Broken(Quartic):
        def loss(self, theta=None):
            return float("inf")

    with pytest.raises(hvp.InputError, match="a finite loss at w, got NaN or infinity"):
        hvp.loss_slice(Broken(), V)


def test_a_comparison_holds_the_slices_of_the_ends_of_its_hessian():
    lin = network()
    found = hvp.compare(lin, 3, results="ends", layers=False)
    H = found.whole.H
    assert found.slices.names == ("largest λ", "smallest λ")
    ends = [H.largest.values[-1], H.smallest.values[0]]
    np.testing.assert_allclose(found.slices.curvatures, ends, rtol=1e-6)
    np.testing.assert_allclose(found.slices.losses, found.slices.parabolas, atol=1e-12)
    without = hvp.compare(lin, 3, results="ends", layers=False, matrices="G")
    assert without.slices is None
    assert without.to_json()["slices"] is None


def test_the_document_holds_the_slices():
    found = hvp.compare(network(), 2, results="ends", layers=False)
    first, _ = found.to_json()["slices"]
    assert first["direction"] == "largest λ"
    for key, values in (
        ("t", found.slices.steps), ("losses", found.slices.losses),
        ("curvature", found.slices.curvatures), ("slope", found.slices.slopes),
        ("measured", found.slices.measured), ("measured_error", found.slices.measured_errors),
    ):  # fmt: skip
        assert first[key] == values[0].tolist()
    assert first["order"] is None


def test_a_single_parameter_has_a_single_slice():
    lin = hvp.linearize_function(
        lambda z: z**2, np.array([3.0]), outputs=lambda w: tf.reduce_sum(w)
    )
    found = hvp.compare(lin, 1, results="ends").slices
    assert found.names == ("largest λ",)
    assert found.curvatures == pytest.approx([2.0])
