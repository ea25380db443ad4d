"""The benchmark's arithmetic, judgement and manners. What it times is not tested: clocks differ."""

import dataclasses
import functools
import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

import hvp
from bench.__main__ import END_TO_END
from bench.backends import implementations
from bench.backends.implementation import PROBES, STEPS, Seen, curve
from bench.backends.implementations import NAIVE, OURS, PEERS, Entry
from bench.backends.reference import DenseNet
from bench.harness import machine_load, timing
from bench.harness.process import Worker, WorkerError
from bench.harness.server import Prepared
from bench.measurements import densities, flops, measure, problems, spectra, targets
from bench.results import plot, record, report
from bench.results.record import (
    DensityRecord,
    Measurement,
    ProblemRecord,
    Result,
    Run,
    SpectraRecord,
    Spectrum,
)

ROOT = Path(__file__).parents[2]
DENSE, CONVNET, TRANSFORMER = problems.TINY.values()
ABSENT = Entry(
    "pytorch",
    "PyTorch",
    ("nowhere", "Nothing"),
    {"no_such_package": "no-such-dist"},
    has_density=True,
)


# The arithmetic


class Counting(np.ndarray):
    """Arrays that count the multiply-adds of their matrix products."""

    total = 0

    def __array_ufunc__(self, ufunc, method, *inputs, **kwargs):
        plain = [np.asarray(array) for array in inputs]
        if ufunc is np.matmul:
            Counting.total += plain[0].size * plain[1].shape[-1]
        result = getattr(ufunc, method)(*plain, **kwargs)
        return result.view(Counting) if isinstance(result, np.ndarray) else result


def counting(net, product):
    for name in ("_a", "_kernels", "_deltas"):
        setattr(net, name, [array.view(Counting) for array in getattr(net, name)])
    Counting.total = 0
    product(np.ones(net.gradient.size))
    return Counting.total


@pytest.mark.parametrize("problem", [DENSE, problems.PROBLEMS["small-256"]])
def test_the_linear_part_of_a_dense_net_does_as_many_multiply_adds_as_counted(problem):
    counted, net = flops.count(problem), DenseNet(problem)
    assert counting(net, net.hvp) == counted.hvp
    assert counting(net, net.gnvp) == counted.gnvp


def of_operation(operation):
    """Multiply-adds of one operation of a TensorFlow graph."""
    shapes = [tuple(tensor.shape) for tensor in operation.inputs]
    (out,) = (tuple(tensor.shape) for tensor in operation.outputs)
    match operation.type:
        case "MatMul":
            inner = shapes[0][0 if operation.get_attr("transpose_a") else 1]
            return inner * math.prod(out)
        case "BatchMatMulV2":
            return shapes[0][-2 if operation.get_attr("adj_x") else -1] * math.prod(out)
        case "Einsum":
            terms = operation.get_attr("equation").decode().split("->")[0].split(",")
            if len(terms) < 2:
                return 0
            extents = {}
            for term, shape in zip(terms, shapes, strict=True):
                extents |= dict(zip(term, shape, strict=True))
            return math.prod(extents.values())
        case "Conv2D":
            return math.prod(out) * math.prod(shapes[1][:3])
        case "Conv2DBackpropFilter":
            return math.prod(shapes[2]) * math.prod(out[:3])
        case "Conv2DBackpropInput":
            return math.prod(shapes[2]) * math.prod(shapes[1][:3])
    assert "Conv" not in operation.type
    assert "MatMul" not in operation.type
    return 0


@pytest.mark.parametrize("problem", [DENSE, CONVNET, TRANSFORMER], ids=lambda p: p.name)
def test_tensorflows_gradient_does_as_many_multiply_adds_as_counted(problem):
    import tensorflow as tf

    from bench.backends import keras_models

    model, loss = keras_models.build(problem), keras_models.loss()
    x, y = problems.data(problem)

    @tf.function(autograph=False)
    def gradient(x):
        values = [variable.value for variable in model.trainable_variables]
        with tf.GradientTape() as tape:
            objective = loss(y, model(x))
        return tape.gradient(objective, values)

    graph = gradient.get_concrete_function(tf.constant(x)).graph
    # The gradient in the inputs is in the graph, but nothing asks for it.
    used = [op for op in graph.get_operations() if any(out.consumers() for out in op.outputs)]
    found = sum(of_operation(op) for op in used if len(op.outputs) == 1)
    assert found == flops.count(problem).gradient


def test_the_sizes_are_those_of_the_tables():
    sizes = {name: problem.size for name, problem in problems.PROBLEMS.items()}
    assert sizes["small-1"] == sizes["small-256"] == 24_790
    assert sizes["dense-8192"] == 8192 * 8193
    assert flops.count(problems.PROBLEMS["dense-8192"]).hvp == 2 * 8192 * 8192 * 128


def test_the_product_by_hand_is_the_derivative_of_the_gradient_by_hand(monkeypatch):
    net, v = DenseNet(DENSE), problems.vectors(DENSE, 1).astype(float)
    weights = [array.astype(float) for array in problems.values(DENSE)]
    step, gradients = 1e-5, []
    for sign in (1, -1):
        parts = np.split(v, np.cumsum([w.size for w in weights])[:-1])
        moved = [w + sign * step * p.reshape(w.shape) for w, p in zip(weights, parts, strict=True)]
        monkeypatch.setattr("bench.backends.reference.values", lambda _, moved=moved: moved)
        gradients.append(DenseNet(DENSE).gradient)
    expected = (gradients[0] - gradients[1]) / (2 * step)
    np.testing.assert_allclose(net.hvp(v), expected, rtol=1e-6, atol=1e-9)


# Turns


def test_ratios_are_of_neighbours_and_medians_forgive_a_spike():
    ours = iter([1.0, 1.0, 2.0, 2.0, 90.0, 1.0])
    fast, slow = iter([0.5, 1.0, 0.5]), iter([4.0, 8.0, 4.0])
    others = {"fast": lambda: next(fast), "slow": lambda: next(slow)}
    timed = timing.interleave(lambda: next(ours), others, 3)
    assert timed.ratios == {"fast": 2.0, "slow": 0.25}
    assert timed.seconds == {"fast": 0.5, "slow": 4.0}
    assert timed.ours == 1.5
    assert (timed.ours_best, timed.best) == (1.0, {"fast": 0.5, "slow": 4.0})


def test_ours_goes_before_each_other():
    order = []
    others = {name: lambda name=name: order.append(name) or 1.0 for name in "bc"}
    timing.interleave(lambda: order.append("a") or 1.0, others, 2)
    assert "".join(order) == "abacabac"


def test_rounds_are_odd_and_at_least_three():
    assert [timing.rounds_in(60, seconds, 11) for seconds in (1, 8, 12, 100)] == [11, 7, 5, 3]
    assert timing.calls_in(0.05, 0.002) == 25
    assert timing.calls_in(0.05, 1.0) == 1


def test_work_of_others_is_what_the_machine_did_and_we_did_not():
    before = machine_load.Usage(wall=0.0, machine=100.0, own=10.0)
    cores = len(os.sched_getaffinity(0))
    after = machine_load.Usage(wall=10.0, machine=100.0 + 6 * cores, own=10.0 + 4 * cores)
    assert machine_load.of_others(before, after) == pytest.approx(0.2)
    assert machine_load.of_others(None, after) is None


# Judgement


def figure(**results):
    return Measurement({OURS.name: Result("ok", seconds=1.0), **results})


def test_a_peer_that_differs_is_wrong_and_not_the_fastest():
    found = figure(a=Result("ok", seconds=2.0, ratio=0.5), b=Result("ok", seconds=0.1, ratio=10.0))
    ours = np.ones((4, 1), np.float32)
    measure.judge(found, "a", ours * (1 + 1e-6), ours)
    measure.judge(found, "b", ours * 1.1, ours)
    assert (found.results["a"].status, found.results["b"].status) == ("ok", "wrong")
    assert found.fastest == "a"
    assert found.confirmed_by == ["a"]
    assert "wrong 1e-1" in report.cell(found.results["b"])


def test_not_a_number_agrees_with_nothing():
    found = figure(a=Result("ok"))
    measure.judge(found, "a", np.array([[np.nan]]), np.array([[np.nan]]))
    assert found.results["a"].status == "wrong"


def test_ours_has_nothing_to_say_where_it_is_wrong():
    found = figure(a=Result("ok", seconds=2.0, ratio=0.5))
    measure.judge_ours(found, np.ones((3, 1)), 2 * np.ones((3, 1)))
    run = a_run(ProblemRecord("wide", 3, 1, {}, figures={"hvp": found}))
    assert all(v.met is None for v in targets.verdicts(run) if v.target.figure == "hvp")


def a_run(problem, name="wide"):
    return Run("2026-01-01", record.machine(), {}, {}, {}, problems={name: problem})


def verdict(run, **wanted):
    (found,) = (
        v
        for v in targets.verdicts(run)
        if all(getattr(v.target, key) == value for key, value in wanted.items())
    )
    return found


@pytest.mark.parametrize(("ratio", "met"), [(0.5, None), (1.5, False)])
def test_a_missing_peer_is_never_beaten(ratio, met):
    results = {name: Result("missing") for name, peer in PEERS.items() if peer.has_products}
    found = figure(**{NAIVE.name: Result("ok", seconds=1.0, ratio=ratio)}, **results)
    run = a_run(ProblemRecord("wide", 3, 1, {}, figures={"hvp": found}))
    against_all = verdict(run, figure="hvp", against="fastest peer")
    assert against_all.met is met
    assert met is False or "without pytorch" in against_all.note
    assert verdict(run, figure="hvp", against=NAIVE.name).value == ratio


def test_all_peers_beaten_is_met():
    names = [NAIVE.name, *(name for name, peer in PEERS.items() if peer.has_products)]
    found = figure(**{name: Result("ok", seconds=1.0, ratio=0.9) for name in names})
    found.units = {"limit": 1.3, "gradient": 1.7}
    run = a_run(ProblemRecord("wide", 3, 1, {}, figures={"hvp": found}))
    assert verdict(run, figure="hvp", against="fastest peer").met is True
    assert verdict(run, figure="hvp", against="limit").met is False
    assert verdict(run, figure="hvp", against="gradient").met is True


def test_eigenvalues_are_wrong_where_the_tolerance_or_one_of_them_is_missed():
    found = Measurement(
        {
            "good": Spectrum("ok", error=1e-4, values=[1.0, 2.0]),
            "loose": Spectrum("ok", error=1e-2, values=[1.0, 2.0]),
            "blind": Spectrum("ok", error=1e-4, values=[0.5, 1.0]),
        }
    )
    spectra.judge(found)
    assert [result.status for result in found.results.values()] == ["ok", "wrong", "wrong"]


def test_a_peer_that_stalls_is_named_where_its_best_turn_is_ahead():
    names = [NAIVE.name, *(name for name, peer in PEERS.items() if peer.has_products)]
    found = figure(**{name: Result("ok", seconds=5.0, ratio=0.2, best=4.0) for name in names})
    found.results[OURS.name].best = 1.0
    stalling = found.results["jax-linearize"]
    stalling.best = 0.8
    assert stalling.is_unsteady
    run = a_run(ProblemRecord("wide", 3, 1, {}, figures={"hvp": found}))
    told = verdict(run, figure="hvp", against="fastest peer")
    assert told.value == 0.2
    assert told.note.endswith("best turns 1.25 (jax-linearize)")


# The judgement of densities


def test_moments_are_those_of_the_nodes_whatever_the_bells():
    nodes, weights = np.array([-0.5, 0.0, 0.25, 3.0]), np.array([0.2, 0.5, 0.2, 0.1])
    expected = [weights @ nodes**k for k in range(5)]
    np.testing.assert_allclose(densities.moments(Seen(nodes, weights)), expected, rtol=1e-12)
    for width in (0.05, 0.4):
        x = np.linspace(-4.0, 7.0, 1001)
        bells = np.exp(-(((x[:, None] - nodes) / width) ** 2) / 2) / (width * np.sqrt(2 * np.pi))
        seen = curve(x, bells @ weights, width)
        np.testing.assert_allclose(densities.moments(seen), expected, rtol=1e-9)


def test_moments_by_hand_over_a_whole_basis_are_those_of_the_eigenvalues():
    net = DenseNet(DENSE)
    H = np.stack([net.hvp(column) for column in np.eye(DENSE.size)], axis=1)
    expected = [np.mean(np.linalg.eigvalsh(H) ** k) for k in range(5)]
    probes = 7 * np.eye(DENSE.size)  # of any length
    np.testing.assert_allclose(densities.moments_by_hand(net, probes), expected, rtol=1e-9)


@pytest.mark.parametrize(
    ("factor", "refused", "status"),
    [
        (1.001, {}, "ok"),
        (1.02, {}, "wrong"),
        (np.nan, {}, "wrong"),
        (1.001, {"as released": "RuntimeError: no torch.eig"}, "failed"),
        (1.02, {"as released": "RuntimeError: no torch.eig"}, "wrong"),
    ],
)
def test_a_density_is_wrong_where_a_moment_is_missed_and_has_failed_where_it_was_mended(
    factor, refused, status
):
    by_hand = np.array([1.0, 1e-3, 2e-3, 4e-3, 9e-3])
    found = by_hand * np.array([1, 1, 1, factor, 1])
    result = densities.judged(Prepared("form", 1.0, 2.0, 1.0, refused), found, by_hand)
    assert result.status == status
    assert status != "failed" or "no torch.eig" in result.note


@pytest.mark.parametrize(("ratio", "met"), [(0.1, None), (0.5, False)])
def test_a_density_that_has_failed_is_never_beaten(ratio, met):
    mended = Result("failed", seconds=1.0, ratio=ratio, form="nodes; torch.eig put back")
    found = figure(pyhessian=mended, curvlinops=Result("missing", note="not installed"))
    found.units = {"products": 1.1}
    run = dataclasses.replace(
        Run("2026-01-01", record.machine(), {}, {}, {}),
        density=DensityRecord("digits", PROBES, STEPS, found),
    )
    told = verdict(run, against="pyhessian")
    assert (told.value, told.met) == (ratio, met)
    assert told.note == "which failed; timed with torch.eig put back"
    missing = verdict(run, against="curvlinops")
    assert (missing.value, missing.met, missing.note) == (None, None, "not installed")
    assert verdict(run, against="products").met is True


# A whole run of a tiny problem, without peers


@pytest.fixture(scope="module")
def run():
    problem = measure.measure(DENSE, [ABSENT], measure.SMALLEST, lambda _: None)
    versions = implementations.versions([])
    return dataclasses.replace(a_run(problem, DENSE.name), versions=versions)


def test_ours_and_naive_tensorflow_are_timed_and_confirmed_by_hand(run):
    for kind in ("hvp", "gnvp", "hvp_block", "gnvp_block"):
        found = run.problems[DENSE.name].figures[kind]
        assert found.confirmed_by == [NAIVE.name, "by hand"]
        assert found.results[OURS.name].seconds > 0
        assert found.results[NAIVE.name].ratio > 0
        assert found.rounds == 3


def test_the_units_are_there(run):
    problem = run.problems[DENSE.name]
    assert set(problem.figures["hvp"].units) == {"gradient", "empty", "limit"}
    assert set(problem.figures["hvp_block"].units) == {"single"}
    assert problem.first[OURS.name] > 0
    assert problem.memory["hvp"][OURS.name] >= 0
    assert problem.speed > 0


def test_who_is_not_installed_is_missing(run):
    for found in run.problems[DENSE.name].figures.values():
        assert found.results["pytorch"].status == "missing"
        assert found.results["pytorch"].note == "no-such-dist not installed"
        assert found.fastest in (NAIVE.name, None)


def test_the_json_holds_what_was_found(run, tmp_path):
    run.save(tmp_path / "bench.json")
    content = json.loads((tmp_path / "bench.json").read_text())
    assert content["schema"] == record.SCHEMA
    assert set(content) == {"schema"} | {field.name for field in dataclasses.fields(Run)}
    problem = content["problems"][DENSE.name]
    assert problem["parameters"] == DENSE.size
    assert problem["multiply_adds"] == vars(flops.count(DENSE))
    result = problem["figures"]["hvp"]["results"][NAIVE.name]
    assert set(result) == {field.name for field in dataclasses.fields(Result)}
    assert result["error"] < 1e-5
    assert content["versions"]["tensorflow"].startswith("2.")


@pytest.fixture(scope="module")
def density():
    return densities.measure(DENSE, [ABSENT], measure.SMALLEST, lambda _: None)


def test_our_density_is_confirmed_by_hand_and_timed_beside_its_products(density):
    ours = density.figure.results[OURS.name]
    assert ours.status == "ok"
    assert ours.error < 1e-5
    assert ours.seconds > 0
    assert set(density.figure.units) == {"products"}
    assert density.figure.rounds == measure.SMALLEST.repeats
    assert density.first[OURS.name] > ours.seconds
    absent = density.figure.results["pytorch"]
    assert (absent.status, absent.note) == ("missing", "no-such-dist not installed")
    assert (density.probes, density.steps) == (10, 80)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, peer in PEERS.items() if peer.has_density])
def test_the_densities_of_peers_have_the_moments_of_their_probes(name):
    if PEERS[name].missing():
        pytest.skip(PEERS[name].missing())
    with Worker(name) as worker:
        worker.wait_until_ready()
        worker.ask("load", DENSE.name)
        prepared, seen, probes = worker.ask("density")
    by_hand = densities.moments_by_hand(DenseNet(DENSE), probes)
    result = densities.judged(prepared, densities.moments(seen), by_hand)
    assert result.status == ("failed" if name == "pyhessian" else "ok")
    assert probes.shape == (DENSE.size, PROBES)
    assert len(seen.places) in (PROBES * STEPS, 1001)


def test_the_picture_and_the_tables_are_made(run, density, tmp_path):
    plot.save(run, tmp_path / "bench.png")
    assert (tmp_path / "bench.png").stat().st_size > 10_000
    console = Console(record=True, file=open(os.devnull, "w"))  # noqa: SIM115
    found = figure(matfree=Spectrum("wrong", 1.0, 2.0, 0.1, note="the tolerance is missed"))
    whole = dataclasses.replace(
        run, spectra=SpectraRecord("digits", figures={"hvp": found}), density=density
    )
    report.show(whole, targets.verdicts(whole), console)
    text = console.export_text()
    for word in (
        "tiny dense net",
        "missing",
        "confirmed by tensorflow, by hand",
        "tolerance",
        "of its products alone",
        "Gaussian probes in one block",
    ):
        assert word in text


def test_a_worker_that_fails_or_dies_says_why_in_a_line():
    with Worker("hvp") as worker:
        worker.wait_until_ready()
        with pytest.raises(WorkerError, match="InputError: expected a problem among"):
            worker.ask("load", "nonsense")
        os.kill(worker.pid, signal.SIGKILL)
        with pytest.raises(WorkerError, match="ended with -9, killed"):
            worker.ask("load", DENSE.name)


# The command line


def command(*arguments):
    return subprocess.run(
        (sys.executable, "-m", "bench", *arguments),
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "COLUMNS": "400"},
    )


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("--problem", "nonsense"), "expected a --problem among small-1,"),
        (("--peers", "pytorch,caffe"), "got 'caffe'"),
        (("--json", "pyproject.toml/a.json"), "expected a file to write"),
    ],
)
def test_what_cannot_be_run_is_told_in_one_line(arguments, line):
    told = command(*arguments)
    assert told.returncode == 2
    assert told.stderr.startswith("bench: expected ")
    assert line in told.stderr
    assert told.stderr.count("\n") == 1
    assert not told.stdout


def test_an_interrupt_ends_the_run_and_its_workers(tmp_path):
    places = ("--json", str(tmp_path / "a.json"), "--picture", str(tmp_path / "a.png"))
    running = subprocess.Popen(
        (sys.executable, "-m", "bench", "--problem", DENSE.name, "--peers", "none", *places),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        # A shell's jobs in the background ignore interrupts, and so would what they start.
        preexec_fn=functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )
    children = Path(f"/proc/{running.pid}/task/{running.pid}/children")
    while running.poll() is None and not (workers := children.read_text().split()):
        time.sleep(0.02)
    running.send_signal(signal.SIGINT)
    _, errors = running.communicate(timeout=60)
    assert running.returncode == 130
    assert errors.strip().splitlines()[-1] == "bench: interrupted"
    # One that was only just born ends by itself, when nobody speaks to it any more.
    deadline = time.monotonic() + 60
    while [pid for pid in workers if Path(f"/proc/{pid}").exists()]:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_help_names_every_problem_and_peer():
    shown = command("--help").stdout
    assert not [n for n in (*problems.PROBLEMS, *PEERS, *END_TO_END) if n not in shown]


def test_only_the_public_face_of_hvp_is_used():
    for path in (ROOT / "bench").glob("*.py"):
        assert "from hvp." not in path.read_text()
    assert issubclass(hvp.InputError, ValueError)
