"""Point clouds from arrays and back."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt
from numpy.lib.recfunctions import structured_to_unstructured, unstructured_to_structured
from sensor_msgs.msg import PointCloud2, PointField
from std_msgs.msg import Header

_FORMATS = {
    PointField.INT8: "i1",
    PointField.UINT8: "u1",
    PointField.INT16: "i2",
    PointField.UINT16: "u2",
    PointField.INT32: "i4",
    PointField.UINT32: "u4",
    PointField.FLOAT32: "f4",
    PointField.FLOAT64: "f8",
}


def dtype_from_fields(fields: Iterable[PointField], point_step: int | None = None) -> np.dtype:
    """The structured dtype of one point.

    Args:
        fields: As in the message. A field with count n > 1 becomes name_0 ... name_{n-1}.
        point_step: Bytes per point; None for no padding after the last field.
    """
    names: list[str] = []
    formats: list[str] = []
    offsets: list[int] = []
    for index, field in enumerate(fields):
        name = field.name or f"unnamed_field_{index}"
        assert field.count > 0, f"field {name} has count 0"
        size = np.dtype(_FORMATS[field.datatype]).itemsize
        for part in range(field.count):
            names.append(name if field.count == 1 else f"{name}_{part}")
            formats.append(_FORMATS[field.datatype])
            offsets.append(field.offset + part * size)
    assert len(set(names)) == len(names), f"field names are not unique: {names}"
    layout: dict = {"names": names, "formats": formats, "offsets": offsets}
    if point_step is not None:
        layout["itemsize"] = point_step
    return np.dtype(layout)


def create_cloud(
    header: Header, fields: Sequence[PointField], points: Iterable, point_step: int | None = None
) -> PointCloud2:
    """Builds a cloud.

    Args:
        header: Of the cloud.
        fields: Of one point.
        points: A structured array of just these fields; a plain array of shape (N, number of fields)
            where all fields have one datatype; or any iterable of one tuple per point. At least one point.
        point_step: Bytes per point; None for no padding.

    Returns:
        An unorganised cloud with `is_dense` false; set it where no point can be NaN.
    """
    dtype = dtype_from_fields(fields, point_step)
    if not isinstance(points, np.ndarray):
        array = np.array([tuple(point) for point in points], dtype=dtype)
    elif points.dtype.names is None:
        assert len({field.datatype for field in fields}) == 1, (
            "fields of several datatypes need a structured array"
        )
        array = unstructured_to_structured(points, dtype=dtype)
    else:
        assert points.dtype == dtype, f"the array is {points.dtype}, the fields say {dtype}"
        array = points
    assert array.ndim <= 2, f"points have {array.ndim} dimensions, at most 2 make a cloud"
    # The first axis is the width, as in the real package: pass flat arrays.
    width, height = array.shape[0], array.shape[1] if array.ndim == 2 else 1
    cloud = PointCloud2(
        header=header,
        height=height,
        width=width,
        fields=list(fields),
        is_bigendian=sys.byteorder != "little",
        is_dense=False,
        point_step=array.dtype.itemsize,
        row_step=array.dtype.itemsize * width,
    )
    cloud.data.frombytes(memoryview(array).cast("B"))
    return cloud


def create_cloud_xyz32(header: Header, points: Iterable) -> PointCloud2:
    """Builds a cloud of x, y, z in 32-bit floats; see `create_cloud`."""
    fields = [
        PointField(name=name, offset=4 * index, datatype=PointField.FLOAT32, count=1)
        for index, name in enumerate("xyz")
    ]
    return create_cloud(header, fields, points)


def read_points(
    cloud: PointCloud2,
    field_names: Iterable[str] | None = None,
    skip_nans: bool = False,
    uvs: Iterable[int] | None = None,
    reshape_organized_cloud: bool = False,
) -> npt.NDArray:
    """Reads a cloud's points.

    Args:
        cloud: The cloud.
        field_names: Which fields; None for all.
        skip_nans: Leave out points with a NaN in one of the fields; not looked for in a dense cloud.
        uvs: Indices of the points wanted, counted after `skip_nans`.
        reshape_organized_cloud: Shape (width, height) where the height is greater than 1.

    Returns:
        A structured array, flat unless reshaped.
    """
    assert isinstance(cloud, PointCloud2), f"expected a PointCloud2, got {type(cloud).__name__}"
    dtype = dtype_from_fields(cloud.fields, cloud.point_step)
    points = np.ndarray((cloud.width * cloud.height,), dtype=dtype, buffer=cloud.data)
    if field_names is not None:
        wanted = list(field_names)
        absent = [name for name in wanted if name not in (dtype.names or ())]
        assert not absent, f"the cloud has no field {absent}, only {dtype.names}"
        points = points[wanted]
    if bool(cloud.is_bigendian) != (sys.byteorder == "big"):
        points = points.byteswap()
    if skip_nans and not cloud.is_dense:
        whole = np.ones(len(points), dtype=bool)
        for name in points.dtype.names or ():
            whole &= ~np.isnan(points[name])
        points = points[whole]
    if uvs is not None:
        points = points[uvs if isinstance(uvs, np.ndarray) else np.fromiter(uvs, int)]
    if reshape_organized_cloud and cloud.height > 1:
        points = points.reshape(cloud.width, cloud.height)
    return points


def read_points_numpy(
    cloud: PointCloud2,
    field_names: Iterable[str] | None = None,
    skip_nans: bool = False,
    uvs: Iterable[int] | None = None,
    reshape_organized_cloud: bool = False,
) -> npt.NDArray:
    """Like `read_points`, as a plain array of shape (N, number of fields); needs fields of one datatype."""
    wanted = None if field_names is None else list(field_names)
    kinds = {field.datatype for field in cloud.fields if wanted is None or field.name in wanted}
    assert len(kinds) <= 1, "the fields have several datatypes: use read_points()"
    return structured_to_unstructured(read_points(cloud, wanted, skip_nans, uvs, reshape_organized_cloud))
