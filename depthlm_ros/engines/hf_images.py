"""Images as vision-language models take them: a frame is prepared once, a prompt repaints only what differs.

Everything here is bit for bit what the checkpoint's own image processor (its Pillow variant) makes of each
painted image; only the order of the work differs. Resizing is local (a pixel of the result depends on few
pixels of the image) and normalising is pixelwise, so painting nine pixels changes a small window.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from depthlm_ros.engines.base import Paint, PromptImage, RgbImage
from depthlm_ros.engines.hf_resample import WindowResampler, pillow_resampler

if TYPE_CHECKING:
    import torch

FRAMES_KEPT = 2
"""Prepared frames that are kept for a next call: speed is asked about two frames, and on the newest again."""


@dataclass(frozen=True, eq=False)
class Repaint:
    """How a prepared image differs from that of its frame.

    Attributes:
        base: The frame's prepared image, (3, H, W), the same object for all prompts of the frame.
        rows: Outside of these rows, or
        columns: of these columns, the two are equal.
    """

    base: torch.Tensor
    rows: slice
    columns: slice


class _Frame:
    """What all prompts of one frame share."""

    def __init__(
        self, base: RgbImage, resized: RgbImage, prepared: torch.Tensor, resampler: WindowResampler | None
    ) -> None:
        self.base = base
        """Kept, so that the identity of a base stays unique as long as this entry lives."""
        self.resized = resized
        """(H', W', 3), uint8."""
        self.prepared = prepared
        """(3, H', W'), float32, on the device."""
        self.resampler = resampler
        """Resizes windows of painted copies; None where only Pillow itself can."""


class ImagePreparer:
    """Resizes and normalises images for one family of models; subclasses choose size and layout.

    Args:
        image_processor: The checkpoint's image processor, Pillow variant.
        device: Where prepared images are to live.
        max_image_pixels: The most pixels that an image may have after resizing; None leaves the checkpoint's
            own limit.
    """

    def __init__(self, image_processor: Any, device: torch.device, max_image_pixels: int | None) -> None:
        self._processor, self._device, self._max_pixels = image_processor, device, max_image_pixels
        self._frames: list[_Frame] = []
        # Rescaling and normalising act on each value alone, so 256 x 3 results are all there are.
        levels = np.broadcast_to(np.arange(256, dtype=np.uint8), (3, 1, 256)).copy()
        table: npt.NDArray[Any] = levels
        if image_processor.do_rescale:
            table = image_processor.rescale(table, image_processor.rescale_factor)
        if image_processor.do_normalize:
            table = image_processor.normalize(table, image_processor.image_mean, image_processor.image_std)
        self._table = np.ascontiguousarray(table.reshape(3, 256), dtype=np.float32)

    def size_for(self, height: int, width: int) -> tuple[int, int]:
        """The (height, width) in pixels at which the model sees an image of that size.

        Raises:
            ValueError: The model cannot take such an image.
        """
        raise NotImplementedError

    def placeholder(self, height: int, width: int) -> list[str]:
        """The special tokens that stand for an image that was prepared to that size."""
        raise NotImplementedError

    def pack(self, images: Sequence[torch.Tensor]) -> dict[str, torch.Tensor]:
        """Lay prepared images, each (3, H, W), out as the model's inputs."""
        raise NotImplementedError

    def prepare(self, image: PromptImage) -> torch.Tensor:
        """Resize and normalise an image.

        Args:
            image: The image; what is derived from its base is reused while the base is the same object.

        Returns:
            (3, H, W), float32, on the device; not to be written to.
        """
        frame = self._frame(image.base)
        if image.paint is None or not image.paint.xy:
            return frame.prepared
        painted = image.pixels()
        rows, columns, window = self._repaint(frame, painted, image.paint)
        prepared = frame.prepared.clone()
        prepared[:, rows, columns] = self._normalise(window)
        return prepared

    def repaint(self, image: PromptImage) -> Repaint | None:
        """Where an image differs from its frame once both are prepared; None for one that is not painted over.

        Args:
            image: An image that :meth:`prepare` takes.
        """
        if image.paint is None or not image.paint.xy:
            return None
        frame = self._frame(image.base)
        rows, columns = self._touched(frame, image.paint)
        height, width = frame.prepared.shape[1:]
        return Repaint(frame.prepared, slice(*rows.indices(height)), slice(*columns.indices(width)))

    def _repaint(self, frame: _Frame, painted: RgbImage, paint: Paint) -> tuple[slice, slice, RgbImage]:
        """Where the resized image differs from the frame's, and what it is there."""
        rows, columns = self._touched(frame, paint)
        if frame.resized is frame.base:
            return rows, columns, painted[rows, columns]
        if frame.resampler is not None:
            return rows, columns, frame.resampler.resample(painted, rows, columns)
        return rows, columns, self._resize(painted)

    @staticmethod
    def _touched(frame: _Frame, paint: Paint) -> tuple[slice, slice]:
        """Rows and columns of the resized image that the painted pixels are part of."""
        x, y = np.asarray(paint.xy, dtype=np.intp).T
        x, y = x % frame.base.shape[1], y % frame.base.shape[0]
        box = (int(y.min()), int(y.max()) + 1, int(x.min()), int(x.max()) + 1)
        if frame.resized is frame.base:
            return slice(*box[:2]), slice(*box[2:])
        return (slice(None), slice(None)) if frame.resampler is None else frame.resampler.touched(*box)

    def _frame(self, base: RgbImage) -> _Frame:
        for frame in self._frames:
            if frame.base is base:
                return frame
        resized = self._resize(base)
        bicubic = self._processor.resample == Image.Resampling.BICUBIC
        bicubic = bicubic and resized is not base
        resampler = pillow_resampler(base.shape[:2], resized.shape[:2]) if bicubic else None
        frame = _Frame(base, resized, self._normalise(resized), resampler)
        self._frames = [frame, *self._frames[: FRAMES_KEPT - 1]]
        return frame

    def _resize(self, image: RgbImage) -> RgbImage:
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise ValueError(f"expected an (H, W, 3) uint8 image, got {image.shape} {image.dtype}")
        height, width = self.size_for(*image.shape[:2])
        if (height, width) == image.shape[:2]:
            return image
        return np.asarray(Image.fromarray(image).resize((width, height), resample=self._processor.resample))

    def _normalise(self, image: RgbImage) -> torch.Tensor:
        import torch

        planes = np.stack([self._table[c][image[:, :, c]] for c in range(3)])
        return torch.from_numpy(planes).to(self._device)


class QwenImages(ImagePreparer):
    """Qwen2-VL, Qwen2.5-VL and Qwen3-VL: patches in merge order, each image with its own grid."""

    def __init__(self, image_processor: Any, device: torch.device, max_image_pixels: int | None) -> None:
        super().__init__(image_processor, device, max_image_pixels)
        self._patch, self._merge = int(image_processor.patch_size), int(image_processor.merge_size)
        self._frames_per_patch = int(image_processor.temporal_patch_size)

    def size_for(self, height: int, width: int) -> tuple[int, int]:
        """A multiple of patch times merge within the limits on pixels (``smart_resize``)."""
        from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

        factor, size = self._patch * self._merge, self._processor.size
        if not self._processor.do_resize:
            if height % factor or width % factor:
                raise ValueError(
                    f"the checkpoint does not resize, and {width}x{height} is no multiple of {factor}"
                )
            return height, width
        most = min(size["longest_edge"], self._max_pixels or size["longest_edge"])
        least = min(size["shortest_edge"], most)
        height, width = smart_resize(height, width, factor=factor, min_pixels=least, max_pixels=most)
        return int(height), int(width)

    def placeholder(self, height: int, width: int) -> list[str]:
        """One token per merged patch."""
        side = self._patch * self._merge
        return ["<|image_pad|>"] * ((height // side) * (width // side))

    def pack(self, images: Sequence[torch.Tensor]) -> dict[str, torch.Tensor]:
        """``pixel_values`` (patches of all images, values of a patch) and ``image_grid_thw`` (images, 3)."""
        import torch

        patch, merge, times = self._patch, self._merge, self._frames_per_patch
        grids = [(1, image.shape[1] // patch, image.shape[2] // patch) for image in images]
        count = sum(h * w for _, h, w in grids)
        values = torch.empty((count, 3 * times * patch * patch), device=self._device)
        first = 0
        for image, (_, h, w) in zip(images, grids, strict=True):
            blocks = image.reshape(3, h // merge, merge, patch, w // merge, merge, patch)
            blocks = blocks.permute(1, 4, 2, 5, 0, 3, 6).unsqueeze(5)
            target = values[first : first + h * w]
            target.view(h // merge, w // merge, merge, merge, 3, times, patch, patch).copy_(blocks)
            first += h * w
        grid = torch.tensor(grids, dtype=torch.int64, device=self._device)
        return {"pixel_values": values, "image_grid_thw": grid}


class PixtralImages(ImagePreparer):
    """Pixtral and Mistral 3: whole images, padded to the largest of the batch.

    Args:
        image_processor: See :class:`ImagePreparer`.
        device: See :class:`ImagePreparer`.
        max_image_pixels: See :class:`ImagePreparer`.
        patch_size: Pixels that one image token covers, along each side.
    """

    def __init__(
        self, image_processor: Any, device: torch.device, max_image_pixels: int | None, *, patch_size: int
    ) -> None:
        super().__init__(image_processor, device, max_image_pixels)
        self._patch = patch_size

    def size_for(self, height: int, width: int) -> tuple[int, int]:
        """The next multiples of the patch size, after shrinking to the longest edge if need be."""
        from transformers.image_utils import ChannelDimension
        from transformers.models.pixtral.image_processing_pil_pixtral import get_resize_output_image_size

        if not self._processor.do_resize:
            return height, width
        size, patch = self._processor.size, self._patch
        edge = size["longest_edge"]
        limit = (edge, edge) if edge else (size["height"], size["width"])
        probe = np.broadcast_to(np.uint8(0), (3, height, width))
        out = get_resize_output_image_size(probe, limit, (patch, patch), ChannelDimension.FIRST)
        if self._max_pixels is not None and out[0] * out[1] > self._max_pixels:
            # Rounding up to whole patches adds less than a patch along each side: the largest image of this
            # shape for which that still fits solves (h + p)(w + p) = pixels.
            ratio = width / height
            linear = patch * (1 + ratio)
            root = math.sqrt(linear**2 - 4 * ratio * (patch**2 - self._max_pixels))
            fits = (max(1, int((root - linear) / (2 * ratio))), max(1, int((root - linear) / 2)))
            out = get_resize_output_image_size(probe, fits, (patch, patch), ChannelDimension.FIRST)
        return int(out[0]), int(out[1])

    def placeholder(self, height: int, width: int) -> list[str]:
        """A token per patch, a break after each row but the last, and an end."""
        row = ["[IMG]"] * (width // self._patch) + ["[IMG_BREAK]"]
        return [*(row * (height // self._patch))[:-1], "[IMG_END]"]

    def pack(self, images: Sequence[torch.Tensor]) -> dict[str, torch.Tensor]:
        """``pixel_values`` (images, 3, H, W), zero beyond each image, and ``image_sizes`` (images, 2)."""
        import torch

        sizes = [tuple(image.shape[1:]) for image in images]
        height, width = (max(edge) for edge in zip(*sizes, strict=True))
        if all(size == (height, width) for size in sizes):
            values = torch.stack(list(images))
        else:
            values = torch.zeros((len(images), 3, height, width), device=self._device)
            for target, image in zip(values, images, strict=True):
                target[:, : image.shape[1], : image.shape[2]] = image
        return {
            "pixel_values": values,
            "image_sizes": torch.tensor(sizes, dtype=torch.int64, device=self._device),
        }
