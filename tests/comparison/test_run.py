"""What is computed: parts, matrices and results that are chosen, counted and reported."""

import json

import numpy as np
import pytest
import tensorflow as tf
from support.comparisons import FEW, PARTS, TOL, K

import hvp
import hvp.comparison.run
from hvp.comparison.plan import Effort
from hvp.comparison.run import Run
from hvp.report import summary


@pytest.mark.sweep
def test_layers_can_be_left_out(lin, comparison, tmp_path):
    found = hvp.compare(lin, K, tol=TOL, seed=3, layers=False, **FEW)
    assert list(found.parts) == ["whole network"]
    assert found.num_products < comparison.num_products
    assert (found.whole.H.largest.values == comparison.whole.H.largest.values).all()
    assert found.chain_rule == comparison.chain_rule
    for name, block in comparison.traces["H"].layers.items():
        assert found.traces["H"].layers[name].trace == block.trace
    assert summary.residual(found) == ""
    assert "layers=False" in found.command
    _, page, *_ = found.save(tmp_path)
    text = page.read_text()
    assert "single layers were not computed" in text
    assert "Largest eigenvalue of each layer" not in text
    rows = json.loads((tmp_path / "compare.json").read_text())["traces"]["layers"]
    assert {row["H"]["trace"]["sampling"] for row in rows.values()} == {None}


def test_what_is_left_out_is_not_there(lin, comparison, tmp_path):
    found = hvp.compare(lin, K, tol=TOL, seed=3, matrices="H,G", results="ends")
    assert list(found.whole.spectra) == ["H", "G"]
    assert (found.whole.H.largest.values == comparison.whole.H.largest.values).all()
    assert found.whole.overlap == comparison.whole.overlap
    assert found.whole.H.density is None
    assert found.whole.distance is None
    assert (found.shares, found.negative, found.rank) == (None, None, None)
    assert (found.chain_rule, found.traces, found.rank_brackets) == ((), {}, ())
    assert found.certificate.passed
    assert "matrices='HG', results='ends'" in found.command
    with pytest.raises(hvp.InputError, match="expected R of whole network, got H, G"):
        _ = found.whole.R
    assert {row["matrix"] for row in found.rows()} == {"H", "G"}
    assert "λ_max of R" not in repr(found)


def test_the_chain_rule_alone_takes_one_product_a_layer_and_matrix(lin, comparison):
    found = hvp.compare(lin, results="chain-rule")
    assert found.chain_rule == comparison.chain_rule
    assert found.num_products == 3 * 3 + 3
    assert repr(found).count("vᵀHv") == 1
    with pytest.raises(hvp.InputError, match="expected a comparison of spectra, got none"):
        _ = found.whole


def test_a_loss_without_outputs_has_a_spectrum_of_H():
    lin = hvp.linearize_function(lambda w: tf.reduce_sum(w**4), np.array([1.0, 2.0, 3.0]))
    found = hvp.compare(lin, 1, matrices="H", results="ends")
    assert found.whole.H.largest.values == pytest.approx([12 * 9.0])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"matrices": "GR"}, "expected H beside R"),
        ({"matrices": "HX"}, "expected matrices among H, G, R, got 'X'"),
        ({"matrices": ""}, "expected matrices among H, G, R, got none"),
        ({"results": "spectra"}, "expected results among chain-rule, ends"),
        ({"matrices": "HG", "results": "chain-rule"}, "expected H, G and R for the chain rule"),
    ],
    ids=["R alone", "unknown matrix", "no matrix", "unknown result", "chain rule of two"],
)
def test_what_cannot_be_chosen_is_refused(lin, options, words):
    with pytest.raises(hvp.InputError, match=words):
        hvp.compare(lin, 2, **options)


def test_a_run_that_stops_has_what_it_computed(lin, comparison):
    run = Run(lin, Effort(K, TOL, 4, 8), seed=3)
    while run.step().label != "whole network: ends of G":
        pass
    found = run.comparison()
    assert (found.whole.H.largest.values == comparison.whole.H.largest.values).all()
    assert list(found.parts) == ["whole network"]
    assert found.unfinished[:2] == ("whole network: ends of R", "noise floor")
    assert found.certificate is None
    assert found.to_json()["certificate"] is None
    assert "Interrupted: whole network: ends of R, noise floor" in summary.unfinished(found)


class Counting:
    """A linearization that counts the columns it multiplies, its blocks' included."""

    def __init__(self, lin, counts):
        self._lin, self._counts = lin, counts

    def __getattr__(self, name):
        return getattr(self._lin, name)

    def _multiply(self, product, v):
        self._counts.append(1 if v.ndim == 1 else v.shape[1])
        return product(v)

    def hvp(self, v):
        return self._multiply(self._lin.hvp, v)

    def gnvp(self, v):
        return self._multiply(self._lin.gnvp, v)

    def residual_vp(self, v):
        return self._multiply(self._lin.residual_vp, v)

    def batch_grams(self, V, matrix):
        self._counts.append(V.shape[1])
        return self._lin.batch_grams(V, matrix)

    def products(self, v):
        return [self._multiply(lambda _, one=one: one, v) for one in self._lin.products(v)]

    def blocks(self):
        return {name: Counting(b, self._counts) for name, b in self._lin.blocks().items()}


@pytest.mark.parametrize("selection", ["*", "last"])
def test_every_product_is_counted_once(lin, selection):
    counts = []
    found = hvp.compare(Counting(lin.block(selection), counts), 2, **FEW)
    assert found.num_products == sum(counts)


def test_progress_names_each_operator_of_each_part(lin):
    seen = {}
    hvp.compare(
        lin, 2, **FEW, progress=lambda label, count: seen.setdefault(label, []).append(count)
    )
    assert list(seen) == [
        "chain rule",
        *(f"{PARTS[0]}: ends of {operator}" for operator in "HGR"),
        "noise floor",
        "certificate",
        "loss slices",
        *(f"{PARTS[0]}: density of {operator}" for operator in "HGR"),
        *(f"traces of {operator}" for operator in "HGR"),
        *(f"{name}: ends of {operator}" for name in PARTS[1:] for operator in "HGR"),
        *(f"{name}: density of {operator}" for name in PARTS[1:] for operator in "HGR"),
    ]
    assert all(counts == sorted(set(counts)) for counts in seen.values())
