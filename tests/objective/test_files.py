"""Files that are read, or refused by what they are, before TensorFlow or an array is loaded."""

import gzip
import io
import os
import pickle
import subprocess
import sys
import zipfile

import numpy as np
import pytest

import hvp
from hvp.objective import file_kinds, files

X, Y = np.arange(14.0).reshape(7, 2), np.arange(7)


def archive(path, **members):
    with zipfile.ZipFile(path, "w") as opened:
        for name, content in members.items():
            opened.writestr(name, content)


def hdf5(path):
    import h5py

    with h5py.File(path, "w") as opened:
        opened["x"] = X


def truncated(path):
    np.savez(path.with_suffix(".npz"), x=X, y=Y)
    path.write_bytes(path.with_suffix(".npz").read_bytes()[:-40])


KINDS = {
    "a directory": lambda path: path.mkdir(),
    "a pipe": os.mkfifo,
    "an empty file": lambda path: path.touch(),
    "a damaged zip archive": truncated,
    "an empty zip archive": archive,
    "a zip archive of other things": lambda path: archive(path, hello="world"),
    "an .npz file": lambda path: archive(path, **{"x.npy": b""}),
    "a .keras file": lambda path: archive(path, **{"config.json": "{}", "metadata.json": "{}"}),
    "an HDF5 file": hdf5,
    "a single array, as np.save writes it,": lambda path: path.write_bytes(npy(X)),
    "a gzip file": lambda path: path.write_bytes(gzip.compress(b"x,y")),
    "a pickle": lambda path: path.write_bytes(pickle.dumps({"x": [1]})),
    "a CSV file": lambda path: path.write_text("x,y\n1,2\n3,4\n"),
    "a text file": lambda path: path.write_text("Hello, world.\nGood bye."),
    "a web page": lambda path: path.write_text("<!DOCTYPE html><title>404</title>"),
    "a file of unknown kind": lambda path: path.write_bytes(b"\x00\x01\x02"),
}


def npy(array):
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def refused(function, path):
    with pytest.raises(hvp.InputError) as caught:
        function(path)
    line = str(caught.value)
    assert "\n" not in line
    return line


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_of_another_kind_is_named(tmp_path, kind):
    path = tmp_path / "net.keras"
    KINDS[kind](path)
    if kind != file_kinds.NPZ:
        remedy = "write it to a file first" if kind == "a pipe" else files.REMEDY
        line = refused(files.load_arrays, path)
        assert line == f"expected an .npz file, got {kind} '{path}'; {remedy}"
    if kind != file_kinds.KERAS:
        assert f"expected a .keras file, got {kind} '{path}'; " in refused(files.load_model, path)


@pytest.mark.parametrize("path", ["missing", "missing/below", "file/below"])
def test_a_missing_file_is_reported(tmp_path, path):
    (tmp_path / "file").touch()
    for read, kind in ((files.load_arrays, "an .npz"), (files.load_model, "a .keras")):
        line = refused(read, tmp_path / path)
        assert line == f"expected {kind} file, got no file '{tmp_path / path}'; check the path"


def test_a_file_that_cannot_be_read_says_why(tmp_path):
    line = refused(files.load_arrays, tmp_path / ("x" * 300))
    assert "got an unreadable file (File name too long)" in line
    assert line.endswith("; check its name and its permissions")
    assert "(Input/output error) '/proc/self/mem'" in refused(files.load_model, "/proc/self/mem")


def test_a_model_by_another_name_is_to_be_renamed(tmp_path):
    KINDS["a .keras file"](tmp_path / "net.zip")
    assert "a file named NAME.keras" in refused(files.load_model, tmp_path / "net.zip")
    hdf5(tmp_path / "net.keras")
    assert refused(files.load_model, tmp_path / "net.keras").endswith(
        "; rename it to 'net.h5' if it holds a model"
    )


ROWS = np.empty(7, object)
ROWS[:] = [[1] * n for n in range(7)]


@pytest.mark.parametrize(
    ("y", "text"),
    [
        (np.array(["cat", "dog"]), "expected a numeric array y, got text (dtype <U3); replace"),
        (np.array([b"cat"]), "got text (dtype |S3)"),
        (ROWS, "expected a numeric array y, got Python objects (dtype object); make it one array"),
        (np.zeros(7, [("a", int)]), "got dtype [('a', '<i8')]"),
        (np.zeros(7, [("α", int)]), "got dtype"),
        (np.zeros(7, "M8[s]"), "got dtype datetime64[s]"),
    ],
    ids=["text", "bytes", "rows", "fields", "unicode fields", "times"],
)
@pytest.mark.filterwarnings("ignore:Stored array in format 3.0")
def test_what_an_array_holds_instead_of_numbers_is_reported(tmp_path, y, text):
    np.savez(tmp_path / "d.npz", x=X, y=y, allow_pickle=True)
    assert text in refused(files.load_arrays, tmp_path / "d.npz")


def with_header(path, shape, *, name="x", **others):
    """An archive whose array `name` has no data behind a header of this shape."""
    stream = io.BytesIO()
    header = {"shape": shape, "fortran_order": False, "descr": "<f4"}
    np.lib.format.write_array_header_1_0(stream, header)
    archive(path, **{f"{name}.npy": stream.getvalue()}, **others)


@pytest.mark.parametrize(
    ("shape", "name", "text"),
    [
        ((10**6, 10**6), "other", "expected arrays x and y, got ['other', 'y']"),
        ((8, 10**9), "x", "expected arrays of one length, got lengths [7, 8]"),
        ((), "x", "got a scalar"),
        ((7, 10**12), "x", "expected arrays that fit into the free memory, got x of shape (7, 10"),
    ],
)
def test_headers_are_judged_before_arrays_are_read(tmp_path, shape, name, text, monkeypatch):
    with_header(tmp_path / "d.npz", shape, name=name, **{"y.npy": npy(Y)})
    monkeypatch.setattr(np, "load", None)
    assert text in refused(files.load_arrays, tmp_path / "d.npz")


def test_an_array_without_its_data_is_damaged(tmp_path):
    with_header(tmp_path / "d.npz", (7, 2), **{"y.npy": npy(Y)})
    line = refused(files.load_arrays, tmp_path / "d.npz")
    assert line.startswith("expected an .npz file, got a damaged one")


def test_a_wrong_checksum_is_damage(tmp_path):
    path = tmp_path / "d.npz"
    np.savez(path, x=X, y=Y)
    content = bytearray(path.read_bytes())
    start = content.index(X.tobytes())
    content[start] ^= 1
    path.write_bytes(content)
    assert "got a damaged one" in refused(files.load_arrays, path)


def test_wrong_files_are_reported_without_tensorflow(tmp_path):
    program = (
        "import sys; from hvp.objective import files\n"
        "for read in (files.check_model, files.read_arrays):\n"
        "    try: read('missing')\n"
        "    except ValueError as error: print(error)\n"
        "assert not {'tensorflow', 'keras'} & set(sys.modules)"
    )
    done = subprocess.run((sys.executable, "-c", program), capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("got no file 'missing'") == 2
