"""message_filters and sensor_msgs_py as this project calls them: real packages or stand-ins."""

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2 or its wheels: make setup")

import message_filters
from sensor_msgs.msg import Image, PointCloud2, PointField
from sensor_msgs_py import point_cloud2
from std_msgs.msg import Header, String

RNG = np.random.default_rng(7)


def stamped(nanoseconds, name=""):
    header = Header(frame_id=name)
    header.stamp.sec, header.stamp.nanosec = divmod(nanoseconds, 10**9)
    return Image(header=header)


def pairs_of(synchronizer):
    """Collects outputs as tuples of (sec * 1e9 + nanosec)."""
    pairs = []

    def keep(*messages):
        pairs.append(tuple(m.header.stamp.sec * 10**9 + m.header.stamp.nanosec for m in messages))

    synchronizer.registerCallback(keep)
    return pairs


MS = 10**6


def test_exact_synchronizer_pairs_equal_stamps_only():
    a, b = message_filters.SimpleFilter(), message_filters.SimpleFilter()
    pairs = pairs_of(message_filters.TimeSynchronizer([a, b], queue_size=5))
    for stamp in (1000, 2000, 3000):
        a.signalMessage(stamped(stamp))
    b.signalMessage(stamped(2001))
    assert pairs == []
    b.signalMessage(stamped(3000))
    b.signalMessage(stamped(1000))
    assert pairs == [(3000, 3000), (1000, 1000)]


def test_a_full_queue_forgets_the_oldest():
    a, b = message_filters.SimpleFilter(), message_filters.SimpleFilter()
    pairs = pairs_of(message_filters.TimeSynchronizer([a, b], queue_size=2))
    for stamp in (1000, 2000, 3000):
        a.signalMessage(stamped(stamp))
    b.signalMessage(stamped(1000))
    assert pairs == []
    b.signalMessage(stamped(2000))
    assert pairs == [(2000, 2000)]


def test_approximate_synchronizer_takes_the_nearest_within_the_slop():
    a, b = message_filters.SimpleFilter(), message_filters.SimpleFilter()
    pairs = pairs_of(message_filters.ApproximateTimeSynchronizer([a, b], 5, 0.02))
    for stamp in (100, 133, 166):
        a.signalMessage(stamped(stamp * MS))
    b.signalMessage(stamped(190 * MS))
    assert pairs == []
    b.signalMessage(stamped(150 * MS))
    assert pairs == [(166 * MS, 150 * MS)]
    b.signalMessage(stamped(131 * MS))
    assert pairs[1:] == [(133 * MS, 131 * MS)]
    # Every message is used once.
    b.signalMessage(stamped(132 * MS))
    assert len(pairs) == 2


def test_three_inputs_need_all_within_the_slop():
    filters = [message_filters.SimpleFilter() for _ in range(3)]
    pairs = pairs_of(message_filters.ApproximateTimeSynchronizer(filters, queue_size=5, slop=0.01))
    filters[0].signalMessage(stamped(100 * MS))
    filters[1].signalMessage(stamped(108 * MS))
    filters[2].signalMessage(stamped(116 * MS))
    assert pairs == []
    filters[2].signalMessage(stamped(104 * MS))
    assert pairs == [(100 * MS, 108 * MS, 104 * MS)]


def test_messages_without_a_header_need_to_be_allowed():
    for allowed in (False, True):
        a, b = message_filters.SimpleFilter(), message_filters.SimpleFilter()
        both = message_filters.ApproximateTimeSynchronizer([a, b], 5, 60.0, allow_headerless=allowed)
        outputs = []
        both.registerCallback(lambda *messages, to=outputs: to.append(messages))
        a.signalMessage(String(data="a"))
        b.signalMessage(String(data="b"))
        assert [tuple(m.data for m in pair) for pair in outputs] == ([("a", "b")] if allowed else [])


def test_callbacks_get_their_arguments():
    seen = []
    source = message_filters.SimpleFilter()
    source.registerCallback(lambda *all_of_it: seen.append(all_of_it), "x", 2)
    source.signalMessage("message")
    assert seen == [("message", "x", 2)]


def test_subscriber_passes_the_subscription_through():
    class Subscription:
        topic_name = "/camera/image"

    class Node:
        def create_subscription(self, msg_type, topic, callback, *, qos_profile, callback_group=None):
            self.made = (msg_type, topic, qos_profile, callback_group)
            self.deliver = callback
            return Subscription()

    node = Node()
    subscriber = message_filters.Subscriber(node, Image, "image", qos_profile=3, callback_group="group")
    assert node.made == (Image, "image", 3, "group")
    assert subscriber.topic_name == "/camera/image"
    seen = []
    subscriber.registerCallback(seen.append)
    node.deliver("message")
    assert seen == ["message"]


# --- sensor_msgs_py -----------------------------------------------------------------------------

NAMES = ("x", "y", "z", "rgb", "confidence", "sigma")


def float_fields(names=NAMES):
    return [
        PointField(name=n, offset=4 * i, datatype=PointField.FLOAT32, count=1) for i, n in enumerate(names)
    ]


def test_clouds_read_back():
    points = RNG.random((7, 6)).astype(np.float32)
    cloud = point_cloud2.create_cloud(Header(frame_id="optical"), float_fields(), points)
    assert (cloud.width, cloud.height, cloud.point_step, cloud.row_step) == (7, 1, 24, 168)
    assert cloud.header.frame_id == "optical"
    assert not cloud.is_bigendian
    np.testing.assert_array_equal(point_cloud2.read_points_numpy(cloud), points)
    some = point_cloud2.read_points_numpy(cloud, field_names=["z", "sigma"])
    np.testing.assert_array_equal(some, points[:, [2, 5]])
    structured = point_cloud2.read_points(cloud, ("x", "confidence"))
    assert structured.dtype.names == ("x", "confidence")
    np.testing.assert_array_equal(structured["confidence"], points[:, 4])


def test_points_with_nan_can_be_left_out():
    points = np.array([[1, 2, 3], [4, np.nan, 6], [7, 8, 9]], dtype=np.float32)
    cloud = point_cloud2.create_cloud_xyz32(Header(), points)
    assert [field.name for field in cloud.fields] == ["x", "y", "z"]
    np.testing.assert_array_equal(point_cloud2.read_points_numpy(cloud, skip_nans=True), points[[0, 2]])
    picked = point_cloud2.read_points_numpy(cloud, skip_nans=True, uvs=[1])
    np.testing.assert_array_equal(picked, points[[2]])


def test_fields_of_several_types_and_padding():
    fields = [
        PointField(name="z", offset=0, datatype=PointField.FLOAT32, count=1),
        PointField(name="status", offset=8, datatype=PointField.UINT8, count=1),
    ]
    dtype = point_cloud2.dtype_from_fields(fields, point_step=12)
    points = np.zeros(3, dtype)
    points["z"], points["status"] = [1.5, 2.5, 3.5], [0, 1, 2]
    cloud = point_cloud2.create_cloud(Header(), fields, points, 12)
    assert cloud.point_step == 12
    back = point_cloud2.read_points(cloud)
    np.testing.assert_array_equal(back["z"], points["z"])
    np.testing.assert_array_equal(back["status"], points["status"])
    with pytest.raises(AssertionError):
        point_cloud2.read_points_numpy(cloud)
    with pytest.raises(AssertionError):
        point_cloud2.create_cloud(Header(), fields, np.zeros((3, 2), np.float32))


def test_tuples_make_a_cloud_too():
    cloud = point_cloud2.create_cloud(Header(), float_fields("xyz"), [(1, 2, 3), (4, 5, 6)])
    assert isinstance(cloud, PointCloud2)
    np.testing.assert_array_equal(point_cloud2.read_points_numpy(cloud), [[1, 2, 3], [4, 5, 6]])
    with pytest.raises(AssertionError):
        point_cloud2.read_points(cloud, ["intensity"])
