"""Marker reuse: of a frame with a marker, only what is near the marker is read again. An approximation.

``docs/marker-reuse.md`` says what it changes and what it saves. Importing this module imports torch and transformers.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import Cache, DynamicCache
from transformers.cache_utils import DynamicLayer

from depthlm_ros.engines.base import EngineError
from depthlm_ros.engines.hf_decoding import GreedyDecoding
from depthlm_ros.engines.hf_processor import AssembledEncoder, Encoded, Encoder

RADIUS = 1
"""Tokens around those that the marker touches, to each side, that are read again with them."""


@dataclass(frozen=True, eq=False)
class _Frame:
    """A frame without a marker, as tower and language model have read it."""

    base: torch.Tensor
    """The prepared image; kept, so that its identity stays unique as long as this lives."""
    ids: list[int]
    """The prompt's tokens up to the end of the image."""
    tower: Any
    begin: int
    """Index of the image's first token, which is also its position."""
    layers: list[tuple[torch.Tensor, torch.Tensor]]
    """Of each layer of the language model keys and values, (1, heads, tokens, size)."""


class RoomyLayer(DynamicLayer):  # type: ignore[misc]  # transformers comes without types
    """A cache layer with room for what will be decoded: what comes first is copied once a batch, not once a token.

    Args:
        keys: (1, heads, tokens, size); repeated for every row.
        values: As the keys.
        rows: Sequences in the batch.
        room: Tokens for which there is to be room.
    """

    def __init__(self, keys: torch.Tensor, values: torch.Tensor, *, rows: int, room: int) -> None:
        super().__init__()
        self.dtype, self.device, self.is_initialized = keys.dtype, keys.device, True
        self._length = keys.shape[2]
        self._whole = []
        for first in (keys, values):
            whole = first.new_empty((rows, first.shape[1], self._length + room, first.shape[3]))
            whole[:, :, : self._length] = first
            self._whole.append(whole)
        self.keys, self.values = (whole[:, :, : self._length] for whole in self._whole)

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append keys and values; see ``DynamicLayer.update``."""
        start, self._length = self._length, self._length + key_states.shape[2]
        for whole, new in zip(self._whole, (key_states, value_states), strict=True):
            whole[:, :, start : self._length] = new
        self.keys, self.values = (whole[:, :, : self._length] for whole in self._whole)
        return self.keys, self.values


def check_reusable(config: Any, attention: str) -> None:
    """See whether marked images of a checkpoint can be read from their frame, before any weight is loaded.

    Args:
        config: The checkpoint's configuration.
        attention: The attention implementation, as transformers names it.

    Raises:
        EngineError: The architecture is another one, or its attention takes no mask.
    """
    plain = all(type(layer) is DynamicLayer for layer in DynamicCache(config=config).layers)
    if config.model_type != "qwen2_5_vl" or attention not in ("sdpa", "eager") or not plain:
        windowed = "" if plain else ", which slides in some layers"
        raise EngineError(
            "engine.marker_reuse: expected a qwen2_5_vl checkpoint with full sdpa or eager attention, got "
            f"{config.model_type} with {attention}{windowed}; set engine.marker_reuse to false"
        )


class MarkerReuse:
    """Answers prompts that differ in nothing but where the marker is painted into one image.

    The frame goes through the tower and the language model once, without a marker. Of each marked image the tokens
    near the marker go through the tower again (:class:`~depthlm_ros.engines.hf_tower.FrameTower`), then with the text
    behind the image through the language model, where they take the place of the frame's; the other image tokens are
    those of the frame. The newest frame is kept, also for the next call.

    Args:
        model: A model that :func:`check_reusable` accepts.
        encoder: Its encoder.
        radius: See :data:`RADIUS`.
    """

    def __init__(self, model: Any, encoder: Encoder, *, radius: int = RADIUS) -> None:
        assert isinstance(encoder, AssembledEncoder)
        self._model, self._encoder, self._radius = model, encoder, radius
        self._frame: _Frame | None = None

    @staticmethod
    def key(prompt: Encoded) -> Hashable | None:
        """Equal for prompts that can be answered together; None if this is no prompt with one marked image first."""
        if prompt.repaint is None:
            return None
        return (id(prompt.repaint.base), *prompt.ids)

    def decode(self, prompts: Sequence[Encoded], watch: GreedyDecoding, max_new_tokens: int) -> None:
        """Decode prompts of one key greedily, under PyTorch's inference mode.

        Args:
            prompts: The prompts.
            watch: What takes the tokens and says when each sequence is done.
            max_new_tokens: The most tokens to decode per sequence.
        """
        frame = self._frame_of(prompts[0])
        model, device, rows = self._model, self._model.device, len(prompts)
        tokens, features = self._near(frame, prompts)
        text = torch.tensor([prompts[0].ids[len(frame.ids) :]], device=device).expand(rows, -1)
        embeddings = torch.cat([features, model.get_input_embeddings()(text)], dim=1)
        behind = torch.arange(text.shape[1], device=device) + len(frame.ids)
        order = torch.cat([tokens + frame.begin, behind.expand(rows, -1)], dim=1)
        positions = _positions(frame, order)
        hidden = torch.zeros((rows, len(frame.ids)), dtype=torch.bool, device=device)
        hidden.scatter_(1, tokens + frame.begin, True)
        room = order.shape[1] + max_new_tokens
        cache = Cache(layers=[RoomyLayer(k, v, rows=rows, room=room) for k, v in frame.layers])
        kept = torch.arange(len(frame.ids), device=device)
        sees = torch.cat(
            [
                ~hidden[:, None] & (kept <= order[:, :, None]),
                order[:, None] <= order[:, :, None],
            ],
            dim=2,
        )
        inputs = {"inputs_embeds": embeddings}
        while True:
            output = model(
                **inputs,
                attention_mask=_additive(sees[:, None], model.dtype),
                position_ids=positions,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            )
            logits = output.logits[:, -1].float()
            chosen = logits.argmax(dim=-1, keepdim=True)
            watch.record(chosen, logits)
            if bool(watch.done(chosen, None).all()):
                return
            inputs, positions = {"input_ids": chosen}, positions[:, :, -1:] + 1
            sees = torch.cat([sees[:, -1:], sees.new_ones((rows, 1, 1))], dim=2)

    def _frame_of(self, prompt: Encoded) -> _Frame:
        assert prompt.repaint is not None
        base, end = prompt.repaint.base, self._encoder.image_end(prompt.ids)
        if self._frame is None or self._frame.base is not base or self._frame.ids != prompt.ids[:end]:
            self._frame = None  # freed before the next one is made
            self._frame = self._read(base, prompt.ids[:end])
        return self._frame

    def _read(self, base: torch.Tensor, ids: list[int]) -> _Frame:
        from depthlm_ros.engines.hf_tower import FrameTower

        inputs = self._encoder.batch([Encoded(ids, (base,))])
        visual, side = self._model.model.visual, self._side()
        rows, columns = base.shape[1] // side, base.shape[2] // side
        tower = FrameTower(visual, inputs["pixel_values"].to(self._model.dtype), rows, columns)
        begin = len(ids) - rows * columns
        embeddings = self._model.get_input_embeddings()(inputs["input_ids"]).clone()
        embeddings[0, begin:] = tower.features
        cache = DynamicCache(config=self._model.config)
        frame = _Frame(base, ids, tower, begin, [])
        self._model(
            inputs_embeds=embeddings,
            attention_mask=inputs["attention_mask"],
            position_ids=_positions(frame, torch.arange(len(ids), device=base.device)[None]),
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        frame.layers.extend((layer.keys, layer.values) for layer in cache.layers)
        return frame

    def _side(self) -> int:
        """Pixels that a token covers along each side."""
        visual = self._model.model.visual
        return int(visual.patch_size * visual.spatial_merge_size)

    def _near(self, frame: _Frame, prompts: Sequence[Encoded]) -> tuple[torch.Tensor, torch.Tensor]:
        """Indices among the image's tokens of those near each marker, (prompts, tokens), and their new features."""
        side, tower = self._side(), frame.tower
        paints = [prompt.repaint for prompt in prompts if prompt.repaint is not None]
        downs, tall = _spans([paint.rows for paint in paints], side, tower.rows, self._radius)
        rights, wide = _spans([paint.columns for paint in paints], side, tower.columns, self._radius)
        crops = [
            prompt.images[0][:, top * side : (top + tall) * side, left * side : (left + wide) * side]
            for prompt, top, left in zip(prompts, downs, rights, strict=True)
        ]
        patches = self._encoder.pack(crops)["pixel_values"].to(self._model.dtype)
        corner = torch.tensor([top * tower.columns + left for top, left in zip(downs, rights, strict=True)])
        inside = torch.arange(tall)[:, None] * tower.columns + torch.arange(wide)
        tokens = (corner[:, None] + inside.reshape(-1)).to(self._model.device)
        return tokens, tower.again(patches, tokens)


def _spans(touched: Sequence[slice], side: int, count: int, radius: int) -> tuple[list[int], int]:
    """Along one axis: the first token near each marker, and how many there are, the same number for all."""
    spans = [(part.start // side, (part.stop - 1) // side) for part in touched]
    length = min(count, max(last - first for first, last in spans) + 1 + 2 * radius)
    return [min(max(0, first - radius), count - length) for first, _ in spans], length


def _positions(frame: _Frame, order: torch.Tensor) -> torch.Tensor:
    """Rotary positions on the three axes, (3, rows, tokens), of tokens given by their index in the prompt.

    Text counts on; an image has one position in time, and rows and columns from there; text behind it goes on after
    the larger of these (``get_rope_index`` of Qwen2.5-VL, for one image).
    """
    rows, columns = frame.tower.rows, frame.tower.columns
    inner = (order - frame.begin).clamp(min=0)
    image = torch.stack([torch.zeros_like(inner), inner // columns, inner % columns]) + frame.begin
    behind = order - rows * columns + max(rows, columns)
    text = torch.where(order < frame.begin, order, behind)
    is_image = (order >= frame.begin) & (order < frame.begin + rows * columns)
    return torch.where(is_image, image, text)


def _additive(sees: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    mask = torch.zeros(sees.shape, dtype=dtype, device=sees.device)
    return mask.masked_fill_(~sees, torch.finfo(dtype).min)
