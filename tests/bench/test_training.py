"""The benchmark of training: what it counts as reached, and that both ways train."""

from __future__ import annotations

import numpy as np
import pytest

from bench import training
from hvp import examples


class Square:
    """A loss of one weight, in the place of a linearization."""

    def loss(self, weights: np.ndarray) -> float:
        return float(weights[0] ** 2)


def test_a_loss_counts_from_the_time_at_which_it_was_reached() -> None:
    run = [(1.0, np.array([3.0])), (2.0, np.array([1.0])), (3.0, np.array([2.0]))]
    assert training.losses(run, Square(), [0.5, 1.0, 2.5, 9.0]) == [np.inf, 9.0, 1.0, 1.0]


@pytest.mark.sweep
def test_both_ways_begin_at_the_same_weights_and_train(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = examples.mnist()
    monkeypatch.setattr(examples, "mnist", lambda: (x[::50], y[::50]))
    lin = training.linearized(examples.network("tanh"))
    for run in (training.by_trust_ncg(0.3, "G"), training.by_sgd(0.3, 0.1, 0.9)):
        times = [at for at, _ in run]
        assert times == sorted(times)
        assert training.losses(run, lin, times[-1:])[0] < lin.loss()
