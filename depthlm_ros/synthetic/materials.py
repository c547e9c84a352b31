"""What surfaces look like: one parametric material covers tiles, bricks, planks, cloth, metal and glass."""

from __future__ import annotations

import colorsys
from typing import NamedTuple

import numpy as np

Rgb = tuple[float, float, float]


class Material(NamedTuple):
    """A surface: colour, a metric pattern of cells and joints, and metric noise.

    Colours are linear albedo in [0, 1]; lengths are metres on the surface; u runs along a face, v upwards.
    """

    color: Rgb
    joint_color: Rgb = (0.3, 0.3, 0.3)
    cell_u: float = 0.0
    """Cell length; 0 for a surface without cells."""
    cell_v: float = 1.0
    joint_u: float = 0.0
    """Width of the joint between neighbours in u."""
    joint_v: float = 0.0
    stagger: float = 0.0
    """Shift of each row against the one below, in cells; negative: a random shift per row."""
    cell_contrast: float = 0.0
    """How much brightness varies from cell to cell."""
    cell_hue: float = 0.0
    """How much colour varies from cell to cell."""
    grain: float = 0.06
    """Amplitude of noise."""
    grain_size: float = 0.12
    """Wavelength of the middle octave of noise."""
    grain_stretch: float = 1.0
    """How much longer the noise is in u than in v."""
    wave: float = 0.0
    """Depth of vertical corrugation (as brightness)."""
    wave_period: float = 0.2
    gloss: float = 0.0
    emission: float = 0.0
    corner_occlusion: float = 0.0
    """How much a face darkens towards its edges: for the inside of a room."""
    phase: float = 0.0
    """Shifts pattern and noise so that no two surfaces agree."""

    def row(self) -> tuple[float, ...]:
        """The material as numbers, in the order of `COLUMNS`."""
        return (
            *self.color,
            *self.joint_color,
            self.cell_u,
            self.cell_v,
            self.joint_u,
            self.joint_v,
            self.stagger,
            self.cell_contrast,
            self.cell_hue,
            self.grain,
            self.grain_size,
            self.grain_stretch,
            self.wave,
            self.wave_period,
            self.gloss,
            self.emission,
            self.corner_occlusion,
            self.phase,
        )

    def scaled(self, brightness: float) -> Material:
        """The same material, darker or brighter."""
        red, green, blue = (min(1.0, channel * brightness) for channel in self.color)
        return self._replace(color=(red, green, blue))


_COLUMN_NAMES = (
    "red", "green", "blue", "joint_red", "joint_green", "joint_blue", "cell_u", "cell_v", "joint_u", "joint_v",
    "stagger", "cell_contrast", "cell_hue", "grain", "grain_size", "grain_stretch", "wave", "wave_period", "gloss",
    "emission", "corner_occlusion", "phase",
)  # fmt: skip
COLUMNS = {name: index for index, name in enumerate(_COLUMN_NAMES)}


def hsv(hue: float, saturation: float, value: float) -> Rgb:
    """A colour from hue, saturation and value, each in [0, 1]."""
    return colorsys.hsv_to_rgb(hue % 1.0, min(max(saturation, 0.0), 1.0), min(max(value, 0.0), 1.0))


class Paints:
    """Draws materials with plausible colours and metric texture sizes."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng

    def _u(self, low: float, high: float) -> float:
        # Generator.uniform by its definition, without its checks: hundreds of draws a scene.
        return low + (high - low) * self._rng.random()

    def _finish(self, material: Material) -> Material:
        return material._replace(phase=self._u(0, 50))

    def plain(self, color: Rgb, *, grain: float = 0.05, gloss: float = 0.0) -> Material:
        """A painted or plastic surface of the given colour."""
        return self._finish(Material(color, grain=grain, grain_size=self._u(0.05, 0.25), gloss=gloss))

    def wall_color(self) -> Rgb:
        """Mostly off-white and muted, now and then strong."""
        saturation = self._u(0.0, 0.12) if self._rng.random() < 0.75 else self._u(0.12, 0.45)
        return hsv(
            self._u(0, 1) if saturation > 0.12 else self._u(0.05, 0.18), saturation, self._u(0.4, 0.85)
        )

    def any_color(self) -> Rgb:
        """Any colour that things are made in."""
        if self._rng.random() < 0.4:
            return hsv(self._u(0, 1), self._u(0, 0.1), self._u(0.04, 0.75))
        return hsv(self._u(0, 1), self._u(0.3, 0.85), self._u(0.08, 0.6))

    def wood(self, *, value: float | None = None) -> Material:
        """Bare or varnished wood with grain along u."""
        color = hsv(self._u(0.055, 0.1), self._u(0.35, 0.65), value or self._u(0.15, 0.55))
        return self._finish(
            Material(
                color, grain=self._u(0.1, 0.25), grain_size=self._u(0.02, 0.05), grain_stretch=8, gloss=0.1
            )
        )

    def metal(self, color: Rgb | None = None) -> Material:
        """Painted or bare metal."""
        value = self._u(0.15, 0.55)
        return self._finish(Material(color or (value, value, value * 1.03), grain=0.05, gloss=0.35))

    def fabric(self) -> Material:
        """Cloth: matt, with fine noise."""
        return self._finish(Material(self.any_color(), grain=0.12, grain_size=self._u(0.01, 0.05)))

    def cardboard(self) -> Material:
        """Brown board."""
        color = hsv(self._u(0.07, 0.1), self._u(0.35, 0.55), self._u(0.3, 0.5))
        return self._finish(Material(color, grain=0.07, grain_size=self._u(0.05, 0.15)))

    def foliage(self) -> Material:
        """Leaves seen from some distance."""
        color = hsv(self._u(0.2, 0.38), self._u(0.45, 0.8), self._u(0.08, 0.3))
        return self._finish(Material(color, grain=0.55, grain_size=self._u(0.04, 0.12)))

    def tiles(self) -> Material:
        """Floor tiles: 0.2 to 0.6 m with 2 to 6 mm joints."""
        size = float(self._rng.choice([0.2, 0.3, 0.33, 0.4, 0.45, 0.6]))
        joint = self._u(0.002, 0.006)
        color = hsv(self._u(0.03, 0.2), self._u(0, 0.3), self._u(0.2, 0.75))
        shade = self._u(0.4, 0.8) if self._rng.random() < 0.7 else self._u(1.1, 1.5)
        joint_color = (min(1, color[0] * shade), min(1, color[1] * shade), min(1, color[2] * shade))
        length = size * (2.0 if self._rng.random() < 0.2 else 1.0)
        contrast = self._u(0.35, 0.6) if self._rng.random() < 0.12 else self._u(0.02, 0.15)
        return self._finish(
            Material(
                color, joint_color, length, size, joint, joint,
                stagger=0.5 if length > size else 0.0, cell_contrast=contrast, grain=0.05, gloss=self._u(0, 0.4),
            )
        )  # fmt: skip

    def planks(self) -> Material:
        """Parquet or laminate: 70 to 200 mm wide, 0.5 to 2 m long."""
        board = self.wood(value=self._u(0.18, 0.6))
        width, length = self._u(0.07, 0.2), self._u(0.5, 2.0)
        joint = self._u(0.001, 0.004)
        return board._replace(
            cell_u=length, cell_v=width, joint_u=joint, joint_v=joint, stagger=-1.0,
            joint_color=hsv(0.07, 0.5, 0.08), cell_contrast=self._u(0.05, 0.3), gloss=self._u(0.0, 0.35),
        )  # fmt: skip

    def concrete(self) -> Material:
        """Screed, in fields of some metres when there are joints at all."""
        value = self._u(0.2, 0.55)
        color = (value, value * self._u(0.94, 1.0), value * self._u(0.86, 1.0))
        fields = self._u(2.5, 6.0) if self._rng.random() < 0.6 else 0.0
        return self._finish(
            Material(
                color, (value * 0.5,) * 3, fields, max(fields, 1.0), 0.008, 0.008,
                grain=self._u(0.1, 0.25), grain_size=self._u(0.15, 0.5), gloss=self._u(0, 0.35),
            )
        )  # fmt: skip

    def carpet(self) -> Material:
        """Wall-to-wall carpet, sometimes 0.5 m squares."""
        square = 0.5 if self._rng.random() < 0.5 else 0.0
        color = hsv(self._u(0, 1), self._u(0, 0.4), self._u(0.06, 0.35))
        contrast = self._u(0.03, 0.2)
        return self._finish(
            Material(
                color, color, square, max(square, 1.0), 0.001, 0.001,
                cell_contrast=contrast, grain=0.25, grain_size=self._u(0.01, 0.03),
            )
        )  # fmt: skip

    def brick(self) -> Material:
        """Bricks of 240 x 71 mm with 10 mm joints (DIN 4172 course of 250 x 83 mm), bare or painted."""
        painted = self._rng.random() < 0.4
        color = (
            self.wall_color() if painted else hsv(self._u(0.0, 0.07), self._u(0.4, 0.7), self._u(0.2, 0.45))
        )
        tone = self._u(0.6, 0.85) if painted else self._u(1.1, 1.5)
        joint_color = tuple(
            min(1.0, (sum(color) / 3 if not painted else channel) * tone) for channel in color
        )
        return self._finish(
            Material(
                color, (joint_color[0], joint_color[1], joint_color[2]), 0.25, 0.083, 0.01, 0.01,
                stagger=0.5, cell_contrast=0.06 if painted else self._u(0.1, 0.35), grain=0.1, grain_size=0.06,
            )
        )  # fmt: skip

    def blocks(self) -> Material:
        """Concrete blocks, 400 x 200 mm with joints."""
        color = self.wall_color()
        joint_color = (color[0] * 0.7, color[1] * 0.7, color[2] * 0.7)
        return self._finish(
            Material(color, joint_color, 0.4, 0.2, 0.01, 0.01, stagger=0.5, cell_contrast=0.06, grain=0.1)
        )

    def panels(self) -> Material:
        """Large wall panels with thin joints."""
        color = self.wall_color()
        joint_color = (color[0] * 0.5, color[1] * 0.5, color[2] * 0.5)
        width = self._u(0.6, 1.25)
        return self._finish(
            Material(color, joint_color, width, 20.0, 0.006, 0.0, cell_contrast=0.04, grain=0.03)
        )

    def corrugated(self) -> Material:
        """Profiled sheet as on warehouse walls and containers."""
        color = hsv(self._u(0, 1), self._u(0, 0.5), self._u(0.2, 0.65))
        return self._finish(
            Material(color, wave=self._u(0.15, 0.4), wave_period=self._u(0.15, 0.33), gloss=0.1)
        )

    def wallpaper_stripes(self) -> Material:
        """Stripes of 50 to 150 mm."""
        color = self.wall_color()
        period, tone = self._u(0.1, 0.3), self._u(0.7, 0.92)
        joint_color = (color[0] * tone, color[1] * tone, color[2] * tone)
        return self._finish(Material(color, joint_color, period, 20.0, period / 2, 0.0, grain=0.03))

    def plaster(self) -> Material:
        """A plain wall, between smooth and roughcast."""
        return self._finish(
            Material(self.wall_color(), grain=self._u(0.02, 0.14), grain_size=self._u(0.03, 0.4))
        )

    def ground(self) -> Material:
        """Asphalt, grass, gravel or paving outdoors."""
        pick = self._rng.integers(4)
        if pick == 0:
            value = self._u(0.1, 0.3)
            return self._finish(
                Material((value, value, value * 1.02), grain=0.25, grain_size=self._u(0.02, 0.3))
            )
        if pick == 1:
            color = hsv(self._u(0.2, 0.3), self._u(0.4, 0.7), self._u(0.12, 0.3))
            return self._finish(Material(color, grain=0.5, grain_size=self._u(0.03, 0.12)))
        if pick == 2:
            color = hsv(self._u(0.07, 0.12), self._u(0.1, 0.4), self._u(0.25, 0.5))
            return self._finish(Material(color, grain=0.4, grain_size=self._u(0.02, 0.06)))
        value, length = self._u(0.25, 0.5), float(self._rng.choice([0.2, 0.3, 0.4, 0.5]))
        width = length if self._rng.random() < 0.5 else length / 2
        return self._finish(
            Material(
                (value, value * 0.96, value * 0.9), (value * 0.5,) * 3, length, width, 0.006, 0.006,
                stagger=0.5 if width < length else 0.0, cell_contrast=self._u(0.05, 0.25), grain=0.15,
            )
        )  # fmt: skip

    def floor(self, *, industrial: bool = False) -> Material:
        """An indoor floor."""
        pick = self._rng.random()
        if industrial:
            return self.concrete() if pick < 0.75 else self.tiles()
        options = (self.tiles, self.planks, self.planks, self.carpet, self.concrete)
        return options[int(pick * len(options))]()

    def wall(self, *, industrial: bool = False) -> Material:
        """An indoor wall."""
        options = (self.plaster, self.plaster, self.plaster, self.brick, self.panels, self.wallpaper_stripes)
        if industrial:
            options = (self.plaster, self.brick, self.blocks, self.corrugated, self.corrugated, self.panels)
        return options[self._rng.integers(len(options))]()
