"""Golden files: they hold what they should, and tell which of all causes has changed a number."""

import json
import math

import keras
import numpy as np
import pytest

import hvp
from hvp import InputError, testing
from hvp.testing import golden_files
from hvp.testing.json_schema import first_violation

SCHEMA = json.loads(golden_files.SCHEMA.read_text(encoding="utf-8"))
X = np.random.default_rng(0).standard_normal((30, 4)).astype("float32")
Y = np.arange(30) % 3


def linearized(x=X, y=Y, *, activation="tanh", weights=0, penalty=0.0, units=5, **options):
    keras.utils.set_random_seed(weights)
    penalty = keras.regularizers.L2(penalty) if penalty else None
    net = keras.Sequential([
        keras.Input((4,)),
        keras.layers.Dense(units, activation, kernel_regularizer=penalty),
        keras.layers.Dense(3),
    ])  # fmt: skip
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    return hvp.linearize(net, (x, y), loss, **options)


@pytest.fixture(scope="module")
def lin():
    return linearized()


@pytest.fixture(scope="module")
def text(lin, tmp_path_factory):
    path = tmp_path_factory.mktemp("golden") / "golden.json"
    testing.record(lin, path)
    assert [p.name for p in path.parent.iterdir()] == ["golden.json"]
    return path.read_text(encoding="utf-8")


@pytest.fixture
def golden(text, tmp_path):
    path = tmp_path / "golden.json"
    path.write_text(text, encoding="utf-8")
    return path


def edited(path, change):
    document = json.loads(path.read_text(encoding="utf-8"))
    change(document)
    path.write_text(json.dumps(document), encoding="utf-8")


def obeys(document, schema):
    """Whether a document obeys a schema, written apart from what the package reads files with."""
    names = {dict: "object", list: "array", str: "string", type(None): "null"}
    kinds = {names.get(type(document), "number")}
    if isinstance(document, int):
        kinds.add("integer")
    wanted = schema.get("type")
    allowed = set(wanted if isinstance(wanted, list) else [wanted]) if wanted else kinds
    parts = schema.get("properties", {})
    return bool(
        kinds & allowed
        and document in schema.get("enum", [document])
        and document == schema.get("const", document)
        and ("number" not in kinds or document >= schema.get("minimum", document))
        and ("object" not in kinds or set(schema.get("required", ())) <= set(document))
        and ("array" not in kinds or all(obeys(each, schema["items"]) for each in document))
        and (
            "object" not in kinds
            or all(
                (inner := parts.get(name, schema.get("additionalProperties", {}))) is not False
                and obeys(value, inner)
                for name, value in document.items()
            )
        )
    )


def test_the_file_obeys_its_schema(text):
    document = json.loads(text)
    assert obeys(document, SCHEMA)
    assert first_violation(document, SCHEMA) == ""


BREAKS = {
    "seed: missing": lambda d: d.pop("seed"),
    "seed: no integer": lambda d: d.update(seed=True),
    "seed: below 0": lambda d: d.update(seed=-1),
    "dtype: none of float32, float64": lambda d: d.update(dtype="float16"),
    "more: unknown": lambda d: d.update(more=1),
    "versions.keras: missing": lambda d: d["versions"].pop("keras"),
    "digests.data: no string": lambda d: d["digests"].update(data=1),
    "numbers: fewer than 3 items": lambda d: d.update(numbers=d["numbers"][:2]),
    "numbers[4].value: no number": lambda d: d["numbers"][4].update(value="1"),
    "numbers[4].direction: no integer or null": lambda d: d["numbers"][4].update(direction=0.5),
}


@pytest.mark.parametrize("problem", BREAKS)
def test_a_file_that_breaks_the_schema_is_refused_by_place(golden, lin, problem):
    edited(golden, BREAKS[problem])
    with pytest.raises(InputError) as caught:
        testing.compare_to(golden, lin)
    assert f"with {problem}; write one by" in str(caught.value)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"{", "which is no JSON"),
        (b"\xff\xfe", "which is no JSON"),
        (b"[" * 100_000, "which is no JSON"),
        (b"[]", "which is another file"),
        (b'{"format": "other"}', "which is another file"),
        (b'{"format": "hvp golden file", "format_version": 2}', "format version 1, got 2 in"),
    ],
)
def test_what_is_no_golden_file_is_refused_in_one_line(golden, lin, content, problem):
    golden.write_bytes(content)
    with pytest.raises(InputError, match=problem) as caught:
        testing.compare_to(golden, lin)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "call",
    [
        lambda path, lin: testing.record(path, lin),
        lambda path, lin: testing.compare_to(lin, path),
        lambda path, lin: testing.record(hvp.Hessian(lin), path),
        lambda path, lin: testing.check(hvp.Hessian(lin)),
    ],
)
def test_what_is_no_linearization_is_refused(tmp_path, lin, call):
    with pytest.raises(InputError, match=r"a Linearization, got [A-Za-z]*; call hvp.linearize"):
        call(tmp_path / "golden.json", lin)


def test_a_missing_file_and_a_directory_are_refused(tmp_path, lin):
    with pytest.raises(InputError, match="got no file"):
        testing.compare_to(tmp_path / "none.json", lin)
    with pytest.raises(InputError, match="Is a directory"):
        testing.compare_to(tmp_path, lin)
    with pytest.raises(InputError, match="a directory; choose another path"):
        testing.record(lin, tmp_path)
    with pytest.raises(InputError, match="no directory above it"):
        testing.record(lin, tmp_path / "none" / "golden.json")
    for seed in (-1, 1.5, True):
        with pytest.raises(InputError, match="a whole number of at least 0"):
            testing.record(lin, tmp_path / "golden.json", seed=seed)
    assert list(tmp_path.iterdir()) == []


def test_a_failure_leaves_the_old_file_as_it_was(golden, lin, monkeypatch):
    before = golden.read_bytes()

    def full(*paths):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(golden_files.Path, "replace", full)
    with pytest.raises(InputError, match="No space left on device"):
        testing.record(lin, golden)
    assert [path.name for path in golden.parent.iterdir()] == ["golden.json"]
    assert golden.read_bytes() == before


def test_the_numbers_are_those_of_dense_algebra(text, lin):
    exact = lin.in_float64()
    H, G, R = (A @ np.eye(lin.size) for A in map_operators(exact))
    numbers = json.loads(text)["numbers"]
    normal = np.random.default_rng(0).standard_normal((2, lin.size))
    parts = {"whole network": np.arange(lin.size)}
    for layer, positions in lin.layout.layers.items():
        parts[layer] = np.concatenate([np.r_[lin.layout.slices[i]] for i in positions])
    expected = {("loss", None): exact.loss(), ("λmax H", None): np.linalg.eigvalsh(H)[-1]}
    expected["gradient norm", None] = np.linalg.norm(exact.gradient())
    for number in numbers:
        name, v = number["name"], np.zeros(lin.size)
        if number["direction"] is None:
            wanted = expected[name, None]
        else:
            entries = parts[number["part"]]
            v[entries] = normal[number["direction"], entries]
            v /= np.linalg.norm(v)
            wanted = v @ {"H": H, "G": G, "R": R}[name[2]] @ v
        assert abs(number["value"] - wanted) <= number["tolerance"], number
        assert number["tolerance"] < 1e-5
    assert len(numbers) == 3 + 3 * 2 * 3


def map_operators(lin):
    return hvp.Hessian(lin), hvp.GaussNewton(lin), hvp.Residual(lin)


@pytest.mark.sweep
def test_rounding_order_and_batches_are_no_change(golden, lin):
    assert str(testing.compare_to(golden, lin)) == "21 numbers are as recorded"
    assert testing.compare_to(golden, linearized(batch_size=7)).causes == ()
    order = np.random.default_rng(1).permutation(30)
    assert testing.compare_to(golden, linearized(X[order], Y[order])).causes == ("data",)
    report = testing.compare_to(golden, linearized(dtype="float64"))
    assert report.passed
    assert report.causes[-1] == "the precision, float64, recorded in float32"


@pytest.mark.sweep
@pytest.mark.parametrize(
    ("other", "cause"),
    [
        ({"x": X * np.float32(1.001)}, "data"),
        pytest.param({"y": Y[::-1].copy()}, "data", marks=pytest.mark.sweep),
        ({"weights": 1}, "weights"),
        ({"activation": "relu"}, "objective"),
        pytest.param({"penalty": 0.01}, "objective", marks=pytest.mark.sweep),
    ],
)
def test_the_message_names_the_cause(golden, other, cause):
    with pytest.raises(AssertionError) as caught:
        testing.compare_to(golden, linearized(**other))
    lines = str(caught.value).splitlines()
    assert lines[0].endswith("of 21 numbers are not as recorded")
    assert lines[1] == f"changed: {cause}"
    assert lines[2].split() == ["number", "found", "recorded", "difference", "allowed"]


def spoil(document):
    document["numbers"][5]["value"] += 1e-4


def test_where_nothing_else_has_changed_it_is_the_curvature(golden, lin):
    edited(golden, spoil)
    with pytest.raises(AssertionError, match="changed: the curvature itself; data, weights") as e:
        testing.compare_to(golden, lin)
    assert "1 of 21" in str(e.value)
    assert "vᵀRv" in str(e.value).splitlines()[-1]


def test_another_version_of_tensorflow_is_named(golden, lin):
    edited(golden, lambda d: d["versions"].update(tensorflow="2.3.4"))
    version = json.loads(golden.read_text(encoding="utf-8"))["versions"]
    report = testing.compare_to(golden, lin)
    assert len(report.causes) == 1
    assert "TensorFlow's version" in str(report)
    edited(golden, spoil)
    with pytest.raises(AssertionError, match=r"recorded with 2\.3\.4\n"):
        testing.compare_to(golden, lin)
    assert version["keras"] == keras.__version__


def test_other_parameters_cannot_be_compared(golden):
    with pytest.raises(AssertionError, match="51 parameters where 43 were recorded; changed"):
        testing.compare_to(golden, linearized(units=6))


def test_a_number_that_is_nan_is_a_change(golden, lin, monkeypatch):
    monkeypatch.setattr(type(lin), "loss", lambda self, theta=None: math.nan)
    with pytest.raises(AssertionError, match="1 of 21"):
        testing.compare_to(golden, lin)


def test_a_loss_without_outputs_has_no_forms_of_g(tmp_path):
    lin = hvp.linearize_function(lambda w: (w[0] * w[1]) ** 2, np.array([1.0, 2.0]))
    testing.record(lin, tmp_path / "golden.json", seed=3)
    document = json.loads((tmp_path / "golden.json").read_text(encoding="utf-8"))
    assert {number["name"] for number in document["numbers"]} == {
        "loss", "gradient norm", "λmax H", "vᵀHv"
    }  # fmt: skip
    assert obeys(document, SCHEMA)
    v = np.random.default_rng(3).standard_normal((2, 2))[0]
    H = np.array([[8.0, 8.0], [8.0, 2.0]])
    assert document["numbers"][3]["value"] == pytest.approx(v @ H @ v / (v @ v), rel=1e-12)
    testing.compare_to(tmp_path / "golden.json", lin)
