"""Where random numbers come from: an integer `seed`, or `rng` as in SPEC 7 of Scientific Python.

Every function that draws random numbers takes either. Without both it takes seed 0 and repeats its
result. What it draws depends on a whole number alone, the seed, which results and files tell.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import Final, Literal, TypeAlias

import numpy as np

from hvp.errors import InputError

# Seeds drawn from a generator are below this: floats, and so JSON in every language, hold them.
SEED_BOUND = 1 << 53


class _NotGiven(enum.Enum):
    NOT_GIVEN = "not given"

    def __repr__(self) -> str:
        return self.value


class _DefaultSeed(int):
    """The seed where none is given. It is told from a 0 that is given by its identity."""


NOT_GIVEN: Final = _NotGiven.NOT_GIVEN
DEFAULT_SEED: Final[int] = _DefaultSeed(0)

# What `numpy.random.default_rng` takes. None is fresh entropy from the operating system.
RNG: TypeAlias = (
    int
    | np.integer
    | Sequence[int]
    | np.random.Generator
    | np.random.BitGenerator
    | np.random.SeedSequence
    | Literal[_NotGiven.NOT_GIVEN]
    | None
)


def seed_of(seed: int, rng: RNG) -> int:
    """The seed to take, of the two arguments of a function.

    A whole number means the same as `seed` and as `rng`. From a generator a seed is drawn, so that
    each call takes other random numbers and the same generator repeats them all. Of a SeedSequence
    each call gets the same seed, as NumPy's generators do: ``spawn`` it for others.

    Raises InputError where both are given, and for what is no seed and no generator.

    Source: SPEC 7 of Scientific Python, *Seeding pseudo-random number generation*.

    >>> seed_of(DEFAULT_SEED, NOT_GIVEN), seed_of(3, NOT_GIVEN), seed_of(DEFAULT_SEED, 3)
    (0, 3, 3)
    >>> rng = np.random.default_rng(0)
    >>> seed_of(DEFAULT_SEED, rng) == seed_of(DEFAULT_SEED, rng)
    False
    """
    if rng is NOT_GIVEN:
        return _whole(seed)
    if seed is not DEFAULT_SEED:
        raise InputError("seed or rng", "both", "leave one out")
    if isinstance(rng, int | np.integer):
        return _whole(rng)
    try:
        return int(np.random.default_rng(rng).integers(SEED_BOUND))
    except (TypeError, ValueError) as error:
        remedy = "pass numpy.random.default_rng(0)"
        raise InputError("an rng that NumPy takes", rng, remedy) from error


def generator_of(seed: int, rng: RNG) -> np.random.Generator:
    """NumPy's generator for `seed_of` these arguments."""
    return np.random.default_rng(seed_of(seed, rng))


def _whole(seed: int | np.integer) -> int:
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
        remedy = "leave it out for 0; what is no whole number goes to rng"
        raise InputError("a seed that is a whole number of at least 0", seed, remedy)
    return int(seed)
