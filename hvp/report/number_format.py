"""Numbers as text: no digit is printed that the error makes uncertain."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Literal

import numpy as np

from hvp.linalg.eigenpairs import Eigenpairs
from hvp.linalg.estimate import Estimate

UNKNOWN = "not known at this Krylov depth"
SINGLE = "not known from a single batch"
# The cell of an error that does not apply.
NONE = "–"
End = Literal["largest", "smallest"]
BOUND_SIGNS: dict[End, str] = {"largest": "≥", "smallest": "≤"}
# Numbers below SMALL and from LARGE on are printed with a power of ten.
SMALL, LARGE = 1e-3, 1e7
# The largest relative error of the eigenvalues of a known cluster.
CLUSTER_ERROR = 1e-3
SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True)
class Eigenvalue:
    """One eigenvalue as every table, sentence and hover text shows it.

    Attributes:
        value: λ.
        error: the larger of ‖Av - λv‖ and the noise floor of the products.
        bound: "≥" or "≤" where only a bound is known, else "".
        copies: how many eigenvalues are equal to it within their errors, itself included.
    """

    value: float
    error: float
    bound: str = ""
    copies: int = 1

    def text(self, digits: int = 7, *, with_error: bool = True) -> str:
        """The value with its error, or the bound.

        >>> Eigenvalue(42.087, 0.346).text(), Eigenvalue(9e-7, 7.31e-4, "≤").text()
        ('42.1 ± 0.3', '≤ 7.4e-4')
        >>> Eigenvalue(5.2312, 4e-4, copies=2).text(with_error=False)
        '5.2312 (×2)'
        """
        if self.bound:
            return bound(self.value, self.error, self.bound)
        text = known(self.value, self.error, digits)
        if with_error and self.error:
            text = f"{text} ± {margin(self.error)}"
        return f"{text} (×{self.copies})" if self.copies > 1 else text


def eigenvalues(pairs: Eigenpairs, end: End, floor: float) -> tuple[Eigenvalue, ...]:
    """The eigenvalues of one end of a spectrum, the outermost first.

    Eigenvalues whose intervals meet are a cluster. It is known where its errors are small beside
    its values and a gap separates it from the next value: they are then equal as far as the errors
    tell. The eigenvalues of any other cluster, and all after it, are bounds: it is unknown which
    has which rank.
    """
    outermost_first = slice(None, None, -1 if end == "largest" else 1)
    values, errors = pairs.values[outermost_first], pairs.errors[outermost_first]
    copies = _copies(values, np.maximum(errors, floor), pairs.separate[outermost_first])
    known_so_far = np.logical_and.accumulate(copies > 0)
    exact_zero = (values == 0) & (errors == 0)
    errors = np.where(exact_zero, 0.0, np.maximum(errors, floor))
    return tuple(
        Eigenvalue(float(value), float(error), "", int(count))
        if is_known
        else Eigenvalue(float(value), float(error), BOUND_SIGNS[end] if error else "")
        for value, error, count, is_known in zip(values, errors, copies, known_so_far, strict=True)
    )


def _copies(values: np.ndarray, errors: np.ndarray, separate: np.ndarray) -> np.ndarray:
    """(k,) how many eigenvalues each one's cluster has, zero where that is not known."""
    copies = np.where(separate, 1, 0)
    gaps = np.flatnonzero(np.abs(np.diff(values)) > errors[1:] + errors[:-1]) + 1
    for members in np.split(np.arange(len(values)), gaps):
        is_small = errors[members] <= CLUSTER_ERROR * np.abs(values[members])
        if len(members) > 1 and members[-1] < len(values) - 1 and is_small.all():
            copies[members] = len(members)
    return copies


def known(value: float, error: float, most: int = 7) -> str:
    """The value to the last digit of its error, with at most `most` significant digits.

    At most two digits if the error is unknown (NaN).

    >>> known(2.5944993, 4.2e-6), known(1351.66, 40.0), known(9e-7, 7e-4), known(-3.14e-5, 2e-7)
    ('2.594499', '1,350', '0', '-3.14e-5')
    """
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    digits = min(most, 2) if math.isnan(error) else most
    place = math.floor(math.log10(abs(value))) - digits + 1
    if error > 0:
        place = max(place, _place(error))
    rounded = round(value, -place) + 0.0
    if rounded == 0:
        return "0"
    if not SMALL <= abs(rounded) < LARGE:
        return _power(rounded, max(math.floor(math.log10(abs(rounded))) - place, 0))
    return f"{rounded:,.{max(-place, 0)}f}"


def margin(error: float) -> str:
    """An error to one digit, two where the first is a 1.

    >>> margin(4.2e-6), margin(0.346), margin(0.1031), margin(40.2), margin(0.0), margin(math.nan)
    ('4e-6', '0.3', '0.10', '40', '0', 'unknown')
    """
    if math.isnan(error):
        return "unknown"
    if error == 0 or not math.isfinite(error):
        return f"{error:g}"
    place = _place(error)
    if not SMALL <= error < LARGE:
        return _power(error, math.floor(math.log10(error)) - place)
    return f"{round(error, -place):,.{max(-place, 0)}f}"


def measured(value: float, error: float, most: int = 7) -> str:
    """The value and its error, or the value alone if the error is zero.

    >>> measured(42.087, 0.346), measured(2.0, 0.0)
    ('42.1 ± 0.3', '2')
    """
    if error == 0:
        return _trimmed(f"{value:,.{most}g}")
    return f"{known(value, error, most)} ± {margin(error)}"


def estimated(estimate: Estimate[float], factor: float = 1.0) -> str:
    """An estimate with the larger error of probes and depth, unless that of depth exceeds it.

    >>> estimated(Estimate(42.087, 0.346)), estimated(Estimate(1351.0, 40.0, depth=21844.0))
    ('42.1 ± 0.3', 'not known at this Krylov depth')
    >>> estimated(Estimate(7.0, 0.08, depth=3.0))
    '7 ± 3'
    """
    if math.isnan(estimate.value):
        return "not defined"
    if is_unknown(estimate):
        return UNKNOWN
    error = estimate.stderr if math.isnan(estimate.stderr) else max(estimate.stderr, estimate.depth)
    return measured(factor * estimate.value, factor * error)


def counted(estimate: Estimate[float]) -> str:
    """The estimate of a whole number, without its error where that leaves no other.

    >>> counted(Estimate(29.9999, 3e-4)), counted(Estimate(30.2, 0.8))
    ('30', '30.2 ± 0.8')
    """
    if math.isfinite(estimate.value) and max(estimate.stderr, estimate.depth) < 0.5:
        return f"{round(estimate.value):,}"
    return estimated(estimate)


def is_unknown(estimate: Estimate[float]) -> bool:
    """Whether fewer Lanczos steps would have changed an estimate by more than its own value."""
    return estimate.depth > abs(estimate.value)


def shared(estimate: Estimate[float]) -> str:
    """A share in per cent.

    >>> shared(Estimate(0.28078, 0.00319))
    '28.1 ± 0.3 %'
    """
    if estimate.stderr == estimate.depth == 0:
        return f"{known(100 * estimate.value, 0.0, 4)} %"
    text = estimated(estimate, 100.0)
    return text if math.isnan(estimate.value) or is_unknown(estimate) else f"{text} %"


def bound(value: float, error: float, sign: str) -> str:
    """The edge of the interval on the side that `sign` leaves open, rounded outwards.

    >>> bound(0.2119, 0.0001, "≥"), bound(-0.2119, 0.0, "≤")
    ('≥ 0.21', '≤ -0.21')
    """
    outwards = 1 if sign == "≤" else -1
    edge = value + outwards * error
    if edge == 0:
        return f"{sign} 0"
    exponent = math.floor(math.log10(abs(edge)))
    step = 10.0 ** (exponent - 1)
    rounded = outwards * math.ceil(outwards * edge / step - 1e-9) * step
    if not SMALL <= abs(rounded) < LARGE:
        return f"{sign} {_power(rounded, 1)}"
    return f"{sign} {rounded:,.{max(1 - exponent, 0)}f}"


def between(bounds: tuple[int, int], most: int) -> str:
    """A whole number of at most `most`, by its bounds.

    >>> between((3, 12), 70), between((7, 7), 70), between((0, 0), 70)
    ('3 to 12', '7', 'none')
    >>> between((0, 12), 70), between((3, 70), 70), between((0, 70), 70)
    ('at most 12', 'at least 3', 'an unknown number')
    """
    lower, upper = bounds
    if lower == upper:
        return f"{lower:,}" if lower else "none"
    if lower == 0:
        return "an unknown number" if upper >= most else f"at most {upper:,}"
    return f"at least {lower:,}" if upper >= most else f"{lower:,} to {upper:,}"


def enclosed(lower: float, upper: float) -> str:
    """A number by its bounds, two digits each, rounded outwards.

    >>> enclosed(2418.2, 260901.0), enclosed(3.0, 3.0), enclosed(1.3e7, 5e8)
    ('2,400 to 270,000', '3.0', '1.3e7 to 5.0e8')
    """
    low, high = (
        bound(each, 0.0, sign).partition(" ")[2] for each, sign in ((lower, "≥"), (upper, "≤"))
    )
    return low if low == high else f"{low} to {high}"


def eigenvalue_text(name: str, end: End, rank: int, found: Eigenvalue, sampling: float) -> str:
    """What a reader sees who points at an eigenvalue."""
    return typeset(f"{name}, {end} no. {rank}: {found.text()}; {_sampling_text(sampling)}")


def share_text(e: Estimate[float]) -> str:
    """What a reader sees who points at a share of R."""
    return typeset(f"{shared(e)}; {_sampling_text(100 * e.sampling, ' %')}")


def typeset(text: str) -> str:
    """Put minus signs, superscript exponents and non-breaking spaces into a text with numbers.

    >>> typeset("-3.14e-5 ± 2e-7").replace("\\xa0", "~")
    '−3.14~×~10⁻⁵~±~2~×~10⁻⁷'
    """
    text = re.sub(r"(?<![\w.])-(?=[\d.ε])", "−", text)

    def power(match: re.Match[str]) -> str:
        return f"\xa0×\xa010{str(int(match[1])).translate(SUPERSCRIPTS)}"

    text = re.sub(r"(?<=\d)e([-+]?\d+)", power, text)
    return re.sub(r"(?<=[\d⁰¹²³⁴⁵⁶⁷⁸⁹]) (?=[±%])|(?<=[±≤≥]) ", "\xa0", text)


def _sampling_text(error: float, unit: str = "") -> str:
    if math.isfinite(error):
        return f"sampling error {margin(error)}{unit}"
    return f"sampling error {SINGLE}"


def _place(error: float) -> int:
    """The power of ten of the last digit that an error is printed to."""
    digits, exponent = f"{abs(error):.1e}".split("e")
    return int(exponent) - digits.startswith("1")


def _power(value: float, decimals: int) -> str:
    return _trimmed(f"{value:.{decimals}e}")


def _trimmed(text: str) -> str:
    """Without zeros in front of the exponent."""
    return re.sub(r"e\+?(-?)0*(?=\d)", r"e\1", text)


def duration(seconds: float) -> str:
    """A time to two digits, in the unit that suits it.

    >>> duration(0.00614), duration(31.4), duration(605.0), duration(9000.0)
    ('6.1 ms', '31 s', '10 min', '2.5 h')
    """
    for unit, size in (("h", 3600.0), ("min", 60.0), ("s", 1.0)):
        if seconds >= 1.95 * size or (unit == "s" and seconds >= size):
            return f"{float(f'{seconds / size:.2g}'):g} {unit}"
    return f"{float(f'{1000 * seconds:.2g}'):g} ms"
