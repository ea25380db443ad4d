"""Results in words and rows: what is not known has no share either."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
from support.matrices import Known, network, rotated

import hvp
from hvp.linalg.eigenpairs import Eigenpairs
from hvp.linalg.estimate import Estimate
from hvp.report import density_curves, entries, number_format, summary


def pairs(values, errors):
    values = np.array(values, float)
    return Eigenpairs(values, np.eye(9)[:, : len(values)], np.full(len(values), errors), 0)


def texts(values, end, errors=1e-6, floor=1e-7):
    found = number_format.eigenvalues(pairs(values, errors), end, floor)
    return [each.text(with_error=False) for each in found]


@pytest.mark.parametrize(
    ("values", "end", "shown"),
    [
        # A double eigenvalue that a gap separates from the others is known, and so are these.
        (
            [2.0, 4.0, 5.23, 5.23],
            "largest",
            ["5.230000 (×2)", "5.230000 (×2)", "4.000000", "2.000000"],
        ),
        ([-3.0, -3.0, -1.0], "smallest", ["-3.000000 (×2)", "-3.000000 (×2)", "-1.000000"]),
        # More eigenvalues may be equal to the last ones: a bound.
        ([5.23, 5.23, 7.0], "largest", ["7.000000", "≥ 5.2", "≥ 5.2"]),
        # Values as small as their errors are no known cluster, and the next may belong to it.
        ([1e-7, 2e-7, 3e-7, 1.0], "smallest", ["≤ 1.1e-6", "≤ 1.2e-6", "≤ 1.3e-6", "≤ 1.1"]),
    ],
)
def test_a_cluster_that_is_known_is_printed_as_a_multiple_eigenvalue(values, end, shown):
    assert texts(values, end) == shown


def test_double_eigenvalues_of_a_comparison_are_known():
    values = np.r_[np.linspace(0.0, 1.0, 26), 3.0, 5.23, 5.23, 7.0]
    H = rotated(values, 3)[None]
    found = hvp.compare(Known(H, H, {"only": 30}), 4)
    shown = [
        entries.eigenvalue(found, found.whole, "H", "largest", rank).text(5, with_error=False)
        for rank in (1, 2, 3, 4)
    ]
    assert shown == ["7.0000", "5.2300 (×2)", "5.2300 (×2)", "3.0000"]


@pytest.fixture(scope="module")
def comparison():
    return hvp.compare(network(), 4)


def test_the_largest_stable_learning_rate_is_that_of_gradient_descent(comparison):
    rate = float(entries.stable_rate(comparison))
    H = comparison.whole.H.largest
    w = H.vectors[:, -1]
    dense = network().dense("H")
    for factor, grows in ((0.99, False), (1.01, True)):
        step = w - factor * rate * dense @ w
        assert (np.linalg.norm(step) > 1) == grows
    assert f"2/λ_max = {entries.stable_rate(comparison)}." in " ".join(summary.headline(comparison))


def test_without_a_positive_eigenvalue_there_is_no_stable_rate():
    H = rotated(np.linspace(-3.0, -1.0, 30), 3)[None]
    found = hvp.compare(Known(H, H, {"only": 30}), 2)
    assert entries.stable_rate(found) == ""
    assert "learning rate" not in " ".join(summary.headline(found))


def spiked(spikes, **changed):
    values = np.r_[np.zeros(150), np.linspace(0.0, 1.0, 150), spikes]
    H = rotated(values, 3)[None]
    lin = Known(H, H, {"only": len(values)})
    for name, value in changed.items():
        setattr(lin, name, value)
    return hvp.compare(lin, 6)


def test_outliers_are_counted_beside_the_outputs():
    found = spiked([4.0, 5.0, 6.0, 9.0], loss_name="categorical_crossentropy", num_outputs=50)
    assert density_curves.outliers_above(found.whole, "H") == (4, False)
    assert summary.outliers(found, found.whole) == "4 outliers of H above the bulk; outputs − 1 = 4"
    unknown = dataclasses.replace(found, loss_name="mean_squared_error")
    assert summary.outliers(unknown, found.whole) == "4 outliers of H above the bulk"
    many = spiked(np.arange(4.0, 12.0))
    assert summary.outliers(many, many.whole) == "6 or more outliers of H above the bulk"
    none = spiked([])
    assert summary.outliers(none, none.whole) == "No eigenvalue of H stands apart above the bulk"


@pytest.mark.parametrize(
    ("distance", "row"),
    [
        (Estimate(1.0, 0.1, depth=0.2), ("1.0 ± 0.2", "50 %")),
        (Estimate(1.0, 0.1, depth=5.0), ("not known at this Krylov depth", "–")),
        (Estimate(1e-9, 0.0), ("≤ 1.0e-6", "–")),
    ],
)
def test_a_distance_that_is_not_known_has_no_share(distance, row):
    part = SimpleNamespace(distance=distance, norm=2.0)
    assert entries.distance(SimpleNamespace(floor=1e-6), part) == row
