"""A small model of what Nav2 does with a cloud, after the rules of ``test/data/nav2_facts.json``; it is not Nav2.

Points are in the global frame: x forward, y left, z up, metres; times in seconds. Each step names its rule.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Observation:
    points: np.ndarray
    origin: np.ndarray
    stamp: float


@dataclass
class Buffer:
    """``nav2_costmap_2d::ObservationBuffer`` of one source."""

    source: dict[str, Any]
    updated: float = 0.0  # current_at_start
    kept: list[Observation] = field(default_factory=list)

    def take(self, points: np.ndarray, origin: np.ndarray, stamp: float, now: float) -> None:
        low, high = self.source["min_obstacle_height"], self.source["max_obstacle_height"]
        points = np.asarray(points, float).reshape(-1, 3)
        inside = (points[:, 2] >= low) & (points[:, 2] <= high)  # height_both
        self.kept.insert(0, Observation(points[inside], np.asarray(origin, float), stamp))
        self.updated = now

    def observations(self, now: float) -> list[Observation]:
        keep = self.source["observation_persistence"]
        # newest_kept
        self.kept = self.kept[:1] if keep == 0.0 else [o for o in self.kept if now - o.stamp <= keep]
        return self.kept

    def current(self, now: float) -> bool:
        rate = self.source["expected_update_rate"]
        return rate == 0.0 or now - self.updated <= rate  # current


class VoxelLayer:
    """``nav2_costmap_2d::VoxelLayer`` around the origin, with one source."""

    def __init__(self, layer: dict[str, Any], resolution: float, side_m: float) -> None:
        self.layer, self.source = layer, layer[layer["observation_sources"]]
        self.resolution, self.half = resolution, side_m / 2.0
        cells = round(side_m / resolution)
        self.voxels = np.zeros((cells, cells, layer["z_voxels"]), bool)
        self.buffer = Buffer(self.source)

    def _cell(self, point: np.ndarray) -> tuple[int, int, int] | None:
        z = (point[2] - self.layer["origin_z"]) / self.layer["z_resolution"]
        x, y = ((point[:2] + self.half) / self.resolution).tolist()
        index = (int(np.floor(x)), int(np.floor(y)), int(np.floor(z)))
        inside = all(0 <= i < n for i, n in zip(index, self.voxels.shape, strict=True))
        return index if inside else None

    def update(self, now: float) -> None:
        observations = self.buffer.observations(now)
        if self.source["clearing"]:
            for observation in observations:  # order: all clearing first
                self._clear(observation)
        if self.source["marking"]:
            for observation in observations:
                self._mark(observation)

    def _mark(self, observation: Observation) -> None:
        low, high = self.source["obstacle_min_range"], self.source["obstacle_max_range"]
        for point in observation.points:
            if not self.layer["min_obstacle_height"] <= point[2] <= self.layer["max_obstacle_height"]:
                continue  # height_layer
            if not low <= float(np.linalg.norm(point - observation.origin)) < high:
                continue  # range_voxel
            lifted = np.array([point[0], point[1], max(point[2], self.layer["origin_z"])])  # mark_voxel
            cell = self._cell(lifted)
            if cell is not None:
                self.voxels[cell] = True

    def _clear(self, observation: Observation) -> None:
        if self._cell(observation.origin) is None:
            return  # origin_inside
        for point in observation.points:
            ray = point - observation.origin
            length = float(np.linalg.norm(ray))
            direction = ray / length
            reach = min(length - 2 * self.resolution, self.source["raytrace_max_range"])  # ray_voxel
            floor = self.layer["origin_z"] - observation.origin[2]
            if observation.origin[2] + direction[2] * reach < self.layer["origin_z"]:
                reach = floor / direction[2]
            for at in np.arange(self.source["raytrace_min_range"], reach, self.resolution / 4):
                cell = self._cell(observation.origin + at * direction)
                if cell is not None:
                    self.voxels[cell] = False

    def lethal(self, x: float, y: float) -> bool:
        column = self.voxels[int((x + self.half) / self.resolution), int((y + self.half) / self.resolution)]
        return bool(column.sum() > self.layer["mark_threshold"])  # mark_voxel


class StvlLayer:
    """``SpatioTemporalVoxelLayer`` around the origin, with one marking source and linear decay."""

    def __init__(self, layer: dict[str, Any]) -> None:
        self.layer, self.source = layer, layer[layer["observation_sources"]]
        self.voxels: dict[tuple[int, int, int], float] = {}
        self.cells: Counter[tuple[int, int]] = Counter()
        everything = {"min_obstacle_height": -np.inf, "max_obstacle_height": np.inf}
        heights = {} if self.source["filter"] in ("passthrough", "voxel") else everything  # stvl_height
        self.buffer = Buffer({**self.source, **heights})  # stvl_newest

    def update(self, now: float) -> None:
        readings = list(self.buffer.observations(now))
        if self.source["clear_after_reading"]:
            self.buffer.kept = []
        fresh = {
            voxel: t for voxel, t in self.voxels.items() if now - t <= self.layer["voxel_decay"]
        }  # stvl_decay
        self.voxels = fresh
        self.cells = Counter(voxel[:2] for voxel in fresh)  # stvl_order
        for reading in readings:
            for point in reading.points:
                if 0.01 <= float(np.linalg.norm(point - reading.origin)) <= self.source["obstacle_range"]:
                    self.voxels[self._voxel(point)] = now  # stvl_mark

    def _voxel(self, point: np.ndarray) -> tuple[int, int, int]:
        x, y, z = np.floor(point / self.layer["voxel_size"]).astype(int).tolist()
        return x, y, z

    def lethal(self, x: float, y: float) -> bool:
        count = self.cells[self._voxel(np.array([x, y, 0.0]))[:2]]
        return count >= max(self.layer["mark_threshold"], 1)


def monitor_stops(source_timeout: float, stamp: float | None, now: float) -> bool:
    """Whether ``nav2_collision_monitor`` stops the robot for an invalid source (monitor_age, monitor_stop)."""
    return source_timeout != 0.0 and (stamp is None or now - stamp > source_timeout)
