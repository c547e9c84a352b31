"""What lens and sensor do to radiance."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from depthlm_ros.synthetic.cameras import Floats
from depthlm_ros.synthetic.scene import CameraLook


def develop(
    radiance: Floats, look: CameraLook, rng: np.random.Generator, supersample: int
) -> npt.NDArray[np.uint8]:
    """Turn linear radiance (H*s, W*s, 3) into an 8-bit RGB image (H, W, 3).

    Only the noise is drawn from ``rng``.
    """
    height, width = radiance.shape[0] // supersample, radiance.shape[1] // supersample
    if supersample > 1:
        radiance = cv2.resize(radiance, (width, height), interpolation=cv2.INTER_AREA)
    # Automatic exposure meters the median-ish scene, and does not fully compensate, as in real cameras.
    level = float(np.minimum(radiance, 2.0).mean()) + 1e-3
    exposure = look.target_brightness * (0.35 / level) ** 0.85 / 0.35
    # One gain per pixel and channel: NumPy is slow at broadcasting over a last axis of three.
    gain = np.array(look.white_balance, np.float32) * np.float32(exposure)
    image = radiance * np.tile(gain, (width, 1))
    across = (np.arange(width, dtype=np.float32) * (2 / width) - 1)[None, :, None]
    down = (np.arange(height, dtype=np.float32) * (2 / height) - 1)[:, None, None]
    image *= 1.0 - look.vignetting * (across * across + down * down) * 0.5
    sigma = look.blur_px * max(width / 128.0, 0.75)
    image = cv2.GaussianBlur(image, (0, 0), sigma)
    # A soft shoulder instead of hard clipping, then display gamma.
    image /= 1.0 + 0.25 * image
    np.sqrt(np.clip(image, 0.0, 1.0, out=image), out=image)
    image **= np.float32(0.91 * look.contrast)
    grain = rng.standard_normal(image.shape, dtype=np.float32)
    mean = (grain[..., 0] + grain[..., 1] + grain[..., 2]) / np.float32(3)
    chroma = np.repeat(mean[..., None] * 1.2, 3, axis=2)
    image = image * 255.0 + (grain * 0.5 + chroma) * look.noise * (1.2 - 0.4 * image)
    developed: npt.NDArray[np.uint8] = np.clip(image + 0.5, 0, 255).astype(np.uint8)
    return developed
