"""Muon for matrices and AdamW for the rest, stepped together on one schedule."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from depthlm_ros.training.config import StageConfig

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
    """Orthogonalised momentum for hidden matrices, AdamW for embeddings, heads, norms, biases and the patches.

    ``torch.optim.Muon`` iterates in bfloat16, which a CPU without bfloat16 units does some 25 times slower;
    this one iterates in float32 and takes equal shapes together. Updates are scaled by
    sqrt(max(1, rows / columns)) as in the original.
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
            if parameter.ndim == 2 and "embed_tokens" not in name and not name.startswith("heads."):
                self._shapes.setdefault(tuple(parameter.shape), []).append(name)
        matrices = {name for names in self._shapes.values() for name in names}
        self._others = [name for name in self._parameters if name not in matrices]
        self._momentum = {name: torch.zeros_like(self._parameters[name]) for name in sorted(matrices)}
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
        for shape, all_names in self._shapes.items():
            names = [name for name in all_names if self._parameters[name].grad is not None]
            if not names:
                continue
            updates = []
            for name in names:
                gradient, momentum = self._parameters[name].grad, self._momentum[name]
                assert gradient is not None
                momentum.lerp_(gradient, 1.0 - _MOMENTUM)
                updates.append(gradient.lerp(momentum, _MOMENTUM))
            size = self._stage.muon_lr * scale * math.sqrt(max(1.0, shape[0] / shape[1]))
            for name, update in zip(names, orthogonalise(torch.stack(updates)), strict=True):
                self._parameters[name].add_(update, alpha=-size * self._share[name])

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
