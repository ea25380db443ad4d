"""`hvp.compare` against dense algebra."""

import json

import numpy as np
import pytest
import scipy.linalg
import tensorflow as tf
from support.comparisons import FEW, PARTS, REPEATABLE, TOL, K, examples, network

import hvp


@pytest.fixture(scope="module", params=[6, 60], ids=["taken whole", "iterated"])
def case(request, comparison, lin):
    """A comparison, and part -> the matrices H, G and R."""
    if request.param != 6:
        lin = hvp.linearize(network(request.param), examples())
        comparison = hvp.compare(lin, K, tol=1e-5, **FEW)
    parts = {"whole network": lin, **lin.blocks()}
    dense = {
        name: {
            "H": part.hvp(np.eye(part.size)),
            "G": part.gnvp(np.eye(part.size)),
            "R": part.residual_vp(np.eye(part.size)),
        }
        for name, part in parts.items()
    }
    return comparison, dense


@pytest.mark.parametrize("operator", ["H", "G", "R"])
@pytest.mark.parametrize("name", PARTS)
def test_both_ends_agree_with_dense_eigenvalues(case, name, operator):
    comparison, dense = case
    matrix = dense[name][operator]
    values = np.linalg.eigvalsh((matrix + matrix.T) / 2)
    scale = np.linalg.norm(dense[name]["H"], 2)
    ends = getattr(comparison.parts[name], operator)
    atol = 10 * comparison.tol * scale
    np.testing.assert_allclose(ends.largest.values, values[-K:], atol=atol)
    # G is singular many times over. Where Lanczos sees one copy of zero, the others are bounds.
    if operator == "G":
        atol = 1e-3 * scale
    np.testing.assert_allclose(ends.smallest.values, values[:K], atol=atol)
    for pairs in (ends.largest, ends.smallest):
        true = np.linalg.norm(matrix @ pairs.vectors - pairs.vectors * pairs.values, axis=0)
        np.testing.assert_allclose(pairs.errors, true, atol=1e-12)
        distances = np.abs(values[:, None] - pairs.values).min(axis=0)
        assert (distances <= pairs.errors + 1e-12).all()


def test_the_parts_are_the_network_and_each_layers_own_block(case):
    comparison, dense = case
    sizes = {name: part.size for name, part in comparison.parts.items()}
    assert sizes == {name: len(dense[name]["H"]) for name in PARTS}
    H, cut = dense["whole network"]["H"], sizes["hidden"]
    np.testing.assert_allclose(dense["hidden"]["H"], H[:cut, :cut], atol=1e-14)
    np.testing.assert_allclose(dense["last"]["H"], H[cut:, cut:], atol=1e-14)


@pytest.mark.parametrize("name", PARTS)
def test_angles_are_those_between_dense_top_spaces(case, name):
    comparison, dense = case
    H, G = (np.linalg.eigh(dense[name][operator])[1][:, -K:] for operator in "HG")
    expected = np.sort(scipy.linalg.subspace_angles(H, G))
    part = comparison.parts[name]
    atol = 1000 * comparison.tol
    np.testing.assert_allclose(part.angles, expected, atol=atol)
    assert part.overlap == pytest.approx(np.linalg.norm(H.T @ G) ** 2 / K, abs=atol)


def test_the_overlap_is_whole_in_the_last_layer_only(comparison):
    overlaps = {name: part.overlap for name, part in comparison.parts.items()}
    assert overlaps["last"] == pytest.approx(1.0, abs=1e-9)
    assert 0 < overlaps["whole network"] < 0.999


def test_the_chain_rule_is_in_it(comparison, lin):
    assert comparison.chain_rule == hvp.chain_rule(lin)
    assert [row.layer for row in comparison.chain_rule] == ["hidden", "last", "whole network"]


def test_many_batches_are_left_out_in_fewer_groups():
    rng = np.random.default_rng(0)
    lin = hvp.linearize_function(
        lambda z, batch: tf.reduce_sum(z**2),
        rng.normal(size=(3, 2)),
        (rng.normal(size=(60, 3)),),
        outputs=lambda w, batch: tf.tanh(batch[0] @ w),
        reduction="sum",
        batch_size=1,
        **REPEATABLE,
    )
    found = hvp.compare(lin, 1, **FEW).whole.sampling["H"]
    assert (len(found.examples), len(found.group_examples)) == (60, 50)
    assert found.group_examples.sum() == 60
    assert 0 < found.squared_norm < np.inf


def test_loss_gradient_and_accuracy_are_those_of_keras(comparison, model):
    x, y = examples()
    with tf.GradientTape() as tape:
        logits = model(x)
        loss = tf.reduce_mean(
            tf.nn.sparse_softmax_cross_entropy_with_logits(labels=y, logits=logits)
        )
    gradient = tape.gradient(loss, [v.value for v in model.trainable_variables])
    flat = np.concatenate([g.numpy().ravel() for g in gradient])
    assert comparison.loss == pytest.approx(float(loss), rel=1e-12)
    assert comparison.gradient_norm == pytest.approx(np.linalg.norm(flat), rel=1e-10)
    assert comparison.accuracy == np.mean(logits.numpy().argmax(axis=1) == y)
    assert (comparison.num_examples, comparison.size, comparison.k) == (40, 57, K)


def without_times(plain):
    if isinstance(plain, dict):
        return {k: without_times(v) for k, v in plain.items() if k != "seconds"}
    return [without_times(v) for v in plain] if isinstance(plain, list) else plain


@pytest.mark.sweep
def test_the_same_seed_gives_the_same_numbers(comparison, lin):
    again = hvp.compare(lin, K, tol=TOL, seed=3, title="a small network", **FEW)
    assert without_times(again.to_json()) == without_times(comparison.to_json())


def test_a_layer_smaller_than_k_gives_all_but_one():
    rng = np.random.default_rng(2)
    params = [rng.standard_normal((5, 4)), rng.standard_normal(3), rng.standard_normal(())]

    def outputs(w):
        return tf.concat([tf.reshape(tf.tanh(w[0]), [-1]), w[1] ** 2, [w[2]]], 0) * w[2]

    lin = hvp.linearize_function(lambda z: tf.reduce_sum(z**2), params, outputs=outputs)
    found = hvp.compare(lin, 6, **FEW)
    counts = {name: len(part.H.largest.values) for name, part in found.parts.items()}
    assert counts == {"whole network": 6, "param0": 6, "param1": 2, "param2": 1}
    for name, block in lin.blocks().items():
        values = np.linalg.eigvalsh(block.hvp(np.eye(block.size)))
        ends = found.parts[name].H
        atol = 1e-3 * np.abs(values).max()
        np.testing.assert_allclose(ends.largest.values, values[-counts[name] :], atol=atol)
        np.testing.assert_allclose(ends.smallest.values, values[: counts[name]], atol=atol)


@pytest.mark.sweep
def test_a_single_layer_is_compared_once_under_both_names(lin, tmp_path):
    counts = {}
    block = lin.block("last")
    found = hvp.compare(
        block, 3, **FEW, progress=lambda label, count: counts.update({label: count})
    )
    assert {name: part.name for name, part in found.parts.items()} == {
        "selected layers": "selected layers",
        "last": "last",
    }
    assert found.parts["selected layers"].H.largest is found.parts["last"].H.largest
    assert sum(label.startswith("last") for label in counts) == 0
    assert [row.layer for row in found.chain_rule] == ["last"]
    found.save(tmp_path)
    assert json.loads((tmp_path / "compare.json").read_text())["size"] == 21


def test_a_residual_that_is_zero_is_found_zero(lin):
    part = hvp.compare(lin.block("last"), 3, **FEW).parts["last"]
    top = part.H.largest.values[-1]
    for pairs in (part.R.largest, part.R.smallest):
        assert np.abs(pairs.values).max() < 1e-12 * top


@pytest.mark.parametrize("k", [0, -1, 57, 1000])
def test_k_outside_the_spectrum_is_refused(lin, k):
    message = f"expected k from 1 to 56 for 57 parameters, got {k}; lower it"
    with pytest.raises(hvp.InputError, match=message):
        hvp.compare(lin, k)


def test_a_loss_that_is_no_function_of_outputs_is_refused():
    lin = hvp.linearize_function(lambda w: tf.reduce_sum(w**2), np.ones(3))
    with pytest.raises(hvp.InputError, match="a loss that is a function of outputs"):
        hvp.compare(lin, 1)
