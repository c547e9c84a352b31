"""Antialiased procedural textures in metric surface coordinates.

Everything fades with the footprint of the pixel: joints by exact box filtering, noise octave by octave.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from depthlm_ros.synthetic.cameras import Floats
from depthlm_ros.synthetic.materials import COLUMNS

_TILE = 256


def _tables() -> tuple[Floats, npt.NDArray[np.int32], Floats]:
    rng = np.random.default_rng(20240)
    lattice = rng.normal(0, 0.8, (_TILE, _TILE)).clip(-2, 2).astype(np.float32)
    permutation = rng.permutation(1024).astype(np.int32)
    return lattice, permutation, rng.uniform(-1, 1, (3, 1024)).astype(np.float32)


_LATTICE, _PERMUTATION, _VALUES = _tables()


def noise(x: Floats, y: Floats) -> Floats:
    """Smooth noise of zero mean and wavelength about 2, shape of ``x``."""
    found: Floats = cv2.remap(
        _LATTICE, _in_tile(x), _in_tile(y), cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP
    )
    return found


def _in_tile(x: Floats) -> Floats:
    # What np.mod returns, bit for bit since the divisor is a power of two, at a twentieth of its time.
    wrapped: Floats = x - np.floor(x * np.float32(1 / _TILE)) * np.float32(_TILE)
    return wrapped


def pulse_cover(x: Floats, period: Floats, width: Floats, footprint: Floats) -> Floats:
    """Share of [x - footprint/2, x + footprint/2] covered by pulses [k period, k period + width]."""

    def integral(at: Floats) -> Floats:
        cycle = np.floor(at / period)
        covered: Floats = cycle * width + np.minimum(at - cycle * period, width)
        return covered

    reach: Floats = np.maximum(footprint, np.float32(1e-4))
    half: Floats = reach * np.float32(0.5)
    share: Floats = (integral(x + half) - integral(x - half)) / reach
    return share


class PixelMaterials:
    """The materials that pixels show, by the name of a column of `materials.COLUMNS`; gathered on demand."""

    def __init__(self, rows: Floats, index: npt.NDArray[np.int32]) -> None:
        """Name the material of each pixel.

        Args:
            rows: Materials, shape (N, C), as `Material.row` has them.
            index: Row of each pixel, any shape.
        """
        self._columns = np.ascontiguousarray(rows.T)
        self._index = index
        self._gathered: dict[str, Floats] = {}

    def __getitem__(self, name: str) -> Floats:
        """One column for all pixels, the shape of the index."""
        if name not in self._gathered:
            self._gathered[name] = np.take(self._columns[COLUMNS[name]], self._index)
        return self._gathered[name]

    def where(self, chosen: npt.NDArray[np.bool_]) -> PixelMaterials:
        """The materials of the chosen pixels alone, as a line."""
        return PixelMaterials(self._columns.T, self._index[chosen])


def albedo(
    material: PixelMaterials, u: Floats, v: Floats, footprint_u: Floats, footprint_v: Floats
) -> Floats:
    """Colour of each pixel, shape (3, H, W).

    Args:
        material: Of each pixel, (H, W).
        u: Metres along the surface, (H, W).
        v: Metres across, (H, W).
        footprint_u: Metres one pixel covers in u.
        footprint_v: Metres one pixel covers in v.
    """
    color = np.stack([material["red"], material["green"], material["blue"]])
    patterned = material["cell_u"] > 0
    if patterned.any():
        # Only the pixels that need it: cells are the costly part.
        color[:, patterned] = _cells(
            material.where(patterned),
            u[patterned],
            v[patterned],
            footprint_u[patterned],
            footprint_v[patterned],
        )
    brightness = _grain(material, u, v, footprint_u, footprint_v)
    wavy = material["wave"] > 0
    if wavy.any():
        period = material["wave_period"][wavy]
        fade = np.clip(1.5 - 2 * footprint_u[wavy] / period, 0, 1)
        brightness[wavy] += material["wave"][wavy] * fade * np.sin(u[wavy] * (2 * np.pi / period))
    painted: Floats = color * np.maximum(brightness, 0.05)
    return painted


def _cells(
    material: PixelMaterials, u: Floats, v: Floats, footprint_u: Floats, footprint_v: Floats
) -> Floats:
    """Tiles, bricks, planks, panels: colour (3, K) with joints and per-cell variation."""
    cell_u, cell_v = material["cell_u"], material["cell_v"]
    u = u + material["phase"]
    v = v + material["phase"]
    row = np.floor(v / cell_v)
    row_index = row.astype(np.int32)
    salt = (material["phase"] * 977).astype(np.int32)
    random_shift = _VALUES[0][(_PERMUTATION[row_index & 1023] + salt) & 1023]
    u = u + cell_u * np.where(material["stagger"] < 0, random_shift, material["stagger"] * row)
    column_index = np.floor(u / cell_u).astype(np.int32)
    cell = _PERMUTATION[(_PERMUTATION[(column_index + salt) & 1023] + row_index) & 1023]
    # A pixel that spans several cells sees their mean.
    resolved = np.clip(1.5 - 1.5 * np.maximum(footprint_u / cell_u, footprint_v / cell_v), 0, 1)
    tone = 1.0 + material["cell_contrast"] * resolved * _VALUES[0][cell]
    color = np.stack([material["red"], material["green"], material["blue"]]) * tone
    if (material["cell_hue"] > 0).any():
        color = color * (1.0 + material["cell_hue"] * resolved * _VALUES[:, cell])
    gap_u = pulse_cover(u, cell_u, material["joint_u"], footprint_u)
    gap_v = pulse_cover(v, cell_v, material["joint_v"], footprint_v)
    gap = 1.0 - (1.0 - gap_u) * (1.0 - gap_v)
    joint = np.stack([material["joint_red"], material["joint_green"], material["joint_blue"]])
    blended: Floats = color + (joint - color) * gap
    return blended


# (wavelength relative to grain_size, share of the amplitude)
_OCTAVES = ((6.0, 0.5), (1.0, 0.6), (0.25, 0.5))


def _grain(
    material: PixelMaterials, u: Floats, v: Floats, footprint_u: Floats, footprint_v: Floats
) -> Floats:
    """Brightness factor from three octaves of noise, (H, W)."""
    scale_v = 2.0 / material["grain_size"]
    scale_u = scale_v / material["grain_stretch"]
    step = np.maximum(footprint_u * scale_u, footprint_v * scale_v)
    total = np.ones_like(u)
    for wavelength, share in _OCTAVES:
        inverse = 1.0 / wavelength
        # Gone before neighbouring pixels would fall more than a lattice cell apart.
        visible = np.clip(1.6 - step * inverse, 0, 1)
        field = noise(
            u * (scale_u * inverse) + material["phase"] * 7, v * (scale_v * inverse) + material["phase"] * 3
        )
        total += material["grain"] * share * visible * field
    return total
