"""The problems as PyTorch modules, and vectors converted between PyTorch's and Keras's layout."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from bench.measurements.problems import (
    EPSILON,
    Conv,
    Dense,
    Encoder,
    GlobalAverage,
    Layer,
    MaxPool,
    Problem,
    Weight,
    data,
    values,
)

ACTIVATIONS = {"tanh": nn.Tanh, "relu": nn.ReLU, "linear": nn.Identity}


def build(problem: Problem) -> nn.Module:
    """The network with its weights: images with the channels first as inputs, logits as outputs."""
    module = nn.Sequential(*(_module(layer) for layer in problem.layers))
    arrays = zip(module.parameters(), problem.weights, values(problem), strict=True)
    with torch.no_grad():
        for parameter, weight, array in arrays:
            parameter.copy_(torch.from_numpy(_to_own(weight, array)).reshape(parameter.shape))
    return module


def tensors(problem: Problem) -> tuple[torch.Tensor, torch.Tensor]:
    """The inputs, with the channels of images first, and the labels (N,)."""
    x, y = data(problem)
    if x.ndim == 4:
        x = np.ascontiguousarray(x.transpose(0, 3, 1, 2))
    return torch.from_numpy(x), torch.from_numpy(y.astype(np.int64))


def to_own(problem: Problem, v: np.ndarray) -> np.ndarray:
    """A vector (P,) or block (P, K) from Keras's layout to PyTorch's."""
    return _rearranged(problem, v, _to_own)


def to_shared(problem: Problem, v: np.ndarray) -> np.ndarray:
    """A vector (P,) or block (P, K) from PyTorch's layout to Keras's."""
    return _rearranged(problem, v, _to_shared)


def _rearranged(
    problem: Problem, v: np.ndarray, change: Callable[[Weight, np.ndarray], np.ndarray]
) -> np.ndarray:
    block = v.reshape(len(v), -1)
    ends = np.cumsum([weight.size for weight in problem.weights])[:-1]
    parts = [
        np.stack([change(weight, column).ravel() for column in part.T], axis=1)
        for weight, part in zip(problem.weights, np.split(block, ends), strict=True)
    ]
    return np.concatenate(parts).reshape(v.shape)


def _to_own(weight: Weight, array: np.ndarray) -> np.ndarray:
    """Matrices as (units, inputs), filters as (filters, channels, height, width)."""
    match weight.role:
        case "matrix":
            return np.ascontiguousarray(array.reshape(weight.fan_in, -1).T)
        case "filter":
            return np.ascontiguousarray(array.reshape(weight.shape).transpose(3, 2, 0, 1))
    return array.reshape(-1)


def _to_shared(weight: Weight, array: np.ndarray) -> np.ndarray:
    match weight.role:
        case "matrix":
            return array.reshape(weight.size // weight.fan_in, weight.fan_in).T
        case "filter":
            height, width, channels, filters = weight.shape
            return array.reshape(filters, channels, height, width).transpose(2, 3, 1, 0)
    return array


def _module(layer: Layer) -> nn.Module:
    match layer:
        case Dense():
            linear = nn.Linear(layer.inputs, layer.units)
            return nn.Sequential(linear, ACTIVATIONS[layer.activation]())
        case Conv():
            conv = nn.Conv2d(layer.channels, layer.filters, 3, padding=1)
            return nn.Sequential(conv, ACTIVATIONS[layer.activation]())
        case MaxPool():
            return nn.MaxPool2d(2)
        case GlobalAverage():
            return _GlobalAverage()
        case Encoder():
            return _Encoder(layer)


class _GlobalAverage(nn.Module):
    """The mean over positions: of images (N, C, H, W) or of sequences (N, length, width)."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean(dim=(2, 3) if x.ndim == 4 else 1)


class _Encoder(nn.Module):
    def __init__(self, layer: Encoder):
        super().__init__()
        self.heads = layer.heads
        self.norm1 = nn.LayerNorm(layer.width, eps=EPSILON)
        self.query = nn.Linear(layer.width, layer.width)
        self.key = nn.Linear(layer.width, layer.width)
        self.value = nn.Linear(layer.width, layer.width)
        self.together = nn.Linear(layer.width, layer.width)
        self.norm2 = nn.LayerNorm(layer.width, eps=EPSILON)
        self.wide = nn.Linear(layer.width, layer.hidden)
        self.narrow = nn.Linear(layer.hidden, layer.width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self._attention(self.norm1(x))
        return x + self.narrow(nn.functional.gelu(self.wide(self.norm2(x))))

    def _attention(self, x: torch.Tensor) -> torch.Tensor:
        # Written out: the fused attention of PyTorch has no second derivative on CPUs.
        query, key, value = (
            self._by_head(linear(x)) for linear in (self.query, self.key, self.value)
        )
        weights = torch.softmax(query @ key.mT / math.sqrt(query.shape[-1]), dim=-1)
        return self.together((weights @ value).transpose(1, 2).reshape(x.shape))

    def _by_head(self, x: torch.Tensor) -> torch.Tensor:
        return x.reshape(*x.shape[:2], self.heads, -1).transpose(1, 2)
