"""The peers on PyTorch: double backward, curvlinops, hessian-eigenthings and PyHessian."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import scipy.sparse.linalg
import torch
from torch import nn

from bench.backends import torch_modules
from bench.backends.implementation import (
    LARGEST,
    POINTS,
    PROBES,
    SEED,
    STEPS,
    TOLERANCE,
    Call,
    Density,
    DiscreteDensity,
    Forms,
    Implementation,
    curve,
)
from bench.measurements.problems import Problem

# All available cores, as in the other frameworks; PyTorch's default is the physical cores.
torch.set_num_threads(len(os.sched_getaffinity(0)))

Tensors = list[torch.Tensor]


class _TorchImplementation(Implementation):
    """What all peers on PyTorch share: module, data, layout and gradient."""

    def __init__(self, problem: Problem):
        super().__init__(problem)
        self._problem = problem
        self._module = torch_modules.build(problem)
        self._params = list(self._module.parameters())
        self._x, self._y = torch_modules.tensors(problem)
        self._loss = nn.CrossEntropyLoss()

    def to_own(self, v: np.ndarray) -> np.ndarray:
        return torch_modules.to_own(self._problem, v)

    def to_shared(self, v: np.ndarray) -> np.ndarray:
        return torch_modules.to_shared(self._problem, v)

    def forms(self, figure: str) -> Forms:
        if figure == "gradient":
            return {"autograd": lambda: self._gradient}
        return {}

    def _objective(self) -> torch.Tensor:
        return self._loss(self._module(self._x), self._y)

    def _gradient(self, _: np.ndarray) -> np.ndarray:
        return _join(torch.autograd.grad(self._objective(), self._params)).numpy()

    def _split(self, v: torch.Tensor) -> Tensors:
        """A vector (P,) or the rows of a block (K, P), as one tensor per parameter."""
        parts = v.split([p.numel() for p in self._params], dim=-1)
        return [
            part.reshape(*v.shape[:-1], *p.shape)
            for part, p in zip(parts, self._params, strict=True)
        ]


class Torch(_TorchImplementation):
    """Double backward; the graph of the gradient is kept between products."""

    def forms(self, figure: str) -> Forms:
        match figure:
            case "hvp":
                return {"graph kept": lambda: _numpy(self._hvp())}
            case "gnvp":
                return {
                    "graph kept": lambda: _numpy(self._gnvp()),
                    "torch.func": lambda: _numpy(self._functional_gnvp()),
                }
            case "hvp_block":
                return self._block_forms(self._hvp)
            case "gnvp_block":
                return self._block_forms(self._gnvp)
        return super().forms(figure)

    def _hvp(self) -> Callable[[torch.Tensor], torch.Tensor]:
        gradient = torch.autograd.grad(self._objective(), self._params, create_graph=True)

        def product(v: torch.Tensor) -> torch.Tensor:
            return _join(_backward(gradient, self._params, self._split(v)), v.ndim - 1)

        return product

    def _gnvp(self) -> Callable[[torch.Tensor], torch.Tensor]:
        """Gv with Jv as the transpose of the product with Jᵀ, whose graph PyTorch can keep."""
        z = self._module(self._x)
        dummy = torch.zeros_like(z, requires_grad=True)
        transposed = torch.autograd.grad(z, self._params, dummy, create_graph=True)
        logits = z.detach().requires_grad_()
        (slope,) = torch.autograd.grad(self._loss(logits, self._y), logits, create_graph=True)

        def product(v: torch.Tensor) -> torch.Tensor:
            jv = _backward(transposed, [dummy], self._split(v))
            hessian_jv = _backward([slope], [logits], jv)
            return _join(_backward([z], self._params, hessian_jv), v.ndim - 1)

        return product

    def _functional_gnvp(self) -> Callable[[torch.Tensor], torch.Tensor]:
        names = [name for name, _ in self._module.named_parameters()]

        def outputs(*params: torch.Tensor) -> torch.Tensor:
            weights = dict(zip(names, params, strict=True))
            return torch.func.functional_call(self._module, weights, (self._x,))

        params = tuple(p.detach() for p in self._params)
        z, pull = torch.func.vjp(outputs, *params)

        def slope(logits: torch.Tensor) -> torch.Tensor:
            return torch.func.grad(lambda z: self._loss(z, self._y))(logits)

        def product(v: torch.Tensor) -> torch.Tensor:
            _, jv = torch.func.jvp(outputs, params, tuple(self._split(v)))
            _, hessian_jv = torch.func.jvp(slope, (z,), (jv,))
            return _join(pull(hessian_jv))

        return product

    def _block_forms(self, build: Callable[[], Callable[[torch.Tensor], torch.Tensor]]) -> Forms:
        return {"batched": lambda: _batched(build()), "loop": lambda: _loop(_numpy(build()))}


class Curvlinops(_TorchImplementation):
    """`HessianLinearOperator` and `GGNLinearOperator`."""

    def forms(self, figure: str) -> Forms:
        if figure.startswith(("hvp", "gnvp")):
            return {"operator": lambda: self._product(figure)}
        return super().forms(figure)

    def _operator(self, figure: str) -> Any:
        import curvlinops

        kinds = {"hvp": curvlinops.HessianLinearOperator, "gnvp": curvlinops.GGNLinearOperator}
        return kinds[figure.removesuffix("_block")](
            self._module,
            self._loss,
            self._params,
            [(self._x, self._y)],
            num_data=len(self._x),
            check_deterministic=False,
        )

    def _product(self, figure: str) -> Call:
        operator = self._operator(figure)
        return lambda v: (operator @ torch.from_numpy(v)).detach().numpy()

    def largest(self, figure: str, steps: int | None) -> np.ndarray:
        operator = self._operator(figure).to_scipy()
        start = np.random.default_rng(0).standard_normal(self._problem.size, dtype=np.float32)
        _, vectors = scipy.sparse.linalg.eigsh(
            operator, LARGEST, which="LA", tol=TOLERANCE, v0=start
        )
        return vectors

    def densities(self) -> dict[str, Callable[[], Density]]:
        return {"Gaussian probes, not reorthogonalised, ends by eigsh first": self._density}

    def _density(self) -> Density:
        import curvlinops

        operator = self._operator("hvp")
        kappa = 3.0  # the default of curvlinops

        def density() -> DiscreteDensity:
            torch.manual_seed(SEED)
            x, values = curvlinops.lanczos_approximate_spectrum(
                operator, STEPS, num_points=POINTS, num_repeats=PROBES, kappa=kappa
            )
            # Its Gaussians fall to 1/kappa of their height half way between two of STEPS points
            # that are evenly spaced over the range of x.
            half_range = float(x[-1] - x[0]) / 2
            width = 2 / (STEPS - 1) / math.sqrt(8 * math.log(kappa)) * half_range
            return curve(x.numpy(), values.numpy(), width)

        return density

    def probes(self) -> np.ndarray:
        torch.manual_seed(SEED)
        return np.stack([torch.randn(self._problem.size).numpy() for _ in range(PROBES)], axis=1)


class HessianEigenthings(_TorchImplementation):
    """`HessianOperator` and `GGNOperator`, one vector at a time."""

    def forms(self, figure: str) -> Forms:
        if figure in ("hvp", "gnvp"):
            return {"operator": lambda: self._product(figure)}
        if figure in ("hvp_block", "gnvp_block"):
            return {"loop": lambda: _loop(self._product(figure.removesuffix("_block")))}
        return super().forms(figure)

    def _product(self, figure: str) -> Call:
        operator = self._operator(figure)
        return lambda v: operator.matvec(torch.from_numpy(v)).detach().numpy()

    def _operator(self, figure: str) -> Any:
        import hessian_eigenthings as peer

        batches = [(self._x, self._y)]
        if figure == "hvp":
            loss = peer.supervised_loss(self._loss)
            return peer.HessianOperator(self._module, batches, loss)
        of_output = peer.supervised_loss_of_output(self._loss)
        return peer.GGNOperator(self._module, batches, peer.supervised_forward, of_output)

    def densities(self) -> dict[str, Callable[[], Density]]:
        return {"Rademacher probes, reorthogonalised": self._density}

    def _density(self) -> Density:
        import hessian_eigenthings as peer

        operator = self._operator("hvp")

        def density() -> DiscreteDensity:
            found = peer.spectral_density(
                operator,
                num_runs=PROBES,
                lanczos_steps=STEPS,
                num_grid_points=POINTS,
                seed=SEED,
            )
            return curve(found.grid.numpy(), found.density.numpy(), found.sigma)

        return density

    def probes(self) -> np.ndarray:
        def draw(seed: int) -> np.ndarray:
            generator = torch.Generator().manual_seed(seed)
            return torch.randint(0, 2, (self._problem.size,), generator=generator).numpy()

        return np.stack([2 * draw(SEED + s) - 1 for s in range(PROBES)], axis=1)


class PyHessian(_TorchImplementation):
    """`hessian.density`, on the graph of the gradient of one batch.

    Its only release calls `torch.eig`, which PyTorch has removed, and so it fails after the first
    probe. The second form defines this function again.
    """

    def densities(self) -> dict[str, Callable[[], Density]]:
        form = "Rademacher probes, reorthogonalised, nodes without a curve"
        return {form: self._density, f"{form}; torch.eig put back": self._density_with_eig}

    def _density(self) -> Density:
        import pyhessian

        peer = pyhessian.hessian(self._module, self._loss, data=(self._x, self._y), cuda=False)

        def density() -> DiscreteDensity:
            torch.manual_seed(SEED)
            nodes, weights = peer.density(iter=STEPS, n_v=PROBES)
            return DiscreteDensity(np.ravel(nodes), np.ravel(weights) / PROBES)

        return density

    def _density_with_eig(self) -> Density:
        torch.eig = _eig
        return self._density()

    def probes(self) -> np.ndarray:
        torch.manual_seed(SEED)
        draws = [_join([torch.randint_like(p, 2) for p in self._params]) for _ in range(PROBES)]
        return np.stack([2 * draw.numpy() - 1 for draw in draws], axis=1)


def _eig(T: torch.Tensor, eigenvectors: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """As the old `torch.eig` of a symmetric T: real and imaginary parts (m, 2), and vectors."""
    values, vectors = torch.linalg.eigh(T)
    return torch.stack([values, torch.zeros_like(values)], dim=1), vectors


def _backward(
    outputs: Sequence[torch.Tensor],
    inputs: Sequence[torch.Tensor],
    cotangents: Sequence[torch.Tensor],
) -> Tensors:
    """A backward pass that keeps the graph; batched if the cotangents have one more axis."""
    batched = cotangents[0].ndim > outputs[0].ndim
    # materialize_grads: the derivative in a weight that the gradient does not depend on is zero.
    return list(
        torch.autograd.grad(
            outputs,
            inputs,
            cotangents,
            retain_graph=True,
            is_grads_batched=batched,
            materialize_grads=True,
        )
    )


def _join(tensors: Sequence[torch.Tensor], axes: int = 0) -> torch.Tensor:
    return torch.cat([tensor.detach().flatten(axes) for tensor in tensors], dim=-1)


def _numpy(product: Callable[[torch.Tensor], torch.Tensor]) -> Call:
    return lambda v: product(torch.from_numpy(v)).numpy()


def _batched(product: Callable[[torch.Tensor], torch.Tensor]) -> Call:
    return lambda V: product(torch.from_numpy(np.ascontiguousarray(V.T))).numpy().T


def _loop(product: Call) -> Call:
    return lambda V: np.stack([product(v) for v in np.ascontiguousarray(V.T)], axis=1)
