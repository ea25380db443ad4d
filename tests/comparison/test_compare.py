"""`hvp.compare` against dense algebra, and what it writes."""

import dataclasses
import hashlib
import json
import platform
import sys

import keras
import matplotlib.image
import numpy as np
import pytest
import scipy.linalg
import tensorflow as tf
from support.matrices import Known
from support.matrices import network as known_network

import hvp
import hvp.comparison.run
import hvp.report.matplotlib_figure
from hvp.comparison.plan import Effort
from hvp.comparison.run import Run
from hvp.report import summary
from hvp.sampling_error import jackknife

K = 4
REPEATABLE = {"ad": "forward-over-reverse", "jit": False}
TOL = 1e-8
# Where the density is not what is tested.
FEW = {"num_probes": 4, "num_steps": 8}


def network(hidden=6, seed=0):
    keras.utils.set_random_seed(seed)
    model = keras.Sequential(
        [
            keras.Input((5,), dtype="float64"),
            keras.layers.Dense(hidden, "tanh", dtype="float64", name="hidden"),
            keras.layers.Dense(3, dtype="float64", name="last"),
        ]
    )
    model.compile(
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True, dtype="float64")
    )
    return model


def examples():
    rng = np.random.default_rng(1)
    return rng.standard_normal((40, 5)), rng.integers(0, 3, 40)


@pytest.fixture(scope="module")
def model():
    return network()


@pytest.fixture(scope="module")
def lin(model):
    return hvp.linearize(model, examples(), batch_size=17, **REPEATABLE)


@pytest.fixture(scope="module")
def comparison(lin):
    return hvp.compare(lin, K, tol=TOL, seed=3, title="a small network", **FEW)


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


WRITTEN = ("compare.json", "compare.html", "compare.png", "compare.svg", "compare.npz")
PARTS = ("whole network", "hidden", "last")


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


def without_times(plain):
    if isinstance(plain, dict):
        return {k: without_times(v) for k, v in plain.items() if k != "seconds"}
    return [without_times(v) for v in plain] if isinstance(plain, list) else plain


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


@pytest.fixture(scope="module")
def written(comparison, tmp_path_factory):
    directory = tmp_path_factory.mktemp("comparison") / "made" / "on the way"
    assert comparison.save(directory) == tuple(directory / name for name in WRITTEN)
    return directory


def strict(text):
    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(text, parse_constant=refuse)


@pytest.fixture(scope="module")
def document(written):
    return strict((written / "compare.json").read_text(encoding="utf-8"))


def test_the_document_begins_with_its_schema(document):
    assert next(iter(document.items())) == ("schema", 7)


def test_the_document_holds_every_item(document, comparison, model):
    for name in ("title", "loss", "gradient_norm", "accuracy", "num_examples", "size", "k"):
        assert document[name] == getattr(comparison, name)
    assert document["title"] == "a small network"
    assert (document["seed"], document["dtype"], document["tol"]) == (3, "float64", TOL)
    assert document["findings"] == []
    flat = np.concatenate([w.ravel() for w in model.get_weights()])
    assert document["weights_sha256"] == hashlib.sha256(flat.tobytes()).hexdigest()
    assert len(document["data_sha256"]) == 64
    assert document["num_products"] > 0
    assert document["seconds"] > 0


def test_the_document_contains_the_versions(document):
    for package in ("tensorflow", "keras", "numpy", "scipy", "hvp"):
        assert document["versions"][package] == sys.modules[package].__version__
    assert document["versions"]["python"] == platform.python_version()


def test_the_numbers_survive_the_file_bit_for_bit(document, comparison):
    assert list(document["parts"]) == list(PARTS)
    for name, part in comparison.parts.items():
        plain = document["parts"][name]
        assert plain["size"] == part.size
        assert plain["principal_angles"] == [list(angles) for angles in part.angles_by_count]
        assert plain["distance"] == estimate(part.distance)
        assert plain["overlap"] == part.overlap
        for operator in "HGR":
            ends = getattr(part, operator)
            assert plain[operator]["num_products"] == ends.num_products > 0
            assert plain[operator]["seconds"] == ends.seconds > 0
            for end in ("largest", "smallest"):
                pairs = getattr(ends, end)
                assert plain[operator][end]["values"] == list(pairs.values)
                assert plain[operator][end]["errors"] == list(pairs.errors)
                assert plain[operator][end]["separate"] == list(pairs.separate)
                moved = getattr(part.sampling[operator], end)
                assert plain[operator][end]["sampling"] == list(moved)
            density = plain[operator]["density"]
            assert density["nodes"] == ends.density.nodes.tolist()
            assert density["weights"] == ends.density.weights.tolist()
            assert density["outliers"] == ends.density.outliers.tolist()
            assert plain[operator]["unseen"] == list(ends.unseen)


def estimate(found, sampling=None):
    sampling = found.sampling if sampling is None else sampling
    return {
        "value": found.value,
        "stderr": found.stderr,
        "depth": found.depth,
        "sampling": None if np.isnan(sampling) else sampling,
    }


def test_traces_noise_and_counts_survive_the_file(document, comparison):
    for name, row in (("", document["traces"]["whole"]), *document["traces"]["layers"].items()):
        for operator, found in comparison.traces.items():
            block = found.layers[name] if name else found.whole
            sampled = comparison.parts[name or "whole network"].sampling[operator]
            assert 0 < sampled.squared_norm < block.squared_norm.value or operator == "R"
            assert row[operator]["trace"] == estimate(block.trace, sampled.trace)
            norm = estimate(block.squared_norm, sampled.squared_norm)
            assert row[operator]["squared_norm"] == norm
        share = comparison.shares.layers[name] if name else comparison.shares.whole
        assert row["share of R"]["trace"] == estimate(share.trace)
    assert document["negative"] == estimate(comparison.negative)
    assert document["rank"] == estimate(comparison.rank)
    assert document["rank_bound"] == comparison.rank_bound
    for operator, noise in comparison.noise.items():
        assert document["noise"][operator]["asymmetry"] == noise.asymmetry
        assert document["noise"][operator]["shadow"] is None  # float64 has no shadow
        assert document["noise"][operator]["floor"] == noise.floor
    assert document["command"] == comparison.command


def test_the_chain_rule_survives_the_file(document, comparison):
    assert len(document["chain_rule"]) == 3
    for plain, row in zip(document["chain_rule"], comparison.chain_rule, strict=True):
        gap, larger = abs(row.vHv - row.vGv), max(abs(row.vHv), abs(row.vGv))
        assert plain == {
            "layer": row.layer,
            "vHv": row.vHv,
            "vGv": row.vGv,
            "vRv": row.vRv,
            "rounding": row.rounding,
            "relative_difference": 0 if row.layer == "last" else gap / larger,
        }


def test_the_picture_opens_and_is_not_blank(written):
    pixels = matplotlib.image.imread(written / "compare.png")
    assert min(pixels.shape[:2]) > 300
    assert len(np.unique(pixels.reshape(-1, pixels.shape[2]), axis=0)) > 20


def test_the_page_is_that_of_the_comparison_and_text_of_the_drawing_stays_text(written, comparison):
    page = (written / "compare.html").read_text(encoding="utf-8")
    assert "<h1>a small network</h1>" in page
    assert comparison.weights_sha256 in page
    drawing = (written / "compare.svg").read_text(encoding="utf-8")
    assert drawing.count("<path") > 20
    assert ">a small network: the spectra of" in drawing


def test_saving_leaves_five_files_and_no_drafts(written):
    assert sorted(path.name for path in written.iterdir()) == sorted(WRITTEN)


def fail(*arguments):
    arguments[-1].write_bytes(b"half a picture")
    raise OSError("no space left")


def test_a_picture_that_fails_leaves_nothing_behind(comparison, tmp_path, monkeypatch):
    monkeypatch.setattr(hvp.report.matplotlib_figure, "save_comparison", fail)
    with pytest.raises(OSError, match="no space left"):
        comparison.save(tmp_path / "out")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_picture_that_fails_keeps_what_was_there(comparison, tmp_path, monkeypatch):
    comparison.save(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    monkeypatch.setattr(hvp.report.matplotlib_figure, "save_comparison", fail)
    with pytest.raises(OSError, match="no space left"):
        dataclasses.replace(comparison, title="another").save(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_number_that_is_not_json_is_refused_and_leaves_nothing(comparison, tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        dataclasses.replace(comparison, loss=float("inf")).save(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def matrices():
    """A network of known matrices, and its comparison."""
    lin = known_network()
    return lin, hvp.compare(lin, K, tol=1e-6, num_probes=10)


def block(lin, name, operator):
    rows = slice(None)
    if name in lin.sizes:
        (i,) = lin.layout.layers[name]
        rows = lin.layout.slices[i]
    return lin.dense(operator)[rows, rows]


@pytest.mark.parametrize("operator", ["H", "G", "R"])
def test_densities_have_the_traces_of_dense_matrices(matrices, operator):
    lin, found = matrices
    for name, part in found.parts.items():
        d = getattr(part, operator).density
        np.testing.assert_allclose(d.weights.sum(axis=1), 1.0)
        bulk = (part.size - len(d.outliers)) * np.sum(d.nodes * d.weights, axis=1)
        traces = bulk + d.outliers.sum()  # one a probe
        true = np.trace(block(lin, name, operator))
        error = traces.std(ddof=1) / np.sqrt(len(traces))
        assert abs(traces.mean() - true) <= 4 * error + 1e-9


@pytest.mark.parametrize("coarse", [False, True])
def test_traces_norms_and_shares_are_those_of_dense_matrices_within_their_errors(coarse):
    lin = known_network((("first", 150), ("last", 60)), coarse=coarse)  # P beyond 120 products
    found = hvp.compare(lin, 2)
    for name in ("", "first", "last"):
        dense = {operator: block(lin, name, operator) for operator in "HGR"}
        for operator, traces in found.traces.items():
            own = traces.layers[name] if name else traces.whole
            assert own.trace.stderr > 0
            matrix = dense[operator]
            assert abs(own.trace.value - np.trace(matrix)) < 4 * own.trace.stderr + 1e-4
            norm = np.sum(matrix**2)
            assert abs(own.squared_norm.value - norm) < 4 * own.squared_norm.stderr + 1e-4
        share = found.shares.layers[name] if name else found.shares.whole
        true = np.trace(dense["R"]) / np.trace(dense["H"])
        assert abs(share.trace.value - true) < 4 * share.trace.stderr + 1e-4


def test_the_distance_is_zero_where_h_is_g_and_that_of_sorted_eigenvalues_elsewhere(matrices):
    lin, found = matrices
    assert found.parts["last"].distance.value < 1e-15
    for name in ("whole network", "first"):
        H, G = (np.linalg.eigvalsh(block(lin, name, operator)) for operator in "HG")
        distance = found.parts[name].distance
        true = np.mean(np.abs(H - G))
        assert abs(distance.value - true) < 4 * (distance.stderr + distance.depth) + 0.02 * true


def test_sampling_errors_are_those_of_dense_batches(matrices):
    lin, found = matrices
    H, whole = found.whole.H, found.whole
    stack = lin.stacks["H"]
    for end in ("largest", "smallest"):
        V = getattr(H, end).vectors
        means = np.array([np.einsum("pk,pk->k", V, len(stack) * h @ V) for h in stack])
        true = means.std(axis=0, ddof=1) / np.sqrt(len(stack))
        np.testing.assert_allclose(getattr(whole.sampling["H"], end), true, rtol=1e-6)
    # All batches are shares of one matrix here: so much of the trace as of any eigenvalue.
    part = whole.sampling["H"].largest[-1] / H.largest.values[-1]
    for name, found_part in found.parts.items():
        matrix = block(lin, name, "H")
        trace = found_part.sampling["H"].trace / np.trace(matrix)
        assert part == pytest.approx(trace, rel=0.3)


def test_what_r_has_of_h_has_sampling_errors():
    """Shares of the matrices without each batch, against the errors by signs and one probe."""
    plain = known_network(batches=12)
    own = np.random.default_rng(0).uniform(0.5, 1.5, (12, 1, 1))
    G, R = plain.stacks["G"], own * plain.stacks["R"]
    H = G + R
    found = hvp.compare(Known(H, G, plain.sizes), 2)
    for measure, of in (("trace", np.trace), ("squared_norm", lambda A: np.sum(A**2))):
        ratios = [of(np.delete(R, b, 0).sum(0)) / of(np.delete(H, b, 0).sum(0)) for b in range(12)]
        true = jackknife(np.array(ratios)[:, None], np.full(12, 10))
        assert 0.5 * true < getattr(found.shares.whole, measure).sampling < 3 * true
        assert np.isfinite(getattr(found.shares.layers["first"], measure).sampling)


def test_a_single_batch_gives_no_sampling_error():
    found = hvp.compare(known_network(batches=1), 2)
    for part in found.parts.values():
        for sampled in part.sampling.values():
            figures = [sampled.trace, sampled.squared_norm]
            assert np.isnan([*sampled.largest, *sampled.smallest, *figures]).all()
    whole = found.to_json()["traces"]["whole"]
    assert whole["share of R"]["trace"]["sampling"] is None
    assert [whole[letter]["trace"]["sampling"] for letter in "HGR"] == [None, None, None]


def test_negative_eigenvalues_and_rank_are_counted(matrices):
    lin, found = matrices
    H, G = (np.linalg.eigvalsh(lin.dense(operator)) for operator in "HG")
    for count, true in ((found.negative, np.sum(H < 0)), (found.rank, np.sum(G > 1e-9))):
        assert abs(count.value - true) <= 4 * count.stderr + count.depth
    assert found.rank_bound == 40


def test_the_noise_of_rounded_products_is_seen_and_that_of_exact_ones_is_none(matrices):
    _, exact = matrices
    rounded = hvp.compare(known_network(coarse=True), 2)
    norm = exact.whole.H.norm
    assert exact.floor < 1e-13 * norm
    assert all(np.isnan(noise.shadow) for noise in exact.noise.values())
    assert 1e-9 * norm < rounded.floor < 1e-5 * norm


def test_angles_are_kept_for_every_count(matrices):
    lin, found = matrices
    H, G = (np.linalg.eigh(lin.dense(operator))[1] for operator in "HG")
    for i, angles in enumerate(found.whole.angles_by_count, start=1):
        true = np.sort(scipy.linalg.subspace_angles(H[:, -i:], G[:, -i:]))
        np.testing.assert_allclose(angles, true, atol=1e-4)


def test_an_eigenvalue_that_lanczos_missed_is_an_alarm(matrices):
    lin, found = matrices
    pairs = hvp.eigsh(lin.dense("H"), 2 * K, which="BE")[: 2 * K - 1]  # without the largest
    density = hvp.density(lin.dense("H"), num_probes=3, pairs=pairs)
    blind = dataclasses.replace(found.whole.H, largest=pairs[K:], density=density)
    assert found.whole.H.unseen == ()
    assert blind.unseen == ("largest",)
    part = dataclasses.replace(found.whole, spectra={**found.whole.spectra, "H": blind})
    assert hvp.comparison.run._missed_eigenvalues({part.name: part}) == [
        "different: whole network: an eigenvalue of H among its 3 largest was missed, "
        "as of a multiple one; raise k"
    ]


def test_a_layer_of_one_parameter_is_compared():
    H = np.diag([3.0, 1.0, 2.0, 5.0])[None]
    found = hvp.compare(Known(H, H, {"three": 3, "one": 1}), 2)
    one = found.parts["one"].H
    assert one.largest.values.tolist() == [5.0]
    assert one.density.nodes.ravel() == pytest.approx(5.0)


def test_the_command_is_what_was_given_or_the_call():
    H = np.diag([3.0, 1.0, 2.0, 5.0])[None]
    lin = Known(H, H, {"only": 4})
    assert hvp.compare(lin, 1, command="hvp compare").command == "hvp compare"
    assert hvp.compare(lin, 1, tol=1e-5, seed=7).command == (
        "hvp.compare(lin, k=1, tol=1e-05, num_probes=4, num_steps=80, seed=7)"
    )


def test_results_are_frozen(comparison):
    for result in (comparison, comparison.chain_rule[0], comparison.parts["last"]):
        with pytest.raises(dataclasses.FrozenInstanceError):
            result.size = 3


def test_the_data_hash_sees_every_change_of_the_data_and_no_change_of_the_batches(model):
    x, y = examples()

    def digest(data, **options):
        return hvp.linearize(model, data, **options).data_digest

    first = digest((x, y))
    assert digest((x.copy(), y.copy()), batch_size=7) == first
    moved = x.copy()
    moved[39, 4] = np.nextafter(moved[39, 4], 9)
    renamed = y.copy()
    renamed[0] = (renamed[0] + 1) % 3
    others = [(moved, y), (x, renamed), (x[::-1], y[::-1]), (x[:39], y[:39]), (x, y, np.ones(40))]
    digests = [digest(other) for other in others]
    assert first not in digests
    assert len(set(digests)) == len(others)


def test_the_weights_hash_sees_the_smallest_change_of_one_weight(comparison):
    changed = network()
    kernel = changed.layers[-1].kernel
    values = kernel.numpy()
    values[5, 2] = np.nextafter(values[5, 2], 9)
    kernel.assign(values)
    found = hvp.compare(hvp.linearize(changed, examples()), 1, tol=1e-2, **FEW)
    assert found.weights_sha256 != comparison.weights_sha256
    assert found.data_sha256 == comparison.data_sha256


@pytest.mark.sweep
def test_a_regression_has_no_accuracy(tmp_path):
    x = np.random.default_rng(4).standard_normal((9, 5))
    lin = hvp.linearize(network(), (x, np.ones((9, 3))), "mean_squared_error")
    found = hvp.compare(lin.block("last"), 2, **FEW)
    assert found.accuracy is None
    found.save(tmp_path)
    assert strict((tmp_path / "compare.json").read_text())["accuracy"] is None
