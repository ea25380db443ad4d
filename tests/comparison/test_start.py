"""A comparison that starts from an earlier one, and the files that it cannot start from."""

import re

import keras
import numpy as np
import pytest
from support.sweep import sweep

import hvp
from hvp.comparison.start import Start
from hvp.report import start_file

K = 3
EFFORT = {"layers": False, "results": "ends", "matrices": "HG", "tol": 1e-4}


def network(hidden=90):
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((5,)),
            keras.layers.Dense(hidden, "tanh", name="hidden"),
            keras.layers.Dense(3, name="last"),
        ]
    )
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


def examples():
    rng = np.random.default_rng(1)
    return rng.standard_normal((60, 5)).astype(np.float32), rng.integers(0, 3, 60)


@pytest.fixture(scope="module")
def two():
    """The loss of a network, and that at weights a little further."""
    model, (x, y) = network(), examples()
    model.fit(x, y, epochs=20, verbose=0)
    first = hvp.linearize(model, (x, y))
    model.fit(x, y, epochs=1, verbose=0)
    return first, hvp.linearize(model, (x, y))


@pytest.fixture(scope="module")
def earlier(two):
    return hvp.compare(two[0], K, **EFFORT)


@pytest.fixture
def written(earlier, tmp_path):
    earlier.save(tmp_path)
    return tmp_path


@pytest.mark.sweep
def test_other_weights_take_fewer_products_for_the_same_eigenvalues(two, earlier, written):
    cold = hvp.compare(two[1], K, **EFFORT)
    for start in (earlier, written, written / "compare.json"):
        warm = hvp.compare(two[1], K, start=start, **EFFORT)
        for letter in "HG":
            old, new = cold.whole.spectra[letter], warm.whole.spectra[letter]
            assert new.num_products < 0.9 * old.num_products
            for end in ("largest", "smallest"):
                ours, theirs = getattr(new, end), getattr(old, end)
                assert ours.errors.max() < 10 * EFFORT["tol"] * cold.whole.norm
                apart = np.abs(ours.values - theirs.values)
                assert (apart <= ours.errors + theirs.errors + 1e-3 * cold.whole.norm).all()
        dense = np.linalg.eigvalsh(two[1].hvp(np.eye(two[1].size, dtype=np.float32)))
        np.testing.assert_allclose(warm.whole.H.largest.values, dense[-K:], rtol=1e-3)


def test_the_file_holds_the_sums_of_the_vectors(earlier, written):
    found, true = start_file.load(written), Start.of(earlier)
    assert dict(found.shapes) == {
        name: [list(s) for s in each] for name, each in true.shapes.items()
    }
    assert found.vectors.keys() == true.vectors.keys() == {(earlier.whole.name, x) for x in "HG"}
    for key, v in true.vectors.items():
        both = earlier.whole.spectra[key[1]]
        total = both.largest.vectors.sum(1) + both.smallest.vectors.sum(1)
        np.testing.assert_allclose(v, total, atol=1e-6)
        np.testing.assert_allclose(found.vectors[key], v / np.abs(v).max(), atol=1e-3)


def test_another_network_is_refused_in_one_line(earlier, written):
    other = hvp.linearize(network(hidden=6), examples())
    line = "expected a start with layer hidden of shapes (5, 6) (6,), got shapes (5, 90) (90,); "
    for start in (earlier, written):
        with pytest.raises(hvp.InputError, match=re.escape(line)) as raised:
            hvp.compare(other, K, start=start, **EFFORT)
        assert "\n" not in str(raised.value)
    selected = hvp.linearize(network(), examples(), variables="last")
    with pytest.raises(hvp.InputError, match="a start with layer hidden of shapes none"):
        hvp.compare(selected, K, start=earlier, **EFFORT)


def replaced(path, **arrays):
    np.savez(path / "compare.npz", **arrays)


CHANGES = {
    "missing": (lambda path: (path / "compare.npz").unlink(), "a compare.npz beside the compare"),
    "cut off": (
        lambda path: (path / "compare.npz").write_bytes((path / "compare.npz").read_bytes()[:99]),
        "a compare.npz of vectors",
    ),
    "pickled": (
        lambda path: replaced(path, **{"H/whole network": np.array([{}], dtype=object)}),
        "a compare.npz of vectors",
    ),
    "another shape": (
        lambda path: replaced(path, **{"H/whole network": np.ones(4, np.float16)}),
        "vectors of the parts of",
    ),
    "another type": (
        lambda path: replaced(path, **{"H/whole network": np.full(813, "a")}),
        "vectors of the parts of",
    ),
    "another part": (
        lambda path: replaced(path, **{"H/elsewhere": np.ones(813, np.float16)}),
        "vectors of the parts of",
    ),
    "infinite": (
        lambda path: replaced(path, **{"H/whole network": np.full(813, np.inf, np.float16)}),
        "vectors of the parts of",
    ),
    "empty": (replaced, "starting vectors in"),
}


@pytest.mark.parametrize("kind", sweep(CHANGES, {"missing", "cut off", "another shape"}))
def test_a_file_of_another_kind_is_refused(written, kind):
    change, words = CHANGES[kind]
    assert start_file.load(written).vectors["whole network", "H"].shape == (813,)
    change(written)
    with pytest.raises(hvp.InputError, match=f"expected {words}.*compare without a start") as e:
        start_file.load(written)
    assert len(str(e.value)) < 300


def test_large_networks_get_no_vectors(earlier, tmp_path, monkeypatch):
    monkeypatch.setattr(start_file, "MAX_BYTES", 100)
    start_file.save(earlier, tmp_path / "compare.npz")
    with np.load(tmp_path / "compare.npz") as found:
        assert found.files == []
