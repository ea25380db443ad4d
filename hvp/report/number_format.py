"""Numbers as text: no digit is printed that the error makes uncertain."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Literal

import numpy as np

from hvp.linalg.eigsh import Eigenpairs
from hvp.linalg.estimate import Estimate

UNKNOWN = "not known at this Krylov depth"
SINGLE = "not known from a single batch"
End = Literal["largest", "smallest"]
BOUND_SIGNS: dict[End, str] = {"largest": "≥", "smallest": "≤"}
# Numbers below SMALL and from LARGE on are printed with a power of ten.
SMALL, LARGE = 1e-3, 1e7
SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True)
class Eigenvalue:
    """One eigenvalue as every table, sentence and hover text shows it.

    Attributes:
        value: λ.
        error: the larger of ‖Av - λv‖ and the noise floor of the products.
        bound: "≥" or "≤" where only a bound is known, else "".
    """

    value: float
    error: float
    bound: str = ""

    def text(self, digits: int = 7, *, with_error: bool = True) -> str:
        """The value with its error, or the bound.

        >>> Eigenvalue(42.087, 0.346).text(), Eigenvalue(9e-7, 7.31e-4, "≤").text()
        ('42.1 ± 0.3', '≤ 7.4e-4')
        """
        if self.bound:
            return bound(self.value, self.error, self.bound)
        text = known(self.value, self.error, digits)
        return f"{text} ± {margin(self.error)}" if with_error and self.error else text


def eigenvalues(pairs: Eigenpairs, end: End, floor: float) -> tuple[Eigenvalue, ...]:
    """The eigenvalues of one end of a spectrum, the outermost first.

    The eigenvalue of rank i is a bound if the interval of an eigenvalue of rank 1 to i overlaps
    another one: the cluster is not resolved, so it is unknown which eigenvalue has which rank.
    """
    outermost_first = slice(None, None, -1 if end == "largest" else 1)
    values, errors = pairs.values[outermost_first], pairs.errors[outermost_first]
    separate = np.logical_and.accumulate(pairs.separate[outermost_first])
    exact_zero = (values == 0) & (errors == 0)
    errors = np.where(exact_zero, 0.0, np.maximum(errors, floor))
    return tuple(
        Eigenvalue(float(value), float(error), "" if alone or error == 0 else BOUND_SIGNS[end])
        for value, error, alone in zip(values, errors, separate, strict=True)
    )


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
        return f"{value:,.{most}g}"
    return f"{known(value, error, most)} ± {margin(error)}"


def estimated(estimate: Estimate[float], factor: float = 1.0) -> str:
    """An estimate with the error of its probes, unless its depth error is larger than its value.

    >>> estimated(Estimate(42.087, 0.346)), estimated(Estimate(1351.0, 40.0, depth=21844.0))
    ('42.1 ± 0.3', 'not known at this Krylov depth')
    """
    if math.isnan(estimate.value):
        return "not defined"
    if is_unknown(estimate):
        return UNKNOWN
    error, depth = factor * estimate.stderr, factor * estimate.depth
    value = factor * estimate.value
    if error == depth == 0:
        return measured(value, 0.0)
    return f"{known(value, max(error, depth))} ± {margin(error)}"


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


def typeset(text: str) -> str:
    """Put minus signs, superscript exponents and non-breaking spaces into a text with numbers.

    >>> typeset("-3.14e-5 ± 2e-7").replace("\\xa0", "~")
    '−3.14~×~10⁻⁵~±~2~×~10⁻⁷'
    """
    text = re.sub(r"(?<![\w.])-(?=[\d.])", "−", text)

    def power(match: re.Match[str]) -> str:
        return f"\xa0×\xa010{str(int(match[1])).translate(SUPERSCRIPTS)}"

    text = re.sub(r"(?<=\d)e([-+]?\d+)", power, text)
    return re.sub(r"(?<=[\d⁰¹²³⁴⁵⁶⁷⁸⁹]) (?=[±%])|(?<=[±≤≥]) ", "\xa0", text)


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
