"""Depth edges, planes and static scenes, on shapes whose answer is known."""

import math
from pathlib import Path

import numpy as np
import pytest

from depthlm_ros.camera import PinholeCamera
from depthlm_ros.engines.fake import FakeEngine
from depthlm_ros.estimator import DepthEstimator
from depthlm_ros.evaluation.benchmark import BenchmarkError, LabelledImage
from depthlm_ros.evaluation.dense import ask_dense, read_dense
from depthlm_ros.evaluation.edges import EdgeAnswers, boundary_figures, choose_edge_pairs
from depthlm_ros.evaluation.jitter import jitter_figures
from depthlm_ros.evaluation.planes import (
    PLANE_TOLERANCE_M,
    find_plane,
    fitted_plane,
    plane_answers,
    plane_figures,
)
from depthlm_ros.geometry import rays
from depthlm_ros.profile import CheckpointProfile

CAMERA = PinholeCamera.from_intrinsics(100.0, 100.0, 39.5, 29.5, 80, 60)
EVERYWHERE = np.ones((60, 80), np.bool_)


def rng():
    return np.random.default_rng(0)


def box_before_a_wall(near=2.0, far=4.0):
    """A wall with a box before it: columns 30 to 49, rows 20 to 39."""
    z = np.full((60, 80), far, np.float32)
    z[20:40, 30:50] = near
    return z


@pytest.mark.parametrize("offset", [1, 3, 4])
def test_pairs_lie_on_both_sides_of_the_edge(offset):
    z = box_before_a_wall()
    pairs = choose_edge_pairs(z, EVERYWHERE, offset, 10_000, rng())
    across = {(u, v, u + step, v) for v in range(20, 40) for u, step in _edges(offset, 30, 50)}
    down = {(u, v, u, v + step) for u in range(30, 50) for v, step in _edges(offset, 20, 40)}
    # Rows and columns are smooth enough only where no other edge is: a side is 2 offset - 1 pixels of its own line.
    got = {(*n, *f) for n, f in zip(pairs.near.tolist(), pairs.far.tolist(), strict=True)}
    assert got == across | down
    assert (z[pairs.near[:, 1], pairs.near[:, 0]] == 2.0).all()
    assert (z[pairs.far[:, 1], pairs.far[:, 0]] == 4.0).all()


def _edges(offset, first, end):
    """Near places and the step to their far partners, along a line whose near part is first to end - 1."""
    gap = 2 * offset - 1
    return [(first + offset - 1, -gap), (end - offset, gap)]


def test_the_choice_is_seeded_and_keeps_to_what_can_be_asked():
    z = box_before_a_wall()
    first, again = (choose_edge_pairs(z, EVERYWHERE, 3, 8, rng()) for _ in range(2))
    assert len(first.near) == 8
    assert (first.near == again.near).all()
    assert (first.far == again.far).all()
    askable = EVERYWHERE.copy()
    askable[:, :40] = False
    some = choose_edge_pairs(z, askable, 3, 10_000, rng())
    assert len(some.near) > 0
    assert askable[some.near[:, 1], some.near[:, 0]].all()
    assert askable[some.far[:, 1], some.far[:, 0]].all()


def test_no_pair_where_there_is_no_step_no_surface_or_no_room():
    ramp = np.broadcast_to(np.linspace(2.0, 8.0, 80, dtype=np.float32), (60, 80))
    sky = np.where(np.arange(80) < 40, 2.0, math.inf) * np.ones((60, 1))
    small_step = box_before_a_wall(2.0, 2.4)
    thin = np.full((60, 80), 4.0)
    thin[:, 40:44] = 2.0
    for z in (ramp, sky, small_step, thin, np.full((60, 80), np.nan), np.full((2, 3), 1.0)):
        askable = np.ones(z.shape, np.bool_)
        assert len(choose_edge_pairs(z, askable, 3, 100, rng()).near) == 0


def edge(near, far, near_answer, far_answer):
    return EdgeAnswers(*(np.array(x, dtype=np.float64) for x in (near, far, near_answer, far_answer)))


def test_boundary_figures_by_hand():
    # Gaps of 2 to 4 m: from 2.5 to 3.2 m an answer belongs to neither surface. From 2 to 3 m there is none.
    nan = math.nan
    first = edge([2, 2, 2], [4, 4, 4], [2.1, 2.5, 4.0], [4.2, 4.0, 2.0])  # right; near one flies; swapped
    second = edge(
        [2, 2, 2], [4, 3, 4], [3.0, 2.6, nan], [3.0, 2.7, 4.0]
    )  # tied and flying; no gap; half answered
    got = boundary_figures([first, second])
    assert got["pairs"] == 6
    assert got["accuracy"] == pytest.approx(1 / 6)
    assert got["order"] == pytest.approx(3 / 6)
    assert got["tied"] == pytest.approx(1 / 6)
    # 2 x 5 pairs with a gap, less the missing answer: nine answers, of which 2.5, 3.0 and 3.0 lie in it.
    assert got["flying_n"] == 9
    assert got["flying_points"] == pytest.approx(3 / 9)
    # far / near: 2.0, 1.6, 0.5, 1.0, 1.038, none. No threshold is below 1.05: two pairs are found at all of them.
    assert got["recall"] == pytest.approx(2 / 6)
    low, high = got["accuracy_interval95"]
    assert (low, high) == (0.0, pytest.approx(1 / 3))


def test_recall_weighs_thresholds_as_depth_pro_does():
    # 1.15 exceeds the first of ten thresholds from 1.05 to 1.25 in steps of 0.2 / 9 only up to 1.139.
    thresholds = [1.05 + 0.2 * k / 9 for k in range(10)]
    expected = sum(t for t in thresholds if t < 1.15) / sum(thresholds)
    assert boundary_figures([edge([2.0], [4.0], [2.0], [2.3])])["recall"] == pytest.approx(expected)


def test_no_edges_are_no_figures():
    got = boundary_figures([edge([], [], [], [])])
    assert (got["pairs"], got["flying_n"]) == (0, 0)
    assert {got[k] for k in ("accuracy", "order", "tied", "recall", "flying_points")} == {None}


def plane_depth(normal, distance, camera=CAMERA):
    """Exact z-depth of the plane n . P = distance in every pixel."""
    grid = np.stack(np.meshgrid(np.arange(camera.width), np.arange(camera.height)), axis=-1)
    return distance / (rays(grid, camera) @ np.asarray(normal, dtype=np.float64))


def test_the_largest_flat_region_is_found():
    floor = plane_depth([0.0, 1.0, 0.05], 0.4)
    wall = np.full((60, 80), 3.0)
    z = np.where((floor > 0) & (floor < wall), floor, wall)
    on_wall = z == 3.0
    region = find_plane(z.astype(np.float32), CAMERA, rng())
    # Within the tolerance the larger one reaches a little into the smaller one at the corner.
    assert (region & on_wall).sum() > 0.98 * on_wall.sum()
    assert np.abs(z[region] - 3.0).max() <= 2 * PLANE_TOLERANCE_M


def test_curved_empty_and_small_surfaces_are_no_planes():
    grid = np.stack(np.meshgrid(np.arange(80), np.arange(60)), axis=-1)
    # A ball of 0.5 m around a point 2 m ahead: |t ray - centre| = 0.5 solved for the nearer t, nothing beside it.
    along = rays(grid, CAMERA)
    square, half = (along**2).sum(axis=-1), 2.0 * along[..., 2]
    inside = half**2 - square * (4.0 - 0.25)
    ball = np.where(inside > 0.0, (half - np.sqrt(np.abs(inside))) / square, math.inf)
    assert np.isfinite(ball).mean() > 0.3
    assert find_plane(ball, CAMERA, rng()) is None
    assert find_plane(np.full((60, 80), math.inf), CAMERA, rng()) is None
    small = np.full((60, 80), math.inf)
    small[20:31, 20:31] = 3.0
    assert find_plane(small, CAMERA, rng()) is None  # 121 pixels: 2.5 % of the picture
    small[10:40, 20:60] = 3.0
    assert find_plane(small, CAMERA, rng()).sum() == 30 * 40


def test_a_plane_fits_its_points():
    normal = np.array([0.6, 0.0, 0.8])
    a, b = np.array([0.8, 0.0, -0.6]), np.array([0.0, 1.0, 0.0])
    points = 2.0 * normal + rng().normal(size=(50, 2)) @ np.stack([a, b])
    got, centre = fitted_plane(points)
    assert abs(got @ normal) == pytest.approx(1.0)
    assert centre @ normal == pytest.approx(2.0)


def test_flatness_by_hand():
    xy = np.array([[x, y] for x in (-1.0, 0.0, 1.0) for y in (-1.0, 1.0)])
    truth = np.column_stack([xy, np.full(6, 2.0)])
    scaled = plane_answers(truth, 1.5 * truth)
    assert scaled.flatness_m == pytest.approx(0.0, abs=1e-9)
    assert scaled.tilt_deg == pytest.approx(0.0, abs=1e-5)
    assert scaled.distance_m == pytest.approx(np.mean([math.sqrt(x * x + y * y + 4.0) for x, y in xy]))
    # A bend that no plane follows: the middle pair up, the outer ones down by half of it.
    bent = truth + np.array([0.0, 0.0, 0.01]) * np.array([-1, -1, 2, 2, -1, -1])[:, None]
    assert plane_answers(truth, bent).flatness_m == pytest.approx(math.sqrt((4 * 0.01**2 + 2 * 0.02**2) / 3))
    tilted = truth + np.array([0.0, 0.0, 1.0]) * xy[:, :1]
    assert plane_answers(truth, tilted).tilt_deg == pytest.approx(45.0)
    assert plane_answers(truth, np.where(np.arange(6)[:, None] == 2, np.nan, truth)) is None
    figures = plane_figures([scaled, plane_answers(truth, tilted)])
    assert (figures["planes"], figures["tilt_deg"]) == (2, pytest.approx(22.5, abs=1e-5))
    assert plane_figures([])["flatness"] is None


def sample(static, pixels, depth):
    return LabelledImage(
        "a", Path("a"), (100, 100, 40, 30, 80, 60), np.array(pixels), np.array(depth), 0, None, static
    )


def test_jitter_is_the_spread_of_the_scales():
    pixels, z = [[10, 10], [20, 10], [30, 10]], [1.0, 2.0, 4.0]
    still = [sample("a", pixels, z)] * 2
    # One picture twice as far as the other: scales log 1 and log 2, their standard deviation log 2 / sqrt 2.
    got = jitter_figures(still, [np.array(z), 2.0 * np.array(z)])
    assert got["scale_jitter"] == pytest.approx(math.log(2) / math.sqrt(2))
    assert got["point_jitter"] == pytest.approx(math.log(2) / math.sqrt(2))
    assert (got["sets"], got["pictures"], got["sets_left_out"]) == (1, 2, 0)
    # A common factor is no jitter.
    assert jitter_figures(still, [3.0 * np.array(z)] * 2)["scale_jitter"] == 0.0


def test_jitter_needs_common_answers():
    pixels, z = [[10, 10], [20, 10], [30, 10]], [1.0, 2.0, 4.0]
    missing = np.array([1.0, math.nan, 4.0])
    got = jitter_figures(
        [sample("a", pixels, z), sample("a", pixels, z), sample("b", pixels, z), sample(None, pixels, z)],
        [missing, np.array(z), np.array(z), np.array(z)],
    )
    assert (got["sets"], got["sets_left_out"], got["scale_jitter"], got["point_jitter"]) == (0, 2, None, None)


def dense_file(path, **arrays):
    np.savez(path, **arrays)
    return path


def test_dense_truth_that_does_not_fit_is_refused(tmp_path):
    label = sample(None, [[40, 30]], [2.0])
    good = box_before_a_wall()
    assert (read_dense(dense_file(tmp_path / "good.npz", z_depth=good), label) == good).all()
    (tmp_path / "torn.npz").write_bytes(b"PK\x03\x04 torn")
    for name, arrays in (
        ("size.npz", {"z_depth": good[:-1]}),
        ("key.npz", {"depth": good}),
        ("type.npz", {"z_depth": good.astype(np.int32)}),
        ("object.npz", {"z_depth": np.full((60, 80), None)}),
    ):
        with pytest.raises(BenchmarkError, match=r"z_depth"):
            read_dense(dense_file(tmp_path / name, **arrays), label)
    for name in ("torn.npz", "absent.npz"):
        with pytest.raises(BenchmarkError, match=name):
            read_dense(tmp_path / name, label)


def test_a_model_that_knows_the_truth_has_sharp_edges_and_flat_planes(tmp_path):
    z = box_before_a_wall()
    path = dense_file(tmp_path / "z.npz", z_depth=z)

    def truth(prompt):
        # The arrow's tip is one column left of the canonical pixel; the view is the source image here.
        x, y = prompt.images[0].paint.xy[4]
        return f" {z[y, x + 1]:.2f} meters"

    def asked(script):
        with FakeEngine(script) as engine:
            estimator = DepthEstimator(engine, CheckpointProfile("test", 100.0))
            frame = estimator.prepare(np.zeros((60, 80, 3), np.uint8), CAMERA)
            return ask_dense(estimator, frame, sample(None, [[40, 30]], [2.0]), path, 40)

    right = asked(truth)
    assert len(right.pixels) == 40
    assert right.kinds.count("edge_near") == right.kinds.count("edge_far") == 10
    assert boundary_figures([right.edges])["accuracy"] == 1.0
    assert boundary_figures([right.edges])["flying_points"] == 0.0
    assert right.plane.flatness_m == pytest.approx(0.0, abs=1e-6)
    assert right.plane.points == 20
    between = asked(lambda _: " 2.80 meters")
    assert (between.pixels == right.pixels).all()
    figures = boundary_figures([between.edges])
    assert (figures["accuracy"], figures["tied"], figures["flying_points"]) == (0.0, 1.0, 1.0)
