"""The edge of stability of an optimiser: the largest curvature at which its steps still converge.

On a quadratic ½ λ w² gradient descent multiplies w by 1 - ηλ at each step, which converges for
λ < 2/η. Every optimiser here has such a bound. At it, w changes its sign from step to step.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from hvp.errors import InputError, shown

KNOWN = (keras.optimizers.SGD, keras.optimizers.Adam, keras.optimizers.AdamW)
REMEDY = "leave 'edge' out of measure=, or use SGD, Adam or AdamW without this option"


@dataclass(frozen=True, eq=False)
class StabilityEdge:
    """The edge of stability of an optimiser.

    Attributes:
        value: steps on a quadratic with the Hessian H converge if the largest eigenvalue of H, or
            of P⁻¹ᐟ² H P⁻¹ᐟ² for an optimiser with a preconditioner P, is below it.
        preconditioner: the diagonal of P, (P,), in the order of the trainable weights; None for
            P = I.
    """

    value: float
    preconditioner: np.ndarray | None = None


def stability_edge(
    optimizer: keras.optimizers.Optimizer, variables: Sequence[keras.Variable] = ()
) -> StabilityEdge:
    """The edge of stability of SGD, Adam or AdamW, as it is before its next step.

    With the learning rate η of that step and the weight decay γ (0 without), the edge is ::

        SGD                2/η                                    · (1 - ηγ/2)
        with momentum β    (2 + 2β)/η                             · (1 - ηγ/2)
        with nesterov=True (2 + 2β)/((1 + 2β) η)                  · (1 - ηγ/2)
        Adam, AdamW        (2 + 2β₁)/((1 - β₁) η), 38/η at 0.9    · (1 - ηγ/2)

    Adam divides by √v, so that its edge is one of P⁻¹ᐟ² H P⁻¹ᐟ² with the preconditioner that its
    step w ← w - η P⁻¹m has in Keras after t steps, held constant ::

        P = diag(√v + ε) (1 - β₁ᵗ) / √(1 - β₂ᵗ),

    with the largest v so far for ``amsgrad=True``. Momentum is that of a constant η; where a
    schedule changes it slowly, the edge is that of the present value, infinite for η = 0.

    Args:
        optimizer: of a compiled model.
        variables: the trainable weights in their order, as in ``model.trainable_variables``. Adam
            needs them.

    Raises:
        InputError: an optimiser or an option whose edge is not known: clipped gradients, weights
            replaced by their moving average, weight decay of some weights only, constraints on the
            weights, or Adam before its first step.

    Source: Cohen et al. 2021 (arXiv 2103.00065) for SGD with both kinds of momentum; Cohen et al.
    2022 (arXiv 2207.14484) for Adam. The factor for weight decay, which Keras subtracts as ηγw,
    follows in the same way: at the edge the matrix of a step has the eigenvalue -1.

    >>> import keras
    >>> print(round(stability_edge(keras.optimizers.SGD(0.1, momentum=0.9)).value, 3))
    38.0
    """
    refuse_unknown(optimizer, variables)
    rate = float(keras.ops.convert_to_numpy(optimizer.learning_rate))
    if not 0 <= rate < np.inf:
        raise InputError("a learning rate of 0 or more", rate, "check the optimiser")
    decay = 1 - rate * (optimizer.weight_decay or 0.0) / 2
    inverse = 1 / rate if rate > 0 else np.inf
    if isinstance(optimizer, keras.optimizers.SGD):
        beta = float(optimizer.momentum)
        lookahead = 1 + 2 * beta if optimizer.nesterov else 1.0
        return StabilityEdge((2 + 2 * beta) / lookahead * inverse * decay)
    beta = float(optimizer.beta_1)
    edge = (2 + 2 * beta) / (1 - beta) * inverse * decay
    return StabilityEdge(edge, _adam_preconditioner(optimizer, variables))


def refuse_unknown(
    optimizer: keras.optimizers.Optimizer, variables: Sequence[keras.Variable]
) -> None:
    """Raise InputError where the edge is not known, whatever steps were taken."""
    reason = next(_unknown(optimizer, variables), None)
    if reason is not None:
        raise InputError("an optimiser whose edge of stability is known", reason, REMEDY)


def _unknown(
    optimizer: keras.optimizers.Optimizer, variables: Sequence[keras.Variable]
) -> Iterator[str]:
    """Why the edge is not known."""
    name = type(optimizer).__name__
    # A subclass may take another step.
    if type(optimizer) not in KNOWN:
        yield name if isinstance(optimizer, keras.optimizers.Optimizer) else shown(optimizer)
        return
    for option in ("clipnorm", "clipvalue", "global_clipnorm"):
        if getattr(optimizer, option):
            yield f"{name} with {option}"
    if optimizer.use_ema and optimizer.ema_overwrite_frequency:
        yield f"{name} with ema_overwrite_frequency"
    excluded = ("_exclude_from_weight_decay", "_exclude_from_weight_decay_pattern")
    if optimizer.weight_decay and any(getattr(optimizer, each, None) for each in excluded):
        yield f"{name} with weight decay of some weights only"
    for variable in variables:
        if getattr(variable, "constraint", None) is not None:
            yield f"{name} with a constraint on {variable.path}"


def _adam_preconditioner(optimizer: Any, variables: Sequence[keras.Variable]) -> np.ndarray:
    """The diagonal of P."""
    step = int(optimizer.iterations)
    if step == 0:
        raise InputError("Adam after a step at least", "its first step to come", "train first")
    suffix = "_velocity_hat" if optimizer.amsgrad else "_velocity"
    slots = [each for each in optimizer.variables if each.name.endswith(suffix)]
    if [tuple(each.shape) for each in slots] != [tuple(each.shape) for each in variables]:
        raise InputError(
            "the trainable weights that the optimiser was built with",
            f"{len(variables)} beside its averages of {len(slots)}",
            "pass model.trainable_variables, and compile the model after freezing layers",
        )
    parts = [np.ravel(each.numpy()).astype(np.float64) for each in slots]
    first, second = (1 - float(beta) ** step for beta in (optimizer.beta_1, optimizer.beta_2))
    return (np.sqrt(np.concatenate(parts)) + optimizer.epsilon) * first / np.sqrt(second)
