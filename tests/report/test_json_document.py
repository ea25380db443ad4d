"""What `hvp.load` reads back, and the files that it refuses in one line."""

import json
import re

import pytest
from support.matrices import network

import hvp


@pytest.fixture(scope="module")
def comparison():
    return hvp.compare(network(), 4, title="a small network")


@pytest.fixture(scope="module")
def text(comparison):
    return json.dumps(comparison.to_json(), indent=1)


def test_the_numbers_are_read_from_a_file_or_its_directory(comparison, text, tmp_path):
    path = tmp_path / "compare.json"
    path.write_text(text)
    numbers = hvp.load(tmp_path)
    assert numbers == hvp.load(str(path)) == json.loads(text)
    assert list(numbers)[:2] == ["schema", "about"]
    found = numbers["parts"]["whole network"]["H"]["largest"]["values"]
    assert found == comparison.whole.H.largest.values.tolist()


BAD = {
    "a page": (lambda text: b"<html>", "no JSON or cut off: Expecting value in line 1; save the"),
    "a figure": (lambda text: b"\x89PNG\r\n\x1a\n\xff", "which is no JSON; save the comparison"),
    "nothing": (lambda text: b"", "no JSON or cut off: Expecting value in line 1"),
    "too deep": (lambda text: b"[" * 100_000, "which is no JSON; save"),
    "half": (lambda text: text[: len(text) // 2].encode(), "no JSON or cut off: "),
    "without its end": (lambda text: text[:-1].encode(), "no JSON or cut off: "),
    "a list": (lambda text: b"[1, 2]", "JSON without a schema; pass the file that Comparison.save"),
    "others": (lambda text: b'{"a": 1}', "JSON without a schema"),
    "older": (
        lambda text: re.sub('"schema": [0-9]+', '"schema": 1', text).encode(),
        "got schema 1; compare again with this version",
    ),
    "no number": (
        lambda text: re.sub('"schema": [0-9]+', '"schema": [1]', text).encode(),
        r"got schema \[1\]; compare",
    ),
    "without parts": (
        lambda text: text.replace('"parts"', '"pieces"').encode(),
        "without parts; save",
    ),
}


@pytest.mark.parametrize(("change", "words"), BAD.values(), ids=BAD)
def test_another_file_is_refused_in_one_line(text, tmp_path, change, words):
    path = tmp_path / "compare.json"
    path.write_bytes(change(text))
    with pytest.raises(hvp.InputError, match=words) as raised:
        hvp.load(path)
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 250


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("nowhere.json", "expected a compare.json, got no file 'nowhere.json'; check the path"),
        (".", "expected a compare.json, got no file 'compare.json'; check the path"),
        ([1] * 1000, "expected the path of a compare.json, got "),
    ],
)
def test_what_is_no_file_is_refused(path, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(hvp.InputError) as raised:
        hvp.load(path)
    assert str(raised.value).startswith(words)
    assert len(str(raised.value)) < 200
