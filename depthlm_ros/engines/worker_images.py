"""Prompts on their way to a worker process: texts as JSON, images in shared memory that has no name.

The memory is a ``memfd``: it lives as long as one of the two processes has it open, so that no crash of either can
leave any behind. An image that prompts share is there once, whatever is painted on it.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from depthlm_ros.engines.base import Paint, Prompt, PromptImage, RgbImage


def pack(prompts: Sequence[Prompt]) -> tuple[dict[str, Any], list[int]]:
    """Write the images of prompts into shared memory and describe the prompts for :func:`unpack`.

    Returns:
        The description, fit for JSON, and the open files that belong to it (one, or none without an image). The
        caller closes them once they are sent.
    """
    bases: dict[int, RgbImage] = {}
    for prompt in prompts:
        bases.update({id(image.base): image.base for image in prompt.images})
    places, offset = [], 0
    for base in bases.values():
        if base.dtype != np.uint8 or base.ndim != 3 or base.shape[2] != 3:
            raise ValueError(
                f"expected images of shape (H, W, 3) and dtype uint8, got {base.shape} {base.dtype}"
            )
        places.append((offset, base.shape[0], base.shape[1]))
        offset += base.size
    index = {key: number for number, key in enumerate(bases)}
    described = [
        {
            "images": [_described_image(image, index[id(image.base)]) for image in prompt.images],
            "question": prompt.question,
            "system": prompt.system,
            "image_first": prompt.image_first,
            "prefix": prompt.prefix,
        }
        for prompt in prompts
    ]
    description = {"bases": places, "bytes": offset, "prompts": described}
    if not offset:
        return description, []
    file = os.memfd_create("depthlm-images", os.MFD_CLOEXEC)
    try:
        os.ftruncate(file, offset)
        with mmap.mmap(file, offset) as memory:
            for (start, *_), base in zip(places, bases.values(), strict=True):
                memory[start : start + base.size] = np.ascontiguousarray(base).data.cast("B")
    except BaseException:
        os.close(file)
        raise
    return description, [file]


def unpack(description: dict[str, Any], files: Sequence[int]) -> list[Prompt]:
    """The prompts that :func:`pack` described; their images are read-only views of the shared memory.

    Prompts that shared a base share one again. The memory is freed with the last of its images; the files may be
    closed at once.

    Raises:
        ValueError: The description does not fit the files.
    """
    size = int(description["bytes"])
    if len(files) != (1 if size else 0) or (files and os.fstat(files[0]).st_size < size):
        raise ValueError(f"expected shared memory of {size} bytes, got {len(files)} files")
    memory = mmap.mmap(files[0], size, access=mmap.ACCESS_READ) if files else b""
    bases = [
        np.frombuffer(memory, np.uint8, height * width * 3, offset).reshape(height, width, 3)
        for offset, height, width in description["bases"]
    ]
    return [
        Prompt(
            images=tuple(
                PromptImage(bases[image["base"]], _paint(image["paint"])) for image in prompt["images"]
            ),
            question=prompt["question"],
            system=prompt["system"],
            image_first=prompt["image_first"],
            prefix=prompt["prefix"],
        )
        for prompt in description["prompts"]
    ]


def _described_image(image: PromptImage, base: int) -> dict[str, Any]:
    paint = image.paint
    return {"base": base, "paint": None if paint is None else {"xy": paint.xy, "rgb": paint.rgb}}


def _paint(described: dict[str, Any] | None) -> Paint | None:
    if described is None:
        return None
    red, green, blue = described["rgb"]
    return Paint(xy=tuple((x, y) for x, y in described["xy"]), rgb=(red, green, blue))
