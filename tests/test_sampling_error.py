"""Quadratic forms of each batch, and the standard error that follows from them."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from support.oracles import (
    LABELS,
    cut,
    dense_net,
    examples,
    hessian,
    relative,
    softmax_loss,
    variables_of,
)
from support.sweep import sweep

import hvp
from hvp.sampling_error import BatchGrams, jackknife, sampling_error

X = examples((4,))
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def linearized(sizes=(3, 3, 1), **options):
    return hvp.linearize(dense_net(**options), cut((X, LABELS), sizes), LOSS)


@pytest.mark.parametrize("columns", [1, 4])
def test_the_forms_of_the_batches_add_up_to_those_of_the_whole(columns):
    lin = linearized()
    V = np.random.default_rng(0).standard_normal((lin.size, columns))
    for matrix, product in (("H", lin.hvp), ("G", lin.gnvp), ("R", lin.residual_vp)):
        found = lin.batch_forms(V, matrix)
        assert found.shares.shape == (3, columns)
        assert relative(found.shares.sum(axis=0), np.einsum("pk,pk->k", V, product(V))) < 1e-12
        assert found.examples.tolist() == [3, 3, 1]
        assert not found.penalty.any()


def test_a_batch_has_the_form_of_its_own_loss():
    lin = linearized()
    v = np.random.default_rng(1).standard_normal(lin.size)
    model = dense_net()
    H = hessian(lambda: softmax_loss(LABELS[3:6], model(X[3:6])), variables_of(model))
    assert lin.batch_forms(v).shares[1, 0] == pytest.approx(3 / 7 * v @ H @ v, rel=1e-10)


@pytest.mark.sweep
@pytest.mark.parametrize("columns", [0, 1, 7])
@pytest.mark.parametrize("before", sweep([None, 4], {"4"}))
@pytest.mark.parametrize("cache", sweep(["auto", 0], {"0"}))
def test_the_grams_of_the_batches_are_those_of_their_own_losses(columns, before, cache):
    model = dense_net(kernel_regularizer="l2")
    lin = hvp.linearize(model, cut((X, LABELS), (3, 3, 1)), LOSS, cache=cache)
    if before:  # so many columns at once are traced
        lin.hvp(np.eye(lin.size)[:, :before])
    V = np.random.default_rng(0).standard_normal((lin.size, columns))
    for matrix, product in (("H", lin.hvp), ("G", lin.gnvp), ("R", lin.residual_vp)):
        found = lin.batch_grams(V, matrix)
        assert found.shares.shape == (3, columns, columns)
        assert np.allclose(found.shares.sum(axis=0) + found.penalty, V.T @ product(V), rtol=1e-11)
        forms = lin.batch_forms(V, matrix)
        diagonals = np.diagonal(found.shares, axis1=1, axis2=2)
        assert np.allclose(diagonals, forms.shares, rtol=1e-12, atol=1e-14)
        assert np.allclose(np.diag(found.penalty), forms.penalty, rtol=1e-12)
        assert found.examples.tolist() == [3, 3, 1]


@pytest.mark.sweep
def test_the_density_of_a_network_has_sampling_errors():
    lin = linearized()
    d = hvp.density(hvp.Hessian(lin), num_probes=3, num_resampled=3)
    for b, kept in enumerate(([3, 4, 5, 6], [0, 1, 2, 6], [0, 1, 2, 3, 4, 5])):
        others = hvp.linearize(dense_net(), (X[kept], LABELS[kept]), LOSS)
        expected = np.linalg.eigvalsh(others.hvp(np.eye(lin.size)))
        # A Krylov space has one copy of an eigenvalue that is several times zero.
        gaps = np.abs(d.left_out.nodes[b, :, :, None] - expected).min(axis=2)
        assert gaps.max() < 1e-10
        assert np.allclose(d.left_out.nodes[b].max(axis=1), expected.max(), atol=1e-10)
    with pytest.raises(hvp.InputError, match=r"Hessian\(lin\), .*, got Fisher"):
        hvp.density(hvp.Fisher(lin), num_resampled=1)


def test_a_penalty_is_separate():
    lin = linearized(kernel_regularizer="l2")
    v = np.ones(lin.size)
    for matrix, product in (("H", lin.hvp), ("G", lin.gnvp), ("R", lin.residual_vp)):
        found = lin.batch_forms(v, matrix)
        assert found.penalty == pytest.approx(0.0 if matrix == "R" else 2 * 0.01 * 16)
        assert found.shares.sum() + found.penalty[0] == pytest.approx(v @ product(v))


def test_the_standard_error_is_that_of_other_samples():
    """Means of N numbers from one distribution, cut into batches of unequal sizes."""
    rng = np.random.default_rng(3)
    sizes = np.array([5, 20, 10, 5, 20, 10, 15, 15])
    samples = rng.exponential(2.0, (4000, sizes.sum()))
    edges = np.r_[0, np.cumsum(sizes)[:-1]]
    shares = np.add.reduceat(samples, edges, axis=1).T / sizes.sum()
    errors = sampling_error(shares, sizes)
    assert np.sqrt(np.mean(errors**2)) == pytest.approx(2 / np.sqrt(sizes.sum()), rel=0.03)


def test_a_single_batch_has_no_sampling_error():
    assert np.isnan(sampling_error(np.ones((1, 2)), np.array([7]))).all()


def test_equal_batches_have_no_error():
    assert sampling_error(np.array([[1.0], [2.0]]), np.array([10, 20])).tolist() == [0.0]


def test_a_linear_figure_has_the_sampling_error_of_its_forms():
    rng = np.random.default_rng(1)
    shares, examples = rng.standard_normal((6, 3)), np.full(6, 10)
    kept = 1 - examples / examples.sum()
    left_out = (shares.sum(axis=0) - shares) / kept[:, None]
    assert np.allclose(jackknife(left_out[:, None], examples), sampling_error(shares, examples))
    assert np.isnan(jackknife(left_out[:1, None], examples[:1])).all()


def test_the_variance_of_probes_is_subtracted_down_to_half_the_error():
    rng = np.random.default_rng(5)
    examples = np.full(400, 10)
    signal = rng.standard_normal((400, 1, 1))
    alone = jackknife(signal, examples)
    noisy = signal + 3 * rng.standard_normal((400, 9, 1))
    assert np.isclose(jackknife(noisy, examples), alone, rtol=0.1)
    assert jackknife(noisy.mean(axis=1, keepdims=True), examples) > 1.3 * alone
    noise = rng.standard_normal((400, 9, 1))
    uncorrected = jackknife(noise.mean(axis=1, keepdims=True), examples)
    assert np.isclose(jackknife(noise, examples), uncorrected / 2)


def test_batches_are_left_out_by_groups_of_neighbours():
    rng = np.random.default_rng(2)
    grams = BatchGrams(rng.standard_normal((7, 2, 2)), np.eye(2), np.arange(1, 8))
    grouped = grams.grouped(3)
    assert grouped.examples.tolist() == [3, 7, 18]
    assert np.allclose(grouped.shares.sum(axis=0), grams.shares.sum(axis=0))
    assert np.allclose(grouped.shares[0], grams.shares[:2].sum(axis=0))
    assert grams.grouped(50).examples.tolist() == grams.examples.tolist()


def test_without_outputs_there_are_no_forms():
    lin = hvp.linearize_function(lambda w: w[0] ** 2, np.ones(1))
    with pytest.raises(hvp.InputError, match="a loss that is a function of outputs"):
        lin.batch_forms(np.ones(1), "G")
    assert lin.batch_forms(np.ones(1)).shares == pytest.approx(2.0)


def test_another_matrix_has_no_forms():
    with pytest.raises(hvp.InputError, match="one of H, G and R, got F"):
        linearized().batch_forms(np.ones(1), "F")


def poisoned(which):
    """A loss whose second derivative is infinite in one batch: √|w - c| at w = c."""

    def fit(w, batch):
        return tf.reduce_sum(tf.sqrt(tf.abs(w - batch[0]) ** 3) * batch[1][:, None])

    centres = np.full((6, 2), 7.0)
    centres[which] = 1.0
    return hvp.linearize_function(
        lambda z, batch: tf.reduce_sum(z),
        np.ones(2),
        (centres, np.ones(6)),
        outputs=lambda w, batch: fit(w, batch),
        reduction="sum",
        batch_size=2,
    )


@pytest.mark.parametrize(("which", "batch"), [(1, "1 of 3"), (4, "3 of 3")])
def test_a_product_that_is_not_finite_names_its_batch(which, batch):
    with pytest.raises(hvp.InputError, match=f"finite products with H, .* in batch {batch}"):
        hvp.eigsh(hvp.Hessian(poisoned(which)), 1)
