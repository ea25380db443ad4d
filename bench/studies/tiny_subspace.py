"""The gradient lies in the space of the C largest eigenvalues of H, and that space stays.

Gur-Ari, Roberts and Dyer 2018, arXiv 1812.04754: soon after the start of training, for C classes,
most of ‖∇L‖² is in the space of the C largest eigenvalues of H, and this space changes little from
then on. The paper has CIFAR and MNIST. Here is 784-100-100-10 with ReLU on 2,000 digits, trained by
SGD.

Criteria after the first epoch: the share of ‖∇L‖² in the space of the ten largest is above 1/2 at
each checkpoint, and the spaces of two neighbouring checkpoints have a mean squared cosine above
1/2. A random vector has a share of 10/P.
"""

from __future__ import annotations

import itertools

import keras
import numpy as np

import hvp
from bench.studies import study
from bench.studies.study import Row, Study
from hvp import examples

CLASSES, EPOCHS = 10, (0, 1, 2, 3, 5, 8, 12, 16)
MOMENTA = {"SGD": 0.0, "SGD with momentum": 0.9}


def network(width: int, momentum: float) -> keras.Model:
    def dense(units: int, activation: str | None, seed: int) -> keras.layers.Layer:
        initial = keras.initializers.HeNormal(seed=seed)
        return keras.layers.Dense(units, activation, kernel_initializer=initial)

    layers = [dense(width, "relu", 0), dense(width, "relu", 1), dense(CLASSES, None, 2)]
    model = keras.Sequential([keras.Input((28, 28)), keras.layers.Flatten(), *layers])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.05 * (1 - momentum), momentum), loss)
    return model


def along(
    model: keras.Model, x: np.ndarray, y: np.ndarray, epochs: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray, float]:
    """The share of the gradient at each checkpoint, the overlaps, and the accuracy at the end."""
    lin = hvp.linearize(model, (x, y), ad="forward-over-reverse", jit=False)
    rng, shares, spaces = np.random.default_rng(0), [], []
    top: hvp.Eigenpairs | None = None
    for epoch in range(epochs[-1] + 1):
        if epoch in epochs:
            with lin.at(model) as there:
                top = hvp.eigsh(hvp.Hessian(there), CLASSES, tol=1e-3, start=top)
                gradient, accuracy = there.gradient(), there.accuracy
            shares.append(np.sum((top.vectors.T @ gradient) ** 2) / np.sum(gradient**2))
            spaces.append(top.vectors)
        order = rng.permutation(len(x))
        model.fit(x[order], y[order], batch_size=50, shuffle=False, verbose=0)
    pairs = itertools.pairwise(spaces)
    overlaps = [np.sum((one.T @ other) ** 2) / CLASSES for one, other in pairs]
    return np.array(shares), np.array(overlaps), float(accuracy or 0)


def run(quick: bool) -> Study:
    count, width, epochs = (100, 8, (0, 1, 2)) if quick else (2000, 100, EPOCHS)
    x, y = examples.mnist()
    chosen = np.random.default_rng(0).permutation(len(x))[:count]
    canvas = study.figure("The gradient in the space of the ten largest eigenvalues of H")
    left, right = canvas.subplots(1, 2)
    rows, reached = [], []
    for (name, momentum), colour in zip(MOMENTA.items(), study.COLOURS, strict=False):
        model = network(width, momentum)
        shares, overlaps, accuracy = along(model, x[chosen], y[chosen], epochs)
        left.plot(epochs, shares, "o-", color=colour, label=name)
        right.plot(epochs[1:], overlaps, "o-", color=colour)
        late, same = shares[1:], overlaps[1:]
        here = f"{shares[0]:.0%} at first, then {late.min():.0%} to {late.max():.0%}"
        law = "most, soon after the start"
        rows.append(Row(f"{name}: ∇L in the top ten", law, here, bool(late.min() > 0.5)))
        here = f"{overlaps[0]:.0%} at first, then {same.min():.0%} or more"
        claim = f"{name}: overlap with the checkpoint before"
        rows.append(Row(claim, "changes little", here, bool(same.min() > 0.5)))
        reached.append(f"{accuracy:.1%}")
    left.axhline(CLASSES / model.count_params(), color="0.5", linestyle=":", label="random vector")
    left.set(xlabel="epoch", ylabel="share of ‖∇L‖²", ylim=(0, 1.05))
    right.set(xlabel="epoch", ylabel="overlap with the checkpoint before", ylim=(0, 1.05))
    left.legend(frameon=False)
    remark = f"{count:,} digits, {model.count_params():,} parameters, checkpoints after epochs "
    remark += f"{', '.join(map(str, epochs))}; accuracies {' and '.join(reached)}."
    title = "Gradient in a tiny subspace (Gur-Ari et al. 2018)"
    return Study(title, tuple(rows), canvas, (remark,))
