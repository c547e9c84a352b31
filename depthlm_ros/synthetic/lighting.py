"""Draws the light of a scene and the temperament of its camera."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from depthlm_ros.synthetic.materials import Material
from depthlm_ros.synthetic.scene import CameraLook, Lamp, Scene
from depthlm_ros.synthetic.solids import Solid, box

Rng = np.random.Generator
Rgb = tuple[float, float, float]
_DARK_SKY: tuple[Rgb, Rgb] = ((0.0, 0.0, 0.0), (0.0, 0.0, 0.0))


@dataclass(frozen=True)
class Light:
    """Everything that shines."""

    lamps: tuple[Lamp, ...]
    ambient: Rgb
    sky: tuple[Rgb, Rgb]
    fixtures: list[Solid]


def indoor_light(rng: Rng, bounds: tuple[float, float, float, float], height: float) -> Light:
    """A grid of ceiling lamps; those that light the scene are at most four."""
    x_min, x_max, y_min, y_max = bounds
    pitch = max(float(rng.uniform(2.0, 4.0)), height * 0.8)
    count_x = max(1, round((x_max - x_min) / pitch))
    count_y = max(1, round((y_max - y_min) / pitch)) if y_max - y_min > 3 else 1
    warmth = float(rng.uniform(-0.12, 0.12))
    color = (1 + warmth, 1.0, 1 - warmth)
    long = bool(rng.random() < 0.5)
    size = (1.2, 0.2, 0.06) if long else (0.6, 0.6, 0.03)
    glow = Material((0.95, 0.95, 0.93), grain=0.0, emission=float(rng.uniform(1.0, 3.0)))
    spots = [
        (x_min + (i + 0.5) * (x_max - x_min) / count_x, y_min + (j + 0.5) * (y_max - y_min) / count_y)
        for i in range(count_x)
        for j in range(count_y)
    ]
    fixtures = [box(glow, size, (x, y, height - size[2]), casts_shadow=False) for x, y in spots[:48]]
    chosen = rng.permutation(len(spots))[:4]
    strength = float(rng.uniform(0.5, 1.1)) * (height / 2.6) / max(1.0, len(chosen) ** 0.5)
    lamps = tuple(
        Lamp(
            (spots[k][0], spots[k][1], height - 0.2),
            (color[0] * strength, color[1] * strength, color[2] * strength),
        )
        for k in chosen
    )
    level = float(rng.uniform(0.08, 0.4))
    return Light(lamps, (color[0] * level, color[1] * level, color[2] * level), _DARK_SKY, fixtures)


def outdoor_light(rng: Rng) -> Light:
    """Sun and sky, from clear to overcast."""
    overcast = float(rng.uniform(0, 1)) ** 1.3
    bearing, elevation = rng.uniform(0, 2 * np.pi), rng.uniform(0.3, 1.3)
    towards = (
        float(np.cos(bearing) * np.cos(elevation)),
        float(np.sin(bearing) * np.cos(elevation)),
        float(np.sin(elevation)),
    )
    sun = 1.6 * (1 - overcast) + 0.05
    level = 0.3 + 0.4 * overcast
    grey = float(rng.uniform(0.7, 1.1))
    horizon = (0.85 * grey, 0.9 * grey, 1.0 * grey)
    blue = 1 - overcast
    zenith = (grey * (0.8 - 0.55 * blue), grey * (0.84 - 0.4 * blue), grey * (0.9 - 0.05 * blue))
    lamps = (Lamp(towards, (sun, sun * 0.95, sun * 0.85), distant=True),)
    return Light(lamps, (level * 0.95, level, level * 1.08), (horizon, zenith), [])


def draw_look(rng: Rng) -> CameraLook:
    """Exposure, white balance, lens and noise of one camera."""
    warmth, tint = rng.normal(0, 0.06), rng.normal(0, 0.025)
    return CameraLook(
        white_balance=(float(1 + warmth), float(1 + tint), float(1 - warmth)),
        target_brightness=float(np.exp(rng.normal(np.log(0.3), 0.25))),
        contrast=float(rng.uniform(1.0, 1.5)),
        vignetting=float(rng.uniform(0, 0.35)),
        blur_px=float(rng.uniform(0.35, 0.65)),
        noise=float(np.clip(np.exp(rng.normal(0.5, 0.7)), 0.4, 8.0)),
    )


# How much successive pictures of one scene differ (standard deviations, as a share): our estimate, no measurement.
_LAMP_FLICKER, _AMBIENT_FLICKER, _EXPOSURE_HUNT, _WHITE_BALANCE_HUNT = 0.04, 0.02, 0.06, 0.01


def flicker(scene: Scene, rng: Rng) -> Scene:
    """The same scene a moment later: lamps and sky waver, automatic exposure and white balance hunt."""
    lamps = tuple(
        replace(lamp, color=_scaled(lamp.color, np.repeat(_about_one(rng, _LAMP_FLICKER), 3)))
        for lamp in scene.lamps
    )
    look = replace(
        scene.look,
        target_brightness=scene.look.target_brightness * float(_about_one(rng, _EXPOSURE_HUNT)[0]),
        white_balance=_scaled(scene.look.white_balance, _about_one(rng, _WHITE_BALANCE_HUNT, 3)),
    )
    ambient = _scaled(scene.ambient, np.repeat(_about_one(rng, _AMBIENT_FLICKER), 3))
    return replace(scene, lamps=lamps, ambient=ambient, look=look)


def _about_one(rng: Rng, deviation: float, count: int = 1) -> npt.NDArray[np.float64]:
    factors: npt.NDArray[np.float64] = np.exp(rng.normal(0.0, deviation, count))
    return factors


def _scaled(color: Rgb, factors: npt.NDArray[np.float64]) -> Rgb:
    red, green, blue = (float(channel * factor) for channel, factor in zip(color, factors, strict=True))
    return red, green, blue
