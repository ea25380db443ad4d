"""Which of order, backend and blocks is taken, when it is tried, and what is refused."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
from support.batched_products import blocks_of, even, ragged, vector
from support.oracles import relative

import hvp
from hvp.autodiff import curvature
from hvp.linearization import compilation, linear_map, linearization, products
from hvp.linearization.compilation import CompiledFunction
from hvp.linearization.products import FORWARD, REVERSE
from hvp.passes import pipeline


@pytest.mark.parametrize("order", [FORWARD, REVERSE])
@pytest.mark.parametrize(("jit", "way"), [(False, "graph"), (True, "XLA")])
def test_what_is_forced_shows(order, jit, way):
    lin = even(ad=order, jit=jit)
    assert lin.choices == ()
    for _ in range(2):
        lin.hvp(np.ones(lin.size))
        lin.jvp(np.ones(lin.size))
    assert [(c.product, c.way) for c in lin.choices] == [("H", way), ("J", way)]
    assert lin.choices[0].order == order
    assert all(choice.seconds == {} for choice in lin.choices)
    assert lin.findings == ()


def test_what_is_measured_for_blocks_shows(monkeypatch):
    lin = even(ad="auto", jit="auto")
    lin.hvp(np.ones(lin.size))
    (choice,) = lin.choices
    assert (choice.order, choice.way, choice.seconds) == (FORWARD, "graph", {})
    lin.hvp(np.ones((lin.size, 4)))
    (choice,) = lin.choices
    assert choice.seconds.keys() == {f"{FORWARD}, graph"}
    monkeypatch.setattr(linear_map, "SECONDS_PER_BLOCK_OPERATION", 0.0)
    lin.hvp(np.ones((lin.size, 4)))
    (choice,) = lin.choices
    assert choice.seconds.keys() == {f"{FORWARD}, graph", f"{FORWARD}, 4 columns, graph"}
    assert all(0 < seconds < 10 for seconds in choice.seconds.values())


@pytest.mark.parametrize(("cost", "columns"), [(1.0, {1}), (1e-7, {1, 4})])
def test_a_block_is_tried_when_its_columns_have_taken_as_long_as_the_trial(
    monkeypatch, cost, columns
):
    monkeypatch.setattr(linear_map, "SECONDS_PER_BLOCK_OPERATION", cost)
    lin = even(ad="auto", jit="auto")
    for _ in range(3):
        lin.hvp(np.ones((lin.size, 4)))
    assert len(blocks_of(lin)) == len(columns) - 1


def refuse(*arguments):
    raise tf.errors.InvalidArgumentError(None, None, "no kernel for XLA_CPU_JIT")


@pytest.fixture
def hasty(monkeypatch):
    """Blocks that run at once however long they take, by XLA from the second call if it agrees."""
    monkeypatch.setattr(linear_map, "SECONDS_PER_BLOCK_OPERATION", 0.0)
    monkeypatch.setattr(linear_map, "CALLS_BEFORE_XLA", 2)
    monkeypatch.setattr(linear_map, "SHORT_SECONDS", 1e9)
    monkeypatch.setattr(linear_map, "MAX_TIME_RATIO", 1e9)
    monkeypatch.setattr(compilation, "MAX_TIME_RATIO", 1e9)


def products_of_blocks(lin):
    return [lin.gnvp(vector(lin, "gnvp", 2)) for _ in range(3)]


@pytest.mark.sweep
def test_blocks_are_tried_by_xla_after_some_calls(hasty):
    lin, plain = ragged(jit="auto"), ragged()
    for product in products_of_blocks(lin):
        assert relative(product, plain.gnvp(vector(lin, "gnvp", 2))) < 1e-13
    assert {block.backend for block in blocks_of(lin)} == {"XLA"}
    assert {choice.way for choice in lin.choices} == {"graph"}
    assert any("2 columns, XLA" in name for c in lin.choices for name in c.seconds)


def test_few_blocks_are_not_tried_by_xla():
    lin = ragged(jit="auto")
    products_of_blocks(lin)
    assert {block.backend for block in blocks_of(lin)} <= {"graph"}


@pytest.mark.sweep
@pytest.mark.parametrize("when", ["traced", "called"])
def test_blocks_that_xla_refuses_run_as_a_graph(monkeypatch, hasty, when):
    original = CompiledFunction.compile

    def compile_(self):
        original(self)
        self._run = refuse

    monkeypatch.setattr(CompiledFunction, "compile", refuse if when == "traced" else compile_)
    lin, plain = ragged(jit="auto"), ragged()
    for product in products_of_blocks(lin):
        assert relative(product, plain.gnvp(vector(lin, "gnvp", 2))) < 1e-13
    assert {block.backend for block in blocks_of(lin)} == {"graph"}


@pytest.mark.sweep
def test_xla_is_not_used_where_its_result_differs(monkeypatch, hasty):
    original = CompiledFunction.compile

    def compile_(self):
        original(self)
        run = self._run
        self._run = lambda tensors: [1.001 * result for result in run(tensors)]

    monkeypatch.setattr(CompiledFunction, "compile", compile_)
    lin, plain = ragged(jit="auto"), ragged()
    for product in products_of_blocks(lin):
        assert relative(product, plain.gnvp(vector(lin, "gnvp", 2))) < 1e-13
    assert {block.backend for block in blocks_of(lin)} == {"graph"}


@pytest.mark.sweep
def test_an_order_that_tensorflow_cannot_build_is_noted_and_the_other_taken(monkeypatch):
    def refused(*arguments):
        refuse()

    forward = curvature.Mode(refused, refused)
    product = dataclasses.replace(
        products.H, modes={FORWARD: forward, REVERSE: curvature.REVERSE_MODE}
    )
    monkeypatch.setattr(linearization, "H", product)
    lin, expected = ragged(ad="auto"), ragged(ad=REVERSE)
    v = vector(lin, "hvp")
    assert relative(lin.hvp(v), expected.hvp(v)) < 1e-13
    assert {choice.order for choice in lin.choices} == {REVERSE}
    (note,) = lin.findings
    assert f"no {FORWARD}: no kernel for XLA_CPU_JIT" in note.message
    with pytest.raises(hvp.InputError, match="no kernel"):
        ragged(ad=FORWARD).hvp(v)


def test_a_defect_of_our_own_is_not_reported_as_a_refusal(monkeypatch):
    lin = ragged(jit="auto")
    monkeypatch.setattr(pipeline, "fuse_elementwise", lambda program, count: None)
    with pytest.raises(AttributeError, match="NoneType"):
        lin.hvp(np.ones(lin.size))


def test_xla_that_is_forced_and_refuses_is_one_clear_line(monkeypatch):
    monkeypatch.setattr(CompiledFunction, "compile", refuse)
    lin = ragged(jit=True)
    with pytest.raises(hvp.InputError, match="no kernel for XLA_CPU_JIT"):
        lin.hvp(np.ones(lin.size))
