"""Which eigenvalues count as right."""

from bench.measurements import spectra
from bench.results.record import (
    Measurement,
    Spectrum,
)


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
