"""Worker processes: their errors, their threads, and the checkout whose hvp they import."""

import os
import signal
from pathlib import Path

import pytest

import hvp
from hvp.benchmark.entries import OURS
from hvp.benchmark.process import Worker, WorkerError
from hvp.benchmark.server import RefusedError, line_of


class Answers:
    """A server that a worker imports from the path of its parent."""

    def __init__(self, name):
        self.name = name

    def greet(self, word):
        return f"{word}, {self.name}"

    def cores(self):
        return len(os.sched_getaffinity(0)), os.environ["OMP_NUM_THREADS"]

    def place(self):
        import bench
        import hvp.benchmark

        return hvp.__file__, hvp.benchmark.__file__, bench.__file__

    def fail(self):
        raise ValueError("one line\nand another")


def worker(**options):
    return Worker("benchmark_answers:Answers", "parent", **options)


@pytest.fixture
def answers(tmp_path, monkeypatch):
    """The server above as a module of its own on the path."""
    (tmp_path / "benchmark_answers.py").write_text(
        Path(__file__).read_text().split("def worker")[0]
    )
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.usefixtures("answers")
def test_requests_are_answered_in_order_and_errors_are_one_line():
    with worker() as asked:
        asked.wait_until_ready()
        asked.send("greet", "hello")
        asked.send("greet", "again")
        assert [asked.receive(), asked.receive()] == ["hello, parent", "again, parent"]
        with pytest.raises(WorkerError, match=r"^ValueError: one line$"):
            asked.ask("fail")
        os.kill(asked.pid, signal.SIGKILL)
        with pytest.raises(WorkerError, match="ended with -9, killed"):
            asked.ask("greet", "hello")


IN_USER_CODE = """in user code:

    File "a.py", line 131, in f  *
        loss = g()

    ValueError: Exception encountered when calling LSTM.call().
    
    \x1b[1mInternal error: Tried to take gradients of a variable:
    Tensor("while:7", shape=(), dtype=resource)\x1b[0m
    
    Arguments received by LSTM.call():
"""  # noqa: W293


@pytest.mark.parametrize(
    ("message", "line"),
    [
        (IN_USER_CODE, "ValueError: Internal error: Tried to take gradients of a variable:"),
        (
            "Graph execution error:\n\nDetected at node x\nno such kernel",
            "ValueError: no such kernel",
        ),
        (
            "{{function_node __wrapped__Add_device_/job:localhost}} no memory",
            "ValueError: no memory",
        ),
        (
            'Graph execution error:\n\nDetected at node x:\n  File "a.py", line 1, in f\n\n'
            "a label of 11",
            "ValueError: a label of 11",
        ),
        ("one\ntwo", "ValueError: one"),
        ("", "ValueError: "),
    ],
)
def test_the_line_of_an_error_tells_its_cause(message, line):
    assert line_of(ValueError(message)) == line


def test_forms_that_are_refused_are_told_with_their_own_errors_alone():
    assert (
        line_of(RefusedError("InputError: no; ValueError: no")) == "InputError: no; ValueError: no"
    )


@pytest.mark.usefixtures("answers")
def test_threads_are_as_many_cores_as_asked_for():
    with worker(threads=1) as asked:
        asked.wait_until_ready()
        assert asked.ask("cores") == (1, "1")


@pytest.mark.usefixtures("answers")
def test_another_checkout_gives_its_hvp_alone_and_this_harness(tmp_path):
    checkout = tmp_path / "checkout"
    for package in ("bench", "hvp"):
        (checkout / package).mkdir(parents=True)
    (checkout / "bench" / "__init__.py").write_text("raise ImportError('the other benchmark')")
    (checkout / "hvp" / "__init__.py").touch()
    (checkout / "hvp" / "errors.py").write_text("class InputError(ValueError): pass\n")
    with worker(checkout=checkout) as asked:
        asked.wait_until_ready()
        place, harness, bench = asked.ask("place")
    assert place == str(checkout / "hvp" / "__init__.py")
    assert Path(harness).parents[1] == Path(hvp.__file__).parent
    assert Path(bench).parents[1] == Path(hvp.__file__).parents[1]


@pytest.mark.sweep
def test_an_implementation_that_does_not_load_says_why():
    with OURS.worker() as asked:
        asked.wait_until_ready()
        with pytest.raises(WorkerError, match="AttributeError"):
            asked.ask("load", "nonsense")
