"""Which pixels of two images show the same point: features, checked against the epipolar geometry."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from depthlm_ros.camera import PinholeCamera
from depthlm_ros.engines.base import RgbImage
from depthlm_ros.geometry import rays

Points = npt.NDArray[np.float64]

MOST_RATIO = 0.8
"""A match must be this much nearer than the second best (Lowe, 2004, section 7.1)."""
LEAST_MATCHES = 8
"""Fewer matches than this fix no motion that can be trusted."""
_CONTRAST = 0.01
"""Below SIFT's default of 0.04: walls and floors indoors have weak textures."""
MOST_FEATURES = 2000
"""Per image, the strongest: matching takes time with their square, and the camera's frames wait for it."""
MOST_PIXELS = 1_500_000
"""Larger images are shrunk before features are looked for, for the same reason."""
_EPIPOLAR_PX = 1.5
_SPACING = 1 / 24
"""Least distance between two chosen points, as a share of the image's width."""


@dataclass(frozen=True, eq=False)
class Matches:
    """Matched points of two images, the best first.

    Attributes:
        first: Positions (u, v) in the first image, shape (N, 2).
        second: Positions of the same points in the second image, shape (N, 2).
    """

    first: Points
    second: Points

    def __len__(self) -> int:
        return len(self.first)

    def take(self, index: npt.ArrayLike) -> Matches:
        """Some of them, by index or mask."""
        chosen = np.asarray(index)
        return Matches(self.first[chosen], self.second[chosen])


def match_images(
    first: RgbImage, second: RgbImage, camera: PinholeCamera, second_camera: PinholeCamera
) -> Matches:
    """Match two images of a static scene: SIFT, ratio test, mutual best, and one epipolar geometry for all.

    Args:
        first: The first rectified image, shape (H, W, 3), uint8.
        second: The second one.
        camera: Camera of the first.
        second_camera: Camera of the second.

    Returns:
        The matches, none where the images share too little.
    """
    sift = cv2.SIFT.create(nfeatures=MOST_FEATURES, contrastThreshold=_CONTRAST)
    spots, words = _features(sift, first)
    second_spots, second_words = _features(sift, second)
    none = Matches(np.zeros((0, 2)), np.zeros((0, 2)))
    if words is None or second_words is None or min(len(spots), len(second_spots)) < LEAST_MATCHES:
        return none
    matcher = cv2.BFMatcher(cv2.NORM_L2)
    back = {match.queryIdx: match.trainIdx for match in matcher.match(second_words, words)}
    good = [
        (best.distance / max(other.distance, 1e-9), best)
        for best, other in matcher.knnMatch(words, second_words, k=2)
        if best.distance < MOST_RATIO * other.distance and back.get(best.trainIdx) == best.queryIdx
    ]
    if len(good) < LEAST_MATCHES:
        return none
    good.sort(key=lambda rated: rated[0])
    found = Matches(
        spots[[match.queryIdx for _, match in good]],
        second_spots[[match.trainIdx for _, match in good]],
    )
    return found.take(_epipolar_inliers(found, camera, second_camera))


def _features(sift: Any, image: RgbImage) -> tuple[Points, Any]:
    """Positions of an image's features, shape (N, 2), and their descriptors (None without any)."""
    scale = min(1.0, math.sqrt(MOST_PIXELS / (image.shape[0] * image.shape[1])))
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    if scale < 1.0:
        grey = cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    spots, words = sift.detectAndCompute(grey, None)
    shrunk = np.array(grey.shape[::-1]) / (image.shape[1], image.shape[0])
    places = np.array([spot.pt for spot in spots], dtype=np.float64).reshape(-1, 2)
    return (places + 0.5) / shrunk - 0.5, words


def spread(matches: Matches, width: int, most: int) -> Matches:
    """The best matches that keep a distance from each other in the first image.

    Args:
        matches: The best first.
        width: Width of the first image in pixels.
        most: The most to keep.
    """
    chosen: list[int] = []
    for index, point in enumerate(matches.first):
        if len(chosen) == most:
            break
        gaps = np.linalg.norm(matches.first[chosen] - point, axis=1)
        if (gaps >= width * _SPACING).all():
            chosen.append(index)
    return matches.take(np.array(chosen, dtype=np.intp))


def _epipolar_inliers(
    matches: Matches, camera: PinholeCamera, second_camera: PinholeCamera
) -> npt.NDArray[np.bool_]:
    # In normalised coordinates, since the two cameras may differ.
    first, second = rays(matches.first, camera)[:, :2], rays(matches.second, second_camera)[:, :2]
    threshold = _EPIPOLAR_PX / min(camera.fx, second_camera.fx)
    essential, mask = cv2.findEssentialMat(
        first, second, np.eye(3), method=cv2.RANSAC, prob=0.999, threshold=threshold
    )
    if essential is None or mask is None:
        return np.zeros(len(matches), dtype=np.bool_)
    return np.asarray(mask.ravel() > 0, dtype=np.bool_)
