"""The dataclasses that the results of a comparison and of a track consist of, for journals."""

from hvp.certificate import Certificate
from hvp.certificate.checks import Check
from hvp.comparison.chain_rule import QuadraticForms
from hvp.comparison.costs import ComparisonCost, StageCost
from hvp.comparison.limits import Fit
from hvp.comparison.loss_slice import LossSlice
from hvp.comparison.plan import Effort
from hvp.comparison.sampling_errors import SamplingErrors
from hvp.comparison.stages import Stage
from hvp.comparison.track_results import TrackedPoint
from hvp.operators import Cost, Work
from hvp.resuming import resumable

CLASSES: tuple[type, ...] = (
    *resumable.CLASSES, Certificate, Check, ComparisonCost, Cost, Effort, Fit, LossSlice,
    QuadraticForms, SamplingErrors, Stage, StageCost, TrackedPoint, Work,
)  # fmt: skip
