"""A whole run of small layers: what is measured, its table, picture and JSON."""

import copy
import json
import os

import pytest
from rich.console import Console

from hvp.benchmark import entries, measure, picture, records, table
from hvp.benchmark.entries import NAIVE, OURS
from hvp.benchmark.layer_cases import TINY, parsed
from hvp.benchmark.records import CaseRecord, Measurement, Result, Run


def text_of(run):
    console = Console(record=True, width=100, file=open(os.devnull, "w"))  # noqa: SIM115
    console.print(table.of_run(run))
    return console.export_text()


def a_run(**problems):
    return Run("2026-01-01", records.machine(), {"hvp": "0"}, {}, {}, 2, problems)


def a_case():
    ours, naive = Result("ok", seconds=0.01), Result("ok", seconds=0.03, ratio=1 / 3)
    figure = Measurement({OURS.name: ours, NAIVE.name: naive}, {"gradient": 0.8, "limit": 1.25})
    gradient = Measurement({NAIVE.name: Result("ok", seconds=0.0125)})
    return CaseRecord(
        "dense 3 × 4, batch 5", 2_000_000, 5, {"hvp": 4_000_000_000, "gnvp": None}, 1e10,
        "NumPy (5, 3) @ (3, 4)",
        {"hvp": figure, "gnvp": copy.deepcopy(figure), "gradient": gradient},
        {"hvp": 1.5}, {"hvp": {"hvp": 40_000_000}},
    )  # fmt: skip


def test_the_table_shows_what_was_measured():
    (row,) = [line.split() for line in text_of(a_run(a=a_case())).splitlines() if "  Hv " in line]
    # ms, gradients, naive, ratio, 10⁹ multiply-adds, share of speed, peak, vectors, first
    assert row == ["Hv", "10", "0.80", "30", "0.33", "4", "80%", "38.1", "MiB", "5.0", "1.50"]
    assert "unknown" in text_of(a_run(a=a_case()))


def test_what_is_wrong_or_failed_is_said():
    case = a_case()
    case.figures["hvp"].results[NAIVE.name] = Result("wrong", 0.03, 1 / 3, error=0.1)
    case.figures["gnvp"].results[OURS.name] = Result("failed", note="InputError: no")
    run = a_run(a=case)
    (row,) = [line.split() for line in text_of(run).splitlines() if "  Hv " in line]
    assert row[:5] == ["Hv", "10", "0.80", "wrong", "4"]
    lines = list(table.notes(run))
    assert any("Gv, hvp: failed: InputError: no" in line for line in lines)
    assert any("naive TensorFlow: wrong, differs by 1e-01" in line for line in lines)


def test_columns_of_nothing_are_left_out_and_the_others_are_not_cut():
    case = a_case()
    case.multiply_adds["hvp"] = 39_460
    text = text_of(a_run(a=case))
    assert "…" not in text
    case.memory, case.first = {}, {}
    text = text_of(a_run(a=case)).partition("ms:")[0]
    assert not {"peak", "vectors", "first"} & set(text.split())


def test_what_was_prepared_but_not_timed_is_no_failure():
    case = a_case()
    note = "forward over reverse refused: no"
    case.figures["hvp"].results[NAIVE.name] = Result("ok", note=note)
    run = a_run(a=case)
    assert "untimed" in text_of(run)
    assert any(f"Hv, naive TensorFlow: {note}" in line for line in table.notes(run))


def test_the_picture_is_drawn_where_there_is_something(tmp_path):
    assert picture.save(a_run(a=a_case()), tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 10_000
    assert not picture.save(a_run(a=CaseRecord("nothing")), tmp_path / "b.png")


def test_the_json_is_read_back(tmp_path):
    a_run(a=a_case()).save(tmp_path / "a.json")
    content = json.loads((tmp_path / "a.json").read_text())
    assert content["schema"] == records.SCHEMA
    assert content["threads"] == 2
    assert content["problems"]["a"]["figures"]["hvp"]["results"]["hvp"]["seconds"] == 0.01


def test_a_product_that_no_other_confirms_is_compared_with_differences():
    class Asked:
        answer = ""

        def ask(self, request):
            assert request == "certified"
            return self.answer

    record, found = CaseRecord("a"), Measurement({OURS.name: Result("ok")})
    case = measure._Case(TINY, {OURS.name: Asked()}, {}, measure.QUICK, record, lambda _: None)
    case._confirm(found, "hvp", None)
    assert found.confirmed_by == ["central differences"]
    Asked.answer, found = "they differ", Measurement({OURS.name: Result("ok")})
    case._confirm(found, "hvp", None)
    assert (found.results[OURS.name].status, found.confirmed_by) == ("wrong", [])


@pytest.mark.sweep
@pytest.mark.parametrize(
    "case", [TINY, parsed("lstm", "3x2x2", 4, "auto", 0)], ids=["dense", "lstm"]
)
def test_small_layers_are_measured_and_confirmed(case):
    seen = []
    measured = [OURS, NAIVE]
    record = measure.measure(case, measured, measure.SMALLEST, seen.append)
    assert len(seen) <= measure.steps(measure.SMALLEST, 2)
    for name in measure.SMALLEST.figures:
        figure = record.figures[name]
        assert figure.confirmed_by == [NAIVE.name]
        assert figure.results[OURS.name].seconds > 0
        assert figure.results[NAIVE.name].ratio > 0
    assert record.multiply_adds["hvp"] > record.multiply_adds["gnvp"] > 0
    assert record.first[OURS.name] > 0
    assert set(record.memory) == {"hvp"}
    assert record.share_of_speed("hvp") > 0
    assert (record.batch, record.parameters) == (case.batch, case.load().model.count_params())
    assert "hvp" in entries.versions(measured)
