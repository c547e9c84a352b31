"""Images and CameraInfos as no driver should send them: a good pair, spoiled in none, one or several places."""

from __future__ import annotations

from typing import Any

from builtin_interfaces.msg import Time
from hypothesis import strategies as st
from sensor_msgs.msg import CameraInfo, Image, RegionOfInterest
from std_msgs.msg import Header

from depthlm_ros.ros.messages import BYTES_PER_PIXEL

UINT32 = 2**32 - 1
NUMBERS = st.one_of(
    st.sampled_from([0.0, -0.0, 1.0, -1.0, 20.0, 1e-300, 1e300, float("nan"), float("inf"), -float("inf")]),
    st.floats(-200.0, 200.0),
    st.floats(allow_nan=True, allow_infinity=True),
)
SIZES = st.one_of(st.integers(0, 40), st.sampled_from([1, 32, 65536, 2**31 - 1, UINT32]))
TEXTS = st.one_of(
    st.sampled_from(["", "rgb8", "RGB8", "32FC1", "16UC1", "8UC3", "yuv422", "bayer_rggb8", "plumb_bob"]),
    st.text(st.characters(exclude_characters="\x00", exclude_categories=("Cs",)), max_size=12),
)
STAMPS = st.builds(
    Time,
    sec=st.one_of(st.integers(-(2**31), 2**31 - 1), st.sampled_from([0, -1, 2**31 - 1])),
    nanosec=st.one_of(st.integers(0, UINT32), st.sampled_from([0, 999_999_999, UINT32])),
)
REGIONS = st.builds(
    RegionOfInterest, x_offset=SIZES, y_offset=SIZES, width=SIZES, height=SIZES, do_rectify=st.booleans()
)
IMAGE_SPOILS: dict[str, st.SearchStrategy[Any]] = {
    "width": SIZES,
    "height": SIZES,
    "step": SIZES,
    "encoding": TEXTS,
    "is_bigendian": st.integers(0, 255),
    "data": st.binary(max_size=200),
}
INFO_SPOILS: dict[str, st.SearchStrategy[Any]] = {
    "width": SIZES,
    "height": SIZES,
    "distortion_model": st.one_of(
        TEXTS, st.sampled_from(["plumb_bob", "rational_polynomial", "equidistant", "fisheye"])
    ),
    "d": st.lists(NUMBERS, max_size=14),
    "binning_x": SIZES,
    "binning_y": SIZES,
    "roi": REGIONS,
}
SPOILS = st.lists(
    st.sampled_from(
        [
            *(("image", name) for name in IMAGE_SPOILS),
            *(("info", name) for name in INFO_SPOILS),
            *(("info", name) for name in "krp"),
            ("stamp", ""),
        ]
    ),
    max_size=3,
)
"""Which fields of a good pair are spoiled; none leaves it good."""


@st.composite
def spoiled_pairs(draw: st.DrawFn, now: Time | None = None) -> tuple[Image, CameraInfo]:
    """An image and a CameraInfo of one stamp.

    Args:
        now: Stamp of those that are not spoiled; None leaves them at zero.
    """
    width, height = draw(st.integers(12, 40)), draw(st.integers(12, 40))
    encoding = draw(st.sampled_from(sorted(BYTES_PER_PIXEL)))
    step = width * BYTES_PER_PIXEL[encoding] + draw(st.sampled_from([0, 0, 1, 7]))
    grey = draw(st.integers(0, 255))
    header = Header(stamp=now or Time(), frame_id=draw(st.sampled_from(["camera", "", "a/b c"])))
    image = Image(header=header, width=width, height=height, encoding=encoding, step=step)
    image.data = bytes([grey]) * (step * height)
    focal = draw(st.floats(10.0, 60.0))
    k = [focal, 0.0, width / 2, 0.0, focal, height / 2, 0.0, 0.0, 1.0]
    info = CameraInfo(
        header=header, width=width, height=height, distortion_model="plumb_bob",
        d=draw(st.lists(st.floats(-0.3, 0.3), min_size=5, max_size=5)), k=k,
        r=[1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0],
        p=[*k[:3], 0.0, *k[3:6], 0.0, *k[6:], 0.0],
    )  # fmt: skip
    for kind, name in draw(SPOILS):
        if kind == "stamp":
            image.header = info.header = Header(stamp=draw(STAMPS), frame_id=header.frame_id)
        elif kind == "image":
            setattr(image, name, draw(IMAGE_SPOILS[name]))
        elif name in INFO_SPOILS:
            setattr(info, name, draw(INFO_SPOILS[name]))
        else:
            values = list(getattr(info, name))
            values[draw(st.integers(0, len(values) - 1))] = draw(NUMBERS)
            setattr(info, name, values)
    return image, info
