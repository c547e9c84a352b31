"""Images as data URIs, each distinct one of a call encoded once."""

from __future__ import annotations

import asyncio
import base64
import io
import weakref
from collections import Counter, deque
from collections.abc import Sequence

from PIL import Image

from depthlm_ros.engines.base import Paint, Prompt, PromptImage, RgbImage

KEPT = 2
"""Images whose data URI is kept for a next call: the stream's frame, and the one that callers ask about meanwhile."""

_Key = tuple[int, "Paint | None"]


def data_uri(pixels: RgbImage, image_format: str, jpeg_quality: int) -> str:
    """Encode an image.

    Args:
        pixels: Shape (H, W, 3), uint8, RGB.
        image_format: ``png``, which keeps every pixel, or ``jpeg``.
        jpeg_quality: 1 to 100, for ``jpeg``.
    """
    buffer = io.BytesIO()
    image = Image.fromarray(pixels)
    if image_format == "jpeg":
        # Full colour resolution: the marker is one pixel wide and red, and subsampled chroma washes it out.
        image.save(buffer, "JPEG", quality=jpeg_quality, subsampling=0)
    else:
        image.save(buffer, "PNG", compress_level=1)
    return f"data:image/{image_format};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


class KeptUris:
    """The data URIs of the last few unpainted images, for as long as the images themselves are there.

    With text references a frame is asked in several calls about one image. A marked image is asked about once.
    """

    def __init__(self) -> None:
        self._kept: deque[tuple[weakref.ref[RgbImage], str]] = deque(maxlen=KEPT)

    def find(self, image: PromptImage) -> str | None:
        """The URI of an image, or None."""
        if image.paint is not None:
            return None
        return next((uri for base, uri in self._kept.copy() if base() is image.base), None)

    def keep(self, image: PromptImage, uri: str) -> None:
        """Keep the URI of an image, if it is unpainted."""
        if image.paint is None:
            self._kept.append((weakref.ref(image.base), uri))


class ImageUris:
    """The data URIs of one call: made when first wanted, shared by all who want the same, let go after the last.

    Args:
        prompts: Every prompt of the call.
        image_format: ``png`` or ``jpeg``.
        jpeg_quality: 1 to 100, for ``jpeg``.
        kept: What earlier calls made.
    """

    def __init__(
        self, prompts: Sequence[Prompt], image_format: str, jpeg_quality: int, kept: KeptUris
    ) -> None:
        self._format, self._quality, self._kept = image_format, jpeg_quality, kept
        self._wanted = Counter(_key(image) for prompt in prompts for image in prompt.images)
        self._tasks: dict[_Key, asyncio.Task[str]] = {}
        self.encoded = 0

    async def of(self, prompt: Prompt) -> list[str]:
        """The URIs of a prompt's images, in order."""
        # Shielded: who waits for it may be cancelled, but others may wait for the same image.
        return [await asyncio.shield(self._task(image)) for image in prompt.images]

    def release(self, prompt: Prompt) -> None:
        """Say that a prompt will not ask again."""
        for image in prompt.images:
            key = _key(image)
            self._wanted[key] -= 1
            if self._wanted[key] <= 0 and key in self._tasks:
                self._tasks.pop(key).cancel()

    async def aclose(self) -> None:
        """Give up what is being encoded for nobody."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _task(self, image: PromptImage) -> asyncio.Task[str]:
        key = _key(image)
        if key not in self._tasks:
            self.encoded += 1
            self._tasks[key] = asyncio.create_task(asyncio.to_thread(self._encode, image))
        return self._tasks[key]

    def _encode(self, image: PromptImage) -> str:
        uri = self._kept.find(image)
        if uri is None:
            uri = data_uri(image.pixels(), self._format, self._quality)
            self._kept.keep(image, uri)
        return uri


def _key(image: PromptImage) -> _Key:
    # The prompts keep the base alive for the whole call, so its identity stays its own.
    return id(image.base), image.paint
