"""Undistortion against OpenCV's own projection, and what a camera refuses."""

import math

import cv2
import numpy as np
import pytest

from depthlm_ros.camera import CameraError, PinholeCamera

K = np.array([[400.0, 0.0, 322.0], [0.0, 410.0, 238.0], [0.0, 0.0, 1.0]])
P = np.array([[380.0, 0.0, 318.0, 0.0], [0.0, 380.0, 242.0, 0.0], [0.0, 0.0, 1.0, 0.0]])
NO_P = np.zeros((3, 4))
D4 = [0.1, 0.0, 0.0, 0.0]
R = cv2.Rodrigues(np.array([0.02, -0.03, 0.01]))[0]

DISTORTIONS = {
    "plumb_bob": [-0.25, 0.08, 0.001, -0.002, -0.01],
    "rational_polynomial": [0.3, -0.1, 0.0005, -0.0003, 0.01, 0.55, -0.12, 0.02],
    "equidistant": [0.02, -0.01, 0.004, -0.001],
}

POINTS = np.array(
    [(x, y, z) for z, x0, y0 in [(2.0, 1.0, 0.7)] for x in (-x0, 0.1, x0) for y in (-y0, 0.05, y0)]
)
"""Points in front of the raw camera, metres."""


def camera(model="plumb_bob", d=None, **changes) -> PinholeCamera:
    values = {
        "width": 640,
        "height": 480,
        "k": K,
        "d": DISTORTIONS[model] if d is None else d,
        "model": model,
    }
    return PinholeCamera(**{**values, "r": np.eye(3), "p": NO_P, **changes})


def project_raw(points, model, d):
    zero = np.zeros(3)
    if model == "equidistant":
        uv, _ = cv2.fisheye.projectPoints(points[:, None], zero, zero, K, np.asarray(d))
    else:
        uv, _ = cv2.projectPoints(points, zero, zero, K, np.asarray(d))
    return uv.reshape(-1, 2)


def spots(centres, width=640, height=480):
    """An image with a soft spot centred on each sub-pixel position."""
    v, u = np.mgrid[:height, :width]
    image = np.zeros((height, width))
    for x, y in centres:
        image += 255.0 * np.exp(-((u - x) ** 2 + (v - y) ** 2) / (2 * 2.0**2))
    return np.repeat(np.rint(image).clip(0, 255).astype(np.uint8)[..., None], 3, axis=2)


def centroid(image, near):
    u0, v0 = np.rint(near).astype(int) - 10
    patch = image[v0 : v0 + 21, u0 : u0 + 21, 0].astype(float)
    assert patch.shape == (21, 21)
    assert patch.sum() > 1000.0, f"nothing near {near}"
    v, u = np.mgrid[v0 : v0 + 21, u0 : u0 + 21]
    return np.array([(patch * u).sum(), (patch * v).sum()]) / patch.sum()


@pytest.mark.parametrize("model", DISTORTIONS)
@pytest.mark.parametrize("with_p", [True, False], ids=["R and P", "K only"])
def test_a_point_of_the_raw_image_appears_where_p_projects_it(model, with_p):
    rotation, projection = (R, P) if with_p else (np.eye(3), np.hstack([K, np.zeros((3, 1))]))
    cam = camera(model, r=rotation if with_p else np.zeros((3, 3)), p=P if with_p else NO_P)
    raw_uv = project_raw(POINTS, model, DISTORTIONS[model])
    rectified = cam.rectify(spots(raw_uv))
    h = (rotation @ POINTS.T).T @ projection[:, :3].T
    expected = h[:, :2] / h[:, 2:]
    assert np.abs(expected - raw_uv).max() > 4.0  # or undistortion would have nothing to do
    for where in expected:
        assert centroid(rectified, where) == pytest.approx(where, abs=0.15)
    assert (cam.fx, cam.fy, cam.cx, cam.cy) == tuple(projection[[0, 1, 0, 1], [0, 1, 2, 2]])


def test_a_fisheye_without_higher_terms_still_bends_lines():
    # r = f theta: at 45 degrees the raw pixel is f pi/4 from the centre, the rectified one f tan 45 = f.
    f, c = 200.0, 320.0
    k = np.array([[f, 0, c], [0, f, 240.0], [0, 0, 1]])
    cam = camera("equidistant", d=np.zeros(4), k=k)
    raw = spots([(c + f * math.pi / 4, 240.0)])
    assert centroid(cam.rectify(raw), (c + f, 240.0)) == pytest.approx((c + f, 240.0), abs=0.3)


def test_a_projection_with_another_centre_shifts_the_image_and_says_what_is_not_seen():
    p = np.hstack([K, np.zeros((3, 1))])
    p[0, 2] += 10.0
    cam = camera(d=[], p=p)
    image = np.random.default_rng(1).integers(1, 256, (480, 640, 3), dtype=np.uint8)
    rectified = cam.rectify(image)
    np.testing.assert_array_equal(rectified[:, 10:], image[:, :-10])
    assert not rectified[:, :9].any()
    assert cam.visible([(9, 100), (10, 100), (639, 479), (640, 100), (20, -1)]).tolist() == [
        False, True, True, False, False,
    ]  # fmt: skip


def test_what_undistortion_leaves_black_is_not_visible():
    cam = camera(d=[0.3, 0.0, 0.0, 0.0, 0.0])  # pincushion: the corners of the result come from outside
    white = np.full((480, 640, 3), 255, dtype=np.uint8)
    full = (cam.rectify(white) == 255).all(axis=2)
    v, u = np.mgrid[:480, :640]
    visible = cam.visible(np.stack([u, v], axis=-1))
    assert visible.shape == (480, 640)
    assert full[visible].all()
    assert not visible[0, 0]
    assert visible[240, 320]
    assert 0.3 < visible.mean() < 0.98
    assert (full & ~visible).mean() < 0.005  # remap rounds to 1/32 px at the border


def test_a_rectified_image_is_taken_as_it_is_and_means_p():
    cam = camera(r=R, p=P, rectified=True)
    image = np.zeros((480, 640, 3), dtype=np.uint8)
    assert cam.rectify(image) is image
    assert (cam.fx, cam.fy, cam.cx, cam.cy) == (380.0, 380.0, 318.0, 242.0)
    assert cam.visible([(0, 0), (639, 479)]).all()


def test_a_rectified_image_needs_only_p():
    cam = camera(k=np.zeros((3, 3)), p=P, rectified=True)
    assert cam.fx == 380.0


def test_the_distortion_of_a_rectified_image_is_nobodys_business():
    assert camera("plumb_bob", d=[1.0, 2.0], rectified=True).fx == 400.0
    assert camera(model="double_sphere", d=[0.1], rectified=True).fx == 400.0


@pytest.mark.parametrize("model", ["plumb_bob", "rational_polynomial", ""])
def test_without_distortion_nothing_is_resampled(model, monkeypatch):
    monkeypatch.setattr(cv2, "remap", lambda *_: pytest.fail("resampled"))
    image = np.zeros((480, 640, 3), dtype=np.uint8)
    for d in ([], [0.0] * 5):
        assert camera(model, d=d).rectify(image) is image


@pytest.mark.parametrize("model", ["plumb_bob", "rational_polynomial", ""])
@pytest.mark.parametrize("zeros", range(16))
def test_zeros_of_any_number_are_no_distortion_also_where_p_is_not_k(model, zeros):
    image = np.random.default_rng(1).integers(0, 256, (480, 640, 3), dtype=np.uint8)
    got = camera(model, d=[0.0] * zeros, p=P)
    np.testing.assert_array_equal(got.rectify(image), camera(model, d=[], p=P).rectify(image))
    assert got.d.size == 0
    assert camera("equidistant", d=[0.0] * 4, p=P).d.size == 4  # there, zeros bend lines too


@pytest.mark.parametrize("function", ["initUndistortRectifyMap", "remap"])
def test_what_opencv_refuses_is_a_camera_error(monkeypatch, function):
    def refuse(*_):
        raise cv2.error("assertion failed")

    monkeypatch.setattr(cv2, function, refuse)
    with pytest.raises(CameraError, match=r"cannot be rectified.*assertion failed.*calibrat"):
        camera().rectify(np.zeros((480, 640, 3), dtype=np.uint8))


def test_the_maps_are_made_once(monkeypatch):
    made, used = [], []
    make, use = cv2.initUndistortRectifyMap, cv2.remap
    monkeypatch.setattr(cv2, "initUndistortRectifyMap", lambda *a: made.append(1) or make(*a))
    monkeypatch.setattr(cv2, "remap", lambda *a: used.append(1) or use(*a))
    cam = camera()
    for _ in range(3):
        cam.rectify(np.zeros((480, 640, 3), dtype=np.uint8))
        cam.visible([(1, 1)])
    assert (len(made), len(used)) == (1, 3)


def test_an_image_of_another_size_is_refused_before_any_map_is_made(monkeypatch):
    monkeypatch.setattr(cv2, "initUndistortRectifyMap", lambda *_: pytest.fail("made maps"))
    cam = camera(width=32767, height=32767, k=K * [[50], [50], [1]])
    with pytest.raises(CameraError, match=r"image is 640x480 .* 32767x32767"):
        cam.rectify(np.zeros((480, 640, 3), dtype=np.uint8))


def changed(matrix, row, column, value):
    out = np.array(matrix, dtype=float)
    out[row, column] = value
    return out


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"k": changed(K, 0, 0, 0.0)}, "fx must be above 0"),
        ({"k": changed(K, 1, 1, 0.0)}, "fy must be above 0"),
        ({"k": changed(K, 0, 0, -400.0)}, "fx must be above 0"),
        ({"k": changed(K, 0, 0, math.nan)}, "K: expected finite"),
        ({"k": changed(K, 0, 2, math.inf)}, "K: expected finite"),
        ({"k": changed(K, 0, 0, 1.0)}, "fx = 1 px is absurd"),
        ({"k": changed(K, 0, 0, 1e7)}, r"fx = 1e\+07 px is absurd"),
        ({"k": changed(K, 0, 2, 1e5)}, r"cx = 100000 px lies far outside"),
        ({"k": changed(K, 1, 2, -1e5)}, r"cy = -100000 px lies far outside"),
        ({"k": changed(K, 2, 2, 0.0)}, "K: expected a last row"),
        ({"k": np.zeros((3, 3))}, "K: fx must be above 0"),
        ({"k": np.zeros(8)}, "K: expected 9 numbers, got 8"),
        ({"p": changed(P, 0, 0, 0.0)}, "P: fx must be above 0"),
        ({"p": changed(P, 1, 1, -1.0)}, "P: fy must be above 0"),
        ({"p": changed(P, 0, 3, math.nan)}, "P: expected finite"),
        ({"p": np.zeros(9)}, "P: expected 12 numbers"),
        ({"r": 2.0 * np.eye(3)}, "R: expected a rotation"),
        ({"r": changed(np.eye(3), 0, 0, math.nan)}, "R: expected finite"),
        ({"d": [math.nan, 0, 0, 0, 0]}, "D: expected finite"),
        ({"d": [1e9, 0, 0, 0, 0]}, "D: absurd"),
        ({"d": [0.1, 0.2, 0.3]}, "'plumb_bob' takes 0 or 4 or 5 coefficients, got 3"),
        ({"model": "equidistant", "d": []}, "'equidistant' takes 4 coefficients, got 0"),
        ({"model": "", "d": [0.1, 0, 0, 0, 0]}, "takes 0 coefficients"),
        ({"model": "double_sphere", "d": D4}, "'double_sphere' is not one of.*image_kind"),
        ({"width": 0}, "width: expected 1 to"),
        ({"width": -640}, "width: expected 1 to"),
        ({"height": 10**9}, "height: expected 1 to"),
        ({"height": 2**32}, "height: expected 1 to"),
        ({"width": 640.5}, "width: expected 1 to"),
        ({"width": math.nan}, "width: expected 1 to"),
    ],
)
def test_an_impossible_calibration_is_refused_by_name(changes, reason):
    with pytest.raises(CameraError, match=reason):
        camera(**changes)


def test_a_camera_of_four_numbers():
    cam = PinholeCamera.from_intrinsics(500.0, 510.0, 319.5, 239.5, 640, 480)
    assert (cam.fx, cam.fy, cam.cx, cam.cy, cam.width, cam.height) == (500.0, 510.0, 319.5, 239.5, 640, 480)
    image = np.zeros((480, 640, 3), dtype=np.uint8)
    assert cam.rectify(image) is image
    with pytest.raises(CameraError, match="fx"):
        PinholeCamera.from_intrinsics(0.0, 510.0, 319.5, 239.5, 640, 480)


@pytest.mark.parametrize(
    ("model", "d"),
    [("plumb_bob", [-0.2, 0.05, 0.001, -0.001, 0.0]), ("equidistant", [0.02, -0.01, 0.003, 0.0])],
)
def test_a_raw_pixel_is_found_in_the_rectified_image_where_its_colour_goes(model, d):
    k = np.array([[200.0, 0.0, 159.5], [0.0, 200.0, 119.5], [0.0, 0.0, 1.0]])
    camera = PinholeCamera(320, 240, k, np.array(d), model, np.eye(3), np.hstack([k, np.zeros((3, 1))]))
    raw = np.zeros((240, 320, 3), np.uint8)
    raw[58:63, 68:73] = 255  # around (70, 60)
    v, u = np.nonzero(camera.rectify(raw)[..., 0])
    found = camera.rectified_pixels([[70.0, 60.0], [159.5, 119.5]])
    assert np.hypot(*(found[0] - (u.mean(), v.mean()))) < 0.5
    assert np.hypot(*(found[0] - (70.0, 60.0))) > 2.0
    np.testing.assert_allclose(found[1], [159.5, 119.5], atol=1.0 if model == "plumb_bob" else 1e-6)


def test_pixels_of_an_undistorted_image_stay_where_they_are():
    camera = PinholeCamera.from_intrinsics(200.0, 200.0, 159.5, 119.5, 320, 240)
    np.testing.assert_array_equal(camera.rectified_pixels([[3.0, 4.0]]), [[3.0, 4.0]])
