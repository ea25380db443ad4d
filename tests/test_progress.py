"""`progress=`: what every function calls it with, and the hooks of before."""

import copy
import functools
import pickle

import numpy as np
import pytest
import tensorflow as tf

import hvp
from hvp.progress import Progress, by_stage

SMALL, LARGE = np.diag(np.arange(1.0, 9.0)), np.diag(np.r_[np.arange(1.0, 3.0), np.ones(598)])
LIN = hvp.linearize_function(
    lambda z: tf.reduce_sum(z**2),
    [np.ones(3), np.ones(2)],
    outputs=lambda w: tf.concat([w[0] ** 2 * w[1][0], w[1] ** 3], 0),
)


class Layers:
    class layout:  # noqa: N801
        slices, layers = (slice(0, 600),), {"all": (0,)}


# Each with the products that it reports, None where it ends by its tolerance.
CALLS = {
    "eigsh, dense": (lambda hook: hvp.eigsh(SMALL, 2, progress=hook), 10),
    "eigsh": (lambda hook: hvp.eigsh(LARGE, 1, progress=hook), None),
    "density": (lambda hook: hvp.density(LARGE, num_probes=2, num_steps=2, progress=hook), 4),
    "trace": (lambda hook: hvp.trace(LARGE, num_products=8, progress=hook), 8),
    "trace, exact": (lambda hook: hvp.trace(SMALL, progress=hook), 8),
    "squared_frobenius_norm": (
        lambda hook: hvp.squared_frobenius_norm(LARGE, num_products=8, progress=hook), 8,
    ),
    "frobenius_norm": (lambda hook: hvp.frobenius_norm(LARGE, num_products=8, progress=hook), 8),
    "diagonal": (lambda hook: hvp.diagonal(LARGE, num_products=9, progress=hook), 9),
    "layer_traces": (
        lambda hook: hvp.layer_traces(LARGE, Layers, num_products=12, progress=hook), 12,
    ),
    "noise_floor": (lambda hook: hvp.noise_floor(LARGE, progress=hook), 6),
    "low_rank": (lambda hook: hvp.low_rank(LARGE, 4, progress=hook), None),
    "solve": (lambda hook: hvp.solve(LARGE, np.ones(600), damping=1.0, progress=hook), None),
    "loss_slice": (
        lambda hook: hvp.loss_slice(LIN, np.eye(5)[:, :2], num_points=9, progress=hook), 17,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CALLS)
def test_the_steps_add_up_to_the_total(name):
    call, total = CALLS[name]
    told = []
    call(told.append)
    assert all(type(done) is Progress for done in told)
    assert list(np.cumsum([done.step for done in told])) == told
    assert {done.total for done in told} == {total}
    assert total is None or told[-1] == total


STAGES = {
    "compare": lambda hook: hvp.compare(LIN, 1, layers=False, progress=hook),
    "track": lambda hook: hvp.track(LIN, {"a": LIN.theta}, num_products=2, progress=hook),
}


@pytest.mark.parametrize("name", STAGES)
def test_stages_are_labelled_and_a_hook_of_two_arguments_gets_label_and_number(name):
    told, before = [], []
    STAGES[name](told.append)
    STAGES[name](lambda label, count: before.append((label, count)))
    assert [(done.label, done) for done in told] == before
    labels = list(dict.fromkeys(label for label, _ in before))
    assert len(labels) > 2
    for label in labels:
        steps = [done.step for done in told if done.label == label]
        # The ends of a small matrix are two runs in one stage, each with a count of its own.
        assert sum(steps) >= max(count for each, count in before if each == label)


class Hook:
    """A hook that is an object; its last argument is optional, as that of Progbar.update."""

    def __init__(self):
        self.told = []

    def update(self, current, values=None, finalize=None):
        self.told.append((current, values))

    def old(self, label, count):
        self.told.append((label, count))

    def __call__(self, *arguments):
        self.told.append(arguments)


def test_only_hooks_that_need_two_arguments_get_two():
    done, hook = Progress(3, 2, 5, "stage"), Hook()
    assert by_stage(None)(done) is None
    expected = {
        hook.update: (3, None), hook.old: ("stage", 3), hook: (3,),
        functools.partial(hook.old, "mine"): ("mine", 3),
    }  # fmt: skip
    for function, told in expected.items():
        by_stage(function)(done)
        assert hook.told.pop() == told
    by_stage(print)(done)  # Python does not tell the arguments of all its own functions
    with pytest.raises(RuntimeError):
        by_stage(stop)(done)


def stop(done):
    raise RuntimeError(done)


def test_it_is_an_int_that_can_be_copied():
    done = Progress(3, 2, 5, "stage")
    for again in (copy.copy(done), copy.deepcopy(done), pickle.loads(pickle.dumps(done))):
        assert (again, again.step, again.total, again.label) == (3, 2, 5, "stage")
    assert f"{done:,}" == "3"
    assert done.labelled("other").label == "other"
