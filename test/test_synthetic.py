"""The renderer: exact depth, metric sizes, reproducible data."""

import numpy as np
import pytest

from depthlm_ros.synthetic import (
    Domain,
    Intrinsics,
    Pose,
    build_scene,
    render,
    sample_intrinsics,
    sample_pose,
    sample_view,
    sizes,
    trajectory,
)
from depthlm_ros.synthetic.layouts import KINDS
from depthlm_ros.synthetic.materials import Material, Paints
from depthlm_ros.synthetic.paths import CLEARANCE
from depthlm_ros.synthetic.people import person
from depthlm_ros.synthetic.raycast import cast
from depthlm_ros.synthetic.solids import box, ellipsoid, frustum, tabulate
from depthlm_ros.synthetic.warehouse import pallet

GREY = Material((0.5, 0.5, 0.5))
CAMERA = Intrinsics(112.0, 112.0, 64.0, 48.0, 129, 97)


def depth_of(solid, pose=None):
    return cast(tabulate([solid]), pose or Pose(0, 0, 0), CAMERA).z_depth


def test_a_wall_that_is_faced_has_one_z_depth():
    wall = box(GREY, (0.2, 60, 60), (3.1, 0, -30))
    np.testing.assert_allclose(depth_of(wall), 3.0, rtol=1e-6)


@pytest.mark.parametrize("yaw", [0.0, 0.7, -2.1])
def test_floor_depth_of_a_level_camera_is_height_times_focal_over_row(yaw):
    floor = box(GREY, (900, 900, 0.2), (0, 0, -0.2))
    depth = depth_of(floor, Pose(1, 2, 0.4, yaw))
    rows = np.arange(55, 97)
    expected = np.repeat((0.4 * 112 / (rows - 48))[:, None], CAMERA.width, axis=1)
    np.testing.assert_allclose(depth[55:], expected, rtol=1e-5)
    assert np.isinf(depth[:48]).all()


def test_floor_depth_of_a_pitched_camera():
    floor = box(GREY, (900, 900, 0.2), (0, 0, -0.2))
    pitch = np.radians(20)
    depth = depth_of(floor, Pose(0, 0, 0.4, 0.3, pitch))
    slope = (np.arange(97) - 48) / 112
    expected = 0.4 / (np.sin(pitch) + slope * np.cos(pitch))
    np.testing.assert_allclose(depth[20:, 10], expected[20:], rtol=1e-5)


def test_positive_roll_lowers_the_right_side():
    floor = box(GREY, (900, 900, 0.2), (0, 0, -0.2))
    depth = depth_of(floor, Pose(0, 0, 0.4, 0, 0.3, 0.1))
    assert depth[90, 120] < depth[90, 8]


def test_sphere_cylinder_and_cone_on_the_axis():
    sphere = ellipsoid(GREY, (0.5, 0.5, 0.5), (4, 0, 0))
    cylinder = frustum(GREY, 0.3, 2.0, (4, 0, -1))
    cone = frustum(GREY, 0.4, 2.0, (4, 0, -1), top_radius=0.0)
    assert depth_of(sphere)[48, 64] == pytest.approx(3.5, rel=1e-6)
    assert depth_of(cylinder)[48, 64] == pytest.approx(3.7, rel=1e-6)
    assert depth_of(cone)[48, 64] == pytest.approx(3.8, rel=1e-6)


def test_every_hit_of_a_sphere_lies_on_it():
    depth = depth_of(ellipsoid(GREY, (0.5, 0.5, 0.5), (3, 0.2, 0.1)))
    v, u = np.nonzero(np.isfinite(depth))
    z = depth[v, u]
    x, y = (u - 64) / 112 * z, (v - 48) / 112 * z
    # Optical (right, down, forward) is world (-y, -z, x) for this camera.
    np.testing.assert_allclose(np.sqrt((z - 3) ** 2 + (x + 0.2) ** 2 + (y + 0.1) ** 2), 0.5, atol=2e-4)
    assert len(v) > 800


def test_top_cap_of_a_cylinder_is_seen_from_above():
    cylinder = frustum(GREY, 0.5, 1.0, (0, 0, 0))
    depth = depth_of(cylinder, Pose(0, 0, 3.0, 0, np.pi / 2))
    assert depth[48, 64] == pytest.approx(2.0, rel=1e-6)


def test_turned_box_is_hit_at_its_edge():
    depth = depth_of(box(GREY, (1, 1, 1), (3, 0, -0.5), yaw=np.pi / 4))
    assert depth[48, 64] == pytest.approx(3 - np.sqrt(0.5), rel=1e-5)


def test_nearest_solid_wins_whatever_the_order():
    near, far = box(GREY, (0.2, 1, 1), (2.1, 0, -0.5)), box(GREY, (0.2, 9, 9), (5.1, 0, -4.5))
    for solids in ([near, far], [far, near]):
        depth = cast(tabulate(solids), Pose(0, 0, 0), CAMERA).z_depth
        assert depth[48, 64] == pytest.approx(2.0)
        assert depth[5, 5] == pytest.approx(5.0)


def test_range_is_z_depth_along_the_ray():
    view = sample_view(3, Domain.ROBOT, intrinsics=CAMERA)
    slope_x, slope_y = (np.arange(129) - 64) / 112, (np.arange(97)[:, None] - 48) / 112
    np.testing.assert_allclose(view.range_, view.z_depth * np.sqrt(1 + slope_x**2 + slope_y**2), rtol=1e-5)
    assert view.range_.dtype == view.z_depth.dtype == np.float32


@pytest.mark.parametrize("domain", Domain)
def test_same_seed_same_bytes(domain):
    first, second = (sample_view(11, domain, focal_px=112) for _ in range(2))
    assert first.rgb.tobytes() == second.rgb.tobytes()
    assert first.z_depth.tobytes() == second.z_depth.tobytes()
    assert first.rgb.tobytes() != sample_view(12, domain, focal_px=112).rgb.tobytes()


def test_scene_looks_the_same_but_for_sensor_noise():
    scene = build_scene(np.random.default_rng(1), Domain.ROBOT, "room")
    pose = sample_pose(np.random.default_rng(2), scene, Domain.ROBOT)
    first, second = (render(scene, pose, CAMERA, np.random.default_rng(seed)) for seed in (3, 4))
    assert abs(first.rgb.astype(int) - second.rgb).mean() < 8
    assert first.z_depth.tobytes() == second.z_depth.tobytes()


def test_supersampling_leaves_depth_alone():
    once, twice = (sample_view(5, Domain.ROBOT, intrinsics=CAMERA, supersample=s) for s in (1, 2))
    assert once.z_depth.tobytes() == twice.z_depth.tobytes()
    assert abs(once.rgb.astype(int) - twice.rgb).mean() < 12


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_scene_renders(kind):
    rng = np.random.default_rng(7)
    scene = build_scene(rng, Domain.WIDE, kind)
    view = render(scene, sample_pose(rng, scene, Domain.WIDE), CAMERA, rng)
    assert view.kind == kind
    assert view.rgb.shape == (97, 129, 3)
    assert np.isfinite(view.z_depth).any()
    assert (kind == "yard") == np.isinf(scene.height)
    if kind != "yard":
        assert np.isfinite(view.z_depth).all()


def test_unknown_kind_is_named():
    with pytest.raises(ValueError, match="castle"):
        build_scene(np.random.default_rng(0), Domain.ROBOT, "castle")


def test_robot_domain_is_low_level_and_indoors():
    for seed in range(12):
        view = sample_view(seed, Domain.ROBOT, focal_px=112)
        assert 0.3 <= view.pose.z <= 0.5
        assert np.radians(-5) <= view.pose.pitch <= np.radians(10)
        assert view.kind != "yard"
        assert view.z_depth.min() > 0.05


def test_wide_domain_spreads_over_heights_and_goes_outdoors():
    views = [sample_view(seed, Domain.WIDE, focal_px=112) for seed in range(40)]
    heights = [view.pose.z for view in views]
    assert min(heights) >= 0.25
    assert max(heights) <= 1.8
    assert np.ptp(heights) > 0.8
    assert {"yard", "room"} <= {view.kind for view in views}


def test_canonical_intrinsics_have_sizes_a_patch_grid_likes():
    rng = np.random.default_rng(0)
    cameras = [sample_intrinsics(rng, Domain.ROBOT, focal_px=112.0) for _ in range(200)]
    assert all(camera.fx == camera.fy == 112.0 for camera in cameras)
    assert all(camera.width % 16 == camera.height % 16 == 0 for camera in cameras)
    assert all(96 <= camera.width <= 208 and 64 <= camera.height <= 144 for camera in cameras)
    assert len({(camera.width, camera.height) for camera in cameras}) > 8


def test_intrinsics_refuse_nonsense():
    with pytest.raises(ValueError, match="positive"):
        Intrinsics(0.0, 100.0, 50, 50, 100, 100)


def highest(assembly):
    return tabulate(assembly.solids).corners()[..., 2].max()


def test_people_are_as_tall_as_people():
    for seed in range(20):
        rng = np.random.default_rng(seed)
        assert (
            sizes.BODY_HEIGHT.low - 0.01 <= highest(person(rng, Paints(rng))) <= sizes.BODY_HEIGHT.high + 0.01
        )


def test_pallets_are_eur_pallets():
    rng = np.random.default_rng(1)
    deck = pallet(rng, Paints(rng)).solids[0]
    assert (2 * deck.half[0], 2 * deck.half[1]) == pytest.approx((1.2, 0.8))
    assert deck.centre[2] + deck.half[2] == pytest.approx(0.144)


@pytest.mark.parametrize("kind", KINDS)
def test_footprints_cover_what_stands_on_the_floor(kind):
    scene = build_scene(np.random.default_rng(5), Domain.WIDE, kind)
    assert scene.footprints
    centres = np.array([(f.x, f.y) for f in scene.footprints])
    assert (scene.clearance(centres[:, 0], centres[:, 1]) < 0).all()


@pytest.mark.parametrize(("kind", "seed"), [("room", 0), ("hall", 1), ("corridor", 2)])
def test_trajectory_is_smooth_and_touches_nothing(kind, seed):
    rng = np.random.default_rng(seed)
    scene = build_scene(rng, Domain.ROBOT, kind)
    poses = trajectory(rng, scene, Domain.ROBOT, frames=150, rate=10.0)
    assert len(poses) == 150
    x, y, yaw = (np.array([getattr(pose, name) for pose in poses]) for name in ("x", "y", "yaw"))
    assert (scene.clearance(x, y) > CLEARANCE - 1e-9).all()
    assert np.hypot(np.diff(x), np.diff(y)).max() <= 0.051
    assert np.abs(np.diff(yaw)).max() <= 0.071
    assert np.hypot(np.diff(x), np.diff(y)).sum() > 1.0


def test_trajectory_refuses_zero_frames():
    scene = build_scene(np.random.default_rng(0), Domain.ROBOT, "room")
    with pytest.raises(ValueError, match="frames=0"):
        trajectory(np.random.default_rng(0), scene, Domain.ROBOT, frames=0, rate=10)
