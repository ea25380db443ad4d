"""`hvp.resumable`: solvers that go on, and journals that are not used."""

import os
import sqlite3
import subprocess
import sys

import numpy as np
import pytest
import scipy.sparse.linalg as sparse
from support.journals import SIZE, Counting, KilledError, matrix

import hvp
from hvp.resuming import journal_file
from hvp.resuming.journal_file import JournalError

A = matrix()
START = np.random.default_rng(1).standard_normal((SIZE, 4))


def numbers(found):
    """The arrays of a result."""
    return [np.asarray(each) for each in (found if isinstance(found, tuple) else (found,))]


SOLVERS = {
    "SciPy's eigsh": lambda A: sparse.eigsh(A, 3, v0=START[:, 0], tol=1e-3),
    "lobpcg": lambda A: sparse.lobpcg(A, START.copy(), maxiter=8, tol=1e-2),
    "cg": lambda A: sparse.cg(A, START[:, 0], maxiter=20)[0],
    "minres": lambda A: sparse.minres(A, START[:, 0], maxiter=20)[0],
    "lsmr": lambda A: sparse.lsmr(A, START[:, 0], maxiter=10)[0],
    "hvp.eigsh": lambda A: hvp.eigsh(A, 3, tol=1e-2).vectors,
    "hvp.density": lambda A: hvp.density(A, num_probes=2, num_steps=10).nodes,
    "hvp.trace": lambda A: hvp.trace(A, num_products=80).value,
}


@pytest.mark.filterwarnings("ignore:Exited")
@pytest.mark.parametrize("solver", SOLVERS.values(), ids=SOLVERS)
def test_a_solver_that_dies_goes_on_and_finds_the_same_bits(solver, tmp_path):
    whole = Counting(A)
    expected = numbers(solver(whole))
    assert whole.calls > 2
    for dies_at in (1, whole.calls // 2, whole.calls - 1):
        path = tmp_path / str(dies_at)
        dying, later = Counting(A, dies_at), Counting(A)
        with hvp.resumable(dying, path, key="A") as first, pytest.raises(KilledError):
            solver(first)
        with hvp.resumable(later, path, key="A") as again:
            found = numbers(solver(again))
            assert again.journal.num_replayed == again.journal.num_found == dies_at
        assert later.calls == whole.calls - dies_at
        for one, other in zip(found, expected, strict=True):
            assert np.array_equal(one, other)


def test_a_stage_keeps_its_result_in_place_of_its_products(tmp_path):
    path = tmp_path / "journal"
    with hvp.resumable(Counting(A), path, key="A") as first:
        expected = first.stage("top", lambda: hvp.eigsh(first, 2, tol=1e-2))
    later = Counting(A)
    with hvp.resumable(later, path, key="A") as again:
        assert again.journal.num_found == 0
        assert again.journal.stages == ("top",)
        found = again.stage("top", lambda: pytest.fail("computed again"))
        again.remove()
    assert later.calls == 0
    assert list(tmp_path.iterdir()) == []
    for name, value in vars(expected).items():
        assert np.array_equal(getattr(found, name), value), name


def test_a_block_has_the_order_of_the_first_time(tmp_path):
    with hvp.resumable(A, tmp_path / "journal", key="A") as first:
        product = first @ START
        again = first @ START
    assert np.array_equal(again, product)
    assert again.flags.c_contiguous == product.flags.c_contiguous


def refused(reason, words, *arguments, **options):
    with pytest.raises(JournalError, match=words) as caught:
        hvp.resumable(*arguments, **options)
    assert caught.value.reason == reason
    assert "\n" not in str(caught.value)


def test_a_journal_of_another_operator_is_refused_and_stays_whole(tmp_path):
    path = tmp_path / "journal"
    with hvp.resumable(A, path) as first:
        first @ START[:, 0]
    refused("other", "whose product with the same vector is another", A * (1 + 1e-9), path)
    refused("other", "of other precision", A.astype(np.float32), path)
    refused("other", "of other precision and shape", np.eye(3, dtype=np.float32), path)
    refused("other", "of other key", A, path, key="A")
    with hvp.resumable(A, path) as again:
        again @ START[:, 0]
        assert again.journal.num_replayed == 1


def test_a_product_that_differs_by_rounding_is_of_the_same_operator(tmp_path):
    single = A.astype(np.float32)
    hvp.resumable(Counting(single), tmp_path / "journal").close()
    sum_in_another_order = sparse.LinearOperator(
        A.shape, lambda v: single[:, :300] @ v[:300] + single[:, 300:] @ v[300:], dtype="f4"
    )
    v = START[:, 0].astype(np.float32)
    assert not np.array_equal(sum_in_another_order @ v, single @ v)
    hvp.resumable(sum_in_another_order, tmp_path / "journal").close()


def test_a_loss_is_known_by_its_digests(tmp_path):
    import tensorflow as tf

    path = tmp_path / "journal"
    w, data = np.array([1.0, 2.0]), np.array([[1.0], [3.0]])

    def cubic(w, batch):
        return tf.reduce_mean(batch) * w[0] ** 3 + w[1] ** 2

    def quartic(w, batch):
        return tf.reduce_mean(batch) * w[0] ** 4 + w[1] ** 2

    lin = hvp.linearize_function(cubic, w, data, batch_size=2)
    of_data = hvp.linearize_function(cubic, w, 2 * data, batch_size=2)
    of_objective = hvp.linearize_function(quartic, w, data, batch_size=2)
    hvp.resumable(hvp.Hessian(lin), path).close()
    hvp.resumable(hvp.Hessian(lin.at(w)), path).close()
    refused("other", "of other data", hvp.Hessian(of_data), path)
    refused("other", "of other weights", hvp.Hessian(lin.at(2 * w)), path)
    refused("other", "of other objective", hvp.Hessian(of_objective), path)
    refused("other", "of other name", hvp.EmpiricalFisher(lin), path)


def test_another_start_is_said_and_its_products_are_not_used(tmp_path):
    path, said = tmp_path / "journal", []
    with hvp.resumable(A, path, key="A") as first:
        sparse.cg(first, START[:, 0], maxiter=5)
    with hvp.resumable(A, path, key="A", say=said.append) as other:
        found = sparse.cg(other, START[:, 1], maxiter=5)[0]
        assert other.journal.num_replayed == 0
    assert np.array_equal(found, sparse.cg(Counting(A), START[:, 1], maxiter=5)[0])
    (line,) = said
    assert "5 of 5 products are of another start" in line
    with hvp.resumable(A, path, key="A") as again, pytest.warns(UserWarning, match="not used"):
        again @ np.ones(SIZE)


def damage(path, where):
    connection = sqlite3.connect(path)
    with connection:
        connection.execute(where)
    connection.close()


@pytest.mark.parametrize(
    "change",
    ["data = zeroblob(length(data))", "data = substr(data, 8)", "name = x'00'", "text = '{'"],
)
def test_a_damaged_record_is_said_and_computed_anew(change, tmp_path):
    path, said = tmp_path / "journal", []
    with hvp.resumable(A, path, key="A") as first:
        expected = [first @ v for v in START.T]
    damage(path, f"UPDATE products SET {change} WHERE id = 2")
    later = Counting(A)
    with hvp.resumable(later, path, key="A", say=said.append) as again:
        for v, product in zip(START.T, expected, strict=True):
            assert np.array_equal(again @ v, product)
    assert later.calls == 1
    assert len(said) == 1


def test_a_damaged_result_is_said_and_computed_anew(tmp_path):
    path, said = tmp_path / "journal", []
    with hvp.resumable(A, path, key="A") as first:
        first.stage("ones", lambda: np.ones(5))
    damage(path, "UPDATE results SET data = zeroblob(40)")
    with hvp.resumable(A, path, key="A", say=said.append) as again:
        assert np.array_equal(again.stage("ones", lambda: np.ones(5)), np.ones(5))
    assert said == [f"{path}: the result 'ones' is damaged: it is computed anew"]


def test_a_damaged_file_is_refused_and_emptied_only_on_demand(tmp_path):
    path = tmp_path / "journal"
    with hvp.resumable(A, path, key="A") as first:
        for v in START.T:
            first @ v
    content = bytearray(path.read_bytes())
    content[4096 : 4096 + 200] = bytes(200)
    path.write_bytes(content)
    refused("damaged", "a whole journal", A, path, key="A")
    assert path.read_bytes() == content
    with hvp.resumable(A, path, key="A", fresh=True) as anew:
        assert anew.journal.num_found == 0
        anew @ START[:, 0]


@pytest.mark.parametrize("fresh", [False, True])
def test_what_is_no_journal_is_left_alone(fresh, tmp_path):
    note, other = tmp_path / "note.txt", tmp_path / "other.sqlite"
    note.write_text("a note")
    damage(other, "CREATE TABLE mine (x)")
    content = other.read_bytes()
    refused("no journal", "another file", A, note, key="A", fresh=fresh)
    refused("no journal", "another file", A, other, key="A", fresh=fresh)
    refused("path", "a directory", A, tmp_path, key="A", fresh=fresh)
    refused("path", "in no directory", A, tmp_path / "none" / "journal", key="A", fresh=fresh)
    assert note.read_text() == "a note"
    assert other.read_bytes() == content


def test_where_no_file_can_be_written_it_is_said():
    refused("path", "a file that can be written", A, "/proc/journal", key="A")


def test_a_journal_is_for_one_at_a_time(tmp_path):
    path = tmp_path / "journal"
    with hvp.resumable(A, path, key="A") as first:
        first @ START[:, 0]
        for fresh in (False, True):
            refused("in use", "another process has open", A, path, key="A", fresh=fresh)
        first @ START[:, 1]
    with hvp.resumable(A, path, key="A") as again:
        assert again.journal.num_found == 2


HOLD = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("PRAGMA locking_mode = EXCLUSIVE")
connection.execute("BEGIN IMMEDIATE")
print("open", flush=True)
input()
"""


def test_a_journal_is_for_one_process_at_a_time(tmp_path):
    path = tmp_path / "journal"
    with hvp.resumable(A, path, key="A") as first:
        first @ START[:, 0]
    command = (sys.executable, "-c", HOLD, path)
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        for fresh in (False, True):
            refused("in use", "another process has open", A, path, key="A", fresh=fresh)
        other.communicate(b"\n")
    with hvp.resumable(A, path, key="A") as again:
        assert again.journal.num_found == 1


def test_beyond_the_limit_nothing_is_kept_and_the_work_goes_on(tmp_path):
    path, said, size = tmp_path / "journal", [], START[:, 0].nbytes
    with hvp.resumable(A, path, key="A", max_bytes=2.5 * size, say=said.append) as first:
        for v in START.T:
            assert np.array_equal(first @ v, A @ v)
        with pytest.raises(hvp.InputError, match="max_bytes"):
            hvp.resumable(A, tmp_path / "other", key="A", max_bytes=-1)
    assert len(said) == 1
    assert "limit" in said[0]
    later = Counting(A)
    with hvp.resumable(later, path, key="A") as again:
        for v in START.T:
            assert np.array_equal(again @ v, A @ v)
        assert again.journal.num_found == 2
    assert later.calls == 2


def test_a_full_disk_is_said_and_what_was_kept_stays(tmp_path):
    path, said = tmp_path / "journal", []
    with hvp.resumable(A, path, key="A", say=said.append) as first:
        first @ START[:, 0]
        pages = first.journal._file._connection.execute("PRAGMA page_count").fetchone()[0]
        first.journal._file._connection.execute(f"PRAGMA max_page_count = {pages}")
        for v in START.T:
            assert np.array_equal(first @ v, A @ v)
        assert first.stage("three", lambda: 3) == 3
    assert said == [f"{path}: database or disk is full: what follows is not kept, the work goes on"]
    with hvp.resumable(A, path, key="A") as again:
        assert again.journal.stages == ()
        assert np.array_equal(again @ START[:, 0], A @ START[:, 0])
        assert again.journal.num_replayed == 1


def test_long_vectors_are_kept_in_pieces(tmp_path, monkeypatch):
    monkeypatch.setattr(journal_file, "MAX_PIECE", 1000)
    path = tmp_path / "journal"
    with hvp.resumable(A, path, key="A") as first:
        first @ START
        first @ START[:, 0]
        first.journal._keep("results", b"kept", {"a": START, "b": np.zeros((0, 3))})
        first @ START
    connection = sqlite3.connect(path)
    lengths = [n for (n,) in connection.execute("SELECT length(data) FROM products")]
    connection.close()
    assert max(lengths) == 1000
    assert sum(lengths) == START.nbytes
    later = Counting(A)
    with hvp.resumable(later, path, key="A") as again:
        assert np.array_equal(again @ START, A @ START)
        found = again.stage("kept", dict)
    assert later.calls == 0
    assert np.array_equal(found["a"], START)
    assert found["b"].shape == (0, 3)


def test_a_fork_makes_products_without_the_file(tmp_path, monkeypatch):
    with hvp.resumable(A, tmp_path / "journal", key="A") as first:
        first @ START[:, 0]
        with monkeypatch.context() as child:
            child.setattr(os, "getpid", lambda: -1)
            assert np.array_equal(first @ START[:, 1], A @ START[:, 1])
    with hvp.resumable(A, tmp_path / "journal", key="A") as again:
        assert again.journal.num_found == 1


def test_what_is_no_operator_is_refused(tmp_path):
    with pytest.raises(hvp.InputError, match="LinearOperator"):
        hvp.resumable("A", tmp_path / "journal")
    with pytest.raises(hvp.InputError, match="key that is a text"):
        hvp.resumable(A, tmp_path / "journal", key=3)
    assert list(tmp_path.iterdir()) == []
