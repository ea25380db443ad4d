"""The edge of stability of an optimiser, found again by running the optimiser on quadratics."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import hvp
from hvp.callbacks import stability_edge

SGD, Adam, AdamW = keras.optimizers.SGD, keras.optimizers.Adam, keras.optimizers.AdamW
RATE = 0.25
# Steps on two quadratics, whose curvatures are a hundredth below and above the edge.
STEPS, NEAR = 250, np.array([0.99, 1.01])

OPTIMISERS = {
    "gradient descent": lambda: SGD(RATE),
    "momentum": lambda: SGD(RATE, momentum=0.9),
    "small momentum": lambda: SGD(RATE, momentum=0.3),
    "nesterov": lambda: SGD(RATE, momentum=0.9, nesterov=True),
    "weight decay": lambda: SGD(RATE, weight_decay=0.8),
    "momentum and weight decay": lambda: SGD(RATE, momentum=0.5, weight_decay=0.8),
    "nesterov and weight decay": lambda: SGD(RATE, momentum=0.5, nesterov=True, weight_decay=0.8),
}
ADAPTIVE = {
    "adam": lambda: Adam(RATE),
    "adam, other constants": lambda: Adam(RATE, beta_1=0.5, beta_2=0.9, epsilon=0.3),
    "amsgrad": lambda: Adam(RATE, amsgrad=True, beta_2=0.9),
    "adamw": lambda: AdamW(RATE, weight_decay=0.8),
}


def growth(optimizer, curvatures, w, freeze=lambda: None):
    """How much each coordinate of w grows in steps on ½ Σ λᵢwᵢ²: the largest late over early."""
    optimizer.build([w])
    w.assign(np.full(2, 1e-6))

    @tf.function
    def step():
        freeze()
        optimizer.apply([curvatures * w.value], [w])
        return w.value

    sizes = np.abs([step().numpy() for _ in range(STEPS)])
    return sizes[-20:].max(axis=0) / sizes[:20].max(axis=0)


@pytest.fixture
def w():
    return keras.Variable(np.zeros(2), dtype="float64")


@pytest.mark.parametrize("name", OPTIMISERS)
def test_steps_converge_just_below_the_edge_and_diverge_just_above(name, w):
    optimizer = OPTIMISERS[name]()
    edge = stability_edge(optimizer)
    assert edge.preconditioner is None
    below, above = growth(optimizer, NEAR * edge.value, w)
    assert below < 0.1
    assert above > 10


@pytest.mark.parametrize("name", ADAPTIVE)
def test_steps_of_adam_with_a_constant_preconditioner_do_so_too(name, w):
    """The third step again and again, with the same averages of the squared gradients."""
    optimizer = ADAPTIVE[name]()
    optimizer.build([w])
    squares = [v for v in optimizer.variables if "velocity" in v.name]

    def freeze():
        optimizer.iterations.assign(2)
        for square in squares:
            square.assign([0.04, 2.5])

    freeze()
    optimizer.apply([np.zeros(2)], [w])
    edge = stability_edge(optimizer, [w])
    below, above = growth(optimizer, NEAR * edge.value * edge.preconditioner, w, freeze)
    assert below < 0.1
    assert above > 10


@pytest.mark.parametrize(
    ("optimizer", "times_rate"),
    [(SGD(RATE), 2), (SGD(RATE, 0.9), 38 / 10), (SGD(RATE, 0.9, nesterov=True), 3.8 / 2.8)],
)
def test_the_edges_of_the_paper(optimizer, times_rate):
    assert stability_edge(optimizer).value == pytest.approx(times_rate / RATE, rel=1e-6)


def test_the_edge_of_adam_is_38_over_the_learning_rate():
    optimizer, w = Adam(1e-3), keras.Variable(np.ones(3), dtype="float64")
    optimizer.apply([np.array([1.0, 2.0, 3.0])], [w])
    edge = stability_edge(optimizer, [w])
    assert edge.value == pytest.approx(38e3, rel=1e-6)
    # After one step v/(1 - β₂) is the squared gradient; P has the factor 1 - β₁ besides.
    expected = (np.sqrt(1e-3) * np.array([1, 2, 3]) + 1e-7) * 0.1 / np.sqrt(1e-3)
    np.testing.assert_allclose(edge.preconditioner, expected, rtol=1e-6)


def test_the_learning_rate_is_that_of_the_next_step():
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay([1], [0.5, 0.1])
    optimizer, w = SGD(schedule), keras.Variable(np.ones(1))
    edges = []
    for _ in range(3):
        edges.append(stability_edge(optimizer).value)
        optimizer.apply([np.ones(1, "float32")], [w])
    np.testing.assert_allclose(edges, [4, 4, 20], rtol=1e-6)
    optimizer = SGD(0.1)
    optimizer.learning_rate = 0.4
    assert stability_edge(optimizer).value == pytest.approx(5, rel=1e-6)
    assert stability_edge(SGD(lambda: 0.4)).value == pytest.approx(5, rel=1e-6)


class OwnStep(SGD):
    def update_step(self, gradient, variable, learning_rate):
        self.assign_sub(variable, learning_rate * keras.ops.sign(gradient))


def without_biases():
    optimizer = AdamW(RATE)
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    return optimizer


@pytest.mark.parametrize(
    ("build", "named"),
    [
        (lambda: keras.optimizers.Nadam(RATE), "Nadam"),
        (lambda: keras.optimizers.RMSprop(RATE), "RMSprop"),
        (lambda: keras.optimizers.LossScaleOptimizer(SGD(RATE)), "LossScaleOptimizer"),
        (lambda: OwnStep(RATE), "OwnStep"),
        (lambda: SGD(RATE, clipnorm=1.0), "SGD with clipnorm"),
        (lambda: SGD(RATE, clipvalue=1.0), "SGD with clipvalue"),
        (lambda: Adam(RATE, global_clipnorm=1.0), "Adam with global_clipnorm"),
        (
            lambda: SGD(RATE, use_ema=True, ema_overwrite_frequency=5),
            "SGD with ema_overwrite_frequency",
        ),
        (without_biases, "AdamW with weight decay of some weights only"),
        (lambda: None, "None"),
    ],
)
def test_an_optimiser_whose_edge_is_not_known_is_refused_by_name(build, named):
    with pytest.raises(hvp.InputError, match=f"is known, got {named}; leave 'edge' out"):
        stability_edge(build())


def test_constraints_are_refused():
    layer = keras.layers.Dense(2, kernel_constraint="non_neg")
    layer.build((None, 3))
    with pytest.raises(hvp.InputError, match=r"SGD with a constraint on .*kernel"):
        stability_edge(SGD(RATE), layer.trainable_variables)


def test_adam_needs_a_step_and_its_own_weights():
    optimizer, w = Adam(RATE), keras.Variable(np.ones(3))
    with pytest.raises(hvp.InputError, match="after a step"):
        stability_edge(optimizer, [w])
    optimizer.apply([np.ones(3, "float32")], [w])
    with pytest.raises(hvp.InputError, match="that the optimiser was built with"):
        stability_edge(optimizer)
    with pytest.raises(hvp.InputError, match="that the optimiser was built with"):
        stability_edge(optimizer, [keras.Variable(np.ones(2))])


def test_a_learning_rate_of_zero_has_an_infinite_edge_and_negative_ones_none():
    assert stability_edge(SGD(0.0)).value == np.inf
    with pytest.raises(hvp.InputError, match="learning rate of 0 or more, got -1"):
        stability_edge(SGD(-1.0))
