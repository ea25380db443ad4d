"""What a comparison writes: the numbers survive, and half a result is never left."""

import dataclasses
import hashlib
import json
import platform
import sys

import matplotlib.image
import numpy as np
import pytest
from packaging.version import Version
from support.comparisons import FEW, PARTS, TOL, examples, network
from support.matrices import Known

import hvp
import hvp.report.matplotlib_figure

WRITTEN = ("compare.json", "compare.html", "compare.png", "compare.svg", "compare.npz")


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
        # A pre-release has another spelling in its metadata.
        assert Version(document["versions"][package]) == Version(sys.modules[package].__version__)
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


@pytest.mark.sweep
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


@pytest.mark.sweep
def test_a_picture_that_fails_leaves_nothing_behind(comparison, tmp_path, monkeypatch):
    monkeypatch.setattr(hvp.report.matplotlib_figure, "save_comparison", fail)
    with pytest.raises(OSError, match="no space left"):
        comparison.save(tmp_path / "out")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.sweep
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


@pytest.mark.sweep
def test_a_regression_has_no_accuracy(tmp_path):
    x = np.random.default_rng(4).standard_normal((9, 5))
    lin = hvp.linearize(network(), (x, np.ones((9, 3))), "mean_squared_error")
    found = hvp.compare(lin.block("last"), 2, **FEW)
    assert found.accuracy is None
    found.save(tmp_path)
    assert strict((tmp_path / "compare.json").read_text())["accuracy"] is None


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


@pytest.mark.sweep
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


@pytest.mark.sweep
def test_the_weights_hash_sees_the_smallest_change_of_one_weight(comparison):
    changed = network()
    kernel = changed.layers[-1].kernel
    values = kernel.numpy()
    values[5, 2] = np.nextafter(values[5, 2], 9)
    kernel.assign(values)
    found = hvp.compare(hvp.linearize(changed, examples()), 1, tol=1e-2, **FEW)
    assert found.weights_sha256 != comparison.weights_sha256
    assert found.data_sha256 == comparison.data_sha256
