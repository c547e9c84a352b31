"""Where the time of a frame goes, seen from outside: hooks on the model's parts, not code in the engine."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

STAGES = (
    "decode_image",
    "rectify",
    "resize",
    "mark",
    "process",
    "vision",
    "prefill",
    "decode_tokens",
    "engine",
    "parse",
    "publish",
    "other",
)
"""In the order in which a frame passes them; ``engine`` is what the engine (or ``generate``) does between others."""

IN_ENGINE = ("process", "vision", "prefill", "decode_tokens", "engine")


class StageClock:
    """Sums time per stage, each second in one stage only: a stage inside another is taken off the outer one.

    Only the thread that made it is timed. What other threads do meanwhile is summed in :attr:`beside`, since it is
    no part of the time that a caller waits.

    Args:
        now: The clock, in seconds.
        settle: Called before the clock is read; waits for a GPU to finish.
    """

    def __init__(
        self, now: Callable[[], float] = time.perf_counter, settle: Callable[[], None] = lambda: None
    ) -> None:
        self._now, self._settle = now, settle
        self._thread = threading.get_ident()
        self._open: list[list[Any]] = []
        self.seconds: dict[str, float] = defaultdict(float)
        """{stage: seconds}; with ``other`` they add up to :attr:`total`."""
        self.beside: dict[str, float] = defaultdict(float)
        """{stage: seconds that other threads spent}."""
        self.total = 0.0
        """Seconds inside of the outermost stages."""

    def begin(self, stage: str) -> None:
        """Enter a stage."""
        if threading.get_ident() == self._thread:
            self._settle()
            self._open.append([stage, self._now(), 0.0])

    def end(self) -> None:
        """Leave the innermost stage."""
        if threading.get_ident() != self._thread:
            return
        self._settle()
        stage, began, inner = self._open.pop()
        took = self._now() - began
        self.seconds[stage] += took - inner
        if self._open:
            self._open[-1][2] += took
        else:
            self.total += took

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """A stage as a ``with`` block."""
        if threading.get_ident() != self._thread:
            began = self._now()
            try:
                yield
            finally:
                self.beside[name] += self._now() - began
            return
        self.begin(name)
        try:
            yield
        finally:
            self.end()


def settle_for(device: str) -> Callable[[], None]:
    """What waits until a device has done all that it was given."""
    if not device.startswith("cuda"):
        return lambda: None
    import torch

    return torch.cuda.synchronize


class Watch:
    """Times the parts of a Qwen2.5-VL model through hooks, as long as it is held in a ``with`` statement.

    Args:
        model: The model, as transformers makes it.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self._hooks: list[Any] = []
        self.clock: StageClock | None = None
        """Where the time goes to; None lets it pass."""
        self.grid = (0, 0)
        """Rows and columns of patches of the last image."""
        self.prompt_tokens = 0
        """Tokens of the last prefill, per sequence."""
        self.on_prefill: list[Callable[[], None]] = []
        self.on_step: list[Callable[[], None]] = []

    def __enter__(self) -> Watch:
        """Put the hooks on."""
        for module, before in ((self._model.model.visual, self._vision), (self._model, self._language)):
            self._hooks.append(module.register_forward_pre_hook(before, with_kwargs=True))
            self._hooks.append(module.register_forward_hook(self._after, always_call=True))
        return self

    def __exit__(self, *_: object) -> None:
        """Take them off."""
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()

    def _vision(self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        grids = args[1] if len(args) > 1 else kwargs["grid_thw"]
        self.grid = (int(grids[-1][1]), int(grids[-1][2]))
        self._begin("vision")

    def _language(self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """The whole model; its vision tower's time is taken off by the clock."""
        given = kwargs.get("input_ids")
        if given is None:
            given = args[0] if args else kwargs["inputs_embeds"]
        rows, length = int(given.shape[0]), int(given.shape[1])
        kept = kwargs.get("logits_to_keep", 0)
        wanted = (rows * kept or rows * length) if isinstance(kept, int) else int(kept.numel())
        # A step has one new token for each sequence and wants the logits of all, however they are laid out.
        step = rows * length == wanted
        if not step:
            self.prompt_tokens = length
        for call in self.on_step if step else self.on_prefill:
            call()
        self._begin("decode_tokens" if step else "prefill")

    def _begin(self, stage: str) -> None:
        if self.clock is not None:
            self.clock.begin(stage)

    def _after(self, *_: Any) -> None:
        if self.clock is not None:
            self.clock.end()
