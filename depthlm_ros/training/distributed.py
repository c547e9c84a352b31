"""Several training processes on one machine that average their gradients."""

from __future__ import annotations

import gc
import os
import socket
from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.multiprocessing.spawn import spawn


def launch(workers: int, work: Callable[..., None], *arguments: Any) -> None:
    """Run ``work(rank, workers, *arguments)`` in every process and wait for all.

    One thread per process and one exchange per step: on a busy machine this loses far less than threads that
    meet after every matrix product.

    Raises:
        RuntimeError: A process failed (its own error is in the message).
    """
    if workers == 1:
        work(0, 1, *arguments)
        return
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    spawn(_join, args=(workers, port, work, arguments), nprocs=workers)  # type: ignore[no-untyped-call]


def _join(rank: int, workers: int, port: int, work: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=workers)
    try:
        work(rank, workers, *arguments)
    finally:
        leave()


def leave() -> None:
    """Leave the process group, if there is one, so that the process can end.

    Call it when nothing refers to what used the group any more.
    """
    if not dist.is_initialized():
        return
    # A sharded model holds the group in reference cycles. Left to the end of the interpreter, gloo's threads
    # would still run then, and the C++ runtime would abort a process whose work is done.
    gc.collect()
    dist.destroy_process_group()


def average_gradients(parameters: Iterable[nn.Parameter], done: float) -> float:
    """Replace every gradient by its mean over the processes.

    Args:
        parameters: Those without a gradient are left out, in every process alike.
        done: This process's idea of how much of the stage is done.

    Returns:
        The mean of ``done``, so that every process follows one clock.
    """
    if not dist.is_initialized():
        return done
    gradients = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat([*(g.flatten() for g in gradients), torch.tensor([done])])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    *means, agreed = torch.split(flat, [*(g.numel() for g in gradients), 1])
    for gradient, mean in zip(gradients, means, strict=True):
        gradient.copy_(mean.view_as(gradient))
    return float(agreed)


def deal(names: list[str]) -> tuple[list[str], list[str]]:
    """Split work among the processes: the names that are this one's turn, and the rest."""
    if not dist.is_initialized():
        return names, []
    rank, workers = dist.get_rank(), dist.get_world_size()
    mine = names[rank::workers]
    return mine, [name for name in names if name not in mine]


def sum_over_processes(tensors: list[Tensor]) -> None:
    """Replace every tensor by its sum over the processes, which all hold equal shapes in equal order."""
    if not dist.is_initialized() or not tensors:
        return
    flat = torch.cat([t.flatten() for t in tensors])
    dist.all_reduce(flat)
    for tensor, total in zip(tensors, torch.split(flat, [t.numel() for t in tensors]), strict=True):
        tensor.copy_(total.view_as(tensor))
