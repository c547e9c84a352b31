"""Muon for matrices and AdamW for the rest, stepped together on one schedule."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from depthlm_ros.training.config import StageConfig
from depthlm_ros.training.distributed import deal, sum_over_processes

_MOMENTUM = 0.95
_NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
_NEWTON_SCHULZ_STEPS = 5


@dataclass(frozen=True)
class NamedParameters:
    """Parameters that move at one rate.

    Attributes:
        parameters: By name.
        lr_share: Rate relative to the stage's peak rates.
    """

    parameters: dict[str, nn.Parameter]
    lr_share: float = 1.0


def schedule(stage: StageConfig, step: int, done: float) -> float:
    """Share of the peak rate: linear warm-up over steps, then a cosine over the share of the stage done."""
    warm = min(1.0, (step + 1) / max(1, stage.warmup_steps))
    cosine = 0.5 * (1.0 + math.cos(math.pi * min(1.0, done)))
    return warm * (stage.final_lr_share + (1.0 - stage.final_lr_share) * cosine)


class MuonAdamW:
    """Orthogonalised momentum for hidden matrices, AdamW for embeddings, heads, norms and biases.

    ``torch.optim.Muon`` iterates in bfloat16, which a CPU without bfloat16 units does some 25 times slower;
    this one iterates in float32, takes equal shapes together and deals them out to the processes. Updates are
    scaled by sqrt(max(1, rows / columns)) as in the original. Weight decay is needed: orthogonalised updates never
    become small, and without it the weights grow with every step until nothing is learnt any more.
    """

    def __init__(self, groups: Iterable[NamedParameters], stage: StageConfig) -> None:
        self._stage = stage
        self._share: dict[str, float] = {}
        self._parameters: dict[str, nn.Parameter] = {}
        for group in groups:
            for name, parameter in group.parameters.items():
                self._parameters[name] = parameter
                self._share[name] = group.lr_share
        self._shapes: dict[tuple[int, ...], list[str]] = {}
        for name, parameter in self._parameters.items():
            if parameter.ndim in (2, 5) and "embed_tokens" not in name and not name.startswith("heads."):
                self._shapes.setdefault(tuple(_as_matrix(parameter).shape), []).append(name)
        matrices = {name for names in self._shapes.values() for name in names}
        self._others = [name for name in self._parameters if name not in matrices]
        self._momentum = {
            name: torch.zeros_like(_as_matrix(self._parameters[name])) for name in sorted(matrices)
        }
        self._adam = torch.optim.AdamW(
            [{"params": [self._parameters[n]], "lr": stage.adam_lr} for n in self._others],
            lr=stage.adam_lr,
            betas=(0.9, 0.98),
            weight_decay=0.0,
        )

    @property
    def parameters(self) -> dict[str, nn.Parameter]:
        """What is optimised, by name."""
        return self._parameters

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for parameter in self._parameters.values():
            parameter.grad = None

    @torch.no_grad()
    def step(self, at: int, done: float) -> None:
        """Apply the gradients at step number ``at``, with a share ``done`` of the stage behind it."""
        scale = schedule(self._stage, at, done)
        for group, name in zip(self._adam.param_groups, self._others, strict=True):
            group["lr"] = self._stage.adam_lr * scale * self._share[name]
        self._adam.step()
        updates = {
            name: self._nesterov(name)
            for names in self._shapes.values()
            for name in names
            if self._parameters[name].grad is not None
        }
        for shape, all_names in self._shapes.items():
            names = [name for name in all_names if name in updates]
            mine, others = deal(names)
            if mine:
                stacked = orthogonalise(torch.stack([updates[name] for name in mine]))
                updates |= dict(zip(mine, stacked, strict=True))
            for name in others:
                updates[name] = torch.zeros(shape)
        sum_over_processes(list(updates.values()))
        for name, update in updates.items():
            parameter, (rows, columns) = self._parameters[name], update.shape
            rate = self._stage.muon_lr * scale * self._share[name]
            size = rate * math.sqrt(max(1.0, rows / columns))
            parameter.mul_(1.0 - rate * self._stage.muon_decay)
            if parameter.ndim == 2:
                parameter.add_(update, alpha=-size)
            else:  # both halves along time see the same patch: each takes half of the step of their sum
                halves = update.view(parameter.shape[0], parameter.shape[1], 1, *parameter.shape[3:])
                parameter.add_(halves.expand_as(parameter), alpha=-size / parameter.shape[2])

    def _nesterov(self, name: str) -> Tensor:
        gradient, momentum = self._parameters[name].grad, self._momentum[name]
        assert gradient is not None
        matrix = _as_matrix(gradient)
        momentum.lerp_(matrix, 1.0 - _MOMENTUM)
        return matrix.lerp(momentum, _MOMENTUM)

    def state(self) -> dict[str, Tensor]:
        """The optimiser's memory as named tensors, for a state that can be resumed."""
        tensors = {f"momentum.{name}": tensor for name, tensor in self._momentum.items()}
        for name in self._others:
            memory = self._adam.state.get(self._parameters[name], {})
            tensors |= {f"adam.{key}.{name}": value for key, value in memory.items()}
        return tensors

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        """Take back what :meth:`state` gave."""
        for name, momentum in self._momentum.items():
            momentum.copy_(tensors[f"momentum.{name}"])
        for name in self._others:
            keys = [key for key in ("step", "exp_avg", "exp_avg_sq") if f"adam.{key}.{name}" in tensors]
            if keys:
                self._adam.state[self._parameters[name]] = {
                    key: tensors[f"adam.{key}.{name}"].clone() for key in keys
                }


def _as_matrix(weight: Tensor) -> Tensor:
    """A linear layer's weight itself; of a patch embedding's the first half along time, which both halves equal."""
    return weight if weight.ndim == 2 else weight[:, :, 0].flatten(1)


def orthogonalise(matrices: Tensor) -> Tensor:
    """Push the singular values of matrices of shape (N, rows, columns) towards 1 (Newton-Schulz)."""
    a, b, c = _NEWTON_SCHULZ
    x: Tensor = matrices / matrices.norm(dim=(1, 2), keepdim=True).clamp_min(1e-12)
    tall = x.shape[1] > x.shape[2]
    if tall:
        x = x.mT
    for _ in range(_NEWTON_SCHULZ_STEPS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if tall else x
