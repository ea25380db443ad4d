"""A share of the time of a training that measurements may take."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class TimeBudget:
    """Time that is spent on measurements, of at most a share of all time since the start.

    The first measurement is always allowed, because nothing is known of its time before. A later
    one is allowed if it keeps the share, taking as long as the last.

    Attributes:
        share: at most this share of the time, None for no bound.
        spent: seconds spent so far.

    >>> budget = TimeBudget(0.1, clock=iter([0.0, 1.0, 2.0, 5.0, 30.0]).__next__)  # at 0 s
    >>> with budget.spending():  # from 1 s to 2 s
    ...     pass
    >>> budget.allows(), budget.allows()  # at 5 s: (1 + 1)/(5 + 1) of the time; at 30 s
    (False, True)
    """

    def __init__(self, share: float | None, clock: Callable[[], float] = time.perf_counter):
        self.share, self._clock = share, clock
        self.spent = 0.0
        self._last: float | None = None
        self._begun = clock()

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return self._clock() - self._begun

    def allows(self) -> bool:
        """Whether another measurement keeps the share."""
        if self.share is None or self._last is None:
            return True
        return self.spent + self._last <= self.share * (self.seconds + self._last)

    @contextmanager
    def spending(self, *, prepares: bool = False) -> Iterator[None]:
        """Count the time inside as spent; what only prepares is no measurement."""
        begun = self._clock()
        try:
            yield
        finally:
            seconds = self._clock() - begun
            self.spent += seconds
            self._last = self._last if prepares else seconds
