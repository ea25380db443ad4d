"""What comparisons cost on a backend that has sizes alone."""

from types import SimpleNamespace

import numpy as np

from hvp.comparison.costs import comparison_cost
from hvp.comparison.stages import stages
from hvp.operators import Cost

P, N = 10_000, 5_000
COST = Cost(
    1.0, alone=0.1, in_block=0.05, width=8, saved=10**8, kept=0, budget=10**9, working=10**7
)
COSTS = dict.fromkeys("HGR", COST)


def backend(size=P):
    half = size // 2
    layout = SimpleNamespace(
        layers={"first": (0,), "last": (1,)}, shapes=[(half, 1), (size - half,)], slices=[]
    )
    return SimpleNamespace(
        size=size, dtype=np.dtype("float32"), layout=layout, is_whole=True, num_examples=N,
        num_batches=10,
    )  # fmt: skip


def expected(effort, costs=COSTS, size=P):
    return comparison_cost(backend(size), effort, list(stages(backend(size), effort)), costs)
