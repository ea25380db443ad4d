"""Results in words and rows: what is not known has no share either."""

from types import SimpleNamespace

import pytest

from hvp.linalg.estimate import Estimate
from hvp.report import summary


@pytest.mark.parametrize(
    ("distance", "row"),
    [
        (Estimate(1.0, 0.1, depth=0.2), ("1.0 ± 0.10", "50 %")),
        (Estimate(1.0, 0.1, depth=5.0), ("not known at this Krylov depth", "–")),
        (Estimate(1e-9, 0.0), ("≤ 1.0e-6", "–")),
    ],
)
def test_a_distance_that_is_not_known_has_no_share(distance, row):
    part = SimpleNamespace(distance=distance, H=SimpleNamespace(norm=2.0))
    assert summary.distance(SimpleNamespace(floor=1e-6), part) == row
